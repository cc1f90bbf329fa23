"""MiCRo: a mixture of Bradley-Terry heads and a context-aware router (Shen et al. 2025, arXiv 2505.24846).

Frozen text vectors h, K linear heads r_k = <u_k, h>, a router f over the heads that reads the prompt (and a context),
never a response. `margins` [B,K] are r_k(preferred) - r_k(other) of each head; `router_logits` [B,K] give
f = softmax(router_logits). All losses are in nats per example [B], computed in log space.

Departs from the paper: the hedge targets use the heads' losses on the plain texts (the paper's text and its Algorithm 1
disagree), as in stage 1. Departs from the released code: each example has its own router weights (the code reads those
of the first in the batch), the router never sees a token of a response (the code's index is one too far), and a pair is
judged by the mixture's probability (the code compares sums of log-sigmoids).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefcore.engine.shapes import check_shapes


class MixtureLoss(NamedTuple):
    """Per example [B]: losses = nll + alpha x negative_entropy."""

    losses: Tensor
    nll: Tensor
    negative_entropy: Tensor


class Floor(NamedTuple):
    """Per pair [B], nats: lowest = entropy + information is the least cross-entropy without knowing the group."""

    lowest: Tensor
    entropy: Tensor
    information: Tensor
    pinsker: Tensor


def log_mixture(router_logits: Tensor, margins: Tensor) -> Tensor:
    """log P(preferred beats other) = log sum_k f_k sigmoid(margin_k), [B,K], [B,K] -> [B]."""
    check_shapes("router_logits [B,K], margins [B,K]", router_logits, margins)
    return torch.logsumexp(router_logits.log_softmax(1) + logsigmoid(margins), dim=1)


def mixture_loss(router_logits: Tensor, margins: Tensor, *, alpha: float) -> MixtureLoss:
    """Stage 1 (eq. 3): -log sum_k f_k sigmoid(margin_k) + alpha sum_k f_k log f_k.

    router_logits, margins [B,K]. alpha >= 0 pushes the router towards equal weights; the second term lies in
    [-log K, 0]. With K = 1 this is Bradley-Terry. Raises ValueError if the shapes differ or alpha is negative.
    """
    nll = -log_mixture(router_logits, margins)
    if not alpha >= 0:
        raise ValueError(f"alpha is {alpha}; it must be 0 or more, as a negative one rewards a router of one head")
    log_weights = router_logits.log_softmax(1)
    negative_entropy = (log_weights.exp() * log_weights).sum(1)
    return MixtureLoss(nll + alpha * negative_entropy, nll, negative_entropy)


def static_loss(weight_logits: Tensor, margins: Tensor) -> Tensor:
    """The static mixture: as stage 1 without entropy term, with the same weights for every prompt.

    weight_logits [K], margins [B,K] -> losses [B].
    """
    check_shapes("weight_logits [K], margins [B,K]", weight_logits, margins)
    return -log_mixture(weight_logits.expand_as(margins), margins)


def bradley_terry_loss(margins: Tensor) -> Tensor:
    """One reward for all (the baseline): -log sigmoid(margin), margins [B,1] -> [B]."""
    check_shapes("margins [B,1]", margins)
    return -logsigmoid(margins[:, 0])


def shared_base_loss(margins: Tensor, prior_margins: Tensor) -> Tensor:
    """K Bradley-Terry losses on the same examples, summed: each head is a trained part + a frozen random prior.

    margins [B,K] of the trained parts, prior_margins [B,K] of the priors (no gradient) -> [B].
    A trained part that starts at 0 beside a frozen prior takes the same steps as a head that starts at its prior (as
    long as weights do not decay), so zeros may stand for prior margins that the heads already hold.
    """
    check_shapes("margins [B,K], prior_margins [B,K]", margins, prior_margins)
    return -logsigmoid(margins + prior_margins.detach()).sum(1)


def head_losses(margins: Tensor) -> Tensor:
    """L_ik = -log sigmoid(margin_ik): how badly each head explains each pair, [B,K], no gradient."""
    check_shapes("margins [B,K]", margins)
    return -logsigmoid(margins).detach()


def hedge_targets(router_logits: Tensor, margins: Tensor, *, tau: float) -> Tensor:
    """Stage 2 (eq. 5): the weights that are best for each example, f_k exp(-L_k / tau) over its sum, [B,K].

    They minimise `hedge_objective` with prior f. Computed in log space: at the paper's tau of 1e-3 or 1e-4 they are
    nearly one-hot on the head with the least loss. No gradient. Raises ValueError unless tau > 0.
    """
    check_shapes("router_logits [B,K], margins [B,K]", router_logits, margins)
    _check_tau(tau)
    return (router_logits.detach().log_softmax(1) - head_losses(margins) / tau).softmax(1)


def hedge_objective(weights: Tensor, prior: Tensor, losses: Tensor, *, tau: float) -> Tensor:
    """sum_k w_k L_k + tau KL(w || prior) (eq. 4), per example: weights, prior, losses [B,K] -> [B].

    Its first term is never below the mixture's negative log-likelihood (Jensen).
    """
    check_shapes("weights [B,K], prior [B,K], losses [B,K]", weights, prior, losses)
    _check_tau(tau)
    divergence = (torch.special.xlogy(weights, weights) - torch.special.xlogy(weights, prior)).sum(1)
    return (weights * losses).sum(1) + tau * divergence


def router_loss(router_logits: Tensor, targets: Tensor) -> Tensor:
    """Stage 2: cross-entropy of the router with its hedge targets (constants), [B,K], [B,K] -> [B]."""
    check_shapes("router_logits [B,K], targets [B,K]", router_logits, targets)
    return -(targets.detach() * router_logits.log_softmax(1)).sum(1)


def hyre_weights(margins: Tensor) -> Tensor:
    """HyRe (arXiv 2412.08812): weights of K heads from n labelled pairs, exp(-sum of its losses), margins [n,K] -> [K].

    One set of weights for all prompts. No pair at all gives equal weights.
    """
    return (-head_losses(margins).sum(0)).softmax(0)


def predict(router_logits: Tensor, margins: Tensor) -> Tensor:
    """P(preferred beats other) of the mixture, [B]. Swapping the two texts (margins -> -margins) gives 1 - P."""
    return log_mixture(router_logits, margins).exp()


def score(router_logits: Tensor, rewards: Tensor) -> Tensor:
    """The mixture's reward of single texts: sum_k f_k r_k, rewards [B,K] -> [B]."""
    check_shapes("router_logits [B,K], rewards [B,K]", router_logits, rewards)
    return (router_logits.softmax(1) * rewards).sum(1)


