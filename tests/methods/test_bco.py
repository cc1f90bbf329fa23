from collections import Counter
from math import exp, log1p

import numpy as np
import pytest
import torch

from prefcore.data.types import Ranked
from prefcore.methods import bco

BETA = 0.1
FIRST = [0.3, 0.15, 0.08, -0.3], [1.0, 0.0, 1.0, 0.0]  # rewards and labels of two batches in a row
SECOND = [0.2, -0.1, -0.2, 0.05], [1.0, 0.0, 0.0, 0.0]


def batch(rewards, label):
    """Log-probabilities with the wanted rewards, over a reference of all -50; and the labels."""
    rewards = torch.tensor(rewards, dtype=torch.float64)[:, None]
    ref_logps = torch.full_like(rewards, -50.0)
    return (ref_logps + rewards / BETA).requires_grad_(), ref_logps, torch.tensor(label)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def column(rewards):
    return number(rewards)[:, None]


def test_worked_cumulative_shift(close):
    """Batch 1: (0.3 + 0.15 + 0.08 - 0.3) / 4 = 0.0575; with batch 2: (0.23 - 0.05) / 8 = 0.0225."""
    total, count = bco.update_cumulative(number(0.0), number(0.0), column(FIRST[0]))
    close(total / count, 0.0575)
    total, count = bco.update_cumulative(total, count, column(SECOND[0]))
    close(total / count, 0.0225)
    assert count == 8


def test_worked_pooled_losses(close):
    """Update first, then use: batch 1 with 0.0575, so log(1 + exp(-(0.3 - 0.0575))) = 0.57923; batch 2 with 0.0225."""
    first = bco.pooled_loss(*batch(*FIRST), number(0.0575), torch.ones(4), beta=BETA)
    close(first.losses, [0.57923002, 0.74046633, 0.68196046, 0.53028860])  # our rows are in the order +, -, +, -
    close(first.losses.mean(), 0.63298635)
    close(first.rewards, column(FIRST[0]))
    second = bco.pooled_loss(*batch(*SECOND), number(0.0225), torch.ones(4), beta=BETA).losses
    close(second, [0.60833030, 0.63377179, 0.58807274, 0.70699171])
    close(second.mean(), 0.63429164)


def test_worked_density_ratio_losses(close):
    """p = [0.2, 0.5, 0.95] on the thumbs-down rows: ratios [0.25, 1, 19], clipped to [0.5, 10]."""
    weight = bco.density_ratio_weights(number([0.9, 0.2, 0.5, 0.95]), minimum=0.5, maximum=10.0)
    close(weight[1:], [0.5, 0.99999998, 10.0], atol=1e-9)
    close(bco.density_ratio_weights(number([0.0, 1.0]), minimum=0.5, maximum=10.0), [0.5, 10.0])
    losses = bco.pooled_loss(*batch(*SECOND), number(0.0225), weight, beta=BETA).losses
    close(losses, [0.60833030, 0.31688590, 0.58807273, 7.06991709])  # the first row's weight of 9 is not read
    close(losses.mean(), 2.14580150)


def test_worked_class_means(close):
    """Shift (0.2 + mean[-0.1, -0.2, 0.05]) / 2 = 0.05833333, where the pooled mean of rewards would be -0.0125.

    E+ 0.62482043 (one row) + E- 0.62613319 (mean of three) = 1.25095362: the mean of the returned losses.
    """
    shift = bco.class_mean_shift(column(SECOND[0]), number(SECOND[1]))
    close(shift, 0.05833333)
    losses = bco.loss(*batch(*SECOND), shift, torch.ones(4), beta=BETA).losses
    close(losses[0] / 4, 0.62482043)
    close(losses[1:].sum() / 4, 0.62613319)
    close(losses.mean(), 1.25095362)


