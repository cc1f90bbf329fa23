"""What an arm is worth: a correlation within prompts, contrasts between arms, and intervals over seeds and prompts."""

import numpy as np
import pytest

from prefcore.scoring import effects, metrics


def rho(ratios, ratings):
    return float(effects.measure(effects.correlation_parts(np.asarray(ratios)[None], ratings).mean(2)).item())


def world(rng, *, seeds=3, prompts=200, answers=4, strength=0.3, own=0.0):
    """(log-ratios [S, n, K], ratings [n, K]) of a policy whose log-ratios have about this correlation with ratings.

    own: spread of the correlation over seeds.
    """
    ratings = rng.normal(size=(prompts, answers)) + rng.normal(size=(prompts, 1))
    by_seed = strength + own * rng.normal(size=(seeds, 1, 1))
    noise = rng.normal(size=(seeds, prompts, answers))
    within = ratings - ratings.mean(1, keepdims=True)
    return by_seed * within + np.sqrt(1 - strength**2) * noise + rng.normal(size=(seeds, prompts, 1)), ratings


def test_rho_by_hand():
    """Deviations (1, -1) and (2, -2) against (1, -1) and (-1, 1): (2 - 4) / sqrt(10 x 4)."""
    assert rho([[3.0, 1.0], [5.0, 1.0]], [[1.0, -1.0], [0.0, 2.0]]) == pytest.approx(-2 / np.sqrt(40))


def test_an_oracle_has_rho_one_and_what_is_the_prompts_own_changes_nothing():
    """The reference's answers reweighted by their rating, at any temperature and with any normaliser of a prompt."""
    rng = np.random.default_rng(0)
    ratios, ratings = world(rng)
    assert rho(ratings / 0.7 + rng.normal(size=(200, 1)), ratings) == pytest.approx(1)
    assert rho(-3 * ratings, ratings) == pytest.approx(-1)
    assert rho(5 * ratios[0] + 7, ratings) == pytest.approx(rho(ratios[0], ratings))
    assert rho(np.zeros_like(ratings), ratings) == 0.0


def test_rho_is_the_gain_at_a_small_distance():
    """A policy pi = reference x exp(step x ratio) / Z on given answers gains rho x sd within x sqrt(2 KL), to the
    first order in the step."""
    rng = np.random.default_rng(1)
    ratios, ratings = world(rng, seeds=1, prompts=50, answers=200)
    weights = np.exp(0.01 * (ratios[0] - ratios[0].mean(1, keepdims=True)))
    policy = weights / weights.sum(1, keepdims=True)
    distance = (policy * np.log(200 * policy)).sum(1).mean()
    gain = (policy * ratings).sum(1).mean() - ratings.mean()
    within = np.sqrt(((ratings - ratings.mean(1, keepdims=True)) ** 2).mean())
    assert gain == pytest.approx(rho(ratios[0], ratings) * within * np.sqrt(2 * distance), rel=0.02)


def test_with_one_answer_a_prompt_rho_is_the_plain_correlation():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 50, 1))
    assert rho(x, y) == pytest.approx(metrics.pearson(x[:, 0], y[:, 0]))


def test_what_lies_on_a_line_through_what_is_given_leaves_nothing():
    rng = np.random.default_rng(0)
    given, prompts = rng.normal(size=(30, 4, 2)), rng.normal(size=(30, 1))
    line = 3 * given[..., 0] - 2 * given[..., 1] + prompts
    noise = rng.normal(size=(2, 30, 4))
    left = effects.beyond(np.stack([line, line]) + noise, given)
    assert np.allclose(effects.beyond(line, given), 0) and np.allclose(left, effects.beyond(noise, given))
    centred = given - given.mean(1, keepdims=True)
    assert np.allclose(np.einsum("snk,nkc->sc", left, centred), 0)
    single = effects.beyond(given[:, :1, 0] + 7, given[:, :1])
    assert np.allclose(single, 0)


def test_the_partial_correlation_by_its_formula():
    """(r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2))"""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(2000, 4))
    x, y = z + rng.normal(size=z.shape), 0.5 * z + rng.normal(size=z.shape)
    xy, xz, yz = rho(x, y), rho(x, z), rho(y, z)
    found = rho(effects.beyond(x, z[..., None]), effects.beyond(y, z[..., None]))
    assert found == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    assert xy > 0.2 and abs(found) < 0.05


