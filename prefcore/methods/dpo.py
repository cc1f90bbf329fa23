"""DPO: direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290). The worked example of a method."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from prefcore.data.types import LossOutput
from prefcore.engine.shapes import check_shapes


def loss(logps: Tensor, ref_logps: Tensor, *, beta: float) -> LossOutput:
    """-log sigmoid(margin), where margin = reward of chosen - reward of rejected (eq. 7).

    logps, ref_logps [B,2]: summed log-probabilities (nats) of chosen, rejected under the policy and the reference.
    beta: how strongly the policy is tied to the reference; a reward is beta x (policy - reference) log-probability.
    Returns losses [B] and rewards [B,2]. Raises ValueError if the shapes differ.
    """
    check_shapes("logps [B,2], ref_logps [B,2]", logps, ref_logps)
    rewards = beta * (logps - ref_logps)
    margin = rewards[:, 0] - rewards[:, 1]
    return LossOutput(-logsigmoid(margin), rewards.detach())


def weighted_loss(logps: Tensor, ref_logps: Tensor, weight: Tensor, *, beta: float) -> LossOutput:
    """DPO's losses x weight [B] (a constant; not normalised: weights of mean 1 keep the learning rate's meaning)."""
    check_shapes("logps [B,2], ref_logps [B,2], weight [B]", logps, ref_logps, weight)
    losses, rewards = loss(logps, ref_logps, beta=beta)
    return LossOutput(weight.detach() * losses, rewards)


def conservative_loss(logps: Tensor, ref_logps: Tensor, *, beta: float, label_smoothing: float) -> LossOutput:
    """DPO when a share `label_smoothing` of the pairs, in [0, 0.5), is taken to be labelled the wrong way round.

    (1 - label_smoothing) x DPO + label_smoothing x DPO of the swapped pair (cDPO, Mitchell 2023); it is least at
    margin = logit(1 - label_smoothing), a finite one. Shapes as in `loss`.
    """
    check_shapes("logps [B,2], ref_logps [B,2]", logps, ref_logps)
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5); got {label_smoothing}: swap the pairs if above")
    losses, rewards = loss(logps, ref_logps, beta=beta)
    swapped = loss(logps.flip(1), ref_logps.flip(1), beta=beta).losses
    return LossOutput((1 - label_smoothing) * losses + label_smoothing * swapped, rewards)
