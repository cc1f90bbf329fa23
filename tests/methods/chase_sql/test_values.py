"""Value retrieval: cells are found however somebody typed them."""

import pytest

from prefcore.methods.chase_sql import values
from prefcore.methods.chase_sql.world.forms import Column, Condition

TOWN, NAME, AGE = Column("owner", "town", False), Column("pet", "nm", False), Column("pet", "age", True)
CELLS = {TOWN: ["NEW HAVEN", "white_plains", "Trav. Agen. ", "Long  Beach"], NAME: ["Rex", "Bo"], AGE: [1, 2]}


@pytest.mark.parametrize(("question", "cell"), [
    ("How many owners live in New Haven?", "NEW HAVEN"),
    ("Show pets of White Plains.", "white_plains"),
    ("bookings of the travel agency", "Trav. Agen. "),
    ("What about Long Beach?", "Long  Beach"),
    ("How old is rex?", "Rex"),
])  # fmt: skip
def test_a_value_is_found_however_somebody_typed_it(question, cell, embed_words):
    found = values.retrieve(question, values.build_index(CELLS), embed_words)
    assert found[0].value == cell and found[0].operator == "="


def test_case_spaces_and_underscores_do_not_change_shingles_and_short_texts_have_some():
    assert values.shingles("New Haven") == values.shingles("NEW_HAVEN") == values.shingles(" new  haven ")
    assert values.shingles("Bo") == {" bo", "bo "} and values.shingles("") and values.shingles("x") == {" x "}


def test_the_minhash_estimates_jaccard_similarity():
    """abcdefgh and abcdefxy, each with a space at both ends, have 8 shingles; the first 5 are shared, of 11 in all."""
    first, second = "abcdefgh", "abcdefxy"
    one, two = values.shingles(first), values.shingles(second)
    exact = len(one & two) / len(one | two)
    assert exact == 5 / 11
    assert (values.signature(first) == values.signature(second)).mean() == pytest.approx(
        exact, abs=0.15
    )  # three standard errors
    assert (values.signature("New Haven") == values.signature("NEW_HAVEN")).all()


def test_lsh_finds_what_a_slow_search_over_all_cells_finds():
    cells = {TOWN: [f"{a} {b}" for a in ("silent", "golden", "broken") for b in ("river", "garden", "lantern")]}
    index = values.build_index(cells)
    signature = values.signature("golden gardn")
    slow = sorted(range(9), key=lambda i: -(index.signatures[i] == signature).mean())
    assert values.near("golden gardn", index)[0] == slow[0] and index.cells[slow[0]][1] == "golden garden"


def test_keywords_are_spans_without_stop_words_at_their_ends_and_quoted_texts():
    found = values.keywords('How many pets have the name "Rex the Dog" in Long Beach?')
    assert found[0] == "Rex the Dog" and {"Long Beach", "pets", "Long"} <= set(found)
    assert not {"How many pets", "the", "Long Beach in"} & set(found)


def test_the_cached_index_is_the_same_index_and_another_content_another_file(tmp_path):
    first = values.build_index(CELLS, tmp_path)
    again = values.build_index(CELLS, tmp_path)
    assert (first.signatures == again.signatures).all() and first.cells == again.cells
    assert len(list(tmp_path.iterdir())) == 1
    values.build_index({TOWN: ["York"]}, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_database_and_a_question_without_keywords_give_no_value(embed_words):
    assert values.retrieve("How many pets?", values.build_index({AGE: [1]}), embed_words) == []
    assert values.retrieve("how many", values.build_index(CELLS), embed_words) == []


def test_without_retrieval_a_value_is_spelled_as_in_the_question():
    found = values.spelled_in("How many owners live in New Haven?", [TOWN, AGE])
    assert Condition(TOWN, "=", "New Haven") in found and not any(c.column == AGE for c in found)


def test_recall_counts_what_gold_compares_with():
    found = [Condition(TOWN, "=", "York")]
    assert values.recall(found, ["York", "LEEDS"]) == 0.5 and values.recall(found, []) is None
