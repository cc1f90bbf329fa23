"""Claims of all methods meet in one table."""

from prefcore.lab import verdicts


def test_the_table_has_a_row_for_each_claim_of_each_method():
    row = {"claim": "x", "test": "mean", "verdict": "held", "estimate": 0.2, "low": 0.1, "high": 0.3, "detectable": 0.1}
    table = verdicts.table({"dpo": {"claims": [row, row]}, "judge": {}, "kto": {"claims": [row]}})
    assert table["method"].tolist() == ["dpo", "dpo", "kto"] and list(table) == ["method", *verdicts.COLUMNS]
    assert table["verdict"].eq("held").all() and table["kind"].eq("").all()
    assert list(verdicts.table({})) == ["method", *verdicts.COLUMNS]
