"""From measures to verdicts: what was named before, what passes, and what is not tested at all."""

import numpy as np
import pandas as pd
import pytest

from prefcore.data import files
from prefcore.data.types import Example, freeze
from prefcore.engine import collate
from prefcore.lab import decisions, measures, runs
from prefcore.scoring import bank

IDS = [f"x{i}" for i in range(200)]
RNG = np.random.default_rng(0)
RATED = RNG.normal(size=(200, 4))
RATINGS = dict(zip(IDS, RATED, strict=True))
CLAIM = {"kind": "primary", "claim": "new beats old", "contrast": {"new": 1, "old": -1}, "measure": "rho",
         "direction": "higher", "delta": 0.02}  # fmt: skip
POSITIVE = {"kind": "positive", "name": "more data", "contrast": {"old": 1, "few": -1}, "measure": "rho"}
PLACEBO = {"kind": "placebo", "name": "shuffled", "contrast": {"shuffled": 1}, "measure": "rho", "delta": 0.15}


def table(seeds=4, **strengths):
    """Measures of arms whose log-ratios are so much rating and the rest noise."""
    rng = np.random.default_rng(1)
    rows = [
        measures.rows_of(strength * RATED + rng.normal(size=RATED.shape), IDS, arm=arm, seed=seed)
        for seed in range(seeds) for arm, strength in strengths.items()
    ]  # fmt: skip
    return pd.concat(rows)


def decide(found, claims=(CLAIM,), controls=(POSITIVE, PLACEBO), guards=()):
    p = freeze({"seed": 0, "claims": list(claims), "controls": list(controls), "profile": "toy"})
    return decisions.decide(found, RATINGS, p, guards)


def test_a_difference_that_is_there_is_held_and_says_what_it_rests_on():
    (row,) = decide(table(new=0.6, old=0.3, few=0.1, shuffled=0.0))["claims"]
    assert (row["verdict"], row["because"]) == ("held", "") and row["low"] > 0.1
    assert row["test"] == "rho of new − old, 200 units × 4 training seed(s)"


@pytest.mark.parametrize(
    ("strengths", "because"),
    [
        ({"few": 0.3, "shuffled": 0.0}, "more data"),  # the positive control shows nothing
        ({"few": 0.1, "shuffled": 0.3}, "shuffled"),  # the placebo gains
        ({"few": 0.1}, "shuffled did not run"),
    ],
)
def test_where_a_control_does_not_pass_or_did_not_run_nothing_is_tested(strengths, because):
    (row,) = decide(table(new=0.6, old=0.3, **strengths))["claims"]
    assert (row["verdict"], row["because"]) == ("not tested", because)


def test_a_placebo_that_takes_from_unlikely_texts_passes_by_its_partial_correlation_alone():
    """Raters like likely texts a little, and training on anything takes most from unlikely ones."""
    rng = np.random.default_rng(2)
    logps = RATED + 1.5 * rng.normal(size=RATED.shape)
    plan = collate.Plan([Example(id, (1,), ((1, 2), (1,), (3,), (4, 5, 6))) for id in IDS], [], ref_logps=logps)
    blind = [measures.rows_of(logps + rng.normal(size=logps.shape), IDS, arm="shuffled", seed=s) for s in range(4)]
    found = pd.concat([measures.rows_of_reference(plan), table(new=0.6, old=0.3, few=0.1), *blind])
    partial = PLACEBO | {"measure": "partial_rho"}
    plain, other = (decide(found, controls=(POSITIVE, one))["controls"][1] for one in (PLACEBO, partial))
    assert plain["low"] > 0.3 and not plain["passed"]
    assert other["passed"] and abs(other["estimate"]) < 0.05
    assert other["test"].startswith("partial_rho of shuffled")


