"""Data rules, prompts and the call graph of GenNm: nothing leaks, nothing is shared between training and test."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from prefcore import smoke
from prefcore.methods.gennm import callgraph, corpus, prompt
from prefcore.methods.gennm.corpus import Item, normalise
from prefcore.methods.gennm.world import programs
from prefcore.methods.gennm.world.decompiler import Binary

SOURCE = Path(__file__).parent / "programs"


@pytest.fixture(scope="module")
def ledger():
    head, *lines = map(json.loads, (SOURCE / "ledger.O0.jsonl").read_text().splitlines())
    found = programs.with_truth("ledger", SOURCE / "ledger.O0.so", Binary(head["base"], head["end"], 9, lines))
    return {record.function: normalise(record._asdict()) for record in found}


def test_placeholders_take_the_place_of_every_name_that_the_decompiler_made_up(ledger):
    assert ledger["delegate"].code == (
        "int f0(char *a0, int a1)\n{\n unsigned int v0;\n unsigned int v1;\n v1 = f1(a0, a1);\n v0 = v1;\n"
        " return f2(v0, 8001);\n}"
    )
    assert ledger["delegate"].names == {"a0": "source", "a1": "bound", "v1": "parsed", "v0": "clean"}
    assert ledger["settle"].names == {"a0": "first", "a1": "rounds", "a2": "bonus", "v2": "total", "v1": "step",
                                      "v0": "cursor"}  # fmt: skip


def test_no_address_and_no_true_name_is_left_in_the_code(ledger):
    for item in ledger.values():
        assert not re.search(r"sub_|g_[0-9a-f]{4}|LABEL_|bp-0x|0x40|//", item.code)
        words = set(re.findall(r"\w+", item.code))
        assert not words & {*item.names.values(), *(other.function for other in ledger.values())}


def test_a_number_that_may_be_an_address_is_hidden_and_others_stay():
    code = corpus.hide_addresses("v0 = 4198400 + 0x401000 + 400 + 5000000;", 4194304, 4210695)
    assert code == "v0 = ADDRESS + ADDRESS + 400 + 5000000;"


def test_comments_go_and_strings_that_look_like_comments_stay():
    assert corpus.strip_comments('f("// no", 1); // yes\n/* two\nlines */g();') == 'f("// no", 1);\ng();'


def test_renaming_is_of_whole_identifiers_at_once_and_spares_fields_and_strings():
    code = 'v1 = v0 + v10; p->v0 = "v0";'
    assert corpus.rename(code, {"v0": "v1", "v1": "v0"}) == 'v0 = v1 + v10; p->v0 = "v0";'


def test_the_text_of_another_decompiler_is_read_without_addresses_or_projects():
    item = normalise({"function": "f", "code": "long f(int n)\n{\n    int total;\n    total = n;\n    return total;\n}",
                      "names": {"total": "sum"}})  # fmt: skip
    assert item.code == "long f0(int a0)\n{\n int v0;\n v0 = a0;\n return v0;\n}" and item.names == {"v0": "sum"}


DIALECTS = {  # who wrote it -> the code, and what has which placeholder
    "IDA's places": (
        "int __usercall sub_40@<eax>(int a1@<edi>, char *a2)\n{\n  int v3; // [rsp+8h]\n\n  v3 = a1;\n"
        "  if ( v3 > 2 )\n    return sub_41(a2);\n  return v3;\n}\n",
        {"sub_40": "f0", "a1": "a0", "a2": "a1", "v3": "v0", "sub_41": "f1"}),
    "attributes": (
        "__attribute__((noreturn, section(\"x\"))) void sub_40(int a1)\n{\n  int v1;\n\n  v1 = a1;\n  exit(v1);\n}\n",
        {"sub_40": "f0", "a1": "a0", "v1": "v0"}),
    "Ghidra's arrays and labels": (
        "undefined8 FUN_0010(char *param_1,int param_2)\n\n{\n  int iVar1;\n  char local_28 [24];\n  \n"
        "  iVar1 = FUN_0020(param_1);\n  if (iVar1 == 0) goto LAB_0030;\n  local_28[0] = *param_1;\nLAB_0030:\n"
        "  return 0;\n}\n",
        {"FUN_0010": "f0", "param_1": "a0", "param_2": "a1", "iVar1": "v0", "local_28": "v1", "FUN_0020": "f1",
         "LAB_0030": "L0"}),
    "values at once": (
        "int64_t sub_40(int32_t arg1)\n{\n    int32_t var_c = arg1;\n    return var_c;\n}\n",
        {"sub_40": "f0", "arg1": "a0", "var_c": "v0"}),
}  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
def test_functions_parameters_and_variables_are_found_in_what_other_decompilers_write(name):
    code, renamed = DIALECTS[name]
    item = normalise({"function": "f", "code": code})
    assert item.renamed == renamed and not re.search(r"@<|__attribute__", item.code)


def test_names_that_say_nothing_are_no_truth():
    code = "int sub_1000(int a0)\n{\n    int v0;\n    int v1;\n    return v0 + v1;\n}"
    item = normalise({"function": "f", "code": code, "names": {"a0": "a0", "v0": "i", "v1": "width"}})
    assert item.names == {"v1": "width"}


def made(binary, project="p", functions=("f",), code="int f0(int a0)\n{\n return %s;\n}"):
    return [Item(f"{binary}:{name}", project, binary, name, code % f"{binary} + {name}" * 3, {"a0": "size"}, {}, {})
            for name in functions]  # fmt: skip


def test_a_binary_stays_if_more_than_70_percent_of_its_functions_are_new():
    ten = [f"f{i}" for i in range(10)]
    a = made("a", functions=ten)
    b = made("b", functions=[*ten[:3], *(f"g{i}" for i in range(7))])  # 7 of 10 new: not more than 70 %
    c = made("c", functions=[*ten[:2], *(f"h{i}" for i in range(8)), "main"])  # 8 of 10
    kept, out = corpus.thin([*a, *b, *c], ["a", "b", "c"])
    assert {item.binary for item in kept} == {"a", "c"} and out == ["b"]


LONG = "int f0(int a0)\n{\n" + "".join(f" step_{i}(a0);\n" for i in range(8)) + " return %s;\n}"


def everything(item):
    return True


PARTS = {"train": ["red"], "validation": ["green"], "test": ["blue"]}


def test_a_split_is_by_project_and_what_is_not_asked_for_gives_context():
    items = []
    for project in ("red", "green", "blue", "other"):
        for b in range(3):
            body = f"int f0(int a0)\n{{\n {' '.join(f'{project}{b}{i}(a0);' for i in range(9))} %s\n}}"
            items += made(f"{project}{b}", project, (f"{project}_{b}", f"{project}_{b}_more"), body)
    parts = corpus.split(items, PARTS, lambda item: not item.function.endswith("more"))
    for part, project in zip(parts[:3], ("red", "green", "blue"), strict=True):
        assert {item.project for item in part.everything} == {project} and len(part.everything) == 6
        assert len(part.asked) == 3 and not [item for item in part.asked if item.function.endswith("more")]
    with pytest.raises(ValueError, match="no function of violet"):
        corpus.split(items, PARTS | {"test": ["violet"]}, everything)


def test_optimised_copies_of_test_projects_are_apart_and_those_of_others_are_nowhere():
    items = [*made("red", "red"), *made("green", "green"), *made("blue-x", "blue"), *made("blue.O2-x", "blue"),
             *made("red.O2-x", "red")]  # fmt: skip
    items = [item._replace(function=item.binary) for item in items]
    parts = corpus.split(items, PARTS, everything)
    assert [item.binary for item in parts.optimised.asked] == ["blue.O2-x"]
    assert not [item for part in parts[:4] for item in part.everything if ".O2-" in item.binary]


def test_test_functions_too_like_a_training_one_are_set_aside_and_copies_in_training_count_once():
    near = made("red0", "red", ("one",), LONG) + made("blue0", "blue", ("one_more",), LONG)  # differ in a few letters
    far = made("blue1", "blue", ("two",), "char *f0(char *a0)\n{\n while (*a0) a0 = next(a0); return a0; %s\n}")
    green = made("green0", "green", ("three",), "void f0(int a0)\n{\n grow(a0); %s\n}")
    twice = near[:1] + [near[0]._replace(key="red0:again")]
    parts = corpus.split([*twice, *near[1:], *far, *green], PARTS, everything)
    assert [i.function for i in parts.leaky.asked] == ["one_more"] and [i.function for i in parts.test.asked] == ["two"]
    assert len(parts.train.asked) == 1 and len(parts.test.everything) == 2


def test_similarity_is_above_90_percent_of_the_text_with_true_names():
    a, b = made("a", code="int f0(int a0)\n{\n" + " x(a0);\n" * 20 + " return %s;\n}"), None
    b = [a[0]._replace(names={"a0": "quantity_of_something_else"})]
    assert corpus.similar(a, a) == [True] and corpus.similar(a, b) == [False] and corpus.similar([], a) == []


def test_a_choice_is_even_over_binaries_and_takes_neighbours():
    items = [*made("a", functions=[f"a{i}" for i in range(9)]), *made("b", functions=["b0", "b1"])]
    chosen = corpus.choose(items, 6, seed=0)
    assert Counter(item.binary for item in chosen) == {"a": 4, "b": 2}
    places = [int(item.function[1:]) for item in chosen if item.binary == "a"]
    assert places == list(range(places[0], places[0] + 4))
    assert corpus.choose(items, 99, seed=0) == items


def test_frequencies_count_the_variables_of_training():
    assert corpus.frequencies(made("a", functions=[str(i) for i in range(11)])) == {"size": 11}


# --- prompts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "name"), [
    (" head", "head"), (" buf_len", "buf_len"), (" int", ""), (" v0", ""), (" f12", ""), (" a b", ""), (" 1x", ""),
    (" __import__('os')", ""), ("", ""), (" " + "x" * 41, ""), (" _", ""),
])  # fmt: skip
def test_a_branch_is_read_as_a_name_or_as_none(text, name):
    assert prompt.read(text) == name


def test_every_variable_is_a_branch_and_the_function_the_last():
    code = "int f0(int a0, int a1)\n{\n v1 = a0; v0 = a1;\n}"
    item = Item("k", "p", "b", "f", code, {"v0": "x", "a1": "int"}, {}, {})
    assert prompt.nameable(item) == ["a0", "a1", "v1", "v0", "f0"]
    assert prompt.true_names(item) == {"v0": "x", "f0": "f"}  # a keyword is no name


def test_a_function_that_fits_is_read_once_and_a_longer_one_by_parts_that_name_everything():
    tokenizer, ids = smoke.make_tokenizer(), [f"v{i}" for i in range(20)]
    item = Item("k", "p", "b", "f", "int f0(void)\n{\n" + "".join(f" {id} = 1;\n" for id in ids) + "}", {}, {}, {})
    size = prompt.count(prompt.write(item), tokenizer)
    assert prompt.parts(item, ids, tokenizer, size) == [ids]
    shorter = prompt.parts(item, ids, tokenizer, size - 1)
    assert sum(shorter, []) == ids and max(map(len, shorter)) == prompt.TOGETHER
    assert prompt.parts(item, [], tokenizer, size) == []


def test_of_a_long_function_a_prompt_shows_the_lines_of_its_variables_before_others():
    tokenizer = smoke.make_tokenizer()
    body = [f" v{i} = a0;" for i in range(9)]
    item = Item("k", "p", "b", "f", "\n".join(["int f0(int a0)", "{", *body, " v2 = v8;", "}"]), {}, {}, {})
    wanted = prompt.write(item._replace(code="int f0(int a0)\n v2 = a0;\n v8 = a0;\n v2 = v8;"))
    size = prompt.count(wanted, tokenizer)
    assert prompt.fit(item, ["v2", "v8"], ["calls int grow()"], tokenizer, size) == wanted
    assert " v2 = v8;" not in prompt.fit(item, ["v2", "v8"], [], tokenizer, size - 1)


def test_a_prompt_that_is_too_long_loses_hints_first_and_then_the_end_of_the_code():
    tokenizer = smoke.make_tokenizer()
    item = Item("k", "p", "b", "f", "int f0(int a0)\n{\n one(a0);\n two(a0);\n}", {"a0": "x"}, {}, {})
    told = ["calls int grow()", "called f0(tree)"]
    whole = prompt.write(item, told)
    size = prompt.count(whole, tokenizer)
    assert prompt.fit(item, ["a0", "f0"], told, tokenizer, size) == whole
    shorter = prompt.fit(item, ["a0", "f0"], told, tokenizer, size - 1)
    assert "calls int grow()" in shorter and "called" not in shorter and "two(a0)" in shorter
    assert prompt.fit(item, ["a0", "f0"], told, tokenizer, 12).strip() == "int f0(int a0)"


def test_variables_that_are_called_alike_stay_apart_in_the_code():
    assert prompt.rename_distinct({"a0": "size", "v0": "size", "f0": "size", "v1": "size_2"}) == {
        "a0": "size", "v0": "size_2", "f0": "size_3", "v1": "size_2_2"}  # fmt: skip


# --- call graph -------------------------------------------------------------------------------------------------


def test_callees_give_their_first_line_and_callers_their_calls_with_what_is_known_of_them(ledger):
    items = list(ledger.values())
    names = {item.key: prompt.true_names(item) for item in items}
    found = dict(zip(ledger, callgraph.all_hints(items, names), strict=True))
    assert found["delegate"] == ["calls int parse_number(char *text, int limit)",
                                 "calls int classify(int amount, unsigned int threshold)"]  # fmt: skip
    assert found["parse_number"] == ["called f0(source, bound)"]  # its own name is the question
    assert found["classify"] == ["called f0(clean, 8001)"] and found["settle"] == []


def test_hints_hold_predictions_only_and_a_function_without_any_gives_none(ledger):
    items = list(ledger.values())
    assert callgraph.all_hints(items, {}) == [[] for _ in items]
    guess = {ledger["delegate"].key: {"a0": "path", "f0": "open_file"}}
    found = dict(zip(ledger, callgraph.all_hints(items, guess), strict=True))
    assert found["parse_number"] == []  # two of two callees are nameless: it is not informed
    guess |= {ledger["parse_number"].key: {"f0": "scan"}, ledger["classify"].key: {"f0": "rate"}}
    found = dict(zip(ledger, callgraph.all_hints(items, guess), strict=True))
    assert found["parse_number"] == ["called f0(path, a1)"]
    assert found["delegate"] == ["calls int scan(char *a0, int a1)", "calls int rate(int a0, unsigned int a1)"]


def test_a_callee_that_knows_too_little_of_itself_gives_no_hint(ledger):
    """The gate of the released code: delegate's two callees are nameless, so whoever calls it hears nothing of it."""
    delegate = ledger["delegate"]
    caller = Item("ledger.O0:x", "p", "b", "x", "int f0(int a0)\n{\n return f1(a0);\n}", {}, {"f1": delegate.key}, {})
    names = {delegate.key: {"f0": "rate_text"}, caller.key: {"f0": "main"}}
    assert callgraph.all_hints([caller, delegate], names)[0] == []
    names |= {key: {"f0": "known"} for key in delegate.calls.values()}
    assert callgraph.all_hints([caller, delegate], names)[0] == ["calls int rate_text(char *a0, int a1)"]


