"""Our speed and memory beside TRL's, on this machine: python -m benchmarks.bench

Both sides train on identical weights and token ids in the same order (benchmarks/work.py), each run in a process of
its own, ours and the peer's in turn; medians over --repeat runs. tokens/s counts each answer with its prompt, divided
by the wall time of the whole: the peer's train() with its live reference, ours with reference pass and final
checkpoint. Memory is the peak beyond what the process held before the work. Share of matmul: the FLOP that the task
needs (work.count_flops) over the wall time, as a part of the best float32 matrix product that any run here measured.
CPU seconds of all threads are there for a machine that others use too.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.work import CASES, count_flops, count_tokens, make_model, make_pairs

PEERS = ".venv/peers/trl-1.13.0"
SIDES = ("ours", "peer")


def main() -> None:
    options = read_options()
    if options.worker:
        print(json.dumps(work(*options.worker, options)))
        return
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, {os.cpu_count()} cores, {options.threads} threads, load {load:.2f}", flush=True)
    runs = []
    for repeat in range(options.repeat):
        for case in options.cases:
            for side in SIDES if repeat % 2 == 0 else SIDES[::-1]:
                runs.append(start_worker(case, side, options))
                show(runs[-1])
    print("\n" + table(runs))
    if options.out:
        machine = {"platform": platform.platform(), "cores": os.cpu_count(), "threads": options.threads}
        options.out.write_text(json.dumps({"machine": machine, "cases": summary(runs), "runs": runs}, indent=1) + "\n")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--pairs", type=int, help="only the first so many pairs of each case, for a quick look")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--policy", type=Path, default=Path("build/weights/policy"), help="folder of SmolLM2-135M")
    parser.add_argument("--bco-trl", type=Path, default=Path(PEERS), help="folder with TRL 1.13.0, the last with BCO")
    parser.add_argument("--out", type=Path, help="write all numbers there as JSON")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def start_worker(case: str, side: str, options) -> dict:
    """One run in a process of its own, which finds no cache and asks nothing of a network."""
    command = [sys.executable, "-m", "benchmarks.bench", "--worker", case, side, "--threads", str(options.threads),
               "--policy", str(options.policy), *(["--pairs", str(options.pairs)] if options.pairs else [])]
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {
            "HF_HOME": folder, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TMPDIR": folder,
            "OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false",
        }
        if side == "peer" and case == "bco":
            if not (options.bco_trl / "trl").is_dir():
                raise SystemExit(f"no TRL in {options.bco_trl}: run `make bench`, or name a folder with --bco-trl")
            env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(options.bco_trl.resolve()), env.get("PYTHONPATH"))))
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{case}, {side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def work(name: str, side: str, options) -> dict:
    """What a worker does: one case, one side, measured."""
    import torch

    from benchmarks import meter

    torch.set_num_threads(options.threads)
    case = CASES[name]
    pairs = make_pairs(case, min(case.pairs, options.pairs or case.pairs))
    policy = make_model(case, options.policy)
    flops, tokens = count_flops(case, policy, len(pairs)), count_tokens(case, len(pairs))
    with tempfile.TemporaryDirectory() as folder:
        if side == "ours":
            from benchmarks import ours

            before = meter.memory_now()
            wall, cpu, losses = timed(lambda: ours.run(case, policy, pairs, Path(folder)))
        else:
            from benchmarks import peer

            frozen = make_model(case, options.policy)
            before = meter.memory_now()
            trainer = peer.make_trainer(case, policy, frozen, pairs, Path(folder))
            wall, cpu, _ = timed(trainer.train)
            losses = peer.losses(trainer)
    return {
        "case": name, "side": side, "pairs": len(pairs), "load": os.getloadavg()[0], "seconds": wall,
        "cpu_seconds": cpu, "tokens_per_s": tokens / wall, "flops_per_s": flops / wall, "before_mib": before,
        "memory_mib": meter.memory_peak() - before, "losses": losses, "matmul_flops_per_s": meter.matmul_rate(),
    }


def timed(call) -> tuple[float, float, object]:
    """(wall seconds, CPU seconds of all threads, what the call returned); the peak of memory is that of the call."""
    from benchmarks import meter

    meter.reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def show(run: dict) -> None:
    print(f"{run['case']:8s} {run['side']:5s} {run['seconds']:8.2f} s (CPU {run['cpu_seconds']:8.2f} s) "
          f"{run['tokens_per_s']:8.1f} tokens/s {run['memory_mib']:7.1f} MiB, load {run['load']:.2f}", flush=True)


def summary(runs: list[dict]) -> list[dict]:
    """One row per case: medians of both sides, their ratios, and whether the targets are met."""
    best = max(run["matmul_flops_per_s"] for run in runs)
    rows = []
    for name in dict.fromkeys(run["case"] for run in runs):
        ours, peer = ([run for run in runs if (run["case"], run["side"]) == (name, side)] for side in SIDES)
        steps = [zip(o["losses"], p.losses, strict=True) for o, p in zip(ours, peer, strict=True)]
        gap = max(abs(a - b) for step in steps for a, b in step)

        def middle(side, key):
            return median(run[key] for run in side)

        speed, memory = (middle(ours, key) / middle(peer, key) for key in ("tokens_per_s", "memory_mib"))
        rows.append({
            "case": name, "peer": f"TRL {CASES[name].peer}", "pairs": ours[0]["pairs"], "steps": len(ours[0]["losses"]),
            "tokens_per_s": [middle(ours, "tokens_per_s"), middle(peer, "tokens_per_s")], "speed": speed,
            "cpu_speed": middle(peer, "cpu_seconds") / middle(ours, "cpu_seconds"),
            "memory_mib": [middle(ours, "memory_mib"), middle(peer, "memory_mib")], "memory": memory,
            "largest_loss_difference": gap, "matmul_gflops_per_s": best / 1e9,
            "share_of_matmul": [middle(ours, "flops_per_s") / best, middle(peer, "flops_per_s") / best],
            "met": [speed >= CASES[name].speed, memory <= CASES[name].memory],
        })
    return rows


def table(runs: list[dict]) -> str:
    """The summary as a Markdown table; each cell with two numbers is ours / the peer's."""
    heads = ["case", "peer", "pairs", "tokens/s", "ratio (target)", "ratio of CPU time", "memory, MiB",
             "ratio (target)", "loss difference", "share of matmul"]
    rows = summary(runs)
    cells = [heads, ["---"] * len(heads)]
    for row in rows:
        case, (fast, small) = CASES[row["case"]], ("met" if met else "missed" for met in row["met"])
        cells.append([
            row["case"], row["peer"], str(row["pairs"]), "{:.0f} / {:.0f}".format(*row["tokens_per_s"]),
            f"{row['speed']:.2f} (≥ {case.speed:g}: {fast})", f"{row['cpu_speed']:.2f}",
            "{:.0f} / {:.0f}".format(*row["memory_mib"]), f"{row['memory']:.2f} (≤ {case.memory:g}: {small})",
            f"{row['largest_loss_difference']:.1e}", "{:.0%} / {:.0%}".format(*row["share_of_matmul"]),
        ])
    note = f"Two numbers: ours / the peer's. float32 matmul: {rows[0]['matmul_gflops_per_s']:.0f} GFLOP/s."
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n\n" + note


if __name__ == "__main__":
    main()
