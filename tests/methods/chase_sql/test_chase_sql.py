"""Values, generators, fixer and the system around them; database, votes and selector have tests in chase_sql/."""

import inspect
import zlib
from collections import Counter

import numpy as np
import pytest
from scipy import special

from prefcore.methods.chase_sql import (
    arms,
    database,
    enumeration,
    fixer,
    generators,
    ranking,
    strategies,
    system,
    values,
    votes,
)  # fmt: skip
from prefcore.methods.chase_sql.candidates import Candidate
from prefcore.methods.chase_sql.database import Result
from prefcore.methods.chase_sql.world import databases as sql_world
from prefcore.methods.chase_sql.world import forms as sql_forms
from prefcore.methods.chase_sql.world import layouts as sql_layouts
from prefcore.methods.chase_sql.world.forms import Column, Condition

TOWN, NAME, AGE = Column("owner", "town", False), Column("pet", "nm", False), Column("pet", "age", True)


def words_as_vectors(texts):
    """A stand-in for an encoder: hashed words and their beginnings, of unit length."""
    table = np.full((len(texts), 96), 1e-6)
    for row, text in zip(table, texts, strict=True):
        for word in text.lower().replace("_", " ").split():
            row[zlib.crc32(word.strip(".,?;").encode()) % 96] += 1
            row[zlib.crc32(word[:4].encode()) % 96] += 1
    return table / np.linalg.norm(table, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    sizes = {"train": 3, "dev": 1, "test": 2}
    sql_world.build({"seed": 1, "sql_rows": 12, "sql_questions": sizes, "sql_lessons": 0}, folder)
    return folder / "sql_world"


@pytest.fixture(scope="module")
def embed():
    return system.remembering(words_as_vectors)


@pytest.fixture(scope="module")
def worlds(build, embed, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))  # where the index is kept
        return {split: system.open_world(build, split, 5, embed) for split in ("train", "test")}


@pytest.fixture(scope="module")
def made(worlds, embed):
    train = worlds["train"]
    shapes, golds = [q.shape for q in train.questions], [q.gold for q in train.questions]
    both = train.connections | worlds["test"].connections
    return strategies.learn_generators(train.problems, shapes, golds, embed, both)


# --- values ------------------------------------------------------------------------------------------------------

CELLS = {TOWN: ["NEW HAVEN", "white_plains", "Trav. Agen. ", "Long  Beach"], NAME: ["Rex", "Bo"], AGE: [1, 2]}


@pytest.mark.parametrize(("question", "cell"), [
    ("How many owners live in New Haven?", "NEW HAVEN"),
    ("Show pets of White Plains.", "white_plains"),
    ("bookings of the travel agency", "Trav. Agen. "),
    ("What about Long Beach?", "Long  Beach"),
    ("How old is rex?", "Rex"),
])  # fmt: skip
def test_a_value_is_found_however_somebody_typed_it(question, cell):
    found = values.retrieve(question, values.build_index(CELLS), words_as_vectors)
    assert found[0].value == cell and found[0].operator == "="


def test_case_spaces_and_underscores_do_not_change_shingles_and_short_texts_have_some():
    assert values.shingles("New Haven") == values.shingles("NEW_HAVEN") == values.shingles(" new  haven ")
    assert values.shingles("Bo") == {" bo", "bo "} and values.shingles("") and values.shingles("x") == {" x "}


def test_the_minhash_estimates_jaccard_similarity():
    """abcdefgh and abcdefxy, each with a space at both ends, have 8 shingles; the first 5 are shared, of 11 in all."""
    first, second = "abcdefgh", "abcdefxy"
    one, two = values.shingles(first), values.shingles(second)
    exact = len(one & two) / len(one | two)
    assert exact == 5 / 11
    assert (values.sign(first) == values.sign(second)).mean() == pytest.approx(exact, abs=0.15)  # three standard errors
    assert (values.sign("New Haven") == values.sign("NEW_HAVEN")).all()


