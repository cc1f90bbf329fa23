"""The figure of growth: seconds over size, both axes logarithmic, a panel for each kind of size."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullLocator, ScalarFormatter

from benchmarks.targets import EXPONENT
from prefcore.lab import plots


def draw(rows: Sequence[dict], path: Path) -> Path:
    """One panel a row of the summary's `growth`: medians, and the fitted power of the size."""
    plots.theme()
    figure, panels = plt.subplots(1, len(rows), figsize=(4 * len(rows), 3.6), squeeze=False)
    for row, panel in zip(rows, panels[0], strict=True):
        sizes, seconds = np.array(row["sizes"]), np.array(row["seconds"])
        middle = np.log(seconds).mean() - row["exponent"] * np.log(sizes).mean()
        panel.loglog(sizes, np.exp(middle) * sizes ** row["exponent"], color="grey", linestyle="--", linewidth=1)
        panel.loglog(sizes, seconds, "o", color=plots.COLOURS["dpo"])
        panel.set(xlabel=row["label"], ylabel="seconds of a first run" if panel is panels[0][0] else "", xticks=sizes)
        panel.set_title(f"exponent {row['exponent']:.2f} (at most {EXPONENT[row['axis']]:g})", fontsize=11)
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_locator(NullLocator())
        panel.tick_params(axis="x", labelrotation=30)
    figure.tight_layout()
    plots.save(figure, path)
    plt.close(figure)
    return path
