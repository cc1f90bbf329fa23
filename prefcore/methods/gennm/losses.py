"""The two objectives: the likelihood of true names, and SymPO's preference between two names of one variable."""

from prefcore.data.types import LossOutput
from prefcore.methods import dpo


def name_loss(logps, ref_logps, batch, state) -> LossOutput:
    """Negative log-likelihood of a true name, logps [B, K]: spelled in tokens, and (K = 2) as one known name; nats.

    Each variable counts alike, however long its name is.
    """
    return LossOutput(-logps.sum(1), logps.detach())


def sympo(logps, ref_logps, *, beta: float) -> LossOutput:
    """-log sigmoid(beta x (log-ratio of preferred - log-ratio of dispreferred)) (eq. 9): dpo.loss, [B, 2] each."""
    return dpo.loss(logps, ref_logps, beta=beta)
