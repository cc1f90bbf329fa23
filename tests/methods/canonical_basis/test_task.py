"""The task holds a planted world, or the conversations of one's own data, and never both."""

import pytest

from prefcore.data.rows import DataError
from prefcore.data.types import freeze
from prefcore.methods.canonical_basis.task import open_task


@pytest.fixture
def votes(tmp_path):
    """Two conversations of four people; a third statement of the first one has a single vote."""
    for name in ("tea", "dog"):
        (tmp_path / f"{name}.participants-votes.csv").write_text(
            "participant,group-id,0,1,2\na,0,1,-1,\nb,0,-1,1,1\nc,0,0,1,\nd,1,1,,\n"
        )
    return freeze({"data": str(tmp_path), "least_votes": 2})


def test_own_votes_are_conversations_by_name_and_no_world_with_nothing_to_read_it(votes):
    task = open_task(votes)
    assert list(task.conversations) == ["dog", "tea"] and not task.worlds
    assert task.conversations["tea"].values.shape == (3, 2) and task.conversations["tea"].people == ("a", "b", "c")
    assert task.embed is None and task.extractor is None
    assert task.description.splitlines()[0].startswith("dog  (3, 2)  0% missing;")


def test_votes_of_which_nothing_is_left_are_refused_before_anything_is_loaded(votes):
    with pytest.raises(DataError, match="lower least_votes"):
        open_task(votes._replace(least_votes=9))
