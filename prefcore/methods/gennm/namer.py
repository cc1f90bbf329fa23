"""One network that names a variable in two ways: it spells a name in tokens, or chooses one of the names that it knows.

A known name is one token more, behind those of the tokenizer. So choosing is one step of the same network that writes,
taught on the same functions in the same passes, and what differs between the two is only the form of the answer.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from prefcore.engine import collate, models
from prefcore.methods.gennm import prompt

FILE = "names.json"


class Namer(NamedTuple):
    """A causal model, its tokenizer, and the names that are tokens of their own (none in a model that only writes)."""

    tokenizer: object
    policy: object
    names: tuple[str, ...]

    @property
    def words(self) -> int:
        """Tokens that can be written; those behind them are the names."""
        return self.policy.get_input_embeddings().weight.shape[0] - len(self.names)


def spell(name: str, tokenizer) -> list[int]:
    """A name in tokens, as it follows the opening of a branch."""
    return collate.encode_text(f" {name}", tokenizer)


def branch(given: Sequence[int], name: str, tokenizer, most: int) -> tuple[int, ...]:
    """The tokens of a branch that spells a name, at most `most` after the given ones, its end among them."""
    return (*given, *[*spell(name, tokenizer), tokenizer.eos_token_id][:most])


def extend(known: Namer, names: Sequence[str]) -> Namer:
    """The model with a token for each of these names that it lacks, which starts as the mean of those that spell it."""
    tokenizer, policy, _ = known
    new = [name for name in names if name not in set(known.names)]
    rows = policy.get_input_embeddings().weight.shape[0]
    policy.resize_token_embeddings(rows + len(new), mean_resizing=False)
    matrices = {id(part.weight): part.weight for part in
                (policy.get_input_embeddings(), policy.get_output_embeddings())}  # fmt: skip
    with torch.no_grad():
        for weight in matrices.values():
            for place, name in enumerate(new, rows):
                weight[place] = weight[spell(name, tokenizer)].mean(0)
    return Namer(tokenizer, policy, (*known.names, *new))


def known_names(functions: Sequence) -> list[str]:
    """The true names of the variables of these functions; before them "", which is no name."""
    return ["", *sorted({name for item in functions for id, name in prompt.true_names(item).items() if id != "f0"})]


def save(namer: Namer, folder: str | Path) -> None:
    """Plain transformers files, and the known names beside them."""
    models.save_policy(namer.policy, namer.tokenizer, Path(folder))
    Path(folder, FILE).write_text(json.dumps(namer.names, indent=0) + "\n", encoding="utf-8")


def load(folder: str | Path, *, device, dtype: str) -> Namer:
    """What `save` wrote, or any other causal model, which knows no names."""
    tokenizer, policy = models.load_policy(str(folder), device=device, dtype=dtype)
    path = Path(folder, FILE)
    return Namer(tokenizer, policy, tuple(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else ())
