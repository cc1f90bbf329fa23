"""The judge that writes a probability: the tree of answers against plain forward passes, data, training, read-outs."""

import shutil

import numpy as np
import pytest
import torch

from prefcore.data import files
from prefcore.data.types import Example, LossOutput
from prefcore.engine import collate, logps, models
from prefcore.methods.autoraters import confidence
from prefcore.scoring import calibration
from prefcore.scoring.votes import VotedPair

TEXTS = ("The long story is a wonderful great joy for us", "My old phone was a poor and sad thing",
         "A short song came on the third of May", "Our own town is an awful terrible pain for us")  # fmt: skip
P = {"question": "The more positive text is", "max_text": 24, "batch_size": 4, "profile": "smoke", "seed": 0,
     "data": "own", "device": "cpu", "threads": 1, "dtype": "float32", "lora_rank": 4, "lora_alpha": 8.0,
     "lora_layers": 2, "learning_rate": 0.02}  # fmt: skip


def pair(i=0, j=1, votes=(1.0, 1.0, 0.0, 0.5), share=0.75, **more):
    row = {"id": f"{i}|{j}", "prompt": "", "a": TEXTS[i], "b": TEXTS[j], "votes": votes, "truth": (), "share": share,
           "domain": "Tweet", "stratum": "clear", "split": "train"}  # fmt: skip
    return VotedPair(**row | more)


PAIRS = [pair(i, j) for i in range(4) for j in range(4) if i != j]


@pytest.fixture
def model(toy_weights):
    """(tokenizer, tiny random Llama)."""
    return models.load_policy(str(toy_weights / "policy"))


@pytest.fixture
def adapted(model):
    tokenizer, policy = model
    return tokenizer, models.add_lora(policy, rank=4, alpha=8.0, top_layers=1, seed=0)


def encode(tokenizer, pairs=PAIRS, **more):
    return confidence.encode([confidence.Asked(p, 0.25) for p in pairs], tokenizer, P | more)


# --- the tree of answers ----------------------------------------------------------------------------------------


