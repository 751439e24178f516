"""Budgets and repeated seeds around a scripted strategy."""

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasplat.architecture import Architecture
from nasplat.config import Budget
from nasplat.errors import InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Failure, FailureReason, Measurement, Metric, Role
from nasplat.seeding import proposal_rng
from nasplat.strategies.random import Random
from nasplat.strategy import Strategy
from nasplat.testing import Conversation, ToySpace
from nasplat.testing.conversation import failing, made_up
from nasplat.testing.strategies import context_of
from nasplat.trial import Proposal, Trial
from nasplat.wrappers import Budgeted, Repeated

SPACE = ToySpace()
CONTEXT = context_of(SPACE)
FULL, ZERO = CONTEXT.fidelity, Fidelity(0)


@final
class Scripted(Strategy):
    """Asks for given proposals, then for distinct architectures for ever; remembers what it is told."""

    def __init__(self, script: Sequence[Proposal] = ()) -> None:
        self._script = script
        self.told: list[Trial] = []

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        if number < len(self._script):
            return self._script[number]
        return Proposal(SPACE.at(number % SPACE.size), FULL, seed=100 * (number // SPACE.size))

    def tell(self, trial: Trial) -> None:
        self.told.append(trial)


def costing(seconds: float, gpu_seconds: float = 0.0) -> Measurement:
    return Measurement({"val_accuracy": Metric(0.5, Role.SEARCH)}, Cost(seconds, gpu_seconds))


def finished(number: int, proposal: Proposal, outcome: Measurement | Failure, repeat_of: int | None = None) -> Trial:
    saved = repeat_of is not None
    return Trial(number, proposal, number, f"identity {number}", outcome, number, saved, repeat_of)


def asked(strategy: Strategy, number: int) -> Proposal | None:
    return strategy.ask(number, proposal_rng(0, number))


class TestBudgeted:
    def test_trials_in_flight_are_reserved(self) -> None:
        strategy = Budgeted(Scripted(), Budget(trials=3), FULL)
        assert [asked(strategy, n) is None for n in range(5)] == [False, False, False, True, True]

    def test_a_failed_trial_is_spent(self) -> None:
        strategy = Budgeted(Scripted(), Budget(trials=1), FULL)
        proposal = asked(strategy, 0)
        assert proposal is not None
        strategy.tell(finished(0, proposal, Failure(FailureReason.ERROR, "made up")))
        assert asked(strategy, 1) is None

    def test_trials_below_the_full_fidelity_cost_time_alone(self) -> None:
        scores = [Proposal(SPACE.at(n), ZERO) for n in range(5)]
        strategy = Budgeted(Scripted(scores), Budget(trials=1), FULL)
        proposals = [asked(strategy, n) for n in range(7)]
        assert [p is not None and p.fidelity for p in proposals] == [ZERO] * 5 + [FULL, False]

    def test_a_repeat_is_free(self) -> None:
        strategy = Budgeted(Scripted(), Budget(trials=1), FULL)
        for n in range(3):
            proposal = asked(strategy, n)
            assert proposal is not None
            assert asked(strategy, n + 1) is None
            strategy.tell(finished(n, proposal, costing(1.0), repeat_of=0))
        assert asked(strategy, 3) is not None

    def test_a_repeat_counts_where_the_protocol_says_so(self) -> None:
        strategy = Budgeted(Scripted(), Budget(trials=2, count_repeats=True), FULL)
        for n in range(2):
            proposal = asked(strategy, n)
            assert proposal is not None
            strategy.tell(finished(n, proposal, costing(1.0), repeat_of=0))
        assert asked(strategy, 2) is None

    def test_a_measurement_that_another_study_paid_for_counts_as_a_trial_and_costs_no_time(self) -> None:
        strategy = Budgeted(Scripted(), Budget(trials=2, seconds=1.0), FULL)
        proposal = asked(strategy, 0)
        assert proposal is not None
        strategy.tell(replace(finished(0, proposal, costing(50.0)), saved=True))
        assert asked(strategy, 1) is not None
        assert asked(strategy, 2) is None

    @given(
        workers=st.integers(1, 8),
        budget=st.floats(1.0, 100.0),
        costs=st.lists(st.floats(0.5, 10.0), min_size=300, max_size=300),
        data=st.data(),
    )
    def test_a_budget_is_overrun_by_no_more_than_the_trials_in_flight(
        self, workers: int, budget: float, costs: list[float], data: st.DataObject
    ) -> None:
        strategy = Budgeted(Scripted(), Budget(gpu_seconds=budget), FULL)
        flying: dict[int, Proposal] = {}
        spent, number, last = 0.0, 0, 0.0
        while True:
            while len(flying) < workers and (proposal := asked(strategy, number)) is not None:
                # What is in flight is expected to cost as much as what was paid for, and was within the budget.
                paid = number - len(flying)
                expected = spent * len(flying) / paid if paid else 0.0
                assert spent + expected < budget
                last = spent + sum(costs[n] for n in flying) + costs[number]
                flying[number] = proposal
                number += 1
            if not flying:
                break
            ended = data.draw(st.sampled_from(sorted(flying)))
            strategy.tell(finished(ended, flying.pop(ended), costing(1.0, gpu_seconds=costs[ended])))
            spent += costs[ended]
        assert spent >= budget
        assert spent == pytest.approx(last)
        assert spent < budget + 10.0 * workers

    def test_a_budget_in_money_needs_a_price(self) -> None:
        with pytest.raises(InvalidInputError, match="a budget in cost needs a price: set price_per_hour"):
            Budget(cost=10.0)

    @pytest.mark.parametrize(
        ("budget", "outcome"),
        [
            (Budget(seconds=10.0), costing(4.0)),
            (Budget(seconds=10.0), Failure(FailureReason.TIMED_OUT, "made up", seconds=4.0)),
            (Budget(gpu_seconds=10.0), costing(1.0, gpu_seconds=4.0)),
            (Budget(gpu_seconds=10.0), Failure(FailureReason.ERROR, "made up", seconds=1.0, gpu_seconds=4.0)),
            # 4 hours of a worker at 0.50 and 1 hour of a GPU at 2.00 are 4.00.
            (Budget(cost=10.0, price_per_hour=0.5, price_per_gpu_hour=2.0), costing(4 * 3600.0, gpu_seconds=3600.0)),
        ],
    )
    def test_time_ends_a_study(self, budget: Budget, outcome: Measurement | Failure) -> None:
        strategy = Budgeted(Scripted(), budget, FULL)
        spent = 0
        while (proposal := asked(strategy, spent)) is not None:
            strategy.tell(finished(spent, proposal, outcome))
            spent += 1
        assert spent == 3

    @pytest.mark.parametrize(
        ("budget", "asks"),
        [
            (Budget(), 2_000),  # without a limit the strategy decides
            (Budget(trials=100), 1_050),
            (Budget(seconds=1e6), 1_050),
            (Budget(seconds=1e6, count_repeats=True), 1_050),
            (Budget(trials=1_500, count_repeats=True), 1_500),
        ],
    )
    def test_a_strategy_that_only_repeats_itself_is_stopped(self, budget: Budget, asks: int) -> None:
        strategy = Budgeted(_Ever(), budget, FULL)
        talk = Conversation(strategy, made_up(CONTEXT)).run(2_000)
        assert len(talk.trials) == asks

    def test_news_between_repeats_goes_on(self) -> None:
        strategy = Budgeted(Random(CONTEXT), Budget(trials=SPACE.size), FULL)
        talk = Conversation(strategy, made_up(CONTEXT), in_flight=4).run(5_000)
        assert len({t.identity for t in talk.trials}) == SPACE.size

    def test_everything_is_passed_on(self) -> None:
        inner = Scripted()
        talk = Conversation(Budgeted(inner, Budget(trials=9), FULL), failing(made_up(CONTEXT), 0.3)).run(50)
        assert inner.told == [t.for_strategy() for t in talk.trials]


@final
class _Ever(Strategy):
    """Every architecture once, and then the last one for ever."""

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        return Proposal(SPACE.at(min(number, SPACE.size - 1)), FULL)

    def tell(self, trial: Trial) -> None:
        pass


class TestRepeated:
    def test_each_trained_proposal_has_its_seeds(self) -> None:
        script = [Proposal(SPACE.at(3), ZERO, seed=7), Proposal(SPACE.at(4), FULL, seed=7)]
        strategy = Repeated(Scripted(script), 3)
        proposals = [asked(strategy, n) for n in range(5)]
        assert [(p and p.architecture, p and p.seed) for p in proposals] == [
            (SPACE.at(3), 7),
            (SPACE.at(4), 7),
            (SPACE.at(4), 8),
            (SPACE.at(4), 9),
            (SPACE.at(2), 0),
        ]

    def test_the_mean_is_told_under_the_strategys_own_numbers(self) -> None:
        script = [Proposal(SPACE.at(3), ZERO), Proposal(SPACE.at(4), FULL, parents=(0,), why="promoted")]
        inner = Scripted(script)
        strategy = Repeated(inner, 2)
        proposals = [asked(strategy, n) for n in range(3)]
        outcomes = [measured(0.1), measured(0.2), measured(0.6)]
        for number in (2, 0, 1):
            assert proposals[number] is not None
            strategy.tell(finished(number, proposals[number] or script[0], outcomes[number]))
        assert [t.number for t in inner.told] == [0, 1]
        assert [t.proposal for t in inner.told] == script
        assert [t.measurement and t.measurement["val_accuracy"] for t in inner.told] == [0.1, pytest.approx(0.4)]

    def test_parents_are_the_trials_of_their_first_seeds(self) -> None:
        script = [Proposal(SPACE.at(n), FULL) for n in range(2)]
        script.append(Proposal(SPACE.at(2), FULL, parents=(0, 1)))
        talk = Conversation(Repeated(Scripted(script), 3), made_up(CONTEXT)).run(9)
        assert [t.proposal.parents for t in talk.trials] == [()] * 6 + [(0, 3)] * 3

    def test_a_failed_seed_is_told_as_the_failure(self) -> None:
        inner = Scripted()
        strategy = Repeated(inner, 2)
        failure = Failure(FailureReason.NON_FINITE, "diverged")
        outcomes: list[Measurement | Failure] = [measured(0.9), failure]
        for number, outcome in enumerate(outcomes):
            proposal = asked(strategy, number)
            assert proposal is not None
            strategy.tell(finished(number, proposal, outcome))
        assert [(t.number, t.outcome) for t in inner.told] == [(0, failure)]

    def test_a_repeat_names_the_strategys_own_trial(self) -> None:
        script = [Proposal(SPACE.at(0), FULL), Proposal(SPACE.at(1), FULL), Proposal(SPACE.at(1), FULL)]
        inner = Scripted(script)
        talk = Conversation(Repeated(inner, 2), made_up(CONTEXT)).run(6)
        assert [t.repeat_of for t in talk.trials] == [None] * 4 + [2, 3]
        assert [t.repeat_of for t in inner.told] == [None, None, 1]

    def test_a_proposal_with_one_new_seed_is_news(self) -> None:
        script = [Proposal(SPACE.at(0), FULL, seed=0), Proposal(SPACE.at(0), FULL, seed=1)]
        inner = Scripted(script)
        talk = Conversation(Repeated(inner, 2), made_up(CONTEXT)).run(4)
        assert [t.repeat_of for t in talk.trials] == [None, None, 1, None]
        assert [t.repeat_of for t in inner.told] == [None, None]


def measured(accuracy: float) -> Measurement:
    return Measurement({"val_accuracy": Metric(accuracy, Role.SEARCH), "params": Metric(7.0, Role.NONE)})


def test_the_mean_keeps_roles() -> None:
    inner = Scripted()
    talk = Conversation(Repeated(inner, 3), lambda p: measured(0.1 * p.seed)).run(3)
    assert len(talk.trials) == 3
    told = inner.told[0].measurement
    assert told is not None
    assert told.metrics["params"] == Metric(7.0, Role.NONE)
    assert told["val_accuracy"] == pytest.approx(0.1)


def _architectures(trials: Sequence[Trial]) -> list[Architecture]:
    return [t.proposal.architecture for t in trials]


def test_a_budget_ends_among_the_seeds_of_a_proposal() -> None:
    strategy = Budgeted(Repeated(Scripted(), 2), Budget(trials=5), FULL)
    talk = Conversation(strategy, made_up(CONTEXT), in_flight=2).run(50)
    assert _architectures(talk.trials) == [SPACE.at(n) for n in (0, 0, 1, 1, 2)]
