"""The small model of C: what it reads, how its tokenizer cuts names, and that it learns to go on."""

import io
import json
import tarfile

import pytest

from prefcore.data.types import freeze
from prefcore.engine import models, reference
from prefcore.methods.gennm.world import coder, programs

PROJECTS = tuple(programs.Project(name, f"{name}-1.0", "src", ("*.c",)) for name in ("ledger", "secret"))
CODE = "int f(int a0)\n{\n return a0;\n}"
HOW = {"vocabulary": 300, "width": 16, "layers": 1, "heads": 2, "letters": 4000, "chunk": 32, "batch": 4, "passes": 4,
       "learning_rate": 1.0e-2}  # fmt: skip


def archive(path, members):
    with tarfile.open(path, "w:gz") as box:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            box.addfile(info, io.BytesIO(content))


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Archives of a training and of a test project, and functions of both."""
    folder = tmp_path / "data" / "programs"
    folder.mkdir(parents=True)
    plain = b"/* a remark */\nint add_to(int total, int amount)\n{\n    return total + amount; // more\n}\n" * 8
    archive(folder / "ledger-1.0.tar.gz", {"ledger-1.0/src/a.c": plain, "ledger-1.0/src/b.c": plain})
    archive(folder / "secret-1.0.tar.gz", {"secret-1.0/src/c.c": b"int zebra;\n" * 9})
    rows = [{"project": name, "function": "f", "code": CODE} for name in ("ledger", "secret")]
    (tmp_path / "functions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(programs, "PROJECTS", PROJECTS)
    monkeypatch.chdir(tmp_path)
    return folder


def test_only_sources_that_are_named_are_read_without_comments_and_up_to_so_many_letters(shelf):
    texts = list(coder.read_sources(["ledger"], shelf, 10**6))
    assert len(texts) == 2 and all("total + amount" in text and "remark" not in text for text in texts)
    assert sum(map(len, coder.read_sources(["ledger"], shelf, 500))) == 500
    assert sum(map(len, coder.read_sources(["ledger", "secret"], shelf, 100))) == 100  # half of each


def test_a_tokenizer_spells_any_text_back_and_cuts_digits_apart():
    tokenizer = coder.make_tokenizer(["int total_amount = 4096;\n"] * 9, 300)
    for text in ("int total_amount = 17;\n\tx->y", "Ünï", ' "a b"'):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("4096")["input_ids"]) == 4
    assert tokenizer.eos_token == tokenizer.pad_token == coder.END


def test_pieces_hold_the_texts_in_order_with_an_end_between_them():
    tokenizer = coder.make_tokenizer(["int a; long b;"], 280)
    rows = coder.cut(["int a;", "long b;"], tokenizer, 4)
    stream = [token for row in rows for token in row.completions[0]]
    assert tokenizer.decode(stream) == f"int a;{coder.END}long b;{coder.END}"
    assert all(row.prompt == (tokenizer.eos_token_id,) and len(row.completions[0]) <= 4 for row in rows)


def test_the_stage_reads_nothing_of_a_test_project_and_saves_a_model_that_has_learnt(shelf, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(coder, "make_tokenizer", lambda texts, size, make=coder.make_tokenizer: (
        read.extend(texts) or make(texts, size)))  # fmt: skip
    p = {"coder": HOW, "programs": {"projects": ["ledger", "secret"], "validation": [], "test": ["secret"]},
         "device": "cpu", "threads": 1, "seed": 0, "profile": "x", "precision": "float32"}  # fmt: skip
    coder.fit(freeze(p), tmp_path)
    assert len(read) == 3 and not any("zebra" in text for text in read)  # two files, one decompiled function
    tokenizer, policy = models.load_policy(str(tmp_path / "coder"))
    assert policy.get_input_embeddings().weight.shape[0] == len(tokenizer) <= 300
    rows = coder.cut([CODE], tokenizer, 32)
    untaught = coder.make_model(tokenizer, HOW, 0)
    before, after = (reference.score_all(model, rows, pad_id=0).sum() for model in (untaught, policy))
    assert after > 0.8 * before  # nats, both negative
