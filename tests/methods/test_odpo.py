from math import exp, log, log1p

import pytest
import torch

from prefcore.methods import dpo, odpo

CHOSEN_SCORE = torch.tensor([7.0, 0.9, 0.6], dtype=torch.float64)
REJECTED_SCORE = torch.tensor([2.0, 0.1, 0.5], dtype=torch.float64)
GAP = CHOSEN_SCORE - REJECTED_SCORE  # [5, 0.8, 0.1]


def test_worked_log_offsets(pair_fixture, close):
    """ln [5, 0.8, 0.1] = [1.609, -0.223, -2.303]; margins [2.25, -1.5, 0.75]: log(1 + exp(1.609 - 2.25)) = 0.4233."""
    offset = odpo.offset_log(GAP, alpha=1.0)
    close(offset, [1.60943791, -0.22314355, -2.30258509])
    losses = odpo.loss(*pair_fixture, offset, beta=0.5).losses
    close(losses, [0.42330249, 1.52286671, 0.04615494])
    close(losses.mean(), 0.66410805)


def test_worked_log_offsets_at_half_strength(pair_fixture, close):
    """Half of ln gap: alpha multiplies the offset and nothing else."""
    offset = odpo.offset_log(GAP, alpha=0.5)
    close(offset, [0.80471896, -0.11157178, -1.15129255])
    losses = odpo.loss(*pair_fixture, offset, beta=0.5).losses
    close(losses, [0.21162129, 1.61114537, 0.13921868])
    close(losses.mean(), 0.65399511)


def test_worked_identity_offsets(pair_fixture, close):
    """The gaps themselves: log(1 + exp(5 - 2.25)) = 2.81196759."""
    offset = odpo.offset_identity(GAP, alpha=1.0)
    close(offset, [5.0, 0.8, 0.1])
    losses = odpo.loss(*pair_fixture, offset, beta=0.5).losses
    close(losses, [2.81196759, 2.39554546, 0.42005534])
    close(losses.mean(), 1.87585613)


def test_worked_ratio_offsets(pair_fixture, close):
    """ln [7/2, 9, 1.2] = [1.25276297, 2.19722458, 0.18232156]."""
    offset = odpo.offset_ratio(CHOSEN_SCORE, REJECTED_SCORE, alpha=1.0)
    close(offset, [1.25276297, 2.19722458, 0.18232156])
    losses = odpo.loss(*pair_fixture, offset, beta=0.5).losses
    close(losses, [0.31400551, 3.72171448, 0.44906076])
    close(losses.mean(), 1.49492692)


def test_worked_gradients(pair_fixture, close):
    """dL/dlogp(chosen) = -beta sigmoid(offset - margin), e.g. -0.5 x sigmoid(1.609 - 2.25) = -0.17255974."""
    logps, ref_logps = pair_fixture
    odpo.loss(logps, ref_logps, odpo.offset_log(GAP, alpha=1.0), beta=0.5).losses.sum().backward()
    close(logps.grad[:, 0], [-0.17255974, -0.39095710, -0.02255300])
    close(logps.grad[:, 1], [0.17255974, 0.39095710, 0.02255300])


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_gradients_are_right_at_any_scale_and_raise_chosen(random, scale):
    logps, ref_logps, offset = random(5, 2, scale=scale).requires_grad_(), random(5, 2), random(5, scale=scale)
    assert torch.autograd.gradcheck(lambda x: odpo.loss(x, ref_logps, offset, beta=0.3).losses, logps)
    odpo.loss(logps, ref_logps, offset, beta=0.3).losses.sum().backward()
    assert (logps.grad[:, 0] < 0).all() and (logps.grad[:, 1] > 0).all()


def test_plain_python_twin(random, close):
    logps, ref_logps = random(40, 2, scale=5.0), random(40, 2, scale=5.0)
    gap = random(40).abs() + 0.01
    expected = []
    for (c, r), (ref_c, ref_r), g in zip(logps.tolist(), ref_logps.tolist(), gap.tolist(), strict=True):
        expected.append(log1p(exp(-(0.7 * ((c - ref_c) - (r - ref_r)) - 1.3 * log(g)))))
    close(odpo.loss(logps, ref_logps, odpo.offset_log(gap, alpha=1.3), beta=0.7).losses, expected)


def test_offset_zero_is_dpo(pair_fixture, close):
    for offset in (torch.zeros(3), odpo.offset_log(GAP, alpha=0.0), odpo.offset_log(torch.ones(3), alpha=2.0)):
        output = odpo.loss(*pair_fixture, offset, beta=0.5)
        plain = dpo.loss(*pair_fixture, beta=0.5)
        close(output.losses, plain.losses)
        close(output.rewards, plain.rewards)


def test_beta_does_not_touch_the_offset(close):
    """Policy = reference: the loss is log(1 + exp(offset)) whatever beta is."""
    logps, offset = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([1.0, -2.0], dtype=torch.float64)
    for beta in (0.05, 0.7):
        close(odpo.loss(logps, logps, offset, beta=beta).losses, [log1p(exp(1.0)), log1p(exp(-2.0))])


