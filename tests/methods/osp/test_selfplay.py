"""A policy that judges itself: which prompts, which answers, and what the judge is shown."""

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from prefcore import smoke
from prefcore.data.types import Example, Pair, Ranked, Unary, freeze
from prefcore.engine import collate, models
from prefcore.methods.osp import selfplay

P = freeze({"max_prompt": 8, "max_new_tokens": 4})


def row(id, completions=("a", "b"), scores=None):
    scores = scores or (0.0,) * len(completions)
    return Ranked(id, f"w5 {id}", tuple(completions), tuple(scores), (True,) * len(completions))


def show(prompt, answer):
    return f"{prompt}|{answer}"


@pytest.fixture
def longer_wins(monkeypatch):
    """A judge that prefers the longer text for sure, and the pairs that it was shown."""
    shown = []

    def both_orders(pairs, model, tokenizer, question):
        shown.extend(pairs)
        wins = np.array([0.5 + 0.5 * np.sign(len(a) - len(b)) for a, b in pairs])
        return wins, 1 - wins

    monkeypatch.setattr(selfplay.judge, "both_orders", both_orders)
    return shown


def test_prompts_are_distinct_and_keep_their_order():
    records = [Unary(id, prompt, "a", True) for id, prompt in (("1", "x"), ("2", "y"), ("3", "x"), ("4", "z"))]
    assert [r.id for r in selfplay.prompts_of(records, 2)] == ["1", "2"]
    assert [r.id for r in selfplay.prompts_of(records, 9)] == ["1", "2", "4"]
    assert selfplay.prompts_of(records, 1)[0].completions == ()


def test_each_prompt_gets_its_answers_and_the_seed_decides_them(tiny_llama, tokenizer):
    rows = [row("w6", ()), row("w7", ())]
    first = selfplay.draw(tiny_llama, tokenizer, rows, P, answers=3, seed=1)
    assert [len(r.completions) for r in first] == [3, 3]
    assert [r.scores for r in first] == [(0.0,) * 3] * 2
    assert len(set(first[0].completions)) == 3
    assert selfplay.draw(tiny_llama, tokenizer, rows, P, answers=3, seed=1) == first
    assert selfplay.draw(tiny_llama, tokenizer, rows, P, answers=3, seed=2) != first


def test_a_pair_learns_from_the_tokens_that_the_policy_has_sampled(tiny_llama):
    """This policy writes at random, so the tokenizer would split some of its words in another way."""
    tokenizer = smoke.make_tokenizer()
    policy = LlamaForCausalLM(LlamaConfig(**tiny_llama.config.to_dict() | {"vocab_size": len(tokenizer)})).eval()
    rows, drawn = [row("w6", ()), row("w7", ())], []
    original = selfplay.sample_several

    def sample_several(*how, **more):
        groups = original(*how, **more)
        drawn.extend(one for group in groups for one in group)
        return groups

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selfplay, "sample_several", sample_several)
        judged = selfplay.draw(policy, tokenizer, rows, P._replace(max_new_tokens=24), answers=3, seed=1)
    pairs = [selfplay.as_pair(one, 2, 0, 0.9) for one in judged]
    found = collate.encode_pairs(pairs, tokenizer, max_prompt=8, max_completion=32).examples
    end = (tokenizer.eos_token_id,)
    assert [example.completions for example in found] == [
        tuple(s.ids + (end if s.finished else ()) for s in (drawn[i + 2], drawn[i])) for i in (0, 3)
    ]
    assert any(tuple(collate.encode_text(s.text, tokenizer)) != s.ids for s in (drawn[i] for i in (0, 2, 3, 5)))


def test_each_answer_meets_the_baseline_of_its_own_prompt(longer_wins):
    rows, baselines = [row("1", ("aaa", "b")), row("2", ("c", "dd"))], [row("1", ("bb",)), row("2", ("ee",))]
    p_ab, p_ba = selfplay.judge_answers(rows, baselines, None, None, show=show, question="?")
    assert longer_wins == [
        ("w5 1|aaa", "w5 1|bb"), ("w5 1|b", "w5 1|bb"), ("w5 2|c", "w5 2|ee"), ("w5 2|dd", "w5 2|ee"),
    ]  # fmt: skip
    assert p_ab.tolist() == [[1, 0], [0, 0.5]]
    assert p_ba.tolist() == [[0, 1], [1, 0.5]]


