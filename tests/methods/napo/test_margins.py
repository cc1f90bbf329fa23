"""What a batch's margins say: worked means, q in its bounds, weights, and that none of it carries a gradient."""

from math import exp

import pytest
import torch

from prefcore.methods.napo import margins

RATIOS = [[4.0, -2.0, 0.5, -8.0], [2.0, 1.0, 0.0, -4.0]]  # summed log-ratios of the four answers, two examples


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def step():
    """The worked step: h_l [6, 1], h_lb [3.5, 2], h_vb [12, 6]; the reference is 0, so logps are the log-ratios."""
    return double(RATIOS), torch.zeros(2, 4, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)


def test_worked_margins(close):
    """Clean (6 + 1)/2, lb (3.5 + 2)/2, vb (12 + 6)/2; per token of lb: 4/40 + 0.15 = 0.25 and 2/40 - 0.02 = 0.03."""
    logps, ref_logps, direction = step()
    lengths = double([[40.0, 10.0, 1.0, 4.0], [40.0, 5.0, 1.0, 4.0]])
    logps[:, 2] = double([-0.15, 0.02])
    close(margins.batch_margins(logps, ref_logps, lengths, direction).mean[1], 0.14)
    close(margins.batch_margins(*step()[:2], lengths, direction).summed, [3.5, 2.75, 9.0])


def test_q_falls_as_the_batch_is_learnt_and_stays_in_its_bounds(close):
    for rule, start, low in ((margins.adaptive_q, 0.5, 0.01), (margins.released_q, 1.0, 0.001)):
        values = [float(rule(double(m), alpha=1.0)) for m in (-50.0, 0.0, 1.0, 50.0)]
        assert values[1] == start and values[0] == 1.0 and values[2] < start
        close(values[3], low)


def test_statistics_are_constants_of_the_step():
    logps, ref_logps, direction = step()
    logps.requires_grad_()
    found = margins.batch_margins(logps, ref_logps, torch.ones(2, 4), direction)
    q, gamma = margins.adaptive_q(found.mean[1], alpha=0.5), margins.dynamic_weights(found.summed)
    assert not any(value.requires_grad for value in (*found, q, gamma))


@pytest.mark.parametrize("psi", [[0.0, 0.0, 0.0], [0.3, -0.1, 5.0], [1e-9, 0.0, 0.0], [-1.0, -1.0, -1.0]])
def test_no_margin_or_a_negative_one_gives_equal_weights(psi, close):
    close(margins.dynamic_weights(double(psi)), [1 / 3] * 3)


def test_dynamic_weights_are_shares_kept_above_one_in_a_hundred(close):
    close(margins.dynamic_weights(double([1.0, 2.0, 5.0])), [0.125, 0.25, 0.625])
    close(margins.dynamic_weights(double([0.0, 0.001, 10.0]))[:2], [0.01, 0.01])


def test_alpha_makes_a_typical_margin_of_the_second_half_one(close):
    """Second half 0.3, 0.5, 0.4: mean 0.4, so alpha 2.5; the first half, where nothing is learnt yet, has no part."""
    alpha = margins.choose_alpha([0.0, -0.9, 0.1, 0.3, 0.5, 0.4])
    assert alpha == pytest.approx(2.5)
    close(margins.adaptive_q(double(0.4), alpha=alpha), 1 - 1 / (1 + exp(-1)))


@pytest.mark.parametrize(
    "sizes", [[0.002, -0.002] * 12, [0.0] * 24, [0.3, -0.2, 0.1, -0.4], [-0.5] * 8, [float("nan")] * 4]
)
def test_a_margin_that_has_not_moved_gives_no_alpha(sizes):
    """The old rule took 1 / mean size whatever it was: 500 of a margin of 0.002 that went up and down."""
    with pytest.raises(ValueError, match="has not moved and gives no alpha: train for longer"):
        margins.choose_alpha(sizes)


def test_a_run_of_a_step_or_two_has_no_typical_margin():
    for sizes in ([], [1.0], [1.0, 2.0]):
        with pytest.raises(ValueError, match="have no typical margin"):
            margins.choose_alpha(sizes)
