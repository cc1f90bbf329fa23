"""What the linear judge sees of a candidate."""

import numpy as np
import pytest

from prefcore.methods.chase_sql import features


def features_of(executed, embed, pool, candidate):
    tables, names = features.describe_content(executed.pools, embed)
    return dict(zip(names, tables[pool][candidate], strict=True))


def test_content_is_what_question_and_query_have_in_common(executed, embed):
    """'How many pets are there?': count(*) is called for; the wrong query returns six names."""
    right, wrong = (features_of(executed, embed, 0, i) for i in (2, 0))
    assert (right["count, called for"], wrong["count, called for"]) == (1, 0)
    assert (right["rows where one is wanted"], wrong["rows where one is wanted"]) == (0, 1)
    assert right["one row"] == 1 and wrong["log rows"] == pytest.approx(np.log(7))


def test_content_does_not_see_votes_systems_or_places(executed, embed):
    """Other candidates, their order and their systems change nothing about one candidate's features."""
    one = executed.pools[0]
    alone = one._replace(systems=("other",), sqls=one.sqls[2:3], results=one.results[2:3], clusters=one.clusters[2:3],
                         absent=one.absent[2:3])  # fmt: skip
    whole, single = (features.describe_content([pool], embed)[0][0] for pool in (one, alone))
    np.testing.assert_array_equal(whole[2], single[0])


def test_votes_are_the_share_of_the_cluster(pool):
    (table,), names = features.describe_votes([pool([0, 0, 1, -1])])
    assert names[0] == "share of votes" and table[:, 0].tolist() == [0.5, 0.5, 0.25, 0]
    assert table[:, 2].tolist() == [1, 1, 0, 0]


def test_a_candidate_has_the_votes_of_all_systems_with_its_result(pool):
    (table,), _ = features.describe_systems([pool([0, 0, 1])], ["s1", "s2", "unknown"])
    assert table.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