def test_worked_ema(close):
    """0.9 x 0.0575 + 0.1 x 0.05833333 = 0.05758333. The start is batch 1's class-mean shift, (0.19 - 0.075) / 2."""
    start = bco.class_mean_shift(column(FIRST[0]), number(FIRST[1]))
    close(start, 0.0575)
    new = bco.class_mean_shift(column(SECOND[0]), number(SECOND[1]))
    close(bco.update_ema(start, new, decay=0.9), 0.05758333)


def test_worked_cross_entropy_without_shift(close):
    """Shift 0 is plain binary cross-entropy: log(1 + exp(-0.2)) = 0.59813887, and so on."""
    losses = bco.pooled_loss(*batch(*SECOND), number(0.0), torch.ones(4), beta=BETA).losses
    close(losses, [0.59813887, 0.64439666, 0.59813887, 0.71845965])
    close(losses.mean(), 0.63978351)


def test_worked_gradients(close):
    """Thumbs-up: -beta sigmoid(shift - r) = -0.1 x sigmoid(0.0575 - 0.3) = -0.04396704; down: + and r - shift."""
    logps, ref_logps, label = batch(*FIRST)
    bco.pooled_loss(logps, ref_logps, label, number(0.0575), torch.ones(4), beta=BETA).losses.sum().backward()
    close(logps.grad[:, 0], [-0.04396704, 0.05231085, -0.04943752, 0.04115650])


@pytest.mark.parametrize("form", [bco.loss, bco.pooled_loss])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_gradients_are_right_at_any_scale_and_follow_the_label(form, random, scale):
    logps, ref_logps = random(5, 1, scale=scale).requires_grad_(), random(5, 1, scale=scale)
    label, weight = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0]), random(5).abs() + 0.1

    def losses(x):
        return form(x, ref_logps, label, number(0.2), weight, beta=0.3).losses

    assert torch.autograd.gradcheck(losses, logps)
    losses(logps).sum().backward()
    assert (logps.grad[:, 0].sign() == 1 - 2 * label).all()


def test_plain_python_twin(random, close):
    logps, ref_logps = random(40, 1, scale=3.0), random(40, 1, scale=3.0)
    label, prob = (random(40) > 0.5).double(), random(40).sigmoid()
    sides, terms, pooled = {0.0: [], 1.0: []}, {0.0: [], 1.0: []}, []
    rewards = [0.7 * (p - q) for (p,), (q,) in zip(logps.tolist(), ref_logps.tolist(), strict=True)]
    for reward, up in zip(rewards, label.tolist(), strict=True):
        sides[up].append(reward)
    assert len(sides[0.0]) > len(sides[1.0]) > 0
    shift = sum(sum(side) / len(side) for side in sides.values()) / 2
    for reward, up, p in zip(rewards, label.tolist(), prob.tolist(), strict=True):
        ratio = 1.0 if up else min(max(p / (1 - p), 0.5), 2.0)
        pooled.append(ratio * log1p(exp(-(reward - shift) if up else reward - shift)))
        terms[up].append(pooled[-1])
    class_means = sum(sum(side) / len(side) for side in terms.values())

    weight = bco.density_ratio_weights(prob, minimum=0.5, maximum=2.0)
    new = bco.class_mean_shift(0.7 * (logps - ref_logps), label)
    close(new, shift)
    close(bco.pooled_loss(logps, ref_logps, label, new, weight, beta=0.7).losses, pooled)
    close(bco.loss(logps, ref_logps, label, new, weight, beta=0.7).losses.mean(), class_means)


def test_adding_a_constant_to_rewards_and_shift_changes_nothing(close):
    logps, ref_logps, label = batch(*SECOND)
    for form in (bco.loss, bco.pooled_loss):
        plain = form(logps, ref_logps, label, number(0.02), torch.ones(4), beta=BETA).losses
        close(form(logps + 0.7 / BETA, ref_logps, label, number(0.72), torch.ones(4), beta=BETA).losses, plain)
    for constant in (-5.0, 5.0):  # the shift follows, and is not clamped at 0
        close(bco.class_mean_shift(column(SECOND[0]) + constant, number(SECOND[1])), 0.05833333 + constant)


