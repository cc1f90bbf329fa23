"""The output contract of an autorater and its strict parser (arXiv 2510.00263, section 3).

    <think>optional reasoning</think><prob_rb_better>0.85</prob_rb_better>

The number is P(the second answer is better): 0 for the first, 1 for the second, 0.5 for neither.
Departs from the paper: it does not state its parser's rules; these are ours and are meant to be narrow.
"""

import re

TAG = "prob_rb_better"
_WHOLE = re.compile(rf"<{TAG}>(0(?:\.[0-9]+)?|1(?:\.0+)?)</{TAG}>")
_MARKS = ("<think>", "</think>", f"<{TAG}>", f"</{TAG}>")


def parse(text: str) -> float | None:
    """The probability that a text writes, in [0, 1], or None where it breaks the contract.

    White space may stand around the two elements, nothing else may; each mark occurs at most once. The number has
    ASCII digits with a leading 0 or 1 and a point: no sign, exponent, per cent, space, and nothing outside [0, 1].
    """
    if any(text.count(mark) > 1 for mark in _MARKS):
        return None
    rest = text.strip()
    if rest.startswith("<think>"):
        _, closed, rest = rest.partition("</think>")
        if not closed or f"<{TAG}>" not in rest:
            return None
        rest = rest.strip()
    found = _WHOLE.fullmatch(rest)
    return float(found[1]) if found else None


def write(probability: float, *, reasoning: str = "") -> str:
    """The contract's text for a probability in [0, 1], two decimals."""
    if not 0 <= probability <= 1:
        raise ValueError(f"a probability must be in [0, 1]; got {probability}")
    if any(mark in reasoning for mark in _MARKS):
        raise ValueError(f"the reasoning must not spell a mark of the contract: {reasoning!r}")
    thought = f"<think>{reasoning}</think>" if reasoning else ""
    return f"{thought}<{TAG}>{probability:.2f}</{TAG}>"
