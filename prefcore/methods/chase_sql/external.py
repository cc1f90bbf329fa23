"""Candidates of real systems: a selector trained on some databases chooses on others, held against votes.

No database is on two sides: what is learnt, the strength of a ridge and the best single system included, comes from the
training databases alone.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.lab import verdicts
from prefcore.methods.chase_sql import candidates, features, linear, selector, votes
from prefcore.methods.chase_sql.candidates import Problem
from prefcore.methods.chase_sql.votes import Poll
from prefcore.scoring import metrics

MAJORITY, SINGLE, MAIN = "majority vote", "best single system", "selector"
BLOCKS = {  # arm -> what its linear judge sees; MAIN is the claim under test, the others are ablations
    MAIN: ("content",),
    "selector that sees votes": ("content", "votes"),
    "selector that sees votes by system": ("content", "votes", "systems"),
}
Teach = Callable[[Poll, Sequence], selector.Judge]  # (training poll, test ballots) -> a judge of the test ballots


def open_poll(source: str, databases: str = "") -> Poll:
    """The questions of `source` with their candidates run; rows that cannot be used are among the problems.

    ValueError where nothing is left.
    """
    questions, unreadable = candidates.read(source)
    poll = votes.poll(questions, candidates.find_databases(source, databases))
    problems = unreadable + poll.problems
    if not poll.ballots:
        first = problems[0]
        raise ValueError(f"{source}: no question is left of {len(questions)}; the first: {first.what} ({first.detail})")
    return poll._replace(problems=problems)


def folds(db_ids: Sequence[str], parts: int) -> np.ndarray:
    """[n] the part in which each question is held out; databases stay whole, and the parts are about equally large."""
    names, counts = np.unique(np.asarray(db_ids), return_counts=True)
    if len(names) < 2:
        raise ValueError(f"all questions are on {names[0]}: at least two databases are needed to test on another one")
    filled, place = np.zeros(min(parts, len(names)), dtype=int), {}
    for k in np.lexsort((names, -counts)):
        place[str(names[k])] = int(filled.argmin())
        filled[filled.argmin()] += counts[k]
    return np.array([place[db_id] for db_id in db_ids])


def cross_validate(
    poll: Poll, embed: features.Embed, *, parts: int, per_question: int, seed: int,
    others: Mapping[str, Teach] | None = None,
) -> pd.DataFrame:
    """`evaluate` on each fold with the rest as training data: one row for each arm and question."""
    where = folds([ballot.db_id for ballot in poll.ballots], parts)
    content = features.describe(poll.ballots, embed)
    frames = []
    for fold in range(where.max() + 1):
        sides = [(_subset(poll, where == fold if test else where != fold),
                  _rows(content, where == fold if test else where != fold)) for test in (False, True)]  # fmt: skip
        frames.append(evaluate(*sides, per_question=per_question, seed=seed, others=others).assign(fold=fold))
    return pd.concat(frames, ignore_index=True)


def transfer(
    train: Poll, test: Poll, embed: features.Embed, *, per_question: int, seed: int,
    others: Mapping[str, Teach] | None = None,
) -> pd.DataFrame:
    """A selector of all of `train` on those questions of `test` that are `apart` from it."""
    sides = [(poll, features.describe(poll.ballots, embed)) for poll in (train, apart(test, train))]
    return evaluate(*sides, per_question=per_question, seed=seed, others=others).assign(fold=0)


def apart(test: Poll, train: Poll) -> Poll:
    """`test` without the questions on databases of `train`, which are among its problems. ValueError if none is left.

    A database is known by its name and, where that differs, by its schema.
    """
    names = {ballot.db_id for ballot in train.ballots}
    schemas = {_schema(ballot) for ballot in train.ballots}
    seen = np.array([ballot.db_id in names or _schema(ballot) in schemas for ballot in test.ballots])
    if seen.all():
        raise ValueError("all questions of the evaluation are on databases that the selector was trained on")
    told = [Problem(test.ballots[i].id, test.ballots[i].db_id, "", "a database of the training side", "")
            for i in np.flatnonzero(seen)]  # fmt: skip
    return _subset(test, ~seen)._replace(problems=test.problems + told)


def _schema(ballot) -> tuple:
    return tuple((table.lower(), tuple(c.name.lower() for c in columns)) for table, columns in ballot.tables.items())


def evaluate(
    train, test, *, per_question: int, seed: int, others: Mapping[str, Teach] | None = None
) -> pd.DataFrame:
    """Every arm's choice on the test poll. train, test: (poll, the content block of its ballots).

    Columns: arm, id, db_id, mixed, right (0 or 1; a share for chance), pairwise (share of right verdicts on a right and
    a wrong candidate; NaN for arms without a judge), agreed and asked (pairs with one verdict in both orders).
    """
    (learnt, numbers), (poll, shown) = train, test
    ballots, correct = poll.ballots, poll.correct
    single = votes.best_system(learnt.ballots, learnt.correct)
    systems = sorted({system for ballot in learnt.ballots for system in ballot.systems})
    known = {system for ballot in ballots for system in ballot.systems}
    both = list(zip(ballots, correct, strict=True))
    rights = {
        MAJORITY: [truth[votes.majority(ballot)] for ballot, truth in both],
        "majority, its shortest": [truth[votes.shortest_of_majority(ballot)] for ballot, truth in both],
        "chance": [truth.mean() for truth in correct],
        "oracle": [truth.any() for truth in correct],
        "lower bound": [truth.all() for truth in correct],
    }
    if single in known:
        at = [votes.of_system(ballot, single) for ballot in ballots]
        rights[SINGLE] = [i is not None and truth[i] for i, truth in zip(at, correct, strict=True)]
    frames = [_frame(arm, poll, right) for arm, right in rights.items()]
    pairs = selector.training_pairs(learnt.ballots, learnt.correct, seed=seed, per_question=per_question)
    for arm, blocks in BLOCKS.items():
        if "systems" in blocks and not known & set(systems):
            continue
        told, asked = (_numbers(blocks, side, table, systems) for side, table in ((learnt, numbers), (poll, shown)))
        model = linear.fit(*told, *pairs, [ballot.db_id for ballot in learnt.ballots])
        frames.append(_judged(arm, poll, linear.judge(model, asked[0])))
    for arm, teach in (others or {}).items():
        frames.append(_judged(arm, poll, teach(learnt, ballots), selector.by_cluster))
    return pd.concat(frames, ignore_index=True)


def fit_all(poll: Poll, embed: features.Embed, *, per_question: int, seed: int) -> linear.Linear:
    """The main arm's judge of all questions, to be kept and used on databases of its own."""
    pairs = selector.training_pairs(poll.ballots, poll.correct, seed=seed, per_question=per_question)
    return linear.fit(*features.describe(poll.ballots, embed), *pairs, [ballot.db_id for ballot in poll.ballots])


