"""Training an arm: both orders in a batch, one start for all, the same bytes again."""

import shutil

import numpy as np
import pytest
import torch

from prefcore.data.types import LossOutput
from prefcore.methods.autoraters import losses, readout, training, tree
from prefcore.methods.autoraters.labels import Labels


@pytest.fixture
def p(p, toy_weights, tmp_path, monkeypatch):
    """The parameters with a policy to start from, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return p._replace(policy=str(toy_weights / "policy"))


@pytest.fixture
def judge(p, pairs):
    """(tokenizer, policy with a new adapter, the twelve pairs in both orders, where it starts)."""
    tokenizer, policy = training.load_judge(p)
    shown = training.show(pairs, policy, tokenizer, p)
    return tokenizer, policy, shown, training.start_here(policy, tree.read_answers(shown, policy, tokenizer))


def everywhere(share):
    return Labels(np.arange(12), np.full(12, share))


def smoothed(logps, answers, label, start, *, width):
    return losses.smoothed_loss(logps, answers, label, width=width)


def test_a_batch_holds_its_pairs_in_both_orders_with_the_label_turned_round(judge):
    labels = Labels(np.array([3, 0, 7]), np.array([1.0, 0.25, 0.5]))
    plan = training.schedule(judge[2], labels, both=True, batch_size=4, epochs=2, seed=0)
    assert sorted(len(batch) for batch in plan.batches) == [2, 2, 4, 4]
    for batch in plan.batches:
        rows = {plan.examples[i].id: plan.examples[i].columns["label"] for i in batch}
        assert rows.keys() == {str(k) for i in rows for k in (int(i) % 12, int(i) % 12 + 12)}
        assert all(rows[i] + rows[str((int(i) + 12) % 24)] == 1 for i in rows)
    alone = training.schedule(judge[2], labels, both=False, batch_size=4, epochs=1, seed=0)
    assert sorted(e.id for e in alone.examples) == ["0", "3", "7"]


def test_a_judge_learns_to_write_near_a_number_and_repeats_byte_for_byte(judge, pairs, p, tmp_path):
    tokenizer, policy, shown, start = judge
    recipe = training.Recipe(smoothed, everywhere(0.25), 10, {"width": 0.1}, both=False)
    before, histories = start.logps[:12].exp(), []
    for _ in range(2):
        history = training.train_arm(p, recipe, shown, policy, tokenizer, start, rate=0.02, arm="x", seed=0)
        after = readout.judge_pairs(shown, policy, tokenizer, p)[0]
        histories.append(history.to_csv())
        shutil.rmtree(tmp_path / ".checkpoints")  # so that the second run starts anew
    assert histories[0] == histories[1] and len(history) == 30
    assert history["loss"].iloc[-3:].mean() < history["loss"].iloc[:3].mean() - 0.5
    near = slice(14, 35)  # .15 to .35
    assert after[:, near].sum(1).mean() > 2 * before[:, near].sum(1).mean()
    assert np.abs(readout.greedy(after) - 0.25).mean() < 0.1


def distance(logps, answers, label, start):
    return LossOutput(0.0 * logps.sum(1), (logps.detach() - start).abs().amax(1, keepdim=True))


def test_an_objective_sees_what_the_start_wrote_of_its_own_rows(judge, p):
    """The first batch of any arm writes what the start wrote; rows of other examples would be far off."""
    tokenizer, policy, shown, start = judge
    how = {"rate": 0.02, "seed": 0}
    recipe = training.Recipe(distance, everywhere(0.5), 1)
    history = training.train_arm(p, recipe, shown, policy, tokenizer, start, arm="x", **how)
    assert history["reward_0"].max() < 1e-3
    turned = start._replace(logps=start.logps.flip(0))
    assert training.train_arm(p, recipe, shown, policy, tokenizer, turned, arm="y", **how)["reward_0"].max() > 1e-2


def test_every_arm_begins_where_the_first_began(judge, p):
    """The arm before has moved the adapter; the next one starts from the start."""
    tokenizer, policy, shown, start = judge
    recipe = training.Recipe(smoothed, everywhere(0.25), 2, {"width": 0.1})
    for arm in ("x", "y"):
        training.train_arm(p, recipe, shown, policy, tokenizer, start, rate=0.02, arm=arm, seed=0)
        ended = tree.read_answers(shown, policy, tokenizer)
        assert (ended - start.logps).abs().max() > 1e-2
    training.put_weights(policy, start.weights)
    torch.testing.assert_close(tree.read_answers(shown, policy, tokenizer), start.logps, rtol=0, atol=1e-5)


def test_an_arm_with_another_setting_does_not_go_on_from_the_checkpoint_of_the_first(judge, p):
    """A finished run of the same settings is not run again; with another width nothing of it is used."""
    tokenizer, policy, shown, start = judge
    histories = []
    for width in (0.1, 0.1, 0.4):
        recipe = training.Recipe(smoothed, everywhere(0.25), 1, {"width": width})
        found = training.train_arm(p, recipe, shown, policy, tokenizer, start, rate=0.02, arm="x", seed=0)
        histories.append(found.reset_index(drop=True))
    assert histories[0].equals(histories[1])
    assert histories[2]["loss"].iloc[0] != pytest.approx(histories[0]["loss"].iloc[0], rel=1e-3)


def test_a_number_from_around_the_objective_is_refused(judge, p):
    tokenizer, policy, shown, start = judge
    width = 0.1

    def closed(logps, answers, label, start):
        return losses.smoothed_loss(logps, answers, label, width=width)

    with pytest.raises(ValueError, match="width.*settings"):
        recipe = training.Recipe(closed, everywhere(0.5), 1)
        training.train_arm(p, recipe, shown, policy, tokenizer, start, rate=0.02, arm="x", seed=0)
