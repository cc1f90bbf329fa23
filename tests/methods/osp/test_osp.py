from math import exp, log

import pytest
import torch

from prefcore.methods import dpo
from prefcore.methods.osp import loss as osp

STRENGTH = torch.tensor([0.8, 0.55, 0.99], dtype=torch.float64)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def test_worked_numbers(pair_fixture, close):
    """DPO's loss + (1 - P) x margin: 0.10020656 + 0.2 x 2.25, 1.70141328 - 0.45 x 1.5, 0.38687101 + 0.01 x 0.75."""
    losses, rewards = osp.loss(*pair_fixture, STRENGTH, beta=0.5)
    close(losses, [0.55020656, 1.02641328, 0.39437101])
    close(losses.mean(), 0.65699695)
    close(rewards, [[1.5, -0.75], [-0.75, 0.75], [0.4, -0.35]])


def test_worked_gradients(pair_fixture, close):
    """dL/dh = beta (sigmoid(margin) - P) = 0.5 x (sigmoid(2.25) - 0.8) = 0.05232527: this pair is pushed *down*."""
    logps, ref_logps = pair_fixture
    osp.loss(logps, ref_logps, STRENGTH, beta=0.5).losses.sum().backward()
    close(logps.grad[:, 0], [0.05232527, -0.18378724, -0.15541065])
    close(logps.grad[:, 1], [-0.05232527, 0.18378724, 0.15541065])


def test_worked_floor(pair_fixture, close):
    """-0.8 ln 0.8 - 0.2 ln 0.2 = 0.50040242; the KL form is the loss less this, mean 0.24214936."""
    close(osp.entropy(STRENGTH), [0.50040242, 0.68813881, 0.05600153])
    close(osp.kl_loss(*pair_fixture, STRENGTH, beta=0.5).losses.mean(), 0.24214936)


def test_worked_targets(close):
    """h = logit(P) / beta = ln 4 / 0.5 = 2.77258872, and so on: no gradient there, and no KL."""
    target = number([2.77258872, 0.40134139, 9.19023970])
    logps = torch.stack([target, torch.zeros(3)], 1).requires_grad_()
    losses = osp.kl_loss(logps, torch.zeros_like(logps), STRENGTH, beta=0.5).losses
    losses.sum().backward()
    close(losses, [0.0] * 3)
    close(logps.grad, torch.zeros(3, 2))


def test_worked_ranked_pairs(close):
    """p against the baseline [0.9, 0.2, 0.6, 0.5]: order 0, 2, 3, 1; P(0 > 2) = odds 9 / (9 + 1.5) = 0.85714286."""
    pairs = osp.ranked_pairs([0.9, 0.2, 0.6, 0.5], clip=0.01)
    assert [(i, j) for i, j, _ in pairs] == [(0, 2), (0, 3), (0, 1), (2, 3), (2, 1), (3, 1)]
    close([strength for *_, strength in pairs], [0.85714286, 0.9, 0.97297297, 0.6, 0.85714286, 0.8])


def test_worked_debias(close):
    """(0.7 + 1 - 0.45) / 2 = 0.625; on logits sigmoid((0.84729786 + 0.20067070) / 2) = 0.62807895."""
    close(osp.debias(number([0.7]), number([0.45])), [0.625])
    close(osp.debias_logits(number([0.7]), number([0.45]), clip=0.01), [0.62807895])


@pytest.mark.parametrize("form", [osp.loss, osp.kl_loss])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_gradients_are_right_at_any_scale_and_lead_to_the_target(form, random, scale):
    logps, ref_logps = random(5, 2, scale=scale).requires_grad_(), random(5, 2, scale=scale)
    strength = random(5).sigmoid()
    assert torch.autograd.gradcheck(lambda x: form(x, ref_logps, strength, beta=0.3).losses, logps)
    form(logps, ref_logps, strength, beta=0.3).losses.sum().backward()
    logratios = (logps - ref_logps).detach()
    above = 0.3 * (logratios[:, 0] - logratios[:, 1]) > torch.logit(strength)
    assert ((logps.grad[:, 0] > 0) == above).all()


def test_plain_python_twin(random, close):
    logps, ref_logps, strength = random(40, 2, scale=4.0), random(40, 2, scale=4.0), random(40).sigmoid()
    expected, divergence = [], []
    for (a, b), (ref_a, ref_b), p in zip(logps.tolist(), ref_logps.tolist(), strength.tolist(), strict=True):
        q = 1 / (1 + exp(-0.7 * ((a - ref_a) - (b - ref_b))))
        expected.append(-(p * log(q) + (1 - p) * log(1 - q)))
        divergence.append(p * log(p / q) + (1 - p) * log((1 - p) / (1 - q)))
    close(osp.loss(logps, ref_logps, strength, beta=0.7).losses, expected)
    close(osp.kl_loss(logps, ref_logps, strength, beta=0.7).losses, divergence)