def test_without_the_references_own_rows_there_is_no_partial_correlation(capsys):
    found = table(new=0.6, old=0.3, few=0.1, shuffled=0.0)
    (row,) = decide(found, controls=(POSITIVE, PLACEBO | {"measure": "partial_rho"}))["claims"]
    assert row["because"] == "shuffled did not run" and "no partial_rho of shuffled" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no log-probabilities of the reference"):
        measures.parts_of(found, "partial_rho", RATINGS, ["new"])


def test_one_training_seed_decides_nothing():
    (row,) = decide(table(seeds=1, new=0.9, old=0.3, few=0.1, shuffled=0.0))["claims"]
    assert row["verdict"] == "not tested" and "1 training seed" in row["because"]


def test_a_failed_guard_takes_the_verdict_from_its_arm_alone():
    other = CLAIM | {"claim": "old beats few", "contrast": {"old": 1, "few": -1}}
    guards = [{"name": "distinct word pairs", "kind": "guard", "arm": "new", "passed": False}]
    first, second = decide(table(new=0.6, old=0.3, few=0.1, shuffled=0.0), [CLAIM, other], guards=guards)["claims"]
    assert (first["verdict"], first["because"]) == ("not tested", "distinct word pairs of new")
    assert second["verdict"] == "held"


def test_a_claim_about_an_arm_that_did_not_run_is_named_and_left_out(capsys):
    assert decide(table(old=0.3, few=0.1, shuffled=0.0))["claims"] == []
    assert "NOT RUN HERE: new beats old (no rho of new)" in capsys.readouterr().out


def test_secondary_claims_are_corrected_for_their_number_and_primary_ones_are_not():
    """A difference that its own interval just shows is undecided among twenty such claims."""
    found = table(new=0.42, old=0.3, few=0.1, shuffled=0.0)
    one = CLAIM | {"kind": "secondary"}
    (alone,) = decide(found, [one])["claims"]
    assert alone["verdict"] == "held" and 0.0025 < alone["p"] < 0.05
    assert {row["verdict"] for row in decide(found, [one] * 20)["claims"]} == {"undecided"}
    assert {row["verdict"] for row in decide(found, [CLAIM] * 20)["claims"]} == {"held"}


def test_guards_compare_samples_with_the_references_for_the_same_prompts():
    def rows(arm, text, finished, surprise):
        return pd.DataFrame({"arm": arm, "seed": 0, "text": text, "finished": finished, "surprise": surprise})

    plain = rows("reference", [f"one two {i} four" for i in range(20)], [True] * 18 + [False] * 2, 3.0)
    same = rows("same", [f"one two {i} six" for i in range(20)], [True] * 18 + [False] * 2, 3.5)
    broken = rows("broken", ["good good good good"] * 18 + ["good"] * 2, [False] * 20, 4.5)
    found = decisions.guard(pd.concat([plain, same, broken]))
    passed = {arm: [row["passed"] for row in found if row["arm"] == arm] for arm in ("same", "broken")}
    assert passed == {"same": [True] * 4, "broken": [False] * 4}


def test_verdicts_are_made_again_from_committed_files_and_a_changed_one_is_seen(tmp_path):
    found = table(new=0.6, old=0.3, few=0.1, shuffled=0.0)
    p = freeze({"seed": 0, "claims": [CLAIM], "controls": [POSITIVE, PLACEBO], "profile": "toy"})
    runs.save_measures(found, "toy", "dpo", tmp_path)
    rows = [bank.Rated(i, "", "test", "", (), (), (), {"gold": list(rated)}) for i, rated in RATINGS.items()]
    files.write_lines(rows, tmp_path / "banks" / "toy.jsonl")
    known = decisions.decide(found, RATINGS, p)
    (row,) = decisions.again("dpo", p, known, tmp_path)
    assert row["verdict"] == row["committed"] == "held"
    assert row["estimate"] == pytest.approx(known["claims"][0]["estimate"], abs=1e-6)
    known["claims"][0]["verdict"] = "not held"
    assert decisions.again("dpo", p, known, tmp_path)[0]["committed"] == "not held"


