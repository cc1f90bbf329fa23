"""The only place where logits become numbers: summed log-probabilities of completions.

A batch holds each prompt once, followed by its K completions as branches (see collate.py). The language-model head runs
only on the positions that predict a completion token, a chunk of rows at a time.
"""

import copy

import torch
from torch import Tensor

ROWS = 128  # rows of logits alive at once: 128 x 49,152 x 4 bytes = 25 MB
KEPT_BYTES = 256 * 2**20  # probabilities kept for the backward pass of a trainable head; above it they are recomputed


def unwrap(policy):
    """The causal language model inside a PEFT wrapper, or the model itself."""
    return policy.get_base_model() if hasattr(policy, "get_base_model") else policy


class TokenLogps(torch.autograd.Function):
    """log softmax(hidden @ weight.T)[targets] without a logits tensor of all rows.

    hidden [N, H], weight [V, H], targets [N] -> [N] float32. With a frozen weight the gradient with respect to hidden,
    weight[target] - sum_v p_v weight[v], is formed in the forward pass ([N, H] is kept, no logits are); with a trainable
    weight the probabilities are kept up to KEPT_BYTES and recomputed above that.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        train_weight, train_hidden = weight.requires_grad, hidden.requires_grad
        keep = train_weight and hidden.shape[0] * weight.shape[0] * 4 <= KEPT_BYTES
        slopes = torch.empty_like(hidden) if train_hidden and not train_weight else None
        kept = []
        for start in range(0, len(hidden), ROWS):
            rows = slice(start, start + ROWS)
            probabilities, logps[rows] = _softmax_(hidden[rows] @ weight.T, targets[rows])
            if slopes is not None:
                slopes[rows] = weight[targets[rows]] - probabilities.to(weight.dtype) @ weight
            if keep:
                kept.append(probabilities)
        ctx.save_for_backward(hidden, weight, targets, slopes, *kept)
        return logps

    @staticmethod
    def backward(ctx, upstream: Tensor):
        hidden, weight, targets, slopes, *kept = ctx.saved_tensors
        if slopes is not None:
            return slopes * upstream[:, None].to(slopes.dtype), None, None
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for i, start in enumerate(range(0, len(hidden), ROWS)):
            rows = slice(start, start + ROWS)
            # one-hot minus probabilities, times the incoming gradient
            pull = kept[i] if kept else _softmax_(hidden[rows] @ weight.T, targets[rows])[0]
            pull = pull.mul_(-upstream[rows, None])
            pull.scatter_add_(1, targets[rows, None], upstream[rows, None].to(pull.dtype))
            pull = pull.to(weight.dtype)
            if grad_hidden is not None:
                torch.mm(pull, weight, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight.addmm_(pull.T, hidden[rows])
        return grad_hidden, grad_weight, None


def _softmax_(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (written over the logits where they are float32) and the log-probability of each target."""
    logits = logits.float()
    logits.sub_(logits.amax(1, keepdim=True))
    chosen = logits.gather(1, targets[:, None]).squeeze(1)
    logits.exp_()
    total = logits.sum(1)
    return logits.div_(total[:, None]), chosen - total.log()


def branch_logps(policy, batch) -> Tensor:
    """Summed log-probabilities [B, K] of a collated batch, float32, each prompt read once.

    Where the batch carries the frozen layers' output (`trunk` [B, T, H], of the first `depth` layers), only the layers
    above run.
    """
    model = unwrap(policy)
    decoder = model.get_decoder()
    how = {"attention_mask": batch["attention_mask"], "position_ids": batch["position_ids"], "use_cache": False}
    if "trunk" in batch:
        upper = _with_layers(decoder, decoder.layers[batch["depth"] :], decoder.norm)
        hidden = upper(inputs_embeds=batch["trunk"], **how).last_hidden_state
    else:
        hidden = decoder(input_ids=batch["input_ids"], **how).last_hidden_state
    rows = hidden.flatten(0, 1).index_select(0, batch["rows"])
    tokens = TokenLogps.apply(rows, model.get_output_embeddings().weight, batch["targets"])
    return _sum_by_branch(tokens, batch)


def run_trunk(policy, batch, depth: int) -> Tensor:
    """Output [B, T, H] of the first `depth` layers, which no training step changes."""
    decoder = unwrap(policy).get_decoder()
    lower = _with_layers(decoder, decoder.layers[:depth], torch.nn.Identity())
    how = {"attention_mask": batch["attention_mask"], "position_ids": batch["position_ids"], "use_cache": False}
    return lower(input_ids=batch["input_ids"], **how).last_hidden_state


def frozen_depth(policy) -> int:
    """How many layers lie below everything that is trained; 0 where the embedding is trained or there are no layers."""
    decoder = unwrap(policy).get_decoder()
    if not hasattr(decoder, "layers") or not hasattr(decoder, "norm"):
        return 0
    trained = [name for name, parameter in decoder.named_parameters() if parameter.requires_grad]
    inside = [int(name.split(".")[1]) for name in trained if name.startswith("layers.")]
    return min(inside, default=0) if all(name.startswith(("layers.", "norm.")) for name in trained) else 0


def _with_layers(decoder, layers, norm):
    """The same decoder with other layers: a shallow copy that shares every weight."""
    view = copy.copy(decoder)
    view._modules = {**decoder._modules, "layers": layers, "norm": norm}
    return view


def plain_logps(policy, batch) -> Tensor:
    """The same numbers [B, K] for a model that cannot take a 4-D mask: every prompt and completion as its own row."""
    sequences = batch["sequences"]
    logits = policy(input_ids=sequences["input_ids"], attention_mask=sequences["attention_mask"], use_cache=False).logits
    logits = logits.flatten(0, 1).index_select(0, sequences["rows"]).float()
    tokens = logits.gather(1, batch["targets"][:, None]).squeeze(1) - logits.logsumexp(1)
    return _sum_by_branch(tokens, batch)


def _sum_by_branch(tokens: Tensor, batch) -> Tensor:
    size, branches = batch["shape"]
    sums = tokens.new_zeros(size * branches).index_add(0, batch["branch"], tokens)
    return sums.view(size, branches)


def choose_path(policy, longest: int = 0, tolerance: float = 1e-3):
    """`branch_logps` if this model gives the plain numbers with it, else `plain_logps`: decided by numbers, not by name.

    Three made-up token sequences are scored both ways; state-space models, soft-capped or scaled logits fail the
    comparison (or raise) and get the plain path. So does a model whose attention reaches less far back than `longest`
    tokens, which so short a comparison may not show.
    """
    from prefcore.collate import collate
    from prefcore.types import Example

    reaches = [getattr(policy.config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if any(reach and reach < longest for reach in reaches):
        return plain_logps
    device = next(policy.parameters()).device
    size = unwrap(policy).get_input_embeddings().weight.shape[0]
    ids = [(7 * i + 3) % size for i in range(12)]
    probe = [Example("probe", tuple(ids[:6]), (tuple(ids[6:9]), tuple(ids[4:12]), (ids[2],)))]
    batch = to_device(collate(probe, pad_id=0), device)
    with torch.no_grad():
        plain = plain_logps(policy, batch)
        try:
            gap = (branch_logps(policy, batch) - plain).abs().max().item()
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
            return plain_logps
    half = next(policy.parameters()).dtype in (torch.float16, torch.bfloat16)
    return branch_logps if gap <= (1.0 if half else tolerance) else plain_logps


def to_device(value, device):
    """A batch with its tensors on `device`; everything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return value
