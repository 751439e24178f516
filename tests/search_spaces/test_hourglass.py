"""Hourglass: parity with a reference program, no look ahead at any position, and the tree of its choices."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nasplat.choices import Value
from nasplat.counting import count
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.search_spaces.blocks.heads import TokenHead
from nasplat.search_spaces.blocks.inputs.tokens import Positions, TokenEmbedding
from nasplat.search_spaces.hourglass.hierarchy import Hierarchy, Level
from nasplat.search_spaces.hourglass.network import SHORTENINGS, UPSAMPLINGS, HourglassConfig, HourglassNetwork
from nasplat.search_spaces.hourglass.space import Hourglass, hierarchy_of, values_of
from nasplat.seeding import torch_seed
from nasplat.task import Task

SPACE = Hourglass()
SIZES = "dim=32,heads=2,ratio=2,dropout=0.0"
FLAT = f"{SIZES},positions=relative,norms=all,hierarchy=2@1"


def letters(length: int) -> Task:
    return Task(
        "letters", input_shape=(length,), output_shape=(11, length), target_shape=(length,), vocabulary=11, causal=True
    )


def text(hierarchy: str, shorten: str, upsample: str, positions: str = "relative", norms: str = "all") -> str:
    return f"{SIZES},positions={positions},norms={norms},shorten={shorten},upsample={upsample},hierarchy={hierarchy}"


def built(architecture: str, task: Task, seed: int = 0) -> HourglassNetwork:
    with torch_seed(seed):
        network = SPACE.build(SPACE.parse(architecture), task).eval()
        for name, parameter in network.named_parameters():
            if name.startswith("bias"):  # so that they have a say
                torch.nn.init.normal_(parameter)
    assert isinstance(network, HourglassNetwork)
    return network


def ids(length: int, batch: int = 1) -> Tensor:
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(0))


# The future --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shorten", SHORTENINGS)
@pytest.mark.parametrize("upsample", UPSAMPLINGS)
@pytest.mark.parametrize("hierarchy", ["1@1 1@2 1@1", "1@3", "1@1 1@4 1@1", "1@3 1@6 1@3"])
def test_no_position_sees_a_later_one(hierarchy: str, shorten: str, upsample: str) -> None:
    """At every position, changing it and all later ones changes nothing before, exactly, and something there."""
    length = 13  # no multiple of any factor
    network = built(text(hierarchy, shorten, upsample), letters(length))
    x = ids(length)
    others = x.repeat(length, 1)
    for position in range(length):
        others[position, position:] = (x[0, position:] + 1) % 11
    # The same numbers of rows on both sides, so that products round alike.
    changed = (network(others) - network(x.repeat(length, 1))).abs().amax(1)  # (changed from, position)
    assert not changed.tril(-1).any()
    assert bool(changed.diagonal().gt(0).all())


def test_without_the_shift_there_would_be_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shift by k - 1 is for, and that the test above would see it."""
    from nasplat.search_spaces.hourglass import network as module

    monkeypatch.setattr(module, "shift_right", lambda x, steps: x)
    network = built(text("1@1 1@3 1@1", "average", "repeat"), letters(12))
    x = ids(12)
    other = x.clone()
    other[:, 8] = (x[:, 8] + 1) % 11
    assert (network(other) - network(x)).abs().amax(1)[0, :8].any()


def test_without_a_causal_task_everything_is_seen() -> None:
    task = Task("tags", input_shape=(12,), output_shape=(11, 12), target_shape=(12,), vocabulary=11)
    network = built(text("1@1 1@3 1@1", "average", "repeat"), task)
    x = ids(12)
    other = x.clone()
    other[:, -1] = (x[:, -1] + 1) % 11
    assert bool((network(other) - network(x)).abs().amax(1).gt(0).all())


# Parity ------------------------------------------------------------------------------------------------------


def _linear(ours: str, golden: Mapping[str, Tensor], theirs: str) -> dict[str, Tensor]:
    found = {part: golden.get(f"{theirs}.{part}") for part in ("weight", "bias")}
    return {f"{ours}.{part}": tensor for part, tensor in found.items() if tensor is not None}


