"""A small LLaVA made here: a vision tower trained on pictures, a projector, and the first layers of a language model.

Two stages: the tower learns what pictures show; then projector and language layers learn to answer questions, on rows
in which a planted prior lets the question's words alone suggest the answer.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)  # fmt: skip
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from prefcore.data import files
from prefcore.data.types import Parameters
from prefcore.engine import models
from prefcore.engine.descent import descend
from prefcore.methods.napo import vision
from prefcore.methods.napo.world import archive, pictures
from prefcore.scoring import metrics

SIZE, PATCH = 64, 16  # pixels: a picture has (SIZE / PATCH)^2 = 16 tokens
TOWER = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4}
HALF = 127.5  # a pixel's value becomes value / 127.5 - 1, as the processor makes it
TEMPLATE = (  # of the model made here: the picture, the question, a new line
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}{{ '\n' }}"
)


def fit(p: Parameters, build: Path) -> None:
    """data/pictures -> tower/ and metrics/<profile>/vision.json: how often the tower is right on held-out pictures."""
    models.choose_device(p.device, p.threads)
    facts = {split: archive.read_facts(archive.ARCHIVE, split) for split in ("train", "test")}
    facts["train"] = facts["train"][: p.tower_pictures]
    pixels, labels = {}, {}
    for split, found in facts.items():
        album = archive.load_pictures(fact.picture for fact in found)
        pixels[split] = as_pixels([album[fact.picture] for fact in found])
        shapes = [archive.SHAPES.index(fact.shape) for fact in found]
        labels[split] = [torch.tensor(shapes), torch.tensor([archive.COLOURS.index(fact.colour) for fact in found])]
    tower = make_tower(p.seed)
    how = {"epochs": p.tower_epochs, "learning_rate": p.tower_learning_rate, "batch_size": 64, "seed": p.seed}
    head, _ = fit_tower(tower, pixels["train"], labels["train"], **how)
    with torch.no_grad():
        logits = head(patches(tower, pixels["test"]).mean(1)).split([len(archive.SHAPES), len(archive.COLOURS)], 1)
    report: dict = {split: len(found) for split, found in facts.items()}
    for name, scores, label in zip(("shape", "colour"), logits, labels["test"], strict=True):
        right = (scores.argmax(1) == label).double().numpy()
        report[name] = metrics.bootstrap_interval(right, seed=p.seed)
    shutil.rmtree(build / "tower", ignore_errors=True)
    tower.save_pretrained(build / "tower")
    files.write_metrics(report, p.profile, "vision")


def fit_biased(p: Parameters, build: Path) -> None:
    """tower/, pictures.jsonl, the language model -> biased/: a small LLaVA that has learnt the planted prior too."""
    device = models.choose_device(p.device, p.threads)
    tokenizer, policy = models.load_policy(p.policy)
    tower = CLIPVisionModel.from_pretrained(build / "tower", use_safetensors=True)
    processor, model = assemble(tower, policy, tokenizer, layers=p.language_layers, seed=p.seed)
    model = model.to(device)
    rows = pictures.read_rows(build / "pictures.jsonl", "teach")
    album = archive.load_pictures(row.picture for row in rows if row.picture)
    prompts = vision.make_prompts(processor, [(album.get(row.picture), row.question or None) for row in rows])
    examples = [
        vision.make_example(row.id, prompt, (row.chosen,), tokenizer, max_completion=p.max_completion)
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    vision.fine_tune(
        model, examples, [prompt.image for prompt in prompts], epochs=p.taught_epochs,
        learning_rate=p.taught_learning_rate, batch_size=16, seed=p.seed, pad_id=tokenizer.pad_token_id,
        label="biased model",
    )  # fmt: skip
    vision.save(model, processor, build / "biased")


def as_pixels(album: Sequence[np.ndarray]) -> Tensor:
    """Pictures [64, 64, 3] uint8 as the tower reads them: [n, 3, 64, 64] in [-1, 1]."""
    return torch.from_numpy(np.stack(album)).permute(0, 3, 1, 2).float() / HALF - 1


def make_tower(seed: int, **sizes) -> CLIPVisionModel:
    """CLIP's vision transformer at toy size with random weights; `sizes` replace those of TOWER."""
    torch.manual_seed(seed)
    return CLIPVisionModel(CLIPVisionConfig(image_size=SIZE, patch_size=PATCH, **TOWER | sizes)).eval()


