"""Fixtures that every test may use."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# No test depends on how fast or how busy the machine is.
settings.register_profile("nasplat", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nasplat")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden arrays beside the checkout (``NASPLAT_SHARED`` names another place)."""
    folder = Path(os.environ.get("NASPLAT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the data folder {folder}/data")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    # A shell starts what runs in the background with Ctrl-C ignored, and so whatever that starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