def test_class_means_ignore_how_many_rows_a_class_has(close):
    """Every thumbs-down row three times over: the ACL form is unchanged, the pooled one is not."""
    more, more_label = FIRST[0] + [0.15, -0.3] * 2, FIRST[1] + [0.0] * 4
    for form, same in ((bco.loss, True), (bco.pooled_loss, False)):
        once = form(*batch(*FIRST), number(0.1), torch.ones(4), beta=BETA).losses.mean()
        thrice = form(*batch(more, more_label), number(0.1), torch.ones(8), beta=BETA).losses.mean()
        assert torch.isclose(once, thrice, rtol=0, atol=1e-12).item() == same


def test_hard_examples_keep_their_gradient():
    """Where KTO's gradient vanishes, BCO's is at its greatest: beta."""
    logps = torch.tensor([[-1e5], [1e5]], dtype=torch.float64, requires_grad=True)
    args = logps, torch.zeros_like(logps), torch.tensor([1.0, 0.0]), number(0.0), torch.ones(2)
    losses = bco.pooled_loss(*args, beta=0.5).losses
    losses.sum().backward()
    assert losses.isfinite().all() and logps.grad[:, 0].tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("form", [bco.loss, bco.pooled_loss])
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_of_one_class_or_one_row_is_finite(form, random, label, size, close):
    logps, ref_logps = random(size, 1).requires_grad_(), random(size, 1)
    args = (torch.full((size,), label), number(0.0), torch.ones(size))
    losses = form(logps, ref_logps, *args, beta=0.1).losses
    losses.mean().backward()
    assert losses.isfinite().all() and (logps.grad != 0).all()
    close(losses, bco.pooled_loss(logps, ref_logps, *args, beta=0.1).losses)


def test_batches_of_one_class_have_no_shift_and_keep_the_old_one():
    for label in (0.0, 1.0):
        assert bco.class_mean_shift(torch.ones(3, 1), torch.full((3,), label)) is None
    assert bco.update_ema(number(0.3), None, decay=0.9) == 0.3


def test_class_averages_equal_the_ema_of_the_shift_while_both_classes_are_there(random, close):
    up, down, shift = number(0.0), number(0.0), number(0.0)
    label = torch.tensor([1.0, 0.0, 0.0])
    for _ in range(5):
        rewards = random(3, 1)
        up, down = bco.update_class_means(up, down, rewards, label, decay=0.8)
        shift = bco.update_ema(shift, bco.class_mean_shift(rewards, label), decay=0.8)
        close((up + down) / 2, shift)


def test_class_averages_learn_from_batches_of_one_row(close):
    """Rows 1 (up), -3 (down), again and again: up tends to 1, down to -3, the shift to -1."""
    up = down = number(0.0)
    assert bco.update_class_means(up, down, column([1.0]), number([1.0]), decay=0.5) == (0.5, 0.0)
    for _ in range(40):
        up, down = bco.update_class_means(up, down, column([1.0]), number([1.0]), decay=0.5)
        up, down = bco.update_class_means(up, down, column([-3.0]), number([0.0]), decay=0.5)
    close([up, down, (up + down) / 2], [1.0, -3.0, -1.0])


def test_constants_carry_no_gradient(random):
    logps, ref_logps, label = batch(*FIRST)
    rewards = BETA * (logps - ref_logps)
    zero, prob = number(0.0), random(4).sigmoid().requires_grad_()
    for statistic in (bco.class_mean_shift(rewards, label), *bco.update_cumulative(zero, zero, rewards),
                      *bco.update_class_means(zero, zero, rewards, label, decay=0.9),
                      bco.density_ratio_weights(prob, minimum=0.5, maximum=10.0),
                      bco.update_ema(zero, rewards.mean(), decay=0.9)):
        assert not statistic.requires_grad
    shift, weight = number(0.1).requires_grad_(), torch.ones(4, requires_grad=True)
    for form in (bco.loss, bco.pooled_loss):
        losses, rewards = form(logps, ref_logps, label, shift, weight, beta=BETA)
        losses.sum().backward()
        assert shift.grad is None and weight.grad is None and not rewards.requires_grad


