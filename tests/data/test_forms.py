"""Rows of well-known sets, and what people put around them, become records that say the same; or one clear line."""

import json

import pytest

from prefcore.data.datasets import DataError, read, scan
from prefcore.data.types import Pair, Scored, Unary

ASK = [{"role": "user", "content": "Name a tree."}]
OAK, CAR = ({"role": "assistant", "content": text} for text in ("An oak.", "A car."))
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look_up"}}]}
PLAIN = {"prompt": "Name a tree.", "chosen": "An oak.", "rejected": "A car."}


def pair(prompt="Name a tree.", *more, chosen="An oak.", rejected="A car.", **how):
    return [Pair("data:1", prompt, chosen, rejected, *more, **how)]


@pytest.fixture
def rows(tmp_path):
    """Writes rows as JSON lines and gives the path."""

    def write(*found):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
        return str(path)

    return write


# --- sets that people use -------------------------------------------------------------------------------------------

FORMS = {
    "OpenAI's preferences": (
        {"input": {"messages": ASK, "tools": []}, "preferred_output": [OAK], "non_preferred_output": [CAR]}, pair(ASK)),
    "HelpSteer2 preferences, the first better": (
        {"prompt": "Name a tree.", "response_1": "An oak.", "response_2": "A car.", "preference_strength": -2},
        pair(margin=2.0)),
    "HelpSteer2 preferences, the second better": (
        {"prompt": "Name a tree.", "response_1": "A car.", "response_2": "An oak.", "preference_strength": 1},
        pair(margin=1.0)),
    "HelpSteer2": (
        {"prompt": "Name a tree.", "response": "An oak.", "helpfulness": 3, "verbosity": 1},
        [Scored("data:1", "Name a tree.", "An oak.", 3.0)]),
    "SafeRLHF": (
        {"prompt": "Name a tree.", "response_0": "A car.", "response_1": "An oak.", "better_response_id": 1}, pair()),
    "SHP": (
        {"history": "Name a tree.", "human_ref_A": "A car.", "human_ref_B": "An oak.", "labels": 0, "score_A": 2,
         "score_B": 9}, pair("Name a tree.", 9.0, 2.0)),
    "Chatbot Arena": (
        {"conversation_a": [*ASK, CAR], "conversation_b": [*ASK, OAK], "winner": "model_b"}, pair(ASK)),
    "Arena's later releases": (
        {"prompt": '["Name a tree."]', "response_a": '["An oak."]', "response_b": '["A car."]', "winner_model_a": 1,
         "winner_model_b": 0, "winner_tie": 0}, pair(ASK)),
    "StackExchange": ({"question": "Name a tree.", "response_j": "An oak.", "response_k": "A car."}, pair()),
    "WebGPT": (
        {"question": {"full_text": "Name a tree."}, "answer_0": "A car.", "answer_1": "An oak.", "score_0": -0.5,
         "score_1": 0.5}, pair("Name a tree.", 0.5, -0.5)),
    "UltraFeedback": (
        {"instruction": "Name a tree.", "completions": [
            {"response": "An oak.", "overall_score": 8.0, "fine-grained_score": 4.5}, {"response": "A car."}]},
        [Scored("data:1", "Name a tree.", "An oak.", 4.5)]),
    "distilabel": (
        {"instruction": "Name a tree.", "generations": ["An oak.", "A car."], "ratings": [5, 1]},
        [Scored("data:1/0", "Name a tree.", "An oak.", 5.0), Scored("data:1/1", "Name a tree.", "A car.", 1.0)]),
    "Nectar": (
        {"prompt": "Name a tree.", "answers": [{"answer": "An oak.", "rank": 1.0}]},
        [Scored("data:1", "Name a tree.", "An oak.", -1.0)]),
    "Alpaca with two outputs": (
        {"instruction": "Name a tree.", "input": "", "output": ["An oak.", "A car."]}, pair()),
    "an instruction with its input": (
        {"instruction": "Name it.", "input": "a tree", "chosen": "An oak.", "rejected": "A car."},
        pair("Name it.\na tree")),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "Name a tree."}], "chosen": {"from": "gpt", "value": "An oak."},
         "rejected": {"from": "gpt", "value": "A car."}}, pair(ASK)),
    "ms-swift": ({"messages": [*ASK, OAK], "rejected_response": "A car."}, pair(ASK)),
    "LLaMA-Factory's thumbs": (
        {"instruction": "Name a tree.", "input": "", "output": "An oak.", "kto_tag": True},
        [Unary("data:1", "Name a tree.", "An oak.", True)]),
    "an answer under another name": (
        {"question": "Name a tree.", "response": "An oak.", "label": False},
        [Unary("data:1", "Name a tree.", "An oak.", False)]),
    "argilla's ratings": (PLAIN | {"chosen-rating": 5, "rejected-rating": 2}, pair("Name a tree.", 5.0, 2.0)),
    "names in capitals": ({"Prompt": "Name a tree.", " Chosen": "An oak.", "REJECTED": "A car."}, pair()),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_row_of_a_well_known_set_says_what_it_says_there(rows, name):
    row, expected = FORMS[name]
    assert read(rows(row)) == expected


