"""Measuring instruments: memory of this process, and what the machine can multiply."""

import os
import resource
import sys
import time
from pathlib import Path

import torch


def memory_now() -> float:
    """Resident memory in MiB; the highest so far where the system does not tell (not Linux)."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if statm.exists() else memory_peak()


def reset_peak() -> None:
    """From now on memory_peak counts anew, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def memory_peak() -> float:
    """Highest resident memory in MiB since reset_peak, or ever."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def matmul_rate(size: int = 2048, times: int = 5) -> float:
    """FLOP/s of a float32 product of two square matrices, the best of a few."""
    a, b = torch.randn(2, size, size)
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
