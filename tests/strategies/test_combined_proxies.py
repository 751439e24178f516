"""Several proxies at once: each is a metric of a trial, and architectures are ranked by the sum of ranks."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nasplat
from nasplat import registry
from nasplat.api import best_architectures
from nasplat.errors import InvalidInputError
from nasplat.evaluators.zero_cost import ZeroCostEvaluator
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement, Metric, Role
from nasplat.objective import Goal
from nasplat.proxy import Batch, Combination, ZeroCostProxy
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.seeding import proposal_rng
from nasplat.storage import SqlStore
from nasplat.strategies.assisted_evolution import AssistedEvolution
from nasplat.strategies.naswot import UNTRAINED, Naswot
from nasplat.strategy import Strategy
from nasplat.task import classification
from nasplat.testing import ToySpace
from nasplat.testing.strategies import context_of
from nasplat.trial import Proposal, Trial
from tests.cli_runner import runner


def _unused(network: nn.Module, batch: Batch) -> float:
    raise AssertionError("only its name and direction are used")


UP, DOWN = ZeroCostProxy("up", _unused), ZeroCostProxy("down", _unused, maximize=False)
BOTH = Combination("up+down", (UP, DOWN))
CONTEXT = replace(context_of(ToySpace()), proxy=UP.goal, combination=BOTH)


def measured(up: float, down: float) -> Measurement:
    return Measurement({"up": Metric(up, Role.SEARCH), "down": Metric(down, Role.SEARCH)})


def test_ranks_are_summed_whatever_the_scale() -> None:
    # Ranks by "up" are 1, 2, 3, 4; by "down", where less is better, 4, 1, 2, 3.
    set_of_four = [measured(1.0, -5.0), measured(2.0, 1e9), measured(3.0, 1e8), measured(1e6, 0.0)]
    assert BOTH.losses(set_of_four) == [-5.0, -3.0, -5.0, -7.0]


def test_equals_share_the_mean_of_their_places_and_infinity_is_a_place() -> None:
    one = Combination("up", (UP,))
    assert one.losses([measured(v, 0.0) for v in (2.0, 1.0, 2.0, -math.inf)]) == [-3.5, -2.0, -3.5, -1.0]
    assert one.losses([]) == []


def test_logarithms_of_ranks_as_az_nas_sums_them() -> None:
    combination = replace(BOTH, logarithmic=True)
    of_ranks = [(1, 3), (2, 2), (3, 1)]
    expected = [-(math.log(up / 3) + math.log(down / 3)) for up, down in of_ranks]
    assert combination.losses([measured(float(u), -float(d)) for u, d in of_ranks]) == pytest.approx(expected)
    assert expected[1] == min(expected)  # nowhere bad is better than best and worst
    assert registry.proxies("az-nas").logarithmic


def test_texts_name_combinations() -> None:
    combination = registry.proxies("naswot + ntk-condition")
    assert [str(goal) for goal in combination.goals] == ["max naswot", "min ntk-condition"]
    assert not combination.logarithmic
    assert registry.proxies("naswot").goals == (Goal("naswot", True),)
    assert len(registry.proxies("az-nas").parts) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("naswot+synflo", "unknown proxy 'synflo': did you mean 'synflow'"),
        ("naswot+naswot", r"one or more different ones, got 'naswot\+naswot'"),
        ("naswot+", "unknown proxy ''"),
        ("naswot+az-nas", r"'az-nas' is a combination itself; .* name its parts instead: az-expressivity\+"),
        ("naswot:3+synflow", "proxy 'naswot' takes no argument after a colon"),
    ],
)
def test_texts_that_name_none(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        registry.proxies(text)


def test_one_proxy_is_asked_for_where_one_is_meant() -> None:
    with pytest.raises(InvalidInputError, match=r"expected one proxy, got 'naswot\+synflow', which combines 2"):
        registry.proxy("naswot+synflow")


@pytest.mark.parametrize(
    "strategy", [lambda c: Naswot(c, samples=5), lambda c: AssistedEvolution(c, pool=5, population=2, sample=1)]
)
def test_strategies_promote_the_best_sum_of_ranks(strategy: Callable[..., Strategy]) -> None:
    made = strategy(CONTEXT)
    architectures = []
    for number in range(5):
        proposal = made.ask(number, proposal_rng(0, number))
        assert proposal is not None
        architectures.append(proposal.architecture)
    # The best by "up" alone is number 4, by "down" alone number 0; number 3 is second by both.
    scores = [(1.0, 0.0), (2.0, 30.0), (3.0, 20.0), (4.0, 1.0), (5.0, 40.0)]
    for number in (4, 2, 0, 1, 3):
        proposal = Proposal(architectures[number], UNTRAINED)
        made.tell(Trial(number, proposal, 0, str(number), outcome=measured(*scores[number]), told=number))
    promoted = made.ask(5, proposal_rng(0, 5))
    assert promoted is not None
    assert promoted.parents == (3,)


def test_parts_are_metrics_of_one_measurement() -> None:
    rng = np.random.default_rng(0)
    task = classification("noise", search=(rng.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8), np.arange(60) % 3))
    space = NasBench201(channels=4, cells=1)
    names = ["naswot", "zen", "snip", "fisher", "params", "flops"]
    proposal = Proposal(space.parse("resnet"), Fidelity(0), 3)

    def scores(order: list[str]) -> dict[str, float]:
        evaluator = ZeroCostEvaluator(space, task, [registry.proxy(n) for n in order], batch_size=16)
        return {name: metric.value for name, metric in evaluator.measure(proposal).metrics.items()}

    together = scores(names)
    assert set(together) == set(names)
    # Neither the others nor their order matter.
    assert scores(names[::-1]) == together
    assert scores(["fisher"]) == {"fisher": together["fisher"]}


def test_the_loss_and_the_seed_come_from_task_and_proposal() -> None:
    seen: list[Batch] = []

    def look(network: nn.Module, batch: Batch) -> float:
        seen.append(batch)
        return 0.0

    rng = np.random.default_rng(0)
    task = classification("noise", search=(rng.standard_normal((60, 3, 8, 8)), np.arange(60) % 3))
    task.loss = lambda outputs, targets, smoothing: outputs.sum() + smoothing
    space = NasBench201(channels=4, cells=1)
    ZeroCostEvaluator(space, task, [ZeroCostProxy("look", look)]).measure(Proposal(space.parse("resnet"), UNTRAINED, 7))
    assert float(seen[0].loss(torch.ones(2, 3), seen[0].targets)) == 6.0
    assert seen[0].seed == 7
    numbers = torch.rand(3, generator=seen[0].generator("a"))
    assert torch.equal(torch.rand(3, generator=seen[0].generator("a")), numbers)
    assert not torch.equal(torch.rand(3, generator=seen[0].generator("b")), numbers)
    assert not torch.equal(torch.rand(3, generator=replace(seen[0], seed=8).generator("a")), numbers)


def by_hand(study: nasplat.Study, up: list[str]) -> list[str]:
    """Architectures by the sum of their places in each metric, from the table of the study."""
    frame = study.to_frame().drop_duplicates("architecture")
    places = sum(frame[name].rank() for name in up)
    return [str(text) for text in frame.assign(places=-places).sort_values("places", kind="stable")["architecture"]]


def test_a_score_study_is_ranked_by_the_sum_of_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "a.db")
    options = ("--space", "conv-kernels", "--task", "digits", "--samples", "6", "--batch-size", "16", "--top", "6")
    run = runner(monkeypatch, capsys)
    result = run("score", *options, "--proxy", "snip+l2-norm", "--name", "s", "--store", path)
    assert result.code == 0, result.err
    study = nasplat.resume("s", store=path)
    expected = by_hand(study, ["snip", "l2-norm"])
    assert [t.proposal.architecture.text for t in study.ranked()] == expected
    assert study.best().proposal.architecture.text == expected[0]
    # Neither part alone has that order.
    assert expected not in (by_hand(study, ["snip"]), by_hand(study, ["l2-norm"]))
    assert [result.out.index(text) for text in expected] == sorted(result.out.index(text) for text in expected)
    with SqlStore(path) as store:
        assert best_architectures(store, study.config, 6) == expected


def test_az_nas_scores_a_space(tmp_path: Path) -> None:
    store = tmp_path / "a.db"
    study = nasplat.score("conv-kernels", "digits", proxy="az-nas", samples=4, score_batch_size=16, store=store)
    parts = ["az-expressivity", "az-progressivity", "az-trainability", "az-complexity"]
    frame = study.to_frame()
    assert set(parts) <= set(frame.columns)
    merits = np.log(frame[parts].rank() / len(frame)).sum(axis=1)
    assert study.best().number == int(merits.argmax())
