"""Step by step agreement with TRL 1.16.0: the same weights, token ids and order give the same losses.

TRL reads text, so the data are words of the in-memory tokenizer; our examples are encoded from the same words.
"""

import copy
import random

import datasets
import pytest
import torch
import trl

from prefcore.data.types import Example, Pair, Unary
from prefcore.engine import reference, train
from prefcore.engine.collate import Plan, add_mismatches, collate, encode_pairs, encode_unary, make_plan
from prefcore.engine.logps import branch_logps, plain_logps
from prefcore.methods import dpo, kto

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::FutureWarning")]

BATCH, BETA, RATE = 4, 0.5, 3e-3
LIMITS = {"max_prompt": 64, "max_completion": 64}


@pytest.fixture(autouse=True)
def caches_go_with_the_test(tmp_path, monkeypatch):
    for name in ("HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def words(rng, shortest, longest):
    return " ".join(f"w{rng.randrange(4, 97)}" for _ in range(rng.randint(shortest, longest)))


@pytest.fixture
def pairs():
    """18 pairs of unequal lengths: with a batch of 4, five steps of which the last has two."""
    rng = random.Random(5)
    return [Pair(f"p{i}", words(rng, 2, 12), words(rng, 1, 9), words(rng, 1, 9)) for i in range(18)]


@pytest.fixture
def answers():
    """18 single answers, more thumbs-down than thumbs-up; the second batch has thumbs-down only."""
    rng = random.Random(6)
    labels = [True, False, False, True, False, False, False, False, *([True, False] * 5)]
    return [Unary(f"a{i}", words(rng, 2, 12), words(rng, 1, 9), label) for i, label in enumerate(labels)]


def trl_data(records):
    """The records as TRL reads them: plain text, a space before each completion."""
    names = ("chosen", "rejected") if isinstance(records[0], Pair) else ("completion",)
    data = {"prompt": [r.prompt for r in records]} | {n: [" " + getattr(r, n) for r in records] for n in names}
    if isinstance(records[0], Unary):
        data["label"] = [r.label for r in records]
    return datasets.Dataset.from_dict(data)


def make_trl(kind, model, records, tokenizer, folder, **options):
    """A DPO or KTO trainer with our optimiser settings, in sequential order, logging every step."""
    trainer, config = {"dpo": (trl.DPOTrainer, trl.DPOConfig), "kto": (trl.KTOTrainer, trl.KTOConfig)}[kind]
    settings = {
        "output_dir": str(folder), "num_train_epochs": 1, "train_sampling_strategy": "sequential", "beta": BETA,
        "learning_rate": RATE, "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 1.0,
        "per_device_train_batch_size": BATCH, "logging_steps": 1, "save_strategy": "no", "report_to": [],
        "disable_tqdm": True, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "max_length": 256,
        "dataloader_pin_memory": False, "seed": 0,
    }
    return trainer(
        model=model, ref_model=copy.deepcopy(model), args=config(**settings | options), train_dataset=trl_data(records),
        processing_class=tokenizer,
    )


def run_trl(trainer):
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


def fit(policy, plan, objective, folder, **settings):
    history = train.fit(
        policy, plan, objective, settings, learning_rate=RATE, checkpoints=folder, seed=0, warmup=0,
        schedule="constant", max_grad_norm=1.0, weight_decay=0.0,
    )
    return history.to_dict("records")


def in_sequence(examples):
    steps = [list(range(s, min(s + BATCH, len(examples)))) for s in range(0, len(examples), BATCH)]
    return Plan(list(examples), steps)


def rotate(plan):
    """TRL's mismatches: inside each batch, a prompt with the answer of the row before it; the first takes the last."""
    steps = [[plan.examples[i] for i in batch] for batch in plan.batches]
    return plan._replace(mismatches=[
        [Example(f"{e.id}|{step[i - 1].id}", e.prompt, step[i - 1].completions) for i, e in enumerate(step)]
        for step in steps
    ])


def dpo_objective(logps, ref_logps, batch, state, *, beta):
    return dpo.loss(logps, ref_logps, beta=beta)


WEIGHTS = {"desirable_weight": 1.5, "undesirable_weight": 0.75}


def kto_objective(logps, ref_logps, batch, state, **numbers):
    kl = kto.kl_estimate(batch["mismatch_logps"], batch["ref_mismatch_logps"])
    return kto.loss(logps, ref_logps, batch["label"], kl, **numbers)


def assert_same_course(ours, theirs, tolerance=1e-5):
    assert len(ours) == len(theirs) >= 4
    for name in ("loss", "grad_norm"):
        found, expected = [row[name] for row in ours], [row[name] for row in theirs]
        assert found == pytest.approx(expected, rel=tolerance if name == "grad_norm" else 0, abs=tolerance), name
    assert max(row["loss"] for row in theirs) - min(row["loss"] for row in theirs) > 0.01  # the steps did something


def assert_same_weights(policy, other, tolerance=1e-5):
    for (name, found), expected in zip(policy.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance, msg=name)


def unpad(batch, prefix=""):
    """(ids, completion mask) of each row of a TRL batch, without padding."""
    columns = [batch[prefix + name] for name in ("input_ids", "attention_mask", "completion_mask")]
    rows = zip(*columns, strict=True)
    return [(ids[seen.bool()].tolist(), answer[seen.bool()].tolist()) for ids, seen, answer in rows]


def as_sequences(examples, k):
    """The same of our examples' branch k."""
    return [
        ([*e.prompt, *e.completions[k]], [0] * len(e.prompt) + [1] * len(e.completions[k])) for e in examples
    ]


def test_dpo_takes_the_same_steps_as_trl(tiny_llama, tokenizer, pairs, tmp_path):
    peer = make_trl("dpo", copy.deepcopy(tiny_llama), pairs, tokenizer, tmp_path / "peer")
    theirs = run_trl(peer)
    plan = in_sequence(encode_pairs(pairs, tokenizer, **LIMITS).examples)
    ours = fit(tiny_llama, reference.attach(plan, tiny_llama, cache=None), dpo_objective, tmp_path / "ours", beta=BETA)
    assert_same_course(ours, theirs)
    assert_same_weights(tiny_llama, peer.model)
    assert [r["margin"] for r in ours] == pytest.approx([r["rewards/margins"] for r in theirs], abs=1e-5)


def test_kto_with_trls_rotation_takes_the_same_steps_as_trl(tiny_llama, tokenizer, answers, tmp_path):
    peer = make_trl("kto", copy.deepcopy(tiny_llama), answers, tokenizer, tmp_path / "peer", **WEIGHTS)
    theirs = run_trl(peer)
    plan = rotate(in_sequence(encode_unary(answers, tokenizer, **LIMITS).examples))
    attached, numbers = reference.attach(plan, tiny_llama, cache=None), {"beta": BETA, **WEIGHTS}
    ours = fit(tiny_llama, attached, kto_objective, tmp_path / "ours", **numbers)
    assert_same_course(ours, theirs)
    assert_same_weights(tiny_llama, peer.model)
    assert [max(0, r["mismatch_logratio"]) for r in ours] == pytest.approx([r["kl"] for r in theirs], abs=1e-5)
    assert max(r["kl"] for r in theirs) > 0  # else the mismatches were never tested


def test_ids_and_masks_are_those_of_trl_once_padding_is_gone(tiny_llama, tokenizer, pairs, answers, tmp_path):
    peer = make_trl("dpo", copy.deepcopy(tiny_llama), pairs, tokenizer, tmp_path / "dpo")
    examples = encode_pairs(pairs, tokenizer, **LIMITS).examples
    theirs = unpad(peer.data_collator(list(peer.train_dataset)))  # chosen rows, then rejected rows
    assert theirs == as_sequences(examples, 0) + as_sequences(examples, 1)

    peer = make_trl("kto", copy.deepcopy(tiny_llama), answers, tokenizer, tmp_path / "kto")
    plan = rotate(in_sequence(encode_unary(answers, tokenizer, **LIMITS).examples))
    theirs = peer.data_collator(list(peer.train_dataset))
    assert unpad(theirs) == as_sequences(plan.examples, 0)
    assert unpad(theirs, "KL_") == as_sequences([e for step in plan.mismatches for e in step], 0)


@pytest.mark.parametrize("score", [branch_logps, plain_logps])
def test_summed_logps_are_those_of_trl(score, tiny_llama, tokenizer, pairs, tmp_path):
    peer = make_trl("dpo", copy.deepcopy(tiny_llama), pairs, tokenizer, tmp_path)
    theirs = torch.stack(peer.compute_ref_log_probs(peer.model, peer.data_collator(list(peer.train_dataset))), dim=1)
    examples = encode_pairs(pairs, tokenizer, **LIMITS).examples
    with torch.no_grad():
        ours = score(tiny_llama, collate(examples, pad_id=0))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_precomputed_reference_gives_the_losses_of_a_live_one(tiny_llama, tokenizer, pairs, tmp_path):
    frozen, plan = copy.deepcopy(tiny_llama), in_sequence(encode_pairs(pairs, tokenizer, **LIMITS).examples)

    def live(logps, ref_logps, batch, state, *, frozen, beta):
        with torch.no_grad():
            ref_logps = branch_logps(frozen, batch)
        return dpo.loss(logps, ref_logps, beta=beta)

    theirs = run_trl(make_trl(
        "dpo", copy.deepcopy(tiny_llama), pairs, tokenizer, tmp_path / "peer", precompute_ref_log_probs=True
    ))
    policy = copy.deepcopy(tiny_llama)
    assert_same_course(fit(policy, plan, live, tmp_path / "live", frozen=frozen, beta=BETA), theirs)
    attached = reference.attach(plan, tiny_llama, cache=tmp_path / "cache")
    attached = reference.attach(plan, tiny_llama, cache=tmp_path / "cache")  # now read from the file
    assert_same_course(fit(tiny_llama, attached, dpo_objective, tmp_path / "ours", beta=BETA), theirs)
    assert_same_weights(tiny_llama, policy)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_no_answer_is_its_own_mismatch_whatever_the_batch_size(size, tiny_llama, tokenizer, answers, tmp_path):
    answers = answers[:17]  # a last batch of one where the size is 2, 4 or 8
    examples = encode_unary(answers, tokenizer, **LIMITS).examples
    plan = add_mismatches(make_plan(examples, batch_size=size, epochs=2, seed=0, pad_id=0))
    assert [len(step) for step in plan.mismatches] == [len(batch) for batch in plan.batches]
    for batch, step in zip(plan.batches, plan.mismatches, strict=True):
        for i, other in zip(batch, step, strict=True):
            assert other.prompt == examples[i].prompt and other.completions != examples[i].completions
    if size == 4:  # where TRL pairs the last one with itself
        last = make_trl("kto", tiny_llama, answers, tokenizer, tmp_path).train_dataset[-1]
        assert last["KL_completion_ids"] == last["completion_ids"]


def test_kto_trains_at_a_batch_of_one_which_trl_refuses(tiny_llama, tokenizer, answers, tmp_path):
    with pytest.raises(ValueError, match="batch size"):
        make_trl("kto", copy.deepcopy(tiny_llama), answers, tokenizer, tmp_path / "peer", per_device_train_batch_size=1)
    examples = encode_unary(answers[:6], tokenizer, **LIMITS).examples
    plan = add_mismatches(make_plan(examples, batch_size=1, epochs=1, seed=0, pad_id=0))
    before = copy.deepcopy(tiny_llama)
    attached, numbers = reference.attach(plan, tiny_llama, cache=None), {"beta": BETA, **WEIGHTS}
    history = fit(tiny_llama, attached, kto_objective, tmp_path / "ours", **numbers)
    assert len(history) == 6 and max(abs(row["mismatch_logratio"]) for row in history) > 1e-4
    assert any((a != b).any() for a, b in zip(tiny_llama.parameters(), before.parameters(), strict=True))
