from math import exp

import pytest
import torch

from prefcore.methods import kto

LABEL = torch.tensor([1.0, 0.0, 1.0, 0.0])
KL = torch.tensor(0.6, dtype=torch.float64)
ONES = {"desirable_weight": 1.0, "undesirable_weight": 1.0}


@pytest.fixture
def rows():
    """Log-ratios [3, 1.5, 0.8, -3]; labels up, down, up, down."""
    logps = torch.tensor([[-42.0], [-58.0], [-30.2], [-50.0]], dtype=torch.float64, requires_grad=True)
    return logps, torch.tensor([[-45.0], [-59.5], [-31.0], [-47.0]], dtype=torch.float64), LABEL


@pytest.fixture
def mismatches():
    """Policy - reference of four prompts with other prompts' answers: [0.5, 1.2, -0.4, 1.1], mean 0.6."""
    return (torch.tensor([-70.0, -66.0, -55.0, -80.0], dtype=torch.float64),
            torch.tensor([-70.5, -67.2, -54.6, -81.1], dtype=torch.float64))


def test_worked_kl(mismatches, close):
    """(0.5 + 1.2 - 0.4 + 1.1) / 4 = 0.6; negated, the mean is -0.6 and is clamped to 0."""
    policy, reference = mismatches
    close(kto.kl_estimate(policy, reference), 0.6)
    close(kto.kl_estimate(reference, policy), 0.0)


def test_worked_numbers(rows, close):
    """beta 0.1: rewards - z = 0.1 x ([3, 1.5, 0.8, -3] - 0.6) = [0.24, 0.09, 0.02, -0.36].

    Losses sigmoid([-0.24, 0.09, -0.02, -0.36]): the sign is turned for desirable rows.
    """
    losses, rewards = kto.loss(*rows, KL, beta=0.1, **ONES)
    close(losses, [0.44028635, 0.52248482, 0.49500017, 0.41095957])
    close(losses.mean(), 0.46718273)
    close(rewards, [[0.3], [0.15], [0.08], [-0.3]])


def test_worked_gradients(rows, close):
    """-beta s (1 - s) for desirable rows, + for the others: 0.1 x 0.44028635 x 0.55971365 = 0.02464343."""
    kto.loss(*rows, KL, beta=0.1, **ONES).losses.sum().backward()
    close(rows[0].grad[:, 0], [-0.02464343, 0.02494944, -0.02499750, 0.02420718])


def test_worked_weights(rows, close):
    """lambda_D 1.33 multiplies rows 0 and 2, losses and gradients alike: 1.33 x 0.44028635 = 0.58558085."""
    losses = kto.loss(*rows, KL, beta=0.1, desirable_weight=1.33, undesirable_weight=1.0).losses
    close(losses, [0.58558085, 0.52248482, 0.65835022, 0.41095957])
    close(losses.mean(), 0.54434386)
    losses.sum().backward()
    close(rows[0].grad[:, 0], [-0.03277576, 0.02494944, -0.03324668, 0.02420718])


def test_without_kl_it_is_a_sigmoid_loss_of_single_answers(rows, close):
    """KL 0 (unpaired APO-zero): 1 - sigmoid(r) for desirable, sigmoid(r) else; r = [0.3, 0.15, 0.08, -0.3]."""
    losses, rewards = kto.loss(*rows, torch.tensor(0.0), beta=0.1, **ONES)
    close(losses, [0.42555748, 0.53742985, 0.48001066, 0.42555748])
    close(losses.mean(), 0.46713887)
    close(losses, torch.where(LABEL == 1, 1 - rewards[:, 0].sigmoid(), rewards[:, 0].sigmoid()))
    losses.sum().backward()
    close(rows[0].grad[:, 0], [-0.02444583, 0.02485990, -0.02496004, 0.02444583])


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_gradients_are_right_at_any_scale_and_follow_the_label(random, scale):
    logps, ref_logps = random(4, 1, scale=scale).requires_grad_(), random(4, 1, scale=scale)

    def losses(x):
        return kto.loss(x, ref_logps, LABEL, KL, beta=0.3, desirable_weight=1.2, undesirable_weight=0.7).losses

    assert torch.autograd.gradcheck(losses, logps)
    losses(logps).sum().backward()
    assert (logps.grad[:, 0].sign() == 1 - 2 * LABEL).all()


