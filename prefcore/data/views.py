"""One kind of preference data seen as another: ranked completions or read records as pairs, unary or scored rows.

Paired data serve unary methods, scored data serve all. Every function keeps the order of its input, and what is random
is a function of the seed alone.
"""

import json
import math
from collections.abc import Sequence

import numpy as np

from prefcore.data.types import Pair, Prompt, Ranked, Scored, Tokens, Unary

Record = Pair | Unary | Scored | Ranked


def prompt_key(prompt: Prompt) -> str:
    """A text that is the same for equal prompts and only for them; chat messages in any order of their keys."""
    return json.dumps(prompt if isinstance(prompt, str) else [dict(message) for message in prompt], sort_keys=True)


# Ranked completions as other kinds. Ids are "<id of the row>/<places of the completions>".


def best_worst(ranked: Sequence[Ranked]) -> list[Pair]:
    """The best and the worst completion of each prompt; rows where all tie are dropped."""
    ends = [(row, _argbest(row), _argworst(row)) for row in ranked]
    return [pair_of(row, best, worst) for row, best, worst in ends if row.scores[best] > row.scores[worst]]


def pair_of(row: Ranked, better: int, worse: int) -> Pair:
    """The completions at these two places of a row, with their scores."""
    return Pair(
        f"{row.id}/{better}-{worse}", row.prompt, row.completions[better], row.completions[worse],
        row.scores[better], row.scores[worse], finished=(row.finished[better], row.finished[worse]),
        tokens=row.tokens and (row.tokens[better], row.tokens[worse]), weight=row.weight,
    )  # fmt: skip


def scored(ranked: Sequence[Ranked]) -> list[Scored]:
    """Each completion as a row of its own."""
    return [
        Scored(f"{row.id}/{i}", row.prompt, row.completions[i], row.scores[i], row.finished[i], _at(row.tokens, i),
               row.weight)  # fmt: skip
        for row in ranked
        for i in range(len(_checked(row).scores))
    ]


def unary(ranked: Sequence[Ranked], threshold: float) -> list[Unary]:
    """Thumbs-up for each completion whose score is above the threshold, thumbs-down for the others."""
    return scored_to_unary(scored(ranked), threshold)


def median_threshold(records: Sequence[Record]) -> float:
    """The median of all scores, or the largest score below it where none is above, so that both labels occur."""
    return _middle([record.score for record in as_scored(records)])


# Between the kinds that a file can hold.


def pairs_to_unary(pairs: Sequence[Pair]) -> list[Unary]:
    """Thumbs-up for each chosen completion and thumbs-down for each rejected one."""
    return [
        Unary(f"{pair.id}/{name}", pair.prompt, text, label, pair.finished[i], _at(pair.tokens, i), pair.weight)
        for pair in pairs
        for i, (name, text, label) in enumerate((("chosen", pair.chosen, True), ("rejected", pair.rejected, False)))
    ]


def pairs_to_scored(pairs: Sequence[Pair]) -> list[Scored]:
    """Both completions with their scores; raises ValueError for a pair that has none."""
    records = []
    for pair in pairs:
        if pair.chosen_score is None or pair.rejected_score is None:
            raise ValueError(f"pair {pair.id} has no scores: add the columns chosen_score and rejected_score")
        sides = (("chosen", pair.chosen, pair.chosen_score), ("rejected", pair.rejected, pair.rejected_score))
        records += [
            Scored(f"{pair.id}/{name}", pair.prompt, text, score, pair.finished[i], _at(pair.tokens, i), pair.weight)
            for i, (name, text, score) in enumerate(sides)
        ]
    return records


def scored_to_ranked(records: Sequence[Scored]) -> list[Ranked]:
    """All completions of a prompt in one row, whose id is that of the first; K may differ between rows.

    Raises ValueError where they have different weights, as what is made of them has one.
    """
    groups = by_prompt(records)
    return [
        Ranked(
            group[0].id, group[0].prompt, tuple(r.completion for r in group), tuple(r.score for r in group),
            tuple(r.finished for r in group), tokens=_all_or_none([r.tokens for r in group]),
            weight=common_weight(group),
        )  # fmt: skip
        for group in groups
    ]


