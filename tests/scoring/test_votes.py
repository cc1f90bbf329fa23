"""Voted pairs of the default data, and of people's own files."""

import gzip
import json

import numpy as np
import pytest

from prefcore.data import files, ratings
from prefcore.data.rows import DataError
from prefcore.data.types import freeze
from prefcore.scoring import judge, voters, votes


def text(i, domain, scores):
    mean = float(np.mean(scores))
    return ratings.Text(f"{domain}:{i}", domain, f"{domain} {i}", tuple(scores), mean, "train", "", "", "")


@pytest.fixture
def texts():
    """Forty texts of each domain: means from -4 to 4, every third one rated with much disagreement."""
    rng = np.random.default_rng(0)
    out = []
    for domain in ratings.COUNTS:
        for i in range(40):
            spread = 3 if i % 3 == 0 else 1
            out.append(text(i, domain, np.clip(rng.integers(-3, 4) + rng.integers(-spread, spread + 1, 16), -4, 4)))
    return out


@pytest.fixture
def vectors(texts):
    """Random directions; each text with an odd number points nearly where the one before it points."""
    rng = np.random.default_rng(1)
    out = rng.normal(size=(len(texts), 12))
    out[1::2] = out[::2] + 0.05 * rng.normal(size=out[::2].shape)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def choose(texts, vectors, size, *, seed=0, uses=4):
    return votes.choose_pairs(texts, vectors, size, uses=uses, quantile=0.95, seed=seed)


def test_the_halves_of_the_raters_share_nobody_and_leave_out_nobody():
    first, second = votes.halve(range(15), np.random.default_rng(0))
    assert sorted([*first, *second]) == list(range(15)) and len(first) == 7


def test_a_vote_compares_one_score_of_a_with_one_of_b_and_uses_each_rater_once():
    found = votes.compare([4, 4, 4], [-4, -4], np.random.default_rng(0))
    assert found == (1.0, 1.0)
    assert votes.compare([1, 1], [1, 1], np.random.default_rng(0)) == (0.5, 0.5)
    assert sorted(votes.compare([2, -2], [0, 0], np.random.default_rng(0))) == [0.0, 1.0]


def test_the_mean_vote_is_on_average_the_share_of_all_comparisons():
    rng = np.random.default_rng(0)
    a, b = [3, 1, 0, -1, 2, 2], [1, 1, -2, 0, 4, 0]
    drawn = np.mean([np.mean(votes.compare(a, b, rng)) for _ in range(4000)])
    assert drawn == pytest.approx(judge.share_preferring(a, b), abs=0.01)


@pytest.mark.parametrize("uses", [4, 1])
def test_a_pair_is_of_one_domain_and_no_text_is_in_more_pairs_than_allowed(texts, vectors, uses):
    pairs, _ = choose(texts, vectors, 90, uses=uses)
    times: dict[str, int] = {}
    for pair in pairs:
        first, second = pair.id.split("|")
        assert first.split(":")[0] == second.split(":")[0] == pair.domain and first != second
        for name in (first, second):
            times[name] = times.get(name, 0) + 1
    assert max(times.values()) <= uses and len({pair.id for pair in pairs}) == len(pairs)


def test_pairs_that_are_measured_on_share_no_text(toy_weights, texts, tmp_path, monkeypatch):
    """So they are units, and an interval may resample them; of the training pairs many share one."""
    monkeypatch.chdir(tmp_path)
    split = [t._replace(split=voters.SPLITS[i % 3], ratings=tuple(map(int, t.ratings))) for i, t in enumerate(texts)]
    files.write_lines(split, tmp_path / "build" / "texts.jsonl")
    p = freeze({"device": "cpu", "threads": 1, "encoder": str(toy_weights / "encoder"), "profile": "t", "seed": 0,
                "similar_quantile": 0.8, "voted_texts": dict.fromkeys(voters.SPLITS, 52),
                "voted_pairs": {"train": 60, "validation": 18, "test": 18}})  # fmt: skip
    votes.prepare(p, tmp_path / "build")
    shown = {split: [text for pair in votes.read(tmp_path / "build" / "voted.jsonl") if pair.split == split
                     for text in (pair.a, pair.b)] for split in voters.SPLITS}  # fmt: skip
    assert len(shown["train"]) > 90
    for measured in ("validation", "test"):
        assert len(set(shown[measured])) == len(shown[measured]) == 36
    assert len(set(shown["train"])) < len(shown["train"])


def test_a_text_that_is_in_the_data_twice_is_one_text(texts, vectors):
    """The second half of the texts repeats the first: no pair shows a text twice, and none is in a second pair."""
    half = len(texts) // 8
    twice = [t._replace(text=texts[i - i % 40 + i % half].text) for i, t in enumerate(texts)]
    pairs, _ = choose(twice, vectors, 60, uses=1)
    shown = [text for pair in pairs for text in (pair.a, pair.b)]
    assert len(pairs) > 10 and len(shown) == len(set(shown))


