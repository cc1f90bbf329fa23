"""The linear judge, the control to the paper's selector: a logistic function of the difference of two candidates'
features. No language model has a part in it; it is the selector of the quick profile."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from prefcore.methods.chase_sql.selector import Comparison, Judge

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # inverse weights of the ridge, of which the training groups choose one


class Linear(NamedTuple):
    """weights [d] of the scaled differences, scale [d], and the name of each feature."""

    weights: np.ndarray
    scale: np.ndarray
    names: tuple[str, ...]
    strength: float


def fit(
    tables: Sequence[np.ndarray],
    names: Sequence[str],
    pairs: Sequence[Comparison],
    labels: np.ndarray,
    groups: Sequence[str],
) -> Linear:
    """The judge of these pairs; every question counts the same, however many pairs it has.

    tables: the features [n, d] of each pool's candidates. groups: of each pool, what is held out together (its
    database) while the ridge is chosen among STRENGTHS by the log loss; with one group the middle one is taken.
    """
    if not len(pairs):
        raise ValueError("no pair to learn from: no question has both a right and a wrong candidate that runs")
    gaps = _gaps(tables, pairs)
    scale = np.sqrt((gaps**2).mean(0))
    scale[scale == 0] = 1.0
    gaps, signs = gaps / scale, np.where(labels > 0.5, 1.0, -1.0)
    pools = np.array([pair.pool for pair in pairs])
    weight = 1.0 / np.bincount(pools)[pools]
    held = np.array([groups[pool] for pool in pools])
    strength = _choose(gaps, signs, weight, held)
    return Linear(_solve(gaps, signs, weight, strength), scale, tuple(names), strength)


def judge(model: Linear, tables: Sequence[np.ndarray]) -> Judge:
    """A judge of the candidates that `tables` describes."""

    def verdicts(pairs: Sequence[Comparison]) -> np.ndarray:
        return 1 / (1 + np.exp(-(_gaps(tables, pairs) / model.scale) @ model.weights))

    return verdicts


def save(model: Linear, path: Path) -> None:
    """One safetensors file; names and strength are in its metadata, under one key: several have no fixed order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps({"names": model.names, "strength": model.strength})
    save_file({"weights": model.weights, "scale": model.scale}, path, metadata={"linear": about})


def load(path: Path, names: Sequence[str]) -> Linear:
    """What `save` wrote. ValueError where it was taught other features than `names`."""
    with safe_open(path, framework="numpy") as kept:
        about = json.loads(kept.metadata()["linear"])
        tensors = (kept.get_tensor(name) for name in ("weights", "scale"))
        model = Linear(*tensors, tuple(about["names"]), about["strength"])
    if model.names != tuple(names):
        other = sorted(set(model.names) ^ set(names))
        raise ValueError(f"{path} was taught other features than these; they differ in {other[:5]}: train it anew")
    return model


def _gaps(tables: Sequence[np.ndarray], pairs: Sequence[Comparison]) -> np.ndarray:
    return np.array([tables[pair.pool][pair.first] - tables[pair.pool][pair.second] for pair in pairs])


def _solve(gaps: np.ndarray, signs: np.ndarray, weight: np.ndarray, strength: float) -> np.ndarray:
    # Each pair is given from both sides: without an intercept the same fit, and both classes are always there.
    both, sides, weights = np.concatenate([gaps, -gaps]), np.concatenate([signs, -signs]), np.tile(weight / 2, 2)
    model = LogisticRegression(C=strength, fit_intercept=False, solver="newton-cholesky", tol=1e-8, max_iter=200)
    return model.fit(both, sides, sample_weight=weights).coef_[0].astype(np.float64)


def _choose(gaps: np.ndarray, signs: np.ndarray, weight: np.ndarray, held: np.ndarray) -> float:
    parts = sorted(set(held))
    if len(parts) < 2:
        return STRENGTHS[len(STRENGTHS) // 2]
    losses = []
    for strength in STRENGTHS:
        total = 0.0
        for part in parts:
            out = held == part
            weights = _solve(gaps[~out], signs[~out], weight[~out], strength)
            total += float((weight[out] * np.logaddexp(0, -signs[out] * (gaps[out] @ weights))).sum())
        losses.append(total)
    return STRENGTHS[int(np.argmin(losses))]
