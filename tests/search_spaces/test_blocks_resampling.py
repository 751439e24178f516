"""Shortening, upsampling and the distilling convolution."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from nasplat.search_spaces.blocks.channel_mlp import ChannelMlp
from nasplat.search_spaces.blocks.resampling import (
    AttentionResampling,
    AverageShortening,
    DistillingConvolution,
    LinearShortening,
    LinearUpsampling,
    LocalResampling,
    RepeatUpsampling,
    grouped_mask,
    shift_right,
)
from nasplat.search_spaces.blocks.token_mixers.attention import Attention
from nasplat.search_spaces.blocks.token_mixers.relative import RelativeAttention, RelativeBias
from nasplat.seeding import torch_seed

X = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0))
SHORT = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))


def test_positions_move_to_the_right() -> None:
    x = torch.arange(1, 5)[None]
    assert shift_right(x, 1).tolist() == [[0, 1, 2, 3]]
    assert shift_right(x, 3).tolist() == [[0, 0, 0, 1]]
    assert shift_right(x, 0) is x


def test_a_short_position_is_real_if_one_of_its_long_ones_is() -> None:
    mask = torch.tensor([[True, True, True, True, False, False]])
    found = grouped_mask(mask, 3)
    assert found is not None
    assert found.tolist() == [[True, True]]
    assert grouped_mask(mask[:, [0, 1, 2, 4, 5, 5]], 3) is not None
    assert grouped_mask(None, 3) is None


def test_plain_resampling() -> None:
    with torch_seed(0):
        down, up = LinearShortening(8, 3), LinearUpsampling(8, 3)
    torch.testing.assert_close(AverageShortening(3)(X)[:, 1], X[:, 3:6].mean(1))
    torch.testing.assert_close(down(X)[:, 1], down.project(torch.cat((X[:, 3], X[:, 4], X[:, 5]), 1)))
    assert torch.equal(RepeatUpsampling(3)(SHORT, X)[:, 4], SHORT[:, 1])
    torch.testing.assert_close(up(SHORT, X)[:, 4], up.project(SHORT[:, 1])[:, 8:16])


def test_attention_resampling_follows_its_equations() -> None:
    with torch_seed(0):
        bias = RelativeBias(8, 2)
        down = AttentionResampling(AverageShortening(3), RelativeAttention(8, 2), ChannelMlp(8, 16), 8)
        up = AttentionResampling(RepeatUpsampling(3), RelativeAttention(8, 2), ChannelMlp(8, 16), 8)
    norm = functional.layer_norm
    h = norm(X, [8])
    q = norm(torch.unflatten(h, 1, (4, 3)).mean(2), [8])
    q = q + down.attention(q, h, bias)
    torch.testing.assert_close(down(X, None, bias), q + down.mlp(norm(q, [8])))
    h = norm(SHORT, [8])
    q = norm(h.repeat_interleave(3, 1), [8]) + X
    q = q + up.attention(q, h, bias)
    torch.testing.assert_close(up(SHORT, X, bias), q + up.mlp(norm(q, [8])))


def test_local_resampling_stays_in_its_group() -> None:
    with torch_seed(0):
        down = LocalResampling(AverageShortening(3), Attention(8, 2), ChannelMlp(8, 16), 8, 3)
        up = LocalResampling(RepeatUpsampling(3), Attention(8, 2), ChannelMlp(8, 16), 8, 3)
    changed = X.clone()
    changed[:, 4] += 1
    assert (down(changed) - down(X)).abs().amax((0, 2)).gt(0).tolist() == [False, True, False, False]
    short = SHORT.clone()
    short[:, 2] += 1
    expected = [position // 3 == 2 for position in range(12)]
    assert (up(short, X) - up(SHORT, X)).abs().amax((0, 2)).gt(0).tolist() == expected
    mask = torch.arange(12) < torch.tensor([[5], [12]])
    hidden = torch.where(mask[:, :, None], X, torch.zeros(()))
    assert down(hidden, None, None, mask).isfinite().all()


@pytest.mark.parametrize("length", [96, 48, 97, 5, 1])
def test_distilling_halves_a_series(length: int) -> None:
    with torch_seed(0):
        distil, x = DistillingConvolution(4), torch.randn(3, length, 4)
    assert distil(x).shape == (3, math.ceil(length / 2), 4)


def test_distilling_follows_its_equation() -> None:
    with torch_seed(0):
        distil, x = DistillingConvolution(4).eval(), torch.randn(3, 6, 4)
        nn.init.normal_(distil.norm.weight)
    around = torch.cat((x[:, -1:], x, x[:, :1]), 1).transpose(1, 2)
    y = functional.elu(distil.norm(functional.conv1d(around, distil.conv.weight, distil.conv.bias)))
    expected = torch.stack([y[:, :, max(2 * i - 1, 0) : 2 * i + 2].amax(2) for i in range(3)], 1)
    torch.testing.assert_close(distil(x), expected)
