"""The model's own biased answers as negatives: what it says without the picture, and without the question.

Without the picture only the question's words are left (language bias), without the question only the picture (vision
bias). Both are scored under picture and question, where they should lose against the right answer. Some of them are
right in other words: that is the noise of automatic pairs, and in this world it is known of every pair.
"""

from collections.abc import Mapping, Sequence

from prefcore.data.types import Example
from prefcore.methods.napo import vision
from prefcore.methods.napo.world.pictures import Row, is_right

KINDS = ("language", "vision")


def make_prompts(rows: Sequence[Row], album: Mapping, processor, *, hidden: str = "") -> list[vision.Prompt]:
    """Prompts of picture and question; `hidden` names what is left out: "picture" or "question"."""
    if hidden not in ("", "picture", "question"):
        raise ValueError(f"hidden is {hidden!r}; it must be '', 'picture' or 'question'")
    shown = [
        (None if hidden == "picture" else album[row.picture], None if hidden == "question" else row.question)
        for row in rows
    ]
    return vision.make_prompts(processor, shown)


def biased_answers(rows, album, policy, processor, **how) -> tuple[list[str], list[str]]:
    """(language-biased, vision-biased) answers of the model itself: without the picture, without the question.

    how: max_new_tokens, temperature and seed as vision.answer has them. Departs from the paper: drawn instead of three
    beams, as one likeliest wording would give every automatic answer away by its words alone.
    """
    prompts = [make_prompts(rows, album, processor, hidden=hidden) for hidden in ("picture", "question")]
    language, picture = (vision.answer(policy, processor, p, **how) for p in prompts)
    return language, picture


def encode(
    rows: Sequence[Row],
    biased: tuple[Sequence[str], Sequence[str]],
    prompts: Sequence[vision.Prompt],
    tokenizer,
    *,
    max_completion: int,
) -> list[Example]:
    """Examples with the branches chosen, rejected, language-biased, vision-biased, all under the full prompt.

    Columns language and vision: 1, or 0 where that answer is empty or the chosen one, so that there is no pair.
    language_right, vision_right: 1 where the answer is right in other words, so that the pair's label is noise.
    """
    examples = []
    for row, prompt, *answers in zip(rows, prompts, *biased, strict=True):
        there = {name: float(text not in ("", row.chosen.strip())) for name, text in zip(KINDS, answers, strict=True)}
        noisy = {f"{name}_right": there[name] * is_right(row, text) for name, text in zip(KINDS, answers, strict=True)}
        branches = (row.chosen, row.rejected, *answers)
        how = {"max_completion": max_completion, "columns": there | noisy}
        examples.append(vision.make_example(row.id, prompt, branches, tokenizer, **how))
    return examples


def count(examples: Sequence[Example]) -> dict[str, int]:
    """Rows, and of each kind the automatic pairs that are there and those among them that are noise."""
    names = [name for kind in KINDS for name in (kind, f"{kind}_right")]
    return {"rows": len(examples)} | {name: int(sum(e.columns[name] for e in examples)) for name in names}


def without(examples: Sequence[Example], names: Sequence[str]) -> list[Example]:
    """The examples without the pairs of these kinds: "language", "vision", both or none."""
    return [example._replace(columns={**example.columns, **dict.fromkeys(names, 0.0)}) for example in examples]
