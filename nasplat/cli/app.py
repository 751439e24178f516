"""The ``nasplat`` command: its subcommands, and what an error looks like."""

import errno
import sys
from functools import cache
from pathlib import Path

import typer

from nasplat.cli import output
from nasplat.errors import NasplatError

app = typer.Typer(
    name="nasplat",
    help="Find the network for your data: launch searches, score untrained networks, query every measurement.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cache
def _add_commands() -> None:
    from nasplat.cli import auditing, benching, dashboard, linting, quickstart, reading, results, searching, top, tuning

    for module in (quickstart, searching, tuning, auditing, benching, linting, reading, top, results, dashboard):
        module.add_to(app)


def _find_modules_here() -> None:
    """Let modules of the current folder be found, for ``module:name``; a script is otherwise started without it."""
    here = str(Path.cwd())
    if not {here, ""} & set(sys.path):
        sys.path.insert(0, here)


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 an unexpected error (with its traceback), 2 something to mend in the input, 130 interrupted.
    """
    _find_modules_here()
    try:
        _add_commands()  # imports torch, which takes long enough to be interrupted
        app()
    except NasplatError as error:
        output.error(str(error))
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        what = f"{error.filename}: " if error.filename is not None else ""
        output.error(f"{what}{error.strerror}; give another path, or make it readable, writable, or room for it")
        sys.exit(2)
    except KeyboardInterrupt:
        output.error("interrupted")
        sys.exit(130)
