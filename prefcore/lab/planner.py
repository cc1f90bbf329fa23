"""Before the bill: what a chapter will keep in memory and how long it will train, and what would fit where it does not.

From the parameters, the models' configurations and a device; nothing else is read or downloaded, own data excepted.
"""

from collections.abc import Mapping
from math import comb
from pathlib import Path
from typing import NamedTuple

from prefcore.data import datasets, views
from prefcore.data.types import Parameters, freeze
from prefcore.engine.logps import UNFIT
from prefcore.lab import devices, duration, own
from prefcore.lab.devices import GIB, Device
from prefcore.lab.footprint import Memory, Step, memory, operations, outline

PAIRS = ("dpo", "odpo", "canonical_basis")  # chapters whose sizes count pairs; the others' are told in `trainings`


class Training(NamedTuple):
    """One kind of run in a chapter: the model and what of it is trained, the largest batch, and how often.

    rows: examples of a pass; held_out: those that each run is measured on; runs: arms, seeds and tried rates together.
    layers at the top, with all their weights (whole) or an adapter; whole with 0 layers: every weight.
    """

    what: str
    model: str
    layers: int
    whole: bool
    step: Step
    rows: int
    held_out: int
    epochs: float
    runs: int


class Estimate(NamedTuple):
    """memory: of the largest training, in bytes of one device; hours: low, expected, high; tokens: read in training."""

    trainings: list[tuple[Training, Memory]]
    hours: tuple[float, float, float]
    tokens: float

    @property
    def memory(self) -> Memory:
        """That of the training that takes most."""
        return max((found for _, found in self.trainings), key=lambda found: found.expected)


# --- what a chapter trains ------------------------------------------------------------------------------------------


def trainings(method: str, p: Parameters) -> list[Training]:
    """What the chapter of a method trains with these parameters. ValueError for one that trains no model of its own."""
    has, held_out = p._fields, _get(p, "validation_prompts") + _get(p, "test_prompts")
    runs = max(1, len(_get(p, "arms", []))) * (_get(p, "seeds", 1) + len(_get(p, "rates", [])))
    size = max(p.sizes.values()) if "sizes" in has else _get(p, "prompts")
    pair, one = (Step(p.batch_size, _get(p, "max_prompt"), _get(p, "max_completion"), k) for k in (2, 1))
    model, layers, epochs = _get(p, "policy", ""), _get(p, "lora_layers"), _get(p, "epochs", 1)
    base = Training("adapters", model, layers, False, pair, size, held_out, epochs, runs)
    if method in PAIRS:
        found = [base._replace(rows=size or p.subset_pairs)]
        if _get(p, "full_seeds"):
            again = p.full_seeds + len(p.full_rates)
            found.append(base._replace(what="all weights", layers=0, whole=True, runs=again))
        return found
    if method in ("kto", "bco", "ulma"):
        return [base._replace(step=one._replace(mismatch=method == "kto"), rows=2 * size)]
    if method == "osp":
        return [base._replace(rows=size * comb(p.samples_per_prompt, 2))]
    if method == "compare":
        return [base, base._replace(what="adapters, KTO", step=one._replace(mismatch=True), runs=0)]
    if method == "margin_rm":
        texts = Step(p.batch_size, 0, p.max_tokens + 1, 2)
        held_out = p.validation_pairs + p.test_pairs
        return [Training("top layers", p.encoder, p.layers, True, texts, p.pairs, held_out, p.epochs, runs)]
    if method == "autoraters":
        shown = Step(p.batch_size, 2 * p.max_text + 48, 3, 10)  # ten first digits, a second one after each
        held_out = 2 * (p.validation_pairs + p.test_pairs)
        return [base._replace(step=shown, rows=2 * p.train_pairs, held_out=held_out, epochs=p.rl_epochs)]
    if method == "gennm":
        named = base._replace(what="all weights", model=p.policy or f"build/{p.profile}/coder", layers=0, whole=True,
                              step=Step(p.batch_size, p.max_prompt, p.max_name, 1))  # fmt: skip
        taught = {"rows": p.train_functions, "held_out": p.test_functions, "runs": 3 * (p.seeds + len(p.rates))}
        drawn = {"rows": p.asked_functions, "runs": len(p.arms) * p.seeds + len(p.sympo_rates)}
        pairs = named._replace(what="SymPO", step=named.step._replace(answers=2), epochs=p.sympo_epochs)
        return [named._replace(**taught), pairs._replace(**drawn)]
    if method == "napo":
        model = p.vision_policy or f"build/{p.profile}/biased/0"
        seen = base.step._replace(prompt=picture_tokens(model) + p.max_prompt)
        held_out = p.validation_questions + p.test_questions
        return [base._replace(model=model, step=seen, rows=p.pairs, held_out=held_out)]
    if method == "chase_sql":
        taught = p.folds * (p.seeds + len(p.rates)) * len({"language", "channel"} & set(p.selectors))
        asked = Step(p.batch_size, 640, 1, 2)  # the longest prompt of methods/chase_sql/judges.py, and a verdict
        found = base._replace(step=asked, rows=p.pairs, held_out=p.questions, runs=taught)
        return [found] * bool(taught) or _nothing(method)
    return _nothing(method)


