"""What the runs say, as numbers: medians of both sides over the repeats, and their ratios."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median

import numpy as np

from benchmarks.cases import CASES, GROWTH, NEW, PROMPTS

SIDES = ("ours", "peer")
PRECISIONS = ("float32", "bfloat16")


def summarise(runs: Sequence[dict], here: dict, rates: dict, threads: int) -> dict:
    """All that is told of these runs. here: the machine; rates: its matrix products (FLOP/s) by number of threads."""
    seen = [run["matmul"] for run in runs] + [rates[str(threads)]]
    best = {precision: max(rate[precision] for rate in seen) for precision in PRECISIONS}
    loads = [run["load"] for run in runs]
    return {
        "machine": here,
        "threads": threads,
        "load": [min(loads), max(loads)],
        "matmul_flops_per_s": rates,
        "best_matmul_flops_per_s": best,
        "training": [compare_training(*both, best) for name in CASES for both in pair_up(runs, name)],
        "sampling": [compare_sampling(*both, runs) for both in pair_up(runs, "sampling")],
        "growth": [fit_growth(name, some) for name in GROWTH if (some := [run for run in runs if run["name"] == name])],
    }


def pair_up(runs: Sequence[dict], name: str) -> Iterator[tuple[list[dict], list[dict]]]:
    """(our runs, the peer's) of this name, for each precision in which both are there."""
    for precision in PRECISIONS:
        ours, peer = (pick(runs, name, precision, side) for side in SIDES)
        if ours and peer:
            yield ours, peer


def pick(runs: Sequence[dict], *wanted: str) -> list[dict]:
    """The runs of this name, precision and side."""
    return [run for run in runs if (run["name"], run["precision"], run["side"]) == wanted]


def compare_training(ours: list[dict], peer: list[dict], best: dict) -> dict:
    """One case in one precision: first run (reference pass and training) and next run (training alone)."""
    one, case = ours[0], CASES[ours[0]["name"]]

    def middle(value: Callable) -> list[float]:
        return [median(map(value, side)) for side in (ours, peer)]

    def both(clock: int) -> dict:  # 0: on the wall, 1: CPU time of all threads
        first = middle(lambda run: run["reference"][clock] + run["training"][clock])
        return {"first": first, "next": middle(lambda run: run["training"][clock])}

    seconds, cpu, memory = both(0), both(1), middle(lambda run: run["memory_mib"])
    speed = {part: [one["flops"][part] / s for s in two] for part, two in seconds.items()}
    gaps = [abs(a - b) for o in ours for p in peer for a, b in zip(o["losses"], p["losses"], strict=True)]
    return {
        "case": one["name"],
        "label": case.label,
        "precision": one["precision"],
        "peer": f"TRL {case.peer}",
        "pairs": one["pairs"],
        "steps": len(one["losses"]),
        "repeats": [len(ours), len(peer)],
        "seconds": seconds,
        "faster": {part: theirs / own for part, (own, theirs) in seconds.items()},
        "faster_by_cpu_time": {part: theirs / own for part, (own, theirs) in cpu.items()},
        "tokens_per_s": {part: [one["tokens"] / s for s in two] for part, two in seconds.items()},
        "flops_per_s": speed,
        "share_of_matmul": {part: [x / best[one["precision"]] for x in two] for part, two in speed.items()},
        "memory_mib": memory,
        "memory": memory[0] / memory[1],
        "first_loss": [side[0]["losses"][0] for side in (ours, peer)],
        "loss_difference": max(gaps),
    }


def compare_sampling(ours: list[dict], peer: list[dict], runs: Sequence[dict]) -> dict:
    """Useful tokens a second in one precision; `generate` in float32 is what both precisions are held against."""

    def rate(some: list[dict]) -> float:
        return median(run["useful"] / run["took"][0] for run in some)

    def share(some: list[dict]) -> float:
        return median(run["useful"] / (run["prompts"] or len(PROMPTS)) / NEW for run in some)

    plain = pick(runs, "sampling", "float32", "peer")
    return {
        "precision": ours[0]["precision"],
        "repeats": [len(ours), len(peer)],
        "useful_tokens_per_s": [rate(ours), rate(peer)],
        "useful": [share(ours), share(peer)],
        "faster": rate(ours) / rate(peer),
        "faster_than_float32": rate(ours) / rate(plain) if plain else None,
    }


def fit_growth(name: str, some: list[dict]) -> dict:
    """How the seconds grow along one axis."""
    sizes, seconds = some[0]["sizes"], np.median([run["seconds"] for run in some], axis=0).tolist()
    return {
        "axis": name,
        "label": GROWTH[name].label,
        "repeats": len(some),
        "sizes": sizes,
        "seconds": seconds,
        "exponent": fit_exponent(sizes, seconds),
    }


def fit_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """b of seconds = a x size^b: least squares between the logarithms, all points alike."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
