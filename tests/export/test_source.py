"""Generated source: equal outputs, readable text, refusals."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from nasplat.errors import InvalidInputError
from nasplat.export.constructors import constructor
from nasplat.export.source import Source, generate
from nasplat.search_spaces.conv_kernels import ConvKernels
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.space import SearchSpace
from nasplat.tasks.digits import digits
from tests.export.networks import ByHand, Odd, Skip, Transformer

_HEADER = """import math
import operator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ = (math, operator, torch, F)


"""


def _sampled(space: SearchSpace, seed: int) -> nn.Module:
    return space.build(space.sample(np.random.default_rng(seed)), digits())


def _nasbench201(cell: str) -> nn.Module:
    space = NasBench201(channels=4, cells=2)
    return space.build(space.parse(cell), digits())


_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "by-hand": ByHand,
    "transformer": Transformer,
    "shared": lambda: Transformer(shared=True),
    "odd": Odd,
    "sequential": lambda: nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(64, 8), nn.Tanh()), nn.Linear(8, 10)),
    "conv-kernels-0": lambda: _sampled(ConvKernels(), 0),
    "conv-kernels-1": lambda: _sampled(ConvKernels(), 1),
    "conv-kernels-2": lambda: _sampled(ConvKernels(), 2),
    "conv-kernels-3": lambda: _sampled(ConvKernels(), 3),
    "nasbench201": lambda: _nasbench201("#6111"),
    "nasbench201-nothing": lambda: _nasbench201("#0"),
    "nasbench201-0": lambda: _sampled(NasBench201(channels=4, cells=1), 0),
    "nasbench201-1": lambda: _sampled(NasBench201(channels=4, cells=1), 1),
}


def _made(name: str) -> nn.Module:
    """A network whose batch norms have seen data."""
    torch.manual_seed(0)
    network = _NETWORKS[name]()
    with torch.no_grad():
        network(torch.randn(8, 1, 8, 8))
    return network.eval()


def _imported(source: Source, folder: Path) -> ModuleType:
    path = folder / "generated.py"
    path.write_text(_HEADER + source.text + "\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("generated", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rebuilt(source: Source, folder: Path) -> nn.Module:
    network: nn.Module = _imported(source, folder).Network()
    network.load_state_dict(source.weights, assign=True)
    return network.eval()


@pytest.mark.parametrize("name", _NETWORKS)
@torch.no_grad()
def test_generated_network_computes_the_same(name: str, tmp_path: Path) -> None:
    network = _made(name)
    source = generate(network, torch.randn(2, 1, 8, 8))
    again = rebuilt(source, tmp_path)
    images = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(again(images), network(images), rtol=0, atol=1e-6)
    assert set(again.state_dict()) == set(source.weights)
    assert "nasplat" not in source.text
    assert max(map(len, source.text.splitlines())) <= 100


def test_generated_text_is_what_a_person_would_write() -> None:
    text = generate(_made("nasbench201"), torch.randn(2, 1, 8, 8)).text
    assert text.count("class ") == 4  # ReLUConvBN, the cell, the residual block, the network
    assert "*(CellModule(4) for _ in range(2))" not in text  # runs of three and more only
    assert "            CellModule(8),\n            CellModule(8),\n" in text
    assert "self.edge_0_3 = nn.Identity()" in text
    assert "return shortcut + self.conv_b(self.conv_a(x))" in text
    assert '"""The network: (B, 1, 8, 8) to (B, 10)."""' in text


def test_layers_that_differ_in_numbers_share_a_class() -> None:
    space = ConvKernels()
    source = generate(space.build(space.parse("w8[k3d1]-w16[k1]-w32[k1]"), digits()).eval(), torch.randn(2, 1, 8, 8))
    assert source.text.count("class ") == 2
    assert "ConvLayer(1, 8, 3, padding=1)," in source.text
    assert "ConvLayer(8, 16, 1, stride=2)," in source.text
    assert "return self.relu(self.norm(self.conv(x)))" in source.text


def test_runs_of_equal_modules_are_folded() -> None:
    network = nn.Sequential(nn.Flatten(), *(nn.Linear(64, 64) for _ in range(4)), nn.ReLU()).eval()
    text = generate(network, torch.randn(2, 1, 8, 8)).text
    assert "nn.Sequential(nn.Flatten(), *(nn.Linear(64, 64) for _ in range(4)), nn.ReLU())" in text


def test_generated_text_passes_ruff(tmp_path: Path) -> None:
    for name in _NETWORKS:
        source = generate(_made(name), torch.randn(2, 1, 8, 8))
        (tmp_path / f"{name.replace('-', '_')}.py").write_text(_HEADER + source.text + "\n", encoding="utf-8")
    rules = ["--isolated", "--select", "E,F,W,UP,B,SIM,C90", "--line-length", "100"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rules, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_tracing_leaves_the_network_alone() -> None:
    network = _made("by-hand")
    before = {name: id(value) for name, value in vars(network).items()}
    generate(network, torch.randn(2, 1, 8, 8))
    assert {name: id(value) for name, value in vars(network).items()} == before


def test_tied_weights_are_written_for_each_module(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64)).eval()
    network[2].weight = network[1].weight
    source = generate(network, torch.randn(2, 1, 8, 8))
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(rebuilt(source, tmp_path)(images), network(images))


class _Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class _Looping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row for row in x])


class _Numpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.tanh(x.numpy()))


@torch.fx.wrap
def _helper(x: Tensor) -> Tensor:
    return x.double().float()


class _Wrapped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _helper(x)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            _Branching(),
            r"cannot export _Branching at body\.1: its forward cannot be traced \(TraceError: .*without branches",
        ),
        (_Looping(), r"cannot export _Looping at body\.1: its forward cannot be traced"),
        (_Numpy(), r"cannot export _Numpy at body\.1: its forward cannot be traced|from_numpy"),
        (_Wrapped(), r"cannot export the forward of body\.1: the function .*_helper cannot be written as source"),
    ],
)
def test_what_cannot_be_traced_is_refused_by_name(module: nn.Module, expected: str) -> None:
    network = nn.Sequential()
    network.add_module("body", nn.Sequential(Skip(), module))
    with pytest.raises(InvalidInputError, match=expected):
        generate(network.eval(), torch.randn(2, 1, 8, 8))


def test_modules_that_are_not_of_torch_nn_are_refused_by_name() -> None:
    network = nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 10))).eval()
    with pytest.raises(
        InvalidInputError, match=r"cannot export ParametrizedLinear at 1: expected modules of torch\.nn"
    ):
        generate(network, torch.randn(2, 1, 8, 8))


def test_hooks_are_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    network[1].register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(InvalidInputError, match=r"cannot export Linear at 1: it has hooks"):
        generate(network, torch.randn(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Conv2d(4, 8, 3), {"in_channels": "4", "out_channels": "8", "kernel_size": "3"}),
        (
            nn.Conv2d(4, 8, (1, 3), (1, 2), 1, bias=False, padding_mode="reflect"),
            {"kernel_size": "(1, 3)", "stride": "(1, 2)", "padding": "1", "bias": "False", "padding_mode": '"reflect"'},
        ),
        (nn.ConvTranspose2d(4, 8, 3, output_padding=1, stride=2), {"output_padding": "1", "stride": "2"}),
        (nn.Linear(3, 4, bias=False), {"in_features": "3", "out_features": "4", "bias": "False"}),
        (nn.BatchNorm2d(4), {"num_features": "4"}),
        (nn.BatchNorm1d(4, eps=1e-3, affine=False), {"eps": "0.001", "affine": "False"}),
        (nn.BatchNorm2d(4, momentum=None, track_running_stats=False), {"momentum": "None"}),
        (nn.LayerNorm((4, 5), bias=False), {"normalized_shape": "(4, 5)", "bias": "False"}),
        (nn.GroupNorm(2, 4, affine=False), {"num_groups": "2", "affine": "False"}),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), {"kernel_size": "3", "stride": "2", "ceil_mode": "True"}),
        (nn.AvgPool2d(3, count_include_pad=False), {"count_include_pad": "False"}),
        (nn.AdaptiveAvgPool2d((1, None)), {"output_size": "(1, None)"}),
        (nn.GELU(approximate="tanh"), {"approximate": '"tanh"'}),
        (nn.PReLU(4), {"num_parameters": "4"}),
        (nn.Hardtanh(-2.0, 2.0), {"min_val": "-2.0", "max_val": "2.0"}),
        (nn.Unflatten(1, (2, 4)), {"dim": "1", "unflattened_size": "(2, 4)"}),
        (nn.Upsample(scale_factor=2.0, mode="bilinear"), {"scale_factor": "2.0", "mode": '"bilinear"'}),
        (nn.ZeroPad2d((1, 2, 0, 0)), {"padding": "(1, 2, 0, 0)"}),
        (nn.Embedding(5, 3, padding_idx=0), {"padding_idx": "0"}),
        (nn.LSTM(3, 4, 2, bidirectional=True), {"num_layers": "2", "bidirectional": "True"}),
        (nn.RNN(3, 4, nonlinearity="relu"), {"nonlinearity": '"relu"'}),
        (nn.MultiheadAttention(8, 2, add_bias_kv=True), {"add_bias_kv": "True"}),
        (nn.Identity(), {}),
        (nn.Softmax(dim=1), {"dim": "1"}),
        (nn.GRU(3, 4, bias=False), {"bias": "False"}),
        (nn.PairwiseDistance(1.0), {"p": "1.0"}),
    ],
    ids=repr,
)
def test_arguments_of_constructors_are_recovered(module: nn.Module, expected: dict[str, str]) -> None:
    found = constructor(module, "here")
    assert {name: found[name].value for name in expected} == expected


def test_arguments_that_are_nowhere_are_refused() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    with pytest.raises(InvalidInputError, match="cannot export TransformerEncoderLayer at here: the arguments of its"):
        constructor(layer, "here")


def test_changed_modules_are_refused() -> None:
    conv = nn.Conv2d(4, 4, 3)
    conv.weight = nn.Parameter(torch.zeros(2, 4, 3, 3))
    with pytest.raises(InvalidInputError, match="cannot export Conv2d at here: the arguments of its constructor"):
        constructor(conv, "here")
