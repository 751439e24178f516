"""Bundles of every kind of input and output: texts, bytes, ids, maps and numbers on the scale of the data."""

import importlib.util
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nasplat.choices import Value
from nasplat.errors import InvalidInputError
from nasplat.export.bundle import export_bundle
from nasplat.export.kinds import kind_of, reading
from nasplat.export.prepare import on_the_scale_of_the_data
from nasplat.quality import BinaryCrossEntropy, mean_auroc
from nasplat.scaling import Standardization
from nasplat.search_spaces.blocks import minhash
from nasplat.search_spaces.blocks.inputs.tokens import HashProjection
from nasplat.search_spaces.blocks.token_mixers.prob_sparse import ProbSparseAttention
from nasplat.search_spaces.text_mixer.space import TextMixer
from nasplat.seeding import torch_seed
from nasplat.task import Part, Task
from nasplat.tasks.forecast import forecast
from nasplat.tasks.text.characters import char_lm
from nasplat.tasks.text.sentences import tagging, text_classification
from nasplat.training.normalization import Normalization

_AS_IT_IS = Normalization((), ())
_SENTENCES = [
    ("music", "play a song by björk"),
    ("music", "put on some jazz please"),
    ("food", "book a table for two o'clock"),
    ("food", "i want pizza now and then a very large coffee"),
    ("weather", "will it rain tomorrow"),
    ("weather", "is it snowing in oslo"),
] * 2
_SMALL: dict[str, Value] = {"dim": 32, "hidden": 64, "norm": "pre", "final_norm": "yes", "dropout": 0.1, "layers": 1}
_HASHED: dict[str, Value] = {"input": "minhash", "hashes": 16, "features": 256, "ngram": 3, "window": 1}
_IN_PYTHON = """
import sys
sys.modules["nasplat"] = None
sys.path.insert(0, sys.argv[1])
from safetensors.torch import save_file
{code}
"""


def _text_mixer(task: Task, **changes: Value) -> nn.Module:
    space = TextMixer()
    values: dict[str, Value] = {"input": "embedding", "positions": "sinusoid", "pooling": "mean", "mixer1": "conv"}
    with torch_seed(0):
        return space.build(space.architecture({**values, "kernel1": 3, **_SMALL, **changes}), task)


def _exported(
    network: nn.Module, task: Task, folder: Path, normalization: Normalization = _AS_IT_IS, **more: Any
) -> Path:
    example = task.data(Part.SEARCH).inputs[:4]
    card = {"task": task.name, "space": "of tests"}
    return export_bundle(network, example, folder, card=card, normalization=normalization, task=task, **more)


def _module(folder: Path) -> Any:
    """The bundle's module; that it runs without nasplat is checked whenever a bundle is written."""
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the bundle's command."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["model.py", *arguments])
        code = _module(folder).main()
    return code, out.getvalue(), err.getvalue()


