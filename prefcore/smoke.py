"""A toy world in which every notebook runs in seconds: made-up texts, random weights, the real stages and notebooks.

Nothing that comes out of it is a result. It shows that what we ship runs, from texts to the overview's last cell.
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from itertools import product
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as token_models
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prefcore.data import files, ratings
from prefcore.data.types import freeze
from prefcore.lab import pipeline
from prefcore.methods.chase_sql import candidates, evidence, prompts
from prefcore.methods.chase_sql.world import databases
from prefcore.methods.gennm.world import programs
from prefcore.methods.napo import tower
from prefcore.methods.napo.world import archive, pictures
from prefcore.scoring import votes

ROOT = Path(__file__).resolve().parents[1]
COMMON = {
    "device": "cpu", "threads": 1, "max_prompt": 32, "max_completion": 24, "max_new_tokens": 6, "lora_rank": 2,
    "lora_layers": 1, "batch_size": 4, "epochs": 1, "learning_rate": 1.0e-2,
}  # fmt: skip
METHODS = {  # random scorers and judges say little, so no threshold may leave a method without data
    "dpo": {"confirm_nats": 0.001}, "odpo": {"confirm_nats": 0.001}, "kto": {"confirm_nats": 0.001},
    "bco": {"prompt_sample_size": 16, "classifier_prompts": 2, "confirm_nats": 0.001},
    "ulma": {"good_rating": 1.0, "confirm_nats": 0.001},
    "osp": {"tie": 0.0, "confirm_nats": 0.001},
    "margin_rm": {"layers": 1, "max_tokens": 32, "people": 4},
    "micro": {"heads": 3, "epochs": 1, "router_epochs": 2, "budget": 3, "hyre_pairs": 2, "gate": 0.0, "gate_pairs": 200,
              "reader_layers": 1},
    "autoraters": {"dense_votes": 2, "sft_epochs": 1, "samples": 4, "left_out": "Tweet", "batch_size": 8},
    "canonical_basis": {  # a random encoder finds all phrases alike
        "basis": 3, "planted_people": 24, "topics_per_domain": 1, "cuts": [1.0e-4, 1.0e-3, 1.0e-2, 0.1],
        "merge": 0.99999, "merged_sizes": [3, 6], "word_dims": 8, "signature_dims": 8, "folds": 2,
        "confirm_nats": 0.001,
    },
    "napo": {"batch_size": 4, "max_new_tokens": 6, "text_batch_size": 4, "text_layers": 1},
    "gennm": {"max_code": 400, "max_prompt": 200, "max_name": 12, "batch_size": 8, "samples": 3},
    "compare": {"confirm_nats": 0.001},
}  # fmt: skip
SHARED = {
    "reference_texts": 24, "reference_layers": 2, "reference_learning_rate": 1.0e-2, "proxy_texts": 32,
    "gold_texts": 24, "rater_layers": 2, "rater_learning_rate": 1.0e-3, "held_out_texts": 24, "judge_texts": 24,
    "judge_pairs": 8, "held_out_pairs": 12, "preference_prompts": 16, "samples_per_prompt": 4,
    "bank_after": 0, "bank_prompts": 6, "bank_validation_prompts": 4, "bank_fresh_prompts": 4,
    "voted_texts": {"train": 64, "validation": 24, "test": 24}, "similar_quantile": 0.8,
    "voted_pairs": {"train": 48, "validation": 12, "test": 12},
    "starting_models": 2, "tower_pictures": 48, "tower_epochs": 1, "language_layers": 2, "taught_rows": 24,
    "taught_rounds": 1, "checked_questions": 3, "least_neutral": 0.0, "preference_rows": 32, "tested_questions": 10,
    "sql_rows": 12, "sql_questions": 2, "sql_draws": 2,
}  # fmt: skip
SIZES = {
    "prompts": 12, "validation_prompts": 4, "test_prompts": 6, "seeds": 2, "demonstrations": 8,
    "rates": [1.0e-3, 1.0e-2], "sizes": {"few": 4, "middle": 6, "many": 8}, "betas": [0.05, 0.2],
    "confirm_seeds": 1, "confirm_prompts": 4, "confirm_bank": 4, "likelihood_texts": 6, "mixed_rows": 8,
    # reward models and judges
    "pairs": 32, "pool_pairs": 40, "validation_pairs": 12, "test_pairs": 24, "judged_pairs": 40, "asked_pairs": 2,
    "sft_pairs": 4, "linear_seeds": 2,
    "train_pairs": 16, "transcribe_pairs": 8, "twin_seeds": 2, "twin_rates": [1.0e-2, 0.1], "twin_steps": [2, 4],
    "pool_texts": [64, 24, 24], "asked_texts": [32, 16, 16], "drawn_pairs": 400, "budgets": [2, 3],
    "world_texts": 64, "planted_choices": 2000, "silhouette_sample": 60, "basis_sizes": [1, 2, 3],
    "train_functions": 8, "validation_functions": 3, "test_functions": 8, "asked_functions": 3, "sympo_rates": [1.0e-3],
    "draws": 3, "subset_pairs": 6, "samples": 6, "questions": 2,
    # pictures
    "validation_questions": 4, "test_questions": 6, "spoken_questions": 2, "text_pairs": 6, "text_seeds": 1,
    "ablations": ["code-35", "no-language-35"], "ablation_seeds": 1,
    "automatic_pairs": 0,  # a model of random weights is never right in other words
}  # fmt: skip
DOMAIN_TEXTS = {"train": 16, "validation": 6, "test": 6}  # in each of the four domains
OPENINGS = (
    "The long story", "My old phone", "This new plan", "A short song", "His last goal", "Our own town", "That big deal",
)  # fmt: skip
VERDICTS = (
    ("is a wonderful great joy for us", 3), ("was a good and happy thing", 2), ("came on the third of May", 0),
    ("was a poor and sad thing", -2), ("is an awful terrible pain for us", -3),
)  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def run(folder: Path | None = None, *, device: str = "cpu") -> dict[str, float]:
    """Every notebook in a workspace (a passing one if no folder is named); seconds of each, which are printed too.

    Two at a time, as most of a toy notebook is the start of a process; the overview after them.
    Raises RuntimeError for the first notebook that fails; the partial copy stays in `folder`.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as passing:
            return run(Path(passing), device=device)
    start = time.monotonic()
    *methods, overview = workspace(folder, device=device)["methods"]
    seconds = {"workspace": time.monotonic() - start}
    with ThreadPoolExecutor(2) as two:
        seconds |= zip(methods, two.map(lambda method: run_notebook(method, folder), methods), strict=True)
    seconds[overview] = run_notebook(overview, folder)
    for name, value in [*seconds.items(), ("all", time.monotonic() - start)]:
        print(f"smoke  {name:15}{value:6.1f} s")
    return seconds


