"""What labels and scores say: what is in them besides preference, and what a method could make of it."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from prefcore.data import views
from prefcore.data.types import Pair, Unary
from prefcore.doctor import finding
from prefcore.doctor.finding import Finding
from prefcore.doctor.texts import prompt_of
from prefcore.scoring import metrics
from prefcore.scoring.metrics import Interval

EVEN = 0.05  # this near to one half is as good as even
SHIFT = 0.55  # from this AUC on prompts tell the classes apart
FEATURES = 2**14


def length_bias(pairs: Sequence[Pair]) -> Finding:
    """Share of pairs whose longer answer is chosen, in words; a tie counts half."""
    gap = np.array([len(pair.chosen.split()) - len(pair.rejected.split()) for pair in pairs])
    share = finding.by_prompt(0.5 + 0.5 * np.sign(gap), [views.prompt_key(pair.prompt) for pair in pairs])
    warns = share.low > 0.5 + EVEN or share.high < 0.5 - EVEN
    which = "longer" if share.estimate > 0.5 else "shorter"
    do = f"compare lengths before and after training; a policy may only learn to write {which} answers" if warns else ""
    says = f"the longer answer is chosen in a share of {finding.in_words(share)} of the pairs."
    return Finding("length bias", *share, says, warns, do)


def balance(thumbs: Sequence[Unary]) -> Finding:
    """Share of thumbs-up, and the weights that KTO's rule gives the classes."""
    up = np.array([record.label for record in thumbs], float)
    share = finding.by_prompt(up, [views.prompt_key(record.prompt) for record in thumbs])
    rare = min(share.estimate, 1 - share.estimate)
    says = f"a share of {finding.in_words(share)} of the answers has a thumb up."
    if rare == 0:
        return Finding("class balance", *share, says, True, "add the other thumb: no method learns from one class")
    weight = (1 - rare) / rare
    do = f"run kto: it gives the rarer class a weight of {weight:.1f}" if rare < 0.3 else ""
    return Finding("class balance", *share, says, rare < 0.1, do)


def prompt_shift(thumbs: Sequence[Unary], seed: int = 0) -> Finding:
    """AUC of a classifier that sees the prompt alone and says which thumb its answer has; 0.5 where it cannot know.

    Five parts of the prompts, each scored by a classifier of the others; the interval over prompts.
    """
    from sklearn.linear_model import LogisticRegression

    keys = [views.prompt_key(record.prompt) for record in thumbs]
    _, place = np.unique(keys, return_inverse=True)
    words, up = _bags([prompt_of(record) for record in thumbs]), np.array([record.label for record in thumbs])
    part = np.random.default_rng(seed).permutation(place.max() + 1) % 5
    score = np.full(len(up), 0.5)
    for k in range(5):
        out = part[place] == k
        if out.any() and len(set(up[~out])) == 2:
            model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000).fit(words[~out], up[~out])
            score[out] = model.predict_proba(words[out])[:, 1]
    area = _auc_by_prompt(score, up, place)
    warns = area.low > SHIFT
    do = "run bco: its density ratio weighs a thumb-down by how likely its prompt has a thumb-up" if warns else ""
    says = f"the prompt alone tells the thumb with an AUC of {finding.in_words(area)} (0.5: not at all)."
    return Finding("prompt shift between thumbs", *area, says, warns, do)


def _auc_by_prompt(score: np.ndarray, up: np.ndarray, place: np.ndarray, draws: int = 200) -> Interval:
    if up.all() or not up.any():
        return Interval(0.5, -math.inf, math.inf)
    rows, rng, found = defaultdict(list), np.random.default_rng(0), []
    for i, prompt in enumerate(place):
        rows[prompt].append(i)
    groups = [np.array(group) for group in rows.values()]
    for _ in range(draws):
        some = np.concatenate([groups[k] for k in rng.integers(len(groups), size=len(groups))])
        if 0 < up[some].sum() < len(some):
            found.append(metrics.auc(score[some], up[some]))
    return Interval(metrics.auc(score, up), *(float(q) for q in np.quantile(found, [0.025, 0.975])))


def _bags(texts: Sequence[str]) -> csr_matrix:
    """Words of each text by a hash, in rows of length 1; no dictionary that would have seen the held-out part."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=FEATURES, alternate_sign=False, norm="l2").transform(texts)


def weights(given: Sequence[float]) -> Finding:
    """How unequally the rows count: (sum w)^2 / sum w^2, the number of equal rows that would be as good an average."""
    w = np.array(given, float)
    unused = int((w == 0).sum())
    if unused == len(w):
        return finding.count("weights", 0, "every row has the weight 0.", warns=True, do="no row would teach anything")
    worth = w.sum() ** 2 / (w @ w)
    says = (f"from {w.min():.3g} to {w.max():.3g}; the {len(w)} rows count as {worth:.0f} equal ones would"
            f"{f', {unused} have the weight 0' if unused else ''}.")  # fmt: skip
    warns = worth < len(w) / 2
    do = "a few rows decide what is learnt: cap the largest weights, or compare without the column" if warns else ""
    return finding.count("weights", round(float(worth)), says, warns=warns, do=do)


def gaps(pairs: Sequence[Pair], quantile: float = 0.65) -> Finding:
    """How far the scores of two answers lie apart, in the data's own unit, and how unlike the gaps are."""
    kept, ties = views.graded_pairs(pairs)
    if not kept:
        return finding.count("spread of gaps", ties, f"all {ties} pairs are ties.", warns=True, do="give real scores")
    wide = np.array([pair.margin for pair in kept])
    low, unit, high = np.quantile(wide, [0.1, quantile, 0.9])
    unlike = high > 3 * low
    says = (f"{len(kept)} pairs say by how much they differ: 10 % below {low:.3g}, {quantile:.0%} below {unit:.3g}, "
            f"90 % below {high:.3g}; {ties} ties.")  # fmt: skip
    do = f"run odpo: a gap of {unit:.3g} is its unit" if unlike else "dpo is enough: all gaps are alike"
    return Finding("spread of gaps", float(high / low), math.nan, math.nan, says, False, do)


def contradictions(pairs: Sequence[Pair]) -> Finding:
    """Label noise, from pairs that were judged twice: two raters who err with probability e differ in 2 e (1 - e)."""
    judged = defaultdict(list)
    for pair in pairs:
        first, second = sorted((pair.chosen, pair.rejected))
        judged[views.prompt_key(pair.prompt), first, second].append(pair.chosen == first)
    twice = [side for side in judged.values() if len(side) > 1]
    if len(twice) < 20:
        says = f"{len(twice)} pairs were judged more than once: too few to say how noisy the labels are."
        return finding.count("label noise", len(twice), says, do="have some pairs judged again by other people")
    differ = np.array([2 * np.mean(side) * (1 - np.mean(side)) * len(side) / (len(side) - 1) for side in twice])
    share = metrics.bootstrap_interval(differ, seed=0)
    noise = Interval(*(float(0.5 - 0.5 * math.sqrt(max(0.0, 1 - 2 * min(max(s, 0.0), 0.5)))) for s in share))
    warns = noise.low > 0.05
    do = f"--set label_smoothing={noise.estimate:.2f} where a loss has it (cDPO), or NaPO's loss" if warns else ""
    says = f"{len(twice)} pairs were judged repeatedly: a label is wrong with a chance of {finding.in_words(noise)}."
    return Finding("label noise", *noise, says, warns, do)