def _python(folder: Path, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", _IN_PYTHON.format(code=code), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr


def _passes_ruff(folder: Path) -> None:
    rules = ["--select", "E,F,W,I,UP,B,SIM,RUF,C90,PGH", "--line-length", "110"]
    command = [sys.executable, "-m", "ruff", "check", "--isolated", *rules, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@torch.no_grad()
def _outputs(network: nn.Module, task: Task, texts: Sequence[Sequence[str]]) -> Tensor:
    """What the network gives for words, as nasplat's own tasks read them."""
    number = {word: n for n, word in enumerate(task.words) if n > 1}
    ids = torch.zeros((len(texts), *task.input_shape), dtype=torch.int64)
    for row, text in zip(ids, texts, strict=True):
        for place, word in enumerate(text):
            row[place] = number.get(word, 1)
    out: Tensor = network.eval()(ids)
    return out


@pytest.fixture
def sentences(tmp_path: Path) -> Task:
    (tmp_path / "train.txt").write_text("".join(f"{label} {text}\n" for label, text in _SENTENCES))
    return text_classification(str(tmp_path / "train.txt"))


def test_texts_are_classified_by_a_vocabulary(sentences: Task, tmp_path: Path) -> None:
    network = _text_mixer(sentences)
    folder = _exported(network, sentences, tmp_path / "bundle")
    _passes_ruff(folder)
    card = json.loads((folder / "card.json").read_text())
    assert card["input"]["shape"] == [10]
    assert (card["input"]["vocabulary"], card["input"]["padding"]) == (sentences.vocabulary, 0)
    assert card["classes"] == ["food", "music", "weather"]
    assert json.loads((folder / "vocabulary.json").read_text()) == list(sentences.words[: sentences.vocabulary])
    texts = ["Play a song by Björk!", "book a table for two o'clock", "quux " + "pizza " * 20]
    (tmp_path / "lines.txt").write_text("\n".join(texts[1:]) + "\n\n")
    code, out, err = _run(folder, texts[0], str(tmp_path / "lines.txt"))
    assert (code, err) == (0, "")
    divided = [["play", "a", "song", "by", "björk"], texts[1].split(), texts[2].split()[:10]]
    expected = _outputs(network, sentences, divided).softmax(1)
    for line, text, shares in zip(out.splitlines(), texts, expected, strict=True):
        assert line == f"{text.strip()}: {card['classes'][int(shares.argmax())]} ({float(shares.max()):.1%})"
    for wrong, message in (("", "there is no text in it"), ("missing.txt", "No such file or directory: 'missing.txt'")):
        code, out, err = _run(folder, wrong)
        assert (code, out, err.strip().endswith(message)) == (1, "", True)
    assert _run(folder, "a very long text " * 300)[0] == 0
    assert len(_module(folder).predict(["play a song"] * 300)) == 300
    for page in ("README.md", "model.py"):
        assert "nasplat" not in (folder / page).read_text().replace("PyTorch, not nasplat", "")


def test_words_that_are_not_in_a_bundle_are_hashed(sentences: Task, tmp_path: Path) -> None:
    """Also new words, and as those of nasplat: the hash family is that of the weights."""
    network = _text_mixer(sentences, **_HASHED, positions="none")
    folder = _exported(network, sentences, tmp_path / "bundle", onnx=True)
    _passes_ruff(folder)
    assert not (folder / "vocabulary.json").exists()
    card = json.loads((folder / "card.json").read_text())
    assert card["input"]["projection"]["family"] == HashProjection.family == minhash.FAMILY
    texts = [["will", "it", "rain"], ["ünseen", "##ing", "▁wörds", "o'clocks", "a"], ["table"] * 10]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    _python(
        folder,
        "import json; from model import encode, load, predict\n"
        "texts = json.load(open('texts.json')); ids, buckets = encode(texts)\n"
        "network = load(); network.tokens.buckets = buckets\n"
        "given = {'ids': ids, 'buckets': buckets, 'outputs': predict(texts), 'same': network(ids).detach()}\n"
        "save_file(given, 'given.safetensors')",
    )
    given = load_file(tmp_path / "given.safetensors")
    block = next(m for m in network.modules() if isinstance(m, HashProjection))
    words = dict.fromkeys(word for text in texts for word in text)
    block.read_as(["", *words])
    with torch.no_grad():
        expected = network.eval()(given["ids"])
    for name in ("outputs", "same"):
        torch.testing.assert_close(given[name], expected, rtol=0, atol=1e-6)
    assert torch.equal(given["buckets"][1:], block.buckets[1:])
    assert torch.equal(given["ids"][0], torch.tensor([1, 2, 3, *[0] * 7]))

    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"ids": given["ids"].numpy(), "buckets": given["buckets"].numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)


def test_words_are_tagged(tmp_path: Path) -> None:
    rows = [("play music by queen", "O O O B-artist"), ("hear some music now", "O O O O")] * 6
    table = "".join(f"{words},{tags}\n" for words, tags in [("words", "tags"), *rows])
    (tmp_path / "train.csv").write_text(table)
    task = tagging(str(tmp_path / "train.csv"))
    network = _text_mixer(task)
    folder = _exported(network, task, tmp_path / "bundle")
    _passes_ruff(folder)
    found = _outputs(network, task, [["hear", "queen"]]).argmax(1)[0, :2]
    assert (
        _run(folder, "Hear Queen")[1].strip()
        == f"hear/{task.classes[int(found[0])]} queen/{task.classes[int(found[1])]}"
    )
    code, _, err = _run(folder, "hear some more music by queen")
    assert code == 1
    assert err.strip().endswith("a text has 6 words, the network tags 4; divide it")


def test_texts_are_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"the cat sat on the mat. " * 60)
    task = char_lm(f"{tmp_path / 'text'}@16")
    network = _text_mixer(task)
    folder = _exported(network, task, tmp_path / "bundle")
    _passes_ruff(folder)
    assert _run(folder, "the c")[1].startswith("the c: '")
    model = _module(folder)
    assert model.following("a", 9) == model.following("a", 9) != model.following("a", 9, seed=1)
    ids = torch.tensor([list(b"t sat on the mat"), list(b"the".ljust(16, b"\0"))])
    whole = b"the "
    with torch.no_grad():
        torch.testing.assert_close(
            model.predict(["the cat sat on the mat", "the"]), network.eval()(ids), rtol=0, atol=1e-6
        )
        for _ in range(20):
            last = whole[-16:]
            logits = network(torch.tensor([list(last.ljust(16, b"\0"))]))[0, :, len(last) - 1]
            whole += bytes([int(logits.argmax())])
    assert model.following("the ", 20, temperature=0) == whole[4:]


