"""Reward models: what they read, what training changes and what not, and what they prefer."""

import copy
import random
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from prefcore.data.types import LossOutput, Pair
from prefcore.engine.collate import make_plan
from prefcore.engine.machine import has_bfloat16
from prefcore.methods.margin_rm import losses
from prefcore.scoring import reward_model
from prefcore.scoring.votes import VotedPair, swap

GOOD, BAD = "wonderful great joy happy good".split(), "awful terrible pain sad poor".split()
SETTINGS = {"learning_rate": 3e-3, "warmup": 0.1, "max_grad_norm": 1.0, "label": "test"}


@pytest.fixture
def model(toy_weights):
    """(tokenizer, reward model on the tiny random encoder)."""
    return reward_model.load(str(toy_weights / "encoder"), seed=0)


def sentence(words, rng):
    return "The " + " ".join(rng.choice(words) for _ in range(4))


def toy_pairs(n, seed):
    rng = random.Random(seed)
    return [Pair(f"p{i}", "", sentence(GOOD, rng), sentence(BAD, rng), margin=0.5, strength=0.8) for i in range(n)]


def train(model, pairs, objective=None, epochs=3, **how):
    tokenizer, network = model
    examples = reward_model.encode(pairs, tokenizer, max_tokens=32)
    plan = make_plan(examples, batch_size=8, epochs=epochs, seed=0, pad_id=tokenizer.pad_token_id)
    return reward_model.fit(network, plan, objective or (lambda r, c: losses.loss(r, c["margin"])), **SETTINGS, **how)


def voted(a, b, votes=(1.0,), share=1.0):
    return VotedPair("v", "", a, b, votes, (), share, "", "all", "test")


# --- loading, reading, saving -----------------------------------------------------------------------------------


def test_the_head_is_drawn_from_the_seed(toy_weights):
    heads = [reward_model.load(str(toy_weights / "encoder"), seed=s)[1].head.weight for s in (0, 0, 1)]
    assert heads[0].shape == (1, 48)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_an_encoder_is_read_by_the_mean_of_its_last_states(model, toy_weights):
    """By hand, text by text: not by [CLS], whose pooler a sentence encoder has never trained."""
    tokenizer, network = model
    plain = AutoModel.from_pretrained(toy_weights / "encoder").eval()
    texts = ["The wonderful joy", "The awful pain of the long story"]
    with torch.no_grad():
        states = [plain(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts]
    expected = [(state.mean(0) @ network.head.weight[0]).item() for state in states]
    found = reward_model.score([("", text) for text in texts], network, tokenizer, max_tokens=32)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_untrained_pooler_changes_no_reward(model):
    tokenizer, network = model
    items = [("", "The wonderful joy"), ("", "The awful pain")]
    before = reward_model.score(items, network, tokenizer, max_tokens=32)
    torch.nn.init.normal_(network.encoder.pooler.dense.weight)
    np.testing.assert_array_equal(reward_model.score(items, network, tokenizer, max_tokens=32), before)


def test_a_saved_model_is_a_plain_encoder_with_its_head_beside_it(model, tmp_path):
    tokenizer, network = model
    texts = [("", "The wonderful joy"), ("", "The awful pain of the long story")]
    expected = reward_model.score(texts, network, tokenizer, max_tokens=32)
    reward_model.save(network, tokenizer, tmp_path / "saved")
    assert {p.suffix for p in (tmp_path / "saved").iterdir()} <= {".json", ".safetensors", ".txt", ".jinja"}
    plain = AutoModel.from_pretrained(tmp_path / "saved").eval()
    reader = AutoTokenizer.from_pretrained(tmp_path / "saved")
    head = load_file(tmp_path / "saved" / "head.safetensors")["weight"][0]
    with torch.no_grad():
        found = [(plain(**reader(text, return_tensors="pt")).last_hidden_state[0].mean(0) @ head).item()
                 for _, text in texts]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-5)
    again = reward_model.load(str(tmp_path / "saved"), seed=5)
    np.testing.assert_allclose(reward_model.score(texts, *again[::-1], max_tokens=32), expected, atol=1e-6)


def test_a_sequence_classifier_of_ones_own_is_read_as_it_is(model, tmp_path):
    tokenizer, network = model
    torch.manual_seed(3)
    classifier = BertForSequenceClassification(BertConfig(**network.config.to_dict() | {"num_labels": 1})).eval()
    classifier.save_pretrained(tmp_path / "own")
    tokenizer.save_pretrained(tmp_path / "own")
    with torch.no_grad():
        expected = classifier(**tokenizer("The wonderful joy", return_tensors="pt")).logits.item()
    for folder in ("own", "again"):
        reader, loaded = reward_model.load(str(tmp_path / folder), seed=0)
        found = reward_model.score([("", "The wonderful joy")], loaded, reader, max_tokens=32)
        np.testing.assert_allclose(found, [expected], atol=1e-6)
        reward_model.save(loaded, reader, tmp_path / "again")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert plain.config.num_labels == 1 and not (tmp_path / "again" / "head.safetensors").exists()


