"""Conversions between kinds of data keep texts, scores and ends; variants are a function of the seed."""

import math

import pytest

from prefcore.data import views
from prefcore.data.types import Pair, Ranked, Scored, Unary

CHAT = [{"role": "user", "content": "Q"}]


def row(*scores, id="r", prompt="Q", domain="", finished=None):
    texts = tuple(f"t{i}" for i in range(len(scores)))
    return Ranked(id, prompt, texts, scores, finished or (True,) * len(scores), domain)


def pair(i, prompt=None):
    return Pair(f"p{i}", prompt or f"Q{i}", f"good{i}", f"bad{i}", 2.0, 1.0, 0.5, 0.75, (1, 0), (True, False))


def thumbs(ups, downs):
    labels = [True] * ups + [False] * downs
    return [Unary(f"u{i}", f"Q{i}", "a", label) for i, label in enumerate(labels)]


# Ranked rows.


def test_best_worst_takes_the_ends_with_their_scores_and_ends():
    (found,) = views.best_worst([row(0.1, 0.9, -0.5, 0.3, finished=(True, False, True, True))])
    assert found == Pair("r/1-2", "Q", "t1", "t2", 0.9, -0.5, finished=(False, True))


def test_best_worst_drops_ties():
    ranked = [row(1.0, 1.0), row(1.0, 2.0), row(3.0)]
    assert [found.id for found in views.best_worst(ranked)] == ["r/1-0"]


def test_drawn_pairs_are_two_random_answers_of_each_prompt_with_the_better_one_chosen():
    """Any two of four answers come, the near ones too; another seed draws other prompts and other answers."""
    ranked = [row(3.0, 2.0, 1.9, 1.0, id=f"r{i}", prompt=f"Q{i}") for i in range(600)]
    pairs = views.draw_pairs(ranked, 500, seed=0)
    assert len({pair.prompt for pair in pairs}) == 500
    assert all(pair.chosen_score > pair.rejected_score for pair in pairs)
    places = [pair.id.partition("/")[2] for pair in pairs]
    assert sorted(set(places)) == ["0-1", "0-2", "0-3", "1-2", "1-3", "2-3"]
    assert all(55 < places.count(place) < 112 for place in set(places))  # of 83, three standard deviations
    assert views.draw_pairs(ranked, 500, seed=0) == pairs
    assert len(set(views.draw_pairs(ranked, 500, seed=1)) & set(pairs)) < 150


def test_drawn_pairs_pass_over_ties_and_say_when_there_are_too_few():
    ranked = [row(1.0, 1.0, id="tie"), row(1.0), *(row(1.0, 2.0, id=f"r{i}", prompt=f"Q{i}") for i in range(3))]
    assert sorted(found.id for found in views.draw_pairs(ranked, 3, seed=0)) == ["r0/1-0", "r1/1-0", "r2/1-0"]
    with pytest.raises(ValueError, match="asked for 4 pairs, and 5 records make 3"):
        views.draw_pairs(ranked, 4, seed=0)
    assert sorted(views.draw_pairs([pair(0), pair(1)], 2, seed=0)) == [pair(0), pair(1)]


def test_unary_is_up_above_the_threshold_only():
    records = views.unary([row(0.0, 0.5, 1.0, finished=(True, True, False))], 0.5)
    assert [record.label for record in records] == [False, False, True]
    assert records[2] == Unary("r/2", "Q", "t2", True, False)


def test_scored_keeps_every_completion():
    assert views.scored([row(0.0, 0.5)]) == [Scored("r/0", "Q", "t0", 0.0), Scored("r/1", "Q", "t1", 0.5)]


def test_median_threshold_halves_the_labels():
    ranked = [row(4.0, 1.0), row(3.0, 2.0)]
    assert views.median_threshold(ranked) == 2.5
    assert sum(record.label for record in views.unary(ranked, 2.5)) == 2


def test_median_threshold_leaves_both_labels_where_the_median_is_the_maximum():
    ranked = [row(1.0, 1.0, 1.0, 0.0, 0.5)]
    assert views.median_threshold(ranked) == 0.5
    with pytest.raises(ValueError, match="without two different ones"):
        views.median_threshold([row(1.0, 1.0)])


