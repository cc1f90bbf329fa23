"""Examples that share a row of a batch: no two overlap, little is padded, and nobody's numbers change."""

import math

import numpy as np
import pytest
import torch

from prefcore.data.types import Example
from prefcore.engine.collate import collate, make_plan, place, size
from prefcore.engine.logps import branch_logps, run_trunk
from prefcore.engine.packing import extent, pad_trunk, share_rows


def answers(n, *, label=True, seed=0):
    """n answers of unequal lengths, every third with a thumbs-up, or without any label."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers((2, 1), (30, 9), size=(n, 2))
    ids = [[tuple(rng.integers(4, 97, size=k).tolist()) for k in pair] for pair in lengths]
    return [Example(f"e{i}", prompt, (answer,), {"label": float(i % 3 == 0)} if label else {})
            for i, (prompt, answer) in enumerate(ids)]  # fmt: skip


def sizes_of(kind, n):
    rng = np.random.default_rng(n)
    return {"equal": [7] * n, "one long": [1] * (n - 1) + [50], "mixed": rng.integers(1, 90, size=n).tolist()}[kind]


@pytest.mark.parametrize("n", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("kind", ["equal", "one long", "mixed"])
def test_no_two_examples_share_a_column_and_every_row_is_used(kind, n):
    sizes = sizes_of(kind, n)
    places, taken = share_rows(sizes), set()
    for length, (row, start) in zip(sizes, places, strict=True):
        columns = {(row, column) for column in range(start, start + length)}
        assert not columns & taken
        taken |= columns
    rows, columns = extent(sizes, places)
    assert {row for row, _ in taken} == set(range(rows)) and max(column for _, column in taken) == columns - 1


@pytest.mark.parametrize("n", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("kind", ["equal", "one long", "mixed"])
def test_shared_rows_are_never_dearer_than_own_ones_and_never_very_long(kind, n):
    sizes = sizes_of(kind, n)
    rows, columns = extent(sizes, share_rows(sizes))
    assert rows * columns <= n * max(sizes) and columns <= 3 * max(sizes)


def test_mixed_lengths_cost_no_more_padding_than_sorted_ones():
    """Tokens computed over tokens read, in batches of 8: thumbs in shared rows, others sorted by length."""
    computed = {}
    for label in (True, False):
        plan = make_plan(answers(400, label=label), batch_size=8, epochs=1, seed=0, pad_id=0)
        batches = [[plan.examples[i] for i in batch] for batch in plan.batches]
        computed[label] = sum(math.prod(extent(list(map(size, b)), place(b))) for b in batches)
    read = sum(map(size, answers(400)))
    assert computed[True] < 1.08 * read and computed[True] < 1.04 * computed[False]


def test_only_thumbs_share_rows():
    assert extent(list(map(size, answers(40))), place(answers(40)))[0] < 30
    assert place(answers(40, label=False)) == [(b, 0) for b in range(40)]
    pairs = [e._replace(completions=(e.completions[0], (5, 6))) for e in answers(40)]
    assert place(pairs) == [(b, 0) for b in range(40)]


def test_an_answer_in_a_shared_row_has_the_log_probability_and_the_gradient_of_one_alone(tiny_llama):
    rows, found = answers(12), []
    places = place(rows)
    assert extent(list(map(size, rows)), places)[0] < 10
    for how in ({}, {"places": places}):
        tiny_llama.zero_grad()
        logps = branch_logps(tiny_llama, collate(rows, pad_id=0, **how))
        (logps[:, 0] * torch.linspace(-1, 1, 12)).sum().backward()
        found.append((logps.detach(), [p.grad.clone() for p in tiny_llama.parameters()]))
    torch.testing.assert_close(*(logps for logps, _ in found), rtol=1e-5, atol=1e-5)
    for one, other in zip(*(slopes for _, slopes in found), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_frozen_layers_output_lies_where_its_example_does(tiny_llama):
    rows = answers(12)
    places = place(rows)
    with torch.no_grad():
        alone = [run_trunk(tiny_llama, collate([row], pad_id=0), 1)[0] for row in rows]
        batch = collate(rows, pad_id=0, places=places) | {"trunk": pad_trunk(alone, places), "depth": 1}
        torch.testing.assert_close(branch_logps(tiny_llama, batch), branch_logps(tiny_llama, collate(rows, pad_id=0)))


def test_kept_states_are_padded_with_zeros():
    padded = pad_trunk([torch.ones(2, 3), torch.ones(1, 3)], [(0, 0), (1, 0)])
    assert padded.shape == (2, 2, 3) and padded[1, 1].tolist() == [0, 0, 0]
    shared = pad_trunk([torch.ones(3, 1), torch.full((1, 1), 2.0), torch.full((2, 1), 3.0)], [(0, 0), (1, 2), (1, 0)])
    assert shared.flatten(1).tolist() == [[1, 1, 1], [3, 3, 2]]
