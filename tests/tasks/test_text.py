"""Text: reading, words as ids, entities, bytes."""

import bz2
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from nasplat import registry
from nasplat.errors import InvalidInputError
from nasplat.quality import IGNORED
from nasplat.task import Part, Task
from nasplat.tasks.text.characters import char_lm, side_by_side, sliding
from nasplat.tasks.text.entities import EntityF1, entities
from nasplat.tasks.text.sentences import tagging, text_classification

SENTENCES = ["Play a song", "play the song Now", "rate a book", "rate it now please"] * 5
LABELS = ["music", "music", "books", "books"] * 5
TAGS = ["O O B-thing", "O O B-thing O", "O O B-thing", "O O O O"] * 5


def folder(root: Path, *, parts: Sequence[str] = ("train", "valid", "test")) -> Path:
    for part in parts:
        (root / part).mkdir(parents=True)
        words = SENTENCES if part != "test" else ["rate a novel", "play unheard songs"]
        lines = {
            "seq.in": words,
            "label": LABELS if part != "test" else ["books", "music"],
            "seq.out": TAGS if part != "test" else ["O O B-thing", "O O O"],
        }
        for name, content in lines.items():
            (root / part / name).write_text("\n".join(content) + "\n")
    return root


# Classes of sentences -----------------------------------------------------------------------------------------


def test_words_are_ids_by_frequency(tmp_path: Path) -> None:
    task = registry.create("task", f"text-classification:{folder(tmp_path)}")
    assert isinstance(task, Task)
    assert (task.input_shape, task.output_shape, task.classes) == ((4,), (2,), ("books", "music"))
    assert list(task.words)[:8] == ["", "", "a", "now", "play", "rate", "song", "book"]
    assert (task.vocabulary, task.padding, task.unknown) == (11, 0, 1)
    first = task.data(Part.TRAIN)
    assert first.inputs[0].tolist() == [4, 2, 6, 0]
    assert first.targets[:4].tolist() == [1, 1, 0, 0]


def test_new_words_keep_their_spelling(tmp_path: Path) -> None:
    task = text_classification(str(folder(tmp_path)))
    assert len(task.words) == task.vocabulary
    inputs = task.data(Part.TEST).inputs
    assert [[task.words[i] for i in row if i] for row in inputs] == [
        ["rate", "a", "novel"],
        ["play", "unheard", "songs"],
    ]
    assert (inputs >= task.vocabulary).sum() == 3


def test_the_fingerprint_follows_the_spelling(tmp_path: Path) -> None:
    task = text_classification(str(folder(tmp_path / "one")))
    other = folder(tmp_path / "two")
    for part in ("train", "valid"):
        file = other / part / "seq.in"
        file.write_text(file.read_text().replace("please", "pleese"))
    changed = text_classification(str(other))
    assert torch.equal(task.data(Part.TRAIN).inputs, changed.data(Part.TRAIN).inputs)
    assert task.fingerprint(Part.TRAIN) != changed.fingerprint(Part.TRAIN)


def test_the_order_of_reading_does_not_change_ids(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "valid" / "seq.in").write_text("\n".join(["play zebra now", *SENTENCES[1:]]) + "\n")
    early, late = text_classification(str(root)), text_classification(str(root))
    early.data(Part.TEST)
    late.data(Part.VALID)
    for part in Part:
        assert torch.equal(early.data(part).inputs, late.data(part).inputs)
        assert early.fingerprint(part) == late.fingerprint(part)


def test_without_a_validation_part_a_fifth_is_split_off(tmp_path: Path) -> None:
    task = text_classification(str(folder(tmp_path, parts=["train"])))
    assert (len(task.data(Part.TRAIN)), len(task.data(Part.VALID)), task.has_test) == (16, 4, False)
    assert task.data(Part.VALID).targets.bincount().tolist() == [2, 2]


