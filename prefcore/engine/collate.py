"""Records to token ids, token ids to batches: a prompt with K completions, each prompt once.

Prompt and completion are tokenised separately, so the boundary is exact by construction and is the one that sampling
sees. Control tokens in the text stay text; EOS ends a completion exactly once, and only where the text ended by itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from prefcore.data.types import Example, Pair, Ranked, Scored, Unary

WINDOW = 16  # batches whose examples are sorted by length together


class Encoded(NamedTuple):
    """Examples, and how many records were dropped because nothing of a completion would have been left.

    A column is there for all examples or for none: what only some records say is left out.
    """

    examples: list[Example]
    dropped: int


class Plan(NamedTuple):
    """Every batch of every epoch, known before training: a pure function of (examples, batch size, epochs, seed).

    batches[s] holds the positions in `examples` of step s. mismatches[s] holds, for plans that have them (KTO), for
    each example of step s its prompt with another prompt's completion. reference.attach fills in ref_logps [n, K],
    ref_mismatch_logps[s] [B] and, for `depth` frozen layers, their output for each example (trunk, mismatch_trunk).
    """

    examples: list[Example]
    batches: list[list[int]]
    mismatches: list[list[Example]] = []
    ref_logps: np.ndarray | None = None
    ref_mismatch_logps: list[np.ndarray] = []
    trunk: list[torch.Tensor] = []
    mismatch_trunk: list[list[torch.Tensor]] = []
    depth: int = 0
    pad_id: int = 0


def encode_prompt(prompt, tokenizer) -> list[int]:
    """Token ids of a text prompt, or of chat messages up to where the assistant speaks.

    The chat template is rendered around placeholders and the contents are put in as plain text, so that a message
    which spells a control token cannot become one.
    """
    if isinstance(prompt, str):
        return encode_text(prompt, tokenizer)
    if tokenizer.chat_template is None:
        raise ValueError(
            "the data hold chat messages, but this tokenizer has no chat template: give a text prompt instead"
        )
    marks = [f"\u2402{i}\u2403" for i in range(len(prompt))]
    messages = [{"role": m["role"], "content": mark} for m, mark in zip(prompt, marks, strict=True)]
    rest = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = []
    for message, mark in zip(prompt, marks, strict=True):
        before, found, rest = rest.partition(mark)
        if not found:
            raise ValueError(
                f"the chat template leaves out a message of role {message['role']!r}: add it to the first user turn"
            )
        ids += tokenizer(before, add_special_tokens=False)["input_ids"] + encode_text(message["content"], tokenizer)
    return ids + tokenizer(rest, add_special_tokens=False)["input_ids"]


def encode_text(text: str, tokenizer) -> list[int]:
    """Token ids of a text; whatever in it looks like a control token is spelled out as text."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def encode(id, prompt, completions, finished, tokenizer, *, max_prompt, max_completion, columns=None) -> Example | None:
    """One example, or None where a completion has no token. A prompt keeps its last tokens, a completion its first."""
    prompt_ids = encode_prompt(prompt, tokenizer)[-max_prompt:]
    if not prompt_ids:  # a model needs one token to predict from
        prompt_ids = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id]
    branches = []
    for text, ended in zip(completions, finished, strict=True):
        ids = encode_text(text, tokenizer)
        if ended and (not ids or ids[-1] != tokenizer.eos_token_id):
            ids = ids + [tokenizer.eos_token_id]
        ids = ids[:max_completion]
        if not ids or ids == [tokenizer.eos_token_id]:
            return None
        branches.append(tuple(ids))
    return Example(id, tuple(prompt_ids), tuple(branches), columns or {})


def encode_pairs(pairs: Sequence[Pair], tokenizer, *, max_prompt: int, max_completion: int) -> Encoded:
    """Pairs as examples with branches (chosen, rejected); scores, margin and strength become columns where present."""

    def one(pair):
        names = ("chosen_score", "rejected_score", "margin", "strength")
        columns = {name: float(getattr(pair, name)) for name in names if getattr(pair, name) is not None}
        return encode(
            pair.id,
            pair.prompt,
            (pair.chosen, pair.rejected),
            pair.finished,
            tokenizer,
            max_prompt=max_prompt,
            max_completion=max_completion,
            columns=columns,
        )

    return _keep(one, pairs)


