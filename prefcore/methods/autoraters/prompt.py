"""What an autorater is asked: two texts, a question, and the opening of the answer's tag, behind which it writes."""

from collections.abc import Mapping, Sequence

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate
from prefcore.methods.autoraters import tree
from prefcore.methods.autoraters.labels import LabelledPair

OPENING = "<prob_rb_better>0."
EMPTY = "[N/A]"  # a text without content, for contextual calibration


def encode(
    rows: Sequence[LabelledPair], tokenizer, p: Parameters, ratings: Mapping[str, int] | None = None
) -> list[Example]:
    """Prompts whose completions span the tree of two digits; column `label`; ids are positions in `rows`.

    Texts are cut to `max_text` tokens, so that OPENING is always there. ratings: a digit for each text, which then
    stand between question and answer as the judge's reasoning.
    """
    completions = tree.completions(tokenizer)
    examples = []
    for i, (pair, label) in enumerate(rows):
        a, b = (collate.encode_text(text, tokenizer)[: p.max_text] for text in (pair.a, pair.b))
        reasoning = f"<think>A {ratings[pair.a]}, B {ratings[pair.b]}</think>" if ratings else ""
        pieces = (f"{pair.prompt}\nText A: ".lstrip("\n"), "\nText B: ",
                  f"\n{p.question} B with probability {reasoning}{OPENING}")  # fmt: skip
        start, middle, end = (collate.encode_text(piece, tokenizer) for piece in pieces)
        examples.append(Example(f"{i}", (*start, *a, *middle, *b, *end), completions, {"label": label}))
    return examples
