"""The model's own biased answers as negatives: what it says without the picture, and without the question.

Without the picture only the question's words are left (language bias), without the question only the picture (vision
bias). Both are scored under picture and question, where they should lose against the right answer.
"""

from collections.abc import Mapping, Sequence

from prefcore.data.types import Example
from prefcore.methods.napo import vision
from prefcore.methods.napo.world.pictures import Row


def make_prompts(rows: Sequence[Row], album: Mapping, processor, *, hidden: str = "") -> list[vision.Prompt]:
    """Prompts of picture and question; `hidden` names what is left out: "picture" or "question"."""
    if hidden not in ("", "picture", "question"):
        raise ValueError(f"hidden is {hidden!r}; it must be '', 'picture' or 'question'")
    shown = [
        (None if hidden == "picture" else album[row.picture], None if hidden == "question" else row.question)
        for row in rows
    ]
    return vision.make_prompts(processor, shown)


def biased_answers(rows, album, policy, processor, *, max_new_tokens: int) -> tuple[list[str], list[str]]:
    """(language-biased, vision-biased) answers of the model itself: without the picture, without the question.

    Departs from the paper: greedy instead of three beams.
    """
    prompts = [make_prompts(rows, album, processor, hidden=hidden) for hidden in ("picture", "question")]
    language, picture = (vision.answer(policy, processor, p, max_new_tokens=max_new_tokens) for p in prompts)
    return language, picture


def encode(
    rows: Sequence[Row], biased: tuple[Sequence[str], Sequence[str]], prompts: Sequence[vision.Prompt], tokenizer, *,
    max_completion: int,
) -> tuple[list[Example], dict[str, int]]:
    """Examples with the branches chosen, rejected, language-biased, vision-biased, all under the full prompt.

    Columns language and vision: 1, or 0 where that answer is empty or the right one, so that there is no pair. The
    counts say of how many rows that is so.
    """
    examples, counts = [], {"rows": len(rows), "language_dropped": 0, "vision_dropped": 0}
    for row, prompt, *answers in zip(rows, prompts, *biased, strict=True):
        language, picture = (float(text not in ("", row.chosen.strip())) for text in answers)
        there = {"language": language, "vision": picture}
        for name, found in there.items():
            counts[f"{name}_dropped"] += found == 0
        branches = (row.chosen, row.rejected, *answers)
        examples.append(
            vision.make_example(row.id, prompt, branches, tokenizer, max_completion=max_completion, columns=there)
        )
    return examples, counts


def without(examples: Sequence[Example], names: Sequence[str]) -> list[Example]:
    """The examples without the pairs of these kinds: "language", "vision", both or none."""
    return [example._replace(columns={**example.columns, **dict.fromkeys(names, 0.0)}) for example in examples]
