"""Pictures of the chapter: the loss of stage 1, and a world's arms beside MiCRo's accuracy over its budget."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefcore.lab import plots

SMOOTHED = 20  # batches


def draw_training(history: pd.DataFrame, ax: Axes, *, title: str) -> Axes:
    """The mean loss of the last 20 batches, a line for each seed. Columns: arm, seed, step, loss."""
    smooth = history.groupby("seed")["loss"].transform(lambda loss: loss.rolling(SMOOTHED, min_periods=1).mean())
    plots.training_curve(history.assign(loss=smooth), ax).set_title(title)
    return ax


def draw_world(arms: pd.DataFrame, *, title: str, budgets: Sequence[int]) -> Figure:
    """A world's summary (arm, estimate, low, high): its best heads, and beside them MiCRo over its budget of context.

    All arms stand in the place of best heads where there are none, and nothing beside them where no arm had a context.
    """
    best, by_arm = arms[arms["arm"].str.endswith("best head")], arms.set_index("arm", drop=False)
    routed = {words: [f"micro + {budget}, {words}" for budget in budgets] for words in ("seen", "unseen")}
    routed = {words: names for words, names in routed.items() if set(names) <= set(by_arm.index)}
    fig, axes = plt.subplots(1, 2 if routed else 1, figsize=(13, 4), layout="tight", squeeze=False)
    shown = (arms if best.empty else best).rename(columns={"arm": "method"})
    plots.scores_with_intervals(shown, axes[0, 0], label=title, unit="accuracy")
    if routed:
        lines = [by_arm.loc[names].assign(prompts=budgets, arm=words) for words, names in routed.items()]
        plots.data_size_curve(pd.concat(lines).assign(method="micro"), axes[0, 1], label=f"{title}, MiCRo",
                              unit="accuracy").set(xlabel="pairs of each criterion with context")  # fmt: skip
        axes[0, 1].axhline(by_arm.loc["single", "estimate"], color="black", linestyle="--")
    return fig
