from itertools import combinations
from math import log, log10

import numpy as np
import pytest

from prefcore.methods.canonical_basis import cluster, coverage, elo, people, variance
from prefcore.scoring import metrics

# --- phrases to categories --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said, kept",
    [
        ("Prefers the shorter answers.", "shorter answer"),
        ("a preference for Brevity!", "brevity"),
        ("The reader prefers stories", "story"),
        ("more information", "information"),
        ("conciseness", "conciseness"),
        ("no jargon", "no jargon"),
        ("the", "the"),
        ("!!", "!!"),
    ],
)
def test_phrases_are_normalised(said, kept):
    assert cluster.normalise(said) == kept
    assert cluster.normalise(kept) == kept


def test_what_is_the_same_after_normalising_is_one_phrase():
    assert cluster.distinct(["Short answers", "humour", "the short answer"])[0] == ["short answer", "humour"]
    assert cluster.distinct(["Short answers", "humour", "the short answer"])[1].tolist() == [0, 1, 0]


def test_mentions_are_condensed_to_distinct_phrases():
    found = cluster.condense(["the Tea", "milk", "teas", "unused"], np.array([0, 2, 2, 1]), np.array([5, 7, 5, 9]))
    assert found.phrases == ["tea", "milk"] and found.of.tolist() == [0, 0, 0, 1]
    assert found.weight.tolist() == [3, 1] and found.truth.tolist() == [5, 7]


def bundles(rng, *, groups=4, each=12, width=16, noise=0.1):
    """Unit vectors around `groups` random directions, and the group of each."""
    truth = np.repeat(np.arange(groups), each)
    vectors = rng.normal(size=(groups, width))[truth] / np.sqrt(width) + noise * rng.normal(size=(len(truth), width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), truth


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_planted_groups_are_found_by_a_cut_that_no_label_chose(rng):
    vectors, truth = bundles(rng)
    steps = cluster.tree(vectors)
    scores = cluster.choose_cut(steps, vectors, cuts=[0.02, 0.3, 1.5], sample=40, seed=0)
    assert np.isnan(scores[1.5]) and scores[0.3] > np.nan_to_num(scores[0.02], nan=-1)
    found = cluster.group(steps, vectors, [f"p{i}" for i in range(48)], np.ones(48), cut=0.3, threshold=0.95)
    assert cluster.recovery(found.label, truth, np.ones(48)) == 1.0


def test_the_heaviest_category_is_number_0_and_is_named_by_a_phrase_of_its_own(rng):
    vectors, truth = bundles(rng)
    weight = np.where(truth == 2, 5.0, 1.0)
    found = cluster.group(cluster.tree(vectors), vectors, [f"{t}" for t in truth], weight, cut=0.3, threshold=0.95)
    assert found.names[0] == "2" and set(truth[found.label == 0]) == {2}
    assert sorted(found.names) == ["0", "1", "2", "3"]
    np.testing.assert_allclose(np.linalg.norm(found.centres, axis=1), 1)


def test_merging_joins_alike_centres_and_only_them(rng):
    vectors, truth = bundles(rng)
    split = 2 * truth + np.tile([0, 1], 24)  # every group cut into two halves at random
    merged = cluster.merge(split, vectors, np.ones(48), threshold=0.8)
    assert len(set(merged)) == 4 and cluster.recovery(merged, truth, np.ones(48)) == 1.0
    assert len(set(cluster.merge(split, vectors, np.ones(48), threshold=1.01))) == 8
    assert len(set(cluster.merge(split, vectors, np.ones(48), threshold=-1.0))) == 1


def test_merging_agrees_with_a_slow_twin(rng):
    vectors, _ = bundles(rng, groups=9, each=3, width=5, noise=0.6)
    label, weight = np.repeat(np.arange(9), 3), rng.integers(1, 5, 27).astype(float)
    groups = [list(np.flatnonzero(label == c)) for c in range(9)]

    def centre(g):
        total = sum(weight[i] * vectors[i] for i in g)
        return total / np.sqrt(total @ total)

    while len(groups) > 1:
        close, a, b = max((centre(groups[a]) @ centre(groups[b]), a, b) for a, b in combinations(range(len(groups)), 2))
        if close < 0.5:
            break
        groups[a] += groups.pop(b)
    found = cluster.merge(label, vectors, weight, threshold=0.5)
    sets = {frozenset(np.flatnonzero(found == c).tolist()) for c in set(found)}
    assert sets == {frozenset(map(int, g)) for g in groups}
    assert 1 < len(groups) < 9


def test_a_later_phrase_goes_to_the_nearest_category_or_to_none():
    centres = np.eye(3)[:2]
    vectors = np.array([[0.9, 0.1, 0.42], [0.0, 1.0, 0.0], [0.1, 0.1, 0.99]])
    assert cluster.assign(vectors, centres, least=0.5).tolist() == [0, 1, -1]


def test_worked_matching_and_recovery():
    """Overlaps [[3, 1], [2, 0], [0, 1]]: partners 0-0 and 2-1 keep 3 + 1 = 4 of 7."""
    label, truth = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 0, 0, 1])
    assert cluster.match(label, truth, np.ones(7)) == {0: 0, 2: 1}
    assert cluster.recovery(label, truth, np.ones(7)) == pytest.approx(4 / 7)
    assert cluster.recovery(label, truth, np.array([1, 1, 1, 1, 9, 9, 1.0])) == pytest.approx(19 / 23)


