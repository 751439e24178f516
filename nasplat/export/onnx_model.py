"""A network as an ONNX file, checked with onnxruntime."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nasplat.errors import InvalidInputError, NasplatError
from nasplat.export.prepare import prepared
from nasplat.training.trainer import Normalization

TOLERANCE = 1e-4
"""Largest difference accepted, per unit of the largest output above 1; the runtime has kernels of its own."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LARGEST_FILE_BYTES = 2**30
"""Weights beyond this go to a file of their own: an ONNX file ends at 2 GiB."""


@final
class OnnxError(NasplatError):
    """A network cannot be written as ONNX, or gives other outputs there."""


def require_onnx() -> None:
    """Refuse unless the packages are there.

    Raises:
        InvalidInputError: With what to install.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidInputError(f"ONNX needs {', '.join(missing)}: pip install 'nasplat[onnx]'")


def write_onnx(
    network: nn.Module,
    example: Tensor,
    path: Path,
    normalization: Normalization,
    resolution: int | None,
    *,
    buckets: str | None = None,
) -> None:
    """Write a network with its normalization as ONNX and compare what onnxruntime makes of it.

    The file has one input, ``images`` (float32, a batch of any size, on the data's scale), ``inputs`` where they are no
    images, or ``ids`` (int64), and for fingerprints of words a second, ``buckets``, with a row for each id. The output
    is called ``logits``.

    Args:
        network: A copy in evaluation mode, on the CPU.
        example: ``(B, *input_shape)``, not normalized.
        path: Where to.
        normalization: Of the network's inputs.
        resolution: Side in pixels to which images are resized, or None.
        buckets: Path in the network of the table that is an input too.

    Raises:
        OnnxError: If it cannot be written or gives other outputs.
    """
    # Two examples at least: a batch of one would be taken for a constant.
    example = example if len(example) > 1 else torch.cat([example, example])
    given = {_name(example): example if example.dtype == torch.int64 else example.float()}
    dynamic = {next(iter(given)): {0: torch.export.Dim("batch")}}
    if buckets is not None:
        given["buckets"] = network.get_buffer(buckets)
        network.get_submodule(buckets.rpartition(".")[0]).bagged = False  # type: ignore[assignment]
        dynamic["buckets"] = {0: torch.export.Dim("words", min=2)}
    whole = _Whole(network, normalization, resolution, buckets).eval()
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    _write(whole, given, path, dynamic, apart=size > _LARGEST_FILE_BYTES)
    first = next(iter(given))
    _compare(whole, path, {**given, first: torch.cat([given[first], given[first][:1]])})


def _write(
    whole: nn.Module, given: Mapping[str, Tensor], path: Path, dynamic: Mapping[str, dict[int, Any]], *, apart: bool
) -> None:
    with _quiet():
        try:
            torch.onnx.export(
                whole,
                tuple(given.values()),
                path,
                dynamo=True,
                dynamic_shapes=tuple(dynamic.values()),
                input_names=list(given),
                output_names=["logits"],
                external_data=apart,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise OnnxError(f"the network cannot be written as ONNX ({reason}); export it without ONNX") from error


def _name(example: Tensor) -> str:
    if example.dtype == torch.int64:
        return "ids"
    return "images" if example.ndim == 4 else "inputs"


@torch.no_grad()
def _compare(whole: nn.Module, path: Path, given: Mapping[str, Tensor]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    output = torch.from_numpy(session.run(["logits"], {name: value.numpy() for name, value in given.items()})[0])
    expected = whole(*given.values())
    difference = float((output - expected).abs().max())
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:
        raise OnnxError(f"model.onnx: outputs differ by {difference:.3g}, at most {allowed:.3g} expected")


@final
class _Whole(nn.Module):
    """A network that takes inputs as they are in the data, and the table of buckets where it has one."""

    def __init__(
        self, network: nn.Module, normalization: Normalization, resolution: int | None, buckets: str | None
    ) -> None:
        super().__init__()
        self.network = network
        self.normalization = normalization
        self.resolution = resolution
        self.buckets = buckets

    def forward(self, inputs: Tensor, table: Tensor | None = None) -> Tensor:
        inputs = prepared(inputs, self.normalization, self.resolution)
        told = {} if table is None or self.buckets is None else {self.buckets: table}
        out: Tensor = functional_call(self.network, told, (inputs,))
        return out


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself: packages that it does not need, an interface of its own."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch copies a structure of its own that warns about being made.
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
