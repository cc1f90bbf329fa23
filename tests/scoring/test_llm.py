"""A language model as a tool: a stub server that misbehaves on purpose, a tiny random model, and the cache."""

import json
import math
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from prefcore.data.types import freeze
from prefcore.engine import models, sample
from prefcore.scoring import llm
from prefcore.scoring.llm import Request

QUESTION = Request((("system", "Be brief."), ("user", "Which is better?")), 0.0, 4, 0)
LONG = QUESTION._replace(max_tokens=12)
P = freeze({"device": "cpu", "threads": 1, "dtype": "float32"})


class Stub:
    """A server of the chat protocol that gives `script`'s replies in turn, then echoes the last message."""

    def __init__(self):
        self.script, self.seen, self.headers, self.at_once, self.most = [], [], [], 0, 0
        self.lock, stub = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with stub.lock:
                    stub.at_once += 1
                    stub.most = max(stub.most, stub.at_once)
                    stub.seen.append((self.path, body))
                    stub.headers.append(dict(self.headers))
                    status, headers, text = stub.script.pop(0) if stub.script else (200, {}, None)
                if text is None:
                    threading.Event().wait(0.02)
                    text = json.dumps({"choices": [{"message": {"content": body["messages"][-1]["content"]}}]})
                with stub.lock:
                    stub.at_once -= 1
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def stub():
    made = Stub()
    yield made
    made.server.shutdown()
    made.server.server_close()


def ask(stub, **how):
    return llm.endpoint(stub.url, "toy", pause=0.01, **how)


def test_the_server_sees_the_chat_protocol_and_answers_come_in_order(stub):
    requests = [Request((("user", f"number {i}"),), 0.5, 7, i) for i in range(9)]
    assert ask(stub)(requests) == [f"number {i}" for i in range(9)]
    path, body = next((path, body) for path, body in stub.seen if body["seed"] == 3)
    assert path == "/v1/chat/completions"
    assert body == {"model": "toy", "messages": [{"role": "user", "content": "number 3"}], "temperature": 0.5,
                    "max_tokens": 7, "seed": 3}  # fmt: skip


def test_no_more_requests_are_under_way_than_allowed(stub):
    ask(stub, concurrency=3)([QUESTION._replace(seed=i) for i in range(12)])
    assert 1 < stub.most <= 3


def test_a_busy_server_is_asked_again_and_its_wish_to_wait_is_kept(stub):
    stub.script = [(429, {"Retry-After": "0.05"}, "busy"), (503, {}, "starting")]
    assert ask(stub)([QUESTION]) == ["Which is better?"]
    assert len(stub.seen) == 3


def test_a_server_that_stays_broken_is_given_up_with_what_it_said(stub):
    stub.script = [(500, {}, "out of order")] * 3
    with pytest.raises(RuntimeError, match="no answer after 3 tries.*status 500"):
        ask(stub, retries=2)([QUESTION])
    assert len(stub.seen) == 3


def test_a_refused_request_is_not_repeated(stub):
    stub.script = [(401, {}, "who are you?")]
    with pytest.raises(RuntimeError, match="refused.*401.*who are you"):
        ask(stub)([QUESTION])
    assert len(stub.seen) == 1


@pytest.mark.parametrize("text", ["", "{}", '{"choices": []}', "<html>"])
def test_an_answer_of_another_form_is_said_to_be_one(stub, text):
    stub.script = [(200, {}, text)]
    with pytest.raises(RuntimeError, match="something else than a chat completion"):
        ask(stub)([QUESTION])


def test_nobody_listening_is_named():
    with pytest.raises(RuntimeError, match="no answer after 2 tries.*ConnectError"):
        llm.endpoint("http://127.0.0.1:9/v1", "toy", retries=1, pause=0.01)([QUESTION])


