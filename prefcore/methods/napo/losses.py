"""NaPO: noise-aware preference optimisation against biases (Zhang et al., CVPR 2025, arXiv 2503.17928). The losses.

An example is a picture with a question and four answers: chosen, rejected, language-biased (written without the
picture) and vision-biased (written without the question). z is always a margin of rewards: beta x (log-ratio of the
better answer - log-ratio of the other).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefcore.data.types import LossOutput
from prefcore.engine.shapes import check_shapes
from prefcore.methods import dpo

# --- losses of a margin z [B] -> [B], before any reduction ----------------------------------------------------------


def napo_losses(z: Tensor, q: Tensor) -> Tensor:
    """(1 - sigmoid(z)^q) / q, the negative Box-Cox transform of the likelihood. z [B]; q [] in (0, 1], a constant.

    Its slope is -sigmoid(z)^q sigmoid(-z): what DPO's is, damped where the model disagrees with the label.
    """
    check_shapes("z [B], q []", z, q)
    if not 0 < q <= 1:
        raise ValueError(f"q is {float(q):g}; it must be in (0, 1]: dpo_losses is the limit of q -> 0")
    return -torch.expm1(q.detach() * logsigmoid(z)) / q.detach()


def dpo_losses(z: Tensor) -> Tensor:
    """-log sigmoid(z): binary cross-entropy, the limit of q -> 0, which trusts every label. z [B]."""
    check_shapes("z [B]", z)
    return -logsigmoid(z)


def mae_losses(z: Tensor) -> Tensor:
    """1 - sigmoid(z): mean absolute error, q = 1, the most robust and the slowest to learn. z [B]."""
    check_shapes("z [B]", z)
    return torch.sigmoid(-z)


def cdpo_losses(z: Tensor, *, label_smoothing: float) -> Tensor:
    """DPO when a known share of the labels, in [0, 0.5), is taken to be wrong (cDPO, Mitchell 2023). z [B]."""
    check_shapes("z [B]", z)
    zero = torch.zeros_like(z)
    pair = torch.stack([z, zero], 1)
    return dpo.conservative_loss(pair, torch.zeros_like(pair), beta=1.0, label_smoothing=label_smoothing).losses


def at_q(q: Tensor) -> Callable:
    """The loss of a margin at q [] in [0, 1]: `napo_losses`, or its limit `dpo_losses` at 0."""
    check_shapes("q []", q)
    return partial(napo_losses, q=q) if q > 0 else dpo_losses


# --- the objective --------------------------------------------------------------------------------------------------


def loss(
    logps: Tensor,
    ref_logps: Tensor,
    direction: Tensor,
    weights: Tensor,
    language: Callable,
    vision: Callable,
    *,
    beta: float,
) -> LossOutput:
    """weights . (DPO(chosen, rejected), language(chosen, language-biased), vision(chosen, vision-biased)).

    logps, ref_logps [B,4]: summed log-probabilities (nats) of chosen, rejected, language-biased, vision-biased, all
    under picture and question. direction [B,2] of the two biased pairs: 1; -1 where the label is flipped (injected
    noise); 0 where there is no pair, as both answers are the same. weights [3]: constants, from margins.fixed_weights
    or margins.dynamic_weights. language, vision: one of the losses of a margin. The first pair is taken to be clean: it
    keeps DPO. Returns losses [B] and rewards [B,4].
    """
    check_shapes("logps [B,4], ref_logps [B,4], direction [B,2], weights [3]", logps, ref_logps, direction, weights)
    rewards = beta * (logps - ref_logps)
    z = rewards[:, :1] - rewards[:, 1:]
    weights, there = weights.detach(), direction.abs()
    clean = dpo.loss(logps[:, :2], ref_logps[:, :2], beta=beta).losses
    biased = [there[:, i] * pair(direction[:, i] * z[:, i + 1]) for i, pair in enumerate((language, vision))]
    return LossOutput(weights[0] * clean + weights[1] * biased[0] + weights[2] * biased[1], rewards.detach())


def pair_loss(logps: Tensor, ref_logps: Tensor, q: Tensor, *, beta: float) -> LossOutput:
    """NaPO of plain pairs, for texts too. logps, ref_logps [B,2]: chosen, rejected; q [] in (0, 1]."""
    check_shapes("logps [B,2], ref_logps [B,2], q []", logps, ref_logps, q)
    rewards = beta * (logps - ref_logps)
    return LossOutput(napo_losses(rewards[:, 0] - rewards[:, 1], q), rewards.detach())
