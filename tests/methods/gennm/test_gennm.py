"""GenNm: the score, SymPO's pairs and loss, and that both lessons teach; the other parts have files of their own."""

import copy
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.engine import collate, models, reference, train
from prefcore.methods import dpo
from prefcore.methods.gennm import baselines, losses, namer, preferences, prompt, recover, report, score, words
from prefcore.methods.gennm.corpus import Item, normalise
from prefcore.methods.gennm.preferences import Query
from prefcore.methods.gennm.score import Score

# --- score ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "parts"), [
    ("bufLen", ("buf", "len")), ("buf_len2", ("buf", "len")), ("HTTPServer", ("http", "server")),
    ("filename", ("file", "name")), ("xyzzy", ("xyzzy",)), ("__", ()), ("hashtable", ("hash", "table")),
    ("readBuffer_size", ("read", "buffer", "size")),
])  # fmt: skip
def test_a_name_is_split_at_underscores_digits_capitals_and_between_known_words(name, parts):
    assert score.split(name) == parts


@pytest.mark.parametrize(("predicted", "true", "precision", "recall"), [
    ("buffer_size", "buffer_size", 1, 1), ("Buffer_Size", "buffer_size", 1, 1),
    ("buf_len", "buffer_size", 1, 1),  # buf begins buffer; len and size are one row of the table
    ("buf", "buffer_size", 1, 1 / 2), ("buffer_size_max", "size", 1 / 3, 1),
    ("tree", "buffer_size", 0, 0), ("_1", "buffer", 0, 0), ("nread", "read", 1, 1),  # read ends nread
    ("a", "alpha", 0, 0),  # one letter is no beginning
    ("item_item", "item_list", 1 / 2, 1 / 2),  # a repeated word counts once above the line, twice below
])  # fmt: skip
def test_precision_and_recall_count_words_that_match(predicted, true, precision, recall):
    assert score.score(predicted, true) == pytest.approx(Score(precision, recall))


def test_f1_is_the_harmonic_mean_and_zero_where_nothing_matches():
    assert Score(1, 1 / 2).f1 == pytest.approx(2 / 3) and Score(0, 0).f1 == 0


def test_matching_does_not_depend_on_which_name_is_the_predicted_one():
    names = ["buffer_size", "buf", "len", "count", "nread", "tree_node", "idx", "x"]
    for a, b in itertools.product(names, repeat=2):
        forth, back = score.score(a, b), score.score(b, a)
        assert (forth.precision, forth.recall) == (back.recall, back.precision)


def test_a_missing_prediction_counts_zero_and_is_told_apart_from_a_wrong_one():
    rows = score.rate({"a0": "tree"}, {"a0": "size", "a1": "count"})
    assert [(row["f1"], row["answered"]) for row in rows] == [(0, 1), (0, 0)]


def test_the_table_of_words_is_ours_to_read_lower_case_words_only():
    assert all(word.isalpha() and word.islower() for word in (*words.KNOWN, *words.SAME))
    assert words.SAME["len"] & words.SAME["size"] and not words.SAME["len"] & words.SAME["buf"]


# --- pairs ------------------------------------------------------------------------------------------------------


def query(*samples, truth="buffer_size"):
    return Query("q|a0", (1, 2), (3,), truth, samples)


def names(pairs):
    return [(pair.chosen, pair.rejected) for pair in pairs]


def test_the_recipe_of_the_code_prefers_the_best_sample_to_the_worst_and_to_the_hardest():
    """F1 against buffer_size: buf_len 1, buf 2/3, size_of 2/4 (one of two words on each side), tree 0."""
    made = preferences.pairs_of_code(query("tree", "buf", "size_of", "buf_len", "tree"))
    assert names(made) == [("buf_len", "tree"), ("buf_len", "buf")]
    assert names(preferences.pairs_of_code(query("buf_len", "tree"))) == [("buf_len", "tree")]  # both in one


def test_the_recipe_of_the_paper_prefers_the_best_to_a_random_other_that_is_clearly_worse():
    assert names(preferences.pairs_of_paper(query("tree", "buf"), seed=0)) == [("buf", "tree")]
    assert preferences.pairs_of_paper(query("buf_len", "buffer_len"), seed=0) == []  # equally good
    drawn = {names(preferences.pairs_of_paper(query("buf", "tree", "leaf"), seed=s))[0][1] for s in range(20)}
    assert drawn == {"tree", "leaf"}


