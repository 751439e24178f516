"""Bundles: a found network as a folder with its source, weights and card, checked to run without nasplat."""

import copy
import json
import runpy
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
from nasplat.export.assemble import assembled
from nasplat.export.kinds import kind_of
from nasplat.export.onnx_model import require_onnx, write_onnx
from nasplat.export.prepare import in_units, on_the_scale_of_the_data, prepared
from nasplat.export.readme import docstring, page
from nasplat.export.source import generate
from nasplat.task import Task
from nasplat.training.trainer import Normalization

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


class BundleError(NasplatError):
    """A bundle does not compute what its network computed, or does not run."""


def export_bundle(
    network: nn.Module,
    example: Tensor,
    folder: Path,
    *,
    card: Mapping[str, Any],
    normalization: Normalization,
    task: Task | None = None,
    classes: Sequence[str] | None = None,
    resolution: int | None = None,
    onnx: bool = False,
) -> Path:
    """Write a trained network as a folder that runs without nasplat, and check that it does.

    The folder appears under its name only when it is complete and its outputs are those of the network. Where the
    task's targets are standardized, the exported network gives outputs on the scale of the data; where its inputs were
    so before the task saw them, it takes them in the units of the data too.

    Args:
        network: Trained; it is copied, and neither changed nor moved.
        example: Inputs ``(B, *input_shape)`` as they are in the task's data: uint8 or float, not normalized, or
            token ids.
        folder: Where to; must not exist or be empty.
        card: JSON data to keep with it: architecture, fingerprint, space, task, metrics, recipe, versions.
        normalization: What the network's inputs were normalized with; empty where they were not.
        task: What the network is for: its words, what its outputs are, the scale of its targets. Without it inputs are
            real numbers and outputs the logits of classes.
        classes: Names of the classes or outputs; by default those of the task.
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
    example = _checked_example(example, normalization, resolution, task)
    if onnx:
        require_onnx()
    # Training may have laid the weights out otherwise than they are read back.
    network = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    network = on_the_scale_of_the_data(network, task)
    kind, example = kind_of(network, in_units(example, task), task)
    inputs = prepared(example, normalization, resolution)
    output = _output(network, inputs, task)
    source = generate(network, inputs)
    names = _checked_classes(classes or (task.classes if task else None) or None, output)
    full = {
        **_checked_card(card),
        "input": {
            "shape": list(example.shape[1:]),
            "dtype": str(example.dtype).removeprefix("torch."),
            "resolution": resolution,
            **kind.card_of(source.weights, network),
        },
        "normalization": {"mean": list(normalization.mean), "std": list(normalization.std)},
        "classes": names,
    }
    texts = {
        "model.py": assembled(docstring(full, kind), source.text, kind.parts),
        "card.json": json.dumps(full, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "requirements.txt": _requirements(full),
        "README.md": page(full, output.shape[1:], kind, [*kind.files, *(["model.onnx"] if onnx else [])]),
        **kind.files,
    }
    with _appearing(folder) as place:
        for name, text in texts.items():
            (place / name).write_text(text, encoding="utf-8")
        _write_tensors(place / "weights.safetensors", source.weights)
        _write_tensors(place / "check.safetensors", {"input": example, "output": output})
        check_bundle(place)
        if onnx:
            # The written network has what the original draws anew as tables, which ONNX needs. Hashed words are summed
            # in bags there, which ONNX has not.
            whole = network if kind.buckets else runpy.run_path(str(place / "model.py"))["load"]()
            write_onnx(whole, example, place / "model.onnx", normalization, resolution, buckets=kind.buckets)
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


def _checked_example(
    example: Tensor, normalization: Normalization, resolution: int | None, task: Task | None
) -> Tensor:
    """The example on the CPU, if everything fits it."""
    shape = tuple(example.shape)
    if task is not None and task.vocabulary:
        if example.dtype != torch.int64 or shape[1:] != task.input_shape or shape[0] == 0:
            wanted = ", ".join(["B", *map(str, task.input_shape)])
            raise InvalidInputError(f"expected an example of token ids ({wanted}), got {example.dtype} {shape}")
        return example.detach().cpu()
    if not example.is_floating_point() and example.dtype != torch.uint8:
        raise InvalidInputError(
            f"expected a uint8 or floating point example, got {example.dtype}; for token ids, give the task"
        )
    if len(shape) < 2 or shape[0] == 0:
        raise InvalidInputError(f"expected an example (B, C, ...) of at least one input, got {shape}")
    if normalization.mean and {len(normalization.mean), len(normalization.std)} != {shape[1]}:
        raise InvalidInputError(
            f"expected a normalization of {shape[1]} channels for an example {shape}, got "
            f"{len(normalization.mean)} means and {len(normalization.std)} standard deviations"
        )
    if resolution is not None and len(shape) != 4:
        raise InvalidInputError(f"a resolution needs images (B, C, H, W), got an example {shape}")
    return example.detach().cpu()


@torch.no_grad()
def _output(network: nn.Module, inputs: Tensor, task: Task | None) -> Tensor:
    output: object = network(inputs)
    shape = tuple(output.shape) if isinstance(output, Tensor) else None
    wanted_shape = (len(inputs), *(task.output_shape if task else shape[1:2] if shape else ()))
    if not isinstance(output, Tensor) or shape != wanted_shape or len(wanted_shape) < 2:
        wanted = "classes" if task is None else ", ".join(map(str, task.output_shape))
        raise InvalidInputError(
            f"expected a network that gives (B, {wanted}) for the example, got {shape or type(output).__name__}"
        )
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


def _requirements(card: Mapping[str, Any]) -> str:
    version = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    pixels = "pillow>=10.3  # for image files only\n" if card["input"]["dtype"] == "uint8" else ""
    return f"torch>={version}\nsafetensors>=0.4.3\nnumpy>=1.26\n{pixels}"


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # Clones: tensors that share memory cannot be saved, and each must be contiguous.
    path.write_bytes(save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}))
