"""Strategies around a strategy: several seeds a proposal, and a budget. Both are strategies themselves."""

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from nasplat.config import Budget
from nasplat.fidelity import Fidelity
from nasplat.measurement import Cost, Failure, Measurement, Metric
from nasplat.strategy import Strategy
from nasplat.trial import Proposal, Trial

_MAX_REPEATS_IN_A_ROW = 1_000
"""Free repeats after which a study ends: its strategy has run out of new architectures."""


@dataclass
class _Spending:
    """What trials at one fidelity have cost: seconds, GPU-seconds and price in all, and how many were paid for."""

    totals: tuple[float, ...] = (0.0, 0.0, 0.0)
    paid: int = 0
    in_flight: int = 0

    def committed(self) -> tuple[float, ...]:
        """What was spent, and what is expected of the trials in flight: as much as those before them on average."""
        return tuple(total * (1 + self.in_flight / max(1, self.paid)) for total in self.totals)


@final
class Budgeted(Strategy):
    """Stops asking once the budget is spent or reserved.

    A trial in flight is reserved: as one trial, and with the mean cost of those at its fidelity that were paid for. So
    a budget is never overrun by more than the trials in flight, of which the first ones have no mean yet.

    Args:
        strategy: Decides.
        budget: Limits.
        fidelity: The study's own fidelity; only trials at it count as trials, cheaper ones cost time alone.
    """

    def __init__(self, strategy: Strategy, budget: Budget, fidelity: Fidelity) -> None:
        self._strategy = strategy
        self._budget = budget
        self._fidelity = fidelity
        self._trials = 0
        self._spending: defaultdict[Fidelity, _Spending] = defaultdict(_Spending)
        self._repeats_in_a_row = 0

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """The strategy's proposal, or None when the budget is spent."""
        b = self._budget
        limits = (b.seconds, b.gpu_seconds, b.cost)
        # Where repeats count as trials, the number of trials ends the study as published. Without any limit the
        # strategy itself decides when it is done. Else nothing but this would end a study of an exhausted space.
        limited = any(limit is not None for limit in (b.trials, *limits))
        endless = limited and not (b.count_repeats and b.trials is not None)
        if (
            (b.trials is not None and self._trials >= b.trials)
            or self._is_spent(limits)
            or (endless and self._repeats_in_a_row >= _MAX_REPEATS_IN_A_ROW)
        ):
            return None
        proposal = self._strategy.ask(number, rng)
        if proposal is not None:
            self._spending[proposal.fidelity].in_flight += 1
            if proposal.is_at(self._fidelity):
                self._trials += 1
        return proposal

    def tell(self, trial: Trial) -> None:
        """Book what the trial cost and pass it on."""
        repeats = trial.repeat_of is not None
        self._repeats_in_a_row = self._repeats_in_a_row + 1 if repeats else 0
        if repeats and not self._budget.count_repeats and trial.proposal.is_at(self._fidelity):
            self._trials -= 1
        spending = self._spending[trial.proposal.fidelity]
        spending.in_flight -= 1
        if not trial.saved:
            paid = self._paid(trial)
            spending.totals = tuple(total + new for total, new in zip(spending.totals, paid, strict=True))
            spending.paid += 1
        self._strategy.tell(trial)

    def _is_spent(self, limits: tuple[float | None, ...]) -> bool:
        if all(limit is None for limit in limits):
            return False
        committed = [s.committed() for s in self._spending.values()]
        sums = [math.fsum(values) for values in zip(*committed, strict=True)] or [0.0] * len(limits)
        return any(limit is not None and spent >= limit for limit, spent in zip(limits, sums, strict=True))

    def _paid(self, trial: Trial) -> tuple[float, ...]:
        """Seconds, GPU-seconds and their price."""
        cost: Cost | Failure = trial.measurement.cost if trial.measurement is not None else _failure(trial)
        b, hours, gpu_hours = self._budget, cost.seconds / 3600, cost.gpu_seconds / 3600
        return cost.seconds, cost.gpu_seconds, b.price_per_hour * hours + b.price_per_gpu_hour * gpu_hours


def _failure(trial: Trial) -> Failure:
    assert trial.failure is not None  # strategies are told finished trials
    return trial.failure


@dataclass
class _Group:
    """The seeds of one proposal of the strategy, which knows it by a number of its own."""

    number: int
    proposal: Proposal
    seeds: int
    told: list[Trial] = field(default_factory=list)


@final
class Repeated(Strategy):
    """Measures every trained proposal with several seeds and tells the strategy the mean of each metric.

    The strategy sees proposals and numbers of its own; parents in what it proposes are translated to the trial of the
    first seed. A proposal of which one seed failed is told as that failure, and as a repeat if all seeds are.

    Args:
        strategy: Decides.
        seeds: Seeds a proposal; untrained ones and supernets are measured once.
    """

    def __init__(self, strategy: Strategy, seeds: int) -> None:
        self._strategy = strategy
        self._seeds = seeds
        self._queue: deque[tuple[_Group, Proposal]] = deque()
        self._group_of: dict[int, _Group] = {}
        self._first_of: list[int] = []

    def ask(self, number: int, rng: np.random.Generator) -> Proposal | None:
        """The next seed of the last proposal, or a new proposal with its first seed."""
        if not self._queue:
            proposal = self._strategy.ask(len(self._first_of), rng)
            if proposal is None:
                return None
            once = not proposal.fidelity.trained or proposal.architecture.is_supernet
            seeds = 1 if once else self._seeds
            group = _Group(len(self._first_of), proposal, seeds)
            parents = tuple(self._first_of[p] for p in proposal.parents)
            for i in range(seeds):
                self._queue.append((group, replace(proposal, seed=proposal.seed + i, parents=parents)))
            self._first_of.append(number)
        group, seeded = self._queue.popleft()
        self._group_of[number] = group
        return seeded

    def tell(self, trial: Trial) -> None:
        """Collect the seeds; the last one to come back tells the strategy."""
        group = self._group_of[trial.number]
        group.told.append(trial)
        if len(group.told) < group.seeds:
            return
        told = sorted(group.told, key=lambda t: t.number)
        group.told.clear()
        repeated = all(t.repeat_of is not None for t in told)
        failure = next((t.failure for t in told if t.failure is not None), None)
        summary = replace(
            told[0],
            number=group.number,
            proposal=group.proposal,
            outcome=failure or _mean([t.measurement for t in told]),
            repeat_of=self._group_of[told[0].repeat_of or 0].number if repeated else None,
        )
        self._strategy.tell(summary)


def _mean(measurements: Sequence[Measurement | None]) -> Measurement:
    complete = [m for m in measurements if m is not None]
    first = complete[0]
    metrics = {
        name: Metric(math.fsum(m[name] for m in complete) / len(complete), metric.role)
        for name, metric in first.metrics.items()
    }
    return replace(first, metrics=metrics)
