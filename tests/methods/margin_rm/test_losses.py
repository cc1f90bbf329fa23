"""The loss and the rules: worked numbers, gradients, and where learning ends."""

from math import exp, log, log1p

import pytest
import torch

from prefcore.methods import dpo
from prefcore.methods.margin_rm import losses

RULES = [losses.margin_none, losses.margin_abs, losses.margin_signed]
SHARE = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)  # of ten votes for the label's choice


@pytest.fixture
def rewards():
    """r_chosen [1.2, 0.3, -0.4], r_rejected [0.5, 0.6, -1.0]: gaps [0.7, -0.3, 0.6]."""
    return torch.tensor([[1.2, 0.5], [0.3, 0.6], [-0.4, -1.0]], dtype=torch.float64, requires_grad=True)


# --- the loss ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule, margins, values, mean",
    [
        (losses.margin_none, [0, 0, 0], [0.40318605, 0.85435524, 0.43748795], 0.56500975),
        (losses.margin_abs, [0.8, 0, 0.6], [0.74439666, 0.85435524, 0.69314718], 0.76396636),
        (losses.margin_signed, [0.8, 0, -0.6], [0.74439666, 0.85435524, 0.26328247], 0.62067812),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_worked_numbers(rewards, close, rule, margins, values, mean):
    """2 x [0.9, 0.5, 0.2] - 1 = [0.8, 0, -0.6]; log(1 + exp(-(0.7 - 0.8))) = 0.74439666, and so on."""
    margin = rule(SHARE, scale=1.0)
    close(margin, margins)
    out = losses.loss(rewards, margin)
    close(out.losses, values)
    close(out.losses.mean(), mean)
    close(out.rewards, rewards.detach())


def test_worked_gradients(rewards, close):
    """dL/dr_chosen = -sigmoid(margin - gap): -sigmoid([0.1, -0.3 + 0.6, 0]) with margins [0.8, 0, 0.6]."""
    losses.loss(rewards, losses.margin_abs(SHARE, scale=1.0)).losses.sum().backward()
    expected = [-1 / (1 + exp(-x)) for x in (0.1, 0.3, 0.0)]
    close(rewards.grad[:, 0], expected)
    close(rewards.grad[:, 1], [-g for g in expected])


def test_worked_soft_labels(rewards, close):
    """P = 0.9, gap 0.7: 0.9 x 0.40318605 + 0.1 x 1.10318605 = 0.47318605; each is Bradley-Terry + (1 - P) x gap."""
    close(losses.soft_loss(rewards, SHARE).losses, [0.47318605, 0.85435524 - 0.15, 0.43748795 + 0.8 * 0.6])


def test_worked_weights(rewards, close):
    """|2 p - 1| = [0.8, 0, 0.6] times Bradley-Terry's 0.40318605, 0.85435524, 0.43748795: even counts nothing."""
    out = losses.scaled_loss(rewards, losses.margin_abs(SHARE, scale=1.0))
    close(out.losses, [0.8 * 0.40318605, 0.0, 0.6 * 0.43748795])
    with pytest.raises(ValueError, match="a weight must be 0 or more; the smallest is -0.6"):
        losses.scaled_loss(rewards, losses.margin_signed(SHARE, scale=1.0))


def sigmoid(x):
    return 1 / (1 + exp(-x))


def test_worked_levels(rewards, close):
    """Of five: 0.9 is in the highest, 0.5 in the middle, 0.2 on a cut and so in the second; logit(0.8) = ln 4."""
    four, half = log(4), log(1.5)  # logit(0.8), logit(0.6)
    expected = [sigmoid(0.7 - four), sigmoid(-0.3 + half) - sigmoid(-0.3 - half),
                sigmoid(0.6 + four) - sigmoid(0.6 + half)]  # fmt: skip
    close(losses.ordinal_loss(rewards, SHARE).losses, [-log(chance) for chance in expected])


def test_the_chances_of_the_five_levels_add_up_and_each_is_likeliest_inside_itself(random, close):
    levels = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    gap = torch.logit(levels)
    for d in gap:
        rewards = torch.stack([d.expand(5), torch.zeros(5)], 1)
        chances = (-losses.ordinal_loss(rewards, levels).losses).exp()
        close(chances.sum(), 1.0)
    middle = torch.stack([gap, torch.zeros(5)], 1).requires_grad_()
    losses.ordinal_loss(middle, levels).losses.sum().backward()
    assert middle.grad[0, 0] > 0 > middle.grad[4, 0]  # the outer levels have no end
    close(middle.grad[2], [0.0, 0.0])
    assert middle.grad[[1, 3]].abs().max() < 0.1


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_gradients_are_right_at_any_scale_and_raise_chosen(random, scale):
    rewards, share = random(5, 2, scale=scale).requires_grad_(), random(5).sigmoid()
    margin = losses.margin_signed(share, scale=2.0)
    assert torch.autograd.gradcheck(lambda r: losses.loss(r, margin).losses, rewards)
    assert torch.autograd.gradcheck(lambda r: losses.soft_loss(r, share).losses, rewards)
    assert torch.autograd.gradcheck(lambda r: losses.ordinal_loss(r, share).losses, rewards)
    assert torch.autograd.gradcheck(lambda r: losses.scaled_loss(r, share).losses, rewards)
    losses.loss(rewards, margin).losses.sum().backward()
    assert (rewards.grad[:, 0] < 0).all() and (rewards.grad[:, 1] > 0).all()


def test_plain_python_twin(random, close):
    rewards, share = random(40, 2, scale=3.0), random(40).sigmoid()
    expected, soft = [], []
    for (chosen, rejected), p in zip(rewards.tolist(), share.tolist(), strict=True):
        gap = chosen - rejected
        expected.append(log1p(exp(-(gap - 1.5 * abs(2 * p - 1)))))
        soft.append(p * log1p(exp(-gap)) + (1 - p) * log1p(exp(gap)))
    close(losses.loss(rewards, losses.margin_abs(share, scale=1.5)).losses, expected)
    close(losses.soft_loss(rewards, share).losses, soft)


def test_no_margin_is_bradley_terry_which_is_dpo_on_rewards(rewards, close):
    bradley_terry = losses.loss(rewards, torch.zeros(3)).losses
    close(bradley_terry, dpo.loss(rewards, torch.zeros_like(rewards), beta=1.0).losses)
    close(bradley_terry, losses.soft_loss(rewards, torch.ones(3)).losses)


def test_a_margin_is_a_gap_that_is_smaller_by_as_much(rewards, close):
    moved = rewards.detach() - torch.tensor([[0.8, 0.0], [0.0, 0.0], [-0.6, 0.0]])
    margin = losses.margin_signed(SHARE, scale=1.0)
    close(losses.loss(rewards, margin).losses, losses.loss(moved, torch.zeros(3)).losses)


def test_a_constant_added_to_all_rewards_changes_nothing(rewards, close):
    margin = losses.margin_abs(SHARE, scale=1.0)
    close(losses.loss(rewards + 7.0, margin).losses, losses.loss(rewards, margin).losses)


def test_a_pair_and_its_share_can_be_swapped_together_but_only_with_soft_labels(rewards, close):
    close(losses.soft_loss(rewards.flip(1), 1 - SHARE).losses, losses.soft_loss(rewards, SHARE).losses)
    close(losses.ordinal_loss(rewards.flip(1), 1 - SHARE).losses, losses.ordinal_loss(rewards, SHARE).losses)
    margin = losses.margin_signed(SHARE, scale=1.0)
    turned = losses.loss(rewards.flip(1), losses.margin_signed(1 - SHARE, scale=1.0)).losses
    assert ((turned - losses.loss(rewards, margin).losses).abs() > 0.1).all()


def test_soft_labels_are_met_at_the_logit_of_the_share_and_a_margin_never(close):
    gap = torch.logit(torch.tensor([0.9, 0.5], dtype=torch.float64))
    rewards = torch.stack([gap, torch.zeros(2)], 1).requires_grad_()
    losses.soft_loss(rewards, torch.tensor([0.9, 0.5])).losses.sum().backward()
    close(rewards.grad, torch.zeros(2, 2))
    losses.loss(rewards, torch.zeros(2)).losses.sum().backward()
    close(rewards.grad[:, 0], [-0.1, -0.5])  # also the even pair is pushed apart


def test_huge_rewards_stay_finite():
    rewards = torch.tensor([[1e4, 0.0], [0.0, 1e4]], dtype=torch.float64, requires_grad=True)
    values = torch.cat([losses.loss(rewards, torch.ones(2)).losses,
                        losses.soft_loss(rewards, torch.tensor([0.0, 1.0])).losses,
                        losses.scaled_loss(rewards, torch.ones(2)).losses])  # fmt: skip
    levels = losses.ordinal_loss(rewards, torch.tensor([0.0, 0.5])).losses
    (values.sum() + levels.sum()).backward()
    assert values.tolist() == [0.0, 1e4 + 1, 1e4, 1e4, 0.0, 1e4] and rewards.grad.isfinite().all()
    assert levels.isfinite().all() and (levels > 9990).all()


def test_votes_get_no_gradient_and_a_batch_of_one_is_a_row_of_the_batch(rewards, close):
    votes = SHARE.clone().requires_grad_()
    for form in (losses.loss, losses.scaled_loss, losses.soft_loss, losses.ordinal_loss):
        whole = form(rewards, votes)
        (grad,) = torch.autograd.grad(whole.losses.sum(), votes, allow_unused=True)
        assert grad is None and not whole.rewards.requires_grad
        for i in range(3):
            close(form(rewards[i : i + 1], votes[i : i + 1]).losses, whole.losses[i : i + 1])


def test_a_column_of_margins_raises_instead_of_making_a_square(rewards):
    for form in (losses.loss, losses.scaled_loss, losses.soft_loss, losses.ordinal_loss):
        with pytest.raises(ValueError, match=r"\[B\]; got.*\[3, 1\]"):
            form(rewards, SHARE[:, None])


# --- the rules --------------------------------------------------------------------------------------------------


def test_a_margin_is_the_scale_at_unanimity_and_nothing_at_an_even_vote(close):
    for rule in RULES[1:]:
        close(rule(torch.tensor([1.0, 0.5]), scale=1.7), [1.7, 0.0])


def test_the_released_rule_does_not_see_the_direction_and_the_others_do(close):
    against = torch.tensor([0.2, 0.0], dtype=torch.float64)
    close(losses.margin_abs(against, scale=1.0), losses.margin_abs(1 - against, scale=1.0))
    close(losses.margin_signed(against, scale=1.0), [-0.6, -1.0])


def test_the_rules_agree_where_the_majority_is_with_the_label(random, close):
    share = 0.5 + 0.5 * random(50).sigmoid()
    expected = [2 * p - 1 for p in share.tolist()]
    for rule in RULES[1:]:
        close(rule(share, scale=1.0), expected)


@pytest.mark.parametrize("rule", [*RULES, lambda s, scale: losses.soft_loss(torch.zeros(3, 2), s)])
@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_raises(rule, bad):
    with pytest.raises(ValueError, match=f"share must be in .0, 1.; got .*{bad}"):
        rule(torch.tensor([0.5, bad, 0.5]), scale=1.0)


def test_with_enough_steps_margins_end_wider_where_people_agree_and_soft_labels_end_at_the_log_odds(close):
    """Free rewards, one pair each, the same steps: agreement 1.0 ends wider than 0.5; soft labels stop at logit(P)."""
    share = torch.tensor([0.95, 0.6], dtype=torch.float64)
    gaps = {}
    for name, form in {
        "margin": lambda r: losses.loss(r, losses.margin_signed(share, scale=1.0)),
        "soft": lambda r: losses.soft_loss(r, share),
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
