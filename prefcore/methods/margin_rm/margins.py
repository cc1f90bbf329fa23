"""A reward model with a margin for how far people agree (Padmakumar, Jin, Kirk and He 2024, arXiv 2412.03822).

One rater's choice is a poor stand-in for a population. So each pair also gets votes, of people or of a language model
that plays them; how far they agree is a margin, by which the chosen text's reward must exceed the other's.

Departs from the paper: only its abstract and the released script were at hand, and there the margin is always
|2 p - 1|, even where most votes go against the label; this is `margin_abs`, beside three other rules. A language
model sees each pair in both orders, not in one that is drawn once.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefcore.data.types import LossOutput, Pair
from prefcore.engine.shapes import check_shapes, check_shares
from prefcore.scoring import metrics
from prefcore.scoring.llm import LanguageModel, Request
from prefcore.scoring.votes import VotedPair

Votes = tuple[float | None, ...]  # 1 prefers a, 0 prefers b, 0.5 a tie, None a vote that failed


def loss(rewards: Tensor, margin: Tensor) -> LossOutput:
    """-log sigmoid(r_chosen - r_rejected - margin), Bradley-Terry's loss where the margin is 0.

    rewards [B,2]: of the chosen and of the rejected text (nats, as a difference of two is a log-odds). margin [B]: in
    the same unit, a constant: no gradient. Returns losses [B] and the rewards, detached.
    """
    check_shapes("rewards [B,2], margin [B]", rewards, margin)
    losses = -logsigmoid(rewards[:, 0] - rewards[:, 1] - margin.detach())
    return LossOutput(losses, rewards.detach())


def soft_loss(rewards: Tensor, share: Tensor) -> LossOutput:
    """-[P log sigmoid(d) + (1 - P) log sigmoid(-d)], d = r_first - r_second, P = share [B] of votes for the first.

    Not the paper's: what one does who has all the votes. It is least at d = logit(P), so that an even vote asks for
    equal rewards, while a margin of 0 still asks for as much distance as can be had.
    """
    check_shapes("rewards [B,2], share [B]", rewards, share)
    _check(share)
    gap, share = rewards[:, 0] - rewards[:, 1], share.detach()
    return LossOutput(-(share * logsigmoid(gap) + (1 - share) * logsigmoid(-gap)), rewards.detach())


# --- rules: from the share [B] of votes for the label's choice, in [0, 1], to a margin [B] in nats ----------------


def margin_none(share: Tensor, *, scale: float) -> Tensor:
    """0: plain Bradley-Terry."""
    _check(share)
    return torch.zeros_like(share)


def margin_abs(share: Tensor, *, scale: float) -> Tensor:
    """scale x |2 share - 1|, the released rule: agreement alone counts, also agreement *against* the label."""
    _check(share)
    return scale * (2 * share - 1).abs()


def margin_signed(share: Tensor, *, scale: float) -> Tensor:
    """scale x (2 share - 1): below 0 where most votes go against the label, so that the pair may stay that way."""
    _check(share)
    return scale * (2 * share - 1)


def margin_relu(share: Tensor, *, scale: float) -> Tensor:
    """scale x max(0, 2 share - 1): no margin where most votes go against the label."""
    _check(share)
    return scale * (2 * share - 1).clamp(min=0)


# --- labels and votes ---------------------------------------------------------------------------------------------


def draw_labels(votes: Sequence[Votes], *, seed: int) -> list[bool | None]:
    """One rater's choice for each list of votes: True for a; a tie is drawn again, None where all are ties."""
    rng, labels = np.random.default_rng(seed), []
    for cast in votes:
        decided = [vote for vote in cast if vote in (0, 1)]
        labels.append(bool(decided[rng.integers(len(decided))]) if decided else None)
    return labels


def share(votes: Votes) -> float:
    """P(a) over the valid votes, a tie half; 0.5, with which every rule gives margin 0, where there is none."""
    valid = [vote for vote in votes if vote is not None]
    return float(np.mean(valid)) if valid else 0.5


def label_pairs(
    pairs: Sequence[VotedPair], labels: Sequence[bool | None], shares: Sequence[float], rule: Callable, *, scale: float
) -> list[Pair]:
    """Each labelled pair as (chosen, rejected); strength is the share of votes for chosen, margin what `rule` makes
    of it. Pairs without a label are left out. shares: P(a), from whichever source."""
    kept = [row for row in zip(pairs, labels, shares, strict=True) if row[1] is not None]
    strengths = [p if label else 1 - p for _, label, p in kept]
    margins = rule(torch.tensor(strengths, dtype=torch.float64), scale=scale).tolist()
    return [
        Pair(pair.id, pair.prompt, *((pair.a, pair.b) if label else (pair.b, pair.a)), margin=margin, strength=strength)
        for (pair, label, _), strength, margin in zip(kept, strengths, margins, strict=True)
    ]


