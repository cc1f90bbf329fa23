"""Batches of two classes: which rows are positive, and per-example losses whose mean is a sum of class means."""

import torch
from torch import Tensor

from prefcore.engine.shapes import check_shapes


def find_positives(label: Tensor) -> Tensor:
    """label [B] of 1 (or True) and 0 (or False) -> bool mask [B]; any other value, NaN too, is a ValueError."""
    check_shapes("label [B]", label)
    strange = label[(label != 0) & (label != 1)]
    if len(strange):
        raise ValueError(f"labels must be 0 or 1; got {strange.tolist()}: threshold scores before they become labels")
    return label == 1


def scale_to_class_means(losses: Tensor, positive: Tensor) -> Tensor:
    """losses [B], bool mask positive [B] -> [B], scaled so that their mean over the batch is E+ + E-.

    E+ is the mean loss of the positive rows and E- that of the others. Each row is multiplied by B / (rows of its
    class), so a class without rows contributes nothing, no mean of an empty set is ever taken, and a NaN in any row
    stays visible. With accumulation or several ranks the class means are those of each micro-batch.
    """
    check_shapes("losses [B], positive [B]", losses, positive)
    rows_of_class = torch.where(positive, positive.sum(), (~positive).sum())
    return losses * len(losses) / rows_of_class
