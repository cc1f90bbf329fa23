"""A small LLaVA made here: a vision tower trained on pictures, a projector, and the first layers of a language model.

Two stages: the tower learns what pictures show; then projector and language layers learn to answer questions, on rows
that plant the two biases (world/pictures.py). Each starting model is made from scratch with a seed of its own.
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
    """data/pictures -> tower/<start>/ for each starting model, and metrics/<profile>/vision.json: how often each is
    right on held-out pictures.
    """
    models.choose_device(p.device, p.threads)
    facts = {split: archive.read_facts(archive.ARCHIVE, split) for split in ("train", "test")}
    facts["train"] = facts["train"][: p.tower_pictures]
    pixels, labels = {}, {}
    for split, found in facts.items():
        album = archive.load_pictures(fact.picture for fact in found)
        pixels[split] = as_pixels([album[fact.picture] for fact in found])
        shapes = [archive.SHAPES.index(fact.shape) for fact in found]
        labels[split] = [torch.tensor(shapes), torch.tensor([archive.COLOURS.index(fact.colour) for fact in found])]
    report: dict = {split: len(found) for split, found in facts.items()}
    how = {"epochs": p.tower_epochs, "learning_rate": p.tower_learning_rate, "batch_size": 64}
    shutil.rmtree(build / "tower", ignore_errors=True)
    for start in range(p.starting_models):
        tower = make_tower(p.seed + start)
        head, _ = fit_tower(tower, pixels["train"], labels["train"], **how, seed=p.seed + start)
        with torch.no_grad():
            logits = head(patches(tower, pixels["test"]).mean(1)).split([len(archive.SHAPES), len(archive.COLOURS)], 1)
        for name, scores, label in zip(("shape", "colour"), logits, labels["test"], strict=True):
            right = (scores.argmax(1) == label).double().numpy()
            report[f"{name}_{start}"] = metrics.bootstrap_interval(right, seed=p.seed)
        tower.save_pretrained(build / "tower" / str(start))
    files.write_metrics(report, p.profile, "vision")


def fit_biased(p: Parameters, build: Path) -> None:
    """tower/, data/pictures, the language model -> biased/<start>/: small LLaVAs that have learnt both biases too, and
    metrics/<profile>/biased.json: how biased each came out.

    Each has a tower, a projector and taught rows of its own, and is taught in rounds until it sees (`least_neutral`)
    and both biases lie in `bias_band`; from round to round the rate is halved, down to an eighth, and what is planted
    moves by half of what was missing: at the full rate a bias swings from 0.3 to 0.9 from one round to the next.
    """
    device = models.choose_device(p.device, p.threads)
    facts, report = archive.read_facts(archive.ARCHIVE, "train"), {}
    checked = pictures.test_rows(facts, p.checked_questions, p.seed)
    shutil.rmtree(build / "biased", ignore_errors=True)
    for start in range(p.starting_models):
        tokenizer, policy = models.load_policy(p.policy)
        tower = CLIPVisionModel.from_pretrained(build / "tower" / str(start), use_safetensors=True)
        processor, model = assemble(tower, policy, tokenizer, layers=p.language_layers, seed=p.seed + start)
        model, shares = model.to(device), {"language": p.language_bias, "vision": p.vision_bias}
        for turn in range(p.taught_rounds):
            rows = pictures.teach(facts, p.taught_rows, shares, (p.seed, start, turn), p.seed)
            how = {"learning_rate": p.taught_learning_rate / 2 ** min(turn, 3), "seed": p.seed + start}
            teach(model, processor, rows, max_completion=p.max_completion, **how, label=f"start {start}, {turn}")
            found = graded_biases(model, processor, checked, max_completion=p.max_completion)
            print(f"starting model {start}, round {turn}: planted {shares}, graded {found}")
            sees = found["neutral"] >= p.least_neutral
            if sees and all(p.bias_band[0] <= found[kind] <= p.bias_band[1] for kind in shares):
                break
            middle = sum(p.bias_band) / 2
            shares = {kind: min(0.95, max(0.05, share + (middle - found[kind]) / 2)) for kind, share in shares.items()}
        report[f"start_{start}"] = found | {"rounds": turn + 1}
        vision.save(model, processor, build / "biased" / str(start))
    files.write_metrics(report, p.profile, "biased")


def teach(model, processor, rows: Sequence[pictures.Row], *, max_completion: int, **how) -> None:
    """Fine-tune a small LLaVA in place on the chosen answers of these rows; how: as vision.fine_tune has it."""
    album = archive.load_pictures(row.picture for row in rows if row.picture)
    prompts = vision.make_prompts(processor, [(album.get(row.picture), row.question or None) for row in rows])
    examples = [
        vision.make_example(row.id, prompt, (row.chosen,), processor.tokenizer, max_completion=max_completion)
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    sizes = {"epochs": 1, "batch_size": 16, "pad_id": processor.tokenizer.pad_token_id}
    vision.fine_tune(model, examples, [prompt.image for prompt in prompts], **sizes, **how)


def graded_biases(model, processor, rows: Sequence[pictures.Row], *, max_completion: int) -> dict[str, float]:
    """language, vision: the share of the biased answer in the probability of it and the true one, in all wordings,
    where they differ; neutral: the probability of the true answer where nothing suggests another.
    """
    album, pad = archive.load_pictures(row.picture for row in rows), processor.tokenizer.pad_token_id
    prompts = vision.make_prompts(processor, [(album[row.picture], row.question) for row in rows])
    both = [(*pictures.sentences(pictures.truth(row)), *pictures.sentences(row.suggested)) for row in rows]
    examples = [
        vision.make_example(row.id, prompt, answers, processor.tokenizer, max_completion=max_completion)
        for row, prompt, answers in zip(rows, prompts, both, strict=True)
    ]
    logps = torch.from_numpy(vision.score_all(model, examples, [prompt.image for prompt in prompts], pad_id=pad))
    true, biased = (part.logsumexp(1) for part in logps.double().chunk(2, 1))
    kinds = {"language": ("planted-broken", "planted-reversed"), "vision": ("shape",)}
    places = {kind: [i for i, row in enumerate(rows) if row.split in splits] for kind, splits in kinds.items()}
    found = {kind: float(torch.sigmoid(biased - true)[where].mean()) for kind, where in places.items()}
    neutral = [i for i, row in enumerate(rows) if row.split == "neutral"]
    return found | {"neutral": float(true[neutral].exp().mean())}


def as_pixels(album: Sequence[np.ndarray]) -> Tensor:
    """Pictures [64, 64, 3] uint8 as the tower reads them: [n, 3, 64, 64] in [-1, 1]."""
    return torch.from_numpy(np.stack(album)).permute(0, 3, 1, 2).float() / HALF - 1


def make_tower(seed: int, **sizes) -> CLIPVisionModel:
    """CLIP's vision transformer at toy size with random weights; `sizes` replace those of TOWER."""
    torch.manual_seed(seed)
    return CLIPVisionModel(CLIPVisionConfig(image_size=SIZE, patch_size=PATCH, **TOWER | sizes)).eval()


def fit_tower(
    tower: CLIPVisionModel,
    pixels: Tensor,
    labels: Sequence[Tensor],
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
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