def _nothing(method: str) -> list[Training]:
    raise ValueError(f"{method} trains no language model or encoder with these parameters: there is nothing to plan")


def picture_tokens(name: str) -> int:
    """Tokens of one picture in the prompt of a vision-language model, from its configuration."""
    from transformers import AutoConfig

    if name.startswith("build/") and not Path(name).exists():
        raise ValueError(f"{name}: it is not there; `make repro` makes it, or name another: --set vision_policy=...")
    vision = AutoConfig.from_pretrained(name).vision_config
    return (vision.image_size // vision.patch_size) ** 2


def _get(p: Parameters, name: str, default=0):
    return getattr(p, name, default)


# --- how much that is -----------------------------------------------------------------------------------------------


def needs(method: str, values: Mapping, device: Device) -> list[tuple[Training, Memory]]:
    """What each training of the chapter keeps in memory, in bytes on one device, the runtime included."""
    p = freeze(values)
    base, found = devices.RUNTIME[device.kind], []
    for training in trainings(method, p):
        kept = round(training.step.tokens / training.step.rows * training.rows)
        how = {"kept": kept, "kind": device.kind, "devices": _share(training, p, device)}
        need = memory(_outline(training, p), training.step, **how)
        parts = {**need.parts, "runtime": base}
        found.append((training, Memory(*(size + base for size in need[:3]), parts)))
    return found


def _outline(training: Training, p: Parameters):
    how = {"rank": _get(p, "lora_rank", 16), "precision": _get(p, "precision", "float32"), "dtype": p.dtype}
    return outline(training.model, layers=training.layers, whole=training.whole, encoder=_reads(training, p), **how)


def _reads(training: Training, p: Parameters) -> bool:
    return training.model == _get(p, "encoder", "")


def _share(training: Training, p: Parameters, device: Device) -> int:
    """Devices that share a training: encoders have a loop of their own (engine/descent.py), on one."""
    return 1 if _reads(training, p) else device.count


def estimate(method: str, values: Mapping, device: Device, fill: float = 1.0) -> Estimate:
    """Memory, hours and tokens of a chapter on a device. fill: tokens of a mean row as a share of the longest.

    ValueError where the device's processor lacks the precision.
    """
    p = freeze(values)
    precision = p.dtype if p.dtype != "float32" else _get(p, "precision", "float32")
    if precision not in device.flops:
        raise ValueError(f"{device.name} has no {precision} products: --set precision=float32")
    seconds, tokens = 0.0, 0.0
    for training in trainings(method, p):
        each = training.step.tokens / training.step.rows
        how = {"kept": round(each * training.rows)}
        reading, step = (work / training.step.rows for work in operations(_outline(training, p), training.step, **how))
        passes = training.epochs * training.rows
        work = training.runs * (passes * step + training.held_out * reading) + training.rows * reading
        seconds += fill * work / (device.flops[precision] * _share(training, p, device))
        tokens += fill * training.runs * passes * each
    low, middle, high = (seconds / share / 3600 for share in reversed(devices.SHARE[device.kind]))
    return Estimate(needs(method, values, device), (low, middle, high), tokens)


def demand(method: str, values: Mapping) -> None:
    """ValueError, with what would fit, where even the low estimate exceeds this machine's memory.

    A model that cannot be described is left to its loader, which knows why.
    """
    device = devices.here(values.get("device", "auto"))
    try:
        low = max(need.low for _, need in needs(method, values, device))
    except UNFIT:
        return
    if low > device.memory:
        raise ValueError(refusal(method, values, device))


def refusal(method: str, values: Mapping, device: Device) -> str:
    """One sentence: what is needed, what is there, and which changes alone (or together) would fit."""
    need = _peak(method, values, device)
    smaller = {"batch_size": values["batch_size"], "lora_layers": values.get("lora_layers", 0)}
    changes = [{name: size >> k} for name, size in smaller.items() for k in range(1, 10) if size >> k]
    changes += [{"dtype": "bfloat16"}] * (values["dtype"] != "bfloat16" and device.kind == "cuda")
    changes += [{"full_seeds": 0}] * bool(values.get("full_seeds"))
    lengths = [name for name in ("max_prompt", "max_completion", "max_tokens") if name in values]
    changes += [{name: values[name] >> k for name in lengths} for k in (1, 2) if lengths]
    first: dict[tuple, dict] = {}
    for change in changes:
        if tuple(change) not in first and _fits(method, {**values, **change}, device):
            first[tuple(change)] = change
    ways = ["--set " + " ".join(f"{name}={value}" for name, value in change.items()) for change in first.values()]
    counts = [2**k for k in range(1, 7) if device.kind == "cuda" and 2**k > device.count]
    more = next((n for n in counts if _fits(method, values, device._replace(count=n))), None)
    ways += [f"{more} such devices"] * bool(more)
    if not ways:
        least = {name: 1 for name in smaller if name in values} | {name: values[name] >> 2 for name in lengths}
        least |= {"dtype": "bfloat16"} if device.kind == "cuda" else {}
        ways = ["all together: --set " + " ".join(f"{name}={value}" for name, value in least.items())]
        ways = ways if _fits(method, {**values, **least}, device) else ["a smaller model alone"]
    return (f"{method} needs about {need / GIB:.1f} GiB on each device, and {device.name} has "
            f"{device.memory / GIB:.1f}; what would fit: {', or '.join(ways)}")  # fmt: skip


def _fits(method: str, values: Mapping, device: Device) -> bool:
    return _peak(method, values, device) <= device.memory


def _peak(method: str, values: Mapping, device: Device) -> float:
    return max(need.expected for _, need in needs(method, values, device))


# --- what is said of it ---------------------------------------------------------------------------------------------


def on_data(source: str, method: str, values: Mapping, by_hand: Mapping, columns: Mapping) -> tuple[dict, float]:
    """(values with lengths and sizes as `run` would choose them for these rows, what is set by hand excepted; tokens of
    a mean row as a share of the longest). ValueError for a method whose rows have a form of their own.
    """
    if method not in (*PAIRS, "kto", "bco", "ulma", "osp", "compare"):
        raise ValueError(
            f"{method} reads rows of its own form: leave out --data, and give sizes and lengths with --set"
        )
    from transformers import AutoConfig, AutoTokenizer

    found = own.usable(datasets.scan(source, columns=columns), method, source)
    lengths = own.measure(found.records, AutoTokenizer.from_pretrained(values["policy"]))
    context = getattr(AutoConfig.from_pretrained(values["policy"]), "max_position_embeddings", None) or 2048
    parts = views.split(found.records, own.PARTS, values["seed"])
    fitted = own.fit_lengths(lengths, context) | own.sizes(parts, values)
    values = {**values, **{name: value for name, value in fitted.items() if name in values and name not in by_hand}}
    answers = max(len(one.answers) for one in lengths)
    return values, own.tokens_of(lengths, values) / (values["max_prompt"] + answers * values["max_completion"])


def describe(method: str, values: Mapping, device: Device, fill: float = 1.0) -> list[str]:
    """The plan as lines to print."""
    found, many = estimate(method, values, device, fill), f", of {device.count} each" * (device.count > 1)
    speed = " and ".join(f"{rate / 1e12:.3g} TFLOP/s in {name}" for name, rate in device.flops.items())
    lines = [f"{method} on {device.name}: {device.memory / GIB:.1f} GiB{many}, {speed}", "",
             f"{'trained':18}{'largest batch':34}{'low':>8}{'expected':>10}{'high':>8}  GiB"]  # fmt: skip
    for training, need in found.trainings:
        step = training.step
        batch = f"{step.rows} × ({step.prompt} + {step.answers} × {step.answer}) tokens"
        sizes = [size / GIB for size in need[:3]]
        lines.append(f"{training.what:18}{batch:34}{sizes[0]:8.1f}{sizes[1]:10.1f}{sizes[2]:8.1f}")
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in found.memory.parts.items() if size >= 0.05 * GIB)
    runs = sum(training.runs for training, _ in found.trainings)
    low, hours, high = (duration.in_words(3600 * hours) for hours in found.hours)
    lines += [f"of these: {parts}", "",
              f"{runs} runs, {found.tokens / 1e6:.3g} M tokens of training: {hours} ({low} to {high}); "
              "samples come on top"]  # fmt: skip
    return lines


def plan(method: str, values: Mapping, device: Device, fill: float = 1.0) -> None:
    """Print the plan; ValueError, with what would fit, where the expected peak exceeds the device's memory."""
    print("\n".join(describe(method, values, device, fill)))
    if not _fits(method, values, device):
        raise ValueError(refusal(method, values, device))
