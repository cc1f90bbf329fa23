"""The language model as selector: its prompt, its labels, and that it learns through the shared engine."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.engine import collate, models, train
from prefcore.methods.chase_sql import language_judge, selector
from prefcore.methods.chase_sql.execution import Executed
from prefcore.methods.chase_sql.selector import Comparison
from prefcore.scoring import judge


@pytest.fixture(scope="module")
def letters():
    """A byte-level tokenizer with the two verdicts as one token each."""
    return smoke.make_tokenizer()


@pytest.fixture
def reader(letters):
    """A random model that can read a whole prompt in bytes."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(
        **sizes, vocab_size=len(letters), max_position_embeddings=2048, pad_token_id=letters.pad_token_id,
    )).eval()  # fmt: skip


def text(pool, first, second, **how):
    return "".join(piece for piece, _ in language_judge.parts(pool, first, second, **how))


def test_the_prompt_shows_the_union_schema_both_queries_and_both_results(executed):
    prompt = text(executed.pools[0], 2, 0)
    assert "Tables: pet(name)\n" in prompt and "visit" not in prompt
    assert "\nQuestion: How many pets are there?" in prompt
    assert "\nQuery A: SELECT count(*) FROM pet\nResult A: 1 row: 6" in prompt
    assert "\nQuery B: SELECT name FROM pet\nResult B: 6 rows: pet 0 of 0; pet 1 of 0; pet 2 of 0; ..." in prompt
    assert prompt.endswith("\nThe right query is")


def test_the_whole_schema_is_an_ablation(executed):
    assert "Tables: pet(id, name, age); visit(pet, day)\n" in text(executed.pools[0], 2, 0, whole_schema=True)


def test_the_other_order_changes_places_and_nothing_else(executed):
    there, back = text(executed.pools[0], 2, 0), text(executed.pools[0], 0, 2)
    lines = [line.split(": ", 1) for line in back.splitlines()]
    swap = {"Query A": "Query B", "Query B": "Query A", "Result A": "Result B", "Result B": "Result A"}
    assert sorted(": ".join([swap.get(line[0], line[0]), *line[1:]]) for line in lines) == sorted(there.splitlines())


def test_neither_gold_nor_votes_nor_names_of_systems_are_in_the_prompt(executed):
    one = executed.pools[0]
    assert not any(system in text(one, 2, 0) for system in one.systems)
    alone = one._replace(systems=one.systems[:3], sqls=one.sqls[:3], results=one.results[:3], clusters=one.clusters[:3])
    assert text(alone, 2, 0) == text(one, 2, 0)


def test_no_piece_is_longer_than_its_limit(executed, letters):
    one = executed.pools[0]
    long = one._replace(sqls=(one.sqls[0] + " -- " + "x" * 5000, *one.sqls[1:]), question="why " * 900)
    (example,) = language_judge.examples([long], [Comparison(0, 0, 2)], letters)
    limit = (
        language_judge.SCHEMA_TOKENS
        + language_judge.QUESTION_TOKENS
        + 2 * (language_judge.SQL_TOKENS + language_judge.RESULT_TOKENS)
        + 16
    )
    assert len(example.prompt) <= limit
    end = collate.encode_text("\nThe right query is", letters)
    assert list(example.prompt[-min(len(end), 16) :]) == end[:16]


def test_label_1_means_that_a_is_right(executed, letters):
    pairs, labels = [Comparison(0, 2, 0), Comparison(0, 0, 2)], np.array([1.0, 0.0])
    first, second = language_judge.examples(executed.pools, pairs, letters, labels)
    assert (first.columns["share_0"], second.columns["share_0"]) == (1, 0)
    assert [letters.decode(ids) for ids in first.completions] == [" A", " B"]


def test_a_tokenizer_that_cannot_say_a_or_b_is_refused(executed, tokenizer):
    with pytest.raises(ValueError, match="no single token for each of"):
        language_judge.examples(executed.pools, [Comparison(0, 2, 0)], lambda text, **_: {"input_ids": [1, 2]})


def test_it_learns_the_training_pairs_through_the_shared_trainer(executed, letters, reader, tmp_path):
    pairs, labels = selector.training_pairs(executed.pools[:4], executed.correct[:4], seed=0, per_question=1)
    rows = language_judge.examples(executed.pools, pairs, letters, labels)
    plan = collate.make_plan(rows, batch_size=4, epochs=30, seed=0, pad_id=letters.pad_token_id)
    history = train.fit(reader, plan, judge.verdict_loss, {}, learning_rate=3e-3, checkpoints=tmp_path / "c", seed=0)
    verdicts = language_judge.judge_with(reader, letters, executed.pools)(pairs)
    assert history["loss"].iloc[-1] < 0.5 * history["loss"].iloc[0]
    assert ((verdicts > 0.5) == (labels > 0.5)).all()


def test_an_adapter_of_any_policy_is_taught_the_same_way_twice(executed, toy_weights, tmp_path, monkeypatch):
    p = freeze(smoke.COMMON | {
        "policy": str(toy_weights / "policy"), "dtype": "float32", "precision": "float32",
        "profile": "own", "lora_alpha": 4.0, "seed": 0,
        "verdict_pairs": 6, "per_question": 2,
    })  # fmt: skip
    for name, size in (("SCHEMA_TOKENS", 40), ("SQL_TOKENS", 40), ("RESULT_TOKENS", 20)):
        monkeypatch.setattr(language_judge, name, size)  # the toy model reads 256 tokens
    pairs, verdicts = selector.comparisons(executed.pools[15:]), []
    learnt = Executed(executed.pools[:15], executed.correct[:15], [])
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        verdicts.append(language_judge.taught_judge(learnt, executed.pools[15:], p)(pairs).tolist())
    tokenizer, policy = models.load(p, p.policy)
    before = language_judge.judge_with(policy, tokenizer, executed.pools[15:])(pairs).tolist()
    assert verdicts[0] == verdicts[1] != before


def test_its_verdicts_drive_the_tournament(executed, letters, reader):
    chosen = selector.select(executed.pools[:3], language_judge.judge_with(reader, letters, executed.pools[:3]))
    assert len(chosen) == 3 and all(choice.points.sum() == 12 for choice in chosen)  # 4 x 3 ordered pairs
