"""GenNm: the score, SymPO's pairs and loss, and that both lessons teach; the other parts have files of their own."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from prefcore import smoke
from prefcore.data.types import freeze
from prefcore.engine import collate, models, reference, train
from prefcore.methods import dpo
from prefcore.methods.gennm import adapters, losses, preferences, recover, report, score, words
from prefcore.methods.gennm.corpus import Item, normalise
from prefcore.methods.gennm.preferences import Query
from prefcore.methods.gennm.prompt import write_answer
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


def test_every_binary_counts_alike():
    """a: (1 + 0) / 2, b: 1, mean 0.75; over all three variables it were 2/3."""
    assert score.macro([1, 0, 1], ["a", "a", "b"]) == pytest.approx(0.75)


def test_the_table_of_words_is_ours_to_read_lower_case_words_only():
    assert all(word.isalpha() and word.islower() for word in (*words.KNOWN, *words.SAME))
    assert words.SAME["len"] & words.SAME["size"] and not words.SAME["len"] & words.SAME["buf"]


# --- pairs ------------------------------------------------------------------------------------------------------

TRUTH = {"a0": "buffer", "v0": "count", "f0": "read_all"}


def query(*samples):
    return Query("q", "int f0(...)", ("a0", "v0", "f0"), TRUTH, samples)


GOOD = {"a0": "buf", "v0": "tree", "f0": "read"}
HALF = {"a0": "leaf", "v0": "num", "f0": "walk"}
BAD = {"a0": "leaf", "v0": "tree", "f0": "walk"}


def test_the_mean_score_of_an_answer_is_over_variables_alone():
    """GOOD: a0 1, v0 0 -> 1/2; its function, read against read_all, has F1 2/3 and does not enter."""
    assert preferences.f1(GOOD, query()) == pytest.approx(1 / 2)
    assert preferences.f1(GOOD, query(), "f") == pytest.approx(2 / 3)


def test_the_composed_best_takes_each_name_from_the_sample_that_has_the_best_one():
    assert preferences.compose(query(), [GOOD, HALF, BAD]) == {"a0": "buf", "v0": "num", "f0": "read"}
    later = {"a0": "buffers", "v0": "tree", "f0": "read"}  # as good as buf: the later one is taken
    assert preferences.compose(query(), [GOOD, later])["a0"] == "buffers"


def test_the_recipe_of_the_code_pairs_the_composed_best_with_the_worst_and_the_hardest():
    made = preferences.pairs_of_code(query(BAD, GOOD, HALF))
    assert [pair.id for pair in made] == ["q:worst", "q:hard"]
    assert {pair.chosen for pair in made} == {" a0: buf, v0: num, f0: read"}
    assert made[0].rejected == " a0: leaf, v0: tree, f0: walk"
    # GOOD and HALF have the same mean over variables; of the two GOOD names the function better
    assert made[1].rejected == " a0: buf, v0: tree, f0: read"
    assert all(pair.chosen_score > pair.rejected_score for pair in made)


def test_the_recipe_of_the_paper_prefers_a_sample_that_is_clearly_better_than_a_random_other():
    (pair,) = preferences.pairs_of_paper(query(BAD, GOOD), seed=0)
    assert (pair.chosen, pair.rejected) == (" a0: buf, v0: tree, f0: read", " a0: leaf, v0: tree, f0: walk")
    assert preferences.pairs_of_paper(query(GOOD, HALF), seed=0) == []  # equally good
    drawn = {preferences.pairs_of_paper(query(BAD, GOOD, BAD | {"f0": "run"}), seed=s)[0].rejected for s in range(20)}
    assert len(drawn) == 2


def test_incomplete_and_repeated_answers_make_no_pair():
    for recipe in (preferences.pairs_of_code, lambda q: preferences.pairs_of_paper(q, seed=0)):
        assert recipe(query(GOOD)) == recipe(query(GOOD, dict(GOOD))) == recipe(query(GOOD, {"a0": "leaf"})) == []
    assert preferences.pairs_of_code(query(BAD, BAD | {"a0": "stone"})) == []  # best below 0.2


def test_with_the_truth_preferred_the_model_could_not_have_written_it():
    (pair,) = preferences.pairs_with_truth(query(GOOD, BAD))
    assert pair.chosen == " a0: buffer, v0: count, f0: read_all" and pair.chosen_score == 1


def slow_pairs_of_code(q):
    """The recipe again, by listing: per name the maximum, then all samples from worst to best."""
    whole = []
    for sample in q.samples:
        if set(q.ids) <= set(sample) and sample not in whole:
            whole.append(sample)
    if len(whole) < 2:
        return []
    best = {}
    for id in q.ids:
        for sample in whole:
            if id not in best or score.score(sample[id], q.truth[id]).f1 >= score.score(best[id], q.truth[id]).f1:
                best[id] = sample[id]
    top = np.mean([score.score(best[id], q.truth[id]).f1 for id in q.ids if id[0] != "f"])
    if top < 0.2:
        return []
    means = [np.mean([score.score(s[id], q.truth[id]).f1 for id in q.ids if id[0] != "f"]) for s in whole]
    own = [score.score(s["f0"], q.truth["f0"]).f1 for s in whole]
    order = sorted(range(len(whole)), key=lambda i: (means[i], own[i]))
    out = [whole[order[0]]] if means[order[0]] < top else []
    rest = [i for i in order[1:] if means[i] < top]
    return out + ([whole[rest[-1]]] if rest else [])


def test_the_recipe_of_the_code_agrees_with_a_slow_plain_twin():
    rng = np.random.default_rng(0)
    names = ["buf", "buffer", "count", "num", "tree", "leaf", "read", "read_all", "walk"]
    for _ in range(60):
        samples = [{id: str(rng.choice(names)) for id in ("a0", "v0", "f0")} for _ in range(5)]
        made = [pair.rejected for pair in preferences.pairs_of_code(query(*samples))]
        expected = [write_answer(sample, ("a0", "v0", "f0")) for sample in slow_pairs_of_code(query(*samples))]
        assert made == expected


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


def test_the_likelihood_of_a_batch_is_a_mean_over_tokens():
    """-(-6 - 2) / (3 + 1) = 2."""
    batch = {"lengths": torch.tensor([[3.0], [1.0]])}
    assert losses.token_loss(torch.tensor([[-6.0], [-2.0]]), None, batch, {}).losses.mean().item() == pytest.approx(2)


P = freeze({"max_prompt": 60, "max_completion": 40, "most_ids": 4, "rows": 8, "samples": 4, "temperature": 1.0,
            "top_k": 50})  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gennm")
    smoke.make_weights(folder)
    items = [normalise(record._asdict()) for record in smoke.make_functions()]
    return folder, items[:6]


def fitted(tmp_path, examples, loss, model):
    plan = collate.make_plan(examples, batch_size=4, epochs=60, seed=0, pad_id=0)
    train.fit(model, plan, loss, {}, learning_rate=1e-2, checkpoints=tmp_path / "c", seed=0)
    return model


def test_fine_tuning_teaches_the_form_and_the_names_of_its_functions(toy, tmp_path):
    folder, items = toy
    tokenizer, model = models.load_policy(str(folder / "policy"))
    none = [[] for _ in items]
    counts = Counter()
    before = {i.key: a.names for i, a in zip(items, recover.predict(model, tokenizer, items, none, P), strict=True)}
    model.requires_grad_(True)
    fitted(tmp_path, recover.examples(items, none, tokenizer, P), losses.token_loss, model)
    answers = recover.predict(model, tokenizer, items, none, P)
    after = {i.key: a.names for i, a in zip(items, answers, strict=True)}
    tables = [report.table("x", 0, items, names, counts, []) for names in (before, after)]
    assert tables[0]["answered"].mean() == 0 and tables[1]["f1"].mean() > 0.6
    confidences = [c for answer in answers for c in answer.confidence.values()]
    assert confidences and all(0 < c <= 1 for c in confidences)


def test_of_two_names_for_one_identifier_the_surer_counts_and_of_equals_the_first():
    found = recover.merge([
        recover.Answer({"a0": "size", "f0": "grow"}, {"a0": 0.4, "f0": 0.2}),
        recover.Answer({"v0": "tree", "f0": "resize"}, {"v0": 0.0, "f0": 0.9}),
        recover.Answer({"v1": "leaf", "f0": "shrink"}, {"v1": 0.7, "f0": 0.9}), recover.Answer({}, {}),
    ])  # fmt: skip
    assert found.names == {"a0": "size", "f0": "resize", "v0": "tree", "v1": "leaf"}
    assert found.confidence == {"a0": 0.4, "f0": 0.9, "v0": 0.0, "v1": 0.7}


def test_a_function_that_one_question_covers_is_named_alike_by_one_question_and_by_all(toy):
    folder, items = toy
    tokenizer, model = models.load_policy(str(folder / "policy"))
    none = [[] for _ in items]
    assert recover.predict_all(model, tokenizer, items, none, P) == recover.predict(model, tokenizer, items, none, P)


def test_preference_training_raises_the_preferred_answer_over_the_other(toy, tmp_path):
    folder, items = toy
    tokenizer, model = models.load_policy(str(folder / "policy"))
    model = models.add_lora(model, rank=4, alpha=8.0, top_layers=2, seed=0)
    queries = [query(GOOD, BAD, HALF)._replace(id=i.key, prompt=i.code) for i in items]
    pairs = [pair for q in queries for pair in preferences.pairs_of_code(q)]
    examples = collate.encode_pairs(pairs, tokenizer, max_prompt=60, max_completion=40).examples
    plan = collate.make_plan(examples, batch_size=4, epochs=6, seed=0, pad_id=0)
    plan = reference.attach(plan, model, cache=None)

    def loss(logps, ref_logps, batch, state, *, beta):
        return losses.sympo(logps, ref_logps, beta=beta)

    history = train.fit(model, plan, loss, {"beta": 0.1}, learning_rate=1e-2, checkpoints=tmp_path / "c", seed=0)
    assert history["margin"].iloc[-1] > history["margin"].iloc[0] + 0.1


def test_two_adapters_in_a_row_are_one_of_twice_the_rank(toy):
    folder, _ = toy
    how = {"top_layers": 2, "seed": 0}
    ids = torch.arange(8)[None]

    def shaken(model, seed):
        generator = torch.Generator().manual_seed(seed)
        adapters.put(model, {name: tuple(0.3 * torch.randn(w.shape, generator=generator) for w in pair)
                             for name, pair in adapters.take(model).items()})  # fmt: skip
        return model

    def fresh(rank, alpha):
        return models.add_lora(models.load_policy(str(folder / "policy"))[1], rank=rank, alpha=alpha, **how)

    one = shaken(fresh(2, 4.0), 1)
    first = adapters.take(one)
    two = shaken(models.add_lora(one.merge_and_unload(), rank=2, alpha=4.0, **how), 2)
    both = fresh(4, 8.0)
    adapters.put(both, adapters.stack(first, adapters.take(two)))
    with torch.no_grad():
        assert torch.allclose(two(ids).logits, both(ids).logits, atol=1e-4)
        assert not torch.allclose(two(ids).logits, fresh(2, 4.0)(ids).logits, atol=1e-2)
    adapters.put(both, adapters.stack(first, {}))
    again = fresh(2, 4.0)
    adapters.put(again, first)
    with torch.no_grad():
        assert torch.allclose(again(ids).logits, both(ids).logits, atol=1e-4)
    with pytest.raises(ValueError, match="different modules"):
        adapters.stack(first, {"other": next(iter(first.values()))})


# --- report -----------------------------------------------------------------------------------------------------


def table(arm, names):
    items = [Item(f"{b}:f", p, b, "f", "", {"a0": "size", "v0": "tree"}, {}, {})
             for b, p in (("x", "old"), ("y", "old"), ("z", "new"))]  # fmt: skip
    return report.table(arm, 0, items, {i.key: names for i in items}, Counter({"size": 3}), ["new"])


def test_a_claim_pairs_binaries_and_says_what_it_compared():
    """good names one of two variables in each of three binaries, none names nothing: +0.5 with no spread."""
    import pandas as pd

    scores = pd.concat([table("good", {"a0": "size"}), table("none", {})], ignore_index=True)
    row = report.compare_arms(scores, "it helps", "good", "none", "all", seed=0, draws=50)
    assert (row["estimate"], row["low"], row["high"], row["verdict"]) == (0.5, 0.5, 0.5, "held")
    assert row["test"] == "macro f1 of good minus none, all, 3 binaries"
    assert report.compare_arms(scores, "x", "none", "good", "all", seed=0, draws=50)["verdict"] == "not held"
    assert report.compare_arms(scores, "x", "good", "none", "unseen projects", seed=0, draws=50) is None  # one binary
    assert report.compare_arms(scores, "x", "good", "absent", "all", seed=0, draws=50) is None


def test_regions_split_by_project_and_by_how_often_training_has_the_name():
    found = report.regions(table("good", {}))
    assert {name: int(rows.sum()) for name, rows in found.items()} == {
        "all": 6, "seen projects": 4, "unseen projects": 2, "names 0": 3, "names 1-10": 3}  # fmt: skip


def test_the_released_metric_leaves_missing_names_out_and_ours_does_not():
    row = report.summarise(table("good", {"a0": "size"}), "good", seed=0, draws=50)["all"]
    assert row["precision"] == pytest.approx(0.5) and row["of_answered_precision"] == pytest.approx(1)
    assert row["answered"] == pytest.approx(0.5) and row["f1"].estimate == pytest.approx(0.5)