def test_a_table_of_measures_is_kept_to_the_byte(tmp_path):
    found = table(new=0.6, old=0.3)
    first = runs.save_measures(found, "toy", "a", tmp_path).read_bytes()
    assert runs.save_measures(found, "toy", "a", tmp_path).read_bytes() == first
    pd.testing.assert_frame_equal(runs.read_measures("toy", "a", tmp_path), found.reset_index(drop=True), atol=1e-4)
    with pytest.raises(ValueError, match="bad values"):
        runs.save_measures(found.assign(ratio_1=np.inf), "toy", "a", tmp_path)


def test_parts_are_paired_on_the_seeds_and_units_that_all_arms_have():
    found = table(new=0.6, old=0.3)
    found = found[~((found["arm"] == "old") & ((found["seed"] == 3) | (found["id"] == "x0")))]
    parts = measures.parts_of(found, "rho", RATINGS, ["new", "old"])
    assert parts["new"].shape == parts["old"].shape == (3, 3, 199)
    with pytest.raises(ValueError, match="has no gold_confirmed"):
        measures.parts_of(found, measures.CONFIRMED, RATINGS, ["new"])


def test_a_summary_tells_each_arm_with_its_spread_and_distance():
    found = table(new=0.6, old=0.0)
    found[[c for c in found if c.startswith("ratio")]] -= 0.5
    summary = measures.summarise(found, RATINGS, freeze({"seed": 0})).set_index("arm")
    assert summary["estimate"]["new"] == pytest.approx(0.6 / np.sqrt(1.36), abs=0.06)
    assert summary["low"]["old"] < 0 < summary["high"]["old"] and summary["order"]["new"] > 0.6
    assert summary["nats"].round(1).tolist() == [0.5, 0.5] and summary["seeds"].tolist() == [4, 4]
    assert measures.as_metrics(summary.reset_index())["new"]["seeds"] == 4


def test_a_claim_about_one_group_of_units_reads_that_group_alone():
    """Forty pairs of each kind; the difference is in one kind, and a kind that is not there is not tested."""
    rng = np.random.default_rng(3)
    rows = [{"arm": arm, "seed": seed, "id": f"{kind}{i}", "group": kind, "error": rng.normal() + (arm == "new") * gap}
            for arm in ("new", "old") for seed in range(4) for kind, gap in (("plural", -3), ("clear", 0))
            for i in range(40)]  # fmt: skip
    of = CLAIM | {"measure": "error", "direction": "lower", "delta": 0.5}
    claims = [of | {"among": kind, "claim": kind} for kind in ("plural", "clear", "tie")] + [of]
    plural, clear, both = decide(pd.DataFrame(rows), claims, controls=())["claims"]
    assert (plural["verdict"], plural["units"], both["units"]) == ("held", 40, 80)
    assert plural["test"].startswith("error among plural of new − old")
    assert clear["verdict"] != "held" and plural["estimate"] < both["estimate"] < clear["estimate"]


def test_ratings_in_the_table_come_before_those_of_the_bank():
    known = table(new=0.6, old=0.3)
    turned = known.merge(pd.DataFrame(-RATED, columns=[f"rating_{k}" for k in range(1, 5)]).assign(id=IDS), on="id")
    (row,) = decide(known, controls=())["claims"]
    (other,) = decide(turned, controls=())["claims"]
    assert row["verdict"] == "held" and other["estimate"] == pytest.approx(-row["estimate"])


def test_best_of_n_is_the_chosen_answers_rating_less_its_prompts_mean():
    """Two prompts: the proxy takes gold 5 of (1, 3, 5), 2 above the mean, and 2 of (2, 4, 6), 2 below it."""
    gold, proxy = np.array([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]), np.array([[0.0, 1.0, 9.0], [9.0, 1.0, 2.0]])
    found = bank.Bank([], {"gold": gold, "proxy": proxy})
    assert measures.best_of(found, "gold", "proxy", seed=0).estimate == pytest.approx(0.0)
    assert measures.best_of(found, "gold", "gold", seed=0).estimate == pytest.approx(2.0)


