"""What a policy writes, scored prompt by prompt."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prefcore.data import ratings
from prefcore.data.types import Example, Unary
from prefcore.engine import models, reference
from prefcore.engine.sample import sample
from prefcore.scoring import evaluate, scorers
from prefcore.scoring.evaluate import rated_text

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_the_domain_tag_is_not_part_of_what_is_rated():
    assert rated_text("Movie review: The film: part", " two is good ") == "The film: part two is good"


def test_scores_are_those_of_prompt_and_continuation(toy_world):
    build = Path("build/smoke")
    loaded = evaluate.load_scorers(build, toy_world["common"]["encoder"], device="cpu")
    tokenizer, policy = models.load_policy(str(build / "reference"))
    prompts = ratings.choose_prompts(ratings.read_texts(build / "texts.jsonl"), 5, 0, split="test")
    how = {"max_prompt": 64, "max_new_tokens": 6, "seed": 3, "arm": "a"}
    frame = evaluate.score_policy(policy, tokenizer, prompts, loaded, **how)
    assert frame["id"].tolist() == [t.id for t in prompts] and set(frame["seed"]) == {3} and set(frame["arm"]) == {"a"}
    whole = [rated_text(t.prompt, text) for t, text in zip(prompts, frame["text"], strict=True)]
    np.testing.assert_allclose(frame["gold"], scorers.gold_scores(whole, loaded.gold, loaded.gold_tokenizer), atol=1e-6)
    assert (frame["length"] <= 6).all() and frame["kl"].abs().max() < 1e-4
    again = evaluate.score_policy(policy, tokenizer, prompts, loaded, **how)
    pd.testing.assert_frame_equal(frame, again)


def test_distance_and_surprise_are_of_the_sample_with_its_end(adapted, tiny_llama, tokenizer):
    prompts = [Unary(f"r{i}", "w5 w6", "", True) for i in range(30)]
    policy = adapted(tiny_llama, scale=2.0)
    found = evaluate.write(policy, tokenizer, prompts, max_prompt=8, max_new_tokens=4, seed=0, arm="a")
    drawn = sample(policy, tokenizer, [[5, 6]] * 30, max_new_tokens=4, seed=0)
    ends = [s.ids + ((2,) if s.finished else ()) for s in drawn]
    rows = [Example("", (5, 6), (ids,)) for ids in ends]
    own, frozen = (f(policy, rows, pad_id=0)[:, 0] for f in (reference.score_all, reference.logps))
    np.testing.assert_allclose(found["kl"], own - frozen, atol=1e-4)
    np.testing.assert_allclose(found["surprise"], -frozen / [len(ids) for ids in ends], atol=1e-5)
    assert found["kl"].abs().max() > 0.1 and found["length"].tolist() == [len(ids) for ids in ends]


def test_of_a_chat_the_table_shows_what_was_said_last(tiny_llama, tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    prompts = [Unary("r", [{"role": "user", "content": "w5 w6"}], "", True)]
    found = evaluate.write(tiny_llama, tokenizer, prompts, max_prompt=8, max_new_tokens=2, seed=0, arm="a")
    assert found["prompt"].tolist() == ["w5 w6"]
