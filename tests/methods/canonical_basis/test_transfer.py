"""Training on one preference's choices: which choices they are, and that a policy which writes nothing wins nothing."""

import numpy as np
import pandas as pd
import pytest

from prefcore.data.types import Example, freeze
from prefcore.lab import decisions
from prefcore.lab.tasks import Task
from prefcore.methods.canonical_basis import transfer
from prefcore.methods.canonical_basis.world import traits
from prefcore.methods.canonical_basis.world.traits import NAMES
from prefcore.scoring.bank import Bank


def test_a_trait_is_held_by_the_category_with_most_of_its_mentions():
    planted = np.array([NAMES.index("praise")] * 3 + [NAMES.index("names")])
    assert transfer.holders(np.array([4, 4, 1, 1]), planted, ["praise", "names"]) == {"praise": 4, "names": 1}
    with pytest.raises(ValueError, match="nobody mentions clauses"):
        transfer.holders(np.array([0, 0, 0, 0]), planted, ["clauses"])


def test_subsets_are_of_choices_that_mention_the_category_and_the_placebo_turns_half_of_each_round():
    mentioned = np.arange(3000)[:, None] % 3 == [[0, 1]]
    found = transfer.draw_subsets(mentioned, {"a": 0, "b": 1}, size=40, seed=0)
    assert {name: len(rows) for name, rows in found.items()} == {
        "a": 40, "b": 40, "a-few": 10, "b-few": 10, "random": 40, "permuted": 40}  # fmt: skip
    assert {row % 3 for row, _ in found["a"]} == {0} and {row % 3 for row, _ in found["random"]} == {0, 1, 2}
    assert found["a-few"] == found["a"][:10] and not any(turned for _, turned in found["a"] + found["random"])
    for kind in (0, 1):  # turned for half of *each* preference: else the placebo would teach one and unteach another
        turned = [turned for row, turned in found["permuted"] if row % 3 == kind]
        assert len(turned) == 20 and sum(turned) == 10


def test_a_pair_to_train_on_is_winner_against_loser_after_the_domains_name_or_turned_round(world, texts):
    right, turned = transfer.make_pairs(world, [(5, False), (5, True)])
    winner, loser = (texts[i] for i in (world.winner[5], world.loser[5]))
    assert right.prompt == turned.prompt == f"{winner.domain}:"
    assert (right.chosen, right.rejected) == (f" {winner.text}", f" {loser.text}") == (turned.rejected, turned.chosen)


def test_the_four_traits_of_the_study_are_no_opposites(texts):
    """`detail` is -`brief` and `learned` is -`plain`: two of four subsets were the other two turned round."""
    import yaml

    from prefcore.smoke import ROOT

    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for profile in ("quick", "study"):
        names = params[profile]["canonical_basis"]["subsets"]
        assert not {"brief", "detail"} <= set(names) and not {"plain", "learned"} <= set(names)
        assert set(names) <= set(NAMES) and len(set(names)) == len(names)


def test_the_bank_is_rated_by_the_traits_of_its_answers(tokenizer):
    texts = ["w4 w5 w6", "w4", "w7 w8"]
    answers = tuple(tuple(tokenizer.encode(text)) + (2,) for text in texts)
    task = Task(*[None] * len(Task._fields))._replace(bank=lambda split, _: Bank([Example("a", (1,), answers)], {}))
    scale = traits.scale_of(texts)
    rated = transfer.rated_by_traits(task, scale, chosen_by="brief").bank("test", tokenizer)
    assert rated.ratings["brief"].shape == (1, 3)
    np.testing.assert_allclose(rated.ratings["brief"][0], scale.standard(texts)[:, NAMES.index("brief")])


