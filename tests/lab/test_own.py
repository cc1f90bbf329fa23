"""One's own rows before training: all are used, what they lack is said, and no run writes over another."""

import json

import pytest

from prefcore.data.datasets import DataError, Reading
from prefcore.data.types import Pair, Scored, Unary
from prefcore.lab import own
from prefcore.lab.own import Lengths


def pairs(n, **more):
    return [Pair(f"data:{i}", f"Q {i}", "good", "bad", **more) for i in range(n)]


def thumbs(labels):
    return [Unary(f"data:{i}", f"Q {i}", "some", bool(label)) for i, label in enumerate(labels)]


# --- what the rows must hold ----------------------------------------------------------------------------------------


def test_parts_need_as_many_prompts_as_the_shares_say():
    assert own.fewest(own.PARTS) == 8 and own.fewest((0.5, 0.5)) == 2
    assert [len(part) for part in own.check(pairs(20), "dpo", 0)] == [16, 2, 2]
    with pytest.raises(ValueError, match="5 different prompts are too few to hold some out: give 8 or more"):
        own.check(pairs(5), "dpo", 0)


@pytest.mark.parametrize("method", ["kto", "bco"])
def test_thumbs_of_one_kind_are_refused_before_training(method):
    with pytest.raises(ValueError, match="all 48 answers to train on are thumbs-up, and both kinds are needed"):
        own.check(thumbs([1] * 60), method, 0)
    own.check(thumbs([i % 2 for i in range(200)]), method, 0)


def test_answers_with_a_score_each_make_no_pair():
    rows = [Scored(f"data:{i}", f"Q {i}", "some", float(i)) for i in range(60)]
    with pytest.raises(ValueError, match="none of 48 rows shares its prompt with one of another score"):
        own.check(rows, "dpo", 0)


def test_pairs_that_do_not_say_by_how_much_are_left_out_of_odpo_and_stay_in_dpo():
    found = Reading([*pairs(2), *pairs(3, chosen_score=2.0, rejected_score=1.0)], [], 5, 0, [])
    found = found._replace(records=[pair._replace(id=f"data:{i}") for i, pair in enumerate(found.records)])
    assert own.usable(found, "dpo", "data.jsonl") == found
    kept = own.usable(found, "odpo", "data.jsonl")
    assert [pair.id for pair in kept.records] == ["data:2", "data:3", "data:4"] and len(kept.problems) == 2
    assert "data.jsonl: row data:0: does not say how much better chosen is; add the column margin" in str(
        kept.problems[0]
    )
    with pytest.raises(DataError, match="all 2 pairs; DPO needs none"):
        own.usable(found._replace(records=pairs(2)), "odpo", "data.jsonl")
    worse = found._replace(records=[*pairs(1, margin=-2.0), *pairs(1, margin=1.0)[:1]])
    worse = worse._replace(records=[pair._replace(id=str(i)) for i, pair in enumerate(worse.records)])
    assert "chosen is worse than rejected by 2; swap the two" in str(own.usable(worse, "odpo", "d").problems[0])


def test_rows_of_weight_0_are_left_out_and_the_others_counted():
    rows = [pair for weight in (0, 0.5, 2) for pair in pairs(1, weight=weight)]
    kept, counts, (says,) = own.weigh(rows)
    assert [pair.weight for pair in kept] == [0.5, 2] and "0.5 to 2, 1.25 on average; 1 rows of weight 0" in says
    assert counts == {"weight_zero": 1, "least_weight": 0.5, "mean_weight": 1.25, "largest_weight": 2}
    assert own.weigh(pairs(3)) == (pairs(3), {}, [])
    with pytest.raises(ValueError, match="all 3 rows have weight 0, so none is trained on"):
        own.weigh(pairs(3, weight=0))


def test_a_prompt_with_two_weights_is_refused_where_only_prompts_are_read():
    rows = [pair._replace(weight=weight) for weight in (1, 3) for pair in pairs(20)]
    own.check(rows, "dpo", 0)
    with pytest.raises(ValueError, match="rows of one prompt have the weights 1 and 3"):
        own.check(rows, "osp", 0)