def test_certainty_is_dpo(pair_fixture, close):
    close(osp.loss(*pair_fixture, torch.ones(3), beta=0.5).losses, dpo.loss(*pair_fixture, beta=0.5).losses)


def test_one_strength_for_all_is_conservative_dpo(pair_fixture, close):
    smooth = dpo.conservative_loss(*pair_fixture, beta=0.5, label_smoothing=0.1)
    close(osp.loss(*pair_fixture, torch.full((3,), 0.9, dtype=torch.float64), beta=0.5).losses, smooth.losses)


def test_a_pair_and_its_strength_can_be_swapped_together(pair_fixture, close):
    logps, ref_logps = pair_fixture
    right = osp.loss(logps, ref_logps, STRENGTH, beta=0.5).losses
    close(osp.loss(logps.flip(1), ref_logps.flip(1), 1 - STRENGTH, beta=0.5).losses, right)


def test_indifference_pulls_to_the_reference(pair_fixture):
    """P = 0.5: the gradient has the sign of h = [4.5, -3, 1.5]."""
    logps, ref_logps = pair_fixture
    osp.loss(logps, ref_logps, torch.full((3,), 0.5), beta=0.5).losses.sum().backward()
    assert logps.grad[:, 0].sign().tolist() == [1.0, -1.0, 1.0]


def test_policy_equal_to_reference_costs_log_2_at_any_strength(random, close):
    logps = random(3, 2, scale=50.0)
    close(osp.loss(logps, logps.clone(), STRENGTH, beta=0.1).losses, [log(2)] * 3)


def test_the_two_forms_have_the_same_gradient_and_the_kl_is_never_negative(random, close):
    logps, ref_logps, strength = random(50, 2, scale=5.0).requires_grad_(), random(50, 2), random(50).sigmoid()
    gradients = [torch.autograd.grad(form(logps, ref_logps, strength, beta=0.5).losses.sum(), logps)[0]
                 for form in (osp.loss, osp.kl_loss)]
    close(*gradients)
    assert (osp.kl_loss(logps, ref_logps, strength, beta=0.5).losses >= -1e-12).all()


def test_certain_strengths_have_no_entropy_and_stay_finite(close):
    close(osp.entropy(number([0.0, 0.5, 1.0])), [0.0, log(2), 0.0])
    logps = torch.tensor([[1e5, 0.0], [0.0, 1e5]], dtype=torch.float64, requires_grad=True)
    for strength in (number([1.0, 0.0]), number([0.0, 1.0])):
        losses = osp.kl_loss(logps, torch.zeros_like(logps), strength, beta=1.0).losses
        (gradient,) = torch.autograd.grad(losses.sum(), logps)
        assert losses.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan")])
def test_a_strength_that_is_no_probability_raises(pair_fixture, bad):
    strength = number([0.5, bad, 0.5])
    for call in (lambda: osp.loss(*pair_fixture, strength, beta=0.5), lambda: osp.entropy(strength),
                 lambda: osp.debias(strength, number([0.5] * 3)), lambda: osp.debias(number([0.5] * 3), strength),
                 lambda: osp.debias_logits(strength, number([0.5] * 3), clip=0.01),
                 lambda: osp.debias_logits(number([0.5] * 3), strength, clip=0.01),
                 lambda: osp.ranked_pairs(strength.tolist(), clip=0.01)):
        with pytest.raises(ValueError, match=str(bad)):
            call()


def test_shapes_that_do_not_agree_raise(pair_fixture):
    for form in (osp.loss, osp.kl_loss):
        with pytest.raises(ValueError, match=r"strength \[B\]; got.*\[3, 1\]"):
            form(*pair_fixture, STRENGTH[:, None], beta=0.5)
    for debias in (osp.debias, lambda *p: osp.debias_logits(*p, clip=0.01)):
        with pytest.raises(ValueError, match=r"p_ba \[B\]"):
            debias(STRENGTH, STRENGTH[:, None])
    with pytest.raises(ValueError, match=r"strength \[B\]"):
        osp.entropy(STRENGTH[:, None])


def test_a_batch_of_one_is_a_row_of_the_batch(pair_fixture, close):
    logps, ref_logps = pair_fixture
    whole = osp.loss(logps, ref_logps, STRENGTH, beta=0.5).losses
    for i in range(3):
        one = slice(i, i + 1)
        close(osp.loss(logps[one], ref_logps[one], STRENGTH[one], beta=0.5).losses, whole[one])


def test_the_judge_gets_no_gradient(pair_fixture):
    strength = STRENGTH.clone().requires_grad_()
    for form in (osp.loss, osp.kl_loss):
        losses, rewards = form(*pair_fixture, strength, beta=0.5)
        losses.sum().backward()
        assert strength.grad is None and not rewards.requires_grad
    assert not osp.debias(strength, strength).requires_grad
    assert not osp.debias_logits(strength, strength, clip=0.01).requires_grad


