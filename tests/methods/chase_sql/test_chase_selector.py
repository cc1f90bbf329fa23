"""Which pairs are asked about and learnt from, and what follows from a judge's answers."""

import numpy as np
import pytest

from prefcore.methods.chase_sql import selector
from prefcore.methods.chase_sql.selector import Ask
from prefcore.methods.chase_sql.votes import FAILED


def oracle(correct):
    def say(asks):
        gaps = [int(correct[a.ballot][a.first]) - int(correct[a.ballot][a.second]) for a in asks]
        return 0.5 + 0.4 * np.array(gaps)

    return say


def test_only_pairs_of_two_clusters_are_asked_about_in_both_orders(ballot):
    asks = selector.asks_of([ballot([0, 0, 1]), ballot([0, FAILED]), ballot([0, 0])])
    assert asks == [Ask(0, 0, 2), Ask(0, 1, 2), Ask(0, 2, 0), Ask(0, 2, 1)]


def test_the_same_text_is_asked_about_once_and_its_answer_counts_for_all_copies(ballot):
    copies = ballot([0, 0, 1], ["SELECT a", "SELECT a", "SELECT b"])
    assert selector.asks_of([copies]) == [Ask(0, 0, 2), Ask(0, 2, 0)]
    (choice,) = selector.select([copies], lambda asks: np.array([0.2, 0.9]))
    assert choice.points.tolist() == [1, 1, 4] and choice.index == 2
    assert (choice.agreed, choice.asked) == (1, 1)


def test_one_speaker_for_each_cluster_asks_less_and_is_weighted_by_the_cluster(ballot):
    """Speakers: the shortest of 0, 0, 1, 1, 2. The single one beats both pairs: 2 x 4; they draw: 1 + 2 x 1 each."""
    one = ballot([0, 0, 1, 1, 2], ["SELECT aa", "SELECT a", "SELECT b", "SELECT bb", "SELECT c"])
    assert selector.by_cluster(one) == [1, 1, 2, 2, 4]
    assert len(selector.asks_of([one])) == 16 and len(selector.asks_of([one], selector.by_cluster)) == 6
    said = {(1, 2): 0.5, (2, 1): 0.5, (4, 1): 0.9, (1, 4): 0.1, (4, 2): 0.9, (2, 4): 0.1}
    (choice,) = selector.select(
        [one], lambda asks: np.array([said[a.first, a.second] for a in asks]), selector.by_cluster)
    assert choice.points.tolist() == [3, 3, 3, 3, 8] and choice.index == 4


def test_speakers_are_the_same_whatever_the_order_of_the_candidates(ballot):
    sqls = ["SELECT aa", "SELECT a", "SELECT b", "SELECT c"]
    there, back = ballot([0, 0, 1, -1], sqls), ballot([-1, 1, 0, 0], sqls[::-1])
    assert [sqls[i] for i in selector.by_cluster(there)] == [sqls[::-1][i] for i in selector.by_cluster(back)][::-1]


def test_a_judge_that_is_swayed_by_the_order_is_seen(ballot):
    (choice,) = selector.select([ballot([0, 1])], lambda asks: np.array([0.9, 0.8]))
    assert (choice.agreed, choice.asked) == (0, 1) and choice.points.tolist() == [1, 1]


def test_an_oracle_is_right_wherever_any_candidate_is(poll):
    chosen = selector.select(poll.ballots, oracle(poll.correct))
    assert all(truth[choice.index] for truth, choice in zip(poll.correct, chosen, strict=True))


def test_a_judge_is_not_asked_where_all_agree_or_fail(ballot):
    def never(asks):
        raise AssertionError("asked")

    agree, fail = selector.select([ballot([0, 0]), ballot([FAILED, FAILED])], never)
    assert agree.points.tolist() == fail.points.tolist() == [1, 1]


def test_a_judge_must_answer_every_pair(ballot):
    with pytest.raises(ValueError, match="gave 1 answers to 2 pairs"):
        selector.select([ballot([0, 1])], lambda asks: np.array([0.5]))


def test_the_training_set_holds_a_right_and_a_wrong_one_in_random_order(ballot):
    ballots = [ballot([0, 0, 1, 2, FAILED])] * 60
    correct = [np.array([True, True, False, False, False])] * 60
    asks, labels = selector.training_pairs(ballots, correct, seed=0, per_question=3)
    assert len(asks) == len(labels) == 180  # of the 2 x 2 pairs three each; what failed is in none
    for ask, label in zip(asks, labels, strict=True):
        assert {ask.first, ask.second} & {2, 3} and {ask.first, ask.second} & {0, 1}
        assert correct[ask.ballot][ask.first] == bool(label)
    assert 60 < labels.sum() < 120


def test_questions_without_both_kinds_teach_nothing(ballot):
    ballots = [ballot([0, 1]), ballot([0, 1])]
    asks, labels = selector.training_pairs(ballots, [np.ones(2, bool), np.zeros(2, bool)], seed=0, per_question=9)
    assert asks == [] and len(labels) == 0


def test_the_training_set_is_the_same_again_and_another_with_another_seed(poll):
    same = [selector.training_pairs(poll.ballots, poll.correct, seed=seed, per_question=2) for seed in (0, 0, 1)]
    assert same[0][0] == same[1][0] and same[0][1].tolist() == same[1][1].tolist() != same[2][1].tolist()


def test_pairwise_accuracy_is_per_question_over_both_orders(ballot):
    """Right is 0. Against 1 both verdicts name it; against 2 one does and one is even: (1 + 1 + 1 + 0.5) / 4."""
    ballots, correct = [ballot([0, 1, 2]), ballot([0, 0])], [np.array([True, False, False]), np.ones(2, bool)]
    said = {(0, 1): 0.9, (1, 0): 0.1, (0, 2): 0.5, (2, 0): 0.3, (1, 2): 0.5, (2, 1): 0.5}
    found = selector.pairwise(ballots, correct, lambda asks: np.array([said[a.first, a.second] for a in asks]))
    assert found[0] == 0.875 and np.isnan(found[1])
