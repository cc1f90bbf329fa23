"""How long a run on a user's own rows will take: by what it has to read, and by a step tried on this machine."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from prefcore.data.types import Example
from prefcore.engine import collate, reference
from prefcore.engine.logps import choose_path, to_device
from prefcore.engine.train import Batches


def estimate(values: Mapping, rows: int, held_out: int, tokens: float, speed: float) -> tuple[int, float]:
    """(runs, seconds) that a chapter will take about: every arm and seed passes `epochs` times over `rows` records (a
    try of a learning rate `tried_share` as often), and is measured on `held_out` at a third of the work; all of them
    are read once before.

    speed: tokens a second of training.
    """
    arms, seeds, rates = len(values.get("arms", [""])), values.get("seeds", 1), len(values.get("rates", []))
    runs, trained = arms * (seeds + rates), arms * (seeds + rates * values.get("tried_share", 1.0))
    passes = trained * values.get("epochs", 1) * rows + runs * held_out / 3 + rows + held_out
    return runs, passes * tokens / speed


def training_speed(policy, lengths: Sequence, values: Mapping) -> float:
    """Tokens a second of one step forward and back, tried on random tokens as long as the first rows.

    lengths: token ids of each row's `prompt` and `answers`. Frozen layers have been read before, as in a run.
    """
    size, rng = policy.config.get_text_config().vocab_size, np.random.default_rng(0)

    def draw(wanted: int) -> tuple[int, ...]:
        return tuple(rng.integers(10, size, max(1, wanted)).tolist())

    rows = []
    for i, one in enumerate(lengths[: values.get("batch_size", 8)]):
        answers = tuple(draw(min(len(answer), values["max_completion"])) for answer in one.answers)
        rows.append(Example(f"{i}", draw(min(len(one.prompt), values["max_prompt"])), answers))
    precision = values.get("precision", "float32")
    plan = collate.make_plan(rows, batch_size=len(rows), epochs=1, seed=0, pad_id=0)
    plan = reference.attach(plan, policy, cache=None, precision=precision)
    score, device = choose_path(policy, collate.longest(rows)), next(policy.parameters()).device
    batch = to_device(Batches(plan)[0], device)
    start, steps = time.monotonic(), 0
    while steps < 2 or time.monotonic() - start < 2 and steps < 5:
        score(policy, batch, precision=precision).sum().backward()
        steps += 1
    policy.zero_grad(set_to_none=True)
    return steps * sum(map(collate.size, rows)) / (time.monotonic() - start)


def in_words(seconds: float) -> str:
    """A length of time as a person would say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
