"""Records to token ids, token ids to batches: a prompt with K completions, each prompt once.

Prompt and completion are tokenised separately, so the boundary is exact by construction and is the one that sampling
sees. What a policy has sampled keeps its tokens; a text that came without any is tokenised, and control tokens in it
stay text. EOS ends a completion exactly once, and only where the text ended by itself.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
import torch

from prefcore.data.types import Example, Pair, Scored, Tokens, Unary
from prefcore.engine.layout import distinct, lay_out

States = tuple[torch.Tensor, ...]  # [T, H] of a prompt and of each of its completions
WINDOW = 16  # batches whose examples are sorted by length together
PROMPTS = 4  # different ones that a batch has room for, however many examples a prompt has


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
    ref_mismatch_logps[s] [B] and, for `depth` frozen layers, their output for each example's prompt and completions
    (trunk, mismatch_trunk). images: what each example shows besides its tokens, for plans that show pictures.
    """

    examples: list[Example]
    batches: list[list[int]]
    mismatches: list[list[Example]] = []
    ref_logps: np.ndarray | None = None
    ref_mismatch_logps: list[np.ndarray] = []
    trunk: list[States] = []
    mismatch_trunk: list[list[States]] = []
    depth: int = 0
    pad_id: int = 0
    images: list[Mapping[str, torch.Tensor]] = []


def encode_prompt(prompt, tokenizer) -> list[int]:
    """Token ids of a text prompt, or of chat messages up to where the assistant speaks."""
    return encode_text(prompt, tokenizer) if isinstance(prompt, str) else encode_chat(prompt, tokenizer, opens=True)


def encode_chat(messages, tokenizer, *, opens: bool) -> list[int]:
    """Token ids of chat messages by the tokenizer's template; opens: whether the assistant's next turn begins.

    The template is rendered around placeholders and the contents are put in as plain text, so that a message which
    spells a control token cannot become one.
    """
    if tokenizer.chat_template is None:
        raise ValueError("these are chat messages, but the tokenizer has no chat template: give a text prompt instead")
    marks = [f"\u2402{i}\u2403" for i in range(len(messages))]
    marked = [{"role": m["role"], "content": mark} for m, mark in zip(messages, marks, strict=True)]
    rest = tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=opens)
    ids = []
    for message, mark in zip(messages, marks, strict=True):
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


def cut_prompt(prompt, tokenizer, *, max_prompt: int) -> list[int]:
    """What a policy reads of a prompt, when it samples and when it trains: its last tokens, at least one."""
    ids = encode_prompt(prompt, tokenizer)[-max_prompt:]
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return ids or [start]  # a model needs one token to predict from


def encode(
    id, prompt, completions, finished, tokenizer, *, max_prompt, max_completion, columns=None, tokens=None
) -> Example | None:
    """One example, or None where a completion has no token. A prompt keeps its last tokens, a completion its first.

    tokens: for each completion the ids that were sampled, or None, where the texts are tokenised. Raises ValueError
    where these ids do not spell the text: they are then another tokenizer's.
    """
    prompt_ids = cut_prompt(prompt, tokenizer, max_prompt=max_prompt)
    branches = []
    for k, (text, ended) in enumerate(zip(completions, finished, strict=True)):
        ids = encode_text(text, tokenizer) if tokens is None else list(tokens[k])
        if tokens is not None:
            check_spelling(id, ids, text, tokenizer)
        branch = as_branch(ids, ended, tokenizer)[:max_completion]
        if branch in ((), (tokenizer.eos_token_id,)):
            return None
        branches.append(branch)
    return Example(id, tuple(prompt_ids), tuple(branches), columns or {})


def as_branch(ids: Sequence[int], finished: bool, tokenizer) -> Tokens:
    """Token ids as a completion: EOS follows, once, where the text has ended by itself."""
    end = tokenizer.eos_token_id
    return (*ids, end) if finished and (not ids or ids[-1] != end) else tuple(ids)


