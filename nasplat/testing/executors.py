"""The contract of an executor as tests."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

import pytest

from nasplat.config import Execution
from nasplat.errors import MemoryLimitError, TrialEndedError, TrialTimeoutError, WorkerLostError
from nasplat.executors import TrialExecutor
from nasplat.measurement import Measurement
from nasplat.testing import calls


class ExecutorSuite:
    """Tests of any executor; its calls return measurements, as those of a study do.

    ::

        class TestMyExecutor(ExecutorSuite):
            @classmethod
            def make(cls, execution: Execution) -> TrialExecutor:
                return my_executor(execution)

    Attributes:
        workers: How many are asked for.
        isolated: Whether calls run in processes of their own, which can be killed and stopped at a limit.
        time_limit: Seconds after which a call that never ends is stopped; what ends at once must not meet it.
        memory_limit: Bytes at which a call that eats memory is stopped; a worker that does nothing takes fewer.
    """

    workers: ClassVar[int] = 2
    isolated: ClassVar[bool] = True
    time_limit: ClassVar[float] = 2.0
    memory_limit: ClassVar[int] = 2**30

    @classmethod
    def make(cls, execution: Execution) -> TrialExecutor:
        """The subject, new: workers and limits are as given, and the rest is yours."""
        raise NotImplementedError("override the class method 'make' with your own")

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls) -> Iterator[TrialExecutor]:
        """One executor for most tests, because starting workers takes seconds."""
        with cls.make(Execution(workers=cls.workers)) as executor:
            yield executor

    def test_capacity_keeps_every_worker_busy(self, executor: TrialExecutor) -> None:
        """At least one call a worker."""
        assert executor.capacity >= self.workers

    def test_a_call_gives_its_result(self, executor: TrialExecutor) -> None:
        """With positional and keyword arguments."""
        assert self.outcome(executor, executor.submit(calls.give, 3.0, twice=True)).result() == calls.give(6.0)

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

    def test_wait_gives_each_future_once(self, executor: TrialExecutor) -> None:
        """When it is done, however many are in flight."""
        count = 4 * executor.capacity
        futures = [executor.submit(calls.give, float(n)) for n in range(count)]
        self.ended(executor, futures)
        assert executor.wait(0.0) == []
        assert [future.result()["value"] for future in futures] == list(range(count))

    def test_wait_gives_the_first_that_ends_first(self, executor: TrialExecutor, tmp_path: Path) -> None:
        """Not the one that was submitted first."""
        self.needs_isolation(workers=2)
        late, early = executor.submit(calls.wait_for, str(tmp_path / "go")), executor.submit(calls.give, 1.0)
        assert executor.wait() == [early]
        (tmp_path / "go").touch()
        assert executor.wait() == [late]

    def test_wait_returns_with_nothing_after_its_timeout(self, executor: TrialExecutor, tmp_path: Path) -> None:
        """What had not ended is given by a later call."""
        self.needs_isolation()
        future = executor.submit(calls.wait_for, str(tmp_path / "go"))
        assert executor.wait(0.0) == []
        assert executor.wait(0.1) == []
        (tmp_path / "go").touch()
        assert self.outcome(executor, future).result() == calls.give(1.0)

    def test_workers_run_at_the_same_time(self, executor: TrialExecutor, tmp_path: Path) -> None:
        """Two calls meet that wait for each other."""
        self.needs_isolation(workers=2)
        names = [("one", "other"), ("other", "one")]
        futures = [executor.submit(calls.meet, str(tmp_path), *pair) for pair in names]
        assert [future.result() for future in self.ended(executor, futures)] == 2 * [calls.give(1.0)]

    def test_a_dead_worker_loses_its_call_alone(self, executor: TrialExecutor) -> None:
        """What others run goes on, and so does the executor."""
        self.needs_isolation()
        lost, kept = executor.submit(calls.die), executor.submit(calls.sleep, 0.2)
        self.ended(executor, [lost, kept])
        assert isinstance(lost.exception(), WorkerLostError)
        assert kept.result() == calls.give(0.2)
        self.assert_goes_on(executor)

    @pytest.mark.parametrize(
        ("call", "argument", "exit_signal"),
        [(calls.die, "no more", "SIGKILL"), (calls.leave, 3, "exit code 3"), (calls.leave, 0, "exit code 0")],
    )
    def test_an_error_says_how_the_worker_died(
        self, executor: TrialExecutor, call: Callable[..., Measurement], argument: object, exit_signal: str
    ) -> None:
        """And which one it was, where the executor can see it."""
        self.needs_isolation()
        error = self.outcome(executor, executor.submit(call, argument)).exception()
        assert isinstance(error, WorkerLostError)
        assert error.ending.exit_signal == exit_signal
        assert error.ending.worker is not None
        assert error.ending.worker.pid > 0
        self.assert_goes_on(executor)

    def test_an_error_has_the_last_lines_of_a_call_that_printed_a_gigabyte(self, executor: TrialExecutor) -> None:
        """And only those."""
        self.needs_isolation()
        error = self.outcome(executor, executor.submit(calls.flood, 2**30, "the last words")).exception()
        assert isinstance(error, WorkerLostError)
        assert error.ending.log.endswith("the last words")
        assert len(error.ending.log) < 2**16
        self.assert_goes_on(executor)

    def test_what_a_call_printed_is_not_said_of_the_next(self, executor: TrialExecutor) -> None:
        """On the same worker or another."""
        self.needs_isolation()
        for words in ("one", "two"):
            error = self.outcome(executor, executor.submit(calls.die, words)).exception()
            assert isinstance(error, TrialEndedError)
            assert error.ending.log == words

    def test_a_call_is_stopped_at_the_time_limit(self) -> None:
        """With an error that says so, and the executor goes on."""
        self.needs_isolation()
        with self.make(Execution(workers=1, time_limit=self.time_limit)) as executor:
            error = self.outcome(executor, executor.submit(calls.sleep, 3_600.0)).exception()
            assert isinstance(error, TrialTimeoutError)
            assert f"time limit of {self.time_limit:g}" in str(error)
            assert error.ending.worker is not None
            self.assert_goes_on(executor)

    def test_a_call_is_stopped_at_the_memory_limit(self) -> None:
        """Before it has taken four times as much, and the executor goes on."""
        self.needs_isolation()
        with self.make(Execution(workers=1, memory_limit=self.memory_limit)) as executor:
            error = self.outcome(executor, executor.submit(calls.eat, 4 * self.memory_limit)).exception()
            assert isinstance(error, MemoryLimitError)
            assert f"memory limit of {self.memory_limit / 2**30:.2f} GiB" in str(error)
            assert error.ending.worker is not None
            self.assert_goes_on(executor)

    def test_shutdown_stops_what_runs(self) -> None:
        """With ``cancel_futures``, as a study ends; nobody who holds a future waits for ever."""
        executor = self.make(Execution(workers=self.workers))
        never = [executor.submit(calls.sleep, 3_600.0) for _ in range(self.workers + 1)] if self.isolated else []
        executor.shutdown(cancel_futures=True)
        assert all(future.done() for future in never)
        executor.shutdown()

    def test_shutdown_waits_for_what_was_submitted(self) -> None:
        """Without ``cancel_futures``; twice is as good as once."""
        self.needs_isolation()
        executor = self.make(Execution(workers=1))
        futures = [executor.submit(calls.give, float(n)) for n in range(3)]
        executor.shutdown()
        executor.shutdown()
        assert [future.result() for future in futures] == [calls.give(float(n)) for n in range(3)]

    def needs_isolation(self, *, workers: int = 1) -> None:
        """Skip where calls run in the test's own process, or where there are fewer workers."""
        if not self.isolated:
            pytest.skip("calls run in this process")
        if self.workers < workers:
            pytest.skip(f"takes {workers} workers")

    def ended(self, executor: TrialExecutor, futures: Sequence[Future[Measurement]]) -> list[Future[Measurement]]:
        """All that is in flight, as ``wait`` gives it."""
        ended: list[Future[Measurement]] = []
        while len(ended) < len(futures):
            some = executor.wait()
            assert some
            assert all(future.done() for future in some)
            ended += some
        assert len(ended) == len(futures)
        assert set(ended) == set(futures)
        return ended

    def outcome(self, executor: TrialExecutor, future: Future[Measurement]) -> Future[Measurement]:
        """The only future in flight once it is done."""
        return self.ended(executor, [future])[0]

    def assert_goes_on(self, executor: TrialExecutor) -> None:
        """A later call is run as if nothing had been."""
        assert self.outcome(executor, executor.submit(calls.give, 5.0)).result() == calls.give(5.0)
