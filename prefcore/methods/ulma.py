"""ULMA: demonstrations are imitated, the rest is judged point by point (Cai et al. 2023, arXiv 2312.02554).

Every loss here is scaled so that its mean over the batch is (mean over positive rows) + (mean over the other rows), as
in the official code; a class without rows contributes 0. Departs from the official code: there the mean of an empty
class is NaN and NaN becomes 0, which would hide a NaN that is real.

The paper's equations seem to use summed log-probabilities, its code uses means per token, and beta means something else
in each. `loss` sums and `mean_loss` averages; for means in the other losses, give them the result of `per_token`.
With sums the imitation term is tens of nats beside about 0.7, and rules.
The paper's constant c = beta x log Z(x) is left at 0, the official default; another c is ref_logps - c / beta.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefcore.data.types import LossOutput
from prefcore.engine.aggregate import find_positives, scale_to_class_means
from prefcore.engine.shapes import check_shapes


def loss(logps: Tensor, ref_logps: Tensor, label: Tensor, *, beta: float) -> LossOutput:
    """Binary ULMA on summed log-probabilities: -logp for positive rows, -log(1 - sigmoid(r)) for negative ones.

    r = beta x (policy - reference) log-probability. logps, ref_logps [B,1]: nats, summed over the completion.
    label [B]: 1 for a demonstration, 0 for a bad answer. Returns losses [B] and rewards [B,1].
    """
    check_shapes("logps [B,1], ref_logps [B,1], label [B]", logps, ref_logps, label)
    positive = find_positives(label)
    rewards = beta * (logps - ref_logps)
    losses = torch.where(positive, -logps[:, 0], -logsigmoid(-rewards[:, 0]))
    return LossOutput(scale_to_class_means(losses, positive), rewards.detach())


def mean_loss(logps: Tensor, ref_logps: Tensor, label: Tensor, lengths: Tensor, *, beta: float) -> LossOutput:
    """Binary ULMA on log-probabilities per token (the official code). logps, ref_logps [B,1] are still sums.

    lengths [B]: completion tokens, EOS included. Rewards too are per token. The same beta is far weaker than in `loss`.
    """
    check_shapes("logps [B,1], ref_logps [B,1], label [B], lengths [B]", logps, ref_logps, label, lengths)
    return loss(*per_token(logps, ref_logps, lengths), label, beta=beta)


def continuous_loss(
    logps: Tensor, ref_logps: Tensor, score: Tensor, demonstration: Tensor, *, beta: float
) -> LossOutput:
    """Continuous ULMA: -logp for demonstrations, (score - r)^2 for the rest.

    score [B]: the wanted reward of a row, read on rows that are no demonstration (elsewhere it may be NaN).
    demonstration [B]: 1 or 0. Other arguments as in `loss`. Departs from the official code: there a demonstration is a
    row whose score equals 1.0, so that one stored as 0.9999 is none any more and a very good rated answer becomes one;
    here the data say which is which.
    """
    check_shapes("logps [B,1], ref_logps [B,1], score [B], demonstration [B]", logps, ref_logps, score, demonstration)
    imitate = find_positives(demonstration)
    rewards = beta * (logps - ref_logps)
    miss = torch.where(imitate, 0, score.detach() - rewards[:, 0])  # before the square, or a NaN reaches the gradient
    losses = torch.where(imitate, -logps[:, 0], miss**2)
    return LossOutput(scale_to_class_means(losses, imitate), rewards.detach())


def pointwise_loss(logps: Tensor, ref_logps: Tensor, label: Tensor, *, beta: float) -> LossOutput:
    """Pointwise DPO, the ablation without imitation: -log sigmoid(r) for positive rows, -log(1 - sigmoid(r)) else.

    Arguments as in `loss`. It is BCO without a shift.
    """
    check_shapes("logps [B,1], ref_logps [B,1], label [B]", logps, ref_logps, label)
    positive = find_positives(label)
    rewards = beta * (logps - ref_logps)
    losses = -logsigmoid(torch.where(positive, rewards[:, 0], -rewards[:, 0]))
    return LossOutput(scale_to_class_means(losses, positive), rewards.detach())


def per_token(logps: Tensor, ref_logps: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities [B,1] of policy and reference -> means per completion token [B,1]; lengths [B] > 0."""
    check_shapes("logps [B,1], ref_logps [B,1], lengths [B]", logps, ref_logps, lengths)
    if not (lengths > 0).all():
        raise ValueError(f"a completion has at least one token; got lengths {lengths[~(lengths > 0)].tolist()}")
    return logps / lengths[:, None], ref_logps / lengths[:, None]
