"""The chapters side by side: what is counted once, what is paired with what."""

import pandas as pd
import pytest

from prefcore.lab import overview as comparison


def scores(arms, ids=("a", "b", "c", "d"), seeds=1):
    """Per-prompt scores: arms maps a name to one gold score per prompt."""
    rows = [
        {"arm": arm, "seed": s, "id": i, "gold": gold + s, "proxy": 0.0, "kl": 1.0, "length": 3, "text": f"one two {i}"}
        for arm, values in arms.items()
        for s in range(seeds)
        for i, gold in zip(ids, values, strict=True)
    ]
    return pd.DataFrame(rows)


REFERENCE, DPO = [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 2.0]


def test_the_reference_appears_once():
    found = {name: scores({"reference": REFERENCE, name: DPO}) for name in ("dpo", "odpo")}
    table = comparison.arms_table(found, seed=0)
    assert table["method"].tolist() == ["dpo", "dpo", "odpo"]
    assert table["arm"].tolist() == ["reference", "dpo", "odpo"]
    assert table["gold"].tolist() == [0.5, 1.0, 1.0]


def test_metrics_alone_give_the_same_means_and_interval():
    frame = scores({"reference": REFERENCE, "dpo": DPO, "dpo-64": REFERENCE})
    there = comparison.arms_table({"dpo": frame}, seed=0).set_index("arm")
    summary = comparison.summarise(frame, {"seed": 0})
    here = comparison.arms_from_metrics({"dpo": {"arms": comparison.as_metrics(summary)}, "judge": {}}).set_index("arm")
    common = ["gold", "gold_low", "gold_high", "kl", "length", "distinct_2", "prompts", "seeds"]
    pd.testing.assert_frame_equal(here.loc[there.index, common], there[common], check_dtype=False)


def test_the_main_arm_has_the_name_of_its_method():
    frame = scores({"reference": REFERENCE, "odpo": DPO, "odpo-64": DPO, "dpo": DPO})
    main, others = comparison.points(comparison.arms_table({"odpo": frame}, seed=0))
    assert main["method"].tolist() == ["reference", "odpo"]
    assert list(zip(others["method"], others["arm"], strict=True)) == [("odpo", "64"), ("dpo", "")]


def test_win_rate_is_against_both_dpo_arms_and_paired_by_prompt():
    """Against DPO's chapter 1 win, 2 ties, 1 loss on equal prompts in another order; against its own 4 wins."""
    odpo = scores({"odpo": [9.0, 1.0, 0.0, 1.0], "dpo": [0.0, 0.0, -1.0, 0.0]}, ids=("d", "a", "b", "c"))
    found = {"dpo": scores({"dpo": [1.0, 1.0, 1.0, 2.0]}, seeds=2), "odpo": odpo}
    wins = comparison.win_rates(found, seed=0)
    assert wins["DPO of"].tolist() == ["DPO's chapter", "its own chapter"]
    assert wins["win_rate"].tolist() == [(1 + 0.5 + 0.5 + 0) / 4, 1.0]
    assert wins["seeds"].tolist() == [1, 1]
    assert wins["verdict"].tolist() == ["undecided", "held"]


def test_the_same_answer_is_a_tie_whatever_the_last_digit():
    found = {"dpo": scores({"dpo": DPO}), "odpo": scores({"odpo": [x + 1e-6 for x in DPO]})}
    assert comparison.win_rates(found, seed=0)["win_rate"].tolist() == [0.5]


def test_methods_without_common_prompts_are_not_compared():
    found = {"dpo": scores({"dpo": DPO}), "odpo": scores({"odpo": DPO}, ids=("e", "f", "g", "h"))}
    with pytest.raises(ValueError, match="share 1 seeds and 0 test prompts"):
        comparison.win_rates(found, seed=0)


def test_the_readable_table_puts_the_interval_in_brackets():
    table = comparison.readable(comparison.arms_table({"dpo": scores({"dpo": [1.0, 1.0, 1.0, 1.0]})}, seed=0))
    assert table["gold"].tolist() == ["1.00 [1.00, 1.00]"]
    assert table["distinct_2"].tolist() == ["0.62"]


def test_a_chapter_counts_as_a_policy_where_its_arms_have_a_distance_from_the_reference():
    results = {"dpo": {"arms": {"reference": {"kl": 0.0}, "dpo": {"kl": 1.0}}}, "margin_rm": {"arms": {"bt": {}}}}
    assert comparison.policies(results | {"scorers": {"texts": 3}}) == ["dpo"]