def test_a_weight_missing_on_thumbs_up_rows_is_not_read():
    logps, ref_logps, label = batch(*SECOND)
    bco.loss(logps, ref_logps, label, number(0.0), number([float("nan"), 1, 1, 1]), beta=BETA).losses.mean().backward()
    assert logps.grad.isfinite().all()


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_a_decay_or_probability_that_is_none_raises(bad):
    for decay in (bad, 1.0):
        with pytest.raises(ValueError, match=str(decay)):
            bco.update_ema(number(0.0), number(1.0), decay=decay)
    with pytest.raises(ValueError, match=str(bad)):
        bco.density_ratio_weights(number([0.5, bad]), minimum=0.5, maximum=10.0)


@pytest.mark.parametrize("form", [bco.loss, bco.pooled_loss])
def test_shapes_that_do_not_agree_and_labels_that_are_none_raise(form):
    logps, ref_logps, label = batch(*FIRST)
    shift, weight = number(0.0), torch.ones(4)
    for wrong in (
        (logps[:, 0], ref_logps, label, shift, weight), (logps, ref_logps, label[:, None], shift, weight),
        (logps, ref_logps, label, shift.expand(4), weight), (logps, ref_logps, label, shift, weight[:, None]),
    ):
        with pytest.raises(ValueError, match=r"weight \[B\]; got"):
            form(*wrong, beta=BETA)
    with pytest.raises(ValueError, match=r"0 or 1; got \[0.5\]"):
        form(logps, ref_logps, torch.tensor([1.0, 0.5, 0.0, 0.0]), shift, weight, beta=BETA)


def test_shapes_of_statistics_that_do_not_agree_raise():
    zero, label, wide = number(0.0), torch.tensor([1.0, 0.0]), torch.zeros(2, 2)
    for call in (
        lambda: bco.class_mean_shift(wide[:, 0], label),
        lambda: bco.update_ema(zero, wide[:, 0], decay=0.9),
        lambda: bco.update_class_means(zero, zero, wide, label, decay=0.9),
        lambda: bco.update_cumulative(zero, zero, wide),
        lambda: bco.density_ratio_weights(wide, minimum=0.5, maximum=10.0),
    ):
        with pytest.raises(ValueError, match="expected .*; got, in this order"):
            call()


@pytest.fixture
def prompts():
    """300 thumbs-up prompts around +1 and 60 thumbs-down ones around -1, in two dimensions."""
    generator = np.random.default_rng(0)
    labels = np.repeat([1, 0], [300, 60])
    return generator.normal(size=(360, 2)) + (2 * labels - 1)[:, None], labels


def test_the_classifier_recovers_the_density_ratio(prompts):
    """Unit Gaussians at +1 and -1 in two dimensions: the log density ratio is 2 (x + y), whatever the class counts."""
    classifier = bco.fit_prompt_classifier(*prompts, seed=0, sample_size=1024)
    np.testing.assert_allclose(classifier.coef_[0], [2, 2], atol=0.6)
    np.testing.assert_allclose(classifier.intercept_, 0, atol=0.6)
    prob = torch.tensor(classifier.predict_proba([[1, 1], [0, 0], [-1, -1]])[:, 1])
    weight = bco.density_ratio_weights(prob, minimum=0.5, maximum=10.0)
    assert weight[0] == 10.0 and 0.5 < weight[1] < 2 and weight[2] == 0.5