def test_the_share_in_the_raters_order_by_hand():
    """Three answers have three pairs: two in order and one against it; a tie of the policy is half a pair."""
    parts = effects.order_parts(np.array([[[1.0, 2.0, 3.0], [1.0, 1.0, 3.0]]]), np.array([[1.0, 3.0, 2.0]] * 2))
    np.testing.assert_allclose(parts, [[[2 / 3, 0.5]]])
    assert (effects.order_parts(np.ones((2, 5, 1)), np.ones((5, 1))) == 0.5).all()


def test_a_contrast_of_means_is_the_paired_difference_of_seeds_and_prompts():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 5, 40))
    found = effects.contrast({"a": effects.mean_parts(a), "b": effects.mean_parts(b)}, {"a": 1, "b": -1}, seed=4)
    expected = metrics.bootstrap_seeds(a - b, seed=4, resamples=4000)
    np.testing.assert_allclose(found[:3], expected, atol=1e-12)


def test_four_arms_make_a_difference_of_differences():
    rng = np.random.default_rng(4)
    shifts = {"a": 3, "b": 1, "c": 1, "d": 0.5}
    parts = {name: effects.mean_parts(rng.normal(size=(4, 30)) + shift) for name, shift in shifts.items()}
    both = effects.contrast(parts, {"a": 1, "b": -1, "c": -1, "d": 1}, seed=0)
    first = effects.contrast(parts, {"a": 1, "b": -1}, seed=0)
    second = effects.contrast(parts, {"c": 1, "d": -1}, seed=0)
    assert both.estimate == pytest.approx(first.estimate - second.estimate) and both.low < both.estimate < both.high


@pytest.mark.parametrize("own", [0.0, 0.1])
def test_the_interval_of_rho_covers_its_true_value_over_seeds_and_prompts(own):
    """120 made-up studies of eight seeds: 95 % of the intervals should cover, and at least 88 % do."""
    rng, covered = np.random.default_rng(5), []
    truth = rho(*(x[0] if x.ndim == 3 else x for x in world(rng, seeds=1, prompts=100_000)))
    for study in range(120):
        ratios, ratings = world(rng, seeds=8, prompts=100, own=own)
        found = effects.contrast({"a": effects.correlation_parts(ratios, ratings)}, {"a": 1}, seed=study, resamples=500)
        covered.append(found.low <= truth <= found.high)
    assert 0.88 <= np.mean(covered) <= 1.0


def test_ratings_in_another_order_leave_no_correlation():
    rng = np.random.default_rng(6)
    ratios, ratings = world(rng, prompts=600)
    placebo = rng.permuted(ratings, axis=1)
    found = effects.contrast({"a": effects.correlation_parts(ratios, placebo)}, {"a": 1}, seed=0)
    real = effects.contrast({"a": effects.correlation_parts(ratios, ratings)}, {"a": 1}, seed=0)
    assert found.low < 0 < found.high and real.low > 0.2 and real.p < 0.01 < found.p


def test_the_spread_over_seeds_is_the_standard_deviation_of_the_arms_own_measures():
    values = np.array([[1.0, 3.0], [2.0, 6.0], [0.0, 0.0]])
    assert effects.spread_over_seeds(effects.mean_parts(values)) == pytest.approx(np.std([2, 4, 0], ddof=1))


def test_holm_by_hand():
    """Four p-values: 0.01 x 4, 0.02 x 3, 0.03 x 2 raised to the 0.06 before it, and 0.04 raised likewise."""
    assert effects.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert effects.holm([0.6, 0.5]) == [1.0, 1.0]


def test_arms_that_are_missing_or_differ_in_seeds_are_named():
    parts = {"a": effects.mean_parts(np.ones((2, 5))), "b": effects.mean_parts(np.ones((3, 5)))}
    with pytest.raises(ValueError, match=r"missing \['c'\]"):
        effects.contrast(parts, {"a": 1, "c": -1}, seed=0)
    with pytest.raises(ValueError, match="same seeds and units"):
        effects.contrast(parts, {"a": 1, "b": -1}, seed=0)
    with pytest.raises(ValueError, match="log-ratios"):
        effects.correlation_parts(np.ones((2, 5, 4)), np.ones((5, 3)))
