"""Fixtures shared by all tests: a tiny random Llama, a word-level tokenizer, and a toy world with everything in it."""

import fcntl
import json
import multiprocessing
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prefcore import smoke
from prefcore.data.types import Example
from prefcore.engine.models import add_lora

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that of two workers neither waits for the other at the end."""
    items.sort(key=lambda item: item.path.name != "test_smoke.py")


@pytest.fixture(autouse=True)
def one_thread_and_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def tokenizer():
    """Words w4 ... w96; pad is 0, bos 1, eos 2, unk 3."""
    words = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>"])}
    words.update({f"w{i}": i for i in range(4, VOCABULARY)})
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def draw():
    """Makes n examples of random token ids with `branches` completions of unequal lengths."""

    def draw(n, branches, *, seed=0, prompt=(1, 14), completion=(1, 9)):
        rng = np.random.default_rng(seed)

        def some(low, high):
            return tuple(rng.integers(4, VOCABULARY, size=rng.integers(low, high)).tolist())

        return [Example(f"e{i}", some(*prompt), tuple(some(*completion) for _ in range(branches))) for i in range(n)]

    return draw


@pytest.fixture
def peaked_llama():
    """A random Llama with large weights, so that its next token is far from uniform."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, initializer_range=0.25)).eval()


@pytest.fixture
def tiny_llama():
    """A random two-layer Llama, float32, eval mode; the same weights in every test."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2)).eval()


@pytest.fixture(scope="session")
def processes():
    """Makes real processes, to be killed or to talk to each other; what is slow to import is imported once for all."""
    context = multiprocessing.get_context("forkserver")
    ours = ["prefcore.engine.train", "prefcore.engine.models"]
    context.set_forkserver_preload([*ours, "peft", LlamaForCausalLM.__module__])
    return context


@pytest.fixture(scope="session")
def toy_weights(tmp_path_factory):
    """A folder with a tiny random policy and a tiny random encoder. Read it, do not write."""
    folder = tmp_path_factory.mktemp("weights")
    smoke.make_weights(folder)
    return folder


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory):
    """A folder with all that the notebooks read, at toy size, built once by the real stages. Read it, do not write.

    Workers share it: the first that needs it builds it, and another one waits for that.
    """
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    with open(place / "toy.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "toy").exists():
            smoke.workspace(place / "unfinished")
            (place / "unfinished").rename(place / "toy")
    return place / "toy"


@pytest.fixture
def toy_world(toy_folder, tmp_path, monkeypatch):
    """A copy of the toy folder as the current one; returns what its params.yaml says."""
    shutil.copytree(toy_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return yaml.safe_load((tmp_path / "params.yaml").read_text())


@pytest.fixture(scope="session")
def adapted():
    """Makes a policy with an adapter that changes it; the larger the scale, the more."""

    def adapted(policy, scale=0.2, *, top_layers=1):
        policy = add_lora(policy, rank=2, alpha=4.0, top_layers=top_layers, seed=0)
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, scale)
        return policy

    return adapted


@pytest.fixture
def chat_server():
    """Starts a server of the chat protocol behind answer(last message) -> text; returns the address of the model "toy"
    on it, and the list of what it is asked.
    """
    servers = []

    def start(answer):
        seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                seen.append(body["messages"][-1]["content"])
                text = json.dumps({"choices": [{"message": {"content": answer(seen[-1])}}]})
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1#toy", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
