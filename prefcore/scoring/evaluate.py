"""What a policy writes, scored per prompt: gold and proxy rating, distance to the reference, length, variety.

One row per prompt travels on; means, intervals and win rates are made from the rows, paired by prompt.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data.types import Example
from prefcore.engine import collate, models, reference
from prefcore.engine.sample import sample
from prefcore.scoring import scorers
from prefcore.scoring.metrics import distinct_n


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
    max_new_tokens: int,
    seed: int,
    arm: str,
) -> pd.DataFrame:
    """One sampled continuation of each prompt (ratings.Text) with its scores.

    Columns: arm, seed, id, domain, prompt, text, proxy and gold (rating points of prompt and continuation together),
    kl (log policy - log reference of the sample, nats), length (tokens), finished.
    """
    ids = [collate.encode_prompt(text.prompt, tokenizer) for text in prompts]
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
    """Means over prompts of one arm, and the share of distinct word pairs."""
    names = [name for name in ("gold", "proxy", "accuracy", "margin", "kl", "length") if name in frame]
    means = {name: float(frame[name].mean()) for name in names}
    return means | {"distinct_2": distinct_n(frame["text"].tolist(), 2), "prompts": int(frame["id"].nunique())}


def score_held_out(policy, tokenizer, examples: Sequence[Example], p, *, arm: str, seed: int) -> pd.DataFrame:
    """Held-out preferences of a user's own data: one row per record.

    Columns: arm, seed, id, prompt, text (the policy's own sample), accuracy (1 where the preferred completion gained
    more log-probability over the reference than the other; a tie is 1/2), margin (that difference, nats), kl, length.
    A single answer with a label is compared with the mean gain of all answers.
    """
    frozen = reference.logps(policy, examples, pad_id=tokenizer.pad_token_id)
    gains = reference.score_all(policy, examples, pad_id=tokenizer.pad_token_id) - frozen
    if gains.shape[1] == 2:
        margin = gains[:, 0] - gains[:, 1]
    else:
        sign = np.array([1 if e.columns["label"] > 0 else -1 for e in examples])
        margin = sign * (gains[:, 0] - gains[:, 0].mean())
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
        }
    )
