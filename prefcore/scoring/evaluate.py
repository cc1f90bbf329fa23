"""What a policy writes, prompt by prompt: the text, its gold and proxy rating, its distance to the reference."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prefcore.data.types import Example
from prefcore.engine import collate, models, reference
from prefcore.engine.sample import sample
from prefcore.scoring import scorers


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


def write(
    policy, tokenizer, prompts: Sequence, *, max_prompt: int, max_new_tokens: int, seed: int, arm: str
) -> pd.DataFrame:
    """One sampled continuation of each prompt; `prompts` are records with an id and a prompt.

    Columns: arm, seed, id, prompt (a text, or the end of a chat), text, kl (log policy - log reference of the sample,
    nats), surprise (-log reference, nats a token), length (tokens), finished.
    """
    ids = [collate.cut_prompt(row.prompt, tokenizer, max_prompt=max_prompt) for row in prompts]
    drawn = sample(policy, tokenizer, ids, max_new_tokens=max_new_tokens, seed=seed, batch_size=64)
    theirs = reference_logps(policy, tokenizer, ids, drawn)
    length = np.array([len(s.ids) + s.finished for s in drawn])
    return pd.DataFrame(
        {
            "arm": arm,
            "seed": seed,
            "id": [row.id for row in prompts],
            "prompt": [row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"] for row in prompts],
            "text": [s.text for s in drawn],
            "kl": np.array([s.logp for s in drawn]) - theirs,
            "surprise": -theirs / length,
            "length": length,
            "finished": [s.finished for s in drawn],
        }
    )


def score_policy(policy, tokenizer, prompts: Sequence, scorers_: Scorers, **how) -> pd.DataFrame:
    """What `write` gives, and proxy and gold: points of prompt and continuation together. how: as `write` has it."""
    frame = write(policy, tokenizer, prompts, **how)
    return frame.assign(**score_texts(frame["prompt"], frame["text"], scorers_)[["proxy", "gold"]])


def score_texts(prompts: Sequence[str], continuations: Sequence[str], scorers_: Scorers) -> pd.DataFrame:
    """prompt, text, proxy and gold of each continuation; the domain tag is not part of what is rated."""
    whole = [rated_text(p, c) for p, c in zip(prompts, continuations, strict=True)]
    return pd.DataFrame(
        {
            "prompt": list(prompts),
            "text": list(continuations),
            "proxy": score_proxy(whole, scorers_),
            "gold": score_gold(whole, scorers_),
        }
    )


def score_gold(texts: Sequence[str], scorers_: Scorers) -> np.ndarray:
    """Expected human ratings [n] by the gold scorer, -4 to +4."""
    return scorers.gold_scores(texts, scorers_.gold, scorers_.gold_tokenizer)


def score_proxy(texts: Sequence[str], scorers_: Scorers) -> np.ndarray:
    """Ratings [n] by the proxy, in the same points."""
    return scorers.proxy_scores(texts, scorers_.proxy, scorers_.encoder, scorers_.encoder_tokenizer)


def rated_text(prompt: str, continuation: str) -> str:
    """What a human would have rated: the text without its domain tag."""
    return (prompt.partition(": ")[2] + continuation).strip()


def reference_logps(policy, tokenizer, prompts, drawn) -> np.ndarray:
    """log reference [n] of each sample, its end included where it has ended by itself."""
    examples = [
        Example(str(i), tuple(ids), (collate.as_branch(s.ids, s.finished, tokenizer),))
        for i, (ids, s) in enumerate(zip(prompts, drawn, strict=True))
    ]
    return reference.logps(policy, examples, pad_id=tokenizer.pad_token_id)[:, 0]
