"""The benchmark is fair: both sides do the same work and nothing else, and its page says what its runs say."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest

from benchmarks import bench, machine, meter, page, runs, sampling, summary, targets, worker
from benchmarks.cases import CASES, GROWTH, Axis, Case, count_pairs, count_tokens
from benchmarks.work import count_flops, make_model, make_pairs, make_questions
from benchmarks.worker import Run

LN2 = math.log(2)
TOY = Case("toy", prompts=6, batch=4, prompt=7, answer=5, vocabulary=97)
TOYS = {
    "dpo": TOY,
    "kto": TOY._replace(method="kto"),
    "ultra": TOY._replace(prompts=3, batch=6, answers=4),
    "lora": TOY._replace(adapted=2),
}
HERE = {
    "processor": "A processor", "family": [25, 17], "cores": 2, "system": "Linux x86_64", "huge_pages": "madvise",
    "flags": {"avx512_bf16": True, "amx_bf16": False}, "settings": {}, "versions": {"torch": "2"},
}  # fmt: skip
RATES = {"1": {"float32": 5e10, "bfloat16": 1e11}, "2": {"float32": 1e11, "bfloat16": 2e11}}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    for name in ("HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


# --- the work ---------------------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", TOYS)
def test_both_sides_have_the_same_losses_and_write_nothing(name, offline, tmp_path):
    from benchmarks import ours, peer

    found = []
    for side in (ours, peer):
        folder = tmp_path / side.__name__
        folder.mkdir()
        before, took, losses = side.run(TOYS[name], make_model(TOY, Path()), "float32", folder)
        assert before.wall > 0 and took.wall > 0 and not list(folder.rglob("*"))
        found.append(losses)
    assert len(found[0]) == len(found[1]) >= 2
    assert found[0] == pytest.approx(found[1], rel=0, abs=1e-5)
    assert max(found[1]) - min(found[1]) > 1e-4  # the steps did something


def test_a_longer_case_begins_with_the_same_questions_and_any_two_answers_are_a_pair():
    ultra = CASES["ultra"]
    assert make_questions(ultra)[:2] == make_questions(ultra._replace(prompts=2))
    first, answers = make_pairs(ultra)[:6], make_questions(ultra)[0].answers
    places = [(answers.index(pair.chosen), answers.index(pair.rejected)) for pair in first]
    assert places == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] and len({tuple(p.prompt) for p in first}) == 1
    assert count_pairs(ultra) == len(make_pairs(ultra)) == 96


def test_every_case_has_as_many_pairs_as_promised_and_every_axis_grows_by_sixteen():
    assert all(count_pairs(case) >= 64 for case in CASES.values())
    assert count_tokens(CASES["dpo"]) == 64 * 2 * (96 + 64)
    for axis in GROWTH.values():
        assert axis.sizes[-1] == 16 * axis.sizes[0] and axis.field in Case._fields


def test_the_work_of_a_case_is_what_one_counts_by_hand():
    model = SimpleNamespace(
        config=SimpleNamespace(num_hidden_layers=4, hidden_size=10),
        get_decoder=lambda: SimpleNamespace(named_parameters=lambda: [("q.weight", matrix(1000)), ("norm", vector())]),
        get_output_embeddings=lambda: SimpleNamespace(weight=matrix(500)),
    )
    case = TOY._replace(prompts=1, prompt=3, answer=2)
    # a prompt of 3 and two answers of which 1 token is read: 5 tokens; keys 1 + 2 + 3 and twice 4; 4 predicted tokens
    whole = 2 * (5 * 1000 + 80 * (6 + 8) + 4 * 500)
    assert count_flops(case, model) == (whole, 3 * whole)
    one = 2 * (4 * 1000 + 80 * (6 + 4) + 2 * 500)  # a prompt with one answer
    again = 2 * (1 * 1000 + 80 * 4 + 2 * 500)  # another answer to a prompt that was read
    assert count_flops(case._replace(method="bco"), model) == (2 * one, 6 * one)
    assert count_flops(case._replace(method="kto"), model) == (2 * (one + again), 2 * (3 * one + again))
    top = 2 * ((5 * 1000 + 80 * 14) / 4 + 4 * 500)  # one layer of four, and the head
    assert count_flops(case._replace(adapted=1), model) == (whole, 2 * top)


def matrix(size):
    return SimpleNamespace(numel=lambda: size, dim=lambda: 2)


def vector():
    return SimpleNamespace(numel=lambda: 10, dim=lambda: 1)


def test_tokens_after_the_end_of_a_text_are_not_useful():
    assert sampling.count_useful([[5, 6, 2, 2, 2], [2, 7, 7, 7, 7], [5, 5, 5, 5, 5]], eos=2) == 3 + 1 + 5


def test_both_sides_sample_from_the_same_prompts(toy_weights):
    for side in ("ours", "peer"):
        took, useful = sampling.run(side, "float32", toy_weights / "policy", 5)
        assert took.wall > 0 and 5 <= useful <= 5 * sampling.NEW


# --- what is told -----------------------------------------------------------------------------------------------


def trained(side, seconds, precision="float32", losses=(LN2, 0.6), memory=100.0, repeat=0):
    return {
        "name": "smollm2", "precision": precision, "side": side, "repeat": repeat, "pairs": 64, "tokens": 1000,
        "reference": [seconds / 4, seconds / 2], "training": [seconds, 2 * seconds], "losses": losses, "load": 0.1,
        "flops": {"first": 1e12, "next": 8e11}, "memory_mib": memory, "matmul": RATES["2"],
    }  # fmt: skip


def cells(text, start):
    """What the first row that starts so says under each heading of its table."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {start}"))
    head = next(i for i in range(at, 0, -1) if lines[i].startswith("| ---")) - 1
    names, values = ([cell.strip() for cell in lines[i].strip("|").split("|")] for i in (head, at))
    return dict(zip(names, values, strict=True))