@pytest.mark.parametrize("view", [views.best_worst, views.scored, views.median_threshold])
def test_ranked_rows_that_are_not_whole_are_refused_with_their_id(view):
    with pytest.raises(ValueError, match=r"row odd has the scores \(1.0, nan\)"):
        view([row(0.0, 1.0), row(1.0, math.nan, id="odd")])
    with pytest.raises(ValueError, match=r"row odd has \(1, 2, 2\) completions"):
        view([row(0.0, 1.0), row(1.0, 0.0, id="odd")._replace(completions=("a",))])


# Between kinds.


def test_a_pair_is_one_thumb_each_way():
    assert views.pairs_to_unary([pair(0)]) == [
        Unary("p0/chosen", "Q0", "good0", True, True), Unary("p0/rejected", "Q0", "bad0", False, False),
    ]  # fmt: skip


def test_scored_pairs_are_two_scored_rows_and_others_are_refused():
    assert views.pairs_to_scored([pair(0)]) == [
        Scored("p0/chosen", "Q0", "good0", 2.0, True), Scored("p0/rejected", "Q0", "bad0", 1.0, False),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="pair p1 has no scores: add the columns chosen_score and rejected_score"):
        views.pairs_to_scored([pair(0), pair(1)._replace(chosen_score=None)])


def test_scored_rows_of_one_prompt_form_one_ranked_row_wherever_they_stand():
    other_order = [dict(reversed(CHAT[0].items()))]
    records = [
        Scored("a", CHAT, "x", 1.0), Scored("b", "Q", "y", 2.0), Scored("c", other_order, "z", 3.0, False),
    ]  # fmt: skip
    first, second = views.scored_to_ranked(records)
    assert first == Ranked("a", CHAT, ("x", "z"), (1.0, 3.0), (True, False))
    assert second == Ranked("b", "Q", ("y",), (2.0,), (True,))
    assert views.scored_to_pairs(records) == [Pair("a/1-0", CHAT, "z", "x", 3.0, 1.0, finished=(False, True))]


def test_ranked_to_scored_and_back_is_the_same_but_for_ids():
    ranked = [row(1.0, 3.0, prompt="Q"), row(2.0, prompt=CHAT, finished=(False,))]
    back = views.scored_to_ranked(views.scored(ranked))
    assert [found._replace(id="r") for found in back] == ranked


def test_prompt_key_parts_text_from_chat_and_one_chat_from_another():
    prompts = ["Q", "q", CHAT, [*CHAT, *CHAT], [{"role": "system", "content": "Q"}], str(CHAT)]
    assert len({views.prompt_key(prompt) for prompt in prompts}) == len(prompts)
    assert views.prompt_key(tuple(CHAT)) == views.prompt_key(CHAT)


# Whatever was read.


def test_scored_data_serve_all():
    records = [Scored("a", "Q", "x", 1.0), Scored("b", "Q", "y", 2.0)]
    assert views.as_pairs(records) == [Pair("a/1-0", "Q", "y", "x", 2.0, 1.0)]
    assert views.as_unary(records) == [Unary("a", "Q", "x", False), Unary("b", "Q", "y", True)]
    assert views.as_scored(records) == records


def test_paired_data_serve_unary_methods_and_with_scores_scored_ones():
    pairs = [pair(0), pair(1)]
    assert views.as_pairs(pairs) == pairs
    assert views.as_unary(pairs) == views.pairs_to_unary(pairs)
    assert views.as_scored(pairs) == views.pairs_to_scored(pairs)


def test_ranked_data_serve_all():
    ranked = [row(1.0, 2.0, 4.0)]
    assert views.as_pairs(ranked) == views.best_worst(ranked)
    assert views.as_unary(ranked) == views.unary(ranked, 2.0)
    assert views.as_scored(ranked) == views.scored(ranked)


