"""Baselines: each finds what is there to be found, and no more."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nasplat.errors import InvalidInputError
from nasplat.task import Part, classification
from nasplat.tasks import darcy as darcy_module
from nasplat.tasks.baselines import baselines, linear_forecaster, n_gram, persistence
from nasplat.tasks.forecast import forecast
from nasplat.tasks.text.characters import char_lm
from nasplat.tasks.text.sentences import tagging, text_classification

RNG = np.random.default_rng(0)


def test_the_majority_class() -> None:
    task = classification("t", search=(RNG.normal(size=(100, 3)), np.arange(100) % 10 // 7))
    assert baselines(task) == {"majority_class": {"accuracy": pytest.approx(0.7)}}


def test_the_mean_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(darcy_module, "_PARTS", (6, 3, 2))
    task = darcy_module.darcy("9")
    mean, valid = task.data(Part.TRAIN).targets.mean(0), task.data(Part.VALID).targets
    expected = np.mean([float((mean - y).norm() / y.norm()) for y in valid])
    assert baselines(task)["mean"]["relative_l2_error"] == pytest.approx(expected, rel=1e-5)


def sentences(folder: Path) -> str:
    verbs, things = ["play", "hear"], ["song", "album", "book", "novel"]
    lines = [(f"{verbs[i % 2]} the {things[i // 2 % 4]}", "music" if i // 2 % 4 < 2 else "books") for i in range(48)]
    (folder / "train").mkdir()
    (folder / "train" / "seq.in").write_text("".join(f"{text}\n" for text, _ in lines))
    (folder / "train" / "label").write_text("".join(f"{label}\n" for _, label in lines))
    (folder / "train" / "seq.out").write_text("".join(f"O O B-{label}\n" for _, label in lines))
    return str(folder)


def test_words_tell_the_class_and_the_tag(tmp_path: Path) -> None:
    path = sentences(tmp_path)
    of_class, of_tags = baselines(text_classification(path)), baselines(tagging(path))
    assert of_class["majority_class"]["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert of_class["n_gram"]["accuracy"] == 1.0
    assert of_tags["majority_class"]["entity_f1"] == 0.0
    assert of_tags["n_gram"] == {"entity_f1": 1.0, "tag_accuracy": 1.0}


def test_an_unknown_word_has_the_most_frequent_tag(tmp_path: Path) -> None:
    path = Path(sentences(tmp_path))
    (path / "test").mkdir()
    for name, line in (("seq.in", "play unheard songs"), ("seq.out", "O O B-music"), ("label", "music")):
        (path / "test" / name).write_text(line + "\n")
    assert baselines(tagging(str(path)), Part.TEST)["n_gram"]["tag_accuracy"] == pytest.approx(2 / 3)


def test_bytes_that_only_their_context_tells(tmp_path: Path) -> None:
    text = "".join(RNG.choice(["abc", "xbz"], 3000))  # after a comes b and c, after x b and z: one bit in three bytes
    (tmp_path / "text").write_text(text)
    task = char_lm(f"{tmp_path / 'text'}@32")
    by_order = [n_gram(task, order=order)["bits_per_byte"] for order in (0, 1, 2)]
    pairs = math.log2(3) - 1 / 3  # entropy of a, x at half a third each, b at a third, c, z as a, x
    assert by_order[0] == pytest.approx(pairs + 1, rel=0.02)
    assert by_order[1] == pytest.approx((1 + 1 + 0) / 3, rel=0.05)
    assert by_order[2] == pytest.approx(1 / 3, rel=0.05)
    assert baselines(task).keys() == {"n_gram"}
    with pytest.raises(InvalidInputError, match="looks at 0 to 6 bytes, got 7"):
        n_gram(task, order=7)


def test_probabilities_of_all_bytes_sum_to_one(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(bytes(RNG.integers(0, 4, 2000, dtype=np.uint8)))
    task = char_lm(f"{tmp_path / 'text'}@32")
    shares = []
    for byte in range(256):
        data = task.data(Part.VALID)
        data.targets[:1, :] = byte
        data.targets[1:, :] = -100
        data.targets[0, :-1] = -100
        shares.append(2 ** -n_gram(task, order=3)["bits_per_byte"])
    assert sum(shares) == pytest.approx(1.0)


def table(folder: Path, values: np.ndarray) -> str:
    pd.DataFrame({"date": pd.date_range("2024-01-01", periods=len(values), freq="h"), "v": values}).to_csv(
        folder / "t.csv", index=False
    )
    return f"{folder / 't.csv'}@24,6"


def test_a_line_that_repeats_itself_is_forecast_exactly(tmp_path: Path) -> None:
    steps = np.arange(400)
    task = forecast(table(tmp_path, np.sin(steps * 2 * np.pi / 24) + 0.5 * np.cos(steps * 2 * np.pi / 7)))
    assert linear_forecaster(task, ridge=1e-9)["squared_error"] < 1e-6
    assert persistence(task)["squared_error"] > 0.1
    assert baselines(task).keys() == {"persistence", "linear"}


def test_persistence_is_the_last_value(tmp_path: Path) -> None:
    task = forecast(table(tmp_path, np.cumsum(RNG.normal(size=400))))
    valid = task.data(Part.VALID)
    expected = (valid.inputs[:, :1, 23:24] - valid.targets).abs().mean()
    assert persistence(task)["absolute_error"] == pytest.approx(float(expected))


def test_published_figures(shared: Path) -> None:
    task = forecast(str(shared / "data" / "forecast" / "ETTh1.csv"))
    found = baselines(task, Part.TEST)
    assert found["persistence"]["squared_error"] == pytest.approx(1.222, abs=5e-4)
    assert found["linear"]["squared_error"] < 0.33
