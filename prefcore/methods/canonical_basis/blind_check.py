"""The blind check: does a phrase name the winner of its choice, to a judge who does not know who won?

A model asked for a reason always gives one. So each phrase is shown with both texts, in both orders and without the
winner: which text has more of it? A phrase that explains a choice names the winner more often than the phrase of
another choice does.
"""

import re
from collections.abc import Sequence

import numpy as np

from prefcore.methods.canonical_basis.extraction import Comparison, show_prompt, swap
from prefcore.scoring.llm import LanguageModel, Request


def check(comparisons: Sequence[Comparison], phrases: Sequence[str | None], model: LanguageModel, *,
          seed: int) -> np.ndarray:  # fmt: skip
    """[n] for each choice: 1 the phrase names the winner, 0 the loser, 0.5 neither; mean of both orders.

    A phrase that is None (nothing was extracted) and an answer that is neither A nor B count 0.5: a coin.
    """
    if len(comparisons) != len(phrases):
        raise ValueError(f"{len(comparisons)} choices and {len(phrases)} phrases; give one phrase for each choice")
    asked = [(i, order) for i, phrase in enumerate(phrases) if phrase is not None for order in (0, 1)]
    shown = [swap(comparisons[i]) if order else comparisons[i] for i, order in asked]
    requests = [request(one, phrases[i], seed=seed) for (i, _), one in zip(asked, shown, strict=True)]
    out = np.full((len(comparisons), 2), 0.5)
    for (i, order), one, answer in zip(asked, shown, model(requests) if requests else [], strict=True):
        letter = verdict(answer)
        out[i, order] = 0.5 if letter is None else float((letter == "A") == one.first_wins)
    return out.mean(1)


def request(comparison: Comparison, phrase: str, *, seed: int) -> Request:
    """Which of the two has more of it? The winner is not named, and not asked for."""
    texts = f"{show_prompt(comparison)}Text A: {comparison.first}\nText B: {comparison.second}\n"
    asked = f"{texts}Which text shows more of this: {phrase}? Answer A or B."
    return Request((("system", "You compare two texts. Answer with one letter."), ("user", asked)), 0.0, 2, seed)


def verdict(answer: str) -> str | None:
    """ "A" or "B" where the answer is just that letter (or "Text A", with a full stop), else None."""
    found = re.fullmatch(r"(?:text )?([ab])[.)]?", answer.strip(), flags=re.IGNORECASE)
    return found[1].upper() if found else None


def other_phrases(phrases: Sequence[str], category: np.ndarray, *, seed: int) -> list[str]:
    """For each phrase one of another category, drawn at random from the same list: the control of the blind check."""
    rng, category = np.random.default_rng(seed), np.asarray(category)
    out = []
    for own in category:
        pool = np.flatnonzero(category != own)
        if not len(pool):
            raise ValueError("all phrases are of one category: there is no other one to compare with")
        out.append(phrases[rng.choice(pool)])
    return out
