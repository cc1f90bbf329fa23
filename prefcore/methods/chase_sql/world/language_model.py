"""The stage that teaches a language model to write SQL: lessons of the training databases, three layouts of reasoning.

In: build/<profile>/sql_world/lessons.jsonl. Out: build/<profile>/sql_lm/, a model; nothing where `sql_lm_lessons` is 0,
as in the quick profile.
"""

import shutil
from pathlib import Path

import numpy as np

from prefcore.data import files
from prefcore.data.types import Parameters
from prefcore.engine import collate, models
from prefcore.lab import pipeline
from prefcore.methods.chase_sql.world import layouts

MAX_PROMPT, MAX_ANSWER = 320, 160  # tokens


def fit(p: Parameters, build: Path) -> None:
    """The stage: the policy's last layers trained on `sql_lm_lessons` lessons, one epoch; history.csv has the loss."""
    folder = build / "sql_lm"
    shutil.rmtree(folder, ignore_errors=True)
    lessons = [layouts.Lesson(**row) for row in files.read_lines(build / "sql_world" / "lessons.jsonl")]
    order = np.random.default_rng(p.seed).permutation(len(lessons))[: p.sql_lm_lessons]
    if not len(order):  # the quick profile: its generators need no language model
        folder.mkdir(parents=True)
        (folder / "nothing").touch()
        return
    if len(order) < p.sql_lm_lessons:
        raise ValueError(f"sql_lm_lessons is {p.sql_lm_lessons}, but there are {len(lessons)}: raise sql_lessons")
    device = models.choose_device(p.device, p.threads)
    tokenizer, policy = models.load_policy(p.policy, device=device, dtype=p.dtype)
    examples = [encode(lessons[i], tokenizer) for i in order]
    plan = collate.make_plan(
        [e for e in examples if e], batch_size=8, epochs=1, seed=p.seed, pad_id=tokenizer.pad_token_id
    )
    models.train_top(policy, layers=p.sql_lm_layers)
    pipeline.fit(policy, plan, pipeline.token_loss, p.sql_lm_learning_rate, folder, p)
    pipeline.save(policy, tokenizer, folder, p)


def encode(lesson: layouts.Lesson, tokenizer):
    """A lesson as one example, its prompt as the chat that the model will see."""
    chat = [{"role": role, "content": text} for role, text in layouts.messages("", lesson.prompt, taught=True)]
    prompt = chat if tokenizer.chat_template else lesson.prompt
    limits = {"max_prompt": MAX_PROMPT, "max_completion": MAX_ANSWER}
    return collate.encode(lesson.id, prompt, (lesson.answer,), (True,), tokenizer, **limits)
