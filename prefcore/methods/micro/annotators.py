"""Annotators as the attributes: votes with names, new people held out together with the texts that they judge.

A new person is one with at least `least` votes. A fold holds out some prompts and some new people: a model learns from
the other people's votes on the other prompts, adapts to a new person by a few of that person's votes on those same
prompts, and is tested on the person's votes on the held-out prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from prefcore.data.rows import DataError
from prefcore.methods.micro import accuracy, mixture, training
from prefcore.methods.micro.criteria import scaled
from prefcore.methods.micro.mixture import Mixture, Recipe, Rows
from prefcore.methods.micro.training import Schedule
from prefcore.scoring import voters
from prefcore.scoring.votes import VotedPair

PERSON_FOLDS = 2


class Annotators(NamedTuple):
    """rows: one a vote, ties left out; attribute is the person's number, prompt, seen and unseen are the pair's prompt.

    names [P] of all people; new [p]: numbers of those with enough votes; group [n]: what is held out together (the
    prompt's number, or 0 for the training split and 1 for the rest, where there are too few prompts); ties: how many.
    """

    rows: Rows
    names: list[str]
    new: Tensor
    group: Tensor
    ties: int


class Fold(NamedTuple):
    """Positions of rows: to train on, to adapt to a new person, to test on."""

    train: Tensor
    adapt: Tensor
    test: Tensor


def make(pairs: Sequence[VotedPair], read: Callable, embed: Callable, least: int, folds: int) -> Annotators:
    """The named votes as rows. read(list of texts) -> [N,D] is what heads read, embed(list of prompts) -> [N,Q] of unit
    length what the router reads.

    Raises DataError where votes have no names, only one person voted, or fewer than two people have `least` votes.
    """
    names, votes = _named_votes(pairs)
    kept = np.array([row for row in votes if row[2] != 0.5], dtype=float).reshape(-1, 3)
    at, person, vote = kept[:, 0].astype(int), kept[:, 1].astype(int), kept[:, 2]
    new = _frequent(person, names, least)
    texts = sorted({text for pair in pairs for text in (pair.a, pair.b)})
    vectors = dict(zip(texts, read(texts), strict=True))
    gaps = np.stack([vectors[pair.a] - vectors[pair.b] for pair in pairs])
    difference = torch.from_numpy(gaps[at] * np.where(vote > 0.5, 1, -1)[:, None].astype(np.float32))
    prompts = sorted({pair.prompt for pair in pairs})
    number = np.array([prompts.index(pair.prompt) for pair in pairs])
    prompt = torch.from_numpy(scaled(embed([name or "text" for name in prompts])))[number[at]]
    once = len({(text, pair.prompt) for pair in pairs for text in (pair.a, pair.b)}) == len(texts)
    if len(prompts) < folds or not once:  # then the file's split by text decides what is held out
        number = np.array([int(pair.split != "train") for pair in pairs])
    numbers, cast = (torch.from_numpy(person), torch.from_numpy(at)), torch.ones(len(at))
    rows = Rows(difference, prompt, prompt, prompt, *numbers, cast, cast)
    return Annotators(rows, names, torch.from_numpy(new), torch.from_numpy(number[at]), len(votes) - len(kept))


def read(source: str) -> list[VotedPair]:
    """The pairs of a file; DataError, before anything is embedded, where nobody knows who voted."""
    pairs = voters.read_enough(source)
    try:
        _named_votes(pairs)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    return pairs


def _named_votes(pairs: Sequence[VotedPair]) -> tuple[list[str], list[tuple[int, int, float]]]:
    """(names, one (pair, person, vote) for each vote)."""
    unnamed = [pair.id for pair in pairs if len(pair.voters) != len(pair.votes)]
    if unnamed:
        nobody = len(unnamed) == len(pairs)
        what = "no vote names its voter" if nobody else f"those on {len(unnamed)} pairs name no voter"
        raise DataError(f'pair {unnamed[0]}: field "votes": {what}; write each vote as {{"voter": name, "vote": "a"}}')
    names = sorted({name for pair in pairs for name in pair.voters})
    if len(names) < 2:
        count = sum(len(pair.votes) for pair in pairs)
        raise DataError(f'field "votes": all {count} votes are by one person ({names[0]}); give votes of two or more')
    number = {name: k for k, name in enumerate(names)}
    votes = [
        (i, number[name], vote)
        for i, pair in enumerate(pairs)
        for name, vote in zip(pair.voters, pair.votes, strict=True)
    ]
    return names, votes


def _frequent(person: np.ndarray, names: Sequence[str], least: int) -> np.ndarray:
    count = np.bincount(person, minlength=len(names))
    new = np.flatnonzero(count >= least)
    if len(new) < 2:
        raise DataError(
            f'field "votes": {len(new)} of {len(names)} people have {least} votes that are no ties (the most has '
            f"{count.max()}), and two are needed; give more votes or lower least_votes"
        )
    return new


def make_folds(people: Annotators, folds: int, seed: int) -> list[Fold]:
    """All folds: `folds` parts of the prompts (one, where there are too few) times two parts of the new people."""
    rng = np.random.default_rng(seed)
    groups = people.group.unique().numpy()
    parts = np.array_split(rng.permutation(groups), folds) if len(groups) >= folds > 1 else [groups[-1:]]
    persons = np.array_split(rng.permutation(people.new.numpy()), PERSON_FOLDS)
    out = []
    for part in parts:
        outside = torch.isin(people.group, torch.from_numpy(part))
        for some in persons:
            held = torch.isin(people.rows.attribute, torch.from_numpy(some))
            masks = (~outside & ~held, ~outside & held, outside & held)
            out.append(Fold(*(torch.nonzero(mask)[:, 0] for mask in masks)))
    return out


def take_few(people: Annotators, fold: Fold, votes: int, seed: int) -> Rows:
    """At most `votes` random votes of each new person of the fold, to adapt to; more hold what fewer held."""
    order = fold.adapt[torch.randperm(len(fold.adapt), generator=torch.Generator().manual_seed(seed))]
    person = people.rows.attribute[order].numpy()
    rank = pd.Series(person).groupby(person).cumcount().to_numpy()
    return mixture.pick(people.rows, order[torch.from_numpy(rank < votes)])


def adapt(
    model: Mixture, rows: Rows, persons: int, targets: Callable, loss: Callable, schedule: Schedule
) -> Tensor:  # fmt: skip
    """A router bias for each person [P,K] from a few votes: the linear router whose context is the person's name.

    Heads and router stay as they are. targets(router_logits, margins) -> [n,K], anew each epoch; loss(router_logits,
    targets) -> [n]. All rows are one batch, so there are as many steps as epochs; a person without votes keeps 0.
    """
    logits, margins = mixture.outputs(model, rows)
    bias = torch.zeros(persons, logits.shape[1], requires_grad=True)

    def losses(index, epoch):
        at = (logits + bias[rows.attribute])[index]
        return loss(at, targets(at.detach(), margins[index]))

    learns = {"params": [bias], "lr": schedule.router_rate}
    training.minimise([learns], losses, len(logits), schedule._replace(batch_size=len(logits)), seed=0)
    return bias.detach()


def evaluate(
    people: Annotators, fold: Fold, model: Mixture, arm: str, seed: int, votes: Sequence[int],
    predict: Callable, ways: Mapping[str, Callable],
) -> pd.DataFrame:  # fmt: skip
    """The model on the held-out votes of a fold's new people, without and with some of their other votes.

    predict(router_logits [n,K], margins [n,K]) -> [n]. ways: name -> way(model, rows [few], persons) -> router logits
    [P,K] that are added to the router's. One row a person and arm: group, id, arm, seed, correct, count.
    """
    rows = mixture.pick(people.rows, fold.test)
    logits, margins = mixture.outputs(model, rows)
    shifts = {arm: torch.zeros_like(logits)}
    for number in votes if ways else ():
        given = take_few(people, fold, number, seed)
        for name, way in ways.items():
            shifts[f"{arm} + {number} votes, {name}"] = way(model, given, len(people.names))[rows.attribute]
    frames = []
    for name, shift in shifts.items():
        values = accuracy.correct(predict(logits + shift, margins)).numpy()
        found = pd.DataFrame({"id": rows.attribute.numpy(), "value": values}).groupby("id")["value"]
        frames.append(found.agg(correct="sum", count="count").reset_index().assign(group="people", arm=name, seed=seed))
    return pd.concat(frames)


def cross_validate(
    people: Annotators, recipes: Mapping[str, Recipe], schedule: Schedule, *, folds: int, seed: int,
    votes: Sequence[int], predict: Callable, ways: Mapping[str, Callable],
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """(scores of each new person and arm, training history) of one training seed, over all folds; see `evaluate`.

    The folds are the same for every seed. Models of one head have nothing to route, so no way is tried on them.
    """
    frames, histories = [], []
    for fold, (arm, recipe) in product(make_folds(people, folds, 0), recipes.items()):
        model, history = training.train(mixture.pick(people.rows, fold.train), recipe, schedule, seed)
        histories.append(history.assign(world="people", arm=arm, seed=seed))
        frames.append(evaluate(people, fold, model, arm, seed, votes, predict, ways if recipe.heads > 1 else {}))
    return over_folds(frames), pd.concat(histories)


def over_folds(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Scores of each person, arm and seed over all folds: group, arm, seed, id, accuracy."""
    keys = ["group", "arm", "seed", "id"]
    sums = pd.concat(frames).groupby(keys, sort=False)[["correct", "count"]].sum().reset_index()
    return sums.assign(accuracy=sums["correct"] / sums["count"])[[*keys, "accuracy"]]
