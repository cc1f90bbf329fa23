"""Synthetic examples: they run on the question's database, the nearest first."""

from prefcore.methods.chase_sql import database, examples


def test_synthetic_examples_run_give_rows_and_come_nearest_first(splits, embed_words):
    problem = splits["test"].problems[0]
    connection = splits["test"].connections[problem.db_id]
    found = examples.synthesise(problem, connection, embed_words, size=12, seed=0)
    assert 6 <= len(found) <= 12
    assert all(database.execute(connection, text).rows for _, text, _ in found)
    near = [float(embed_words([words])[0] @ embed_words([problem.question])[0]) for words, _, _ in found]
    assert near == sorted(near, reverse=True)
    assert found == examples.synthesise(problem, connection, embed_words, size=12, seed=0)


def test_filtered_columns_are_those_with_values_and_the_nearest(splits, embed_words):
    problem = next(p for p in splits["test"].problems if p.values)
    near = examples.near_columns(problem, embed_words, most=2)
    assert len(near) == 2 and next(iter(near)) in {c.column for c in problem.values}
