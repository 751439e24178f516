"""Sentences with labels or tags in the files that people have."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from nasplat.errors import InvalidInputError

_PARTS = {"train": ("train",), "valid": ("valid", "dev", "validation", "val"), "test": ("test",)}
_TABLES = {".tsv": "\t", ".csv": ","}
_LINES = (".all", ".txt")
_WORD = re.compile(r"\w+|[^\w\s]")


@final
@dataclass(frozen=True, slots=True)
class Sentences:
    """Sentences of one part.

    Attributes:
        words: Of each sentence.
        labels: One for each sentence, or the tags of its words.
        source: File or folder that they are from, for errors.
    """

    words: list[list[str]]
    labels: Sequence[str] | Sequence[list[str]]
    source: str


def has_part(path: Path, part: str) -> bool:
    """Whether a part's files are there."""
    return _found(path, part) is not None


def read(path: Path, part: str, *, tagged: bool) -> Sentences:
    """The sentences of a part.

    A part is a folder with the files ``seq.in`` (words divided by spaces, a sentence a line) and ``label`` (or
    ``seq.out``: a tag for each word); or a file ``train.tsv``, ``train.csv``, ``train.all`` or ``train.txt``. Tables
    have a header: of classes with the columns ``text`` and ``label``, of tags with ``words`` and ``tags``, divided by
    spaces. Without a header, and in other files (``label text``), the label comes first. Words of tables of classes are
    runs of letters and digits, and each other sign by itself; all others stand between spaces. All are in lower case.

    Args:
        path: The folder that holds the parts, or a file that is the training part.
        part: ``train``, ``valid`` or ``test``.
        tagged: Whether each word has a tag.

    Raises:
        InvalidInputError: If there is no such part, or its lines do not fit together.
    """
    found = _found(path, part)
    if found is None:
        raise InvalidInputError(
            f"text {path}: no {part} part; expected a folder {part}/ with seq.in and "
            f"{'seq.out' if tagged else 'label'}, or a file {part}.tsv, {part}.csv, {part}.all or {part}.txt"
        )
    if found.is_dir():
        sentences = _from_folder(found, tagged)
    elif found.suffix in _TABLES:
        sentences = _from_table(found, tagged)
    elif tagged:
        raise InvalidInputError(f"text {found}: tags are read from a folder with seq.in and seq.out, or a table")
    else:
        sentences = _from_lines(found)
    _check(sentences, tagged)
    return sentences


def _found(path: Path, part: str) -> Path | None:
    if path.is_file():
        return path if part == "train" else None
    for name in _PARTS[part]:
        if (path / name / "seq.in").is_file():
            return path / name
        for suffix in (*_TABLES, *_LINES):
            if (path / f"{name}{suffix}").is_file():
                return path / f"{name}{suffix}"
    return None


def _from_folder(folder: Path, tagged: bool) -> Sentences:
    words = [line.lower().split() for line in _lines(folder / "seq.in")]
    labels = _lines(folder / ("seq.out" if tagged else "label"))
    return Sentences(words, [line.split() for line in labels] if tagged else [x.strip() for x in labels], str(folder))


def _from_lines(file: Path) -> Sentences:
    pairs = [line.partition(" ") for line in _lines(file)]
    return Sentences([text.lower().split() for _, _, text in pairs], [label for label, _, _ in pairs], str(file))


def _from_table(file: Path, tagged: bool) -> Sentences:
    rows = [row for row in csv.reader(_lines(file), delimiter=_TABLES[file.suffix]) if row]
    names = ("words", "tags") if tagged else ("text", "label")
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if set(names) <= set(header):
        text_at, label_at = header.index(names[0]), header.index(names[1])
        rows = rows[1:]
    else:
        text_at, label_at = 1, 0
    short = next((number for number, row in enumerate(rows, 1) if len(row) <= max(text_at, label_at)), None)
    if short is not None:
        raise InvalidInputError(
            f"text {file}, row {short}: expected two columns or more, a header {names[0]!r} and {names[1]!r} "
            "or the label first"
        )
    texts = [row[text_at].lower() for row in rows]
    words = [text.split() if tagged else _WORD.findall(text) for text in texts]
    labels = [row[label_at].strip() for row in rows]
    return Sentences(words, [label.split() for label in labels] if tagged else labels, str(file))


def _lines(file: Path) -> list[str]:
    try:
        # Not splitlines, which also breaks lines at signs that stand inside of sentences.
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        lines = file.read_text(encoding="latin-1").split("\n")
    except OSError as error:
        raise InvalidInputError(f"text {file}: cannot be read ({error.strerror})") from error
    lines = [line.rstrip("\r") for line in lines]
    return lines[:-1] if lines and not lines[-1] else lines


def _check(sentences: Sentences, tagged: bool) -> None:
    words, labels = sentences.words, sentences.labels
    if not words or len(words) != len(labels):
        raise InvalidInputError(
            f"text {sentences.source}: expected as many labels as sentences and at least one, "
            f"got {len(labels)} and {len(words)}"
        )
    if tagged:
        unequal = next((n for n, (w, t) in enumerate(zip(words, labels, strict=True)) if len(w) != len(t)), None)
        if unequal is not None:
            raise InvalidInputError(
                f"text {sentences.source}, sentence {unequal + 1}: expected a tag for each word, "
                f"got {len(labels[unequal])} tags for {len(words[unequal])} words"
            )


def names_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Different labels, sorted."""
    return tuple(sorted(set(labels)))
