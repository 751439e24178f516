"""Where trials run: the options that every measuring command has."""

import functools
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nasplat.cli.groups import with_groups
from nasplat.errors import InvalidInputError

_PANEL = "Where trials run"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _option(help_: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help_, rich_help_panel=_PANEL, **settings)


def _settings(
    executor: Annotated[
        str | None,
        _option("serial, process or ray; by default process with several workers, and ray with an address."),
    ] = None,
    workers: Annotated[str, _option("Trials at a time; auto takes all that there is room for.")] = "1",
    device: Annotated[str, _option("cpu, cuda, cuda:1, …; auto takes a GPU where there is one.")] = "auto",
    threads: Annotated[int | None, _option("Of torch in each worker; by default its share of the cores.")] = None,
    time_limit: Annotated[float | None, _option("Seconds a trial may take.")] = None,
    memory_limit: Annotated[str | None, _option("Main memory that a worker's process may take, such as 8G.")] = None,
    checkpoints: Annotated[
        Path | None, _option("Folder where trainings leave their state, so that a lost one goes on where it was.")
    ] = None,
    address: Annotated[
        str | None, _option("Ray cluster: auto, local, or ray://HOST:10001.", envvar="NASPLAT_RAY_ADDRESS")
    ] = None,
    cpus_per_worker: Annotated[float, _option("Cores that Ray reserves for a worker.")] = 1.0,
    gpus_per_worker: Annotated[float, _option("GPUs, or a share of one, for a worker.")] = 0.0,
    resources: Annotated[str | None, _option("Other resources of Ray for a worker: '{\"a100\": 1}'.")] = None,
    runtime_env: Annotated[
        str | None, _option("Ray's runtime environment as JSON, or a .json or .toml file of it.")
    ] = None,
    trust_file: Annotated[
        bool, _option("Open benchmark files that execute code when read (pickles).", "--trust-file")
    ] = False,
) -> dict[str, Any]:
    """Fields of ``Execution`` from the options."""
    return {
        "executor": executor or "",
        "workers": _workers(workers),
        "device": device,
        "threads": threads,
        "time_limit": time_limit,
        "memory_limit": _bytes(memory_limit),
        "checkpoints": str(checkpoints) if checkpoints is not None else None,
        "address": address,
        "cpus_per_worker": cpus_per_worker,
        "gpus_per_worker": gpus_per_worker,
        "resources": _table(resources, "--resources"),
        "runtime_env": _table(runtime_env, "--runtime-env"),
        "trust_files": trust_file,
    }


def takes_execution(
    command: Callable[..., None], *, several: Literal["trials", "batches"] = "trials"
) -> Callable[..., None]:
    """Give a command the options above; it gets them as fields of ``Execution`` in its parameter ``execution``.

    Args:
        command: Which one.
        several: What several workers share where no executor is named: the trials, or the batches of each training;
            then ``execution`` has their number as ``data_parallel``.
    """
    share = _share_batches if several == "batches" else _share_trials

    @functools.wraps(_settings)
    def execution(**given: Any) -> dict[str, Any]:
        settings = _settings(**given)
        if not settings["executor"]:
            share(settings)
        return settings

    return with_groups(command, execution=execution)


def _share_trials(settings: dict[str, Any]) -> None:
    serial = settings["workers"] == 1
    settings["executor"] = "ray" if settings["address"] else "serial" if serial else "process"


def _share_batches(settings: dict[str, Any]) -> None:
    if settings["workers"] is None:
        raise InvalidInputError("say how many workers share each training's batches: --workers N")
    settings |= {"executor": "serial", "workers": 1, "data_parallel": settings["workers"]}


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise InvalidInputError(f"--workers takes a number or auto, got {text!r}")
    return int(text)


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if match is None:
        raise InvalidInputError(f"--memory-limit takes a number of bytes with a unit, such as 8G or 512M, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _table(text: str | None, option: str) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        if text.endswith(".toml"):
            found = tomllib.loads(Path(text).read_text(encoding="utf-8"))
        else:
            found = json.loads(Path(text).read_text(encoding="utf-8") if text.endswith(".json") else text)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{option} takes JSON, or a .json or .toml file: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInputError(f"{option} takes a JSON object such as '{{\"a100\": 1}}', got {text!r}")
    return found