def run_notebook(method: str, folder: Path) -> float:
    """One notebook of the workspace, as the command line runs it; how many seconds it took."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "prefcore", "notebook", method], cwd=folder)
    if done.returncode:
        raise RuntimeError(f"the notebook of {method} failed")
    return time.monotonic() - start


def workspace(folder: Path, *, device: str = "cpu") -> dict:
    """Fill `folder` with all that notebooks and command line read, and return what its params.yaml says.

    params.yaml, notebooks/, build/weights/ (random), build/smoke/ as the stages leave it, metrics/smoke/.
    """
    folder.mkdir(parents=True, exist_ok=True)
    params = shrink(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    params["common"]["device"] = device
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
    shared = freeze({"profile": "smoke"} | params["common"] | params["smoke"]["shared"])
    build = Path("build/smoke")
    with chdir(folder):
        make_weights(Path("build/weights"))
        make_pictures(archive.ARCHIVE)
        files.write_lines(make_texts(), build / "texts.jsonl")
        files.write_lines(made := make_functions(), build / "functions.jsonl")
        steps = dict.fromkeys(("found", "of_the_size", "decompiled", "with_truth", "with_names"), len(made))
        parts = {"train": ["brook"], "validation": ["oak"], "test": ["pine"]}
        files.write_metrics({"steps": steps, "parts": parts, **programs.by_project(made)}, "smoke", "programs")
        shutil.copytree("build/weights/policy", build / "coder")  # random weights, like those of the stage's model
        for stage in (pipeline.fit_reference, pipeline.fit_scorers, pipeline.fit_judge, pipeline.make_preferences,
                      pipeline.make_bank, votes.prepare, pictures.prepare, tower.fit, tower.fit_biased,
                      databases.build):  # fmt: skip
            stage(shared, build)
        write_candidates(build / "sql_world" / "questions.jsonl")
    return params


def shrink(params: Mapping) -> dict:
    """The quick profile at toy size as the profile "smoke", with all arms of the study, so that its cells run too."""
    sizes = {name: shrink_block(block or {}, params["study"][name] or {}) for name, block in params["quick"].items()}
    sizes["shared"] |= SHARED
    methods = {name: (block or {}) | METHODS.get(name, {}) for name, block in params["methods"].items()}
    return {"profile": "smoke", "common": params["common"] | COMMON, "methods": methods, "smoke": sizes}


def shrink_block(quick: Mapping, study: Mapping) -> dict:
    """Sizes at toy size; any other list as the study has it, as it names arms."""
    toy = {k: SIZES.get(k, study.get(k, v) if isinstance(v, list) else v) for k, v in quick.items()}
    return toy | ({"sizes": {name: SIZES["sizes"][name] for name in quick["sizes"]}} if "sizes" in quick else {})


def write_candidates(source: Path, seed: int = 0) -> None:
    """Queries for the questions of the world, each the right one or that of another question, by the toss of a coin."""
    rng, rows = np.random.default_rng(seed), databases.read_questions(source)
    systems, done = (*prompts.STRATEGIES, evidence.GREEDY, evidence.BLIND), []
    for row in rows:
        others = [other.gold for other in rows if other.db_id == row.db_id and other.id != row.id]
        drawn = [row.gold if rng.random() < 0.5 else str(rng.choice(others)) for _ in systems]
        made = tuple(map(candidates.Candidate, systems, drawn))
        done.append(candidates.Question(row.id, row.db_id, row.question, row.gold, made))
    candidates.write(Path(evidence.CANDIDATES), done, {"model": "none: the toss of a coin"})


def make_texts(seed: int = 0) -> list[ratings.Text]:
    """Made-up texts with made-up ratings: five kinds of sentences, from wonderful (+3) to terrible (-3)."""
    rng = np.random.default_rng(seed)
    places = [split for split, count in DOMAIN_TEXTS.items() for _ in range(count)]
    out = []
    for domain in ratings.COUNTS:
        sentences = rng.permutation(list(product(range(len(OPENINGS)), range(len(VERDICTS)))))
        for i, (split, (opening, verdict)) in enumerate(zip(places, sentences, strict=False)):
            said, mean = VERDICTS[verdict]
            text = f"{OPENINGS[opening]} {said}, this {domain.lower()}"
            votes = tuple(int(v) for v in np.clip(mean + rng.integers(-1, 2, size=8), -4, 4))
            prompt, completion = ratings.cut(text, 3)
            half = ("proxy", "gold")[i % 2] if split == "train" else ""
            out.append(ratings.Text(f"{domain}:{i}", domain, text, votes, float(np.mean(votes)), split, half,
                                    f"{domain}: {prompt}", completion))  # fmt: skip
    return out


def make_pictures(path: Path) -> None:
    """An archive in the layout of easy-VQA's: two blank pictures of every shape and colour, in both splits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = [*product(archive.SHAPES, archive.COLOURS)] * 2
    with zipfile.ZipFile(path, "w") as box:
        for split in ("train", "test"):
            asked = []
            for i, (shape, colour) in enumerate(kinds):
                raw = io.BytesIO()
                Image.new("RGB", (64, 64), colour).save(raw, "PNG")
                box.writestr(f"easy_vqa/data/{split}/images/{i}.png", raw.getvalue())
                asked.append((f"what is the {colour} shape?", shape, i))
            box.writestr(f"easy_vqa/data/{split}/questions.json", json.dumps(asked))


