"""OSP: online self-preferring language models (Zhai et al. 2024, arXiv 2405.14103).

Only the paper's abstract was readable to us, no full text and no code. The equations here are our reading of it:
derived, not quoted. What the abstract says: the model judges its own samples, each preference keeps its strength,
several pairs come from one prompt by ranking, and the loss is a soft-preference cross-entropy. How is ours.
"""

from collections.abc import Sequence
from math import exp, log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefcore.data.types import LossOutput
from prefcore.engine.shapes import check_shapes, check_shares

RankedPair = tuple[int, int, float]  # index of the better answer, of the worse one, P(better beats worse)


def loss(logps: Tensor, ref_logps: Tensor, strength: Tensor, *, beta: float) -> LossOutput:
    """Soft-preference cross-entropy: -[P log sigmoid(margin) + (1 - P) log sigmoid(-margin)].

    margin = reward of the first answer - reward of the second. logps, ref_logps [B,2]: summed log-probabilities (nats).
    strength [B]: P = P(first beats second), in [0, 1], a constant. Returns losses [B] and rewards [B,2].
    It is least where margin = logit(P), a finite target: a pair beyond it is pulled back. P = 1 is DPO.
    """
    check_shapes("logps [B,2], ref_logps [B,2], strength [B]", logps, ref_logps, strength)
    check_shares(strength=strength)
    strength = strength.detach()
    rewards = beta * (logps - ref_logps)
    margin = rewards[:, 0] - rewards[:, 1]
    losses = -(strength * logsigmoid(margin) + (1 - strength) * logsigmoid(-margin))
    return LossOutput(losses, rewards.detach())


def kl_loss(logps: Tensor, ref_logps: Tensor, strength: Tensor, *, beta: float) -> LossOutput:
    """`loss` less its floor, the entropy of the strength: KL(P || sigmoid(margin)), 0 at the target. Same gradients."""
    losses, rewards = loss(logps, ref_logps, strength, beta=beta)
    return LossOutput(losses - entropy(strength), rewards)


def entropy(strength: Tensor) -> Tensor:
    """-[P log P + (1 - P) log(1 - P)] in nats, [B] -> [B] (0 at P = 0 and P = 1): the least value `loss` can take."""
    check_shapes("strength [B]", strength)
    check_shares(strength=strength)
    strength = strength.detach()
    return torch.special.entr(strength) + torch.special.entr(1 - strength)


def debias(p_ab: Tensor, p_ba: Tensor) -> Tensor:
    """P(a beats b) without the judge's taste for a position: the mean over both orders of presentation.

    p_ab [B]: P(first shown wins) when a is shown first; p_ba [B]: the same when b is. Gives (p_ab + 1 - p_ba) / 2, [B].
    """
    check_shapes("p_ab [B], p_ba [B]", p_ab, p_ba)
    check_shares(p_ab=p_ab, p_ba=p_ba)
    return ((p_ab + 1 - p_ba) / 2).detach()


def debias_logits(p_ab: Tensor, p_ba: Tensor, *, clip: float) -> Tensor:
    """As `debias`, averaging logits: a bias that is a constant on the logit scale cancels exactly.

    The probabilities are clipped to [clip, 1 - clip] first: a saturated judge has no finite logit.
    """
    check_shapes("p_ab [B], p_ba [B]", p_ab, p_ba)
    check_shares(p_ab=p_ab, p_ba=p_ba)
    _check_clip(clip)
    logits = [torch.logit(p.detach().clamp(clip, 1 - clip)) for p in (p_ab, p_ba)]
    return torch.sigmoid((logits[0] - logits[1]) / 2)


def ranked_pairs(win_probability: Sequence[float], *, clip: float) -> list[RankedPair]:
    """Every pair of one prompt's K answers as (better, worse, strength), from K judgements instead of K(K-1)/2.

    win_probability: for each answer P(it beats the common baseline answer). By Bradley-Terry transitivity the strength
    is sigmoid(logit(p_better) - logit(p_worse)), at least 0.5. Probabilities are clipped to [clip, 1 - clip] before the
    logit. Pairs come best first; equal answers keep their order and get 0.5. K of 0 or 1 gives no pairs.
    """
    _check_clip(clip)
    if strange := [p for p in win_probability if not 0 <= p <= 1]:
        raise ValueError(f"win probabilities must be in [0, 1]; got {strange}")
    clipped = [min(max(p, clip), 1 - clip) for p in win_probability]
    logits = [log(p) - log(1 - p) for p in clipped]
    order = sorted(range(len(logits)), key=lambda i: -win_probability[i])
    return [
        (better, worse, 1 / (1 + exp(logits[worse] - logits[better])))
        for rank, better in enumerate(order)
        for worse in order[rank + 1:]
    ]


def drop_near_ties(pairs: Sequence[RankedPair], *, threshold: float) -> list[RankedPair]:
    """The pairs whose strength is at least `threshold` away from 0.5; the others would only pull to the reference."""
    return [pair for pair in pairs if abs(pair[2] - 0.5) >= threshold]


def _check_clip(clip: float) -> None:
    if not 0 < clip < 0.5:
        raise ValueError(f"clip must be in (0, 0.5); got {clip}")
