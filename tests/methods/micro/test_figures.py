"""Pictures show what a world has: best heads and budgets, or people alone."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from prefcore.methods.micro import figures


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def summary(*arms):
    return pd.DataFrame([{"world": "w", "arm": arm, "estimate": 0.6, "low": 0.5, "high": 0.7} for arm in arms])


def test_a_world_with_contexts_shows_its_best_heads_and_a_line_for_each_set_of_wordings():
    budgets = [f"micro + {budget}, {words}" for budget in (5, 50) for words in ("seen", "unseen")]
    fig = figures.draw_world(summary("single", "single: best head", *budgets), title="w", budgets=[5, 50])
    left, right = fig.axes
    assert len(left.get_yticks()) == 1
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["micro, seen", "micro, unseen"]


def test_a_world_of_people_shows_all_its_arms_alone():
    fig = figures.draw_world(summary("single", "micro + 5 votes, hedge"), title="people", budgets=[5, 50])
    (only,) = fig.axes
    assert len(only.get_yticks()) == 2


def test_the_curve_of_training_is_the_running_mean_of_each_seed():
    history = pd.DataFrame({"arm": "micro", "seed": [0] * 30 + [1] * 30, "step": [*range(1, 31)] * 2,
                            "loss": [1.0] * 30 + [3.0] * 30})  # fmt: skip
    ax = figures.draw_training(history, plt.figure().gca(), title="t")
    heights = {round(float(line.get_ydata()[-1]), 6) for line in ax.get_lines()}
    assert heights == {1.0, 2.0, 3.0} and ax.get_title() == "t"
