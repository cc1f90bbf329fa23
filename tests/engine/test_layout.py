"""One flat row: every distinct prompt and answer is in it once, and comes back out of it in whatever company."""

import zlib
from itertools import combinations

import pytest
import torch

from prefcore.data.types import Example
from prefcore.engine.collate import collate
from prefcore.engine.layout import count_tokens, distinct, fold, join, lay_out, part, pieces, read_length, spans, unfold
from prefcore.engine.logps import branch_logps, run_trunk

RAGGED = [[1, 4], [5, 2, 3], [2, 0, 3], [0, 4], [0, 1, 0, 1], [7, 1, 1, 1, 1, 7]]
EQUAL = [[], [3], [3, 3, 3], [0, 0]]
PROMPT, ANSWERS = (5, 6, 7, 8, 9), ((10, 11, 2), (12, 13, 14, 2), (15, 2), (16,))


def six_pairs(prompt=PROMPT, answers=ANSWERS, name="pair"):
    """All pairs of a prompt's four answers."""
    return [Example(f"{name}{i}", prompt, pair) for i, pair in enumerate(combinations(answers, 2))]


# --- what is in the row -----------------------------------------------------------------------------------------


def test_six_pairs_of_four_answers_are_read_as_four_answers():
    pairs = six_pairs()
    assert count_tokens(pairs) == len(PROMPT) + sum(len(answer) - 1 for answer in ANSWERS) == 11
    assert count_tokens([Example("all", PROMPT, ANSWERS)]) == collate(pairs, pad_id=0)["input_ids"].shape[1] == 11
    assert sum(count_tokens([pair]) for pair in pairs) == 6 * 5 + 3 * 6
    assert count_tokens(pairs + six_pairs(prompt=(5,))) == 11 + 1 + 6  # an answer to another prompt is another one


def test_an_answer_that_is_in_several_pairs_has_one_number_in_each():
    batch = collate(six_pairs(), pad_id=0)
    assert batch["answer"].tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert batch["targets"].tolist() == [token for answer in ANSWERS for token in answer]
    assert len(batch["rows"]) == 1 + 6  # the prompt's last token predicts the first one of all four


def test_equal_tokens_that_show_different_pictures_are_not_the_same_prompt():
    pairs = six_pairs()
    some = [pair._replace(shown=f"picture {i % 2}") for i, pair in enumerate(pairs)]
    assert [shown for _, shown in distinct(some)] == ["picture 0", "picture 1"]
    assert count_tokens(some) > count_tokens(pairs) == count_tokens([pair._replace(shown="one") for pair in pairs])
    answer = collate(some, pad_id=0)["answer"]
    assert not set(answer[::2].flatten().tolist()) & set(answer[1::2].flatten().tolist())


@pytest.mark.parametrize("answers", [ANSWERS, ((9,), (10,)), ((9,) * 3, (8,) * 3)], ids=["ragged", "no token", "equal"])
def test_every_token_lies_after_what_it_follows(answers):
    """A slow walk along the row: position, what the layout calls it, and which tokens it predicts."""
    prompts = {"a": (PROMPT, answers), "b": ((5, 6), answers[:1] * len(answers)), "c": (PROMPT, answers)}
    some = [Example(id, *rest) for id, rest in prompts.items()]
    batch, found, at = collate(some, pad_id=0), distinct(some), 0
    for piece in pieces(found):
        prompt, length = piece[0][0], read_length(piece)
        tokens, first = (prompt, 0) if len(piece) == 1 else (piece[1][:-1], len(prompt))
        assert batch["input_ids"][0, at : at + length].tolist() == list(tokens)
        assert batch["position_ids"][0, at : at + length].tolist() == list(range(first, first + length))
        at += length
    assert at == batch["input_ids"].shape[1] == batch["position_ids"].shape[1]
    for number, ((prompt, _), answer) in enumerate(piece for piece in pieces(found) if len(piece) == 2):
        mine, before = (batch["branch"] == number).nonzero().flatten(), len(prompt) - 1
        assert batch["targets"][mine].tolist() == list(answer)
        places = batch["rows"][batch["at"][mine]]
        assert batch["position_ids"][0, places].tolist() == list(range(before, before + len(answer)))
        assert batch["input_ids"][0, places].tolist() == [prompt[-1], *answer[:-1]]


def test_a_layout_counts_prompts_answers_and_branches():
    some = [Example("a", (1, 2, 3), ((4, 5, 6), (7,))), Example("b", (1,), ((8,), (9,)))]
    some += [Example("c", (2,), ((4, 5), (3, 3)))]
    size, prompts, answers, branches, owner = lay_out(distinct(some))
    assert size == 5 and (prompts.count, prompts.width) == (3, 3) and (answers.count, answers.width) == (3, 2)
    assert (branches.count, branches.width) == (3, 2) and owner.tolist() == [0, 2, 2]  # of one token only: no branch
    assert answers.ended.tolist() == [[False, False], [True, True], [False, False]]