def test_a_judge_that_only_likes_a_position_is_indifferent_after_both_orders(close):
    always_first = number([0.9, 0.6])
    close(osp.debias(always_first, always_first), [0.5, 0.5])
    close(osp.debias_logits(always_first, always_first, clip=0.01), [0.5, 0.5])


def test_a_bias_on_the_logit_scale_cancels_exactly_only_with_logits(close):
    """True logit 1.0, bias 0.8 towards the first place: sigmoid(1.8) and sigmoid(-1 + 0.8)."""
    p_ab, p_ba = torch.sigmoid(number([1.8])), torch.sigmoid(number([-0.2]))
    truth = torch.sigmoid(number([1.0]))
    close(osp.debias_logits(p_ab, p_ba, clip=0.001), truth)
    assert (osp.debias(p_ab, p_ba) - truth).abs() > 0.01


def test_swapping_the_answers_turns_the_judgement_round(random, close):
    p_ab, p_ba = random(20).sigmoid(), random(20).sigmoid()
    close(osp.debias(p_ba, p_ab), 1 - osp.debias(p_ab, p_ba))
    close(osp.debias_logits(p_ba, p_ab, clip=0.01), 1 - osp.debias_logits(p_ab, p_ba, clip=0.01))


def test_ranked_pairs_recover_a_bradley_terry_judge(close):
    """Utilities u: each answer beats the baseline with sigmoid(u_i - u_b); the pairs get sigmoid(u_i - u_j)."""
    utilities, baseline = [0.3, -1.2, 2.0, 0.9, -0.4], 0.5
    pairs = osp.ranked_pairs([1 / (1 + exp(baseline - u)) for u in utilities], clip=0.01)
    assert len(pairs) == 10 and {frozenset(pair[:2]) for pair in pairs} == {
        frozenset((i, j)) for i in range(5) for j in range(i)}
    for i, j, strength in pairs:
        assert utilities[i] > utilities[j]
        close(strength, 1 / (1 + exp(utilities[j] - utilities[i])))


def test_clipping_bounds_strengths(close):
    """p of 1 and 0 become 0.99 and 0.01: odds 99 x 99; without the clip the logits would be infinite."""
    (pair,) = osp.ranked_pairs([0.0, 1.0], clip=0.01)
    assert pair[:2] == (1, 0)
    close(pair[2], 9801 / 9802, atol=1e-12)
    saturated = number([1.0]), number([1.0])
    close(osp.debias_logits(*saturated, clip=0.01), [0.5])


def test_equal_answers_keep_their_order_and_are_even():
    pairs = osp.ranked_pairs([0.7, 0.7, 0.7], clip=0.01)
    assert pairs == [(0, 1, 0.5), (0, 2, 0.5), (1, 2, 0.5)]


def test_fewer_than_two_answers_make_no_pair():
    assert osp.ranked_pairs([], clip=0.01) == osp.ranked_pairs([0.4], clip=0.01) == []


@pytest.mark.parametrize("clip", [0.0, 0.5, -1.0, float("nan")])
def test_a_clip_that_is_none_raises(clip):
    with pytest.raises(ValueError, match=str(clip)):
        osp.ranked_pairs([0.4, 0.5], clip=clip)
    with pytest.raises(ValueError, match=str(clip)):
        osp.debias_logits(number([0.5]), number([0.5]), clip=clip)


def test_near_ties_are_dropped():
    pairs = [(0, 1, 0.9), (0, 2, 0.515), (1, 2, 0.5), (2, 1, 0.3)]
    assert osp.drop_near_ties(pairs, threshold=0.02) == [(0, 1, 0.9), (2, 1, 0.3)]
    assert osp.drop_near_ties(pairs, threshold=0.0) == pairs


def test_it_raises_held_out_margins_to_the_target_and_no_further(toy):
    """P = 0.9 at beta 0.5: the target is h = ln 9 / 0.5 = 4.39; certainty (DPO) goes beyond it in the same steps."""
    state = {name: value.clone() for name, value in toy.policy.state_dict().items()}
    margins = {}
    for strength in (0.9, 1.0):
        toy.policy.load_state_dict(state)

        def compute(strength=strength):
            strengths = torch.full((toy.n,), strength)
            return osp.loss(toy.logps("train"), toy.ref_logps["train"], strengths, beta=0.5).losses.mean()

        toy.fit(compute, steps=40)
        good, bad = toy.logratios().T
        assert (good > bad).double().mean() > 0.9
        margins[strength] = toy.logratios("train").diff(dim=1).neg().mean().item()
    assert 3.0 < margins[0.9] < 6.0 < margins[1.0]