def test_each_stratum_is_what_its_name_says(texts, vectors):
    pairs, counts = choose(texts, vectors, 90)
    by_id = {t.id: (t, v) for t, v in zip(texts, vectors, strict=True)}
    spread = {stratum: [] for stratum in votes.STRATA}
    for pair in pairs:
        (a, u), (b, v) = (by_id[name] for name in pair.id.split("|"))
        alike = u @ v >= counts["similarity_at_quantile"][pair.domain] - 1e-9
        assert alike == (pair.stratum == "indistinguishable")
        spread[pair.stratum].append((np.std(a.ratings) + np.std(b.ratings)) / 2)
        if pair.stratum == "clear":
            assert abs(a.mean - b.mean) > 0.3  # 1 point by the training half of the raters
    assert {s: counts[s] for s in votes.STRATA} == {s: sum(p.stratum == s for p in pairs) for s in votes.STRATA}
    assert min(counts[s] for s in votes.STRATA) >= 10
    assert np.mean(spread["plural"]) > np.mean(spread["clear"]) + 0.3


def test_votes_truth_and_share_are_about_the_pair_as_it_is_shown(texts, vectors):
    """A loved and a hated text: every vote is for the loved one, on whichever side it stands."""
    extreme = [t._replace(ratings=(4,) * 16 if i % 2 else (-4,) * 16) for i, t in enumerate(texts)]
    pairs, _ = choose(extreme, vectors, 60)
    loved = {t.id for t in extreme if t.ratings[0] == 4}
    clear = [pair for pair in pairs if pair.stratum == "clear"]
    assert {pair.id.split("|")[0] in loved for pair in clear} == {True, False}
    for pair in clear:
        wins = float(pair.id.split("|")[0] in loved)
        assert set(pair.votes) == set(pair.truth) == {wins} and pair.share == wins
        assert len(pair.votes) == len(pair.truth) == 8


def test_held_out_raters_do_not_touch_what_is_learnt_from(texts, vectors):
    """Strata and votes stay as they are when only the truth's half of each list changes."""
    rng = np.random.default_rng([0, len(texts)])
    halves = [votes.halve(range(16), rng) for _ in texts]
    changed = []
    for t, (_, held_out) in zip(texts, halves, strict=True):
        scores = np.array(t.ratings)
        scores[held_out] = 4
        changed.append(t._replace(ratings=tuple(scores.tolist())))
    before, after = (choose(some, vectors, 90)[0] for some in (texts, changed))
    assert [(p.id, p.stratum, p.votes) for p in before] == [(p.id, p.stratum, p.votes) for p in after]
    assert {vote for pair in after for vote in pair.truth} == {0.5}
    assert [p.truth for p in before] != [p.truth for p in after]


def test_the_pairs_are_a_function_of_the_seed(texts, vectors):
    first, again, other = (choose(texts, vectors, 60, seed=seed)[0] for seed in (0, 0, 1))
    assert first == again != other


def test_a_domain_without_texts_is_named(texts, vectors):
    few = [i for i, t in enumerate(texts) if t.domain != "Tweet"]
    with pytest.raises(ValueError, match="0 texts of Tweet are too few"):
        choose([texts[i] for i in few], vectors[few], 60, seed=0)


def test_swapping_twice_gives_the_pair_back(texts, vectors):
    pair = choose(texts, vectors, 60)[0][0]
    other = votes.swap(pair)
    assert (other.a, other.b) == (pair.b, pair.a) and other.share == 1 - pair.share
    assert other.votes == tuple(1 - v for v in pair.votes)
    assert votes.swap(other)._replace(share=pair.share) == pair


def test_pairs_come_back_from_disk_as_they_were(texts, vectors, tmp_path):
    pairs, _ = choose(texts, vectors, 60)
    assert votes.read(files.write_lines(pairs, tmp_path / "voted.jsonl")) == pairs


# --- own files --------------------------------------------------------------------------------------------------

GOOD = {"a": "one text", "b": "another text", "votes": [1, 0, 0.5]}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_file_of_texts_and_votes_is_read(tmp_path):
    (pair,) = voters.read(write(tmp_path / "v.jsonl", GOOD | {"prompt": "Which?", "id": "x"}), 0) or [None]
    assert (pair.id, pair.prompt, pair.a, pair.b) == ("x", "Which?", "one text", "another text")
    assert pair.votes == (1.0, 0.0, 0.5) and pair.share == 0.5 and pair.voters == () and pair.truth == ()


def test_votes_may_name_who_cast_them(tmp_path):
    named = [{"voter": "ann", "vote": "a"}, {"voter": "bob", "vote": "tie"}, {"voter": "cy", "vote": 0}]
    (pair,) = voters.read(write(tmp_path / "v.jsonl", GOOD | {"votes": named}), 0)
    assert pair.votes == (1.0, 0.5, 0.0) and pair.voters == ("ann", "bob", "cy")


