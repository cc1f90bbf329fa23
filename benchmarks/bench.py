"""Our speed and memory beside TRL's, and how our time grows, on this machine: python -m benchmarks.bench

Both sides train on identical weights and token ids in the same order (benchmarks/work.py), each run in a process of
its own, ours and the peer's in turn. Rounds: every case once, then again, up to --repeat. Finished runs are kept
(benchmarks/runs.py), so a benchmark that was stopped goes on; with --out its page, numbers and figure are written after
each round. CPU seconds of all threads are there for a machine that others use too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import machine, runs
from benchmarks.cases import GROWTH
from benchmarks.page import write_page
from benchmarks.summary import PRECISIONS, SIDES, summarise
from benchmarks.worker import Run

PEERS = ".venv/peers/trl-1.13.0"
ORDER = ["dpo", "kto", "bco", "ultra", "sampling", *GROWTH, "lora", "smollm2"]  # what tells much in little time first


def main() -> int:
    """Measure what is not yet measured, and tell all of it; 1 if a run failed."""
    options = read_options()
    check_folders(options)
    if options.fresh:
        options.kept.unlink(missing_ok=True)
    here = machine.describe()
    print(machine.name(here), flush=True)
    rates = start(Run("matmul", "float32", "ours", 0, options.threads, None, ""), options)
    for threads, some in rates.items():
        print(f"{threads} threads: " + ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in some.items()), flush=True)
    stop, failed, told = time.monotonic() + 60 * options.minutes, [], {}
    for repeat in range(options.repeat):
        for run in schedule(repeat, options, machine.has_bfloat16(here)):
            failed += finish(run, here, options) if time.monotonic() < stop else []
        kept = collect(options, here)
        if kept:
            told = summarise(kept, here, rates, options.threads)
            if options.out:
                write(told, kept, options.out)
    print("\n" + (write_page(told) if told else "nothing was measured"))
    print(*failed, sep="\n", file=sys.stderr)
    return 1 if failed else 0


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--prompts", type=int, help="only the first so many prompts of each case, for a quick look")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run later; another call goes on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--policy", type=Path, default=Path("build/weights/policy"), help="folder of SmolLM2-135M")
    parser.add_argument("--sampler", type=Path, default=Path("build/quick/reference"), help="what is sampled from")
    parser.add_argument("--bco-trl", type=Path, default=Path(PEERS), help="folder with TRL 1.13.0, the last with BCO")
    parser.add_argument("--kept", type=Path, default=Path("build/bench/runs.jsonl"), help="file of finished runs")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that are kept there")
    parser.add_argument("--out", type=Path, help="a folder for the page, the numbers and the figure")
    return parser.parse_args()


def check_folders(options) -> None:
    """End, before anything is measured, where a case lacks what it reads."""
    reads = {"bco": options.bco_trl, "sampling": options.sampler, "lora": options.policy, "smollm2": options.policy}
    for name in options.cases:
        if name in reads and not reads[name].is_dir():
            raise SystemExit(f"{name} needs {reads[name]}, which `make bench` brings: call that, or say where it is")


def schedule(repeat: int, options, bfloat16: bool) -> Iterator[Run]:
    """The runs of one round; the side that begins changes from round to round."""
    for name in options.cases:
        grows = name in GROWTH
        for precision in PRECISIONS if bfloat16 and not grows else PRECISIONS[:1]:
            for side in ("ours",) if grows else SIDES if repeat % 2 == 0 else SIDES[::-1]:
                policy = options.sampler if name == "sampling" else options.policy
                yield Run(name, precision, side, repeat, options.threads, options.prompts, str(policy))


def finish(run: Run, here: dict, options) -> list[str]:
    """Make sure that the run is among those that are kept; what went wrong, if anything."""
    key = runs.key(run, here)
    if key in runs.read(options.kept):
        return []
    began = time.monotonic()
    try:
        result = start(run, options)
    except RuntimeError as error:
        print(f"{run.name}, {run.precision}, {run.side} FAILED", flush=True)
        return [str(error)]
    runs.append(options.kept, key, run._asdict() | {"policy": ""} | result)
    print(f"{run.name:10s} {run.precision:8s} {run.side:4s} {run.repeat + 1}/{options.repeat} {say(result)}, "
          f"load {result['load']:.2f}, {time.monotonic() - began:.0f} s in all", flush=True)  # fmt: skip
    return []


def start(run: Run, options) -> dict:
    """One run in a process of its own, which finds no cache and asks nothing of a network."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {
            "HF_HOME": folder, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TMPDIR": folder,
            "OMP_NUM_THREADS": str(run.threads), "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
        }  # fmt: skip
        if run.side == "peer" and run.name == "bco":
            env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(options.bco_trl.resolve()), env.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(run._asdict())]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{run.name}, {run.precision}, {run.side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def say(result: dict) -> str:
    """A finished run in a few words."""
    if "seconds" in result:
        return ", ".join(f"{size}: {s:.2f} s" for size, s in zip(result["sizes"], result["seconds"], strict=True))
    if "useful" in result:
        return f"{result['useful']} useful tokens in {result['took'][0]:.2f} s"
    before, took, memory = result["reference"][0], result["training"][0], result["memory_mib"]
    return f"reference {before:.2f} s + training {took:.2f} s, {memory:.0f} MiB, loss {result['losses'][0]:.5f}"


def collect(options, here: dict) -> list[dict]:
    """The finished runs of this machine, this code and these options."""
    kept, bfloat16 = runs.read(options.kept), machine.has_bfloat16(here)
    wanted = (runs.key(run, here) for repeat in range(options.repeat) for run in schedule(repeat, options, bfloat16))
    return [kept[key] for key in wanted if key in kept]


def write(told: dict, kept: list[dict], folder: Path) -> None:
    """speed.md, speed.json and growth.png."""
    from benchmarks import figure

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "speed.md").write_text(write_page(told))
    short = [{name: value for name, value in run.items() if name not in ("losses", "policy")} for run in kept]
    lines = ",\n  ".join(map(json.dumps, short))
    (folder / "speed.json").write_text(json.dumps(told, indent=1)[:-2] + f',\n "runs": [\n  {lines}\n ]\n}}\n')
    if told["growth"]:
        figure.draw(told["growth"], folder / "growth.png")


if __name__ == "__main__":
    raise SystemExit(main())
