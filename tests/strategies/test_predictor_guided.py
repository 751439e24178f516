"""The predictor against closed forms and a second implementation, and the search that it guides."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kendalltau, norm

from nasplat.architecture import Architecture
from nasplat.errors import InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Failure, FailureReason, Measurement, Metric, Role
from nasplat.objective import Constraint, Goal, Objective
from nasplat.search_spaces.conv_kernels import ConvKernels
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.space import Graph, SearchSpace
from nasplat.strategies.predictor_guided import PredictorGuided, expected_improvement
from nasplat.strategies.predictors import Describer, Predictor, normal_scores, walks
from nasplat.strategies.random import Random
from nasplat.strategy import Strategy
from nasplat.testing import Conversation, ToySpace
from nasplat.testing.conversation import Measure, failing, made_up
from nasplat.testing.strategies import accepted, context_of
from nasplat.trial import Proposal, Trial

CELLS, KERNELS, TOY = NasBench201(), ConvKernels(), ToySpace()
SPACES = [CELLS, KERNELS, TOY]


def additive(space: SearchSpace, seed: int) -> Measure:
    """Measures the sum of a random effect of every choice that is made."""
    rng = np.random.default_rng(seed)
    effects = {(c.name, option): rng.standard_normal() for c in space.choices for option in c.options}

    def measure(proposal: Proposal) -> Measurement:
        value = sum(effects[item] for item in proposal.architecture.values)
        return Measurement({"val_accuracy": Metric(float(value), Role.SEARCH)})

    return measure


def talk(strategy: Strategy, measure: Measure, asks: int, *, in_flight: int = 1, seed: int = 0) -> list[Trial]:
    order = None if in_flight == 1 else 0
    return Conversation(strategy, measure, in_flight=in_flight, order=order, seed=seed).run(asks).trials


def best(trials: Sequence[Trial]) -> float:
    return max(t.measurement["val_accuracy"] for t in trials if t.measurement is not None)


def samples(space: SearchSpace, count: int) -> list[Architecture]:
    rng = np.random.default_rng(7)
    return [space.sample(rng) for _ in range(count)]


class TestWalks:
    def test_what_leads_nowhere_is_left_out(self) -> None:
        graph = Graph(("in", "a", "dead", "out"), ((0, 1, "x"), (0, 2, "x"), (1, 3, ""), (0, 3, "z")))
        expected = ["in", "a", "out", "in\nx\na", "a\n\nout", "in\nz\nout", "in\nx\na\n\nout"]
        assert walks(graph) == Counter(expected)

    def test_places_between_operations_have_no_name(self) -> None:
        """Two cells that differ in the order of their nodes alone are drawn alike."""
        form = "|{}~0|+|{}~0|none~1|+|none~0|{}~1|{}~2|"
        first, second = (
            CELLS.graph(CELLS.parse(form.format(*operations)))
            for operations in (
                ("nor_conv_3x3", "skip_connect", "avg_pool_3x3", "nor_conv_1x1"),
                ("skip_connect", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3"),
            )
        )
        assert first.edges != second.edges
        assert walks(first) == walks(second)
        assert "input\nnor_conv_3x3\n\navg_pool_3x3\noutput" in walks(first)

    def test_equal_branches_count_twice(self) -> None:
        graph = Graph(("in", "a", "a", "out"), ((0, 1, ""), (0, 2, ""), (1, 3, ""), (2, 3, "")))
        assert walks(graph, 1) == Counter({"in": 1, "a": 2, "out": 1, "in\n\na": 2, "a\n\nout": 2})

    def test_no_path_is_no_walk(self) -> None:
        assert not walks(Graph(("in", "a", "out"), ((0, 1, "x"),)))

    def test_a_large_drawing_keeps_its_short_walks(self) -> None:
        edges = tuple((s, t, "") for s in range(30) for t in range(s + 1, 30))
        assert {text.count("\n") for text in walks(Graph(tuple(map(str, range(30))), edges))} == {0}


class TestDistances:
    @pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
    def test_by_choices(self, space: SearchSpace) -> None:
        """At most 1 for a choice; what is made on one side only counts half, and half of the way to the middle."""
        describer, architectures = Describer(space), samples(space, 30)
        described = [describer.describe(a) for a in architectures]
        found = describer.distances(described, described)[0]
        for i, first in enumerate(architectures):
            for j, second in enumerate(architectures):
                expected = 0.0
                for choice in space.choices:
                    made = [a[choice.name] for a in (first, second) if choice.name in a.chosen]
                    places = [choice.options.index(m) / max(1, len(choice.options) - 1) for m in made]
                    if len(made) == 2:
                        expected += abs(places[0] - places[1]) if choice.ordered else float(made[0] != made[1])
                    elif made:
                        expected += 0.5 + (abs(places[0] - 0.5) if choice.ordered else 0.0)
                assert found[i, j] == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
    def test_by_drawing(self, space: SearchSpace) -> None:
        """One minus the share of the walks of both that they have in common."""
        describer, architectures = Describer(space), samples(space, 20)
        found = describer.distances(*[[describer.describe(a) for a in architectures]] * 2)[1]
        counted = [walks(space.graph(a)) for a in architectures]
        for i, first in enumerate(counted):
            for j, second in enumerate(counted):
                union = (first | second).total()
                assert found[i, j] == pytest.approx(1 - (first & second).total() / union if union else 1.0)

    def test_dead_branches_are_not_seen_in_the_drawing(self) -> None:
        """Nothing leaves node 1, so what enters it does not matter."""
        form = "|{}~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
        first, second = (CELLS.parse(form.format(operation)) for operation in ("nor_conv_1x1", "nor_conv_3x3"))
        describer = Describer(CELLS)
        by_choices, by_drawing = describer.distances([describer.describe(first)], [describer.describe(second)])
        assert (by_choices.item(), by_drawing.item()) == (1.0, 0.0)


class TestPredictor:
    def test_is_the_gaussian_process_of_the_textbook(self) -> None:
        """Generalized least squares for the mean, then conditioning, with inverses instead of factors."""
        describer, rng = Describer(KERNELS), np.random.default_rng(0)
        described = [describer.describe(a) for a in samples(KERNELS, 40)]
        told, pending, new = described[:25], described[25:30], described[30:]
        y, predictor = rng.standard_normal(25), Predictor()
        posterior = predictor.given(told, y, pending)
        mean, deviation = posterior.predict(new)

        noise = 0.1
        k = predictor.kernel(describer.distances(told, told))
        inverse = np.linalg.inv(k + noise * np.eye(25))
        level = (inverse @ y).sum() / inverse.sum()
        across = predictor.kernel(describer.distances(new, told))
        assert mean == pytest.approx(level + across @ inverse @ (y - level))
        assert posterior.lowest == pytest.approx((level + k @ inverse @ (y - level)).min())
        variance = (y - level) @ inverse @ (y - level) / 25
        both = predictor.kernel(describer.distances(described[:30], described[:30])) + noise * np.eye(30)
        across = predictor.kernel(describer.distances(new, described[:30]))
        explained = np.einsum("ij,jk,ik->i", across, np.linalg.inv(both), across)
        assert deviation**2 == pytest.approx(variance * (1 - explained))

    @pytest.mark.parametrize("space", [CELLS, KERNELS], ids=lambda s: s.name)
    def test_ranks_architectures_that_it_has_not_seen(self, space: SearchSpace) -> None:
        measure, describer, predictor = additive(space, 0), Describer(space), Predictor()
        architectures = samples(space, 260)
        losses = [-best([_trial(a, measure)]) for a in architectures]
        described = [describer.describe(a) for a in architectures]
        targets = normal_scores(losses[:60])
        predictor.fit(described[:60], targets, steps=20)
        mean, _ = predictor.given(described[:60], targets).predict(described[60:])
        assert kendalltau(mean, losses[60:]).statistic > 0.5

    def test_fitting_tells_noise_from_signal(self) -> None:
        describer, rng = Describer(CELLS), np.random.default_rng(3)
        architectures = samples(CELLS, 80)
        described, measure = [describer.describe(a) for a in architectures], additive(CELLS, 1)
        deviations = []
        for targets in (
            normal_scores([-best([_trial(a, measure)]) for a in architectures]),
            rng.standard_normal(80),
        ):
            predictor = Predictor()
            predictor.fit(described, targets, steps=30)
            fitted = predictor.given(described, targets).predict(described)[0]
            deviations.append(float(np.std(fitted - targets) / np.std(targets)))
        assert deviations[0] < 0.3 < deviations[1]

    def test_targets_are_ranks(self) -> None:
        found = normal_scores([3.0, math.inf, 1.0, 1e9, math.inf, 1.0])
        assert found == pytest.approx(norm.ppf((np.array([3, 5.5, 1.5, 4, 5.5, 1.5]) - 0.5) / 6))

    def test_targets_that_are_all_equal_are_predicted(self) -> None:
        describer, predictor = Describer(TOY), Predictor()
        described, targets = [describer.describe(a) for a in samples(TOY, 12)], np.zeros(12)
        predictor.fit(described, targets)
        mean, deviation = predictor.given(described, targets).predict(described)
        assert mean == pytest.approx(np.zeros(12))
        assert np.isfinite(deviation).all()


def test_expected_improvement_is_the_integral() -> None:
    for mean, deviation in ((0.0, 1.0), (1.5, 0.4), (-2.0, 0.7)):
        integral, _ = quad(lambda y, m=mean, d=deviation: (0.3 - y) * norm.pdf(y, m, d), mean - 9 * deviation, 0.3)
        found = expected_improvement(np.array([mean]), np.array([deviation]), 0.3).item()
        assert found == pytest.approx(integral, rel=1e-6)


def _trial(architecture: Architecture, measure: Measure) -> Trial:
    return Trial(0, proposal := Proposal(architecture, Fidelity(4)), 0, "", measure(proposal))


def flat(proposal: Proposal) -> Measurement:
    return Measurement({"val_accuracy": Metric(0.5, Role.SEARCH)})


def _starts(trials: Sequence[Trial], initial: int) -> list[int]:
    """Where so many trials in a row were sampled; a guided search samples as well, but not for so long."""
    found, row = [], 0
    for number, trial in enumerate(trials):
        row = row + 1 if trial.proposal.why == "sampled" else 0
        if row == initial:
            found.append(number - initial + 1)
    return found


class TestPredictorGuided:
    @pytest.mark.parametrize("space", [CELLS, KERNELS], ids=lambda s: s.name)
    def test_beats_random_search_on_sums_of_effects(self, space: SearchSpace) -> None:
        """On every one of some problems, and with half of the evaluations it is at least as good."""
        context = context_of(space)
        for seed in range(4):
            measure = additive(space, seed)
            ours = best(talk(PredictorGuided(context), measure, 40, seed=seed))
            others = talk(Random(context), measure, 80, seed=seed)
            assert best(others[:40]) < ours >= best(others)

    @pytest.mark.parametrize("in_flight", [1, 100])
    def test_never_asks_twice_for_the_same(self, in_flight: int) -> None:
        trials = talk(PredictorGuided(context_of(CELLS)), additive(CELLS, 0), 150, in_flight=in_flight)
        assert len({t.proposal.architecture.fingerprint for t in trials}) == 150

    def test_still_learns_with_many_in_flight(self) -> None:
        context = context_of(KERNELS)
        for seed in range(3):
            measure = additive(KERNELS, seed)
            ours = best(talk(PredictorGuided(context), measure, 150, in_flight=50, seed=seed))
            assert ours > best(talk(Random(context), measure, 300, seed=seed))

    def test_the_first_ones_are_random_and_the_rest_have_parents(self) -> None:
        trials = talk(PredictorGuided(context_of(CELLS), initial=7), additive(CELLS, 0), 60)
        assert [t.proposal.why for t in trials[:7]] == ["sampled"] * 7
        assert {t.proposal.why for t in trials[7:]} >= {"mutated", "crossed"}
        assert all(bool(t.proposal.parents) == (t.proposal.why != "sampled") for t in trials)

    @pytest.mark.parametrize("in_flight", [1, 8])
    def test_starts_again_where_nothing_is_left_to_find(self, in_flight: int) -> None:
        """On a plain: sampled again as in the beginning, and nothing told before is a parent after."""
        trials = talk(PredictorGuided(context_of(CELLS)), flat, 100, in_flight=in_flight)
        starts = _starts(trials, 10)
        assert len(starts) >= 2
        assert starts[0] == 0
        assert starts[1] + 10 > 40
        assert len({t.proposal.architecture.fingerprint for t in trials}) == 100
        parents = {p for t in trials[starts[1] + 10 :] for p in t.proposal.parents}
        assert parents
        assert min(parents) >= starts[1]

    def test_goes_on_while_there_is_something_to_find(self) -> None:
        """The same predictor that promises nothing, but every trial is better than all before."""
        made = 0

        def rising(proposal: Proposal) -> Measurement:
            nonlocal made
            made += 1
            return Measurement({"val_accuracy": Metric(float(made), Role.SEARCH)})

        assert _starts(talk(PredictorGuided(context_of(CELLS)), rising, 80), 10) == [0]

    def test_avoids_what_fails(self) -> None:
        """Networks with a 7×7 kernel in their first layer run out of memory."""
        measure = additive(KERNELS, 0)

        def bounded(proposal: Proposal) -> Measurement | Failure:
            if proposal.architecture["s0l0.kernel"] == 7:
                return Failure(FailureReason.OUT_OF_MEMORY, "too large")
            return measure(proposal)

        trials = talk(PredictorGuided(context_of(KERNELS)), bounded, 90)
        failed = [t.failure is not None for t in trials]
        assert sum(failed[:10]) > 0
        assert np.mean(failed[40:]) < 0.1

    def test_samples_until_enough_is_measured(self) -> None:
        trials = talk(PredictorGuided(context_of(KERNELS)), failing(made_up(context_of(KERNELS)), 1.0), 30)
        assert {t.proposal.why for t in trials} == {"sampled"}

    def test_infeasible_trials_are_the_worst(self) -> None:
        context = context_of(TOY)
        objective = Objective(context.objective.goals, (Constraint("params", "<=", 0.7),))
        trials = talk(PredictorGuided(replace(context, objective=objective)), made_up(context), 45)
        parents = {p for t in trials for p in t.proposal.parents}
        assert parents
        for parent in parents:
            measurement = trials[parent].measurement
            assert measurement is not None
            assert measurement["params"] <= 0.7

    def test_stays_in_a_restricted_space(self) -> None:
        space = KERNELS.restricted(accepted)
        trials = talk(PredictorGuided(context_of(space)), additive(KERNELS, 0), 60, in_flight=4)
        assert all(accepted(t.proposal.architecture) for t in trials)

    def test_finds_everything_in_a_small_space(self) -> None:
        trials = talk(PredictorGuided(context_of(TOY)), additive(TOY, 0), 200)
        assert len({t.proposal.architecture for t in trials}) == TOY.size

    def test_the_best_of_a_pool_come_first(self) -> None:
        context = context_of(KERNELS)
        trials = talk(PredictorGuided(context, initial=5, pool=30), made_up(context), 50)
        assert all(t.proposal.fidelity == Fidelity(0) for t in trials[:30])
        scores = [t.measurement["score"] for t in trials[:30] if t.measurement is not None]
        order = sorted(range(30), key=lambda n: -scores[n])[:5]
        assert [t.proposal.parents for t in trials[30:35]] == [(n,) for n in order]
        assert {t.proposal.why for t in trials[30:35]} == {"promoted"}
        assert all(t.proposal.fidelity == context.fidelity for t in trials[30:])

    def test_the_first_goal_decides(self) -> None:
        both = Objective((Goal("val_accuracy", True), Goal("latency_ms", False)))
        measure = additive(CELLS, 2)

        def two(proposal: Proposal) -> Measurement:
            metrics = measure(proposal)
            assert isinstance(metrics, Measurement)
            draw = float(int(proposal.architecture.fingerprint[:4], 16))
            return Measurement({**metrics.metrics, "latency_ms": Metric(draw, Role.SEARCH)})

        alone = talk(PredictorGuided(context_of(CELLS)), measure, 40)
        assert [t.proposal for t in talk(PredictorGuided(context_of(CELLS, both)), two, 40)] == [
            t.proposal for t in alone
        ]

    def test_learns_from_a_bounded_number(self) -> None:
        strategy = PredictorGuided(context_of(KERNELS))
        talk(strategy, additive(KERNELS, 0), 700, in_flight=700)
        learned = strategy._learned_from()
        losses = sorted(t.loss for t in strategy._told.values())
        assert len(learned) == 300
        assert [t.loss for t in learned[:150]] == losses[:150]
        assert learned[-1].loss == losses[-1]

    @pytest.mark.parametrize("options", [{"initial": 1}, {"candidates": 4}, {"pool": 9}, {"pool": -1}])
    def test_options_that_make_no_sense_are_refused(self, options: dict[str, int]) -> None:
        with pytest.raises(InvalidInputError, match=r"or more, got|at least initial, got"):
            PredictorGuided(context_of(TOY), **options)
