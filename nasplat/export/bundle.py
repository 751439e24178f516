"""Bundles: a found network as a folder with its source, weights and card, checked to run without nasplat."""

import copy
import json
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from nasplat.errors import InvalidInputError, NasplatError
from nasplat.export.onnx_model import require_onnx, write_onnx
from nasplat.export.prepare import prepared
from nasplat.export.source import generate
from nasplat.training.trainer import Normalization

_TEMPLATE = Path(__file__).with_name("template.py")
_PLACE = re.compile(r"# <network>\n.*# </network>\n", re.DOTALL)
_OWN = ("input", "normalization", "classes")
"""Keys of the card that are written here."""
_CHECK_SECONDS = 600
# Nasplat is made unimportable and -I keeps the caller's folders out, so that the bundle has to stand on its own.
_ISOLATED = """
import runpy, sys
sys.modules["nasplat"] = None
sys.argv = [sys.argv[1]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_REQUIREMENTS = """torch>={torch}
safetensors>=0.4.3
numpy>=1.26
pillow>=10.3  # for image files only
"""
_README = """# {title}

{about}
It takes inputs of shape {shape} ({dtype}) and gives {outputs} outputs. It needs PyTorch, not nasplat.

    pip install -r requirements.txt
    python model.py                   # check that it computes what the original computed
    python model.py image.png x.npy   # classify image or .npy files

    from model import classify, load, predict
    network = load()                  # a torch.nn.Module, in evaluation mode
    logits = predict(images)          # images (B, {inside}) as they are in the data; normalized inside
    names = classify(images)

