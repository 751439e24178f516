"""Freed memory stays with the process."""

import platform
import resource
import subprocess
import sys

import pytest
import torch

from nasplat.training.memory import keep_freed_memory

MEBIBYTES, ROUNDS = 64, 10
PAGES = (MEBIBYTES << 20) // resource.getpagesize()


def faults() -> int:
    """Pages that are fetched by filling a fresh tensor some times."""
    torch.empty(MEBIBYTES << 18).fill_(1.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(ROUNDS):
        torch.empty(MEBIBYTES << 18).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_not_fetched_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    keep_freed_memory.cache_clear()
    assert keep_freed_memory()
    assert faults() < PAGES * ROUNDS / 2


def test_a_users_settings_stand() -> None:
    code = "from nasplat.training.memory import keep_freed_memory; print(keep_freed_memory())"
    environment = {"MALLOC_TRIM_THRESHOLD_": "131072"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
