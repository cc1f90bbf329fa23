"""A judge that writes a probability: what it is asked, how likely each answer is, training, and read-outs.

The prompt shows two texts and ends with OPENING; the answer is two digits, 01 to 99. All answers are scored at once as
a tree in the engine's prompt-with-K-completions batch: ten branches read the first digit, and the state after each
gives the chances of all ten second digits. What falls outside the 99 answers is the chance of no answer.
Everywhere here a probability is that of the *second* text shown being the better one, as the answer's tag says.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from prefcore.data.types import Example, Parameters
from prefcore.engine import collate, models, train
from prefcore.engine.logps import choose_path, to_device, unwrap
from prefcore.engine.progress import track
from prefcore.engine.reference import TOKENS, token_batches
from prefcore.scoring import calibration, judge, scorers, voters, votes
from prefcore.scoring.votes import VotedPair

ANSWERS = torch.arange(1, 100) / 100  # what the two digits after OPENING can say
OPENING = "<prob_rb_better>0."
EMPTY = "[N/A]"  # a text without content, for contextual calibration


class Asked(NamedTuple):
    """A pair as it is shown, and the number to learn from: a vote, or a mean of votes, for the second text."""

    pair: VotedPair
    label: float


class Recipe(NamedTuple):
    """How an arm learns. objective(answers [B, 99] in nats, batch, state) -> LossOutput, with batch["label"] [B].

    thoughts: a digit for each text, see `encode`. sampled: the objective draws answers, needs state["step"] and the
    start's batch["ref_answers"] [B, 99].
    """

    objective: Callable
    asked: list[Asked]
    epochs: int
    thoughts: Mapping[str, int] | None = None
    sampled: bool = False


def open_pairs(p: Parameters) -> dict[str, list[VotedPair]]:
    """Pairs by split: of build/<profile>/voted.jsonl, or of the file that `data` names."""
    found = voters.read(p.data, p.seed) if p.data else votes.read(Path("build") / p.profile / "voted.jsonl")
    sizes = {"train": len(found), "validation": p.validation_pairs, "test": p.test_pairs}
    pairs = {split: [pair for pair in found if pair.split == split][:size] for split, size in sizes.items()}
    for split, inside in pairs.items():
        if not inside:
            raise ValueError(f"no pair of {len(found)} falls into the {split} part: give more pairs")
    return pairs


def dense(pairs: Sequence[VotedPair], size: int, count: int, seed: int) -> list[Asked]:
    """The first `size` pairs that have `count` votes, each with the mean of so many, drawn without repetition."""
    enough = [pair for pair in pairs if len(pair.votes) >= count][:size]
    if len(enough) < size:
        most = max(len(pair.votes) for pair in pairs)
        raise ValueError(f"{len(enough)} of {len(pairs)} pairs have {count} votes (the most is {most}), {size} are "
                         "wanted: lower dense_votes or sft_pairs")  # fmt: skip
    rng = np.random.default_rng([seed, 1])
    return [Asked(pair, 1 - float(np.mean(rng.permutation(pair.votes)[:count]))) for pair in enough]


def single(pairs: Sequence[VotedPair], size: int, seed: int) -> list[Asked]:
    """The first `size` pairs, each with one of its votes, 0 or 1; a tie becomes either by a fair coin."""
    if len(pairs) < size:
        raise ValueError(f"{size} pairs are wanted (sft_pairs x dense_votes), there are {len(pairs)}: lower sft_pairs")
    rng = np.random.default_rng([seed, 2])
    drawn = [(pair, rng.choice(pair.votes), rng.random()) for pair in pairs[:size]]
    return [Asked(pair, float(vote < 0.5 if vote != 0.5 else coin < 0.5)) for pair, vote, coin in drawn]


def both_ways(asked: Sequence[Asked]) -> list[Asked]:
    """Swap augmentation: every pair as it is, then every pair with its texts exchanged and its label turned round."""
    return [*asked, *(Asked(votes.swap(pair), 1 - label) for pair, label in asked)]


def encode(
    asked: Sequence[Asked], tokenizer, p: Parameters, thoughts: Mapping[str, int] | None = None
) -> list[Example]:
    """Prompts whose completions span the tree of two digits; column `label`; ids are positions in `asked`.

    Texts are cut to `max_text` tokens, so that OPENING is always there. thoughts: a digit for each text, which then
    stand between question and answer as the judge's reasoning.
    """
    ids = _digits(tokenizer)
    tree = ((ids[0],), *((digit, ids[0]) for digit in ids))
    examples = []
    for i, (pair, label) in enumerate(asked):
        a, b = (collate.encode_text(text, tokenizer)[: p.max_text] for text in (pair.a, pair.b))
        thought = f"<think>A {thoughts[pair.a]}, B {thoughts[pair.b]}</think>" if thoughts else ""
        pieces = (f"{pair.prompt}\nText A: ".lstrip("\n"), "\nText B: ",
                  f"\n{p.question} B with probability {thought}{OPENING}")  # fmt: skip
        start, middle, end = (collate.encode_text(piece, tokenizer) for piece in pieces)
        prompt = (*start, *a, *middle, *b, *end)
        examples.append(Example(f"{i}", prompt, tree, {"label": label}))
    return examples


class Tree:
    """Hears the last hidden states of each forward pass of a policy and reads the 99 answers from them.

    The engine gives log P(0) at the prompt's end and log P(k, 0) for each first digit k, which fixes the softmax's
    normaliser at those eleven places; the other digits differ by their logits alone, so that no second pass over the
    vocabulary is needed.
    """

    def __init__(self, policy, tokenizer):
        self.digits, self.states = torch.tensor(_digits(tokenizer)), None
        self.policy = policy
        self.hook = unwrap(policy).get_decoder().register_forward_hook(self._hear)
        self._probe()

    def answers(self, logps: Tensor, batch: Mapping) -> Tensor:
        """Log-probabilities [B, 99] (nats) of the answers .01 to .99, after the pass that gave `logps` [B, 11]."""
        size, states = len(logps), self.states.flatten(0, 1)
        plain = len(self.states) == len(batch["sequences"]["input_ids"])
        rows = (batch["sequences"]["rows"] if plain else batch["rows"]).view(size, -1)
        places = torch.cat([rows[:, :1], rows[:, 2::2]], 1)  # prompt's end; after it each branch has two rows
        weight = unwrap(self.policy).get_output_embeddings().weight[self.digits.to(states.device)]
        logits = (states[places] @ weight.T).float()
        first = logits[:, 0] - (logits[:, 0, :1] - logps[:, :1])
        zero = logps[:, 1:] - first  # log P(0 after k)
        second = logits[:, 1:] - (logits[:, 1:, 0] - zero)[..., None]
        self.states = None  # the graph of a step is not kept beyond it
        return (first[..., None] + second).flatten(1)[:, 1:]

    def close(self) -> None:
        """Hear no more."""
        self.hook.remove()

    def _hear(self, module, inputs, output):
        self.states = output.last_hidden_state

    def _probe(self):
        device = next(self.policy.parameters()).device
        with torch.no_grad():
            logits = self.policy(input_ids=self.digits[None].to(device), use_cache=False).logits[0].float()
            own = (self.states[0] @ unwrap(self.policy).get_output_embeddings().weight.T).float()
        if not torch.allclose(logits, own, rtol=1e-2, atol=1e-2):
            self.close()
            raise ValueError("the logits of this model are not just hidden state times output embedding (bias, scale, "
                             "cap), which the tree of answers cannot follow: use another model")  # fmt: skip


def written(examples: Sequence[Example], policy, tokenizer) -> np.ndarray:
    """How likely the policy writes each of the 99 answers [n, 99]; a row's missing mass is the chance of no answer."""
    forward, tree = choose_path(policy, collate.longest(examples)), Tree(policy, tokenizer)
    out, device = np.empty((len(examples), len(ANSWERS))), next(policy.parameters()).device
    with torch.no_grad():
        for rows in track(token_batches(examples, TOKENS), "judging"):
            batch = to_device(collate.collate([examples[i] for i in rows], pad_id=tokenizer.pad_token_id), device)
            out[rows] = tree.answers(forward(policy, batch), batch).exp().double().cpu().numpy()
    tree.close()
    return out