# --- rectangles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", RAGGED + EQUAL, ids=str)
def test_a_rectangle_holds_each_stretch_and_gives_it_back(lengths):
    where, x = spans(lengths), torch.randn(sum(lengths), 2, 3)
    assert (where.count, where.width) == (len(lengths), max(lengths, default=0))
    assert (where.index is None) == (lengths in EQUAL)
    folded = fold(x, where)
    assert folded.shape == (len(lengths), where.width, 2, 3)
    for row, stretch in zip(folded, x.split(lengths), strict=True):
        assert torch.equal(row[: len(stretch)], stretch)
        assert all(torch.equal(cell, stretch[-1]) for cell in row[len(stretch) :] if len(stretch))  # nobody else's row
    if where.ended is not None:
        assert where.ended.tolist() == [[cell >= length for cell in range(where.width)] for length in lengths]
    assert torch.equal(unfold(folded, where), x)


# --- kept states ------------------------------------------------------------------------------------------------


def numbered(examples):
    """A flat row in which each piece's states are its own, whatever the company."""
    rows = []
    for piece in pieces(distinct(examples)):
        generator = torch.Generator().manual_seed(zlib.crc32(repr(piece).encode()))
        rows.append(torch.randn(read_length(piece), 3, generator=generator))
    return torch.cat(rows)[None]


def company():
    other = Example("other", (5, 6), (ANSWERS[0], ANSWERS[3]))
    return [*six_pairs(), other, other._replace(shown="a picture"), *six_pairs(prompt=(9, 9, 9))]


def test_what_part_gives_join_takes_in_any_company():
    examples = company()
    kept = part(numbered(examples), examples)
    for chosen in (range(len(examples)), range(len(examples))[::-1], [3], [0, 5, 6], [7, 2, 2, 13], [12, 0, 6, 7]):
        some = [examples[i] for i in chosen]
        assert torch.equal(join(some, [kept[i] for i in chosen]), numbered(some))


def test_examples_share_the_storage_of_what_they_share():
    examples = company()
    kept = part(numbered(examples), examples)
    places = {}
    for example, states in zip(examples, kept, strict=True):
        key = example.prompt, example.shown
        names = [(key,), *((key, completion) for completion in example.completions)]
        for name, state in zip(names, states, strict=True):
            assert len(state) == read_length(name)
            places.setdefault(name, set()).add(state.data_ptr())
    assert all(len(found) == 1 for name, found in places.items() if read_length(name))
    storages = {state.untyped_storage().data_ptr() for states in kept for state in states}
    assert len(storages) == 1 and next(iter(kept[0])).untyped_storage().nbytes() == count_tokens(examples) * 3 * 4


def test_kept_states_give_the_whole_models_numbers_in_any_company(draw, tiny_llama):
    """What the first layer says of an example in one batch stands for it in every other batch."""
    examples = [*six_pairs(), *draw(5, 2), *six_pairs(prompt=(9, 9, 9))]
    with torch.no_grad():
        kept = part(run_trunk(tiny_llama, collate(examples, pad_id=0), 1), examples)
        for chosen in (range(len(examples)), [3], [0, 5, 6], [12, 8, 2]):
            batch = collate([examples[i] for i in chosen], pad_id=0)
            states = join([examples[i] for i in chosen], [kept[i] for i in chosen])
            found = branch_logps(tiny_llama, batch | {"trunk": states, "depth": 1})
            torch.testing.assert_close(found, branch_logps(tiny_llama, batch), rtol=0, atol=2e-5)


# --- read once, worth as much -----------------------------------------------------------------------------------


def test_pairs_of_one_prompt_have_the_log_probabilities_and_gradients_that_they_have_apart(draw, tiny_llama):
    """Each pair in a batch of its own is the slow twin; an answer's gradients from several pairs add up."""
    examples = [*six_pairs(), *draw(2, 2), *six_pairs(prompt=(20,))]
    weights = torch.linspace(-1, 1, 2 * len(examples)).view(-1, 2)
    found = []
    for batches in ([examples], [[example] for example in examples]):
        tiny_llama.zero_grad()
        logps = torch.cat([branch_logps(tiny_llama, collate(batch, pad_id=0)) for batch in batches])
        (logps * weights).sum().backward()
        found.append((logps.detach(), [parameter.grad.clone() for parameter in tiny_llama.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
