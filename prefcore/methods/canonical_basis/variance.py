"""Variance across individuals: how much of a person's row K of its columns tell; entries held out, most missing.

A matrix X of people by statements (or by preference categories), NaN where nobody knows. From *training* people: means
mu and covariance S, an entry of S from those who have both, shrunk to 0 where they are few,

    S_st = sum_p (x_ps - mu_s)(x_pt - mu_t) / (n_st + prior),   then the nearest S with no negative eigenvalue

and for *other* people the ridge prediction of an entry t from those that are known, o:

    x^_pt = mu_t + S_to (S_oo + noise I)^-1 (x_po - mu_o)

    coverage = 1 - sum (x - x^)^2 / sum (x - mu)^2     over held-out entries of held-out people

A missing entry is never filled in: it takes no part in mean, covariance, prediction or score. The prediction of a
person uses the columns that this person has. Greedy columns, random columns and K principal components are compared on
the same held-out entries; `everything` knows all visible entries and is the ceiling of a linear prediction.

Reconstruction of arXiv 2503.24150 ("89 % of preference variation across individuals"); its formula is unknown to us.
Departs from the paper: the formula. Units: squared units of X; prior is a number of people.
"""

from typing import NamedTuple

import numpy as np

from prefcore.methods.canonical_basis.shares import Share, average


class Moments(NamedTuple):
    """mean [S], covariance [S, S] without negative eigenvalues, weight [S]: share of people who have the column."""

    mean: np.ndarray
    covariance: np.ndarray
    weight: np.ndarray


def moments(values: np.ndarray, *, prior: float) -> Moments:
    """Of values [P, S], NaN where missing. A column that nobody has gets mean 0 and no variance."""
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"values must be people x columns with at least two people; got shape {values.shape}")
    known = ~np.isnan(values)
    count = known.sum(0)
    mean = np.where(known, values, 0).sum(0) / np.maximum(count, 1)
    centred = np.where(known, values - mean, 0)
    together = known.T.astype(float) @ known
    covariance = centred.T @ centred / np.maximum(together + prior, 1)
    size, axes = np.linalg.eigh(covariance)
    return Moments(mean, (axes * np.clip(size, 0, None)) @ axes.T, count / len(values))


def check_size(size: int, columns: int) -> None:
    """ValueError unless a basis of `size` can be chosen from so many columns."""
    if not 1 <= size <= columns:
        raise ValueError(f"K is {size}, but the data allow 1 to {columns} columns: lower K, or bring more data")


def random_bases(columns: int, *, size: int, draws: int, seed) -> np.ndarray:
    """[draws, size] columns of random bases: the control that a greedy one must beat. seed: as default_rng."""
    check_size(size, columns)
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(columns)[:size] for _ in range(draws)])


def greedy(found: Moments, *, size: int, noise: float) -> np.ndarray:
    """[size] columns, each the one whose knowledge lowers the variance left in all columns most.

    A column of residual covariance r leaves R - r r^T / (r_j + noise): Cholesky with pivots that are chosen by the sum
    over columns of r^2 / (r_j + noise), a column counting as often as people have it.
    """
    check_size(size, len(found.mean))
    left, chosen = found.covariance.copy(), []
    for _ in range(size):
        scale = np.diag(left) + noise
        gain = found.weight @ left**2 / np.maximum(scale, 1e-12)
        gain[chosen] = -1
        j = int(gain.argmax())
        chosen.append(j)
        left -= np.outer(left[:, j], left[j]) / max(scale[j], 1e-12)
    return np.array(chosen)


def principal(found: Moments, *, size: int) -> Moments:
    """The same moments with a covariance of the `size` leading principal components only (PCA control)."""
    check_size(size, len(found.mean))
    scale, axes = np.linalg.eigh(found.covariance)
    return found._replace(covariance=(axes[:, -size:] * scale[-size:]) @ axes[:, -size:].T)


