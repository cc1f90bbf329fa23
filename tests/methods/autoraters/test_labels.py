"""Labels: means of votes, single votes, and both orders of a pair."""

import numpy as np
import pytest

from prefcore.data import files
from prefcore.methods.autoraters import labels
from prefcore.methods.autoraters.labels import LabelledPair


def test_swapping_twice_gives_the_pair_back_and_once_turns_the_label(pairs):
    (there, back) = labels.add_swapped([LabelledPair(pairs[0], 0.25)])
    assert (back.pair.a, back.pair.b, back.label) == (pairs[0].b, pairs[0].a, 0.75)
    again = labels.add_swapped([back])[1]
    assert again == there


def test_dense_labels_are_the_mean_of_so_many_votes_for_the_second_text(pair):
    (found,) = labels.label_with_means([pair(votes=(1.0, 1.0, 0.0, 0.5))], 1, 4, seed=0)
    assert found.label == pytest.approx(1 - 2.5 / 4)


def test_pairs_with_too_few_votes_are_passed_over_and_too_few_pairs_are_said(pair):
    few, many = pair(votes=(1.0,)), pair(2, 3, votes=(1.0, 0.0))
    assert labels.label_with_means([few, many], 1, 2, seed=0)[0].pair is many
    with pytest.raises(ValueError, match="1 of 2 pairs have 2 votes .the most is 2., 2 are wanted"):
        labels.label_with_means([few, many], 2, 2, seed=0)
    with pytest.raises(ValueError, match="3 pairs are wanted"):
        labels.label_with_single_votes([few, many], 3, seed=0)


def test_single_labels_are_binary_and_have_the_mean_of_the_votes(pair):
    many = [pair(votes=(1.0, 0.5, 0.0, 0.0))] * 4_000
    firsts = [labels.label_with_single_votes(many[:2_000], 2_000, seed=s)[0].label for s in (0, 1)]
    assert set(firsts) <= {0.0, 1.0}
    drawn = [row.label for row in labels.label_with_single_votes(many, 4_000, seed=0)]
    assert set(drawn) == {0.0, 1.0}
    assert np.mean(drawn) == pytest.approx(1 - 1.5 / 4, abs=0.03)


def test_sure_votes_keep_their_side(pair):
    sure = [pair(votes=(1.0,)), pair(votes=(0.0,))]
    assert [row.label for row in labels.label_with_single_votes(sure, 2, seed=0)] == [0.0, 1.0]


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