def test_vectors_that_are_not_of_unit_length_or_too_few_raise():
    with pytest.raises(ValueError, match="unit length"):
        cluster.tree(np.ones((4, 2)))
    with pytest.raises(ValueError, match="2 distinct phrases are too few"):
        cluster.tree(np.eye(2))
    with pytest.raises(ValueError, match="none of the cuts"):
        cluster.choose_cut(cluster.tree(np.eye(4)), np.eye(4), cuts=[1.9], sample=4, seed=0)


# --- coverage ---------------------------------------------------------------------------------------------------

COUNTS = np.array([[3.0, 1.0, 0.0], [1.0, 0.0, 4.0]])


def test_worked_mass():
    """Categories 0 and 2: 3 of 4 mentions of the first person, 5 of 5 of the second: 8 of 9."""
    share = coverage.mass(COUNTS, np.array([0, 2]))
    assert share.covered.tolist() == [3, 5] and share.value == 8 / 9
    assert coverage.greedy_mass(COUNTS, size=2).tolist() == [0, 2]


def test_worked_pairs():
    """Categories 0 and 1 explain choices 0, 1 and 2 of four: person 0 has two of two, person 1 one of two."""
    explains = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]], bool)
    share = coverage.pairs(explains, np.array([0, 0, 1, 1]), np.array([0, 1]))
    assert share.covered.tolist() == [2, 1] and share.value == 0.75


def test_pairs_are_covered_greedily_by_what_is_new():
    """Category 0 explains three; 1 explains two of the same; 2 explains another one: 2 comes second."""
    explains = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], bool)
    assert coverage.greedy_pairs(explains, size=3).tolist() == [0, 2, 1]


def test_greedy_pairs_reach_the_bound_of_the_best_set(rng):
    """At least 1 - 1/e of the best of all sets of three, which are tried one by one."""
    explains = rng.random((60, 8)) < 0.15
    person = np.zeros(60, int)
    best = max(coverage.pairs(explains, person, np.array(c)).value for c in combinations(range(8), 3))
    found = coverage.pairs(explains, person, coverage.greedy_pairs(explains, size=3)).value
    assert (1 - np.exp(-1)) * best <= found <= best


@pytest.mark.parametrize("size", [0, 4])
def test_a_basis_larger_than_the_data_allow_raises(size, rng):
    for choose in (lambda: coverage.greedy_mass(COUNTS, size=size),
                   lambda: coverage.greedy_pairs(COUNTS > 0, size=size),
                   lambda: coverage.random_bases(3, size=size, draws=2, seed=0),
                   lambda: variance.greedy(variance.moments(COUNTS, prior=0), size=size, noise=1.0),
                   lambda: variance.principal(variance.moments(COUNTS, prior=0), size=size)):  # fmt: skip
        with pytest.raises(ValueError, match=f"{size}.*the data allow 1 to 3"):
            choose()


def test_coverage_never_falls_with_k_and_ends_at_all(rng):
    counts = rng.poisson(2.0, size=(20, 6)).astype(float)
    values = [coverage.mass(counts, coverage.greedy_mass(counts, size=k)).value for k in range(1, 7)]
    assert values == sorted(values) and values[-1] == 1.0


def test_the_most_frequent_categories_beat_random_ones_under_zipf(rng):
    counts = rng.multinomial(100, 1 / np.arange(1, 41) / (1 / np.arange(1, 41)).sum(), size=30).astype(float)
    best = coverage.mass(counts, coverage.greedy_mass(counts, size=8))
    drawn = [coverage.mass(counts, basis) for basis in coverage.random_bases(40, size=8, draws=20, seed=0)]
    assert people.difference(best, people.average(drawn), seed=0).low > 0.2
    assert abs(people.average(drawn).value - 8 / 40) < 0.1