def test_one_name_however_often_makes_no_pair_and_a_bad_best_one_none_by_the_code():
    for recipe in (preferences.pairs_of_code, lambda q: preferences.pairs_of_paper(q, seed=0)):
        assert recipe(query()) == recipe(query("buf")) == recipe(query("buf", "buf")) == []
    assert preferences.pairs_of_code(query("tree", "leaf")) == []


def test_with_the_truth_preferred_the_model_may_not_be_able_to_write_it():
    assert names(preferences.pairs_with_truth(query("buf", "tree"))) == [("buffer_size", "tree")]
    assert preferences.pairs_with_truth(query("buf_len")) == preferences.pairs_with_truth(query()) == []


def slow_pairs_of_code(q):
    """The recipe again, by listing all samples from worst to best."""
    f1 = {name: score.score(name, q.truth).f1 for name in q.samples}
    if len(f1) < 2 or max(f1.values()) < 0.2:
        return []
    order = sorted(f1, key=f1.get)
    rest = [name for name in order[:-1] if f1[name] < f1[order[-1]]]
    return [(order[-1], name) for name in (rest[:1] if len(rest) < 2 else [rest[0], rest[-1]])]


def test_the_recipe_of_the_code_agrees_with_a_slow_plain_twin():
    rng = np.random.default_rng(0)
    known = ["buf", "buffer", "count", "num", "tree", "leaf", "read", "read_all", "walk", "buf_num"]
    for _ in range(60):
        asked = query(*(str(rng.choice(known)) for _ in range(5)), truth="buffer_count")
        assert names(preferences.pairs_of_code(asked)) == slow_pairs_of_code(asked)


def test_the_placebo_has_the_same_names_and_says_nothing_of_which_is_better():
    made = [pair for i in range(200) for pair in preferences.pairs_of_code(query("buf_len", "tree", f"leaf_{i}"))]
    turned = preferences.turned(made, seed=0)
    assert [set(names([pair])[0]) for pair in turned] == [set(names([pair])[0]) for pair in made]
    kept = np.mean([a == b for a, b in zip(made, turned, strict=True)])
    assert 0.4 < kept < 0.6 and turned == preferences.turned(made, seed=0) != preferences.turned(made, seed=1)


def item(code, calls=None, **names):
    return Item("b:f", "p", "b", "f", code, names, calls or {}, {})


def test_the_two_filters_differ_where_between_30_and_67_percent_of_the_callees_are_nameless():
    code = "int f0(int a0)\n{\n f1(a0);\n f2(a0);\n puts(a0);\n free(a0);\n return 0;\n}"
    assert preferences.passes_filter_of_paper(item(code), {}) and not preferences.passes_filter_of_code(item(code), {})
    known = {"b:g": {"f0": "grow"}}
    assert preferences.passes_filter_of_code(item(code, {"f1": "b:g"}), known)  # one of four nameless
    short = "int f0(int a0)\n{\n return puts(a0);\n}"
    assert preferences.passes_filter_of_code(item(short), {})
    assert not preferences.passes_filter_of_paper(item(short), {})


# --- names without a network ------------------------------------------------------------------------------------


def typed(key, kind, name):
    return Item(key, "p", "b", key, f"int f0({kind} a0)\n{{\n return a0;\n}}", {"a0": name}, {}, {})


def test_the_most_frequent_name_is_that_of_the_slot_and_else_of_the_place():
    train = [typed("1", "char *", "path"), typed("2", "char *", "path"), typed("3", "char *", "text"),
             *(typed(f"n{i}", "int", "size") for i in range(4))]  # fmt: skip
    new = [typed("4", "char *", "x"), typed("5", "int", "x"), typed("6", "double", "x")]
    assert baselines.most_frequent(train, new) == [{"a0": "path"}, {"a0": "size"}, {"a0": "size"}]
    assert baselines.most_frequent([], new) == [{"a0": ""}] * 3


def test_n_grams_around_a_variable_tell_names_apart():
    def used(key, call, name):
        return Item(key, "p", "b", key, f"int f0(int a0)\n{{\n return {call}(a0, 1);\n}}", {"a0": name}, {}, {})

    train = [used(str(i), call, name) for i in range(3) for call, name in (("open", "path"), ("free", "block"))]
    new = [used("x", "open", "?"), used("y", "free", "?")]
    assert baselines.from_ngrams(train, new) == [{"a0": "path"}, {"a0": "block"}]
    assert baselines.from_ngrams([], new) == [{}, {}]
    assert "L~(" in baselines.around(new[0], "a0") and "a0" not in baselines.around(new[0], "a0")


