"""The settings for the hub run: weights of the same architectures at toy size, rows in the data sets' own columns.

`python -m pytest -m hub` runs every method to its end (about ten seconds each); `make test` checks the names alone.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image

from prefcore import smoke
from prefcore.__main__ import main
from prefcore.lab import parameters
from prefcore.methods.chase_sql import evidence

ROOT = Path(__file__).resolve().parents[1]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
HUB = PARAMS["hub"]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
GROUPED = SIZES | {"num_key_value_heads": 2}
FAMILIES = {  # of the models that the settings name, by the owner's words
    "Qwen2.5": ("Qwen2Config", GROUPED | {"max_window_layers": 3}),
    "mistral": ("MistralConfig", GROUPED | {"sliding_window": 4096}),
    "Llama-2": ("LlamaConfig", SIZES),
    "Llama-3": ("LlamaConfig", GROUPED),
    "codegemma": ("GemmaConfig", SIZES | {"num_key_value_heads": 1, "head_dim": 16}),
    "mpnet": ("MPNetConfig", SIZES),
    "roberta": ("RobertaConfig", SIZES),
}  # fmt: skip
TOY = {  # in place of the settings' sizes, where a method has them
    "lora_layers": 2, "lora_rank": 2, "batch_size": 4, "epochs": 1, "max_prompt": 48, "max_completion": 16,
    "max_new_tokens": 4, "sizes": "{few: 4, many: 8}", "prompts": 6, "likelihood_texts": 4, "validation_prompts": 4,
    "test_prompts": 4, "layers": 2, "max_tokens": 32, "max_text": 16, "pairs": 8, "confirm_nats": 0.001,
}  # fmt: skip
CUTS = "[0.15, 0.2, 0.25, 0.3]"  # of what a random encoder makes of eight phrases


def family_of(name: str) -> str:
    return next(family for family in FAMILIES if family.lower() in name.lower())


def write_model(name: str) -> str:
    """A folder with random weights of the architecture that a hub model has, and the toy world's tokenizer."""
    kind, sizes = FAMILIES[family_of(name)]
    tokenizer, folder = smoke.make_tokenizer(), f"build/{family_of(name)}"
    ids = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("pad", "bos", "eos")}
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**sizes, **ids, vocab_size=len(tokenizer))
    loader = transformers.AutoModel if kind in ("RobertaConfig", "MPNetConfig") else transformers.AutoModelForCausalLM
    loader.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- a few rows in each data set's own columns ----------------------------------------------------------------------


def said(i: int) -> tuple[str, str, str]:
    return f"Say {i}, please.", f"It was a good and happy thing {i}", f"It was a poor and sad thing {i}"


def ultrafeedback(i: int) -> dict:
    asked, good, bad = said(i)
    talk = {name: [{"role": "user", "content": asked}, {"role": "assistant", "content": text}]
            for name, text in (("chosen", good), ("rejected", bad))}  # fmt: skip
    return {"prompt": asked, "prompt_id": f"{i}", **talk, "messages": talk["chosen"], "score_chosen": 8.0,
            "score_rejected": 4.0}  # fmt: skip


