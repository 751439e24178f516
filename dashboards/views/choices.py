"""Which choices matter: importance, parallel coordinates, and what each mutation of an evolution gained."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nasplat.dashboards.views.context import Context, Data, plain
from nasplat.errors import InvalidInputError, unknown_name
from nasplat.storage.browsing import Frame, relations

METHODS = ("ped-anova", "fanova")
FEWEST = 10
"""Trials without which nothing is said."""
_MOST_TRIALS = 2_000
_MOST_STEPS = 5_000
_INACTIVE = "–"


def importance(context: Context, name: str, method: str) -> Data:
    """How much of the first goal each choice decides, by Optuna.

    PED-ANOVA (Watanabe et al., IJCAI 2023) says which choices set the best tenth apart from all trials; fANOVA (Hutter
    et al., ICML 2014) how much of the variance a forest gives to each. Choices that are not made count as a value.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    frame = context.frames.named(name)
    rows, values, total = _sample(context, frame)
    key = ("importance", method)
    with frame.held():
        found = frame.memo(key, lambda: _importances(rows, values, method, maximize=frame.study.goals[0].maximize))
    return {
        "method": method,
        "goal": frame.study.goals[0].metric,
        "trials": len(values),
        "of": total,
        "importances": [{"choice": choice, "importance": value} for choice, value in found.items()],
    }


def _importances(
    rows: Sequence[Mapping[str, str]], values: NDArray[np.float64], method: str, *, maximize: bool
) -> dict[str, float]:
    from optuna import create_study, distributions, importance, logging
    from optuna.trial import create_trial

    options = {choice: found for choice, found in _options(rows).items() if len(found) > 1}
    categories: dict[str, Any] = {c: distributions.CategoricalDistribution(found) for c, found in options.items()}
    logging.set_verbosity(logging.WARNING)  # a study of optuna's own would be announced on the server's terminal
    study = create_study(direction="maximize" if maximize else "minimize")
    for row, value in zip(rows, values.tolist(), strict=True):
        params = {choice: row.get(choice, _INACTIVE) for choice in categories}
        study.add_trial(create_trial(params=params, distributions=categories, value=value))
    evaluator: Any = (
        importance.PedAnovaImportanceEvaluator()
        if method == "ped-anova"
        else importance.FanovaImportanceEvaluator(seed=0)
    )
    return {name: float(value) for name, value in importance.get_param_importances(study, evaluator=evaluator).items()}


def _options(rows: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """The values of each choice that occur, in the order in which they do."""
    out: dict[str, dict[str, None]] = defaultdict(dict)
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    for row in rows:
        for name in names:
            out[name][row.get(name, _INACTIVE)] = None
    return {name: sorted(values, key=_natural) for name, values in out.items()}


def _natural(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _sample(context: Context, frame: Frame) -> tuple[list[dict[str, str]], NDArray[np.float64], int]:
    """Choices and first goal of distinct trials that count, drawn at random where there are many."""
    with frame.held():
        values = frame.goal()
        places = np.flatnonzero(np.isfinite(values) & (frame.stored("repeat_of") < 0))
        total = len(places)
        if total < FEWEST:
            raise InvalidInputError(f"{total} distinct trials count so far, {FEWEST} are needed to say what matters")
        if total > _MOST_TRIALS:
            places = np.sort(np.random.default_rng(0).choice(places, _MOST_TRIALS, replace=False))
        numbers, values = frame.stored("number")[places].tolist(), values[places]
    texts = relations.texts(context.database, frame.study, numbers)
    return context.catalog.choices(frame.study.config, texts), values, total


def parallel(context: Context, name: str) -> Data:
    """Choices of trials as positions among the options, and the first goal of each."""
    frame = context.frames.named(name)
    rows, values, total = _sample(context, frame)
    options = {choice: found for choice, found in _options(rows).items() if len(found) > 1}
    places = {choice: {option: i for i, option in enumerate(found)} for choice, found in options.items()}
    return {
        "goal": {"metric": frame.study.goals[0].metric, "maximize": frame.study.goals[0].maximize},
        "choices": [{"choice": choice, "options": found} for choice, found in options.items()],
        "rows": [[places[choice][row.get(choice, _INACTIVE)] for choice in options] for row in rows],
        "values": values.tolist(),
        "trials": len(values),
        "of": total,
    }


def lineage(context: Context, name: str) -> Data:
    """What the mutations of a search gained, by the choice that each changed, with intervals of 95 %."""
    frame = context.frames.named(name)
    steps = relations.steps(context.database, frame.study, most=_MOST_STEPS)
    by_choice: dict[str, list[float]] = defaultdict(list)
    by_change: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    texts = list(dict.fromkeys(text for step in steps for text in (step.before, step.after)))
    chosen = dict(zip(texts, context.catalog.choices(frame.study.config, texts), strict=True)) if texts else {}
    # The same change of the same architecture again tells nothing new of the choice: it counts once, by its mean.
    changes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for step in steps:
        changes[step.before, step.after].append(step.gain)
    several = 0
    for (before_text, after_text), gains in changes.items():
        before, after = chosen[before_text], chosen[after_text]
        changed = [choice for choice in after if choice in before and after[choice] != before[choice]]
        if len(changed) != 1:
            several += 1
            continue
        gain = float(np.mean(gains))
        by_choice[changed[0]].append(gain)
        by_change[changed[0], before[changed[0]], after[changed[0]]].append(gain)
    return plain(  # type: ignore[no-any-return]
        {
            "goal": {"metric": frame.study.goals[0].metric, "maximize": frame.study.goals[0].maximize},
            "steps": len(steps),
            "different": len(changes),
            "several": several,
            "choices": sorted(
                ({"choice": choice, **effect(gains)} for choice, gains in by_choice.items()),
                key=lambda row: -row["mean"],
            ),
            "changes": sorted(
                (
                    {"choice": choice, "before": before, "after": after, **effect(gains)}
                    for (choice, before, after), gains in by_change.items()
                ),
                key=lambda row: (-row["n"], -row["mean"]),
            )[:200],
            "gains": [[step.child, step.gain] for step in steps],
        }
    )


def effect(gains: Sequence[float]) -> Data:
    """Mean gain with Student's interval, and the share that improved with Wilson's; intervals of 95 %."""
    values = np.asarray(gains)
    n, mean = len(values), float(values.mean())
    half = None
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
    share = stats.binomtest(int((values > 0).sum()), n).proportion_ci(method="wilson")
    return {
        "n": n,
        "mean": mean,
        "low": None if half is None else mean - half,
        "high": None if half is None else mean + half,
        "improved": float((values > 0).mean()),
        "improved_low": float(share.low),
        "improved_high": float(share.high),
    }
