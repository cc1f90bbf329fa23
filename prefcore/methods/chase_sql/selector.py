"""The selection agent: which pairs a judge is asked about, which it learns from, and what follows from its answers."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from prefcore.methods.chase_sql import tournament
from prefcore.methods.chase_sql.votes import FAILED, Ballot, mixed


class Ask(NamedTuple):
    """Two candidates of one ballot (its place in the list), in the order in which they are shown."""

    ballot: int
    first: int
    second: int


Judge = Callable[[Sequence[Ask]], np.ndarray]  # P(the first shown is the right one) [n]
Speakers = Callable[[Ballot], Sequence[int]]  # for each candidate, which one is asked about in its place


class Choice(NamedTuple):
    """The chosen candidate of a ballot, everyone's points [n], and of how many pairs (`agreed` of `asked`) the judge
    said the same in both orders."""

    index: int
    points: np.ndarray
    agreed: int
    asked: int


def by_text(ballot: Ballot) -> list[int]:
    """[n] for each candidate the one that speaks for it: the first with the same text of SQL."""
    return [ballot.sqls.index(sql) for sql in ballot.sqls]


def by_cluster(ballot: Ballot) -> list[int]:
    """The same with one speaker for each cluster, its shortest query: far fewer questions for a slow judge.

    Departs from the paper: a judge reads the text, so two queries with one result need not have the same verdicts.
    """
    order = sorted(range(len(ballot.sqls)), key=lambda i: (len(ballot.sqls[i]), ballot.sqls[i], i))
    speaker = {int(ballot.clusters[i]): i for i in reversed(order)}
    return [speaker[int(cluster)] for cluster in ballot.clusters]


def asks_of(ballots: Sequence[Ballot], speakers: Speakers = by_text) -> list[Ask]:
    """All ordered pairs that need a verdict: speakers of two clusters, neither of them failed."""
    out = []
    for b, ballot in enumerate(ballots):
        firsts = _firsts(ballot, speakers)
        out += [Ask(b, i, j) for i in firsts for j in firsts if ballot.clusters[i] != ballot.clusters[j]]
    return out


def select(ballots: Sequence[Ballot], judge: Judge, speakers: Speakers = by_text) -> list[Choice]:
    """The tournament on every ballot; the judge is asked once for all of them."""
    asks = asks_of(ballots, speakers)
    said = judge(asks) if asks else np.empty(0)
    if len(said) != len(asks):
        raise ValueError(f"the judge gave {len(said)} answers to {len(asks)} pairs")
    wins = [np.full((len(b.sqls), len(b.sqls)), 0.5) for b in ballots]
    for ask, p in zip(asks, said, strict=True):
        wins[ask.ballot][ask.first, ask.second] = p
    agreed = np.zeros((len(ballots), 2), dtype=int)
    for ask in asks:
        if ask.first < ask.second:
            there, back = wins[ask.ballot][ask.first, ask.second], wins[ask.ballot][ask.second, ask.first]
            agreed[ask.ballot] += (there > 0.5) == (back < 0.5), 1
    out = []
    for ballot, table, (same, of) in zip(ballots, wins, agreed.tolist(), strict=True):
        speaker = speakers(ballot)
        scores = tournament.points(ballot.clusters, table[np.ix_(speaker, speaker)])
        out.append(Choice(tournament.winner(scores, ballot.sqls), scores, same, of))
    return out


def training_pairs(
    ballots: Sequence[Ballot], correct: Sequence[np.ndarray], *, seed: int, per_question: int
) -> tuple[list[Ask], np.ndarray]:
    """(pairs, labels [n]): a right against a wrong candidate in random order; label 1 where the first is right.

    Of each question at most `per_question` pairs, drawn without replacement among its different texts of SQL; none of
    a question whose candidates are all right or all wrong. Candidates that failed lose anyway and teach nothing.
    Departs from the paper: a limit for each question, so that one with many wordings does not count for many.
    """
    rng = np.random.default_rng(seed)
    asks, labels = [], []
    for b, (ballot, truth) in enumerate(zip(ballots, correct, strict=True)):
        if not mixed(truth):
            continue
        firsts = _firsts(ballot, by_text)
        pairs = [(i, j) for i in firsts for j in firsts if truth[i] and not truth[j]]
        for k in sorted(rng.permutation(len(pairs))[:per_question].tolist()):
            label = int(rng.integers(2))
            asks.append(Ask(b, *(pairs[k] if label else pairs[k][::-1])))
            labels.append(label)
    return asks, np.array(labels, dtype=float)


def pairwise(
    ballots: Sequence[Ballot], correct: Sequence[np.ndarray], judge: Judge, speakers: Speakers = by_text
) -> np.ndarray:
    """[b] for each ballot the share of verdicts on a right and a wrong candidate, in both orders, that name the right
    one; an even verdict counts half. NaN where there is no such pair (candidates that failed are in none)."""
    asks = [a for a in asks_of(ballots, speakers) if correct[a.ballot][a.first] != correct[a.ballot][a.second]]
    said = judge(asks) if asks else np.empty(0)
    total = np.zeros((len(ballots), 2))
    for ask, p in zip(asks, said, strict=True):
        side = 1 if correct[ask.ballot][ask.first] else -1
        total[ask.ballot] += 0.5 + 0.5 * np.sign(p - 0.5) * side, 1
    return np.divide(total[:, 0], total[:, 1], out=np.full(len(ballots), np.nan), where=total[:, 1] > 0)


def _firsts(ballot: Ballot, speakers: Speakers) -> list[int]:
    """Those who speak, without failed ones."""
    return sorted({i for i in speakers(ballot) if ballot.clusters[i] != FAILED})
