"""Rows of well-known data sets as rows of the four layouts that datasets.py reads: one small function for each form.

A form is known by its columns alone. Its function gives the rows that one row holds: none where people saw no
difference, several where one row has several rated answers.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from prefcore.data.chats import spelled
from prefcore.data.rows import Row, fault, short

QUESTIONS = ("instruction", "question", "query", "input")  # what sets call a prompt
ANSWERS = ("response", "answer", "output")  # and a completion
Converter = Callable[[Row], Iterable[Mapping]]


class Form(NamedTuple):
    """columns: those that a row must have to be of this form; says: how it is read, for people."""

    columns: frozenset[str]
    says: str
    convert: Converter


def _of(columns: str, says: str, convert: Converter) -> Form:
    return Form(frozenset(columns.split()), says, convert)


def _sides(row: Row, first, second, better: int | None, **more) -> list[dict]:
    """A pair of two answers, of which number `better` (0 or 1) is chosen; nothing for a tie (None)."""
    if better is None:
        return []
    chosen, rejected = (first, second) if better == 0 else (second, first)
    return [{"prompt": row.values.get("prompt"), "chosen": chosen, "rejected": rejected, **more}]


def _number_of(row: Row, name: str, allowed: Iterable) -> int:
    value = row.values[name]
    if isinstance(value, bool) or value not in allowed:
        raise fault(row, name, f"{short(value)} is none of {', '.join(map(str, allowed))}")
    return int(value)


def _openai(row: Row) -> list[dict]:
    given = row.values["input"]
    if not isinstance(given, Mapping) or "messages" not in given:
        raise fault(row, "input", f"{short(given)} has no messages; give OpenAI's form of preferences")
    sides = {"chosen": row.values["preferred_output"], "rejected": row.values["non_preferred_output"]}
    return [{"prompt": given["messages"], "tools": given.get("tools"), **sides}]


def _helpsteer_pair(row: Row) -> list[dict]:
    strength = _number_of(row, "preference_strength", range(-3, 4))
    better = None if strength == 0 else int(strength > 0)
    return _sides(row, row.values["response_1"], row.values["response_2"], better, margin=abs(strength))


def _helpsteer(row: Row) -> list[dict]:
    return [{"prompt": row.values["prompt"], "completion": row.values["response"], "score": row.values["helpfulness"]}]


def _saferlhf(row: Row) -> list[dict]:
    better = _number_of(row, "better_response_id", (0, 1))
    return _sides(row, row.values["response_0"], row.values["response_1"], better)


def _shp(row: Row) -> list[dict]:
    better = 1 - _number_of(row, "labels", (0, 1))
    scores = [row.values.get(name) for name in ("score_A", "score_B")]
    told = {"chosen_score": scores[better], "rejected_score": scores[1 - better]}
    pair = _sides(row, row.values["human_ref_A"], row.values["human_ref_B"], better, **told)
    return [one | {"prompt": row.values["history"]} for one in pair]


def _winner(row: Row) -> int | None:
    """0 or 1, or None for a tie: Chatbot Arena's `winner`, or the three columns of its later releases."""
    if "winner" in row.values:
        said = row.values["winner"]
        known = {"model_a": 0, "a": 0, "model_b": 1, "b": 1}
        if not isinstance(said, str) or said not in known and not said.startswith("tie"):
            raise fault(row, "winner", f"{short(said)} is none of model_a, model_b, tie")
        return known.get(said)
    won = [_number_of(row, f"winner_{name}", (0, 1)) for name in ("model_a", "model_b", "tie")]
    if sum(won) != 1:
        raise fault(row, "winner_tie", f"{sum(won)} of the three winner columns are 1; give one")
    return None if won[2] else int(won[1])


def _arena(row: Row) -> list[dict]:
    turns = {}
    for name in ("prompt", "response_a", "response_b"):
        found = spelled(row.values[name]) if isinstance(row.values[name], str) else row.values[name]
        turns[name] = found if isinstance(found, list) and found else [row.values[name]]
    if len(turns["prompt"]) > 1:
        n = len(turns["prompt"])
        raise fault(row, "prompt", f"{n} turns, and the answers part at the first; only talks of one turn make a pair")
    prompt, first, second = (turns[name][0] for name in ("prompt", "response_a", "response_b"))
    return [one | {"prompt": [{"role": "user", "content": prompt}]} for one in _sides(row, first, second, _winner(row))]


