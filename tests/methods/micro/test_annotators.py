"""Named votes of real people: whom a fold holds out, what a person's few votes may change, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from prefcore.data.rows import DataError
from prefcore.methods.micro import accuracy, annotators, mixture
from prefcore.methods.micro.criteria import scaled
from prefcore.methods.micro.mixture import Recipe
from prefcore.methods.micro.training import Schedule
from prefcore.scoring.votes import VotedPair


def embed(lines):
    """Unit vectors; the first two numbers of a text are read from it, so that people can want them."""
    out = np.stack([np.random.default_rng(list(line.encode())).normal(size=8) for line in lines])
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def read(lines):
    """What heads read."""
    return scaled(embed(lines))


def pair(i, topic, votes, split="train"):
    values, names = zip(*votes, strict=True)
    return VotedPair(f"p{i}", topic, f"{topic} a{i}", f"{topic} b{i}", values, (), float(np.mean(values)), topic, "all",
                     split, names)  # fmt: skip


@pytest.fixture
def pairs():
    """Four topics of 30 pairs; ann and bob want opposite things, cat and dan vote at random, a passer-by once."""
    rng, out = np.random.default_rng(0), []
    for topic in ("w", "x", "y", "z"):
        for i in range(30):
            gap = np.subtract(*embed([f"{topic} a{i}", f"{topic} b{i}"]))[0]
            votes = [(float(gap > 0), "ann"), (float(gap < 0), "bob"), (float(rng.integers(2)), "cat"),
                     (rng.choice([0.0, 0.5, 1.0]), "dan")]  # fmt: skip
            out.append(pair(i, topic, votes + ([(1.0, "eve")] if i == 0 and topic == "w" else [])))
    return out


@pytest.fixture
def people(pairs):
    return annotators.make(pairs, read, embed, least=20, folds=4)


def test_rows_are_votes_without_ties_seen_from_the_preferred_text(people, pairs):
    ties = sum(vote == 0.5 for p in pairs for vote in p.votes)
    assert people.ties == ties > 0 and len(people.rows.pair) == 481 - ties
    assert people.names == ["ann", "bob", "cat", "dan", "eve"] and people.new.tolist() == [0, 1, 2, 3]
    ann, bob = (people.rows.difference[people.rows.attribute == k] for k in (0, 1))
    assert torch.equal(ann, -bob) and (ann[:, 0] > 0).all()


def test_a_fold_holds_out_topics_and_people_and_all_votes_of_new_people_are_tested_once(people):
    folds = annotators.make_folds(people, 4, seed=0)
    assert len(folds) == 8
    tested = torch.cat([fold.test for fold in folds])
    assert len(tested) == len(tested.unique()) == int(torch.isin(people.rows.attribute, people.new).sum())
    for train, adapt, test in folds:
        topics, persons = people.group, people.rows.attribute
        assert not set(topics[train].tolist()) & set(topics[test].tolist())
        assert not set(topics[adapt].tolist()) & set(topics[test].tolist())
        assert not set(persons[train].tolist()) & set(persons[test].tolist())
        assert set(persons[adapt].tolist()) == set(persons[test].tolist())


def test_without_enough_topics_the_files_split_by_text_is_held_out(pairs):
    without = [p._replace(prompt="", split="train" if i % 5 else "test") for i, p in enumerate(pairs)]
    people = annotators.make(without, read, embed, least=20, folds=4)
    folds = annotators.make_folds(people, 4, seed=0)
    assert len(folds) == annotators.PERSON_FOLDS
    for fold in folds:
        assert {int(p) % 5 for p in people.rows.pair[fold.test]} == {0}
        assert 0 not in {int(p) % 5 for p in people.rows.pair[fold.train]}


def test_a_text_under_two_topics_is_not_held_out_by_topic(pairs):
    shared = pairs[0]._replace(prompt="z", id="again", split="test")
    people = annotators.make([*pairs, shared], read, embed, least=20, folds=4)
    assert people.group.unique().tolist() == [0, 1]


def test_few_votes_are_few_for_each_person_and_more_hold_the_fewer(people):
    fold = annotators.make_folds(people, 4, seed=0)[0]
    small, large = (annotators.take_few(people, fold, votes, seed=1) for votes in (3, 10))
    assert set(small.attribute.bincount().tolist()) <= {0, 3} and set(large.attribute.bincount().tolist()) <= {0, 10}
    assert set(small.pair.tolist()) <= set(large.pair.tolist())


def mean_loss(router_logits, margins):
    return -(router_logits.log_softmax(1) + torch.nn.functional.logsigmoid(margins)).logsumexp(1)


RECIPE = Recipe(mean_loss, 2, mixture.linear_router, mixture.linear_heads, "prompt")


def targets(logits, margins):
    return (logits.log_softmax(1) + torch.nn.functional.logsigmoid(margins)).softmax(1)


def cross_entropy(logits, goal):
    return -(goal * logits.log_softmax(1)).sum(1)


@pytest.fixture
def model(people):
    """Two heads that want opposite things, as ann and bob do."""
    made = mixture.make(people.rows, RECIPE, 0)
    with torch.no_grad():
        made.heads.weight.zero_()
        made.heads.weight[:, 0] = torch.tensor([3.0, -3.0])
    return made


def test_a_few_votes_route_a_person_to_the_head_that_agrees(people, model):
    rows = mixture.pick(people.rows, people.rows.attribute < 2)
    bias = annotators.adapt(model, mixture.take(rows, 5, 0), 5, targets, cross_entropy, Schedule(50, 0, 0.0, 0.2))
    assert bias.softmax(1)[0, 0] > 0.8 and bias.softmax(1)[1, 1] > 0.8
    assert bias[2:].tolist() == [[0.0, 0.0]] * 3  # no votes: as the router says
    weights = accuracy.attribute_weights(model, mixture.take(rows, 5, 0), 5, lambda m: m.sum(0).softmax(0)).exp()
    assert weights[0, 0] > 0.8 and weights[1, 1] > 0.8 and torch.allclose(weights[2:], torch.full((3, 2), 0.5))


def test_adapting_changes_neither_heads_nor_router(people, model):
    before = [p.clone() for p in (*model.heads.parameters(), *model.router.parameters())]
    annotators.adapt(model, people.rows, 5, targets, cross_entropy, Schedule(3, 0, 0.0, 0.2))
    after = [*model.heads.parameters(), *model.router.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def predict(logits, margins):
    return (logits.softmax(1) * margins.sigmoid()).sum(1)


def test_every_new_person_is_judged_on_all_their_votes_once_for_each_seed(people):
    """Ann and bob cancel out for one model of all; their own few votes say which head is theirs."""
    ways = {"bias": lambda m, few, n: annotators.adapt(m, few, n, targets, cross_entropy, Schedule(30, 0, 0.0, 0.3))}
    where = {"folds": 4, "votes": [5], "predict": predict, "ways": ways}
    single = RECIPE._replace(heads=1, loss=lambda g, m: -torch.nn.functional.logsigmoid(m[:, 0]))
    found, history = annotators.cross_validate(
        people, {"single": single, "two": RECIPE._replace(heads=4)}, Schedule(5, 16, 0.02, 0.02), seed=1, **where
    )
    assert set(found["arm"]) == {"single", "two", "two + 5 votes, bias"}
    assert (found.groupby("arm")["id"].nunique() == 4).all() and (found["seed"] == 1).all()
    assert set(history["arm"]) == {"single", "two"}


def test_accuracy_is_over_all_votes_of_a_person_whatever_the_fold():
    rows = [{"group": "people", "arm": "x", "seed": 0, "id": 7, "correct": c, "count": n} for c, n in ((3, 3), (0, 1))]
    found = annotators.over_folds([pd.DataFrame([row]) for row in rows])
    assert found["accuracy"].tolist() == [0.75]


def test_votes_of_a_person_are_never_of_use_to_another(people, model):
    fold = annotators.make_folds(people, 4, seed=0)[0]
    given = annotators.take_few(people, fold, 5, seed=0)
    person = int(given.attribute[0])
    how = targets, cross_entropy, Schedule(10, 0, 0.0, 0.2)
    alone = annotators.adapt(model, mixture.pick(given, given.attribute == person), 5, *how)
    together = annotators.adapt(model, given, 5, *how)
    torch.testing.assert_close(alone[person], together[person], atol=1e-4, rtol=0)


def test_one_person_only_is_refused(pairs):
    alone = [p._replace(votes=p.votes[:1], voters=p.voters[:1]) for p in pairs]
    with pytest.raises(DataError, match=r'field "votes": all 120 votes are by one person \(ann\)'):
        annotators.make(alone, read, embed, least=20, folds=4)


def test_votes_without_names_and_people_with_too_few_votes_are_refused(pairs):
    with pytest.raises(DataError, match='pair p0: field "votes": no vote names its voter'):
        annotators.make([p._replace(voters=()) for p in pairs], read, embed, least=20, folds=4)
    with pytest.raises(DataError, match=r"0 of 5 people have 500 votes that are no ties \(the most has 120\)"):
        annotators.make(pairs, read, embed, least=500, folds=4)
