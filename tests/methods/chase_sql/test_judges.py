"""Judges that read both candidates: what they see, what votes add, that one can be taught, saved and opened."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.engine import collate
from prefcore.engine.logps import plain_logps
from prefcore.methods.chase_sql import channel, cross, execution, features, judges, linear_judge, selector
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


def text(pool, first, second):
    return "".join(piece for piece, _ in judges.pieces(pool, first, second))


def test_the_prompt_shows_the_union_schema_both_queries_and_both_results(executed):
    prompt = text(executed.pools[0], 2, 0)
    assert "Tables: pet(name)\n" in prompt and "visit" not in prompt
    assert "\nQuestion: How many pets are there?" in prompt
    assert "\nQuery A: SELECT count(*) FROM pet\nResult A: 1 row: 6" in prompt
    assert "\nQuery B: SELECT name FROM pet\nResult B: 6 rows: pet 0 of 0; pet 1 of 0; pet 2 of 0; ..." in prompt


def test_neither_votes_nor_names_of_systems_are_shown_to_any_judge(executed):
    one = executed.pools[0]
    for shown in (text(one, 2, 0), str(judges.chat(one, 2, 0))):
        assert not any(system in shown for system in one.systems)


def test_a_local_model_gives_probabilities_that_depend_on_the_pair_alone(executed, letters, reader):
    ask = judges.read_with(reader, letters, executed.pools)
    pairs = [Comparison(0, 2, 0), Comparison(1, 0, 2), Comparison(0, 2, 0)]
    found = ask(pairs)
    assert found[0] == pytest.approx(found[2]) and ((found > 0) & (found < 1)).all()
    assert ask(pairs[1:2]) == pytest.approx(found[1:2], abs=1e-5)


def test_a_language_model_learns_to_choose(executed, letters, reader):
    """Ten steps on eight pairs lower the verdicts' log loss."""
    pairs, labels = selector.training_pairs(executed.pools, executed.correct, seed=0, per_question=1)
    pairs, labels = pairs[:8], labels[:8]
    batch = collate.collate(judges.examples(executed.pools, pairs, letters, labels), pad_id=letters.pad_token_id)
    before = selector.log_loss(judges.read_with(reader, letters, executed.pools)(pairs), labels)
    optimiser = torch.optim.Adam(reader.parameters(), 3e-3)
    for _ in range(10):
        share = {"share_0": torch.tensor(labels, dtype=torch.float32)}
        optimiser.zero_grad()
        judge.verdict_loss(plain_logps(reader, batch), None, share, {}).losses.mean().backward()
        optimiser.step()
    after = selector.log_loss(judges.read_with(reader, letters, executed.pools)(pairs), labels)
    assert after < before - 0.05


def test_votes_as_prior_move_the_odds_by_the_ratio_of_the_clusters(pool):
    """Clusters of 3 and 1: from even odds to 3 to 1; from odds of 1 to 9 to 3 to 9; with weight 0 nothing moves."""
    pools = [pool([0, 0, 0, 1])]
    pair = [Comparison(0, 0, 3), Comparison(0, 3, 0)]
    assert judges.weigh(lambda pairs: np.full(len(pairs), 0.5), pools, 1.0)(pair) == pytest.approx([0.75, 0.25])
    assert judges.weigh(lambda pairs: np.full(len(pairs), 0.1), pools, 1.0)(pair[:1]) == pytest.approx([0.25])
    assert judges.weigh(lambda pairs: np.full(len(pairs), 0.1), pools, 0.0)(pair) == pytest.approx([0.1, 0.1])


def test_the_channel_prefers_the_query_under_which_the_question_is_likelier(executed, letters, reader):
    pairs = [Comparison(0, 2, 0), Comparison(0, 0, 2)]
    there, back = channel.judge(reader, letters, executed.pools)(pairs)
    assert there + back == pytest.approx(1.0) and there != pytest.approx(0.5, abs=1e-9)
    assert len(channel.example("q", "SELECT 1", executed.pools[0].results[2], "How?", letters).completions) == 1


def test_a_cross_encoder_learns_from_pairs_whatever_their_order(executed, toy_weights):
    p = freeze({"encoder": str(toy_weights / "encoder"), "device": "cpu", "threads": 1, "batch_size": 8, "epochs": 6})
    pairs, labels = selector.training_pairs(executed.pools, executed.correct, seed=0, per_question=1)
    scorer, history = cross.teach(executed.pools, pairs, labels, p, arm="cross", seed=0, rate=3e-3)
    assert history["loss"].iloc[-3:].mean() < history["loss"].iloc[:3].mean()
    ask = cross.judge(scorer, executed.pools)
    back = ask([Comparison(c.pool, c.second, c.first) for c in pairs])
    np.testing.assert_allclose(ask(pairs) + back, 1, atol=1e-6)


def test_features_have_a_name_each_and_see_no_votes(executed, embed):
    one = executed.pools[0]
    (table,) = features.describe([one], embed)
    assert table.shape == (4, len(features.NAMES)) and np.isfinite(table).all()
    alone = one._replace(systems=("x",), sqls=one.sqls[2:3], results=one.results[2:3], clusters=one.clusters[2:3])
    np.testing.assert_allclose(features.describe([alone], embed)[0], table[2:3])


def test_a_saved_judge_is_opened_by_its_folder_and_no_name_is_the_votes(executed, embed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = selector.training_pairs(executed.pools, executed.correct, seed=0, per_question=4)
    groups = [one.db_id for one in executed.pools]
    fitted = linear_judge.fit(features.describe(executed.pools, embed), features.NAMES, *pairs, groups)
    folder = judges.save(fitted, "quick")
    for name in (str(folder), str(folder.parent)):
        opened = judges.open_judge(name, None, embed)(executed.pools)
        direct = linear_judge.judge(fitted, features.describe(executed.pools, embed))
        np.testing.assert_allclose(opened(pairs[0]), direct(pairs[0]))
    assert judges.open_judge("", None, embed) is None
    assert execution.majority(executed.pools[0]) in (0, 1)