def responsibilities(router_logits: Tensor, margins: Tensor) -> Tensor:
    """P(head k | pair and its label), f_k sigmoid(margin_k) over its sum, [B,K]: a head near 0 no longer learns."""
    check_shapes("router_logits [B,K], margins [B,K]", router_logits, margins)
    return (router_logits.log_softmax(1) + logsigmoid(margins)).softmax(1).detach()


def mask_unsafe(router_logits: Tensor, safety_margins: Tensor, *, least: float) -> Tensor:
    """Router logits [B,K] without the heads that are right on less than `least` of a safety set; the rest renormalises.

    safety_margins [n,K]: margins of pairs whose safe answer is the first. Raises ValueError if no head is left.
    """
    check_shapes("router_logits [B,K], safety_margins [n,K]", router_logits, safety_margins)
    share = (safety_margins > 0).double().mean(0)
    if not (share >= least).any():
        raise ValueError(f"no head is right on {least:g} of the safety pairs; the best is on {share.max():g}")
    return router_logits.masked_fill(share < least, float("-inf"))


def irreducible(group_shares: Tensor, preferences: Tensor) -> Floor:
    """What no reward can pass without knowing who votes (Theorem 3.2, as an exact identity for each pair).

    group_shares [B,G] = P(z | prompt), rows sum to 1; preferences [B,G] = P(first preferred | pair, z).
    lowest = H(y | pair), entropy = H(y | pair, z), information = I(z; y | pair), their difference.
    pinsker = 2 Var_z(preferences), the theorem's lower bound of the information, with the groups' own shares.
    """
    check_shapes("group_shares [B,G], preferences [B,G]", group_shares, preferences)
    if not torch.allclose(group_shares.sum(1), torch.ones_like(group_shares[:, 0]), atol=1e-6):
        raise ValueError(f"group_shares must sum to 1 in each row; got {group_shares.sum(1).tolist()[:5]}")
    mean = (group_shares * preferences).sum(1)
    lowest, entropy = binary_entropy(mean), (group_shares * binary_entropy(preferences)).sum(1)
    pinsker = 2 * (group_shares * (preferences - mean[:, None]) ** 2).sum(1)
    return Floor(lowest, entropy, lowest - entropy, pinsker)


def binary_entropy(probability: Tensor) -> Tensor:
    """-[p log p + (1 - p) log(1 - p)] in nats, of any shape; 0 at p = 0 and p = 1."""
    return torch.special.entr(probability) + torch.special.entr(1 - probability)


def _check_tau(tau: float) -> None:
    if not tau > 0:
        raise ValueError(f"tau is {tau}; it must be above 0 (a small one takes the best head alone)")
