"""NaPO's losses: worked numbers, limits, gradients, flipped and missing pairs."""

from functools import partial
from math import exp, log

import pytest
import torch

from prefcore.methods import dpo
from prefcore.methods.napo import losses, margins

GRID = {  # q -> (value, slope) at z = -1, 0, 0.7, by (1 - s^q)/q and -s^q (1 - s) with s = sigmoid(z)
    1e-6: ([1.31326083, 0.69314694, 0.40318597], [-0.73105762, -0.49999965, -0.33181209]),
    0.3: ([1.08543816, 0.62582535, 0.37975630], [-0.49300291, -0.40612620, -0.29400989]),
    0.5: ([0.96280875, 0.58578644, 0.36514493], [-0.37912378, -0.35355339, -0.27123245]),
    0.7: ([0.85885027, 0.54918256, 0.35128565], [-0.29154968, -0.30778610, -0.25021962]),
    1.0: ([0.73105858, 0.50000000, 0.33181223], [-0.19661193, -0.25000000, -0.22171287]),
}
RATIOS = [[4.0, -2.0, 0.5, -8.0], [2.0, 1.0, 0.0, -4.0]]  # summed log-ratios of the four answers, two examples


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def step():
    """The worked step: h_l [6, 1], h_lb [3.5, 2], h_vb [12, 6]; the reference is 0, so logps are the log-ratios."""
    return double(RATIOS), torch.zeros(2, 4, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)


@pytest.mark.parametrize("q", GRID)
def test_worked_losses_and_slopes(q, close):
    """z = 0, q = 0.5: (1 - sqrt(1/2)) / 0.5 = 0.58578644, slope -sqrt(1/2) / 2 = -0.35355339."""
    z = double([-1.0, 0.0, 0.7]).requires_grad_()
    found = losses.napo_losses(z, double(q))
    found.sum().backward()
    close(found, GRID[q][0])
    close(z.grad, GRID[q][1])


def test_worked_step_of_the_paper(close):
    """beta 0.1: psi_mu of lb 0.1 x 0.14, psi_Sigma of vb 0.1 x 9; q = sigmoid(-0.5 x 0.014), sigmoid(-0.01 x 0.9).

    gamma = [0.35, 0.275, 0.9] / 1.525.
    """
    q_lb, q_vb = margins.adaptive_q(double(0.014), alpha=0.5), margins.adaptive_q(double(0.9), alpha=0.01)
    close(torch.stack([q_lb, q_vb]), [0.49825001, 0.49775002])
    gamma = margins.dynamic_weights(double([0.35, 0.275, 0.9]))
    close(gamma, [0.22950820, 0.18032787, 0.59016393])
    close(total(q_lb, q_vb, torch.ones(3)), 1.35370385)
    close(total(q_lb, q_vb, gamma), 0.40183969)
    close(losses.napo_losses(double([0.35, 0.2]), q_lb), [0.46838958, 0.51724135])
    close(losses.napo_losses(double([1.2, 0.6]), q_vb), [0.24676057, 0.39313158])


def test_worked_step_without_beta_in_q(close):
    q_lb, q_vb = margins.adaptive_q(double(0.14), alpha=0.5), margins.adaptive_q(double(9.0), alpha=0.01)
    close(torch.stack([q_lb, q_vb]), [0.48250714, 0.47751518])
    close(total(q_lb, q_vb, torch.ones(3)), 1.35696996)
    close(total(q_lb, q_vb, margins.dynamic_weights(double([0.35, 0.275, 0.9]))), 0.40290529)


def test_worked_step_of_the_released_code(close):
    """q = 2 (1 - sigmoid(0.5 x 0.14)) and 2 (1 - sigmoid(0.01 x 9)), without beta."""
    q_lb, q_vb = margins.released_q(double(0.14), alpha=0.5), margins.released_q(double(9.0), alpha=0.01)
    close(torch.stack([q_lb, q_vb]), [0.96501428, 0.95503035])
    close(total(q_lb, q_vb, torch.ones(3)), 1.27181417)
    close(total(q_lb, q_vb, margins.dynamic_weights(double([0.35, 0.275, 0.9]))), 0.37692820)


def total(q_lb, q_vb, weights):
    pairs = [partial(losses.napo_losses, q=q) for q in (q_lb, q_vb)]
    return losses.loss(*step(), weights.double(), *pairs, beta=0.1).losses.mean()


