"""Theme and figures: (frame, ax) -> ax. Draws on the axes it is given, shows nothing, names the unit on each axis."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

# Okabe and Ito's palette, which readers with any common colour blindness can tell apart; one colour per method, always.
COLOURS = {
    "reference": "#000000",
    "dpo": "#0072B2",
    "odpo": "#D55E00",
    "kto": "#009E73",
    "bco": "#E69F00",
    "ulma": "#CC79A7",
    "osp": "#56B4E9",
}
MARKERS = {"reference": "X", "dpo": "o", "odpo": "s", "kto": "^", "bco": "D", "ulma": "v", "osp": "P"}
OTHERS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#999999")  # curves of any other name
LINES = ("-", "--", ":", "-.")  # arms of one method, in order of appearance
RATING = "mean rating, −4 to +4"
# The look of seaborn's "whitegrid", written out: its import brings scipy's distributions and Jupyter's widgets along.
INK, GRID, SIDES = ".15", ".8", ("xtick", "ytick")
THEME = {
    "figure.figsize": (6.4, 4.0), "figure.dpi": 100, "savefig.dpi": 150, "svg.hashsalt": "prefcore",
    "font.sans-serif": ["Arial", "DejaVu Sans", "Liberation Sans", "Bitstream Vera Sans", "sans-serif"],
    "font.size": 12, "text.color": INK,
    "axes.axisbelow": True, "axes.edgecolor": GRID, "axes.grid": True, "axes.labelcolor": INK, "axes.labelsize": 12,
    "axes.linewidth": 1.25, "axes.titlesize": 12, "axes.prop_cycle": plt.cycler(color=list(COLOURS.values())),
    "grid.color": GRID, "grid.linewidth": 1, "legend.fontsize": 11, "legend.title_fontsize": 12,
    "lines.solid_capstyle": "round", "patch.edgecolor": "w", "patch.force_edgecolor": True,
    "xtick.bottom": False, "ytick.left": False,
} | {f"{side}.{name}": value for side in SIDES for name, value in (
    ("color", INK), ("labelsize", 11), ("major.size", 6), ("major.width", 1.25), ("minor.size", 4), ("minor.width", 1),
)}  # fmt: skip


def theme() -> None:
    """Set the look of every figure that follows in this process."""
    plt.rcParams.update(THEME)


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure; equal figures give equal bytes (no date, no version inside)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fleeting = {".png": ["Software"], ".svg": ["Date", "Creator"], ".pdf": ["CreationDate", "Creator", "Producer"]}
    figure.savefig(path, bbox_inches="tight", metadata=dict.fromkeys(fleeting.get(path.suffix, [])))
    return path


def training_curve(frame: pd.DataFrame, ax: Axes, *, column: str = "loss", unit: str = "nats per example") -> Axes:
    """A value over optimiser steps. Columns: step, `column`; optional method, arm and seed.

    One pale line per seed, a strong one for the mean over seeds; with one seed just that.
    """
    _need(frame, "step", column)
    arms = _arms(frame.dropna(subset=[column]))
    named = dict.fromkeys(method for method, *_ in arms if method and method not in COLOURS)
    colours = COLOURS | dict(zip(named, cycle(OTHERS), strict=False))
    for method, label, line, part in arms:
        style = {"color": colours.get(method, COLOURS["dpo"]), "linestyle": line}
        mean = part.groupby("step")[column].mean()
        ax.plot(mean.index, mean, label=label, **style)
        if "seed" in part and part["seed"].nunique() > 1:
            for _, one in part.groupby("seed"):
                ax.plot(one["step"], one[column], alpha=0.3, linewidth=0.8, **style)
    ax.set(xlabel="training step (optimiser updates)", ylabel=_label(column, unit))
    return _legend(ax)


def scores_with_intervals(frame: pd.DataFrame, ax: Axes, *, label: str = "gold score", unit: str = RATING) -> Axes:
    """A dot with its interval per row, the first row on top. Columns: method, estimate, low, high; optional arm."""
    _need(frame, "method", "estimate", "low", "high")
    for y, row in enumerate(frame.itertuples(index=False)):
        bars = _bars(row.estimate, row.low, row.high)
        ax.errorbar(row.estimate, y, xerr=bars, fmt=MARKERS.get(row.method, "o"), color=_colour(row.method), capsize=3)
    ax.set(xlabel=_label(label, unit), ylabel="", yticks=range(len(frame)), yticklabels=_names(frame))
    ax.set_ylim(len(frame) - 0.5, -0.5)
    return ax


def arms_by_chapter(frame: pd.DataFrame, ax: Axes, *, label: str = "ρ with gold") -> Axes:
    """A dot with its interval for each arm, chapter by chapter; the chapter's own method in full colour, others pale.

    Columns: method (the chapter), arm, main, estimate, low, high.
    """
    _need(frame, "method", "arm", "main", "estimate", "low", "high")
    ax.axvline(0, color="grey", linewidth=1)
    for y, row in enumerate(frame.itertuples(index=False)):
        style = {"fmt": MARKERS.get(row.method, "o"), "color": _colour(row.method), "alpha": 1.0 if row.main else 0.4}
        ax.errorbar(row.estimate, y, xerr=_bars(row.estimate, row.low, row.high), capsize=3, **style)
    names = [f"{row.method}: {row.arm}" for row in frame.itertuples(index=False)]
    ax.set(xlabel=_label(label, "correlation within a prompt"), yticks=range(len(frame)), yticklabels=names)
    ax.set_ylim(len(frame) - 0.5, -0.5)
    return ax


def data_size_curve(frame: pd.DataFrame, ax: Axes, *, label: str = "gold score", unit: str = RATING) -> Axes:
    """Score over the amount of data, logarithmic. Columns: method, prompts, estimate, low, high; optional arm."""
    _need(frame, "method", "prompts", "estimate", "low", "high")
    ax.set_xscale("log", base=2)
    arms = _arms(frame)
    for index, (method, name, line, part) in enumerate(arms):
        part = part.sort_values("prompts")
        beside = 1.02 ** (index - (len(arms) - 1) / 2)  # so that the intervals do not hide each other
        _line(ax, part["prompts"] * beside, part, method, line, name)
    ax.set(xlabel="training data (prompts)", ylabel=_label(label, unit), xticks=sorted(frame["prompts"].unique()))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))  # beside, as intervals fill the whole axes
    return ax


def reliability(frame: pd.DataFrame, ax: Axes) -> Axes:
    """What a judge said against what happened, with the diagonal of a calibrated one; dots grow with the count.

    Columns: predicted, observed, count (see calibration.reliability_curve). Bars: Wilson's 95 % interval (1927).
    """
    _need(frame, "predicted", "observed", "count")
    ax.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="calibrated")
    x, share, count = (frame[c].to_numpy(float) for c in ("predicted", "observed", "count"))
    z2 = 1.96**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = np.sqrt(z2 * share * (1 - share) / count + (z2 / (2 * count)) ** 2) / (1 + z2 / count)
    ax.vlines(x, middle - reach, middle + reach, color=COLOURS["dpo"], alpha=0.6)
    ax.scatter(x, share, s=20 + 130 * count / count.max(), color=COLOURS["dpo"], zorder=3)
    edges = (-0.03, 1.03)
    ax.set(xlabel="predicted probability", ylabel="observed share", xlim=edges, ylim=edges, aspect="equal")
    return _legend(ax)


def pictures(album: Sequence[np.ndarray], texts: Sequence[str]) -> Figure:
    """Pictures [H, W, 3] side by side, each below what is said of it (a few lines)."""
    if not len(album) or len(album) != len(texts):
        raise ValueError(f"{len(album)} pictures and {len(texts)} texts: give one text for each picture")
    figure = plt.figure(figsize=(2.7 * len(album), 2.8), layout="constrained")
    for ax, picture, text in zip(figure.subplots(1, len(album), squeeze=False)[0], album, texts, strict=True):
        ax.imshow(picture, interpolation="nearest")
        ax.set_title(text, fontsize=8, loc="left")
        ax.set_axis_off()
    return figure


def _arms(frame: pd.DataFrame):
    """(method, label, line style, rows) in order of appearance; without a method column one unnamed group."""
    if "method" not in frame:
        return [("", None, "-", frame)]
    arms, seen = [], {}
    for name, part in frame.assign(_name=_names(frame)).groupby("_name", sort=False):
        method = part["method"].iloc[0]
        seen[method] = seen.get(method, -1) + 1
        arms.append((method, name, LINES[seen[method] % len(LINES)], part))
    return arms


def _names(frame: pd.DataFrame) -> list[str]:
    if "arm" not in frame:
        return list(frame["method"])
    pairs = zip(frame["method"], frame["arm"], strict=True)
    return [f"{m}, {a}" if isinstance(a, str) and a else m for m, a in pairs]


def _line(ax: Axes, x, part: pd.DataFrame, method: str, line: str, name: str) -> None:
    bars = _bars(*(part[c].to_numpy(float) for c in ("estimate", "low", "high")))
    face = "white" if line != LINES[0] else None  # hollow: not the method's first arm
    style = {"color": _colour(method), "marker": MARKERS.get(method, "o"), "linestyle": line, "markerfacecolor": face}
    ax.errorbar(x, part["estimate"], yerr=bars, label=name, capsize=3, **style)


def _bars(estimate, low, high) -> np.ndarray:
    """Distances [2, n] to both ends; a percentile interval may lie beside its estimate, which matplotlib refuses."""
    return np.clip(np.vstack([estimate - low, high - estimate]), 0, None)


def _colour(method: str) -> str:
    return COLOURS.get(method, "grey" if method else COLOURS["dpo"])


def _label(text: str, unit: str) -> str:
    return f"{text.replace('_', ' ')} ({unit})"


def _legend(ax: Axes) -> Axes:
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False)
    return ax


def _need(frame: pd.DataFrame, *columns: str) -> None:
    missing = [c for c in columns if c not in frame]
    if missing or frame.empty:
        raise ValueError(f"nothing to draw: {len(frame)} rows, columns {list(frame)}; missing {missing}")
