"""Votes of a language model that plays raters, and how far they agree with those of real ones.

Departs from the paper's script: the model sees each pair in both orders, not in one that is drawn once. Its two ways of
asking are `headcount` (how many of ten people, greedily) and `sampled` (ten single votes at temperature 1); `judge`
is one that has learnt what is asked from other texts, and whose probabilities are read as they are.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.methods.margin_rm.labels import Votes, vote_share
from prefcore.scoring import judge, llm, metrics
from prefcore.scoring.llm import LanguageModel, Request
from prefcore.scoring.votes import VotedPair


def simulate(pairs: Sequence[VotedPair], p: Parameters) -> dict[str, list[Votes]]:
    """Votes by voter: `judge` on the first `judged_pairs` pairs, `headcount` and `sampled` on the first `asked_pairs`.

    The judge is that of build/<profile>/, which has learnt from the default data: of one's own pairs it knows nothing,
    and is not asked. The others are those of the language model that `voter` names, or of the policy.
    """
    if p.people % 2:
        raise ValueError(f"people is {p.people}; half of them see a pair in each order, so it must be an even number")
    found, folder = {}, Path("build") / p.profile / "judge"
    if p.judged_pairs and not p.data and folder.exists():
        tokenizer, taught = models.load(p, folder)
        shown = [(pair.a, pair.b) for pair in pairs[: p.judged_pairs]]
        found["judge"] = verdict_votes(*judge.both_orders(shown, taught, tokenizer))
    if p.asked_pairs:
        model, how = llm.open_model(p.voter or p.policy, p), {"people": p.people, "seed": p.seed}
        found["headcount"] = headcount_votes(pairs[: p.asked_pairs], model, p.question, **how)
        found["sampled"] = sampled_votes(pairs[: p.asked_pairs], model, p.question, **how)
    return found


def headcount_votes(
    pairs: Sequence[VotedPair], model: LanguageModel, question: str, *, people: int, seed: int
) -> list[Votes]:
    """The language model says how many of `people` would prefer each, greedily, once in each order: 2 x people votes.

    The first half is from the order a, b. An answer that is not two numbers that add up fails, and with it its votes.
    """
    shown = _both_orders(pairs)
    replies = model([ask_headcount(*row, question, people=people, seed=seed) for row in shown])
    counts = [read_headcount(reply, people=people) for reply in replies]
    halves = [(None,) * people if c is None else (1.0,) * c[0] + (0.0,) * c[1] for c in counts]
    return _join(halves)


def sampled_votes(
    pairs: Sequence[VotedPair], model: LanguageModel, question: str, *, people: int, seed: int
) -> list[Votes]:
    """`people` answers of the language model at temperature 1, half of them in each order (the first: a, b).

    They show how unsure the model is, which need not be how far people differ.
    """
    shown, times = _both_orders(pairs), people // 2
    requests = [ask_vote(*row, question, seed=seed + k) for k in range(times) for row in shown]
    votes = [read_vote(reply) for reply in model(requests)]
    return _join([tuple(votes[i :: len(shown)]) for i in range(len(shown))])


def verdict_votes(p_ab: np.ndarray, p_ba: np.ndarray) -> list[Votes]:
    """Two votes for a from each pair's two verdicts, in [0, 1]: what the judge says in each order, nothing drawn.

    p_ab, p_ba [n]: P(the first shown is better) with a shown first, and with b.
    """
    return [(ab, 1 - ba) for ab, ba in zip(np.asarray(p_ab).tolist(), np.asarray(p_ba).tolist(), strict=True)]


def first_place_share(votes: Sequence[Votes]) -> float | None:
    """Share of valid simulated votes for the text that was shown first: 0.5 without a taste for a place."""
    half = [(cast[: len(cast) // 2], cast[len(cast) // 2 :]) for cast in votes]
    valid = [v for a_first, _ in half for v in a_first if v is not None]
    valid += [1 - v for _, b_first in half for v in b_first if v is not None]
    return float(np.mean(valid)) if valid else None


def agreement(simulated: Sequence[Votes], real: Sequence[Votes], *, seed: int) -> dict:
    """How far simulated votes agree with real ones, over the pairs that have a valid simulated vote.

    failed: share of simulated votes that could not be read; first_place: see first_place_share; signed: Pearson's r of
    2 p - 1 from the two sources; unsigned: the same of |2 p - 1|, which is all that the released rule reads. Each r is
    an interval over pairs, or None where one side is constant.
    """
    all_votes = [vote for votes in simulated for vote in votes]
    both = zip(simulated, real, strict=True)
    shares = [(vote_share(s), vote_share(r)) for s, r in both if any(v is not None for v in s)]
    margins = 2 * np.array(shares).reshape(-1, 2).T - 1
    found = {"pairs": len(shares), "failed": all_votes.count(None) / len(all_votes)}
    found["first_place"] = first_place_share(simulated)
    for name, values in (("signed", margins), ("unsigned", np.abs(margins))):
        try:
            found[name] = metrics.bootstrap_interval(*values, statistic=metrics.pearson, seed=seed)
        except ValueError:  # constant, or too few
            found[name] = None
    return found


# --- the two ways to ask a language model, and to read its answer strictly ----------------------------------------

EXAMPLES = (  # a fact, a paraphrase, two matters of taste
    ("Which answer is better?", "What is the capital of Australia?", "Canberra.", "Sydney.", 10),
    ("Which answer is better?", "How long do I boil an egg?", "Boil it for eight minutes.",
     "Leave it in boiling water for eight minutes.", 5),
    ("Which plan sounds better?", "", "Let us spend Sunday at the sea.", "Let us spend Sunday in the mountains.", 6),
    ("Which dessert would you rather have?", "", "Rice pudding with raisins.", "Warm chocolate cake.", 3),
)  # fmt: skip


def ask_headcount(prompt: str, first: str, second: str, question: str, *, people: int, seed: int) -> Request:
    """ "If `people` people were asked, how many would say A, how many B?", after four examples; greedy."""
    rule = (
        f"You guess how {people} different people would vote. Answer with two whole numbers that add up to {people}: "
        "votes for A, a colon, votes for B. Write nothing else."
    )
    messages = [("system", rule)]
    for example, about, a, b, of_ten in EXAMPLES:
        for_a = round(of_ten * people / 10)
        messages += [("user", _show(example, about, a, b)), ("assistant", f"{for_a}:{people - for_a}")]
    return Request((*messages, ("user", _show(question, prompt, first, second))), 0.0, 10, seed)


def ask_vote(prompt: str, first: str, second: str, question: str, *, seed: int) -> Request:
    """One voter's choice, 0 for A or 1 for B, at temperature 1."""
    rule = "You are one of many voters. Answer 0 if your choice is A, or 1 if it is B. Write nothing but that digit."
    return Request((("system", rule), ("user", _show(question, prompt, first, second))), 1.0, 3, seed)


