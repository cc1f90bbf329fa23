"""Batch statistics over all processes: KTO's KL, BCO's class means and NAPO's margins are means of the whole step."""

import torch
import torch.distributed
from torch import Tensor


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of the values of all ranks, detached, 0-d; sums and counts are reduced, so ranks may differ in size.

    An empty tensor on every rank gives 0.
    """
    total = torch.stack([values.detach().sum(), values.new_tensor(float(values.numel()))])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return total[0] / total[1].clamp(min=1)