def test_rewards_are_beta_times_the_log_ratios_and_carry_no_gradient(close):
    logps, ref_logps, direction = step()
    pairs = losses.dpo_losses, losses.dpo_losses
    out = losses.loss(logps.requires_grad_(), ref_logps, direction, torch.ones(3), *pairs, beta=0.1)
    close(out.rewards, 0.1 * logps.detach())
    assert not out.rewards.requires_grad and out.losses.requires_grad


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_gradients_are_right_at_any_scale_and_raise_chosen(random, scale):
    logps, ref_logps = random(5, 4, scale=scale).requires_grad_(), random(5, 4, scale=scale)
    direction, weights = torch.ones(5, 2, dtype=torch.float64), double([0.2, 0.3, 0.5])
    pairs = partial(losses.napo_losses, q=double(0.4)), partial(losses.napo_losses, q=double(0.9))

    def of(x):
        return losses.loss(x, ref_logps, direction, weights, *pairs, beta=0.3).losses

    assert torch.autograd.gradcheck(of, logps)
    of(logps).sum().backward()
    assert (logps.grad[:, 0] < 0).all() and (logps.grad[:, 1:] > 0).all()


@pytest.mark.parametrize("q", [1e-6, 0.01, 0.5, 1.0])
def test_values_and_slopes_are_finite_however_wrong_the_model_is(q):
    z = double([-1e4, -80.0, 80.0, 1e4]).requires_grad_()
    found = losses.napo_losses(z, double(q))
    found.sum().backward()
    assert found.isfinite().all() and z.grad.isfinite().all()


def test_q_to_zero_is_dpo_and_q_one_is_mae(random, close):
    z = random(50, scale=4.0)
    close(losses.napo_losses(z, double(1e-9)), losses.dpo_losses(z), atol=1e-6)
    close(losses.napo_losses(z, double(1.0)), losses.mae_losses(z))
    close(losses.mae_losses(z), 1 - torch.sigmoid(z))


def test_at_q_is_dpo_at_zero_and_napo_above(random, close):
    z = random(20, scale=3.0)
    close(losses.at_q(double(0.0))(z), losses.dpo_losses(z))
    close(losses.at_q(double(0.3))(z), losses.napo_losses(z, double(0.3)))


def test_it_lies_between_mae_and_dpo_and_falls_with_q(random):
    z = random(50, scale=4.0)
    values = [losses.napo_losses(z, double(q)) for q in (1.0, 0.7, 0.3, 0.01)]
    values.append(losses.dpo_losses(z))
    assert all((low <= high).all() for low, high in zip(values, values[1:], strict=False))


def test_smoothing_zero_is_dpo_and_else_it_mixes_both_directions(random, close):
    z = random(20, scale=3.0)
    close(losses.cdpo_losses(z, label_smoothing=0.0), losses.dpo_losses(z))
    close(losses.cdpo_losses(z, label_smoothing=0.2), 0.8 * losses.dpo_losses(z) + 0.2 * losses.dpo_losses(-z))


def test_symmetric_losses_shrug_off_flips_and_dpo_does_not(close):
    """MAE: L(z) + L(-z) = 1 for any z, so flipped labels at a rate r only scale it by 1 - 2 r (Ghosh et al. 2017)."""
    z = double([-3.0, 0.4, 2.0])
    close(losses.mae_losses(z) + losses.mae_losses(-z), [1.0, 1.0, 1.0])
    both = losses.dpo_losses(z) + losses.dpo_losses(-z)
    assert both[2] > both[1] + 0.5


def test_plain_python_twin(random, close):
    logps, ref_logps = random(30, 4, scale=5.0), random(30, 4, scale=5.0)
    direction = torch.randint(-1, 2, (30, 2)).double()
    expected = []
    for a, b, (lb, vb) in zip(logps.tolist(), ref_logps.tolist(), direction.tolist(), strict=True):
        ratio = [x - y for x, y in zip(a, b, strict=True)]
        value = 0.2 * -log(1 / (1 + exp(-0.7 * (ratio[0] - ratio[1]))))
        for weight, side, q, other in ((0.3, lb, 0.6, ratio[2]), (0.5, vb, 0.9, ratio[3])):
            if side:
                value += weight * (1 - (1 / (1 + exp(-0.7 * side * (ratio[0] - other)))) ** q) / q
        expected.append(value)
    pairs = partial(losses.napo_losses, q=double(0.6)), partial(losses.napo_losses, q=double(0.9))
    close(losses.loss(logps, ref_logps, direction, double([0.2, 0.3, 0.5]), *pairs, beta=0.7).losses, expected)


