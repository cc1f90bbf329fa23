"""One run in a process of its own: python -m benchmarks.worker JSON, which prints what it measured as JSON."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import CASES, GROWTH, Case, count_pairs, count_tokens, shrink


class Run(NamedTuple):
    """What to measure: a case, `sampling`, an axis of growth (our side, float32), or `matmul`."""

    name: str
    precision: str
    side: str
    repeat: int
    threads: int
    prompts: int | None
    policy: str


def main() -> None:
    """Measure what the command line says."""
    print(json.dumps(measure(Run(**json.loads(sys.argv[1])))))


def measure(run: Run) -> dict:
    """All numbers of a run."""
    from benchmarks import meter

    if run.name == "matmul":
        return {str(threads): meter.matmul_rates(threads) for threads in sorted({1, run.threads})}
    load = os.getloadavg()[0]
    prepare(run)
    kind = train if run.name in CASES else grow if run.name in GROWTH else sample
    return kind(run) | {"load": load, "matmul": meter.matmul_rates(run.threads, times=2)}


def prepare(run: Run) -> None:
    """Threads, and on our side the library for float32 products that every run of ours chooses."""
    if run.side == "ours":
        from prefcore.engine.models import choose_device

        choose_device("cpu", run.threads)
    else:
        import torch

        torch.set_num_threads(run.threads)


def train(run: Run) -> dict:
    """A training task: seconds of its two parts, the peak of memory beyond the start, the loss of each step.

    A toy of the same kind comes first, so that neither side imports anything inside the clock.
    """
    from benchmarks import meter
    from benchmarks.work import count_flops, make_model

    if run.side == "ours":
        from benchmarks import ours as side
    else:
        from benchmarks import peer as side
    case = shrink(CASES[run.name], run.prompts)
    toy = case._replace(prompts=2, prompt=4, answer=3, vocabulary=97, pretrained=False)
    with tempfile.TemporaryDirectory() as folder:
        side.run(toy, make_model(toy, Path()), run.precision, Path(folder))
    model = make_model(case, Path(run.policy))
    reference_flops, training_flops = count_flops(case, model)
    with tempfile.TemporaryDirectory() as folder:
        before = meter.memory_now()
        meter.reset_peak()
        reference, training, losses = side.run(case, model, run.precision, Path(folder))
        memory = meter.memory_peak() - before
    return {
        "pairs": count_pairs(case), "tokens": count_tokens(case), "reference": reference, "training": training,
        "flops": {"first": reference_flops + training_flops, "next": training_flops},
        "memory_mib": memory, "before_mib": before, "losses": losses,
    }  # fmt: skip


def sample(run: Run) -> dict:
    """Sampling: seconds, and useful tokens."""
    from benchmarks import sampling

    took, useful = sampling.run(run.side, run.precision, Path(run.policy), run.prompts)
    return {"took": took, "useful": useful}


def grow(run: Run) -> dict:
    """One axis of growth: seconds of a first run at each size, after a step that is not counted."""
    axis = GROWTH[run.name]
    sizes = axis.sizes if run.prompts is None else axis.sizes[:2]
    return {"sizes": sizes, "seconds": [_seconds(axis.case._replace(**{axis.field: size}), run) for size in sizes]}


def _seconds(case: Case, run: Run) -> float:
    from benchmarks import ours
    from benchmarks.work import make_model

    with tempfile.TemporaryDirectory() as folder:
        model = make_model(case, Path(run.policy))
        ours.run(case._replace(prompts=case.batch), model, run.precision, Path(folder))
        reference, training, _ = ours.run(case, model, run.precision, Path(folder))
    return reference.wall + training.wall


if __name__ == "__main__":
    main()
