"""The human ratings: read as they are, split by text, and prompts that a policy can go on from."""

import json

import numpy as np
import pytest

from prefcore.data import ratings
from prefcore.data.files import write_lines
from prefcore.data.ratings import Text, choose, choose_prompts, cut, read_raw, read_texts

WORDS = "the film was long and dull yet my friends all liked its last song very much indeed".split()


def write_raw(folder, count=40, **changes):
    """The eight files with `count` made-up texts a domain; `changes` replace the bytes of a file by name."""
    rng = np.random.default_rng(0)
    for stem in ratings.DOMAINS:
        texts = [" ".join(rng.choice(WORDS, size=rng.integers(3, 12))) + f" {stem}{i}" for i in range(count)]
        truth = "".join(f"{i}\t0.5\t{text}\n" for i, text in enumerate(texts))
        votes = "".join(f"{i}\t0.5\t1.0\t{rng.integers(-4, 5, size=15).tolist()}\n" for i in reversed(range(count)))
        (folder / f"{stem}_GroundTruth.txt").write_bytes(b"\xef\xbb\xbf" + truth.encode())
        (folder / f"{stem}_anonDataRatings.txt").write_text(votes)
    for name, content in changes.items():
        (folder / f"{name}.txt").write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(ratings, "COUNTS", dict.fromkeys(ratings.DOMAINS.values(), 40))


@pytest.fixture
def texts(tmp_path):
    return read_raw(write_raw(tmp_path), seed=0)


def tweets(*rows):
    """Forty lines of tweets of which the first ones are given."""
    return b"".join(rows) + b"".join(b"%d\t0.5\tan ordinary tweet number %d\n" % (i, i) for i in range(len(rows), 40))


# --- reading ----------------------------------------------------------------------------------------------------


def test_texts_and_ratings_join_on_their_id(tmp_path, texts):
    assert len(texts) == 4 * 40 and len({t.id for t in texts}) == 160
    for line in (tmp_path / "tweets_anonDataRatings.txt").read_text().splitlines():
        id, _, _, votes = line.split("\t")
        (text,) = [t for t in texts if t.id == f"tweets:{id}"]
        assert sorted(text.ratings) == sorted(json.loads(votes))
        assert text.mean == pytest.approx(np.mean(json.loads(votes)))
        assert text.text.endswith(f"tweets{id}")


def test_marks_bytes_and_entities_of_the_files_become_plain_text(tmp_path):
    rows = (b"0\t1\t  it\x92s   R&amp;D &lt;3\n", "1\t1\tcafé \u201cgood\u201d\n".encode(), b"2\t1\ta\tb c d e\n")
    found = {t.id: t for t in read_raw(write_raw(tmp_path, tweets_GroundTruth=b"\xef\xbb\xbf" + tweets(*rows)), seed=0)}
    assert found["tweets:0"].text == "it’s R&D <3"
    assert found["tweets:1"].text == "café “good”"
    assert found["tweets:2"].text == "a b c d e"


def test_ratings_are_permuted_as_their_position_carries_information(texts, tmp_path):
    lines = [line.split("\t") for line in (tmp_path / "tweets_anonDataRatings.txt").read_text().splitlines()]
    places = {f"tweets:{row[0]}": json.loads(row[3]) for row in lines}
    moved = [list(t.ratings) != places[t.id] for t in texts if t.id in places]
    assert sum(moved) > 35


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tweets_GroundTruth": tweets().rsplit(b"39\t", 1)[0]}, "tweets: 39 texts, expected 40: run `make data`"),
        ({"tweets_anonDataRatings": b"0\t1\t1\t[1]\n"}, "tweets: no ratings for the texts"),
        ({"tweets_GroundTruth": b"0\t1\n"}, r"tweets_GroundTruth.txt:1: expected 3 tab-separated fields, found 2"),
    ],
)
def test_damaged_files_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_raw(write_raw(tmp_path, **changes), seed=0)


# --- splits -----------------------------------------------------------------------------------------------------


def test_each_domain_is_split_80_10_10_and_its_training_texts_in_halves(texts):
    for domain in ratings.COUNTS:
        own = [t for t in texts if t.domain == domain]
        assert [sum(t.split == split for t in own) for split in ("train", "validation", "test")] == [32, 4, 4]
        assert [sum(t.half == half for t in own) for half in ("proxy", "gold", "")] == [16, 16, 8]
        assert all((t.half != "") == (t.split == "train") for t in own)


def test_a_text_that_comes_twice_is_on_one_side_only(tmp_path):
    rows = [b"%d\t1\t%s\n" % (i, b"The SAME text" if i % 2 else b"the same text") for i in range(20)]
    found = read_raw(write_raw(tmp_path, tweets_GroundTruth=tweets(*rows)), seed=0)
    assert len({(t.split, t.half) for t in found if t.text.lower() == "the same text"}) == 1


def test_everything_drawn_is_a_function_of_the_seed(tmp_path):
    folder = write_raw(tmp_path)
    assert read_raw(folder, seed=1) == read_raw(folder, seed=1)
    assert [t.split for t in read_raw(folder, seed=1)] != [t.split for t in read_raw(folder, seed=2)]


# --- prompts ----------------------------------------------------------------------------------------------------


def test_a_prompt_is_the_domain_and_the_first_two_to_four_words(texts):
    lengths = set()
    for t in texts:
        tag, _, start = t.prompt.partition(": ")
        assert tag == t.domain and start + t.completion == t.text
        lengths.add(len(start.split()))
    assert lengths == {2, 3, 4}


def test_cutting_keeps_the_space_with_the_completion():
    assert cut("a b c d", 2) == ("a b", " c d")
    assert cut("a b", 3) == ("a b", "")


def test_chosen_texts_are_of_the_split_the_half_and_the_length(texts):
    found = choose(texts, 10, 0, split="train", half="gold", max_words=8)
    assert len(set(found)) == 10
    assert all((t.split, t.half) == ("train", "gold") and len(t.text.split()) <= 8 for t in found)
    assert choose(texts, 10, 0, split="train", half="gold", max_words=8) == found
    assert choose(texts, 10, 1, split="train", half="gold", max_words=8) != found
    with pytest.raises(ValueError, match="asked for 17 texts of validation/None, there are 16"):
        choose(texts, 17, 0, split="validation")


def test_chosen_prompts_are_distinct_and_leave_something_to_write(texts):
    found = choose_prompts(texts, 20, 0, split="train")
    assert len({t.prompt for t in found}) == 20
    assert all(t.split == "train" and len(t.completion.split()) >= 4 for t in found)
    assert choose_prompts(texts, 5, 0, split="train") == found[:5]  # a larger set begins with the smaller one
    with pytest.raises(ValueError, match="asked for 99 prompts of test, there are"):
        choose_prompts(texts, 99, 0, split="test")


def test_texts_survive_writing_and_reading_whatever_is_in_them(tmp_path):
    strange = Text("a:1", "Tweet", 'x\u2028y \u0085 "z" \\ é', (1, -4), -1.5, "train", "gold", "Tweet: x", " y\r\n")
    write_lines([strange, strange._replace(id="a:2")], tmp_path / "deep" / "texts.jsonl")
    assert read_texts(tmp_path / "deep" / "texts.jsonl") == [strange, strange._replace(id="a:2")]


def test_writing_does_not_write_through_a_link_into_the_cache(tmp_path):
    (tmp_path / "cache").write_text("kept")
    (tmp_path / "texts.jsonl").hardlink_to(tmp_path / "cache")
    write_lines([], tmp_path / "texts.jsonl")
    assert (tmp_path / "cache").read_text() == "kept"
