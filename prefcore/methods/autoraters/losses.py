"""Proper scoring rules as rewards of a written probability, and the losses that follow them (arXiv 2510.00263).

An autorater writes one of A answers p_i (probabilities that the second text is better) with probability pi_i, or
something that is no answer, with what is left. For a vote y (1 where the second text won):

    Brier    R = 1 - (p - y)^2                               no answer: 0
    log      R = y ln p' + (1 - y) ln(1 - p'), p' = clip(p)  no answer: ln eps
    J = E_y E_pi [R]                                         (sec. 3.3; Prop. 1: greatest where p = P(y = 1), surely)

The paper samples J by GRPO. Here the A answers are few enough to sum over, so J and its gradient are exact, and so is
KL(pi || start), the penalty that keeps a policy near the one it started from.

Departs from the paper: exact expectations by default (`grpo_loss` samples); the paper's k3 estimates the same KL;
advantages are not divided by the group's standard deviation: a function of its own, since it moves the fixed points off
P(y = 1).
Shapes: logps, start [B,A] log pi_i in nats, sum of pi_i at most 1; answers [A] in [0, 1]; vote [B] in [0, 1].
"""

from math import log

import torch
from torch import Tensor

from prefcore.data.types import LossOutput
from prefcore.engine.shapes import check_shapes, check_shares

NO_ANSWER = 1e-6  # least probability that is kept for "no answer", so that its logarithm is finite


def brier(answers: Tensor, vote: Tensor) -> Tensor:
    """Rewards [B,A+1] under the Brier rule, in [0, 1]; the last column is what no answer gets, 0.

    A vote between 0 and 1 (a mean of votes) gets the mean of the two rewards.
    """
    check_shapes("answers [A], vote [B]", answers, vote)
    check_shares(answers=answers, vote=vote)
    won, lost = 1 - (answers - 1) ** 2, 1 - answers**2
    return _mix(won, lost, vote, 0.0)


def logarithmic(answers: Tensor, vote: Tensor, *, eps: float) -> Tensor:
    """Rewards [B,A+1] under the log rule in nats, at most 0; answers are clipped to eps, 1 - eps; none gets ln eps."""
    check_shapes("answers [A], vote [B]", answers, vote)
    check_shares(answers=answers, vote=vote)
    if not 0 < eps < 0.5:
        raise ValueError(f"eps must be in (0, 0.5); got {eps}")
    kept = answers.clamp(eps, 1 - eps)
    return _mix(kept.log(), (1 - kept).log(), vote, log(eps))


def accuracy(answers: Tensor, vote: Tensor) -> Tensor:
    """Rewards [B,A+1] for being on the vote's side of 0.5 (0.5 itself: half). Not proper: any sure answer will do."""
    check_shapes("answers [A], vote [B]", answers, vote)
    check_shares(answers=answers, vote=vote)
    won = ((answers > 0.5).to(vote.dtype) + (answers >= 0.5).to(vote.dtype)) / 2
    return _mix(won, 1 - won, vote, 0.0)


def expected_loss(logps: Tensor, answers: Tensor, rewards: Tensor, start: Tensor, *, kl_weight: float) -> LossOutput:
    """-J + kl_weight x KL(pi || start), both summed exactly over all answers and no answer.

    With weight 0 its gradient is that of GRPO with A = R - mean and endless samples. That alone punishes scatter, so
    that a policy falls silent on the one best constant before it has learnt to tell pairs apart; the weight w stops it
    at pi ~ start x exp(R / w). rewards [B,A+1] as the rules above give them, start [B,A] the log-probabilities of the
    policy that learning began with. Returns losses [B], in the rule's unit, and `describe`'s numbers with the KL [B,4].
    """
    check_shapes("logps [B,A], start [B,A]", logps, start)
    away = divergence(logps, start)
    numbers = torch.cat([describe(logps, answers, rewards), away.detach()[:, None]], 1)
    return LossOutput(kl_weight * away - _expected(logps, rewards), numbers)


def std_normalised_loss(
    logps: Tensor, answers: Tensor, rewards: Tensor, start: Tensor, *, kl_weight: float
) -> LossOutput:
    """`expected_loss` with J over the reward's standard deviation, a constant: classic GRPO's A = (R - mean) / std.

    The division weighs y = 1 and y = 0 differently, so the fixed point is no longer P(y = 1): it is over-confident.
    """
    mean = _expected(logps, rewards)
    pi = complete(logps).detach().exp()
    spread = ((pi * rewards**2).sum(1) - mean.detach() ** 2).clamp(min=1e-12).sqrt()
    losses = kl_weight * divergence(logps, start) - mean / spread
    return LossOutput(losses, describe(logps, answers, rewards))


def divergence(logps: Tensor, start: Tensor) -> Tensor:
    """KL(pi || start) [B] in nats over the answers and no answer."""
    own, other = complete(logps), complete(start)
    return (own.exp() * (own - other)).sum(1)


