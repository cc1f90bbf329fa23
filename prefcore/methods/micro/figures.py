"""Pictures of the chapter: the loss of stage 1, and a world's arms beside MiCRo's course over its budget."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefcore.lab import plots
from prefcore.scoring import metrics

SMOOTHED = 20  # batches
UNITS = {"accuracy": "accuracy", "nats": "nats below the floor"}


def draw_training(history: pd.DataFrame, ax: Axes, *, title: str) -> Axes:
    """The mean loss of the last 20 batches, a line for each seed. Columns: arm, seed, step, loss."""
    smooth = history.groupby("seed")["loss"].transform(lambda loss: loss.rolling(SMOOTHED, min_periods=1).mean())
    plots.training_curve(history.assign(loss=smooth), ax).set_title(title)
    return ax


def summarise(table: pd.DataFrame, measure: str, seed: int) -> pd.DataFrame:
    """Columns arm, estimate, low, high: means of each arm with intervals over units and seeds.

    table: columns arm, seed, id and the measure.
    """
    rows = []
    for arm, part in table.groupby("arm", sort=False):
        values = part.pivot(index="seed", columns="id", values=measure).to_numpy()
        rows.append({"arm": arm, **metrics.bootstrap_seeds(values, seed=seed)._asdict()})
    return pd.DataFrame(rows)


def draw_world(table: pd.DataFrame, measure: str, *, title: str, budgets: Sequence[int], seed: int) -> Figure:
    """The arms of a world (columns arm, seed, id and the measure), and beside them MiCRo over its budget of context.

    Nothing stands beside them where no arm had a context.
    """
    found = summarise(table, measure, seed)
    by_arm = found.set_index("arm", drop=False)
    routed = [budget for budget in budgets if f"micro-{budget}" in by_arm.index]
    height = max(3.0, 0.8 + 0.26 * len(found))
    fig, axes = plt.subplots(1, 2 if routed else 1, figsize=(13, height), layout="tight", squeeze=False)
    shown = found.rename(columns={"arm": "method"})
    plots.scores_with_intervals(shown, axes[0, 0], label=f"{title}, {measure}", unit=UNITS[measure])
    if routed:
        line = by_arm.loc[[f"micro-{budget}" for budget in routed]]
        line = line.assign(prompts=routed, method="micro", arm="stage 2")
        plots.data_size_curve(line, axes[0, 1], label=f"{title}, MiCRo", unit=UNITS[measure])
        axes[0, 1].set(xlabel="pairs of each attribute with context")
        if "single" in by_arm.index:
            axes[0, 1].axhline(by_arm.loc["single", "estimate"], color="black", linestyle="--")
    return fig
