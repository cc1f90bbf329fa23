"""A language model as a tool: a function from requests to answers, one text each.

`endpoint` asks a server that speaks OpenAI's chat protocol, `local` any transformers causal language model; `cached`
keeps the answers of either on disk, by who answers and what was asked. Whatever takes a LanguageModel takes all of
them.
"""

import asyncio
import hashlib
import json
import math
import os
import random
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prefcore.data.types import Parameters
from prefcore.engine import collate, models
from prefcore.engine.reference import weight_hash
from prefcore.engine.sample import invert, write
from prefcore.engine.shared_prompts import can_share

KEY = "PREFCORE_API_KEY"  # environment variable; the key itself is never written, logged or part of a cache's name
VERSION = "4"  # raise it when `local` or engine/sample.py gives other answers to the same requests
ANSWERS = Path("build/llm")
BLOCK = 256  # requests between two writes to the disk
GREEDY = 1e-4  # a temperature at which only the likeliest token is drawn
RETRIED = (408, 409, 429, 500, 502, 503, 504)


class Request(NamedTuple):
    """One question: messages as (role, content); temperature 0 is greedy; max_tokens of the answer."""

    messages: tuple[tuple[str, str], ...]
    temperature: float
    max_tokens: int
    seed: int


LanguageModel = Callable[[Sequence[Request]], list[str]]


def open_model(name: str, p: Parameters) -> LanguageModel:
    """A server where `name` is a URL with a model behind # (http://localhost:8000/v1#name), else a hub id or folder.

    Answers are kept under build/llm/: those of a server by its name, those of a local model by `fingerprint`, so that
    a model that was trained anew in the same folder is asked anew. Of p: device, threads, dtype.
    """
    if is_server(name):
        return cached(endpoint(*address(name)), ANSWERS, name)
    tokenizer, policy = models.load(p, name)
    return cached(local(policy, tokenizer), ANSWERS, fingerprint(policy, tokenizer))


def is_server(name: str) -> bool:
    """Whether it is an address."""
    return name.startswith(("http://", "https://"))


def address(name: str) -> tuple[str, str]:
    """(address, model) of a server's name. ValueError where it names no model."""
    url, mark, model = name.partition("#")
    if not mark or not model:
        raise ValueError(f"{name} names no model: write the address, a # and the model's name")
    return url, model


def fingerprint(policy, tokenizer) -> str:
    """sha256 over all but the request that decides a local model's answers; where its files lie has no part in it.

    Weights and configuration of model and adapter, dtype, tokenizer, chat template, and how tokens are drawn.
    """
    digest = hashlib.sha256(f"{VERSION} {GREEDY} {policy.dtype} {weight_hash(policy)}".encode())
    for name, tensor in sorted(policy.state_dict().items()):
        if "lora_" in name:  # weight_hash is that of the base
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    adapters = [_settings(config) for config in getattr(policy, "peft_config", {}).values()]
    core = getattr(tokenizer, "backend_tokenizer", None)
    words = core.to_str() if core else sorted(tokenizer.get_vocab().items())
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    about = [_settings(policy.config), adapters, words, ends, tokenizer.chat_template]
    digest.update(json.dumps(about, sort_keys=True, default=_plain).encode())
    return digest.hexdigest()


def _settings(config) -> dict:
    """What a model's or an adapter's configuration says, less where its files lie and who wrote them."""
    passing = {"_name_or_path", "base_model_name_or_path", "revision", "transformers_version", "peft_version"}
    return {name: value for name, value in config.to_dict().items() if name not in passing}


def _plain(value):
    """A value that JSON does not know as one that it does; equal sets give equal lists."""
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def local(policy, tokenizer, *, batch_size: int = 64) -> LanguageModel:
    """A loaded causal language model. Requests of one temperature and length are drawn together, and a prompt that has
    several seeds is read once; requests of one seed are one sample.

    A message's text stays text: control tokens inside it are not obeyed. Without a chat template the contents are
    joined by blank lines. An answer depends on the request and on its place among those drawn together.
    """

    def answer(requests: Sequence[Request]) -> list[str]:
        answers = [""] * len(requests)
        groups: dict[tuple, dict[int, list[int]]] = {}
        for i, request in enumerate(requests):
            seeds = groups.setdefault((request.temperature, request.max_tokens), {})
            seeds.setdefault(request.seed, []).append(i)
        for (temperature, max_tokens), seeds in groups.items():
            members = [i for own in seeds.values() for i in own]
            uniforms = [np.random.default_rng(seed).random((len(own), max_tokens)) for seed, own in seeds.items()]
            ids = [prompt_ids(requests[i].messages, tokenizer) for i in members]
            choose = partial(_draw, temperature=max(temperature, GREEDY))
            repeats = len(ids) // len({tuple(one) for one in ids}) if can_share(policy) else 1
            rows = batch_size * min(repeats, 4)  # rows of one prompt share its memory
            drawn = write(policy, tokenizer, ids, np.concatenate(uniforms), choose, rows)
            for i, one in zip(members, drawn, strict=True):
                answers[i] = tokenizer.decode(one.ids).strip()
        return answers

    return answer


