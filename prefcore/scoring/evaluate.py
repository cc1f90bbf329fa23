"""What a policy writes, scored per prompt: gold and proxy rating, distance to the reference, length, variety.

One row per prompt travels on; means, intervals and win rates are made from the rows, paired by prompt.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate, models, reference
from prefcore.engine.sample import sample
from prefcore.scoring import scorers
from prefcore.scoring.metrics import accuracy, auc, distinct_n


class Scorers(NamedTuple):
    """The two scorers of the default data, loaded."""

    gold: object
    gold_tokenizer: object
    proxy: Path
    encoder: object
    encoder_tokenizer: object


def load_scorers(build: Path, encoder: str, *, device: str) -> Scorers:
    """Gold rater, proxy and encoder from a profile's build folder."""
    gold_tokenizer, gold = models.load_policy(str(build / "gold"), device=device)
    encoder_tokenizer, encoder_model = models.load_encoder(encoder, device=device)
    return Scorers(gold, gold_tokenizer, build / "proxy.safetensors", encoder_model, encoder_tokenizer)


def score_policy(
    policy,
    tokenizer,
    prompts: Sequence,
    scorers_: Scorers,
    *,
    max_prompt: int,
    max_new_tokens: int,
    seed: int,
    arm: str,
) -> pd.DataFrame:
    """One sampled continuation of each prompt (ratings.Text) with its scores.

    Columns: arm, seed, id, domain, prompt, text, proxy and gold (rating points of prompt and continuation together),
    kl (log policy - log reference of the sample, nats), length (tokens), finished.
    """
    ids = [collate.cut_prompt(text.prompt, tokenizer, max_prompt=max_prompt) for text in prompts]
    drawn = sample(policy, tokenizer, ids, max_new_tokens=max_new_tokens, seed=seed)
    frame = score_texts([text.prompt for text in prompts], [s.text for s in drawn], scorers_)
    frame.insert(0, "arm", arm)
    frame.insert(1, "seed", seed)
    frame.insert(2, "id", [text.id for text in prompts])
    frame.insert(3, "domain", [text.domain for text in prompts])
    frame["kl"] = sampled_kl(policy, tokenizer, ids, drawn)
    frame["length"] = [len(s.ids) + s.finished for s in drawn]
    frame["finished"] = [s.finished for s in drawn]
    return frame


def score_texts(prompts: Sequence[str], continuations: Sequence[str], scorers_: Scorers) -> pd.DataFrame:
    """prompt, text, proxy and gold of each continuation; the domain tag is not part of what is rated."""
    whole = [rated_text(p, c) for p, c in zip(prompts, continuations, strict=True)]
    return pd.DataFrame(
        {
            "prompt": list(prompts),
            "text": list(continuations),
            "proxy": scorers.proxy_scores(whole, scorers_.proxy, scorers_.encoder, scorers_.encoder_tokenizer),
            "gold": scorers.gold_scores(whole, scorers_.gold, scorers_.gold_tokenizer),
        }
    )


def rated_text(prompt: str, continuation: str) -> str:
    """What a human would have rated: the text without its domain tag."""
    return (prompt.partition(": ")[2] + continuation).strip()


def sampled_kl(policy, tokenizer, prompts, drawn) -> np.ndarray:
    """log policy - log reference [n] of each sample in nats; its mean estimates KL(policy || reference)."""
    eos = (tokenizer.eos_token_id,)
    examples = [
        Example(str(i), tuple(ids), (s.ids + (eos if s.finished else ()),))
        for i, (ids, s) in enumerate(zip(prompts, drawn, strict=True))
    ]
    theirs = reference.logps(policy, examples, pad_id=tokenizer.pad_token_id)[:, 0]
    return np.array([s.logp for s in drawn]) - theirs


