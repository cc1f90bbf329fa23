"""Heads and router as they start: apart and even, the same for the same seed, and blind to what they may not read."""

import pytest
import torch

from prefcore.methods.micro import mixture
from prefcore.methods.micro.mixture import Recipe


def recipe(heads=3, **parts):
    return Recipe(None, heads, **parts)


def test_making_a_mixture_leaves_the_global_stream_alone(rows):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    mixture.make(rows, recipe(), 0)
    assert torch.equal(torch.rand(2), expected)


def test_heads_start_apart_and_the_router_starts_even(rows):
    for router in (mixture.linear_router, mixture.mlp_router, mixture.constant_router):
        model = mixture.make(rows, recipe(4, router=router), 0)
        logits, margins = mixture.outputs(model, rows)
        assert torch.equal(logits, torch.zeros(60, 4))
        assert margins.std(1).min() > 0.01


def test_swapping_the_texts_turns_the_sign_of_every_head(rows):
    model = mixture.make(rows, recipe(), 0)
    swapped = rows._replace(difference=-rows.difference)
    torch.testing.assert_close(mixture.outputs(model, swapped)[1], -mixture.outputs(model, rows)[1])


def test_the_router_reads_the_column_that_the_mixture_names(rows):
    model = mixture.make(rows, recipe(2, reads="seen"), 0)
    with torch.no_grad():
        model.router.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert torch.equal(mixture.outputs(model, rows)[0], model.router(rows.seen).detach())
    assert torch.equal(mixture.outputs(model, rows, "unseen")[0], model.router(rows.unseen).detach())


def test_more_rows_of_an_attribute_hold_the_fewer_and_each_attribute_has_as_many(rows):
    small, large = (mixture.take(rows, size, 5) for size in (3, 10))
    assert small.attribute.bincount().tolist() == [3, 3, 3] and large.attribute.bincount().tolist() == [10, 10, 10]
    kept = {tuple(x.tolist()) for x in large.difference}
    assert {tuple(x.tolist()) for x in small.difference} <= kept


def test_too_many_rows_of_an_attribute_and_too_many_heads_raise(rows):
    with pytest.raises(ValueError, match="attribute 0 has 20 rows; 21 of each are asked for"):
        mixture.take(rows, 21, 0)
    for heads in (0, 61):
        with pytest.raises(ValueError, match=f"heads is {heads}; with 60 rows it must be from 1 to 60"):
            mixture.make(rows, recipe(heads), 0)


def test_fixed_weights_are_those_of_the_rows_own_attribute_on_the_same_heads(rows):
    model, weights = mixture.make(rows, recipe(2), 0), torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    fixed = mixture.with_weights(model, weights.log())
    logits, margins = mixture.outputs(fixed, rows)
    torch.testing.assert_close(logits.softmax(1), weights[rows.attribute])
    assert torch.equal(margins, mixture.outputs(model, rows)[1])
