"""Rewards and losses: worked numbers, slow twins, and where learning ends."""

from functools import partial
from math import exp, log, sqrt

import numpy as np
import pytest
import torch

from prefcore.methods.autoraters import losses
from prefcore.methods.autoraters.tree import ANSWERS

GRID = torch.arange(101, dtype=torch.float64) / 100
THREE = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def expected_loss(logps, answers, rewards):
    """The bare reward."""
    return losses.expected_loss(logps, answers, rewards, logps.detach(), kl_weight=0.0)


def std_normalised_loss(logps, answers, rewards):
    return losses.std_normalised_loss(logps, answers, rewards, logps.detach(), kl_weight=0.0)


# --- rewards ----------------------------------------------------------------------------------------------------


def test_worked_brier_rewards(close):
    """p = 0.2, 0.5, 0.9 and y = 1: 1 - 0.64, 1 - 0.25, 1 - 0.01; y = 0: 1 - 0.04, 1 - 0.25, 1 - 0.81; no answer 0."""
    close(losses.brier(THREE, number([1.0, 0.0])), [[0.36, 0.75, 0.99, 0.0], [0.96, 0.75, 0.19, 0.0]])


def test_worked_log_rewards(close):
    """ln 0.2, ln 0.5, ln 0.9; ln 0.8, ln 0.5, ln 0.1; no answer ln 0.001 = -6.90775528; p = 0 is clipped to 0.001."""
    found = losses.logarithmic(THREE, number([1.0, 0.0]), eps=1e-3)
    close(found[0], [-1.60943791, -0.69314718, -0.10536052, -6.90775528])
    close(found[1], [-0.22314355, -0.69314718, -2.30258509, -6.90775528])
    close(losses.logarithmic(number([0.0, 1.0]), number([1.0]), eps=1e-3), [[log(1e-3), log(1 - 1e-3), log(1e-3)]])


def test_worked_accuracy_rewards(close):
    close(losses.accuracy(THREE, number([1.0, 0.0])), [[0.0, 0.5, 1.0, 0.0], [1.0, 0.5, 0.0, 0.0]])


def test_a_mean_of_votes_earns_the_mean_reward(close):
    for rule in (losses.brier, losses.accuracy, partial(losses.logarithmic, eps=1e-3)):
        mixed, (won, lost) = rule(THREE, number([0.7])), rule(THREE, number([1.0, 0.0]))
        close(mixed[0], 0.7 * won + 0.3 * lost)


def test_proper_rules_are_greatest_at_the_truth_on_the_whole_grid_and_accuracy_is_not():
    for truth in range(1, 100):
        for rule in (losses.brier, partial(losses.logarithmic, eps=1e-3)):
            assert rule(GRID, number([truth / 100]))[0].argmax().item() == truth
    earned = losses.accuracy(GRID, number([0.7]))[0, :-1]
    assert earned[51].item() == earned[100].item() == earned.max().item()


def test_log_rule_beyond_its_clip_is_flat_and_greatest_at_the_clip():
    """Truth 0.0001 < eps: 0 and 0.001 earn the same, the most."""
    earned = losses.logarithmic(number([0.0, 1e-3, 0.01]), number([1e-4]), eps=1e-3)[0]
    assert earned[0] == earned[1] > earned[2]


def test_worked_expected_loss(close):
    """pi = 0.5, 0.25, 0.125, no answer 0.125; y = 1: 0.5 x 0.36 + 0.25 x 0.75 + 0.125 x 0.99 + 0 = 0.49125."""
    logps = torch.log(number([[0.5, 0.25, 0.125]]))
    values, numbers = expected_loss(logps, THREE, losses.brier(THREE, number([1.0])))
    close(values, [-0.49125])
    mean = (0.5 * 0.2 + 0.25 * 0.5 + 0.125 * 0.9) / 0.875
    spread = sqrt((0.5 * 0.04 + 0.25 * 0.25 + 0.125 * 0.81) / 0.875 - mean**2)
    close(numbers, [[0.49125, spread, 0.125, 0.0]])


def test_no_answer_costs_under_both_rules(close):
    """All mass on 0.5 but a tenth: -(0.9 x 0.75) and -(0.9 ln 0.5 + 0.1 ln 0.001)."""
    logps, half = torch.log(number([[0.9]])), number([0.5])
    close(expected_loss(logps, half, losses.brier(half, number([1.0]))).losses, [-0.675])
    table = losses.logarithmic(half, number([1.0]), eps=1e-3)
    close(expected_loss(logps, half, table).losses, [-(0.9 * log(0.5) + 0.1 * log(1e-3))])


