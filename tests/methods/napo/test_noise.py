"""Labels that are wrong on purpose: the share that was set, of each kind, and nothing else."""

import pytest

from prefcore.data.types import Example
from prefcore.methods.napo import noise


def examples(n=20):
    return [Example(str(i), (1, 2), ((3,),) * 4, {"language": float(i % 2), "vision": 1.0}) for i in range(n)]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_noise_flips_the_share_of_the_pairs_that_are_there_and_nothing_else(share):
    flipped = noise.flip(examples(), share, seed=3)
    for name, there in (("language", 10), ("vision", 20)):
        directions = [e.columns[name] for e in flipped]
        assert directions.count(-1.0) == round(share * there)
        assert [abs(d) for d in directions] == [e.columns[name] for e in examples()]
    assert [e._replace(columns={}) for e in flipped] == [e._replace(columns={}) for e in examples()]
    assert flipped == noise.flip(examples(), share, seed=3)


def test_the_two_kinds_of_pairs_are_flipped_apart_and_another_seed_flips_others():
    sides = [[e.columns[n] for e in noise.flip(examples(60), 0.4, seed=s)] for n, s in (("vision", 0), ("vision", 1))]
    assert sides[0] != sides[1]
    both = [e for e in noise.flip(examples(60), 0.4, seed=0) if e.columns["language"]]
    assert any(e.columns["language"] != e.columns["vision"] for e in both)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        noise.flip(examples(), share, seed=0)


def test_a_share_of_the_texts_is_swapped():
    pairs = [Example(str(i), (1,), ((2,), (3,))) for i in range(10)]
    swapped = noise.swap(pairs, 0.3, seed=0)
    assert sum(e.completions == ((3,), (2,)) for e in swapped) == 3 and noise.swap(pairs, 0.0, 0) == pairs
