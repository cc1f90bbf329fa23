"""Variance across individuals: what held-out entries of held-out people tell, and that noise tells nothing."""

import numpy as np
import pytest

from prefcore.methods.canonical_basis import shares, variance

CHECK = {"parts": 4, "hidden_share": 0.25, "draws": 3, "priors": [0.0, 10.0], "noises": [0.001, 0.3, 3.0], "seed": 0}


def low_rank(rng, people_=160, columns=18, rank=3):
    return rng.normal(size=(people_, rank)) @ rng.normal(size=(rank, columns))


def holes(rng, values, share):
    return np.where(rng.random(values.shape) < share, np.nan, values)


def test_worked_prediction():
    """S = [[1, 1], [1, 1]], noise 1: a known deviation of 1 predicts 1 / (1 + 1) = 0.5, which leaves (1 - 0.5)^2."""
    found = variance.Moments(np.array([2.0, 5.0]), np.ones((2, 2)), np.ones(2))
    known = np.array([[3.0, np.nan], [np.nan, np.nan]])
    assert variance.predict(known, found, noise=1.0)[:, 1].tolist() == [5.5, 5.0]
    values = np.array([[3.0, 6.0]])
    share = variance.others(values, np.array([[True, True]]), found, np.array([0]), noise=1.0)
    assert share.covered.tolist() == [0.75] and share.total.tolist() == [1.0]
    assert variance.with_chosen(values, np.array([[True, True]]), found, np.array([0]), noise=1.0).value == 1.75 / 2


def test_a_complete_matrix_of_rank_3_is_known_from_3_columns_and_not_from_2(rng):
    found = variance.cross_validate(low_rank(rng), [1, 2, 3], target=3, **CHECK)
    assert found["greedy"][3].value > 0.99 and found["pca"][3].value > 0.99
    assert found["greedy"][1].value < found["greedy"][2].value < 0.97
    assert found["greedy_all"][2].value > found["random_all"][2].value + 0.02


def test_a_matrix_of_rank_3_with_half_its_entries_missing_is_still_mostly_known_from_few_columns(rng):
    values = holes(rng, low_rank(rng, people_=300), 0.5)
    found = variance.cross_validate(values, [3, 9], target=9, **CHECK)
    whole = found["everything"][18].value
    assert 0.6 < found["greedy"][9].value < whole and whole > 0.85


@pytest.mark.parametrize("missing", [0.0, 0.7])
def test_noise_has_no_coverage_whatever_k(rng, missing):
    """Independent entries: nothing tells of another column, so nothing may be found in held-out entries."""
    values = holes(rng, rng.choice([-1.0, 0.0, 1.0], size=(200, 20)), missing)
    found = variance.cross_validate(values, [1, 5, 15], target=5, **CHECK)
    for way in ("greedy", "random", "pca", "everything"):
        for share in found[way].values():
            assert share.value < 0.02, way


def test_counting_the_chosen_columns_as_known_flatters_noise_by_their_number(rng):
    """15 of 20 columns of noise: 15/20 of the entries are known because they were given."""
    found = variance.cross_validate(rng.normal(size=(200, 20)), [15], target=15, **CHECK)
    assert abs(found["greedy_all"][15].value - 0.75) < 0.05 and abs(found["random_all"][15].value - 0.75) < 0.05


def test_a_greedy_basis_leaves_harder_entries_so_only_the_ways_that_count_all_can_be_compared(rng):
    """Ten strong columns that tell of each other, ten of weak noise: ten greedy ones are the strong ones, all that is
    left is noise. Random ones leave strong columns to predict. Over all entries the greedy ones are ahead."""
    strong = 3 * (rng.normal(size=(200, 1)) + rng.normal(size=(200, 10)))
    values = np.column_stack([strong, rng.normal(size=(200, 10))])
    found = variance.cross_validate(values, [10], target=10, **CHECK)
    assert found["greedy"][10].value < 0.05 < 0.2 < found["random"][10].value
    assert found["greedy_all"][10].value > found["random_all"][10].value + 0.1


def test_coverage_is_at_most_what_the_signal_allows(rng):
    """Signal and noise of equal variance: half of the variance of an entry can be known, by nobody more."""
    signal = low_rank(rng, people_=400, columns=40, rank=1)
    signal /= signal.std(0)
    found = variance.cross_validate(signal + rng.normal(size=signal.shape), [10], target=10, **CHECK)
    for way, size in (("greedy", 10), ("pca", 10), ("everything", 40)):
        share = found[way][size]
        assert 0.3 < share.value < shares.interval(share, seed=0).high < 0.56, way


def test_predictions_agree_with_a_slow_twin_person_by_person(rng):
    values = holes(rng, low_rank(rng, people_=30, columns=6), 0.4)
    found = variance.moments(values, prior=2.0)
    for p, row in enumerate(values):
        o = [s for s in range(6) if not np.isnan(row[s])]
        expected = found.mean.copy()
        if o:
            inverse = np.linalg.inv(found.covariance[np.ix_(o, o)] + 0.3 * np.eye(len(o)))
            expected = expected + found.covariance[:, o] @ inverse @ (row[o] - found.mean[o])
        np.testing.assert_allclose(variance.predict(values, found, noise=0.3)[p], expected, atol=1e-10)


def test_moments_of_a_complete_matrix_are_the_usual_ones_and_a_prior_shrinks_them(rng):
    values = low_rank(rng)
    found = variance.moments(values, prior=0.0)
    np.testing.assert_allclose(found.covariance, np.cov(values.T, bias=True), atol=1e-10)
    np.testing.assert_allclose(variance.moments(values, prior=160.0).covariance, found.covariance / 2, atol=1e-10)


