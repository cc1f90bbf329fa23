"""Tasks and arms in the toy world: what is trained on what, and measured how."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prefcore.data import ratings, views
from prefcore.data.types import Pair, freeze
from prefcore.engine import models
from prefcore.lab import measures, parameters, tasks, training
from prefcore.methods import dpo, ulma
from prefcore.scoring import bank

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


def write_thumbs(path, n=150):
    rows = [{"prompt": f"Number {i}", "completion": f" is {'good' if i % 3 else 'bad'} {i}", "label": bool(i % 3)}
            for i in range(n)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def trained_arm(p, task, *, size=8, seed=0, arm="dpo", **how):
    tokenizer, _ = tasks.load_reference(p)
    encoded = tasks.encode(task.pairs(size, seed), p, tokenizer)
    plan = tasks.plan(encoded.examples, p, tokenizer, seed=seed)
    return training.run_arm(p, task, plan, pair_loss, {"beta": 0.1}, method="dpo", arm=arm, seed=seed, **how)


def test_the_default_task_trains_and_is_measured_on_texts_of_those_splits(p):
    task, (tokenizer, _) = tasks.open_task(p), tasks.load_reference(p)
    known = {t.id: t.split for t in ratings.read_texts(Path("build/smoke/texts.jsonl"))}
    assert {known[r.id] for r in task.records} == {"train"} and task.has_pairs
    for split, size in (("validation", p.validation_prompts), ("test", p.test_prompts)):
        found = task.bank(split, tokenizer)
        assert {known[e.id] for e in found.examples} == {split} and len(found.examples) == size
    assert "gold" not in task.bank("validation", tokenizer).ratings and task.rater == "gold"
    with pytest.raises(ValueError, match="test_prompts is 99, but .* holds 6: raise bank_prompts"):
        tasks.open_task(p._replace(test_prompts=99)).bank("test", tokenizer)


def test_each_seed_draws_its_own_pairs_and_the_thumbs_of_a_seed_are_its_pairs_answers(p):
    task = tasks.open_task(p)
    first, second = (task.pairs(8, seed) for seed in (0, 1))
    assert len(first) == len(second) == 8 and first != second and first == task.pairs(8, 0)
    assert task.thumbs(8, 1) == views.pairs_to_unary(second)


def test_pairs_that_are_equal_within_the_limits_are_dropped_and_counted(tokenizer):
    rows = [Pair("late", "w4", "w5 w6 w7", "w5 w6 w8"), Pair("early", "w4", "w5 w6", "w6 w5")]
    found = tasks.encode(rows, freeze({"max_prompt": 4, "max_completion": 2}), tokenizer)
    assert [example.id for example in found.examples] == ["early"] and found.dropped == 1


def test_a_few_of_ones_own_rows_are_drawn_over_the_whole_file(p, tmp_path):
    p = p._replace(data=write_pairs(tmp_path / "own.jsonl", n=200), test_prompts=200)
    tokenizer, _ = tasks.load_reference(p)
    every, few = ([int(example.id.partition(":")[2]) for example in
                   tasks.open_task(p._replace(test_prompts=size)).bank("test", tokenizer).examples]
                  for size in (200, 4))  # fmt: skip
    assert len(every) == 20 and set(few) < set(every) and sorted(few) != sorted(every)[:4]


def test_own_data_are_split_by_prompt_and_no_larger_than_asked_for(p, tmp_path):
    p = p._replace(validation_prompts=2, test_prompts=3, data=write_pairs(tmp_path / "own.jsonl", n=200))
    task, (tokenizer, _) = tasks.open_task(p), tasks.load_reference(p)
    seen = {r.prompt for r in task.records}
    held = {split: task.bank(split, tokenizer).examples for split in ("validation", "test")}
    assert [*map(len, held.values())] == [2, 3] and len(task.pairs(10, 0)) == 10
    assert not {tokenizer.decode(e.prompt) for rows in held.values() for e in rows} & seen
    assert len(task.pairs(10_000, 0)) == len(task.records) and task.scorers is None and task.rater == "preference"


def test_with_a_rate_of_nothing_an_arm_is_the_reference_on_every_answer(p):
    task = tasks.open_task(p)
    arm = trained_arm(p, task, learning_rate=1e-30)
    assert arm.scores.filter(like="ratio").abs().to_numpy().max() < 1e-3
    assert set(arm.history["arm"]) == {"dpo"} and arm.history["loss"].iloc[0] == pytest.approx(0.6931, abs=1e-3)


def test_a_policy_whose_every_weight_is_trained_is_measured_against_what_it_was(p):
    task = tasks.open_task(p)
    _, policy = tasks.load_reference(p)
    arm = trained_arm(p._replace(epochs=4), task, learning_rate=0.01, policy=models.train_top(policy, layers=99))
    assert arm.policy is policy and arm.scores.filter(like="ratio").abs().to_numpy().max() > 0.01


def test_all_runs_of_a_chapter_make_one_table_with_the_samples_of_the_arms_that_are_confirmed(p):
    task, p = tasks.open_task(p), p._replace(seeds=2, confirm=["b"], confirm_nats=1e-4, epochs=4)
    done = training.run_all(p, task, lambda arm, seed: trained_arm(p, task, seed=seed, arm=arm, learning_rate=0.02),
                            ["a", "b"], keep="b")  # fmt: skip
    rows = done.table.dropna(subset=["ratio_1"]).groupby(["arm", "seed"]).size()
    assert rows.to_dict() == {(arm, seed): p.test_prompts for arm in "ab" for seed in (0, 1)}
    assert list(dict.fromkeys(done.samples["arm"])) == ["reference", "b"]
    of_reference = done.table.dropna(subset=["logp_1"])
    assert set(of_reference["arm"]) == {"reference"} and len(of_reference) == p.test_prompts
    assert (of_reference.filter(like="logp_") < 0).all(axis=None) and done.table.columns.is_unique
    gold = done.table.dropna(subset=[measures.CONFIRMED])
    assert gold.groupby("arm").size().to_dict() == {"reference": p.confirm_prompts, "b": p.confirm_prompts}
    assert done.kept.policy is not None and set(done.history["arm"]) == {"a", "b"}


def test_a_confirmed_arm_is_sampled_at_the_distance_that_was_asked_for(p):
    task, p = tasks.open_task(p), p._replace(confirm_nats=1e-4, epochs=4)
    arm = trained_arm(p, task, learning_rate=0.02)
    frame = training.confirm(p, task, arm, name="dpo", seed=0)
    few = bank.Bank(task.bank("test", arm.tokenizer).examples[: p.confirm_bank], {})
    plan = bank.attach(few, arm.policy, pad_id=0, cache=None)
    with models.scaled(arm.policy, frame["factor"].iloc[0]):
        assert bank.distance(bank.log_ratios(arm.policy, plan)) == pytest.approx(1e-4, rel=bank.NEAR)
    assert training.confirm(p._replace(confirm_nats=50.0), task, arm, name="dpo", seed=0).empty


def test_the_rate_is_chosen_by_the_proxy_on_the_validation_bank(p):
    task, tried = tasks.open_task(p), []

    def run(arm, rate):
        tried.append((arm, rate))
        rows = {e.id: np.array(r) for e, r in zip(found.examples, found.ratings["proxy"], strict=True)}
        noise = np.random.default_rng(0).normal(size=(len(rows), 4))
        ratios = np.stack([*rows.values()]) * (rate == 0.2) + noise * 1e-3
        return training.Arm(None, None, None, measures.rows_of(ratios, [*rows], arm=arm, seed=0))

    found = task.bank("validation", tasks.load_reference(p)[0])
    p = p._replace(rates=[0.1, 0.2, 0.4], learning_rates={"a": 9.0, "b": 8.0})
    chosen, table = training.tune(p, task, run, ["a", "b"])
    assert chosen == {"a": 0.2, "b": 0.2} and len(tried) == 6 and table["chosen"].tolist() == [False, True, False] * 2
    assert training.tune(p._replace(rates=[]), task, run, ["a"])[0] == {"a": 9.0}


def test_arms_on_own_pairs_learn_what_is_preferred(p, tmp_path):
    more = {"epochs": 6, "validation_prompts": 20, "test_prompts": 20, "learning_rate": 0.02}
    p = p._replace(**more, data=write_pairs(tmp_path / "own.jsonl", n=100))
    task = tasks.open_task(p)
    arm = trained_arm(p, task, size=60)
    ratings_ = measures.ratings_of(task.bank("test", arm.tokenizer), task.rater)
    (row,) = measures.summarise(arm.scores, ratings_, p).to_dict("records")
    assert row["order"] == 1.0 and row["estimate"] > 0.9
    written = task.write(arm.policy, arm.tokenizer, arm="dpo", seed=0)
    assert "gold" not in written and len(written) == p.confirm_prompts


def test_arms_on_own_thumbs_learn_to_tell_them_apart(p, tmp_path):
    more = {"epochs": 4, "validation_prompts": 15, "test_prompts": 15, "learning_rate": 0.02}
    p = p._replace(**more, data=write_thumbs(tmp_path / "own.jsonl"))
    task = tasks.open_task(p)
    tokenizer, _ = tasks.load_reference(p)
    rows = task.thumbs(48, 0)
    assert len(rows) == 96 and not task.has_pairs
    with pytest.raises(ValueError, match="make none"):
        task.pairs(4, 0)
    plan = tasks.plan(tasks.encode(rows, p, tokenizer).examples, p, tokenizer, seed=0)
    how = {"method": "ulma", "arm": "ulma", "seed": 0}
    arm = training.run_arm(p, task, plan, thumb_loss, {"beta": 0.5}, **how)
    ratings_ = measures.ratings_of(task.bank("test", tokenizer), task.rater)
    assert measures.summarise(arm.scores, ratings_, p)["estimate"].item() > 0.7


def test_a_human_text_and_the_worst_of_the_samples_go_on_from_the_same_prompt(toy_world):
    p = freeze(parameters.merge(toy_world, "ulma"))
    task, (tokenizer, policy) = tasks.open_task(p), tasks.load_reference(p)
    couples = task.human_and_sampled(policy, tokenizer, least=1.0, size=6)
    known = {t.id: t for t in ratings.read_texts(Path("build/smoke/texts.jsonl"))}
    assert len(couples) == 6 and len({human.prompt for human, _ in couples}) == 6
    for human, samples in couples:
        sampled = samples[-1]
        text = known[human.id.removesuffix("/human")]
        assert human.prompt == sampled.prompt == text.prompt and human.completion == text.completion
        assert text.mean >= 1 and text.half == "proxy" and human.label and not sampled.label and sampled.tokens
    held_out = task.held_out_good(tokenizer, least=1.0, size=5)
    assert len(held_out) == 5 and {known[e.id].split for e in held_out} == {"validation"}
    assert min(known[e.id].mean for e in held_out) >= 1


def test_of_ones_own_pairs_the_chosen_answer_is_the_demonstration(p, tmp_path):
    task = tasks.open_task(p._replace(data=write_pairs(tmp_path / "own.jsonl")))
    tokenizer, policy = tasks.load_reference(p)
    couples = task.human_and_sampled(policy, tokenizer, least=1.0, size=5)
    assert len(couples) == 5
    assert all("good" in a.completion and ["bad" in b.completion for b in others] == [True] for a, others in couples)
    assert all(a.prompt == b.prompt for a, (b,) in couples)
    assert all("good" in tokenizer.decode(e.completions[0]) for e in task.held_out_good(tokenizer, least=1.0, size=3))


def test_a_long_prompt_never_hides_the_answer_from_a_judge():
    assert tasks.end_of_prompt("x" * 1000, " the answer").endswith("xx the answer")
    assert len(tasks.end_of_prompt("x" * 1000, " the answer")) < 150
    chat = [{"role": "user", "content": "first"}, {"role": "user", "content": "last"}]
    assert tasks.end_of_prompt(chat, "answer") == "last answer"


def test_a_held_out_score_is_a_thumb_by_the_training_records_and_not_by_the_other_held_out_ones(p, tmp_path):
    """Training scores are mostly 0 to 5; the held-out rows' own median would call half of those that are 9 bad."""
    tokenizer, _ = tasks.load_reference(p)

    def labels(scores):
        rows = [{"prompt": f"Number {i}", "completion": f" is {i}", "score": s} for i, s in enumerate(scores)]
        (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        own = p._replace(data=str(tmp_path / "own.jsonl"), validation_prompts=99, test_prompts=99)
        found = tasks.open_task(own).bank("test", tokenizer)
        numbers = [int(tokenizer.decode(e.prompt).split()[1]) for e in found.examples]
        return dict(zip(numbers, found.ratings["preference"][:, 0], strict=True))

    plain = labels([i % 6 for i in range(60)])
    assert set(plain.values()) == {0.0, 1.0}
    assert set(labels([9 + i if i in plain else i % 6 for i in range(60)]).values()) == {1.0}


def test_tables_of_measures_hold_every_prompt_of_every_arm_once(p):
    frame = pd.concat(measures.rows_of(np.zeros((3, 2)), list("xyz"), arm=arm, seed=0) for arm in "ab")
    assert frame.shape == (6, 5) and not frame.duplicated(["arm", "seed", "id"]).any()