def _layer(
    ours: str, golden: Mapping[str, Tensor], theirs: str, norms: tuple[str, str] = ("norm1", "norm2")
) -> dict[str, Tensor]:
    qkv = torch.cat((golden[f"{theirs}.0.fn.to_q.weight"], golden[f"{theirs}.0.fn.to_kv.weight"]))
    return {
        f"{ours}.attention.qkv.weight": qkv,
        f"{ours}.attention.qkv.bias": torch.zeros(len(qkv)),  # which the reference does not have
        **_linear(f"{ours}.attention.out", golden, f"{theirs}.0.fn.to_out"),
        **_linear(f"{ours}.{norms[0]}", golden, f"{theirs}.0.norm"),
        **_linear(f"{ours}.{norms[1]}", golden, f"{theirs}.1.norm"),
        **_linear(f"{ours}.mlp.expand", golden, f"{theirs}.1.fn.0"),
        **_linear(f"{ours}.mlp.project", golden, f"{theirs}.1.fn.3"),
    }


def _stack(ours: str, golden: Mapping[str, Tensor], theirs: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for number in range(2):
        if f"{theirs}.layers.{number}.0.norm.weight" in golden:
            state |= _layer(f"{ours}.layers.{number}", golden, f"{theirs}.layers.{number}")
    return state


def _valley(ours: str, golden: Mapping[str, Tensor], theirs: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for mine, sample, attend in (
        ("shorten", "downsample", "attn_resampling_pre_valley"),
        ("upsample", "upsample", "attn_resampling_post_valley"),
    ):
        state |= _linear(f"{ours}.{mine}.base.project", golden, f"{theirs}.{sample}.proj")
        if f"{theirs}.{attend}.layers.0.0.norm.weight" in golden:
            norms = ("norms.0", "norms.1")
            state |= _layer(f"{ours}.{mine}", golden, f"{theirs}.{attend}.layers.0", norms)
    inside = f"{theirs}.valley_transformer"
    if f"{inside}.pre_transformer.layers.0.0.norm.weight" not in golden:
        return state | _stack(f"{ours}.down", golden, inside)
    state |= _stack(f"{ours}.down", golden, f"{inside}.pre_transformer")
    state |= _stack(f"{ours}.up", golden, f"{inside}.post_transformer")
    return state | _valley(f"{ours}.inside", golden, inside)


@pytest.mark.parametrize(
    ("file", "shorten", "upsample", "levels"),
    [
        ("noattn", "average", "repeat", (Level(3, 2),)),
        ("linear", "local-linear", "local-linear", (Level(3, 2),)),
        ("single", "local-average", "local-repeat", (Level(4, 2),)),
        ("nested", "local-average", "local-repeat", (Level(3, 1, 1), Level(2, 1))),
    ],
)
def test_parity_with_the_reference_program(
    shared: Path, file: str, shorten: str, upsample: str, levels: tuple[Level, ...]
) -> None:
    arrays = np.load(shared / "data" / "golden" / f"hourglass_lucidrains_{file}.npz")
    golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    config = HourglassConfig(16, 2, 64, shorten, upsample, relative=False, norms=False)
    network = HourglassNetwork(
        TokenEmbedding(11, 16),
        Hierarchy(1, levels, 1),
        config,
        TokenHead(16, 11),
        positions=Positions(24, 16, "learned"),
    ).eval()
    network.load_state_dict(
        {
            "tokens.table.weight": golden["token_emb.weight"],
            "positions.table": golden["pos_emb.weight"],
            **_stack("pre", golden, "transformer.pre_transformer"),
            **_valley("valley", golden, "transformer"),
            **_stack("post", golden, "transformer.post_transformer"),
            **_linear("post.norm", golden, "transformer.norm_out"),
            **_linear("head.linear", golden, "to_logits"),
        }
    )
    torch.testing.assert_close(network(golden["x"]).transpose(1, 2), golden["y"], atol=1e-5, rtol=0)


# Lengths and padding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [12, 13, 5, 1])
@pytest.mark.parametrize("shorten", ["average", "attention-linear", "local-linear"])
def test_any_length_is_taken(length: int, shorten: str) -> None:
    network = built(text("1@2 1@4 1@2", shorten, "attention-repeat"), letters(length))
    assert network(ids(length, 3)).shape == (3, 11, length)


@pytest.mark.parametrize("shorten", SHORTENINGS)
@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing(shorten: str, causal: bool) -> None:
    def tags(length: int) -> Task:
        shapes = {"input_shape": (length,), "output_shape": (11, length), "target_shape": (length,)}
        return Task("tags", vocabulary=11, padding=0, causal=causal, **shapes)  # type: ignore[arg-type]

    architecture = text("1@1 1@3 1@1", shorten, "attention-repeat")
    network = built(architecture, tags(9))
    x = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 0, 0, 0, 0]])
    expected = network(x)
    padded = built(architecture, tags(15))(torch.nn.functional.pad(x, (0, 6)))
    real = x != 0
    torch.testing.assert_close(padded[:, :, :9].mT[real], expected.mT[real], atol=1e-5, rtol=1e-5)


