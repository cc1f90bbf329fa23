"""How long a run will take, against what it then takes."""

import time

import pytest

from prefcore.engine import collate, models, reference, train
from prefcore.lab import duration
from prefcore.lab.own import Lengths
from prefcore.methods import dpo


def test_every_arm_seed_try_and_pass_is_counted_and_a_try_by_its_share():
    values = {"arms": ["dpo", "sft"], "seeds": 3, "rates": [1e-3, 2e-3], "epochs": 2, "tried_share": 0.25}
    runs, seconds = duration.estimate(values, rows=300, held_out=60, tokens=50.0, speed=1000.0)
    assert runs == 10 and seconds == (2 * 3.5 * 600 + 10 * 20 + 360) * 50 / 1000
    alone = duration.estimate({"epochs": 2}, rows=300, held_out=60, tokens=50.0, speed=1000.0)
    assert alone == (1, (600 + 20 + 360) * 50 / 1000)
    said = duration.in_words(5), duration.in_words(600), duration.in_words(9000)
    assert said == ("5 seconds", "10 minutes", "2.5 hours")


def test_the_tried_step_is_the_engines(draw, tiny_llama, tmp_path):
    """A training takes about as long as the tried step says: within a factor of five on a busy machine."""
    policy = models.add_lora(tiny_llama, rank=2, alpha=4.0, top_layers=1, seed=0)
    rows = draw(8, 2, prompt=(150, 151), completion=(60, 61))
    lengths = [Lengths(list(row.prompt), [list(answer) for answer in row.completions]) for row in rows]
    values = {"batch_size": 8, "max_prompt": 160, "max_completion": 64}
    speed = duration.training_speed(policy, lengths, values)
    assert not any(parameter.grad is not None for parameter in policy.parameters())
    plan = reference.attach(collate.make_plan(rows, batch_size=8, epochs=40, seed=0, pad_id=0), policy, cache=None)

    def loss(logps, ref_logps, batch, state, *, beta):
        return dpo.loss(logps, ref_logps, beta=beta)

    start = time.monotonic()
    how = {"learning_rate": 1e-3, "seed": 0, "checkpoints": tmp_path, "save_every": None}
    train.fit(policy, plan, loss, {"beta": 0.1}, **how)
    took = time.monotonic() - start
    assert took / 5 < 40 * sum(map(collate.size, rows)) / speed < 5 * took


@pytest.mark.parametrize("longest", [1, 9])
def test_rows_are_tried_no_longer_than_they_will_be_cut(tiny_llama, longest, monkeypatch):
    seen = []
    monkeypatch.setattr(duration, "to_device", lambda batch, device: seen.append(batch) or batch)
    policy = models.add_lora(tiny_llama, rank=2, alpha=4.0, top_layers=1, seed=0)
    lengths = [Lengths([5] * 50, [[6] * 40, [7] * 30])] * 3
    duration.training_speed(policy, lengths, {"max_prompt": longest, "max_completion": longest})
    assert set(seen[0]["lengths"].flatten().tolist()) == {longest}
