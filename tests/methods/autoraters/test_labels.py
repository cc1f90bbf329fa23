"""Labels: means of votes and single votes, ties as halves, drawn anew with each seed."""

import numpy as np
import pytest

from prefcore.data import files
from prefcore.methods.autoraters import labels


def test_dense_labels_are_the_mean_of_so_many_votes_for_the_second_text(pair):
    found = labels.draw_means([pair(votes=(1.0, 1.0, 0.0, 0.5))], 1, 4, seed=0)
    assert found.at.tolist() == [0] and found.share[0] == pytest.approx(1 - 2.5 / 4)


def test_pairs_with_too_few_votes_are_passed_over_and_too_few_pairs_are_said(pair):
    few, many = pair(votes=(1.0,)), pair(2, 3, votes=(1.0, 0.0))
    assert labels.draw_means([few, many], 1, 2, seed=0).at.tolist() == [1]
    with pytest.raises(ValueError, match="1 of 2 pairs have 2 votes .the most is 2., 2 are wanted"):
        labels.draw_means([few, many], 2, 2, seed=0)
    with pytest.raises(ValueError, match="3 pairs are wanted"):
        labels.draw_votes([few, many], 3, seed=0)


def test_a_tie_teaches_one_half_and_is_no_toss_of_a_coin(pair):
    """A coin would give 0 or 1, right on average, and only noise for the rule, which takes halves."""
    ties = labels.draw_votes([pair(votes=(0.5,))] * 50, 50, seed=0)
    assert set(ties.share) == {0.5}


def test_single_votes_have_the_mean_of_all_and_sure_votes_keep_their_side(pair):
    drawn = labels.draw_votes([pair(votes=(1.0, 0.5, 0.0, 0.0))] * 4_000, 4_000, seed=0)
    assert set(drawn.share) == {0.0, 0.5, 1.0}
    assert np.mean(drawn.share) == pytest.approx(1 - 1.5 / 4, abs=0.03)
    sure = [pair(votes=(1.0,)), pair(votes=(0.0,))]
    found = labels.draw_votes(sure, 2, seed=0)
    assert found.share[np.argsort(found.at)].tolist() == [0.0, 1.0]


def test_a_seed_draws_its_own_pairs_and_its_own_votes(pairs):
    one, same, other = (labels.draw_votes(pairs, 6, seed=seed) for seed in (0, 0, 1))
    assert one.at.tolist() == same.at.tolist() and one.share.tolist() == same.share.tolist()
    assert one.at.tolist() != other.at.tolist()


def test_the_placebo_has_the_same_votes_on_the_same_pairs(pair):
    drawn = labels.draw_votes([pair(votes=(1.0, 0.0))] * 100, 100, seed=0)
    dealt = labels.permute(drawn, 0)
    assert dealt.at.tolist() == drawn.at.tolist() and sorted(dealt.share) == sorted(drawn.share)
    assert dealt.share.tolist() != drawn.share.tolist()


def test_a_domain_that_is_left_out_teaches_nothing(pair):
    pairs = [pair(domain="Tweet"), pair(domain="Editorial"), pair(domain="Tweet")]
    drawn = labels.draw_votes(pairs, 3, seed=0)
    assert labels.leave_out(drawn, pairs, "Tweet").at.tolist() == [1]
    assert labels.leave_out(drawn, pairs, "").at.tolist() == drawn.at.tolist()


def test_pairs_come_from_the_stage_or_from_a_file_and_an_empty_part_is_said(tmp_path, monkeypatch, pair, p):
    monkeypatch.chdir(tmp_path)
    p = p._replace(data="")
    pairs = [pair(split=split) for split in ("train", "train", "validation", "validation", "test")]
    files.write_lines(pairs, tmp_path / "build" / "smoke" / "voted.jsonl")
    found = labels.open_pairs(p)
    assert {split: len(inside) for split, inside in found.items()} == {"train": 2, "validation": 1, "test": 1}
    files.write_lines(pairs[:3], tmp_path / "build" / "smoke" / "voted.jsonl")
    with pytest.raises(ValueError, match="no pair of 3 falls into the test part"):
        labels.open_pairs(p)
    (tmp_path / "own.jsonl").write_text('{"a": "x", "b": "y"}\n')
    with pytest.raises(ValueError, match="votes"):
        labels.open_pairs(p._replace(data="own.jsonl"))
