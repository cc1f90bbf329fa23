"""What is wrong with the texts themselves, whatever the labels say of them."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasketch import MinHash, MinHashLSH

from prefcore.data import datasets, views
from prefcore.data.types import Pair, Ranked, Unary, Voted
from prefcore.doctor import finding
from prefcore.doctor.finding import Finding
from prefcore.lab import own

CONTROL = re.compile(rf"{datasets.CONTROL.pattern}|</?s>|<(?:bos|eos|pad|unk)>")  # and what a run does not mention
SPEAKER = re.compile(r"(?m)^\s*(?:Human|User|Assistant|###\s*(?:Instruction|Response))\s*:")
REFUSAL = re.compile(r"(?i)\b(?:i(?:'m| am) (?:sorry|unable)|i can(?:not|'t) (?:help|assist|provide)|as an ai\b)")
NEAR = 0.8  # from this share of common word triples on two prompts are near-duplicates


def prompt_of(record) -> str:
    """A record's prompt as one text."""
    return record.prompt if isinstance(record.prompt, str) else "\n".join(m["content"] for m in record.prompt)


def answers_of(record) -> tuple[str, ...]:
    """The answers of a record of any kind, the better one first where that is known."""
    if isinstance(record, Pair):
        return (record.chosen, record.rejected)
    if isinstance(record, Voted):
        return (record.a, record.b)
    return record.completions if isinstance(record, Ranked) else (record.completion,)


def repeated(records: Sequence) -> Finding:
    """Rows that say the same thing twice: equal prompt, answers and label."""
    seen = Counter(tuple(record._replace(id="")) if isinstance(record.prompt, str) else repr(record._replace(id=""))
                   for record in records)  # fmt: skip
    extra = sum(seen.values()) - len(seen)
    return finding.count(
        "repeated rows", extra, f"{extra} of {len(records)} rows repeat an earlier row word for word.",
        warns=extra > 0, do="remove them: a repeated row counts twice" if extra else "",
    )  # fmt: skip


def near_duplicates(records: Sequence, seed: int = 0) -> Finding:
    """Test prompts that training has nearly seen: as many common word triples as NEAR says."""
    if len({views.prompt_key(record.prompt) for record in records}) < own.fewest(own.PARTS):
        return finding.count(
            "near-duplicates across the split", 0, "there are too few prompts to hold some out.", warns=True
        )
    parts = views.split(records, own.PARTS, seed)
    train, test = (sorted({prompt_of(record) for record in part}) for part in (parts[0], parts[2]))
    index = MinHashLSH(threshold=NEAR, num_perm=64)
    for i, text in enumerate(train):
        index.insert(i, _minhash(text))
    leaked = sum(any(_jaccard(text, train[i]) >= NEAR for i in index.query(_minhash(text))) for text in test)
    share = leaked / max(1, len(test))
    return finding.count(
        "near-duplicates across the split", leaked,
        f"{leaked} of {len(test)} test prompts are nearly the same as a training prompt ({share:.0%}).",
        warns=leaked > 0, do="give such prompts one wording, so that the split keeps them together" if leaked else "",
    )  # fmt: skip


def _triples(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def _jaccard(a: str, b: str) -> float:
    first, second = _triples(a), _triples(b)
    return len(first & second) / len(first | second)


def _minhash(text: str) -> MinHash:
    found = MinHash(num_perm=64, seed=1)
    found.update_batch([triple.encode() for triple in _triples(text)])
    return found


def control_tokens(records: Sequence) -> Finding:
    """Texts that spell a model's control tokens or another template's speaker marks. Here they stay plain letters."""
    spelled = [m.group().strip() for r in records for text in (prompt_of(r), *answers_of(r))
               for m in [CONTROL.search(text) or SPEAKER.search(text)] if m]  # fmt: skip
    common = ", ".join(repr(mark) for mark, _ in Counter(spelled).most_common(3))
    says = f"{len(spelled)} texts spell control tokens or speaker marks{', most often ' + common if common else ''}."
    do = "give chats as lists of messages, so that the policy's own template is used" if spelled else ""
    return finding.count("control tokens", len(spelled), says, warns=bool(spelled), do=do)


def empty_or_refused(records: Sequence) -> Finding:
    """Answers without a word, and answers that refuse; by how much more often the chosen ones do."""
    texts = [text for record in records for text in answers_of(record)]
    empty, refused = sum(not text.strip() for text in texts), sum(bool(REFUSAL.search(text[:200])) for text in texts)
    says = f"{empty} of {len(texts)} answers are empty, {refused} refuse."
    pairs = [record for record in records if isinstance(record, Pair)]
    if refused and pairs:
        up, down = (sum(bool(REFUSAL.search(t[:200])) for t in side)
                    for side in ([p.chosen for p in pairs], [p.rejected for p in pairs]))  # fmt: skip
        says += f" Among the refusals of pairs {up} are chosen and {down} rejected."
    many = refused > 0.05 * len(texts)
    do = "look at them: a policy learns to refuse from what is preferred" if many else ""
    return finding.count("empty or refused answers", empty + refused, says, warns=empty > 0 or many, do=do)


def lengths(records: Sequence, tokenizer, *, max_prompt: int, max_completion: int) -> list[Finding]:
    """How long prompts and answers are in tokens, and how many a run would cut at its limits."""
    texts = {
        "prompts": (sorted({prompt_of(record) for record in records}), max_prompt, "max_prompt", "beginning"),
        "answers": ([t for r in records for t in answers_of(r)], max_completion, "max_completion", "end"),
    }
    found = []
    for what, (side, limit, name, lost) in texts.items():
        sizes = np.array([len(ids) for ids in tokenizer(list(side), add_special_tokens=False)["input_ids"]])
        cut = int((sizes > limit).sum())
        middle, most, top = np.quantile(sizes, [0.5, 0.95, 1]).astype(int)
        says = (f"{what}: {middle} tokens in the middle, {most} at 95 %, {top} at most; "
                f"{cut} of {len(sizes)} are longer than {name} {limit} and would lose their {lost}.")  # fmt: skip
        do = f"--set {name}={most}" if cut else ""
        found.append(finding.count(f"length of {what}", cut, says, warns=cut > 0.05 * len(sizes), do=do))
    return found


def kinds(records: Sequence) -> Finding:
    """What the file is: how many rows of which kind, and how many prompts."""
    kind = type(records[0])
    prompts = len({views.prompt_key(record.prompt) for record in records})
    fits = {
        Pair: "pairs: dpo, and whatever reads thumbs: kto, bco, ulma",
        Unary: "single answers with a thumb: kto, bco, ulma",
        Ranked: "several scored answers a prompt: all methods",
        Voted: "pairs with single votes: margin_rm, autoraters, and with names micro",
    }.get(kind, "scored answers: all methods, pairs where a prompt has two of them")
    few = prompts < 50
    do = "collect more prompts before you compare methods: an interval over so few is wide" if few else ""
    says = f"{len(records)} rows on {prompts} prompts; {fits}."
    return finding.count("kind and size", len(records), says, warns=few, do=do)
