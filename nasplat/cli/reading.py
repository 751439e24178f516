"""Commands that read: list, query, show, why."""

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from nasplat import registry
from nasplat.architecture import Architecture
from nasplat.cli import options, output, supernets
from nasplat.config import StudyConfig
from nasplat.counting import Counts, count
from nasplat.errors import InvalidInputError, unknown_name
from nasplat.space import Graph
from nasplat.storage import Query, Reader

_HIDDEN = (
    "measurement_id",
    "asked_at",
    "finished_at",
    "data_fraction",
    "resolution",
    "fingerprint",
    "peak_memory_bytes",
)
"""Columns that the table leaves out; csv, json and parquet have all."""
_COMMON = ("study", "space", "epochs", "seed", "why", "state", "saved", "attempts", "gpu_seconds")
"""Columns that the table shows only where they differ between its rows."""
_KINDS: dict[str, registry.Kind] = {
    "spaces": "search_space",
    "strategies": "strategy",
    "proxies": "proxy",
    "tasks": "task",
    "executors": "executor",
    "tables": "table",
}


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(name="list")(list_)
    for command in (query, show, why):
        app.command()(command)


def list_(
    what: Annotated[str, typer.Argument(help=f"studies, {', '.join(_KINDS)}.")] = "studies",
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
) -> None:
    """List the studies of a store, or what is installed: spaces, strategies, proxies, tasks, executors, tables."""
    if what != "studies":
        if what not in _KINDS:
            raise unknown_name("list", what, ["studies", *_KINDS])
        names = registry.names(_KINDS[what])
        if json:
            output.print_json(names)
        else:
            output.say("\n".join(names))
        return
    with Reader(store) as reader:
        rows = reader.studies()
    if json:
        output.print_json(rows)
        return
    columns = ("study", "state", "space", "task", "goal", "best", "trials", "failed", "saved", "paid_seconds")
    output.print_table(rows, columns)


