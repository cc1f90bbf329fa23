"""The limits of a model, in a file beside it: written and read back whole, and refused where they cannot be meant."""

import json

import pytest

from prefcore.data.types import freeze
from prefcore.methods.gennm import limits
from prefcore.methods.gennm.limits import Limits

OWN = Limits(max_code=160, max_prompt=288, max_name=12, rounds=2)
OTHER = freeze({"seed": 3, "max_code": 128, "max_prompt": 99, "max_name": 9, "rounds": 1})


def test_what_is_saved_is_read_back_with_what_the_model_was_trained_on(tmp_path):
    path = limits.save(tmp_path, freeze(OWN._asdict() | {"seed": 0}), {"functions": 240})
    assert limits.load(tmp_path) == OWN
    assert json.loads(path.read_text()) == {"limits": OWN._asdict(), "trained": {"functions": 240}}


def test_restored_parameters_have_the_models_limits_and_keep_what_was_set_by_hand(tmp_path):
    limits.save(tmp_path, freeze(OWN._asdict()), {})
    assert limits.restore(OTHER, tmp_path, [])._asdict() == {"seed": 3, **OWN._asdict()}
    assert limits.restore(OTHER, tmp_path, ["max_name", "seed", "model"]) == limits.restore(
        OTHER, tmp_path, [])._replace(max_name=9)  # fmt: skip
    assert limits.restore(OTHER, tmp_path / "nowhere", Limits._fields) == OTHER


@pytest.mark.parametrize(("content", "message"), [
    ("{", "must hold"), ("[]", "must hold"), ("{\"max_code\": 1}", "must hold"),
    (json.dumps({"limits": {"max_code": 1}}), "must hold"),
    (json.dumps({"limits": OWN._asdict() | {"max_name": 0}}), "max_name is 0; it must be a whole number of at least 1"),
    (json.dumps({"limits": OWN._asdict() | {"rounds": 1.5}}), "rounds is 1.5"),
    (json.dumps({"limits": OWN._asdict() | {"max_code": "160"}}), "max_code is '160'"),
])  # fmt: skip
def test_limits_that_cannot_be_meant_are_refused_with_file_and_value(tmp_path, content, message):
    (tmp_path / "limits.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        limits.load(tmp_path)
    assert "limits.json" in str(caught.value)


def test_a_limit_set_by_hand_is_checked_too(tmp_path):
    limits.save(tmp_path, freeze(OWN._asdict()), {})
    with pytest.raises(ValueError, match="max_name is 0"):
        limits.restore(OTHER._replace(max_name=0), tmp_path, ["max_name"])
