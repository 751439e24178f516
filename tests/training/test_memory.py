"""Freed memory stays with the process."""

import os
import platform
import subprocess
import sys

import pytest

# A process of its own, because only memory of the main thread is kept, and tests may run in another.
CODE = """
import resource
import torch
from nasplat.training.memory import keep_freed_memory

def pages_fetched(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.empty(64 << 18).fill_(1.0)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / (64 << 20)

kept = keep_freed_memory()
pages_fetched(30)  # until the heap has found its size
print(kept, pages_fetched(10))
"""


def run(**environment: str) -> tuple[str, float]:
    """Whether memory is kept, and how many tensors' worth of pages ten tensors fetched."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", CODE]
    out = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, check=True).stdout
    kept, fetched = out.split()
    return kept, float(fetched)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_not_fetched_anew() -> None:
    kept, fetched = run()
    assert kept == "True"
    assert fetched < 1


def test_a_users_settings_stand() -> None:
    kept, fetched = run(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert kept == "False"
    assert fetched >= 10