def predict(known: np.ndarray, found: Moments, *, noise: float) -> np.ndarray:
    """Predicted values [P, S] of people of whom `known` [P, S] is known (NaN: not), the known ones included."""
    out = np.tile(found.mean, (len(known), 1))
    seen = ~np.isnan(known)
    groups: dict[bytes, list[int]] = {}
    for p in np.flatnonzero(seen.any(1)):
        groups.setdefault(seen[p].tobytes(), []).append(p)
    for rows in groups.values():  # people who have the same columns share one system of equations
        o = np.flatnonzero(seen[rows[0]])
        system = found.covariance[np.ix_(o, o)] + noise * np.eye(len(o))
        weights = np.linalg.solve(system, found.covariance[o])
        out[rows] += (known[np.ix_(rows, o)] - found.mean[o]) @ weights
    return out


def others(values: np.ndarray, hidden: np.ndarray, found: Moments, chosen: np.ndarray, *, noise: float) -> Share:
    """Share of the variance of hidden entries [P, S] bool *outside* the chosen columns, from a person's chosen ones."""
    guess = predict(only(values, chosen), found, noise=noise)
    outside = hidden.copy()
    outside[:, chosen] = False
    return _share(values, guess, found.mean, outside)


def with_chosen(values: np.ndarray, hidden: np.ndarray, found: Moments, chosen: np.ndarray, *, noise: float) -> Share:
    """The same over all hidden entries, where the chosen columns' own count as known: what flatters a basis most."""
    guess = predict(only(values, chosen), found, noise=noise)
    guess[:, chosen] = values[:, chosen]
    return _share(values, guess, found.mean, hidden)


def from_visible(values: np.ndarray, hidden: np.ndarray, found: Moments, *, noise: float) -> Share:
    """Share of the variance of the hidden entries from all entries of a person that are not hidden."""
    guess = predict(np.where(hidden, np.nan, values), found, noise=noise)
    return _share(values, guess, found.mean, hidden)


