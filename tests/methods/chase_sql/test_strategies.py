"""The generators without a language model: what they draw, and that gold of a database does not serve that database."""

import numpy as np

from prefcore.methods.chase_sql import database, strategies


def test_the_weights_that_serve_a_database_do_not_depend_on_what_is_right_there():
    rng = np.random.default_rng(0)
    groups = ["a", "a", "b", "b", "c", "c"]
    options = [rng.normal(size=(6, 2)) for _ in groups]
    right = [np.arange(6) == rng.integers(6) for _ in groups]
    other = [~truth if group == "a" else truth for truth, group in zip(right, groups, strict=True)]
    one, two = (strategies._fit_apart(options, truth, groups) for truth in (right, other))
    assert (one["a"].weights == two["a"].weights).all()
    assert (one[""].weights != two[""].weights).any() and (one["b"].weights != two["b"].weights).any()


def test_every_strategy_draws_queries_that_run_on_the_problems_database(splits, generators):
    test = splits["test"]
    for one in generators.values():
        for problem, texts in zip(test.problems, one.draw(test.problems, 3, 1.8, 0), strict=True):
            assert len(texts) == 3
            assert not any(database.execute(test.connections[problem.db_id], text).error for text in texts)


def test_the_strategies_differ_in_what_they_propose(splits, generators):
    drawn = {name: one.draw(splits["test"].problems, 1, 0.0, 0) for name, one in generators.items()}
    assert len({str(texts) for texts in drawn.values()}) == 3


def test_at_temperature_0_draws_are_equal_and_at_a_high_one_they_are_not(splits, generators):
    problems = splits["test"].problems
    for one in generators.values():
        cold, hot = (one.draw(problems, 6, t, 0) for t in (0.0, 3.0))
        assert all(len(set(texts)) == 1 for texts in cold)
        assert np.mean([len(set(texts)) for texts in hot]) > 1.5
        assert one.draw(problems, 6, 3.0, 0) == hot and one.draw(problems, 6, 3.0, 1) != hot


def test_a_draw_does_not_depend_on_the_other_questions(splits, generators):
    problems = splits["test"].problems
    for one in generators.values():
        assert one.draw(problems, 2, 1.8, 0)[3] == one.draw(problems[3:4], 2, 1.8, 0)[0]


def test_greedy_answers_are_right_more_often_than_random_options(splits, generators):
    """It improves: on 42 training questions, each read without its database, and 12 of test databases."""
    right, chance = [], []
    for world in splits.values():
        for question, problem in zip(world.questions, world.problems, strict=True):
            gold = database.execute(world.connections[problem.db_id], question.gold)
            cold, hot = (generators["divide"].draw([problem], n, t, 0)[0] for n, t in ((1, 0.0), (20, 1e6)))
            found = [database.execute(world.connections[problem.db_id], text) for text in cold + hot]
            same = [database.same(result, gold) for result in found]
            right.append(same[0])
            chance.append(np.mean(same[1:]))
    assert np.mean(right) > 1.5 * np.mean(chance)
