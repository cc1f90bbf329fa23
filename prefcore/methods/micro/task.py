"""The task: what the chapter's arms learn from, and on what they are tested.

`default_task` is the human-rated texts under measured criteria, with the planted groups beside them; `own_task` is the
named votes of a user's file, whose annotators are the attributes. All that differs between the two is in the Task: what
a task lacks is empty, and the chapter is one program for both.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from prefcore.data.types import Parameters
from prefcore.methods.micro import annotators, criteria, losses
from prefcore.methods.micro.annotators import Annotators
from prefcore.methods.micro.criteria import SPLITS
from prefcore.methods.micro.mixture import Rows
from prefcore.methods.micro.world import planted
from prefcore.scoring import voters


class Population(NamedTuple):
    """Planted votes to learn from, a test set with exact probabilities, and the floor of whoever ignores the group."""

    votes: Rows
    truth: planted.Exact
    floor: losses.Floor


class Task(NamedTuple):
    """criteria: name -> split -> rows; planted: name -> Population; annotators: name -> Annotators.

    tuning: the worlds of `criteria` on whose validation rows settings are chosen. description: counts and examples, for
    a person to read.
    """

    criteria: Mapping[str, Mapping[str, Rows]]
    planted: Mapping[str, Population]
    annotators: Mapping[str, Annotators]
    tuning: list[Mapping[str, Rows]]
    description: str


def open_task(p: Parameters, embed: Callable) -> Task:
    """The default task, or that of the file of votes which `data` names. embed(list of texts) -> [N,D], unit length."""
    return own_task(p, embed) if p.data else default_task(p, embed)


def default_task(p: Parameters, embed: Callable) -> Task:
    """Opposite and pooled criteria, and the planted groups, on the texts of build/<profile>/."""
    pools = criteria.open_pools(p, embed)
    worlds = criteria.make_worlds(pools, embed, p)
    contexts = criteria.embed_contexts(planted.GROUPS, embed)
    votes = planted.draw_votes(pools["train"], contexts, p.planted_pairs[0], p.planted_beta, p.seed)
    truth = planted.make_exact(pools["test"], contexts, p.planted_pairs[1], p.planted_beta, p.seed)
    population = Population(votes, truth, losses.irreducible(truth.shares, truth.preferences))
    lines = [_count(f"{name}, {split}", worlds[name][split]) for name in worlds for split in SPLITS]
    for choice in criteria.opposite_choices(pools["train"], 2, p.gap, p.seed):
        better, worse = (pools["train"].texts[i].text for i in (choice.preferred, choice.other))
        lines.append(f"\n{criteria.CRITERIA[choice.attribute]}: {better}\n  is preferred to: {worse}")
    return Task(worlds, {"planted": population}, {}, [worlds["pooled"]], "\n".join(lines))


def own_task(p: Parameters, embed: Callable) -> Task:
    """The annotators of the user's file, as one group of people. DataError where its votes cannot be used."""
    people = annotators.make(voters.read(p.data, p.seed), embed, p.least_votes, p.folds)
    description = (
        f"{len(people.rows.pair)} votes by {len(people.names)} people (and {people.ties} ties, left out);\n"
        f"{len(people.new)} of them have {p.least_votes} votes or more, over {len(people.group.unique())} parts"
    )
    return Task({}, {}, {"people": people}, [], description)


def _count(name: str, rows: Rows) -> str:
    of_each = rows.attribute.bincount(minlength=len(criteria.CRITERIA)).tolist()
    return f"{name}: {rows.pair.max() + 1} pairs; rows of each criterion: {of_each}"
