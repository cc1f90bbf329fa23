"""Attention to a prompt that several rows continue: the numbers of rows that have their prompts to themselves."""

from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from prefcore.engine import shared_prompts
from prefcore.engine.decoding import attend as attend_apart
from prefcore.engine.shared_prompts import Rows

OWNER = torch.tensor([0, 0, 1, 2, 2, 2, 1])
SHORT = 4  # of nine tokens the second prompt has these last ones


def write(dtype, heads=6, shared=2, steps=3):
    """What one layer gives in each step, and the same of rows with whole keys and values to themselves, in float32."""
    draw = torch.Generator().manual_seed(0)
    cache, seen = DynamicCache(), torch.ones(3, 9, dtype=torch.long)
    seen[1, :-SHORT] = 0
    keys, values = (torch.randn(3, shared, 9, 8, generator=draw).to(dtype) for _ in range(2))
    cache.update(keys, values, 0)
    rows, going = Rows(cache, seen, OWNER, steps), torch.arange(len(OWNER))
    whole = [keys[OWNER], values[OWNER]]
    for step in range(steps):
        query = torch.randn(len(OWNER), heads, 1, 8, generator=draw).to(dtype)[going]
        new = [torch.randn(len(OWNER), shared, 1, 8, generator=draw).to(dtype)[going] for _ in range(2)]
        whole = [torch.cat([old, one], 2) for old, one in zip(whole, new, strict=True)]
        rows.layers[0].update(*new)
        shared_prompts._current.append(rows)
        found, _ = shared_prompts.attend(SimpleNamespace(layer_idx=0), query, *new, None)
        shared_prompts._current.pop()
        there = torch.cat([seen[OWNER][going], torch.ones(len(going), step + 1, dtype=torch.long)], 1).bool()
        exact, _ = attend_apart(None, query.float(), *(x.float() for x in whole), there[:, None, None])
        apart, _ = attend_apart(None, query, *whole, there[:, None, None])
        yield found, exact, apart
        left = torch.arange(len(going))[1:] if step else torch.tensor([1, 3, 5])
        rows.keep(left)
        going, whole = going[left], [x[left] for x in whole]


@pytest.mark.parametrize(("heads", "shared"), [(6, 2), (4, 4), (4, 1)])
def test_attention_is_that_of_rows_with_their_prompts_to_themselves(heads, shared):
    """Also after rows have left, and with them the second prompt's padding or a whole prompt."""
    for found, exact, _ in write(torch.float32, heads, shared):
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)


def test_in_bfloat16_it_is_as_exact_as_attention_of_whole_rows():
    steps = write(torch.bfloat16)
    errors = [[(x.float() - exact).abs().mean() for x in (found, apart)] for found, exact, apart in steps]
    ours, theirs = torch.tensor(errors).mean(0)
    assert ours < 1.2 * theirs < 0.01


def test_attention_that_is_more_than_a_softmax_of_products_is_refused():
    with pytest.raises(ValueError, match="softcap"):
        shared_prompts.attend(None, None, None, None, None, softcap=30.0)
