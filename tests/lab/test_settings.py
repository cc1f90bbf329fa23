"""--set: a value is what its letters say, of the kind that its parameter has."""

import pytest

from prefcore.lab import settings

VALUES = {"question": "Which?", "beta": 0.1, "epochs": 2, "seed": 0, "drop": False, "arms": ["dpo"], "rates": [],
          "sizes": {"few": 12, "many": 48}, "profile": "own", "data": "own.jsonl"}  # fmt: skip
STUDY = {"rates": [2.0e-4, 5.0e-4], "arms": ["dpo", "sft"]}
SAID = {
    "question=Text #1 is better": "Text #1 is better",
    "question='Better' text is": "'Better' text is",
    "question=no": "no",
    "question=a=b": "a=b",
    "question=''": "",
    "beta=1e-6": 1e-6,
    "beta=1": 1,
    "epochs=010": 10,
    "drop=true": True,
    "arms=[dpo, sft]": ["dpo", "sft"],
    "rates=[1e-3, 2.5e-3]": [1e-3, 2.5e-3],
    "rates=[]": [],
    "sizes={few: 64, many: 256}": {"few": 64, "many": 256},
    "sizes={many: 256}": {"few": 12, "many": 256},
}


@pytest.mark.parametrize("item", SAID)
def test_a_value_is_what_its_letters_say(item):
    (found,) = settings.read([item], VALUES, STUDY).values()
    assert found == SAID[item] and type(found) is type(SAID[item])


REFUSED = {
    "profile=study": "profile is not set here: your own data have a profile of their own; name the run with --name",
    "data=other.jsonl": "data is not set here: use --data",
    "betta=1": "give key=value with one of arms, beta",
    "beta": "give key=value",
    "beta=-0.1": "beta must be above 0",
    "epochs=0": "epochs must be above 0",
    "rates=1e-3": "give a list, as [1e-3]",
    "rates=[true]": "True is of another kind than 0.0002",
    "rates=[fast]": "'fast' is of another kind than 0.0002",
    "rates=[1e-3": "cannot be read",
    "sizes={some: 3}": "there is no some; it has few, many",
    "sizes={many: all}": "many is 'all', which is no number",
}


@pytest.mark.parametrize("item", REFUSED)
def test_a_value_that_no_run_could_have_is_one_line(item):
    with pytest.raises(ValueError) as caught:
        settings.read([item], VALUES, STUDY)
    message = str(caught.value)
    assert message.startswith(f"--set {item}: ") and REFUSED[item] in message and "\n" not in message


def test_a_setting_stands_once():
    with pytest.raises(ValueError, match="--set beta=2: beta is set twice"):
        settings.read(["beta=1", "beta=2"], VALUES, STUDY)


def test_a_column_has_a_name_on_both_sides():
    assert settings.columns("chosen = best answer,prompt=ask") == {"chosen": "best answer", "prompt": "ask"}
    assert settings.columns("") == {}
    with pytest.raises(ValueError, match="--columns best: give NAME=COLUMN"):
        settings.columns("best")
