"""The diagram of the cheap twin: where what is written still tells pairs apart, and where it is a constant."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure


def diagram(frame: pd.DataFrame, *, least_spread: float) -> Figure:
    """A panel for each start (rows) and weight of the KL (columns): learning rate against steps.

    Columns: start, kl, rate, step, gain (squared error of always one half less that of the twin: above 0 it is the
    better), spread (standard deviation over pairs of what is written). In each cell the spread; framed where it is
    under `least_spread`, which is a constant for all purposes.
    """
    starts, weights = list(dict.fromkeys(frame["start"])), sorted(frame["kl"].unique())
    size = (1.6 + 2.6 * len(weights), 1.0 + 2.2 * len(starts))
    figure, axes = plt.subplots(len(starts), len(weights), figsize=size, layout="constrained", squeeze=False)
    most = max(frame["gain"].abs().max(), 1e-6)
    for (start, kl), part in frame.groupby(["start", "kl"], sort=False):
        ax = axes[starts.index(start), weights.index(kl)]
        gain, spread = (part.pivot(index="rate", columns="step", values=name) for name in ("gain", "spread"))
        image = ax.imshow(gain, origin="lower", cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
        for y, x in ((y, x) for y in range(len(gain.index)) for x in range(len(gain.columns))):
            value, ink = spread.iat[y, x], "white" if abs(gain.iat[y, x]) > 0.6 * most else "black"
            frame_of_constant = {"boxstyle": "square", "fc": "none", "ec": ink if value < least_spread else "none"}
            ax.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9, color=ink, bbox=frame_of_constant)
        ax.set_title(f"{start}, KL {kl:g}", fontsize=10)
        ax.set(xlabel="steps", ylabel="learning rate")
        ax.set_xticks(range(len(gain.columns)), gain.columns)
        ax.set_yticks(range(len(gain.index)), [f"{rate:g}" for rate in gain.index])
        ax.grid(False)
    figure.colorbar(image, ax=axes, label="squared error less than always one half (probability²)")
    return figure
