"""Accuracy of heads and mixtures: for an attribute, for a pair of texts, and as a table of scores with intervals."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from prefcore.methods.micro.mixture import Mixture, Rows, outputs
from prefcore.scoring import metrics


def correct(probability: Tensor) -> Tensor:
    """1 where the preferred text is the likelier one, 0 where it is not, 0.5 where the two are even, [n]."""
    return 0.5 + 0.5 * (probability - 0.5).sign()


def heads_correct(margins: Tensor) -> Tensor:
    """1 where a head prefers the preferred text, 0 where it does not, 0.5 where it is even: [n,K]."""
    return 0.5 + 0.5 * margins.sign()


def by_attribute(values: Tensor, attribute: Tensor, attributes: int) -> Tensor:
    """Mean of values [n,K] over the rows of each attribute 0 ... attributes - 1: [A,K]; 0 for one without rows."""
    count = torch.bincount(attribute, minlength=attributes).clamp(min=1)
    sums = torch.zeros(attributes, values.shape[1], dtype=values.dtype).index_add_(0, attribute, values)
    return sums / count[:, None]


def by_pair(values: Tensor, pair: Tensor) -> np.ndarray:
    """Mean of values [n] over the rows of each pair, in order of the pairs' numbers: the items of an interval."""
    numbers, place = pair.unique(return_inverse=True)
    count = torch.bincount(place)
    return (torch.zeros(len(numbers), dtype=torch.float64).index_add_(0, place, values.double()) / count).numpy()


def of_heads(mixture: Mixture, rows: Rows, attributes: int) -> Tensor:
    """Each head's accuracy for each attribute, [A,K]."""
    return by_attribute(heads_correct(outputs(mixture, rows)[1]), rows.attribute, attributes)


def best_head_correct(mixture: Mixture, rows: Rows, choosing: Rows, attributes: int) -> Tensor:
    """`heads_correct` of one head a row: that with the best accuracy for the row's attribute on `choosing`, [n]."""
    best = of_heads(mixture, choosing, attributes).argmax(1)
    return heads_correct(outputs(mixture, rows)[1]).gather(1, best[rows.attribute][:, None])[:, 0]


def attribute_weights(mixture: Mixture, rows: Rows, attributes: int, weights: Callable) -> Tensor:
    """Log of fixed head weights for each attribute [A,K] from its rows; weights(margins [n,K]) -> [K], n may be 0."""
    _, margins = outputs(mixture, rows)
    return torch.stack([weights(margins[rows.attribute == attribute]).log() for attribute in range(attributes)])


def score_pairs(values: Tensor, rows: Rows, **columns) -> pd.DataFrame:
    """One row a pair: id, accuracy (mean of values [n] over the pair's rows), and the columns (world, arm, seed)."""
    return pd.DataFrame({**columns, "id": rows.pair.unique().numpy(), "accuracy": by_pair(values, rows.pair)})


def evaluate(mixture: Mixture, rows: Rows, predict: Callable, reads: str = "", **columns) -> pd.DataFrame:
    """Scores of predict(router_logits [n,K], margins [n,K]) -> [n]; `reads` is the router's column."""
    return score_pairs(correct(predict(*outputs(mixture, rows, reads))), rows, **columns)


def evaluate_heads(
    mixture: Mixture, splits: Mapping[str, Rows], predict: Callable, *, arm: str, **columns
) -> pd.DataFrame:  # fmt: skip
    """The mixture, and its best heads, on the rows "test": chosen on the rows "validation", and picked on test."""
    test, attributes = splits["test"], int(splits["test"].attribute.max()) + 1
    frames = [evaluate(mixture, test, predict, arm=arm, **columns)]
    for name, choosing in (("best head", "validation"), ("best head, picked on test", "test")):
        values = best_head_correct(mixture, test, splits[choosing], attributes)
        frames.append(score_pairs(values, test, arm=f"{arm}: {name}", **columns))
    return pd.concat(frames)


def evaluate_weighted(
    mixture: Mixture, few: Rows, rows: Rows, weights: Callable, predict: Callable, **columns
) -> pd.DataFrame:  # fmt: skip
    """`evaluate` with fixed weights for each attribute, from its rows in `few` (`attribute_weights`), and no router."""
    logits = attribute_weights(mixture, few, int(rows.attribute.max()) + 1, weights)[rows.attribute]
    return score_pairs(correct(predict(logits, outputs(mixture, rows)[1])), rows, **columns)


def table(scores: pd.DataFrame, world: str, arm: str) -> np.ndarray:
    """Accuracies [seeds, pairs] of one arm; KeyError where it has none."""
    part = scores[(scores["world"] == world) & (scores["arm"] == arm)]
    if part.empty:
        raise KeyError(f"no scores of {arm!r} in {world!r}: there are {sorted(set(scores['arm']))}")
    return part.pivot(index="seed", columns="id", values="accuracy").to_numpy()


def summarise(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row for each world and arm, in order of appearance: mean accuracy with interval over pairs and seeds."""
    rows = []
    for world, arm in scores[["world", "arm"]].drop_duplicates().itertuples(index=False):
        interval = metrics.bootstrap_seeds(table(scores, world, arm), seed=seed)
        rows.append({"world": world, "arm": arm, **interval._asdict()})
    return pd.DataFrame(rows, columns=["world", "arm", "estimate", "low", "high"])


def changes(
    scores: pd.DataFrame, worlds: Iterable[str], arms: Mapping[str, str], main: str, seed: int
) -> list[dict]:  # fmt: skip
    """In each of the worlds every arm (shown name -> arm) less the main one: mean difference with its interval."""
    rows = []
    for world in worlds:
        for name, arm in arms.items():
            gap = metrics.paired_difference(table(scores, world, arm), table(scores, world, main), seed=seed)
            rows.append({"world": world, "ablation": name, **gap._asdict()})
    return rows


def as_metrics(summary: pd.DataFrame) -> dict:
    """The summary as nested plain numbers: "world: arm" -> estimate, low, high."""
    return {f"{row.pop('world')}: {row.pop('arm')}": row for row in summary.to_dict("records")}
