"""The chapters side by side: what is counted once, what is paired with what."""

import pandas as pd

from prefcore.data.types import freeze
from prefcore.lab import comparison, overview


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
    table = overview.arms_table(found, seed=0)
    assert table["method"].tolist() == ["dpo", "dpo", "odpo"]
    assert table["arm"].tolist() == ["reference", "dpo", "odpo"]
    assert table["gold"].tolist() == [0.5, 1.0, 1.0]


def test_metrics_alone_give_the_same_means_and_interval():
    frame = scores({"reference": REFERENCE, "dpo": DPO, "dpo-64": REFERENCE})
    there = overview.arms_table({"dpo": frame}, seed=0).set_index("arm")
    summary = comparison.summarise(frame, freeze({"seed": 0}))
    here = overview.arms_from_metrics({"dpo": {"arms": comparison.as_metrics(summary)}, "judge": {}}).set_index("arm")
    common = ["gold", "gold_low", "gold_high", "kl", "length", "distinct_2", "prompts", "seeds"]
    pd.testing.assert_frame_equal(here.loc[there.index, common], there[common], check_dtype=False)


def test_the_main_arm_has_the_name_of_its_method():
    frame = scores({"reference": REFERENCE, "odpo": DPO, "odpo-64": DPO, "dpo": DPO})
    main, others = overview.points(overview.arms_table({"odpo": frame}, seed=0))
    assert main["method"].tolist() == ["reference", "odpo"]
    assert list(zip(others["method"], others["arm"], strict=True)) == [("odpo", "64"), ("dpo", "")]


def history(**steps):
    """One run of each arm with so many steps."""
    rows = [(arm, 0, s + 1) for arm, n in steps.items() for s in range(n)]
    return pd.DataFrame(rows, columns=["arm", "seed", "step"])


def test_win_rate_is_against_the_dpo_of_the_same_chapter_paired_by_prompt():
    """Of four prompts in another order odpo wins two, ties one and loses one; DPO's own chapter is no rival."""
    odpo = scores({"dpo": [1.0, 1.0, 1.0, 2.0]})
    odpo = pd.concat([odpo, scores({"odpo": [9.0, 2.0, 0.0, 1.0]}, ids=("d", "a", "b", "c"))])
    found = {"dpo": scores({"dpo": [9.0, 9.0, 9.0, 9.0]}), "odpo": odpo, "bco": scores({"bco": DPO})}
    wins = overview.win_rates(found, {"odpo": history(odpo=3, dpo=3)}, seed=0)
    assert wins["method"].tolist() == ["odpo"] and wins["win_rate"].tolist() == [(1 + 1 + 0 + 0.5) / 4]
    assert wins["verdict"].tolist() == ["undecided"]


def test_arms_that_took_unequal_numbers_of_steps_get_no_verdict():
    """KTO's 48 steps beat a DPO of 12 on every prompt; that says nothing about the methods."""
    found = {"kto": scores({"kto": [2.0, 2.0, 3.0, 4.0], "dpo": DPO})}
    assert overview.win_rates(found, {"kto": history(kto=48, dpo=48)}, seed=0)["verdict"].tolist() == ["held"]
    wins = overview.win_rates(found, {"kto": history(kto=48, dpo=12)}, seed=0)
    assert wins["verdict"].tolist() == [overview.UNEQUAL]
    assert (wins["steps"].tolist(), wins["steps of DPO"].tolist()) == ([48], [12])


def test_the_same_answer_is_a_tie_whatever_the_last_digit():
    found = {"odpo": scores({"odpo": [x + 1e-6 for x in DPO], "dpo": DPO})}
    assert overview.win_rates(found, {"odpo": history(odpo=1, dpo=1)}, seed=0)["win_rate"].tolist() == [0.5]


def test_the_readable_table_puts_the_interval_in_brackets():
    table = overview.readable(overview.arms_table({"dpo": scores({"dpo": [1.0, 1.0, 1.0, 1.0]})}, seed=0))
    assert table["gold"].tolist() == ["1.00 [1.00, 1.00]"]
    assert table["distinct_2"].tolist() == ["0.62"]


def test_a_chapter_counts_as_a_policy_where_its_arms_have_a_distance_from_the_reference():
    results = {"dpo": {"arms": {"reference": {"kl": 0.0}, "dpo": {"kl": 1.0}}}, "margin_rm": {"arms": {"bt": {}}}}
    assert overview.policies(results | {"scorers": {"texts": 3}}) == ["dpo"]