def test_a_greater_offset_pulls_harder(pair_fixture):
    logps, ref_logps = pair_fixture
    pulls = []
    for size in (-1.0, 0.0, 1.0, 3.0):
        (gradient,) = torch.autograd.grad(
            odpo.loss(logps, ref_logps, torch.full((3,), size), beta=0.5).losses.sum(), logps)
        pulls.append(-gradient[:, 0])
    assert all((weak < strong).all() for weak, strong in zip(pulls, pulls[1:], strict=False))


def test_it_is_the_chance_that_noisy_rewards_differ_by_the_offset(close):
    """Rewards 1.2 and 0.4 with standard Gumbel noise each: P(difference > 0.5) = sigmoid(0.8 - 0.5) = 0.5744."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(2, 400_000, generator=generator, dtype=torch.float64)
    noise = -torch.log(-torch.log(uniform))
    share = ((1.2 + noise[0]) - (0.4 + noise[1]) > 0.5).double().mean()
    offset = torch.tensor([0.5], dtype=torch.float64)
    logps = torch.tensor([[1.2, 0.4]], dtype=torch.float64)
    close(share, odpo.loss(logps, torch.zeros_like(logps), offset, beta=1.0).losses.neg().exp()[0], atol=0.003)


def test_log_makes_gaps_below_one_negative_and_the_others_never_are():
    small = torch.tensor([0.001, 0.5, 0.999])
    assert (odpo.offset_log(small, alpha=1.0) < 0).all()
    assert (odpo.offset_identity(small, alpha=1.0) > 0).all()
    assert (odpo.offset_ratio(1 + small, torch.ones(3), alpha=1.0) > 0).all()


def test_ratio_ignores_the_unit_of_scores_and_identity_follows_it(close):
    ratio = odpo.offset_ratio(CHOSEN_SCORE, REJECTED_SCORE, alpha=1.0)
    close(odpo.offset_ratio(10 * CHOSEN_SCORE, 10 * REJECTED_SCORE, alpha=1.0), ratio)
    close(odpo.offset_identity(10 * GAP, alpha=1.0), 10 * odpo.offset_identity(GAP, alpha=1.0))
    close(odpo.offset_log(10 * GAP, alpha=1.0), odpo.offset_log(GAP, alpha=1.0) + log(10))


@pytest.mark.parametrize("offset", [odpo.offset_log, odpo.offset_identity])
@pytest.mark.parametrize("bad", [0.0, -0.25, float("nan"), float("inf")])
def test_ties_and_swapped_scores_raise_with_value_and_row(offset, bad):
    with pytest.raises(ValueError, match=rf"gaps \[{bad}\] in rows \[1\].*drop ties"):
        offset(torch.tensor([1.0, bad, 2.0]), alpha=0.0)


def test_ratio_refuses_ties_swaps_and_scores_that_are_not_positive():
    with pytest.raises(ValueError, match=r"gaps \[0\.0, -1\.0\] in rows \[0, 2\]"):
        odpo.offset_ratio(torch.tensor([2.0, 3.0, 1.0]), torch.tensor([2.0, 1.0, 2.0]), alpha=1.0)
    with pytest.raises(ValueError, match=r"positive scores.*\[-2\.0, 0\.0\]"):
        odpo.offset_ratio(torch.tensor([-1.0, 3.0, 1.0]), torch.tensor([-2.0, 1.0, 0.0]), alpha=1.0)


def test_shapes_that_do_not_agree_raise(pair_fixture):
    with pytest.raises(ValueError, match=r"offset \[B\].*\[3, 1\]"):
        odpo.loss(*pair_fixture, torch.zeros(3, 1), beta=0.5)
    with pytest.raises(ValueError, match=r"gap \[B\]"):
        odpo.offset_log(torch.ones(3, 1), alpha=1.0)
    with pytest.raises(ValueError, match=r"rejected_score \[B\]"):
        odpo.offset_ratio(torch.ones(3), torch.ones(3, 1), alpha=1.0)


def test_a_batch_of_one_is_a_row_of_the_batch(pair_fixture, close):
    (logps, ref_logps), offset = pair_fixture, odpo.offset_log(GAP, alpha=1.0)
    whole = odpo.loss(logps, ref_logps, offset, beta=0.5).losses
    for i in range(3):
        alone = odpo.loss(logps[i:i + 1], ref_logps[i:i + 1], offset[i:i + 1], beta=0.5).losses
        close(alone, whole[i:i + 1])


def test_offsets_and_rewards_carry_no_gradient(pair_fixture):
    offset = torch.ones(3, dtype=torch.float64, requires_grad=True)
    losses, rewards = odpo.loss(*pair_fixture, offset, beta=0.5)
    losses.sum().backward()
    assert offset.grad is None and not rewards.requires_grad


def test_it_raises_held_out_margins_more_with_a_greater_offset(toy):
    state = {name: value.clone() for name, value in toy.policy.state_dict().items()}
    margins = []
    for size in (0.0, 3.0):
        toy.policy.load_state_dict(state)

        def compute(size=size):
            offset = torch.full((toy.n,), size)
            return odpo.loss(toy.logps("train"), toy.ref_logps["train"], offset, beta=0.5).losses.mean()

        toy.fit(compute)
        good, bad = toy.logratios().T
        assert (good > bad).double().mean() > 0.9
        margins.append((good - bad).mean().item())
    assert 1.0 < margins[0] < margins[1]
