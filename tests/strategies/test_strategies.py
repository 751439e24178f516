"""Each strategy's own algorithm, against a second implementation of what its paper says."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from nasplat import registry
from nasplat.architecture import Architecture
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Failure, Measurement, Metric, Role
from nasplat.objective import Constraint, Goal, Objective
from nasplat.search_spaces.nasbench201 import OPERATIONS, NasBench201
from nasplat.seeding import proposal_rng
from nasplat.strategies.assisted_evolution import AssistedEvolution
from nasplat.strategies.exhaustive import Exhaustive
from nasplat.strategies.listed import Listed
from nasplat.strategies.local_search import LocalSearch
from nasplat.strategies.naswot import Naswot
from nasplat.strategies.random import Random
from nasplat.strategies.regularized_evolution import Aging, Member, RegularizedEvolution
from nasplat.strategy import SearchContext, Strategy
from nasplat.testing import Conversation, ToySpace
from nasplat.testing.conversation import Measure, failing, made_up
from nasplat.testing.strategies import context_of
from nasplat.trial import Proposal, Trial

SPACE = ToySpace()
CONTEXT = context_of(SPACE)
ZERO, FULL = Fidelity(0), CONTEXT.fidelity
CELLS = NasBench201()


def talk(strategy: Strategy, asks: int, *, measure: Measure | None = None, in_flight: int = 1) -> list[Trial]:
    order = None if in_flight == 1 else 0
    conversation = Conversation(strategy, measure or made_up(CONTEXT), in_flight=in_flight, order=order)
    return conversation.run(asks).trials


def loss(trial: Trial) -> float:
    return CONTEXT.objective.losses(trial.measurement)[0] if trial.measurement else math.inf


def score(trial: Trial) -> float:
    assert trial.measurement is not None
    return trial.measurement["score"]


def sampled(number: int) -> Architecture:
    return SPACE.sample(proposal_rng(0, number))


def assert_evolves(trials: Sequence[Trial], alive: deque[Trial], sample: int) -> None:
    """Each trial is the mutant of the best of a sample, drawn with replacement, of the youngest trials before it."""
    for trial in trials:
        rng = proposal_rng(0, trial.number)
        drawn = [alive[i] for i in rng.integers(len(alive), size=sample)]
        parent = min(drawn, key=loss)
        assert trial.proposal.parents == (parent.number,)
        assert trial.proposal.architecture == SPACE.mutate(parent.proposal.architecture, rng)
        assert (trial.proposal.why, trial.proposal.fidelity) == ("mutated", FULL)
        if loss(trial) < math.inf:
            alive.append(trial)


class TestRandom:
    def test_every_operation_is_as_likely_on_every_edge(self) -> None:
        trials = talk(Random(context_of(CELLS)), 3_000)
        for choice in CELLS.choices:
            drawn = [t.proposal.architecture[choice.name] for t in trials]
            assert chisquare([drawn.count(operation) for operation in OPERATIONS]).pvalue > 0.001
        pairs = [tuple(t.proposal.architecture[c.name] for c in CELLS.choices[:2]) for t in trials]
        assert chisquare([pairs.count((a, b)) for a in OPERATIONS for b in OPERATIONS]).pvalue > 0.001

    def test_proposals_are_the_samples_of_their_numbers(self) -> None:
        trials = talk(Random(CONTEXT), 30, in_flight=4)
        assert [t.proposal for t in trials] == [Proposal(sampled(n), FULL) for n in range(30)]


class TestRegularizedEvolution:
    @pytest.mark.parametrize(("population", "sample"), [(10, 3), (5, 5), (1, 1), (2, 9)])
    def test_is_algorithm_1(self, population: int, sample: int) -> None:
        trials = talk(RegularizedEvolution(CONTEXT, population=population, sample=sample), 80)
        assert [t.proposal for t in trials[:population]] == [Proposal(sampled(n), FULL) for n in range(population)]
        assert_evolves(trials[population:], deque(trials[:population], maxlen=population), sample)

    def test_failed_and_infeasible_trials_do_not_live(self) -> None:
        objective = Objective(CONTEXT.objective.goals, (Constraint("params", "<=", 0.7),))
        context = replace(CONTEXT, objective=objective)
        trials = talk(RegularizedEvolution(context), 120, measure=failing(made_up(CONTEXT), 0.3))
        parents = {p for t in trials for p in t.proposal.parents}
        assert parents
        for parent in parents:
            measurement = trials[parent].measurement
            assert measurement is not None
            assert measurement["params"] <= 0.7

    def test_samples_until_something_lives(self) -> None:
        trials = talk(RegularizedEvolution(CONTEXT, population=3), 20, measure=failing(made_up(CONTEXT), 1.0))
        assert [t.proposal.architecture for t in trials] == [sampled(n) for n in range(20)]

    def test_the_oldest_dies(self) -> None:
        aging = Aging(population=3, sample=50)
        for number in range(5):
            aging.add(Member(sampled(number), float(number), number))
        winners = {aging.winner(np.random.default_rng(seed)).number for seed in range(20)}
        assert (len(aging), winners) == (3, {2})

    def test_a_tournament_is_drawn_with_replacement(self) -> None:
        aging = Aging(population=10, sample=3)
        for number in range(10):
            aging.add(Member(sampled(number), float(number), number))
        rng = np.random.default_rng(0)
        share = np.mean([aging.winner(rng).number == 0 for _ in range(10_000)])
        assert share == pytest.approx(1 - 0.9**3, abs=0.014)  # three standard errors; without replacement it is 0.3


class TestAssistedEvolution:
    @pytest.mark.parametrize("maximize", [True, False])
    @pytest.mark.parametrize("in_flight", [1, 6])
    def test_the_first_population_is_the_best_of_the_pool(self, maximize: bool, in_flight: int) -> None:
        context = replace(CONTEXT, proxy=Goal("score", maximize))
        strategy = AssistedEvolution(context, pool=30, population=5, sample=2)
        trials = talk(strategy, 60, in_flight=in_flight)
        assert [t.proposal for t in trials[:30]] == [Proposal(sampled(n), ZERO) for n in range(30)]
        distinct = [t for t in trials[:30] if t.repeat_of is None]
        best = sorted(distinct, key=lambda t: -score(t) if maximize else score(t))[:5]
        promoted = [Proposal(t.proposal.architecture, FULL, parents=(t.number,), why="promoted") for t in best]
        assert [t.proposal for t in trials[30:35]] == promoted
        if in_flight == 1:
            assert_evolves(trials[35:], deque(trials[30:35], maxlen=5), sample=2)

    def test_what_could_not_be_scored_is_not_promoted(self) -> None:
        measure = failing(made_up(CONTEXT), 0.8)
        trials = talk(AssistedEvolution(CONTEXT, pool=20, population=20), 60, measure=measure)
        scored = [t for t in trials[:20] if t.measurement and t.repeat_of is None]
        promoted = [t for t in trials if t.proposal.why == "promoted"]
        assert 0 < len(scored) < 20
        assert {t.proposal.parents[0] for t in promoted} == {t.number for t in scored}

    def test_waits_for_the_scores(self) -> None:
        strategy = AssistedEvolution(CONTEXT, pool=4, population=2)
        for number in range(4):
            assert strategy.ask(number, proposal_rng(0, number)) is not None
        assert strategy.ask(4, proposal_rng(0, 4)) is None

    def test_evolves_at_zero_epochs_too(self) -> None:
        context = SearchContext(SPACE, Objective((Goal("score", True),)), ZERO, Goal("score", True))
        trials = talk(AssistedEvolution(context, pool=10, population=4), 60, measure=made_up(context))
        assert [t.proposal.why for t in trials] == ["sampled"] * 10 + ["promoted"] * 4 + ["mutated"] * 46


class TestNaswot:
    @pytest.mark.parametrize("maximize", [True, False])
    @pytest.mark.parametrize("in_flight", [1, 5])
    def test_scores_then_trains_the_best_once(self, maximize: bool, in_flight: int) -> None:
        context = replace(CONTEXT, proxy=Goal("score", maximize))
        trials = talk(Naswot(context, samples=25), 100, in_flight=in_flight)
        assert [t.proposal for t in trials[:25]] == [Proposal(sampled(n), ZERO) for n in range(25)]
        best = min(trials[:25], key=lambda t: (-score(t) if maximize else score(t), t.number))
        expected = Proposal(best.proposal.architecture, FULL, parents=(best.number,), why="promoted")
        assert [t.proposal for t in trials[25:]] == [expected]

    def test_finalists_are_the_best_distinct_ones(self) -> None:
        trials = talk(Naswot(CONTEXT, samples=60, finalists=5), 100)
        scores = sorted({score(t) for t in trials[:60]}, reverse=True)
        assert [score(trials[t.proposal.parents[0]]) for t in trials[60:]] == scores[:5]

    def test_nothing_scored_is_nothing_trained(self) -> None:
        trials = talk(Naswot(CONTEXT, samples=9, finalists=3), 100, measure=failing(made_up(CONTEXT), 1.0))
        assert len(trials) == 9

    def test_the_worst_score_is_minus_infinity(self) -> None:
        def measure(proposal: Proposal) -> Measurement:
            value = 1.0 if proposal.architecture == sampled(3) else -math.inf
            return Measurement({"score": Metric(value, Role.SEARCH), "val_accuracy": Metric(0.5, Role.SEARCH)})

        trials = talk(Naswot(CONTEXT, samples=8), 20, measure=measure)
        assert [t.proposal.architecture for t in trials[8:]] == [sampled(3)]


class TestLocalSearch:
    @pytest.mark.parametrize("in_flight", [1, 4])
    @pytest.mark.parametrize("starts", [1, 3])
    def test_steps_to_the_best_neighbor_until_there_is_no_better(self, in_flight: int, starts: int) -> None:
        trials = talk(LocalSearch(CONTEXT, starts=starts), 300, in_flight=in_flight)
        descents = 0
        left = deque(trials)
        while len(left) > 40:  # so that a last descent, which the end of the conversation cuts short, is left out
            first = [left.popleft() for _ in range(starts)]
            assert [(t.proposal.why, t.proposal.parents) for t in first] == [("restarted", ())] * starts
            assert [t.proposal.architecture for t in first] == [sampled(t.number) for t in first]
            centre = min(first, key=loss)
            seen = {t.proposal.architecture for t in first}
            while around := set(SPACE.neighbors(centre.proposal.architecture)) - seen:
                block = [left.popleft() for _ in around]
                assert {t.proposal.architecture for t in block} == around
                assert {(t.proposal.why, t.proposal.parents) for t in block} == {("neighbor", (centre.number,))}
                seen |= around
                best = min(block, key=loss)
                if loss(best) >= loss(centre):
                    break
                centre = best
            descents += 1
        assert descents > 5

    def test_moves_at_the_first_improvement(self) -> None:
        trials = talk(LocalSearch(CONTEXT, first_improvement=True), 300)
        centre, seen, descents = trials[0], {trials[0].proposal.architecture}, 0
        for trial in trials[1:]:
            around = set(SPACE.neighbors(centre.proposal.architecture)) - seen
            if not around:
                assert trial.proposal.why == "restarted"
                centre, seen = trial, set()
                descents += 1
            else:
                assert trial.proposal.parents == (centre.number,)
                assert trial.proposal.architecture in around
                centre = trial if loss(trial) < loss(centre) else centre
            seen.add(trial.proposal.architecture)
        assert descents > 5

    def test_late_neighbors_of_a_left_neighborhood_are_passed_over(self) -> None:
        trials = talk(LocalSearch(CONTEXT, first_improvement=True), 100, in_flight=5)
        centres = {p for t in trials for p in t.proposal.parents}
        assert all(trials[c].measurement is not None for c in centres)

    def test_a_failed_neighbor_is_the_worst(self) -> None:
        trials = talk(LocalSearch(CONTEXT), 300, measure=failing(made_up(CONTEXT), 0.4))
        centres = {p for t in trials for p in t.proposal.parents}
        assert centres
        assert all(trials[c].measurement is not None for c in centres)

    def test_finds_the_optimum_of_a_space_that_it_can_descend(self) -> None:
        def measure(proposal: Proposal) -> Measurement:
            return Measurement({"val_accuracy": Metric(additive(proposal.architecture), Role.SEARCH)})

        trials = talk(LocalSearch(context_of(CELLS)), 24 * 6 + 1, measure=measure)
        best = max(map(CELLS.at, range(CELLS.size)), key=additive)
        assert best in {t.proposal.architecture for t in trials}


def test_evolution_begins_with_what_is_known() -> None:
    known = [sampled(number).text for number in (7, 9)]
    strategy = RegularizedEvolution(context_of(SPACE), population=4, sample=4, known=known)
    trials = talk(strategy, 12)
    assert [trial.proposal.architecture.text for trial in trials[:2]] == known
    assert [trial.proposal.why for trial in trials[:5]] == ["known", "known", "sampled", "sampled", "mutated"]
    with pytest.raises(InvalidArchitectureError):
        RegularizedEvolution(context_of(SPACE), known=["nothing like it"])


def additive(architecture: Architecture) -> float:
    """Each edge contributes on its own; the best cell is convolutions everywhere."""
    worth = dict(zip(OPERATIONS, (0.0, 0.3, 0.5, 1.0, 0.2), strict=True))
    return math.fsum((i + 1) * worth[str(v)] for i, (_, v) in enumerate(architecture.values))


@pytest.mark.parametrize("name", ["regularized-evolution", "local-search", "assisted-evolution"])
def test_searching_beats_sampling_where_there_is_something_to_learn(name: str) -> None:
    context = context_of(CELLS)

    def measure(proposal: Proposal) -> Measurement | Failure:
        value = Metric(additive(proposal.architecture), Role.SEARCH)
        return Measurement({"val_accuracy": value, "score": value})

    def best(strategy: str) -> float:
        found = []
        for seed in range(10):
            made: Strategy = registry.create("strategy", strategy, context)
            trials = Conversation(made, measure, seed=seed).run(150).trials
            found.append(max(additive(t.proposal.architecture) for t in trials if t.proposal.fidelity == FULL))
        return math.fsum(found) / len(found)

    assert best(name) > best("random") + 1.0


class TestExhaustive:
    def test_asks_for_every_index_once(self) -> None:
        trials = talk(Exhaustive(CONTEXT), 1_000, in_flight=3)
        assert [t.proposal for t in trials] == [Proposal(SPACE.at(i), FULL, why="enumerated") for i in range(50)]

    def test_leaves_out_what_violates_a_constraint(self) -> None:
        def shallow(architecture: Architecture) -> bool:
            return architecture["depth"] == 0

        trials = talk(Exhaustive(context_of(SPACE.restricted(shallow))), 1_000)
        assert [t.proposal.architecture["norm"] for t in trials] == ["no", "yes"]


class TestListed:
    def test_asks_for_the_list_in_order_with_every_seed(self) -> None:
        strategy = Listed(CONTEXT, architectures=["linear", "#7", str(SPACE.at(9))], seeds=2, first_seed=5)
        trials = talk(strategy, 100, in_flight=4)
        expected = [(SPACE.parse("linear"), 5), (SPACE.parse("linear"), 6)]
        expected += [(SPACE.at(7), 5), (SPACE.at(7), 6), (SPACE.at(9), 5), (SPACE.at(9), 6)]
        assert [(t.proposal.architecture, t.proposal.seed) for t in trials] == expected
        assert {(t.proposal.fidelity, t.proposal.why) for t in trials} == {(FULL, "listed")}

    def test_a_string_of_no_architecture_is_refused(self) -> None:
        with pytest.raises(InvalidArchitectureError, match="unknown choice of toy 'depht': did you mean 'depth'"):
            Listed(CONTEXT, architectures=["depht=1"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: RegularizedEvolution(c, population=0), "population and sample must be 1 or more, got 0 and 3"),
        (lambda c: RegularizedEvolution(c, sample=0), "population and sample must be 1 or more, got 10 and 0"),
        (lambda c: AssistedEvolution(c, pool=3), "the pool must be at least the population, got 3 and 10"),
        (lambda c: AssistedEvolution(c, population=0), "population and sample must be 1 or more"),
        (lambda c: Naswot(c, samples=0), "expected 1 <= finalists <= samples, got 1 and 0"),
        (lambda c: Naswot(c, samples=2, finalists=3), "expected 1 <= finalists <= samples, got 3 and 2"),
        (lambda c: LocalSearch(c, starts=0), "starts must be 1 or more, got 0"),
        (lambda c: Listed(c), "strategy 'listed' needs one or more architectures and seeds"),
        (lambda c: Listed(c, architectures=["#1"], seeds=0), "needs one or more architectures and seeds"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[SearchContext], Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make(CONTEXT)
