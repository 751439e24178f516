"""Networks that calculate with the sizes of their inputs: attention by distance, ProbSparse attention, hierarchies."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nasplat.choices import Value
from nasplat.errors import InvalidInputError
from nasplat.export.source import generate
from nasplat.search_spaces.blocks.token_mixers.prob_sparse import ProbSparseAttention
from nasplat.search_spaces.blocks.token_mixers.relative import RelativeSelfAttention
from nasplat.search_spaces.hourglass.space import Hourglass
from nasplat.search_spaces.informer.space import Informer
from nasplat.search_spaces.text_mixer.space import TextMixer
from nasplat.seeding import torch_seed
from nasplat.space import SearchSpace
from nasplat.task import Task
from tests.export.test_source import rebuilt

_TEXTS = Task("texts", input_shape=(14,), outputs=3, vocabulary=30, padding=0)
_LETTERS = Task("letters", input_shape=(14,), output_shape=(30, 14), target_shape=(14,), vocabulary=30, causal=True)
_SERIES = Task(
    "series", input_shape=(7, 60), output_shape=(3, 12), target_shape=(3, 12), real=True, calendar=4, scaled=True
)


def _ids() -> Tensor:
    ids = torch.randint(1, 30, (5, 14), generator=torch.Generator().manual_seed(1))
    ids[1:3, 6:] = 0
    return ids


def _series() -> Tensor:
    return torch.randn(5, *_SERIES.input_shape, generator=torch.Generator().manual_seed(1))


def _dated() -> Tensor:
    x = _series()
    x[:, 3:] = torch.rand(5, 4, 60, generator=torch.Generator().manual_seed(2)) - 0.5
    return x


def _built(space: SearchSpace, reference: str, task: Task, **changes: Value) -> nn.Module:
    return space.build(space.architecture({**space.references[reference], **changes}), task)


def _text(task: Task, mixer: str) -> nn.Module:
    small: dict[str, Value] = {"dim": 32, "hidden": 64, "layers": 2, "heads1": 2, "mixer1": mixer, "mixer2": "conv"}
    values: dict[str, Value] = {
        "input": "embedding",
        "positions": "learned",
        "norm": "pre",
        "final_norm": "no",
        "dropout": 0.1,
    }
    space = TextMixer()
    return space.build(space.architecture({**values, "pooling": "max", "kernel2": 3, **small}), task)


def _hourglass(task: Task) -> nn.Module:
    small = {"dim": 32, "heads": 2, "pre": 1, "down1": 2, "post": 1}
    return _built(Hourglass(), "wiki40b", task, **small)  # its factor 4 does not divide 14


def _informer(**changes: Value) -> nn.Module:
    return _built(Informer(), "stack", _SERIES, dim=32, heads=2, ratio=2, lookback=48, start=24, **changes)


class _Tokens(nn.Module):
    """A token mixer on numbers ``(B, 14)``, with and without a mask."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.expand = nn.Linear(1, 16)
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.expand(x[:, :, None])
        out: Tensor = self.mixer(tokens) + self.mixer(tokens, x > 0.1)
        return out.mean(2)


_NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "relative": (lambda: _text(_TEXTS, "relative"), _ids),
    "relative-causal": (lambda: _text(_LETTERS, "relative"), _ids),
    "relative-masked-causal": (
        lambda: _Tokens(RelativeSelfAttention(16, 2, causal=True)),
        lambda: torch.rand(5, 14, generator=torch.Generator().manual_seed(1)),
    ),
    "hourglass": (lambda: _hourglass(_TEXTS), _ids),
    "hourglass-causal": (lambda: _hourglass(_LETTERS), _ids),
    "informer": (_informer, _series),
    "informer-full": (lambda: _informer(attention1="full", decoder_attention="full", embed="fixed"), _dated),
    "prob-sparse-masked": (
        lambda: _Tokens(ProbSparseAttention(16, 2, factor=1, masked=True, mixed=True)),
        lambda: torch.rand(5, 14, generator=torch.Generator().manual_seed(1)),
    ),
}


@pytest.mark.parametrize("name", _NETWORKS)
@torch.no_grad()
def test_generated_network_computes_the_same(name: str, tmp_path: Path) -> None:
    build, inputs = _NETWORKS[name]
    with torch_seed(0):
        network = build().eval()
    source = generate(network, inputs()[:1])
    again = rebuilt(source, tmp_path)
    for batch in (1, 5):
        torch.testing.assert_close(again(inputs()[:batch]), network(inputs()[:batch]), rtol=0, atol=1e-6)
    assert set(again.state_dict()) == set(source.weights)


def test_drawn_keys_are_kept_with_the_weights(tmp_path: Path) -> None:
    """What ProbSparse attention draws in evaluation is always the same: the exported network has it as a table."""
    source = generate(_informer().eval(), _series())
    drawn = {name: tensor for name, tensor in source.weights.items() if name.endswith("constant")}
    assert {tuple(tensor.shape) for tensor in drawn.values()} >= {(48, 20), (36, 20)}
    assert all(tensor.dtype == torch.int64 for tensor in drawn.values())


class _Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        moved = torch.zeros_like(x)
        moved[:, x.shape[1] // 2 :] = x[:, : max(x.shape[1] // 2, 1)]
        first, second = (part * factor for factor, part in enumerate(moved.chunk(2, 1)))
        return torch.cat((first, second), 1).reshape(x.size(0), x.dim(), -1).flatten(1)


def test_sizes_are_numbers_only_where_they_are_needed() -> None:
    source = generate(nn.Sequential(_Shift()).eval(), torch.rand(3, 8))
    assert "zeros_like[:, 4:] = x[:, :4]" in source.text
    assert "x.shape[0], 2, -1" in source.text
    any_size = generate(nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.ReLU()).eval(), torch.rand(3, 8))
    assert "shape" not in any_size.text


class _ByBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if len(x) > 2 else -x


def test_the_size_of_the_batch_decides_nothing() -> None:
    with pytest.raises(InvalidInputError, match="cannot export _ByBatch at 0: its forward cannot be traced"):
        generate(nn.Sequential(_ByBatch()).eval(), torch.rand(3, 8))
