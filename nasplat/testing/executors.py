"""The contract of an executor as tests."""

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

import pytest

from nasplat.errors import TrialTimeoutError, WorkerLostError
from nasplat.executors import TrialExecutor
from nasplat.measurement import Measurement
from nasplat.testing import calls


class ExecutorSuite:
    """Tests of any executor; its calls return measurements, as those of a study do.

    ::

        class TestMyExecutor(ExecutorSuite):
            @classmethod
            def make(cls, workers: int, time_limit: float | None) -> TrialExecutor:
                return my_executor(workers, time_limit)

    Attributes:
        workers: How many are asked for.
        isolated: Whether calls run in processes of their own, which can be killed and stopped at a time limit.
        time_limit: Seconds after which a call that never ends is stopped; what ends at once must not meet it.
    """

    workers: ClassVar[int] = 2
    isolated: ClassVar[bool] = True
    time_limit: ClassVar[float] = 2.0

    @classmethod
    def make(cls, workers: int, time_limit: float | None) -> TrialExecutor:
        """The subject, new."""
        raise NotImplementedError("override the class method 'make' with your own")

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls) -> Iterator[TrialExecutor]:
        """One executor for most tests, because starting workers takes seconds."""
        with cls.make(cls.workers, None) as executor:
            yield executor

    def test_capacity_keeps_every_worker_busy(self, executor: TrialExecutor) -> None:
        """At least one call a worker."""
        assert executor.capacity >= self.workers

    def test_a_call_gives_its_result(self, executor: TrialExecutor) -> None:
        """With positional and keyword arguments."""
        future = executor.submit(calls.give, 3.0, twice=True)
        assert executor.wait([future]) == {future}
        assert future.result() == calls.give(6.0)

    def test_an_error_stays_in_the_future(self, executor: TrialExecutor) -> None:
        """With its type and text, and the executor goes on."""
        error = self.outcome(executor, executor.submit(calls.fail, "the reason")).exception()
        assert isinstance(error, ValueError)
        assert str(error) == "the reason"
        self.assert_goes_on(executor)

    def test_a_timeout_of_the_call_itself_is_no_time_limit(self, executor: TrialExecutor) -> None:
        """It comes back as it was raised."""
        error = self.outcome(executor, executor.submit(calls.time_out, "the server is slow")).exception()
        assert isinstance(error, TimeoutError)
        assert not isinstance(error, TrialTimeoutError)
        assert str(error) == "the server is slow"
        self.assert_goes_on(executor)

    def test_wait_gives_what_is_done(self, executor: TrialExecutor) -> None:
        """One future or more of those that it was given, each of which is done, until none is left."""
        pending = {executor.submit(calls.give, float(n)) for n in range(4 * executor.capacity)}
        values = []
        while pending:
            done = executor.wait(pending)
            assert done
            assert done <= pending
            assert all(future.done() for future in done)
            values += [future.result()["value"] for future in done]
            pending -= done
        assert sorted(values) == [float(n) for n in range(4 * executor.capacity)]

    def test_wait_returns_at_once_for_what_is_done_already(self, executor: TrialExecutor) -> None:
        """However often it is asked."""
        future = self.outcome(executor, executor.submit(calls.give, 1.0))
        assert executor.wait([future]) == {future}

    def test_workers_run_at_the_same_time(self, executor: TrialExecutor, tmp_path: Path) -> None:
        """Two calls meet that wait for each other."""
        self.needs_isolation()
        if self.workers < 2:
            pytest.skip("takes two workers")
        names = [("one", "other"), ("other", "one")]
        futures = [executor.submit(calls.meet, str(tmp_path), *pair) for pair in names]
        for future in futures:
            assert self.outcome(executor, future).result() == calls.give(1.0)

    def test_a_dead_worker_loses_its_call_alone(self, executor: TrialExecutor) -> None:
        """What others run goes on, and so does the executor."""
        self.needs_isolation()
        lost, kept = executor.submit(calls.die), executor.submit(calls.sleep, 0.2)
        assert isinstance(self.outcome(executor, lost).exception(), WorkerLostError)
        assert self.outcome(executor, kept).result() == calls.give(0.2)
        self.assert_goes_on(executor)

    def test_a_call_is_stopped_at_the_time_limit(self) -> None:
        """With an error that says so, and the executor goes on."""
        self.needs_isolation()
        with self.make(1, self.time_limit) as executor:
            error = self.outcome(executor, executor.submit(calls.sleep, 3_600.0)).exception()
            assert isinstance(error, TrialTimeoutError)
            assert f"time limit of {self.time_limit:g}" in str(error)
            self.assert_goes_on(executor)

    def test_shutdown_stops_what_runs(self) -> None:
        """With ``cancel_futures``, as a study ends; nobody who holds a future waits for ever."""
        executor = self.make(self.workers, None)
        never = [executor.submit(calls.sleep, 3_600.0) for _ in range(self.workers + 1)] if self.isolated else []
        executor.shutdown(cancel_futures=True)
        assert all(future.done() for future in never)
        executor.shutdown()

    def test_shutdown_waits_for_what_was_submitted(self) -> None:
        """Without ``cancel_futures``; twice is as good as once."""
        self.needs_isolation()
        executor = self.make(1, None)
        futures = [executor.submit(calls.give, float(n)) for n in range(3)]
        executor.shutdown()
        executor.shutdown()
        assert [future.result() for future in futures] == [calls.give(float(n)) for n in range(3)]

    def needs_isolation(self) -> None:
        """Skip where calls run in the test's own process."""
        if not self.isolated:
            pytest.skip("calls run in this process")

    def outcome(self, executor: TrialExecutor, future: Future[Measurement]) -> Future[Measurement]:
        """The future once it is done."""
        assert executor.wait([future]) == {future}
        return future

    def assert_goes_on(self, executor: TrialExecutor) -> None:
        """A later call is run as if nothing had been."""
        future = executor.submit(calls.give, 5.0)
        assert self.outcome(executor, future).result() == calls.give(5.0)
