"""The picture of coverage: a line for each way, the ceiling and the goal."""

import matplotlib.pyplot as plt
import pandas as pd

from prefcore.methods.canonical_basis.figures import draw_coverage


def test_each_way_is_a_line_and_everything_is_a_level():
    rows = [("greedy", 1, 0.5), ("greedy", 3, 0.7), ("random", 1, 0.2), ("random", 3, 0.4), ("everything", 9, 0.8)]
    frame = pd.DataFrame([{"way": w, "size": k, "estimate": e, "low": e - 0.1, "high": e + 0.1} for w, k, e in rows])
    ax = draw_coverage(frame, plt.figure().gca(), goal=0.89, title="t")
    names = {text.get_text() for text in ax.get_legend().get_texts()}
    plt.close("all")
    assert names == {"greedy", "random", "everything", "0.89"} and ax.get_title() == "t"