| file | what it is |
|---|---|
| `model.py` | the network as PyTorch source, and how to use it |
| `weights.safetensors` | its trained weights |
| `card.json` | where it comes from, how good it is, what it takes |
| `check.safetensors` | an input and what the original network gave for it |
| `requirements.txt` | what it needs; torch {torch} is what it was checked with |
{onnx}"""
_ONNX_ROW = "| `model.onnx` | the same for ONNX runtimes: float32 images, not normalized, to logits; any batch size |\n"


class BundleError(NasplatError):
    """A bundle does not compute what its network computed, or does not run."""


def export_bundle(
    network: nn.Module,
    example: Tensor,
    folder: Path,
    *,
    card: Mapping[str, Any],
    normalization: Normalization,
    classes: Sequence[str] | None = None,
    resolution: int | None = None,
    onnx: bool = False,
) -> Path:
    """Write a trained network as a folder that runs without nasplat, and check that it does.

    The folder appears under its name only when it is complete and its outputs are those of the network.

    Args:
        network: Trained; it is copied, and neither changed nor moved.
        example: Inputs ``(B, *input_shape)`` as they are in the data: uint8 or float, not normalized.
        folder: Where to; must not exist or be empty.
        card: JSON data to keep with it: architecture, fingerprint, space, task, metrics, recipe, versions.
        normalization: What the network's inputs were normalized with.
        classes: Names of the classes.
        resolution: Side in pixels to which inputs were resized in training, or None.
        onnx: Whether to write ``model.onnx`` too.

    Returns:
        The folder.

    Raises:
        InvalidInputError: If the folder is in use, the card is not JSON, something does not fit together, or the
            network cannot be written as source.
        BundleError: If the bundle does not run by itself or gives other outputs; nothing is left behind.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InvalidInputError(f"cannot export to {folder}: expected a new or an empty folder; choose another")
    example = _checked_example(example, normalization, resolution)
    if onnx:
        require_onnx()
    # Training may have laid the weights out otherwise than they are read back.
    network = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    inputs = prepared(example, normalization, resolution)
    output = _output(network, inputs)
    source = generate(network, inputs)
    full = {
        **_checked_card(card),
        "input": {
            "shape": list(example.shape[1:]),
            "dtype": str(example.dtype).removeprefix("torch."),
            "resolution": resolution,
        },
        "normalization": {"mean": list(normalization.mean), "std": list(normalization.std)},
        "classes": _checked_classes(classes, output),
    }
    with _appearing(folder) as place:
        _write_text(place / "model.py", _module(source.text))
        _write_text(place / "card.json", json.dumps(full, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        _write_text(place / "requirements.txt", _REQUIREMENTS.format(torch=_torch_version()))
        _write_text(place / "README.md", _readme(full, output, onnx=onnx))
        _write_tensors(place / "weights.safetensors", source.weights)
        _write_tensors(place / "check.safetensors", {"input": example, "output": output})
        check_bundle(place)
        if onnx:
            write_onnx(network, example, place / "model.onnx", normalization, resolution)
    return folder


def check_bundle(folder: Path) -> str:
    """Run a bundle's own check in a new process in which nasplat cannot be imported.

    Returns:
        What it says.

    Raises:
        BundleError: If it fails, with what it says.
    """
    command = [sys.executable, "-I", "-c", _ISOLATED, str(folder / "model.py")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_SECONDS, cwd=folder, check=False)
    except subprocess.TimeoutExpired:
        raise BundleError(f"the bundle's check took longer than {_CHECK_SECONDS} s") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"
        raise BundleError(
            "the bundle does not compute what the network computes, or does not run without nasplat: "
            f"{said.splitlines()[-1]}"
        )
    return done.stdout.strip()


def _checked_example(example: Tensor, normalization: Normalization, resolution: int | None) -> Tensor:
    """The example on the CPU, if everything fits it."""
    shape = tuple(example.shape)
    if not example.is_floating_point() and example.dtype != torch.uint8:
        raise InvalidInputError(f"expected a uint8 or floating point example, got {example.dtype}")
    if len(shape) < 2 or shape[0] == 0:
        raise InvalidInputError(f"expected an example (B, C, ...) of at least one input, got {shape}")
    if {len(normalization.mean), len(normalization.std)} != {shape[1]}:
        raise InvalidInputError(
            f"expected a normalization of {shape[1]} channels for an example {shape}, got "
            f"{len(normalization.mean)} means and {len(normalization.std)} standard deviations"
        )
    if resolution is not None and len(shape) != 4:
        raise InvalidInputError(f"a resolution needs images (B, C, H, W), got an example {shape}")
    return example.detach().cpu()


@torch.no_grad()
def _output(network: nn.Module, inputs: Tensor) -> Tensor:
    output = network(inputs)
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(inputs):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InvalidInputError(f"expected a network that gives (B, classes) for the example, got {got}")
    if not torch.isfinite(output).all():
        raise InvalidInputError("the network gives NaN or infinite outputs for the example; train it again")
    return output.float().contiguous()


def _checked_card(card: Mapping[str, Any]) -> Mapping[str, Any]:
    taken = [key for key in _OWN if key in card]
    if taken:
        raise InvalidInputError(f"card: {', '.join(taken)} is written by the export itself; use another key")
    try:
        json.dumps(dict(card), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"card: expected JSON data without NaN, got something else ({error})") from error
    return card


def _checked_classes(classes: Sequence[str] | None, output: Tensor) -> list[str] | None:
    if classes is None:
        return None
    if len(classes) != output.shape[1]:
        raise InvalidInputError(f"expected {output.shape[1]} class names, one an output, got {len(classes)}")
    return [str(name) for name in classes]


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A new folder beside a folder that takes its place at the end, or is removed if anything goes wrong."""
    folder = folder.resolve()
    place = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise InvalidInputError(f"cannot export to {folder}: {error}; choose a folder that can be written") from error
    try:
        yield place
        if folder.exists():
            folder.rmdir()
        place.rename(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _module(classes: str) -> str:
    """The template with the generated classes, and only the imports that they need."""
    text = _PLACE.sub(lambda _: f"{classes}\n", _TEMPLATE.read_text(encoding="utf-8"))
    for name in ("operator", "math"):
        if re.search(rf"\b{name}\.", classes):
            after = "json\n"
            text = text.replace(f"import {after}", f"import {after}import {name}\n", 1)
    return text


def _readme(card: Mapping[str, Any], output: Tensor, *, onnx: bool) -> str:
    shape = card["input"]["shape"]
    origin = [f"{key}: `{card[key]}`" for key in ("architecture", "space", "task") if isinstance(card.get(key), str)]
    return _README.format(
        title="A network found by architecture search",
        about="".join(f"- {line}\n" for line in origin),
        shape=tuple(shape),
        dtype=card["input"]["dtype"],
        outputs=output.shape[1],
        inside=", ".join(map(str, shape)),
        torch=torch.__version__,
        onnx=_ONNX_ROW if onnx else "",
    )


def _torch_version() -> str:
    return ".".join(torch.__version__.split("+")[0].split(".")[:2])


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # Clones: tensors that share memory cannot be saved, and each must be contiguous.
    path.write_bytes(save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}))
