"""Linear readers of the judge's states, taught by the same votes: what the states hold without any writing.

P(second is better) = sigmoid(w x). For Bradley-Terry x is the state of the second text less that of the first, each
read alone: a linear reward. For the probe it is the state behind the question with the texts as they are, less that
with the texts exchanged, so that it has no taste for a place. x [n, H]; share [n] in [0, 1].
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from prefcore.methods.autoraters.tree import States


def differences(states: States, name: str) -> np.ndarray:
    """x [n, H] of n pairs in both orders, from the states named "text" or "question".

    The first text of the exchanged pair is the second text.
    """
    ahead, turned = getattr(states, name).double().chunk(2)
    return (turned - ahead).numpy() if name == "text" else (ahead - turned).numpy()


def fit(x: np.ndarray, share: np.ndarray, *, rule: str, penalty: float) -> np.ndarray:
    """w [H] with the least mean loss + penalty |w|^2 / 2: "log" is logistic regression, "brier" squares p - share."""
    if rule not in ("log", "brier"):
        raise ValueError(f'the rule is {rule!r}; say "log" or "brier"')

    def cost(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ w
        p = 1 / (1 + np.exp(-z))
        if rule == "log":
            loss, slope = np.logaddexp(0, z) - share * z, p - share
        else:
            loss, slope = (p - share) ** 2, 2 * (p - share) * p * (1 - p)
        return loss.mean() + penalty * w @ w / 2, x.T @ slope / len(x) + penalty * w

    return minimize(cost, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x


def predict(
    train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], x: np.ndarray, *, rule: str,
    penalties: Sequence[float],
) -> np.ndarray:  # fmt: skip
    """P(second is better) [2, n] for x, in both orders; the penalty is the one with the least error on validation.

    train, validation: (x, share). Entries are divided by their overall size first, so that one grid suits any model.
    """
    size = np.sqrt(np.mean(train[0] ** 2)) * np.sqrt(x.shape[1])
    seen, known, asked = (part / size for part in (train[0], validation[0], x))
    fits = [fit(seen, train[1], rule=rule, penalty=penalty) for penalty in penalties]
    errors = [np.mean((1 / (1 + np.exp(-known @ w)) - validation[1]) ** 2) for w in fits]
    p = 1 / (1 + np.exp(-asked @ fits[int(np.argmin(errors))]))
    return np.stack([p, 1 - p])