def test_expected_brier_reward_is_the_papers_decomposition(random, close):
    """E[R] = s (1 - [(E P - p*)^2 + Var P] - p* (1 - p*)) with s the chance of an answer."""
    pi = 0.9 * random(6, 101).softmax(1)
    truth = random(6).sigmoid()
    values = expected_loss(pi.log(), GRID, losses.brier(GRID, truth)).losses
    mean = (pi / 0.9 * GRID).sum(1)
    variance = (pi / 0.9 * GRID**2).sum(1) - mean**2
    close(-values, 0.9 * (1 - ((mean - truth) ** 2 + variance) - truth * (1 - truth)))


def test_plain_python_twin_and_gradients(random, close):
    logps, vote = (random(4, 3).log_softmax(1) - 0.2).requires_grad_(), number([0.0, 1.0, 1.0, 0.3])
    table = losses.brier(THREE, vote)
    expected = [-sum(exp(lp) * r for lp, r in zip(row, rewarded, strict=False)) for row, rewarded in
                zip(logps.tolist(), table.tolist(), strict=True)]  # fmt: skip
    close(expected_loss(logps, THREE, table).losses, expected)
    log_table = losses.logarithmic(THREE, vote, eps=1e-3)
    for form in (lambda x: expected_loss(x, THREE, table).losses,
                 lambda x: expected_loss(x, THREE, log_table).losses,
                 lambda x: losses.sft_loss(x, THREE, vote).losses,
                 losses.complete):  # fmt: skip
        assert torch.autograd.gradcheck(form, logps)


def test_sft_is_cross_entropy_on_the_nearest_answer(close):
    logps = torch.log(number([[0.5, 0.25, 0.125]] * 3))
    close(losses.sft_loss(logps, THREE, number([0.0, 0.55, 0.95])).losses, [log(2), log(4), log(8)])


def test_sft_does_not_know_that_numbers_are_near_and_brier_does():
    """Target 0.2: moving mass from 0.9 to 0.5 changes nothing for the cross-entropy."""
    far, near = torch.log(number([[0.2, 0.1, 0.7]])), torch.log(number([[0.2, 0.7, 0.1]]))
    share = number([0.2])
    assert losses.sft_loss(far, THREE, share).losses == losses.sft_loss(near, THREE, share).losses
    table = losses.brier(THREE, share)
    assert expected_loss(near, THREE, table).losses < expected_loss(far, THREE, table).losses


def test_the_three_rules_say_where_shapes_or_values_are_wrong():
    for rule in (losses.brier, losses.accuracy, partial(losses.logarithmic, eps=1e-3)):
        with pytest.raises(ValueError, match=r"vote \[B\]"):
            rule(THREE, number([[1.0]]))
        with pytest.raises(ValueError, match="1.5"):
            rule(THREE, number([1.5]))
    with pytest.raises(ValueError, match="eps.*0.5"):
        losses.logarithmic(THREE, number([1.0]), eps=0.5)
    with pytest.raises(ValueError, match="one column more"):
        expected_loss(torch.zeros(1, 3), THREE, torch.zeros(1, 3))


# --- GRPO -------------------------------------------------------------------------------------------------------


def test_worked_advantages(close):
    """Rewards 1, 0, 0.5: mean 0.5, deviation sqrt(1/6) = 0.40824829; equal rewards teach nothing in both forms."""
    drawn = number([[1.0, 0.0, 0.5], [0.3, 0.3, 0.3]])
    close(losses.advantages(drawn), [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]])
    close(losses.normalised_advantages(drawn), [[1.2247449, -1.2247449, 0.0], [0.0, 0.0, 0.0]], atol=1e-6)


def test_worked_grpo_loss(close):
    """rho = 1.5, A = 1: clipped to 1.2; rho = 0.5, A = -1: clipped to -0.8 (the lower); k3 of ln 2: 2 - 0.6931 - 1."""
    old, gain = number([[0.0, 0.0]]), number([[1.0, -1.0]])
    logps = torch.log(number([[1.5, 0.5]]))
    close(losses.grpo_loss(logps, old, logps, gain, clip=0.2, kl_weight=0.5).losses, [-(1.2 - 0.8) / 2])
    ref = logps + log(2)
    both = losses.grpo_loss(logps, old, ref, gain, clip=0.2, kl_weight=0.5)
    close(both.losses, [-(1.2 - 0.8) / 2 + 0.5 * (1 - log(2))])
    close(both.rewards, [[1.0, 0.0, 1 - log(2)]])