def only(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen columns; the others as missing."""
    out = np.full(values.shape, np.nan)
    out[:, chosen] = values[:, chosen]
    return out


def hide(values: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """[P, S] bool: about this share of the entries that are there, drawn at random, at least one of each person."""
    rng = np.random.default_rng(seed)
    order = np.where(np.isnan(values), 2.0, rng.random(values.shape))
    return (order < share) | ((order == order.min(1, keepdims=True)) & (order < 2))


def folds(people: int, *, parts: int, seed: int) -> np.ndarray:
    """[P] the fold of each person, as even as can be."""
    if not 2 <= parts <= people:
        raise ValueError(f"{people} people cannot be put into {parts} folds: lower folds, or bring more people")
    return np.random.default_rng(seed).permutation(np.arange(people) % parts)


def unit(values: np.ndarray) -> float:
    """Mean variance of a column: what `noise` is a multiple of."""
    return float(np.nanmean(np.nanvar(values, axis=0)))


class Settings(NamedTuple):
    """prior: people; noise: squared units."""

    prior: float
    noise: float


def choose_settings(values: np.ndarray, hidden: np.ndarray, score, *, priors, noises, seed: int) -> Settings:
    """The prior and noise (multiples of the mean variance) that do best on a fifth of these (training) people.

    score(values, hidden, moments, noise) -> Share.
    """
    inner = folds(len(values), parts=min(5, len(values)), seed=seed) == 0
    scale = unit(values)
    grid = [Settings(prior, noise * scale) for prior in priors for noise in noises]
    found = {prior: moments(values[~inner], prior=prior) for prior in priors}
    results = [score(values[inner], hidden[inner], found[s.prior], s.noise).value for s in grid]
    return grid[int(np.argmax(results))]


def future(known: np.ndarray, target: np.ndarray, *, parts: int, noises, seed: int) -> Share:
    """Share [P] of the variance of target [P, T], what people do later, that is told by known [P, K], what they did.

    Every person is predicted from the others' moments, `parts` folds; the noise is chosen inside the training people.
    """
    both, size = np.hstack([known, target]), known.shape[1]
    fold = folds(len(both), parts=parts, seed=seed)
    whole = Share(np.zeros(len(both)), np.zeros(len(both)))

    def judge(rows, found, noise):
        guess = predict(only(rows, np.arange(size)), found, noise=noise)
        scored = np.tile(np.arange(both.shape[1]) >= size, (len(rows), 1))
        return _share(rows, guess, found.mean, scored)

    for part in range(parts):
        held, train = both[fold == part], both[fold != part]
        inner = folds(len(train), parts=min(5, len(train)), seed=seed + part) == 0
        tried = moments(train[~inner], prior=0)
        scale = max(unit(train[:, :size]), 1e-9)  # one category for everything: nobody differs in it
        noise = max((n * scale for n in noises), key=lambda n: judge(train[inner], tried, n).value)
        share = judge(held, moments(train, prior=0), noise)
        whole.covered[fold == part], whole.total[fold == part] = share
    return whole


def _share(values: np.ndarray, guess: np.ndarray, mean: np.ndarray, scored: np.ndarray) -> Share:
    wrong = np.where(scored, values - guess, 0.0)
    around = np.where(scored, values - mean, 0.0)
    total = (around**2).sum(1)
    return Share(total - (wrong**2).sum(1), total)


def cross_validate(values: np.ndarray, sizes: list[int], *, parts: int, hidden_share: float, draws: int, priors, noises,
                   target: int, seed: int) -> dict[str, dict[int, Share]]:  # fmt: skip
    """For each way to know a person, for each size K, the held-out Share [P] with every person held out once.

    Ways: greedy, random (of entries outside the chosen columns); greedy_all, random_all (of all hidden entries, those
    of the chosen columns counted as known); pca (K components of all visible entries); everything (under K = number of
    columns). Only ways of one kind are judged on the same entries: a greedy basis takes the columns that others would
    have predicted, so what is left to `greedy` is harder than what is left to `random`. prior and noise are chosen
    inside the training people, for greedy at `target`, for pca at `target`, and for everything apart.
    """
    people, columns = values.shape
    for size in (*sizes, target):
        check_size(size, columns)
    hidden, fold = hide(values, share=hidden_share, seed=seed), folds(people, parts=parts, seed=seed)
    out: dict[str, dict[int, list]] = {}

    def note(way: str, size: int, rows: np.ndarray, share: Share) -> None:
        whole = out.setdefault(way, {}).setdefault(size, Share(np.zeros(people), np.zeros(people)))
        whole.covered[rows], whole.total[rows] = share

    for part in range(parts):
        rows, train = np.flatnonzero(fold == part), fold != part
        held, mask = values[rows], hidden[rows]
        grid = {"priors": priors, "noises": noises, "seed": seed + part}
        for_basis = choose_settings(values[train], hidden[train], lambda v, h, m, n: others(
            v, h, m, greedy(m, size=target, noise=n), noise=n), **grid)  # fmt: skip
        for_pca = choose_settings(values[train], hidden[train], lambda v, h, m, n: from_visible(
            v, h, principal(m, size=target), noise=n), **grid)  # fmt: skip
        for_all = choose_settings(values[train], hidden[train], lambda v, h, m, n: from_visible(
            v, h, m, noise=n), **grid)  # fmt: skip
        found, noise = moments(values[train], prior=for_basis.prior), for_basis.noise
        order = greedy(found, size=max(sizes), noise=noise)
        spread = moments(values[train], prior=for_pca.prior)
        for size in sizes:
            chosen = order[:size]
            note("greedy", size, rows, others(held, mask, found, chosen, noise=noise))
            note("greedy_all", size, rows, with_chosen(held, mask, found, chosen, noise=noise))
            bases = random_bases(columns, size=size, draws=draws, seed=[seed, part, size])
            for way, judge in (("random", others), ("random_all", with_chosen)):
                note(way, size, rows, average([judge(held, mask, found, basis, noise=noise) for basis in bases]))
            leading = principal(spread, size=size)
            note("pca", size, rows, from_visible(held, mask, leading, noise=for_pca.noise))
        whole = moments(values[train], prior=for_all.prior)
        note("everything", columns, rows, from_visible(held, mask, whole, noise=for_all.noise))
    return out