def check_spelling(id: str, ids: Sequence[int], text: str, tokenizer) -> None:
    """ValueError where sampled ids do not spell the text: they are then another tokenizer's."""
    if (spelled := tokenizer.decode(ids)) != text:
        raise ValueError(
            f"{id}: its tokens spell {spelled!r} and not {text!r}, so another tokenizer has sampled it: "
            "sample again with this policy, or leave the tokens out"
        )


def encode_pairs(pairs: Sequence[Pair], tokenizer, **limits: int) -> Encoded:
    """Pairs as examples with branches (chosen, rejected); scores, margin and strength become columns where present, and
    a weight becomes `row_weight`, by which training multiplies the example's loss.

    limits: max_prompt and max_completion, as `encode` has them; so for the other kinds.
    """
    names = ("chosen_score", "rejected_score", "margin", "strength")
    known = [{name: float(getattr(p, name)) for name in names if getattr(p, name) is not None} | _weight(p)
             for p in pairs]  # fmt: skip
    return _keep(
        encode(p.id, p.prompt, (p.chosen, p.rejected), p.finished, tokenizer, columns=c, tokens=p.tokens, **limits)
        for p, c in zip(pairs, known, strict=True)
    )


def encode_unary(records: Sequence[Unary | Scored], tokenizer, **limits: int) -> Encoded:
    """Single answers as examples with one branch; `label` (1 or 0) or `score` becomes a column, as does a weight."""
    known = [{"label": float(r.label)} if isinstance(r, Unary) else {"score": float(r.score)} for r in records]
    known = [columns | _weight(r) for columns, r in zip(known, records, strict=True)]
    drawn = [None if r.tokens is None else (r.tokens,) for r in records]
    return _keep(
        encode(r.id, r.prompt, (r.completion,), (r.finished,), tokenizer, columns=c, tokens=t, **limits)
        for r, c, t in zip(records, known, drawn, strict=True)
    )


def _weight(record: Pair | Unary | Scored) -> dict[str, float]:
    return {} if record.weight is None else {"row_weight": float(record.weight)}


def _keep(examples: Iterable[Example | None]) -> Encoded:
    examples = list(examples)
    kept = [example for example in examples if example is not None]
    shared = set.intersection(*(set(example.columns) for example in kept)) if kept else set()
    kept = [e._replace(columns={name: e.columns[name] for name in e.columns if name in shared}) for e in kept]
    return Encoded(kept, len(examples) - len(kept))


def make_plan(examples: Sequence[Example], *, batch_size: int, epochs: int, seed: int, pad_id: int) -> Plan:
    """Every example once an epoch, in batches and an order drawn anew for each epoch from (seed, epoch).

    Answers with a thumb come in batches that are fair draws of both classes and of all lengths: a loss compares them
    within the batch (KTO's KL, class means, BCO's shift). All other examples come in batches of similar length, with
    several of one prompt together.
    """
    if not examples:
        raise ValueError("no examples to train on: every record was dropped or the data are empty")
    part = part_by_class if have_thumbs(examples) else part_by_length
    batches = []
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        parts = part(examples, rng.permutation(len(examples)), batch_size)
        batches += [parts[i] for i in rng.permutation(len(parts))]
    return Plan(list(examples), batches, pad_id=pad_id)


def have_thumbs(examples: Sequence[Example]) -> bool:
    """True where every example is one answer with a label."""
    return all(len(example.completions) == 1 and "label" in example.columns for example in examples)


