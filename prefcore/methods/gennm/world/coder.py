"""A small language model that has read the C of the training projects, with a tokenizer of its own: one DVC stage.

In: build/<profile>/functions.jsonl and data/programs. Out: build/<profile>/coder, the model that GenNm's chapter starts
from. Test projects are never read: neither their sources nor their binaries.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as token_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate, models, train
from prefcore.lab import pipeline
from prefcore.methods.gennm.corpus import normalise, strip_comments
from prefcore.methods.gennm.world import programs

END = "<|end|>"


def fit(p: Parameters, build: Path) -> None:
    """The stage: a tokenizer of plain and decompiled C, then a model taught to go on with both."""
    how = p.coder
    taught = programs.projects_of(p.programs)["train"]
    plain = list(read_sources(taught, Path("data/programs"), how["letters"]))
    rows = map(json.loads, (build / "functions.jsonl").open(encoding="utf-8"))
    decompiled = [normalise(row).code for row in rows if row["project"] in taught]
    tokenizer = make_tokenizer([*plain, *decompiled], how["vocabulary"])
    device = models.choose_device(p.device, p.threads)
    policy = make_model(tokenizer, how, p.seed).to(device)
    examples = cut([*plain, *decompiled], tokenizer, how["chunk"])
    plan = collate.make_plan(
        examples, batch_size=how["batch"], epochs=how["passes"], seed=p.seed, pad_id=tokenizer.pad_token_id
    )
    kept = {"checkpoints": pipeline.checkpoints_of(build / "coder", p), "label": "coder", "precision": p.precision}
    train.fit(policy, plan, pipeline.token_loss, {}, learning_rate=how["learning_rate"], seed=p.seed, **kept)
    pipeline.save(policy, tokenizer, build / "coder", p)


def read_sources(names: Sequence[str], archives: Path, most: int) -> Iterator[str]:
    """C files of these projects without comments, at most so many letters, shared out evenly over the projects."""
    known = {project.name: project for project in programs.PROJECTS}
    for name in names:
        left = most // len(names)
        with tempfile.TemporaryDirectory() as scratch:
            programs.unpack(archives / f"{known[name].archive}.tar.gz", Path(scratch))
            for path in programs.sources_of(known[name], Path(scratch) / known[name].archive / known[name].folder):
                text = strip_comments(path.read_text(encoding="utf-8", errors="replace"))[:left]
                left -= len(text)
                if text.strip():
                    yield text


def make_tokenizer(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: words, numbers and signs apart, so that a name is spelled by its words. END begins and ends."""
    core = Tokenizer(token_models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    ))  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=END, eos_token=END, pad_token=END)


def make_model(tokenizer, how: Mapping, seed: int) -> LlamaForCausalLM:
    """A Llama of this size with random weights; one matrix is embedding and head."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=how["width"], intermediate_size=8 * how["width"] // 3,
        num_hidden_layers=how["layers"], num_attention_heads=how["heads"], num_key_value_heads=how["heads"],
        max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def cut(texts: Sequence[str], tokenizer, size: int) -> list[Example]:
    """The texts one after the other, END between them, in pieces of `size` tokens, each a completion of END."""
    end, stream = tokenizer.eos_token_id, []
    for text in texts:
        stream += [*collate.encode_text(text, tokenizer), end]
    pieces = [tuple(stream[i : i + size]) for i in range(0, len(stream), size)]
    return [Example(f"piece {i}", (end,), (piece,)) for i, piece in enumerate(pieces)]
