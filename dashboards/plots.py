"""Pictures of a study: best so far over cost, Pareto front, proxy against accuracy, and an architecture as a graph."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from nasplat.errors import InvalidInputError
from nasplat.objective import Goal
from nasplat.pareto import non_dominated
from nasplat.space import Graph
from nasplat.storage import Query, Reader

Rows = Sequence[dict[str, Any]]

_BLUE, _ORANGE, _GREY = "#2563ab", "#d9622b", "#9aa3ad"
_STYLE: Any = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e7ea",
    "axes.axisbelow": True,
    "svg.hashsalt": "nasplat",
}
_SUFFIXES = (".png", ".svg", ".pdf")


def save(figure: Figure, path: Path) -> Path:
    """Write a figure; the format follows from the suffix.

    Raises:
        InvalidInputError: For a suffix that is not png, svg or pdf.
    """
    if path.suffix not in _SUFFIXES:
        raise InvalidInputError(f"a picture's name ends in {', '.join(_SUFFIXES)}, got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")
    return path


def plot_study(reader: Reader, study: str, folder: Path, suffix: str = ".png") -> list[Path]:
    """Every picture that a study's data allows, as files in a folder.

    Raises:
        InvalidInputError: If the study has no completed trial.
    """
    record = reader.study(study)
    goals = [Goal.parse(g) for g in record["config"]["objective"]]
    rows = reader.page(Query(study=study, where="state == 'completed'", limit=1_000_000))
    own = [r for r in rows if r["epochs"] == record["config"]["epochs"] and goals[0].metric in r]
    if not own:
        raise InvalidInputError(f"study {study!r} has no completed trial to draw")
    out = [save(best_so_far(rows, own, goals[0], study), folder / f"best-so-far{suffix}")]
    second = goals[1] if len(goals) > 1 else Goal("params", maximize=False)
    distinct = [r for r in own if r["repeat_of"] is None and second.metric in r]
    if len(distinct) > 1 and goals[0].metric != second.metric:
        out.append(save(pareto_front(distinct, goals[0], second, study), folder / f"pareto{suffix}"))
    for proxy in reader.proxies(study):
        pairs = reader.proxy_pairs(study, proxy, goals[0].metric)
        if len(pairs) >= 3 and proxy != goals[0].metric:
            out.append(save(proxy_against(pairs, proxy, goals[0].metric, study), folder / f"proxy-{proxy}{suffix}"))
    return out


def best_so_far(rows: Rows, own: Rows, goal: Goal, title: str) -> Figure:
    """The best value of a goal over trials and over paid time; every trial is a dot.

    Args:
        rows: All completed trials of a study, whose time counts.
        own: Those at the study's own fidelity, which have the goal's metric.
        goal: What is looked for.
        title: Of the figure.
    """
    paid = {r["number"]: 0.0 if r["saved"] else (r["seconds"] or 0.0) for r in rows}
    ordered = sorted(rows, key=lambda r: (r["finished_at"] or 0.0, r["number"]))
    clock = dict(zip((r["number"] for r in ordered), np.cumsum([paid[r["number"]] for r in ordered]), strict=True))
    own = sorted(own, key=lambda r: (r["finished_at"] or 0.0, r["number"]))
    values = np.array([r[goal.metric] for r in own])
    best = np.maximum.accumulate(values) if goal.maximize else np.minimum.accumulate(values)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        by_trial, by_time = figure.subplots(1, 2, sharey=True)
        for axes, x, label in (
            (by_trial, np.arange(1, len(own) + 1), "trials at the study's fidelity"),
            (by_time, np.array([clock[r["number"]] for r in own]), "paid seconds"),
        ):
            axes.plot(x, values, "o", color=_GREY, ms=3.5, label="trial")
            axes.step(x, best, where="post", color=_BLUE, lw=1.8, label="best so far")
            axes.set_xlabel(label)
        _focus(by_trial, values, best)
        by_trial.set_ylabel(goal.metric)
        by_trial.legend(frameon=False, loc="lower right" if goal.maximize else "upper right")
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _focus(axes: Axes, values: np.ndarray[Any, Any], best: np.ndarray[Any, Any]) -> None:
    """Cut off the tail of hopeless trials, which would flatten the curve that matters."""
    low, high = min(best.min(), np.quantile(values, 0.1)), max(best.max(), np.quantile(values, 0.9))
    margin = 0.08 * (high - low) or 0.01
    axes.set_ylim(low - margin, high + margin)


def pareto_front(rows: Rows, first: Goal, second: Goal, title: str) -> Figure:
    """Two metrics of distinct measurements, the non-dominated ones joined."""
    x = np.array([r[second.metric] for r in rows], dtype=float)
    y = np.array([r[first.metric] for r in rows], dtype=float)
    losses = np.stack([-y if first.maximize else y, -x if second.maximize else x], axis=1)
    front = np.flatnonzero(non_dominated(losses))
    front = front[np.argsort(x[front])]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(x, y, "o", color=_GREY, ms=3.5, label=f"{len(rows)} networks")
        axes.plot(x[front], y[front], "o-", color=_ORANGE, ms=5, lw=1.2, label=f"Pareto front ({len(front)})")
        if x.min() > 0 and x.max() / x.min() > 20:
            axes.set_xscale("log")
        axes.set_xlabel(second.metric)
        axes.set_ylabel(first.metric)
        axes.legend(frameon=False)
        axes.set_title(title, loc="left", fontsize=9)
    return figure


def proxy_against(pairs: Sequence[tuple[float, float]], proxy: str, metric: str, title: str) -> Figure:
    """A zero-cost score against a trained metric, with Kendall's τ and Spearman's ρ.

    Scores are drawn by their rank, 1 the lowest and equals at the mean of theirs: that is what both coefficients see,
    networks whose score is infinite have a place, and a few extreme scores do not press the rest together.
    """
    scores, values = np.array(pairs, dtype=float).T
    constant = len({*scores}) == 1 or len({*values}) == 1  # of which there is no correlation
    tau = np.nan if constant else stats.kendalltau(scores, values).statistic
    rho = np.nan if constant else stats.spearmanr(scores, values).statistic
    infinite = int(np.isinf(scores).sum())
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(stats.rankdata(scores), values, "o", color=_BLUE, ms=3.5, alpha=0.7)
        axes.set_xlabel(f"rank of {proxy}" + (f" ({infinite} infinite)" if infinite else ""))
        axes.set_ylabel(metric)
        axes.set_title(f"{title}: τ = {tau:.3f}, ρ = {rho:.3f}, n = {len(pairs)}", loc="left", fontsize=9)
    return figure


def draw_architecture(graph: Graph, title: str) -> Figure:
    """An architecture's nodes in columns by their depth, with labelled edges."""
    depth = [0] * len(graph.nodes)
    for source, target, _ in sorted(graph.edges, key=lambda e: e[1]):
        depth[target] = max(depth[target], depth[source] + 1)
    height = _heights(depth)
    chain = all(target == source + 1 for source, target, _ in graph.edges)
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        if chain:
            return _draw_chain(graph, title)
        spans = [depth[target] - depth[source] for source, target, _ in graph.edges]
        # Longer edges bend further, away from the middle or else alternately; "arc3" bends by a share of their length.
        sides = [-np.sign(height[source] + height[target]) for source, target, _ in graph.edges]
        bends = [0.22 * (span - 1) * (side or (-1) ** (span % 2)) for span, side in zip(spans, sides, strict=True)]
        reach = 0.25 + max([*height, *(abs(bend) * span / 2 for bend, span in zip(bends, spans, strict=True))])
        figure = Figure(figsize=(1.7 * (max(depth) + 1), max(3.2, 3.4 * reach)), layout="constrained")
        axes = figure.subplots()
        axes.axis("off")
        axes.set_aspect("equal")
        for (source, target, label), span, bend in zip(graph.edges, spans, bends, strict=True):
            arrow = {"arrowstyle": "-|>", "color": _GREY, "connectionstyle": f"arc3,rad={bend}", "shrinkA": 20}
            ends = (depth[target], height[target]), (depth[source], height[source])
            axes.annotate("", *ends, arrowprops={**arrow, "shrinkB": 20})
            style = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"}
            middle = (depth[source] + depth[target]) / 2
            level = (height[source] + height[target]) / 2 - bend * span / 2
            axes.text(middle, level, label, ha="center", va="center", fontsize=6.5, bbox=style)
        for node, label in enumerate(graph.nodes):
            style = {"boxstyle": "round,pad=0.4", "fc": "#e8f0f9", "ec": _BLUE}
            axes.text(depth[node], height[node], label, ha="center", va="center", fontsize=8, bbox=style)
        axes.set_xlim(-0.3, max(depth) + 0.3)
        axes.set_ylim(-reach, reach)
        axes.set_title(title, loc="left", fontsize=7)
    return figure


def _heights(depth: Sequence[int]) -> list[float]:
    """How high each node stands in the column of its depth, which its nodes share evenly around 0."""
    columns = [[node for node, column in enumerate(depth) if column == d] for d in depth]
    return [0.6 * ((len(nodes) - 1) / 2 - nodes.index(node)) for node, nodes in enumerate(columns)]


def _draw_chain(graph: Graph, title: str) -> Figure:
    figure = Figure(figsize=(3.6, 0.34 * len(graph.nodes) + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    for node, label in enumerate(graph.nodes):
        axes.text(
            0,
            -node,
            label,
            ha="center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "round,pad=0.3", "fc": "#e8f0f9", "ec": _BLUE},
        )
        if node:
            axes.annotate("", (0, -node + 0.3), (0, -node + 0.7), arrowprops={"arrowstyle": "-|>", "color": _GREY})
    axes.set_xlim(-1, 1)
    axes.set_ylim(-len(graph.nodes) + 0.4, 0.6)
    axes.set_title(title, loc="left", fontsize=8)
    return figure
