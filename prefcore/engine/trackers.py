"""Trackers that see a training beside its history: TensorBoard, Weights & Biases, whatever transformers knows.

They are named by a variable of the environment, as a run is the same run whoever watches it: no name of one is among
the parameters that DVC hashes, or in a run's identity.
"""

import os

from transformers.integrations import integration_utils

VARIABLE = "PREFCORE_REPORT_TO"


def wanted() -> list[str]:
    """The trackers that PREFCORE_REPORT_TO names, with commas between them; none where it is not set, or "none".

    ValueError for one that transformers does not know, or that is not installed.
    """
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip() not in ("", "none")]
    known, there = integration_utils.INTEGRATION_TO_CALLBACK, integration_utils.get_available_reporting_integrations()
    for name in names:
        if name not in known:
            raise ValueError(f"{VARIABLE}={name}: no such tracker; there are {', '.join(sorted(known))}")
        if name not in there:
            raise ValueError(f"{VARIABLE}={name}: it is not installed here; install it, or leave the variable out")
    return names