def slow_answers(example, policy, tokenizer):
    """Each of the 99 answers as a row of its own through the plain model."""
    ids = [tokenizer(str(d), add_special_tokens=False)["input_ids"][0] for d in range(10)]
    out = []
    for k in range(1, 100):
        answer = (ids[k // 10], ids[k % 10])
        with torch.no_grad():
            rows = policy(input_ids=torch.tensor([[*example.prompt, *answer]])).logits[0].double().log_softmax(1)
        start = len(example.prompt) - 1
        out.append((rows[start, answer[0]] + rows[start + 1, answer[1]]).exp().item())
    return out


def test_the_tree_gives_the_chances_of_ninety_nine_plain_passes(model):
    tokenizer, policy = model
    examples = encode(tokenizer, PAIRS[:3])
    found = confidence.written(examples, policy, tokenizer)
    for row, example in zip(found, examples, strict=True):
        np.testing.assert_allclose(row, slow_answers(example, policy, tokenizer), rtol=1e-3, atol=1e-9)


def test_a_model_without_the_branched_path_gets_the_same_chances(model, monkeypatch):
    tokenizer, policy = model
    examples = encode(tokenizer)
    branched = confidence.written(examples, policy, tokenizer)
    monkeypatch.setattr(confidence, "choose_path", lambda *_: logps.plain_logps)
    np.testing.assert_allclose(confidence.written(examples, policy, tokenizer), branched, rtol=1e-3, atol=1e-9)


def test_ten_tokens_are_read_beyond_the_prompt(model):
    (example,) = encode(model[0], PAIRS[:1])
    assert collate.size(example) == len(example.prompt) + 10


def test_the_missing_mass_is_the_chance_of_no_answer(model):
    tokenizer, policy = model
    found = confidence.written(encode(tokenizer), policy, tokenizer)
    assert found.shape == (12, 99) and np.all(found > 0) and np.all(found.sum(1) < 1)


def test_gradients_of_the_tree_are_those_of_a_plain_pass(adapted):
    tokenizer, policy = adapted
    (example,) = encode(tokenizer, PAIRS[:1])
    batch = collate.collate([example], pad_id=tokenizer.pad_token_id)
    tree = confidence.Tree(policy, tokenizer)
    trained = [q for q in policy.parameters() if q.requires_grad]
    for q in trained:
        torch.nn.init.normal_(q, std=0.1)  # a new adapter's second factor is 0, and so would half of the slopes be
    ours = tree.answers(logps.branch_logps(policy, batch), batch)[0, 84]
    found = torch.autograd.grad(ours, trained)
    ids = [tokenizer(d, add_special_tokens=False)["input_ids"][0] for d in "85"]
    rows = policy(input_ids=torch.tensor([[*example.prompt, *ids]])).logits[0].log_softmax(1)
    plain = rows[-3, ids[0]] + rows[-2, ids[1]]
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4)
    for one, other in zip(found, torch.autograd.grad(plain, trained), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_model_whose_logits_are_scaled_or_shifted_is_refused(model):
    tokenizer, policy = model
    policy.lm_head.register_forward_hook(lambda module, inputs, output: output * 0.5)
    with pytest.raises(ValueError, match="not just hidden state times output embedding"):
        confidence.Tree(policy, tokenizer)


def test_a_tokenizer_that_does_not_tell_digits_apart_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no single token for each digit"):
        encode(tokenizer)


# --- prompts and data -------------------------------------------------------------------------------------------


def test_a_prompt_shows_both_texts_and_ends_inside_the_contract(model):
    tokenizer, _ = model
    text = tokenizer.decode(encode(tokenizer, [pair(prompt="A debate")])[0].prompt)
    assert text == (f"A debate\nText A: {TEXTS[0]}\nText B: {TEXTS[1]}\nThe more positive text is B with probability "
                    "<prob_rb_better>0.")  # fmt: skip


def test_long_texts_are_cut_and_the_question_is_not(model):
    tokenizer, _ = model
    long = encode(tokenizer, [pair(a="joy " * 500)])[0].prompt
    assert len(long) < 24 + 24 + 120
    assert tokenizer.decode(long).endswith("B with probability <prob_rb_better>0.")


def test_thoughts_stand_before_the_answer_and_follow_their_texts(model):
    tokenizer, _ = model
    asked = confidence.both_ways([confidence.Asked(PAIRS[0], 0.0)])
    examples = confidence.encode(asked, tokenizer, P, {TEXTS[0]: 7, TEXTS[1]: 2})
    there, back = (tokenizer.decode(e.prompt) for e in examples)
    assert there.endswith("<think>A 7, B 2</think><prob_rb_better>0.")
    assert back.endswith("<think>A 2, B 7</think><prob_rb_better>0.")


def test_swapping_twice_gives_the_pair_back_and_once_turns_the_label():
    (there, back) = confidence.both_ways([confidence.Asked(PAIRS[0], 0.25)])
    assert (back.pair.a, back.pair.b, back.label) == (PAIRS[0].b, PAIRS[0].a, 0.75)
    again = confidence.both_ways([back])[1]
    assert again == there


def test_dense_labels_are_the_mean_of_so_many_votes_for_the_second_text():
    (found,) = confidence.dense([pair(votes=(1.0, 1.0, 0.0, 0.5))], 1, 4, seed=0)
    assert found.label == pytest.approx(1 - 2.5 / 4)


def test_pairs_with_too_few_votes_are_passed_over_and_too_few_pairs_are_said():
    few, many = pair(votes=(1.0,)), pair(2, 3, votes=(1.0, 0.0))
    assert confidence.dense([few, many], 1, 2, seed=0)[0].pair is many
    with pytest.raises(ValueError, match="1 of 2 pairs have 2 votes .the most is 2., 2 are wanted"):
        confidence.dense([few, many], 2, 2, seed=0)
    with pytest.raises(ValueError, match="3 pairs are wanted"):
        confidence.single([few, many], 3, seed=0)


def test_single_labels_are_binary_and_have_the_mean_of_the_votes():
    labels = [confidence.single([pair(votes=(1.0, 0.5, 0.0, 0.0))] * 2_000, 2_000, seed=s)[0].label for s in (0, 1)]
    assert set(labels) <= {0.0, 1.0}
    drawn = [a.label for a in confidence.single([pair(votes=(1.0, 0.5, 0.0, 0.0))] * 4_000, 4_000, seed=0)]
    assert set(drawn) == {0.0, 1.0}
    assert np.mean(drawn) == pytest.approx(1 - 1.5 / 4, abs=0.03)


def test_sure_votes_keep_their_side():
    assert [a.label for a in confidence.single([pair(votes=(1.0,)), pair(votes=(0.0,))], 2, seed=0)] == [0.0, 1.0]


def test_pairs_come_from_the_stage_or_from_a_file_and_an_empty_part_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    p = P | {"data": "", "validation_pairs": 1, "test_pairs": 2}
    pairs = [pair(split=split) for split in ("train", "train", "validation", "validation", "test")]
    files.write_lines(pairs, tmp_path / "build" / "smoke" / "voted.jsonl")
    found = confidence.open_pairs(p)
    assert {split: len(inside) for split, inside in found.items()} == {"train": 2, "validation": 1, "test": 1}
    files.write_lines(pairs[:3], tmp_path / "build" / "smoke" / "voted.jsonl")
    with pytest.raises(ValueError, match="no pair of 3 falls into the test part"):
        confidence.open_pairs(p)
    (tmp_path / "own.jsonl").write_text('{"a": "x", "b": "y"}\n')
    with pytest.raises(ValueError, match="votes"):
        confidence.open_pairs(p | {"data": "own.jsonl"})


# --- read-outs --------------------------------------------------------------------------------------------------


def spread(**chances):
    out = np.zeros((1, 99))
    for answer, chance in chances.items():
        out[0, int(answer[1:]) - 1] = chance
    return out


def test_greedy_goes_digit_by_digit_and_the_mean_does_not():
    """First digit 7 has 0.5 in all, though the likeliest single answer is .20: 7, then 3. The mean is over 0.9."""
    chances = spread(_20=0.4, _73=0.25, _76=0.2, _79=0.05)
    assert confidence.greedy(chances) == [0.73]
    assert confidence.expectation(chances) == pytest.approx((0.4 * 0.2 + 0.25 * 0.73 + 0.2 * 0.76 + 0.05 * 0.79) / 0.9)


def test_the_smallest_and_the_largest_answer_are_read_right():
    assert confidence.greedy(np.concatenate([spread(_1=0.5), spread(_10=0.5), spread(_99=0.5)])).tolist() == [
        0.01, 0.1, 0.99]  # fmt: skip


def test_self_consistency_is_the_share_of_drawn_answers_for_the_second_text():
    chances = spread(_20=0.3, _50=0.2, _73=0.4)  # and 0.1 that cannot be read
    assert confidence.self_consistency(chances, 200_000, 0) == pytest.approx((0.4 + 0.1) / 0.9, abs=0.01)
    assert set(confidence.self_consistency(spread(_73=0.5, _20=0.5), 1, seed=3)) <= {0.0, 1.0}
    assert confidence.self_consistency(spread(_73=1e-12), 5, seed=0) == [0.5]


def test_rows_measure_both_orders_against_held_out_raters():
    """Share for the second 0.25; said 0.3 and, exchanged, 0.6: ((0.05)^2 + (0.15)^2) / 2, both for the first text."""
    frame = confidence.score_rows("x", [PAIRS[0]], np.array([[0.3], [0.6]]), 0.1)
    row = frame.iloc[0]
    assert row["error"] == pytest.approx((0.05**2 + 0.15**2) / 2)
    assert (row["right"], row["consistent"], row["no_answer"]) == (1.0, 1.0, 0.1)
    assert row["bias"] == pytest.approx(0.1)
    assert row["excess"] == pytest.approx((0.7 + 0.6) / 2 - 0.75)  # sure by 0.7 and 0.6
    wrong = confidence.score_rows("x", [PAIRS[0]], np.array([[0.7], [0.6]])).iloc[0]
    assert (wrong["right"], wrong["consistent"]) == (0.5, 0.0)
    assert wrong["excess"] == pytest.approx((0.7 - 0.25 + 0.6 - 0.75) / 2)


def test_a_summary_tells_sure_pairs_apart():
    pairs = [pair(share=1.0), pair(1, 2, share=0.0), pair(2, 3, share=0.6)]
    frame = confidence.score_rows("x", pairs, np.array([[0.2, 0.3, 0.4], [0.8, 0.3, 0.7]]))
    found = calibration.summarise(frame, bins=10, band=0.05, seed=0)["x"]
    assert found["objective_pairs"] == 2
    assert found["objective_right"] == pytest.approx((1.0 + 0.5) / 2)  # the second pair is judged right once
    nobody = confidence.score_rows("x", pairs[2:] * 2, np.array([[0.4, 0.4], [0.7, 0.7]]))
    assert calibration.summarise(nobody, bins=10, band=0.05, seed=0)["x"]["objective_right"] is None


# --- training ---------------------------------------------------------------------------------------------------


def nll(answers, batch, state):
    place = (100 * batch["label"]).round().long() - 1
    return LossOutput(-answers.gather(1, place[:, None]).squeeze(1), answers.detach()[:, :1])


def test_training_through_the_engine_teaches_the_answer_and_repeats_byte_for_byte(toy_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    p = P | {"policy": str(toy_weights / "policy")}
    recipe = confidence.Recipe(nll, [confidence.Asked(one, 0.25) for one in PAIRS], 12)
    tokenizer, untaught = confidence.start(p, 0)
    before, histories = confidence.judged(PAIRS, untaught, tokenizer, p), []
    for _ in range(2):
        tokenizer, policy, history = confidence.train_arm(p, recipe, arm="x", seed=0)
        after = confidence.judged(PAIRS, policy, tokenizer, p)
        assert np.all(confidence.greedy(after.reshape(24, 99)) == 0.25)
        assert after[..., 24].mean() > 5 * before[..., 24].mean()
        histories.append(history.to_csv())
        shutil.rmtree(tmp_path / ".checkpoints")  # so that the second run starts anew
    assert histories[0] == histories[1] and len(history) == 36


def test_a_sampling_objective_sees_the_start_on_its_own_rows(toy_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    def watch(answers, batch, state):
        seen.append((answers.detach() - batch["ref_answers"]).abs().max().item())
        confidence.draw(answers, 2, state, 0)
        return LossOutput(0.0 * answers.sum(1), answers.detach()[:, :1])

    recipe = confidence.Recipe(watch, [confidence.Asked(one, 0.25) for one in PAIRS], 1, sampled=True)
    _, _, history = confidence.train_arm(P | {"policy": str(toy_weights / "policy")}, recipe, arm="x", seed=0)
    assert len(seen) == 3 and max(seen) < 1e-3
    assert history["state_step"].tolist() == [1, 2, 3]


def test_draws_follow_the_chances_and_depend_on_seed_and_step_alone():
    answers = torch.log(torch.full((2, 99), 0.9 / 99))
    state = {"step": torch.tensor(0.0)}
    first, second = confidence.draw(answers, 5_000, state, 0), confidence.draw(answers, 5_000, state, 0)
    assert state["step"] == 2 and not torch.equal(first, second)
    assert torch.equal(first, confidence.draw(answers, 5_000, {"step": torch.tensor(0.0)}, 0))
    assert (first == 99).double().mean().item() == pytest.approx(0.1, abs=0.02)


def test_ratings_are_digits_of_every_text(model):
    tokenizer, policy = model
    found = confidence.ratings(PAIRS, policy, tokenizer)
    assert set(found) == set(TEXTS) and set(found.values()) <= set(range(9))


def test_verdicts_turn_round_with_the_judge(model):
    tokenizer, policy = model
    found = confidence.verdicts(PAIRS[:2], policy, tokenizer, "The better text is")
    exchanged = confidence.verdicts([pair(1, 0)], policy, tokenizer, "The better text is")
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found[:, 0], exchanged[::-1, 0], atol=1e-6)


def test_examples_are_ordinary_examples_of_the_engine(model):
    assert all(isinstance(e, Example) and len(e.completions) == 11 for e in encode(model[0]))
