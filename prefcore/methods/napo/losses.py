"""NaPO: noise-aware preference optimisation against biases (Zhang et al., CVPR 2025, arXiv 2503.17928).

An example is a picture with a question and four answers: chosen, rejected, language-biased (written without the
picture) and vision-biased (written without the question). z is always a margin of rewards: beta x (log-ratio of the
better answer - log-ratio of the other).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefcore.data.types import LossOutput
from prefcore.engine.ranks import mean_over_ranks, sum_over_ranks
from prefcore.engine.shapes import check_shapes
from prefcore.methods import dpo

LOWEST, RELEASED_LOWEST = 0.01, 0.001  # q and weights stay in [0.01, 1] in the paper, q in [0.001, 1] in the code
NOTHING = 1e-6  # a sum of margins up to here is none: 0/0 at the first step

# --- losses of a margin z [B] -> [B], before any reduction ----------------------------------------------------------


def napo_losses(z: Tensor, q: Tensor) -> Tensor:
    """(1 - sigmoid(z)^q) / q, the negative Box-Cox transform of the likelihood. z [B]; q [] in (0, 1]:, fixed.

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


# --- the objective --------------------------------------------------------------------------------------------------


def loss(
    logps: Tensor, ref_logps: Tensor, direction: Tensor, weights: Tensor, language: Callable, vision: Callable, *,
    beta: float,
) -> LossOutput:
    """weights . (DPO(chosen, rejected), language(chosen, language-biased), vision(chosen, vision-biased)).

    logps, ref_logps [B,4]: summed log-probabilities (nats) of chosen, rejected, language-biased, vision-biased, all
    under picture and question. direction [B,2] of the two biased pairs: 1; -1 where the label is flipped (injected
    noise); 0 where there is no pair, as both answers are the same. weights [3]: constants, from `fixed_weights` or
    `dynamic_weights`. language, vision: one of the losses of a margin. The first pair is taken to be clean: it keeps
    DPO. Returns losses [B] and rewards [B,4].
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


def mae_loss(logps: Tensor, ref_logps: Tensor, *, beta: float) -> LossOutput:
    """`pair_loss` at q = 1: 1 - sigmoid of the margin."""
    return pair_loss(logps, ref_logps, torch.ones((), dtype=logps.dtype, device=logps.device), beta=beta)


Rule = Callable[["Margins"], tuple[Sequence[Callable], Tensor]]  # margins -> the two losses, and their q [2]


def step(
    logps: Tensor, ref_logps: Tensor, batch: Mapping, rule: Rule, weigh: Callable, *, beta: float
) -> tuple[LossOutput, dict[str, Tensor]]:
    """`loss` with what this batch says of q and weights; and the numbers behind it, by name, 0-d.

    batch: lengths [B,4]; language, vision [B]: the direction of the two biased pairs. rule: `at_q` of a q rule, or any
    other pair of losses; weigh(margins) -> weights [3]. Numbers: q_*, weight_*, margin_* (beta x summed) and mean_*
    (beta x per token) of clean, language, vision.
    """
    direction = torch.stack([batch["language"], batch["vision"]], 1)
    margins = batch_margins(logps, ref_logps, batch["lengths"], direction)
    (pairs, q), weights = rule(margins), weigh(margins)
    numbers = {"q_language": q[0], "q_vision": q[1]}
    for i, name in enumerate(("clean", "language", "vision")):
        numbers |= {f"weight_{name}": weights[i], f"margin_{name}": beta * margins.summed[i]}
        numbers |= {f"mean_{name}": beta * margins.mean[i]}
    return loss(logps, ref_logps, direction, weights, *pairs, beta=beta), numbers


NUMBERS = ("q_language", "q_vision", *(f"{kind}_{name}" for kind in ("weight", "margin", "mean")
                                       for name in ("clean", "language", "vision")))  # fmt: skip


def at_q(q: Tensor) -> tuple[list[Callable], Tensor]:
    """q [2], for the language-biased and the vision-biased pair, as a rule returns it: the losses there, and q itself.

    q = 0 is DPO.
    """
    check_shapes("q [2]", q)
    return [partial(napo_losses, q=one) if one > 0 else dpo_losses for one in q], q


def paper_q(margins: "Margins", *, beta: float, alphas: Sequence[float]) -> Tensor:
    """`adaptive_q` of both biased pairs, [2]: per token for language, summed for vision, each with its alpha."""
    language, vision = beta * margins.mean[1], beta * margins.summed[2]
    return torch.stack([adaptive_q(psi, alpha=a) for psi, a in zip((language, vision), alphas, strict=True)])


def code_q(margins: "Margins", *, alphas: Sequence[float]) -> Tensor:
    """`released_q` of both biased pairs, [2]; alphas of margins without beta."""
    found = (margins.mean[1], margins.summed[2])
    return torch.stack([released_q(margin, alpha=a) for margin, a in zip(found, alphas, strict=True)])


def mean_margin(logps: Tensor, ref_logps: Tensor, *, beta: float) -> Tensor:
    """psi [] of plain pairs: batch mean (all ranks) of beta x (log-ratio of chosen - of rejected), no gradient."""
    check_shapes("logps [B,2], ref_logps [B,2]", logps, ref_logps)
    ratios = logps - ref_logps
    return beta * mean_over_ranks(ratios[:, 0] - ratios[:, 1])


# --- statistics of the batch: constants of a step -------------------------------------------------------------------


class Margins(NamedTuple):
    """Means over the batch (all ranks) of the margins with their direction, without beta, in nats; no gradient.

    summed [3]: of whole answers, for the clean, the language-biased and the vision-biased pair. mean [3]: of the means
    per token (the paper's psi_mu).
    """

    summed: Tensor
    mean: Tensor


def batch_margins(logps: Tensor, ref_logps: Tensor, lengths: Tensor, direction: Tensor) -> Margins:
    """What q and the weights are made of. logps, ref_logps, lengths (tokens) [B,4]; direction [B,2] as in `loss`.

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
    """1 / mean absolute margin: with it alpha x a typical margin is 1. margins: of some training steps, finite.

    1 where all of them are 0: there were no such pairs, and alpha has no part.
    """
    size = sum(map(abs, margins)) / max(len(margins), 1)
    if not margins or not size < float("inf"):
        raise ValueError(f"{len(margins)} margins of mean size {size:g} have no scale: train for some steps first")
    return 1 / size if size > NOTHING else 1.0


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
