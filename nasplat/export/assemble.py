"""The module of a bundle, put together from parts for its kind of inputs and outputs."""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_PLACE = re.compile(r"# <network>\n.*# </network>\n", re.DOTALL)
_OWN = "nasplat."
_FOLDER = Path(__file__).parent
_OF_NETWORKS = """import math
import operator
import torch
from torch import Tensor, nn
from torch.nn import functional as F
"""


def assembled(docstring: str, classes: str, parts: Sequence[str]) -> str:
    """A module that needs nothing of nasplat.

    Args:
        docstring: Of the module.
        classes: The source of the network.
        parts: Names of the parts after ``base``, in order.
    """
    files = [_FOLDER / "parts" / f"{name}.py" for name in ("base", *parts)]
    sources = [file.read_text(encoding="utf-8") for file in [*files, _FOLDER / "template.py"]]
    body = "\n\n\n".join(_body(source) for source in sources)
    body = _PLACE.sub(lambda _: f"{classes}\n", body)
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    imports = [found for source in (*sources, _OF_NETWORKS) for found in _imports(source)]
    return f'"""{docstring}"""\n\n{_written(imports, used)}\n{body}\n'


def _body(source: str) -> str:
    """What comes after the docstring and the imports."""
    lines = source.splitlines()
    heading = [n for n in ast.parse(source).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    return "\n".join(lines[heading[-1].end_lineno :]).strip("\n")


def _imports(source: str) -> Iterator[tuple[str, str, str]]:
    """Module, name and alias of each import at the top that is not of nasplat; the name is empty for a whole module."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            yield from ((a.name, "", a.asname or "") for a in node.names)
        elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith(_OWN):
            yield from ((str(node.module), a.name, a.asname or "") for a in node.names)


def _written(imports: Sequence[tuple[str, str, str]], used: set[str]) -> str:
    """The imports whose names are used, as statements in the usual order."""
    named: dict[str, set[tuple[str, str]]] = {}
    for module, name, alias in imports:
        if (alias or name or module) in used:
            named.setdefault(module, set()).add((name, alias))
    sections: list[list[str]] = [[], []]
    for whole in (True, False):
        for module in sorted(named):
            section = sections[module.partition(".")[0] not in sys.stdlib_module_names]
            if whole:
                section += [f"import {module}{_alias(alias)}" for name, alias in sorted(named[module]) if not name]
            elif names := sorted((n, a) for n, a in named[module] if n):
                section.append(f"from {module} import {', '.join(name + _alias(alias) for name, alias in names)}")
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _alias(alias: str) -> str:
    return f" as {alias}" if alias else ""
