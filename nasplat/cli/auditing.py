"""The command that audits zero-cost scores against trained accuracy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, final

import typer

from nasplat import registry
from nasplat.cli import options, output
from nasplat.config import StudyConfig
from nasplat.errors import InvalidArchitectureError, InvalidInputError, unknown_name
from nasplat.fidelity import Fidelity
from nasplat.measurement import Measurement, Metric, Role
from nasplat.objective import Goal
from nasplat.proxy import Combination
from nasplat.space import SearchSpace
from nasplat.storage import Query, Reader
from nasplat.trial import Proposal

if TYPE_CHECKING:
    from nasplat.audit import ScoreAudit
    from nasplat.rank_bootstrap import Interval

    _Audited: TypeAlias = tuple[str, int, Sequence[ScoreAudit]]

_ALL = 10_000_000


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(audit)


def audit(
    subject: Annotated[
        str, typer.Argument(metavar="STUDY|BENCHMARK", help="Study with trained architectures, or csv:PATH#DATASET.")
    ],
    scores: Annotated[
        list[str] | None,
        typer.Option(help="Study whose scores to audit; by default the same, or all over its space in the store."),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Table that says what training gives, instead of the study.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Of the trainings; by default the study's.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="Of the trainings; by default the study's goal, or a table's test accuracy.")
    ] = None,
    proxy: Annotated[
        list[str] | None, typer.Option(help="Only this score; a+b for the sum of ranks of several.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Of a benchmark for which no --scores are named.")] = None,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
    trust_file: options.TrustOption = False,
) -> None:
    """Audit zero-cost scores: do they rank networks as training does, and better than counting parameters?

    [bold]Examples[/]

      nasplat audit conv-kernels-assisted-evolution-1

      nasplat audit trained --scores scores-of-the-same-space

      nasplat audit scores --benchmark csv:nasbench201.csv.gz#cifar10 --epochs 200
    """
    from nasplat import audit as audits

    table = subject if subject.partition(":")[0] in registry.names("table") else None
    if table is not None and benchmark is not None:
        raise InvalidInputError(f"name one table, got {table!r} and --benchmark {benchmark!r}")
    reports: list[_Audited] = []
    with Reader(store) as reader:
        trained: _Trained
        if table is not None or benchmark is not None:
            if epochs is None:
                raise InvalidInputError("say which trainings of the table: --epochs 200")
            trained = _Table(table or benchmark or "", Fidelity(epochs), metric, trust_file)
        else:
            trained = _Study(reader, subject, epochs, metric)
        for source in scores or _sources(reader, None if table else subject, space):
            rows = _scored(reader, source)
            kept, merits = trained.merits(rows)
            found = _merits(rows.config, kept, proxy or ())
            audited = audits.audit(found, _array(merits), resamples=resamples, seed=seed)
            reports.append((source, len(kept), audited))
    _report(trained, reports, resamples, json)


# Where scores and trained metrics come from ------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class _Scored:
    """Untrained trials of a study."""

    study: str
    config: StudyConfig
    space: SearchSpace
    rows: Sequence[Mapping[str, Any]]


class _Trained(Protocol):
    """What training gave."""

    name: str
    goal: Goal
    epochs: int

    def merits(self, scored: _Scored) -> tuple[list[dict[str, float]], list[float]]:
        """Metrics at zero epochs of the architectures that were trained too, and for each what training gave."""


def _sources(reader: Reader, study: str | None, space: str | None) -> list[str]:
    """The study itself where it has scores, else all studies of its space that do, and of its task if it trains."""
    if study is not None and _untrained(reader, study, 1):
        return [study]
    if study is None and space is None:
        raise InvalidInputError("whose scores? Name their study with --scores, or all of a space with --space")
    task = None
    if study is not None:
        own = reader.study(study)
        known, task = _name(own["space"]), None if own["config"].get("benchmark") else own["task"]
    else:
        known = registry.create("search_space", space or "").name
    others = [r["study"] for r in reader.studies() if _name(r["space"]) == known and task in (None, r["task"])]
    sources = [name for name in others if _untrained(reader, name, 1)]
    if not sources:
        wanted = f"the store has no scores over {known}{f' for {task}' if task else ''}"
        raise InvalidInputError(f"{wanted}; first: nasplat score --space {known} --task {task or '…'}")
    return sources


def _untrained(reader: Reader, study: str, limit: int) -> list[dict[str, Any]]:
    return reader.page(Query(study, "epochs == 0 and state == 'completed'", limit=limit))


def _scored(reader: Reader, study: str) -> _Scored:
    from nasplat.trained import space_of

    config = StudyConfig.from_json(reader.study(study)["config"])
    rows = _untrained(reader, study, _ALL)
    if not rows:
        raise InvalidInputError(f"study {study!r} has no scores; first: nasplat score --space {config.space} --task …")
    return _Scored(study, config, space_of(config), rows)


def _name(key: str) -> str:
    """A space's name from its key: its variants hold the same architectures."""
    return key.partition("@")[0]


