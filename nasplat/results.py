"""What the trials of a study have given: as a ranking, and as a table."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nasplat import registry
from nasplat.config import StudyConfig
from nasplat.errors import InvalidInputError
from nasplat.measurement import Measurement
from nasplat.trial import Trial

if TYPE_CHECKING:
    import pandas as pd


def ranking_losses(config: StudyConfig, measurements: Sequence[Measurement]) -> list[float]:
    """One number for each of a study's measurements at its own fidelity, smaller is better.

    That is the first goal, or, where the goals are the scores of a combination of proxies, the sum of their ranks.
    """
    objective, proxies = config.parsed_objective(), registry.proxies(config.proxy)
    goals = objective.goals
    if len(goals) > 1 and not config.fidelity.trained and goals == proxies.goals[: len(goals)]:
        return proxies.losses(measurements)
    return [objective.losses(m)[0] for m in measurements]


def best_of(config: StudyConfig, trials: Iterable[Trial], top: int) -> list[str]:
    """The architectures of a study's best distinct trials, by the mean over the seeds that each was measured with.

    Raises:
        InvalidInputError: If no trial has completed.
    """
    objective = config.parsed_objective()
    measured = [
        (trial.proposal.architecture, trial.measurement)
        for trial in trials
        if trial.measurement is not None
        and trial.repeat_of is None
        and trial.proposal.is_at(config.fidelity)
        and objective.feasible(trial.measurement)
    ]
    if not measured:
        raise InvalidInputError(f"study {config.name!r} has no completed trial to retrain")
    losses: dict[str, list[float]] = {}
    texts: dict[str, str] = {}
    of_trials = ranking_losses(config, [measurement for _, measurement in measured])
    for (architecture, _), loss in zip(measured, of_trials, strict=True):
        texts.setdefault(architecture.fingerprint, architecture.text)
        losses.setdefault(architecture.fingerprint, []).append(loss)
    ranked = sorted(losses, key=lambda f: sum(losses[f]) / len(losses[f]))
    return [texts[f] for f in ranked[:top]]


def frame_of(trials: Iterable[Trial]) -> "pd.DataFrame":
    """One row a trial: number, architecture, fidelity, state and every metric as a column."""
    import pandas as pd

    rows = []
    for t in trials:
        metrics = {} if t.measurement is None else {n: m.value for n, m in t.measurement.metrics.items()}
        rows.append(
            {
                "trial": t.number,
                "architecture": t.proposal.architecture.text,
                "epochs": t.proposal.fidelity.epochs,
                "seed": t.proposal.seed,
                "state": str(t.state),
                "saved": t.saved,
                "why": t.proposal.why,
                "seconds": t.measurement.cost.seconds if t.measurement is not None else None,
                **metrics,
            }
        )
    return pd.DataFrame(rows)