def test_lsh_finds_what_a_slow_search_over_all_cells_finds():
    cells = {TOWN: [f"{a} {b}" for a in ("silent", "golden", "broken") for b in ("river", "garden", "lantern")]}
    index = values.build_index(cells)
    signature = values.sign("golden gardn")
    slow = sorted(range(9), key=lambda i: -(index.signatures[i] == signature).mean())
    assert values.near("golden gardn", index)[0] == slow[0] and index.cells[slow[0]][1] == "golden garden"


def test_keywords_are_spans_without_stop_words_at_their_ends_and_quoted_texts():
    found = values.keywords('How many pets have the name "Rex the Dog" in Long Beach?')
    assert found[0] == "Rex the Dog" and {"Long Beach", "pets", "Long"} <= set(found)
    assert not {"How many pets", "the", "Long Beach in"} & set(found)


def test_the_cached_index_is_the_same_index_and_another_content_another_file(tmp_path):
    first = values.build_index(CELLS, tmp_path)
    again = values.build_index(CELLS, tmp_path)
    assert (first.signatures == again.signatures).all() and first.cells == again.cells
    assert len(list(tmp_path.iterdir())) == 1
    values.build_index({TOWN: ["York"]}, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_database_and_a_question_without_keywords_give_no_value():
    assert values.retrieve("How many pets?", values.build_index({AGE: [1]}), words_as_vectors) == []
    assert values.retrieve("how many", values.build_index(CELLS), words_as_vectors) == []


def test_without_retrieval_a_value_is_spelled_as_in_the_question():
    found = values.spelled_in("How many owners live in New Haven?", [TOWN, AGE])
    assert Condition(TOWN, "=", "New Haven") in found and not any(c.column == AGE for c in found)


def test_recall_counts_what_gold_compares_with():
    found = [Condition(TOWN, "=", "York")]
    assert values.recall(found, ["York", "LEEDS"]) == 0.5 and values.recall(found, []) is None


# --- gold stays away -----------------------------------------------------------------------------------------------


def test_what_a_generator_is_given_has_no_place_for_gold():
    assert generators.Problem._fields == ("id", "db_id", "question", "schema", "contents", "values")
    for function in (system.draft, system.repair, system.without_values, generators.synthesise):
        assert not {"gold", "golds", "questions"} & set(inspect.signature(function).parameters)


def test_other_gold_for_the_test_questions_changes_no_candidate(worlds, made, build, embed, monkeypatch, tmp_path):
    """The whole way from the file of questions to candidates, with every test gold replaced."""
    drawn = {"samples": 2, "temperature": 1.8, "seed": 4}
    real = sql_world.read_questions

    def garbled(path):
        return [q._replace(gold="SELECT 'nothing'", shape="rows", family="filter") for q in real(path)]

    monkeypatch.chdir(tmp_path)
    before = system.draft(worlds["test"].problems, made, **drawn)
    monkeypatch.setattr(sql_world, "read_questions", garbled)
    other = system.open_world(build, "test", 5, embed)
    assert [q.gold for q in other.questions] != [q.gold for q in worlds["test"].questions]
    assert system.draft(other.problems, made, **drawn) == before


def test_gold_is_shown_as_a_hint_for_training_questions_only(worlds, made):
    test = worlds["test"]
    asked = [system.Question(q.id, q.db_id, q.question, q.gold, (Candidate("x", "SELECT 1"),)) for q in test.questions]
    with pytest.raises(ValueError, match="training questions only, not for test"):
        system.hint(test, asked, votes.poll(asked, test.folder), made, seed=0)


def test_a_training_question_without_a_right_candidate_gets_hinted_ones_and_another_none(worlds, made):
    train = worlds["train"]
    asked = [system.Question(q.id, q.db_id, q.question, q.gold,
                             (Candidate("x", q.gold if i else "SELECT 'wrong'"),))
             for i, q in enumerate(train.questions[:3])]  # fmt: skip
    part = train._replace(questions=train.questions[:3], problems=train.problems[:3])
    hinted, needy = system.hint(part, asked, votes.poll(asked, train.folder), made, seed=0)
    assert needy == 1 and hinted[1:] == asked[1:]
    assert Counter(c.system for c in hinted[0].candidates) == {"x": 1, system.HINTED: 3}


def test_the_weights_that_serve_a_database_do_not_depend_on_what_is_right_there():
    rng = np.random.default_rng(0)
    groups = ["a", "a", "b", "b", "c", "c"]
    options = [rng.normal(size=(6, 2)) for _ in groups]
    right = [np.arange(6) == rng.integers(6) for _ in groups]
    other = [~truth if group == "a" else truth for truth, group in zip(right, groups, strict=True)]
    one, two = (strategies._fit_apart(options, truth, groups) for truth in (right, other))
    assert (one["a"].weights == two["a"].weights).all()
    assert (one[""].weights != two[""].weights).any() and (one["b"].weights != two["b"].weights).any()


# --- generators ----------------------------------------------------------------------------------------------------


def test_every_strategy_draws_queries_that_run_on_the_problems_database(worlds, made):
    test = worlds["test"]
    for one in made.values():
        for problem, texts in zip(test.problems, one.draw(test.problems, 3, 1.8, 0), strict=True):
            assert len(texts) == 3
            assert not any(database.execute(test.connections[problem.db_id], text).error for text in texts)


def test_the_strategies_differ_in_what_they_propose(worlds, made):
    drawn = {name: one.draw(worlds["test"].problems, 1, 0.0, 0) for name, one in made.items()}
    assert len({str(texts) for texts in drawn.values()}) == 3


def test_at_temperature_0_draws_are_equal_and_at_a_high_one_they_are_not(worlds, made):
    problems = worlds["test"].problems
    for one in made.values():
        cold, hot = (one.draw(problems, 6, t, 0) for t in (0.0, 3.0))
        assert all(len(set(texts)) == 1 for texts in cold)
        assert np.mean([len(set(texts)) for texts in hot]) > 1.5
        assert one.draw(problems, 6, 3.0, 0) == hot and one.draw(problems, 6, 3.0, 1) != hot


def test_a_draw_does_not_depend_on_the_other_questions(worlds, made):
    problems = worlds["test"].problems
    for one in made.values():
        assert one.draw(problems, 2, 1.8, 0)[3] == one.draw(problems[3:4], 2, 1.8, 0)[0]


def test_greedy_answers_are_right_more_often_than_random_options(worlds, made):
    """It improves: on 42 training questions, each read without its database, and 12 of test databases."""
    right, chance = [], []
    for world in worlds.values():
        for question, problem in zip(world.questions, world.problems, strict=True):
            gold = database.execute(world.connections[problem.db_id], question.gold)
            cold, hot = (made["divide"].draw([problem], n, t, 0)[0] for n, t in ((1, 0.0), (20, 1e6)))
            found = [database.execute(world.connections[problem.db_id], text) for text in cold + hot]
            told = [database.same(result, gold) for result in found]
            right.append(told[0])
            chance.append(np.mean(told[1:]))
    assert np.mean(right) > 1.5 * np.mean(chance)


def test_synthetic_examples_run_give_rows_and_come_nearest_first(worlds, embed):
    problem = worlds["test"].problems[0]
    connection = worlds["test"].connections[problem.db_id]
    found = generators.synthesise(problem, connection, embed, size=12, seed=0)
    assert 6 <= len(found) <= 12
    assert all(database.execute(connection, text).rows for _, text, _ in found)
    near = [float(embed([words])[0] @ embed([problem.question])[0]) for words, _, _ in found]
    assert near == sorted(near, reverse=True)
    assert found == generators.synthesise(problem, connection, embed, size=12, seed=0)


def test_filtered_columns_are_those_with_values_and_the_nearest(worlds, embed):
    problem = next(p for p in worlds["test"].problems if p.values)
    near = generators.near_columns(problem, embed, most=2)
    assert len(near) == 2 and next(iter(near)) in {c.column for c in problem.values}


def test_the_schema_of_a_file_leaves_out_keys_and_knows_links(build, worlds):
    name = worlds["test"].problems[0].db_id
    schema = generators.read_schema(build / "database" / name / f"{name}.sqlite")
    assert schema.links and all(link.key.endswith("_id") for link in schema.links)
    assert not [c for columns in schema.tables.values() for c in columns if c.name.endswith("_id")]
    kinds = {c.numeric for columns in schema.tables.values() for c in columns}
    assert kinds == {True, False}


class Echo:
    """A language model that answers each request with a query naming its number, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, requests):
        self.asked += requests
        return [f"Thinking\nFinal SQL: SELECT {i}" for i in range(len(requests))]


def test_a_language_model_is_asked_once_a_sample_with_its_own_seed_and_schema_order(worlds):
    problems, model = worlds["test"].problems[:2], Echo()
    one = generators.prompted("divide", model, lambda problem, seed: [], taught=True, max_tokens=9)
    drawn = one.draw(problems, 4, 0.7, 10)
    assert drawn == [[f"SELECT {2 * k + i}" for k in range(4)] for i in range(2)]
    assert [r.seed for r in model.asked] == [10, 10, 11, 11, 12, 12, 13, 13]
    assert {r.temperature for r in model.asked} == {0.7} and {r.max_tokens for r in model.asked} == {9}
    schemas = {r.messages[0][1].split("Schema: ")[1].split("\n")[0] for r in model.asked[::2]}
    assert len(schemas) > 1
    golds = [q.gold for q in worlds["test"].questions]
    assert not [r for r in model.asked for gold in golds if gold in str(r.messages)]


def test_the_synthetic_strategy_shows_its_examples_and_the_others_do_not(worlds):
    problem, model = worlds["test"].problems[0], Echo()
    for strategy in sql_layouts.STRATEGIES:
        one = generators.prompted(strategy, model, lambda problem, seed: [("count x", "SELECT 77")], taught=False,
                                  max_tokens=9)  # fmt: skip
        one.draw([problem], 1, 1.0, 0)
    shown = ["SELECT 77" in str(request.messages) for request in model.asked]
    assert shown == [False, False, True]


def test_a_repair_shows_the_failed_query_and_what_came_of_it_and_a_hint_shows_gold(worlds):
    problem, model = worlds["test"].problems[0], Echo()
    one = generators.prompted("plan", model, lambda problem, seed: [], taught=False, max_tokens=9)
    assert one.repair([problem], ["SELEC 1"], ["error: invalid SQL"], 0) == ["SELECT 0"]
    assert "SELEC 1" in str(model.asked[0].messages) and "error: invalid SQL" in str(model.asked[0].messages)
    one.regenerate([problem], ["SELECT 'the gold'"], 0)
    assert "SELECT 'the gold'" in str(model.asked[1].messages)


# --- how numbers and shapes are read ---------------------------------------------------------------------------------


def test_numbers_are_read_by_the_words_before_them():
    questions = ["pets with an age of more than 3", "pets under 5 years", "the 2 oldest pets", "age no less than 7"] * 3
    golds = ["... age > 3", "... age < 5", "... LIMIT 2", "... age >= 7"] * 3
    taught = enumeration.teach(questions, ["rows", "rows", "order", "rows"] * 3, golds)
    said = {q: enumeration.read_numbers(q, taught) for q in questions}
    best = {q: max(ways, key=ways.get) for q, read in said.items() for ways in read.values()}
    assert list(best.values()) == [">", "<", "", ">="]
    assert taught.shapes("the 2 oldest pets")["order"] > 0.5


def test_a_count_in_having_is_no_comparison():
    taught = enumeration.teach(["groups with more than 4 pets", "an age over 4"] * 2, ["busy", "rows"] * 2,
                               ["SELECT x HAVING COUNT(*) > 4", "SELECT x WHERE age > 4"] * 2)  # fmt: skip
    assert max(taught.operators("groups with more than").items(), key=lambda item: item[1])[0] == ""


# --- ranking -------------------------------------------------------------------------------------------------------


def test_the_softmax_learns_which_feature_tells_right_from_wrong():
    rng = np.random.default_rng(0)
    options = [rng.normal(size=(8, 3)) for _ in range(60)]
    right = [np.arange(8) == x[:, 1].argmax() for x in options]
    weights = ranking.fit(options, right, ridge=0.01)
    assert abs(weights.weights[1]) > 5 * max(abs(weights.weights[0]), abs(weights.weights[2]))
    fresh = [rng.normal(size=(8, 3)) for _ in range(50)]
    hits = [ranking.logits(x, weights).argmax() == x[:, 1].argmax() for x in fresh]
    assert np.mean(hits) > 0.9


def test_the_ridge_pulls_weights_to_0_and_nothing_to_learn_is_an_error():
    options, right = [np.array([[1.0], [0.0]])], [np.array([True, False])]
    loose, tight = (ranking.fit(options, right, ridge=r).weights[0] for r in (0.01, 100.0))
    assert loose > tight > 0
    with pytest.raises(ValueError, match="none of 1 questions has both"):
        ranking.fit(options, [np.array([True, True])], ridge=0.1)


def test_the_weights_are_where_the_slope_is_0():
    """Two options, one feature: log-likelihood is log sigmoid(d w), so at the optimum d sigmoid(-d w) = ridge w; with
    features 1 and 0 the spread is 1/2 and d = 2."""
    weights = ranking.fit([np.array([[1.0], [0.0]])], [np.array([True, False])], ridge=0.5)
    w = weights.weights[0]
    assert weights.spread[0] == 0.5 and 2 / (1 + np.exp(2 * w)) == pytest.approx(0.5 * w, abs=1e-4)


def test_the_softmax_within_groups_is_scipys_group_by_group_and_bears_large_logits():
    rng, sizes = np.random.default_rng(0), np.array([1, 4, 2])
    logits = np.concatenate([rng.normal(size=n) + 800 * (n - 2) for n in sizes])
    total, chances = ranking.softmax(logits, sizes)
    for group, one, part in zip(np.split(logits, [1, 5]), total, np.split(chances, [1, 5]), strict=True):
        assert one == pytest.approx(special.logsumexp(group)) and part == pytest.approx(special.softmax(group))


# --- fixer ---------------------------------------------------------------------------------------------------------

OUTCOMES = {"bad": Result((), (), "invalid SQL", "no"), "empty": Result(("a",), ()), "good": Result(("a",), ((1,),)),
            "empty2": Result(("a",), ())}  # fmt: skip


def repaired(start, answers, attempts=3):
    asked = []

    def ask(places, failed, outcomes, attempt):
        asked.append((attempt, tuple(failed), tuple(outcomes)))
        return [answers[attempt]] * len(places)

    (fixed,) = fixer.fix([start], lambda i, text: OUTCOMES[text], ask, lambda r: r.error or "no rows", attempts)
    return fixed, asked


@pytest.mark.parametrize(("start", "answers", "end", "attempts"), [
    ("good", [], "good", 0),
    ("bad", ["good"], "good", 1),
    ("empty", ["bad", "good"], "good", 2),
    ("bad", ["empty", "good"], "good", 2),
    ("bad", ["bad", "bad", "bad"], "bad", 3),
    ("empty", ["bad", "empty2", "bad"], "empty", 3),  # an empty answer may be right: it stays
    ("bad", ["empty", "bad", "bad"], "empty", 3),
    ("bad", ["", "", "good"], "good", 3),  # an answer without SQL
])  # fmt: skip
def test_a_query_is_repaired_until_it_gives_rows_and_else_stays(start, answers, end, attempts):
    fixed, asked = repaired(start, answers)
    assert (fixed.sql, fixed.attempts) == (end, attempts) and len(asked) == attempts


def test_at_most_three_repairs_are_asked_for_and_none_where_none_are_allowed():
    assert fixer.ATTEMPTS == 3 and len(repaired("bad", ["bad"] * 9, attempts=3)[1]) == 3
    assert repaired("bad", ["good"], attempts=0)[0] == fixer.Fixed("bad", 0)


def test_a_repair_is_told_what_came_of_the_query_it_repairs():
    _, asked = repaired("bad", ["empty", "good"])
    assert asked == [(0, ("bad",), ("invalid SQL",)), (1, ("empty",), ("no rows",))]


# --- arms ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(worlds, made, embed):
    from prefcore.methods.chase_sql import features, linear, selector

    train = worlds["train"]
    drafts = system.draft(train.problems, made, samples=3, temperature=1.8, seed=0)
    poll = votes.poll(system.with_candidates(train.questions, drafts), train.folder)
    content = features.describe(poll.ballots, embed)
    pairs = selector.training_pairs(poll.ballots, poll.correct, seed=0, per_question=4)
    model = linear.fit(*content, *pairs, [b.db_id for b in poll.ballots])
    return arms.Bench(worlds["test"], made, poll, content, model, embed, "plan")


def test_no_arm_is_above_the_oracle_or_below_the_lower_bound(bench):
    _, poll = training.run_arm(bench, samples=3, temperature=1.8, attempts=3, seed=0)
    wide = arms.main(bench, poll).pivot(index="id", columns="arm", values="right")
    for arm in wide:
        assert (wide[arm] <= wide["oracle"]).all() and (wide[arm] >= wide["lower bound"]).all()
    without = {"single", "self-consistency", "random", "oracle", "lower bound"}
    assert set(wide) == without | {"ranker", "untuned", "selector"}


def test_an_ablation_leaves_out_what_it_says(bench):
    how = {"samples": 2, "temperature": 1.8, "attempts": 1, "seed": 0}
    asked, _ = training.run_arm(bench, **how)
    found = arms.ablate(bench, asked, **how)
    parts = {"without values", "without fixer", *(f"without {name}" for name in bench.made)}
    assert set(found) == parts | {"rows counted"}
    for name in bench.made:
        assert {s for b in found[f"without {name}"].ballots for s in b.systems} == set(bench.made) - {name}
    assert [b.sqls for b in found["without values"].ballots] != [b.sqls for b in found["without fixer"].ballots]


def test_questions_are_counted_by_the_set_of_generators_that_solve_them(bench):
    _, poll = training.run_arm(bench, samples=2, temperature=1.8, attempts=0, seed=0)
    alone = system.solved_alone(poll, list(bench.made))
    assert sum(alone.values()) == len(poll.ballots)
    oracle = sum(bool(truth.any()) for truth in poll.correct)
    assert alone.get("none", 0) == len(poll.ballots) - oracle


def test_the_log_loss_of_a_coin_is_log_2():
    assert arms.log_loss(np.full(4, 0.5), np.array([0, 1, 1, 0])) == pytest.approx(np.log(2))
    assert arms.log_loss(np.array([0.9, 0.2]), np.array([1, 0])) == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)


def test_enumerated_queries_name_only_what_the_schema_has(worlds, made):
    problem = worlds["test"].problems[0]
    taught = enumeration.teach(["how many 3", "list 4"], ["count", "rows"], ["x > 3", "x < 4"])
    options = enumeration.list_options(problem, taught, words_as_vectors)
    known = {c for columns in problem.schema.tables.values() for c in columns}
    assert {c for q in options.queries for c in (q.shown, q.number) if c} <= known
    assert len({sql_forms.sql(q) for q in options.queries}) == len(options.queries) == len(options.parts)
