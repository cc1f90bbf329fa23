"""Value retrieval: cells are found however somebody typed them, wherever they stand in a column."""

import sqlite3
import zlib
from contextlib import closing

import numpy as np
import pytest

from prefcore.methods.chase_sql import database, schema, values
from prefcore.methods.chase_sql.values import Value

CELLS = [Value("owner", "town", text) for text in ("NEW HAVEN", "white_plains", "Trav. Agen. ", "Long  Beach")]
CELLS += [Value("pet", "nm", text) for text in ("Rex", "Bo")]


def embed_words(texts):
    """A stand-in for an encoder: hashed words and their beginnings, of unit length."""
    table = np.full((len(texts), 96), 1e-6)
    for row, text in zip(table, texts, strict=True):
        for word in text.lower().replace("_", " ").split():
            row[zlib.crc32(word.strip(".,?;").encode()) % 96] += 1
            row[zlib.crc32(word[:4].encode()) % 96] += 1
    return table / np.linalg.norm(table, axis=1, keepdims=True)


@pytest.mark.parametrize(("question", "cell"), [
    ("How many owners live in New Haven?", "NEW HAVEN"),
    ("Show pets of White Plains.", "white_plains"),
    ("bookings of the travel agency", "Trav. Agen. "),
    ("What about Long Beach?", "Long  Beach"),
    ("How old is rex?", "Rex"),
])  # fmt: skip
def test_a_value_is_found_however_somebody_typed_it(question, cell):
    assert values.retrieve(question, values.build_index(CELLS), embed_words)[0].text == cell


def test_a_keyword_that_a_model_names_is_looked_for_too():
    index = values.build_index(CELLS)
    assert values.retrieve("the American city with a famous university", index, embed_words) == []
    assert values.retrieve("the city", index, embed_words, named=["New Haven"])[0].text == "NEW HAVEN"


def test_case_spaces_and_underscores_do_not_change_shingles_and_short_texts_have_some():
    assert values.shingles("New Haven") == values.shingles("NEW_HAVEN") == values.shingles(" new  haven ")
    assert values.shingles("Bo") == {" bo", "bo "} and values.shingles("x") == {" x "}


def test_the_nearest_cells_are_those_of_a_slow_search_by_jaccard_similarity():
    texts = [f"{a} {b}" for a in ("silent", "golden", "broken") for b in ("river", "garden", "lantern")]
    index = values.build_index([Value("t", "c", text) for text in texts])
    wanted = values.shingles("golden gardn")
    exact = [len(wanted & values.shingles(text)) / len(wanted | values.shingles(text)) for text in texts]
    (found,) = values.nearest(["golden gardn"], index)
    slow = sorted((i for i in range(9) if exact[i] > 0), key=lambda i: (-exact[i], i))
    assert found == slow[: values.NEAREST] and texts[found[0]] == "golden garden"


def test_all_cells_of_a_column_are_indexed_and_what_is_not_is_said(tmp_path):
    """The old index read the first 500 distinct cells of a column."""
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as made:
        made.execute("CREATE TABLE town (nm TEXT, story TEXT, people INTEGER)")
        rows = [(f"town number {i}", "x" * (10 + 300 * (i % 3 == 0)) + str(i), i) for i in range(1500)]
        made.executemany("INSERT INTO town VALUES (?, ?, ?)", rows)
        made.commit()
    tables = schema.read(tmp_path / "a.sqlite")
    with closing(database.open_database(tmp_path / "a.sqlite")) as connection:
        cells, left_out = values.read_cells(tables, connection)
    assert sum(cell.column == "nm" for cell in cells) == 1500
    assert left_out == ["town.story: 500 texts of more than 200 letters"]
    index = values.build_index(cells, left_out)
    assert values.retrieve("How many live in Town Number 1437?", index, embed_words)[0].text == "town number 1437"


def test_keywords_are_spans_without_stop_words_at_their_ends_and_quoted_texts():
    found = values.keywords('How many pets have the name "Rex the Dog" in Long Beach?')
    assert found[0] == "Rex the Dog" and {"Long Beach", "pets", "Long"} <= set(found)
    assert not {"How many pets", "the", "Long Beach in"} & set(found)


def test_an_empty_database_and_a_question_without_keywords_give_no_value():
    assert values.retrieve("How many pets?", values.build_index([]), embed_words) == []
    assert values.retrieve("how many", values.build_index(CELLS), embed_words) == []