def test_unary_data_serve_unary_methods_alone():
    records = thumbs(1, 1)
    assert views.as_unary(records) == records
    with pytest.raises(ValueError, match="needs pairs.* columns prompt, chosen and rejected"):
        views.as_pairs(records)
    with pytest.raises(ValueError, match="needs scores.* columns prompt, completion and score"):
        views.as_scored(records)


def test_pairs_if_any_is_empty_where_there_are_no_pairs_and_as_pairs_elsewhere():
    alone = [Scored("a", "Q1", "x", 1.0), Scored("b", "Q2", "y", 2.0)]
    assert views.pairs_if_any(thumbs(2, 2)) == views.pairs_if_any(alone) == []
    for records in ([pair(0)], [row(3.0, 1.0)], [Scored("a", "Q", "x", 1.0), Scored("b", "Q", "y", 2.0)]):
        assert views.pairs_if_any(records) == views.as_pairs(records) != []


def test_as_pairs_says_when_no_prompt_has_two_scores():
    with pytest.raises(ValueError, match="none of 2 rows shares its prompt with one of another score"):
        views.as_pairs([Scored("a", "Q", "x", 1.0), Scored("b", "R", "y", 2.0)])


@pytest.mark.parametrize("convert", [views.as_pairs, views.as_unary, views.as_scored])
def test_mixed_kinds_and_no_records_are_refused(convert):
    with pytest.raises(ValueError, match="found Pair, Unary"):
        convert([pair(0), *thumbs(1, 0)])
    with pytest.raises(ValueError, match="found none"):
        convert([])


# Variants.


def test_flip_labels_swaps_the_texts_of_exactly_the_fraction():
    pairs = [pair(i) for i in range(10)]
    flipped = views.flip_labels(pairs, 0.3, seed=1)
    changed = [(old, new) for old, new in zip(pairs, flipped, strict=True) if old != new]
    assert len(changed) == 3
    for old, new in changed:
        assert new == old._replace(chosen=old.rejected, rejected=old.chosen, finished=(False, True))


def test_flip_labels_is_a_function_of_the_seed():
    pairs = [pair(i) for i in range(20)]
    assert views.flip_labels(pairs, 0.5, seed=1) == views.flip_labels(pairs, 0.5, seed=1)
    assert views.flip_labels(pairs, 0.5, seed=1) != views.flip_labels(pairs, 0.5, seed=2)


def test_flipping_none_changes_nothing_and_flipping_all_twice_neither():
    pairs = [pair(i) for i in range(5)]
    assert views.flip_labels(pairs, 0.0, seed=0) == pairs
    assert views.flip_labels(views.flip_labels(pairs, 1.0, seed=0), 1.0, seed=3) == pairs
    with pytest.raises(ValueError, match="fraction is 1.5"):
        views.flip_labels(pairs, 1.5, seed=0)


@pytest.mark.parametrize(("ratio", "ups"), [(1, 20), (10, 2), (3, 7), (100, 1), (0.5, 30)])
def test_imbalance_keeps_all_thumbs_down_and_one_up_for_each_ratio(ratio, ups):
    records = thumbs(30, 20)
    kept = views.imbalance(records, ratio, seed=0)
    assert sum(record.label for record in kept) == ups
    assert [record for record in kept if not record.label] == records[30:]
    assert kept == [record for record in records if record in kept]  # order
    assert kept == views.imbalance(records, ratio, seed=0)


def test_imbalance_draws_by_seed_and_nests_by_ratio():
    records = thumbs(100, 100)
    assert views.imbalance(records, 10, seed=0) != views.imbalance(records, 10, seed=1)
    assert set(views.imbalance(records, 10, seed=0)) < set(views.imbalance(records, 2, seed=0))
    with pytest.raises(ValueError, match="ratio is 0"):
        views.imbalance(records, 0, seed=0)


def test_split_keeps_a_prompt_on_one_side_and_loses_nothing():
    records = [pair(i, prompt=CHAT if i % 10 == 0 else f"Q{i % 10}") for i in range(40)]
    parts = views.split(records, (0.6, 0.2, 0.2), seed=0)
    prompts = [{views.prompt_key(record.prompt) for record in part} for part in parts]
    assert [len(keys) for keys in prompts] == [6, 2, 2]
    assert len(set.union(*prompts)) == 10
    assert sorted(r.id for part in parts for r in part) == sorted(r.id for r in records)
    assert all([r.id for r in part] == [r.id for r in records if r in part] for part in parts)  # order