def test_the_key_goes_to_the_server_and_nowhere_else(stub, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(llm.KEY, "sk-hidden")
    llm.cached(ask(stub), tmp_path, stub.url)([QUESTION])
    assert stub.headers[0]["Authorization"] == "Bearer sk-hidden"
    stub.script = [(401, {}, "no")]
    with pytest.raises(RuntimeError) as refused:
        ask(stub)([QUESTION])
    kept = "".join(path.name + path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "sk-hidden" not in kept + str(refused.value) + "".join(capsys.readouterr())


def test_a_judge_on_a_server_gives_probabilities_or_the_letter_that_it_says(stub):
    def said(text, **logprobs):
        return 200, {}, json.dumps({"choices": [{"message": {"content": text}} | logprobs]})

    top = [{"token": " B", "logprob": math.log(0.6)}, {"token": "A", "logprob": math.log(0.2)}]
    weighed = {"logprobs": {"content": [{"token": "\n", "logprob": 0.0}, top[0] | {"top_logprobs": top}]}}
    stub.script = [said("B", **weighed), said("It is A."), said("neither"), (400, {}, "no logprobs"), said("B")]
    ask = llm.verdicts(stub.url, "m", concurrency=1)
    assert [float(ask([QUESTION])[0]) for _ in range(4)] == [0.25, 1.0, 0.5, 0.0]
    assert [body.get("logprobs") for _, body in stub.seen] == [True, True, True, True, None]


def test_a_redirect_is_not_followed_with_the_key(stub):
    stub.script = [(307, {"Location": "http://127.0.0.1:9/v1/chat/completions"}, "")]
    with pytest.raises(RuntimeError, match="refused.*307"):
        ask(stub)([QUESTION])


def test_each_request_is_asked_once_whatever_the_order_and_another_model_is_another_entry(tmp_path):
    asked = []

    def echo(requests):
        asked.extend(requests)
        return [f"{request.messages[-1][1]}/{request.seed}" for request in requests]

    requests = [QUESTION._replace(seed=i) for i in range(3)]
    kept = llm.cached(echo, tmp_path, "one")
    assert kept(requests) == [f"Which is better?/{i}" for i in range(3)]
    assert kept(requests[::-1] + requests[:1]) == [f"Which is better?/{i}" for i in (2, 1, 0, 0)]
    assert len(asked) == 3
    llm.cached(echo, tmp_path, "two")(requests)
    assert len(asked) == 6
    for change in ({"temperature": 0.1}, {"max_tokens": 5}, {"messages": (("user", "Which?"),)}):
        kept([QUESTION._replace(**change)])
    assert len(asked) == 9


def test_what_was_answered_before_an_interruption_is_not_asked_again(tmp_path):
    calls = []

    def fails_late(requests):
        calls.append(len(requests))
        if len(calls) == 2:
            raise RuntimeError("gone")
        return ["x"] * len(requests)

    requests = [QUESTION._replace(seed=i) for i in range(llm.BLOCK + 6)]
    kept = llm.cached(fails_late, tmp_path, "m")
    with pytest.raises(RuntimeError, match="gone"):
        kept(requests)
    assert kept(requests) == ["x"] * len(requests) and calls == [llm.BLOCK, 6, 6]


def test_a_local_model_answers_alone_and_together_alike_when_greedy(toy_weights):
    tokenizer, policy = models.load_policy(str(toy_weights / "policy"))
    local = llm.local(policy, tokenizer)
    first = QUESTION._replace(max_tokens=6)
    second = Request((("user", "The film was wonderful, wasn't it?"),), 0.0, 6, 0)
    assert local([first, second]) == local([first]) + local([second])
    assert local([first, second]) == local([first._replace(seed=5), second._replace(seed=6)])  # greedy: no chance


def test_a_local_model_draws_again_the_same_for_the_same_seed_only(toy_weights):
    tokenizer, policy = models.load_policy(str(toy_weights / "policy"))
    local = llm.local(policy, tokenizer)
    warm = [QUESTION._replace(temperature=1.0, max_tokens=12, seed=s) for s in (1, 1, 2)]
    again = local(warm[:1])
    assert local(warm[:1]) == again
    assert local(warm[2:]) != again


def test_a_control_token_in_a_message_stays_text(toy_weights):
    tokenizer, _ = models.load_policy(str(toy_weights / "policy"))
    plain = llm.prompt_ids((("user", "hello"),), tokenizer)
    spelled = llm.prompt_ids((("user", "hello <|im_end|>"),), tokenizer)
    assert spelled.count(tokenizer.eos_token_id) == plain.count(tokenizer.eos_token_id)


def test_a_prompt_with_several_seeds_is_read_once_and_answered_as_if_alone(toy_weights, monkeypatch):
    """The old grouping, one call for each seed, read a prompt again for every draw."""
    tokenizer, policy = models.load_policy(str(toy_weights / "policy"))
    warm = [QUESTION._replace(temperature=1.0, max_tokens=12, seed=seed) for seed in range(5)]
    alone = [llm.local(policy, tokenizer)([request])[0] for request in warm]
    read = []
    monkeypatch.setattr(sample, "_read", lambda *given, real=sample._read: read.append(given[1]) or real(*given))
    assert llm.local(policy, tokenizer)(warm) == alone
    assert len(read) == 1 and len(set(read[0])) == 1


def test_an_address_without_a_model_is_refused():
    with pytest.raises(ValueError, match="names no model"):
        llm.open_model("http://localhost:1/v1", P)


@pytest.fixture
def folder(toy_weights, tmp_path, monkeypatch):
    """A folder with a tiny policy that a test may change, under an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(toy_weights / "policy", tmp_path / "policy"))


def answers_on_disk() -> int:
    return len(list(Path("build/llm").glob("*.json")))


def retrain(folder, seed=1) -> list[str]:
    """Other weights in the same folder; returns what the new model answers to LONG without any cache."""
    tokenizer, policy = models.load_policy(str(folder))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(0, 0.5)
    models.save_policy(policy, tokenizer, folder)
    return llm.local(*models.load_policy(str(folder))[::-1])([LONG])


def test_a_folder_opens_as_a_local_model_with_a_cache(folder):
    model = llm.open_model(str(folder), P)
    assert model([QUESTION]) == model([QUESTION])
    assert answers_on_disk() == 1


def test_a_model_that_was_retrained_in_its_folder_answers_anew(folder):
    before = llm.open_model(str(folder), P)([LONG])
    expected = retrain(folder)
    assert llm.open_model(str(folder), P)([LONG]) == expected != before


def test_an_adapter_that_was_retrained_in_its_folder_answers_anew(folder, tmp_path):
    found = []
    for seed in (0, 1):
        tokenizer, base = models.load_policy(str(folder))
        policy = models.add_lora(base, rank=2, alpha=4.0, top_layers=2, seed=seed)
        torch.manual_seed(seed)
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 1.0)
        models.save_adapter(policy, tokenizer, tmp_path / "adapter")
        found.append(llm.open_model(str(tmp_path / "adapter"), P)([LONG]))
        assert found[-1] == llm.local(policy, tokenizer)([LONG])
    assert found[0] != found[1]


def test_equal_weights_in_two_folders_share_their_answers(folder, tmp_path):
    before = llm.open_model(str(folder), P)([LONG])
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert llm.open_model(str(tmp_path / "elsewhere"), P)([LONG]) == before
    assert answers_on_disk() == 1


def test_another_precision_is_another_model(folder):
    llm.open_model(str(folder), P)([LONG])
    llm.open_model(str(folder), P._replace(dtype="bfloat16"))([LONG])
    assert answers_on_disk() == 2


@pytest.mark.parametrize("change", [
    lambda tokenizer: setattr(tokenizer, "chat_template", "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"),
    lambda tokenizer: tokenizer.add_tokens(["joyful"]),
    lambda tokenizer: setattr(tokenizer, "eos_token", "."),
], ids=["template", "tokens", "end"])  # fmt: skip
def test_another_template_or_tokenizer_is_another_model(folder, change):
    llm.open_model(str(folder), P)([LONG])
    tokenizer, _ = models.load_policy(str(folder))
    change(tokenizer)
    tokenizer.save_pretrained(folder)
    llm.open_model(str(folder), P)([LONG])
    assert answers_on_disk() == 2


def test_another_setting_of_the_model_is_another_model_with_the_same_weights(folder):
    llm.open_model(str(folder), P)([LONG])
    config = json.loads((folder / "config.json").read_text())
    config["rms_norm_eps"] = 0.1
    (folder / "config.json").write_text(json.dumps(config))
    llm.open_model(str(folder), P)([LONG])
    assert answers_on_disk() == 2


def test_a_server_is_known_by_its_address_and_the_name_of_its_model(stub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in ("toy", "toy", "other"):
        llm.open_model(f"{stub.url}#{model}", P)([QUESTION])
    assert [body["model"] for _, body in stub.seen] == ["toy", "other"]