def _conversations(row: Row) -> list[dict]:
    pair = _sides(row, row.values["conversation_a"], row.values["conversation_b"], _winner(row))
    return [{"chosen": one["chosen"], "rejected": one["rejected"]} for one in pair]


def _stack_exchange(row: Row) -> list[dict]:
    sides = {"chosen": row.values["response_j"], "rejected": row.values["response_k"]}
    return [{"prompt": row.values["question"], **sides}]


def _webgpt(row: Row) -> list[dict]:
    question = row.values["question"]
    prompt = question.get("full_text") if isinstance(question, Mapping) else question
    scores = [row.values["score_0"], row.values["score_1"]]
    if not all(isinstance(score, int | float) for score in scores):
        raise fault(row, "score_0", f"the scores are {short(scores)}; give two numbers")
    if scores[0] == scores[1]:
        return []
    better = int(scores[1] > scores[0])
    told = {"chosen_score": scores[better], "rejected_score": scores[1 - better]}
    pair = _sides(row, row.values["answer_0"], row.values["answer_1"], better, **told)
    return [one | {"prompt": prompt} for one in pair]


def _ultrafeedback(row: Row) -> list[dict]:
    found = row.values["completions"]
    if not isinstance(found, list) or not all(isinstance(one, Mapping) and "response" in one for one in found):
        raise fault(row, "completions", f"{short(found)} is no list of objects with a response")
    return _rated(row, row.values["instruction"], [one["response"] for one in found],
                  [one.get("fine-grained_score", one.get("overall_score")) for one in found])  # fmt: skip


def _distilabel(row: Row) -> list[dict]:
    generations, ratings = row.values["generations"], row.values["ratings"]
    if not isinstance(generations, list) or not isinstance(ratings, list) or len(generations) != len(ratings):
        raise fault(row, "ratings", f"{short(ratings)} does not rate each of the generations; give as many numbers")
    return _rated(row, _question(row), generations, ratings)


def _nectar(row: Row) -> list[dict]:
    found = row.values["answers"]
    if not isinstance(found, list) or not all(
        isinstance(one, Mapping) and "answer" in one and isinstance(one.get("rank"), int | float) for one in found
    ):
        raise fault(row, "answers", f"{short(found)} is no list of objects with answer and rank")
    return _rated(row, row.values["prompt"], [one["answer"] for one in found], [-one["rank"] for one in found])


def _rated(row: Row, prompt, completions: list, scores: list) -> list[dict]:
    """Each rated answer as a row; one without a score (null) says nothing, and is left out."""
    return [{"prompt": prompt, "completion": text, "score": score}
            for text, score in zip(completions, scores, strict=True) if score is not None]  # fmt: skip


def _alpaca(row: Row) -> list[dict]:
    output = row.values["output"]
    if not isinstance(output, list) or len(output) != 2:
        raise fault(row, "output", f"{short(output)} is no list of two answers, the better one first")
    return [{"prompt": _question(row), "chosen": output[0], "rejected": output[1]}]


def _asked(row: Row) -> list[dict]:
    """Pairs, labels or scores whose prompt or completion has another name; all other columns stay."""
    rest = dict(row.values)
    if "prompt" not in rest:
        rest["prompt"] = _question(row)
        rest = {name: value for name, value in rest.items() if name not in QUESTIONS}
    if not {"completion", "chosen"} & rest.keys():
        name = next((name for name in ANSWERS if name in rest), "completion")
        rest["completion"] = rest.pop(name, None)
    return [rest]


def _question(row: Row):
    """The prompt of a row under another name; Alpaca's `input` is what its instruction is about."""
    name = next((name for name in ("prompt", *QUESTIONS) if row.values.get(name)), None)
    if name is None:
        raise fault(row, "prompt", f"missing, and none of {', '.join(QUESTIONS)} has a text; give one")
    about = row.values.get("input") if name == "instruction" else None
    return f"{row.values[name]}\n{about}" if about else row.values[name]


def _sharegpt(row: Row) -> list[dict]:
    return [{**row.values, "prompt": row.values["conversations"]}]


def _swift(row: Row) -> list[dict]:
    talk = row.values["messages"]
    if not isinstance(talk, list) or len(talk) < 2:
        raise fault(row, "messages", f"{short(talk)} is no talk that ends with the chosen answer")
    rest = {name: value for name, value in row.values.items() if name not in ("messages", "rejected_response")}
    rejected = row.values["rejected_response"]
    rejected = [{"role": "assistant", "content": rejected}] if isinstance(rejected, str) else rejected
    return [{**rest, "prompt": talk[:-1], "chosen": [talk[-1]], "rejected": rejected}]


