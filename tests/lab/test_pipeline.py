"""The stages before the notebooks, run at toy size: who learns from what, and what lies in the folders afterwards."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from prefcore.data import files, ratings, views
from prefcore.data.types import Ranked, freeze
from prefcore.engine import collate, models
from prefcore.lab import pipeline
from prefcore.scoring import evaluate
from prefcore.scoring.evaluate import Scorers

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
BUILD = Path("build/smoke")


@pytest.fixture
def p(toy_world):
    """What the shared stages are given."""
    return freeze({"profile": "smoke"} | toy_world["common"] | toy_world["smoke"]["shared"])


def texts_by_content():
    return {t.text: t for t in ratings.read_texts(BUILD / "texts.jsonl")}


# --- the reference ----------------------------------------------------------------------------------------------


def test_the_token_loss_is_the_mean_over_tokens_not_over_rows():
    """Rows of 1 and 3 tokens with -2 and -3 nats: (2 + 3) / 4, where the mean over rows' means would be 1.5."""
    batch = {"lengths": torch.tensor([[1.0], [3.0]])}
    out = pipeline.token_loss(torch.tensor([[-2.0], [-3.0]]), None, batch, {})
    assert out.losses.mean().item() == pytest.approx(5 / 4)


def test_the_reference_learns_to_go_on_with_training_texts(p, monkeypatch):
    seen = []
    monkeypatch.setattr(pipeline, "fit", lambda policy, plan, *_: seen.append(plan))
    monkeypatch.setattr(pipeline, "save", lambda policy, tokenizer, *_: seen.append(tokenizer))
    pipeline.fit_reference(p, BUILD)
    plan, tokenizer = seen
    known = texts_by_content()
    assert len(plan.examples) == p.reference_texts
    for example in plan.examples:
        assert example.completions[0][-1] == tokenizer.eos_token_id
        domain, _, text = tokenizer.decode([*example.prompt, *example.completions[0][:-1]]).partition(": ")
        assert known[text].split == "train" and known[text].domain == domain


def test_a_finished_stage_leaves_a_model_and_no_checkpoints(p, toy_folder):
    assert models.load_policy(str(BUILD / "reference"))[1].num_parameters() > 0
    assert not list((toy_folder / ".checkpoints").rglob("checkpoint-*"))


def test_a_model_folder_appears_whole_or_not_at_all(p, monkeypatch):
    def cut_off(policy, tokenizer, folder):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(models, "save_policy", cut_off)
        pipeline.fit_reference(p, BUILD)
    assert not (BUILD / "reference").exists()
    pipeline.fit_reference(p, BUILD)
    assert models.load_policy(str(BUILD / "reference"))[1].num_parameters() > 0
    assert not (BUILD / "reference.partial").exists()


# --- scorers and judge ------------------------------------------------------------------------------------------


def test_proxy_and_gold_learn_from_disjoint_halves_and_the_judge_from_the_proxys(p, monkeypatch):
    learnt, known = {}, texts_by_content()
    monkeypatch.setattr(  # the gold scorer's lesson, and the judge's first
        pipeline, "fit_rater", lambda rater, tokenizer, texts, folder, p: learnt.update({folder.name: list(texts)})
    )
    monkeypatch.setattr(pipeline, "fit", lambda *a: learnt.update({f"{a[-2].name} verdicts": a[1].examples}))
    monkeypatch.setattr(pipeline, "save", lambda *a: None)
    original = models.embed

    def embed(texts, *how, **more):
        learnt.setdefault("proxy", [known[text] for text in texts])
        return original(texts, *how, **more)

    monkeypatch.setattr(models, "embed", embed)
    pipeline.fit_scorers(p, BUILD)
    pipeline.fit_judge(p, BUILD)
    halves = {name: {(t.split, t.half) for t in learnt[name]} for name in ("proxy", "gold", "judge")}
    assert halves == {"proxy": {("train", "proxy")}, "gold": {("train", "gold")}, "judge": {("train", "proxy")}}
    assert len(learnt["judge verdicts"]) == 2 * p.judge_pairs
    tokenizer, _ = models.load_policy(p.policy)
    gold = {t.text for t in known.values() if t.half == "gold"}
    for example in learnt["judge verdicts"]:
        assert not any(text in tokenizer.decode(example.prompt) for text in gold)


def test_each_pair_teaches_the_judge_both_orders(p, monkeypatch):
    seen = []
    monkeypatch.setattr(pipeline, "fit_rater", lambda *a: None)
    monkeypatch.setattr(pipeline, "fit", lambda *a: seen.append(a[1]))
    monkeypatch.setattr(pipeline, "save", lambda *a: None)
    pipeline.fit_judge(p, BUILD)
    assert not (BUILD / "judge").exists()  # a model that rates, but was not yet taught verdicts, is no judge
    rows = seen[0].examples
    half = len(rows) // 2
    for one, other in zip(rows[:half], rows[half:], strict=True):
        assert one.columns["share_0"] == pytest.approx(1 - other.columns["share_0"])


