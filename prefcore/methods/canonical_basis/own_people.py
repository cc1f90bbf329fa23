"""People's votes on statements: how much of what a person says elsewhere follows from K statements.

Of each conversation: coverage of held-out votes of held-out people (variance.py), the figure, and whether K statements
carry the share that the paper reports. Nobody voted twice, so the ceiling of any prediction is unknown; `everything` is
that of a linear one. Statements are no sample of preferences, and people chose when to stop voting.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from prefcore.data.types import Parameters
from prefcore.lab import plots, runs
from prefcore.methods.canonical_basis import people, shares, variance
from prefcore.methods.canonical_basis.claims import claim, print_sentences
from prefcore.methods.canonical_basis.figures import draw_coverage
from prefcore.methods.canonical_basis.people import Votes
from prefcore.scoring import metrics


def measure(conversations: Sequence[Votes], p: Parameters) -> Path:
    """Held-out variance that `basis` statements carry, of each conversation, against random ones and the goal."""
    found = [people.active(votes, least=p.least_votes) for votes in conversations]
    how = {"parts": p.folds, "hidden_share": p.hidden_share, "draws": p.random_bases, "priors": p.priors,
           "noises": p.noises, "target": p.basis, "seed": p.seed}  # fmt: skip
    curves, scores, claims = [], [], []
    for votes in found:
        print(f"{votes.name}  {votes.values.shape}  {np.isnan(votes.values).mean():.0%} missing")
        sizes = sorted({size for size in p.basis_sizes if size < votes.values.shape[1]} | {p.basis})
        by_way = variance.cross_validate(votes.values, sizes, **how)
        for way, by_size in by_way.items():
            curves += [shares.record(share, seed=p.seed, people=votes.name, way=way, size=size)
                       for size, share in by_size.items()]  # fmt: skip
            scores += [pd.DataFrame({"arm": way, "people": votes.name, "size": size, **share._asdict()})
                       .reset_index(names="id") for size, share in by_size.items()]  # fmt: skip
        claims += _claims(by_way, votes.name, p)
    curve = pd.DataFrame(curves)
    print(curve[curve["size"].eq(p.basis) | curve["way"].eq("everything")].round(3).to_string(index=False))
    _draw(curve, p)
    print_sentences(claims)
    last = {f"{row.people}, {row.way}, {row.size}": metrics.Interval(row.estimate, row.low, row.high)
            for row in curve.itertuples()}  # fmt: skip
    written = {"claims": claims, "coverage": last}
    return runs.finish("canonical_basis", "own", metrics=written, history=curve, scores=pd.concat(scores))


def _claims(by_way: Mapping, name: str, p: Parameters) -> list[dict]:
    """Whether the basis reaches the goal, in both readings, and whether it beats a random one."""
    greedy, whole, drawn = (by_way[way][p.basis] for way in ("greedy", "greedy_all", "random_all"))
    test, goal = f"held-out variance at K {p.basis}, distance from {p.goal:g}", f"{100 * p.goal:g} %"
    reached = [("of the other statements", greedy), ("with the chosen ones counted as known", whole)]
    out = []
    for what, share in reached:
        distance = shares.above(shares.interval(share, seed=p.seed), p.goal)
        out.append(claim(f"{p.basis} statements carry {goal} {what}; {name}", test, distance))
    gap = shares.difference(whole, drawn, seed=p.seed)
    return [*out, claim(f"chosen statements carry more than random ones; {name}", "difference", gap)]


def _draw(curve: pd.DataFrame, p: Parameters) -> None:
    plots.theme()
    panels = list(curve.groupby("people", sort=False))
    fig, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), layout="constrained", squeeze=False)
    for ax, (name, part) in zip(axes[0], panels, strict=True):
        draw_coverage(part, ax, goal=p.goal, title=name)
    plots.save(fig, Path("runs/own/canonical_basis") / "coverage.png")
    plt.close(fig)