def _draw(logits: torch.Tensor, uniforms: torch.Tensor, *, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`draw_token`'s tokens; nobody asks for their log-probabilities at temperature 1, which cost as much again."""
    return invert(logits.float().div_(temperature), uniforms)


def prompt_ids(messages: Sequence[tuple[str, str]], tokenizer) -> list[int]:
    """Token ids of a conversation up to where the assistant speaks."""
    if tokenizer.chat_template:
        chat = [{"role": role, "content": content} for role, content in messages]
        return collate.encode_prompt(chat, tokenizer)
    return collate.encode_prompt("\n\n".join(content for _, content in messages), tokenizer)


def endpoint(url: str, model: str, **how) -> LanguageModel:
    """A server at `url` (up to and with /v1); `how` as for `post`. RuntimeError where it gives no answer."""

    def answer(requests: Sequence[Request]) -> list[str]:
        return [_content(reply, model) for reply in post(url, model, [_body(r) for r in requests], **how)]

    return answer


def verdicts(url: str, model: str, **how) -> LanguageModel:
    """The same server as a judge that answers A or B: each answer is P(A) among the two, as a number in a text.

    By the log-probabilities where the server gives them, else 1 or 0 by the first letter of the two that stands alone
    in its answer, and 0.5 where there is neither. A server that refuses to be asked for log-probabilities is asked
    without.
    """

    def answer(requests: Sequence[Request]) -> list[str]:
        bodies = [_body(request) for request in requests]
        try:
            replies = post(url, model, [body | {"logprobs": True, "top_logprobs": 20} for body in bodies], **how)
        except Refused:
            replies = post(url, model, bodies, **how)
        return [f"{_share(reply, _content(reply, model)):.6f}" for reply in replies]

    return answer


class Refused(RuntimeError):
    """The server will not answer such a request, however often it is asked."""


def _body(request: Request) -> dict:
    return {
        "messages": [{"role": role, "content": content} for role, content in request.messages],
        "temperature": request.temperature, "max_tokens": request.max_tokens, "seed": request.seed,
    }  # fmt: skip


def _share(reply, text: str) -> float:
    """P(A) among A and B, at the first token of the answer that is one of them."""
    for token in ((reply.json()["choices"][0].get("logprobs") or {}).get("content")) or ():
        if token.get("token", "").strip(" *\n\"'().") in ("A", "B"):
            likely = {"A": 0.0, "B": 0.0}
            for other in [token, *token.get("top_logprobs", ())]:
                letter = other.get("token", "").strip(" *\n\"'().")
                if letter in likely:
                    likely[letter] = max(likely[letter], math.exp(other["logprob"]))
            return likely["A"] / (likely["A"] + likely["B"])
    alone = re.search(r"\b[AB]\b", text)
    return {"A": 1.0, "B": 0.0}[alone[0]] if alone else 0.5


def post(
    url: str, model: str, bodies: Sequence[dict], *, concurrency: int = 4, retries: int = 5, timeout: float = 600.0,
    pause: float = 1.0,
) -> list:  # fmt: skip
    """The server's replies, in order. At most `concurrency` requests at a time.

    Busy or broken answers and lost connections are tried again `retries` times, after pause, 2 pause, 4 pause ...
    seconds with some jitter, or after what the server asks for. RuntimeError when it stays so; Refused at once where
    the server refuses the request. The key, if there is one, is read from the environment variable PREFCORE_API_KEY.
    """
    import httpx

    async def ask(client: httpx.AsyncClient, gate: asyncio.Semaphore, body: dict):
        async with gate:
            for attempt in range(retries + 1):
                wait = pause * 2**attempt * (1 + random.Random(f"{body['seed']}/{attempt}").random() / 4)
                try:
                    reply = await client.post("chat/completions", json={"model": model} | body)
                except httpx.TransportError as error:
                    problem = type(error).__name__
                else:
                    if reply.status_code == 200:
                        return reply
                    problem = f"status {reply.status_code}"
                    if reply.status_code not in RETRIED:
                        raise Refused(f"{model} refused a request ({problem}: {reply.text[:200]})")
                    wait = _seconds(reply.headers.get("retry-after"), wait)
                if attempt < retries:
                    await asyncio.sleep(wait)
        raise RuntimeError(f"{model} gave no answer after {retries + 1} tries ({problem}): is the server up?")

    async def ask_all():
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        gate = asyncio.Semaphore(concurrency)
        base = url.rstrip("/") + "/"
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=timeout, follow_redirects=False) as client:
            return await asyncio.gather(*(ask(client, gate, body) for body in bodies))

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(ask_all())
    from concurrent.futures import ThreadPoolExecutor  # a notebook's kernel has a running loop

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, ask_all()).result()


def _content(reply, model: str) -> str:
    try:
        return reply.json()["choices"][0]["message"]["content"] or ""
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise RuntimeError(f"{model} sent something else than a chat completion: {reply.text[:200]!r}") from error


def _seconds(asked: str | None, otherwise: float) -> float:
    """What a server's Retry-After says, where it is a number of seconds, at most a minute."""
    try:
        return min(max(float(asked), 0.0), 60.0)
    except (TypeError, ValueError):
        return otherwise


def cached(model: LanguageModel, folder: Path, identity: str) -> LanguageModel:
    """The same model with its answers kept in `folder`, by the content of `identity` and request; each is asked once.

    identity: equal for models that give the same answers, and for no others. Equal requests of one call share an
    answer: give each its own seed where several samples are wanted. An answer is on disk before the next ones are
    asked for (in blocks of BLOCK), so that an interrupted run goes on where it was.
    """

    def answer(requests: Sequence[Request]) -> list[str]:
        paths = [folder / f"{_digest(identity, request)}.json" for request in requests]
        missing = {path: request for path, request in zip(paths, requests, strict=True) if not path.exists()}
        waiting = list(missing.items())
        for start in range(0, len(waiting), BLOCK):
            block = waiting[start : start + BLOCK]
            for (path, _), text in zip(block, model([request for _, request in block]), strict=True):
                _write(path, text)
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    return answer


def _digest(identity: str, request: Request) -> str:
    return hashlib.sha256(json.dumps([identity, *request]).encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.part")
    aside.write_text(json.dumps(text), encoding="utf-8")
    os.replace(aside, path)
