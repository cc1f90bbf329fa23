"""The selection agent: which pairs a judge compares, which it learns from, and what follows from its verdicts."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql import tournament
from prefcore.methods.chase_sql.execution import FAILED, Pool, mixed


class Comparison(NamedTuple):
    """Two candidates of one pool (its place in the list), in the order in which they are shown."""

    pool: int
    first: int
    second: int


Judge = Callable[[Sequence[Comparison]], np.ndarray]  # its verdicts: P(the first shown is the right one) [n]
Representatives = Callable[[Pool], Sequence[int]]  # for each candidate, which one is compared in its place


class Choice(NamedTuple):
    """The chosen candidate of a pool, everyone's points [n], and in how many pairs (`agreed` of `asked`) the judge's
    verdict was the same in both orders."""

    index: int
    points: np.ndarray
    agreed: int
    asked: int


def by_text(pool: Pool) -> list[int]:
    """[n] for each candidate its representative: the first with the same text of SQL."""
    return [pool.sqls.index(sql) for sql in pool.sqls]


def by_cluster(pool: Pool) -> list[int]:
    """The same with one representative for each cluster, its shortest query: far fewer comparisons for a slow judge.

    Departs from the paper: a judge reads the text, so two queries with one result need not have the same verdicts.
    """
    order = sorted(range(len(pool.sqls)), key=lambda i: (len(pool.sqls[i]), pool.sqls[i], i))
    shortest = {int(pool.clusters[i]): i for i in reversed(order)}
    return [shortest[int(cluster)] for cluster in pool.clusters]


def comparisons(pools: Sequence[Pool], representatives: Representatives = by_text) -> list[Comparison]:
    """All ordered pairs that need a verdict: representatives of two clusters, neither of them failed."""
    out = []
    for k, pool in enumerate(pools):
        shown = _shown(pool, representatives)
        out += [Comparison(k, i, j) for i in shown for j in shown if pool.clusters[i] != pool.clusters[j]]
    return out


def select(pools: Sequence[Pool], judge: Judge, representatives: Representatives = by_text) -> list[Choice]:
    """The tournament on every pool; the judge is asked once for all of them."""
    pairs = comparisons(pools, representatives)
    verdicts = judge(pairs) if pairs else np.empty(0)
    if len(verdicts) != len(pairs):
        raise ValueError(f"the judge gave {len(verdicts)} verdicts on {len(pairs)} pairs")
    wins = [np.full((len(pool.sqls), len(pool.sqls)), 0.5) for pool in pools]
    for pair, verdict in zip(pairs, verdicts, strict=True):
        wins[pair.pool][pair.first, pair.second] = verdict
    agreed = np.zeros((len(pools), 2), dtype=int)
    for pair in pairs:
        if pair.first < pair.second:
            there, back = wins[pair.pool][pair.first, pair.second], wins[pair.pool][pair.second, pair.first]
            agreed[pair.pool] += (there > 0.5) == (back < 0.5), 1
    out = []
    for pool, table, (same, of) in zip(pools, wins, agreed.tolist(), strict=True):
        places = representatives(pool)
        scores = tournament.points(pool.clusters, table[np.ix_(places, places)])
        out.append(Choice(tournament.winner(scores, pool.sqls), scores, same, of))
    return out


def training_pairs(
    pools: Sequence[Pool], correct: Sequence[np.ndarray], *, seed: int, per_question: int
) -> tuple[list[Comparison], np.ndarray]:
    """(pairs, labels [n]): a right against a wrong candidate in random order; label 1 where the first is right.

    Of each question at most `per_question` pairs, drawn without replacement among its different texts of SQL; none of
    a question whose candidates are all right or all wrong. Candidates that failed lose anyway and teach nothing.
    Departs from the paper: a limit for each question, so that one with many wordings does not count for many.
    """
    rng = np.random.default_rng(seed)
    chosen, labels = [], []
    for k, (pool, truth) in enumerate(zip(pools, correct, strict=True)):
        if not mixed(truth):
            continue
        shown = _shown(pool, by_text)
        pairs = [(i, j) for i in shown for j in shown if truth[i] and not truth[j]]
        for n in sorted(rng.permutation(len(pairs))[:per_question].tolist()):
            label = int(rng.integers(2))
            chosen.append(Comparison(k, *(pairs[n] if label else pairs[n][::-1])))
            labels.append(label)
    return chosen, np.array(labels, dtype=float)


def draw_pairs(
    pairs: Sequence[Comparison], labels: np.ndarray, size: int, *, seed: int
) -> tuple[list[Comparison], np.ndarray]:
    """At most `size` of the pairs with their labels, drawn from all questions, in their order."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:size])
    return [pairs[i] for i in chosen], labels[chosen]


def pairwise_accuracy(
    pools: Sequence[Pool], correct: Sequence[np.ndarray], judge: Judge, representatives: Representatives = by_text
) -> np.ndarray:
    """[q] for each pool the share of verdicts on a right and a wrong candidate, in both orders, that name the right
    one; an even verdict counts half. NaN where there is no such pair (candidates that failed are in none)."""
    pairs = [c for c in comparisons(pools, representatives) if correct[c.pool][c.first] != correct[c.pool][c.second]]
    verdicts = judge(pairs) if pairs else np.empty(0)
    total = np.zeros((len(pools), 2))
    for pair, verdict in zip(pairs, verdicts, strict=True):
        side = 1 if correct[pair.pool][pair.first] else -1
        total[pair.pool] += 0.5 + 0.5 * np.sign(verdict - 0.5) * side, 1
    return np.divide(total[:, 0], total[:, 1], out=np.full(len(pools), np.nan), where=total[:, 1] > 0)


def log_loss(verdicts: np.ndarray, labels: np.ndarray) -> float:
    """Mean -log of the probability that verdicts [n] give to labels [n], in nats."""
    given = np.clip(np.where(labels > 0.5, verdicts, 1 - verdicts), 1e-12, 1)
    return float(-np.log(given).mean())


def _shown(pool: Pool, representatives: Representatives) -> list[int]:
    """The representatives, without failed ones."""
    return sorted({i for i in representatives(pool) if pool.clusters[i] != FAILED})