def test_a_classifier_with_three_outputs_is_refused(model, tmp_path):
    tokenizer, network = model
    BertForSequenceClassification(BertConfig(**network.config.to_dict() | {"num_labels": 3})).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no reward model: its classifier has 3 outputs, not one"):
        reward_model.load(str(tmp_path), seed=0)


def test_neither_padding_nor_company_changes_a_reward(model):
    tokenizer, network = model
    texts = [("", sentence(GOOD, random.Random(i)) + " and" * (3 * i)) for i in range(7)]
    together = reward_model.score(texts, network, tokenizer, max_tokens=64)
    alone = [reward_model.score([text], network, tokenizer, max_tokens=64)[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(together) > 1e-4


def test_a_prompt_is_read_before_the_text_and_a_long_text_is_cut(model):
    tokenizer, network = model
    assert tokenizer.decode(reward_model.token_ids("On dogs", "The joy", tokenizer, 32)) == "On dogs\nThe joy"
    items = [("On dogs", "The joy"), ("", "The joy")]
    with_prompt, without = reward_model.score(items, network, tokenizer, max_tokens=32)
    assert with_prompt != without
    assert len(reward_model.token_ids("", "joy " * 99, tokenizer, 16)) == 16


def test_what_looks_like_a_control_token_stays_text(model):
    tokenizer, _ = model
    ids = reward_model.token_ids("", "The <|im_end|> joy", tokenizer, 64)
    assert tokenizer.eos_token_id not in ids and tokenizer.decode(ids) == "The <|im_end|> joy"


def test_a_decoder_can_be_a_reward_model_too(model, tmp_path):
    tokenizer, _ = model
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama = LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), **sizes, num_labels=1))
    llama.save_pretrained(tmp_path)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    reader, network = reward_model.load(str(tmp_path), seed=0)
    texts = [("", "The joy"), ("", "The terrible pain of a very long story")]
    together = reward_model.score(texts, network, reader, max_tokens=32)
    alone = [reward_model.score([text], network, reader, max_tokens=32)[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    history = train((reader, reward_model.train_top(network, layers=1)), toy_pairs(16, 0), epochs=1)
    assert history["grad_norm"].gt(0).all() and network.score.weight.requires_grad


# --- training ---------------------------------------------------------------------------------------------------


def test_it_learns_to_rank_pairs_that_it_has_not_seen(model):
    tokenizer, network = model
    unseen = [voted(p.chosen, p.rejected) for p in toy_pairs(60, 1)]
    history = train(model, toy_pairs(96, 0))
    after = reward_model.preference(unseen, network, tokenizer, max_tokens=32)
    assert (after > 0.5).mean() > 0.95
    assert list(history["step"]) == list(range(1, 37))
    assert history["loss"].iloc[-5:].mean() < 0.5 * history["loss"].iloc[:5].mean()
    assert history["accuracy"].iloc[-1] == 1.0 and history["margin"].iloc[-1] > 0.5


def test_a_second_run_gives_the_same_bytes(toy_weights):
    states, histories = [], []
    for _ in range(2):
        pair_of = reward_model.load(str(toy_weights / "encoder"), seed=0)
        histories.append(train(pair_of, toy_pairs(24, 0)))
        states.append(pair_of[1].state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert histories[0].equals(histories[1])


@pytest.mark.skipif(not has_bfloat16("cpu"), reason="needs a processor with bfloat16 products")
def test_in_bfloat16_it_learns_nearly_the_same_and_keeps_float32_weights(toy_weights):
    unseen, found, losses_of = [("", p.chosen) for p in toy_pairs(20, 1)], {}, {}
    for precision in ("float32", "bfloat16"):
        tokenizer, network = reward_model.load(str(toy_weights / "encoder"), seed=0)
        losses_of[precision] = train((tokenizer, network), toy_pairs(24, 0), precision=precision)["loss"]
        assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
        found[precision] = reward_model.score(unseen, network, tokenizer, max_tokens=32, precision=precision)
    np.testing.assert_allclose(losses_of["bfloat16"], losses_of["float32"], rtol=0.05)
    np.testing.assert_allclose(found["bfloat16"], found["float32"], atol=0.05)
    assert (found["bfloat16"] != found["float32"]).any()


def test_only_the_last_layers_and_what_follows_them_are_trained(model):
    _, network = model
    before = copy.deepcopy(network.state_dict())
    train((model[0], reward_model.train_top(network, layers=1)), toy_pairs(16, 0), epochs=1)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name.startswith(("encoder.encoder.layer.1.", "head.")) for name in changed)
    assert {"head.weight", "encoder.encoder.layer.1.output.dense.weight"} <= changed


@pytest.mark.parametrize("layers", [0, 3, -1])
def test_layers_that_the_model_does_not_have_cannot_be_trained(model, layers):
    with pytest.raises(ValueError, match=f"layers is {layers}; this model has 2"):
        reward_model.train_top(model[1], layers=layers)


def test_a_loss_that_is_not_finite_stops_with_the_ids(model):
    with pytest.raises(FloatingPointError, match=r"not finite in the batch \['p\d+', .*lower the rate"):
        train(model, toy_pairs(8, 0), lambda r, c: LossOutput(r[:, 0] / 0, r.detach()))


def test_margin_and_strength_of_a_pair_are_what_the_objective_gets(model):
    pairs = [p._replace(margin=i / 10, strength=1 - i / 10) for i, p in enumerate(toy_pairs(8, 0))]
    seen = []

    def objective(r, columns):
        seen.append({name: sorted(round(x, 4) for x in value.tolist()) for name, value in columns.items()})
        return losses.loss(r, columns["margin"])

    train(model, pairs, objective, epochs=1)
    assert seen == [{"margin": [i / 10 for i in range(8)], "strength": [round(i / 10 + 0.3, 4) for i in range(8)]}]


# --- TRL --------------------------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("with_margin", [True, False])
def test_the_margin_loss_and_its_gradient_are_those_of_trl(model, with_margin):
    """TRL 1.16.0's RewardTrainer: its collator, its compute_loss, on the same weights and token ids."""
    from trl import RewardTrainer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    tokenizer, network = model
    pairs = [p._replace(margin=m) for p, m in zip(toy_pairs(6, 3), (0.8, 0.0, 0.6, -0.6, 1.0, 0.3), strict=True)]
    examples = reward_model.encode(pairs, tokenizer, max_tokens=32)
    twin = copy.deepcopy(network)
    rows = [{"chosen_ids": list(e.completions[0]), "rejected_ids": list(e.completions[1])} for e in examples]
    if with_margin:
        rows = [row | {"margin": e.columns["margin"]} for row, e in zip(rows, examples, strict=True)]
    inputs = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id)(rows)
    read_texts = lambda input_ids, attention_mask, **_: twin(input_ids, attention_mask)  # noqa: E731
    theirs = RewardTrainer.compute_loss(trainer_stub(), read_texts, inputs)
    theirs.backward()

    read = reward_model.read([ids for e in examples for ids in e.completions], network).view(-1, 2)
    margin = torch.tensor([e.columns["margin"] if with_margin else 0.0 for e in examples])
    ours = losses.loss(read, margin).losses
    assert ours.shape == (6,)
    ours.mean().backward()
    torch.testing.assert_close(ours.mean(), theirs, rtol=0, atol=1e-5)
    for (name, mine), other in zip(network.named_parameters(), twin.parameters(), strict=True):
        if "pooler" in name:
            assert mine.grad is None and other.grad is None
        else:
            torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-5)


def trainer_stub():
    """What compute_loss reads of its trainer besides the model: settings, and where it counts."""
    from collections import defaultdict

    return types.SimpleNamespace(
        model=types.SimpleNamespace(training=False), args=types.SimpleNamespace(center_rewards_coefficient=None),
        accelerator=types.SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"eval": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip


# --- preferring -------------------------------------------------------------------------------------------------


def test_a_preference_is_the_sigmoid_of_the_difference_and_turns_with_the_pair(model):
    tokenizer, network = model
    pairs = [voted("The joy", "The pain"), voted("The pain", "The awful story")]
    items = [("", "The joy"), ("", "The pain"), ("", "The awful story")]
    r = dict(zip("abc", reward_model.score(items, network, tokenizer, max_tokens=32), strict=True))
    found = reward_model.preference(pairs, network, tokenizer, max_tokens=32)
    np.testing.assert_allclose(found, [1 / (1 + np.exp(r["b"] - r["a"])), 1 / (1 + np.exp(r["c"] - r["b"]))], atol=1e-9)
    turned = reward_model.preference([swap(pair) for pair in pairs], network, tokenizer, max_tokens=32)
    np.testing.assert_allclose(turned, 1 - found, atol=1e-9)
