from math import exp, log, log1p

import pytest
import torch

from prefcore.methods import dpo


def test_worked_numbers(pair_fixture, close):
    """beta 0.5: margins 0.5 x [4.5, -3, 1.5] = [2.25, -1.5, 0.75]; log(1 + exp(-2.25)) = 0.10020656, and so on.

    Rewards are 0.5 x the log-ratios: chosen 0.5 x [3, -1.5, 0.8], rejected 0.5 x [-1.5, 1.5, -0.7].
    """
    losses, rewards = dpo.loss(*pair_fixture, beta=0.5)
    close(losses, [0.10020656, 1.70141328, 0.38687101])
    close(losses.mean(), 0.72949695)
    close(rewards, [[1.5, -0.75], [-0.75, 0.75], [0.4, -0.35]])


def test_worked_gradients(pair_fixture, close):
    """dL/dlogp(chosen) = -beta sigmoid(-margin): -0.5 x sigmoid([-2.25, 1.5, -0.75]); rejected: its opposite."""
    logps, ref_logps = pair_fixture
    dpo.loss(logps, ref_logps, beta=0.5).losses.sum().backward()
    chosen = [-0.5 / (1 + exp(margin)) for margin in (2.25, -1.5, 0.75)]
    close(chosen, [-0.04767473, -0.40878724, -0.16041065])
    close(logps.grad[:, 0], chosen)
    close(logps.grad[:, 1], [-g for g in chosen])


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_gradients_are_right_at_any_scale_and_raise_chosen(random, scale):
    logps, ref_logps = random(5, 2, scale=scale).requires_grad_(), random(5, 2, scale=scale)
    assert torch.autograd.gradcheck(lambda x: dpo.loss(x, ref_logps, beta=0.3).losses, logps)
    dpo.loss(logps, ref_logps, beta=0.3).losses.sum().backward()
    assert (logps.grad[:, 0] < 0).all() and (logps.grad[:, 1] > 0).all()


def test_plain_python_twin(random, close):
    logps, ref_logps = random(40, 2, scale=5.0), random(40, 2, scale=5.0)
    expected = []
    for (chosen, rejected), (ref_chosen, ref_rejected) in zip(logps.tolist(), ref_logps.tolist(), strict=True):
        margin = 0.7 * ((chosen - ref_chosen) - (rejected - ref_rejected))
        expected.append(log1p(exp(-margin)))
    close(dpo.loss(logps, ref_logps, beta=0.7).losses, expected)


def test_policy_equal_to_reference_costs_log_2(random, close):
    logps = random(4, 2, scale=50.0)
    losses, rewards = dpo.loss(logps, logps.clone(), beta=0.1)
    close(losses, [log(2)] * 4)
    close(rewards, torch.zeros(4, 2))


def test_huge_margins_stay_finite():
    logps = torch.tensor([[0.0, -1e4], [-1e4, 0.0]], dtype=torch.float64, requires_grad=True)
    losses = dpo.loss(logps, torch.zeros(2, 2, dtype=torch.float64), beta=1.0).losses
    losses.sum().backward()
    assert losses.tolist() == [0.0, 1e4]
    assert logps.grad.tolist() == [[0.0, 0.0], [-1.0, 1.0]]


def test_swapping_a_pair_adds_its_margin(pair_fixture, close):
    """log(1 + e^m) - log(1 + e^-m) = m: the arguments cannot be swapped unseen."""
    logps, ref_logps = pair_fixture
    right = dpo.loss(logps, ref_logps, beta=0.5).losses
    close(dpo.loss(logps.flip(1), ref_logps.flip(1), beta=0.5).losses - right, [2.25, -1.5, 0.75])


def test_weights_scale_losses_and_are_constants(pair_fixture, close):
    logps, ref_logps = pair_fixture
    weight = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64, requires_grad=True)
    losses = dpo.weighted_loss(logps, ref_logps, weight, beta=0.5).losses
    close(losses, [2 * 0.10020656, 0.0, 0.5 * 0.38687101])
    losses.sum().backward()
    assert weight.grad is None
    assert logps.grad[1].tolist() == [0.0, 0.0]


def test_conservative_without_smoothing_is_dpo(pair_fixture, close):
    smooth = dpo.conservative_loss(*pair_fixture, beta=0.5, label_smoothing=0.0)
    close(smooth.losses, dpo.loss(*pair_fixture, beta=0.5).losses)


def test_conservative_worked_numbers(pair_fixture, close):
    """Smoothing 0.1 adds 0.1 x margin: [0.10020656 + 0.225, 1.70141328 - 0.15, 0.38687101 + 0.075]."""
    smooth = dpo.conservative_loss(*pair_fixture, beta=0.5, label_smoothing=0.1)
    close(smooth.losses, [0.32520656, 1.55141328, 0.46187101])


def test_conservative_has_a_finite_target(close):
    """The gradient vanishes where margin = logit(0.9) = 2.19722458."""
    logps = torch.tensor([[log(9), 0.0]], dtype=torch.float64, requires_grad=True)
    dpo.conservative_loss(logps, torch.zeros_like(logps), beta=1.0, label_smoothing=0.1).losses.sum().backward()
    close(logps.grad, [[0.0, 0.0]])


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, 1.0, float("nan")])
def test_smoothing_out_of_range_raises(pair_fixture, smoothing):
    with pytest.raises(ValueError, match=str(smoothing)):
        dpo.conservative_loss(*pair_fixture, beta=0.5, label_smoothing=smoothing)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (4, 2), (2, 3)])
def test_shapes_that_do_not_agree_raise(pair_fixture, shape):
    with pytest.raises(ValueError, match=r"ref_logps \[B,2\]"):
        dpo.loss(pair_fixture[0], torch.zeros(shape), beta=0.5)
    with pytest.raises(ValueError, match=r"weight \[B\]"):
        dpo.weighted_loss(*pair_fixture, torch.zeros(3, 1), beta=0.5)


def test_a_batch_of_one_is_a_row_of_the_batch(pair_fixture, close):
    logps, ref_logps = pair_fixture
    whole = dpo.loss(logps, ref_logps, beta=0.5)
    for i in range(3):
        alone = dpo.loss(logps[i:i + 1], ref_logps[i:i + 1], beta=0.5)
        close(alone.losses, whole.losses[i:i + 1])


def test_rewards_carry_no_gradient(pair_fixture):
    losses, rewards = dpo.loss(*pair_fixture, beta=0.5)
    assert losses.requires_grad and not rewards.requires_grad


def test_it_raises_held_out_margins(toy):
    def compute():
        return dpo.loss(toy.logps("train"), toy.ref_logps["train"], beta=0.1).losses.mean()

    assert toy.logratios().abs().max() == 0
    values = toy.fit(compute)
    assert values[-1] < values[0]
    good, bad = toy.logratios().T
    assert (good > bad).double().mean() > 0.9
    assert (good - bad).mean() > 1.0
