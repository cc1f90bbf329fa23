"""The six rules of name validation, each alone, and the vote."""

import numpy as np
import pytest

from prefcore.methods.gennm import validation
from prefcore.methods.gennm.corpus import Item
from prefcore.methods.gennm.validation import Flow


def item(key, code, calls=None):
    return Item(key, "p", "b", key, code, {}, calls or {}, {})


def rules(*items):
    return [(f.rule, f.source, f.target) for f in validation.flows(items)[0]]


def test_assign_sends_all_names_of_the_right_side_to_the_left_and_assign_r_the_left_name_back():
    found = rules(item("f", "void f0(int a0)\n{\n int v0;\n v0 = a0;\n}"))
    assert found == [("assign", ("f", "a0"), ("f", "v0")), ("assign-r", ("f", "v0"), ("f", "a0"))]


def test_call_sends_arguments_to_parameters_and_call_r_the_parameters_name_back():
    caller = item("f", "void f0(int a0)\n{\n f1(1, a0);\n}", {"f1": "g"})
    callee = item("g", "void f0(int a0, int a1)\n{\n}")
    assert rules(caller, callee) == [("call", ("f", "a0"), ("g", "a1")), ("call-r", ("g", "a1"), ("f", "a0"))]


def test_ret_sends_the_returned_variable_to_the_assigned_one_and_ret_r_its_name_back():
    """Both never fire in the released code."""
    caller = item("f", "void f0(void)\n{\n int v0;\n v0 = f1();\n}", {"f1": "g"})
    callee = item("g", "int f0(void)\n{\n int v3;\n if (v3) return 0;\n return v3;\n}")
    assert rules(caller, callee) == [("ret", ("g", "v3"), ("f", "v0")), ("ret-r", ("f", "v0"), ("g", "v3"))]


@pytest.mark.parametrize(("statement", "flows"), [
    ("v0 = (int)a0;", 1), ("v0 = (a0);", 1), ("v0 = (long)((char *)a0);", 1), ("int v0 = a0;", 1),  # direct copies
    ("char *v0 = a0;", 1), ("v1 = v0 = a0;", 2),
    ("v0 = a0 + 1;", 0), ("v0 = -a0;", 0), ("v0 = *a0;", 0), ("v0 = a0[1];", 0), ("v0 += a0;", 0), ("v0 = &a0;", 0),
    ("*v0 = a0;", 0), ("v0->field = a0;", 0), ("v0 = v0;", 0), ("v0 = a0 ? a0 : 1;", 0), ("v0 = unknown(a0);", 0),
])  # fmt: skip
def test_only_direct_copies_through_casts_and_parentheses_count(statement, flows):
    assert len(rules(item("f", f"void f0(int a0)\n{{\n {statement}\n}}"))) == 2 * flows


def test_a_call_with_another_number_of_arguments_sends_nothing_and_is_counted():
    caller = item("f", "void f0(int a0)\n{\n f1(a0);\n f1(a0, a0);\n}", {"f1": "g"})
    found, misfits = validation.flows([caller, item("g", "void f0(int a0, int a1)\n{\n}")])
    assert misfits == 1 and [f.target for f in found if f.rule == "call"] == [("g", "a0"), ("g", "a1")]


def test_code_that_cannot_be_read_in_part_still_gives_the_rest():
    found = rules(item("f", "void f0(int a0)\n{\n v1 = vvar_12{r56|4b};\n v0 = a0;\n}"))
    assert ("assign", ("f", "a0"), ("f", "v0")) in found


def test_parameters_are_read_behind_stars_and_arrays_and_function_pointers_and_void_is_none():
    root = validation.tree("int f0(char *a0, struct s a1[4], void (*a2)(int))\n{\n}")
    assert validation.parameters(root) == ["a0", "a1", "a2"]
    assert validation.parameters(validation.tree("int f0(void)\n{\n}")) == []


