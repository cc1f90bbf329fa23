"""Transfer: does training on the choices that name one preference move a policy towards that preference?

Subsets of the planted choices become pairs to train on. A policy is measured on the bank of the reference's own answers
(scoring/bank.py): rho, within a prompt, of what it made likelier with the trait of the answer, measured by its formula.
So policies that went unequally far are compared, and one that writes nothing gains nothing. Samples at a common
distance confirm it, with the guards of lab/decisions.py.

Roles, for each trait:   own       trained on the choices that name it      few        on a quarter of them
                         other     the policy of the next trait             random     on as many choices of any kind
                         permuted  on all subsets together, half of each turned round
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from prefcore.data.types import Pair
from prefcore.lab import measures
from prefcore.lab.tasks import Task
from prefcore.methods.canonical_basis.world.choices import World
from prefcore.methods.canonical_basis.world.traits import NAMES, Scale
from prefcore.scoring.bank import Bank

FEWER = 4  # `few` has as many times fewer choices, and goes over them as many times more often


def holders(category: np.ndarray, planted: np.ndarray, traits: Sequence[str]) -> dict[str, int]:
    """trait -> the category that holds most mentions of it; category, planted [M] of each mention."""
    out = {}
    for trait in traits:
        own = category[planted == NAMES.index(trait)]
        if not len(own):
            raise ValueError(f"nobody mentions {trait}: raise planted_choices, or leave it out of subsets")
        out[trait] = int(np.bincount(own).argmax())
    return out


def draw_subsets(mentioned: np.ndarray, categories: Mapping[str, int], *, size: int, seed: int) -> dict[str, list]:
    """policy -> (choice, whether it is turned round) of at most `size` choices that mention its category.

    mentioned [N, C]. Beside the traits' own: `<trait>-few`, `random` and `permuted`, as the roles above say.
    """
    mixed = np.random.default_rng(seed).permutation(len(mentioned))
    own = {trait: mixed[mentioned[mixed, c]][:size].tolist() for trait, c in categories.items()}
    out = {trait: [(row, False) for row in rows] for trait, rows in own.items()}
    out |= {f"{trait}-few": out[trait][: max(1, len(rows) // FEWER)] for trait, rows in own.items()}
    out["random"] = [(row, False) for row in mixed[:size].tolist()]
    rounds = zip(*own.values(), strict=False)  # one choice of each trait, every second round turned round
    return out | {"permuted": [(row, n % 2 == 1) for n, rows in enumerate(rounds) for row in rows][:size]}


def make_pairs(world: World, rows: Sequence[tuple[int, bool]]) -> list[Pair]:
    """These choices as pairs to train on: the winner's whole text after its domain's name, or the loser's if turned."""
    out = []
    for i, turned in rows:
        better, worse = (world.texts[position[i]].text for position in (world.winner, world.loser))
        domain = world.texts[world.winner[i]].domain
        chosen, rejected = (worse, better) if turned else (better, worse)
        out.append(Pair(f"planted:{i}", f"{domain}:", f" {chosen}", f" {rejected}"))
    return out


def rated_by_traits(task: Task, scale: Scale, *, chosen_by: str) -> Task:
    """The task with a bank that is rated by the traits of its answers, in standard scores of the world's texts."""

    def bank(split, tokenizer) -> Bank:
        found = task.bank(split, tokenizer)
        answers = [[tokenizer.decode(ids, skip_special_tokens=True) for ids in e.completions] for e in found.examples]
        raters = np.stack([scale.standard(texts) for texts in answers])
        return found._replace(ratings={name: raters[..., j] for j, name in enumerate(NAMES)})

    return task._replace(bank=bank, chosen_by=chosen_by)


def by_role(table: pd.DataFrame, ratings: Mapping[str, measures.Ratings]) -> pd.DataFrame:
    """Rows (role as arm, seed, id of prompt and trait, trait as group, ratio_k, rating_k) from the policies' own rows.

    ratings: trait -> prompt id -> its answers' traits. A prompt whose answers do not differ in a trait says nothing
    about it and is left out. The reference's own rows (log-probability and tokens of each answer) stand once a trait.
    """
    parts, traits = [], list(ratings)
    ratios = [name for name in table if name.startswith("ratio_")]
    known = table.dropna(subset=ratios)[["arm", "seed", "id", *ratios]].round(3)
    given = [name for name in table if name.startswith(("logp_", "tokens_"))]
    reference = table[table["arm"] == "reference"].dropna(subset=given)[["arm", "seed", "id", *given]].round(3)
    for trait, following in zip(traits, [*traits[1:], traits[0]], strict=True):
        roles = {trait: "own", f"{trait}-few": "few", "random": "random", "permuted": "permuted"}
        roles |= {following: "other"} if following != trait else {}
        own = pd.concat([known[known["arm"].isin(roles)], reference])
        rated = pd.DataFrame(ratings[trait]).T
        rated = rated[rated.nunique(axis=1) > 1]
        rated.columns = [f"rating_{k + 1}" for k in range(rated.shape[1])]
        own = own[own["id"].isin(rated.index)].join(rated.round(3), on="id")
        names = own["id"].astype(str) + "/" + trait
        parts.append(own.assign(arm=own["arm"].replace(roles), group=trait, id=names))
    return pd.concat(parts)


def sampled_by_role(samples: pd.DataFrame, scale: Scale, traits: Sequence[str]) -> pd.DataFrame:
    """Rows (role as arm, seed, id, group, trait: standard score) of texts that were drawn at the common distance."""
    samples = samples.reset_index(drop=True)
    scores = pd.DataFrame(scale.standard(samples["text"].fillna("").tolist()), columns=list(NAMES))
    parts = []
    for trait in traits:
        roles = {trait: "own", "random": "random", "reference": "reference"}
        there = samples["arm"].isin(roles)
        rows = samples.loc[there, ["arm", "seed", "id"]].assign(group=trait, trait=scores.loc[there, trait].round(4))
        parts.append(rows.assign(arm=rows["arm"].map(roles), id=rows["id"].astype(str) + "/" + trait))
    return pd.concat(parts)


def pool_roles(samples: pd.DataFrame, traits: Sequence[str]) -> pd.DataFrame:
    """The samples with every trait's policy under the one name `own`, as the guards judge them."""
    return samples.assign(arm=samples["arm"].replace(dict.fromkeys(traits, "own")))
