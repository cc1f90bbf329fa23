"""A row's weight in training: its loss counts so many times, in every objective."""

from functools import partial

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prefcore.data.types import Pair, Unary
from prefcore.engine import collate, reference, train
from prefcore.engine.collate import Plan
from prefcore.methods import bco, dpo, kto, odpo, ulma
from prefcore.methods.osp import loss as osp


def prefer(logps, ref_logps, batch, state):
    return dpo.loss(logps, ref_logps, beta=0.5)


def prefer_by(logps, ref_logps, batch, state):
    return odpo.loss(logps, ref_logps, batch["margin"], beta=0.5)


def prefer_softly(logps, ref_logps, batch, state):
    return osp.loss(logps, ref_logps, batch["strength"], beta=0.5)


def thumbs(logps, ref_logps, batch, state):
    how = {"beta": 0.5, "desirable_weight": 1.0, "undesirable_weight": 2.0}
    return kto.loss(logps, ref_logps, batch["label"], torch.tensor(0.3), **how)


def class_means(logps, ref_logps, batch, state):
    return bco.loss(logps, ref_logps, batch["label"], torch.tensor(0.1), torch.ones(len(logps)), beta=0.5)


def imitate(logps, ref_logps, batch, state):
    return ulma.loss(logps, ref_logps, batch["label"], beta=0.5)


OBJECTIVES = [prefer, prefer_by, prefer_softly, thumbs, class_means, imitate]


def step(objective, rows):
    """(sum of the losses that training minimises, gradient of that sum) of one batch of rows of a toy policy."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    policy = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    plan = reference.attach(Plan(rows, [list(range(len(rows)))], pad_id=0), policy, cache=None)
    module = train.Objective(policy, partial(objective), {}, train.choose_path(policy, collate.longest(rows)))
    total = module(**train.Batches(plan)[0])["loss"] * len(rows)
    total.backward()
    return total.detach(), torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


@pytest.fixture
def rows(draw):
    """rows(objective): four examples with what it reads, the first two of one class."""

    def rows(objective):
        found = draw(4, 2 if objective in OBJECTIVES[:3] else 1, prompt=(2, 9), completion=(1, 7))
        for name, values in (("label", (1, 1, 0, 0)), ("margin", (1, 2, 3, 4)), ("strength", (0.6, 0.7, 0.8, 0.9))):
            found = collate.with_column(found, name, values)
        return found

    return rows


@pytest.mark.parametrize("objective", OBJECTIVES[:4])
def test_a_weight_of_2_is_the_row_twice_and_a_weight_of_0_is_no_row(rows, objective):
    a, b, c, d = rows(objective)
    weighted = step(objective, collate.with_column([a, b, c, d], "row_weight", [2, 1, 1, 0]))
    for got, wanted in zip(weighted, step(objective, [a, a, b, c]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(weighted[1], step(objective, [a, b, c])[1], atol=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES[4:])
def test_a_class_mean_is_over_rows_each_times_its_weight(rows, objective):
    a, b, c, d = rows(objective)
    got = step(objective, collate.with_column([a, b, c, d], "row_weight", [2, 1, 1, 1]))
    doubled, once = step(objective, [a, a, c, d]), step(objective, [a, b, c, d])
    alone, without = step(objective, [c, d]), step(objective, [b, b, c, d])
    for k in range(2):  # mean of (2a, b) and of (c, d) as sums over four rows; class means of (a, a) and (b, b)
        others = 2 * alone[k]
        first, second = doubled[k] - others, without[k] - others
        torch.testing.assert_close(got[k], first + second / 2 + others, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got[1], once[1], atol=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_weights_of_1_change_no_bit(rows, objective):
    plain = rows(objective)
    one, other = step(objective, plain), step(objective, collate.with_column(plain, "row_weight", [1] * 4))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_a_weight_becomes_a_column_of_its_own_beside_bcos(tokenizer):
    limits = {"max_prompt": 9, "max_completion": 9}
    pair = Pair("1", "Q", "yes", "no", weight=2)
    (example,) = collate.encode_pairs([pair], tokenizer, **limits).examples
    assert example.columns == {"row_weight": 2.0}
    (example,) = collate.encode_unary([Unary("1", "Q", "yes", True, weight=0.5)], tokenizer, **limits).examples
    assert example.columns == {"label": 1.0, "row_weight": 0.5}
    (example,) = collate.encode_pairs([pair._replace(weight=None)], tokenizer, **limits).examples
    assert example.columns == {}