def test_the_page_says_medians_ratios_and_which_targets_are_met():
    ours = [trained("ours", s, repeat=i) for i, s in enumerate((8.0, 10.0, 50.0))]
    other = {"memory": 200.0, "losses": (LN2, 0.6 + 2e-5)}
    peer = [trained("peer", s, repeat=i, **other) for i, s in enumerate((31.0, 40.0, 41.0))]
    half = [trained("ours", 5.0, "bfloat16", (0.6986, 0.6)), trained("peer", 20.0, "bfloat16")]
    told = summary.summarise([*ours, *peer, *half], HERE, RATES, threads=2)
    row = told["training"][0]
    assert row["seconds"] == {"first": [12.5, 50.0], "next": [10.0, 40.0]} and row["repeats"] == [3, 3]
    assert row["faster"]["first"] == 4 and row["share_of_matmul"]["first"] == pytest.approx([0.8, 0.2])
    text, case = page.write_page(told), "DPO, SmolLM2-135M, all weights"
    time, memory = cells(text, f"{case} | float32 | TRL"), cells(text.split("## Memory")[1], f"{case} | float32")
    assert time["faster"] == "4.00 (≥ 3: met)" and time["faster, next run"] == "4.00 (≥ 3.8: met)"
    assert time["share of matmul"] == "0.80 (≥ 0.72: met) / 0.20"
    assert memory["ratio"] == "0.50 (≤ 0.45: missed)"
    assert memory["largest difference of losses"] == "2.0e-05 (≤ 0.0001: met)"
    rounded = cells(text.split("## Memory")[1], f"{case} | bfloat16")
    assert rounded["loss of step 0"] == "0.69860 / 0.69315, ln 2 is off by 5.5e-03 (≤ 0.001: missed)"
    assert "A processor (family 25, model 17), 2 cores" in text and "Not measured." in text


def test_sampling_in_either_precision_is_held_against_generate_in_float32():
    def drawn(side, precision, useful):
        return {"name": "sampling", "side": side, "precision": precision, "useful": useful, "took": [2.0, 4.0],
                "load": 0.0, "matmul": RATES["2"], "prompts": None}  # fmt: skip

    told = summary.summarise(
        [drawn("ours", "float32", 580), drawn("peer", "float32", 200), drawn("ours", "bfloat16", 1040),
         drawn("peer", "bfloat16", 400)], HERE, RATES, threads=2,
    )  # fmt: skip
    text = page.write_page(told).split("## Sampling")[1]
    assert cells(text, "float32")["faster than `generate` in float32"] == "2.90 (≥ 3: missed)"
    assert cells(text, "bfloat16")["faster than `generate` in float32"] == "5.20 (≥ 5: met)"
    assert cells(text, "bfloat16")["faster"] == "2.60"
    assert cells(text, "bfloat16")["share of steps before an end"] == f"{1040 / 3072:.2f} / {400 / 3072:.2f}"


def test_the_exponent_of_a_power_of_the_size_is_that_power(tmp_path):
    from benchmarks import figure

    sizes = [16, 32, 64, 128, 256]
    assert summary.fit_exponent(sizes, [0.02 * size**1.3 for size in sizes]) == pytest.approx(1.3)
    told = [summary.fit_growth("pairs", [
        {"sizes": sizes, "seconds": [factor * size for size in sizes]} for factor in (0.1, 0.2, 9.0)
    ])]  # fmt: skip
    assert told[0]["exponent"] == pytest.approx(1) and told[0]["seconds"] == pytest.approx([0.2 * s for s in sizes])
    assert page.table(page.GROWN, told).splitlines()[-1].endswith("| 1.00 (≤ 1.05: met) |")
    assert figure.draw(told, tmp_path / "growth.png").stat().st_size > 1000


