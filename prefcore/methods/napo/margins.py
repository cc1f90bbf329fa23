"""What a batch's margins say: q and the weights of the pairs. Constants of a training step, without gradient.

A pair that the policy ranks well has a large margin: then q is small (the label is trusted) and its weight is large.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefcore.engine.ranks import mean_over_ranks, sum_over_ranks
from prefcore.engine.shapes import check_shapes

LOWEST, RELEASED_LOWEST = 0.01, 0.001  # q and weights stay in [0.01, 1] in the paper, q in [0.001, 1] in the code
MOVED = 3.0  # standard errors above 0 from which on a margin has moved
NOTHING = 1e-6  # a sum of margins up to here is none: 0/0 at the first step


class Margins(NamedTuple):
    """Means over the batch (all ranks) of the margins with their direction, without beta, in nats; no gradient.

    summed [3]: of whole answers, for the clean, the language-biased and the vision-biased pair. mean [3]: of the means
    per token (the paper's psi_mu).
    """

    summed: Tensor
    mean: Tensor


def batch_margins(logps: Tensor, ref_logps: Tensor, lengths: Tensor, direction: Tensor) -> Margins:
    """What q and the weights are made of. logps, ref_logps, lengths (tokens) [B,4]; direction [B,2] as in losses.loss.

    A pair that is not there does not count; 0 where no rank has any.
    """
    check_shapes("logps [B,4], ref_logps [B,4], lengths [B,4], direction [B,2]", logps, ref_logps, lengths, direction)
    sides = torch.cat([torch.ones_like(direction[:, :1]), direction], 1).to(logps.dtype)
    count = sum_over_ranks(sides.abs().sum(0)).clamp(min=1)
    means = []
    for ratios in (logps - ref_logps, (logps - ref_logps) / lengths):
        margins = sides * (ratios[:, :1] - ratios[:, 1:])
        means.append(sum_over_ranks(margins.sum(0)) / count)
    return Margins(*means)


def mean_margin(logps: Tensor, ref_logps: Tensor, *, beta: float) -> Tensor:
    """psi [] of plain pairs: batch mean (all ranks) of beta x (log-ratio of chosen - of rejected), no gradient."""
    check_shapes("logps [B,2], ref_logps [B,2]", logps, ref_logps)
    ratios = logps - ref_logps
    return beta * mean_over_ranks(ratios[:, 0] - ratios[:, 1])


def adaptive_q(psi: Tensor, *, alpha: float) -> Tensor:
    """The paper's q = 1 - sigmoid(alpha psi), kept in [0.01, 1] (eq. 12): small once the batch is learnt.

    psi []: batch mean of the reward margin, beta included: per token for language-biased pairs (alpha 0.5 in the
    paper), summed for vision-biased ones (alpha 0.01). It hardly leaves 0.5 unless alpha x a typical psi is about 1:
    `choose_alpha`.
    """
    check_shapes("psi []", psi)
    return torch.sigmoid(-alpha * psi.detach()).clamp(LOWEST, 1.0)


def released_q(margin: Tensor, *, alpha: float) -> Tensor:
    """The released code's q = 2 (1 - sigmoid(alpha margin)), kept in [0.001, 1]. margin []: without beta.

    Departs from the paper: twice its form, so that q starts at 1 and stays there while the margin is negative.
    """
    check_shapes("margin []", margin)
    return (2 * torch.sigmoid(-alpha * margin.detach())).clamp(RELEASED_LOWEST, 1.0)


def choose_alpha(margins: Sequence[float]) -> float:
    """1 / mean margin of the second half of a run: with it alpha x a typical margin is 1. margins: one a step, from 0.

    ValueError where that mean lies less than three standard errors above 0: the margin has not moved, and alpha would
    blow its noise up to q's whole range.
    """
    later = np.array(margins[len(margins) // 2 :], float)
    if len(later) < 2:
        raise ValueError(f"{len(margins)} steps have no typical margin: train for more")
    mean, error = later.mean(), later.std(ddof=1) / len(later) ** 0.5
    if not mean > MOVED * error:
        raise ValueError(
            f"the margin is {mean:.3g} with a standard error of {error:.3g} in the second half of the run, so it has "
            "not moved and gives no alpha: train for longer, at a higher rate, or give the alphas yourself"
        )
    return float(1 / mean)


def fixed_weights(weights: Sequence[float]) -> Tensor:
    """The weights of the clean, the language-biased and the vision-biased pair as [3]."""
    if len(weights) != 3 or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"weights are {list(weights)}; give three of 0 or more, not all 0")
    return torch.tensor(weights, dtype=torch.float32)


def dynamic_weights(psi: Tensor) -> Tensor:
    """gamma_i = psi_i / sum of psi, kept in [0.01, 1] (eq. 13): the pair learnt best weighs most. psi [3] -> [3].

    Departs from the paper: a third each where a margin is negative or their sum is (nearly) 0, as at the first step
    (0/0). Not scaled to sum 1 again after the clip.
    """
    check_shapes("psi [3]", psi)
    psi = psi.detach()
    if psi.min() < 0 or psi.sum() <= NOTHING:
        return torch.full_like(psi, 1 / 3)
    return (psi / psi.sum()).clamp(LOWEST, 1.0)