def test_a_whole_text_can_be_classified() -> None:
    task = Task("texts", input_shape=(10,), outputs=3, vocabulary=11, padding=0)
    network = built(text("1@1 1@3 1@1", "linear", "linear"), task)
    assert network(torch.tensor([[1, 2, 3, 0, 0, 0, 0, 0, 0, 0], [0] * 10])).shape == (2, 3)


# Cost and tree -----------------------------------------------------------------------------------------------


def test_the_middle_is_cheap() -> None:
    def flops(hierarchy: str) -> int:
        spelled = text(hierarchy, "linear", "linear") if "@8" in hierarchy or "@3" in hierarchy else FLAT
        architecture = SPACE.parse(spelled.replace("2@1", hierarchy) if spelled == FLAT else spelled)
        return count(SPACE, architecture, letters(1024)).flops

    assert flops("1@1 8@3 1@1") < 0.5 * flops("10@1")


def test_a_tree_without_levels_is_a_flat_transformer() -> None:
    """Wherever its layers are counted, it is the same architecture and the same network."""
    spelled = f"{SIZES},positions=relative,norms=all,pre={{}},post={{}},levels=0"
    one, other = (SPACE.parse(spelled.format(pre, 3 - pre)) for pre in (3, 1))
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != SPACE.parse(spelled.format(1, 3)).fingerprint
    networks = [built(a.text, letters(12)) for a in (one, other)]
    assert torch.equal(networks[0](ids(12)), networks[1](ids(12)))
    assert networks[0].valley is None


@pytest.mark.parametrize(
    ("spelled", "pre", "levels", "post"),
    [
        ("6@3", 0, (Level(3, 6),), 0),
        ("3@2 2@6 5@24 2@6 3@2", 0, (Level(2, 3, 3), Level(3, 2, 2), Level(4, 5)), 0),
        ("5@1 24@3 4@1", 5, (Level(3, 24),), 4),
        ("1@1 2@2 3@4 4@2 5@1", 1, (Level(2, 2, 4), Level(2, 3)), 5),
        ("10@1", 10, (), 0),
    ],
)
def test_hierarchies_are_read(spelled: str, pre: int, levels: tuple[Level, ...], post: int) -> None:
    found = Hierarchy.parse(spelled)
    assert found == Hierarchy(pre, levels, post)
    assert Hierarchy.parse(str(found)) == found
    values: dict[str, Value] = values_of(found)
    assert hierarchy_of(values) == found


@pytest.mark.parametrize(
    ("spelled", "why"),
    [
        ("1@2 2@3 1@2", "3 must be a multiple of 2"),
        ("1@2 2@3", "must rise and fall through the same values"),
        ("1@2 2@2 1@2", "2 must be a multiple of 2"),
        ("", "expected parts such as 24@3"),
        ("3", "expected parts such as 24@3"),
    ],
)
def test_what_is_no_hierarchy_is_refused(spelled: str, why: str) -> None:
    with pytest.raises(InvalidArchitectureError, match=f"is no hierarchy: .*{why}|{why}"):
        Hierarchy.parse(spelled)