def _numbers(blocks: Sequence[str], poll: Poll, content, systems: Sequence[str]):
    made = {"votes": features.describe_votes, "systems": lambda ballots: features.describe_systems(ballots, systems)}
    return features.join(*(content if block == "content" else made[block](poll.ballots) for block in blocks))


def _judged(arm: str, poll: Poll, judge: selector.Judge, speakers: selector.Speakers = selector.by_text):
    """The tournament where it matters: on the mixed questions. On the others every choice is equally right."""
    inside = np.array([votes.mixed(truth) for truth in poll.correct])
    part = _subset(poll, inside)
    asks = selector.asks_of(part.ballots, speakers)
    at = np.flatnonzero(inside).tolist()
    said = judge([ask._replace(ballot=at[ask.ballot]) for ask in asks]) if asks else ()
    kept = dict(zip(asks, said, strict=True))

    def again(asked):
        return np.array([kept[ask] for ask in asked])

    chosen = iter(selector.select(part.ballots, again, speakers))
    rates = iter(selector.pairwise(part.ballots, part.correct, again, speakers))
    rows = []
    for truth, matters in zip(poll.correct, inside, strict=True):
        choice = next(chosen) if matters else selector.Choice(0, truth, 0, 0)
        rows.append((truth[choice.index], next(rates) if matters else np.nan, choice.agreed, choice.asked))
    right, pairwise, agreed, asked = zip(*rows, strict=True)
    return _frame(arm, poll, right).assign(pairwise=pairwise, agreed=agreed, asked=asked)


def _frame(arm: str, poll: Poll, right: Sequence) -> pd.DataFrame:
    both = zip(poll.ballots, poll.correct, strict=True)
    rows = [(arm, f"{ballot.db_id}/{ballot.id}", ballot.db_id, votes.mixed(truth)) for ballot, truth in both]
    frame = pd.DataFrame(rows, columns=["arm", "id", "db_id", "mixed"])
    return frame.assign(right=np.asarray(right, dtype=float), pairwise=np.nan, agreed=0, asked=0)


