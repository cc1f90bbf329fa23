"""Figures say what they show: one colour per method, units on the axes, the values of the frame, the same bytes."""

import matplotlib
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from prefcore.lab import plots

SCORES = pd.DataFrame(
    {
        "method": ["odpo", "dpo", "odpo"], "arm": ["log", "", "ratio"], "estimate": [0.5, 0.3, 0.4],
        "low": [0.4, 0.2, 0.35], "high": [0.7, 0.4, 0.6], "kl": [2.0, 3.0, 1.0], "beta": [0.1, 0.5, 0.2],
        "prompts": [64, 64, 256],
    }
)  # fmt: skip
CURVE = pd.DataFrame({"method": "kto", "step": [1, 2, 1, 2], "loss": [0.5, 0.4, 0.7, 0.2], "seed": [0, 0, 1, 1]})
RELIABILITY = pd.DataFrame({"predicted": [0.2, 0.8], "observed": [0.25, 0.7], "count": [40, 10]})
FIGURES = [
    (plots.training_curve, CURVE),
    (plots.scores_with_intervals, SCORES),
    (plots.arms_by_chapter, SCORES.assign(main=[True, False, False])),
    (plots.data_size_curve, SCORES),
    (plots.reliability, RELIABILITY),
]


def axes():
    return Figure().subplots()


def test_every_method_has_its_own_colour_and_marker():
    assert {"dpo", "odpo", "kto", "bco", "ulma", "osp", "reference"} <= plots.COLOURS.keys() == plots.MARKERS.keys()
    assert len(set(plots.COLOURS.values())) == len(set(plots.MARKERS.values())) == len(plots.COLOURS)


def test_no_colour_vanishes_on_white():
    """Contrast with white (relative luminance, as WCAG defines it) is above 1.6 to 1."""
    for colour in plots.COLOURS.values():
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
        assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) > 1.6


@pytest.mark.parametrize("draw, frame", FIGURES)
def test_a_figure_returns_its_axes_with_a_label_on_both(draw, frame):
    ax = axes()
    assert draw(frame, ax) is ax
    assert ax.get_xlabel() and (ax.get_ylabel() or draw in (plots.scores_with_intervals, plots.arms_by_chapter))


@pytest.mark.parametrize("draw, frame", FIGURES)
def test_a_figure_leaves_its_frame_and_the_backend_alone(draw, frame):
    before, backend = frame.copy(), matplotlib.get_backend()
    draw(frame, axes())
    pd.testing.assert_frame_equal(frame, before)
    assert matplotlib.get_backend() == backend


@pytest.mark.parametrize("draw, frame", FIGURES)
def test_a_frame_without_rows_or_columns_is_refused(draw, frame):
    with pytest.raises(ValueError, match="nothing to draw: 0 rows"):
        draw(frame.iloc[:0], axes())
    column = frame.columns[-1] if draw is plots.reliability else {"loss": "loss"}.get(frame.columns[2], "estimate")
    with pytest.raises(ValueError, match=f"missing .*{column}"):
        draw(frame.drop(columns=column), axes())


def test_the_unit_of_a_score_stands_on_its_axis():
    assert plots.data_size_curve(SCORES, axes(), label="win_rate", unit="%").get_ylabel() == "win rate (%)"


def test_one_seed_is_one_line_and_several_are_their_mean_and_each():
    one = plots.training_curve(CURVE[CURVE["seed"] == 0], axes()).get_lines()
    assert [list(line.get_ydata()) for line in one] == [[0.5, 0.4]]
    mean, *each = plots.training_curve(CURVE, axes()).get_lines()
    assert list(mean.get_ydata()) == pytest.approx([0.6, 0.3]) and len(each) == 2
    assert to_hex(mean.get_color()).upper() == plots.COLOURS["kto"]


def test_steps_at_which_a_value_was_not_measured_are_skipped():
    frame = pd.DataFrame({"step": [1, 2, 3], "margin": [0.1, None, 0.3]})
    (line,) = plots.training_curve(frame, axes(), column="margin", unit="nats").get_lines()
    assert list(line.get_xdata()) == [1, 3]


def test_the_first_row_is_on_top_and_intervals_reach_their_ends():
    ax = plots.scores_with_intervals(SCORES, axes())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["odpo, log", "dpo", "odpo, ratio"]
    assert ax.get_ylim() == (2.5, -0.5)
    ends = [c.get_segments()[0][:, 0].tolist() for c in ax.collections]
    assert ends == [pytest.approx([0.4, 0.7]), pytest.approx([0.2, 0.4]), pytest.approx([0.35, 0.6])]


def test_a_chapters_own_method_is_in_full_colour_and_its_rivals_are_pale():
    ax = plots.arms_by_chapter(SCORES.assign(main=[True, False, False]), axes())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["odpo: log", "dpo: ", "odpo: ratio"]
    dots = [c[0] for c in ax.containers]
    assert [dot.get_alpha() for dot in dots] == [1.0, 0.4, 0.4] and dots[0].get_color() == plots.COLOURS["odpo"]


def test_arms_of_one_method_share_its_colour_and_differ_in_line_and_legend():
    ax = plots.data_size_curve(SCORES, axes())
    lines = {c.get_label(): c[0] for c in ax.containers}
    log, dpo, ratio = (lines[name] for name in ("odpo, log", "dpo", "odpo, ratio"))
    assert log.get_color() == ratio.get_color() == plots.COLOURS["odpo"] and dpo.get_color() == plots.COLOURS["dpo"]
    assert (log.get_linestyle(), dpo.get_linestyle(), ratio.get_linestyle()) == ("-", "-", "--")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == list(lines)


def test_arms_at_the_same_data_size_stand_side_by_side():
    ax = plots.data_size_curve(SCORES, axes())
    log, dpo = (c[0].get_xdata()[0] for c in ax.containers[:2])
    assert log < dpo and log == pytest.approx(64, rel=0.05) and dpo == pytest.approx(64, rel=0.05)


def test_reliability_bars_are_wilsons_interval():
    """4 of 4 happened: the 95% interval is 4 / (4 + 1.96^2) = 0.51 to 1, not a point."""
    frame = pd.DataFrame({"predicted": [0.9], "observed": [1.0], "count": [4]})
    (bar,) = plots.reliability(frame, axes()).collections[0].get_segments()
    assert bar[:, 1].tolist() == pytest.approx([0.5101, 1.0], abs=1e-4)


def test_data_sizes_are_ticks_in_plain_numbers():
    ax = plots.data_size_curve(SCORES, axes())
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["64", "256"]


def test_an_interval_beside_its_estimate_can_still_be_drawn():
    frame = pd.DataFrame({"method": ["dpo"], "estimate": [0.5], "low": [0.52], "high": [0.6]})
    plots.scores_with_intervals(frame, axes())


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_equal_figures_give_equal_bytes(tmp_path, suffix):
    with matplotlib.rc_context():
        plots.theme()
        for name in "ab":
            plots.save(plots.data_size_curve(SCORES, axes()).figure, tmp_path / "new" / f"{name}{suffix}")
    a, b = ((tmp_path / "new" / f"{name}{suffix}").read_bytes() for name in "ab")
    assert a == b and b"Matplotlib" not in a.replace(b"Matplotlib-generated", b"")[:400]