def test_rows_in_which_people_saw_no_difference_are_counted_and_make_no_pair(rows):
    row, _ = FORMS["HelpSteer2 preferences, the first better"]
    found = scan(rows(row | {"preference_strength": 0}, row, row | {"preference_strength": 0}))
    assert (found.rows, len(found.records), found.ties) == (3, 1, 2) and found.problems == []
    assert "2 rows are ties, and make no pair" in found.notes
    with pytest.raises(DataError, match="all 1 rows are ties"):
        scan(rows(row | {"preference_strength": 0}))


EXPORTS = {
    "Argilla's records": ({"id": "1", "fields": {"a": "b"}, "responses": {}}, "an export of Argilla's records"),
    "Label Studio": ({"id": 1, "data": {"a": "b"}, "annotations": []}, "an export of Label Studio"),
    "talks alone": ({"messages": [*ASK, OAK]}, "hold talks without a preference"),
    "talks of several turns in the Arena": (
        FORMS["Arena's later releases"][0] | {"prompt": '["Hi", "And a bush?"]'}, "2 turns, and the answers part"),
    "a strength beyond the scale": (
        FORMS["HelpSteer2 preferences, the first better"][0] | {"preference_strength": 9}, "9 is none of -3, -2"),
    "unknown columns": ({"left": "a", "right": "b"}, "say which they are with --columns prompt=...,chosen=..."),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_what_cannot_be_read_as_it_is_says_so_in_one_line(rows, name):
    row, what = EXPORTS[name]
    with pytest.raises(DataError) as caught:
        read(rows(row))
    assert what in str(caught.value) and "data.jsonl:1: " in str(caught.value) and "\n" not in str(caught.value)


def test_columns_may_be_named_by_hand(rows):
    path = rows({"ask": "Name a tree.", "good": "An oak.", "bad": "A car.", "chosen": 3})
    assert scan(path, columns={"prompt": "ask", "chosen": "good", "rejected": "bad"}).records == pair()
    with pytest.raises(DataError, match="field 'better': there is no such column; the row has 'ask', 'good'"):
        scan(path, columns={"chosen": "better"})


# --- context --------------------------------------------------------------------------------------------------------

SPOKEN = {
    "a system column before a text": (PLAIN | {"system": "Be brief."}, "Be brief.\n\nName a tree."),
    "a system column before messages": (
        PLAIN | {"prompt": ASK, "system": "Be brief."}, [{"role": "system", "content": "Be brief."}, *ASK]),
    "the same system twice": (
        PLAIN | {"prompt": [{"role": "system", "content": "Be brief."}, *ASK], "system": "Be brief."},
        [{"role": "system", "content": "Be brief."}, *ASK]),
    "a history": (
        PLAIN | {"history": [["Hi.", "Hello."]]},
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}, *ASK]),
    "content in parts of text": (
        PLAIN | {"prompt": [{"role": "user", "content": [{"type": "text", "text": "Name "},
                                                         {"type": "text", "text": "a tree."}]}]}, ASK),
    "empty context": (PLAIN | {"tools": "[]", "images": [], "system": "", "history": []}, "Name a tree."),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOKEN)
def test_context_that_is_text_goes_before_the_prompt(rows, name):
    row, prompt = SPOKEN[name]
    assert read(rows(row)) == pair(prompt)