def test_the_classifier_is_a_function_of_its_seed(prompts):
    """And of its data, be they arrays or tensors, labels numbers or booleans."""
    def fit(embeddings, labels, seed):
        return bco.fit_prompt_classifier(embeddings, labels, seed=seed, sample_size=50).coef_.tolist()

    as_tensors = torch.tensor(prompts[0]), torch.tensor(prompts[1]).bool()
    assert fit(*prompts, 1) == fit(*as_tensors, 1) != fit(*prompts, 2)


def test_the_classifier_needs_both_classes_and_one_label_per_prompt(prompts):
    where, labels = prompts
    for wrong in (where, 0 * labels), (where, labels[1:]), (where[:, 0], labels), (where, labels / 2):
        with pytest.raises(ValueError, match="both 0 and 1"):
            bco.fit_prompt_classifier(*wrong, seed=0, sample_size=8)


@pytest.mark.parametrize("form", [bco.loss, bco.pooled_loss])
def test_it_separates_held_out_answers(toy, form):
    shifts = [number(0.0)]

    def compute():
        logps, ref_logps, label = toy.rows()
        new = bco.class_mean_shift(0.1 * (logps - ref_logps), label)
        shifts.append(bco.update_ema(shifts[-1], new, decay=0.5))
        return form(logps, ref_logps, label, shifts[-1], torch.ones(len(label)), beta=0.1).losses.mean()

    values = toy.fit(compute)
    assert values[-1] < 0.9 * values[0]
    assert shifts[-1] != 0 and toy.auc() > 0.9


# --- the mixture of two domains -------------------------------------------------------------------------------------


def rated(domain, n, scores=(3.0, 2.0, 1.0, 0.0)):
    """n prompts of a domain, each with four answers whose texts say their places."""
    texts = tuple(f"{i}" for i in range(len(scores)))
    ends = (True,) * len(scores)
    return [Ranked(f"{domain}{i}", f"{domain} prompt {i}", texts, scores, ends, domain) for i in range(n)]


MIXING = {"up_domain": "film", "down_domain": "shop", "share": 0.8}


def test_four_of_five_thumbs_up_are_of_one_domain_and_four_of_five_thumbs_down_of_the_other():
    rows = bco.draw_mixture(rated("film", 60) + rated("shop", 60) + rated("tweet", 60), 40, 0, **MIXING)
    counts = Counter((row.prompt.split()[0], row.label) for row in rows)
    assert counts == {("film", True): 16, ("film", False): 4, ("shop", True): 4, ("shop", False): 16}
    assert len({row.prompt for row in rows}) == 40 and rows != bco.draw_mixture(
        rated("film", 60) + rated("shop", 60), 40, 1, **MIXING
    )


def test_where_prompts_are_few_one_gives_two_rows_of_different_answers():
    rows = bco.draw_mixture(rated("film", 10) + rated("shop", 10), 40, 0, **MIXING)
    assert len(rows) == 40 and len({(row.prompt, row.completion) for row in rows}) == 40
    assert max(Counter(row.prompt for row in rows).values()) == 2


def test_a_mixture_that_cannot_be_drawn_says_why():
    with pytest.raises(ValueError, match="20 rows of the domain 'shop' are wanted, and its prompts make 10 pairs"):
        bco.draw_mixture(rated("film", 60) + rated("shop", 5), 40, 0, **MIXING)
    with pytest.raises(ValueError, match="an even number of rows"):
        bco.draw_mixture(rated("film", 60), 7, 0, **MIXING)


def test_weights_change_which_thumbs_down_count_and_not_how_much_they_do_together(close):
    weights = bco.normalise_weights(number([9.0, 4.0, 0.25, 0.25]), number([1.0, 0.0, 0.0, 0.0]))
    close(weights, [1.0, 8 / 3, 1 / 6, 1 / 6])
    with pytest.raises(ValueError, match="no thumbs-down row"):
        bco.normalise_weights(number([1.0]), number([1.0]))