def make_functions() -> list[programs.Decompiled]:
    """Made-up decompiled functions in angr's style: three projects of three binaries; each function calls the next."""
    verbs, things = ("load", "count", "merge", "clear"), ("leaf", "stone", "cloud", "river", "field", "flame", "wheel",
                                                         "tower", "cable")  # fmt: skip
    out = []
    for b, thing in enumerate(things):
        names = [f"{verb}_{thing}" for verb in verbs]
        for i, name in enumerate(names):
            own, other = (f"sub_{0x401000 + 64 * (j % len(names)):x}" for j in (i, i + 1))
            more = f"    while (v{b} > 9)\n        v{b} -= a1;\n" if b >= 6 else ""  # else all of oak is like brook
            code = (
                f"int {own}(char *a0, int a1)\n{{\n    int v{b};  // [bp-0x{b + 8:x}]\n\n"
                f"    v{b} = {other}(a0, {b * i});\n    if (a1 > {i})\n        v{b} = a1;\n{more}    return v{b};\n}}\n"
            )
            truth = {"a0": thing, "a1": "limit", f"v{b}": ("total", "size", "rest")[(b + i) % 3]}
            project, called = ("brook", "pine", "oak")[b // 3], {own: name, other: names[(i + 1) % len(names)]}
            out.append(programs.Decompiled(project, f"{thing}.so", name, 64 * i, 60, code, truth, called,
                                           (0x400000, 0x402000)))  # fmt: skip
    return out


def make_weights(folder: Path) -> None:
    """policy/ and encoder/ as plain transformers folders: a Llama and a BERT of random weights, and one tokenizer."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 256}
    llama = LlamaConfig(**sizes, **ids, num_key_value_heads=2, tie_word_embeddings=True)
    for name, model in {"policy": LlamaForCausalLM(llama), "encoder": BertModel(BertConfig(**sizes, **ids))}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of the made-up texts; digits, " A" and " B" are one token each, and pad is EOS, as in SmolLM2."""
    sentences = [" ".join(words) for words in product(ratings.COUNTS, OPENINGS, [said for said, _ in VERDICTS])]
    core = Tokenizer(token_models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator([*sentences, *(["Text A, Text B"] * len(sentences))], trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))  # fmt: skip
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=TEMPLATE, **special)