def _real(standardization: Standardization | None, shape: tuple[int, ...]) -> Task:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3, 6)).astype(np.float32)
    y = (1000.0 + 50.0 * x[:, : shape[0], : shape[1]] if len(shape) > 1 else 1000.0 + 50.0 * x[:, :2, 0]).astype(
        np.float32
    )
    return Task(
        "pressure",
        input_shape=(3, 6),
        output_shape=shape,
        target_shape=shape,
        real=True,
        scaled=standardization is None,
        standardization=standardization,
        search=(x, y),
        classes=("left", "right"),
    )


class _Reshaped(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(18, int(np.prod(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.unflatten(self.linear(x.flatten(1)), 1, self.shape)


def test_outputs_are_on_the_scale_of_the_data(tmp_path: Path) -> None:
    """What is exported gives what ``task.decoded`` makes of the trained network's outputs, in ONNX too."""
    import onnxruntime

    task = _real(Standardization(elementwise=True), (2, 4))
    torch.manual_seed(0)
    network = _Reshaped((2, 4))
    before = [parameter.clone() for parameter in network.parameters()]
    x = task.data(Part.SEARCH).inputs
    normalization = Normalization.of(x)
    folder = _exported(network, task, tmp_path / "bundle", normalization, onnx=True)
    _passes_ruff(folder)
    np.save(tmp_path / "x.npy", x[:5].numpy())
    assert _run(folder, str(tmp_path / "x.npy"))[1].strip() == f"{tmp_path / 'x.npy'}: {tmp_path / 'x.outputs.npy'}"
    with torch.no_grad():
        expected = task.decoded(network(normalization.apply(x[:5])))
    assert 900 < float(expected.mean()) < 1100
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "x.outputs.npy")), expected, rtol=1e-6, atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (outputs,) = session.run(["logits"], {"inputs": x[:5].numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs), expected, rtol=1e-5, atol=1e-2)


def test_numbers_are_said_by_name(tmp_path: Path) -> None:
    """Also where a network draws something, which ONNX gets as a table."""
    task = _real(None, (2,))
    network = nn.Sequential(ProbSparseAttention(6, 2, factor=1), _Reshaped((2,))).eval()
    folder = _exported(network, task, tmp_path / "bundle", onnx=True)
    assert "(float32), as the task gives them, and gives numbers" in (folder / "README.md").read_text()
    x = task.data(Part.SEARCH).inputs[:1]
    np.save(tmp_path / "x.npy", x.numpy())
    left, right = network(x)[0].tolist()
    assert _run(folder, str(tmp_path / "x.npy"))[1] == f"{tmp_path / 'x.npy'}: left {left:.6g}, right {right:.6g}\n"


@pytest.mark.parametrize("step", ["1h", "15min", None])
def test_a_forecaster_goes_on_with_a_table_in_its_units(step: str | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"load": 500 + 100 * rng.normal(size=100), "temp": 1e-3 * rng.normal(size=100)})
    if step is not None:
        frame.insert(0, "date", pd.date_range("2024-02-27 22:00", periods=100, freq=step))
    frame.to_csv(tmp_path / "power.csv", index=False)
    task = forecast(f"{tmp_path / 'power.csv'}@8,3")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(task.input_shape)), 6), nn.Unflatten(1, (2, 3)))
    folder = _exported(network, task, tmp_path / "bundle", onnx=True)
    _passes_ruff(folder)
    # The last window of the test part; the rows after it are known here, but not to the bundle.
    x = task.data(Part.TEST).inputs[-1:]
    mean, std = (frame[:70][["load", "temp"]].agg(how).to_numpy() for how in ("mean", lambda c: c.std(ddof=0)))
    with torch.no_grad():
        expected = network(x)[0].T.numpy() * std + mean
    frame[:-3].to_csv(tmp_path / "recent.csv", index=False)
    code, out, err = _run(folder, str(tmp_path / "recent.csv"))
    assert (code, err) == (0, "")
    said = pd.read_csv(io.StringIO(out))
    np.testing.assert_allclose(said[["load", "temp"]], expected, rtol=1e-4, atol=1e-6)
    moments = ["1", "2", "3"] if step is None else frame["date"][-3:].astype(str).tolist()
    assert said["step"].astype(str).tolist() == moments
    model = _module(folder)
    labels, window = model.read(str(tmp_path / "recent.csv"))
    np.save(tmp_path / "windows.npy", window.numpy())
    assert labels == [str(tmp_path / "recent.csv")]
    assert _run(folder, str(tmp_path / "windows.npy"))[1].strip().endswith("windows.outputs.npy")
    np.testing.assert_allclose(np.load(tmp_path / "windows.outputs.npy")[0].T, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("date,load\n2024-01-01,1\n2024-01-02,2\n", "expected 8 rows or more with the columns load, temp, got 2 rows"),
        ("load,temp\n" + "1,2\n" * 8, "expected a column of dates, named date or time or datetime or timestamp"),
        ("date,load,temp\n" + "2024-01-01,1,\n" * 8, "a value of the last 8 rows is missing or infinite"),
        ("date,load,temp\n" + "Monday,1,2\n" * 8, "Invalid isoformat string: 'Monday'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(text: str, said: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"load": np.arange(90.0), "temp": np.arange(90.0) % 7})
    frame.insert(0, "date", pd.date_range("2024-01-01", periods=90, freq="h"))
    frame.to_csv(tmp_path / "power.csv", index=False)
    task = forecast(f"{tmp_path / 'power.csv'}@8,3")
    network = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(task.input_shape)), 6), nn.Unflatten(1, (2, 3)))
    folder = _exported(network, task, tmp_path / "bundle")
    (tmp_path / "recent.csv").write_text(text)
    code, _, err = _run(folder, str(tmp_path / "recent.csv"))
    assert (code, err) == (1, f"{tmp_path / 'recent.csv'}: {said}\n")