def real_votes(pairs: Sequence[VotedPair]) -> list[Votes]:
    """What the training half of the raters said; the label's rater is one of them."""
    return [pair.votes for pair in pairs]


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


def ballot_votes(
    pairs: Sequence[VotedPair], model: LanguageModel, question: str, *, people: int, seed: int
) -> list[Votes]:
    """`people` answers of the language model at temperature 1, half of them in each order (the first: a, b).

    They show how unsure the model is, which need not be how far people differ.
    """
    shown, times = _both_orders(pairs), people // 2
    asked = [ask_ballot(*row, question, seed=seed + k) for k in range(times) for row in shown]
    votes = [read_ballot(reply) for reply in model(asked)]
    return _join([tuple(votes[i :: len(shown)]) for i in range(len(shown))])


def verdict_votes(p_ab: np.ndarray, p_ba: np.ndarray, *, people: int, seed: int) -> list[Votes]:
    """`ballot_votes` of a judge whose probabilities are at hand: people / 2 draws in each order.

    p_ab, p_ba [n]: P(the first shown is better) with a shown first, and with b.
    """
    rng = np.random.default_rng(seed)
    first, second = (rng.random((len(p), people // 2)) < np.asarray(p)[:, None] for p in (p_ab, p_ba))
    return [tuple(row) for row in np.concatenate([first, ~second], 1).astype(float).tolist()]


def first_place_share(votes: Sequence[Votes]) -> float | None:
    """Share of valid simulated votes for the text that was shown first: 0.5 without a taste for a place."""
    half = [(cast[: len(cast) // 2], cast[len(cast) // 2 :]) for cast in votes]
    valid = [v for a_first, _ in half for v in a_first if v is not None]
    valid += [1 - v for _, b_first in half for v in b_first if v is not None]
    return float(np.mean(valid)) if valid else None


def agreement(simulated: Sequence[Votes], real: Sequence[Votes], *, seed: int) -> dict:
    """How far simulated votes tell what real ones do, over the pairs that have a valid simulated vote.

    failed: share of simulated votes that could not be read; first_place: see first_place_share; signed: Pearson's r of
    2 p - 1 from the two sources; unsigned: the same of |2 p - 1|, which is all that the released rule reads. Each r is
    an interval over pairs, or None where one side is constant.
    """
    votes = [v for cast in simulated for v in cast]
    heard = [(share(s), share(r)) for s, r in zip(simulated, real, strict=True) if any(v is not None for v in s)]
    margins = 2 * np.array(heard).reshape(-1, 2).T - 1
    found = {"pairs": len(heard), "failed": votes.count(None) / len(votes), "first_place": first_place_share(simulated)}
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
    """"If `people` people were asked, how many would say A, how many B?", after four examples; greedy."""
    rule = (
        f"You guess how {people} different people would vote. Answer with two whole numbers that add up to {people}: "
        "votes for A, a colon, votes for B. Write nothing else."
    )
    messages = [("system", rule)]
    for asked, about, a, b, for_a in EXAMPLES:
        for_a = round(for_a * people / 10)
        messages += [("user", _show(asked, about, a, b)), ("assistant", f"{for_a}:{people - for_a}")]
    return Request((*messages, ("user", _show(question, prompt, first, second))), 0.0, 10, seed)


def ask_ballot(prompt: str, first: str, second: str, question: str, *, seed: int) -> Request:
    """One voter's choice, 0 for A or 1 for B, at temperature 1."""
    rule = "You are one of many voters. Answer 0 if your choice is A, or 1 if it is B. Write nothing but that digit."
    return Request((("system", rule), ("user", _show(question, prompt, first, second))), 1.0, 3, seed)


def read_headcount(reply: str, *, people: int) -> tuple[int, int] | None:
    """(votes for the first shown, for the second), or None unless the answer is just that and adds up."""
    found = re.fullmatch(r"\s*([0-9]{1,4})\s*:\s*([0-9]{1,4})\s*", reply)
    counts = (int(found[1]), int(found[2])) if found else None
    return counts if counts and sum(counts) == people else None


def read_ballot(reply: str) -> float | None:
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


def _check(share: Tensor) -> None:
    check_shapes("share [B]", share)
    check_shares(share=share)