def test_a_folder_in_the_layout_of_ukpconvarg_is_joined(tmp_path):
    said = [{"w": "w1", "v": "a2"}, {"w": "w2", "v": "equal"}]
    row = {"id": "p", "topic": "t", "arg1": "1", "arg2": "2", "votes": said}
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    write(tmp_path / "arguments.jsonl", {"id": "1", "text": "first"}, {"id": "2", "text": "second"})
    (pair,) = voters.read(str(tmp_path), 0)
    assert (pair.a, pair.b, pair.votes, pair.voters) == ("first", "second", (0.0, 0.5), ("w1", "w2"))
    assert pair.domain == "t" and pair.share == 0.25


@pytest.mark.parametrize("joined", [True, False])
def test_no_text_is_on_two_sides_of_a_split(tmp_path, joined):
    rng = np.random.default_rng(0)
    ends = rng.integers(60, size=(400, 2)) if joined else [(2 * i, 2 * i + 1) for i in range(100)]
    rows = [{"a": f"text {i}", "b": f"text {j}", "votes": [1]} for i, j in ends if i != j]
    pairs = voters.read(write(tmp_path / "v.jsonl", *rows), 0)
    assert joined or [sum(p.split == s for p in pairs) for s in voters.SPLITS] == [80, 10, 10]
    sides: dict[str, set] = {}
    for pair in pairs:
        for one in (pair.a, pair.b):
            sides.setdefault(one, set()).add(pair.split)
    assert all(len(found) == 1 for found in sides.values())
    assert {pair.split for pair in pairs} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    "row, field, message",
    [
        (GOOD | {"votes": []}, "votes", "has no vote"),
        (GOOD | {"votes": None}, "votes", "has no vote"),
        (GOOD | {"votes": [1, 2]}, "votes", "2 is no vote"),
        (GOOD | {"votes": [True]}, "votes", "True is no vote"),
        (GOOD | {"votes": ["maybe"]}, "votes", "'maybe' is no vote"),
        (GOOD | {"votes": [float("nan")]}, "votes", "nan is no vote"),
        (GOOD | {"votes": [{"voter": "ann", "vote": "a"}, 1]}, "votes", "some votes name their voter and some do not"),
        (GOOD | {"a": ""}, "a", "is empty; give a text"),
        (GOOD | {"b": 7}, "b", "7 is of type int; give a text"),
        ({"arg1": "1", "arg2": "2", "votes": [1]}, "arg1", "no file arguments"),
    ],
)
def test_a_bad_row_is_named_with_file_line_and_field(tmp_path, row, field, message):
    path = write(tmp_path / "v.jsonl", GOOD, row)
    with pytest.raises(DataError) as error:
        voters.read(path, 0)
    assert str(error.value).startswith(f"{path}:2: field '{field}': ") and message in str(error.value)
    assert "1 of 2 rows is bad" in str(error.value)


def test_a_pair_of_the_same_text_twice_is_left_out_aloud(tmp_path, capsys):
    assert len(voters.read(write(tmp_path / "v.jsonl", GOOD, GOOD | {"b": "one text"}), 0)) == 1
    assert "1 of 2 pairs show the same text twice" in capsys.readouterr().out


def test_an_argument_that_is_not_there_is_named(tmp_path):
    write(tmp_path / "arguments.jsonl", {"id": "1", "text": "first"})
    write(tmp_path / "pairs.jsonl", {"arg1": "1", "arg2": "9", "votes": [1]})
    with pytest.raises(DataError, match="field 'arg2': '9' is not in arguments.jsonl"):
        voters.read(str(tmp_path), 0)


def test_an_empty_file_a_wrong_folder_and_broken_lines_are_said(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="no pair of two different texts"):
        voters.read(str(tmp_path / "empty.jsonl"), 0)
    with pytest.raises(DataError, match="holds no pairs.jsonl"):
        voters.read(str(tmp_path), 0)
    (tmp_path / "broken.jsonl").write_bytes(b'{"a": "x"\n')
    with pytest.raises(DataError, match="broken.jsonl:1: not valid JSON"):
        voters.read(str(tmp_path / "broken.jsonl"), 0)
    (tmp_path / "bytes.jsonl").write_bytes(json.dumps(GOOD).encode().replace(b"one", b"\xff"))
    with pytest.raises(DataError, match="field 'a': invalid UTF-8"):
        voters.read(str(tmp_path / "bytes.jsonl"), 0)


def test_a_chapter_reads_the_file_that_is_named_or_what_the_stage_wrote(texts, vectors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs, _ = choose(texts, vectors, 60)
    files.write_lines(pairs, tmp_path / "build" / "t" / "voted.jsonl")
    p = freeze({"data": "", "profile": "t", "seed": 0})
    assert voters.open_pairs(p) == pairs
    own = p._replace(data=write(tmp_path / "v.jsonl", GOOD))
    assert voters.open_pairs(own) == voters.read(own.data, 0) and len(voters.open_pairs(own)) == 1
