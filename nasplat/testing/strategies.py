"""The contract of a strategy as tests."""

import random
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch

from nasplat.architecture import Architecture
from nasplat.fidelity import Fidelity
from nasplat.objective import Constraint, Goal, Objective
from nasplat.space import SearchSpace
from nasplat.strategy import SearchContext, Strategy
from nasplat.testing.conversation import Conversation, failing, made_up, repeated
from nasplat.testing.elsewhere import elsewhere
from nasplat.testing.toy import ToySpace
from nasplat.trial import Proposal

IN_FLIGHT = [1, 2, 7]
SPACE = ToySpace()


class StrategySuite:
    """Tests of any strategy on the 50 networks of ``ToySpace`` with made-up measurements.

    Measurements are told as a study tells them: without test metrics, zero epochs with the proxy alone::

        class TestMyStrategy(StrategySuite):
            @pytest.fixture
            def strategy(self) -> Callable[[SearchContext], Strategy]:
                return functools.partial(MyStrategy, population=5)

    The callable must be picklable: the class itself, a partial of it, or a function of the test module.

    Attributes:
        asks: Proposals in one conversation; enough for the strategy to reach the study's own fidelity.
    """

    asks: ClassVar[int] = 120

    @pytest.fixture
    def strategy(self) -> Callable[[SearchContext], Strategy]:
        """The subject: from a context to a new strategy."""
        raise NotImplementedError("override the fixture 'strategy' with your own")

    @pytest.fixture
    def space(self) -> SearchSpace:
        """What is searched; another one for a strategy that needs more than ``ToySpace`` has."""
        return SPACE

    @pytest.fixture
    def context(self, space: SearchSpace) -> SearchContext:
        """What the strategy is given."""
        return context_of(space)

    @pytest.mark.parametrize("in_flight", IN_FLIGHT)
    def test_proposals_follow_from_the_seed_and_the_told_trials(
        self, strategy: Callable[[SearchContext], Strategy], context: SearchContext, in_flight: int
    ) -> None:
        """Global random state plays no part and is left alone."""
        conversations = []
        for state in (1, 2):
            _seed_everything(state)
            before = _global_state()
            conversations.append(self.talk(strategy, context, in_flight=in_flight, order=5))
            assert _global_state() == before, "the strategy draws from a global generator; use the given rng"
        assert conversations[0].proposals == conversations[1].proposals

    def test_proposals_are_the_same_in_another_process(
        self, strategy: Callable[[SearchContext], Strategy], context: SearchContext
    ) -> None:
        """No set order, no identity of an object, no process gets into a proposal."""
        here = _texts(strategy, context, self.asks)
        assert elsewhere(_texts, strategy, context, self.asks) == here

    @pytest.mark.parametrize("in_flight", IN_FLIGHT)
    def test_repeating_the_calls_repeats_the_proposals(
        self, strategy: Callable[[SearchContext], Strategy], context: SearchContext, in_flight: int
    ) -> None:
        """A study is resumed at any point by repeating its calls, though answers None are not repeated."""
        done = self.talk(strategy, context, in_flight=in_flight, order=3, nagging=2, failures=0.2)
        assert repeated(strategy(context), done.calls) == done.proposals

    @pytest.mark.parametrize("in_flight", IN_FLIGHT)
    def test_none_leaves_the_strategy_as_it_was(
        self, strategy: Callable[[SearchContext], Strategy], context: SearchContext, in_flight: int
    ) -> None:
        """The same number is asked again later, however often."""
        once, often = (self.talk(strategy, context, in_flight=in_flight, order=4, nagging=n) for n in (0, 3))
        assert once.proposals == often.proposals

    @pytest.mark.parametrize("order", range(4))
    def test_trials_are_told_in_any_order(
        self, strategy: Callable[[SearchContext], Strategy], context: SearchContext, order: int
    ) -> None:
        """With sixteen in flight, every proposal is told."""
        done = self.talk(strategy, context, in_flight=16, order=order)
        assert done.trials
        assert all(trial.outcome is not None for trial in done.trials)

    @pytest.mark.parametrize("failures", [0.3, 1.0])
    @pytest.mark.parametrize("in_flight", IN_FLIGHT)
    def test_failed_trials_are_told_too(
        self, strategy: Callable[[SearchContext], Strategy], context: SearchContext, failures: float, in_flight: int
    ) -> None:
        """Some or all of them."""
        assert self.talk(strategy, context, in_flight=in_flight, order=1, failures=failures).trials

    def test_several_goals_and_constraints(
        self, strategy: Callable[[SearchContext], Strategy], space: SearchSpace
    ) -> None:
        """A violated constraint makes every goal infinite."""
        goals = (Goal("val_accuracy", True), Goal("latency_ms", False))
        objective = Objective(goals, (Constraint("params", "<=", 0.5),))
        assert self.talk(strategy, context_of(space, objective)).trials

    @pytest.mark.parametrize("in_flight", IN_FLIGHT)
    def test_proposals_are_well_formed(
        self, strategy: Callable[[SearchContext], Strategy], context: SearchContext, in_flight: int
    ) -> None:
        """Of the space, at most at the study's fidelity and some at it, with told trials as parents."""
        done = self.talk(strategy, context, in_flight=in_flight, order=2)
        for trial in done.trials:
            proposal = trial.proposal
            assert context.space.parse(proposal.architecture.text) == proposal.architecture
            assert proposal.fidelity.epochs <= context.fidelity.epochs
            assert proposal.seed >= 0
            assert proposal.why
            for parent in proposal.parents:
                assert 0 <= parent < trial.number
                told = done.trials[parent].told
                assert told is not None
                assert told < trial.asked_after, f"parent {parent} was not told when trial {trial.number} was asked"
        assert any(proposal.fidelity == context.fidelity for proposal in done.proposals), "asks may be too few"

    def test_constraints_on_counts_are_honoured(
        self, strategy: Callable[[SearchContext], Strategy], space: SearchSpace
    ) -> None:
        """What a restricted space does not draw is not asked for; a supernet holds it all the same."""
        done = self.talk(strategy, context_of(space.restricted(accepted)), in_flight=2, order=1)
        assert done.proposals
        single = [proposal.architecture for proposal in done.proposals if not proposal.architecture.is_supernet]
        assert single
        assert all(accepted(architecture) for architecture in single)

    def talk(
        self,
        strategy: Callable[[SearchContext], Strategy],
        context: SearchContext,
        *,
        in_flight: int = 1,
        order: int | None = None,
        nagging: int = 0,
        failures: float = 0.0,
    ) -> Conversation:
        """A conversation with a new strategy."""
        measure = failing(made_up(context), failures)
        talk = Conversation(strategy(context), measure, in_flight=in_flight, order=order, nagging=nagging)
        return talk.run(self.asks)


def context_of(space: SearchSpace, objective: Objective | None = None) -> SearchContext:
    """A context for accuracy at four epochs and a proxy called ``score``."""
    return SearchContext(
        space, objective or Objective((Goal("val_accuracy", True),)), Fidelity(epochs=4), Goal("score", True)
    )


def accepted(architecture: Architecture) -> bool:
    """Three quarters of any space, as a constraint would leave them."""
    return int(architecture.fingerprint, 16) % 4 > 0


def _texts(strategy: Callable[[SearchContext], Strategy], context: SearchContext, asks: int) -> list[str]:
    return [
        _text(p) for p in Conversation(strategy(context), made_up(context), in_flight=3, order=0).run(asks).proposals
    ]


def _text(proposal: Proposal) -> str:
    return f"{proposal.architecture} {proposal.fidelity} {proposal.seed} {proposal.parents} {proposal.why}"


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _global_state() -> tuple[object, ...]:
    numpy_state = np.random.get_state(legacy=False)
    return random.getstate(), repr(numpy_state), torch.get_rng_state().tolist()
