"""Pictures of proxies: drawn by rank, so that every network has a place."""

import math

import numpy as np
import pytest

from nasplat.dashboards.plots import draw_architecture, proxy_against
from nasplat.space import Graph


@pytest.mark.parametrize("infinity", [-math.inf, math.inf])
def test_infinite_scores_are_drawn_beside_the_others(infinity: float) -> None:
    scores = [3.0, infinity, 1e30, 3.0, -2.0]
    figure = proxy_against([(score, 0.1 * place) for place, score in enumerate(scores)], "naswot", "val_accuracy", "s")
    (axes,) = figure.axes
    (line,) = axes.lines
    x, y = (np.asarray(data) for data in line.get_data())
    expected = [3.5, 1.0, 5.0, 3.5, 2.0] if infinity < 0 else [2.5, 5.0, 4.0, 2.5, 1.0]
    assert x.tolist() == expected
    assert y.tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert axes.get_xlabel() == "rank of naswot (1 infinite)"
    assert "n = 5" in axes.get_title(loc="left")


def test_without_infinite_scores_nothing_is_said_of_them() -> None:
    figure = proxy_against([(1.0, 0.2), (2.0, 0.1), (3.0, 0.4)], "params", "val_accuracy", "s")
    assert figure.axes[0].get_xlabel() == "rank of params"
    assert "τ = 0.333, ρ = 0.500, n = 3" in figure.axes[0].get_title(loc="left")


def test_what_never_differs_has_no_correlation() -> None:
    figure = proxy_against([(1.0, 0.25), (2.0, 0.25), (3.0, 0.25)], "params", "val_accuracy", "s")
    assert "τ = nan, ρ = nan, n = 3" in figure.axes[0].get_title(loc="left")


def test_nodes_beside_each_other_do_not_hide_each_other() -> None:
    edges = ((0, 1, ""), (0, 2, ""), (2, 3, ""), (1, 4, ""), (3, 4, ""))
    figure = draw_architecture(Graph(("input", "pool", "conv", "conv", "output"), edges), "a cell")
    nodes = [
        text.get_position() for text in figure.axes[0].texts if text.get_text() in ("input", "pool", "conv", "output")
    ]
    assert len({*nodes}) == 5
    assert {y for x, y in nodes if x == 1} == {0.3, -0.3}
