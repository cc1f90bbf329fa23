"""The only place where logits become numbers: summed log-probabilities of completions.

A batch holds each prompt once, followed by its K completions as branches (see collate.py). The language-model head runs
only on the positions that predict a completion token, a block of the vocabulary at a time.
"""

import copy
import re

import torch
from torch import Tensor

from prefcore.data.types import Example
from prefcore.engine.attention import along, count_calls
from prefcore.engine.collate import collate
from prefcore.engine.decoder import find_layers, find_tail, unwrap
from prefcore.engine.machine import rounding

COLUMNS = 2048  # words of the vocabulary whose logits are alive at once; in blocks of rows each block reads all weights
UNFIT = (TypeError, ValueError, RuntimeError, AttributeError, IndexError)  # what a model raises that cannot do this
KEPT_BYTES = 256 * 2**20  # exponentials kept for the backward pass of a trainable head; above it they are recomputed


class TokenLogps(torch.autograd.Function):
    """log softmax(hidden @ weight.T)[at, targets] without a logits tensor of the whole vocabulary.

    hidden [R, H], weight [V, H], targets [n], at [n] in 0..R-1 -> [n] float32. Blocks of the vocabulary follow each
    other with a running maximum (online softmax, arXiv 1805.02867). With a frozen weight the mean row of the weight
    under the softmax is formed in the forward pass ([R, H] is kept, no logits are); with a trainable weight the
    exponentials are kept up to KEPT_BYTES and recomputed above that.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, at: Tensor) -> Tensor:
        train_weight, train_hidden = weight.requires_grad, hidden.requires_grad
        keep = train_weight and hidden.shape[0] * weight.shape[0] * 4 <= KEPT_BYTES
        mean = torch.zeros_like(hidden, dtype=torch.float32) if train_hidden and not train_weight else None
        total = hidden.new_zeros(len(hidden), dtype=torch.float32)
        highest = torch.full_like(total, -torch.inf)
        chosen = hidden.new_zeros(len(targets), dtype=torch.float32)
        kept = []
        for start, block in _blocks(weight):
            logits = (hidden @ block.T).float()
            inside = ((targets >= start) & (targets < start + len(block))).nonzero().squeeze(1)
            chosen[inside] = logits[at[inside], targets[inside] - start]
            before, highest = highest, torch.maximum(highest, logits.amax(1))
            powers, fade = logits.sub_(highest[:, None]).exp_(), (before - highest).exp()
            total = total * fade + powers.sum(1)
            if mean is not None:
                mean.mul_(fade[:, None]).add_(powers.to(block.dtype) @ block)
            if keep:
                kept += [highest, powers]
        norm = highest + total.log()
        mean = None if mean is None else (mean / total[:, None]).to(hidden.dtype)
        ctx.save_for_backward(hidden, weight, targets, at, norm, mean, *kept)
        return chosen - norm[at]

    @staticmethod
    def backward(ctx, upstream: Tensor):
        hidden, weight, targets, at, norm, mean, *kept = ctx.saved_tensors
        # upstream times (one-hot minus probabilities): the one-hot part here, the probabilities block by block
        pull, push = upstream[:, None].to(weight.dtype), torch.zeros_like(norm).index_add_(0, at, upstream)
        grad_hidden = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_hidden = torch.zeros_like(hidden).index_add_(0, at, weight[targets] * pull)
        if mean is not None:
            return grad_hidden.addcmul_(mean, push[:, None].to(mean.dtype), value=-1), None, None, None
        if ctx.needs_input_grad[1]:
            grad_weight = torch.empty_like(weight)
        for i, (start, block) in enumerate(_blocks(weight)):
            if kept:
                powers, scale = kept[2 * i + 1], push * (kept[2 * i] - norm).exp()
            else:
                powers, scale = (hidden @ block.T).float().sub_(norm[:, None]).exp_(), push
            powers, scale = powers.to(weight.dtype), scale[:, None].to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden.addcmul_(powers @ block, scale, value=-1)
            if grad_weight is not None:
                torch.mm(powers.T, hidden * -scale, out=grad_weight[start : start + len(block)])
        if grad_weight is not None:
            grad_weight.index_add_(0, targets, hidden[at] * pull)
        return grad_hidden, grad_weight, None, None


def _blocks(weight: Tensor):
    """(index of its first row, rows) of each block of the weight."""
    return zip(range(0, len(weight), COLUMNS), weight.split(COLUMNS), strict=True)


def branch_logps(policy, batch, precision: str = "float32") -> Tensor:
    """Summed log-probabilities [B, K] of a collated batch, float32, each prompt and each distinct answer read once.

    Where the batch carries the frozen layers' output (`trunk` [1, N, H], of the first `depth` layers), only the layers
    above run. precision: of the layers' products; the head and the sums are in the weights' own.
    """
    model = unwrap(policy)
    decoder, given = model.get_decoder(), {"input_ids": batch["input_ids"]}
    if "trunk" in batch:
        decoder, given = _with_kept(policy, batch["trunk"], batch["depth"]), {"inputs_embeds": batch["trunk"]}
    head = model.get_output_embeddings().weight
    with along(decoder, batch["layout"]), rounding(precision, head.device):
        hidden = decoder(**given, position_ids=batch["position_ids"], use_cache=False).last_hidden_state
    rows = hidden[0].index_select(0, batch["rows"]).to(head.dtype)
    return _sum_by_answer(TokenLogps.apply(rows, head, batch["targets"], batch["at"]), batch)


def run_trunk(policy, batch, depth: int, precision: str = "float32") -> Tensor:
    """Output [1, N, H] of the first `depth` layers, which no training step changes.

    Their input is that of the token ids, or the batch's `trunk` where it has one (embeddings with a picture in them).
    """
    given = {"inputs_embeds": batch["trunk"]} if "trunk" in batch else {"input_ids": batch["input_ids"]}
    _, layers = find_layers(policy)
    kept: list[Tensor] = []
    hook = layers[depth - 1].register_forward_hook(lambda *call: kept.append(call[-1]))
    lower = _with_layers(policy, layers[:depth])
    try:
        with along(lower, batch["layout"]), rounding(precision, batch["input_ids"].device):
            lower(**given, position_ids=batch["position_ids"], use_cache=False)
    finally:
        hook.remove()
    return kept[0]


def frozen_depth(policy) -> int:
    """How many layers lie below everything that is trained; 0 where the embedding is trained or there are no layers."""
    try:
        name, _ = find_layers(policy)
    except ValueError:
        return 0
    trained = [path.split(".") for path, p in unwrap(policy).get_decoder().named_parameters() if p.requires_grad]
    inside, others = [int(path[1]) for path in trained if path[0] == name], {path[0] for path in trained} - {name}
    return min(inside, default=0) if others <= set(find_tail(policy) if others else ()) else 0


def _with_layers(policy, layers):
    """The policy's decoder with other layers: a shallow copy that shares every weight."""
    decoder = unwrap(policy).get_decoder()
    view = copy.copy(decoder)
    view._modules = {**decoder._modules, find_layers(policy)[0]: torch.nn.ModuleList(layers)}
    return view