def test_without_biased_pairs_it_is_dpo(random, close):
    logps, ref_logps = random(6, 4), random(6, 4)
    plain = dpo.loss(logps[:, :2], ref_logps[:, :2], beta=0.3).losses
    none, pair = torch.zeros(6, 2, dtype=torch.float64), losses.mae_losses
    close(losses.loss(logps, ref_logps, none, torch.ones(3).double(), pair, pair, beta=0.3).losses, plain)
    both, first = torch.ones_like(none), double([1.0, 0.0, 0.0])
    close(losses.loss(logps, ref_logps, both, first, pair, pair, beta=0.3).losses, plain)


def test_a_pair_that_is_not_there_has_no_gradient_and_no_part_in_the_mean(close):
    logps, ref_logps, direction = step()
    direction[1, 0] = 0
    logps.requires_grad_()
    pairs = losses.mae_losses, losses.mae_losses
    losses.loss(logps, ref_logps, direction, torch.ones(3), *pairs, beta=0.1).losses.sum().backward()
    assert logps.grad[1, 2] == 0 and logps.grad[0, 2] != 0
    close(margins.batch_margins(logps, ref_logps, torch.ones(2, 4), direction).summed, [3.5, 3.5, 9.0])
    direction[:] = 0
    close(margins.batch_margins(logps, ref_logps, torch.ones(2, 4), direction).summed, [3.5, 0.0, 0.0])


def test_a_flipped_pair_is_the_pair_the_other_way_round(close):
    logps, ref_logps, direction = step()
    swapped = logps.clone()
    swapped[:, 0], swapped[:, 2] = logps[:, 2], logps[:, 0]
    direction[:, 0] = -1
    weights = double([0.0, 1.0, 0.0])
    flipped = losses.loss(logps, ref_logps, direction, weights, losses.dpo_losses, losses.dpo_losses, beta=0.1).losses
    other = losses.loss(swapped, ref_logps, -direction, weights, losses.dpo_losses, losses.dpo_losses, beta=0.1).losses
    close(flipped, other)
    close(margins.batch_margins(logps, ref_logps, torch.ones(2, 4), direction).summed, [3.5, -2.75, 9.0])


def test_text_pairs_have_the_same_loss(random, close):
    logps, ref_logps = random(8, 2), random(8, 2)
    z = 0.3 * ((logps - ref_logps)[:, 0] - (logps - ref_logps)[:, 1])
    close(losses.pair_loss(logps, ref_logps, double(0.4), beta=0.3).losses, losses.napo_losses(z, double(0.4)))
    plain = dpo.loss(logps, ref_logps, beta=0.3).losses
    close(losses.pair_loss(logps, ref_logps, double(1e-9), beta=0.3).losses, plain, atol=1e-6)


def test_bad_numbers_are_refused_with_their_value():
    for q in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"q is .*must be in \(0, 1\]"):
            losses.napo_losses(torch.zeros(2), torch.tensor(q))
    for weights in ([1.0, 1.0], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0]):
        with pytest.raises(ValueError, match="give three of 0 or more"):
            margins.fixed_weights(weights)
    assert margins.fixed_weights([1, 0, 2]).tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match=r"direction \[B,2\].*\[2, 3\]"):
        losses.loss(*step()[:2], torch.ones(2, 3), torch.ones(3), losses.mae_losses, losses.mae_losses, beta=0.1)


def test_it_raises_held_out_margins(toy):
    def compute():
        return losses.pair_loss(toy.logps("train"), toy.ref_logps["train"], torch.tensor(0.5), beta=0.3).losses.mean()

    toy.fit(compute)
    good, bad = toy.logratios().T
    assert (good > bad).double().mean() > 0.9 and (good - bad).mean() > 1.0


def test_a_label_against_what_is_learnt_pulls_less_the_surer_the_model_is():
    """The slope at z = -4 (a flipped label of a learnt pair) over that at z = 0: DPO's doubles, NaPO's fades with q."""
    ratios = []
    for pair in (losses.dpo_losses, *(partial(losses.napo_losses, q=double(q)) for q in (0.3, 0.7, 1.0))):
        z = double([-4.0, 0.0]).requires_grad_()
        (slope,) = torch.autograd.grad(pair(z).sum(), z)
        ratios.append(float(slope[0] / slope[1]))
    assert ratios[0] == pytest.approx(1.964, abs=1e-3) and ratios == sorted(ratios, reverse=True) and ratios[-1] < 0.1