def test_split_depends_on_prompts_and_seed_and_not_on_order():
    records = [pair(i) for i in range(20)]
    first, again = (views.split(part, (0.5, 0.5), seed=3) for part in (records, records[::-1]))
    assert [{r.id for r in part} for part in first] == [{r.id for r in part} for part in again]
    assert views.split(records, (0.5, 0.5), seed=4) != first


def test_split_of_another_kind_of_the_same_prompts_is_the_same():
    pairs = [pair(i) for i in range(10)]
    parts = views.split(pairs, (0.7, 0.3), seed=0)
    assert views.split(views.pairs_to_unary(pairs), (0.7, 0.3), seed=0) == [views.pairs_to_unary(p) for p in parts]


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (1.2, -0.2), (1.0, 0.0)])
def test_split_refuses_fractions_that_are_no_shares(fractions):
    with pytest.raises(ValueError, match="add up to 1"):
        views.split([pair(0), pair(1)], fractions, seed=0)


def test_split_refuses_an_empty_part():
    with pytest.raises(ValueError, match="2 prompts are too few"):
        views.split([pair(0), pair(1)], (0.8, 0.1, 0.1), seed=0)


# Sampled tokens.


def drawn(*scores, id="r", prompt="Q"):
    """A row whose texts t0, t1, ... were sampled as the tokens (0, 0), (1, 1), ..."""
    return row(*scores, id=id, prompt=prompt)._replace(tokens=tuple((i, i) for i in range(len(scores))))


def spelled(tokens):
    return None if tokens is None else f"t{tokens[0]}"


def test_tokens_stay_with_their_completion_in_every_view():
    ranked = [drawn(0.1, 0.9, -0.5), drawn(2.0, 1.0, id="s", prompt="R")]
    pairs = [*views.best_worst(ranked), views.pair_of(ranked[0], 2, 1)]
    pairs += views.flip_labels(pairs, 0.5, seed=0)
    assert all([spelled(t) for t in found.tokens] == [found.chosen, found.rejected] for found in pairs)
    rows = [*views.scored(ranked), *views.unary(ranked, 0.5), *views.pairs_to_unary(pairs)]
    rows += [*views.pairs_to_scored(pairs), *views.as_unary(ranked)]
    assert all(spelled(found.tokens) == found.completion for found in rows)
    assert views.scored_to_ranked(views.scored(ranked)) == [
        ranked[0]._replace(id="r/0"), ranked[1]._replace(id="s/0")
    ]  # fmt: skip


def test_what_came_as_text_has_no_tokens_in_any_view():
    ranked, pairs = [row(0.1, 0.9)], [pair(1)]
    found = [*views.best_worst(ranked), *views.scored(ranked), *views.pairs_to_unary(pairs)]
    found += [*views.pairs_to_scored(pairs), *views.flip_labels(pairs, 1.0, seed=0)]
    assert {one.tokens for one in found} == {None}


def test_a_row_of_which_one_answer_came_as_text_has_no_tokens():
    one, other = views.scored([drawn(0.1, 0.9)])
    (found,) = views.scored_to_ranked([one, other._replace(tokens=None)])
    assert found.tokens is None


def test_tokens_of_fewer_answers_than_there_are_are_refused():
    with pytest.raises(ValueError, match=r"ranked row r has \(2, 2, 2, 1\) completions, scores, finished, tokens"):
        views.best_worst([drawn(0.1, 0.9)._replace(tokens=((0, 0),))])


def test_the_median_threshold_is_the_same_for_rows_and_for_single_scores():
    ranked = [row(0.1, 0.9, -0.5), row(2.0, 1.0, prompt="R")]
    assert views.median_threshold(ranked) == views.median_threshold(views.scored(ranked)) == 0.9