def test_a_call_expression_ends_at_its_own_parenthesis_and_a_definition_is_no_call():
    code = "int f1(int a0)\n{\n v0 = f1(g(a0, (1)), h()) + 2; f12(3);\n}"
    assert list(callgraph.call_sites(code, "f1")) == ["f1(g(a0, (1)), h())"]
    assert list(callgraph.call_sites(code + " f2(a", "f2")) == []


def test_names_travel_one_call_in_each_round_and_the_loop_ends_when_nothing_changes(ledger):
    items, asked = list(ledger.values()), []

    def predict(chosen, hints):
        asked.append([item.function for item in chosen])
        return [{"f0": f"{item.function}_{len(told)}", "a0": "thing"} for item, told in zip(chosen, hints, strict=True)]

    rounds = callgraph.propagate(items, predict, 5)
    assert asked[0] == list(ledger) and set(asked[1]) == {"delegate", "parse_number", "classify"}
    assert len(rounds) < 6 and rounds[-1][ledger["delegate"].key]["f0"] == "delegate_2"
    assert callgraph.propagate(items, predict, 0) == [rounds[0]]


def test_limits_hold_for_hints_of_a_much_called_function():
    callers = [Item(f"b:c{i}", "p", "b", f"c{i}", f"int f0(int a0)\n{{\n f1({i});\n}}", {}, {"f1": "b:f"}, {})
               for i in range(9)]  # fmt: skip
    callee = Item("b:f", "p", "b", "f", "int f0(int a0)\n{\n}", {}, {}, {})
    names = {item.key: {"f0": "known"} for item in (*callers, callee)}
    assert len(callgraph.all_hints([callee, *callers], names)[0]) == callgraph.CALL_SITES


