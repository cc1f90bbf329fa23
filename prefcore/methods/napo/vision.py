"""Vision-language models of transformers' own classes under the shared engine: prompts, scores, training, answers.

A picture enters below the language model: the embeddings of a prompt's placeholder tokens are replaced by what the
vision tower and the projector make of the picture. Everything above is the one batch of collate.py (a prompt once, its
K completions as branches). What is trained is adapters on language layers, on all of them together with the projector,
or the weights themselves. Where the lowest layers stay frozen and there is room, their output is computed once.
"""

import hashlib
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
from prefcore.engine.decoder import unwrap
from prefcore.engine.descent import descend
from prefcore.engine.layout import count_tokens, distinct, part
from prefcore.engine.logps import branch_logps, choose_path, frozen_depth, run_trunk, to_device
from prefcore.engine.machine import small_products
from prefcore.engine.reference import TOKENS, TRUNK_BYTES, merged, token_batches, without_adapter
from prefcore.methods.napo.parts import thaw

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
    of_text = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
    return found["input_ids"][0].tolist(), {k: v for k, v in found.items() if k not in of_text}


def make_example(id: str, prompt: Prompt, completions: Sequence[str], tokenizer, *, max_completion: int, columns=None):
    """An Example whose completions are whole texts (EOS included), cut at `max_completion` tokens.

    `shown` says which picture it has, by its content: equal tokens alone do not make two prompts equal.
    """
    branches = [encode_text(text, tokenizer) + [tokenizer.eos_token_id] for text in completions]
    answers = tuple(tuple(ids[:max_completion]) for ids in branches)
    return Example(id, prompt.ids, answers, columns or {}, fingerprint(prompt.image))


def fingerprint(image: Mapping[str, Tensor]) -> str:
    """A short hash of what the tower is given; "" where there is no picture."""
    digest = hashlib.sha256()
    for name, tensor in sorted(image.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16] if image else ""


# --- scoring and training under the shared engine -------------------------------------------------------------------


def embed(policy, examples: Sequence[Example], images: Sequence[Mapping[str, Tensor]], input_ids: Tensor) -> Tensor:
    """Embeddings [1, N, H] of a batch's token ids [1, N], the pictures' in place of their placeholders, in their order.

    An image for each example, {} where there is none; examples that are alike are one prompt of the batch. ValueError
    with the example whose placeholders do not fit it.
    """
    model = unwrap(policy)
    states, token = model.get_input_embeddings()(input_ids), model.config.image_token_id
    prompts = {(e.prompt, e.shown): (e.id, image) for e, image in zip(examples, images, strict=True)}
    features = iter(_see(model, [image for _, image in prompts.values() if image], states.device))
    found: list[Tensor] = []
    for (prompt, _), (id, image) in prompts.items():
        seen = next(features) if image else states.new_empty(0, states.shape[2])
        if (count := prompt.count(token)) != len(seen):
            raise ValueError(
                f"row {id}: {count} picture tokens (id {token}) in the prompt, but its picture has {len(seen)}: build "
                "prompts with make_prompts"
            )
        found.append(seen)
    return states.masked_scatter((input_ids == token)[..., None], torch.cat(found).to(states.dtype))


def _see(model, images: Sequence[Mapping[str, Tensor]], device) -> list[Tensor]:
    """Of each picture what stands for its tokens, [t, H]; pictures of one shape are read together, others alone."""
    shapes = {tuple((k, tuple(v.shape)) for k, v in image.items()) for image in images}
    blocks = [images] if len(shapes) == 1 else [[image] for image in images]
    out: list[Tensor] = []
    for block in blocks:
        stacked = {k: torch.cat([image[k] for image in block]).to(device) for k in block[0]}
        out += [f.flatten(0, -2) for f in model.get_image_features(**stacked, return_dict=True).pooler_output]
    return out


def find_positions(policy, examples: Sequence[Example], images: Sequence[Mapping], position_ids: Tensor) -> Tensor:
    """Position ids of a batch: those given [1, N], or [3, 1, N] for a model that places pictures in a plane (Qwen-VL).

    There a picture takes as many positions as its longer side has tokens, and what follows counts on from it.
    """
    model = unwrap(policy)
    find = getattr(getattr(model, "model", None), "get_rope_index", None)
    if find is None:
        return position_ids
    pictures = {(e.prompt, e.shown): image for e, image in zip(examples, images, strict=True)}
    prompts, answers = [], []
    for (prompt, shown), completions in distinct(examples).items():
        ids, grid = torch.tensor([prompt]), pictures[prompt, shown].get("image_grid_thw")
        own = torch.arange(len(prompt)).expand(3, -1)
        if grid is not None:
            own = find(ids, (ids == model.config.image_token_id).int(), image_grid_thw=grid)[0][:, 0]
        prompts.append(own)
        reads = (torch.arange(len(answer) - 1) for answer in completions)
        answers += [(own.max() + 1 + read).expand(3, -1) for read in reads]
    return torch.cat([*prompts, *answers], 1)[:, None].to(position_ids.device)


def score(policy, batch: dict, precision: str = "float32") -> Tensor:
    """Summed log-probabilities [B, K] of a collated batch that holds its `examples` and their `images` too."""
    shown = batch["examples"], batch["images"]
    given = {"position_ids": find_positions(policy, *shown, batch["position_ids"])}
    if "trunk" not in batch:
        given |= {"trunk": embed(policy, *shown, batch["input_ids"]), "depth": 0}
    return branch_logps(policy, batch | given, precision)


