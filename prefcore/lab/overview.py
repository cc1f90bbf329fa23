"""All policy chapters side by side: the arms of each, as its metrics file has them."""

from collections.abc import Mapping

import pandas as pd

COLUMNS = ("estimate", "low", "high", "seeds", "spread", "order", "nats")
MAIN = {"dpo": "dpo", "odpo": "odpo-many", "kto": "kto", "bco": "bco", "ulma": "ulma-clean", "osp": "soft"}


def arms(results: Mapping[str, Mapping]) -> pd.DataFrame:
    """A row for each arm of the chapters whose arms were measured on the bank (method -> metrics).

    Columns: method, arm, main (whether it is the chapter's own method), rho as estimate, low and high, seeds, spread
    over seeds, order, nats, and gold, the mean rating of samples at the common distance where there are any.
    """
    rows = []
    for method, found in results.items():
        for arm, numbers in found.get("arms", {}).items():
            if "nats" not in numbers:
                continue
            gold = found.get("samples", {}).get(arm, {}).get("gold")
            own = {name: numbers[name] for name in COLUMNS}
            rows.append({"method": method, "arm": arm, "main": MAIN.get(method) == arm, **own, "gold": gold})
    return pd.DataFrame(rows, columns=["method", "arm", "main", *COLUMNS, "gold"])
