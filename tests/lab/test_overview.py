"""The policy chapters side by side, from their metrics files alone."""

import pytest

from prefcore.lab import overview

NUMBERS = {"estimate": 0.3, "low": 0.2, "high": 0.4, "seeds": 8, "spread": 0.02, "order": 0.6, "nats": 1.5}


def test_each_arm_that_was_measured_on_the_bank_is_a_row_and_the_chapters_own_method_is_marked():
    results = {
        "dpo": {"arms": {"dpo": NUMBERS, "sft": NUMBERS}, "samples": {"dpo": {"gold": 0.5}}},
        "odpo": {"arms": {"dpo-many": NUMBERS, "odpo-many": NUMBERS}},
        "margin_rm": {"arms": {"bt": {"accuracy": 0.7}}}, "scorers": {"texts": 3},
    }  # fmt: skip
    table = overview.arms(results)
    assert list(zip(table["method"], table["arm"], table["main"], strict=True)) == [
        ("dpo", "dpo", True), ("dpo", "sft", False), ("odpo", "dpo-many", False), ("odpo", "odpo-many", True),
    ]  # fmt: skip
    assert table["gold"].iloc[0] == 0.5 and table["gold"].isna().tolist() == [False, True, True, True]
    assert table["estimate"].tolist() == pytest.approx([0.3] * 4)


def test_results_without_a_policy_make_an_empty_table():
    assert overview.arms({"scorers": {}}).empty
