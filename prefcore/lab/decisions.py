"""From a chapter's table of measures to its verdicts, by the claims and controls that params.yaml named before the run.

A claim or a control is a contrast: weights of arms, a measure, `among` which group of units (all, where it is not
said), and for a claim a direction and `delta`, the smallest effect that matters. No verdict is given where a control
did not pass, where a guard failed for one of the arms, or where there are fewer than SEEDS training seeds: such a claim
is *not tested*, and says why.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import pandas as pd

from prefcore.data.types import Parameters
from prefcore.lab import measures, runs, words
from prefcore.scoring import bank, effects, metrics
from prefcore.scoring.effects import Effect

NOT_TESTED = "not tested"
SEEDS = 3
ALPHA = 0.05  # of the secondary claims together, by Holm's correction


def decide(
    table: pd.DataFrame, ratings: measures.Ratings, p: Parameters, guards: Sequence[Mapping] = ()
) -> dict[str, list[dict]]:
    """Rows for the metrics file: `controls`, guards among them, and `claims`; what lacks an arm is left out, and said.

    A positive control passes where its interval lies above 0, a placebo where its interval does not and excludes a gain
    of delta. One that did not run withholds all claims, unless no unit of its group was measured. A guard withholds the
    claims on what it `withholds`, all where it does not say.
    """
    present = _there(p.controls, table)
    controls = [_control(row, table, ratings, p) for row in present] + list(guards)
    claims = [_claim(row, table, ratings, p) for row in _there(p.claims, table)]
    missed = [row for row in p.controls if row not in present and len(measures.among(table, row.get("among")))]
    lacking = [f"{row['name']} did not run" for row in missed]
    failed = [row["name"] for row in controls if not row["passed"] and row["kind"] != "guard"]
    for row in claims:
        unsafe = [f"{g['name']} of {g['arm']}" for g in guards if not g["passed"] and g["arm"] in row["contrast"]
                  and g.get("withholds") in (None, row["measure"])]  # fmt: skip
        few = [f"{row['seeds']} training seed(s)"] if row["seeds"] < SEEDS else []
        if because := failed + lacking + unsafe + few:
            row |= {"verdict": NOT_TESTED, "because": "; ".join(because)}
    _correct([row for row in claims if row["kind"] == "secondary"])
    return {"claims": claims, "controls": controls}


def _there(rows: Iterable[Mapping], table: pd.DataFrame) -> list[Mapping]:
    """The rows whose arms all have the measure; the others are named."""
    kept = []
    for row in rows:
        column = "ratio_1" if row["measure"] in measures.OF_RATIOS else row["measure"]
        own = measures.among(table, row.get("among"))
        found = column in own and (row["measure"] != "partial_rho" or "logp_1" in own)
        measured = set(own.dropna(subset=[column])["arm"]) if found else set()
        if missing := sorted(set(row["contrast"]) - measured):
            lacking = f"no {_of(row)} of {', '.join(missing)}"
            print(f"NOT RUN HERE: {row.get('claim', row.get('name'))} ({lacking})")
        else:
            kept.append(row)
    return kept


def estimate(row: Mapping, table: pd.DataFrame, ratings: measures.Ratings, p: Parameters) -> tuple[Effect, dict]:
    """The effect of a row's contrast, and what it rests on: seeds, units and the words for it."""
    own = measures.among(table, row.get("among"))
    parts = measures.parts_of(own, row["measure"], ratings, list(row["contrast"]))
    effect = effects.contrast(parts, row["contrast"], seed=p.seed)
    _, seeds, units = next(iter(parts.values())).shape
    terms = " ".join(f"{'+' if w > 0 else '−'} {_times(abs(w))}{arm}" for arm, w in row["contrast"].items())
    test = f"{_of(row)} of {terms.removeprefix('+ ')}, {units} units × {seeds} training seed(s)"
    return effect, {"test": test, "seeds": seeds, "units": units}


def _times(weight: float) -> str:
    return "" if weight == 1 else f"{Fraction(weight).limit_denominator(100)} × "


def _of(row: Mapping) -> str:
    return f"{row['measure']} among {row['among']}" if row.get("among") else row["measure"]


def _claim(row: Mapping, table: pd.DataFrame, ratings: measures.Ratings, p: Parameters) -> dict:
    effect, about = estimate(row, table, ratings, p)
    return {
        "kind": row["kind"], "claim": row["claim"], "contrast": dict(row["contrast"]), "measure": row["measure"],
        "direction": row["direction"], "delta": row["delta"], **about, **effect._asdict(),
        "detectable": metrics.detectable_from(metrics.Interval(*effect[:3])),
        "verdict": metrics.verdict(effect, direction=row["direction"], delta=row["delta"]), "because": "",
    }  # fmt: skip


