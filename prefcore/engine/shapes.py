"""Shapes are said once, in words, and checked: a [B] meeting a [B,1] would otherwise broadcast to [B,B] in silence.

So are shares and probabilities, which must lie in [0, 1].
"""

import re

from torch import Tensor


def check_shapes(expected: str, *tensors: Tensor) -> None:
    """Raise ValueError unless the tensors have the `expected` shapes, e.g. "logps [B,2], offset [B], shift []".

    A number must be met exactly; a letter may be any size, the same one wherever it occurs; [] is a 0-d tensor.
    """
    sizes: dict[str, int] = {}
    shapes = [dims.replace(" ", "").split(",") if dims.strip() else [] for dims in re.findall(r"\[(.*?)\]", expected)]
    agree = len(shapes) == len(tensors) and all(
        len(dims) == tensor.dim()
        and all(size == (int(dim) if dim.isdigit() else sizes.setdefault(dim, size))
                for dim, size in zip(dims, tensor.shape, strict=True))
        for dims, tensor in zip(shapes, tensors, strict=True)
    )
    if not agree:
        found = ", ".join(str(list(tensor.shape)) for tensor in tensors)
        raise ValueError(f"expected {expected}; got, in this order, {found}")


def check_shares(**values: Tensor) -> None:
    """Raise ValueError, with the name and the numbers outside, unless every number lies in [0, 1]."""
    for name, numbers in values.items():
        inside = (numbers >= 0) & (numbers <= 1)
        if not inside.all():
            raise ValueError(f"{name} must be in [0, 1]; got {numbers[~inside].tolist()}")