def encode_unary(records: Sequence[Unary | Scored], tokenizer, *, max_prompt: int, max_completion: int) -> Encoded:
    """Single answers as examples with one branch; `label` (1 or 0) or `score` becomes a column."""

    def one(record):
        columns = {"label": float(record.label)} if isinstance(record, Unary) else {"score": float(record.score)}
        return encode(
            record.id,
            record.prompt,
            (record.completion,),
            (record.finished,),
            tokenizer,
            max_prompt=max_prompt,
            max_completion=max_completion,
            columns=columns,
        )

    return _keep(one, records)


def encode_ranked(records: Sequence[Ranked], tokenizer, *, max_prompt: int, max_completion: int) -> Encoded:
    """All K completions of a prompt as one example."""

    def one(record):
        return encode(
            record.id,
            record.prompt,
            record.completions,
            record.finished,
            tokenizer,
            max_prompt=max_prompt,
            max_completion=max_completion,
        )

    return _keep(one, records)


def _keep(encode_one: Callable, records) -> Encoded:
    examples = [encode_one(record) for record in records]
    kept = [example for example in examples if example is not None]
    shared = set.intersection(*(set(example.columns) for example in kept)) if kept else set()
    kept = [e._replace(columns={name: e.columns[name] for name in e.columns if name in shared}) for e in kept]
    return Encoded(kept, len(examples) - len(kept))


def make_plan(examples: Sequence[Example], *, batch_size: int, epochs: int, seed: int, pad_id: int) -> Plan:
    """Batches of similar length in an order drawn anew for each epoch from (seed, epoch)."""
    if not examples:
        raise ValueError("no examples to train on: every record was dropped or the data are empty")
    lengths = np.array([size(example) for example in examples])
    batches = []
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(examples))
        chunks = []
        for start in range(0, len(order), WINDOW * batch_size):
            window = order[start : start + WINDOW * batch_size]
            window = window[np.argsort(lengths[window], kind="stable")]
            chunks += [window[i : i + batch_size].tolist() for i in range(0, len(window), batch_size)]
        batches += [chunks[i] for i in rng.permutation(len(chunks))]
    return Plan(list(examples), batches, pad_id=pad_id)


def add_mismatches(plan: Plan) -> Plan:
    """For each answer its prompt with the answer that came before it in the plan, never one of the same prompt.

    The set of mismatched answers of a step is thus nearly the step's own answers, shifted by one; a batch of one works.
    """
    order = [i for batch in plan.batches for i in batch]
    prompts = [example.prompt for example in plan.examples]
    if len(set(prompts)) < 2:
        raise ValueError("a mismatched answer needs a second prompt, but all examples share one prompt")
    mismatches, position = [], 0
    for batch in plan.batches:
        step = []
        for i in batch:
            back = position - 1
            while prompts[order[back]] == prompts[i]:
                back -= 1  # negative positions wrap round to the end of the plan
            other = plan.examples[order[back]]
            step.append(Example(f"{plan.examples[i].id}|{other.id}", plan.examples[i].prompt, (other.completions[0],)))
            position += 1
        mismatches.append(step)
    return plan._replace(mismatches=mismatches)


def size(example: Example) -> int:
    """Tokens that the network reads for this example: the last token of each completion is only predicted."""
    return len(example.prompt) + sum(len(completion) - 1 for completion in example.completions)


def longest(examples: Sequence[Example]) -> int:
    """At most so many tokens are in any prompt of these examples with any of their completions."""
    return max(len(e.prompt) for e in examples) + max(len(c) for e in examples for c in e.completions)