def test_a_missing_entry_says_nothing(rng):
    """A column that a person lacks changes neither the moments of the others nor the prediction from them."""
    values = holes(rng, low_rank(rng, people_=40, columns=5), 0.3)
    more = np.column_stack([values, np.full(40, np.nan)])
    a, b = variance.moments(values, prior=1.0), variance.moments(more, prior=1.0)
    np.testing.assert_allclose(a.covariance, b.covariance[:5, :5], atol=1e-10)
    np.testing.assert_allclose(variance.predict(values, a, noise=0.5), variance.predict(more, b, noise=0.5)[:, :5])


def test_covariances_from_different_people_are_made_possible_ones(rng):
    values = holes(rng, rng.normal(size=(12, 8)), 0.6)
    assert np.linalg.eigvalsh(variance.moments(values, prior=0.0).covariance).min() > -1e-10


def test_greedy_columns_are_those_that_a_slow_search_finds(rng):
    found = variance.moments(low_rank(rng, columns=7), prior=0.0)
    s, noise, chosen = found.covariance, 0.2, []
    for _ in range(3):

        def left(columns):
            inverse = np.linalg.inv(s[np.ix_(columns, columns)] + noise * np.eye(len(columns)))
            return np.trace(s - s[:, columns] @ inverse @ s[columns])

        chosen.append(min((c for c in range(7) if c not in chosen), key=lambda c: left([*chosen, c])))  # noqa: B023
    assert variance.greedy(found, size=3, noise=noise).tolist() == chosen


def test_hidden_entries_are_some_that_are_there_and_everybody_has_one(rng):
    values = holes(rng, np.ones((50, 10)), 0.7)
    values[:, 0] = 1
    hidden = variance.hide(values, share=0.2, seed=0)
    assert not hidden[np.isnan(values)].any() and hidden.any(1).all()
    assert 0.15 < hidden.sum() / (~np.isnan(values)).sum() < 0.5


def test_no_held_out_person_is_in_the_moments(rng):
    """Changing the hidden entries of one person leaves the scores of the others of the same fold as they were."""
    values = low_rank(rng, people_=40, columns=6) + rng.normal(size=(40, 6))
    changed = values.copy()
    changed[7] += 50 * variance.hide(values, share=0.25, seed=0)[7]
    fold = variance.folds(40, parts=4, seed=0)
    same = (fold == fold[7]) & (np.arange(40) != 7)
    a, b = (variance.cross_validate(v, [2], target=2, **CHECK)["greedy"][2] for v in (values, changed))
    np.testing.assert_allclose(a.total[same], b.total[same])
    np.testing.assert_allclose(a.covered[same], b.covered[same])


def test_one_person_and_too_many_folds_raise():
    with pytest.raises(ValueError, match="at least two people"):
        variance.moments(np.ones((1, 3)), prior=0)
    with pytest.raises(ValueError, match="3 people cannot be put into 5 folds"):
        variance.folds(3, parts=5, seed=0)
    with pytest.raises(ValueError, match="K is 21, but the data allow 1 to 4 columns"):
        variance.cross_validate(np.ones((30, 4)), [2], target=21, **CHECK)


def test_what_people_do_later_is_told_by_what_they_did_as_far_as_both_have_one_cause(rng):
    """Both are the same three tastes with noise of a tenth of their variance: about 0.9 of the later is known."""
    tastes = rng.normal(size=(300, 3))
    known, target = (tastes @ rng.normal(size=(3, 8)) for _ in range(2))
    noisy = target + 0.33 * target.std(0) * rng.normal(size=target.shape)
    found = variance.future(known, noisy, parts=4, noises=[0.001, 0.1], seed=0)
    assert 0.85 < found.value < 0.95
    worse = variance.future(known + 2 * rng.normal(size=known.shape), noisy, parts=4, noises=[0.1, 1.0], seed=0)
    assert 0.2 < worse.value < found.value - 0.1


def test_the_past_of_another_person_tells_nothing(rng):
    tastes = rng.normal(size=(200, 3))
    known, target = (tastes @ rng.normal(size=(3, 6)) for _ in range(2))
    found = variance.future(known[rng.permutation(200)], target, parts=4, noises=[0.1, 1.0, 10.0], seed=0)
    assert found.value < 0.03


def test_what_nobody_differs_in_tells_nothing(rng):
    """One category for everything has a share of 1 in everybody's past."""
    found = variance.future(np.ones((30, 1)), rng.normal(size=(30, 4)), parts=3, noises=[0.1], seed=0)
    assert abs(found.value) < 0.2 and np.isfinite(found.covered).all()


def test_nobodys_later_choices_are_in_the_fit_that_foretells_them(rng):
    """Changing what one person does later leaves what is foretold of the others of the same fold as it was."""
    known, target = rng.normal(size=(2, 40, 4))
    changed = target.copy()
    changed[7] += 50
    fold = variance.folds(40, parts=4, seed=0)
    same = (fold == fold[7]) & (np.arange(40) != 7)
    a, b = (variance.future(known, t, parts=4, noises=[0.5], seed=0) for t in (target, changed))
    np.testing.assert_allclose(a.covered[same], b.covered[same])


@pytest.mark.parametrize("size", [0, 4])
def test_a_basis_larger_than_the_data_allow_raises(size):
    found = variance.moments(np.eye(3), prior=0)
    for choose in (lambda: variance.random_bases(3, size=size, draws=2, seed=0),
                   lambda: variance.greedy(found, size=size, noise=1.0),
                   lambda: variance.principal(found, size=size)):  # fmt: skip
        with pytest.raises(ValueError, match=f"{size}.*the data allow 1 to 3"):
            choose()
