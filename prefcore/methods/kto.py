"""KTO: Kahneman-Tversky optimisation of single answers with thumbs (Ethayarajh et al., ICML 2024, arXiv 2402.01306)."""

import torch
from torch import Tensor

from prefcore.data.types import LossOutput
from prefcore.engine.aggregate import find_positives
from prefcore.engine.ranks import mean_over_ranks
from prefcore.engine.shapes import check_shapes


def loss(
    logps: Tensor, ref_logps: Tensor, label: Tensor, kl: Tensor, *,
    beta: float, desirable_weight: float, undesirable_weight: float,
) -> LossOutput:
    """weight x (1 - value), with value = sigmoid(r - z) for a desirable row and sigmoid(z - r) for an undesirable one.

    r = beta x (policy - reference) log-probability, z = beta x kl, weight = lambda_D or lambda_U. Note: sigmoid, not
    log sigmoid, so that the gradient vanishes at both ends, where a row is learnt and where it is hopeless.
    logps, ref_logps [B,1]: summed log-probabilities (nats). label [B]: 1 desirable, 0 undesirable. kl []: nats, without
    beta, from `kl_estimate`; a constant. Returns losses [B], to be averaged over all rows, and rewards [B,1].
    """
    check_shapes("logps [B,1], ref_logps [B,1], label [B], kl []", logps, ref_logps, label, kl)
    desirable = find_positives(label)
    rewards = beta * (logps - ref_logps)
    lead = rewards[:, 0] - beta * kl.detach()
    losses = torch.where(  # 1 - sigmoid(x), written as sigmoid(-x): exact for large x too
        desirable, desirable_weight * torch.sigmoid(-lead), undesirable_weight * torch.sigmoid(lead)
    )
    return LossOutput(losses, rewards.detach())


def kl_estimate(mismatch_logps: Tensor, ref_mismatch_logps: Tensor) -> Tensor:
    """max(0, mean of policy - reference log-probability over mismatched answers): a 0-d constant, in nats.

    mismatch_logps, ref_mismatch_logps [N]: summed log-probabilities of prompts with answers to *other* prompts, of one
    step, on all ranks. Clamped after averaging, never row by row; 0 for N = 0. It is biased (the answers are not the
    policy's own) and is often exactly 0, where KTO is a plain sigmoid loss: log how often.
    """
    check_shapes("mismatch_logps [N], ref_mismatch_logps [N]", mismatch_logps, ref_mismatch_logps)
    return mean_over_ranks(mismatch_logps - ref_mismatch_logps).clamp(min=0)


def balance_weights(n_desirable: int, n_undesirable: int, *, ratio: float) -> tuple[float, float]:
    """(desirable_weight, undesirable_weight): the scarce class is up-weighted, the other has weight 1 (eq. 8).

    They solve (desirable_weight x n_desirable) / (undesirable_weight x n_undesirable) = ratio; the paper wants it in
    [1, 4/3]. Which class is scarce is judged after the ratio, so that no weight is below 1.
    """
    if n_desirable <= 0 or n_undesirable <= 0:
        raise ValueError(f"both classes need rows; got {n_desirable} desirable and {n_undesirable} undesirable")
    if not 1 <= ratio <= 4 / 3:
        raise ValueError(f"ratio must be in [1, 4/3] (eq. 8); got {ratio}")
    wanted = ratio * n_undesirable / n_desirable
    return (wanted, 1.0) if wanted >= 1 else (1.0, 1 / wanted)
