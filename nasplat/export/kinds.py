"""What kind of inputs and outputs a network has, and what a bundle needs to be used with such."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from nasplat.errors import InvalidInputError
from nasplat.quality import BinaryCrossEntropy
from nasplat.task import Task

HASH_FAMILY = "sha256-sha224@1"
"""The hash functions that the part ``hashes`` has."""
_BYTES = 256


@runtime_checkable
class Fingerprints(Protocol):
    """A block that reads words by fingerprints of their letters, and so needs no vocabulary.

    Attributes:
        family: Name and version of the hash functions.
        hashes: Of a fingerprint.
        features: Buckets.
        ngram: Characters of a gram.
        buckets: ``(words, hashes)`` of the words that the ids stand for.
        bagged: Whether it uses ``embedding_bag``, which ONNX has not.
    """

    family: str
    hashes: int
    features: int
    ngram: int
    buckets: Tensor
    bagged: bool

    def read_as(self, words: Sequence[str]) -> None:
        """Let ids stand for other words from now on."""


@final
@dataclass(frozen=True, slots=True)
class Kind:
    """What a bundle is made of besides its network.

    Attributes:
        inputs: Part that brings the inputs to the network.
        outputs: Part that says what the outputs mean.
        card: What the card says of the inputs.
        files: Other files by name.
        buckets: Path of the table in the network that each call is given, if any.
        text: An example of what it is used on, where that is text.
    """

    inputs: str
    outputs: str
    card: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    buckets: str | None = None
    text: str = "a text"

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the module, in order."""
        before = "text" if self.inputs in ("words", "hashes") else "arrays"
        return (before, self.inputs, self.outputs)

    def card_of(self, weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Any]:
        """What the card says of the inputs, with the name that the table of buckets has among the weights."""
        if self.buckets is None:
            return dict(self.card)
        table = dict(network.named_buffers())[self.buckets]
        name = next(name for name, tensor in weights.items() if tensor is table)
        return {**self.card, "projection": {**self.card["projection"], "tensor": name}}


def kind_of(network: nn.Module, example: Tensor, task: Task | None) -> tuple[Kind, Tensor]:
    """The kind of a network, and the example as the exported one takes it.

    Args:
        network: A copy; a block that reads letters is told the words of the example instead of the task's.
        example: Inputs ``(B, *input_shape)``.
        task: What it is for; without one, inputs are real numbers and outputs logits of classes.

    Raises:
        InvalidInputError: If it reads letters in a way that no bundle knows.
    """
    if task is None or not task.vocabulary:
        if task is not None and task.units is not None and task.classes:
            return Kind("windows", "forecasts", _windows(task)), example
        return Kind("numbers", _outputs_of(task, "numbers")), example
    card: dict[str, Any] = {"vocabulary": task.vocabulary, "padding": task.padding, "unknown": task.unknown}
    hashed = [(name, module) for name, module in network.named_modules() if isinstance(module, Fingerprints)]
    inputs = ("hashes" if hashed else "words") if task.words else "ids"
    if task.vocabulary == _BYTES and task.causal and not task.words:
        inputs = "octets"
    outputs = _outputs_of(task, inputs)
    files, buckets, text = {}, None, "a text"
    if task.words:
        rows = [[task.words[i] for i in row if i != task.padding] for row in example.tolist()]
        known = [w for n, w in enumerate(task.words[: task.vocabulary]) if n not in (task.padding, task.unknown)]
        card |= reading(known)
        plain = (" ".join(row) for row in rows)
        text = next((t for t in plain if re.fullmatch(r"[\w ]{2,60}", t)), text)
        files["check.json"] = _json(rows)
        files["vocabulary.json"] = _json(list(task.words[: task.vocabulary]))
    if hashed:
        files.pop("vocabulary.json")
        path, block = _single(hashed)
        buckets = f"{path}.buckets"
        card["projection"] = {n: getattr(block, n) for n in ("family", "hashes", "features", "ngram")}
        example = _local(block, rows, example, task.padding)
    return Kind(inputs, outputs, card, files, buckets, text), example


def reading(words: Sequence[str]) -> dict[str, Any]:
    """How texts were divided into some words: whether in lower case, and the pattern of a word.

    Where a word holds a sign beside others (``o'clock``), words were what stands between spaces; otherwise signs are
    words of their own.
    """
    spaced = any(len(word) > 1 and re.search(r"[^\w]", word) for word in words)
    return {"lower_case": all(word == word.lower() for word in words), "word": r"\S+" if spaced else r"\w+|[^\w\s]"}


def _outputs_of(task: Task | None, inputs: str) -> str:
    if task is None or (not task.real and len(task.output_shape) == 1):
        return "classes"
    if isinstance(task.loss, BinaryCrossEntropy):
        return "labels"
    if task.real:
        return "amounts"
    return {"words": "tags", "hashes": "tags", "octets": "following"}.get(inputs, "maps")


def _windows(task: Task) -> dict[str, Any]:
    """What the card says of windows over a table."""
    variables, horizon = task.output_shape
    lookback = task.input_shape[1] - horizon * bool(task.calendar)
    return {"variables": variables, "lookback": lookback, "horizon": horizon, "calendar": task.calendar}


def _single(hashed: Sequence[tuple[str, Fingerprints]]) -> tuple[str, Fingerprints]:
    if len(hashed) > 1:
        raise InvalidInputError(
            f"cannot export a network that reads letters in {len(hashed)} places: {', '.join(n for n, _ in hashed)}"
        )
    path, block = hashed[0]
    if block.family != HASH_FAMILY:
        raise InvalidInputError(
            f"cannot export {path}: its fingerprints are of the family {block.family!r}, bundles have {HASH_FAMILY!r}"
        )
    return path, block


def _local(block: Fingerprints, rows: Sequence[Sequence[str]], example: Tensor, padding: int | None) -> Tensor:
    """The example with ids as the part ``hashes`` gives them, which the block is told."""
    words = dict.fromkeys(word for row in rows for word in row)
    number = {word: n + (padding is not None and n >= padding) for n, word in enumerate(words)}
    told = [""] * (max([*number.values(), padding or 0]) + 1)
    for word, n in number.items():
        told[n] = word
    block.read_as(told)
    ids = torch.full_like(example, padding or 0)
    for row, texts in zip(ids, rows, strict=True):
        row[: len(texts)] = torch.tensor([number[word] for word in texts])
    return ids


def _json(value: Sequence[Any]) -> str:
    return json.dumps(value, indent=0, ensure_ascii=False) + "\n"