def _with_kept(policy, states: Tensor, depth: int):
    """The policy's decoder whose first `depth` layers answer, whatever they are asked, with the states that were kept.

    They stay in their places, as some families look at a layer's number.
    """
    _, layers = find_layers(policy)
    silent = [copy.copy(layer) for layer in layers[:depth]]
    for layer in silent:
        layer.forward = lambda *_, **__: states
    return _with_layers(policy, [*silent, *layers[depth:]])


def plain_logps(policy, batch, precision: str = "float32") -> Tensor:
    """The same numbers [B, K] for a model that cannot read along a layout: every answer as a row with its prompt."""
    sequences = batch["sequences"]
    how = {"attention_mask": sequences["attention_mask"], "use_cache": False}
    with rounding(precision, sequences["input_ids"].device):
        logits = policy(input_ids=sequences["input_ids"], **how).logits
    logits = logits.flatten(0, 1).index_select(0, sequences["rows"]).float()
    tokens = logits.gather(1, batch["targets"][:, None]).squeeze(1) - logits.logsumexp(1)
    return _sum_by_answer(tokens, batch)


def _sum_by_answer(tokens: Tensor, batch) -> Tensor:
    sums = tokens.new_zeros(len(batch["sequences"]["input_ids"])).index_add(0, batch["branch"], tokens)
    return sums[batch["answer"]]


def choose_path(policy, longest: int = 0, tolerance: float = 1e-3):
    """`branch_logps` if it gives this model's plain numbers, else `plain_logps`: decided by numbers, not by family.

    Three made-up token sequences are scored both ways; state-space models, scaled logits and attention that cannot
    follow a layout fail the comparison (or raise) and get the plain path. So does what so short a comparison may not
    show: a head that is more than its weight, capped logits, and attention that reaches less far back than `longest`
    tokens.
    """
    model = unwrap(policy)
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    if type(head) is not torch.nn.Linear or head.bias is not None or getattr(config, "final_logit_softcapping", None):
        return plain_logps
    if any(reach < longest for reach in _reaches(config)):
        return plain_logps
    batch = make_probe(policy)
    with torch.no_grad():
        plain = plain_logps(policy, batch)
        before = count_calls()
        try:
            gap, layers = (branch_logps(policy, batch) - plain).abs().max().item(), len(find_layers(policy)[1])
        except UNFIT:
            return plain_logps
    if count_calls() - before != layers:
        return plain_logps
    half = next(policy.parameters()).dtype in (torch.float16, torch.bfloat16)
    return branch_logps if gap <= (1.0 if half else tolerance) else plain_logps


def make_probe(policy) -> dict:
    """A batch of one made-up prompt with three answers, short and of unequal lengths."""
    size = policy.get_input_embeddings().weight.shape[0]
    ids = [(7 * i + 3) % size for i in range(12)]
    probe = [Example("probe", tuple(ids[:6]), (tuple(ids[6:9]), tuple(ids[4:12]), (ids[2],)))]
    return to_device(collate(probe, pad_id=0), next(policy.parameters()).device)


def _reaches(config) -> list[int]:
    """How many tokens back attention may look, wherever a model's settings say it."""
    return [
        value
        for name, value in config.to_dict().items()
        if type(value) is int and value > 0 and re.search("window|chunk|local_attention", name)
        and not re.search("layers|pattern", name)
    ]


def to_device(value, device):
    """A batch with its tensors on `device`; everything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device) for item in value))
    return value
