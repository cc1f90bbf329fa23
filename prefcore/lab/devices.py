"""What a machine has, and how fast it multiplies: this one by a measurement, others by what their vendors state.

Peaks are products of dense matrices with sums in float32, as in the data sheets: NVIDIA's "Ada GPU architecture" white
paper for the RTX 4090, and the data sheets of the A100 80GB SXM, the H100 SXM and the H200 SXM. float32 is that of the
plain units; no TF32, which the engine does not switch on. The laptop is an assumption: eight cores at about 2.5 GHz
with 256-bit units.
"""

import os
import re
import time
from pathlib import Path
from typing import NamedTuple

import torch

from prefcore.engine.machine import PRECISIONS, has_bfloat16, use_best_float32

GIB = 2**30
# Share of the peak that training reaches. Of this machine's own product of matrices: 43 to 54 % were measured here by
# `python -m benchmarks.bench`. Of a GPU's data sheet: public runs of DPO report from 22 to 32 %.
SHARE = {"cpu": (0.3, 0.45, 0.55), "cuda": (0.15, 0.25, 0.35)}
RUNTIME = {"cpu": 0.55 * GIB, "cuda": 1.0 * GIB}  # Python with its libraries (measured); a CUDA context (assumed)


class Device(NamedTuple):
    """memory: bytes of one device; flops: FLOP/s of one by precision (none where it cannot); count: how many."""

    name: str
    kind: str
    memory: float
    flops: dict[str, float]
    count: int = 1


NAMED = {
    "laptop": Device("laptop", "cpu", 16 * GIB, {"float32": 3e11}),
    "rtx4090": Device("rtx4090", "cuda", 24 * GIB, {"float32": 82.6e12, "bfloat16": 165.2e12}),
    "a100": Device("a100", "cuda", 80e9, {"float32": 19.5e12, "bfloat16": 312e12}),
    "h100": Device("h100", "cuda", 80e9, {"float32": 67e12, "bfloat16": 989e12}),
    "h200": Device("h200", "cuda", 141e9, {"float32": 67e12, "bfloat16": 989e12}),
}


def find(name: str, *, device: str = "auto", threads: int = 1) -> Device:
    """The device of a name such as laptop, rtx4090 or h100x8 (eight of them); an empty name is this machine.

    ValueError for a name that is not known. device, threads: as in params.yaml, of this machine.
    """
    if not name:
        return here(device, threads)
    stem, count = (name, 1) if name in NAMED else re.fullmatch(r"(.*?)(?:x([1-9]\d*))?", name).groups()
    if stem not in NAMED:
        raise ValueError(f"--device {name}: it is none of {', '.join(NAMED)}; for several write h100x8")
    return NAMED[stem]._replace(name=name, count=int(count or 1))


def here(device: str, threads: int = 0) -> Device:
    """This machine, or its GPU where training would run there. threads: measures FLOP/s with so many; 0 does not."""
    place = "cuda" if device in ("auto", "cuda") and torch.cuda.is_available() else "cpu"
    flops = measure(place, threads) if threads else {}
    if place == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory
        return Device("this machine's GPU", place, memory, flops, torch.cuda.device_count())
    return Device("this machine", place, memory_here(), flops)


def memory_here() -> float:
    """Bytes that a process may have: the machine's, or what its control group is given; 0 where no system call says."""
    if not {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(getattr(os, "sysconf_names", ())):
        return 0
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    said = limit.read_text().strip() if limit.exists() else ""
    return min(total, int(said)) if said.isdigit() else total


def measure(place: str, threads: int) -> dict[str, float]:
    """FLOP/s by precision, of the best of a few products of matrices: large enough for a GPU, small enough for a CPU.

    On a CPU by the time of its threads, not by the clock on the wall: what else runs here now does not count.
    """
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    use_best_float32()
    rates = {precision: _rate(precision, place) for precision in PRECISIONS[: 1 + has_bfloat16(place)]}
    torch.set_num_threads(before[0])
    torch.set_float32_matmul_precision(before[1])
    return rates


def _rate(precision: str, place: str) -> float:
    size, threads = (8192, 1) if place == "cuda" else (1024, torch.get_num_threads())
    clock = time.perf_counter if place == "cuda" else time.process_time
    a, b = torch.randn(2, size, size, device=place).to(getattr(torch, precision))
    best = 0.0
    for _ in range(4):
        start = clock()
        (a @ b)[0, 0].item()
        best = max(best, threads * 2 * size**3 / (clock() - start))
    return best