def summarise(frame: pd.DataFrame) -> dict[str, float]:
    """Means over prompts of one arm, and the share of distinct word pairs.

    Where the rows have labels also auc: the chance that an answer with a thumbs-up gained more than one with a
    thumbs-down, the mean over seeds; None where there are no two such answers.
    """
    names = [name for name in ("gold", "proxy", "accuracy", "margin", "kl", "length") if name in frame]
    means = {name: float(frame[name].mean()) for name in names}
    if "label" in frame:
        means["auc"] = None
        if frame["label"].nunique() == 2:
            means["auc"] = float(np.mean([auc(part["gain"], part["label"]) for _, part in frame.groupby("seed")]))
    return means | {"distinct_2": distinct_n(frame["text"].tolist(), 2), "prompts": int(frame["id"].nunique())}


def score_held_out(
    policy, tokenizer, examples: Sequence[Example], validation: Sequence[Example], p: Parameters, *, arm: str, seed: int
) -> pd.DataFrame:
    """Held-out preferences of a user's own data: one row per record, which depends on no other of `examples`.

    Columns: arm, seed, id, prompt, text (the policy's own sample), accuracy, margin (nats), kl, length. An answer's
    gain is its log-probability under the policy less that under the reference. For a pair, margin is how much more the
    preferred completion gained than the other. For an answer with a label it is by how much the gain is on the right
    side of `threshold`, at which this policy tells the `validation` examples apart best; label, gain (nats) and
    threshold are columns then. accuracy is 1 where margin is above 0; a tie is 1/2.
    """
    gains = gain(policy, examples, pad_id=tokenizer.pad_token_id)
    more = {}
    if gains.shape[1] == 2:
        margin = gains[:, 0] - gains[:, 1]
    else:
        label = np.array([e.columns["label"] for e in examples])
        threshold = find_threshold(policy, validation, pad_id=tokenizer.pad_token_id)
        margin = np.where(label == 1, 1, -1) * (gains[:, 0] - threshold)
        more = {"label": label, "gain": gains[:, 0], "threshold": threshold}
    ids = [list(e.prompt) for e in examples]
    drawn = sample(policy, tokenizer, ids, max_new_tokens=p.max_new_tokens, seed=seed, batch_size=32)
    return pd.DataFrame(
        {
            "arm": arm,
            "seed": seed,
            "id": [e.id for e in examples],
            "prompt": [tokenizer.decode(i[-40:]) for i in ids],
            "text": [s.text for s in drawn],
            "accuracy": (np.sign(margin) + 1) / 2,
            "margin": margin,
            "kl": sampled_kl(policy, tokenizer, ids, drawn),
            "length": [len(s.ids) + s.finished for s in drawn],
            **more,
        }
    )


def gain(policy, examples: Sequence[Example], *, pad_id: int) -> np.ndarray:
    """log policy - log reference [n, K] of each completion, nats."""
    return reference.score_all(policy, examples, pad_id=pad_id) - reference.logps(policy, examples, pad_id=pad_id)


def find_threshold(policy, examples: Sequence[Example], *, pad_id: int) -> float:
    """The gain above which a thumbs-up is most likely, by these examples: best_threshold of their gains and labels.

    0, with a warning, where they do not hold both labels.
    """
    label = np.array([e.columns["label"] for e in examples])
    if len(set(label.tolist())) < 2:
        warnings.warn(
            f"{len(label)} validation answers without both labels cannot choose a threshold, so it is 0: a thumbs-up "
            "counts as right where the policy likes the answer better than the reference does; give more rows",
            stacklevel=2,
        )
        return 0.0
    return best_threshold(gain(policy, examples, pad_id=pad_id)[:, 0], label)


def best_threshold(score: np.ndarray, label: np.ndarray) -> float:
    """The threshold with the highest accuracy on these rows, score and label (1 or 0) [n]; on it counts half.

    It is a score, half way between two of them, or one unit beyond them all, where every row is called the same. Of
    equals the one nearest to the median score is taken, then the lower one.
    """
    known = np.unique(np.asarray(score, float))
    ends = [known[0] - 1, known[-1] + 1]
    candidates = np.sort(np.concatenate([known, (known[1:] + known[:-1]) / 2, ends]))
    right = np.array([accuracy(score, label, threshold=candidate) for candidate in candidates])
    best = candidates[right == right.max()]
    return float(best[np.argmin(np.abs(best - np.median(score)))])
