"""Bradley and Terry's loss with a margin for how far people agree, and other uses of the same votes.

Padmakumar, Jin, Kirk and He 2024 (arXiv 2412.03822): one rater's choice is a poor stand-in for a population, so each
pair also gets votes, and how far they agree is a margin by which the chosen text's reward must exceed the other's.

Departs from the paper: only its abstract and the released script were at hand, and there the margin is always
|2 p - 1|, even where most votes go against the label; this is `margin_abs`. `scaled_loss`, `soft_loss` and
`ordinal_loss` are not the paper's: what else one may do who has the votes.
A rule makes of the share [B] of votes for the label's choice, in [0, 1], a margin [B] in nats.
"""

import torch
from torch import Tensor, zeros_like
from torch.nn.functional import logsigmoid

from prefcore.data.types import LossOutput
from prefcore.engine.shapes import check_shapes, check_shares

LEVELS = (0.2, 0.4, 0.6, 0.8)  # shares between the five levels of agreement: against, rather against, even, ...


def loss(rewards: Tensor, margin: Tensor) -> LossOutput:
    """-log sigmoid(r_chosen - r_rejected - margin), Bradley-Terry's loss where the margin is 0.

    rewards [B,2]: of the chosen and of the rejected text (nats, as a difference of two is a log-odds). margin [B]: in
    the same unit, a constant: no gradient. Returns losses [B] and the rewards, detached.
    """
    check_shapes("rewards [B,2], margin [B]", rewards, margin)
    return LossOutput(-logsigmoid(rewards[:, 0] - rewards[:, 1] - margin.detach()), rewards.detach())


def scaled_loss(rewards: Tensor, weight: Tensor) -> LossOutput:
    """-weight x log sigmoid(r_chosen - r_rejected): agreement [B], 0 or more, decides how much a pair counts.

    "Scaled Bradley-Terry" of Wang et al. 2024 (arXiv 2410.01257). A weight of 0 leaves the pair out.
    """
    check_shapes("rewards [B,2], weight [B]", rewards, weight)
    if not (weight >= 0).all():
        raise ValueError(f"a weight must be 0 or more; the smallest is {weight.min().item()}")
    return LossOutput(-weight.detach() * logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach())


def soft_loss(rewards: Tensor, share: Tensor) -> LossOutput:
    """-[P log sigmoid(d) + (1 - P) log sigmoid(-d)], d = r_first - r_second, P = share [B] of votes for the first.

    It is least at d = logit(P), so that an even vote asks for equal rewards, while a margin of 0 still asks for as much
    distance as can be had.
    """
    check_shapes("rewards [B,2], share [B]", rewards, share)
    _check(share)
    gap, share = rewards[:, 0] - rewards[:, 1], share.detach()
    return LossOutput(-(share * logsigmoid(gap) + (1 - share) * logsigmoid(-gap)), rewards.detach())


def ordinal_loss(rewards: Tensor, share: Tensor) -> LossOutput:
    """-log P(level of the share | d), d = r_first - r_second: cumulative odds (McCullagh 1980) with fixed thresholds.

    share [B] of votes for the first falls into one of five levels, cut at LEVELS; P(level above k | d) =
    sigmoid(d - logit(LEVELS[k])), so that a level is likeliest where sigmoid(d) lies inside it. A share on a cut
    belongs to the level nearer to one half.
    """
    check_shapes("rewards [B,2], share [B]", rewards, share)
    _check(share)
    gap, share = rewards[:, 0] - rewards[:, 1], share.detach()
    cuts = gap.new_tensor(LEVELS)
    below = cuts < 0.5
    passed = torch.where(below, share[:, None] >= cuts - 1e-6, share[:, None] > cuts + 1e-6).sum(1)
    edges = torch.cat([cuts.new_tensor([-torch.inf]), torch.logit(cuts), cuts.new_tensor([torch.inf])])
    lower, upper = edges[passed], edges[passed + 1]
    inside = torch.log(-torch.expm1(lower - upper))  # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a))
    return LossOutput(-(logsigmoid(gap - lower) + logsigmoid(upper - gap) + inside), rewards.detach())


def margin_none(share: Tensor, *, scale: float) -> Tensor:
    """0: plain Bradley-Terry."""
    _check(share)
    return zeros_like(share)


def margin_abs(share: Tensor, *, scale: float) -> Tensor:
    """scale x |2 share - 1|, the released rule: agreement alone counts, also agreement *against* the label."""
    _check(share)
    return scale * (2 * share - 1).abs()


def margin_signed(share: Tensor, *, scale: float) -> Tensor:
    """scale x (2 share - 1): below 0 where most votes go against the label, so that the pair may stay that way."""
    _check(share)
    return scale * (2 * share - 1)


def _check(share: Tensor) -> None:
    check_shapes("share [B]", share)
    check_shares(share=share)
