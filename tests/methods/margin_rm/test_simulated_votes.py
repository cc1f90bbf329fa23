"""Votes of a model that plays raters: both orders, strict reading, and agreement with people."""

import numpy as np
import pytest

from prefcore.data.types import freeze
from prefcore.methods.margin_rm import labels, simulated_votes
from prefcore.scoring.votes import VotedPair

QUESTION = "Which is nicer?"


def pair(i=0, votes=(1.0,), a="a sunny day", b="a rainy day", prompt=""):
    return VotedPair(f"p{i}", prompt, a, b, tuple(votes), (), 0.5, "", "all", "train")


@pytest.mark.parametrize("reply, counts", [("7:3", (7, 3)), (" 10 : 0\n", (10, 0)), ("0:10", (0, 10))])
def test_a_headcount_is_two_numbers_that_add_up(reply, counts):
    assert simulated_votes.read_headcount(reply, people=10) == counts


@pytest.mark.parametrize(
    "reply", ["", "7", "7:4", "7:3.", "7-3", "A: 7:3", "-1:11", "7:3 8:2", "7.0:3.0", "seven:three", "٧:٣", "7:3\n7:3"]
)
def test_a_headcount_that_is_anything_else_fails(reply):
    assert simulated_votes.read_headcount(reply, people=10) is None


def test_a_vote_is_one_digit_and_anything_else_fails():
    assert [simulated_votes.read_vote(r) for r in ("0", " 1\n")] == [1.0, 0.0]
    assert {simulated_votes.read_vote(r) for r in ("", "2", "A", "0.", "01", "1 or 0", "0.5", "-1")} == {None}


def shown(request):
    """(text A, text B) of the last message of a request."""
    first, second = request.messages[-1][1].splitlines()[-2:]
    return first.removeprefix("A: "), second.removeprefix("B: ")


def sunny(requests):
    """A model that gives the sunny day 8 of 10 votes, and votes for it, wherever it is shown."""
    headcount = {True: "8:2", False: "2:8"}
    vote = {True: "0", False: "1"}
    return [(headcount if r.temperature == 0 else vote)["sunny" in shown(r)[0]] for r in requests]


def test_votes_are_for_a_in_whatever_order_it_was_shown():
    pairs = [pair(0), pair(1, a="a rainy day", b="a sunny day")]
    counted = simulated_votes.headcount_votes(pairs, sunny, QUESTION, people=10, seed=0)
    assert [len(votes) for votes in counted] == [20, 20]
    assert [labels.vote_share(votes) for votes in counted] == pytest.approx([0.8, 0.2])
    cast = simulated_votes.sampled_votes(pairs, sunny, QUESTION, people=10, seed=0)
    assert cast == [(1.0,) * 10, (0.0,) * 10]
    assert simulated_votes.first_place_share(counted) == simulated_votes.first_place_share(cast) == 0.5


def test_a_model_that_likes_the_first_place_gives_an_even_vote_and_is_found_out():
    votes = simulated_votes.sampled_votes([pair(0), pair(1)], lambda rs: ["0"] * len(rs), QUESTION, people=10, seed=0)
    assert [labels.vote_share(v) for v in votes] == [0.5, 0.5]
    assert simulated_votes.first_place_share(votes) == 1.0


def test_an_answer_that_cannot_be_read_costs_its_votes_alone():
    def mumble(requests):
        return [{0: "8:2", 1: "sure!"}[i % 2] for i in range(len(requests))]

    (good, bad) = simulated_votes.headcount_votes([pair(0), pair(1)], mumble, QUESTION, people=10, seed=0)
    assert labels.vote_share(good) == 0.5 and None not in good  # 8:2 in both orders
    assert bad == (None,) * 20 and labels.vote_share(bad) == 0.5
    assert simulated_votes.first_place_share([good, bad]) == 0.8
    assert simulated_votes.first_place_share([bad]) is None


def test_what_is_asked():
    """One greedy call of ten tokens after four examples; or ten votes at temperature 1, each with its own seed."""
    requests_seen = []

    def record(requests):
        requests_seen.extend(requests)
        return ["?"] * len(requests)

    one = pair(0, prompt="Tell me of the day.")
    simulated_votes.headcount_votes([one], record, QUESTION, people=10, seed=0)
    assert [shown(r) for r in requests_seen] == [(one.a, one.b), (one.b, one.a)]
    assert {(r.temperature, r.max_tokens, len(r.messages)) for r in requests_seen} == {(0.0, 10, 10)}
    answers = [text for role, text in requests_seen[0].messages if role == "assistant"]
    assert [simulated_votes.read_headcount(text, people=10) for text in answers] == [(10, 0), (5, 5), (6, 4), (3, 7)]
    assert requests_seen[0].messages[-1][1].startswith(f"{QUESTION}\nTell me of the day.\nA: ")
    requests_seen.clear()
    simulated_votes.sampled_votes([one], record, QUESTION, people=10, seed=0)
    assert len(requests_seen) == len(set(requests_seen)) == 10 and {r.temperature for r in requests_seen} == {1.0}
    assert sum(shown(r) == (one.a, one.b) for r in requests_seen) == 5


