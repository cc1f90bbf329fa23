"""Reward models held against people's votes: one row a pair, folds that are no seeds, and baselines."""

import numpy as np
import pandas as pd
import pytest

from prefcore.data.types import freeze
from prefcore.lab import decisions
from prefcore.methods.margin_rm import evaluation, labels
from prefcore.scoring.votes import VotedPair


def pairs_of(*domains, stratum="plural", truth=(1.0,)):
    """A pair of each of these domains, with shares 0, 0.1, ..."""
    return [VotedPair(f"p{i}", "", f"a{i}", f"b{i}", (1.0, 0.0), truth, i / 10 % 1, domain, stratum, "test")
            for i, domain in enumerate(domains)]  # fmt: skip


def test_a_row_says_what_was_judged_beside_what_people_say():
    """0.3 against nobody: squared distance 0.09, 0.2 away from one half, of indistinguishable pairs alone."""
    pairs = pairs_of("x", stratum="indistinguishable") + pairs_of("x")
    alike, plural = evaluation.rows_of(pairs, np.array([0.304, 0.3]), arm="linear/bt", seed=2).to_dict("records")
    assert alike == {"arm": "linear/bt", "seed": 2, "id": "t0", "group": "indistinguishable", "ratio_1": 0.3,
                     "rating_1": 0.0, "brier": 0.09, "from_half": 0.2}  # fmt: skip
    assert plural["id"] == "t1" and np.isnan([plural["brier"], plural["from_half"]]).all()


def test_the_baselines_are_an_even_vote_and_where_there_are_others_the_training_half_of_the_raters():
    even, raters = evaluation.baselines(pairs_of("x", "y"))
    assert even["ratio_1"].tolist() == raters["ratio_1"].tolist() == [0.5, 0.5]
    assert (even["arm"].iloc[0], raters["arm"].iloc[0]) == ("always 0.5", "raters")
    assert len(evaluation.baselines(pairs_of("x", "y", truth=()))) == 1


def test_a_pair_is_tested_once_by_the_run_that_left_its_domain_out():
    pairs = pairs_of("ant", "bee", "ant", "cat", "dog")
    asked = []

    def run(fold):
        asked.append(fold)
        return np.full(5, fold / 10)

    answers = evaluation.leave_out(pairs, labels.quarters(pairs), run)
    assert answers.tolist() == [0.0, 0.1, 0.0, 0.2, 0.3] and asked == [0, 1, 2, 3]


def test_folds_are_never_drawn_as_seeds():
    """Four folds with very different answers, one training seed: one row a pair, no spread over seeds, and the claim is
    not tested. Where folds counted as runs there were four, and an interval drew among them."""
    pairs = pairs_of(*"abcd" * 10)
    rng = np.random.default_rng(0)
    tables = []
    for arm in ("bt", "abs"):
        answers = evaluation.leave_out(
            pairs, labels.quarters(pairs), lambda fold: np.clip(rng.random(40) / 4 + fold / 4, 0, 1)
        )
        tables.append(evaluation.rows_of(pairs, answers, arm=f"tuned-new/{arm}", seed=0))
    table = pd.concat(tables)
    assert table.groupby("arm")["id"].nunique().to_dict() == {"tuned-new/abs": 40, "tuned-new/bt": 40}
    assert not table.duplicated(["arm", "seed", "id"]).any()
    claim = {"kind": "primary", "claim": "c", "contrast": {"tuned-new/abs": 1, "tuned-new/bt": -1}, "measure": "rho",
             "direction": "higher", "delta": 0.01}  # fmt: skip
    (row,) = decisions.decide(table, {}, freeze({"claims": [claim], "controls": [], "seed": 0}))["claims"]
    assert (row["seeds"], row["units"], row["verdict"]) == (1, 40, "not tested")


def test_where_there_is_one_domain_nothing_is_left_out_and_it_is_said(capsys):
    pairs = pairs_of("only", "only")
    answers = evaluation.leave_out(pairs, labels.quarters(pairs), lambda fold: 1 / 0)
    assert np.isnan(answers).all() and "none can be left out" in capsys.readouterr().out
    assert evaluation.rows_of(pairs, answers, arm="linear-new/bt", seed=0).empty


def test_the_summary_gives_the_correlation_with_an_interval_and_by_stratum():
    rng = np.random.default_rng(0)
    pairs = pairs_of(*"abcd" * 10, stratum="clear") + pairs_of(*"abcd" * 10, stratum="indistinguishable")
    share = np.array([pair.share for pair in pairs])
    said = {seed: np.clip(share + 0.1 * rng.normal(size=80), 0, 1) for seed in range(3)}
    tables = [evaluation.rows_of(pairs, found, arm="tuned/bt", seed=seed) for seed, found in said.items()]
    summary = evaluation.summarise(pd.concat([*tables, *evaluation.baselines(pairs)]), freeze({"seed": 0}))
    rows = summary.set_index("arm").to_dict("index")
    bt, even = rows["tuned/bt"], rows["always 0.5"]
    assert bt["estimate"] == pytest.approx(np.mean([np.corrcoef(s, share)[0, 1] for s in said.values()]), abs=5e-3)
    assert bt["low"] < bt["estimate"] < bt["high"] and (bt["seeds"], bt["pairs"]) == (3, 80)
    inside = np.mean([np.corrcoef(s[:40], share[:40])[0, 1] for s in said.values()])
    assert bt["r clear"] == pytest.approx(inside, abs=5e-3) and "r plural" not in bt
    assert even["estimate"] == 0.0 and even["from half, indistinguishable"] == 0.0
    assert even["brier"] == pytest.approx(np.mean((0.5 - share) ** 2)) and even["accuracy"] == 0.5
    assert bt["accuracy"] > 0.8


def test_a_model_that_says_the_same_of_all_pairs_is_the_worst_choice():
    pairs = pairs_of(*"abcd")
    assert evaluation.correlation(np.full(4, 0.7), pairs) == -1.0
    assert evaluation.correlation(np.array([0.1, 0.2, 0.3, 0.4]), pairs) == pytest.approx(1.0)
    assert evaluation.accuracy(np.array([0.9, 0.4]), np.array([0.5, 0.5])) is None
