"""Per-example losses whose mean over the batch is another mean: over tokens, or the sum of two class means."""

import torch
from torch import Tensor

from prefcore.engine.ranks import sum_over_ranks
from prefcore.engine.shapes import check_shapes


def find_positives(label: Tensor) -> Tensor:
    """label [B] of 1 (or True) and 0 (or False) -> bool mask [B]; any other value, NaN too, is a ValueError."""
    check_shapes("label [B]", label)
    strange = label[(label != 0) & (label != 1)]
    if len(strange):
        raise ValueError(f"labels must be 0 or 1; got {strange.tolist()}: threshold scores before they become labels")
    return label == 1


def scale_to_token_mean(losses: Tensor, lengths: Tensor) -> Tensor:
    """Summed losses [B] of answers with lengths [B] in tokens -> [B], scaled so that their mean over the batch is that
    over its tokens. Rows of all ranks count."""
    check_shapes("losses [B], lengths [B]", losses, lengths)
    rows, tokens = sum_over_ranks(torch.stack([lengths.new_tensor(float(len(lengths))), lengths.sum()]))
    return losses * rows / tokens


def scale_to_class_means(losses: Tensor, positive: Tensor) -> Tensor:
    """losses [B], bool mask positive [B] -> [B], scaled so that their mean over the batch is E+ + E-.

    E+ is the mean loss of the positive rows and E- that of the others. Each row is multiplied by B / (rows of its
    class), so a class without rows contributes nothing, no mean of an empty set is ever taken, and a NaN in any row
    stays visible. Rows of all ranks count; with accumulation the class means are those of each micro-batch.
    """
    check_shapes("losses [B], positive [B]", losses, positive)
    up, down = sum_over_ranks(torch.stack([positive.sum(), (~positive).sum()]))
    return losses * (up + down) / torch.where(positive, up, down)