@final
class _Table:
    """Trainings of a table: every architecture's own row, isomorphic ones too."""

    def __init__(self, table: str, fidelity: Fidelity, metric: str | None, trust_files: bool) -> None:
        self.name, self.epochs = table.rpartition("/")[2], fidelity.epochs
        self._table, self._fidelity, self._trust_files = table, fidelity, trust_files
        self._metric = metric
        self.goal = Goal.parse(metric or "test_accuracy")

    def merits(self, scored: _Scored) -> tuple[list[dict[str, float]], list[float]]:
        """One of each string that has a row."""
        table = registry.create("table", self._table, scored.space, options={"trust_files": self._trust_files})
        available = table.metrics(self._fidelity)
        if self._metric is None and "test_accuracy" not in available:
            self.goal = Goal.parse("val_accuracy")
        if self.goal.metric not in available:
            raise unknown_name("metric of the table", self.goal.metric, available)
        metrics, merits = [], []
        for text, values in _means((r["architecture"], r) for r in scored.rows):
            try:
                measured = table.measure(Proposal(scored.space.parse(text), self._fidelity))
            except InvalidArchitectureError:
                continue
            metrics.append(values)
            merits.append(-self.goal.loss(measured[self.goal.metric]))
        return metrics, merits


@final
class _Study:
    """Trained trials of a study, the mean over its seeds: isomorphic architectures are one."""

    def __init__(self, reader: Reader, study: str, epochs: int | None, metric: str | None) -> None:
        from nasplat.trained import space_of

        config = StudyConfig.from_json(reader.study(study)["config"])
        self.name, self.epochs = f"study {study}", config.epochs if epochs is None else epochs
        if self.epochs == 0:
            raise InvalidInputError(
                f"study {study!r} trains nothing; say what to audit its scores against: --benchmark TABLE --epochs N, "
                f"or nasplat audit TRAINED_STUDY --scores {study}"
            )
        self.goal = Goal.parse(metric) if metric else config.parsed_objective().goals[0]
        self._space = space_of(config)
        rows = reader.page(Query(study, f"epochs == {self.epochs} and state == 'completed'", limit=_ALL))
        self._values = {
            fingerprint: values[self.goal.metric]
            for fingerprint, values in _means((r["fingerprint"], r) for r in rows)
            if self.goal.metric in values
        }
        if not self._values:
            raise InvalidInputError(
                f"study {study!r} has no {self.goal.metric} after {self.epochs} epochs: choose --metric and --epochs"
            )

    def merits(self, scored: _Scored) -> tuple[list[dict[str, float]], list[float]]:
        """One of each class of isomorphic architectures that was trained."""
        if scored.space.name != self._space.name:
            raise InvalidInputError(
                f"the scores of {scored.study!r} are over {scored.space.name}, {self.name} is over {self._space.name}"
            )
        # Variants of a space have canonical forms of their own, so that strings are what they share.
        pairs = ((self._space.parse(row["architecture"]).fingerprint, row) for row in scored.rows)
        found = [(values, self._values[f]) for f, values in _means(pairs) if f in self._values]
        return [values for values, _ in found], [-self.goal.loss(value) for _, value in found]


def _means(rows: Any) -> list[tuple[str, dict[str, float]]]:
    """The mean of each metric over the rows of a key."""
    groups: dict[str, list[dict[str, float]]] = {}
    for key, row in rows:
        groups.setdefault(key, []).append(row)
    out = []
    for key, group in groups.items():
        names = [n for n, v in group[0].items() if isinstance(v, float) and all(n in r for r in group)]
        out.append((key, {n: _mean([r[n] for r in group]) for n in names}))
    return out


