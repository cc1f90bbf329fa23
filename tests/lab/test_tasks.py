"""Tasks and arms in the toy world: what is trained on what, and scored how."""

import json
from pathlib import Path

import pandas as pd
import pytest

from prefcore.data import ratings, views
from prefcore.data.types import freeze
from prefcore.lab import comparison, parameters, tasks, training
from prefcore.methods import dpo, ulma

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture
def p(toy_world):
    return freeze(parameters.merge(toy_world, "dpo"))


def pair_loss(logps, ref_logps, batch, state, *, beta):
    return dpo.loss(logps, ref_logps, beta=beta)


def thumb_loss(logps, ref_logps, batch, state, *, beta):
    return ulma.pointwise_loss(logps, ref_logps, batch["label"], beta=beta)


def write_pairs(path, n=30):
    rows = [{"prompt": f"Number {i % 20}", "chosen": f" is good {i}", "rejected": f" is bad {i}"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def trained_arm(p, task, **how):
    tokenizer, _ = tasks.load_reference(p)
    encoded = tasks.encode(views.as_pairs(task.records), p, tokenizer)
    plan = tasks.plan(encoded.examples, p, tokenizer, seed=0)
    return training.run_arm(p, task, plan, pair_loss, {"beta": 0.1}, method="dpo", arm="dpo", seed=0, **how)


def test_the_default_task_trains_validates_and_tests_on_texts_of_those_splits(p):
    task = tasks.open_task(p)
    known = {t.id: t.split for t in ratings.read_texts(Path("build/smoke/texts.jsonl"))}
    assert {known[r.id] for r in task.records} == {"train"} and len(task.records) == p.prompts
    assert {known[t.id] for t in task.validation} == {"validation"} and {known[t.id] for t in task.test} == {"test"}
    assert (len(task.validation), len(task.test), task.measure) == (p.validation_prompts, p.test_prompts, "gold")
    with pytest.raises(ValueError, match="prompts is 99, but .* holds preferences for 16: raise preference_prompts"):
        tasks.open_task(p._replace(prompts=99))


def test_own_data_are_split_by_prompt_and_no_larger_than_asked_for(p, tmp_path):
    sizes = {"prompts": 10, "validation_prompts": 2, "test_prompts": 3}
    task = tasks.open_task(p._replace(**sizes, data=write_pairs(tmp_path / "own.jsonl", n=200)))
    parts = [{r.prompt for r in rows} for rows in (task.records, task.validation, task.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert (len(task.records), len(task.validation), len(task.test)) == (10, 2, 3)
    assert task.scorers is None and task.measure == "accuracy"


def test_an_arm_is_scored_on_the_prompts_of_the_reference_with_the_same_random_numbers(p):
    """With a learning rate of nothing the arm is the reference, and so is every one of its rows."""
    task = tasks.open_task(p)
    arm = trained_arm(p, task, learning_rate=1e-30)
    reference = task.score_reference(seeds=1)
    assert arm.scores["id"].tolist() == reference["id"].tolist() == [t.id for t in task.test]
    assert arm.scores["text"].tolist() == reference["text"].tolist()
    pd.testing.assert_series_equal(arm.scores["gold"], reference["gold"].reset_index(drop=True), atol=1e-4)
    assert arm.scores["kl"].abs().max() < 1e-3
    assert set(arm.history["arm"]) == {"dpo"} and arm.history["loss"].iloc[0] == pytest.approx(0.6931, abs=1e-3)


def test_an_arm_that_trains_moves_away_from_the_reference(p):
    task = tasks.open_task(p)
    arm = trained_arm(p._replace(epochs=4, learning_rate=0.02), task, split="validation")
    assert arm.scores["id"].tolist() == [t.id for t in task.validation]
    assert arm.history["margin"].iloc[-1] > 0.01
    both = pd.concat([task.score_reference(seeds=1), trained_arm(p, task).scores])
    summary = comparison.summarise(both, p)
    assert summary["arm"].tolist() == ["reference", "dpo"] and summary["win_rate"][0] == 0.5
    assert ((summary["low"] <= summary["gold"]) & (summary["gold"] <= summary["high"])).all()


def test_arms_on_own_data_learn_what_is_preferred(p, tmp_path):
    more = {"epochs": 6, "prompts": 60, "validation_prompts": 20, "test_prompts": 20, "learning_rate": 0.02}
    p = p._replace(**more, data=write_pairs(tmp_path / "own.jsonl", n=100))
    task = tasks.open_task(p)
    arm, reference = trained_arm(p, task), task.score_reference(seeds=1)
    assert (reference["accuracy"] == 0.5).all() and reference["margin"].abs().max() < 1e-3
    assert arm.scores["accuracy"].mean() == 1.0 and arm.scores["margin"].min() > 0


def test_demonstrations_and_bad_answers_are_thumbs_of_ones_own_data_and_texts_of_the_default_data(p, tmp_path):
    task = tasks.open_task(p)
    good, bad = task.demonstrations(1.0), task.bad_answers(0.25)
    known = {t.id: t for t in ratings.read_texts(Path("build/smoke/texts.jsonl"))}
    assert good and all(row.label and known[row.id].mean >= 1 and known[row.id].half == "proxy" for row in good)
    lowest = sorted(score for row in task.records for score in row.scores)[: len(bad)]
    assert bad and not any(row.label for row in bad) and len(lowest) == len(bad)
    own = tasks.open_task(p._replace(data=write_pairs(tmp_path / "own.jsonl")))
    assert len(own.demonstrations(1.0)) == len(own.bad_answers(0.25)) == len(own.records)


def test_a_long_prompt_never_hides_the_answer_from_a_judge():
    assert tasks.end_of_prompt("x" * 1000, " the answer").endswith("xx the answer")
    assert len(tasks.end_of_prompt("x" * 1000, " the answer")) < 150
    chat = [{"role": "user", "content": "first"}, {"role": "user", "content": "last"}]
    assert tasks.end_of_prompt(chat, "answer") == "last answer"


def test_a_held_out_score_is_a_thumb_by_the_training_records_and_not_by_the_other_held_out_ones(p, tmp_path):
    """Training scores are mostly 0 to 5; the held-out rows' own median would call half of those that are 9 bad."""
    def write(scores):
        rows = [{"prompt": f"Number {i}", "completion": f" is {i}", "score": s} for i, s in enumerate(scores)]
        (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        own = p._replace(data=str(tmp_path / "own.jsonl"), prompts=999, validation_prompts=99, test_prompts=99)
        return tasks.open_task(own)

    plain = write([i % 6 for i in range(60)])
    assert {row.label for row in plain.test} == {True, False}
    place = {int(row.prompt.split()[1]) for row in plain.test}
    high = write([9 + i if i in place else i % 6 for i in range(60)])
    assert {int(row.prompt.split()[1]) for row in high.test} == place and all(row.label for row in high.test)
    assert plain.records == high.records and plain.validation == high.validation


def test_arms_on_own_thumbs_are_scored_at_a_threshold_chosen_on_their_validation_rows(p, tmp_path):
    rows = [{"prompt": f"Number {i}", "completion": f" is {'good' if i % 3 else 'bad'} {i}", "label": bool(i % 3)}
            for i in range(150)]  # fmt: skip
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = {"epochs": 4, "prompts": 96, "validation_prompts": 15, "test_prompts": 15, "learning_rate": 0.02}
    p = p._replace(**more, data=str(tmp_path / "own.jsonl"))
    task = tasks.open_task(p)
    tokenizer, _ = tasks.load_reference(p)
    plan = tasks.plan(tasks.encode(task.records, p, tokenizer).examples, p, tokenizer, seed=0)
    how = {"method": "ulma", "arm": "ulma", "seed": 0}
    arm = training.run_arm(p, task, plan, thumb_loss, {"beta": 0.5}, **how)
    both = pd.concat([task.score_reference(seeds=1), arm.scores])
    summary = comparison.summarise(both, p).set_index("arm")
    assert summary["auc"]["reference"] == 0.5 and summary["auc"]["ulma"] > 0.9
    share = arm.scores["label"].mean()  # nothing learnt, and the frequent label is the best guess
    assert summary["accuracy"]["reference"] == pytest.approx(max(share, 1 - share))
    assert summary["accuracy"]["ulma"] > summary["accuracy"]["reference"]
