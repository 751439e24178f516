"""The command that compares strategies on tables."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nasplat import registry
from nasplat.cli import options, output
from nasplat.cli.groups import with_groups
from nasplat.config import Budget, StudyConfig
from nasplat.errors import InvalidInputError, unknown_name
from nasplat.measurement import Measurement

if TYPE_CHECKING:
    from nasplat.protocol import Entry, Found, Protocol, Score

_STRATEGIES = ("random", "regularized-evolution", "local-search")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(with_groups(bench, lengths=_lengths))


def _lengths(
    evaluations: Annotated[int | None, typer.Option(help="Budget of a search; 100 unless --seconds is given.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Budget of a search in the table's training time.")] = None,
    signal_epochs: Annotated[int, typer.Option(help="Of the trainings whose validation a search sees.")] = 12,
    epochs: Annotated[int, typer.Option(help="Of the trainings whose test judges what it found.")] = 200,
) -> dict[str, Any]:
    """Fields of ``Protocol`` from the options."""
    if evaluations is not None and evaluations < 1:
        raise InvalidInputError(f"--evaluations takes 1 or more, got {evaluations}")
    budget = Budget(trials=evaluations or (None if seconds else 100), seconds=seconds)
    return {"budget": budget, "signal_epochs": signal_epochs, "truth_epochs": epochs}


def bench(
    *,
    table: Annotated[list[str], typer.Argument(help="Tables, each with its data set: csv:PATH#DATASET.")],
    space: Annotated[str, typer.Option(help="Whose architectures they hold.")],
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="Name with options, such as 'regularized-evolution sample=5'; by default the baselines."),
    ] = None,
    lengths: dict[str, Any],
    seeds: Annotated[int, typer.Option(help="Searches of each strategy.")] = 500,
    repeats: Annotated[
        list[str] | None, typer.Option(help="published: each proposal counts; cached: repeats are free. May be both.")
    ] = None,
    scores: Annotated[
        str | None, typer.Option(help="Study of the store whose scores strategies see at zero epochs.")
    ] = None,
    proxy: Annotated[str | None, typer.Option(help="Which of its scores; a+b sums ranks.")] = None,
    space_set: Annotated[list[str] | None, typer.Option(help="Option of the space, KEY=VALUE.")] = None,
    processes: Annotated[int | None, typer.Option(help="Searches at a time; by default one a core.")] = None,
    out: Annotated[Path | None, typer.Option("--output", "-o", help="CSV file for the result of every search.")] = None,
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
    trust_file: options.TrustOption = False,
) -> None:
    """Compare strategies on tables as published: 12-epoch validation searched, 200-epoch test reported, 500 seeds.

    [bold]Examples[/]

      nasplat bench csv:nasbench201.csv.gz#cifar10 csv:nasbench201.csv.gz#cifar100 --space nasbench201

      nasplat bench csv:mine.csv#flowers --space conv-kernels --signal-epochs 5 --epochs 50 --strategy random
      --strategy 'regularized-evolution population=20 sample=5' --strategy my_module:Mine

      nasplat bench csv:nasbench201.csv.gz#cifar10 --space nasbench201 --scores all-cells --strategy 'naswot samples=10'
    """
    from nasplat.protocol import Entry, Protocol, run

    if seeds < 2:
        raise InvalidInputError(f"--seeds takes 2 or more, got {seeds}")
    of_scores, known = ({}, []) if scores is None else _known(store, scores, space, proxy)
    if scores is None and proxy is not None:
        raise InvalidInputError("--proxy says which of --scores is seen: name the study that has them")
    entries = [_entry(Entry, text) for text in strategy or _STRATEGIES]
    if len({e.label for e in entries}) < len(entries):
        raise InvalidInputError("each strategy takes part once: two of them have the same options")
    space_options = of_scores.pop("space_options", {}) | options.pairs(space_set or [], "--space-set")
    common = {**lengths, **of_scores, "space_options": space_options, "trust_files": trust_file}
    kinds = [(name, kind) for name in table for kind in repeats or ["published"]]
    protocols = [Protocol(name, space, repeats=kind, **common) for name, kind in kinds]
    found = run(protocols, entries, seeds=seeds, processes=processes, scores=known)
    if out is not None:
        _write(found, out)
    reports = [_report([f for f in found if f.protocol.benchmark == name]) for name in table]
    if json:
        output.print_json(reports)
    else:
        _print_all(reports)


def _entry(kind: "type[Entry]", text: str) -> "Entry":
    name, *given = text.split()
    return kind(name, options.pairs(given, "--strategy"))


def _known(store: str, study: str, space: str, proxy: str | None) -> "tuple[dict[str, Any], list[Score]]":
    """Where scores come from, as fields of a protocol, and the scores of a study."""
    from nasplat.protocol import Score
    from nasplat.storage import SqlStore
    from nasplat.trained import space_of

    with SqlStore(store) as opened:
        config = StudyConfig.from_json(opened.study(study).config)
        if config.space != space:
            raise InvalidInputError(f"the scores of {study!r} are over {config.space}, got --space {space}")
        trials = [t for t in opened.trials(study, space_of(config)) if not t.proposal.fidelity.trained]
    known = [
        Score(t.proposal.architecture.text, t.proposal.seed, Measurement(t.measurement.metrics))
        for t in trials
        if t.measurement is not None
    ]
    if not known:
        raise InvalidInputError(f"study {study!r} has no scores; first: nasplat score --space {space} --task …")
    wanted = registry.proxies(proxy or config.proxy)
    for part in wanted.parts:
        if part.name not in known[0].measurement.metrics:
            raise unknown_name(f"score of study {study!r}:", part.name, known[0].measurement.metrics)
    names = {"task": config.task, "proxy": wanted.name, "score_batch_size": config.score_batch_size}
    return {**names, "space_options": dict(config.space_options)}, known


# What is printed ---------------------------------------------------------------------------------------------


def _report(found: "Sequence[Found]") -> dict[str, Any]:
    from nasplat.literature import LITERATURE
    from nasplat.protocol import compared

    protocol = found[0].protocol
    several = len({f.protocol.repeats for f in found}) > 1
    labels = [f.entry.label + (f" ({f.protocol.repeats})" if several else "") for f in found]
    rows = []
    for label, f in zip(labels, found, strict=True):
        mean = f.mean
        rows.append(
            {
                "strategy": label,
                "repeats": f.protocol.repeats,
                "seeds": len(f.final),
                "evaluations": float(f.evaluations.mean()),
                "mean": mean.value,
                "std": f.std,
                "interval": [mean.low, mean.high],
                "isomorphic_repeats": float(f.repeats[:, -1].mean()),
                "seconds": float(f.seconds.mean()),
            }
        )
    pairs = [
        {
            "first": p.first,
            "second": p.second,
            "difference": p.difference.value,
            "interval": [p.difference.low, p.difference.high],
            "wins": p.wins,
            "p": p.p,
        }
        for p in compared({label: f.final for label, f in zip(labels, found, strict=True)})
    ]
    literature = [
        {"strategy": p.strategy, "setting": p.setting, "mean": mean, "std": std, "source": p.source}
        for p in (LITERATURE.get(protocol.space, ()) if _is_published(protocol) else ())
        for mean, std in [p.results.get(protocol.dataset, (None, None))]
        if mean is not None
    ]
    return {"table": protocol.benchmark, "results": rows, "pairs": pairs, "literature": literature}


def _is_published(protocol: "Protocol") -> bool:
    return (protocol.signal_epochs, protocol.truth_epochs) == (12, 200)


def _print_all(reports: Sequence[dict[str, Any]]) -> None:
    for report in reports:
        _print(report)
    output.say(
        "mean and std over seeds of the accuracy in % of what was found; 95 % intervals (Student's and Welch's t);\n"
        "wins: chance that a search of the first ends better than one of the second; p: Mann–Whitney, two-sided,\n"
        "after Holm's correction for all pairs of a table"
    )


def _print(report: dict[str, Any]) -> None:
    output.say(report["table"])
    rows = [
        {
            "strategy": r["strategy"],
            "evaluations": round(r["evaluations"], 1),
            "mean ± std": f"{r['mean']:.2f} ± {r['std']:.2f}",
            "interval": _interval(r["interval"]),
            "isomorphic repeats": f"{100 * r['isomorphic_repeats']:.0f} %",
            "simulated s": round(r["seconds"], 1),
            "seeds": r["seeds"],
        }
        for r in report["results"]
    ]
    for p in report["literature"]:
        mean = f"{p['mean']:.2f} ± {p['std']:.2f}"
        rows.append({"strategy": f"{p['strategy']}, {p['setting']}", "mean ± std": mean, "source": p["source"]})
    shown = ["strategy", "evaluations", "mean ± std", "interval", "isomorphic repeats", "seeds"]
    timed = ["simulated s"] if any(r["seconds"] for r in report["results"]) else []
    output.print_table(rows, [*shown, *timed, *(["source"] if report["literature"] else [])])
    if report["pairs"]:
        output.say()
    for p in report["pairs"]:
        output.say(
            f"{p['first']} - {p['second']}: {p['difference']:+.3f} {_interval(p['interval'], '+.3f')}, "
            f"wins {p['wins']:.2f}, p {p['p']:.2g}"
        )
    output.say()


def _interval(bounds: Sequence[float], form: str = ".2f") -> str:
    return f"[{bounds[0]:{form}}, {bounds[1]:{form}}]"


def _write(found: "Sequence[Found]", path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["table", "strategy", "repeats", "seed", "evaluations", "seconds", "accuracy"])
        for f in found:
            for seed, (n, seconds, accuracy) in enumerate(zip(f.evaluations, f.seconds, f.final, strict=True)):
                row = [f.protocol.benchmark, f.entry.label, f.protocol.repeats, seed]
                writer.writerow([*row, int(n), round(float(seconds), 3), round(float(accuracy), 4)])