UNSPOKEN = {
    "pictures": (PLAIN | {"images": ["oak.png"]}, "field 'images': ['oak.png'] is part of the context"),
    "tools": (PLAIN | {"tools": [{"name": "look_up"}]}, "field 'tools': "),
    "tool calls in the prompt": (PLAIN | {"prompt": [*ASK, CALL, *ASK]}, "message 2 has 'tool_calls': tool calls"),
    "answers made of tool calls": (PLAIN | {"chosen": [CALL | {"content": ""}]}, "message 1 has 'tool_calls'"),
    "reasoning": (PLAIN | {"chosen": [OAK | {"reasoning_content": "hm"}], "rejected": [CAR]}, "'reasoning_content'"),
    "a picture among the parts": (
        PLAIN | {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "message 1 has a part of type 'image_url'"),
    "a role of another template": (PLAIN | {"prompt": [ASK[0] | {"role": "human"}]}, "is of role 'human'; the roles"),
    "two different system texts": (
        PLAIN | {"prompt": [{"role": "system", "content": "Be long."}, *ASK], "system": "Be brief."},
        "field 'system': is another text"),
    "a history in one text": (PLAIN | {"history": "Hi. Hello."}, "field 'history': 'Hi. Hello.' is no list of turns"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSPOKEN)
def test_context_that_no_text_holds_is_refused_and_never_dropped(rows, name):
    row, what = UNSPOKEN[name]
    with pytest.raises(DataError) as caught:
        read(rows(PLAIN, row))
    assert what in str(caught.value) and "data.jsonl:2: " in str(caught.value)


def test_columns_that_are_not_read_are_named(rows):
    assert scan(rows(PLAIN | {"source": "web", "model": None})).notes == ["columns that are not read: source"]


# --- structure in texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spell", [json.dumps, repr, lambda talk: json.dumps({"messages": talk, "tools": []})])
def test_messages_spelled_in_a_text_are_messages(rows, spell):
    turned = [{"content": m["content"], "role": m["role"]} for m in (*ASK, OAK)]
    assert read(rows({"chosen": spell(turned), "rejected": spell([*ASK, CAR])})) == pair(ASK)
    assert read(rows({"prompt": spell(ASK), "chosen": spell([OAK]), "rejected": spell([CAR])})) == pair(ASK)


def test_messages_in_a_cell_of_a_table_are_messages(tmp_path):
    path = tmp_path / "data.csv"
    said = [repr([ASK[0], answer]).replace('"', '""') for answer in (OAK, CAR)]
    path.write_text(f'chosen,rejected\n"{said[0]}","{said[1]}"\n', encoding="utf-8")
    assert read(str(path)) == [pair(ASK)[0]._replace(id="data:2")]


def test_an_answer_in_json_stays_a_text_and_lists_in_texts_are_refused(rows):
    row = PLAIN | {"chosen": '{"tree": "oak"}', "rejected": '{"tree": 3}'}
    assert read(rows(row))[0].chosen == '{"tree": "oak"}'
    with pytest.raises(DataError, match="are JSON inside a text"):
        read(rows({"prompt": '["Name a tree."]', "chosen": '["An oak."]', "rejected": '["A car."]'}))
    with pytest.raises(DataError, match="looks like chat messages in a text, but is no JSON"):
        read(rows(PLAIN | {"chosen": "[{'role': 'assistant' 'content': 'An oak.'}]"}))


def test_rendered_templates_stay_text_and_are_counted(rows):
    ready = PLAIN | {"prompt": "<|im_start|>user\nName a tree.<|im_end|>\n<|im_start|>assistant\n"}
    found = scan(rows(ready, ready, PLAIN))
    assert found.records[0].prompt == ready["prompt"]
    assert found.notes == ["2 rows spell control tokens (<|im_start|>), which stay plain text here: give messages with "
                           "role and content, and the model's own template is used"]  # fmt: skip


# --- the prompt once ------------------------------------------------------------------------------------------------

CAFE = {"role": "user", "content": "caf\u00e9?"}
WHOLE = {"prompt": "Name a tree.", "chosen": "Name a tree. An oak.", "rejected": "Name a tree. A car."}
SYSTEM = {"role": "system", "content": "Be brief."}
ONCE = {
    "answers that repeat a text": (WHOLE, pair(chosen=" An oak.", rejected=" A car.")),
    "a system message in the prompt alone": (
        {"prompt": [SYSTEM, *ASK], "chosen": [*ASK, OAK], "rejected": [*ASK, CAR]}, pair([SYSTEM, *ASK])),
    "a system message in the answers alone": (
        {"prompt": ASK, "chosen": [SYSTEM, *ASK, OAK], "rejected": [SYSTEM, *ASK, CAR]}, pair([SYSTEM, *ASK])),
    "two normal forms": (
        {"prompt": [{"role": "user", "content": "cafe\u0301?"}],
         "chosen": [CAFE, OAK], "rejected": [CAFE, CAR]},
        pair([{"role": "user", "content": "cafe\u0301?"}])),
    "a prompt beside whole dialogues": (
        {"prompt": "Name a tree.", "chosen": "\n\nHuman: Name a tree.\n\nAssistant: An oak.",
         "rejected": "\n\nHuman: Name a tree.\n\nAssistant: A car."},
        pair("\n\nHuman: Name a tree.\n\nAssistant:", chosen=" An oak.", rejected=" A car.")),
    "dialogues with Windows' line ends": (
        {"chosen": "\r\n\r\nHuman: Hi\r\n\r\nAssistant: An oak.",
         "rejected": "\r\n\r\nHuman: Hi\r\n\r\nAssistant: A car."},
        pair("\r\n\r\nHuman: Hi\r\n\r\nAssistant:", chosen=" An oak.", rejected=" A car.")),
    "no prompt in the first row": (
        {"prompt": None, "chosen": [*ASK, OAK], "rejected": [*ASK, CAR]}, pair(ASK)),
}  # fmt: skip


@pytest.mark.parametrize("name", ONCE)
def test_the_prompt_is_in_the_record_once(rows, name):
    row, expected = ONCE[name]
    assert read(rows(row)) == expected


def test_where_some_answers_repeat_their_prompt_those_rows_are_refused(rows):
    long = {"prompt": "Name a tree that stays green.", "chosen": "Name a tree that stays green. A fir.", "rejected":
            "Name a tree that stays green. A car."}  # fmt: skip
    found = scan(rows(PLAIN, long))
    assert [record.id for record in found.records] == ["data:1"]
    assert "data.jsonl:2: field 'chosen': begins with its prompt" in str(found.problems[0])


def test_questions_that_differ_are_not_joined(rows):
    other = [{"role": "user", "content": "Name a bush."}]
    with pytest.raises(DataError, match="give the question once, or the same way"):
        read(rows({"prompt": ASK, "chosen": [*other, OAK], "rejected": [*other, CAR]}))