def test_clipped_samples_have_no_gradient():
    old, ref = number([[0.0, 0.0]]), number([[0.0, 0.0]])
    logps = torch.log(number([[1.5, 0.9]])).requires_grad_()
    losses.grpo_loss(logps, old, ref, number([[1.0, 1.0]]), clip=0.2, kl_weight=0.0).losses.sum().backward()
    assert logps.grad[0, 0] == 0 and logps.grad[0, 1] < 0


def test_sampled_grpo_has_the_exact_gradient_on_average(close):
    """50,000 groups of 8, mean-only; a group's own mean takes an eighth of the slope away, hence 8/7."""
    torch.manual_seed(1)
    logits = number([0.3, -0.2, 0.5, -1.0]).requires_grad_()
    table = losses.brier(THREE, number([1.0]))
    logps = logits.log_softmax(0)[None, :3]
    values = expected_loss(logps, THREE, table).losses
    (exact,) = torch.autograd.grad(values.sum(), logits, retain_graph=True)
    drawn = torch.multinomial(logits.detach().softmax(0), 400_000, replacement=True).view(-1, 8)
    own = losses.complete(logps)[0][drawn]
    sampled = losses.grpo_loss(own, own, own, losses.advantages(table[0][drawn]), clip=0.2, kl_weight=0.0)
    (slope,) = torch.autograd.grad(sampled.losses.mean(), logits)
    assert exact.abs().max() > 0.05
    close(8 / 7 * slope, exact, atol=2e-3)


def flow(form, rule, truths, steps=1_000, rate=30.0):
    """Where the gradient flow of a 101-answer softmax ends in the population limit, from the uniform policy."""
    logits = torch.zeros(len(truths), 101, dtype=torch.float64, requires_grad=True)
    weight = torch.stack([number(truths), 1 - number(truths)]).flatten()
    table = rule(GRID, torch.cat([torch.ones(len(truths)), torch.zeros(len(truths))]).double())
    for _ in range(steps):
        logps = logits.log_softmax(1) - 1e-9  # no mass for "no answer" to speak of
        values = form(torch.cat([logps, logps]), GRID, table).losses
        (slope,) = torch.autograd.grad((weight * values).sum(), logits)
        with torch.no_grad():
            logits -= rate * slope
    return (logits.detach().softmax(1) @ GRID).numpy()