# --- loss and lessons -------------------------------------------------------------------------------------------


def test_worked_numbers_and_the_loss_is_dpos():
    """beta 0.1, log-ratios 3 and 1: margin 0.2, log(1 + exp(-0.2)) = 0.598139."""
    logps, ref = torch.tensor([[-2.0, -4.0]]), torch.tensor([[-5.0, -5.0]])
    out = losses.sympo(logps, ref, beta=0.1)
    assert out.losses.item() == pytest.approx(math.log1p(math.exp(-0.2)), abs=1e-6)
    assert torch.equal(out.losses, dpo.loss(logps, ref, beta=0.1).losses)
    assert losses.sympo(ref, ref, beta=0.1).losses.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_gradients_are_those_of_the_formula_and_raise_the_preferred_answer(scale):
    logps = (scale * torch.randn(4, 2, dtype=torch.float64)).requires_grad_()
    ref = scale * torch.randn(4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: losses.sympo(x, ref, beta=0.1).losses, logps)
    losses.sympo(logps, ref, beta=0.1).losses.sum().backward()
    assert (logps.grad[:, 0] < 0).all() and (logps.grad[:, 1] > 0).all()


def test_each_name_counts_alike_in_both_of_its_forms():
    """-(-6 - 1) = 7 and -(-2 - 3) = 5 nats."""
    found = losses.name_loss(torch.tensor([[-6.0, -1.0], [-2.0, -3.0]]), None, {}, {}).losses
    assert found.tolist() == [7, 5]
    assert losses.name_loss(torch.tensor([[-6.0]]), None, {}, {}).losses.tolist() == [6]  # a model that only writes


P = freeze({"max_prompt": 200, "max_name": 12, "rows": 64, "samples": 4, "temperature": 1.0, "top_k": 50})


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """(namer that has learnt the names of six toy functions, these functions, one that has not)."""
    folder = tmp_path_factory.mktemp("gennm")
    smoke.make_weights(folder)
    items = [normalise(record._asdict()) for record in smoke.make_functions()][:6]
    start = namer.extend(namer.Namer(*models.load_policy(str(folder / "policy")), ()), namer.known_names(items))
    untaught = start._replace(policy=copy.deepcopy(start.policy))
    plan = collate.make_plan(recover.examples(items, [[] for _ in items], start, P), batch_size=8, epochs=100, seed=0,
                             pad_id=0)  # fmt: skip
    train.fit(start.policy, plan, losses.name_loss, {}, learning_rate=3e-3, checkpoints=folder / "c", seed=0)
    return start, items, untaught


def test_an_example_is_a_branch_that_spells_the_name_and_one_that_chooses_it(toy):
    taught, items, _ = toy
    rows = recover.examples(items[:1], [[]], taught, P)
    assert [row.id.partition("|")[2] for row in rows] == ["a0", "a1", "v0", "f0"]
    assert len({row.prompt for row in rows}) == 1  # the function is read once for all of them
    decode = taught.tokenizer.decode
    spelled, chosen = rows[0].completions
    assert decode(spelled[:-1]) == "a0: leaf" and spelled[-1] == taught.tokenizer.eos_token_id
    assert decode(chosen[:-1]) == "a0:" and taught.names[chosen[-1] - taught.words] == "leaf"
    assert taught.names[rows[3].completions[1][-1] - taught.words] == ""  # a function's own name is not chosen
    with pytest.raises(KeyError):
        recover.examples([items[0]._replace(names={"a0": "unheard_of"})], [[]], taught, P)


def test_one_network_learns_to_write_and_to_choose_the_names_of_its_functions(toy):
    taught, items, untaught = toy
    none, means = [[] for _ in items], {}
    for way in (recover.predict, recover.choose):
        for who, network in (("before", untaught), ("after", taught)):
            found = baselines.by_key(items, recover.names_of(way(network, items, none, P)))
            means[way.__name__, who] = report.table("x", 0, items, found, {})["f1"].mean()
    assert means["predict", "after"] > 0.6 > means["predict", "before"]
    assert means["choose", "after"] > 0.6 > means["choose", "before"]
    answers = recover.predict(taught, items, none, P)
    assert all(set(answer.names) <= {*prompt.nameable(one)} for answer, one in zip(answers, items, strict=True))
    assert all(0 < sure <= 1 for answer in answers for sure in answer.confidence.values())