TABLES = {
    "train.csv": 'text,label\n"Play, now!",music\nrate it,books\n',
    "train.tsv": "id\tlabel\ttext\n0\tmusic\tPlay, now!\n1\tbooks\trate it\n",
    "train.txt": "music play , now !\nbooks rate it\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_files_of_several_kinds(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLES[name])
    (tmp_path / name.replace("train", "dev")).write_text(TABLES[name])
    task = text_classification(str(tmp_path))
    words = [[task.words[i] for i in row if i] for row in task.data(Part.TRAIN).inputs]
    assert words == [["play", ",", "now", "!"], ["rate", "it"]]
    assert task.data(Part.VALID).targets.tolist() == [1, 0]


def test_a_table_without_a_header_and_tags_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(
        "".join(f"{label}\t{text}\n" for label, text in zip(LABELS, SENTENCES, strict=True))
    )
    assert len(text_classification(str(tmp_path / "a.tsv")).data(Part.SEARCH)) == 20
    rows = "".join(f"{words},{tags}\n" for words, tags in zip(SENTENCES, TAGS, strict=True))
    (tmp_path / "b.csv").write_text("words,tags\n" + rows)
    assert tagging(str(tmp_path / "b.csv")).classes == ("B-thing", "O")


def test_longer_sentences_are_cut(tmp_path: Path) -> None:
    task = text_classification(f"{folder(tmp_path)}@2")
    assert task.input_shape == (2,)
    assert task.data(Part.TRAIN).inputs[0].tolist() == [4, 2]


def test_unusable_text(tmp_path: Path) -> None:
    root = folder(tmp_path / "x")
    for path, message in (
        (tmp_path / "nowhere", "there is no such file or folder"),
        (tmp_path, r"no train part; expected a folder train/ with seq\.in and label, or a file train\.tsv"),
        (f"{root}@0", "expected a length of 1 word or more after the @"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            text_classification(str(path))
    (root / "test" / "label").write_text("music\nfilms\n")
    with pytest.raises(InvalidInputError, match=r"test: unknown label 'films': valid: books, music"):
        text_classification(str(root)).data(Part.TEST)
    (root / "train" / "label").write_text("music\n")
    with pytest.raises(InvalidInputError, match="as many labels as sentences and at least one, got 1 and 20"):
        text_classification(str(root))
    (root / "train" / "seq.out").write_text("\n".join(["O O", *TAGS[1:]]) + "\n")
    with pytest.raises(InvalidInputError, match="sentence 1: expected a tag for each word, got 2 tags for 3 words"):
        tagging(str(root))
    (tmp_path / "bad.csv").write_text("text\nno label\n")
    with pytest.raises(InvalidInputError, match=r"bad\.csv, row 1: expected two columns or more, a header 'text' and"):
        text_classification(str(tmp_path / "bad.csv"))


# Tags ---------------------------------------------------------------------------------------------------------


def test_tags_of_words(tmp_path: Path) -> None:
    task = registry.create("task", f"tagging:{folder(tmp_path)}")
    assert (task.output_shape, task.target_shape, task.selected_by) == ((2, 4), (4,), "entity_f1")
    assert task.data(Part.TRAIN).targets[:2].tolist() == [[1, 1, 0, IGNORED], [1, 1, 0, 1]]
    perfect = functional.one_hot(task.data(Part.TEST).targets.clamp(min=0), 2).transpose(1, 2).float()
    assert {name: m(perfect, task.data(Part.TEST).targets) for name, m in task.metrics.items()} == {
        "entity_f1": 1.0,
        "tag_accuracy": 1.0,
    }


def test_sentences_with_tags_are_not_cut(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has 4 words, the task takes 2, and tags are not cut off; PATH@4"):
        tagging(f"{folder(tmp_path)}@2").data(Part.TRAIN)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O B-a I-a O", {(1, 3, "a")}),
        ("B-a B-a", {(0, 1, "a"), (1, 2, "a")}),
        ("I-a I-a O I-b", {(0, 2, "a"), (3, 4, "b")}),
        ("B-a I-b", {(0, 1, "a"), (1, 2, "b")}),
        ("O I-a", {(1, 2, "a")}),
        ("B-a I-a E-a I-a", {(0, 3, "a"), (3, 4, "a")}),
        ("S-a E-a S-b", {(0, 1, "a"), (1, 2, "a"), (2, 3, "b")}),
        ("B-a-b I-a-b", {(0, 2, "a-b")}),
        ("O O", set()),
    ],
)
def test_entities_as_conlleval_sees_them(tags: str, found: set[tuple[int, int, str]]) -> None:
    assert entities(tags.split()) == found


def conlleval(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Entities by the rules of the script's startOfChunk and endOfChunk, each spelled out."""
    found, start = set(), 0
    inside, last_prefix, last_type = False, "O", ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        ends = (
            (last_prefix, prefix) in {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O"), ("B", "S"), ("I", "S")}
            or last_prefix in ("E", "S")
            or (last_prefix != "O" and last_type != kind)
        )
        starts = (
            prefix in ("B", "S")
            or (last_prefix, prefix) in {("O", "I"), ("O", "E"), ("E", "I"), ("E", "E"), ("S", "I"), ("S", "E")}
            or (prefix != "O" and last_type != kind)
        )
        if inside and ends:
            found.add((start, place, last_type))
            inside = False
        if starts:
            start, inside = place, True
        last_prefix, last_type = prefix, kind
    return found


@given(st.lists(st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in "xy")]), max_size=12))
def test_entities_of_any_tags(tags: list[str]) -> None:
    assert entities(tags) == conlleval(tags)


def test_f1_is_pooled_over_the_part() -> None:
    tags = ("O", "B-a", "I-a")
    truth = torch.tensor([[1, 2, 0, 1], [0, 0, IGNORED, IGNORED], [1, 0, IGNORED, IGNORED]])
    guess = torch.tensor([[1, 2, 0, 0], [0, 1, 1, 1], [1, 2, 2, 2]])
    outputs = functional.one_hot(guess, 3).transpose(1, 2).float()
    assert EntityF1(tags)(outputs, truth) == pytest.approx(2 * 1 / (3 + 3))
    assert EntityF1(tags)(outputs[1:2] * 0, truth[1:2]) == 0.0


# Bytes --------------------------------------------------------------------------------------------------------


@given(st.integers(2, 20), st.integers(25, 90))
def test_each_byte_is_scored_once_with_enough_before_it(length: int, size: int) -> None:
    text = np.arange(size, dtype=np.uint8)
    inputs, targets = (np.asarray(array) for array in sliding(text, length))
    scored = targets != IGNORED
    assert sorted(targets[scored].tolist()) == list(range(1, size))
    assert (targets[scored] == inputs[scored] + 1).all()
    places = np.broadcast_to(np.arange(length), targets.shape)
    assert (places[1:][scored[1:]] >= length - length // 2 - 1).all()


def test_training_windows_lie_side_by_side() -> None:
    inputs, targets = (np.asarray(array) for array in side_by_side(np.arange(10, dtype=np.uint8), 4))
    assert inputs.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert targets.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2"])
def test_a_text_is_divided_in_order(tmp_path: Path, suffix: str) -> None:
    text = bytes(range(200)) * 10
    packed: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}
    (tmp_path / f"text{suffix}").write_bytes(packed[suffix](text))
    task = registry.create("task", f"char-lm:{tmp_path / 'text'}{suffix}@8")
    assert (task.input_shape, task.output_shape, task.causal, task.vocabulary) == ((8,), (256, 8), True, 256)
    assert task.data(Part.TRAIN).inputs.flatten().tolist() == list(text[: 224 * 8])
    assert bytes(task.data(Part.VALID).inputs[0].tolist()) == text[1800:1808]
    assert bytes(task.data(Part.TEST).targets[-1, -2:].tolist()) == text[-2:]


def test_unusable_texts(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(200))
    with pytest.raises(InvalidInputError, match="each part needs more than 64 bytes, the text has 200"):
        char_lm(f"{tmp_path / 'short'}@64")
    with pytest.raises(InvalidInputError, match="expected a window of 2 bytes or more"):
        char_lm(f"{tmp_path / 'short'}@1")
    with pytest.raises(InvalidInputError, match="there is no such file"):
        char_lm(str(tmp_path / "nowhere"))
    for suffix in (".gz", ".bz2", ".xz"):
        (tmp_path / f"broken{suffix}").write_bytes(b"no archive")
        with pytest.raises(InvalidInputError, match=f"broken\\{suffix}: cannot be read"):
            char_lm(str(tmp_path / f"broken{suffix}"))


# Real text ----------------------------------------------------------------------------------------------------


def test_real_sentences(shared: Path) -> None:
    root = shared / "data" / "snips"
    classes, tags = text_classification(str(root)), tagging(str(root))
    assert (classes.input_shape, classes.outputs, tags.output_shape) == ((35,), 7, (72, 35))
    assert [len(tags.data(part)) for part in (Part.TRAIN, Part.VALID, Part.TEST)] == [13084, 700, 700]
    questions = text_classification(str(shared / "data" / "trec"))
    assert (questions.outputs, len(questions.data(Part.SEARCH)), len(questions.data(Part.TEST))) == (6, 5452, 500)