TRUTHS = [0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize("rule", [losses.brier, partial(losses.logarithmic, eps=1e-3)], ids=["brier", "log"])
def test_mean_only_advantages_end_at_the_truth_and_dividing_by_the_deviation_ends_over_confident(rule):
    """systems.md 3.3: Brier .64 .76 .86 .93, log .65 .78 .88 .95 with the division; the truth without it."""
    np.testing.assert_allclose(flow(expected_loss, rule, TRUTHS), TRUTHS, atol=0.01)
    biased = flow(std_normalised_loss, rule, TRUTHS)
    published = [0.64, 0.76, 0.86, 0.93] if rule is losses.brier else [0.65, 0.78, 0.88, 0.95]
    np.testing.assert_allclose(biased, published, atol=0.015)


def test_the_accuracy_reward_ends_sure_of_itself_at_any_truth():
    """All mass goes above 0.5, spread as it started there: the mean of .51 ... 1.00 is 0.755, whatever the truth."""
    np.testing.assert_allclose(flow(expected_loss, losses.accuracy, [0.6, 0.9]), [0.755, 0.755], atol=0.03)


def test_std_normalised_loss_is_the_expected_loss_on_another_scale_for_each_vote(random, close):
    logps, vote = random(5, 101).log_softmax(1).requires_grad_(), number([0.0, 1.0, 1.0, 0.0, 1.0])
    table = losses.brier(GRID, vote)
    (plain,) = torch.autograd.grad(expected_loss(logps, GRID, table).losses.sum(), logps)
    (scaled,) = torch.autograd.grad(std_normalised_loss(logps, GRID, table).losses.sum(), logps)
    pi = logps.detach().exp()
    spread = ((pi * table[:, :-1] ** 2).sum(1) - (pi * table[:, :-1]).sum(1) ** 2).sqrt()
    close(scaled, plain / spread[:, None])


def test_worked_divergence(close):
    """pi = 0.5, 0.25, none 0.25 against 0.25, 0.5, none 0.25: 0.5 ln 2 - 0.25 ln 2 = 0.17328680, times its weight."""
    logps, start = torch.log(number([[0.5, 0.25]])), torch.log(number([[0.25, 0.5]]))
    close(losses.divergence(logps, start), [0.17328680])
    table, two = losses.brier(number([0.2, 0.9]), number([1.0])), number([0.2, 0.9])
    for form, plain in ((losses.expected_loss, expected_loss), (losses.std_normalised_loss, std_normalised_loss)):
        tied = form(logps, two, table, start, kl_weight=0.5).losses
        close(tied, plain(logps, two, table).losses + 0.5 * 0.17328680)
    close(losses.expected_loss(logps, two, table, start, kl_weight=0.5).rewards[:, 3], [0.17328680])
    assert torch.autograd.gradcheck(lambda x: losses.divergence(x, start), logps.requires_grad_())


def test_at_the_start_the_penalty_pulls_nowhere(random):
    logps = random(4, 3).log_softmax(1).sub(0.2).requires_grad_()
    (slope,) = torch.autograd.grad(losses.divergence(logps, logps.detach()).sum(), logps)
    assert losses.divergence(logps, logps.detach()).abs().max() < 1e-9 and slope.abs().max() < 1e-9


def test_the_penalty_stops_the_collapse_at_its_closed_form_and_keeps_what_the_start_knew(close):
    """Least at pi ~ start x exp(R / w): a start around 0.3 of spread 0.12, truth 0.6, w = 0.05.

    Two Gaussians multiply: precisions 1 / 0.12^2 = 69.4 and 2 / 0.05 = 40, so the mean is
    (69.4 x 0.3 + 40 x 0.6) / 109.4 = 0.41 and the spread 109.4^-0.5 = 0.096. An entropy bonus of that weight would
    have ended at 0.6, whatever the start.
    """
    table = losses.brier(GRID, number([0.6]))
    start = torch.cat([-0.5 * ((GRID - 0.3) / 0.12) ** 2, number([-9.0])])[None].log_softmax(1)
    logits = (start + table / 0.05).requires_grad_()
    logps = logits.log_softmax(1)[:, :-1]
    values, numbers = losses.expected_loss(logps, GRID, table, start[:, :-1], kl_weight=0.05)
    (slope,) = torch.autograd.grad(values.sum(), logits)
    close(slope, torch.zeros_like(slope), atol=1e-7)
    assert (logps.exp() @ GRID).item() == pytest.approx(0.41, abs=0.005)
    assert numbers[0, 1].item() == pytest.approx(0.096, abs=0.003)


def test_worked_smoothed_target(close):
    """Width 0.3 around 0.5: q ~ exp(-1/2), 1, exp(-8/9), i.e. 0.30061, 0.49562, 0.20376; KL to 0.5, 0.25, 0.125."""
    logps = torch.log(number([[0.5, 0.25, 0.125]]))
    close(losses.smoothed_loss(logps, THREE, number([0.5]), width=0.3).losses, [0.28580], atol=1e-5)
    target = (-0.5 * ((THREE - 0.5) / 0.3) ** 2).log_softmax(0)[None]
    close(losses.smoothed_loss(target, THREE, number([0.5]), width=0.3).losses, [0.0])
    with pytest.raises(ValueError, match="width"):
        losses.smoothed_loss(logps, THREE, number([0.5]), width=0.0)


def test_for_the_smoothed_target_near_numbers_are_near():
    far, near = torch.log(number([[0.2, 0.1, 0.7]])), torch.log(number([[0.2, 0.7, 0.1]]))
    share = number([0.2])
    assert losses.smoothed_loss(near, THREE, share, width=0.2).losses < losses.smoothed_loss(
        far, THREE, share, width=0.2).losses  # fmt: skip


def test_complete_gives_what_is_missing_and_stays_finite(close):
    close(losses.complete(torch.log(number([[0.5, 0.25]]))).exp(), [[0.5, 0.25, 0.25]])
    full = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    losses.complete(full).sum().backward()
    assert losses.complete(full).isfinite().all() and full.grad.isfinite().all()


def test_it_learns_shares_from_single_votes():
    """A linear-softmax judge of one feature, 2,000 single votes: its mean answer comes near the true probability."""
    torch.manual_seed(0)
    feature = torch.linspace(-2, 2, 2_000, dtype=torch.float64)
    truth = (1.5 * feature).sigmoid()
    vote = (torch.rand(2_000, dtype=torch.float64) < truth).double()
    grid, inputs = ANSWERS.double(), torch.stack([feature, torch.ones_like(feature)], 1)
    weight = torch.zeros(2, 99, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.1)
    errors = []
    for _ in range(60):
        logps = (inputs @ weight).log_softmax(1)
        errors.append(((logps.detach().exp() @ grid - truth) ** 2).mean().item())
        optimizer.zero_grad()
        expected_loss(logps, grid, losses.brier(grid, vote)).losses.mean().backward()
        optimizer.step()
    assert errors[0] > 0.09 and errors[-1] < 0.02