def test_a_mention_without_category_counts_nowhere():
    found = coverage.count(np.array([0, 0, 1]), np.array([2, -1, 0]), 2, 3)
    assert found.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_worked_topics():
    """Topic 0: one of two mentions in category 0; topic 1: both of person 1's."""
    person, topic, category = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 0])
    found = coverage.by_topic(person, topic, category, np.array([0]), people=2, categories=2)
    assert [share.value for share, _ in found] == [0.5, 1.0]
    assert [counts.tolist() for _, counts in found] == [[1, 1], [2, 0]]


def test_a_curve_has_each_size_for_the_greedy_order_and_for_random_bases():
    how = {"categories": 3, "sizes": [1, 3], "draws": 4, "seed": 0}
    rows = coverage.curve(lambda s: coverage.mass(COUNTS, s), np.array([0, 2, 1]), **how)
    assert list(rows) == [("greedy", 1), ("greedy", 3), ("random", 1), ("random", 3)]
    assert rows["greedy", 3].value == rows["random", 3].value == 1.0
    assert rows["greedy", 1].value == 4 / 9


def test_the_size_at_which_a_level_is_reached():
    assert coverage.reached({1: 0.5, 5: 0.81, 9: 0.9}, (0.8, 0.89, 0.95)) == {"0.8": 5, "0.89": 9, "0.95": None}


@pytest.mark.parametrize("chosen", [[0, 0], [3], [-1]])
def test_a_basis_that_is_none_raises(chosen):
    with pytest.raises(ValueError, match="distinct categories of 0 ... 2"):
        coverage.mass(COUNTS, np.array(chosen))


# --- variance across individuals --------------------------------------------------------------------------------

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
        assert 0.3 < share.value < people.interval(share, seed=0).high < 0.56, way


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


# --- ratings ----------------------------------------------------------------------------------------------------

FIT = {"ridge": 1e-9, "base": 1000.0}


def test_worked_ratings():
    """Three wins to one: 400 log10(3) = 190.85 points apart, so 1095.42 and 904.58."""
    found = elo.bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]), **FIT)
    np.testing.assert_allclose(found, [1000 + 200 * log10(3), 1000 - 200 * log10(3)], atol=1e-4)


def test_the_slope_at_the_fit_is_zero(rng):
    wins = rng.integers(1, 9, size=(5, 5)).astype(float)
    np.fill_diagonal(wins, 0)
    ratings = elo.bradley_terry(wins, **FIT)
    expected = sum((wins[:, j] + wins[j]) / (1 + 10 ** ((ratings[j] - ratings) / 400)) for j in range(5))
    np.testing.assert_allclose(wins.sum(1), expected - 0.5 * np.diag(wins + wins.T), atol=1e-5)


def test_an_unbeaten_model_has_a_finite_rating_and_models_without_pairs_the_base():
    wins = np.zeros((3, 3))
    wins[0, 1] = 5
    found = elo.bradley_terry(wins, ridge=0.1, base=1000.0)
    assert np.isfinite(found).all() and found[0] > found[2] > found[1] and abs(found[2] - 1000) < 1e-6
    with pytest.raises(ValueError, match="ridge is 0"):
        elo.bradley_terry(wins, ridge=0, base=1000.0)


def duels(rng, theta, n):
    pair = np.stack([rng.permutation(len(theta))[:2] for _ in range(n)])
    first = rng.random(n) < 1 / (1 + np.exp(theta[pair[:, 1]] - theta[pair[:, 0]]))
    return np.where(first, pair[:, 0], pair[:, 1]), np.where(first, pair[:, 1], pair[:, 0])


def test_planted_strengths_are_recovered_and_lie_in_the_bootstrap_interval(rng):
    theta = np.array([1.0, 0.4, -0.2, -1.2])
    winner, loser = duels(rng, theta, 3000)
    wins = elo.win_counts(winner, loser, models=4)
    drawn = elo.bootstrap(wins, **FIT, resamples=200, seed=0)
    low, high = np.quantile(drawn, [0.005, 0.995], axis=0)
    truth = 1000 + 400 / log(10) * (theta - theta.mean())
    assert ((low < truth) & (truth < high)).all() and (high - low).max() < 80


def test_the_running_update_agrees_with_the_fit(rng):
    winner, loser = duels(rng, np.array([0.8, 0.0, -0.8]), 3000)
    fitted = elo.bradley_terry(elo.win_counts(winner, loser, models=3), **FIT)
    running = elo.elo(winner, loser, models=3, base=1000.0, step=4.0, shuffles=3, seed=0)
    np.testing.assert_allclose(running, fitted, atol=25)
    assert running.mean() == pytest.approx(1000)