def test_labels_are_said_with_their_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3, 6)).astype(np.float32), rng.random((40, 3)) < 0.5
    task = Task(
        "sounds",
        input_shape=(3, 6),
        output_shape=(3,),
        target_shape=(3,),
        real=True,
        search=(x, y.astype(np.float32)),
        loss=BinaryCrossEntropy(),
        metrics={"mean_auroc": mean_auroc},
        classes=("dog", "rain", "train"),
    )
    network = _Reshaped((3,))
    with torch.no_grad():
        network.linear.weight.zero_()
        network.linear.bias.copy_(torch.tensor([1.0, -1.0, 2.0]))
    folder = _exported(network, task, tmp_path / "bundle")
    _passes_ruff(folder)
    np.save(tmp_path / "x.npy", x[:1])
    assert _run(folder, str(tmp_path / "x.npy"))[1] == f"{tmp_path / 'x.npy'}: train (88.1%), dog (73.1%)\n"
    torch.testing.assert_close(
        _module(folder).scores(torch.from_numpy(x[:1])), torch.tensor([[0.731059, 0.268941, 0.880797]])
    )
    with torch.no_grad():
        network.linear.bias.sub_(3.0)
    folder = _exported(network, task, tmp_path / "shy")
    said = f"{tmp_path / 'x.npy'}: none; the likeliest is train (26.9%)\n"
    assert _run(folder, str(tmp_path / "x.npy"))[1] == said


