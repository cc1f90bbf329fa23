"""A reward model: an encoder with a head on the mean of its last states, or a sequence classifier with one output.

The output r of a text is its reward; sigmoid(r_a - r_b) is P(a is preferred). Sentence encoders are trained by the mean
of their last states; the pooler of [CLS] that a BERT classifier would read took no part in that, so it is not read.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from transformers.modeling_outputs import SequenceClassifierOutput

from prefcore.data.types import Example, Pair, Prompt
from prefcore.engine import ranks
from prefcore.engine.collate import Plan, encode_chat
from prefcore.engine.descent import descend
from prefcore.engine.machine import plain_attention, rounding
from prefcore.scoring.votes import VotedPair

HEAD = "head.safetensors"  # beside an encoder: what turns the mean of its states into a reward


class MeanPooled(torch.nn.Module):
    """An encoder and a linear map of the mean of its last states over a text's tokens, read as a classifier is."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.config = encoder, encoder.config
        self.head = torch.nn.Linear(encoder.config.hidden_size, 1, bias=False)  # a bias would cancel in all differences
        torch.nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, input_ids, attention_mask) -> SequenceClassifierOutput:
        """logits [n, 1] of token ids [n, T] and their mask."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        return SequenceClassifierOutput(logits=self.head((states * mask).sum(1) / mask.sum(1)))


def is_one(name: str) -> bool:
    """Whether a hub id or folder is one of these, and not a model that writes."""
    if (Path(name) / "adapter_config.json").exists() or (Path(name) / HEAD).exists():
        return (Path(name) / HEAD).exists()
    kinds = AutoConfig.from_pretrained(name).architectures or ()
    return any(kind.endswith("ForSequenceClassification") for kind in kinds)


def load(name: str, *, seed: int, device: str = "cpu", dtype: str = "float32"):
    """(tokenizer, reward model in eval mode) of a hub id or folder.

    A sequence classifier is read as it is: it must have one output (ValueError). Any other model is an encoder: its
    head is that of head.safetensors beside it, or drawn from `seed`.
    """
    tokenizer, config = AutoTokenizer.from_pretrained(name), AutoConfig.from_pretrained(name)
    how = {"dtype": getattr(torch, dtype), "use_safetensors": True}
    if any(kind.endswith("ForSequenceClassification") for kind in config.architectures or ()):
        if config.num_labels != 1:
            raise ValueError(f"{name} is no reward model: its classifier has {config.num_labels} outputs, not one")
        model = AutoModelForSequenceClassification.from_pretrained(name, **how)
    else:
        encoder = AutoModel.from_pretrained(name, **how)
        torch.manual_seed(seed)
        model = MeanPooled(encoder).to(how["dtype"])
        if (Path(name) / HEAD).exists():
            model.head.load_state_dict(load_file(Path(name) / HEAD))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id  # a decoder looks for its last token by it
    return tokenizer, model.to(device).eval()


def train_top(model, *, layers: int):
    """Train the last `layers` layers and all that follows them (the head); what comes before is frozen."""
    total = model.config.num_hidden_layers
    (stack, *_) = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == total)
    if not 0 < layers <= total:
        raise ValueError(f"layers is {layers}; this model has {total}, and at least one must be trained")
    first = next(stack[-layers].parameters())
    reached = False
    for parameter in model.parameters():  # in the order in which the model reads them
        reached = reached or parameter is first
        parameter.requires_grad_(reached)
    return model


def encode(pairs: Sequence[Pair], tokenizer, *, max_tokens: int) -> list[Example]:
    """Pairs as examples of two whole texts, chosen and rejected; margin and strength become columns where present."""
    examples = []
    for pair in pairs:
        texts = tuple(token_ids(pair.prompt, text, tokenizer, max_tokens) for text in (pair.chosen, pair.rejected))
        columns = {"margin": pair.margin, "strength": pair.strength}
        examples.append(Example(pair.id, (), texts, {k: float(v) for k, v in columns.items() if v is not None}))
    return examples


def token_ids(prompt: Prompt, text: str, tokenizer, max_tokens: int) -> tuple[int, ...]:
    """The prompt (if any), a new line and the text, with the model's own first and last token, cut at `max_tokens`.

    Chat messages are rendered by the tokenizer's template, the text as the assistant's turn, and keep their end.
    """
    if not isinstance(prompt, str):
        messages = [*prompt, {"role": "assistant", "content": text}]
        return tuple(encode_chat(messages, tokenizer, opens=False)[-max_tokens:])
    whole = f"{prompt}\n{text}" if prompt else text
    return tuple(tokenizer(whole, split_special_tokens=True, truncation=True, max_length=max_tokens)["input_ids"])


def read(sequences: Sequence[Sequence[int]], model) -> torch.Tensor:
    """Rewards [n] in float32 of n sequences of token ids, in one forward pass."""
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), model.config.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = torch.tensor(sequence), 1
    device = next(model.parameters()).device
    return model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, 0].float()


def fit(
    model,
    plan: Plan,
    objective: Callable,
    *,
    learning_rate: float,
    warmup: float,
    max_grad_norm: float,
    label: str,
    precision: str = "float32",
) -> pd.DataFrame:
    """Train in place on the plan, a step a batch; returns one history row a step.

    objective(rewards [B,2], columns) -> LossOutput, whose mean loss is minimised; columns: name -> [B]. AdamW, rate
    rising over the share `warmup` of the steps, then falling to 0. No dropout, so that arms differ in their objective
    alone. precision: of the products; weights, their steps and the losses keep the weights' own. Several processes
    share each batch. FloatingPointError with the ids of the batch where a loss is not finite.
    """

    device = next(model.parameters()).device

    def loss(batch):
        mine = ranks.deal(batch)  # a process that has none reads the first example, which does not count
        examples = [plan.examples[i] for i in mine or batch[:1]]
        with rounding(precision, device):
            rewards = read([ids for e in examples for ids in e.completions], model).view(-1, 2)[: len(mine)]
        names = examples[0].columns
        columns = {n: torch.tensor([e.columns[n] for e in examples], device=rewards.device)[: len(mine)] for n in names}
        losses = objective(rewards, columns).losses
        if not losses.isfinite().all():
            raise FloatingPointError(f"the loss is not finite in the batch {[e.id for e in examples]}: lower the rate")
        gap = (rewards[:, 0] - rewards[:, 1]).detach()
        return ranks.step_mean(losses), ranks.means({"margin": gap, "accuracy": (gap > 0).float()})

    trained = [p for p in model.parameters() if p.requires_grad]
    how = {"learning_rate": learning_rate, "warmup": warmup, "max_grad_norm": max_grad_norm, "label": label}
    with plain_attention(precision, device):
        return descend(trained, plan.batches, loss, **how)


def score(
    items: Sequence[tuple[Prompt, str]],
    model,
    tokenizer,
    *,
    max_tokens: int,
    batch_size: int = 64,
    precision: str = "float32",
) -> np.ndarray:
    """Rewards [n] float64 of (prompt, text), in the model's own unit: only differences mean something."""
    sequences = [token_ids(prompt, text, tokenizer, max_tokens) for prompt, text in items]
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    out = np.empty(len(sequences))
    with torch.no_grad(), rounding(precision, next(model.parameters()).device):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            out[rows] = read([sequences[i] for i in rows], model).double().cpu().numpy()
    return out


def preference(
    pairs: Sequence[VotedPair], model, tokenizer, *, max_tokens: int, precision: str = "float32"
) -> np.ndarray:
    """P(a is preferred) = sigmoid(r_a - r_b) [n]; each text is read once."""
    items = sorted({(pair.prompt, text) for pair in pairs for text in (pair.a, pair.b)})
    found = score(items, model, tokenizer, max_tokens=max_tokens, precision=precision)
    rewards = dict(zip(items, found, strict=True))
    gap = np.array([rewards[pair.prompt, pair.a] - rewards[pair.prompt, pair.b] for pair in pairs])
    return np.exp(-np.logaddexp(0, -gap))


def save(model, tokenizer, folder: Path) -> None:
    """Plain transformers files, safetensors; beside an encoder its head, weight [1, H], as head.safetensors."""
    if isinstance(model, MeanPooled):
        model.encoder.save_pretrained(folder)
        save_file({"weight": model.head.weight.detach().cpu().contiguous()}, folder / HEAD)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