def test_every_target_is_of_a_case_that_is_measured():
    assert {name for name, *_ in targets.SPEED} | {*targets.MEMORY, *targets.SHARE} <= set(CASES)
    assert set(targets.EXPONENT) == set(GROWTH) and set(targets.SAMPLING) == set(summary.PRECISIONS)
    assert {*CASES, *GROWTH, "sampling"} == set(bench.ORDER)


# --- going on ---------------------------------------------------------------------------------------------------


def options(tmp_path, **changes):
    given = {"cases": ["dpo", "pairs"], "repeat": 2, "threads": 1, "prompts": None, "minutes": 1.0, "fresh": False}
    given |= {"kept": tmp_path / "runs.jsonl", "out": None} | dict.fromkeys(("policy", "sampler", "bco_trl"), tmp_path)
    return SimpleNamespace(**given | changes)


def test_a_benchmark_that_was_stopped_goes_on_with_what_is_missing(tmp_path, monkeypatch, capsys):
    started = []

    def start(run, given):
        if run.name == "matmul":
            return {"1": RATES["2"]}
        started.append((run.name, run.precision, run.side, run.repeat))
        if len(started) == 4:
            raise RuntimeError("killed")
        if run.name in GROWTH:
            return {"sizes": [1, 2], "seconds": [1.0, 2.0], "load": 0.0, "matmul": RATES["2"]}
        return {k: v for k, v in trained(run.side, 1.0).items() if k not in run._fields}

    monkeypatch.setattr(bench, "start", start)
    monkeypatch.setattr(machine, "describe", lambda: HERE)
    monkeypatch.setattr(bench, "read_options", lambda: options(tmp_path, out=tmp_path / "out"))
    assert bench.main() == 1  # one of the ten runs failed
    assert len(started) == 10 and started[:2] == [("dpo", "float32", "ours", 0), ("dpo", "float32", "peer", 0)]
    assert started[5:7] == [("dpo", "float32", "peer", 1), ("dpo", "float32", "ours", 1)]  # the other side begins
    failed = started[3]
    assert bench.main() == 0 and started[10:] == [failed]
    told = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert [row["repeats"] for row in told["training"]] == [[2, 2], [2, 2]] and len(told["runs"]) == 10
    assert (tmp_path / "out" / "speed.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "out" / "growth.png").exists() and str(tmp_path) not in json.dumps(told)


def test_a_run_counts_for_its_own_machine_case_and_repeat_only(tmp_path):
    run = Run("dpo", "float32", "ours", 0, 2, None, "here")
    keys = {
        runs.key(one, there)
        for one, there in ((run, HERE), (run._replace(repeat=1), HERE), (run._replace(name="kto"), HERE),
                           (run._replace(side="peer"), HERE), (run, HERE | {"cores": 4}))
    }  # fmt: skip
    assert len(keys) == 5 and runs.key(run._replace(policy="there"), HERE) in keys
    path = tmp_path / "runs.jsonl"
    runs.append(path, "a", {"seconds": 1})
    with path.open("a") as file:
        file.write('{"key": "b", "sec')  # the machine went down here
    assert runs.read(path) == {"a": {"seconds": 1}}


def test_without_bfloat16_products_its_rows_are_left_out_and_the_page_says_so(tmp_path):
    old = HERE | {"flags": {"avx512_bf16": False, "amx_bf16": False}}
    wanted = bench.schedule(0, options(tmp_path), machine.has_bfloat16(old))
    assert {run.precision for run in wanted} == {"float32"}
    told = summary.summarise([trained("ours", 1.0), trained("peer", 4.0)], old, RATES, threads=2)
    assert "No bfloat16 rows" in page.write_page(told)


def test_a_missing_folder_is_named_before_anything_is_measured(tmp_path):
    there = options(tmp_path, cases=["dpo", "bco"], bco_trl=tmp_path / "none")
    with pytest.raises(SystemExit, match="bco needs .*none"):
        bench.check_folders(there)
    bench.check_folders(options(tmp_path, cases=["dpo"], bco_trl=tmp_path / "none"))  # who needs it not is not asked


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_worker_measures_both_sides_alike(offline, monkeypatch):
    monkeypatch.setattr(worker, "CASES", {"toy": TOY})
    monkeypatch.setattr(worker, "GROWTH", {"grown": Axis("prompts", (2, 4), TOY, "")})
    monkeypatch.setattr(worker, "prepare", lambda run: None)  # which would change this process
    monkeypatch.setattr(meter, "matmul_rates", lambda *_, **__: RATES["2"])
    run = Run("toy", "float32", "ours", 0, 1, 5, "")
    ours, peer = (json.loads(json.dumps(worker.measure(run._replace(side=side)))) for side in summary.SIDES)
    assert ours.keys() == peer.keys()
    assert all(ours[name] == peer[name] for name in ("pairs", "tokens", "flops", "matmul")) and ours["pairs"] == 5
    told = worker.measure(run._replace(name="grown", prompts=None))
    assert told["sizes"] == (2, 4) and min(told["seconds"]) > 0
