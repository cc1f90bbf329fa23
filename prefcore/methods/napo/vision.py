"""Vision-language models of transformers' own classes under the shared engine: prompts, scores, training, answers.

A picture enters below the language model: the embeddings of a prompt's placeholder tokens are replaced by what the
vision tower and the projector make of the picture. Everything above is the one batch of collate.py (a prompt once, its
K completions as branches), and where the tower, the projector and the lowest layers are frozen, their output is the
batch's `trunk`, computed once.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from prefcore.data.types import Example
from prefcore.engine import models, progress, ranks
from prefcore.engine.collate import Plan, collate, encode_text, longest, make_plan, pad_left
from prefcore.engine.decoder import find_layers, find_linear_maps
from prefcore.engine.descent import descend
from prefcore.engine.layout import part
from prefcore.engine.logps import branch_logps, choose_path, frozen_depth, run_trunk, to_device, unwrap
from prefcore.engine.machine import small_products
from prefcore.engine.reference import TOKENS, token_batches, without_adapter

MARK = "\u2402question\u2403"


class Prompt(NamedTuple):
    """Token ids, with one placeholder for each token of the picture, and the tower's input; {} without a picture."""

    ids: tuple[int, ...]
    image: Mapping[str, Tensor]


# --- models of any size ---------------------------------------------------------------------------------------------


def load(name: str, *, device="cpu", dtype: str = "float32"):
    """(processor, model in eval mode) of any vision-language model: a hub id or a folder, safetensors only."""
    processor = AutoProcessor.from_pretrained(name)
    model = AutoModelForImageTextToText.from_pretrained(name, dtype=getattr(torch, dtype), use_safetensors=True)
    return processor, model.to(device).eval()


