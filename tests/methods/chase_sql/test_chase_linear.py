"""The linear judge: what it sees, that it learns, that the order says nothing, and how it is kept."""

import numpy as np
import pytest

from prefcore.methods.chase_sql import features, linear, selector
from prefcore.methods.chase_sql.selector import Ask


def planted(seed, ballots=60, size=4, width=5):
    """Tables of numbers in which the candidate with the larger first number is right; the others are noise."""
    rng = np.random.default_rng(seed)
    tables = [rng.normal(size=(size, width)) for _ in range(ballots)]
    asks = [Ask(b, *map(int, rng.choice(size, 2, replace=False))) for b in range(ballots)]
    labels = np.array([float(tables[a.ballot][a.first, 0] > tables[a.ballot][a.second, 0]) for a in asks])
    return tables, asks, labels, [f"d{b % 3}" for b in range(ballots)]


NAMES = tuple("abcde")


def test_it_learns_and_holds_on_new_ballots():
    tables, asks, labels, groups = planted(0)
    model = linear.fit(tables, NAMES, asks, labels, groups)
    others, new, truth, _ = planted(1)
    said = linear.judge(model, others)(new)
    assert ((said > 0.5) == truth).mean() > 0.9 and abs(model.weights[0]) > 5 * np.abs(model.weights[1:]).max()


def test_a_verdict_is_the_complement_of_the_swapped_one():
    tables, asks, labels, groups = planted(0)
    say = linear.judge(linear.fit(tables, NAMES, asks, labels, groups), tables)
    back = say([Ask(a.ballot, a.second, a.first) for a in asks])
    np.testing.assert_allclose(say(asks) + back, 1, atol=1e-12)


def test_which_side_of_a_training_pair_is_first_changes_nothing():
    tables, asks, labels, groups = planted(0)
    model = linear.fit(tables, NAMES, asks, labels, groups)
    turned = linear.fit(tables, NAMES, [Ask(a.ballot, a.second, a.first) for a in asks], 1 - labels, groups)
    np.testing.assert_allclose(model.weights, turned.weights, atol=1e-5)


def test_a_question_counts_once_however_many_pairs_it_has():
    """Ballot 0 says that more is right, ballot 1 that less is; ten copies of the one pair do not outvote the other."""
    tables = [np.array([[1.0], [0.0]])] * 2
    asks, labels = [Ask(0, 0, 1)] * 10 + [Ask(1, 0, 1)], np.array([1.0] * 10 + [0.0])
    assert linear.fit(tables, ["a"], asks, labels, ["d", "d"]).weights == pytest.approx([0], abs=1e-6)


def test_the_gradient_of_the_fit_is_zero():
    """At the minimum C x sum of w (1 - p) s g = weights, with the ridge's 1/2 |weights|^2."""
    tables, asks, labels, groups = planted(2)
    model = linear.fit(tables, NAMES, asks, labels, groups)
    gaps = np.array([tables[a.ballot][a.first] - tables[a.ballot][a.second] for a in asks]) / model.scale
    signs = np.where(labels > 0.5, 1.0, -1.0)
    rest = 1 / (1 + np.exp(signs * (gaps @ model.weights)))
    np.testing.assert_allclose(model.strength * ((rest * signs) @ gaps), model.weights, atol=1e-4)


def test_without_a_pair_nothing_can_be_learnt():
    with pytest.raises(ValueError, match="no pair to learn from"):
        linear.fit([], NAMES, [], np.array([]), [])


def test_it_is_kept_without_pickle_and_comes_back_the_same(tmp_path):
    tables, asks, labels, groups = planted(0)
    model = linear.fit(tables, NAMES, asks, labels, groups)
    linear.save(model, tmp_path / "model" / "selector.safetensors")
    back = linear.load(tmp_path / "model" / "selector.safetensors", NAMES)
    assert back.names == model.names and back.strength == model.strength
    assert linear.judge(back, tables)(asks).tolist() == linear.judge(model, tables)(asks).tolist()
    with pytest.raises(ValueError, match="was taught other numbers than these.*train it anew"):
        linear.load(tmp_path / "model" / "selector.safetensors", ("a", "b", "c", "d", "other"))


def test_the_same_fit_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        linear.save(linear.fit(*planted(0)[:1], NAMES, *planted(0)[1:]), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# --- what it sees -----------------------------------------------------------------------------------------------


def numbers(poll, embed, ballot, candidate):
    tables, names = features.describe(poll.ballots, embed)
    return dict(zip(names, tables[ballot][candidate], strict=True))


def test_content_says_what_question_and_query_have_in_common(poll, embed):
    """'How many pets are there?': count(*) is called for; the wrong query returns six names."""
    right, wrong = (numbers(poll, embed, 0, i) for i in (2, 0))
    assert (right["count, called for"], wrong["count, called for"]) == (1, 0)
    assert (right["rows where one is wanted"], wrong["rows where one is wanted"]) == (0, 1)
    assert right["one row"] == 1 and wrong["log rows"] == pytest.approx(np.log(7))


def test_content_does_not_see_votes_systems_or_places(poll, embed):
    """Other candidates, their order and their systems change nothing about one candidate's numbers."""
    one = poll.ballots[0]
    alone = one._replace(systems=("other",), sqls=one.sqls[2:3], results=one.results[2:3], clusters=one.clusters[2:3],
                         absent=one.absent[2:3])  # fmt: skip
    whole, single = (features.describe([ballot], embed)[0][0] for ballot in (one, alone))
    np.testing.assert_array_equal(whole[2], single[0])


def test_votes_are_the_share_of_the_cluster(ballot):
    (table,), names = features.describe_votes([ballot([0, 0, 1, -1])])
    assert names[0] == "share of votes" and table[:, 0].tolist() == [0.5, 0.5, 0.25, 0]
    assert table[:, 2].tolist() == [1, 1, 0, 0]


def test_a_candidate_has_the_votes_of_all_systems_with_its_result(ballot):
    (table,), _ = features.describe_systems([ballot([0, 0, 1])], ["s1", "s2", "unknown"])
    assert table.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_on_databases_that_it_has_not_seen_it_finds_the_right_candidate_against_the_majority(poll, embed):
    """Two of three that run are wrong; what is right follows from the question, in words seen on other databases."""
    tables, names = features.describe(poll.ballots, embed)
    asks, labels = selector.training_pairs(poll.ballots[:15], poll.correct[:15], seed=0, per_question=4)
    model = linear.fit(tables[:15], names, asks, labels, [ballot.db_id for ballot in poll.ballots[:15]])
    chosen = selector.select(poll.ballots[15:], linear.judge(model, tables[15:]))
    right = [truth[choice.index] for truth, choice in zip(poll.correct[15:], chosen, strict=True)]
    assert np.mean(right) >= 0.8