# --- lengths --------------------------------------------------------------------------------------------------------


def test_lengths_follow_the_data_and_stay_within_the_model():
    lengths = [Lengths([1] * 20, [[1] * 100, [1] * 30])] * 19 + [Lengths([1] * 500, [[1] * 900, [1] * 9])]
    assert own.fit_lengths(lengths, 2048) == {"max_prompt": 48, "max_completion": 104, "max_new_tokens": 72}
    narrow = own.fit_lengths(lengths, 128)
    assert narrow["max_completion"] == 80 and narrow["max_prompt"] == 48


def test_pairs_that_part_beyond_what_is_read_are_left_out_and_counted():
    late = Lengths([1], [[5] * 80 + [6], [5] * 80 + [7]])
    early = Lengths([1] * 9, [[5, 2], [6, 2]])
    kept, counts = own.cut(["late", "early"], [late, early], 8, 64)
    assert kept == ["early"] and counts == {"cut_prompts": 1, "cut_answers": 1, "equal_after_cut": 1}
    assert own.cut(["late", "early"], [late, early], 8, 81)[0] == ["late", "early"]
    with pytest.raises(ValueError, match="all 1 pairs are equal in their first 64 tokens, .*the longest has 81"):
        own.cut(["late"], [late], 8, 64)


# --- sizes and time -------------------------------------------------------------------------------------------------


def test_all_rows_are_asked_for_in_the_shares_that_the_chapter_has():
    parts = [pairs(4000), pairs(500), pairs(500)]
    values = {"sizes": {"few": 12, "many": 48}, "test_prompts": 100, "validation_prompts": 60, "epochs": 2}
    assert own.sizes(parts, values) == {"sizes": {"few": 1000, "many": 4000}, "test_prompts": 500,
                                        "validation_prompts": 500}  # fmt: skip
    assert own.used(parts, values) == 48 and own.used(parts, values | own.sizes(parts, values)) == 4000
    alone = [thumbs([1, 0] * 50), thumbs([1, 0]), thumbs([1, 0])]
    assert own.used(alone, {"sizes": own.sizes(alone, values)["sizes"]}) == 100


def test_many_rows_are_trained_at_the_rates_of_the_larger_profile():
    values, larger = {"learning_rates": {"dpo": 2e-3, "own": 1e-3}}, {"learning_rates": {"dpo": 5e-4, "sft": 5e-4}}
    assert own.rates(values, larger, 4.0) == {"learning_rates": {"dpo": 5e-4, "own": 1e-3}}
    assert own.rates(values, larger, 3.9) == own.rates({}, larger, 9.0) == {}


# --- folders --------------------------------------------------------------------------------------------------------


def test_no_run_takes_the_folder_of_another_and_the_same_command_comes_back_to_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = own.folder_for("sub/my data.jsonl.gz", "dpo", {"beta": 0.1}, "rows")
    assert first[0] == "own/my-data" and str(first[1]) == "runs/own/my-data/dpo" and first[1].is_dir()
    assert own.folder_for("sub/my data.jsonl.gz", "dpo", {"beta": 0.1}, "rows") == first
    assert own.folder_for("sub/my data.jsonl.gz", "dpo", {"beta": 0.2}, "rows")[0] == "own/my-data-2"
    assert own.folder_for("sub/my data.jsonl.gz", "dpo", {"beta": 0.1}, "other rows")[0] == "own/my-data-3"
    assert own.folder_for("sub/my data.jsonl.gz", "kto", {"beta": 0.1}, "rows")[0] == "own/my-data"
    assert json.loads((first[1] / "run.json").read_text())["values"] == {"beta": 0.1}
    own.folder_for("a.jsonl", "dpo", {}, "", name="mine")
    with pytest.raises(ValueError, match="--name mine: runs/own/mine/dpo holds another run; choose another name"):
        own.folder_for("b.jsonl", "dpo", {}, "", name="mine")
    with pytest.raises(ValueError, match="give letters, digits"):
        own.folder_for("b.jsonl", "dpo", {}, "", name="../study")