def sft_loss(logps: Tensor, answers: Tensor, share: Tensor) -> LossOutput:
    """-log pi of the answer nearest to the mean vote `share` [B]: next-token cross-entropy on its digits (sec. 3.2).

    For the cross-entropy 0.7 and 0.8 are as unlike as 0.7 and 0.1.
    """
    check_shapes("logps [B,A], answers [A], share [B]", logps, answers, share)
    check_shares(share=share)
    nearest = (answers[None] - share[:, None]).abs().argmin(1)
    losses = -logps.gather(1, nearest[:, None]).squeeze(1)
    return LossOutput(losses, describe(logps, answers, brier(answers, share)))


def smoothed_loss(logps: Tensor, answers: Tensor, share: Tensor, *, width: float) -> LossOutput:
    """KL(q || pi) [B] in nats, q a Gaussian of standard deviation `width` around the share, cut off to the answers.

    So that near numbers are near, and far ones keep some chance: there is something to draw from later. It is 0 where
    the policy writes q itself. Departs from the paper: not in it.
    """
    check_shapes("logps [B,A], answers [A], share [B]", logps, answers, share)
    check_shares(share=share)
    if width <= 0:
        raise ValueError(f"the width of the target is {width}; give one above 0")
    target = (-0.5 * ((answers[None] - share[:, None]) / width) ** 2).log_softmax(1)
    losses = (target.exp() * (target - logps)).sum(1)
    return LossOutput(losses, describe(logps, answers, brier(answers, share)))


def advantages(rewards: Tensor) -> Tensor:
    """A = R - mean over the G samples of a prompt, [B,G]."""
    check_shapes("rewards [B,G]", rewards)
    return rewards - rewards.mean(1, keepdim=True)


def normalised_advantages(rewards: Tensor) -> Tensor:
    """Classic GRPO: A = (R - mean) / std over the samples of a prompt, [B,G]; 0 where all rewards agree."""
    centred = advantages(rewards)
    return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-8)


def grpo_loss(
    logps: Tensor, old_logps: Tensor, ref_logps: Tensor, advantage: Tensor, *, clip: float, kl_weight: float
) -> LossOutput:
    """-min(rho A, clip(rho, 1 - clip, 1 + clip) A) + kl_weight x k3, mean over the G samples of a prompt.

    rho = exp(logps - old_logps), k3 = exp(ref - logps) - (ref - logps) - 1 (Shao et al. 2024, arXiv 2402.03300).
    logps, old_logps, ref_logps, advantage [B,G]: of the sampled answers, under the policy, the policy that drew them,
    and the reference. Returns losses [B] and, as rewards [B,3], mean ratio, mean advantage and mean k3.
    """
    check_shapes(
        "logps [B,G], old_logps [B,G], ref_logps [B,G], advantage [B,G]", logps, old_logps, ref_logps, advantage
    )
    ratio, advantage = (logps - old_logps.detach()).exp(), advantage.detach()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    behind = ref_logps.detach() - logps
    k3 = behind.exp() - behind - 1
    losses = (kl_weight * k3 - surrogate).mean(1)
    return LossOutput(losses, torch.stack([ratio.mean(1), advantage.mean(1), k3.mean(1)], 1).detach())


def complete(logps: Tensor) -> Tensor:
    """The answers' log-probabilities with that of no answer as the last column, [B,A] -> [B,A+1]."""
    whole = logps.logsumexp(1, keepdim=True).clamp(max=log(1 - NO_ANSWER))
    return torch.cat([logps, torch.log(-torch.expm1(whole))], 1)


def describe(logps: Tensor, answers: Tensor, rewards: Tensor) -> Tensor:
    """[B,3], no gradient: expected reward, standard deviation of the answer if there is one, P(no answer)."""
    pi = logps.detach().exp()
    answered = pi.sum(1)
    share = pi / answered.clamp(min=1e-12)[:, None]
    mean = (share * answers).sum(1)
    spread = ((share * answers**2).sum(1) - mean**2).clamp(min=0).sqrt()
    return torch.stack([_expected(logps.detach(), rewards), spread, (1 - answered).clamp(min=0)], 1)


def _expected(logps: Tensor, rewards: Tensor) -> Tensor:
    """E[R] [B] = R_none + sum_i pi_i (R_i - R_none): what is missing from 1 gets the last column's reward."""
    check_shapes("logps [B,A], rewards [B,C]", logps, rewards)
    if rewards.shape[1] != logps.shape[1] + 1:
        raise ValueError(f"rewards need one column more than logps, for no answer; got {rewards.shape}, {logps.shape}")
    none = rewards[:, -1:]
    return none[:, 0] + (logps.exp() * (rewards[:, :-1] - none)).sum(1)


def _mix(won: Tensor, lost: Tensor, vote: Tensor, none: float) -> Tensor:
    rewards = vote[:, None] * won + (1 - vote[:, None]) * lost
    return torch.cat([rewards, rewards.new_full((len(vote), 1), none)], 1)