def test_a_guard_on_samples_withholds_claims_on_samples_alone():
    guards = [{"name": "distinct word pairs", "kind": "guard", "arm": "new", "passed": False, "withholds": "gold"}]
    known = table(new=0.6, old=0.3, few=0.1, shuffled=0.0)
    known["gold"] = known["arm"].map({"new": 1.0, "old": 0.0, "few": 0.0, "shuffled": 0.0})
    on_samples = CLAIM | {"claim": "samples", "measure": "gold"}
    first, second = decide(known, [CLAIM, on_samples], guards=guards)["claims"]
    assert (first["verdict"], second["verdict"]) == ("held", "not tested")
    assert second["because"] == "distinct word pairs of new"


def test_a_placebo_that_gains_a_little_for_certain_does_not_pass_though_it_is_below_its_bound():
    wide = PLACEBO | {"delta": 0.9}
    (row,) = decide(table(new=0.6, old=0.3, few=0.1, shuffled=0.3), controls=(wide,))["controls"]
    assert not row["passed"] and row["low"] > 0 and row["expected"] == "at 0, below 0.9"


def test_units_that_a_seed_lacks_are_left_out_for_all_arms():
    rows = [{"arm": arm, "seed": seed, "id": f"u{i}", "score": float(i)} for arm in ("new", "old") for seed in range(3)
            for i in range(9) if (arm, seed, i) != ("new", 1, 4)]  # fmt: skip
    parts = measures.parts_of(pd.DataFrame(rows), "score", {}, ["new", "old"])
    assert parts["new"].shape == parts["old"].shape == (1, 3, 8) and 4.0 not in parts["old"]


def test_what_is_kept_is_what_a_claim_reads():
    table = pd.DataFrame({"group": ["x", "x", "y"], "arm": ["a", "b", "a"], "seed": 0, "id": 0, "ratio_1": 0.5,
                          "rating_1": 0.6, "accuracy": [0.1, 0.2, 0.3], "nats": [1.0, 2.0, 3.0]})  # fmt: skip
    claims = [{"among": "x", "contrast": {"a": 1}, "measure": "nats"}, {"among": "y", "contrast": {"a": 1},
              "measure": "accuracy"}, {"among": "x", "contrast": {"none": 1}, "measure": "lacking"}]  # fmt: skip
    kept = measures.keep_named(table, claims)
    assert kept["arm"].tolist() == ["a", "a"] and kept["group"].tolist() == ["x", "y"]
    assert kept["nats"].tolist()[0] == 1.0 and pd.isna(kept["nats"].tolist()[1])
    assert kept["accuracy"].tolist()[1] == 0.3 and "ratio_1" not in kept
    of_all = measures.keep_named(table, [{"contrast": {"b": 1}, "measure": "rho"}])
    assert of_all[["arm", "ratio_1", "rating_1"]].values.tolist() == [["b", 0.5, 0.6]] and "nats" not in of_all


def test_a_control_of_a_group_that_was_not_measured_withholds_nothing():
    """A run on one's own people has no planted world, and the planted world's controls are not missed there."""
    here = table(new=0.6, old=0.3, few=0.1, shuffled=0.0).assign(group="here")
    placebo = [POSITIVE | {"among": "here"}, PLACEBO | {"among": "elsewhere"}]
    (row,) = decide(here, [CLAIM | {"among": "here"}], controls=placebo)["claims"]
    assert row["verdict"] == "held"
    controls = [POSITIVE, PLACEBO | {"among": "here"}]
    (row,) = decide(here[here["arm"] != "shuffled"], [CLAIM], controls=controls)["claims"]
    assert row["because"] == "shuffled did not run"
