"""A study without the study: a strategy, a function that measures, and any order of finishing."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self, TypeAlias, final

import numpy as np

from nasplat.measurement import Cost, Failure, FailureReason, Measurement, Metric, Role
from nasplat.seeding import proposal_rng
from nasplat.strategy import SearchContext, Strategy
from nasplat.supernet import DERIVED, SAMPLED
from nasplat.trial import Proposal, Trial

Measure: TypeAlias = Callable[[Proposal], Measurement | Failure]
Call: TypeAlias = int | Trial
"""An ``ask`` with its number, or a ``tell`` with its trial."""


@final
class Conversation:
    """Asks and tells a strategy as a study does: numbers without gaps, repeats told at once, nothing measured twice.

    Args:
        strategy: Asked and told.
        measure: Stands for the evaluator.
        in_flight: Most trials in flight.
        seed: Of the study.
        order: Which of the trials in flight finishes next: drawn from this seed, or the oldest one with None.
        nagging: How often an answer None is asked for again before anything else happens.

    Attributes:
        trials: By number; those in flight have no outcome.
        calls: Everything that the strategy was asked (with an answer) and told, in order.
    """

    def __init__(
        self,
        strategy: Strategy,
        measure: Measure,
        *,
        in_flight: int = 1,
        seed: int = 0,
        order: int | None = None,
        nagging: int = 0,
    ) -> None:
        self._strategy = strategy
        self._measure = measure
        self._in_flight = in_flight
        self._seed = seed
        self._order = None if order is None else np.random.default_rng(order)
        self._nagging = nagging
        self._pending: list[int] = []
        self._first_with: dict[str, int] = {}
        self._followers: dict[int, list[int]] = {}
        self._told = 0
        self.trials: list[Trial] = []
        self.calls: list[Call] = []

    @property
    def proposals(self) -> list[Proposal]:
        """What the strategy has asked for."""
        return [trial.proposal for trial in self.trials]

    def run(self, asks: int) -> Self:
        """Go on until ``asks`` proposals are made and told, or the strategy has no more."""
        while True:
            while len(self._pending) < self._in_flight and len(self.trials) < asks and self._ask():
                pass
            if not self._pending:
                return self
            place = 0 if self._order is None else int(self._order.integers(len(self._pending)))
            self._finish(self._pending.pop(place))

    def _ask(self) -> bool:
        number = len(self.trials)
        proposal = self._strategy.ask(number, proposal_rng(self._seed, number))
        if proposal is None:
            for _ in range(self._nagging):
                again = self._strategy.ask(number, proposal_rng(self._seed, number))
                assert again is None, f"asked again before anything was told, None became {again}"
            return False
        trial = Trial(number, proposal, self._told, identity(proposal))
        self.trials.append(trial)
        self.calls.append(number)
        first = self._first_with.setdefault(trial.identity, number)
        if first == number:
            self._pending.append(number)
        elif (outcome := self.trials[first].outcome) is None:
            self._followers.setdefault(first, []).append(number)
        else:
            self._tell(number, outcome)
        return True

    def _finish(self, number: int) -> None:
        outcome = self._measure(self.trials[number].proposal)
        for told in (number, *self._followers.pop(number, [])):
            self._tell(told, outcome)

    def _tell(self, number: int, outcome: Measurement | Failure) -> None:
        trial = self.trials[number]
        first = self._first_with[trial.identity]
        repeat = None if first == number else first
        trial = replace(trial, outcome=outcome, told=self._told, saved=repeat is not None, repeat_of=repeat)
        self.trials[number] = trial
        self.calls.append(trial)
        self._told += 1
        self._strategy.tell(trial.for_strategy())


def repeated(strategy: Strategy, calls: Sequence[Call], *, seed: int = 0) -> list[Proposal | None]:
    """The answers of a new strategy to the calls of an earlier conversation: how a study is resumed."""
    answers = []
    for call in calls:
        if isinstance(call, Trial):
            strategy.tell(call.for_strategy())
        else:
            answers.append(strategy.ask(call, proposal_rng(seed, call)))
    return answers


def made_up(context: SearchContext) -> Measure:
    """Measurements with the context's metrics, drawn from the identity of the proposal alone."""

    def measure(proposal: Proposal) -> Measurement:
        if proposal.architecture.is_supernet:
            return _made_up_supernet(context, proposal)
        metrics = {"params": Metric(uniform(proposal, "params"), Role.NONE)}
        if proposal.fidelity.trained:
            metrics["test_accuracy"] = Metric(uniform(proposal, "test"), Role.TEST)
        else:
            metrics[context.proxy.metric] = Metric(uniform(proposal, "proxy"), Role.SEARCH)
        if proposal.fidelity == context.fidelity:
            metrics.update(
                {g.metric: Metric(uniform(proposal, g.metric), Role.SEARCH) for g in context.objective.goals}
            )
        return Measurement(metrics, Cost(seconds=1.0))

    return measure


def _made_up_supernet(context: SearchContext, proposal: Proposal) -> Measurement:
    rng = np.random.default_rng(int(2**48 * uniform(proposal, "supernet")))
    sampled = [context.space.sample(rng).text for _ in range(int(proposal.architecture["sampled"]))]
    scores = {text: {"loss": float(rng.random())} for text in sampled}
    artifacts = {DERIVED: context.space.sample(rng).text, SAMPLED: json.dumps(scores)}
    return Measurement({"supernet_loss": Metric(float(rng.random()), Role.SEARCH)}, Cost(1.0), artifacts=artifacts)


def failing(measure: Measure, share: float) -> Measure:
    """The same, with a share of the proposals failing, always the same ones."""

    def fail_or_measure(proposal: Proposal) -> Measurement | Failure:
        draw = uniform(proposal, "failure")
        if draw >= share:
            return measure(proposal)
        reasons = tuple(FailureReason)
        return Failure(reasons[int(draw * 1e9) % len(reasons)], "made up", seconds=1.0)

    return fail_or_measure


def identity(proposal: Proposal) -> str:
    """Equal exactly for the same architecture up to isomorphism, fidelity and seed."""
    architecture = proposal.architecture
    return f"{architecture.space} {architecture.fingerprint} {proposal.fidelity} {proposal.seed}"


def uniform(proposal: Proposal, what: str) -> float:
    """A number in [0, 1) that follows from a proposal's identity and a word, in every process."""
    digest = hashlib.blake2b(f"{identity(proposal)} {what}".encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48