def test_the_space_reads_hierarchies_in_strings() -> None:
    architecture = SPACE.parse(text("1@1 2@2 3@4 2@2 1@1", "linear", "repeat"))
    assert architecture.chosen.items() >= {"pre": 1, "factor1": 2, "down1": 2, "factor2": 2, "down2": 3}.items()
    assert SPACE.parse(architecture.text) == architecture
    with pytest.raises(InvalidArchitectureError, match="2 hierarchies; give one"):
        SPACE.parse("hierarchy=1@2,hierarchy=1@3")
    with pytest.raises(InvalidArchitectureError, match="at most 3 levels"):
        SPACE.parse("hierarchy=1@2 1@4 1@8 1@16 1@8 1@4 1@2")


def test_levels_have_choices_of_their_own() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        chosen = SPACE.sample(rng).chosen
        levels = int(chosen["levels"])
        assert sum(name.startswith("factor") for name in chosen) == levels
        assert sum(name.startswith("down") for name in chosen) == levels
        assert sum(name.startswith("up") and name != "upsample" for name in chosen) == max(levels - 1, 0)
        assert ("shorten" in chosen) == ("upsample" in chosen) == (levels > 0)


@pytest.mark.parametrize(
    ("name", "hierarchy"),
    [
        ("enwik8", "5@1 24@3 5@1"),
        ("imagenet32", "3@1 24@3 3@1"),
        ("imagenet64", "3@1 12@3 3@1"),
        ("cifar10", "1@1 8@3 1@1"),
        ("wiki40b", "4@1 8@4 4@1"),
    ],
)
def test_references_have_their_hierarchies(name: str, hierarchy: str) -> None:
    architecture = SPACE.parse(name)
    assert str(hierarchy_of(architecture.chosen)) == hierarchy
    layers = sum(int(part.split("@")[0]) for part in hierarchy.split())
    dim, resampled = int(architecture["dim"]), sum("attention" in str(architecture[n]) for n in ("shorten", "upsample"))
    layer = 5 * (dim * dim + dim) + 8 * dim * dim + 5 * dim + 4 * dim
    linear = sum(
        {"linear": 1, "attention-linear": 1}.get(str(architecture[n]), 0) * size
        for n, size in (("shorten", 3 * dim * dim + dim), ("upsample", 3 * dim * dim + 3 * dim))
    )
    norms = 2 * dim * (3 + 1)  # of the three stacks and of what comes up again
    expected = layers * layer + resampled * (layer + 2 * dim) + linear + norms + 2 * dim + (11 * dim) * 2 + 11
    assert count(SPACE, architecture, letters(24)).params == expected


def test_only_tokens_are_taken() -> None:
    with pytest.raises(InvalidInputError, match=r"hourglass takes token ids \(L,\); the inputs of task 'images' are"):
        SPACE.check(Task("images", input_shape=(3, 8, 8), outputs=2))
    with pytest.raises(InvalidArchitectureError, match="hourglass takes token ids"):
        SPACE.build(SPACE.parse(FLAT), Task("rows", input_shape=(8,), outputs=2))


def test_sizes_can_be_limited() -> None:
    space = Hourglass(max_dim=128, max_layers=4)
    rng = np.random.default_rng(0)
    for _ in range(30):
        chosen = space.sample(rng).chosen
        assert int(chosen["dim"]) <= 128
        assert all(
            int(v) <= 4 for n, v in chosen.items() if n.startswith(("pre", "post", "down", "up")) and n != "upsample"
        )
    assert not space.references
    assert set(Hourglass(max_layers=8).references) == {"cifar10", "wiki40b"}
    with pytest.raises(InvalidInputError, match="max_dim of hourglass must be 32 or more, got 16"):
        Hourglass(max_dim=16)
