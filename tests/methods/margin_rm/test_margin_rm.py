from math import exp, log, log1p

import numpy as np
import pytest
import torch

from prefcore.methods import dpo
from prefcore.methods.margin_rm import margins as margin_rm
from prefcore.scoring.votes import VotedPair

RULES = [margin_rm.margin_none, margin_rm.margin_abs, margin_rm.margin_signed, margin_rm.margin_relu]
SHARE = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)  # of ten votes for the label's choice
QUESTION = "Which is nicer?"


@pytest.fixture
def rewards():
    """r_chosen [1.2, 0.3, -0.4], r_rejected [0.5, 0.6, -1.0]: gaps [0.7, -0.3, 0.6]."""
    return torch.tensor([[1.2, 0.5], [0.3, 0.6], [-0.4, -1.0]], dtype=torch.float64, requires_grad=True)


def pair(i=0, votes=(1.0,), a="a sunny day", b="a rainy day", prompt=""):
    return VotedPair(f"p{i}", prompt, a, b, tuple(votes), (), 0.5, "", "all", "train")


# --- the loss ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule, margins, losses, mean",
    [
        (margin_rm.margin_none, [0, 0, 0], [0.40318605, 0.85435524, 0.43748795], 0.56500975),
        (margin_rm.margin_abs, [0.8, 0, 0.6], [0.74439666, 0.85435524, 0.69314718], 0.76396636),
        (margin_rm.margin_signed, [0.8, 0, -0.6], [0.74439666, 0.85435524, 0.26328247], 0.62067812),
        (margin_rm.margin_relu, [0.8, 0, 0], [0.74439666, 0.85435524, 0.43748795], 0.67874662),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_worked_numbers(rewards, close, rule, margins, losses, mean):
    """2 x [0.9, 0.5, 0.2] - 1 = [0.8, 0, -0.6]; log(1 + exp(-(0.7 - 0.8))) = 0.74439666, and so on."""
    margin = rule(SHARE, scale=1.0)
    close(margin, margins)
    out = margin_rm.loss(rewards, margin)
    close(out.losses, losses)
    close(out.losses.mean(), mean)
    close(out.rewards, rewards.detach())


def test_worked_gradients(rewards, close):
    """dL/dr_chosen = -sigmoid(margin - gap): -sigmoid([0.1, -0.3 + 0.6, 0]) with margins [0.8, 0, 0.6]."""
    margin_rm.loss(rewards, margin_rm.margin_abs(SHARE, scale=1.0)).losses.sum().backward()
    expected = [-1 / (1 + exp(-x)) for x in (0.1, 0.3, 0.0)]
    close(rewards.grad[:, 0], expected)
    close(rewards.grad[:, 1], [-g for g in expected])


def test_worked_soft_labels(rewards, close):
    """P = 0.9, gap 0.7: 0.9 x 0.40318605 + 0.1 x 1.10318605 = 0.47318605; each is Bradley-Terry + (1 - P) x gap."""
    close(margin_rm.soft_loss(rewards, SHARE).losses, [0.47318605, 0.85435524 - 0.15, 0.43748795 + 0.8 * 0.6])


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_gradients_are_right_at_any_scale_and_raise_chosen(random, scale):
    rewards, share = random(5, 2, scale=scale).requires_grad_(), random(5).sigmoid()
    margin = margin_rm.margin_signed(share, scale=2.0)
    assert torch.autograd.gradcheck(lambda r: margin_rm.loss(r, margin).losses, rewards)
    assert torch.autograd.gradcheck(lambda r: margin_rm.soft_loss(r, share).losses, rewards)
    margin_rm.loss(rewards, margin).losses.sum().backward()
    assert (rewards.grad[:, 0] < 0).all() and (rewards.grad[:, 1] > 0).all()


def test_plain_python_twin(random, close):
    rewards, share = random(40, 2, scale=3.0), random(40).sigmoid()
    expected, soft = [], []
    for (chosen, rejected), p in zip(rewards.tolist(), share.tolist(), strict=True):
        gap = chosen - rejected
        expected.append(log1p(exp(-(gap - 1.5 * abs(2 * p - 1)))))
        soft.append(p * log1p(exp(-gap)) + (1 - p) * log1p(exp(gap)))
    close(margin_rm.loss(rewards, margin_rm.margin_abs(share, scale=1.5)).losses, expected)
    close(margin_rm.soft_loss(rewards, share).losses, soft)


def test_no_margin_is_bradley_terry_which_is_dpo_on_rewards(rewards, close):
    bradley_terry = margin_rm.loss(rewards, torch.zeros(3)).losses
    close(bradley_terry, dpo.loss(rewards, torch.zeros_like(rewards), beta=1.0).losses)
    close(bradley_terry, margin_rm.soft_loss(rewards, torch.ones(3)).losses)


def test_a_margin_is_a_gap_that_is_smaller_by_as_much(rewards, close):
    moved = rewards.detach() - torch.tensor([[0.8, 0.0], [0.0, 0.0], [-0.6, 0.0]])
    margin = margin_rm.margin_signed(SHARE, scale=1.0)
    close(margin_rm.loss(rewards, margin).losses, margin_rm.loss(moved, torch.zeros(3)).losses)


def test_a_constant_added_to_all_rewards_changes_nothing(rewards, close):
    margin = margin_rm.margin_abs(SHARE, scale=1.0)
    close(margin_rm.loss(rewards + 7.0, margin).losses, margin_rm.loss(rewards, margin).losses)


def test_a_pair_and_its_share_can_be_swapped_together_but_only_with_soft_labels(rewards, close):
    close(margin_rm.soft_loss(rewards.flip(1), 1 - SHARE).losses, margin_rm.soft_loss(rewards, SHARE).losses)
    margin = margin_rm.margin_signed(SHARE, scale=1.0)
    turned = margin_rm.loss(rewards.flip(1), margin_rm.margin_signed(1 - SHARE, scale=1.0)).losses
    assert ((turned - margin_rm.loss(rewards, margin).losses).abs() > 0.1).all()


def test_soft_labels_are_met_at_the_logit_of_the_share_and_a_margin_never(close):
    gap = torch.logit(torch.tensor([0.9, 0.5], dtype=torch.float64))
    rewards = torch.stack([gap, torch.zeros(2)], 1).requires_grad_()
    margin_rm.soft_loss(rewards, torch.tensor([0.9, 0.5])).losses.sum().backward()
    close(rewards.grad, torch.zeros(2, 2))
    margin_rm.loss(rewards, torch.zeros(2)).losses.sum().backward()
    close(rewards.grad[:, 0], [-0.1, -0.5])  # also the even pair is pushed apart


def test_huge_rewards_stay_finite():
    rewards = torch.tensor([[1e4, 0.0], [0.0, 1e4]], dtype=torch.float64, requires_grad=True)
    losses = torch.cat([margin_rm.loss(rewards, torch.ones(2)).losses,
                        margin_rm.soft_loss(rewards, torch.tensor([0.0, 1.0])).losses])  # fmt: skip
    losses.sum().backward()
    assert losses.tolist() == [0.0, 1e4 + 1, 1e4, 1e4] and rewards.grad.isfinite().all()


def test_votes_get_no_gradient_and_a_batch_of_one_is_a_row_of_the_batch(rewards, close):
    votes = SHARE.clone().requires_grad_()
    for form in (margin_rm.loss, margin_rm.soft_loss):
        whole = form(rewards, votes)
        (grad,) = torch.autograd.grad(whole.losses.sum(), votes, allow_unused=True)
        assert grad is None and not whole.rewards.requires_grad
        for i in range(3):
            close(form(rewards[i : i + 1], votes[i : i + 1]).losses, whole.losses[i : i + 1])


def test_a_column_of_margins_raises_instead_of_making_a_square(rewards):
    for form in (margin_rm.loss, margin_rm.soft_loss):
        with pytest.raises(ValueError, match=r"\[B\]; got.*\[3, 1\]"):
            form(rewards, SHARE[:, None])


# --- the rules --------------------------------------------------------------------------------------------------


def test_a_margin_is_the_scale_at_unanimity_and_nothing_at_an_even_vote(close):
    for rule in RULES[1:]:
        close(rule(torch.tensor([1.0, 0.5]), scale=1.7), [1.7, 0.0])


def test_the_released_rule_does_not_see_the_direction_and_the_others_do(close):
    against = torch.tensor([0.2, 0.0], dtype=torch.float64)
    close(margin_rm.margin_abs(against, scale=1.0), margin_rm.margin_abs(1 - against, scale=1.0))
    close(margin_rm.margin_signed(against, scale=1.0), [-0.6, -1.0])
    close(margin_rm.margin_relu(against, scale=1.0), [0.0, 0.0])


def test_the_rules_agree_where_the_majority_is_with_the_label(random, close):
    share = 0.5 + 0.5 * random(50).sigmoid()
    expected = [2 * p - 1 for p in share.tolist()]
    for rule in RULES[1:]:
        close(rule(share, scale=1.0), expected)


@pytest.mark.parametrize("rule", [*RULES, lambda s, scale: margin_rm.soft_loss(torch.zeros(3, 2), s)])
@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_raises(rule, bad):
    with pytest.raises(ValueError, match=f"share must be in .0, 1.; got .*{bad}"):
        rule(torch.tensor([0.5, bad, 0.5]), scale=1.0)


# --- labels -----------------------------------------------------------------------------------------------------


def test_a_label_is_one_raters_choice_drawn_from_all():
    """Of 4,000 pairs with 7 of 10 votes for a, about 2,800 get the label a (standard deviation 29)."""
    labels = margin_rm.draw_labels([(1.0,) * 7 + (0.0,) * 3] * 4000, seed=0)
    assert 2680 < sum(labels) < 2920
    assert labels == margin_rm.draw_labels([(1.0,) * 7 + (0.0,) * 3] * 4000, seed=0)
    assert labels != margin_rm.draw_labels([(1.0,) * 7 + (0.0,) * 3] * 4000, seed=1)


def test_a_tie_is_drawn_again_and_nothing_but_ties_is_no_label():
    assert margin_rm.draw_labels([(0.5, 0.5, 1.0), (0.5, 0.0), (0.5, 0.5)], seed=3) == [True, False, None]


def test_failed_votes_are_left_out_of_n_and_no_valid_vote_means_no_margin(close):
    assert margin_rm.share((1.0, None, 0.0, 1.0, None, 0.5)) == 2.5 / 4
    unknown = torch.tensor([margin_rm.share((None, None))])
    for rule in RULES:
        close(rule(unknown, scale=1.0), [0.0])


def test_chosen_is_the_labels_choice_and_the_share_turns_with_it():
    pairs = [pair(0), pair(1), pair(2)]
    rows = margin_rm.label_pairs(pairs, [True, False, None], [0.8, 0.8, 0.8], margin_rm.margin_signed, scale=2.0)
    assert [(r.id, r.chosen, r.rejected) for r in rows] == [
        ("p0", "a sunny day", "a rainy day"), ("p1", "a rainy day", "a sunny day")]
    assert [r.strength for r in rows] == pytest.approx([0.8, 0.2])
    assert [r.margin for r in rows] == pytest.approx([1.2, -1.2])


# --- simulated votes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply, counts", [("7:3", (7, 3)), (" 10 : 0\n", (10, 0)), ("0:10", (0, 10))])
def test_a_headcount_is_two_numbers_that_add_up(reply, counts):
    assert margin_rm.read_headcount(reply, people=10) == counts


@pytest.mark.parametrize(
    "reply", ["", "7", "7:4", "7:3.", "7-3", "A: 7:3", "-1:11", "7:3 8:2", "7.0:3.0", "seven:three", "٧:٣", "7:3\n7:3"]
)
def test_a_headcount_that_is_anything_else_fails(reply):
    assert margin_rm.read_headcount(reply, people=10) is None


def test_a_ballot_is_one_digit_and_anything_else_fails():
    assert [margin_rm.read_ballot(r) for r in ("0", " 1\n")] == [1.0, 0.0]
    assert {margin_rm.read_ballot(r) for r in ("", "2", "A", "0.", "01", "1 or 0", "0.5", "-1")} == {None}


def shown(request):
    """(text A, text B) of the last message of a request."""
    first, second = request.messages[-1][1].splitlines()[-2:]
    return first.removeprefix("A: "), second.removeprefix("B: ")


def sunny(requests):
    """A model that gives the sunny day 8 of 10 votes, and votes for it, wherever it is shown."""
    headcount = {True: "8:2", False: "2:8"}
    ballot = {True: "0", False: "1"}
    return [(headcount if r.temperature == 0 else ballot)["sunny" in shown(r)[0]] for r in requests]


def test_votes_are_for_a_in_whatever_order_it_was_shown():
    pairs = [pair(0), pair(1, a="a rainy day", b="a sunny day")]
    counted = margin_rm.headcount_votes(pairs, sunny, QUESTION, people=10, seed=0)
    assert [len(votes) for votes in counted] == [20, 20]
    assert [margin_rm.share(votes) for votes in counted] == pytest.approx([0.8, 0.2])
    cast = margin_rm.ballot_votes(pairs, sunny, QUESTION, people=10, seed=0)
    assert cast == [(1.0,) * 10, (0.0,) * 10]
    assert margin_rm.first_place_share(counted) == margin_rm.first_place_share(cast) == 0.5


def test_a_model_that_likes_the_first_place_gives_an_even_vote_and_is_found_out():
    votes = margin_rm.ballot_votes([pair(0), pair(1)], lambda rs: ["0"] * len(rs), QUESTION, people=10, seed=0)
    assert [margin_rm.share(v) for v in votes] == [0.5, 0.5]
    assert margin_rm.first_place_share(votes) == 1.0


def test_an_answer_that_cannot_be_read_costs_its_votes_alone():
    def mumble(requests):
        return [{0: "8:2", 1: "sure!"}[i % 2] for i in range(len(requests))]

    (good, bad) = margin_rm.headcount_votes([pair(0), pair(1)], mumble, QUESTION, people=10, seed=0)
    assert margin_rm.share(good) == 0.5 and None not in good  # 8:2 in both orders
    assert bad == (None,) * 20 and margin_rm.share(bad) == 0.5
    assert margin_rm.first_place_share([good, bad]) == 0.8
    assert margin_rm.first_place_share([bad]) is None


def test_what_is_asked():
    """One greedy call of ten tokens after four examples; or ten ballots at temperature 1, each with its own seed."""
    asked = []

    def remember(requests):
        asked.extend(requests)
        return ["?"] * len(requests)

    one = pair(0, prompt="Tell me of the day.")
    margin_rm.headcount_votes([one], remember, QUESTION, people=10, seed=0)
    assert [shown(r) for r in asked] == [(one.a, one.b), (one.b, one.a)]
    assert {(r.temperature, r.max_tokens, len(r.messages)) for r in asked} == {(0.0, 10, 10)}
    answers = [text for role, text in asked[0].messages if role == "assistant"]
    assert [margin_rm.read_headcount(text, people=10) for text in answers] == [(10, 0), (5, 5), (6, 4), (3, 7)]
    assert asked[0].messages[-1][1].startswith(f"{QUESTION}\nTell me of the day.\nA: ")
    asked.clear()
    margin_rm.ballot_votes([one], remember, QUESTION, people=10, seed=0)
    assert len(asked) == len(set(asked)) == 10 and {r.temperature for r in asked} == {1.0}
    assert sum(shown(r) == (one.a, one.b) for r in asked) == 5


def test_drawn_verdicts_are_votes_for_a_from_both_orders():
    """A judge sure of a in both orders; one sure of the first place; one that says 0.7 and 0.3: 0.7 for a."""
    ab, ba = np.array([1.0, 1.0, *[0.7] * 2000]), np.array([0.0, 1.0, *[0.3] * 2000])
    votes = margin_rm.verdict_votes(ab, ba, people=10, seed=0)
    assert votes[0] == (1.0,) * 10 and votes[1] == (1.0,) * 5 + (0.0,) * 5
    assert np.mean([margin_rm.share(v) for v in votes[2:]]) == pytest.approx(0.7, abs=0.01)
    again, other = (margin_rm.verdict_votes(ab, ba, people=10, seed=s) for s in (0, 1))
    assert votes == again != other


def ballots(*counts, n=10):
    """Lists of n votes of which so many are for a."""
    return [(1.0,) * k + (0.0,) * (n - k) for k in counts]


def test_agreement_is_the_correlation_of_margins_with_and_without_their_direction():
    """2 p - 1: people [0.8, 0.4, -0.4, -0.8]; a voter that says the opposite has the same |2 p - 1|."""
    real = ballots(9, 7, 3, 1)
    same, opposite = (margin_rm.agreement(ballots(*counts), real, seed=0) for counts in ((9, 7, 3, 1), (1, 3, 7, 9)))
    assert same["signed"].estimate == pytest.approx(1) and opposite["signed"].estimate == pytest.approx(-1)
    assert same["unsigned"].estimate == opposite["unsigned"].estimate == pytest.approx(1)
    assert (same["pairs"], same["failed"]) == (4, 0.0)


def test_agreement_counts_failed_votes_and_leaves_pairs_without_any_out():
    simulated = [*ballots(9, 2, 6), (None,) * 10, (1.0, None) * 5]
    found = margin_rm.agreement(simulated, ballots(9, 2, 6, 1, 10), seed=0)
    assert (found["pairs"], found["failed"]) == (4, 15 / 50)
    assert found["signed"].estimate == pytest.approx(1)


def test_a_voter_that_always_says_the_same_has_no_correlation():
    silent = margin_rm.agreement([(None,) * 10] * 3, ballots(9, 2, 6), seed=0)
    assert silent == {"pairs": 0, "failed": 1.0, "first_place": None, "signed": None, "unsigned": None}
    even = margin_rm.agreement(ballots(5, 5, 5), ballots(9, 2, 6), seed=0)
    assert even["signed"] is None and even["unsigned"] is None and even["pairs"] == 3


def test_real_votes_are_those_of_the_training_half():
    voted = pair(0, votes=(1.0, 0.0, 0.5))._replace(truth=(0.0, 0.0))
    assert margin_rm.real_votes([voted]) == [(1.0, 0.0, 0.5)]


def test_with_enough_steps_margins_end_wider_where_people_agree_and_soft_labels_end_at_the_log_odds(close):
    """Free rewards, one pair each, the same steps: agreement 1.0 ends wider than 0.5; soft labels stop at logit(P)."""
    share = torch.tensor([0.95, 0.6], dtype=torch.float64)
    gaps = {}
    for name, form in {
        "margin": lambda r: margin_rm.loss(r, margin_rm.margin_signed(share, scale=1.0)),
        "soft": lambda r: margin_rm.soft_loss(r, share),
    }.items():
        rewards = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.SGD([rewards], 1.0)
        for _ in range(400):
            optimiser.zero_grad()
            form(rewards).losses.sum().backward()
            optimiser.step()
        gaps[name] = (rewards[:, 0] - rewards[:, 1]).detach()
    close(gaps["soft"], [log(0.95 / 0.05), log(0.6 / 0.4)], atol=1e-3)
    close(gaps["margin"][0] - gaps["margin"][1], 0.9 - 0.2, atol=0.05)  # both go on growing, at that distance
