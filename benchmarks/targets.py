"""What the results are held against: two idle cores with AVX-512 and bfloat16, ratios to the peer in one run."""

SPEED = {  # (case, precision, run): at least so many times the peer's speed
    ("dpo", "float32", "first"): 6.0,
    ("kto", "float32", "first"): 5.5,
    ("bco", "float32", "first"): 4.0,
    ("ultra", "float32", "first"): 7.0,
    ("smollm2", "float32", "first"): 3.0,
    ("smollm2", "float32", "next"): 3.8,
    ("smollm2", "bfloat16", "first"): 3.2,
}
MEMORY = {"dpo": 0.2, "kto": 0.25, "smollm2": 0.45}  # in float32, at most so much of the peer's
SHARE = {"smollm2": 0.72}  # in float32, at least this share of a plain matrix product's speed
FIRST_LOSS = {("smollm2", "bfloat16"): 1e-3}  # at most so far from ln 2: policy and reference are one function
SAMPLING = {"float32": 3.0, "bfloat16": 5.0}  # at least so many times the useful tokens/s of `generate` in float32
EXPONENT = {"pairs": 1.05, "prompt": 1.3, "answers": 1.05, "vocabulary": 1.05}  # of seconds in size, at most


def at_least(value: float, target: float | None, form: str = ".2f") -> str:
    """The value, and where there is a target, the target and whether it is met."""
    return _say(value, target, form, "≥", target is not None and value >= target)


def at_most(value: float, target: float | None, form: str = ".2f") -> str:
    """The same for a value that should be small."""
    return _say(value, target, form, "≤", target is not None and value <= target)


def _say(value: float, target: float | None, form: str, sign: str, met: bool) -> str:
    return f"{value:{form}}" + ("" if target is None else f" ({sign} {target:g}: {'met' if met else 'missed'})")
