"""Pictures show what a world has: its arms, and MiCRo over its budget where it has one."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from prefcore.methods.micro import figures


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def table(*arms):
    rows = [{"arm": arm, "seed": seed, "id": i, "accuracy": (i + seed) % 2} for arm in arms for seed in range(2)
            for i in range(4)]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_summary_is_the_mean_of_each_arm_with_an_interval_around_it():
    found = figures.summarise(table("single", "micro"), "accuracy", 0)
    assert found["arm"].tolist() == ["single", "micro"] and found["estimate"].tolist() == [0.5, 0.5]
    assert (found["low"] < found["high"]).all()


def test_a_world_with_contexts_shows_its_arms_and_a_line_over_the_budgets():
    how = {"title": "w", "budgets": [5, 50], "seed": 0}
    left, right = figures.draw_world(table("single", "micro", "micro-5", "micro-50"), "accuracy", **how).axes
    assert len(left.get_yticks()) == 4 and len(right.get_xticks()) == 2


def test_a_world_without_contexts_shows_its_arms_alone():
    how = {"title": "people", "budgets": [5, 50], "seed": 0}
    (only,) = figures.draw_world(table("single", "micro + 5 votes, hedge"), "accuracy", **how).axes
    assert len(only.get_yticks()) == 2


def test_the_curve_of_training_is_the_running_mean_of_each_seed():
    history = pd.DataFrame({"arm": "micro", "seed": [0] * 30 + [1] * 30, "step": [*range(1, 31)] * 2,
                            "loss": [1.0] * 30 + [3.0] * 30})  # fmt: skip
    ax = figures.draw_training(history, plt.figure().gca(), title="t")
    heights = {round(float(line.get_ydata()[-1]), 6) for line in ax.get_lines()}
    assert heights == {1.0, 2.0, 3.0} and ax.get_title() == "t"
