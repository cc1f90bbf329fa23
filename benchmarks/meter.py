"""Measuring instruments: seconds, memory of this process, and what the machine can multiply."""

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch


class Took(NamedTuple):
    """Seconds on the wall, and of all threads' CPU time."""

    wall: float
    cpu: float


def timed(call: Callable) -> tuple[Took, object]:
    """How long the call took, and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return Took(time.perf_counter() - wall, time.process_time() - cpu), result


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


def matmul_rates(threads: int, times: int = 5) -> dict[str, float]:
    """FLOP/s of a product of two square matrices: float32 as PyTorch comes, float32 through oneDNN, bfloat16."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    rates = {"float32": _rate(torch.float32, times)}
    torch.set_float32_matmul_precision("medium")  # with AMX this would round to bfloat16
    rates |= {} if torch.cpu._is_amx_tile_supported() else {"float32, oneDNN": _rate(torch.float32, times)}
    rates["bfloat16"] = _rate(torch.bfloat16, times)
    torch.set_num_threads(before[0])
    torch.set_float32_matmul_precision(before[1])
    return rates


def _rate(dtype: torch.dtype, times: int) -> float:
    """The best of a few; of small matrices where large ones would take seconds, as bfloat16 does in emulation."""
    best = 0.0
    for size in (256, 2048):
        a, b = torch.randn(2, size, size).to(dtype)
        if best and 2 * size**3 / best > 2:
            break
        for _ in range(times):
            took, _ = timed(lambda a=a, b=b: torch.mm(a, b))
            best = max(best, 2 * size**3 / took.wall)
    return best