def read_headcount(reply: str, *, people: int) -> tuple[int, int] | None:
    """(votes for the first shown, for the second), or None unless the answer is just that and adds up."""
    found = re.fullmatch(r"\s*([0-9]{1,4})\s*:\s*([0-9]{1,4})\s*", reply)
    counts = (int(found[1]), int(found[2])) if found else None
    return counts if counts and sum(counts) == people else None


def read_vote(reply: str) -> float | None:
    """1 for the first shown (the answer 0), 0 for the second (the answer 1), None for anything else."""
    return {"0": 1.0, "1": 0.0}.get(reply.strip())


def _show(question: str, prompt: str, a: str, b: str) -> str:
    return "\n".join([question, *([prompt] if prompt else []), f"A: {a}", f"B: {b}"])


def _both_orders(pairs: Sequence[VotedPair]) -> list[tuple[str, str, str]]:
    """(prompt, first, second) of each pair as a, b; then of each as b, a."""
    return [(p.prompt, p.a, p.b) for p in pairs] + [(p.prompt, p.b, p.a) for p in pairs]


def _join(halves: Sequence[Votes]) -> list[Votes]:
    """Votes for the first shown, in the order of `_both_orders` -> votes for a, pair by pair."""
    n = len(halves) // 2
    turned = [tuple(None if v is None else 1 - v for v in votes) for votes in halves[n:]]
    return [a_first + b_first for a_first, b_first in zip(halves[:n], turned, strict=True)]