def test_scorers_and_judge_are_reported_on_held_out_texts_with_intervals(toy_world):
    report = json.loads(Path("metrics/smoke/scorers.json").read_text())
    for scorer in ("gold", "proxy"):
        assert set(report[scorer]) == {"all", *ratings.COUNTS}
        for row in report[scorer].values():
            assert row["low"] <= row["r"] <= row["high"]
    assert report["texts"] == 24 == sum(report["gold"][domain]["texts"] for domain in ratings.COUNTS)
    judged = json.loads(Path("metrics/smoke/judge.json").read_text())
    assert judged["accuracy"]["low"] <= judged["accuracy"]["estimate"] <= judged["accuracy"]["high"]
    assert judged["pairs"] == 12 == sum(judged["reliability"]["count"])
    assert 0 <= judged["brier"] <= 1 and 0 <= judged["ece"] <= 1


def test_correlations_are_those_of_the_right_scorer_and_domain(toy_world, monkeypatch):
    texts = [t for t in ratings.read_texts(BUILD / "texts.jsonl") if t.split != "train"]
    known = texts_by_content()
    assert len(known) == 112
    monkeypatch.setattr(pipeline.scorers, "gold_scores", lambda plain, *_: np.array([known[t].mean for t in plain]))
    noise = np.random.default_rng(0).normal(size=len(texts))
    monkeypatch.setattr(pipeline.scorers, "proxy_scores", lambda plain, *_: noise[: len(plain)])
    report = pipeline.report_scorers(texts, Scorers(*[None] * 5), seed=0)
    assert all(row["r"] == pytest.approx(1) for row in report["gold"].values())
    assert abs(report["proxy"]["all"]["r"]) < 0.9


def test_pairs_are_of_one_domain_and_of_two_texts(toy_world):
    texts = ratings.read_texts(BUILD / "texts.jsonl")
    pairs = pipeline.pair_up(texts, 50, seed=0)
    assert all(a.domain == b.domain and a.id != b.id for a, b in pairs)
    assert len({a.domain for a, _ in pairs}) == 4 and pipeline.pair_up(texts, 50, seed=0) == pairs


# --- preferences ------------------------------------------------------------------------------------------------


def test_each_training_prompt_has_its_answers_best_first(p):
    records, known = files.read_ranked(BUILD / "preferences.jsonl"), {t.id: t for t in texts_by_id()}
    assert len(records) == p.preference_prompts == len({r.prompt for r in records})
    for record in records:
        assert known[record.id].split == "train" and known[record.id].prompt == record.prompt
        assert record.domain == known[record.id].domain
        assert len(record.completions) == len(record.finished) <= p.samples_per_prompt
        assert list(record.scores) == sorted(record.scores, reverse=True)
        assert all(text.strip() for text in record.completions)


def texts_by_id():
    return ratings.read_texts(BUILD / "texts.jsonl")


def test_scores_are_the_proxys_of_prompt_and_completion_without_the_tag(p):
    from prefcore.scoring import scorers

    records = files.read_ranked(BUILD / "preferences.jsonl")[:4]
    tokenizer, encoder = models.load_encoder(p.encoder)
    for record in records:
        whole = [(record.prompt.removeprefix(f"{record.domain}: ") + text).strip() for text in record.completions]
        found = scorers.proxy_scores(whole, BUILD / "proxy.safetensors", encoder, tokenizer)
        np.testing.assert_allclose(record.scores, found, atol=1e-4)


def test_the_banks_prompts_are_of_their_split_and_no_prompt_is_in_two_parts(p):
    known, rows = {t.id: t for t in texts_by_id()}, files.read_lines(Path("banks/smoke.jsonl"))
    parts = {name: [row["prompt"] for row in rows if row["split"] == name] for name in ("test", "validation", "fresh")}
    assert [*map(len, parts.values())] == [p.bank_prompts, p.bank_validation_prompts, p.bank_fresh_prompts]
    assert not set(parts["test"]) & set(parts["fresh"])
    assert all(known[row["id"]].split == row["split"].replace("fresh", "test") for row in rows)
    assert all(len(row["completions"]) == (0 if row["split"] == "fresh" else p.samples_per_prompt) for row in rows)


def test_the_prompts_before_the_bank_are_passed_over(p, monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "rate", lambda rows, loaded: rows)
    monkeypatch.setattr(pipeline.files, "write_lines", lambda rows, path: kept.extend(rows))
    kept: list = []
    pipeline.make_bank(p, BUILD)
    early = [row.id for row in kept if row.split != "validation"]
    kept.clear()
    pipeline.make_bank(p._replace(bank_after=4, bank_prompts=2), BUILD)
    assert [row.id for row in kept if row.split != "validation"] == early[4:6] + early[6:]


