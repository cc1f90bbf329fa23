"""The cheap twin: the judge's states are computed once, and only the ten digits' rows of its head are trained.

A change of the head [H, 10] is all that is learnt, so a run takes seconds and many seeds go side by side: what the
whole model cannot afford (twenty seeds, a diagram of rate x steps x KL) is affordable here. What the twin cannot do is
change what the states say of the texts. Objectives are those of the arms.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefcore.data.types import LossOutput
from prefcore.engine.progress import track
from prefcore.methods.autoraters import losses, readout
from prefcore.methods.autoraters.labels import Labels
from prefcore.methods.autoraters.tree import ANSWERS, States, answer_logps


def write(states: States, rows: Tensor, head: Tensor, change: Tensor) -> Tensor:
    """Log-probabilities [S, B, 99] of the answers by S twins, each to its own rows [S, B] of the states.

    head [10, H]: the digits' rows of the output embedding; change [S, H, 10]: what each twin adds to them.
    """
    digits = states.digits[rows]  # [S, B, 11, H]
    logits = digits @ head.T + torch.einsum("sbph,shd->sbpd", digits, change)
    whole = torch.cat([logits, states.other[rows][..., None]], -1).log_softmax(-1)
    return answer_logps(whole[..., :10])


def write_all(states: States, head: Tensor, change: Tensor) -> Tensor:
    """Log-probabilities [n, 99] of one twin, change [H, 10], for all rows."""
    return write(states, torch.arange(len(states.other))[None], head, change[None])[0]


def batches(labels: Sequence[Labels], n: int, *, pairs: int, steps: int, both: bool = True) -> tuple[Tensor, Tensor]:
    """(rows [T, S, B] of the states of n pairs in both orders, their labels [T, S, B]) for T steps of S twins.

    A twin goes over its own labels in an order drawn anew each time. both: `pairs` pairs a step, each in both orders;
    else twice as many in the order in which they are.
    """
    size = pairs if both else 2 * pairs
    rows, share = [], []
    for s, own in enumerate(labels):
        rng = np.random.default_rng([s, 4])
        passes = -(-steps * size // len(own.at))
        order = np.concatenate([rng.permutation(len(own.at)) for _ in range(passes)])[: steps * size].reshape(steps, -1)
        at, label = own.at[order], own.share[order]
        rows.append(np.concatenate([at, n + at], 1) if both else at)
        share.append(np.concatenate([label, 1 - label], 1) if both else label)
    return torch.from_numpy(np.stack(rows, 1)), torch.from_numpy(np.stack(share, 1)).float()


def learn(
    states: States, head: Tensor, plan: tuple[Tensor, Tensor], objective: Callable, start: Tensor, *, rate: float,
    marks: Sequence[int] = (),
) -> dict[int, Tensor]:  # fmt: skip
    """The changes [S, H, 10] of S twins after each number of steps in `marks`, and at the end.

    start [H, 10]: where all begin. Adam at a constant rate, so that a path passes through all numbers of steps; a step
    changes a weight by about the rate, whatever the loss's unit.
    """
    return _descend(states, head, plan, lambda old, label: objective, start, rate=rate, marks=marks)


def learn_from_rollouts(
    states: States, head: Tensor, plan: tuple[Tensor, Tensor], start: Tensor, *, samples: int, updates: int,
    clip: float, kl_weight: float, rate: float, seed: int,
) -> dict[int, Tensor]:  # fmt: skip
    """`learn` by GRPO with the Brier reward: answers are drawn once a batch, and several updates learn from them."""
    source = torch.Generator().manual_seed(seed)

    def begin(old: Tensor, label: Tensor) -> Callable:
        rollout = draw(old, label, samples, source)
        return lambda *now: sampled(*now, rollout, clip=clip, kl_weight=kl_weight)

    return _descend(states, head, plan, begin, start, rate=rate, updates=updates)


class Rollout(NamedTuple):
    """Answers that were drawn, [B, G]: their places (99 is no answer), log-probabilities then, and advantages."""

    drawn: Tensor
    old: Tensor
    gain: Tensor


def draw(logps: Tensor, label: Tensor, samples: int, source: torch.Generator) -> Rollout:
    """G answers of each row, from the policy that gave logps [B, 99], with the Brier rule's advantages."""
    whole = losses.complete(logps.detach())
    drawn = torch.multinomial(whole.exp(), samples, replacement=True, generator=source)
    rewards = losses.brier(ANSWERS, label).gather(1, drawn)
    return Rollout(drawn, whole.gather(1, drawn), losses.advantages(rewards))


