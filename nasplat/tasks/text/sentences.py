"""Sentences with one class each, or with a tag for each word."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nasplat.errors import InvalidInputError, unknown_name
from nasplat.quality import IGNORED, accuracy, cross_entropy, macro_f1
from nasplat.splits import order_of
from nasplat.task import Arrays, Task
from nasplat.tasks.text.entities import EntityF1
from nasplat.tasks.text.reading import Sentences, has_part, names_of, read
from nasplat.tasks.text.vocabulary import PADDING, UNKNOWN, Vocabulary
from nasplat.training.recipe import Recipe

_RECIPE = Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.01, batch_size=64, warmup_epochs=1.0)
_VALID_FRACTION = 0.2
_LONGEST = 256


def text_classification(path: str) -> Task:
    """A class for each sentence: intents, topics, kinds of questions.

    Inputs are ids of words ``(L,)``, filled up with 0, where L is the length of the longest sentence of the training
    part, at most 256, or what ``PATH@LENGTH`` says; longer sentences are cut. The vocabulary is that of the training
    part. Where there is no validation part, a fifth of the training part becomes one, seeded and stratified.

    Args:
        path: A folder with the parts (``nasplat.tasks.text.reading.read`` says in which forms), or one file.

    Raises:
        InvalidInputError: If there is no such part, its lines do not fit together, or a class is not in the training
            part.
    """
    return _task("text-classification", path, tagged=False)


def tagging(path: str) -> Task:
    """A tag for each word, such as ``B-artist`` or ``O``; judged by the F1 of entities, as conlleval does.

    Everything is as in ``text_classification``, but no sentence is cut: one that is longer than the task is refused.

    Args:
        path: A folder with the parts, or one file.

    Raises:
        InvalidInputError: As in ``text_classification``, or if a sentence has not as many tags as words.
    """
    return _task("tagging", path, tagged=True)


def _task(kind: str, path: str, *, tagged: bool) -> Task:
    root, length = _parse(kind, path)
    train = read(root, "train", tagged=tagged)
    valid = read(root, "valid", tagged=tagged) if has_part(root, "valid") else None
    classes = names_of(_flat(train))
    if valid is None:
        train, valid = _split(train, classes)
    vocabulary = Vocabulary(train.words)
    longest = max(map(len, train.words)) if tagged else min(_LONGEST, max(map(len, train.words)))
    length = length or longest
    encode = partial(_arrays, vocabulary=vocabulary, classes=classes, length=length)
    return Task(
        f"{kind}:{path}",
        input_shape=(length,),
        output_shape=(len(classes), length) if tagged else (len(classes),),
        target_shape=(length,) if tagged else (),
        vocabulary=vocabulary.size,
        words=vocabulary.words,
        unknown=UNKNOWN,
        padding=PADDING,
        search=partial(encode, train),
        valid=partial(encode, valid),
        test=_test(root, tagged, encode) if has_part(root, "test") else None,
        loss=cross_entropy,
        metrics={"entity_f1": EntityF1(classes), "tag_accuracy": accuracy}
        if tagged
        else {"accuracy": accuracy, "macro_f1": macro_f1},
        recipe=_RECIPE,
        classes=classes,
    )


def _parse(kind: str, path: str) -> tuple[Path, int | None]:
    root, length = Path(path).expanduser(), None
    match = re.fullmatch(r"(.+)@(\d+)", path)
    if match and not root.exists():
        root, length = Path(match[1]).expanduser(), int(match[2])
        if length < 1:
            raise InvalidInputError(f"{kind}:{path}: expected a length of 1 word or more after the @")
    if not root.exists():
        raise InvalidInputError(f"{kind}:{path}: there is no such file or folder")
    return root, length


def _flat(sentences: Sentences) -> list[str]:
    return [name for label in sentences.labels for name in ([label] if isinstance(label, str) else label)]


def _split(train: Sentences, classes: Sequence[str]) -> tuple[Sentences, Sentences]:
    number = {name: index for index, name in enumerate(classes)}
    labels = train.labels
    keys = np.array([number[label] if isinstance(label, str) else 0 for label in labels])
    order = order_of(keys, seed=0)
    count = round(_VALID_FRACTION * len(labels))
    if not 0 < count < len(labels):
        raise InvalidInputError(f"text {train.source}: too few sentences to split: {len(labels)}")
    return _taken(train, order[count:]), _taken(train, order[:count])


def _taken(sentences: Sentences, index: NDArray[np.int64]) -> Sentences:
    labels = [sentences.labels[i] for i in index]
    return Sentences([sentences.words[i] for i in index], labels, sentences.source)


def _test(root: Path, tagged: bool, encode: Callable[[Sentences], Arrays]) -> Callable[[], Arrays]:
    return lambda: encode(read(root, "test", tagged=tagged))


def _arrays(sentences: Sentences, *, vocabulary: Vocabulary, classes: Sequence[str], length: int) -> Arrays:
    number = {name: index for index, name in enumerate(classes)}
    new = next((name for name in _flat(sentences) if name not in number), None)
    if new is not None:
        raise InvalidInputError(f"text {sentences.source}: {unknown_name('label', new, classes)}")
    ids = vocabulary.ids(sentences.words, length)
    if all(isinstance(label, str) for label in sentences.labels):
        return ids, np.array([number[str(label)] for label in sentences.labels])
    longest = max(map(len, sentences.words))
    if longest > length:
        raise InvalidInputError(
            f"text {sentences.source}: a sentence has {longest} words, the task takes {length}, "
            f"and tags are not cut off; PATH@{longest} makes room"
        )
    targets = np.full((len(ids), length), IGNORED, dtype=np.int64)
    for row, tags in zip(targets, sentences.labels, strict=True):
        row[: len(tags)] = [number[tag] for tag in tags]
    return ids, targets