def test_a_stage_that_runs_again_writes_the_same_bytes(p):
    names = [BUILD / "preferences.jsonl", Path("banks/smoke.jsonl")]
    before = [name.read_bytes() for name in names]
    pipeline.make_preferences(p, BUILD)
    pipeline.make_bank(p, BUILD)
    assert [name.read_bytes() for name in names] == before
    pipeline.fit_reference(p, BUILD)
    again = (BUILD / "reference" / "model.safetensors").read_bytes()
    pipeline.fit_reference(p, BUILD)
    assert (BUILD / "reference" / "model.safetensors").read_bytes() == again


def test_records_survive_writing_and_reading_whatever_was_sampled(tmp_path):
    record = Ranked("1", "Tweet: a", (" x\u2028y\u0085", ' "\r\n\\'), (0.5, -1.25), (True, False), "Tweet")
    drawn = record._replace(tokens=((5, 6, 7), (8,)))
    files.write_lines([record, drawn], tmp_path / "preferences.jsonl")
    assert files.read_ranked(tmp_path / "preferences.jsonl") == [record, drawn]


def test_rows_from_before_tokens_were_kept_are_still_read(tmp_path):
    row = {"id": "1", "prompt": "a", "completions": ["b"], "scores": [1.0], "finished": [True], "domain": ""}
    (tmp_path / "preferences.jsonl").write_text(json.dumps(row) + "\n")
    assert files.read_ranked(tmp_path / "preferences.jsonl") == [Ranked("1", "a", ("b",), (1.0,), (True,))]


def test_the_tokens_of_a_preference_are_those_that_were_sampled_and_training_sees_them(p, monkeypatch, tmp_path):
    tokenizer, policy = models.load_policy(str(BUILD / "reference"))
    loaded = evaluate.load_scorers(BUILD, p.encoder, device="cpu")
    prompts, drawn = ratings.choose_prompts(texts_by_id(), 6, 0, split="train"), []
    original = pipeline.sample_several

    def sample_several(*how, **more):
        groups = original(*how, **more)
        drawn.extend(one for group in groups for one in group)
        return groups

    monkeypatch.setattr(pipeline, "sample_several", sample_several)
    ranked = pipeline.sample_ranked(policy, tokenizer, prompts, loaded, p, seed=1)
    files.write_lines(ranked, tmp_path / "preferences.jsonl")
    records = files.read_ranked(tmp_path / "preferences.jsonl")
    sampled = {(text, ids) for _, ids, text in ((s.logp, s.ids, s.text) for s in drawn)}
    retokenised = [ids for text, ids in sampled if tuple(collate.encode_text(text, tokenizer)) != ids]
    assert len(retokenised) > 5  # a random policy hardly ever writes what the tokenizer would
    limits = {"max_prompt": p.max_prompt, "max_completion": p.max_completion}
    trained = [
        *collate.encode_unary(views.scored(records), tokenizer, **limits).examples,
        *collate.encode_pairs(views.as_pairs(records), tokenizer, **limits).examples,
    ]
    end = tokenizer.eos_token_id
    seen = {tuple(i for i in answer if i != end) for example in trained for answer in example.completions}
    assert seen <= {ids for _, ids in sampled} and seen & set(retokenised)


def test_policies_sample_from_as_much_of_a_prompt_as_training_shows_them(p, monkeypatch):
    tokenizer, policy = models.load_policy(str(BUILD / "reference"))
    loaded = evaluate.load_scorers(BUILD, p.encoder, device="cpu")
    prompts, seen = ratings.choose_prompts(texts_by_id(), 3, 0, split="test"), []
    for module, name in ((pipeline, "sample_several"), (evaluate, "sample")):
        original = getattr(module, name)

        def sampled(policy, tokenizer, asked, *more, original=original, **how):
            seen.append([len(ids) for ids in asked])
            return original(policy, tokenizer, asked, *more, **how)

        monkeypatch.setattr(module, name, sampled)
    pipeline.sample_ranked(policy, tokenizer, prompts, loaded, p._replace(max_prompt=2), seed=1)
    how = {"max_prompt": 2, "max_new_tokens": 3, "seed": 0, "arm": "a"}
    evaluate.score_policy(policy, tokenizer, prompts, loaded, **how)
    assert seen == [[2] * 3, [2] * 3]


def test_tables_survive_writing_and_reading_whatever_was_sampled(tmp_path):
    frame = pd.DataFrame({"text": ["x\ry", 'a "b", c', "n\nm", "u\u2028v"], "gold": [0.5, 1.0, -2.0, 3.0]})
    files.write_table(frame, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), frame)