def test_random_subsets_scatter_around_the_overall_ratings(rng):
    winner, loser = duels(rng, np.array([0.8, 0.0, -0.8]), 2000)
    overall = elo.bradley_terry(elo.win_counts(winner, loser, models=3), **FIT)
    found = elo.random_subsets(winner, loser, size=400, draws=60, models=3, **FIT, seed=0)
    np.testing.assert_allclose(found.mean(0), overall, atol=12)
    assert found.std(0).min() > 2
    with pytest.raises(ValueError, match="a subset of 2001 pairs is asked for, but there are 2000"):
        elo.random_subsets(winner, loser, size=2001, draws=1, models=3, **FIT, seed=0)


def test_an_assignment_that_knows_the_winner_favours_models_that_win_for_other_reasons(rng):
    """Model 0 wins by a trait that has nothing to do with category j. Who sees the winner assigns a pair to j only if
    the winner has more of j; who does not, whenever the two differ in j."""
    theta, skill = np.array([1.5, 0.0, 0.0]), rng.normal(size=(4000, 2))
    winner, loser = duels(rng, theta, 4000)
    differs = np.abs(skill[:, 0] - skill[:, 1]) > 0.5
    seen = differs & (skill[:, 0] > skill[:, 1])  # column 0 is the winner's amount of j
    blind_ahead = np.where(skill[:, 0] > skill[:, 1], winner, loser)[differs]  # who has more of j, winner or not
    blind_behind = np.where(skill[:, 0] > skill[:, 1], loser, winner)[differs]
    knowing = elo.bradley_terry(elo.win_counts(winner[seen], loser[seen], models=3), **FIT)
    blind = elo.bradley_terry(elo.win_counts(blind_ahead, blind_behind, models=3), **FIT)
    assert knowing[0] - knowing[1] > 200 and abs(blind[0] - blind[1]) < 40


def test_many_fits_at_once_are_the_fits_one_by_one(rng):
    wins = rng.integers(0, 9, size=(5, 4, 4)).astype(float) * (1 - np.eye(4))
    together = elo.bradley_terry(wins, ridge=0.1, base=1000.0)
    np.testing.assert_allclose(together, [elo.bradley_terry(w, ridge=0.1, base=1000.0) for w in wins], atol=1e-6)


def test_following_is_spearman_row_by_row(rng):
    ratings, target = rng.normal(size=(6, 8)), rng.normal(size=8)
    expected = [metrics.spearman(row, target) for row in ratings]
    np.testing.assert_allclose(elo.follow(ratings, target), expected)
    found = elo.correlations({3: {"a": ratings}, 5: {"a": -ratings}}, {3: target, 5: target})
    np.testing.assert_allclose(found["a"], [expected, np.negative(expected)])
    assert elo.summary(found["a"]).estimate == pytest.approx(0)


def test_a_category_is_compared_with_overall_blind_and_random_ratings_and_left_out_where_it_is_rare(rng):
    """What decides a choice of category 0 is theta; the blind annotator's trait 0 is the opposite order."""
    theta = np.array([1.0, 0.0, -1.0])
    winner, loser = duels(rng, theta, 900)
    knows = np.stack([np.arange(900) % 2 == 0, np.arange(900) < 20], 1)
    ahead, behind = duels(rng, -theta, 900)
    several = elo.Duels(winner, loser, knows, ahead, behind, np.zeros(900, int))
    how = {"models": 3, "resamples": 40, "ridge": 0.01, "base": 1000.0, "seed": 0}
    found = elo.compare(several, 0, 0, **how)
    assert {way: rated.shape for way, rated in found.items()} == dict.fromkeys(
        ["sees the winner", "blind", "overall", "random subset"], (40, 3))
    follows = elo.correlations({0: found}, {0: theta})
    assert follows["sees the winner"][0].mean() > 0.95 and follows["blind"][0].mean() < -0.95
    assert elo.compare(several, 1, 0, **how) == elo.compare(several, 0, 7, **how) == {}


def test_a_model_cannot_beat_itself_and_counts_are_counts():
    with pytest.raises(ValueError, match="no model can beat itself"):
        elo.win_counts(np.array([0, 1]), np.array([1, 1]), models=2)
    with pytest.raises(ValueError, match="must be square matrices"):
        elo.bradley_terry(np.ones((2, 3)), **FIT)
    with pytest.raises(ValueError, match="at least two whole wins"):
        elo.bootstrap(np.zeros((2, 2)), **FIT, resamples=2, seed=0)