def _kto_tag(row: Row) -> list[dict]:
    return [{"prompt": _question(row), "completion": row.values["output"], "label": row.values["kto_tag"]}]


FORMS = (  # the first whose columns are all there counts
    _of("input preferred_output non_preferred_output", "pairs in OpenAI's form", _openai),
    _of("prompt response_1 response_2 preference_strength", "pairs by strength (HelpSteer2)", _helpsteer_pair),
    _of("prompt response helpfulness", "answers scored by helpfulness (HelpSteer2)", _helpsteer),
    _of("prompt response_0 response_1 better_response_id", "pairs by better_response_id (SafeRLHF)", _saferlhf),
    _of("history human_ref_A human_ref_B labels", "pairs by labels (SHP)", _shp),
    _of("prompt response_a response_b winner", "pairs by winner (Chatbot Arena)", _arena),
    _of("prompt response_a response_b winner_model_a winner_model_b winner_tie", "pairs by winner (Arena)", _arena),
    _of("conversation_a conversation_b winner", "pairs by winner (Chatbot Arena)", _conversations),
    _of("question response_j response_k", "pairs, response_j the better (StackExchange)", _stack_exchange),
    _of("question answer_0 answer_1 score_0 score_1", "pairs by score (WebGPT)", _webgpt),
    _of("instruction completions", "answers by fine-grained_score, else overall_score (UltraFeedback)", _ultrafeedback),
    _of("instruction generations ratings", "answers scored by ratings (distilabel)", _distilabel),
    _of("prompt generations ratings", "answers scored by ratings (distilabel)", _distilabel),
    _of("prompt answers", "answers scored by their rank (Nectar)", _nectar),
    _of("conversations chosen rejected", "pairs after a conversation (ShareGPT)", _sharegpt),
    _of("messages rejected_response", "pairs, the last message the chosen one (ms-swift)", _swift),
    _of("instruction output kto_tag", "answers with kto_tag (LLaMA-Factory)", _kto_tag),
)
PAIR_IN_LIST = _of("instruction output", "pairs, the first of `output` the better (Alpaca)", _alpaca)
RENAMED = _of("", "rows whose prompt or answer has another name", _asked)
LAYOUT = _of("", "", lambda row: [row.values])  # the columns of one of the four layouts, or unknown ones


def choose(row: Row) -> Form:
    """The form of a row, by its columns; LAYOUT where it needs no change, or nobody knows them."""
    names = row.values.keys()
    for form in FORMS:
        if form.columns <= names:
            return form
    if names >= PAIR_IN_LIST.columns and isinstance(row.values["output"], list):
        return PAIR_IN_LIST
    asked = "prompt" in names or any(row.values.get(name) for name in QUESTIONS)
    paired = {"chosen", "rejected"} <= names and "prompt" not in names
    answered = "completion" in names or any(name in names for name in ANSWERS)
    judged = answered and ("label" in names) != ("score" in names) and not {"prompt", "completion"} <= names
    return RENAMED if asked and (paired or judged) else LAYOUT


def convert(row: Row, form: Form) -> list[Row]:
    """The rows of a layout that one row of this form holds; their ids are its own, with a number where it has several.

    DataError for a row that lacks what the form needs.
    """
    for name in sorted(form.columns - row.values.keys()):
        raise fault(row, name, "missing; the first row has it")
    weight = {"weight": row.values["weight"]} if "weight" in row.values else {}
    found = [{**values, **weight} for values in form.convert(row)]
    ids = [row.id] if len(found) == 1 else [f"{row.id}/{i}" for i in range(len(found))]
    return [Row(row.where, id, values) for id, values in zip(ids, found, strict=True)]


def refusal(row: Row) -> str:
    """What to say of columns that nobody knows; exports that need a person's choice are named."""
    names, given = set(row.values), ", ".join(map(repr, row.values))
    if {"fields", "responses"} <= names:
        return "this is an export of Argilla's records: write a column for each field, and the answer that was chosen"
    if {"data", "annotations"} <= names:
        return "this is an export of Label Studio, whose left and right only its set-up knows: write both texts"
    if {"messages"} <= names:
        return f"the columns {given} hold talks without a preference"
    return f"the columns {given} are no preference data"
