"""What produced a measurement."""

import platform
import socket
from functools import cache
from importlib.metadata import version
from typing import Any

import torch


@cache
def provenance(device: str) -> dict[str, Any]:
    """Versions, host, device and threads as plain data; the same object for the same device."""
    name = (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine()
    )
    return {
        "nasplat": version("nasplat"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "device": device,
        "device_name": name,
        "threads": torch.get_num_threads(),
    }
