"""Bundles: complete, running without nasplat, and nothing left behind when something is wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nasplat.errors import InvalidInputError
from nasplat.export.bundle import BundleError, export_bundle
from nasplat.export.onnx_model import OnnxError
from nasplat.search_spaces.conv_kernels import ConvKernels
from nasplat.search_spaces.nasbench201 import NasBench201
from nasplat.task import Part
from nasplat.tasks.digits import digits
from nasplat.training.trainer import Normalization
from tests.export.networks import ByHand, Transformer

_FILES = ["README.md", "card.json", "check.safetensors", "model.py", "requirements.txt", "weights.safetensors"]
_NAMES = [f"digit {i}" for i in range(10)]
_NORMALIZATION = Normalization((0.5,), (2.0,))
_WITHOUT_NASPLAT = """
import sys
sys.modules["nasplat"] = None
sys.path.insert(0, sys.argv[1])
try:
    import nasplat
except ImportError:
    pass
else:
    raise SystemExit("nasplat can be imported")
import torch
from safetensors.torch import load_file, save_file
from model import classify, load, predict
images = load_file(sys.argv[2])["images"]
assert not load().training
logits = predict(images)
assert classify(images) == [f"digit {i}" for i in logits.argmax(1).tolist()]
save_file({"logits": logits}, sys.argv[2])
"""


def _images(count: int = 4) -> Tensor:
    return digits().data(Part.SEARCH).inputs[:count]


def _trained(network: nn.Module) -> nn.Module:
    """A network whose batch norms have seen data, left in training mode."""
    with torch.no_grad():
        network(torch.randn(16, 1, 8, 8))
    return network.train()


def _expected(network: nn.Module, images: Tensor, normalization: Normalization) -> Tensor:
    with torch.no_grad():
        out: Tensor = network.eval()(normalization.apply(images))
    network.train()
    return out


@pytest.fixture(scope="module")
def searched() -> nn.Module:
    torch.manual_seed(0)
    space = ConvKernels()
    return _trained(space.build(space.sample(np.random.default_rng(3)), digits()))


@pytest.fixture(scope="module")
def bundle(searched: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "new" / "bundle"
    card = {"architecture": "w8[k3]", "space": "conv-kernels", "task": "digits", "metrics": {"test_accuracy": 0.97}}
    normalization = Normalization.of(_images(100))
    return export_bundle(searched, _images(), folder, card=card, normalization=normalization, classes=_NAMES)


def test_bundle_is_complete(bundle: Path, searched: nn.Module) -> None:
    assert sorted(p.name for p in bundle.iterdir()) == _FILES
    assert list(bundle.parent.iterdir()) == [bundle]  # the temporary folder is gone
    card = json.loads((bundle / "card.json").read_text())
    assert card["metrics"] == {"test_accuracy": 0.97}
    assert card["input"] == {"shape": [1, 8, 8], "dtype": "uint8", "resolution": None}
    assert card["classes"] == _NAMES
    assert card["normalization"]["mean"] == list(Normalization.of(_images(100)).mean)
    check = load_file(bundle / "check.safetensors")
    assert check["input"].dtype == torch.uint8
    assert check["output"].shape == (4, 10)
    assert "architecture: `w8[k3]`" in (bundle / "README.md").read_text()
    assert searched.training


def test_bundle_passes_ruff(bundle: Path) -> None:
    rules = ["--select", "E,F,W,I,UP,B,SIM,RUF,C90,PGH", "--line-length", "110"]
    for options in ([], rules):
        command = [sys.executable, "-m", "ruff", "check", "--isolated", *options, str(bundle)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_bundle_predicts_where_nasplat_cannot_be_imported(bundle: Path, searched: nn.Module, tmp_path: Path) -> None:
    moved = shutil.copytree(bundle, tmp_path / "elsewhere")
    images = _images(40)[7:]
    save_file({"images": images.contiguous()}, tmp_path / "x.safetensors")
    command = [sys.executable, "-I", "-c", _WITHOUT_NASPLAT, str(moved), str(tmp_path / "x.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = _expected(searched, images, Normalization.of(_images(100)))
    torch.testing.assert_close(load_file(tmp_path / "x.safetensors")["logits"], expected, rtol=1e-5, atol=1e-5)


def test_bundle_classifies_files(bundle: Path, searched: nn.Module, tmp_path: Path) -> None:
    images = _images(2)
    np.save(tmp_path / "two.npy", images.numpy())
    np.save(tmp_path / "one.npy", images[0].numpy())
    Image.fromarray(images[1, 0].numpy()).save(tmp_path / "second.png")
    np.save(tmp_path / "wide.npy", np.zeros((1, 9, 9), np.uint8))
    files = [tmp_path / name for name in ("two.npy", "one.npy", "second.png", "wide.npy")]
    done = subprocess.run(
        [sys.executable, "-I", bundle / "model.py", *files], capture_output=True, text=True, check=False
    )
    classes = _expected(searched, images, Normalization.of(_images(100))).argmax(1).tolist()
    first, second = (f"digit {index} (" for index in classes)
    for line, name in zip(done.stdout.splitlines(), (first, second, first, second), strict=True):
        assert f": {name}" in line
    assert done.returncode == 1
    assert done.stderr.strip().endswith("wide.npy: expected inputs (B, 1, 8, 8), got (1, 1, 9, 9)")


@pytest.mark.parametrize(
    "build",
    [Transformer, lambda: NasBench201(channels=4, cells=1).build(NasBench201().parse("#6111"), digits())],
    ids=["transformer", "nasbench201"],
)
def test_other_networks_are_exported(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(1)
    folder = tmp_path / "bundle"
    folder.mkdir()  # an empty folder is taken
    example = torch.randn(2, 1, 8, 8)
    made = export_bundle(_trained(build()), example, folder, card={}, normalization=_NORMALIZATION)
    assert made == folder
    assert sorted(p.name for p in folder.iterdir()) == _FILES


class _Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + torch.rand_like(x.flatten(1))


def test_bundle_that_computes_something_else_is_removed(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not compute what the network computes"):
        export_bundle(_Noisy(), torch.randn(2, 1, 8, 8), tmp_path / "b", card={}, normalization=_NORMALIZATION)
    assert list(tmp_path.iterdir()) == []


class _Sorted(nn.Module):
    """Not known to ONNX."""

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = torch.linalg.eigvalsh(x.squeeze(1).mT @ x.squeeze(1))
        return values


def test_onnx(searched: nn.Module, tmp_path: Path) -> None:
    import onnxruntime

    normalization = Normalization.of(_images(100))
    folder = export_bundle(
        searched, _images(1), tmp_path / "b", card={}, normalization=normalization, resolution=12, onnx=True
    )
    assert sorted(p.name for p in folder.iterdir()) == sorted([*_FILES, "model.onnx"])
    assert "model.onnx" in (folder / "README.md").read_text()
    images = _images(5).float()
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    resized = nn.functional.interpolate(images, (12, 12), mode="bilinear", antialias=True)
    torch.testing.assert_close(
        torch.from_numpy(logits), _expected(searched, resized, normalization), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(OnnxError, match=r"cannot be written as ONNX \(.*\); export it without ONNX"):
        export_bundle(_Sorted(), images, tmp_path / "c", card={}, normalization=normalization, onnx=True)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"card": {"input": 1}}, r"card: input is written by the export itself; use another key"),
        ({"card": {"loss": float("nan")}}, r"card: expected JSON data without NaN"),
        ({"card": {"path": Path()}}, r"card: expected JSON data"),
        ({"classes": ["a", "b"]}, r"expected 10 class names, one an output, got 2"),
        ({"normalization": Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))}, r"expected a normalization of 1 channels"),
        ({"example": torch.zeros(2, 1, 8, 8, dtype=torch.int64)}, r"expected a uint8 or floating point example, got"),
        ({"example": torch.zeros(0, 1, 8, 8)}, r"expected an example \(B, C, \.\.\.\) of at least one input, got"),
        ({"example": torch.zeros(2, 1), "resolution": 8}, r"a resolution needs images \(B, C, H, W\)"),
        (
            {"network": nn.Identity()},
            r"expected a network that gives \(B, classes\) for the example, got \(2, 1, 8, 8\)",
        ),
        ({"example": torch.full((2, 1, 8, 8), torch.nan)}, r"the network gives NaN or infinite outputs"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    given = {"network": network, "example": torch.zeros(2, 1, 8, 8), "card": {}, "normalization": _NORMALIZATION}
    with pytest.raises(InvalidInputError, match=expected):
        export_bundle(folder=tmp_path / "b", **{**given, **changes})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "full"])
def test_used_folders_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("kept")
    with pytest.raises(InvalidInputError, match="expected a new or an empty folder; choose another"):
        export_bundle(ByHand(), torch.zeros(2, 1, 8, 8), tmp_path / name, card={}, normalization=_NORMALIZATION)
    assert (tmp_path / "full" / "kept").read_text() == "kept"


def test_folders_below_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InvalidInputError, match=r"cannot export to .*bundle: .*choose a folder that can be written"):
        export_bundle(
            ByHand(), torch.zeros(2, 1, 8, 8), tmp_path / "file" / "bundle", card={}, normalization=_NORMALIZATION
        )


def test_missing_onnx_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    with pytest.raises(InvalidInputError, match=r"ONNX needs onnxscript: pip install 'nasplat\[onnx\]'"):
        export_bundle(
            ByHand(), torch.zeros(2, 1, 8, 8), tmp_path / "b", card={}, normalization=_NORMALIZATION, onnx=True
        )
