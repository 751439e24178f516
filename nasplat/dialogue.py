"""What a study and its strategy say to each other: trials asked for and told, and all of it again to resume."""

from collections.abc import Sequence
from dataclasses import replace
from typing import final

from nasplat import registry
from nasplat.config import StudyConfig
from nasplat.counting import restricted
from nasplat.crew import End
from nasplat.errors import InvalidInputError, ReplayError
from nasplat.evaluator import Identities
from nasplat.objective import Objective
from nasplat.seeding import proposal_rng
from nasplat.space import SearchSpace
from nasplat.strategy import SearchContext, Strategy
from nasplat.task import Task
from nasplat.trial import Trial, TrialState
from nasplat.wrappers import Budgeted, Repeated


def strategy_of(config: StudyConfig, space: SearchSpace, task: Task, objective: Objective) -> Strategy:
    """The strategy of a study with its seeds and its budget, before it was asked anything.

    Raises:
        InvalidInputError: If there is no such strategy or option, or it does not go with the study.
    """
    proxies = registry.proxies(config.proxy)
    context = SearchContext(
        restricted(space, task, objective.constraints),
        objective,
        config.fidelity,
        proxies.goals[0],
        combination=proxies if len(proxies.parts) > 1 else None,
    )
    strategy: Strategy = registry.create("strategy", config.strategy, context, options=config.strategy_options)
    if config.repeats > 1:
        strategy = Repeated(strategy, config.repeats)
    return Budgeted(strategy, config.budget, config.fidelity)


@final
class Dialogue:
    """The trials of a study in the order of their proposals, and the strategy that has been told those that ended.

    Args:
        strategy: That was asked nothing yet.
        config: Of the study.
        identities: Of what is proposed.

    Attributes:
        trials: Of every proposal, as far as it is known what became of them.
        told: How many have ended and are told, or are being told.
    """

    def __init__(self, strategy: Strategy, config: StudyConfig, identities: Identities) -> None:
        self.trials: list[Trial] = []
        self.told = 0
        self._strategy = strategy
        self._name, self._seed = config.name, config.seed
        self._identities = identities
        self._first_with: dict[str, int] = {}

    def ask(self) -> Trial | None:
        """The next proposal as a trial, or None if the strategy has nothing to ask for now."""
        number = len(self.trials)
        proposal = self._strategy.ask(number, proposal_rng(self._seed, number))
        if proposal is None:
            return None
        trial = Trial(number, proposal, self.told, self._identities.of(proposal))
        self.trials.append(trial)
        return trial

    def first_with(self, trial: Trial) -> Trial:
        """The first trial that was started with a trial's identity: itself, unless there was one."""
        return self.trials[self._first_with.setdefault(trial.identity, trial.number)]

    def ended(self, end: End, at: float) -> Trial:
        """A trial that has ended at some time, and will be told next."""
        first = self.first_with(end.trial).number
        trial = replace(
            end.trial,
            outcome=end.outcome,
            told=self.told,
            saved=end.saved,
            repeat_of=None if first == end.trial.number else first,
            finished_at=at,
        )
        self.trials[trial.number] = trial
        self.told += 1
        return trial

    def tell(self, trial: Trial) -> None:
        """Tell a trial that has ended."""
        self._strategy.tell(trial.for_strategy())

    # Resuming ------------------------------------------------------------------------------------------------

    def repeat(self, stored: Sequence[Trial]) -> None:
        """Say all of a stored dialogue again, to a strategy that was asked nothing yet.

        Trials that were running have one attempt more.

        Raises:
            InvalidInputError: If there are more trials than the budget allows now.
            ReplayError: If the strategy does not ask for the same again.
        """
        tells = sorted((t for t in stored if t.told is not None), key=lambda t: t.told or 0)
        for trial in stored:
            self._retell(tells, trial.asked_after)
            self._check_asked_again(trial, len(stored))
            self._first_with.setdefault(trial.identity, trial.number)
            running = trial.state is TrialState.RUNNING
            self.trials.append(replace(trial, attempts=trial.attempts + 1) if running else trial)
        self._retell(tells, len(tells))

    def _retell(self, tells: Sequence[Trial], until: int) -> None:
        while self.told < until:
            self.tell(tells[self.told])
            self.told += 1

    def _check_asked_again(self, trial: Trial, stored: int) -> None:
        proposal = self._strategy.ask(trial.number, proposal_rng(self._seed, trial.number))
        if proposal is None:
            raise InvalidInputError(
                f"study {self._name!r} has {stored} trials, which is more than the budget allows now; "
                "give at least its old budget"
            )
        if proposal != trial.proposal or self._identities.of(proposal) != trial.identity:
            raise ReplayError(
                f"study {self._name!r} cannot be resumed: trial {trial.number} was {trial.proposal.architecture}, "
                f"and now the strategy asks for {proposal.architecture}; the strategy, the data or the version of "
                "nasplat has changed. Its measurements are still used by a new study"
            )