def part_by_length(examples: Sequence[Example], order: np.ndarray, batch_size: int) -> list[list[int]]:
    """Batches of similar length: what WINDOW batches hold, in this order, is sorted.

    Up to a quarter of a batch may be examples of one prompt (and what it shows), which then come together, so that the
    prompt and the answers they share are read once; the next quarter's worth of them comes in a later batch, as a step
    on few prompts is a noisy one. Examples without a prompt share nothing.
    """
    together = max(1, batch_size // PROMPTS)
    keys = {i: (e.prompt, e.shown) if e.prompt else i for i, e in enumerate(examples)}
    first, lengths, turn, seen = {}, {}, {}, Counter()
    for k, i in enumerate(order):
        key = keys[i]
        first.setdefault(key, k)
        lengths[key] = max(size(examples[i]), lengths.get(key, 0))
        turn[i] = seen[key] // together
        seen[key] += 1
    order = sorted(order, key=lambda i: first[keys[i]])
    parts = []
    for start in range(0, len(order), WINDOW * batch_size):
        window = order[start : start + WINDOW * batch_size]
        window.sort(key=lambda i: (turn[i], lengths[keys[i]], first[keys[i]]))
        parts += [[int(i) for i in window[k : k + batch_size]] for k in range(0, len(window), batch_size)]
    return parts


def part_by_class(examples: Sequence[Example], order: np.ndarray, batch_size: int) -> list[list[int]]:
    """Batches with a share of thumbs-up as near to that of all examples as whole rows allow, whatever their lengths.

    Each class is dealt out in this order; up to the end of any batch, the thumbs-up dealt are their share, rounded.
    """
    n, up = len(order), np.array([examples[i].columns["label"] == 1 for i in order])
    ends = np.append(np.arange(batch_size, n, batch_size), n)
    ups = (2 * ends * up.sum() + n) // (2 * n)  # in whole numbers, so that no machine rounds another way
    batch = np.empty(n, dtype=int)
    for chosen, dealt in ((up, ups), (~up, ends - ups)):
        batch[chosen] = np.searchsorted(dealt, np.arange(chosen.sum()), side="right")
    return [order[batch == number].tolist() for number in range(len(ends))]


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
            own, other = plan.examples[i], plan.examples[order[back]]
            step.append(Example(f"{own.id}|{other.id}", own.prompt, (other.completions[0],), own.columns))
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
    """One batch of B examples with K completions each as one row of N tokens (engine/layout.py).

    input_ids, position_ids [1, N]; layout; rows [R]: the places whose hidden state predicts a completion's token;
    targets [n], and for each its place in rows, `at` [n], and its distinct answer, `branch` [n]; answer [B, K]: the
    distinct answer of each completion; `sequences`: the distinct answers as plain rows, each with its prompt (for
    models that cannot read along a layout); ids; lengths [B, K]; a float [B] a column.
    """
    counts = {len(example.completions) for example in examples}
    if len(counts) != 1:
        raise ValueError(f"all examples of a batch need the same number of completions, got {sorted(counts)}")
    found = distinct(examples)
    number = {key: i for i, key in enumerate((prompt, answer) for prompt in found for answer in found[prompt])}
    prompts = [prompt for prompt, _ in found]
    ids, positions = [*chain(*prompts)], [*chain(*(range(len(prompt)) for prompt in prompts))]
    rows, at, targets, branch = [end - 1 for end in accumulate(map(len, prompts))], [], [], []
    first = {prompt: i for i, prompt in enumerate(found)}
    for i, (prompt, answer) in enumerate(number):
        read = len(answer) - 1
        at += [first[prompt], *range(len(rows), len(rows) + read)]
        rows += range(len(ids), len(ids) + read)
        targets += answer
        branch += [i] * len(answer)
        ids += answer[:-1]
        positions += range(len(prompt[0]), len(prompt[0]) + read)
    batch = {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "layout": lay_out(found),
        "rows": torch.tensor(rows),
        "at": torch.tensor(at),
        "targets": torch.tensor(targets),
        "branch": torch.tensor(branch),
        "answer": torch.tensor([[number[(e.prompt, e.shown), answer] for answer in e.completions] for e in examples]),
        "sequences": _as_rows([(prompt, answer) for (prompt, _), answer in number], pad_id),
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


def _as_rows(answers: Sequence[tuple], pad_id: int) -> dict:
    """input_ids, attention_mask [answers, T] and the flat rows that predict completion tokens, ordered as `targets`."""
    sequences = [prompt + answer[:-1] for prompt, answer in answers]
    width = max(map(len, sequences))
    ids = np.full((len(sequences), width), pad_id)
    mask = np.zeros((len(sequences), width), dtype=np.int64)
    rows = []
    for i, (sequence, (prompt, _)) in enumerate(zip(sequences, answers, strict=True)):
        ids[i, : len(sequence)], mask[i, : len(sequence)] = sequence, 1
        rows += range(i * width + len(prompt) - 1, i * width + len(sequence))
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
