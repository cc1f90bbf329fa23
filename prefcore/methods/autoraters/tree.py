"""The tree of answers: two digits, 01 to 99, and the exact chance of each behind a prompt.

All answers are scored at once in the engine's prompt-with-K-completions batch: ten branches read the first digit, and
the state after each gives the chances of all ten second digits. What falls outside the 99 answers is the chance of no
answer.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from prefcore.data.types import Example
from prefcore.engine import collate
from prefcore.engine.logps import choose_path, to_device, unwrap
from prefcore.engine.progress import track
from prefcore.engine.reference import TOKENS, token_batches

ANSWERS = torch.arange(1, 100) / 100  # what the two digits can say


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
        states = self.states.flatten(0, 1)
        together = self.states.shape[:2] == batch["input_ids"].shape
        rows = batch["rows"][batch["at"]] if together else batch["sequences"]["rows"]  # what predicts each target
        starts = torch.searchsorted(batch["branch"], batch["answer"])  # [B, 11], each answer's first target
        places = torch.cat([rows[starts[:, :1]], rows[starts[:, 1:] + 1]], 1)  # the prompt's end, then each first digit
        weight = unwrap(self.policy).get_output_embeddings().weight[self.digits.to(states.device)]
        logits = (states[places] @ weight.T).float()
        first = logits[:, 0] - (logits[:, 0, :1] - logps[:, :1])
        zero = logps[:, 1:] - first  # log P(0 after k)
        second = logits[:, 1:] - (logits[:, 1:, 0] - zero)[..., None]
        self.states = None  # the graph of a step is not kept beyond it
        return (first[..., None] + second).flatten(1)[:, 1:]

    def close(self) -> None:
        """Keep no states any more."""
        self.hook.remove()

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


def answer_chances(examples: Sequence[Example], policy, tokenizer) -> np.ndarray:
    """How likely the policy writes each of the 99 answers [n, 99]; a row's missing mass is the chance of no answer."""
    score = choose_path(policy, collate.longest(examples))
    out, device = np.empty((len(examples), len(ANSWERS))), next(policy.parameters()).device
    with torch.no_grad(), closing(AnswerTree(policy, tokenizer)) as tree:
        for rows in track(token_batches(examples, TOKENS), "judging"):
            batch = to_device(collate.collate([examples[i] for i in rows], pad_id=tokenizer.pad_token_id), device)
            out[rows] = tree.read(score(policy, batch), batch).exp().double().cpu().numpy()
    return out
