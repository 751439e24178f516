"""Zero-cost scores against what training gave, and against counting parameters and FLOPs."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasplat.audit import COUNTS, FEWEST, ScoreAudit, audit
from nasplat.dashboards.views.context import Context, Data, plain
from nasplat.errors import InvalidInputError
from nasplat.storage.browsing import STATES, Frame, relations

_MOST_ARCHITECTURES = 800
_RESAMPLES = 500


def proxy_audit(context: Context, name: str) -> Data:
    """Every score that the trained architectures of a study have, audited as ``nasplat audit`` does."""
    frame = context.frames.named(name)
    with frame.held():
        numbers, trained, total = _trained(frame)
        found = frame.memo("audit", lambda: _audited(context, frame, numbers, trained))
    rows, n, points = found
    goal = frame.study.goals[0]
    return plain(  # type: ignore[no-any-return]
        {
            "goal": {"metric": goal.metric, "maximize": goal.maximize},
            "architectures": n,
            "of": total,
            "resamples": _RESAMPLES,
            "scores": [{**asdict(row), "verdict": str(row.verdict)} for row in rows],
            "points": points,
        }
    )


def _trained(frame: Frame) -> tuple[list[int], NDArray[np.float64], int]:
    """Numbers and first goal of distinct trained trials, drawn at random where there are many."""
    values = frame.column(frame.study.goals[0].metric)
    done = (frame.stored("state") == STATES.index("completed")) & (frame.stored("repeat_of") < 0)
    places = np.flatnonzero(done & (frame.stored("epochs") > 0) & np.isfinite(values))
    total = len(places)
    if total > _MOST_ARCHITECTURES:
        places = np.sort(np.random.default_rng(0).choice(places, _MOST_ARCHITECTURES, replace=False))
    return frame.stored("number")[places].tolist(), values[places], total


def _audited(
    context: Context, frame: Frame, numbers: list[int], trained: NDArray[np.float64]
) -> tuple[list[ScoreAudit], int, dict[str, Any]]:
    _, scores = relations.untrained_scores(context.database, frame.study, numbers)
    places = np.searchsorted(frame.stored("number"), numbers)
    for count in COUNTS:
        # Trainings count too, and a count needs no untrained measurement of its own.
        if count not in scores and count in context.database.metrics():
            scores[count] = frame.column(count)[places]
    there = {score: ~np.isnan(values) for score, values in scores.items()}
    most = max((int(mask.sum()) for mask in there.values()), default=0)
    # A score that few architectures have would leave the others without most of theirs.
    kept = [score for score, mask in there.items() if mask.sum() >= max(FEWEST, most / 2)]
    proxies = [score for score in kept if score not in COUNTS]
    if not proxies:
        raise InvalidInputError(
            "no zero-cost score is known of architectures that this study has trained: score them first, with "
            f"nasplat score --space {frame.study.space.partition('@')[0]} --proxy naswot in the same store"
        )
    common = np.logical_and.reduce([there[score] for score in kept])
    if common.sum() < FEWEST:
        raise InvalidInputError(f"{common.sum()} architectures have all scores, {FEWEST} are needed for an audit")
    sign = 1.0 if frame.study.goals[0].maximize else -1.0
    merits = {
        score: scores[score][common] * (1.0 if score in COUNTS or context.catalog.maximized(score) else -1.0)
        for score in kept
    }
    points = {score: scores[score][common].tolist() for score in kept}
    points["trained"] = trained[common].tolist()
    points["numbers"] = np.array(numbers)[common].tolist()
    return audit(merits, sign * trained[common], resamples=_RESAMPLES), int(common.sum()), points
