"""The claims of all chapters in one table, as the overview and the map of chapters show them."""

from collections.abc import Mapping

import pandas as pd

VERDICTS = ("held", "not held", "no difference", "undecided", "not tested")
COLUMNS = ("kind", "claim", "test", "verdict", "estimate", "low", "high", "delta", "detectable")


def table(results: Mapping[str, Mapping]) -> pd.DataFrame:
    """All claims of `results` (method -> metrics, as runs.read_metrics gives them), one row each, method first.

    Claims that nobody named beforehand (lab/decisions.py), as those on a user's own people, have no kind: it is empty.
    """
    plain = {"kind": ""}
    rows = [plain | {"method": method, **row} for method, found in results.items() for row in found.get("claims", [])]
    return pd.DataFrame(rows, columns=["method", *COLUMNS])
