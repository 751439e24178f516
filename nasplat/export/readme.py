"""What a bundle says to its user: the page beside the module, and the module's own first words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from nasplat.export.kinds import Kind

_PAGE = """# A network found by architecture search

{origin}
It takes {takes} and gives {gives}. It needs PyTorch, not nasplat.

    pip install -r requirements.txt
    python model.py{space}  # check that it computes what the original computed
    python model.py {arguments}  # {does}

    from model import {names}
    network = load()  # a torch.nn.Module, in evaluation mode
{python}

| file | what it is |
|---|---|
| `model.py` | the network as PyTorch source, and how to use it |
| `weights.safetensors` | its trained weights |
| `card.json` | where it comes from, how good it is, what it takes |
| `check.safetensors` | an example and what the original network gave for it |
{files}| `requirements.txt` | what it needs; torch {torch} is what it was checked with |
"""
_DOCSTRING = """A network found by architecture search, as plain PyTorch.

``python model.py {arguments}``: {does}.
``python model.py`` checks this folder. In Python, ``load()`` gives the network and
``predict({inputs})`` its outputs. ``card.json`` says where it comes from.
"""
_FILES = {
    "vocabulary.json": "the words, in the order of their ids",
    "check.json": "the words of that example",
    "model.onnx": "the same for ONNX runtimes; it takes {onnx}, in batches of any size",
}


_FLOAT = "float32 inputs, not normalized"


@final
@dataclass(frozen=True, slots=True)
class _Inputs:
    """Inputs in words: what they are, as arguments of the command line and of functions, functions for them."""

    takes: str
    arguments: str
    name: str
    example: str
    functions: tuple[str, ...] = ()
    python: tuple[str, ...] = ()
    onnx: str = "`ids`"


@final
@dataclass(frozen=True, slots=True)
class _Outputs:
    """Outputs in words: what they are, what the command line does, the function for them."""

    gives: str
    does: str
    function: str = ""


_INPUTS: Mapping[str, _Inputs] = {
    "numbers": _Inputs(
        "inputs of shape {shape} ({dtype}), as {given},",
        "x.npy",
        "x",
        "# x is a tensor (B, {inside})",
        onnx=_FLOAT,
    ),
    "images": _Inputs(
        "images of shape {shape} ({dtype}), as {given},",
        "image.png x.npy",
        "images",
        "# images is a tensor (B, {inside})",
        onnx=_FLOAT,
    ),
    "windows": _Inputs(
        "the last {lookback} steps of the columns {columns}, in their units,",
        "recent.csv x.npy",
        "x",
        'labels, x = read("recent.csv")  # or a tensor (B, {inside}): see prepare',
        ("read",),
        onnx="float32 windows as `prepare` gives them",
    ),
    "words": _Inputs(
        "texts, of which it reads the first {length} words,",
        '"{text}" lines.txt',
        "texts",
        'texts = ["{text}"]',
        ("encode",),
        ("same = network(encode(texts))  # words as ids of vocabulary.json",),
        "the `ids` of `encode`",
    ),
    "hashes": _Inputs(
        "texts of any words, of which it reads the first {length},",
        '"{text}" lines.txt',
        "texts",
        'texts = ["{text}"]',
        ("encode",),
        (
            "ids, buckets = encode(texts)  # words have no ids but those of this call",
            "network.get_submodule('{owner}').{tensor} = buckets",
            "same = network(ids)",
        ),
        "the `ids` and `buckets` of `encode`",
    ),
    "octets": _Inputs(
        "the last {length} bytes of a text",
        '"{text}" file.txt',
        "text",
        'text = "{text}"',
        ("encode",),
        ("ids, lengths = encode(text)",),
        "the `ids` of `encode`",
    ),
    "ids": _Inputs(
        "token ids of shape {shape}, below {vocabulary}", "ids.npy", "ids", "# ids is a tensor (B, {inside})"
    ),
}
_OUTPUTS: Mapping[str, _Outputs] = {
    "classes": _Outputs("the logits of {outputs} classes", "classify", "classify"),
    "maps": _Outputs("logits of shape {all}, the classes first", "write the classes beside each file", "classify"),
    "amounts": _Outputs("numbers of shape {all} on the scale of the targets", "print or write the outputs"),
    "labels": _Outputs("the logits of {outputs} labels, any number of which may hold", "say labels", "scores"),
    "forecasts": _Outputs("the next {horizon} steps in the same units", "say or write the steps that follow"),
    "tags": _Outputs("the logits of {outputs} tags for each word", "tag words", "tag"),
    "following": _Outputs("the logits of the byte after each of them", "go on with a text", "following"),
}


def page(card: Mapping[str, Any], shape: Sequence[int], kind: Kind, files: Sequence[str]) -> str:
    """The README.

    Args:
        card: The whole card.
        shape: Of one output.
        kind: Of the inputs and outputs.
        files: Names of files beyond those that every bundle has.
    """
    given, made = _of(card, kind)
    origin = [f"{key}: `{card[key]}`" for key in ("architecture", "space", "task") if isinstance(card.get(key), str)]
    tensor = card["input"].get("projection", {}).get("tensor", "")
    values = {
        **card["input"],
        "shape": tuple(card["input"]["shape"]),
        "length": card["input"]["shape"][0],
        "outputs": shape[0],
        "all": tuple(shape),
        "owner": tensor.rpartition(".")[0],
        "tensor": tensor.rpartition(".")[2],
        "inside": ", ".join(map(str, card["input"]["shape"])),
        "text": kind.text,
        "columns": ", ".join(f"`{name}`" for name in card["classes"] or ()),
        "given": "they are in the data" if card["normalization"]["mean"] else "the task gives them",
    }
    answers = [f"answers = {made.function}({given.name})"] if made.function else []
    used = [given.example, f"outputs = predict({given.name})", *answers, *given.python]
    arguments = given.arguments.format(text=kind.text)
    return _PAGE.format(
        origin="".join(f"- {line}\n" for line in origin),
        takes=given.takes.format(**values),
        gives=made.gives.format(**values),
        space=" " * (len(arguments) + 1),
        arguments=arguments,
        does=made.does,
        names=", ".join(sorted({*given.functions, "load", "predict", *filter(None, [made.function])})),
        python="\n".join(f"    {line.format(**values)}" for line in used),
        files="".join(f"| `{name}` | {_FILES[name].format(onnx=given.onnx)} |\n" for name in sorted(files)),
        torch=torch.__version__,
    )


def docstring(card: Mapping[str, Any], kind: Kind) -> str:
    """The docstring of the module."""
    given, made = _of(card, kind)
    arguments = given.arguments.replace('"{text}"', "TEXT")
    return _DOCSTRING.format(arguments=arguments, does=made.does, inputs=given.name)


def _of(card: Mapping[str, Any], kind: Kind) -> tuple[_Inputs, _Outputs]:
    pixels = kind.inputs == "numbers" and len(card["input"]["shape"]) == 3
    return _INPUTS["images" if pixels else kind.inputs], _OUTPUTS[kind.outputs]
