"""`score`: a model against the pairs of a file, as a whole and by subset."""

import json

import numpy as np
import pytest

from prefcore.__main__ import main
from prefcore.data.types import Pair
from prefcore.engine import collate, models, reference
from prefcore.lab import score
from prefcore.scoring import reward_model

ROWS = [
    {"prompt": f"The film {i} was", "chosen": f" wonderful {i}.", "rejected": f" awful, and long {i}.",
     "subset": "even" if i % 2 == 0 else "odd", "chosen_model": "a", "rejected_model": "b"}
    for i in range(7)
]  # fmt: skip


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def by_hand(model, tokenizer):
    pairs = [Pair(str(i), row["prompt"], row["chosen"], row["rejected"]) for i, row in enumerate(ROWS)]
    examples = collate.encode_pairs(pairs, tokenizer, max_prompt=99, max_completion=99).examples
    return reference.score_all(model, examples, pad_id=tokenizer.pad_token_id).astype(float)


def test_a_policy_prefers_by_what_it_gained_over_its_reference(toy_weights, tmp_path, data):
    tokenizer, policy = models.load_policy(str(toy_weights / "policy"))
    before = by_hand(policy, tokenizer)
    adapted = models.add_lora(policy, rank=2, alpha=4.0, top_layers=1, seed=0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data += 0.1
    gained = by_hand(adapted, tokenizer) - before
    models.save_adapter(adapted, tokenizer, tmp_path / "adapted")
    found = score.score(str(tmp_path / "adapted"), data)
    np.testing.assert_allclose(found.table[["chosen", "rejected"]], gained, atol=1e-4)
    assert found.table["right"].tolist() == (gained[:, 0] > gained[:, 1]).tolist()
    assert "implicit reward" in found.by and found.notes[-1:] != ["cut"]
    again = score.score(str(tmp_path / "adapted"), data, base=str(toy_weights / "policy"))
    np.testing.assert_allclose(again.table["chosen"], gained[:, 0], atol=1e-4)


def test_a_policy_that_is_its_own_reference_ties_everywhere_which_is_half(toy_weights, data):
    name = str(toy_weights / "policy")
    table = score.summarise(score.score(name, data, base=name))
    assert table["subset"].tolist() == ["all pairs", "even", "odd"] and table["pairs"].tolist() == [7, 4, 3]
    assert table["ties"].tolist() == [7, 4, 3] and table["accuracy"].eq(0.5).all()


def test_without_a_reference_the_likelier_answer_is_preferred_and_the_report_says_so(toy_weights, data):
    found = score.score(str(toy_weights / "policy"), data)
    tokenizer, policy = models.load_policy(str(toy_weights / "policy"))
    np.testing.assert_allclose(found.table["chosen"], by_hand(policy, tokenizer)[:, 0], atol=1e-4)
    assert "favours short answers" in found.by


def test_a_reward_model_prefers_by_its_reward_and_takes_no_reference(toy_weights, tmp_path, data):
    tokenizer, model = reward_model.load(str(toy_weights / "encoder"), seed=0)
    reward_model.save(model, tokenizer, tmp_path / "rm")
    found = score.score(str(tmp_path / "rm"), data)
    items = [(row["prompt"], row["chosen"]) for row in ROWS]
    np.testing.assert_allclose(
        found.table["chosen"], reward_model.score(items, model, tokenizer, max_tokens=64), atol=1e-5)
    with pytest.raises(ValueError, match="needs no reference"):
        score.score(str(tmp_path / "rm"), data, base="any")


def test_what_does_not_fit_the_model_is_cut_and_counted(toy_weights, tmp_path):
    tokenizer, policy = models.load_policy(str(toy_weights / "policy"))
    most = policy.config.max_position_embeddings
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "word " * 2 * most, "chosen": "good", "rejected": "bad"}) + "\n")
    found = score.score(str(toy_weights / "policy"), str(path))
    assert any("of 1 pairs a prompt or an answer is cut" in note for note in found.notes)


def test_the_command_writes_pairs_and_numbers(toy_weights, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["score", str(toy_weights / "policy"), data, "--reference", str(toy_weights / "policy")]) == 0
    told = json.loads((tmp_path / "runs/own/bench/score/score.json").read_text())
    half = {"accuracy": 0.5, "low": 0.5, "high": 0.5}
    assert told["accuracy"][0] == {"subset": "all pairs", "pairs": 7, "ties": 7, **half}
    assert (tmp_path / "runs/own/bench/score/pairs.csv").read_text().startswith("id,subset,chosen,rejected,right\n")
    assert "implicit reward" in capsys.readouterr().out
    (tmp_path / "single.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b", "label": True}) + "\n")
    assert main(["score", str(toy_weights / "policy"), "single.jsonl"]) == 1
    assert "pair" in capsys.readouterr().err
