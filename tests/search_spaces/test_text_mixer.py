"""Text mixers: published sizes, parity with a reference program, and which tasks they take."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nasplat.choices import Value
from nasplat.config import Budget, StudyConfig
from nasplat.counting import count
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.export.source import generate
from nasplat.search_spaces.blocks.heads import ClassHead
from nasplat.search_spaces.blocks.inputs.tokens import TokenEmbedding
from nasplat.search_spaces.blocks.mixer_layer import MixerLayer
from nasplat.search_spaces.blocks.token_mixers.static import StaticMlp
from nasplat.search_spaces.text_mixer.network import TextMixerNetwork
from nasplat.search_spaces.text_mixer.space import MIXERS, TextMixer
from nasplat.seeding import torch_seed
from nasplat.storage.sql_store import SqlStore
from nasplat.study import Study
from nasplat.task import Task

SPACE = TextMixer()
WORDS = ["<pad>", "play", "a", "song", "by", "book", "table", "for", "two", "weather"]


def tagging(classes: int, length: int) -> Task:
    return Task(
        "tags",
        input_shape=(length,),
        output_shape=(classes, length),
        target_shape=(length,),
        vocabulary=len(WORDS),
        words=WORDS,
    )


def texts(classes: int, length: int, padding: int | None = None) -> Task:
    return Task("texts", input_shape=(length,), outputs=classes, vocabulary=len(WORDS), words=WORDS, padding=padding)


LETTERS = Task("letters", input_shape=(12,), output_shape=(30, 12), target_shape=(12,), vocabulary=30, causal=True)
MTOP, MULTI_ATIS, IMDB = tagging(151, 64), texts(26, 64), texts(2, 1024)


@pytest.mark.parametrize(
    ("size", "task", "params"),
    [
        ("x-small", MTOP, 208_279),
        ("base", MTOP, 1_156_887),
        ("x-large", MTOP, 4_415_895),
        ("x-small", MULTI_ATIS, 208_474),
        ("base", MULTI_ATIS, 1_256_346),
        ("x-large", MULTI_ATIS, 4_877_082),
        ("x-small", IMDB, 1_191_874),
        ("base", IMDB, 2_235_138),
        ("x-large", IMDB, 6_834_690),
    ],
)
def test_published_sizes_of_pnlp_mixers(size: str, task: Task, params: int) -> None:
    assert count(SPACE, SPACE.parse(f"pnlp-mixer-{size}"), task).params == params


def test_sizes_of_the_other_encoders() -> None:
    """Without embeddings and head, by the formulas of their papers."""

    def trunk(name: str) -> int:
        architecture = SPACE.parse(name)
        dim, task = int(architecture["dim"]), texts(2, 64)
        positions = 64 * dim if architecture["positions"] == "learned" else 0
        return count(SPACE, architecture, task).params - (len(WORDS) + 2) * dim - 2 - positions

    def mlp(dim: int, hidden: int) -> int:
        return 2 * dim * hidden + hidden + dim

    assert trunk("transformer") == 6 * (4 * 512 * 512 + 4 * 512 + mlp(512, 2048) + 4 * 512)
    assert trunk("fnet") == 12 * (mlp(768, 3072) + 4 * 768)
    assert trunk("mlp-mixer") == 8 * (mlp(64, 256) + mlp(512, 2048) + 4 * 512) + 2 * 512
    generator, norms = 256 * 256 + 256 * 512, 3 * 2 * 256  # tied: one network makes both weights
    assert trunk("hypermixer") == 6 * (generator + mlp(256, 512) + norms) + 2 * 256


def test_parity_with_the_reference_program(shared: Path) -> None:
    golden = np.load(shared / "data" / "golden" / "pnlp_seqcls_fs32_w1_h16_m2_L12_c5.npz")
    arrays = {name: torch.from_numpy(golden[name]) for name in golden.files}
    layers = [MixerLayer(StaticMlp(12, 256), 16, 256) for _ in range(2)]
    network = TextMixerNetwork(TokenEmbedding(2, 16), layers, ClassHead(16, 5, "feature-attention")).eval()
    names = {"head.pool.features": "seq_cls.feature_proj", "head.pool.attention": "seq_cls.attention_proj"}
    names["head.linear"] = "seq_cls.cls_proj"
    for layer in range(2):
        theirs = f"pnlp_mixer.mixer.mixers.{layer}"
        parts = {"norm1": "layer_norm_1", "norm2": "layer_norm_2"}
        parts |= {"mixer.expand": "mlp_1.layers.0", "mixer.project": "mlp_1.layers.2"}
        parts |= {"mlp.expand": "mlp_2.layers.0", "mlp.project": "mlp_2.layers.2"}
        names |= {f"layers.{layer}.{ours}": f"{theirs}.{other}" for ours, other in parts.items()}
    state = {f"{ours}.{p}": arrays[f"{other}.{p}"] for ours, other in names.items() for p in ("weight", "bias")}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["tokens.table.weight"], [])
    bottleneck = arrays["pnlp_mixer.bottleneck.weight"], arrays["pnlp_mixer.bottleneck.bias"]
    tokens = torch.nn.functional.linear(arrays["x"], *bottleneck)
    torch.testing.assert_close(network.head(network.encode(tokens)), arrays["y"], atol=1e-5, rtol=0)


def test_normalization_comes_before_or_after() -> None:
    with torch_seed(0):
        before, x = MixerLayer(StaticMlp(6, 8), 4, 8), torch.randn(2, 6, 4)
        after = MixerLayer(StaticMlp(6, 8), 4, 8, first=False)
    after.load_state_dict(before.state_dict())
    norm = torch.nn.functional.layer_norm
    assert before.mixer is not None
    y = x + before.mixer(norm(x, [4]))
    torch.testing.assert_close(before(x), y + before.mlp(norm(y, [4])))
    y = norm(x + before.mixer(x), [4])
    torch.testing.assert_close(after(x), norm(y + before.mlp(y), [4]))


# What fits a task --------------------------------------------------------------------------------------------


def test_mixers_that_see_the_future_are_refused_for_a_causal_task() -> None:
    with pytest.raises(InvalidInputError) as error:
        TextMixer(inputs=["embedding"]).check(LETTERS)
    assert str(error.value) == (
        "mixers of text-mixer do not fit task 'letters': hyper sees later positions, and the task is causal; "
        "static sees later positions, and the task is causal; fourier sees later positions, and the task is causal; "
        "leave them out with the space's option mixers=['attention', 'relative', 'conv', 'none']"
    )
    TextMixer(inputs=["embedding"], mixers=["attention", "conv", "relative", "none"]).check(LETTERS)


def test_static_mixers_are_refused_for_inputs_of_different_lengths() -> None:
    task = texts(3, 12, padding=0)
    with pytest.raises(InvalidInputError, match=r"static has weights for positions.*or padding=tokens to take padding"):
        SPACE.check(task)
    TextMixer(padding="tokens").check(task)
    TextMixer(mixers=["hyper", "attention"]).check(task)
    SPACE.check(texts(3, 12))


def test_hashed_words_need_words() -> None:
    task = Task("ids", input_shape=(12,), outputs=3, vocabulary=9)
    with pytest.raises(InvalidInputError, match=r"minhash reads the letters of words.*inputs=\['embedding'\]"):
        SPACE.check(task)
    with pytest.raises(InvalidArchitectureError, match="input=minhash needs the words of task 'ids'"):
        SPACE.build(SPACE.parse("pnlp-mixer-x-small"), task)


def test_numbers_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"takes token ids .* the inputs of task 'images' are numbers"):
        SPACE.check(Task("images", input_shape=(3, 8, 8), outputs=2))


def test_an_architecture_that_does_not_fit_is_refused_when_built_too() -> None:
    with pytest.raises(InvalidArchitectureError, match="fourier does not fit task 'letters': it sees later positions"):
        SPACE.build(SPACE.parse("fnet"), LETTERS)


def test_a_study_that_would_propose_such_blocks_does_not_start(tmp_path: Path) -> None:
    config = StudyConfig(name="cheat", space="text-mixer", task="letters", strategy="random", budget=Budget(trials=2))
    with SqlStore(f"sqlite:///{tmp_path}/store.db") as store:
        with pytest.raises(InvalidInputError, match="mixers of text-mixer do not fit task 'letters': hyper sees later"):
            Study(config, store, task=LETTERS)
        assert not store.studies()


@pytest.mark.parametrize("seed", range(6))
def test_what_is_drawn_for_a_causal_task_is_causal(seed: int) -> None:
    space = TextMixer(inputs=["embedding"], mixers=["attention", "relative", "conv", "none"], max_layers=3)
    architecture = space.sample(np.random.default_rng(seed))
    with torch_seed(seed):
        network = space.build(architecture, LETTERS).eval()
        ids = torch.randint(30, (2, 12))
    for position in (1, 5, 11):
        other = ids.clone()
        other[:, position:] = (ids[:, position:] + 1) % 30
        changed = (network(other) - network(ids)).abs().amax((0, 1))
        assert not changed[:position].any()
        assert bool(changed[position])


@pytest.mark.parametrize("mixer", ["attention", "relative", "hyper", "conv"])
def test_padding_does_not_change_what_is_said(mixer: str) -> None:
    space = TextMixer(mixers=[mixer], max_layers=2)
    rng = np.random.default_rng(1)
    settings: dict[str, Value] = {"positions": "sinusoid", "layers": 2, "dropout": 0.0, "dim": 32, "hidden": 64}
    drawn = next(a for a in (space.sample(rng) for _ in range(1000)) if a["layers"] == 2)
    architecture = space.architecture({**drawn.chosen, **settings})
    with torch_seed(0):
        short = space.build(architecture, texts(3, 6, padding=0)).eval()
    with torch_seed(0):
        long = space.build(architecture, texts(3, 10, padding=0)).eval()
    long.load_state_dict(short.state_dict())
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 9, 0, 0, 0]])
    padded = torch.nn.functional.pad(ids, (0, 4))
    torch.testing.assert_close(long(padded), short(ids), atol=1e-5, rtol=1e-5)


def test_padding_as_words_is_seen() -> None:
    space = TextMixer(padding="tokens", mixers=["static"], max_layers=2)
    assert space.key == "text-mixer@1[padding=tokens]"
    with torch_seed(0):
        network = space.build(space.parse("pnlp-mixer-x-small"), texts(3, 6, padding=0)).eval()
    assert isinstance(network, TextMixerNetwork)
    assert network.padding is None
    assert network(torch.zeros(2, 6, dtype=torch.int64)).isfinite().all()


# The space ---------------------------------------------------------------------------------------------------


def test_every_mixer_is_drawn_with_its_own_settings() -> None:
    rng = np.random.default_rng(0)
    own = {"static": "token_hidden", "hyper": "hyper_size", "conv": "kernel", "attention": "heads", "relative": "heads"}
    seen = set()
    for _ in range(50):
        chosen = SPACE.sample(rng).chosen
        for layer in range(1, int(chosen["layers"]) + 1):
            kind = str(chosen[f"mixer{layer}"])
            seen.add(kind)
            for name in set(own.values()):
                expected = own.get(kind) == name or (kind == "hyper" and name == "heads")
                assert (f"{name}{layer}" in chosen) == expected
    assert seen == set(MIXERS)


def test_options_are_checked_and_leave_references_out() -> None:
    with pytest.raises(InvalidInputError, match="padding of text-mixer must be mask or tokens, got 'crop'"):
        TextMixer(padding="crop")
    with pytest.raises(InvalidInputError, match="max_layers of text-mixer must be 1 to 12, got 13"):
        TextMixer(max_layers=13)
    with pytest.raises(InvalidInputError, match="inputs of text-mixer must be one or more of embedding, minhash, got"):
        TextMixer(inputs=[])
    assert set(TextMixer(mixers=["static"]).references) == {
        "pnlp-mixer-x-small",
        "pnlp-mixer-base",
        "pnlp-mixer-x-large",
        "mlp-mixer",
    }
    assert set(TextMixer(max_layers=4, inputs=["minhash"]).references) == {
        "pnlp-mixer-x-small",
        "pnlp-mixer-base",
        "pnlp-mixer-x-large",
    }


@pytest.mark.parametrize("name", ["pnlp-mixer-x-small", "mlp-mixer"])
def test_a_network_can_be_exported(name: str) -> None:
    """As source; without branches and loops that depend on inputs."""
    space = TextMixer(padding="tokens")
    values = {**SPACE.references[name], "dim": 32, "hidden": 64}
    with torch_seed(0):
        network = space.build(space.architecture(values), texts(3, 6, padding=0)).eval()
    assert "class Network" in generate(network, torch.randint(10, (2, 6))).text


def test_sizes_can_be_limited() -> None:
    space = TextMixer(max_dim=64, max_hidden=256, max_layers=2)
    rng = np.random.default_rng(0)
    assert {space.sample(rng)["dim"] for _ in range(50)} == {32, 48, 64}
    assert set(space.references) == {"pnlp-mixer-x-small"}
    with pytest.raises(InvalidInputError, match="max_hidden of text-mixer must be 64 or more, got 32"):
        TextMixer(max_hidden=32)