def collate(examples: Sequence[Example], *, pad_id: int) -> dict:
    """One batch.

    input_ids, position_ids [B, T]; attention_mask [B, 1, T, T] bool: a token sees its prompt and its own branch;
    rows [N]: flat positions whose hidden state predicts a completion token; targets [N]; branch [N] in [0, B*K);
    shape (B, K); `sequences`: the same as plain rows (for models without 4-D masks); ids; a float [B] per column.
    """
    counts = {len(example.completions) for example in examples}
    if len(counts) != 1:
        raise ValueError(f"all examples of a batch need the same number of completions, got {sorted(counts)}")
    branches = counts.pop()
    width = max(size(example) for example in examples)
    input_ids = np.full((len(examples), width), pad_id)
    positions = np.zeros((len(examples), width), dtype=np.int64)
    segments = np.full((len(examples), width), -1)
    rows, targets, branch = [], [], []
    for b, example in enumerate(examples):
        prompt = len(example.prompt)
        input_ids[b, :prompt], positions[b, :prompt], segments[b, :prompt] = example.prompt, np.arange(prompt), 0
        start = prompt
        for k, completion in enumerate(example.completions):
            read = len(completion) - 1
            span = slice(start, start + read)
            input_ids[b, span], positions[b, span], segments[b, span] = (
                completion[:-1],
                np.arange(prompt, prompt + read),
                k + 1,
            )
            rows += [b * width + prompt - 1, *range(b * width + start, b * width + start + read)]
            targets += completion
            branch += [b * branches + k] * len(completion)
            start += read
    query, key = segments[:, :, None], segments[:, None, :]
    causal = np.tril(np.ones((width, width), dtype=bool))
    mask = causal & (key >= 0) & ((key == 0) | (key == query))
    mask |= np.eye(width, dtype=bool)  # a padded row sees itself, so that its softmax is a number
    batch = {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(positions),
        "attention_mask": torch.from_numpy(mask)[:, None],
        "rows": torch.tensor(rows),
        "targets": torch.tensor(targets),
        "branch": torch.tensor(branch),
        "shape": (len(examples), branches),
        "sequences": _as_rows(examples, pad_id),
        "ids": [example.id for example in examples],
        "lengths": torch.tensor([[float(len(c)) for c in example.completions] for example in examples]),
    }
    for name in examples[0].columns:
        batch[name] = torch.tensor([example.columns[name] for example in examples], dtype=torch.float32)
    return batch


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(token ids, 1 where there is one) [B, T] of prompts that end together, as generation wants them."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), 1
    return ids, mask


def pad_trunk(states: Sequence[torch.Tensor]) -> torch.Tensor:
    """The frozen layers' output of a batch's examples, [T_i, H] each, as one tensor [B, T, H], zero at the padding."""
    return torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)


def _as_rows(examples: Sequence[Example], pad_id: int) -> dict:
    """input_ids, attention_mask [B*K, T] and the flat rows that predict completion tokens, ordered as `targets`."""
    sequences = [example.prompt + completion[:-1] for example in examples for completion in example.completions]
    prompts = [len(example.prompt) for example in examples for _ in example.completions]
    width = max(map(len, sequences))
    ids = np.full((len(sequences), width), pad_id)
    mask = np.zeros((len(sequences), width), dtype=np.int64)
    rows = []
    for i, (sequence, prompt) in enumerate(zip(sequences, prompts, strict=True)):
        ids[i, : len(sequence)], mask[i, : len(sequence)] = sequence, 1
        rows += range(i * width + prompt - 1, i * width + len(sequence))
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), "rows": torch.tensor(rows)}


def column(examples: Sequence, name: str) -> torch.Tensor:
    """One number of each example, [n]; ValueError where the data do not have it."""
    if missing := [example.id for example in examples if name not in example.columns]:
        raise ValueError(f"{len(missing)} examples, the first of them {missing[0]}, have no {name}: add such a column")
    return torch.tensor([example.columns[name] for example in examples])


def with_column(examples: Sequence, name: str, values) -> list:
    """The examples with one more number each."""
    return [
        example._replace(columns={**example.columns, name: float(value)})
        for example, value in zip(examples, values, strict=True)
    ]
