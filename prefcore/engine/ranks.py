"""Batch statistics over all processes: KTO's KL, BCO's class means and NAPO's margins are those of the whole step."""

import torch.distributed
from torch import Tensor


def sum_over_ranks(values: Tensor) -> Tensor:
    """The detached tensor, added up elementwise over all processes; itself where there is one."""
    total = values.detach().clone()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return total


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of the values of all ranks, detached, 0-d; ranks may differ in size. 0 where no rank has a value."""
    total = sum_over_ranks(torch.stack([values.detach().sum(), values.new_tensor(float(values.numel()))]))
    return total[0] / total[1].clamp(min=1)