def test_forward_rules_pass_on_what_arrived_and_reverse_rules_only_the_own_name():
    """a -> b -> c by assignment: a's name reaches c; back from c only c's own name reaches b, and b's reaches a."""
    a, b, c = (("f", name) for name in "abc")
    names = {a: "source", b: "middle", c: "target"}
    forward = [Flow("assign", a, b), Flow("assign", b, c)]
    assert validation.reach(names, forward)[c] == {(a, "source"), (b, "middle"), (c, "target")}
    backward = [Flow("assign-r", c, b), Flow("assign-r", b, a)]
    assert validation.reach(names, backward)[a] == {(a, "source"), (b, "middle")}


def test_an_origin_counts_once_however_many_ways_lead_from_it():
    a, b, c = (("f", name) for name in "abc")
    flows = [Flow("assign", a, c), Flow("assign", a, b), Flow("assign", b, c), Flow("call", a, c)]
    assert validation.reach({a: "x", b: "x", c: "y"}, flows)[c] == {(a, "x"), (b, "x"), (c, "y")}


def test_a_circle_of_copies_comes_to_an_end():
    a, b = ("f", "a"), ("f", "b")
    flows = [Flow("assign", a, b), Flow("assign", b, a)]
    assert validation.reach({a: "x", b: "y"}, flows, sweeps=100) == validation.reach({a: "x", b: "y"}, flows)


ANGLES = {"size": 0.0, "length": 0.3, "len": 0.2, "tree": 2.5}


def embed(names):
    return np.array([[np.cos(ANGLES[name]), np.sin(ANGLES[name])] for name in names])


def test_the_vote_takes_the_candidate_nearest_to_all_names_that_arrived():
    assert validation.vote(["tree", "len"], ["size", "length"], embed) == "len"
    assert validation.vote(["tree"], ["size"], embed) == "tree"  # nothing to choose from
    assert validation.vote(["tree", "tree", "tree", "size"], [], embed) == "tree"  # said in three rounds


def test_of_equals_the_first_by_letter_is_taken_whatever_the_order():
    same = lambda names: np.ones((len(names), 1))  # noqa: E731
    assert validation.vote(["b", "a"], ["c"], same) == validation.vote(["a", "b"], ["c"], same) == "a"


def test_a_vote_equals_a_slow_count_of_mean_cosines():
    rng = np.random.default_rng(0)
    names = list("abcdef")
    for _ in range(30):
        vectors = rng.normal(size=(6, 3))
        unit = dict(zip(names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))
        pool, others = list(rng.choice(names, 3)), list(rng.choice(names, 4))
        means = {c: sum(float(unit[c] @ unit[o]) for o in [*pool, *others]) / 7 for c in pool}
        said = validation.vote(pool, others, lambda texts, unit=unit: np.stack([unit[t] for t in texts]))
        assert said == max(means, key=means.get)


def test_a_variable_that_nothing_reached_keeps_its_last_name_and_so_does_the_function():
    functions = [item("f", "void f0(int a0, int a1)\n{\n v0 = a0;\n}")]
    first = {"f": {"a0": "size", "a1": "tree", "v0": "length", "f0": "size"}}
    last = {"f": {"a0": "tree", "a1": "size", "v0": "length", "f0": "tree"}}
    out = validation.validate([first, last], functions, embed)["f"]
    assert out["a0"] == "size"  # candidates size, tree; length arrived from v0
    assert out["a1"] == "size" and out["f0"] == "tree" and out["v0"] == "length"
    assert last["f"]["a0"] == "tree"  # what was given is not changed


def test_a_name_that_only_an_earlier_round_gave_is_kept():
    functions = [item("f", "void f0(int a0)\n{\n}")]
    out = validation.validate([{"f": {"a0": "size"}}, {"f": {}}], functions, embed)
    assert out == {"f": {"a0": "size"}}


def test_validation_without_flows_is_the_last_round():
    names = {"f": {"a0": "tree"}}
    assert validation.validate([{"f": {"a0": "size"}}, names], [item("f", "void f0(int a0)\n{\n}")], embed) == names