def test_a_network_that_only_writes_has_one_form_and_refuses_to_choose(toy):
    _, items, untaught = toy
    plain = untaught._replace(names=())
    assert all(len(row.completions) == 1 for row in recover.examples(items, [[] for _ in items], plain, P))
    with pytest.raises(ValueError, match="only writes"):
        recover.choose(plain, items, [[] for _ in items], P)


def test_a_known_name_starts_as_the_mean_of_the_tokens_that_spell_it(toy):
    _, _, untaught = toy
    weight = untaught.policy.get_input_embeddings().weight
    place = untaught.words + untaught.names.index("limit")
    assert torch.allclose(weight[place], weight[namer.spell("limit", untaught.tokenizer)].mean(0))


def test_what_is_saved_is_read_back_with_the_names_it_knows(toy, tmp_path):
    taught, items, _ = toy
    namer.save(taught, tmp_path)
    again = namer.load(tmp_path, device="cpu", dtype="float32")
    none = [[] for _ in items]
    assert again.names == taught.names and again.words == taught.words
    assert recover.choose(again, items, none, P) == recover.choose(taught, items, none, P)


def test_preference_training_raises_the_preferred_name_over_the_other(toy, tmp_path):
    taught, items, untaught = toy
    asked = recover.sample(untaught, items, [[] for _ in items], P, seed=0)
    assert {one.truth for one in asked} >= {"leaf", "limit", "load_leaf"}
    pairs = [preferences.Preference(one, one.truth, "walk") for one in asked]
    rows, student = preferences.encode(pairs, untaught.tokenizer, P.max_name), copy.deepcopy(untaught.policy)
    plan = reference.attach(collate.make_plan(rows, batch_size=8, epochs=4, seed=0, pad_id=0), student, cache=None)

    def loss(logps, ref_logps, batch, state, *, beta):
        return losses.sympo(logps, ref_logps, beta=beta)

    history = train.fit(student, plan, loss, {"beta": 0.1}, learning_rate=1e-3, checkpoints=tmp_path / "c", seed=0)
    assert history["loss"].iloc[0] == pytest.approx(math.log(2), abs=1e-3)
    assert history["margin"].iloc[-1] > history["margin"].iloc[0] + 0.1


# --- report -----------------------------------------------------------------------------------------------------


def test_names_and_samples_come_back_from_the_tables_in_which_runs_keep_them(tmp_path):
    """Also where an arm names nothing at all: it must stay an arm whose every variable lacks a name."""
    names = {"lib|f": {"v1": "len", "a0": "NA"}, "lib|g": {}, "lib|h": {"f0": "true"}}
    queries = [Query("lib|f|v1", (1, 2), (3,), "len", ("size", "n", "n")), Query("lib|f|v2", (1, 2), (4,), "i", ())]

    def kept(table, name):
        table.to_parquet(tmp_path / name)
        return pd.read_parquet(tmp_path / name)

    assert report.names_of(kept(report.rows_of(names), "a")) == {key: own for key, own in names.items() if own}
    assert report.names_of(kept(report.rows_of({"lib|g": {}}), "b")) == {}
    assert preferences.queries_of(kept(pd.DataFrame(queries), "c")) == queries


def test_a_unit_is_a_binary_and_new_names_are_measured_apart():
    """x: size right and known, tree missing and new; at -O2 x has the same id."""
    code = Item("x:f", "p", "p-x", "f", "", {"a0": "size", "v0": "tree"}, {}, {})
    rows = report.table("good", 0, [code, code._replace(binary="p.O2-x")], {"x:f": {"a0": "size"}}, {"size": 3})
    (one,) = report.by_binary(rows).to_dict("records")
    assert (one["id"], one["f1"], one["f1_known"], one["f1_new"], one["answered"]) == ("p-x", 0.5, 1, 0, 0.5)


def test_a_binary_without_new_names_has_no_measure_of_them():
    code = Item("x:f", "p", "p-x", "f", "", {"a0": "size"}, {}, {})
    (one,) = report.by_binary(report.table("a", 0, [code], {}, {"size": 1})).to_dict("records")
    assert np.isnan(one["f1_new"]) and one["f1_known"] == 0
