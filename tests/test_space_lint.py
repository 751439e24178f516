"""The linter finds what is wrong with spaces that are broken on purpose, and nothing in sound ones."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from nasplat.architecture import Architecture
from nasplat.choices import Choice, Value
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.space import SearchSpace
from nasplat.space_lint import Effort, Lint, Severity, lint
from nasplat.task import Task
from nasplat.testing.toy import ToySpace
from tests.cli_runner import Run, runner
from tests.plugins import blobs

EFFORT = Effort(samples=40, builds=4)


class Layers(SearchSpace):
    """A hidden layer in one of four widths with one of two activations; what subclasses break."""

    name: ClassVar[str] = "layers"

    def __init__(self, widths: tuple[int, ...] = (2, 3, 4, 5)) -> None:
        super().__init__([Choice("width", widths, ordered=True), Choice("activation", ("relu", "tanh"))])

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        features, width = torch.Size(task.input_shape).numel(), int(architecture["width"])
        activation = nn.ReLU() if architecture["activation"] == "relu" else nn.Tanh()
        return nn.Sequential(nn.Flatten(), nn.Linear(features, width), activation, self.head(width, task.outputs))

    def head(self, width: int, outputs: int) -> nn.Module:
        return nn.Linear(width, outputs)


class NoActivation(Layers):
    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        return super().build(self.architecture({**architecture.chosen, "activation": "relu"}), task)


class OneForm(Layers):
    def canonical(self, values: Mapping[str, Value]) -> str:
        return str(values["width"])


class NoParse(Layers):
    def parse_values(self, text: str) -> dict[str, Value]:
        return {**super().parse_values(text), "activation": "relu"}


class OneString(Layers):
    def format(self, values: Mapping[str, Value]) -> str:
        return str(values["width"])


class NoWidthThree(Layers):
    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        if architecture["width"] == 3:
            raise InvalidArchitectureError("three is too many")
        return super().build(architecture, task)


class WrongShape(Layers):
    def head(self, width: int, outputs: int) -> nn.Module:
        return nn.Linear(width, outputs + 1)


class Crashing(Layers):
    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        raise KeyError("weights")


class _Head(nn.Linear):
    """A head that does something else than a linear layer."""

    def __init__(self, width: int, outputs: int, forward: Callable[[nn.Linear, Tensor], Tensor]) -> None:
        super().__init__(width, outputs)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


class Infinite(Layers):
    def head(self, width: int, outputs: int) -> nn.Module:
        return _Head(width, outputs, lambda head, x: nn.functional.linear(x, head.weight) / 0.0)


class Idle(Layers):
    def head(self, width: int, outputs: int) -> nn.Module:
        return _Head(width, outputs, lambda head, x: nn.functional.linear(x, head.weight))


class Detached(Layers):
    def head(self, width: int, outputs: int) -> nn.Module:
        return _Head(width, outputs, lambda head, x: (x[:, :1] * torch.ones(outputs)).detach().requires_grad_())


class Blind(Layers):
    def head(self, width: int, outputs: int) -> nn.Module:
        return _Head(width, outputs, lambda head, x: head.bias + 0 * nn.functional.linear(x, head.weight))


def _apart(architecture: Architecture) -> bool:
    return architecture.values in ((("width", 2), ("activation", "relu")), (("width", 5), ("activation", "tanh")))


def _found(result: Lint) -> set[tuple[str, str]]:
    return {(f.check, str(f.severity)) for f in result.findings}


@pytest.mark.parametrize("space", [ToySpace(), Layers()])
def test_nothing_is_wrong_with_a_sound_space(space: SearchSpace) -> None:
    result = lint(space, blobs(), EFFORT)
    assert result.findings == []
    assert not result.broken
    figures = result.figures
    assert (figures["size"], figures["classes"], figures["parts"]) == (space.size, space.size, 1)
    assert (figures["invalid"], figures["duplicates"], figures["neutral_mutations"]) == (0, 0, 0)
    assert figures["params"]["min"] < figures["params"]["median"] < figures["params"]["max"]


@pytest.mark.parametrize(
    ("space", "check", "severity", "message"),
    [
        (NoActivation(), "options", "warning", "one network wherever they were looked at: activation = relu and tanh;"),
        (OneForm(), "options", "warning", "one architecture wherever they were looked at: activation = relu and tanh;"),
        (OneForm(), "duplicates", "note", "50.0% of the architectures repeat another one's network"),
        (OneForm(), "mutation", "note", "% of the mutations left the network as it was"),
        (NoParse(), "strings", "error", "parse does not give back width="),
        (OneString(), "duplicates", "error", "different architectures have the same string 2; 3; 4 and 1 more"),
        (NoWidthThree(), "sizes", "warning", "25.0% of 8 architectures cannot be built for task blobs: width=3"),
        (WrongShape(), "networks", "error", "expected outputs (8, 2), got (8, 3)"),
        (Crashing(), "networks", "error", "the check ended with KeyError: 'weights'"),
        (Infinite(), "networks", "error", "its outputs are not finite"),
        (Idle(), "networks", "warning", "in 4 of 4 networks some parameters get no gradient"),
        (Detached(), "networks", "error", "no parameter gets a gradient"),
        (Blind(), "networks", "warning", "4 of 4 networks give the same output whatever the input"),
        (Layers().restricted(lambda a: a["width"] != 3), "mutation", "error", "never reached width=3"),
        (Layers().restricted(_apart), "links", "error", "no mutation leads between 2 separate parts of the space"),
        (Layers().restricted(_apart), "mutation", "error", "1000 architectures of layers in a row violate"),
    ],
)
def test_what_is_wrong_is_found(space: SearchSpace, check: str, severity: str, message: str) -> None:
    result = lint(space, blobs(), EFFORT)
    said = [f.message for f in result.findings if (f.check, str(f.severity)) == (check, severity)]
    assert any(message in text for text in said), result.findings
    assert result.broken == any(s == "error" for _, s in _found(result))


def test_networks_that_cannot_be_built_at_all_are_an_error() -> None:
    series = Task("series", input_shape=(2, 50), outputs=3)
    result = lint(NasBench201(), series, Effort(samples=3, builds=2, exact=10))
    assert ("sizes", "error") in _found(result)
    assert "100.0% of 3 architectures cannot be built for task series" in str(result.findings)


def test_isomorphic_cells_and_dead_branches_are_told() -> None:
    space = NasBench201(channels=2, cells=1)
    result = lint(space, blobs(), Effort(samples=30, builds=6, exact=100))
    assert not result.broken
    assert not result.figures["exact"]
    assert {f.severity for f in result.findings if f.check == "mutation"} == {Severity.NOTE}
    unlike = next(f.message for f in result.findings if f.check == "sizes")
    assert unlike.startswith("architectures of one canonical form differ in params or FLOPs: |")


def test_memory_is_what_the_backward_pass_needs() -> None:
    result = lint(Layers((7,)), Task("flat", input_shape=(3, 4), outputs=2), EFFORT)
    # The input of each linear layer and the output of the activation, which is that of the second: (12 + 7) floats.
    assert result.figures["memory_bytes"] == {"min": 4 * 19, "median": 4 * 19, "max": 4 * 19}
    assert {(f.check, f.severity) for f in result.findings} == {("sizes", Severity.NOTE)}


def test_the_same_seed_finds_the_same() -> None:
    one, same = (lint(NoWidthThree(), blobs(), EFFORT) for _ in range(2))
    assert one == same


# The command -------------------------------------------------------------------------------------------------


@pytest.fixture
def nasplat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    return runner(monkeypatch, capsys)


SMALL = ("--task", "tests.plugins:blobs", "--samples", "20", "--builds", "3")


def test_the_exit_code_says_whether_a_space_is_broken(nasplat: Run) -> None:
    sound = nasplat("lint", "tests.test_space_lint:Layers", *SMALL)
    assert sound.code == 0
    assert "layers@1 for blobs: 8 architectures, 8 of them different" in sound.out
    assert sound.out.endswith("errors: 0, warnings: 0\n")
    broken = nasplat("lint", "tests.test_space_lint:WrongShape", *SMALL)
    assert broken.code == 1
    assert "error: networks: 3 of 3 networks cannot be trained" in broken.out


def test_json_has_figures_and_findings(nasplat: Run) -> None:
    result = nasplat("lint", "tests.test_space_lint:NoActivation", *SMALL, "--json")
    found: dict[str, Any] = json.loads(result.out)
    assert (result.code, found["broken"], found["figures"]["size"]) == (0, False, 8)
    assert {f["check"] for f in found["findings"]} == {"options"}


def test_mistakes_are_named(nasplat: Run) -> None:
    result = nasplat("lint", "conv-kernel")
    assert (result.code, "did you mean 'conv-kernels'?" in result.err) == (2, True)
    assert nasplat("lint", "conv-kernels", "--samples", "0").code == 2


class Words(SearchSpace):
    """An embedding of a chosen width: tokens ``(B, L)`` to a class a position."""

    name: ClassVar[str] = "words"

    def __init__(self) -> None:
        super().__init__([Choice("width", (2, 4, 8), ordered=True), Choice("bias", ("no", "yes"))])

    def check(self, task: Task) -> None:
        if not task.vocabulary:
            raise InvalidInputError("words takes token ids")

    def build(self, architecture: Architecture, task: Task) -> nn.Module:
        width, bias = int(architecture["width"]), architecture["bias"] == "yes"
        embedding = nn.Embedding(task.vocabulary, width)
        return nn.Sequential(embedding, nn.Linear(width, task.outputs, bias=bias), Transposed())


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def test_a_class_for_each_of_the_tokens() -> None:
    task = Task("tags", input_shape=(7,), output_shape=(3, 7), target_shape=(7,), vocabulary=20)
    result = lint(Words(), task, EFFORT)
    assert not result.findings
    assert result.figures["params"] == {"min": 20 * 2 + 2 * 3, "median": pytest.approx(100, abs=50), "max": 8 * 23 + 3}
    assert result.figures["memory_bytes"]["min"] >= 4 * 7 * 2


def test_a_task_that_the_space_refuses_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="words takes token ids"):
        lint(Words(), blobs(), EFFORT)
