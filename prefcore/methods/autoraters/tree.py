"""The tree of answers: two digits, 01 to 99, and the exact chance of each behind a prompt.

All answers are scored at once in the engine's prompt-with-K-completions batch: ten branches read the first digit, and
the state after each gives the chances of all ten second digits. What falls outside the 99 answers is the chance of no
answer. The same pass holds the judge's verdict and its state of a text, see `States`.
"""

from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from prefcore.engine import collate
from prefcore.engine.collate import Plan
from prefcore.engine.layout import join
from prefcore.engine.logps import branch_logps, choose_path, to_device, unwrap
from prefcore.engine.progress import track
from prefcore.engine.reference import TOKENS, token_batches

ANSWERS = torch.arange(1, 100) / 100  # what the two digits can say
TINY = 1e-7  # least chance of a token that is no digit, so that its logarithm is finite


class States(NamedTuple):
    """Last hidden states of n prompts, H wide: all that a change of the head alone needs.

    text [n, H]: at the end of the first text, which has seen nothing of the second; question [n, H]: where the judge
    says its verdict; digits [n, 11, H]: at the prompt's end and after each first digit; other [n, 11]: there, the
    log-sum-exp of the logits of all tokens that are no digit.
    """

    text: Tensor
    question: Tensor
    digits: Tensor
    other: Tensor


def digit_ids(tokenizer) -> list[int]:
    """The token of each digit 0 to 9; ValueError where one has no token of its own."""
    found = [collate.encode_text(str(digit), tokenizer) for digit in range(10)]
    if any(len(ids) != 1 for ids in found) or len({ids[0] for ids in found}) < 10:
        raise ValueError(f"this tokenizer has no single token for each digit: {found}; use another model")
    return [ids[0] for ids in found]


def completions(tokenizer) -> tuple[tuple[int, ...], ...]:
    """Eleven completions that span the tree: a 0, and a 0 behind each first digit."""
    ids = digit_ids(tokenizer)
    return ((ids[0],), *((digit, ids[0]) for digit in ids))


def answer_logps(digits: Tensor) -> Tensor:
    """Log-probabilities [..., 99] of the answers .01 to .99 from those of the digits [..., 11, 10]: the first, then
    the second behind each first.
    """
    first, second = digits[..., 0, :], digits[..., 1:, :]
    return (first[..., None] + second).flatten(-2)[..., 1:]


class AnswerTree:
    """Keeps the last hidden states of each forward pass of a policy and reads the 99 answers from them.

    The engine gives log P(0) at the prompt's end and log P(k, 0) for each first digit k, which fixes the softmax's
    normaliser at those eleven places; the other digits differ by their logits alone, so that no second pass over the
    vocabulary is needed.
    """

    def __init__(self, policy, tokenizer):
        self.digits, self.states = torch.tensor(digit_ids(tokenizer)), None
        self.policy = policy
        self.hook = unwrap(policy).get_decoder().register_forward_hook(self._keep)
        self._check_head()

    def read(self, logps: Tensor, batch: Mapping) -> Tensor:
        """Log-probabilities [B, 99] (nats) of the answers .01 to .99, after the pass that gave `logps` [B, 11]."""
        digits, _, _ = self._digits(logps, batch)
        self.states = None  # the graph of a step is not kept beyond it
        return answer_logps(digits)

    def read_states(self, logps: Tensor, batch: Mapping) -> States:
        """The states of the same pass."""
        digits, logits, places = self._digits(logps, batch)
        flat = self.states.flatten(0, 1)
        missing = -torch.expm1(digits.logsumexp(2).clamp(max=-TINY))
        other = (logits - digits)[..., 0] + missing.log()
        text, question = (places[:, 0] - batch[name].long() for name in ("text_back", "question_back"))
        self.states = None
        return States(flat[text].float(), flat[question].float(), flat[places].float(), other)

    def close(self) -> None:
        """Keep no states any more."""
        self.hook.remove()

    def _digits(self, logps: Tensor, batch: Mapping) -> tuple[Tensor, Tensor, Tensor]:
        """(log-probabilities [B, 11, 10] of the digits, their logits, the places [B, 11] in the flat row)."""
        states = self.states.flatten(0, 1)
        together = self.states.shape[:2] == batch["input_ids"].shape
        rows = batch["rows"][batch["at"]] if together else batch["sequences"]["rows"]  # what predicts each target
        starts = torch.searchsorted(batch["branch"], batch["answer"])  # [B, 11], each answer's first target
        places = torch.cat([rows[starts[:, :1]], rows[starts[:, 1:] + 1]], 1)  # the prompt's end, then each first digit
        head = head_rows(self.policy, self.digits)
        logits = (states[places].to(head.dtype) @ head.T).float()
        first = logits[:, 0] - (logits[:, 0, :1] - logps[:, :1])
        zero = logps[:, 1:] - first  # log P(0 after k)
        second = logits[:, 1:] - (logits[:, 1:, 0] - zero)[..., None]
        return torch.cat([first[:, None], second], 1), logits, places

    def _keep(self, module, inputs, output):
        self.states = output.last_hidden_state

    def _check_head(self):
        device = next(self.policy.parameters()).device
        with torch.no_grad():
            logits = self.policy(input_ids=self.digits[None].to(device), use_cache=False).logits[0].float()
            own = (self.states[0] @ unwrap(self.policy).get_output_embeddings().weight.T).float()
        if not torch.allclose(logits, own, rtol=1e-2, atol=1e-2):
            self.close()
            raise ValueError("the logits of this model are not just hidden state times output embedding (bias, scale, "
                             "cap), which the tree of answers cannot follow: use another model")  # fmt: skip


def head_rows(policy, ids: Tensor) -> Tensor:
    """Rows [len(ids), H] of the output embedding."""
    weight = unwrap(policy).get_output_embeddings().weight
    return weight[ids.to(weight.device)]


def read_answers(plan: Plan, policy, tokenizer, precision: str = "float32") -> Tensor:
    """Log-probabilities [n, 99] (nats) of the answers to the plan's examples under the policy as it is now."""
    out = torch.empty(len(plan.examples), len(ANSWERS))
    with torch.no_grad(), closing(AnswerTree(policy, tokenizer)) as tree:
        for rows, logps, batch in _passes(plan, policy, precision):
            out[rows] = tree.read(logps, batch).cpu()
    return out


def read_states(plan: Plan, policy, tokenizer, precision: str = "float32") -> States:
    """The States of the plan's examples, in their order."""
    parts, order = [], []
    with torch.no_grad(), closing(AnswerTree(policy, tokenizer)) as tree:
        for rows, logps, batch in _passes(plan, policy, precision):
            parts.append([part.cpu() for part in tree.read_states(logps, batch)])
            order += rows
    back = torch.tensor(order).argsort()
    return States(*(torch.cat(part)[back] for part in zip(*parts, strict=True)))


def _passes(plan: Plan, policy, precision: str):
    """(places, log-probabilities of the completions, batch) until all examples have come; kept layers are not rerun."""
    examples, device = plan.examples, next(policy.parameters()).device
    score = branch_logps if plan.depth else choose_path(policy, collate.longest(examples))
    for rows in track(token_batches(examples, TOKENS), "judging"):
        chosen = [examples[i] for i in rows]
        batch = collate.collate(chosen, pad_id=plan.pad_id)
        if plan.depth:
            batch |= {"trunk": join(chosen, [plan.trunk[i] for i in rows]), "depth": plan.depth}
        batch = to_device(batch, device)
        yield rows, score(policy, batch, precision), batch