def test_plain_python_twin(random, close):
    logps, ref_logps = random(40, 1, scale=5.0), random(40, 1, scale=5.0)
    label = (random(40) > 0).double()
    policy, reference = random(9), random(9) - 0.5
    kl = max(0.0, sum(p - q for p, q in zip(policy.tolist(), reference.tolist(), strict=True)) / 9)
    assert kl > 0
    expected = []
    for (logp,), (ref_logp,), up in zip(logps.tolist(), ref_logps.tolist(), label.tolist(), strict=True):
        reward, reference_point = 0.7 * (logp - ref_logp), 0.7 * kl
        if up:
            expected.append(1.5 * (1 - 1 / (1 + exp(-(reward - reference_point)))))
        else:
            expected.append(0.5 * (1 - 1 / (1 + exp(-(reference_point - reward)))))
    found = kto.loss(logps, ref_logps, label, kto.kl_estimate(policy, reference), beta=0.7,
                     desirable_weight=1.5, undesirable_weight=0.5)
    close(found.losses, expected)


def test_policy_equal_to_reference_costs_half_the_weights(random, close):
    logps = random(4, 1, scale=50.0)
    kl = kto.kl_estimate(logps[:, 0], logps[:, 0])
    losses = kto.loss(logps, logps.clone(), LABEL, kl, beta=0.1, desirable_weight=1.33, undesirable_weight=1.0).losses
    close(losses, [0.665, 0.5, 0.665, 0.5])


def test_rewards_and_beta_kl_enter_only_as_a_difference(rows, close):
    """Adding k nats to every log-ratio and to the KL changes nothing: the KL is in nats, without beta."""
    logps, ref_logps, label = rows
    moved = kto.loss(logps + 2.5, ref_logps, label, KL + 2.5, beta=0.1, **ONES).losses
    close(moved, kto.loss(logps, ref_logps, label, KL, beta=0.1, **ONES).losses)