def query(
    study: Annotated[str | None, typer.Argument(help="Name of a study; without it, all of them.")] = None,
    where: Annotated[str | None, typer.Option(help="Such as 'val_accuracy > 0.9 and params < 1e5'.")] = None,
    top: Annotated[int | None, typer.Option(help="The best so many, by --by or the study's goal.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="Goal, such as val_accuracy or 'min params'.")] = None,
    pareto: Annotated[bool, typer.Option(help="Only what no other trial beats in all goals.")] = False,
    sql: Annotated[str | None, typer.Option(help="One SELECT over the documented views; it cannot write.")] = None,
    limit: Annotated[int, typer.Option(help="Most rows.")] = 20,
    after: Annotated[int | None, typer.Option(help="Number of the trial behind which the page starts.")] = None,
    format_: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
    out: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; needed for parquet.")] = None,
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
) -> None:
    """Query trials and their metrics.

    [bold]Examples[/]

      nasplat query --where "val_accuracy > 0.9 and params < 1e5" --by val_accuracy --top 10

      nasplat query conv-kernels-random-1 --pareto --by val_accuracy --by "min params"

      nasplat query --sql "SELECT study, paid_seconds FROM v_cost" --format csv
    """
    if limit < 1 or (top is not None and top < 1):
        raise InvalidInputError("--limit and --top must be 1 or more")
    wanted = Query(study, where, tuple(by or ()), top or limit, after)
    with Reader(store) as reader:
        if sql is not None:
            rows = reader.sql(sql, limit=max(limit, 10_000))
        elif pareto:
            rows = reader.pareto(wanted)
        elif top is not None or by:
            rows = reader.top(wanted)
        else:
            rows = reader.page(wanted)
    _write(rows, "json" if json else format_, out, everything=sql is not None)


def _write(rows: list[dict[str, Any]], format_: str, out: Path | None, *, everything: bool) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if format_ == "parquet":
        import pandas as pd

        if out is None:
            raise InvalidInputError("parquet is a file: give --output FILE.parquet")
        with out.open("wb") as file:
            pd.DataFrame(rows, columns=columns).to_parquet(file)
    elif format_ == "csv":
        with out.open("w", newline="") if out else _stdout() as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
    elif format_ == "json":
        output.print_json(rows)
    elif format_ == "table":
        output.print_table(rows, columns if everything else _telling(rows, columns))
        output.note(f"{len(rows)} rows")
    else:
        raise unknown_name("format", format_, ("table", "csv", "json", "parquet"))


def _telling(rows: list[dict[str, Any]], columns: list[str]) -> list[str]:
    """The columns of a table worth its width: metrics, what differs between rows, and the architecture last."""
    common = [c for c in columns if c in _COMMON and len({r.get(c) for r in rows}) == 1]
    hidden = {*_HIDDEN, *common, "architecture"}
    shown = [c for c in columns if c not in hidden and any(r.get(c) is not None for r in rows)]
    return [*shown, "architecture"] if "architecture" in columns else shown


class _stdout:
    """Standard output as a context that stays open."""

    def __enter__(self) -> Any:
        return sys.stdout

    def __exit__(self, *exc: object) -> None:
        sys.stdout.flush()


def show(
    what: Annotated[str, typer.Argument(help="A study (its best trial), or an architecture of --space.")],
    trial: Annotated[int | None, typer.Option(help="Another trial of the study than its best.")] = None,
    space: Annotated[str | None, typer.Option(help="Space of an architecture string, reference or #index.")] = None,
    task: Annotated[str | None, typer.Option(help="Task whose shapes the counts are for.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Draw it into a .png, .svg or .pdf file.")] = None,
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
) -> None:
    """Show an architecture: string, fingerprint, counts, drawing, all its measurements.

    [bold]Examples[/]

      nasplat show conv-kernels-random-1

      nasplat show '#1462' --space nasbench201 --task digits --draw cell.png
    """
    space_options: dict[str, Any] = {}
    shared: list[Any] = []
    if space is None:
        with Reader(store) as reader:
            config = reader.study(what)["config"]
            shared = _supernets(reader, store, what)
            number = trial if trial is not None else _best_number(reader, what)
            text = reader.trial(what, number)["architecture"]
        space, space_options = config["space"], config["space_options"]
        task = task or config["task"] or None
    else:
        text = what
    found = registry.create("search_space", space, options=space_options)
    architecture = found.parse(text)
    measured = _measured(store, architecture)
    single = not architecture.is_supernet
    counts = count(found, architecture, registry.create("task", task)) if task and single else None
    graph: Graph = found.drawing(architecture)
    if draw is not None:
        from nasplat.dashboards.plots import draw_architecture, save

        save(draw_architecture(graph, architecture.text), draw)
    if json:
        facts = {
            "architecture": architecture.text,
            "space": architecture.space,
            "fingerprint": architecture.fingerprint,
        }
        sizes = {"params": counts.params, "flops": counts.flops} if counts else {}
        honest = {"supernets": supernets.plain(shared)} if shared else {}
        output.print_json({**facts, **sizes, "choices": architecture.chosen, "measurements": measured, **honest})
        return
    _say(architecture, graph, counts, task)
    _say_measured(measured)
    if shared:
        output.say()
        supernets.say(shared)
    if draw is not None:
        output.say(f"drawn in {draw}")


def _measured(store: str, architecture: Architecture) -> list[dict[str, Any]]:
    """All measurements of an architecture; none where there is no store."""
    if not Path(store).exists() and "://" not in store:
        return []
    with Reader(store) as reader:
        return reader.measurements(architecture.space, architecture.fingerprint)


def _say(architecture: Architecture, graph: Graph, counts: Counts | None, task: str | None) -> None:
    output.say(f"architecture  {architecture.text}")
    output.say(f"space         {architecture.space}")
    output.say(f"fingerprint   {architecture.fingerprint}")
    if counts:
        output.say(f"parameters    {counts.params:,} for task {task}")
        output.say(f"FLOPs         {counts.flops:,} a forward pass of one example")
    output.say()
    for line in _drawn(graph):
        output.say(f"  {line}")


def _say_measured(measured: list[dict[str, Any]]) -> None:
    """A table for each task, since their metrics differ, and mean other things where they do not."""
    tasks = list(dict.fromkeys(m["task"] for m in measured))
    for task in tasks:
        output.say(f"\nfor task {task}:" if len(tasks) > 1 else "")
        rows = [m for m in measured if m["task"] == task]
        shown = dict.fromkeys(k for m in rows for k in m if k not in (*_HIDDEN, "task", "params", "flops"))
        output.print_table(rows, [k for k in shown if any(m.get(k) is not None for m in rows)])


def _supernets(reader: Reader, store: str, study: str) -> list[Any]:
    from nasplat.trained import space_of

    config = StudyConfig.from_json(reader.study(study)["config"])
    return supernets.stored(reader, store, study, space_of(config), config.parsed_objective().goals[0])


def _best_number(reader: Reader, study: str) -> int:
    best = reader.top(Query(study=study, limit=1))
    if not best:
        raise InvalidInputError(f"study {study!r} has no completed trial yet; name one with --trial")
    return int(best[0]["number"])


def _drawn(graph: Graph) -> list[str]:
    """A chain as one line a node; any other graph as one line a node with its inputs."""
    if not graph.edges:
        return list(graph.nodes)
    if all(target == source + 1 for source, target, _ in graph.edges):
        return [*(("" if i == 0 else "→ ") + node for i, node in enumerate(graph.nodes))]
    lines = []
    for node, name in enumerate(graph.nodes):
        inputs = [f"{label}({graph.nodes[source]})" for source, target, label in graph.edges if target == node]
        lines.append(f"{name} = {' + '.join(inputs)}" if inputs else name)
    return lines


def why(
    study: Annotated[str, typer.Argument(help="Name of a study.")],
    trial: Annotated[int | None, typer.Argument(help="Number of a trial.")] = None,
    store: options.StoreOption = "nasplat.db",
    json: options.JsonOption = False,
) -> None:
    """Say what went wrong: which trials of a study failed or were started again, or all about one trial.

    [bold]Examples[/]

      nasplat why conv-kernels-random-1

      nasplat why conv-kernels-random-1 17
    """
    with Reader(store) as reader:
        reader.study(study)
        if trial is None:
            numbers = [r["number"] for r in reader.page(Query(study, where=_WENT_WRONG, limit=1_000))]
        else:
            numbers = [trial]
        rows = [{**reader.trial(study, n), "starts": reader.attempts(study, n)} for n in numbers]
    if json:
        wanted = ("number", "state", "architecture", "attempts", *_FAILURE, "starts")
        output.print_json([{k: r[k] for k in wanted} for r in rows])
    elif trial is not None:
        _tell_all(study, rows[0])
    elif rows:
        output.print_table(rows, ("number", "state", "failure_reason", "failure_message", "attempts", "architecture"))
    else:
        output.say(f"no trial of {study} failed")


_WENT_WRONG = "state == 'failed' or attempts > 1"
_FAILURE = ("failure_reason", "failure_message", "failure_traceback")
_START = ("attempt", "ended", "exit_signal", "worker", "process", "gpu", "seconds")


def _tell_all(study: str, trial: Mapping[str, Any]) -> None:
    number, starts = trial["number"], trial["starts"]
    if trial["failure_reason"] is None:
        output.say(f"trial {number} of {study} did not fail: it is {trial['state']}")
    else:
        output.say(f"trial {number}: {trial['failure_reason']}: {trial['failure_message']}")
    output.say(f"architecture {trial['architecture']}")
    if trial["failure_traceback"]:
        output.say(trial["failure_traceback"])
    if starts:
        rows = [{**start, "process": f"{start['host']}:{start['pid']}" if start["host"] else ""} for start in starts]
        output.print_table(rows, [name for name in _START if any(row[name] not in (None, "") for row in rows)])
    for start in starts:
        if start["log"]:
            output.say(f"last lines of start {start['attempt']}:")
            output.say(start["log"])
