"""Your own votes: people on statements, and Chatbot Arena's with reasons that a server of the chat protocol names."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from prefcore.data import datasets
from prefcore.data.rows import DataError
from prefcore.data.types import freeze
from prefcore.methods.canonical_basis import own, own_arena, task

PHRASES = {  # what a text has more of -> names of it, of which only some share a word
    "short": ("short text", "short reply", "few words", "few lines"),
    "loud": ("loud tone", "loud voice", "much noise", "big noise"),
}
PARAMETERS = {
    "seed": 0, "basis": 2, "goal": 0.89, "cuts": [0.1, 0.6, 0.9], "merge": 0.95, "merged_sizes": [2, 3],
    "silhouette_sample": 50, "word_dims": 4, "signature_dims": 12, "elo_ridge": 0.01, "elo_base": 1000.0,
    "extractor": "", "extraction_tokens": 32, "extraction_sample": 20, "styles": ["quality"], "least_votes": 2,
    "folds": 2, "hidden_share": 0.3, "priors": [0.0], "noises": [0.5], "random_bases": 2, "basis_sizes": [1],
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def statements(here):
    """Two conversations of forty people who agree with the first three statements or with the other three."""
    rng = np.random.default_rng(0)
    for name in ("tea", "dog"):
        sides = np.repeat([1, -1], 20)[:, None] * [1, 1, 1, -1, -1, -1] * rng.choice([1, -1], (40, 6), p=[0.9, 0.1])
        lines = [f"p{n},0," + ",".join(map(str, row)) for n, row in enumerate(sides)]
        text = "participant,group-id,0,1,2,3,4,5\n" + "\n".join(lines) + "\n"
        (here / f"{name}.participants-votes.csv").write_text(text)
    return str(here)


def test_votes_on_statements_become_curves_a_figure_and_claims(statements, capsys):
    path = own.run(statements, freeze(PARAMETERS))
    found = json.loads(path.read_text())
    assert path == Path("metrics/own/canonical_basis.json") and len(found["claims"]) == 6
    assert {"dog, greedy, 2", "tea, everything, 6"} <= set(found["coverage"])
    assert Path("runs/own/canonical_basis/coverage.png").exists()
    assert "dog  (40, 6)  0% missing" in capsys.readouterr().out


def test_votes_of_which_nothing_is_left_are_refused(statements):
    with pytest.raises(DataError, match="lower least_votes"):
        own.run(statements, freeze(PARAMETERS | {"least_votes": 99}))


def test_a_file_without_rows_is_refused(here):
    (here / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no row"):
        own.read("empty.jsonl")


def shorter(first, second):
    return len(first) < len(second)


def answer_of(body):
    """A reader that sees length and exclamation marks: it names why the winner won, or which text has more of it."""
    first, second = (re.search(f"Text {side}: (.*)", body)[1] for side in "AB")
    if asked := re.search(r"more of this: (.*)\? Answer", body):
        short = any(asked[1].split()[0] == name.split()[0] for name in PHRASES["short"])
        return "A" if (shorter(first, second) if short else first.count("!") > second.count("!")) else "B"
    won, lost = (first, second) if "preferred text A" in body else (second, first)
    true = [
        kind for kind, holds in (("short", shorter(won, lost)), ("loud", won.count("!") > lost.count("!"))) if holds
    ]
    kind = true[len(won) % len(true)] if true else "short"
    return json.dumps({"topic": "Talk", "phrases": [PHRASES[kind][len(won) % 4]]})


@pytest.fixture
def server(chat_server):
    """The address of a server of the chat protocol behind which `answer_of` sits, and the bodies that it saw."""
    return chat_server(answer_of)


def embed(texts):
    """Every word is a random direction of its own."""

    def direction(word):
        return np.random.default_rng(list(word.encode())).normal(size=24)

    out = np.stack([sum(map(direction, text.split()), np.zeros(24)) for text in texts])
    return out / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.fixture
def votes(here, monkeypatch):
    """160 votes by people who want a short answer or a loud one."""
    monkeypatch.setattr(task, "open_encoder", lambda p: embed)
    rng, rows = np.random.default_rng(1), []
    for n in range(160):
        lengths, marks = rng.permutation(np.arange(3, 30))[:2], rng.permutation(6)[:2]
        texts = [" ".join(rng.choice(["tea", "milk", "dog", "cat", "sun"], size)) + f" {n}{k}" + "!" * loud
                 for k, (size, loud) in enumerate(zip(lengths, marks, strict=True))]  # fmt: skip
        first = lengths[0] < lengths[1] if rng.random() < 0.5 else marks[0] > marks[1]
        sides = {f"conversation_{side}": [{"role": "user", "content": f"Why {n}?"},
                                          {"role": "assistant", "content": text}]
                 for side, text in zip("ab", texts, strict=True)}  # fmt: skip
        models = {"model_a": f"m{n % 3}", "model_b": f"m{(n + 1) % 3}"}
        rows.append(sides | models | {"winner": "model_a" if first else "model_b"})
    rows.append(rows[0] | {"winner": "tie"})
    Path("votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "votes.jsonl"


def test_votes_without_anybody_who_names_reasons_are_refused_before_anything_is_loaded(votes):
    with pytest.raises(DataError, match="--set extractor"):
        own.run(votes, freeze(PARAMETERS))


def test_reasons_of_a_server_become_categories_that_explain_held_out_votes(votes, server, capsys):
    address, seen = server
    found = json.loads(own.run(votes, freeze(PARAMETERS | {"extractor": address})).read_text())
    assert found["votes"] == 160 and found["left_out"] == {"ties": 1} and found["topics"][0]["topic"] == "talk"
    assert found["explained"]["chosen"]["low"] > 0.1 and found["agreement"]["answered"] == 1.0
    assert found["blind_check"]["extracted"]["estimate"] > 0.9 > found["blind_check"]["other category"]["estimate"]
    assert {row["model"] for row in found["ratings"]} == {"m0", "m1", "m2"}
    assert all("Question: Why" in body for body in seen)
    pairs = sorted(Path("runs/own/canonical_basis/pairs").iterdir())
    assert len(pairs) == len(found["basis"]) and all(datasets.read(str(path)) for path in pairs)
    assert "160 votes; left out: {'ties': 1}" in capsys.readouterr().out


def test_the_judge_of_the_blind_check_is_not_told_who_won(votes, server):
    address, seen = server
    own.run(votes, freeze(PARAMETERS | {"extractor": address}))
    blind = [body for body in seen if "shows more of this" in body]
    assert blind and not any("preferred" in body for body in blind)


def test_a_model_that_keeps_to_no_form_is_named(votes):
    found = own.read(votes)
    with pytest.raises(DataError, match="named 0 different phrases"):
        own_arena.extract(found.votes, lambda asked: ["So good!"] * len(asked), freeze(PARAMETERS))