def test_rows_without_a_baseline_each_are_refused(longer_wins):
    with pytest.raises(ValueError):
        selfplay.judge_answers([row("1"), row("2")], [row("1", ("b",))], None, None, show=show, question="?")


def test_a_pair_carries_both_win_probabilities_and_its_strength():
    pair = selfplay.as_pair(row("7", ("a", "b", "c"), (0.2, 0.5, 0.9)), 2, 0, 0.97)
    assert (pair.id, pair.chosen, pair.rejected) == ("7/2-0", "c", "a")
    assert (pair.chosen_score, pair.rejected_score, pair.strength) == (0.9, 0.2, 0.97)


def test_agreement_counts_a_tie_half(longer_wins):
    answers = [("long", "s"), ("s", "long"), ("same", "same"), ("longer", "s")]
    pairs = [Pair(f"{i}", "p", chosen, rejected) for i, (chosen, rejected) in enumerate(answers)]
    assert selfplay.agreement(pairs, None, None, show=show, question="?", seed=0).estimate == 2.5 / 4


def test_own_data_have_no_report_of_the_judge(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics" / "quick").mkdir(parents=True)
    (tmp_path / "metrics" / "quick" / "judge.json").write_text('{"ece": 0.1}')
    ours = freeze({"judge": "", "data": "", "profile": "quick"})
    assert selfplay.read_report(ours) == {"ece": 0.1}
    assert selfplay.read_report(ours._replace(data="mine.jsonl")) == {}
    assert selfplay.read_report(ours._replace(judge="other")) == {}


# --- judged once ----------------------------------------------------------------------------------------------------


def test_a_seed_draws_its_prompts_and_of_each_its_answers_and_a_baseline_without_scores(tiny_llama, tokenizer):
    records = [row(f"w{i}", ("a", "b", "c", "d"), (4.0, 3.0, 2.0, 1.0)) for i in range(4, 30)]
    p = freeze(P._asdict() | {"prompts": 8, "samples_per_prompt": 3})
    ranked, baselines = selfplay.answers_for(records, tiny_llama, tokenizer, p, seed=0)
    assert [(len(r.completions), len(b.completions)) for r, b in zip(ranked, baselines, strict=True)] == [(3, 1)] * 8
    for r, b in zip(ranked, baselines, strict=True):
        assert {*r.completions, *b.completions} == {"a", "b", "c", "d"} and {*r.scores, *b.scores} == {0.0}
    assert len({b.completions for b in baselines}) > 1  # the best answer is not always the baseline
    again, _ = selfplay.answers_for(records, tiny_llama, tokenizer, p, seed=1)
    assert [r.id for r in again] != [r.id for r in ranked]
    with pytest.raises(ValueError, match="asked for 8 prompts, and 5 have 4 answers"):
        selfplay.answers_for(records[:5], tiny_llama, tokenizer, p, seed=0)


def test_held_out_pairs_are_the_judges_best_and_worst_and_the_reference_scores_minus_log_two(
    tiny_llama, tokenizer, longer_wins
):
    answers = ((5, 6, 7, 8), (5,), (5, 6))
    examples = [Example(f"x{i}", (4 + i, 9), answers) for i in range(6)]
    p = freeze(P._asdict() | {"question": "?", "clip": 0.01, "samples_per_prompt": 3})
    words = (tokenizer, tiny_llama)
    held = selfplay.held_out_pairs(examples, words, words, p, show=show)
    assert {example.completions for example in held} == {((5, 6, 7, 8), (5,))}
    assert all(0.9 < example.columns["strength"] <= 0.9999 for example in held)
    policy = models.add_lora(tiny_llama, rank=2, alpha=4.0, top_layers=1, seed=0)
    scores = selfplay.held_out_scores(policy, held, beta=0.1, pad_id=0, cache=None)
    assert scores["id"].tolist() == [e.id for e in examples]
    np.testing.assert_allclose(scores["held_out"], -np.log(2), atol=1e-4)