def test_learnt_and_hopeless_rows_pull_less_than_those_between():
    logps = torch.tensor([[-40.0], [0.0], [40.0]] * 2, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    kto.loss(logps, torch.zeros_like(logps), label, torch.tensor(0.0), beta=0.5, **ONES).losses.sum().backward()
    pull = logps.grad.abs().reshape(2, 3)
    assert (pull[:, 1] == 0.125).all()  # beta / 4
    assert (pull[:, [0, 2]] < 1e-8).all()


def test_huge_rewards_stay_finite():
    logps = torch.tensor([[1e5], [-1e5], [1e5], [-1e5]], dtype=torch.float64, requires_grad=True)
    label = torch.tensor([1.0, 1.0, 0.0, 0.0])
    losses = kto.loss(logps, torch.zeros_like(logps), label, KL, beta=1.0, **ONES).losses
    losses.sum().backward()
    assert losses.tolist() == [0.0, 1.0, 1.0, 0.0] and logps.grad.isfinite().all()


def test_kl_carries_no_gradient(rows, mismatches):
    policy = mismatches[0].clone().requires_grad_()
    kl = kto.kl_estimate(policy, mismatches[1])
    assert not kl.requires_grad
    attached = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    losses, rewards = kto.loss(*rows, attached, beta=0.1, **ONES)
    losses.sum().backward()
    assert attached.grad is None and not rewards.requires_grad


def test_kl_is_clamped_after_the_mean_not_row_by_row(close):
    """Mean of [3, -1] is 1; clamping each row first would give 1.5."""
    close(kto.kl_estimate(torch.tensor([3.0, -1.0]), torch.zeros(2)), 1.0)


def test_one_mismatched_answer_is_enough_for_a_kl(close):
    close(kto.kl_estimate(torch.tensor([-3.0]), torch.tensor([-5.0])), 2.0)


def test_kl_of_nothing_is_zero_and_a_nan_stays_visible():
    assert kto.kl_estimate(torch.zeros(0), torch.zeros(0)).item() == 0
    assert kto.kl_estimate(torch.tensor([float("nan"), 1.0]), torch.zeros(2)).isnan()


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_of_one_class_or_one_row_is_finite(random, label, size):
    logps = random(size, 1).requires_grad_()
    losses = kto.loss(logps, random(size, 1), torch.full((size,), label), KL, beta=0.1, **ONES).losses
    losses.mean().backward()
    assert losses.isfinite().all() and (logps.grad != 0).all()


def test_rows_do_not_depend_on_one_another(rows, close):
    logps, ref_logps, label = rows
    whole = kto.loss(logps, ref_logps, label, KL, beta=0.1, **ONES).losses
    for i in range(4):
        one = slice(i, i + 1)
        close(kto.loss(logps[one], ref_logps[one], label[one], KL, beta=0.1, **ONES).losses, whole[one])


@pytest.mark.parametrize("counts, ratio, weights", [
    ((100, 100), 1.0, (1.0, 1.0)),
    ((100, 100), 4 / 3, (4 / 3, 1.0)),
    ((100, 1000), 1.0, (10.0, 1.0)),
    ((100, 1000), 4 / 3, (40 / 3, 1.0)),  # the paper's 13.33
    ((1000, 100), 1.0, (1.0, 10.0)),
    ((1000, 100), 4 / 3, (1.0, 7.5)),
    ((110, 100), 1.2, (1.2 / 1.1, 1.0)),  # not quite scarce, but scarce after the ratio
])
def test_worked_balance(counts, ratio, weights, close):
    """(weight_D x n_D) / (weight_U x n_U) = ratio with the smaller weight 1: 7.5 = 1000 / (4/3 x 100)."""
    close(kto.balance_weights(*counts, ratio=ratio), weights)


def test_balance_meets_equation_8_and_lowers_no_class():
    for desirable in range(1, 40, 3):
        for undesirable in range(1, 40, 3):
            for ratio in (1.0, 1.1, 4 / 3):
                weights = kto.balance_weights(desirable, undesirable, ratio=ratio)
                assert min(weights) == 1.0
                assert weights[0] * desirable / (weights[1] * undesirable) == pytest.approx(ratio)


def test_balance_refuses_an_empty_class_and_a_ratio_outside_equation_8():
    with pytest.raises(ValueError, match="0 desirable"):
        kto.balance_weights(0, 10, ratio=1.0)
    for ratio in (0.9, 1.4, float("nan")):
        with pytest.raises(ValueError, match=str(ratio)):
            kto.balance_weights(10, 10, ratio=ratio)


def test_shapes_that_do_not_agree_raise(rows):
    logps, ref_logps, label = rows
    for wrong in ((logps[:, 0], ref_logps[:, 0], label, KL), (logps, ref_logps[:, 0], label, KL),
                  (logps, ref_logps, label[:, None], KL), (logps, ref_logps, label, KL.expand(4))):
        with pytest.raises(ValueError, match=r"expected logps \[B,1\]"):
            kto.loss(*wrong, beta=0.1, **ONES)
    with pytest.raises(ValueError, match=r"\[4, 1\]"):
        kto.kl_estimate(logps, ref_logps)


def test_a_label_that_is_neither_raises(rows):
    with pytest.raises(ValueError, match="0.5"):
        kto.loss(*rows[:2], torch.tensor([1.0, 0.0, 0.5, 1.0]), KL, beta=0.1, **ONES)


def test_it_separates_held_out_answers(toy):
    kls = []

    def compute():
        logps, ref_logps, label = toy.rows()
        kls.append(kto.kl_estimate(toy.mismatch_logps(), toy.ref_mismatch_logps))
        return kto.loss(logps, ref_logps, label, kls[-1], beta=0.1, **ONES).losses.mean()

    values = toy.fit(compute)
    assert values[0] == pytest.approx(0.5) and values[-1] < 0.45
    assert kls[0] == 0 and kls[-1] > 0  # mismatched good words become likelier too
    assert toy.auc() > 0.9
