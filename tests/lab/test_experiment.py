"""What all notebooks do alike: pairs with a size of their difference, claims, and sentences about them."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from prefcore.data import files, ratings, views
from prefcore.data.types import Example, Pair, Ranked, Scored
from prefcore.lab import experiment, notebooks
from prefcore.methods import dpo

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
P = {"seed": 0}


def scores(**arms):
    """Gold scores of each arm, one per prompt, one seed."""
    rows = [
        {"arm": arm, "seed": 0, "id": f"{i}", "gold": gold, "text": "a b c"}
        for arm, values in arms.items()
        for i, gold in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_a_given_margin_beats_the_difference_of_scores():
    scored = Pair("1", "x", "a", "b", 3.0, 1.0)
    pairs, ties = views.graded_pairs([scored, scored._replace(margin=0.5), Pair("3", "x", "a", "b", margin=4.0)])
    assert [pair.margin for pair in pairs] == [2.0, 0.5, 4.0]
    assert ties == 0


def test_ties_are_dropped_and_counted_whatever_the_data():
    both = {"x": (1.0, 1.0), "y": (2.0, 1.0)}
    ranked = [Ranked(prompt, prompt, ("a", "b"), pair, (True, True)) for prompt, pair in both.items()]
    scored = [Scored(f"{prompt}{s}", prompt, "a", s) for prompt, pair in both.items() for s in pair]
    pairs = [Pair(prompt, prompt, "a", "b", *pair) for prompt, pair in both.items()]
    for records in (ranked, scored, pairs):
        kept, ties = views.graded_pairs(records)
        assert ([pair.margin for pair in kept], ties) == ([1.0], 1)


def test_a_pair_of_unknown_or_wrong_difference_is_refused_by_name():
    with pytest.raises(ValueError, match="pair 7 .*add the column margin"):
        views.graded_pairs([Pair("7", "x", "a", "b")])
    with pytest.raises(ValueError, match="pair 7: chosen is worse than rejected by 2: swap"):
        views.graded_pairs([Pair("7", "x", "a", "b", 1.0, 3.0)])


def test_the_unit_of_a_gap_is_the_root_mean_square():
    """sqrt((3^2 + 4^2) / 2) = 3.5355."""
    assert views.gap_scale([Pair("1", "x", "a", "b", margin=m) for m in (3.0, 4.0)]) == pytest.approx(3.5355339)


def test_a_missing_column_is_named():
    rows = collate.with_column([Example("1", (5,), ((6,), (7,)), {"margin": 2.0})], "offset", [0.5])
    assert collate.column(rows, "offset").tolist() == [0.5]
    assert rows[0].columns == {"margin": 2.0, "offset": 0.5}
    with pytest.raises(ValueError, match="have no chosen_score"):
        collate.column(rows, "chosen_score")


def test_a_difference_of_differences_is_paired_by_prompt():
    """Advantages (1, 1, 1, 2) and (0, 1, 1, 1): they differ by (1, 0, 0, 1), mean 0.5."""
    found = scores(a=[1, 1, 1, 2], b=[0, 0, 0, 0], c=[2, 2, 2, 2], d=[2, 1, 1, 1])
    arms = {"few": ("a", "b"), "many": ("c", "d")}
    both = pd.concat(comparison.advantage(found, *pair, "gold", name=name) for name, pair in arms.items())
    assert comparison.claim("few above many", both, "few", "many", "gold", P)["estimate"] == pytest.approx(0.5)


def test_the_win_rate_counts_equal_texts_as_ties():
    found = scores(reference=[0.0, 0.0, 1.0, 1.0], dpo=[1.0, 1e-6, 1.0, 0.0])
    summary = comparison.summarise(found, P).set_index("arm")
    assert summary["win_rate"].to_dict() == {"reference": 0.5, "dpo": (1 + 0.5 + 0.5 + 0) / 4}
    assert summary["seeds"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("effect", "word", "meaning"),
    [(1.0, "HELD", "claimed side"), (-1.0, "NOT HELD", "the claim fails here"), (0.0, "UNDECIDED", "contains 0")],
)
def test_a_claim_is_told_by_its_verdict(effect, word, meaning, capsys):
    found = scores(a=[effect] * 8, b=[0.0] * 8)
    verdicts.print_sentences([comparison.claim("a is better", found, "a", "b", "gold", P)])
    said = capsys.readouterr().out
    assert said.startswith(f"{word}: a is better") and meaning in said


def test_arms_with_different_seeds_are_compared_on_those_they_share():
    found = scores(a=[1.0, 3.0], b=[0.0, 0.0])
    more = found[found["arm"] == "a"].assign(seed=1, gold=100.0)
    a, b = comparison.paired(pd.concat([found, more]), "a", "b", "gold")
    assert a.to_numpy().tolist() == [[1.0, 3.0]] and a.index.equals(b.index)
    assert comparison.claim("a is better", pd.concat([found, more]), "a", "b", "gold", P)["estimate"] == 2.0
    with pytest.raises(ValueError, match="share none"):
        comparison.paired(pd.concat([more, found[found["arm"] == "b"]]), "a", "b", "gold")


def test_an_arm_is_told_apart_from_its_method():
    named = comparison.name_arms(pd.DataFrame({"arm": ["kto", "kto-1:10-unweighted"]}))
    assert named[["method", "arm"]].to_numpy().tolist() == [["kto", ""], ["kto", "1:10-unweighted"]]


def test_what_is_remembered_stays_in_the_same_tensor():
    state = {"up": torch.tensor(0.0), "down": torch.tensor(1.0)}
    kept = state["up"]
    train.update_state(state, up=torch.tensor(2.0))
    assert kept.item() == 2.0 and state["up"] is kept and state["down"].item() == 1.0


def test_demonstrations_are_well_rated_and_never_from_the_gold_half(tmp_path, monkeypatch):
    def text(id, mean, split, half, completion=" b"):
        return ratings.Text(id, "Tweet", "a b", (0,), mean, split, half, "Tweet: a", completion)

    rows = [text("1", 2.0, "train", "proxy"), text("2", 1.9, "train", "proxy"), text("3", 4.0, "train", "gold"),
            text("4", 4.0, "test", ""), text("5", 3.0, "train", "proxy", ""), text("6", 3.0, "train", "proxy")]
    files.write_lines(rows, tmp_path / "build" / "quick" / "texts.jsonl")
    monkeypatch.chdir(tmp_path)
    found = ratings.good_texts({"profile": "quick", "good_rating": 2.0, "seed": 0})
    assert {t.id for t in found} == {"1", "6"}


# --- tasks and arms, in the toy world ---------------------------------------------------------------------------


@pytest.fixture
def p(toy_world):
    return notebooks.merge_parameters(toy_world, "dpo")


def pair_loss(logps, ref_logps, batch, state):
    return dpo.loss(logps, ref_logps, beta=0.1)


def write_pairs(path, n=30):
    rows = [{"prompt": f"Number {i % 20}", "chosen": f" is good {i}", "rejected": f" is bad {i}"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def trained_arm(p, task, **how):
    tokenizer, _ = tasks.load_reference(p)
    encoded = tasks.encode(views.as_pairs(task.records), p, tokenizer)
    plan = tasks.plan(encoded.examples, p, tokenizer, seed=0)
    return training.run_arm(p, task, plan, pair_loss, method="dpo", arm="dpo", seed=0, **how)


def test_parameters_are_the_plain_values_of_the_notebook():
    namespace = {"beta": 0.1, "rates": [1.0], "name": "a", "fast": True, "_x": 1, "In": [], "pd": pd, "f": len}
    assert experiment.parameters(namespace) == {"beta": 0.1, "rates": [1.0], "name": "a", "fast": True}


def test_a_notebook_in_its_folder_works_at_the_top(toy_world, monkeypatch):
    top = Path.cwd()
    monkeypatch.chdir("notebooks")
    experiment.parameters({})
    assert Path.cwd() == top


def test_the_default_task_trains_validates_and_tests_on_texts_of_those_splits(p):
    task = tasks.open_task(p)
    known = {t.id: t.split for t in ratings.read_texts(Path("build/smoke/texts.jsonl"))}
    assert {known[r.id] for r in task.records} == {"train"} and len(task.records) == p["prompts"]
    assert {known[t.id] for t in task.validation} == {"validation"} and {known[t.id] for t in task.test} == {"test"}
    assert (len(task.validation), len(task.test), task.measure) == (p["validation_prompts"], p["test_prompts"], "gold")
    with pytest.raises(ValueError, match="prompts is 99, but .* holds preferences for 16: raise preference_prompts"):
        tasks.open_task(p | {"prompts": 99})


def test_own_data_are_split_by_prompt_and_no_larger_than_asked_for(p, tmp_path):
    sizes = {"prompts": 10, "validation_prompts": 2, "test_prompts": 3}
    task = tasks.open_task(p | sizes | {"data": write_pairs(tmp_path / "own.jsonl", n=200)})
    parts = [{r.prompt for r in rows} for rows in (task.records, task.validation, task.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert (len(task.records), len(task.validation), len(task.test)) == (10, 2, 3)
    assert task.scorers is None and task.measure == "accuracy"


def test_an_arm_is_scored_on_the_prompts_of_the_reference_with_the_same_random_numbers(p):
    """With a learning rate of nothing the arm is the reference, and so is every one of its rows."""
    task = tasks.open_task(p)
    arm = trained_arm(p, task, learning_rate=1e-30)
    reference = task.score_reference(p, task, seeds=1)
    assert arm.scores["id"].tolist() == reference["id"].tolist() == [t.id for t in task.test]
    assert arm.scores["text"].tolist() == reference["text"].tolist()
    pd.testing.assert_series_equal(arm.scores["gold"], reference["gold"].reset_index(drop=True), atol=1e-4)
    assert arm.scores["kl"].abs().max() < 1e-3
    assert set(arm.history["arm"]) == {"dpo"} and arm.history["loss"].iloc[0] == pytest.approx(0.6931, abs=1e-3)


def test_an_arm_that_trains_moves_away_from_the_reference(p):
    task = tasks.open_task(p)
    arm = trained_arm(p | {"epochs": 4, "learning_rate": 0.02}, task, split="validation")
    assert arm.scores["id"].tolist() == [t.id for t in task.validation]
    assert arm.history["margin"].iloc[-1] > 0.01
    both = pd.concat([task.score_reference(p, task, seeds=1), trained_arm(p, task).scores])
    summary = comparison.summarise(both, p)
    assert summary["arm"].tolist() == ["reference", "dpo"] and summary["win_rate"][0] == 0.5
    assert ((summary["low"] <= summary["gold"]) & (summary["gold"] <= summary["high"])).all()


def test_arms_on_own_data_learn_what_is_preferred(p, tmp_path):
    more = {"epochs": 6, "prompts": 60, "validation_prompts": 20, "test_prompts": 20, "learning_rate": 0.02}
    p = p | more | {"data": write_pairs(tmp_path / "own.jsonl", n=100)}
    task = tasks.open_task(p)
    arm, reference = trained_arm(p, task), task.score_reference(p, task, seeds=1)
    assert (reference["accuracy"] == 0.5).all() and reference["margin"].abs().max() < 1e-3
    assert arm.scores["accuracy"].mean() == 1.0 and arm.scores["margin"].min() > 0


def test_an_unknown_arm_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"no scores for the arm 'c': there are \['a', 'b'\]"):
        comparison.table(scores(a=[1.0], b=[2.0]), "c", "gold")


def test_differences_are_paired_by_prompt_whatever_the_order():
    """Gold of a is that of the same prompt of b plus one, in another order: the interval has no width."""
    found = scores(a=[5.0, 1.0, 3.0], b=[4.0, 0.0, 2.0])
    found = pd.concat([found[found["arm"] == "a"], found[found["arm"] == "b"].iloc[::-1]])
    assert tuple(comparison.difference(found, "a", "b", "gold", P)) == (1.0, 1.0, 1.0)
