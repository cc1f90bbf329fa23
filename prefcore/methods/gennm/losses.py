"""The two objectives: the likelihood of the true names, and SymPO's preference between two answers of the model."""

from prefcore.data.types import LossOutput
from prefcore.methods import dpo


def token_loss(logps, ref_logps, batch, state) -> LossOutput:
    """Negative log-likelihood per token of the batch, logps [B, 1]: the mean over rows is the mean over tokens."""
    return LossOutput(-logps[:, 0] * len(logps) / batch["lengths"].sum(), logps.detach())


def sympo(logps, ref_logps, *, beta: float) -> LossOutput:
    """-log sigmoid(beta x (log-ratio of preferred - log-ratio of dispreferred)) (eq. 9): dpo.loss, [B, 2] each."""
    return dpo.loss(logps, ref_logps, beta=beta)