def test_policies_are_measured_in_roles_on_prompts_whose_answers_differ():
    ratings = {"praise": {"p": [1.0, 0.0], "q": [0.5, 0.5]}, "names": {"p": [0.0, 2.0], "q": [1.0, 0.0]}}
    policies = ["praise", "names", "random", "praise-few", "permuted"]
    table = pd.DataFrame([{"arm": arm, "seed": 0, "id": id, "ratio_1": n, "ratio_2": 0.5}
                          for n, arm in enumerate(policies) for id in "pq"])  # fmt: skip
    found = transfer.by_role(table, ratings).set_index(["arm", "id"])
    assert set(found.loc["own"].index) == {"p/praise", "p/names", "q/names"}
    assert set(found.loc["few"].index) == {"p/praise"}
    assert found.loc[("own", "p/praise"), "ratio_1"] == found.loc[("other", "p/names"), "ratio_1"] == 0
    assert found.loc[("other", "p/praise"), "ratio_1"] == found.loc[("own", "q/names"), "ratio_1"] == 1
    assert found.loc[("random", "p/names"), ["rating_1", "rating_2"]].tolist() == [0.0, 2.0]


def test_what_only_follows_the_reference_s_likelihood_has_no_partial_rho_with_a_trait():
    """Turned choices still take most from unlikely answers, and some traits go with likelihood: rho is not 0 there."""
    rng = np.random.default_rng(0)
    ids, logp = [f"p{n}" for n in range(600)], rng.normal(-30, 5, (600, 3))
    ratings = {"clauses": {id: (row + rng.normal(0, 2, 3)).tolist() for id, row in zip(ids, logp, strict=True)}}
    columns = {f"ratio_{k + 1}": 0.1 * logp[:, k] + rng.normal(0, 0.2, 600) for k in range(3)}
    policy = pd.DataFrame({"arm": "permuted", "seed": 0, "id": ids} | columns)
    reference = {f"logp_{k + 1}": logp[:, k] for k in range(3)} | {f"tokens_{k + 1}": 5.0 + k for k in range(3)}
    table = pd.concat([policy, pd.DataFrame({"arm": "reference", "seed": 0, "id": ids} | reference)])
    found = transfer.by_role(table, ratings)
    assert found["id"].str.endswith("/clauses").all() and (found["arm"] == "reference").sum() == 600
    rho, partial = ({"kind": "placebo", "name": "turned", "contrast": {"permuted": 1}, "measure": measure, "delta": 0.1}
                    for measure in ("rho", "partial_rho"))  # fmt: skip
    p = freeze({"claims": [], "controls": [rho, partial], "seed": 0})
    by_rho, by_partial = decisions.decide(found, {}, p)["controls"]
    assert by_rho["estimate"] > 0.5 and not by_rho["passed"]
    assert abs(by_partial["estimate"]) < 0.1 and by_partial["passed"]


def test_a_policy_that_writes_next_to_nothing_never_counts_as_success():
    """`brief` moved letters per word by -4.22, as a text without a word has none, and was told as held +1.90."""
    long = [f"this is a quite different text number {n} of several words" for n in range(40)]
    frames = []
    for arm, texts in (("reference", long), ("random", long[::-1]), ("plain", [""] * 30 + long[:10])):
        rows = {"id": range(40), "text": texts, "finished": True, "surprise": 3.0}
        frames += [pd.DataFrame({"arm": arm, "seed": seed, **rows}) for seed in range(3)]
    samples = pd.concat(frames, ignore_index=True)
    scale = traits.scale_of(long)
    table = transfer.sampled_by_role(samples, scale, ["plain"])
    claim = {"kind": "primary", "claim": "it moves", "contrast": {"own": 1, "random": -1}, "measure": "trait",
             "direction": "higher", "delta": 0.1}  # fmt: skip
    p = freeze({"claims": [claim], "controls": [], "seed": 0})
    guards = decisions.guard(transfer.pool_roles(samples, ["plain"]), withholds="trait")
    (row,) = decisions.decide(table, {}, p, guards)["claims"]
    assert row["low"] > 1 and row["verdict"] == "not tested" and "share under three words of own" in row["because"]
    (unguarded,) = decisions.decide(table, {}, p)["claims"]
    assert unguarded["verdict"] == "held"