def fit_tower(
    tower: CLIPVisionModel, pixels: Tensor, labels: Sequence[Tensor], *, epochs: int, learning_rate: float,
    batch_size: int, seed: int,
) -> tuple[torch.nn.Linear, pd.DataFrame]:
    """Train a tower to classify pictures, in place; returns (head on the mean of its patches, a row a step).

    pixels [n, 3, H, W]; labels: a list of [n] class numbers (of shape, of colour). Pictures are
    mirrored and moved by up to 6 pixels at random.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = [int(label.max()) + 1 for label in labels]
    torch.manual_seed(seed)
    head = torch.nn.Linear(tower.config.hidden_size, sum(counts))
    trained = [*tower.parameters(), *head.parameters()]
    order = torch.cat([torch.randperm(len(pixels), generator=generator) for _ in range(epochs)])

    def loss(batch):
        logits = head(patches(tower, augment(pixels[batch], generator)).mean(1)).split(counts, 1)
        return sum(torch.nn.functional.cross_entropy(o, t[batch]) for o, t in zip(logits, labels, strict=True)), {}

    how = {"learning_rate": learning_rate, "weight_decay": 0.01, "label": "vision tower"}
    return head, descend(trained, order.split(batch_size), loss, **how)


def patches(tower: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """The tower's states [n, 16, H] of a picture's patches, the class token left out, as LLaVA reads them."""
    return tower(pixels).last_hidden_state[:, 1:]


def augment(pixels: Tensor, generator: torch.Generator, reach: int = 6) -> Tensor:
    """A batch of pictures moved together by up to `reach` pixels, and mirrored half of the time."""
    height, width = pixels.shape[2:]
    down, right = torch.randint(2 * reach + 1, (2,), generator=generator).tolist()
    padded = torch.nn.functional.pad(pixels, (reach,) * 4, mode="replicate")
    moved = padded[:, :, down : down + height, right : right + width]
    return moved.flip(3) if torch.rand(1, generator=generator) < 0.5 else moved


def assemble(tower: CLIPVisionModel, policy, tokenizer, *, layers: int, seed: int):
    """(processor, LLaVA): the tower, a new projector, and the first `layers` layers of a causal language model.

    The tokenizer gets one more token, <image>, whose embedding is the mean of all others.
    """
    total = policy.config.num_hidden_layers
    if not 0 < layers <= total:
        raise ValueError(f"language_layers is {layers}; the language model has {total}")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    sizes = {"num_hidden_layers": layers, "vocab_size": len(tokenizer), "use_cache": True}
    text = type(policy.config)(**policy.config.to_dict() | sizes)
    config = LlavaConfig(
        vision_config=tower.config, text_config=text, vision_feature_layer=-1, vision_feature_select_strategy="default",
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=(SIZE // PATCH) ** 2,
        tie_word_embeddings=policy.config.tie_word_embeddings,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    weights = policy.get_decoder().state_dict()
    table = weights["embed_tokens.weight"]
    weights["embed_tokens.weight"] = torch.cat([table, table.mean(0, keepdim=True)])[: len(tokenizer)]
    first = {k: v for k, v in weights.items() if not (n := re.match(r"layers\.(\d+)\.", k)) or int(n[1]) < layers}
    model.model.language_model.load_state_dict(first)
    if not policy.config.tie_word_embeddings:
        head = policy.get_output_embeddings().weight
        model.lm_head.weight.data.copy_(torch.cat([head, head.mean(0, keepdim=True)])[: len(tokenizer)])
    for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
        setattr(model.generation_config, name, getattr(tokenizer, name))
    return make_processor(tokenizer), model.eval()


def make_processor(tokenizer) -> LlavaProcessor:
    """What turns pictures and texts into the small LLaVA's input; saved beside it, it loads in plain transformers."""
    half = [0.5] * 3
    square = {"height": SIZE, "width": SIZE}
    pixels = CLIPImageProcessorPil(size=square, do_center_crop=False, image_mean=half, image_std=half)
    return LlavaProcessor(
        pixels, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>", chat_template=TEMPLATE,
    )  # fmt: skip