def _subset(poll: Poll, inside: np.ndarray) -> Poll:
    at = np.flatnonzero(inside)
    return Poll([poll.ballots[i] for i in at], [poll.correct[i] for i in at], [])


def _rows(content, inside: np.ndarray):
    tables, names = content
    return [tables[i] for i in np.flatnonzero(inside)], names


# --- what the rows say ----------------------------------------------------------------------------------------------


def values(scores: pd.DataFrame, arm: str, *, only_mixed: bool) -> pd.Series:
    """One arm's `right` by question."""
    part = scores[(scores["arm"] == arm) & (scores["mixed"] | (not only_mixed))]
    return part.set_index("id")["right"].sort_index()


def table(scores: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Every arm: share right with its 95 % interval over questions, on all and on the mixed ones; pairwise accuracy
    (mean over mixed questions); share of pairs with one verdict in both orders."""
    rows = []
    for arm, part in scores.groupby("arm", sort=False):
        row = {"arm": arm, "questions": len(part), "mixed questions": int(part["mixed"].sum())}
        for name, only in (("all", False), ("mixed", True)):
            shares = values(scores, arm, only_mixed=only).to_numpy()
            row |= {f"{name}{end}": v for end, v in zip(("", " low", " high"), _interval(shares, seed), strict=True)}
        judged = part["pairwise"].notna()
        row["pairwise"] = part.loc[judged, "pairwise"].mean() if judged.any() else np.nan
        row["same in both orders"] = part["agreed"].sum() / part["asked"].sum() if part["asked"].sum() else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def by_database(scores: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Share right on the mixed questions of each database, an arm a column, and how many such questions there are."""
    part = scores[scores["mixed"] & scores["arm"].isin(arms)]
    wide = part.pivot_table(index="db_id", columns="arm", values="right", sort=False)[list(arms)]
    return wide.assign(questions=part[part["arm"] == arms[0]].groupby("db_id").size()).sort_index()


def claim(scores: pd.DataFrame, text: str, arm: str, other: str, *, only_mixed: bool, seed: int) -> dict:
    """A row of the claims table: `arm` against `other`, paired by question."""
    first, second = (values(scores, name, only_mixed=only_mixed) for name in (arm, other))
    test = f"share right of {arm} minus {other}, {len(first)} {'mixed ' if only_mixed else ''}questions"
    return verdicts.paired(text, test, first, second.loc[first.index], seed=seed)


def claims(scores: pd.DataFrame, *, seed: int) -> list[dict]:
    """The rows of the claims table: the selector, and the ablation that sees votes, against the two baselines."""
    arms = {
        MAIN: "a selector trained on other databases beats",
        "selector that sees votes": "a selector that is also told the vote counts beats",
    }
    there = [other for other in (MAJORITY, SINGLE) if other in set(scores["arm"])]
    return [claim(scores, f"{text} {other}", arm, other, only_mixed=only, seed=seed)
            for arm, text in arms.items() for other in there for only in (True, False)]  # fmt: skip


def as_metrics(scores: pd.DataFrame, polls: Mapping[str, Poll]) -> dict:
    """What only own data have, as nested plain numbers: the databases, and the problems of each poll by its name."""
    told = {name: problem_counts(poll) for name, poll in polls.items()}
    return {
        "by_database": by_database(scores, compared(scores)).to_dict("index"),
        "problems": {name: dict(zip(t["what"], t["count"].tolist(), strict=True)) for name, t in told.items()},
    }


def compared(scores: pd.DataFrame) -> list[str]:
    """The arms that a reader compares, of those that are there: two baselines, then all selectors."""
    there = list(dict.fromkeys(scores["arm"]))
    return [arm for arm in (MAJORITY, SINGLE) if arm in there] + [arm for arm in there if "selector" in arm]


def problem_counts(poll: Poll) -> pd.DataFrame:
    """What could not be used, how often, and the first of each kind."""
    frame = pd.DataFrame(poll.problems, columns=["id", "db_id", "system", "what", "detail"])
    kinds = frame.groupby("what", sort=True).agg(count=("what", "size"), first=("detail", "first"))
    return kinds.reset_index()


def _interval(shares: np.ndarray, seed: int):
    if len(shares) < 2:
        return (float(shares.mean()) if len(shares) else np.nan, np.nan, np.nan)
    return metrics.bootstrap_interval(shares, seed=seed)
