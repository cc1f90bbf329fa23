"""The picture of coverage over the size of a basis."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes


def draw_coverage(frame: pd.DataFrame, ax: Axes, *, goal: float, title: str) -> Axes:
    """Coverage over K, a line for each way; "everything" is one level.

    Columns: way, size, estimate, low, high; goal: the level of a dotted line.
    """
    for way, part in frame.groupby("way", sort=False):
        if way == "everything":
            ax.axhline(part["estimate"].iloc[0], color="grey", label=way)
            continue
        bars = np.clip([part["estimate"] - part["low"], part["high"] - part["estimate"]], 0, None)
        ax.errorbar(part["size"], part["estimate"], yerr=bars, label=way, capsize=2, marker=".")
    ax.axhline(goal, color="black", linestyle=":", label=f"{goal:.2g}")
    ax.set(title=title, xlabel="K (columns in the basis)", ylabel="coverage (share)")
    ax.legend(frameon=False, fontsize=8)
    return ax
