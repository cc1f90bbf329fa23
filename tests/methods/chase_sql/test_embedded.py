"""The arms on the embedded world: their bounds, and that an ablation leaves out what it says."""

import pytest

from prefcore.methods.chase_sql import embedded, execution, features, linear_judge, results, selector, system

HOW = {"samples": 2, "temperature": 1.8, "attempts": 1, "seed": 0}


@pytest.fixture(scope="module")
def trained(splits, generators, embed_words):
    train = splits["train"]
    questions, _ = system.propose(train, generators, samples=3, temperature=1.8, attempts=0, seed=0)
    executed = execution.run(questions, train.folder)
    content = features.describe_content(executed.pools, embed_words)
    pairs = selector.training_pairs(executed.pools, executed.correct, seed=0, per_question=4)
    judge = linear_judge.fit(*content, *pairs, [pool.db_id for pool in executed.pools])
    return embedded.Trained(generators, executed, content, judge, embed_words, "plan")


def test_no_arm_is_above_the_oracle_or_below_the_lower_bound(trained, splits):
    _, executed = embedded.run(trained, splits["test"], samples=3, temperature=1.8, attempts=3, seed=0)
    wide = embedded.compare_arms(trained, executed).pivot(index="id", columns="arm", values="right")
    for arm in wide:
        assert (wide[arm] <= wide["oracle"]).all() and (wide[arm] >= wide["lower bound"]).all()
    without = {"single", "self-consistency", "random", "oracle", "lower bound"}
    assert set(wide) == without | {"ranker", "untuned", "selector"}


def test_an_ablation_leaves_out_what_it_says(trained, splits):
    questions, _ = embedded.run(trained, splits["test"], **HOW)
    found = embedded.ablate(trained, splits["test"], questions, temperatures=[0.5], **HOW)
    parts = {"without values", "without fixer", *(f"without {name}" for name in trained.generators)}
    assert set(found) == parts | {"rows counted", "temperature 0.5"}
    for name in trained.generators:
        assert {s for b in found[f"without {name}"].pools for s in b.systems} == set(trained.generators) - {name}
    assert [b.sqls for b in found["without values"].pools] != [b.sqls for b in found["without fixer"].pools]
    assert [b.sqls for b in found["temperature 0.5"].pools] != [b.sqls for b in found["rows counted"].pools]


def test_questions_are_counted_by_the_set_of_generators_that_solve_them(trained, splits):
    _, executed = embedded.run(trained, splits["test"], **HOW | {"attempts": 0})
    alone = results.solved_alone(executed, list(trained.generators))
    assert sum(alone.values()) == len(executed.pools)
    oracle = sum(bool(truth.any()) for truth in executed.correct)
    assert alone.get("none", 0) == len(executed.pools) - oracle
