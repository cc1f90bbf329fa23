"""Which pairs are compared and learnt from, and what follows from a judge's verdicts."""

import numpy as np
import pytest

from prefcore.methods.chase_sql import selector
from prefcore.methods.chase_sql.execution import FAILED
from prefcore.methods.chase_sql.selector import Comparison


def oracle(correct):
    def verdicts(pairs):
        gaps = [int(correct[a.pool][a.first]) - int(correct[a.pool][a.second]) for a in pairs]
        return 0.5 + 0.4 * np.array(gaps)

    return verdicts


def test_only_pairs_of_two_clusters_are_compared_in_both_orders(pool):
    pairs = selector.comparisons([pool([0, 0, 1]), pool([0, FAILED]), pool([0, 0])])
    assert pairs == [Comparison(0, 0, 2), Comparison(0, 1, 2), Comparison(0, 2, 0), Comparison(0, 2, 1)]


def test_the_same_text_is_compared_once_and_the_verdict_counts_for_all_copies(pool):
    copies = pool([0, 0, 1], ["SELECT a", "SELECT a", "SELECT b"])
    assert selector.comparisons([copies]) == [Comparison(0, 0, 2), Comparison(0, 2, 0)]
    (choice,) = selector.select([copies], lambda pairs: np.array([0.2, 0.9]))
    assert choice.points.tolist() == [1, 1, 4] and choice.index == 2
    assert (choice.agreed, choice.asked) == (1, 1)


def test_one_representative_for_each_cluster_is_compared_less_and_weighted_by_the_cluster(pool):
    """Those of 0, 0, 1, 1, 2 are the shortest. The single one beats both pairs: 2 x 4; they draw: 1 + 2 x 1 each."""
    one = pool([0, 0, 1, 1, 2], ["SELECT aa", "SELECT a", "SELECT b", "SELECT bb", "SELECT c"])
    assert selector.by_cluster(one) == [1, 1, 2, 2, 4]
    assert len(selector.comparisons([one])) == 16 and len(selector.comparisons([one], selector.by_cluster)) == 6
    given = {(1, 2): 0.5, (2, 1): 0.5, (4, 1): 0.9, (1, 4): 0.1, (4, 2): 0.9, (2, 4): 0.1}
    (choice,) = selector.select(
        [one], lambda pairs: np.array([given[a.first, a.second] for a in pairs]), selector.by_cluster
    )
    assert choice.points.tolist() == [3, 3, 3, 3, 8] and choice.index == 4


def test_representatives_are_the_same_whatever_the_order_of_the_candidates(pool):
    sqls = ["SELECT aa", "SELECT a", "SELECT b", "SELECT c"]
    there, back = pool([0, 0, 1, -1], sqls), pool([-1, 1, 0, 0], sqls[::-1])
    assert [sqls[i] for i in selector.by_cluster(there)] == [sqls[::-1][i] for i in selector.by_cluster(back)][::-1]


def test_a_judge_that_is_swayed_by_the_order_is_seen(pool):
    (choice,) = selector.select([pool([0, 1])], lambda pairs: np.array([0.9, 0.8]))
    assert (choice.agreed, choice.asked) == (0, 1) and choice.points.tolist() == [1, 1]


def test_an_oracle_is_right_wherever_any_candidate_is(executed):
    chosen = selector.select(executed.pools, oracle(executed.correct))
    assert all(truth[choice.index] for truth, choice in zip(executed.correct, chosen, strict=True))


def test_a_judge_is_not_asked_where_all_agree_or_fail(pool):
    def never(pairs):
        raise AssertionError("asked")

    agree, fail = selector.select([pool([0, 0]), pool([FAILED, FAILED])], never)
    assert agree.points.tolist() == fail.points.tolist() == [1, 1]


def test_a_judge_must_give_a_verdict_on_every_pair(pool):
    with pytest.raises(ValueError, match="gave 1 verdicts on 2 pairs"):
        selector.select([pool([0, 1])], lambda pairs: np.array([0.5]))


def test_the_training_set_holds_a_right_and_a_wrong_one_in_random_order(pool):
    pools = [pool([0, 0, 1, 2, FAILED])] * 60
    correct = [np.array([True, True, False, False, False])] * 60
    pairs, labels = selector.training_pairs(pools, correct, seed=0, per_question=3)
    assert len(pairs) == len(labels) == 180  # of the 2 x 2 pairs three each; what failed is in none
    for pair, label in zip(pairs, labels, strict=True):
        assert {pair.first, pair.second} & {2, 3} and {pair.first, pair.second} & {0, 1}
        assert correct[pair.pool][pair.first] == bool(label)
    assert 60 < labels.sum() < 120


def test_questions_without_both_kinds_teach_nothing(pool):
    pools = [pool([0, 1]), pool([0, 1])]
    pairs, labels = selector.training_pairs(pools, [np.ones(2, bool), np.zeros(2, bool)], seed=0, per_question=9)
    assert pairs == [] and len(labels) == 0


def test_the_training_set_is_the_same_again_and_another_with_another_seed(executed):
    same = [selector.training_pairs(executed.pools, executed.correct, seed=seed, per_question=2) for seed in (0, 0, 1)]
    assert same[0][0] == same[1][0] and same[0][1].tolist() == same[1][1].tolist() != same[2][1].tolist()


def test_fewer_pairs_are_drawn_from_all_questions():
    pairs, labels = [Comparison(b, 0, 1) for b in range(100)], np.arange(100.0)
    some, drawn = selector.draw_pairs(pairs, labels, 20, seed=0)
    assert len(some) == 20 and [a.pool for a in some] == drawn.tolist() == sorted(drawn) and max(drawn) > 80
    assert selector.draw_pairs(pairs, labels, 500, seed=0)[0] == pairs


def test_pairwise_accuracy_is_per_question_over_both_orders(pool):
    """Right is 0. Against 1 both verdicts name it; against 2 one does and one is even: (1 + 1 + 1 + 0.5) / 4."""
    pools, correct = [pool([0, 1, 2]), pool([0, 0])], [np.array([True, False, False]), np.ones(2, bool)]
    given = {(0, 1): 0.9, (1, 0): 0.1, (0, 2): 0.5, (2, 0): 0.3, (1, 2): 0.5, (2, 1): 0.5}
    found = selector.pairwise_accuracy(
        pools, correct, lambda pairs: np.array([given[a.first, a.second] for a in pairs])
    )
    assert found[0] == 0.875 and np.isnan(found[1])


def test_the_log_loss_of_a_coin_is_log_2():
    assert selector.log_loss(np.full(4, 0.5), np.array([0, 1, 1, 0])) == pytest.approx(np.log(2))
    assert selector.log_loss(np.array([0.9, 0.2]), np.array([1, 0])) == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)