def _mean(values: list[float]) -> float:
    if -math.inf in values:
        return -math.inf
    return values[0] if len(values) == 1 else math.fsum(values) / len(values)


# Scores by name ----------------------------------------------------------------------------------------------


def _merits(config: StudyConfig, metrics: Sequence[Mapping[str, float]], wanted: Sequence[str]) -> dict[str, Any]:
    """Scores by name, more is better: those that every architecture has, and what combines them."""
    from nasplat.audit import COUNTS

    if not metrics:
        return {}
    own = registry.proxies(config.proxy)
    directions = {goal.metric: goal for goal in own.goals}
    there = [n for n in metrics[0] if n not in _COLUMNS and all(n in m for m in metrics)]
    out = {}
    for name in there:
        goal = directions.get(name) or _registered(name)
        out[name] = _array([-goal.loss(m[name]) for m in metrics])
    for text in {*wanted, own.name}:
        combination = own if text == own.name else registry.proxies(text) if text not in out else None
        if combination is not None and len(combination.parts) > 1:
            out[text] = _combined(combination, metrics, there)
        elif text in wanted and text not in out:
            raise unknown_name("score of the study", text, there)
    return {name: values for name, values in out.items() if not wanted or name in (*wanted, *COUNTS)}


_COLUMNS = ("seconds", "gpu_seconds", "asked_at", "finished_at", "data_fraction")
"""Columns of a trial that are numbers and no metrics."""


def _registered(name: str) -> Goal:
    return registry.proxy(name).goal if name in registry.names("proxy") else Goal(name, maximize=True)


def _combined(combination: Combination, metrics: Sequence[Mapping[str, float]], there: Sequence[str]) -> Any:
    for part in combination.parts:
        if part.name not in there:
            raise unknown_name("score of the study", part.name, there)
    names = [part.name for part in combination.parts]
    measured = [Measurement({n: Metric(m[n], Role.SEARCH) for n in names}) for m in metrics]
    return -_array(combination.losses(measured))


def _array(values: Sequence[float]) -> Any:
    import numpy as np

    return np.array(values, np.float64)


# What is printed ---------------------------------------------------------------------------------------------


def _report(trained: "_Trained", reports: "Sequence[_Audited]", resamples: int, json: bool) -> None:
    facts = {"trained": trained.name, "metric": str(trained.goal), "epochs": trained.epochs, "resamples": resamples}
    if json:
        of = [{"scores_of": s, "architectures": n, "scores": [asdict(a) for a in audited]} for s, n, audited in reports]
        output.print_json({**facts, "audits": of})
        return
    for source, count, audited in reports:
        truth = f"{trained.goal.metric} after {trained.epochs} epochs, {trained.name}"
        output.say(f"{source}: scores of {count:,} architectures against {truth}")
        _print(audited)
    output.say(_LEGEND)


_LEGEND = (
    "τ: Kendall's, ρ: Spearman's, with 95 % bootstrap intervals; positive is right. top 10 %: share of the best tenth\n"
    "that is in the best tenth by score, 0.1 by chance. A score beats counting if its τ is above that of params and\n"
    "of flops (paired intervals above 0), adds to counting if its ρ given each of them is above 0, else adds nothing."
)


def _print(audited: "Sequence[ScoreAudit]") -> None:
    rows = []
    for a in audited:
        row = {"score": a.score, "τ": _spelled(a.tau), "ρ": _spelled(a.rho)}
        row |= {f"ρ given {count}": _spelled(interval) for count, interval in a.partial_rho.items()}
        row |= {f"τ - {count}": _spelled(interval) for count, interval in a.tau_above.items()}
        rows.append({**row, "top 10 %": f"{a.top_overlap:.2f}", "infinite": a.infinite, "verdict": str(a.verdict)})
    last = ("top 10 %", "infinite", "verdict")
    columns = [c for c in dict.fromkeys(name for row in rows for name in row) if c not in last]
    shown = sorted(columns, key=lambda c: (c != "score", "given" in c or "-" in c, "-" in c))
    output.print_table(rows, [*shown, *last])


def _spelled(interval: "Interval") -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
