"""What a generator is given, and how a language model is asked for SQL."""

from prefcore.methods.chase_sql.generators import prompted, read_schema
from prefcore.methods.chase_sql.world import layouts


def test_the_schema_of_a_file_leaves_out_keys_and_knows_links(world, splits):
    name = splits["test"].problems[0].db_id
    schema = read_schema(world / "database" / name / f"{name}.sqlite")
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


def test_a_language_model_is_asked_once_a_sample_with_its_own_seed_and_schema_order(splits):
    problems, model = splits["test"].problems[:2], Echo()
    one = prompted("divide", model, lambda problem, seed: [], taught=True, max_tokens=9)
    drawn = one.draw(problems, 4, 0.7, 10)
    assert drawn == [[f"SELECT {2 * k + i}" for k in range(4)] for i in range(2)]
    assert [r.seed for r in model.asked] == [10, 10, 11, 11, 12, 12, 13, 13]
    assert {r.temperature for r in model.asked} == {0.7} and {r.max_tokens for r in model.asked} == {9}
    schemas = {r.messages[0][1].split("Schema: ")[1].split("\n")[0] for r in model.asked[::2]}
    assert len(schemas) > 1
    golds = [q.gold for q in splits["test"].questions]
    assert not [r for r in model.asked for gold in golds if gold in str(r.messages)]


def test_the_synthetic_strategy_shows_its_examples_and_the_others_do_not(splits):
    problem, model = splits["test"].problems[0], Echo()
    for strategy in layouts.STRATEGIES:
        one = prompted(strategy, model, lambda problem, seed: [("count x", "SELECT 77")], taught=False,
                                  max_tokens=9)  # fmt: skip
        one.draw([problem], 1, 1.0, 0)
    shown = ["SELECT 77" in str(request.messages) for request in model.asked]
    assert shown == [False, False, True]


def test_a_repair_shows_the_failed_query_and_what_came_of_it_and_a_hint_shows_gold(splits):
    problem, model = splits["test"].problems[0], Echo()
    one = prompted("plan", model, lambda problem, seed: [], taught=False, max_tokens=9)
    assert one.repair([problem], ["SELEC 1"], ["error: invalid SQL"], 0) == ["SELECT 0"]
    assert "SELEC 1" in str(model.asked[0].messages) and "error: invalid SQL" in str(model.asked[0].messages)
    one.regenerate([problem], ["SELECT 'the gold'"], 0)
    assert "SELECT 'the gold'" in str(model.asked[1].messages)
