"""The queries that there are to choose from, and how numbers of a question are read."""

from prefcore.methods.chase_sql import enumeration
from prefcore.methods.chase_sql.world import forms


def test_numbers_are_read_by_the_words_before_them():
    questions = ["pets with an age of more than 3", "pets under 5 years", "the 2 oldest pets", "age no less than 7"] * 3
    golds = ["... age > 3", "... age < 5", "... LIMIT 2", "... age >= 7"] * 3
    classifiers = enumeration.fit_classifiers(questions, ["rows", "rows", "order", "rows"] * 3, golds)
    found = {q: enumeration.read_numbers(q, classifiers) for q in questions}
    best = {q: max(ways, key=ways.get) for q, read in found.items() for ways in read.values()}
    assert list(best.values()) == [">", "<", "", ">="]
    assert classifiers.shapes("the 2 oldest pets")["order"] > 0.5


def test_a_count_in_having_is_no_comparison():
    questions = ["groups with more than 4 pets", "an age over 4"] * 2
    golds = ["SELECT x HAVING COUNT(*) > 4", "SELECT x WHERE age > 4"] * 2
    classifiers = enumeration.fit_classifiers(questions, ["busy", "rows"] * 2, golds)
    assert max(classifiers.operators("groups with more than").items(), key=lambda item: item[1])[0] == ""


def test_enumerated_queries_name_only_what_the_schema_has(splits, embed_words):
    problem = splits["test"].problems[0]
    classifiers = enumeration.fit_classifiers(["how many 3", "list 4"], ["count", "rows"], ["x > 3", "x < 4"])
    options = enumeration.list_options(problem, classifiers, embed_words)
    known = {c for columns in problem.schema.tables.values() for c in columns}
    assert {c for q in options.queries for c in (q.selected, q.number) if c} <= known
    assert len({forms.sql(q) for q in options.queries}) == len(options.queries) == len(options.parts)