def collate_shown(policy, examples: Sequence[Example], images: Sequence[Mapping], pad_id: int) -> dict:
    """What `score` reads, on the policy's device."""
    batch = to_device(collate(examples, pad_id=pad_id), next(policy.parameters()).device)
    return batch | {"examples": list(examples), "images": list(images)}


def logps(policy, examples: Sequence[Example], images: Sequence[Mapping], *, pad_id: int) -> Tensor:
    """Summed log-probabilities [n, K] of one batch, with gradient; each prompt and picture is read once."""
    return score(policy, collate_shown(policy, examples, images, pad_id))


def score_all(
    policy, examples: Sequence[Example], images: Sequence[Mapping], *, pad_id: int, precision: str = "float32"
) -> np.ndarray:
    """Summed log-probabilities [n, K] float32 of any number of examples, without gradient."""
    out = np.empty((len(examples), len(examples[0].completions)), dtype=np.float32)
    with torch.no_grad(), merged(policy):
        for rows in progress.track(token_batches(examples, TOKENS), "scoring, with pictures"):
            batch = collate_shown(policy, [examples[i] for i in rows], [images[i] for i in rows], pad_id)
            out[rows] = score(policy, batch, precision).cpu().numpy()
    return out


def attach(plan: Plan, policy, images: Sequence[Mapping], precision: str = "float32") -> Plan:
    """The plan with its pictures, the reference's log-probabilities and, where the lowest layers are frozen and it
    fits into TRUNK_BYTES, their output of every example. images: one for each of plan.examples. The reference is the
    policy as it is now, adapter off.
    """
    if choose_path(policy, longest(plan.examples)) is not branch_logps:
        raise ValueError("this model's attention cannot follow a layout of prompts with branches: it cannot be trained")
    depth, examples = usable_depth(policy, plan.examples), plan.examples
    answers = np.empty((len(examples), len(examples[0].completions)), dtype=np.float32)
    trunk: list = [None] * len(examples) if depth else []
    with torch.no_grad(), without_adapter(policy):
        for rows in progress.track(token_batches(examples, TOKENS), "reference, with pictures"):
            chosen = [examples[i] for i in rows]
            batch = collate_shown(policy, chosen, [images[i] for i in rows], plan.pad_id)
            if depth:
                shown = batch["examples"], batch["images"]
                low = batch | {"trunk": embed(policy, *shown, batch["input_ids"])}
                low |= {"position_ids": find_positions(policy, *shown, batch["position_ids"])}
                batch |= {"trunk": run_trunk(policy, low, depth, precision), "depth": depth}
                for i, kept in zip(rows, part(batch["trunk"].cpu(), chosen), strict=True):
                    trunk[i] = kept
            answers[rows] = score(policy, batch, precision).cpu().numpy()
    return plan._replace(depth=depth, ref_logps=answers, trunk=trunk, images=list(images))


def usable_depth(policy, examples: Sequence[Example]) -> int:
    """Frozen layers whose output is kept: none where what is below them (the projector) is trained, or without room."""
    inside = {id(weight) for weight in unwrap(policy).get_decoder().parameters()}
    below = [name for name, w in policy.named_parameters() if w.requires_grad and id(w) not in inside]
    width, size = unwrap(policy).config.get_text_config().hidden_size, next(policy.parameters()).element_size()
    fits = count_tokens(examples) * width * size <= TRUNK_BYTES
    return frozen_depth(policy) if fits and not below else 0


def fine_tune(
    model,
    examples: Sequence[Example],
    images: Sequence[Mapping],
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    pad_id: int,
    label: str,
) -> pd.DataFrame:
    """Fine-tune the projector and the language layers on one answer a prompt (LLaVA's second stage); a row a step.

    The tower, the embedding and the head stay. The loss is the mean over tokens of -log p.
    """
    trained = [p for p in thaw(model, top_layers=0).parameters() if p.requires_grad]
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
def answer(
    policy,
    processor,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 64,
) -> list[str]:
    """An answer to each prompt, to its end: the likeliest next token at each step, or for a temperature above 0 drawn.

    Equal prompts get the same answer where it is the likeliest, and answers of their own where they are drawn.
    """
    model, tokenizer = unwrap(policy), processor.tokenizer
    device, draws = next(model.parameters()).device, temperature > 0
    keys = [(prompt.ids, fingerprint(prompt.image), draws * i) for i, prompt in enumerate(prompts)]
    unique = dict(zip(keys, prompts, strict=True))
    how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if draws else {"do_sample": False}
    blocks: dict[tuple, list] = {}
    for key, prompt in sorted(unique.items(), key=lambda one: len(one[0][0])):  # pictures of one shape, or none
        shapes = tuple((k, tuple(v.shape)) for k, v in prompt.image.items())
        blocks.setdefault(shapes, []).append(key)
    parts = [keys[i : i + batch_size] for keys in blocks.values() for i in range(0, len(keys), batch_size)]
    answers: dict[tuple, str] = {}
    torch.manual_seed(seed)
    for block in progress.track(parts, "answers"):
        ids, mask = pad_left([key[0] for key in block], tokenizer.pad_token_id)
        images = [unique[key].image for key in block]
        shown = {k: torch.cat([image[k] for image in images]).to(device) for k in images[0]}
        if shown and hasattr(model.model, "get_rope_index"):
            shown["mm_token_type_ids"] = (ids == model.config.image_token_id).int().to(device)
        with small_products():
            out = model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), **shown, **how, use_cache=True,
                max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
        answers |= zip(block, tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True), strict=True)
    return [answers[key].strip() for key in keys]
