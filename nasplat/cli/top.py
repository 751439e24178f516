"""The command that shows what runs now: studies, workers, trials."""

import time
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from nasplat.cli import options, output
from nasplat.lease import LEASE_SECONDS
from nasplat.storage import Query, Reader

Rows: TypeAlias = list[dict[str, Any]]

_STUDY = (
    *("study", "state", "driver", "executor", "trials", "finished", "per_minute"),
    *("running", "queued", "awaited", "workers", "gpus", "best", "paid_hours"),
)
_WORKER = ("study", "worker", "process", "gpu", "trials")
_TRIAL = ("study", "number", "epochs", "minutes", "attempt", "architecture")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(top)


def top(
    store: options.StoreOption = "nasplat.db",
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 2.0,
    trials: Annotated[int, typer.Option(min=0, help="Most running trials to show of a study.")] = 10,
    once: Annotated[bool, typer.Option("--once", help="Print one look and end, as where no terminal is.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Show what runs now: studies and their drivers, workers and GPUs, trials; from any machine, until Ctrl-C.

    [bold]Examples[/]

      nasplat top

      nasplat top --store postgresql://nasplat@db.example.org/nasplat --once
    """
    with Reader(store) as reader:
        look = _look(reader, trials)
        if json:
            output.print_json(look)
            return
        if once or not output.console.is_terminal:
            output.console.print(_shown(look))
            return
        with Live(_shown(look), console=output.console, screen=True) as live:
            before = time.monotonic(), look
            while True:
                time.sleep(every)
                look = _look(reader, trials)
                _add_rates(look["studies"], before[1]["studies"], time.monotonic() - before[0])
                before = time.monotonic(), look
                live.update(_shown(look))


def _look(reader: Reader, trials: int) -> dict[str, Rows]:
    studies: Rows = []
    workers: Rows = []
    running: Rows = []
    for driver in reader.drivers():
        name, status = driver["study"], driver["status"] or {}
        known = reader.study(name)
        hands = status.get("workers", [])
        silent = driver["silent_seconds"]
        studies.append(
            {
                "study": name,
                "state": "running" if silent < LEASE_SECONDS else f"silent for {silent:.0f} s",
                "driver": f"{driver['host']}:{driver['pid']}",
                "executor": status.get("executor"),
                "trials": known["trials"],
                "finished": known["completed"] + known["failed"],
                "running": status.get("in_flight"),
                "queued": _queued(hands),
                "awaited": status.get("awaited"),
                "workers": len(hands) or status.get("capacity"),
                "gpus": len({(w["host"], gpu) for w in hands for gpu in w["gpu"].split(",") if gpu}),
                "best": known["best"],
                "paid_hours": known["paid_seconds"] / 3600,
            }
        )
        workers += [
            {
                "study": name,
                "worker": w["name"] or str(number),
                "process": f"{w['host']}:{w['pid']}",
                "gpu": w["gpu"],
                "trials": w["busy"],
            }
            for number, w in enumerate(hands, start=1)
        ]
        query = Query(name, where="state == 'running'", limit=trials)
        for t in reader.page(query) if trials else []:
            minutes = (time.time() - t["asked_at"]) / 60
            running.append({**t, "study": name, "minutes": minutes, "attempt": t["attempts"]})
    return {
        "studies": studies,
        "workers": workers,
        "trials": [{name: t.get(name) for name in _TRIAL} for t in running],
    }


def _queued(workers: list[Mapping[str, Any]]) -> int:
    """Trials that have been given to a worker and wait there for the one that it runs."""
    return sum(max(0, w["busy"] - 1) for w in workers)


def _add_rates(now: Rows, before: Rows, seconds: float) -> None:
    finished = {row["study"]: row["finished"] for row in before}
    for row in now:
        if row["study"] in finished:
            row["per_minute"] = 60 * (row["finished"] - finished[row["study"]]) / seconds


def _shown(look: dict[str, Rows]) -> Group | Text:
    if not look["studies"]:
        return Text("nothing runs; finished studies: nasplat list")
    parts: list[Any] = []
    for rows, columns in ((look["studies"], _STUDY), (look["workers"], _WORKER), (look["trials"], _TRIAL)):
        if rows:
            filled = [name for name in columns if any(row.get(name) not in (None, "") for row in rows)]
            parts += [output.as_table(rows, filled), Text()]
    return Group(*parts)