def _control(row: Mapping, table: pd.DataFrame, ratings: measures.Ratings, p: Parameters) -> dict:
    effect, about = estimate(row, table, ratings, p)
    if row["kind"] not in ("positive", "placebo"):
        raise ValueError(f"control {row['name']!r} is of kind {row['kind']!r}: say positive or placebo")
    passed, expected = effect.low > 0, "above 0"
    if row["kind"] == "placebo":
        passed, expected = effect.low <= 0 and effect.high < row["delta"], f"at 0, below {row['delta']:g}"
    told = {"name": row["name"], "kind": row["kind"], "expected": expected, "passed": bool(passed)}
    return told | {"contrast": dict(row["contrast"]), "measure": row["measure"]} | about | effect._asdict()


def _correct(rows: list[dict]) -> None:
    """Holm: a secondary claim that is held or not held by its own interval alone stays undecided."""
    for row, adjusted in zip(rows, effects.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
        if row["verdict"] in ("held", "not held") and row["direction"] != "not lower" and adjusted >= ALPHA:
            row["verdict"] = "undecided"


def guard(samples: pd.DataFrame, withholds: str | None = measures.CONFIRMED) -> list[dict]:
    """Rows that say whether each arm's samples are still texts, beside the reference's for the same prompts.

    withholds: the measure whose claims they withhold, or all (None). By default those on the samples' ratings, as rho
    reads no text of the arm: it is about the reference's own answers.
    """
    return [row | {"withholds": withholds}
            for arm in dict.fromkeys(samples["arm"]) if arm != "reference" for row in _guard(samples, arm)]  # fmt: skip


def _guard(samples: pd.DataFrame, arm: str) -> list[dict]:
    """Rows of one arm.

    Share that ends by itself and distinct word pairs at least 0.9 of the reference's; at most 0.05 more texts of fewer
    than three words; on average at most 1 nat a token less likely under the reference.
    """
    own, other = ({
        "share that ends by itself": part["finished"].mean(),
        "distinct word pairs": metrics.distinct_n(part["text"].fillna("").tolist(), 2),
        "share under three words": (part["text"].fillna("").str.split().str.len() < 3).mean(),
        "surprise under the reference": part["surprise"].mean(),
    } for part in (samples[samples["arm"] == name] for name in (arm, "reference")))  # fmt: skip
    bounds = {
        "share that ends by itself": (0.9 * other["share that ends by itself"], 1.0),
        "distinct word pairs": (0.9 * other["distinct word pairs"], 1.0),
        "share under three words": (0.0, other["share under three words"] + 0.05),
        "surprise under the reference": (0.0, other["surprise under the reference"] + 1.0),
    }
    return [
        {"name": name, "kind": "guard", "arm": arm, "expected": f"{low:.3g} to {high:.3g}",
         "estimate": float(own[name]), "passed": bool(low <= own[name] <= high)}
        for name, (low, high) in bounds.items()
    ]  # fmt: skip


def again(method: str, p: Parameters, known: Mapping, root: str | Path = ".") -> list[dict]:
    """The claims of a chapter made anew from committed files alone, with `committed`, the verdict that `known` holds.

    Read are the measures of its arms (scores/), of policies the ratings of the bank (banks/), and the claims and
    controls of params.yaml; `known` is its metrics file, of which the guards are kept, as they were read off texts.
    """
    table = runs.read_measures(p.profile, method, root)
    rated = "ratio_1" in table and "rating_1" not in table
    rows = bank.read(Path(root) / "banks" / f"{p.profile}.jsonl", "test") if rated else []
    ratings = {row.id: row.ratings["gold"] for row in rows}
    guards = [row for row in known["controls"] if row["kind"] == "guard"]
    committed = {row["claim"]: row["verdict"] for row in known["claims"]}
    claims = decide(table, ratings, p, guards)["claims"]
    return [{"method": method, "committed": committed.get(row["claim"], "none")} | row for row in claims]


def print_sentences(decided: Mapping[str, Sequence[Mapping]]) -> None:
    """Controls and claims in words, as they came out."""
    for row in decided["controls"]:
        name = f"{row['name']} of {row['arm']}" if row["kind"] == "guard" else row["name"]
        value = words.effect(row) if "low" in row else f"{row['estimate']:+.3f}"
        print(f"{'passed' if row['passed'] else 'FAILED'}: {row['kind']} control {name}: {value}, {row['expected']}")
    for row in decided["claims"]:
        print(f"\n{row['verdict'].upper()} ({row['kind']}): {row['claim']}\n  {row['test']}: {words.effect(row)}"
              f"; an effect of {row['delta']:g} matters.")  # fmt: skip
        if row["because"]:
            print(f"  Not tested because of: {row['because']}.")
