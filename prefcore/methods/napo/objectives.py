"""What an arm minimises: a rule for the losses of the two biased pairs, and a rule for the weights of all three.

Both read the batch's margins. `loss` is what the trainer calls; every number of an arm is in its settings, those of a
rule by functools.partial: {"rule": partial(fixed, q=0.5), "weigh": dynamic, "beta": 0.1}.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from prefcore.data.types import LossOutput
from prefcore.engine.train import update_state
from prefcore.methods.napo import losses
from prefcore.methods.napo.margins import (
    Margins,
    adaptive_q,
    batch_margins,
    dynamic_weights,
    fixed_weights,
    released_q,
)  # fmt: skip

PAIRS = ("clean", "language", "vision")
STATE = ("q_language", "q_vision", *(f"{kind}_{pair}" for kind in ("weight", "margin", "mean") for pair in PAIRS))


def loss(
    logps: Tensor, ref_logps: Tensor, batch: Mapping, state: Mapping, *, rule: Callable, weigh: Callable, beta: float
) -> LossOutput:
    """`losses.loss` with what this batch says of q and weights.

    logps, ref_logps [B,4]; batch: lengths [B,4] in tokens; language, vision [B]: the direction of the two biased pairs.
    rule(margins, beta=) -> (their two losses, their q [2]); weigh(margins, beta=) -> weights [3]. state gets the
    numbers that STATE names: q_*, weight_*, margin_* (beta x summed) and mean_* (beta x per token).
    """
    direction = torch.stack([batch["language"], batch["vision"]], 1)
    margins = batch_margins(logps, ref_logps, batch["lengths"], direction)
    (biased, q), weights = rule(margins, beta=beta), weigh(margins, beta=beta)
    numbers = {"q_language": q[0], "q_vision": q[1]}
    for i, pair in enumerate(PAIRS):
        numbers |= {f"weight_{pair}": weights[i], f"margin_{pair}": beta * margins.summed[i]}
        numbers |= {f"mean_{pair}": beta * margins.mean[i]}
    update_state(state, **numbers)
    return losses.loss(logps, ref_logps, direction, weights, *biased, beta=beta)


def imitation(logps: Tensor, ref_logps: Tensor, batch: Mapping, state: Mapping) -> LossOutput:
    """-log p of the right answer alone, no pair: the positive control. logps, ref_logps [B,4]."""
    return LossOutput(-logps[:, 0], (logps - ref_logps).detach())


# --- rules for the two biased pairs: (losses, q [2]) ----------------------------------------------------------------


def fixed(margins: Margins, *, beta: float, q: float) -> tuple[list[Callable], Tensor]:
    """The same q for both pairs at every step: 0 is DPO, 1 is the mean absolute error."""
    return _at_q(torch.full((2,), q))


def smoothed(margins: Margins, *, beta: float, label_smoothing: float) -> tuple[list[Callable], Tensor]:
    """cDPO: a known share of the labels is taken to be wrong."""
    return [partial(losses.cdpo_losses, label_smoothing=label_smoothing)] * 2, torch.zeros(2)


def paper(margins: Margins, *, beta: float, alphas: Sequence[float]) -> tuple[list[Callable], Tensor]:
    """The paper's q: from the margin per token for language, from the summed one for vision, each with its alpha."""
    psis = beta * margins.mean[1], beta * margins.summed[2]
    return _at_q(torch.stack([adaptive_q(psi, alpha=alpha) for psi, alpha in zip(psis, alphas, strict=True)]))


def released(margins: Margins, *, beta: float, alphas: Sequence[float]) -> tuple[list[Callable], Tensor]:
    """The released code's q from the same margins. It knows no beta there, so its alphas are scaled by beta here."""
    of_pairs = margins.mean[1], margins.summed[2]
    return _at_q(torch.stack([released_q(m, alpha=beta * alpha) for m, alpha in zip(of_pairs, alphas, strict=True)]))


def _at_q(q: Tensor) -> tuple[list[Callable], Tensor]:
    return [losses.at_q(one) for one in q], q


# --- rules for the weights of the three pairs: [3] ------------------------------------------------------------------


def constant(margins: Margins, *, beta: float, weights: Sequence[float]) -> Tensor:
    """The same weights at every step."""
    return fixed_weights(weights)


def dynamic(margins: Margins, *, beta: float) -> Tensor:
    """The paper's gamma: the pair that is learnt best weighs most."""
    return dynamic_weights(beta * margins.summed)
