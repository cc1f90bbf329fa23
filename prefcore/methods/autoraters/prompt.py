"""What an autorater is asked: two texts, a question, and the opening of the answer's tag, behind which it writes."""

from collections.abc import Sequence

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate
from prefcore.methods.autoraters import tree
from prefcore.scoring.votes import VotedPair

OPENING = "<prob_rb_better>0."
EMPTY = "[N/A]"  # a text without content, for contextual calibration


def encode(pairs: Sequence[VotedPair], tokenizer, p: Parameters) -> list[Example]:
    """Prompts whose completions span the tree of two digits; ids are positions in `pairs`.

    The prompt begins with the one that the shared judge learnt, so its verdict can be read at the end of the question,
    and its state of the first text, which has seen no other, at the end of that text. Columns text_back, question_back:
    how many tokens before the prompt's last one these two places are. Texts are cut to `max_text` tokens.
    """
    completions = tree.completions(tokenizer)
    question, written = (
        collate.encode_text(piece, tokenizer) for piece in (f"\n{p.question}", f" B with probability {OPENING}")
    )
    examples = []
    for i, pair in enumerate(pairs):
        a, b = (collate.encode_text(text, tokenizer)[: p.max_text] for text in (pair.a, pair.b))
        before = collate.encode_text(f"{pair.prompt}\nText A: ".lstrip("\n"), tokenizer)
        after = (*collate.encode_text("\nText B: ", tokenizer), *b, *question, *written)
        columns = {"text_back": float(len(after)), "question_back": float(len(written))}
        examples.append(Example(f"{i}", (*before, *a, *after), completions, columns))
    return examples