def test_functions_that_survive_no_filter_still_give_context(ledger):
    """The gap of the first study: only what was itself learnt from or scored was anybody's neighbour."""
    names = {item.key: prompt.true_names(item) for item in ledger.values()}
    alone = [ledger["delegate"]]
    assert callgraph.all_hints(alone, names) == [[]]
    assert callgraph.all_hints(alone, names, list(ledger.values())) == [
        ["calls int parse_number(char *text, int limit)", "calls int classify(int amount, unsigned int threshold)"]
    ]


def test_functions_further_away_than_the_rounds_change_no_name(ledger):
    chain = [Item(f"b:{i}", "p", "b", f"c{i}", "int f0(int a0)\n{\n f1(a0);\n}", {}, {"f1": f"b:{i + 1}"}, {})
             for i in range(9)]  # fmt: skip
    assert [item.key for item in callgraph.near(chain[2:3], chain, 1)] == ["b:0", "b:1", "b:2", "b:3", "b:4"]
    assert callgraph.near(chain[2:3], chain, 0) == chain[2:3]

    def predict(items, hints):
        return [{"f0": f"n{len(str(told))}_{item.key[2:]}"} for item, told in zip(items, hints, strict=True)]

    for rounds in (1, 2, 3):
        few = callgraph.propagate(callgraph.near(chain[2:3], chain, rounds), predict, rounds)[-1]
        assert few["b:2"] == callgraph.propagate(chain, predict, rounds)[-1]["b:2"]