def sampled(
    logps: Tensor, answers: Tensor, label: Tensor, start: Tensor, rollout: Rollout, *, clip: float, kl_weight: float
) -> LossOutput:
    """The clipped loss of a rollout, whose ratio leaves 1 as soon as the policy is no longer the one that drew it."""
    own, ref = (losses.complete(x).gather(1, rollout.drawn) for x in (logps, start))
    return losses.grpo_loss(own, rollout.old, ref, rollout.gain, clip=clip, kl_weight=kl_weight)


def _descend(
    states: States, head: Tensor, plan: tuple[Tensor, Tensor], begin: Callable, start: Tensor, *, rate: float,
    marks: Sequence[int] = (), updates: int = 1,
) -> dict[int, Tensor]:  # fmt: skip
    """begin(log-probabilities at a batch's first update, labels) gives the objective of that batch."""
    reference = write_all(states, head, start)
    change = start.expand(plan[0].shape[1], *start.shape).clone().requires_grad_()
    optimiser, kept = torch.optim.Adam([change], rate), {}
    for step, (rows, label) in enumerate(track(list(zip(*plan, strict=True)), "twins"), 1):
        objective = None
        for _ in range(updates):
            logps = write(states, rows, head, change).flatten(0, 1)
            objective = objective or begin(logps.detach(), label.flatten())
            values = objective(logps, ANSWERS, label.flatten(), reference[rows.flatten()]).losses
            optimiser.zero_grad()
            (values.sum() / rows.shape[1]).backward()  # the mean of each twin, so that none feels how many there are
            optimiser.step()
        if step in marks or step == len(plan[0]):
            kept[step] = change.detach().clone()
    return kept


def agreement(states: States, head: Tensor, begin: Tensor, objective: Callable, labels: Labels, *, both: bool) -> float:
    """How much of the first step is the same for all pairs: |mean gradient|^2 over the mean of |gradient|^2.

    1 where every pair pulls in one direction, 1 / pairs where all directions are unrelated, 0 where they cancel. both:
    the gradient of a pair is that of both of its orders, which takes away what is about the place of a text.
    """
    n, total, length = len(states.other) // 2, torch.zeros_like(begin), 0.0
    for at, label in zip(labels.at.tolist(), labels.share.tolist(), strict=True):
        rows, share = ([at, n + at], [label, 1 - label]) if both else ([at], [label])
        change = begin.clone().requires_grad_()
        logps = write(states, torch.tensor([rows]), head, change[None])[0]
        loss = objective(logps, ANSWERS, torch.tensor(share), logps.detach()).losses.mean()
        (slope,) = torch.autograd.grad(loss, change)
        total, length = total + slope, length + float(slope.square().sum())
    return float((total / len(labels.at)).square().sum()) / (length / len(labels.at))


def say(states: States, head: Tensor, changes: Tensor) -> np.ndarray:
    """What each twin, changes [S, H, 10], writes greedily of n pairs: [S, 2, n], as they are and exchanged."""
    with torch.no_grad():
        chances = [write_all(states, head, change).double().exp().numpy() for change in changes]
    return np.stack([readout.greedy(one).reshape(2, -1) for one in chances])


def errors(said: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mean squared distance [S] from the share [n] for the second text, both orders, of what twins say [S, 2, n]."""
    return ((said[:, 0] - share) ** 2 + (1 - said[:, 1] - share) ** 2).mean(1) / 2


def spread(said: np.ndarray) -> np.ndarray:
    """Standard deviation [S] over pairs of what each twin says, both orders averaged: 0 for a constant."""
    return ((said[:, 0] + 1 - said[:, 1]) / 2).std(1)