def save(model, processor, folder: Path) -> None:
    """Plain transformers files, an adapter merged in; the folder is there whole or not at all."""
    if not ranks.is_first():
        return
    aside = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    models.save_policy(model, processor, aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def add_lora(model, *, rank: int, alpha: float, top_layers: int, seed: int):
    """A LoRA adapter on all linear maps of the last `top_layers` language layers; tower and projector are frozen.

    ValueError where no language layer would stay frozen: the shared engine keeps what lies below as the batch's trunk.
    """
    own, layers = find_layers(model)
    total = len(layers)
    if not 0 < top_layers < total:
        raise ValueError(f"adapters on {top_layers} of {total} language layers: between 1 and {total - 1} can have one")
    numbers = "|".join(map(str, range(total - top_layers, total)))
    names = "|".join(find_linear_maps(layers[-top_layers:]))
    inside = rf".*(language_model|text_model)\.{own}\.({numbers})\..*({names})"
    return models.add_adapter(model, inside, rank=rank, alpha=alpha, seed=seed)


# --- prompts --------------------------------------------------------------------------------------------------------


def make_prompts(processor, shown: Sequence[tuple[np.ndarray | None, str | None]]) -> list[Prompt]:
    """Prompts of (picture [H, W, 3] uint8 or None, question or None), by the processor's chat template.

    The question is put in as plain text: what in it looks like the picture's token, or any control token, stays text.
    Each picture (the same array) is processed once. ValueError where a prompt would have neither, or where the template
    leaves the picture out.
    """
    pieces: dict[tuple, tuple[list[int], Mapping]] = {}
    out = []
    for row, (picture, question) in enumerate(shown):
        if picture is None and question is None:
            raise ValueError(f"prompt {row} has neither a picture nor a question")
        before, after = _frame(processor, picture is not None, question is not None)
        token = processor.image_token
        if picture is not None and (before + after).count(token) != 1:
            raise ValueError(
                f"prompt {row}: the chat template must hold the picture's token {token} once, but gives "
                f"{before + after!r}: use a processor whose template shows pictures"
            )
        ids, image = [], {}
        for place, piece in enumerate((before, after)):
            key = (place, piece, id(picture) if token in piece else None)
            if key not in pieces:
                pieces[key] = _encode(processor, piece, picture if token in piece else None)
            more, pixels = pieces[key]
            ids += more
            image = pixels or image
            if place == 0 and question is not None:
                ids = ids + encode_text(question, processor.tokenizer)
        out.append(Prompt(tuple(ids), image))
    return out


def _frame(processor, picture: bool, question: bool) -> tuple[str, str]:
    """The chat template's text before and after the question."""
    content = [{"type": "image"}] * picture + [{"type": "text", "text": MARK}] * question
    message = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    before, _, after = text.partition(MARK)
    return before, after


def _encode(processor, piece: str, picture) -> tuple[list[int], Mapping]:
    if picture is None:
        return processor.tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else [], {}
    found = processor(text=piece, images=Image.fromarray(picture), return_tensors="pt")
    image = {k: v for k, v in found.items() if k not in ("input_ids", "attention_mask", "token_type_ids")}
    return found["input_ids"][0].tolist(), image


def make_example(id: str, prompt: Prompt, completions: Sequence[str], tokenizer, *, max_completion: int, columns=None):
    """An Example whose completions are whole texts (EOS included), cut at `max_completion` tokens.

    Its picture is its own: equal tokens do not make two prompts equal.
    """
    branches = [encode_text(text, tokenizer) + [tokenizer.eos_token_id] for text in completions]
    answers, shown = tuple(tuple(ids[:max_completion]) for ids in branches), f"picture of {id}" if prompt.image else ""
    return Example(id, prompt.ids, answers, columns or {}, shown)


# --- scoring and training under the shared engine -------------------------------------------------------------------


def embed(policy, examples: Sequence[Example], images: Sequence[Mapping[str, Tensor]], input_ids: Tensor) -> Tensor:
    """Embeddings [1, N, H] of a batch's token ids [1, N], the pictures' in place of their placeholders, in their order.

    An image for each example, {} where there is none. ValueError with the example whose placeholders do not fit it.
    """
    model = unwrap(policy)
    states, token = model.get_input_embeddings()(input_ids), model.config.image_token_id
    shown = [i for i, image in enumerate(images) if image]
    features: list[Tensor] = []
    if shown:
        stacked = {k: torch.cat([images[i][k] for i in shown]).to(states.device) for k in images[shown[0]]}
        features = [f.flatten(0, -2) for f in model.get_image_features(**stacked, return_dict=True).pooler_output]
    lengths = dict(zip(shown, map(len, features), strict=True))
    for row, example in enumerate(examples):
        if (count := example.prompt.count(token)) != lengths.get(row, 0):
            raise ValueError(
                f"row {example.id}: {count} picture tokens (id {token}) in the prompt, but its picture has "
                f"{lengths.get(row, 0)}: build prompts with make_prompts"
            )
    places = (input_ids == token)[..., None]
    return states.masked_scatter(places, torch.cat(features).to(states.dtype)) if features else states


def logps(policy, examples: Sequence[Example], images: Sequence[Mapping], *, pad_id: int) -> Tensor:
    """Summed log-probabilities [n, K] of one batch, with gradient; each prompt and picture is read once."""
    batch, states = _embedded(policy, examples, images, pad_id)
    return branch_logps(policy, batch | {"trunk": states, "depth": 0})


def _embedded(policy, examples, images, pad_id: int) -> tuple[dict, Tensor]:
    examples = tell_apart(examples)
    batch = to_device(collate(examples, pad_id=pad_id), next(policy.parameters()).device)
    return batch, embed(policy, examples, images, batch["input_ids"])


def tell_apart(examples: Sequence[Example]) -> list[Example]:
    """The examples, each with a picture of its own: equal tokens do not make their prompts equal."""
    return [example._replace(shown=f"picture {i}") for i, example in enumerate(examples)]


def attach(plan: Plan, policy, images: Sequence[Mapping], precision: str = "float32") -> Plan:
    """The plan with the reference's log-probabilities and the frozen layers' output of every example, as
    reference.attach does for texts. images: one for each of plan.examples. The reference is the policy, adapter off.
    """
    depth = frozen_depth(policy)
    if depth == 0 or choose_path(policy, longest(plan.examples)) is not branch_logps:
        raise ValueError(
            "this model cannot be trained on pictures here: its lowest language layer must be frozen and its attention "
            "must follow a layout of prompts with branches"
        )
    examples = tell_apart(plan.examples)
    answers = np.empty((len(examples), len(examples[0].completions)), dtype=np.float32)
    trunk: list = [None] * len(examples)
    with torch.no_grad(), without_adapter(policy):
        for rows in progress.track(token_batches(examples, TOKENS), "reference, with pictures"):
            chosen = [examples[i] for i in rows]
            batch, states = _embedded(policy, chosen, [images[i] for i in rows], plan.pad_id)
            lower = run_trunk(policy, batch | {"trunk": states}, depth, precision)
            answers[rows] = branch_logps(policy, batch | {"trunk": lower, "depth": depth}, precision).cpu().numpy()
            for i, kept in zip(rows, part(lower.cpu(), tell_apart(chosen)), strict=True):
                trunk[i] = kept
    return plan._replace(examples=examples, depth=depth, ref_logps=answers, trunk=trunk)


def fine_tune(
    model, examples: Sequence[Example], images: Sequence[Mapping], *, epochs: int, learning_rate: float,
    batch_size: int, seed: int, pad_id: int, label: str,
) -> pd.DataFrame:
    """Fine-tune the projector and the language layers on one answer a prompt (LLaVA's second stage); a row a step.

    The tower, the embedding and the head stay. The loss is the mean over tokens of -log p.
    """
    decoder = model.get_decoder()
    model.requires_grad_(False)
    for trained in (decoder.layers, decoder.norm, model.model.multi_modal_projector):
        trained.requires_grad_(True)
    trained = [p for p in model.parameters() if p.requires_grad]
    plan = make_plan(examples, batch_size=batch_size, epochs=epochs, seed=seed, pad_id=pad_id)

    def loss(batch):
        chosen = [examples[i] for i in batch]
        scores = logps(model, chosen, [images[i] for i in batch], pad_id=pad_id)
        return -scores.sum() / sum(len(c) for e in chosen for c in e.completions), {}

    history = descend(trained, plan.batches, loss, learning_rate=learning_rate, label=label)
    model.requires_grad_(False)
    return history


# --- answers --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def answer(policy, processor, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int = 64) -> list[str]:
    """The likeliest next token at each step, to the end of the answer; equal prompts are run once."""
    model, tokenizer = unwrap(policy), processor.tokenizer
    device = next(model.parameters()).device
    keys = [(prompt.ids, id(prompt.image.get("pixel_values"))) for prompt in prompts]
    unique = dict(zip(keys, prompts, strict=True))
    order = sorted(unique, key=lambda key: (bool(unique[key].image), len(key[0])))
    answers: dict[tuple, str] = {}
    for start in progress.track(range(0, len(order), batch_size), "answers"):
        for kind in (False, True):  # with and without a picture apart
            block = [key for key in order[start : start + batch_size] if bool(unique[key].image) == kind]
            if not block:
                continue
            ids, mask = pad_left([tokens for tokens, _ in block], tokenizer.pad_token_id)
            images = [unique[key].image for key in block]
            shown = {k: torch.cat([image[k] for image in images]).to(device) for k in images[0]}
            with small_products():
                out = model.generate(
                    input_ids=ids.to(device), attention_mask=mask.to(device), **shown, do_sample=False, use_cache=True,
                    max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                )  # fmt: skip
            answers |= zip(block, tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True), strict=True)
    return [answers[key].strip() for key in keys]
