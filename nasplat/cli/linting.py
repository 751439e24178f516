"""The command that lints search spaces."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from nasplat import registry
from nasplat.cli import options, output
from nasplat.errors import InvalidInputError


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(lint)


def lint(
    space: Annotated[str, typer.Argument(help="Name of a search space, or module:Class.")],
    task: Annotated[str, typer.Option(help="What networks are built for, and trained for a step.")] = "digits",
    space_set: Annotated[list[str] | None, typer.Option(help="Option of the space, KEY=VALUE.")] = None,
    samples: Annotated[int, typer.Option(help="Random architectures for what is cheap to look at.")] = 300,
    builds: Annotated[int, typer.Option(help="Networks that are trained for a step.")] = 12,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    json: options.JsonOption = False,
) -> None:
    """Look for what is wrong with a search space before a GPU is spent on it; exit code 1 if it is broken.

    [bold]Examples[/]

      nasplat lint conv-kernels

      nasplat lint my_module:MySpace --task image-folder:photos
    """
    from nasplat.space_lint import Effort
    from nasplat.space_lint import lint as lint_space

    if samples < 1 or builds < 1:
        raise InvalidInputError(f"--samples and --builds must be 1 or more, got {samples} and {builds}")
    found = registry.create("search_space", space, options=options.pairs(space_set or [], "--space-set"))
    result = lint_space(found, registry.create("task", task), Effort(samples=samples, builds=builds, seed=seed))
    if json:
        findings = [asdict(f) for f in result.findings]
        output.print_json({"figures": result.figures, "findings": findings, "broken": result.broken})
    else:
        _print(result.figures)
        for finding in result.findings:
            output.say(f"{finding.severity}: {finding.check}: {finding.message}")
        counts = [sum(f.severity == s for f in result.findings) for s in ("error", "warning")]
        output.say(f"errors: {counts[0]}, warnings: {counts[1]}")
    if result.broken:
        raise typer.Exit(1)


def _print(figures: dict[str, Any]) -> None:
    size = f"{figures['size']:,}" if figures["exact"] else f"{figures['size']:.3g}"
    classes = f", {figures['classes']:,} of them different" if "classes" in figures else ""
    output.say(f"{figures['space']} for {figures['task']}: {size} architectures{classes}")
    rows = [{"": name, **figures[name]} for name in ("params", "flops", "memory_bytes") if name in figures]
    if rows:
        output.print_table(rows, ["", "min", "median", "max"])