def by_prompt(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each prompt, in the order in which prompts come first."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(prompt_key(record.prompt), []).append(record)
    return list(groups.values())


def common_weight(group: Sequence[Record]) -> float | None:
    """The weight of all records of a prompt; ValueError where there are two."""
    weights = sorted({record.weight for record in group} - {None})
    if len(weights) > 1:
        raise ValueError(f"rows of one prompt have the weights {weights[0]:g} and {weights[1]:g} ({group[0].id} and "
                         "others), and become one here: give all rows of a prompt the same")  # fmt: skip
    return weights[0] if weights else None


def scored_to_pairs(records: Sequence[Scored]) -> list[Pair]:
    """The best and the worst completion of each prompt; prompts with fewer than two different scores give none."""
    return best_worst(scored_to_ranked(records))


def scored_to_unary(records: Sequence[Scored], threshold: float) -> list[Unary]:
    """Thumbs-up for each completion whose score is above the threshold, thumbs-down for the others."""
    return [Unary(r.id, r.prompt, r.completion, r.score > threshold, r.finished, r.tokens, r.weight) for r in records]


# What a method needs, from whatever was read.


def as_pairs(records: Sequence[Record]) -> list[Pair]:
    """The records as pairs: best against worst of a prompt where they have scores. Unary records raise ValueError."""
    kind = _kind(records)
    if kind is Pair:
        return list(records)
    if kind is Unary:
        raise ValueError(
            "this method needs pairs, and thumbs-up or thumbs-down alone make none: give the columns prompt, chosen "
            "and rejected, or prompt, completion and score with several completions of a prompt"
        )
    pairs = best_worst(records) if kind is Ranked else scored_to_pairs(records)
    if not pairs:
        raise ValueError(
            f"this method needs pairs, and none of {len(records)} rows shares its prompt with one of another score: "
            "give several completions of a prompt, or the columns prompt, chosen and rejected"
        )
    return pairs


def pairs_if_any(records: Sequence[Record]) -> list[Pair]:
    """As as_pairs, but an empty list where the records make no pair: for a baseline that may be left out."""
    kind = _kind(records)
    if kind is Pair:
        return list(records)
    return [] if kind is Unary else best_worst(records if kind is Ranked else scored_to_ranked(records))


def as_unary(records: Sequence[Record]) -> list[Unary]:
    """The records with thumbs: chosen is up and rejected is down, a score is up above the median of all scores."""
    kind = _kind(records)
    if kind is Unary:
        return list(records)
    if kind is Pair:
        return pairs_to_unary(records)
    rows = scored(records) if kind is Ranked else list(records)
    return scored_to_unary(rows, _middle([row.score for row in rows]))


def as_scored(records: Sequence[Record]) -> list[Scored]:
    """The records with scores; pairs need theirs. Unary records raise ValueError."""
    kind = _kind(records)
    if kind is Scored:
        return list(records)
    if kind is Ranked:
        return scored(records)
    if kind is Pair:
        return pairs_to_scored(records)
    raise ValueError(
        "this method needs scores, and a label has no size: give the columns prompt, completion and score, "
        "or prompt, chosen, rejected, chosen_score and rejected_score"
    )


# Variants of a data set, for studies.


def graded_pairs(records: Sequence) -> tuple[list[Pair], int]:
    """(pairs whose `margin` says by how much chosen is better, number of ties dropped).

    The margin is the one given, else the difference of the two scores, in the data's own unit. Raises ValueError for a
    pair that has neither, or whose chosen answer is the worse one.
    """
    records = scored_to_ranked(records) if isinstance(records[0], Scored) else records
    pairs = [pair._replace(margin=_margin(pair)) for pair in as_pairs(records)]
    kept = [pair for pair in pairs if pair.margin > 0]
    return kept, len(records) - len(kept)


def are_graded(records: Sequence[Record]) -> bool:
    """Whether these are pairs which all say by how much chosen is better, as graded_pairs needs it."""
    return all(
        isinstance(r, Pair) and (r.margin is not None or None not in (r.chosen_score, r.rejected_score))
        for r in records
    )


def _margin(pair: Pair) -> float:
    scores = (pair.chosen_score, pair.rejected_score)
    if pair.margin is None and None in scores:
        raise ValueError(
            f"pair {pair.id} does not say how much better its chosen answer is: add the column margin, or the columns "
            "chosen_score and rejected_score"
        )
    margin = pair.margin if pair.margin is not None else scores[0] - scores[1]
    if margin < 0:
        raise ValueError(f"pair {pair.id}: chosen is worse than rejected by {-margin:g}: swap the two")
    return float(margin)


def draw_pairs(records: Sequence[Record], size: int, seed: int) -> list[Pair]:
    """`size` pairs, drawn anew for each seed: of ranked rows two random answers of as many random prompts.

    The answer with the higher score is chosen, however near the other is; two that score alike are no pair, and the
    next prompt takes their place. Other kinds make their pairs first (as_pairs). ValueError where there are too few.
    """
    if _kind(records) is not Ranked:
        pairs = as_pairs(records)
    else:
        rng, pairs = np.random.default_rng([seed, len(records)]), []
        for row in records:
            if len(_checked(row).scores) < 2:
                continue
            i, j = rng.permutation(len(row.scores))[:2].tolist()
            better, worse = (i, j) if row.scores[i] > row.scores[j] else (j, i)
            if row.scores[better] > row.scores[worse]:
                pairs.append(pair_of(row, better, worse))
    if size > len(pairs):
        raise ValueError(f"asked for {size} pairs, and {len(records)} records make {len(pairs)}: ask for fewer")
    return [pairs[i] for i in _permutation(len(pairs), seed)[:size]]


def flip_labels(pairs: Sequence[Pair], fraction: float, seed: int) -> list[Pair]:
    """The pairs with label noise: in round(fraction x n) of them the two texts change places.

    Scores, margin, strength and votes stay with chosen and rejected, as a rater who mistook one text for the other
    would have given them; so a flipped pair looks like any other.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}: give the share of pairs to flip, from 0 to 1")
    flipped = set(_permutation(len(pairs), seed)[: round(fraction * len(pairs))])
    return [_swap_texts(pair) if i in flipped else pair for i, pair in enumerate(pairs)]


def _swap_texts(pair: Pair) -> Pair:
    tokens = pair.tokens and pair.tokens[::-1]
    return pair._replace(chosen=pair.rejected, rejected=pair.chosen, finished=pair.finished[::-1], tokens=tokens)


def imbalance(records: Sequence[Unary], ratio: float, seed: int) -> list[Unary]:
    """All thumbs-down, and one thumbs-up for every `ratio` of them (10 for 1:10), drawn without replacement.

    At least one thumbs-up stays, and never more than there are.
    """
    if ratio <= 0:
        raise ValueError(f"ratio is {ratio}: give the number of thumbs-down for one thumbs-up, above 0")
    ups = [i for i, record in enumerate(records) if record.label]
    wanted = max(1, round((len(records) - len(ups)) / ratio))
    kept = {ups[k] for k in _permutation(len(ups), seed)[:wanted]}
    return [record for i, record in enumerate(records) if not record.label or i in kept]


def split(records: Sequence[Record], fractions: Sequence[float], seed: int) -> list[list[Record]]:
    """Parts with these fractions of the *prompts*: all records of a prompt land in one part.

    Which part a prompt lands in depends on the set of prompts and the seed, not on the order of the records. Raises
    ValueError where the fractions do not add up to 1 or a part would be empty.
    """
    if not math.isclose(sum(fractions), 1) or min(fractions) <= 0:
        raise ValueError(f"fractions are {list(fractions)}: give numbers above 0 that add up to 1")
    keys = sorted({prompt_key(record.prompt) for record in records})
    ends = [round(len(keys) * end) for end in np.cumsum(fractions)]
    if any(end <= start for start, end in zip([0, *ends], ends, strict=False)):
        raise ValueError(f"{len(keys)} prompts are too few for the fractions {list(fractions)}: a part would be empty")
    order = _permutation(len(keys), seed)
    part = {keys[k]: int(np.searchsorted(ends, place, side="right")) for place, k in enumerate(order)}
    parts = [[] for _ in fractions]
    for record in records:
        parts[part[prompt_key(record.prompt)]].append(record)
    return parts


def _kind(records: Sequence[Record]) -> type:
    kinds = {type(record) for record in records}
    if len(kinds) != 1:
        found = ", ".join(sorted(kind.__name__ for kind in kinds)) or "none"
        raise ValueError(f"records of one kind are needed, found {found}: read one data set at a time")
    return kinds.pop()


def _checked(row: Ranked) -> Ranked:
    lengths = tuple(len(part) for part in (row.completions, row.scores, row.finished, row.tokens) if part is not None)
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(f"ranked row {row.id} has {lengths} completions, scores, finished, tokens: give K of each")
    if not all(math.isfinite(score) for score in row.scores):
        raise ValueError(f"ranked row {row.id} has the scores {row.scores}: give finite ones")
    return row


def _argbest(row: Ranked) -> int:
    return max(range(len(_checked(row).scores)), key=lambda i: row.scores[i])


def _argworst(row: Ranked) -> int:
    return min(range(len(_checked(row).scores)), key=lambda i: row.scores[i])


def _at(tokens: tuple[Tokens, ...] | None, i: int) -> Tokens | None:
    return None if tokens is None else tokens[i]


def _all_or_none(tokens: list[Tokens | None]) -> tuple[Tokens, ...] | None:
    return None if None in tokens else tuple(tokens)


def _middle(scores: list[float]) -> float:
    if not scores or min(scores) == max(scores):
        raise ValueError(f"{len(scores)} scores without two different ones: no threshold parts them into up and down")
    median = float(np.median(scores))
    return median if median < max(scores) else max(score for score in scores if score < median)


def _permutation(n: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).permutation(n).tolist()