def test_ids_without_words_are_taken_as_they_are(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 9, (20, 5))
    task = Task("ids", input_shape=(5,), output_shape=(3, 5), target_shape=(5,), vocabulary=9, search=(ids, ids % 3))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(9, 3), _Transposed())
    folder = _exported(network, task, tmp_path / "bundle")
    _passes_ruff(folder)
    np.save(tmp_path / "ids.npy", ids[:3])
    assert _run(folder, str(tmp_path / "ids.npy"))[0] == 0
    expected = network(torch.from_numpy(ids[:3])).argmax(1)
    assert np.array_equal(np.load(tmp_path / "ids.classes.npy"), expected.numpy())
    np.save(tmp_path / "ids.npy", ids + 5)
    assert "expected token ids from 0 to 8, got 5 to 13" in _run(folder, str(tmp_path / "ids.npy"))[2]


class _Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


@pytest.mark.parametrize(
    ("words", "lower", "text", "divided"),
    [
        (["play", "a", "?"], True, "Play a song, now?", ["play", "a", "song", ",", "now", "?"]),
        (["o'clock", "a"], True, "at two o'clock, now", ["at", "two", "o'clock,", "now"]),
        (["Play", "a"], False, "Play now", ["Play", "now"]),
    ],
)
def test_texts_are_divided_as_the_words_were(words: list[str], lower: bool, text: str, divided: list[str]) -> None:
    found = reading(words)
    assert found["lower_case"] == lower
    assert re.findall(found["word"], text.lower() if lower else text) == divided


def _other_family(network: nn.Module) -> nn.Module:
    block = next(m for m in network.modules() if isinstance(m, HashProjection))
    block.family = "murmur@1"  # type: ignore[misc]
    return network


@pytest.mark.parametrize(
    ("change", "example", "expected"),
    [
        (_other_family, None, r"cannot export tokens: its fingerprints are of the family 'murmur@1', bundles have"),
        (
            lambda n: nn.Sequential(n, nn.Softmax(1), nn.Linear(3, 2)),
            None,
            r"gives \(B, 3\) for the example, got \(4, 2\)",
        ),
        (lambda n: n, torch.zeros(2, 9), r"expected an example of token ids \(B, 10\), got torch.float32 \(2, 9\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: Callable[[nn.Module], nn.Module], example: Tensor | None, expected: str, sentences: Task, tmp_path: Path
) -> None:
    network = change(_text_mixer(sentences, **_HASHED, positions="none"))
    given = sentences.data(Part.SEARCH).inputs[:4] if example is None else example
    with pytest.raises(InvalidInputError, match=expected):
        export_bundle(network, given, tmp_path / "b", card={}, normalization=_AS_IT_IS, task=sentences)
    assert not (tmp_path / "b").exists()


def test_hashed_words_are_found_in_a_decoded_network() -> None:
    words = ["", "", "a", "bc"]
    ids = np.array([[2, 3], [3, 0], [2, 2]])
    task = Task(
        "numbers of texts",
        input_shape=(2,),
        output_shape=(2,),
        target_shape=(2,),
        real=True,
        vocabulary=4,
        words=words,
        padding=0,
        standardization=Standardization(),
        search=(ids, 100.0 + ids),
    )
    network = on_the_scale_of_the_data(nn.Sequential(HashProjection(words, 4, padding=0)), task)
    kind, example = kind_of(network, torch.from_numpy(ids), task)
    assert (kind.inputs, kind.outputs, kind.buckets) == ("hashes", "amounts", "network.0.buckets")
    assert example.tolist() == [[1, 2], [2, 0], [1, 1]]
    assert network.get_buffer("network.0.buckets").shape == (3, 64)


def test_reading_words_in_two_places_is_refused(sentences: Task, tmp_path: Path) -> None:
    words = sentences.words
    network = nn.Sequential(HashProjection(words, 3), HashProjection(words, 3))
    with pytest.raises(InvalidInputError, match="cannot export a network that reads letters in 2 places: 0, 1"):
        export_bundle(
            network, torch.ones(1, 10).long(), tmp_path / "b", card={}, normalization=_AS_IT_IS, task=sentences
        )