def helpsteer(i: int) -> dict:
    asked, *texts = said(i // 2)
    marks = dict.fromkeys(("correctness", "coherence", "complexity", "verbosity"), 2)
    return {"prompt": asked, "response": texts[i % 2], "helpfulness": 4 - 2 * (i % 2), **marks}


def helpsteer_pairs(i: int) -> dict:
    asked, good, bad = said(i)
    return {"split": "train", "prompt": asked, "response_1": bad, "response_2": good, "preference_strength": 1 + i % 3,
            "preference_statement": "", "preference_elaboration": ""}  # fmt: skip


def hh(i: int) -> dict:
    asked, *texts = said(i)
    return {name: f"\n\nHuman: {asked}\n\nAssistant: {text}"
            for name, text in zip(("chosen", "rejected"), texts, strict=True)}  # fmt: skip


def voted(i: int) -> dict:
    asked, good, bad = said(i)
    return {"prompt": asked, "a": good, "b": bad, "votes": [1, 1, i % 2, 0]}


def named(i: int) -> dict:
    asked, good, bad = said(i)
    votes = [{"voter": "ann", "vote": 1}, {"voter": "bob", "vote": i % 2}, {"voter": f"p{i}", "vote": 0}]
    return {"prompt": asked, "a": good, "b": bad, "votes": votes}


def arena(i: int) -> dict:
    asked, *texts = said(i)
    talks = {f"conversation_{side}": [{"role": "user", "content": asked}, {"role": "assistant", "content": text}]
             for side, text in zip("ab", texts, strict=True)}  # fmt: skip
    return talks | {"model_a": f"m{i % 2}", "model_b": "m2", "winner": f"model_{'ab'[i % 2]}"}


def seen(i: int) -> dict:
    Image.new("RGB", (64, 64), (10 * i, 0, 99)).save(f"{i}.png")
    return {"image": f"{i}.png", "question": "what color?", "chosen": f"It is {i}.", "rejected": "It is not."}


ROWS = {
    "dpo": ultrafeedback, "odpo": helpsteer_pairs, "kto": ultrafeedback, "bco": helpsteer, "ulma": hh, "osp": hh,
    "margin_rm": voted, "micro": named, "autoraters": voted, "canonical_basis": arena, "napo": seen,
}  # fmt: skip


# --- the settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", HUB)
def test_the_settings_name_parameters_of_the_chapter_with_values_of_their_kind(method):
    path = ROOT / "notebooks" / f"{method}.ipynb"
    block = parameters.settings_of(PARAMS, "hub", method)
    parameters.check(path, block)
    assert block.keys() <= parameters.choose(path, PARAMS).keys() and ("data" in block or method == "gennm")
    tested = {arm for claim in PARAMS["methods"][method].get("claims", []) for arm in claim["contrast"]}
    assert set(block.get("arms", [])) <= tested
    assert block.get("data", "") or method in ("margin_rm", "micro", "autoraters", "napo", "chase_sql", "gennm")


def test_only_settings_for_run_can_be_named_and_only_of_a_method_that_has_some():
    for profile, method in (("study", "dpo"), ("common", "dpo"), ("nothing", "dpo"), ("hub", "overview")):
        with pytest.raises(ValueError, match=f"--profile {profile}"):
            parameters.settings_of(PARAMS, profile, method)
    assert parameters.settings_of(PARAMS, "", "dpo") == {}


@pytest.fixture
def dry(toy_world):
    """Makes the toy world's params.yaml hold the hub's settings of a method; returns what a dry run sets besides."""

    def dry(method: str) -> dict:
        named = {name: value for name, value in PARAMS["quick"][method].items()
                 if isinstance(value, list) and all(isinstance(one, str) for one in value)}  # fmt: skip
        toy_world["smoke"][method] |= named  # the arms of quick, below the settings, and not those of the study
        Path("params.yaml").write_text(yaml.safe_dump(toy_world | {"hub": HUB}, sort_keys=False))
        block, notebook = HUB[method], parameters.defaults(f"notebooks/{method}.ipynb")
        more = {name: value for name, value in TOY.items() if name in notebook}
        return more | {name: write_model(block[name]) for name in ("policy", "encoder") if name in block}

    return dry


def write_rows(rows) -> str:
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "own.jsonl"


def run(method: str, more: dict, *arguments: str) -> int:
    settings = (f"{key}={value}" for key, value in more.items())
    return main(["run", method, "--profile", "hub", *arguments, "--set", *settings])


@pytest.mark.hub
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", [method for method in HUB if method not in ("canonical_basis", "gennm")])
def test_every_chapter_runs_to_its_end_with_the_settings(method, dry, capsys):
    more, block = dry(method), HUB[method]
    if method == "chase_sql":
        shutil.copy(evidence.CANDIDATES, "candidates.jsonl.gz")
        data = ["--data", "candidates.jsonl.gz", "--databases", "build/smoke/sql_world/database"]
    else:
        data = ["--data", write_rows(ROWS[method](i) for i in np.random.default_rng(0).permutation(40).tolist())]
    if method == "napo":
        more |= {"vision_policy": "build/smoke/biased/0", "lora_layers": 1}
    if method == "micro":
        more |= {"reader_layers": 2, "readers": "{policy: 8}"}
    assert run(method, more, "--name", "dry", *data) == 0, capsys.readouterr().err
    folder, values = Path(f"runs/own/dry/{method}"), json.loads(Path(f"runs/own/dry/{method}/run.json").read_text())
    assert (folder / "notebook.html").exists() and Path(f"metrics/own/dry/{method}.json").exists()
    kept = {name: value for name, value in block.items() if name not in TOY and name not in more and name != "data"}
    assert kept.items() <= values["values"].items()


@pytest.mark.hub
@pytest.mark.timeout(900)
def test_a_large_code_model_learns_from_own_programs_with_the_settings(dry, capsys):
    rows = [{"function": r.function, "code": r.code, "names": r.names, "binary": r.binary}
            for r in smoke.make_functions()]  # fmt: skip
    more = dry("gennm") | {"max_prompt": 200, "max_code": 190}
    assert run("gennm", more, "--name", "dry", "--train", write_rows(rows)) == 0, capsys.readouterr().err
    said = json.loads(Path("runs/own/dry/gennm/model/limits.json").read_text())
    assert "functions of binaries kept back: mean F1" in capsys.readouterr().out
    assert said["trained"]["learning_rate"] == HUB["gennm"]["learning_rates"]["context"]


@pytest.mark.hub
@pytest.mark.timeout(900)
def test_the_votes_of_chatbot_arena_become_a_basis_with_the_settings(dry, chat_server, capsys):
    def answer(asked: str) -> str:
        if "more of this" in asked:
            return "A"
        won = re.search(f"Text {'A' if 'preferred text A' in asked else 'B'}: (.*)", asked)[1]
        kind, more = "good" if "good" in won else "sad", ("words", "news", "mood", "style")[int(won.split()[-1]) % 4]
        return json.dumps({"topic": "talk", "phrases": [f"{kind} {more}"]})

    address = chat_server(answer)[0]
    data = write_rows(arena(i) for i in range(40))
    assert run("canonical_basis", dry("canonical_basis") | {"extractor": address, "cuts": CUTS}, "--data", data) == 0
    found = json.loads(Path("metrics/own/canonical_basis.json").read_text())
    assert found["votes"] == 40 and 2 <= len(found["basis"]) <= 8
    assert "40 votes" in capsys.readouterr().out
