"""The summary as a Markdown page: a cell with two numbers is ours / the peer's, and says where a target is met."""

from collections.abc import Sequence
from math import log

from benchmarks import machine
from benchmarks.cases import CASES, NEW, PROMPTS
from benchmarks.targets import EXPONENT, FIRST_LOSS, MEMORY, SAMPLING, SHARE, SPEED, at_least, at_most

HEAD = """# Speed and memory beside TRL, and how time grows

Written by `make bench`. Two numbers in a cell are ours / the peer's: medians over the repeats, the two sides in turn,
each run in a process of its own, no checkpoint written. First run: the reference pass and training. Next run: training
alone, as the reference's numbers are there already, as they are for every second seed or arm. Both sides train on the
same weights, token ids and order."""

TIME_NOTE = """The share is of the fastest plain product of two square matrices in that precision (float32: as PyTorch
comes) that a run here measured; FLOP are those that the task needs, the same for both sides."""

MEMORY_NOTE = "Memory is the peak beyond what the process, with the model loaded, held before."

GROWTH_NOTE = """Ours, float32, first run, after a step that does not count. Exponent b of seconds = a × size^b: least
squares between the logarithms of all five points."""


def write_page(told: dict) -> str:
    """All of the summary."""
    sampling = (
        f"{len(PROMPTS)} prompts in one batch, at most {NEW} new tokens each, SmolLM2-135M as taught by the stage "
        "`reference`, beside transformers' `generate`. Useful tokens: of a text until its end, that one included."
    )
    return "\n\n".join([
        HEAD, say_machine(told),
        "## Time", TIME_NOTE, table(TIME, told["training"]),
        "## Memory and losses", MEMORY_NOTE, table(LOSSES, told["training"]),
        "## Sampling", sampling, table(SAMPLES, told["sampling"]),
        "## Growth", GROWTH_NOTE, table(GROWN, told["growth"]),
    ]) + "\n"  # fmt: skip


def say_machine(told: dict) -> str:
    """Machine, load, matrix products, versions and settings."""
    here = told["machine"]
    rates = (
        f"{threads} thread{'s' * (threads != '1')}: " + ", ".join(f"{name} {x / 1e9:.0f}" for name, x in some.items())
        for threads, some in told["matmul_flops_per_s"].items()
    )
    settings = ", ".join(f"{name}={value}" for name, value in here["settings"].items()) or "none"
    lines = [
        f"Machine: {machine.name(here)}; huge pages {here['huge_pages'] or 'unknown'}",
        f"Threads: {told['threads']}; load before a run: {told['load'][0]:.1f} to {told['load'][1]:.1f}",
        f"Products of two square matrices, GFLOP/s: {'; '.join(rates)}",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in here["versions"].items()),
        f"Settings of both sides' processes: {settings}",
    ]
    if not machine.has_bfloat16(here):
        lines.append("No bfloat16 rows: this processor would emulate it, many times slower")
    return "\n".join(f"- {line}" for line in lines)


def two(pair: Sequence[float], form: str) -> str:
    """Ours / the peer's."""
    return " / ".join(format(value, form) for value in pair)


def say_faster(row: dict, part: str) -> str:
    """How many times as fast, against its target."""
    return at_least(row["faster"][part], SPEED.get((row["case"], row["precision"], part)))


def say_share(row: dict) -> str:
    """Share of a matrix product's speed in a first run."""
    ours, peer = row["share_of_matmul"]["first"]
    return f"{at_least(ours, in_float32(row, SHARE))} / {peer:.2f}"


def say_first_loss(row: dict) -> str:
    """The loss before any update; ln 2 for DPO and BCO."""
    target = FIRST_LOSS.get((row["case"], row["precision"]))
    far = abs(row["first_loss"][0] - log(2))
    return two(row["first_loss"], ".5f") + (f", ln 2 is off by {at_most(far, target, '.1e')}" if target else "")


def say_gap(row: dict) -> str:
    """The largest difference between the two sides' losses of one step."""
    tolerance = CASES[row["case"]].tolerance if row["precision"] == "float32" else None
    return at_most(row["loss_difference"], tolerance, ".1e")


def in_float32(row: dict, targets: dict) -> float | None:
    """The case's target, which is one for float32."""
    return targets.get(row["case"]) if row["precision"] == "float32" else None


def say_against_float32(row: dict) -> str:
    """Sampling in either precision against `generate` in float32."""
    value = row["faster_than_float32"]
    return "" if value is None else at_least(value, SAMPLING[row["precision"]])


TIME = {
    "case": lambda row: row["label"],
    "precision": lambda row: row["precision"],
    "peer": lambda row: row["peer"],
    "pairs": lambda row: str(row["pairs"]),
    "repeats": lambda row: two(row["repeats"], "d"),
    "first run, s": lambda row: two(row["seconds"]["first"], ".1f"),
    "faster": lambda row: say_faster(row, "first"),
    "next run, s": lambda row: two(row["seconds"]["next"], ".1f"),
    "faster, next run": lambda row: say_faster(row, "next"),
    "by CPU time, first run": lambda row: f"{row['faster_by_cpu_time']['first']:.2f}",
    "tokens/s, first run": lambda row: two(row["tokens_per_s"]["first"], ".0f"),
    "GFLOP/s, first run": lambda row: two([x / 1e9 for x in row["flops_per_s"]["first"]], ".0f"),
    "share of matmul": say_share,
}
LOSSES = {
    "case": lambda row: row["label"],
    "precision": lambda row: row["precision"],
    "memory, MiB": lambda row: two(row["memory_mib"], ".0f"),
    "ratio": lambda row: at_most(row["memory"], in_float32(row, MEMORY)),
    "loss of step 0": say_first_loss,
    "largest difference of losses": say_gap,
}
SAMPLES = {
    "precision": lambda row: row["precision"],
    "repeats": lambda row: two(row["repeats"], "d"),
    "useful tokens/s": lambda row: two(row["useful_tokens_per_s"], ".0f"),
    "share of steps before an end": lambda row: two(row["useful"], ".2f"),
    "faster": lambda row: f"{row['faster']:.2f}",
    "faster than `generate` in float32": say_against_float32,
}
GROWN = {
    "in": lambda row: row["label"],
    "sizes": lambda row: ", ".join(map(str, row["sizes"])),
    "repeats": lambda row: str(row["repeats"]),
    "seconds": lambda row: ", ".join(f"{s:.2f}" for s in row["seconds"]),
    "exponent": lambda row: at_most(row["exponent"], EXPONENT[row["axis"]]),
}


def table(columns: dict, rows: Sequence[dict]) -> str:
    """The rows as a Markdown table; columns: what stands over each, and what it says of a row."""
    if not rows:
        return "Not measured."
    cells = [list(columns), ["---"] * len(columns), *([say(row) for say in columns.values()] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)
