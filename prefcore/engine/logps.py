"""The only place where logits become numbers: summed log-probabilities of completions.

A batch holds each prompt once, followed by its K completions as branches (see collate.py). The language-model head runs
only on the positions that predict a completion token, a chunk of rows at a time.
"""

import copy
import re

import torch
from torch import Tensor

from prefcore.engine.decoder import find_layers, find_tail, unwrap

COLUMNS = 2048  # words of the vocabulary whose logits are alive at once; in blocks of rows each block reads all weights
UNFIT = (TypeError, ValueError, RuntimeError, AttributeError, IndexError)  # what a model raises that cannot do this
KEPT_BYTES = 256 * 2**20  # exponentials kept for the backward pass of a trainable head; above it they are recomputed


class TokenLogps(torch.autograd.Function):
    """log softmax(hidden @ weight.T)[targets] without a logits tensor of the whole vocabulary.

    hidden [N, H], weight [V, H], targets [N] -> [N] float32. Blocks of the vocabulary follow each other with a running
    maximum (online softmax, arXiv 1805.02867). With a frozen weight the gradient with respect to hidden,
    weight[target] - sum_v p_v weight[v], is formed in the forward pass ([N, H] is kept, no logits are); with a
    trainable weight the exponentials are kept up to KEPT_BYTES and recomputed above that.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        train_weight, train_hidden = weight.requires_grad, hidden.requires_grad
        keep = train_weight and hidden.shape[0] * weight.shape[0] * 4 <= KEPT_BYTES
        mean = torch.zeros_like(hidden, dtype=torch.float32) if train_hidden and not train_weight else None
        chosen, total = hidden.new_zeros(2, len(hidden), dtype=torch.float32)
        highest = torch.full_like(total, -torch.inf)
        kept = []
        for start, block in _blocks(weight):
            logits = (hidden @ block.T).float()
            inside = (targets >= start) & (targets < start + len(block))
            own = logits.gather(1, (targets - start).clamp(0, len(block) - 1)[:, None]).squeeze(1)
            chosen = torch.where(inside, own, chosen)
            before, highest = highest, torch.maximum(highest, logits.amax(1))
            powers, fade = logits.sub_(highest[:, None]).exp_(), (before - highest).exp()
            total = total * fade + powers.sum(1)
            if mean is not None:
                mean.mul_(fade[:, None]).add_(powers.to(block.dtype) @ block)
            if keep:
                kept += [highest, powers]
        norm = highest + total.log()
        slopes = None if mean is None else (weight[targets] - mean / total[:, None]).to(hidden.dtype)
        ctx.save_for_backward(hidden, weight, targets, norm, slopes, *kept)
        return chosen - norm

    @staticmethod
    def backward(ctx, upstream: Tensor):
        hidden, weight, targets, norm, slopes, *kept = ctx.saved_tensors
        if slopes is not None:
            return slopes * upstream[:, None].to(slopes.dtype), None, None
        # upstream times (one-hot minus probabilities): the one-hot part here, the probabilities block by block
        pull = upstream[:, None].to(weight.dtype)
        grad_hidden = weight[targets] * pull if ctx.needs_input_grad[0] else None
        grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for i, (start, block) in enumerate(_blocks(weight)):
            if kept:
                powers, scale = kept[2 * i + 1], upstream * (kept[2 * i] - norm).exp()
            else:
                powers, scale = (hidden @ block.T).float().sub_(norm[:, None]).exp_(), upstream
            powers, scale = powers.to(weight.dtype), scale[:, None].to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden.addcmul_(powers @ block, scale, value=-1)
            if grad_weight is not None:
                torch.mm(powers.T, hidden * -scale, out=grad_weight[start : start + len(block)])
        if grad_weight is not None:
            grad_weight.index_add_(0, targets, hidden * pull)
        return grad_hidden, grad_weight, None


def _blocks(weight: Tensor):
    """(index of its first row, rows) of each block of the weight."""
    return zip(range(0, len(weight), COLUMNS), weight.split(COLUMNS), strict=True)


def branch_logps(policy, batch) -> Tensor:
    """Summed log-probabilities [B, K] of a collated batch, float32, each prompt read once.

    Where the batch carries the frozen layers' output (`trunk` [B, T, H], of the first `depth` layers), only the layers
    above run.
    """
    model = unwrap(policy)
    decoder = model.get_decoder()
    how = {"attention_mask": batch["attention_mask"], "position_ids": batch["position_ids"], "use_cache": False}
    if "trunk" in batch:
        upper = _with_kept(policy, batch["trunk"], batch["depth"])
        hidden = upper(inputs_embeds=batch["trunk"], **how).last_hidden_state
    else:
        hidden = decoder(input_ids=batch["input_ids"], **how).last_hidden_state
    rows = hidden.flatten(0, 1).index_select(0, batch["rows"])
    tokens = TokenLogps.apply(rows, model.get_output_embeddings().weight, batch["targets"])
    return _sum_by_branch(tokens, batch)


def run_trunk(policy, batch, depth: int) -> Tensor:
    """Output [B, T, H] of the first `depth` layers, which no training step changes."""
    _, layers = find_layers(policy)
    kept: list[Tensor] = []
    hook = layers[depth - 1].register_forward_hook(lambda *call: kept.append(call[-1]))
    how = {"attention_mask": batch["attention_mask"], "position_ids": batch["position_ids"], "use_cache": False}
    try:
        _with_layers(policy, layers[:depth])(input_ids=batch["input_ids"], **how)
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


def plain_logps(policy, batch) -> Tensor:
    """The same numbers [B, K] for a model that cannot take a 4-D mask: every prompt and completion as its own row."""
    sequences = batch["sequences"]
    how = {"attention_mask": sequences["attention_mask"], "use_cache": False}
    logits = policy(input_ids=sequences["input_ids"], **how).logits
    logits = logits.flatten(0, 1).index_select(0, sequences["rows"]).float()
    tokens = logits.gather(1, batch["targets"][:, None]).squeeze(1) - logits.logsumexp(1)
    return _sum_by_branch(tokens, batch)


def _sum_by_branch(tokens: Tensor, batch) -> Tensor:
    size, branches = batch["shape"]
    sums = tokens.new_zeros(size * branches).index_add(0, batch["branch"], tokens)
    return sums.view(size, branches)


def choose_path(policy, longest: int = 0, tolerance: float = 1e-3):
    """`branch_logps` if it gives this model's plain numbers, else `plain_logps`: decided by numbers, not by family.

    Three made-up token sequences are scored both ways; state-space models, scaled logits and attention that cannot take
    the mask fail the comparison (or raise) and get the plain path. So does what so short a comparison may not show: a
    head that is more than its weight, capped logits, and attention that reaches less far back than `longest` tokens.
    """
    from prefcore.data.types import Example
    from prefcore.engine.collate import collate

    model = unwrap(policy)
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    if type(head) is not torch.nn.Linear or head.bias is not None or getattr(config, "final_logit_softcapping", None):
        return plain_logps
    if any(reach < longest for reach in _reaches(config)):
        return plain_logps
    device = next(policy.parameters()).device
    size = model.get_input_embeddings().weight.shape[0]
    ids = [(7 * i + 3) % size for i in range(12)]
    probe = [Example("probe", tuple(ids[:6]), (tuple(ids[6:9]), tuple(ids[4:12]), (ids[2],)))]
    batch = to_device(collate(probe, pad_id=0), device)
    with torch.no_grad():
        plain = plain_logps(policy, batch)
        try:
            gap = (branch_logps(policy, batch) - plain).abs().max().item()
        except UNFIT:
            return plain_logps
    half = next(policy.parameters()).dtype in (torch.float16, torch.bfloat16)
    return branch_logps if gap <= (1.0 if half else tolerance) else plain_logps


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
    return value