def greedy(chances: np.ndarray) -> np.ndarray:
    """The answer [n] that is written digit by digit, the likeliest each time, among the 99."""
    tree = np.pad(chances, ((0, 0), (1, 0))).reshape(-1, 10, 10)
    first = tree.sum(2).argmax(1)
    return (10 * first + tree[np.arange(len(tree)), first].argmax(1)) / 100


def expectation(chances: np.ndarray) -> np.ndarray:
    """The mean [n] of what would be written, given that it is an answer."""
    return chances @ ANSWERS.double().numpy() / chances.sum(1)


def self_consistency(chances: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Share [n] of `size` answers drawn from the model that favour the second text; 0.5 where none can be read.

    .50 itself counts half. Departs from the paper: no reasoning before the answer.
    """
    rng = np.random.default_rng(seed)
    whole = np.column_stack([chances, np.clip(1 - chances.sum(1), 0, 1)])
    drawn = rng.multinomial(size, whole / whole.sum(1, keepdims=True))[:, :-1]
    side = (np.sign(np.arange(1, 100) - 50) + 1) / 2
    return (drawn @ side + 0.5 * (drawn.sum(1) == 0)) / np.maximum(drawn.sum(1), 1)


def verdicts(pairs: Sequence[VotedPair], policy, tokenizer, question: str) -> np.ndarray:
    """[2, n]: P(second is better) from the next-token chances of " A" and " B", in both orders."""
    first = judge.both_orders([(pair.a, pair.b) for pair in pairs], policy, tokenizer, question)
    return 1 - np.stack(first)


def start(p: Parameters, seed: int):
    """(tokenizer, model, a new adapter on it): build/<profile>/judge for the default data, else the policy."""
    tokenizer, model = models.load(p, p.policy if p.data else Path("build") / p.profile / "judge")
    how = {"rank": p.lora_rank, "alpha": p.lora_alpha, "top_layers": p.lora_layers, "seed": seed}
    return tokenizer, models.add_lora(model, **how)


def train_arm(p: Parameters, recipe: Recipe, *, arm: str, seed: int) -> tuple:
    """(tokenizer, trained policy, history with one row a step), from `start`."""
    tokenizer, policy = start(p, seed)
    examples = encode(recipe.asked, tokenizer, p, recipe.thoughts)
    known = torch.from_numpy(np.log(written(examples, policy, tokenizer))).float() if recipe.sampled else None
    tree, about = Tree(policy, tokenizer), repr(p)  # a checkpoint belongs to these settings

    def loss(logps, ref_logps, batch, state):
        places = [int(i) for i in batch["ids"]]
        more = {"about": about} if known is None else {"about": about, "ref_answers": known[places].to(logps.device)}
        return recipe.objective(tree.answers(logps, batch), batch | more, state)

    how = {"batch_size": p.batch_size, "epochs": recipe.epochs, "seed": seed, "pad_id": tokenizer.pad_token_id}
    folder = Path(".checkpoints") / p.profile / "autoraters" / f"{arm}-{seed}"
    history = train.fit(
        policy, collate.make_plan(examples, **how), loss, learning_rate=p.learning_rate, seed=seed, label=arm,
        checkpoints=folder, state={"step": 0.0} if recipe.sampled else None,
    )  # fmt: skip
    tree.close()
    return tokenizer, policy, history.assign(arm=arm, seed=seed)


def judged(pairs: Sequence[VotedPair], policy, tokenizer, p: Parameters, thoughts=None) -> np.ndarray:
    """[2, n, 99]: `written` for the pairs as they are, and with their texts exchanged."""
    asked = both_ways([Asked(pair, 0.5) for pair in pairs])
    return written(encode(asked, tokenizer, p, thoughts), policy, tokenizer).reshape(2, len(pairs), -1)


def read_out(arm: str, pairs: Sequence[VotedPair], chances: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Score rows of what is written greedily (`arm`) and of the mean of what would be written (`arm`-mean)."""
    silent = 1 - chances.sum(2).mean(0)
    ways = {arm: greedy, f"{arm}-mean": expectation}
    return pd.concat(score_rows(name, pairs, np.stack([way(c) for c in chances]), silent, seed)
                     for name, way in ways.items())  # fmt: skip


def draw(answers: Tensor, size: int, state: Mapping, seed: int) -> Tensor:
    """[B, size] positions drawn from the answers' chances, 99 for no answer; counts its steps in state["step"]."""
    chances = answers.detach().exp().cpu()
    whole = torch.cat([chances, (1 - chances.sum(1, keepdim=True)).clamp(min=0)], 1)
    source = torch.Generator().manual_seed(1_000_003 * seed + int(state["step"]))
    train.update_state(state, step=state["step"] + 1)
    return torch.multinomial(whole, size, replacement=True, generator=source).to(answers.device)


def ratings(pairs: Sequence[VotedPair], policy, tokenizer) -> dict[str, int]:
    """The digit that the policy, asked as the shared stage taught it, writes as each text's rating, 0 to 8."""
    texts = sorted({text for pair in pairs for text in (pair.a, pair.b)})
    return dict(zip(texts, scorers.rating_shares(texts, policy, tokenizer).argmax(1).tolist(), strict=True))


def score_rows(arm: str, pairs: Sequence[VotedPair], p: np.ndarray, silent=0.0, seed: int = 0) -> pd.DataFrame:
    """A score row for each pair: p [2, n] as given and with the texts exchanged; silent: the chance of no answer.

    share: of held-out raters for the second text. Means over the two orders: error, squared; right, agreement with the
    majority (a tie, of raters or judge, half); excess, confidence max(p, 1 - p) less the share of raters on that side.
    """
    share = np.array([1 - pair.share for pair in pairs])
    ways = p[0], 1 - p[1]  # both as the probability of the pair's own second text
    right = [0.5 + calibration.classes(x) * calibration.classes(share) / 2 for x in ways]
    excess = [np.abs(x - 0.5) - np.sign(np.round(x - 0.5, 12)) * (share - 0.5) for x in ways]
    return pd.DataFrame({
        "arm": arm, "seed": seed, "id": [f"{i}:{pair.id}" for i, pair in enumerate(pairs)],
        "domain": [pair.domain for pair in pairs], "stratum": [pair.stratum for pair in pairs], "share": share,
        "p": p[0], "swapped": p[1], "no_answer": silent, "error": sum((x - share) ** 2 for x in ways) / 2,
        "right": sum(right) / 2, "excess": sum(excess) / 2, "bias": np.abs(p[0] + p[1] - 1),
        "consistent": (calibration.classes(ways[0]) == calibration.classes(ways[1])).astype(float),
    })  # fmt: skip


def _digits(tokenizer) -> list[int]:
    found = [collate.encode_text(str(digit), tokenizer) for digit in range(10)]
    if any(len(ids) != 1 for ids in found) or len({ids[0] for ids in found}) < 10:
        raise ValueError(f"this tokenizer has no single token for each digit: {found}; use another model")
    return [ids[0] for ids in found]

