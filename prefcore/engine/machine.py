"""What this processor multiplies fastest: float32 through the better of two libraries, bfloat16 where it has it.

Which it is depends on the processor and on exactness alone, never on a stopwatch: a run gives the same bytes again.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

PRECISIONS = ("float32", "bfloat16")
EXACT = 1e-3  # a float32 product of SIZE normal numbers is off by 1e-4, one of bfloat16 numbers by 1e-1
SIZE = 512


def use_best_float32() -> bool:
    """Send float32 products through oneDNN where that is exact, and say whether they now go there.

    PyTorch's default is MKL, which is slower than oneDNN on processors with AVX-512 that Intel has not made. The
    setting that chooses oneDNN ("medium") lets it round to bfloat16 where there are AMX tiles; there it stays off.
    """
    torch.set_float32_matmul_precision("medium" if torch.cpu._is_avx512_supported() else "highest")
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, SIZE, SIZE, generator=generator)
    error = ((a @ b).double() - a.double() @ b.double()).abs().max().item()
    if error > EXACT:
        torch.set_float32_matmul_precision("highest")
    return torch.get_float32_matmul_precision() == "medium"


@contextmanager
def small_products() -> Iterator[None]:
    """While it is open, float32 products go to PyTorch's default library, which is quick to begin one.

    Fused attention makes two for each row, head and block; through oneDNN each costs many times its arithmetic.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether it multiplies bfloat16 itself, and not many times slower in emulation."""
    return torch.device(device).type != "cpu" or torch.cpu._is_avx512_bf16_supported()


def check_precision(precision: str, device: torch.device) -> None:
    """ValueError where the name is none of PRECISIONS, or the processor multiplies bfloat16 only in emulation."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and not has_bfloat16(device):
        raise ValueError("this processor has no bfloat16 products and would be many times slower: use float32")


def rounding(precision: str, device: torch.device):
    """A context in which matrix products run in this precision; weights and what leaves it keep theirs."""
    check_precision(precision, device)
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def plain_attention(precision: str, device: torch.device):
    """A context in which a CPU takes the steps of attention one by one where products are in bfloat16.

    The gradient of PyTorch's fused attention has no fast bfloat16 there: it took 0.4 of a small encoder's whole step.
    """
    slow = precision == "bfloat16" and torch.device(device).type == "cpu"
    return sdpa_kernel(SDPBackend.MATH) if slow else nullcontext()
