"""From chances of answers to a probability: worked by hand."""

import numpy as np
import pytest

from prefcore.methods.autoraters import readout, tree
from prefcore.scoring import judge, votes


def spread(**chances):
    out = np.zeros((1, 99))
    for answer, chance in chances.items():
        out[0, int(answer[1:]) - 1] = chance
    return out


def test_greedy_goes_digit_by_digit_and_the_mean_does_not():
    """First digit 7 has 0.5 in all, though the likeliest single answer is .20: 7, then 3. The mean is over 0.9."""
    chances = spread(_20=0.4, _73=0.25, _76=0.2, _79=0.05)
    assert readout.greedy(chances) == [0.73]
    assert readout.expectation(chances) == pytest.approx((0.4 * 0.2 + 0.25 * 0.73 + 0.2 * 0.76 + 0.05 * 0.79) / 0.9)


def test_the_smallest_and_the_largest_answer_are_read_right():
    assert readout.greedy(np.concatenate([spread(_1=0.5), spread(_10=0.5), spread(_99=0.5)])).tolist() == [
        0.01, 0.1, 0.99]  # fmt: skip


def test_self_consistency_is_the_share_of_drawn_answers_for_the_second_text():
    chances = spread(_20=0.3, _50=0.2, _73=0.4)  # and 0.1 that cannot be read
    assert readout.self_consistency(chances, 200_000, 0) == pytest.approx((0.4 + 0.1) / 0.9, abs=0.01)
    assert set(readout.self_consistency(spread(_73=0.5, _20=0.5), 1, seed=3)) <= {0.0, 1.0}
    assert readout.self_consistency(spread(_73=1e-12), 5, seed=0) == [0.5]


def test_the_verdict_read_behind_the_question_is_the_shared_judges(model, pairs, p, shown):
    """One pass of the longer prompt holds it, in both orders, so the judge need not be asked again."""
    tokenizer, policy = model
    both = [*pairs, *map(votes.swap, pairs)]
    found = readout.verdicts(tree.read_states(shown(tokenizer, both), policy, tokenizer), policy, tokenizer)
    asked = judge.both_orders([(one.a, one.b) for one in pairs], policy, tokenizer, p.question)
    np.testing.assert_allclose(found, 1 - np.stack(asked), atol=1e-4)


def test_the_transcript_of_a_judge_who_likes_the_second_place_does_not():
    """Says 0.9 and, exchanged, 0.5: for the second text 0.9 and 0.5, so 0.7; the transcript of the mirror is 0.3."""
    found = readout.transcript(np.array([[0.9, 0.5], [0.5, 0.9]]))
    np.testing.assert_allclose(found, [0.7, 0.3])
