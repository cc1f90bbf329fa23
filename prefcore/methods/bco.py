"""BCO: binary classifier optimisation (Jung et al., arXiv 2404.04656), in its two published forms.

`loss` is the ACL 2025 text (class means, shift by moving average); `pooled_loss` is arXiv v1 as its authors put it into
TRL (mean over rows, running mean of all rewards, thumbs-down rows weighted by underlying distribution matching).
The shift is a constant in reward units (beta included), computed before the loss:

    rewards = beta * (logps - ref_logps)
    shift = update_ema(shift, class_mean_shift(rewards, label), decay=decay)

Keep it, or the averages it comes from, in the training state: a resumed run that forgets it trains on another loss.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefcore.data import views
from prefcore.data.types import LossOutput, Pair, Ranked, Unary
from prefcore.engine.aggregate import find_positives, scale_to_class_means
from prefcore.engine.ranks import sum_over_ranks
from prefcore.engine.shapes import check_shapes, check_shares


def loss(
    logps: Tensor, ref_logps: Tensor, label: Tensor, shift: Tensor, weight: Tensor, *, beta: float
) -> LossOutput:
    """The ACL form: the losses' mean over the batch is E+[-log sigmoid(r - shift)] + E-[-log sigmoid(shift - r)].

    E+ and E- are the means over thumbs-up and thumbs-down rows; a class without rows contributes 0. Arguments as in
    `pooled_loss`. Departs from the paper: thumbs-down rows may be weighted (the ACL text has no weights: pass ones),
    and classes are balanced by their means where the paper oversamples thumbs-up.
    """
    losses, rewards = pooled_loss(logps, ref_logps, label, shift, weight, beta=beta)
    return LossOutput(scale_to_class_means(losses, find_positives(label)), rewards)


def pooled_loss(
    logps: Tensor, ref_logps: Tensor, label: Tensor, shift: Tensor, weight: Tensor, *, beta: float
) -> LossOutput:
    """The arXiv v1 form: -log sigmoid(r - shift) for thumbs-up, -weight x log sigmoid(shift - r) for thumbs-down.

    r = beta x (policy - reference) log-probability. logps, ref_logps [B,1]: summed log-probabilities (nats). label [B]:
    1 thumbs-up, 0 thumbs-down. shift []: in reward units, a constant. weight [B]: from `density_ratio_weights`, or
    ones; a constant, read on thumbs-down rows only. Returns losses [B], to be averaged over all rows, and
    rewards [B,1].
    """
    expected = "logps [B,1], ref_logps [B,1], label [B], shift [], weight [B]"
    check_shapes(expected, logps, ref_logps, label, shift, weight)
    positive = find_positives(label)
    rewards = beta * (logps - ref_logps)
    lead = rewards[:, 0] - shift.detach()
    weight = torch.where(positive, 1, weight.detach())
    losses = -weight * logsigmoid(torch.where(positive, lead, -lead))
    return LossOutput(losses, rewards.detach())


def class_mean_shift(rewards: Tensor, label: Tensor) -> Tensor | None:
    """The average of the two class means of rewards [B,1]: a 0-d constant. None where the batch lacks a class.

    None because one class alone says nothing about the middle; `update_ema` then keeps the shift. If batches of one
    class are the rule (batch of one, rare thumbs-up), use `update_class_means`.
    """
    check_shapes("rewards [B,1], label [B]", rewards, label)
    sums, counts = _class_sums(rewards, label)
    return None if (counts == 0).any() else (sums / counts).mean()


def update_ema(shift: Tensor, new: Tensor | None, *, decay: float) -> Tensor:
    """decay x shift + (1 - decay) x new, all 0-d; the shift as it was when new is None.

    Start from 0: at the first step policy and reference agree and every reward is 0.
    Departs from the paper: its text names the moving average but no decay, so the decay is our parameter.
    """
    return shift if new is None else _mix(shift, new, decay)


def update_class_means(
    up: Tensor, down: Tensor, rewards: Tensor, label: Tensor, *, decay: float
) -> tuple[Tensor, Tensor]:
    """Moving averages of the two class means (0-d each); the shift is (up + down) / 2.

    A class without rows in the batch keeps its average. The same as `update_ema` of `class_mean_shift` while every
    batch has both classes, and it also learns from batches of one class. rewards [B,1], label [B].
    """
    check_shapes("up [], down [], rewards [B,1], label [B]", up, down, rewards, label)
    sums, counts = _class_sums(rewards, label)
    up, down = (
        _mix(old, total / count, decay) if count else old
        for old, total, count in zip((up, down), sums, counts, strict=True)
    )
    return up, down


def update_cumulative(total: Tensor, count: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """TRL's running mean over all rewards ever seen, both classes pooled; the shift is total / count (0-d each).

    Update with the batch first, then use the shift; not in evaluation. rewards [B,1]. Start both from 0. In float32 the
    count is exact up to 2^24 rows, and stops growing there.
    """
    check_shapes("total [], count [], rewards [B,1]", total, count, rewards)
    new = sum_over_ranks(torch.stack([rewards.sum(), rewards.new_tensor(float(rewards.numel()))]))
    return total + new[0], count + new[1]


def density_ratio_weights(prob: Tensor, *, minimum: float, maximum: float) -> Tensor:
    """prob / (1 - prob), clipped to [minimum, maximum]: weights [B], which the losses apply to thumbs-down rows only.

    prob [B]: the classifier's probability that the row's prompt comes from the thumbs-up prompts.
    """
    check_shapes("prob [B]", prob)
    check_shares(probabilities=prob)
    return (prob / (1 - prob + 1e-8)).clamp(minimum, maximum).detach()


def normalise_weights(ratio: Tensor, label: Tensor) -> Tensor:
    """Weights [B] of all rows of a data set: the ratio over its mean on thumbs-down rows, so 1 there on average.

    1 for thumbs-up rows. ratio [B]: the density ratio of each row's prompt, estimated or known; label [B]. Departs from
    the authors' code, whose weights also change how much the thumbs-down count altogether.
    """
    check_shapes("ratio [B], label [B]", ratio, label)
    positive = find_positives(label)
    if positive.all() or ratio[~positive].mean() <= 0:
        raise ValueError("no thumbs-down row has a density ratio above 0: give both classes, and clip the ratio")
    return torch.where(positive, 1.0, ratio / ratio[~positive].mean())


def fit_prompt_classifier(
    embeddings: ArrayLike, labels: ArrayLike, *, seed: int, sample_size: int
) -> LogisticRegression:
    """A classifier of prompts; `predict_proba(embeddings)[:, 1]` is P(prompt of the thumbs-up set).

    embeddings [N,D] of the prompts alone, labels [N] 1 or 0. Fitted once, before training, on `sample_size` prompts of
    each class drawn with replacement; so the weights are plain columns of the data, and no checkpoint needs them.
    """
    embeddings, labels = np.asarray(embeddings), np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or set(labels.tolist()) != {0, 1}:
        raise ValueError("expected embeddings [N,D] and labels [N] with both 0 and 1 and nothing else; got "
                         f"{list(embeddings.shape)} and {list(labels.shape)} with {np.unique(labels)[:5].tolist()}")
    positive = labels == 1
    generator = np.random.default_rng(seed)
    rows = np.concatenate([generator.choice(np.flatnonzero(side), sample_size) for side in (positive, ~positive)])
    return LogisticRegression(class_weight="balanced", max_iter=1000).fit(embeddings[rows], positive[rows])


def draw_mixture(
    ranked: Sequence[Ranked], size: int, seed: int, *, up_domain: str, down_domain: str, share: float
) -> list[Unary]:
    """`size` thumbs of two domains, half of them up: the classes differ in their prompts, and overlap.

    `share` of the thumbs-up come from up_domain and the others from down_domain; of the thumbs-down the reverse. The
    labels are within the prompt: of two answers to it either the better is a row, thumbs-up, or the worse, thumbs-down.
    No answer is used twice; a prompt gives a second row only where a domain has too few prompts. Drawn anew for each
    seed. ValueError where there are too few answers.
    """
    if size < 2 or size % 2 or not 0 < share < 1 or up_domain == down_domain:
        raise ValueError(
            f"size {size}, share {share}, domains {up_domain!r} and {down_domain!r}: give an even number of rows, a "
            "share between 0 and 1, and two domains"
        )
    rng, half = np.random.default_rng([seed, size]), size // 2
    most = round(share * half)
    rows = []
    for domain, ups in ((up_domain, most), (down_domain, half - most)):
        pairs = _disjoint_pairs([row for row in ranked if row.domain == domain], rng)
        if len(pairs) < half:
            raise ValueError(
                f"{half} rows of the domain {domain!r} are wanted, and its prompts make {len(pairs)} pairs; the "
                f"domains are {sorted({row.domain for row in ranked})}: ask for fewer rows, or sample more prompts"
            )
        dealt = [pairs[i] for i in rng.permutation(half).tolist()]
        rows += [views.pairs_to_unary([pair])[0 if k < ups else 1] for k, pair in enumerate(dealt)]
    return rows


def _class_sums(rewards: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Sums [2] and counts [2] of rewards [B,1] over thumbs-up and thumbs-down rows, of all ranks."""
    positive, rewards = find_positives(label), rewards.detach()[:, 0]
    sums = torch.stack([rewards[positive].sum(), rewards[~positive].sum()])
    return sum_over_ranks(sums), sum_over_ranks(torch.stack([positive.sum(), (~positive).sum()]))


def _mix(old: Tensor, new: Tensor, decay: float) -> Tensor:
    check_shapes("old [], new []", old, new)
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1); got {decay}")
    return decay * old + (1 - decay) * new.detach()


def _disjoint_pairs(ranked: Sequence[Ranked], rng: np.random.Generator) -> list[Pair]:
    """Pairs of two random answers, none of them in two pairs: first one of each prompt, then a second one, and so on.

    The better answer is chosen; two that score alike are no pair. Prompts come in a random order.
    """
    orders = [(ranked[n], rng.permutation(len(ranked[n].scores)).tolist()) for n in rng.permutation(len(ranked))]
    pairs = []
    for k in range(max((len(order) // 2 for _, order in orders), default=0)):
        for row, order in orders:
            both = sorted(order[2 * k : 2 * k + 2], key=lambda i: -row.scores[i])
            if len(both) == 2 and row.scores[both[0]] > row.scores[both[1]]:
                pairs.append(views.pair_of(row, *both))
    return pairs