def test_the_judges_share_is_the_mean_of_its_two_orders_and_nothing_is_drawn():
    """0.75 for a shown first, 0.35 for b shown first, so 0.65 for a: 0.7. Ten draws had an s.d. of 0.14."""
    votes = simulated_votes.verdict_votes(np.array([0.75, 1.0]), np.array([0.35, 1.0]))
    assert [labels.vote_share(v) for v in votes] == pytest.approx([0.7, 0.5])
    assert simulated_votes.first_place_share(votes) == pytest.approx((0.75 + 1.0 + 0.35 + 1.0) / 4)


def test_votes_of_the_judge_lose_nothing_of_how_sure_it_is():
    """The correlation of |2 p - 1| with people's, where the judge says exactly what they do: 1, in draws about 0.9."""
    rng = np.random.default_rng(0)
    people = rng.integers(11, size=300)
    exact = simulated_votes.verdict_votes(people / 10, 1 - people / 10)
    found = simulated_votes.agreement(exact, lists_of_votes(*people.tolist()), seed=0)
    assert found["unsigned"].estimate == pytest.approx(1) and found["signed"].estimate == pytest.approx(1)


def lists_of_votes(*counts, n=10):
    """Lists of n votes of which so many are for a."""
    return [(1.0,) * k + (0.0,) * (n - k) for k in counts]


def test_agreement_is_the_correlation_of_margins_with_and_without_their_direction():
    """2 p - 1: people [0.8, 0.4, -0.4, -0.8]; a voter that says the opposite has the same |2 p - 1|."""
    real, turned = lists_of_votes(9, 7, 3, 1), lists_of_votes(1, 3, 7, 9)
    same, opposite = (simulated_votes.agreement(simulated, real, seed=0) for simulated in (real, turned))
    assert same["signed"].estimate == pytest.approx(1) and opposite["signed"].estimate == pytest.approx(-1)
    assert same["unsigned"].estimate == opposite["unsigned"].estimate == pytest.approx(1)
    assert (same["pairs"], same["failed"]) == (4, 0.0)


def test_agreement_counts_failed_votes_and_leaves_pairs_without_any_out():
    simulated = [*lists_of_votes(9, 2, 6), (None,) * 10, (1.0, None) * 5]
    found = simulated_votes.agreement(simulated, lists_of_votes(9, 2, 6, 1, 10), seed=0)
    assert (found["pairs"], found["failed"]) == (4, 15 / 50)
    assert found["signed"].estimate == pytest.approx(1)


def test_a_voter_that_always_says_the_same_has_no_correlation():
    silent = simulated_votes.agreement([(None,) * 10] * 3, lists_of_votes(9, 2, 6), seed=0)
    assert silent == {"pairs": 0, "failed": 1.0, "first_place": None, "signed": None, "unsigned": None}
    even = simulated_votes.agreement(lists_of_votes(5, 5, 5), lists_of_votes(9, 2, 6), seed=0)
    assert even["signed"] is None and even["unsigned"] is None and even["pairs"] == 3


def test_all_voters_are_asked_that_there_are(toy_weights, tmp_path, monkeypatch):
    """Without a taught judge the other two answer; nobody is asked where the numbers of pairs are 0."""
    monkeypatch.chdir(tmp_path)
    p = freeze({"people": 4, "seed": 0, "profile": "t", "judged_pairs": 2, "asked_pairs": 1, "voter": "", "data": "",
                "policy": str(toy_weights / "policy"), "question": QUESTION, "device": "cpu", "threads": 1,
                "dtype": "float32", "precision": "float32"})  # fmt: skip
    pairs = [pair(0), pair(1)]
    found = simulated_votes.simulate(pairs, p)
    counts = {voter: [len(votes) for votes in cast] for voter, cast in found.items()}
    assert counts == {"headcount": [8], "sampled": [4]}
    (tmp_path / "build" / "t").mkdir()
    (tmp_path / "build" / "t" / "judge").symlink_to(toy_weights / "policy")
    judged = simulated_votes.simulate(pairs, p._replace(asked_pairs=0))
    assert list(judged) == ["judge"] and [len(votes) for votes in judged["judge"]] == [2, 2]
    assert all(0 < vote < 1 for votes in judged["judge"] for vote in votes)
    assert simulated_votes.simulate(pairs, p._replace(asked_pairs=0, data="own.jsonl")) == {}  # it learnt another task
    assert simulated_votes.simulate(pairs, p._replace(asked_pairs=0, judged_pairs=0)) == {}
    with pytest.raises(ValueError, match="people is 5.*even"):
        simulated_votes.simulate(pairs, p._replace(people=5))
