"""ODPO: DPO with an offset (Amini, Vieira and Cotterell, Findings of ACL 2024, arXiv 2402.10571).

A pair's margin must exceed an offset that grows with how much better the winner is. How "how much better" becomes an
offset is a choice of unit, so it is made outside of the loss, by one of the offset functions and on a scale you choose.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefcore.data.types import LossOutput
from prefcore.engine.shapes import check_shapes


def loss(logps: Tensor, ref_logps: Tensor, offset: Tensor, *, beta: float) -> LossOutput:
    """-log sigmoid(margin - offset), where margin = reward of chosen - reward of rejected.

    logps, ref_logps [B,2]: summed log-probabilities (nats) of chosen, rejected. offset [B]: in the unit of rewards
    (beta is not applied to it), a constant: no gradient. Returns losses [B] and rewards [B,2].
    It is the likelihood that chosen wins by at least the offset when each reward carries standard Gumbel noise.
    """
    check_shapes("logps [B,2], ref_logps [B,2], offset [B]", logps, ref_logps, offset)
    rewards = beta * (logps - ref_logps)
    margin = rewards[:, 0] - rewards[:, 1]
    return LossOutput(-logsigmoid(margin - offset.detach()), rewards.detach())


def offset_log(gap: Tensor, *, alpha: float) -> Tensor:
    """alpha x ln(gap), the official code's offset. gap [B] = chosen score - rejected score > 0, in your unit.

    The unit matters: a gap of 1 gives offset 0 (plain DPO), a gap below 1 a *negative* offset, so that the pair may
    even stay in the wrong order. Choose a scale on which gaps above 1 are common (stars, Likert points, or scores
    divided by the gap that should count as none); for differences of probabilities every offset is negative.
    Raises ValueError on ties and swapped scores.
    """
    _check_gap(gap)
    return alpha * torch.log(gap)


def offset_identity(gap: Tensor, *, alpha: float) -> Tensor:
    """alpha x gap. gap [B] = chosen score - rejected score > 0; alpha is in rewards (nats) per unit of score.

    Every offset is positive, and it is linear in the scale of the scores: doubling the scores doubles it.
    Raises ValueError on ties and swapped scores.
    """
    _check_gap(gap)
    return alpha * gap


def offset_ratio(chosen_score: Tensor, rejected_score: Tensor, *, alpha: float) -> Tensor:
    """alpha x ln(chosen_score / rejected_score), the official code's switch. Both [B], positive, chosen above rejected.

    It is always positive, does not change with the unit of the scores, but does with where their zero is.
    Raises ValueError on scores that are not positive, ties and swapped scores.
    """
    check_shapes("chosen_score [B], rejected_score [B]", chosen_score, rejected_score)
    usable = rejected_score > 0
    if not usable.all():
        raise ValueError(f"a ratio needs positive scores; rejected_score has {rejected_score[~usable].tolist()}: "
                         "shift the scale, or use offset_log or offset_identity")
    _check_gap(chosen_score - rejected_score)
    return alpha * torch.log(chosen_score / rejected_score)


def _check_gap(gap: Tensor) -> None:
    check_shapes("gap [B]", gap)
    usable = (gap > 0) & gap.isfinite()
    if not usable.all():
        raise ValueError(f"chosen must score above rejected; gaps {gap[~usable].tolist()} in rows "
                         f"{(~usable).nonzero()[:, 0].tolist()}: drop ties and put the better completion first")
