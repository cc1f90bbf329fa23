"""From phrases to categories: planted groups are found, and merging and matching do what their twins do."""

from itertools import combinations

import numpy as np
import pytest

from prefcore.methods.canonical_basis import cluster


@pytest.mark.parametrize(
    "phrase, kept",
    [
        ("Prefers the shorter answers.", "shorter answer"),
        ("a preference for Brevity!", "brevity"),
        ("The reader prefers stories", "story"),
        ("more information", "information"),
        ("conciseness", "conciseness"),
        ("no jargon", "no jargon"),
        ("the", "the"),
        ("!!", "!!"),
    ],
)
def test_phrases_are_normalised(phrase, kept):
    assert cluster.normalise(phrase) == kept
    assert cluster.normalise(kept) == kept


def test_what_is_the_same_after_normalising_is_one_phrase():
    assert cluster.distinct(["Short answers", "humour", "the short answer"])[0] == ["short answer", "humour"]
    assert cluster.distinct(["Short answers", "humour", "the short answer"])[1].tolist() == [0, 1, 0]


def test_mentions_are_condensed_to_distinct_phrases():
    found = cluster.condense(["the Tea", "milk", "teas", "unused"], np.array([0, 2, 2, 1]))
    assert found.phrases == ["tea", "milk"] and found.of.tolist() == [0, 0, 0, 1] and found.weight.tolist() == [3, 1]


def same_groups(label, truth):
    """Whether two labellings part the phrases alike."""
    return len(set(zip(label.tolist(), truth.tolist(), strict=True))) == len(set(label)) == len(set(truth))


def bundles(rng, *, groups=4, each=12, width=16, noise=0.1):
    """Unit vectors around `groups` random directions, and the group of each."""
    truth = np.repeat(np.arange(groups), each)
    vectors = rng.normal(size=(groups, width))[truth] / np.sqrt(width) + noise * rng.normal(size=(len(truth), width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), truth


def test_planted_groups_are_found_by_a_cut_that_no_label_chose(rng):
    vectors, truth = bundles(rng)
    steps = cluster.tree(vectors)
    scores = cluster.choose_cut(steps, vectors, cuts=[0.02, 0.3, 1.5], sample=40, seed=0)
    assert np.isnan(scores[1.5]) and scores[0.3] > np.nan_to_num(scores[0.02], nan=-1)
    found = cluster.group(steps, vectors, [f"p{i}" for i in range(48)], np.ones(48), cut=0.3, threshold=0.95)
    assert same_groups(found.label, truth)


def test_the_heaviest_category_is_number_0_and_is_named_by_a_phrase_of_its_own(rng):
    vectors, truth = bundles(rng)
    weight = np.where(truth == 2, 5.0, 1.0)
    found = cluster.group(cluster.tree(vectors), vectors, [f"{t}" for t in truth], weight, cut=0.3, threshold=0.95)
    assert found.names[0] == "2" and set(truth[found.label == 0]) == {2}
    assert sorted(found.names) == ["0", "1", "2", "3"]
    np.testing.assert_allclose(np.linalg.norm(found.centres, axis=1), 1)


def test_merging_joins_alike_centres_and_only_them(rng):
    vectors, truth = bundles(rng)
    split = 2 * truth + np.tile([0, 1], 24)  # every group cut into two halves at random
    merged = cluster.merge(split, vectors, np.ones(48), threshold=0.8)
    assert same_groups(merged, truth)
    assert len(set(cluster.merge(split, vectors, np.ones(48), threshold=1.01))) == 8
    assert len(set(cluster.merge(split, vectors, np.ones(48), threshold=-1.0))) == 1


def test_merging_agrees_with_a_slow_twin(rng):
    vectors, _ = bundles(rng, groups=9, each=3, width=5, noise=0.6)
    label, weight = np.repeat(np.arange(9), 3), rng.integers(1, 5, 27).astype(float)
    groups = [list(np.flatnonzero(label == c)) for c in range(9)]

    def centre(g):
        total = sum(weight[i] * vectors[i] for i in g)
        return total / np.sqrt(total @ total)

    while len(groups) > 1:
        close, a, b = max((centre(groups[a]) @ centre(groups[b]), a, b) for a, b in combinations(range(len(groups)), 2))
        if close < 0.5:
            break
        groups[a] += groups.pop(b)
    found = cluster.merge(label, vectors, weight, threshold=0.5)
    sets = {frozenset(np.flatnonzero(found == c).tolist()) for c in set(found)}
    assert sets == {frozenset(map(int, g)) for g in groups}
    assert 1 < len(groups) < 9


def test_worked_matching():
    """Overlaps [[3, 1], [2, 0], [0, 1]]: partners 0-0 and 2-1 keep 3 + 1 = 4 of 7; weights may turn that round."""
    label, truth = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 0, 0, 1])
    assert cluster.match(label, truth, np.ones(7)) == {0: 0, 2: 1}
    assert cluster.match(label, truth, np.array([1, 1, 1, 5, 9, 9, 1.0])) == {0: 1, 1: 0}


def test_vectors_that_are_not_of_unit_length_or_too_few_raise():
    with pytest.raises(ValueError, match="unit length"):
        cluster.tree(np.ones((4, 2)))
    with pytest.raises(ValueError, match="2 distinct phrases are too few"):
        cluster.tree(np.eye(2))
    with pytest.raises(ValueError, match="none of the cuts"):
        cluster.choose_cut(cluster.tree(np.eye(4)), np.eye(4), cuts=[1.9], sample=4, seed=0)


def test_find_goes_from_phrases_to_named_clusters(rng):
    """Six groups of four phrases; the embedding of a phrase is near its group's direction."""
    directions, words = rng.normal(size=(6, 16)), [f"word{i} group{i % 6}" for i in range(24)]

    def embed(phrases):
        out = np.stack([directions[int(phrase[-1])] for phrase in phrases]) + 0.1 * rng.normal(size=(len(phrases), 16))
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    mentioned = np.array([*range(24), *range(0, 24, 6), 0])  # the phrases of group 0 are mentioned twice and more
    found = cluster.find(words, mentioned, embed, cuts=[0.01, 0.4, 1.9], threshold=0.95, sample=24, seed=0)
    assert found.cut == 0.4 and len(found.found.names) == 6
    assert found.found.names[0].endswith("group0") and same_groups(found.category, mentioned % 6)
