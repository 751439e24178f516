"""Inputs, heads and what blocks promise: golden fingerprints of words, projections, stems, poolings."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.search_spaces.blocks import minhash
from nasplat.search_spaces.blocks.channel_mlp import ChannelMlp
from nasplat.search_spaces.blocks.drop_path import DropPath
from nasplat.search_spaces.blocks.heads import (
    POOLINGS,
    ClassHead,
    FeatureAttention,
    ForecastHead,
    MaxPooling,
    MeanPooling,
    TokenHead,
    head_of,
)
from nasplat.search_spaces.blocks.inputs.calendar import CalendarTables
from nasplat.search_spaces.blocks.inputs.patches import ConvStem, PatchStem
from nasplat.search_spaces.blocks.inputs.series import SeriesEmbedding
from nasplat.search_spaces.blocks.inputs.tokens import (
    HashProjection,
    Positions,
    TokenEmbedding,
    real_positions,
    sinusoid_table,
)
from nasplat.search_spaces.blocks.traits import Traits, misfits
from nasplat.seeding import torch_seed
from nasplat.task import Task
from nasplat.tasks.forecast import _calendar

WORDS = ["<pad>", "hello", "the", "cats", "Boston", "a", "playlist", "playlists", "restaurant"]
SIMILAR = [
    *("playlist", "playlists", "playing", "player", "restaurant", "restaurants"),
    *("reservation", "reserve", "tomorrow", "tomorow", "weather", "whether"),
]


# Fingerprints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "first", "total"),
    [
        ("hello", (312562575, 115134095, 668645698, 186484314), 34595484212),
        ("the", (752538576, 840202199, 927865822, 1015529445), 72420993895),
        ("cats", (1476002166, 810579903, 145157640, 853793765), 45636679210),
        ("Boston", (843425827, 219821928, 503337815, 333293809), 27755555048),
        ("a", (1052994573, 1323639053, 1594283533, 1864928013), 65402594367),
        ("##ing", (470804523, 158843416, 1994365956, 1682404849), 66937828330),
    ],
)
def test_golden_fingerprints(token: str, first: tuple[int, ...], total: int) -> None:
    """If these change, weights that were trained on them mean nothing: raise the version of the family."""
    found = minhash.fingerprint(token, 64, 3)
    assert tuple(found[:4]) == first
    assert found.sum() == total
    assert minhash.FAMILY == "sha256-sha224@1"
    assert HashProjection.family == minhash.FAMILY


def test_fewer_hashes_are_the_first_of_many() -> None:
    np.testing.assert_array_equal(minhash.fingerprint("Boston", 16, 3), minhash.fingerprint("Boston", 64, 3)[:16])


def test_a_fingerprint_is_the_least_of_its_grams() -> None:
    grams = [minhash.fingerprint(gram, 64, 3) for gram in ("hel", "ell", "llo")]
    np.testing.assert_array_equal(minhash.fingerprint("hello", 64, 3), np.min(grams, 0))
    doubled = minhash.word_fingerprint(["llo", "hel", "ell", "hel"], 64, 3)
    np.testing.assert_array_equal(doubled, minhash.fingerprint("hello", 64, 3))
    np.testing.assert_array_equal(minhash.fingerprint("▁hello", 64, 3), minhash.fingerprint("hello", 64, 3))


@pytest.mark.parametrize(("hashes", "mean", "most"), [(64, 0.02, 0.1), (1024, 0.01, 0.03)])
def test_fingerprints_agree_as_often_as_words_are_alike(hashes: int, mean: float, most: float) -> None:
    errors = []
    for i, one in enumerate(SIMILAR):
        for other in SIMILAR[:i]:
            agree = minhash.fingerprint(one, hashes, 3) == minhash.fingerprint(other, hashes, 3)
            a, b = ({word[j : j + 3] for j in range(len(word) - 2)} for word in (one, other))
            errors.append(abs(agree.mean() - len(a & b) / len(a | b)))
    assert len(errors) == 66
    assert np.mean(errors) < mean
    assert max(errors) < most


def test_a_vocabulary_is_fingerprinted_once() -> None:
    first, fewer = minhash.table(WORDS, 64, 3), minhash.table(WORDS, 16, 3)
    assert first.base is not None
    assert fewer.base is first.base  # parts of one table
    assert first.shape == (len(WORDS), 64)
    np.testing.assert_array_equal(first[4], minhash.fingerprint("Boston", 64, 3))
    with pytest.raises(InvalidInputError, match="fingerprints have at most 256 hashes, got 512"):
        minhash.table(WORDS, 512, 3)


# The projection ----------------------------------------------------------------------------------------------


def counted(ids: Tensor, features: int) -> Tensor:
    """Counts of buckets ``(B, N, m)``, zeros for padding: the definition that the projection computes without."""
    table = torch.from_numpy(minhash.table(WORDS, 64, 3) % features).long()
    counts = functional.one_hot(table, features).sum(1).float()
    counts[0] = 0
    return counts[ids]


def test_words_fall_into_as_many_buckets_as_there_are_hashes() -> None:
    counts = counted(torch.arange(len(WORDS))[None], 1024)[0]
    assert counts[1:].sum(1).tolist() == [64] * (len(WORDS) - 1)
    assert (int(counts[1].sum()), int(counts[1].max()), int((counts[1] > 0).sum())) == (64, 2, 60)


@pytest.mark.parametrize("window", [0, 1, 2])
def test_the_projection_is_a_linear_layer_of_counts(window: int) -> None:
    features, dim = 256, 8
    with torch_seed(0):
        projection = HashProjection(WORDS, dim, features=features, window=window, padding=0)
    ids = torch.tensor([[1, 2, 3, 4, 5, 0, 0], [8, 7, 6, 5, 4, 3, 2]])
    counts = functional.pad(counted(ids, features), (0, 0, window, window))
    windows = torch.cat([counts[:, j : j + 7] for j in range(2 * window + 1)], 2)  # (B, N, (2w + 1) m)
    weight = torch.cat(torch.split(projection.weight, dim, 1), 0)  # ((2w + 1) m, d)
    expected = windows @ weight + projection.bias
    torch.testing.assert_close(projection(ids), expected, atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in projection.parameters()) == ((2 * window + 1) * features + 1) * dim
    if not window:
        torch.testing.assert_close(projection(ids)[0, -1], projection.bias)


def test_equal_words_are_equal_tokens_and_fingerprints_are_no_weights() -> None:
    with torch_seed(0):
        projection = HashProjection([*WORDS, "hello"], 8)
    y = projection(torch.tensor([[1, 2, len(WORDS), 1]]))
    assert torch.equal(y[0, 0], y[0, 2])
    assert torch.equal(y[0, 0], y[0, 3])
    assert projection.state_dict().keys() == {"weight", "bias"}


def test_compilers_are_given_the_projection_without_counting_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch_seed(0):
        projection = HashProjection(WORDS, 8, window=1, padding=0)
    ids = torch.tensor([[1, 2, 1, 1], [8, 7, 8, 0]])
    expected = projection.train()(ids)
    torch.testing.assert_close(projection.eval()(ids), expected)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(torch, "unique", None)
    torch.testing.assert_close(projection.train()(ids), expected)


def test_new_words_are_hashed_and_read_as_unknown() -> None:
    """What a task learns of its words while it loads them."""
    words = list(WORDS)
    with torch_seed(0):
        hashed, learned = HashProjection(words, 8), TokenEmbedding(len(words), 8, unknown=2)
    words += ["hello", "reservation"]
    new = torch.tensor([[len(WORDS), len(WORDS) + 1]])
    assert torch.equal(learned(new), learned(torch.tensor([[2, 2]])))
    y = hashed(new)
    assert torch.equal(y[:, 0], hashed(torch.tensor([[1]]))[:, 0])
    assert not torch.equal(y[:, 1], y[:, 0])


def test_padding_is_zero_in_a_table_and_no_mask_is_empty() -> None:
    with torch_seed(0):
        table = TokenEmbedding(5, 4, padding=0)
    assert not table(torch.tensor([[0]])).any()
    ids = torch.tensor([[3, 0, 0], [0, 0, 0]])
    mask = real_positions(ids, 0)
    assert mask is not None
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    assert real_positions(ids, None) is None


def test_positions_are_added() -> None:
    fixed = Positions(6, 4, "sinusoid")
    x = torch.zeros(1, 5, 4)
    angles = [1.0, 0.01]
    expected = [f(a) for a in angles for f in (np.sin, np.cos)]
    np.testing.assert_allclose(fixed(x)[0, 1].numpy(), expected, rtol=1e-5)
    assert torch.equal(fixed(x)[0], sinusoid_table(6, 4)[:5])
    assert [p.shape for p in Positions(6, 4, "learned").parameters()] == [(6, 4)]


# Other inputs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", [PatchStem, ConvStem])
@pytest.mark.parametrize(("size", "grid"), [((16, 16), (4, 4)), ((15, 18), (4, 5))])
def test_stems_cover_the_image(stem: type[PatchStem | ConvStem], size: tuple[int, int], grid: tuple[int, int]) -> None:
    with torch_seed(0):
        module = stem((3, *size), 8, 4)
    assert module(torch.zeros(2, 3, *size)).shape == (2, 8, *grid)


def test_a_plain_stem_is_a_linear_layer_of_each_patch() -> None:
    with torch_seed(0):
        stem, x = PatchStem((1, 8, 8), 8, 4), torch.randn(1, 1, 8, 8)
    patch = x[0, 0, 4:, :4].flatten()
    assert stem.project.bias is not None
    torch.testing.assert_close(stem(x)[0, :, 1, 0], stem.project.weight.flatten(1) @ patch + stem.project.bias)


def test_a_series_is_a_circle_with_positions_and_a_calendar() -> None:
    with torch_seed(0):
        embed = SeriesEmbedding(3, 2, 8, 10)
        values, calendar = torch.randn(2, 3, 10), torch.randn(2, 2, 10)
    y = embed(values, calendar)
    assert y.shape == (2, 10, 8)
    assert embed.calendar is not None
    assert embed.values.bias is not None
    neighbours = torch.stack((values[:, :, -1], values[:, :, 0], values[:, :, 1]), 2)  # around step 0
    expected = torch.einsum("bcn,dcn->bd", neighbours, embed.values.weight) + embed.values.bias
    expected = expected + sinusoid_table(10, 8)[0] + embed.calendar(calendar[:, :, 0])
    torch.testing.assert_close(y[:, 0], expected)
    assert SeriesEmbedding(3, 0, 8, 10)(values, calendar[:, :0]).shape == (2, 10, 8)


@pytest.mark.parametrize("finer", [False, True])
def test_calendars_are_looked_up(finer: bool) -> None:
    """Each moment of a leap year and the year after, as the forecasting task writes it, finds its own rows."""
    times = pd.date_range("2020-01-01", "2021-12-31 23:59", freq="55min" if finer else "5h")
    features = torch.from_numpy(_calendar(times)).float().T[None]  # (1, N, m)
    sizes = [4, 24, 7, 32, 13][not finer :]
    wanted = [times.hour, times.day_of_week, times.day, times.month]
    wanted = [times.minute // 15, *wanted] if finer else wanted
    with torch_seed(0):
        learned = CalendarTables(features.shape[2], 8, learned=True)
    assert learned.table is not None
    tables = torch.split(learned.table.weight, sizes)
    expected = sum(table[torch.tensor(w.to_numpy())] for table, w in zip(tables, wanted, strict=True))
    torch.testing.assert_close(learned(features)[0], expected)
    fixed = CalendarTables(features.shape[2], 8, learned=False)
    assert not list(fixed.parameters())
    expected = sum(sinusoid_table(n, 8)[torch.tensor(w.to_numpy())] for n, w in zip(sizes, wanted, strict=True))
    torch.testing.assert_close(fixed(features)[0], expected)


# Heads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_does_not_see_padding(pooling: str) -> None:
    with torch_seed(0):
        head, x = ClassHead(8, 3, pooling), torch.randn(2, 6, 8)
    mask = torch.arange(6) < torch.tensor([[4], [6]])
    changed = torch.where(mask[:, :, None], x, torch.full_like(x, 50.0))
    torch.testing.assert_close(head(changed, mask), head(x, mask))
    torch.testing.assert_close(head(x, mask)[0], head(x[:1, :4])[0])
    assert (head(x)[0] - head(x, mask)[0]).abs().max() > 1e-3


def test_poolings_are_what_they_are_called() -> None:
    with torch_seed(0):
        x, attention = torch.randn(1, 5, 4), FeatureAttention(4)
    torch.testing.assert_close(MeanPooling()(x), x.mean(1))
    torch.testing.assert_close(MaxPooling()(x), x.amax(1))
    weights = attention.attention(x).softmax(1)
    torch.testing.assert_close(attention(x), (weights * attention.features(x)).sum(1))


def test_heads_of_tasks() -> None:
    tagging = Task("t", input_shape=(6,), output_shape=(3, 6), target_shape=(6,), vocabulary=9)
    whole = Task("t", input_shape=(6,), outputs=3, vocabulary=9)
    odd = Task("t", input_shape=(6,), output_shape=(3, 5), target_shape=(5,), vocabulary=9)
    x = torch.zeros(2, 6, 8)
    head = head_of(tagging, 8, "mean")
    assert isinstance(head, TokenHead)
    assert head(x).shape == (2, 3, 6)
    assert head_of(whole, 8, "max")(x).shape == (2, 3)
    with pytest.raises(InvalidArchitectureError, match=r"expected outputs \(K,\) or \(K, 6\) .* got \(3, 5\) of task"):
        head_of(odd, 8, "mean")
    assert ForecastHead(8, 4, 2)(x).shape == (2, 4, 2)


# What blocks promise -----------------------------------------------------------------------------------------


def test_blocks_that_do_not_fit_are_named_with_the_reason() -> None:
    blocks = {"any": Traits(causal=True), "both ways": Traits(), "fixed": Traits(static_length=True)}
    full = Task("t", input_shape=(6,), outputs=3, vocabulary=9)
    padded = Task("t", input_shape=(6,), outputs=3, vocabulary=9, padding=0)
    causal = Task("t", input_shape=(6,), output_shape=(9, 6), target_shape=(6,), vocabulary=9, causal=True)
    assert misfits(blocks, full) == {}
    assert misfits(blocks, padded) == {"fixed": "has weights for positions, and the inputs are of different lengths"}
    assert misfits(blocks, padded, masked=False) == {}
    later = "sees later positions, and the task is causal"
    assert misfits(blocks, causal) == {"both ways": later, "fixed": later}


# Small parts -------------------------------------------------------------------------------------------------


def test_a_channel_perceptron_treats_tokens_alike() -> None:
    with torch_seed(0):
        mlp, x = ChannelMlp(4, 6, activation="relu"), torch.randn(2, 5, 4)
    expected = nn.functional.relu(x @ mlp.expand.weight.T + mlp.expand.bias) @ mlp.project.weight.T + mlp.project.bias
    torch.testing.assert_close(mlp(x), expected)


def test_dropped_paths_are_whole_examples_and_keep_the_mean() -> None:
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    with torch_seed(0):
        y = drop(x)
    assert torch.equal(y.amin((1, 2)), y.amax((1, 2)))
    assert set(y.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(drop.eval()(x), x)
