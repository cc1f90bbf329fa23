"""The stages before the notebooks: weights, texts, reference policy, scorers, judge, shared preferences.

Each function is one DVC stage: what it reads and writes are its arguments and the files named in dvc.yaml.
"""

import shutil
from pathlib import Path

import numpy as np

from prefcore.data import files, ratings
from prefcore.data.types import LossOutput, Parameters, Ranked
from prefcore.engine import collate, models, train
from prefcore.engine.aggregate import scale_to_token_mean
from prefcore.engine.sample import sample_several
from prefcore.scoring import bank, calibration, evaluate, judge, metrics, scorers


def fit_reference(p: Parameters, build: Path) -> None:
    """texts.jsonl -> reference/: the model taught to continue training texts in the prompt format."""
    models.choose_device(p.device, p.threads)
    tokenizer, policy = models.load(p, p.policy)
    texts = [t for t in ratings.read_texts(build / "texts.jsonl") if t.completion]
    chosen = ratings.choose(texts, p.reference_texts, p.seed, split="train")
    examples = [
        collate.encode(t.id, t.prompt, (t.completion,), (True,), tokenizer, max_prompt=32, max_completion=64)
        for t in chosen
    ]
    plan = collate.make_plan(
        [e for e in examples if e],
        batch_size=16,
        epochs=p.reference_epochs,
        seed=p.seed,
        pad_id=tokenizer.pad_token_id,
    )
    models.train_top(policy, layers=p.reference_layers)
    fit(policy, plan, token_loss, p.reference_learning_rate, build / "reference", p)
    save(policy, tokenizer, build / "reference", p)


def token_loss(logps, ref_logps, batch, state) -> LossOutput:
    """Negative log-likelihood per token of the batch (scaled so that the mean over rows is the mean over tokens)."""
    return LossOutput(scale_to_token_mean(-logps[:, 0], batch["lengths"][:, 0]), logps.detach())


def fit_scorers(p: Parameters, build: Path) -> None:
    """texts.jsonl -> proxy.safetensors, gold/ and metrics/<profile>/scorers.json, on disjoint halves of the texts."""
    device = models.choose_device(p.device, p.threads)
    texts = ratings.read_texts(build / "texts.jsonl")
    encoder_tokenizer, encoder = models.load_encoder(p.encoder, device=device)
    half = ratings.choose(texts, p.proxy_texts, p.seed, split="train", half="proxy")
    means = np.array([t.mean for t in half])
    scorers.fit_proxy(
        models.embed([t.text for t in half], encoder, encoder_tokenizer), means, build / "proxy.safetensors"
    )
    tokenizer, gold = models.load(p, p.policy)
    short = {"split": "train", "max_words": p.rater_max_words}
    half = ratings.choose(texts, p.gold_texts, p.seed, half="gold", **short)
    fit_rater(gold, tokenizer, half, build / "gold", p)
    save(gold, tokenizer, build / "gold", p)
    held_out = ratings.choose(texts, p.held_out_texts, p.seed, split="validation")
    loaded = evaluate.load_scorers(build, p.encoder, device=device)
    report = report_scorers(held_out, loaded, p.seed)
    files.write_metrics(report, p.profile, "scorers")


def fit_rater(rater, tokenizer, texts, folder: Path, p: Parameters) -> None:
    """Train a language model to give the raters' distribution over the digits 0 to 8."""
    shares = np.stack([scorers.histogram(t.ratings) for t in texts])
    examples = scorers.rating_examples([t.text for t in texts], tokenizer, shares)
    plan = collate.make_plan(examples, batch_size=8, epochs=1, seed=p.seed, pad_id=tokenizer.pad_token_id)
    models.train_top(rater, layers=p.rater_layers)
    fit(rater, plan, scorers.rating_loss, p.rater_learning_rate, folder, p)


def report_scorers(texts, loaded, seed: int) -> dict:
    """Correlation of both scorers with held-out human means, overall and per domain, with 95 % intervals."""
    human = np.array([t.mean for t in texts])
    domains = np.array([t.domain for t in texts])
    plain = [t.text for t in texts]
    scores = {"gold": evaluate.score_gold(plain, loaded), "proxy": evaluate.score_proxy(plain, loaded)}
    report: dict = {"texts": len(texts)}
    for name, values in scores.items():
        report[name] = {"all": correlation(values, human, seed)}
        for domain in ratings.COUNTS:
            inside = domains == domain
            report[name][domain] = correlation(values[inside], human[inside], seed)
    return report


def correlation(scores: np.ndarray, human: np.ndarray, seed: int) -> dict:
    """Pearson's r with a bootstrap interval over texts."""
    interval = metrics.bootstrap_interval(scores, human, statistic=metrics.pearson, seed=seed)
    return {"r": interval.estimate, "low": interval.low, "high": interval.high, "texts": len(scores)}


def fit_judge(p: Parameters, build: Path) -> None:
    """texts.jsonl -> judge/ and metrics/<profile>/judge.json: rating single texts first, verdicts on pairs on top.

    It learns from the proxy's half of the texts, never from the gold scorer's.
    """
    models.choose_device(p.device, p.threads)
    texts = ratings.read_texts(build / "texts.jsonl")
    tokenizer, model = models.load(p, p.policy)
    short = {"split": "train", "max_words": p.rater_max_words}
    half = ratings.choose(texts, p.judge_texts, p.seed + 1, half="proxy", **short)
    shutil.rmtree(build / "judge", ignore_errors=True)  # until both lessons are over there is no judge
    fit_rater(model, tokenizer, half, build / "judge", p)
    pairs = pair_up(half, p.judge_pairs, p.seed)
    shown = [(a.text, b.text) for a, b in pairs] + [(b.text, a.text) for a, b in pairs]
    wins = [judge.share_preferring(a.ratings, b.ratings) for a, b in pairs]
    examples = judge.verdict_examples(shown, tokenizer, wins + [1 - w for w in wins])
    plan = collate.make_plan(examples, batch_size=8, epochs=1, seed=p.seed, pad_id=tokenizer.pad_token_id)
    fit(model, plan, judge.verdict_loss, p.rater_learning_rate, build / "judge", p)
    save(model, tokenizer, build / "judge", p)
    held_out = pair_up(
        ratings.choose(texts, 2 * p.held_out_pairs, p.seed, split="validation"), p.held_out_pairs, p.seed
    )
    files.write_metrics(report_judge(held_out, model, tokenizer, p.seed), p.profile, "judge")


def pair_up(texts, size: int, seed: int) -> list[tuple]:
    """Random pairs of two texts of one domain."""
    rng = np.random.default_rng(seed)
    by_domain = [[t for t in texts if t.domain == domain] for domain in ratings.COUNTS]
    chances = np.array([len(group) for group in by_domain]) / len(texts)
    groups = [by_domain[i] for i in rng.choice(len(by_domain), size=size, p=chances)]
    return [tuple(group[i] for i in rng.choice(len(group), size=2, replace=False)) for group in groups]


def report_judge(pairs, model, tokenizer, seed: int) -> dict:
    """Accuracy and calibration of the verdicts against held-out human ratings, with 95 % intervals over pairs."""
    shares = np.array([judge.share_preferring(a.ratings, b.ratings) for a, b in pairs])
    p_ab, p_ba = judge.both_orders([(a.text, b.text) for a, b in pairs], model, tokenizer)
    verdict, clear = (p_ab + 1 - p_ba) / 2, shares != 0.5
    right = (verdict[clear] > 0.5) == (shares[clear] > 0.5)
    curve = calibration.reliability_curve(verdict, shares, bins=5)
    return {
        "pairs": len(pairs),
        "accuracy": metrics.bootstrap_interval(right.astype(float), seed=seed),
        "correlation_with_vote_share": metrics.bootstrap_interval(
            verdict, shares, statistic=metrics.pearson, seed=seed
        ),
        "ece": calibration.expected_calibration_error(verdict, shares, bins=5),
        "brier": calibration.brier(verdict, shares),
        "first_place_bias": float(np.mean((p_ab + p_ba) / 2 - 0.5)),
        "reliability": curve,
    }


def make_preferences(p: Parameters, build: Path) -> None:
    """reference/, proxy -> preferences.jsonl: K samples of each training prompt, best proxy score first."""
    device = models.choose_device(p.device, p.threads)
    texts = ratings.read_texts(build / "texts.jsonl")
    tokenizer, policy = models.load(p, build / "reference")
    loaded = evaluate.load_scorers(build, p.encoder, device=device)
    prompts = ratings.choose_prompts(texts, p.preference_prompts, p.seed, split="train")
    ranked = sample_ranked(policy, tokenizer, prompts, loaded, p, seed=p.seed + 1)
    files.write_lines(ranked, build / "preferences.jsonl")


def make_bank(p: Parameters, build: Path) -> None:
    """reference/, gold/, proxy -> banks/<profile>.jsonl: the reference's own answers to unused prompts, rated.

    The first `bank_after` test prompts are for development and are passed over. Gold rates the answers to test prompts
    alone, as settings are chosen on validation prompts. The split "fresh" are further test prompts, without answers.
    """
    device = models.choose_device(p.device, p.threads)
    texts = ratings.read_texts(build / "texts.jsonl")
    tokenizer, policy = models.load(p, build / "reference")
    loaded = evaluate.load_scorers(build, p.encoder, device=device)
    wanted = p.bank_after + p.bank_prompts
    unused = ratings.choose_prompts(texts, wanted + p.bank_fresh_prompts, p.seed, split="test")
    validation = ratings.choose_prompts(texts, p.bank_validation_prompts, p.seed, split="validation")
    rows = []
    for split, prompts, raters in (
        ("test", unused[p.bank_after : wanted], ("gold", "proxy")), ("validation", validation, ("proxy",)),
    ):  # fmt: skip
        for text, drawn in zip(prompts, draw(policy, tokenizer, prompts, p, seed=p.seed + 2), strict=True):
            answers = tuple(s.text for s in drawn)
            marks = tuple(s.finished for s in drawn), tuple(s.ids for s in drawn)
            rows.append(bank.Rated(text.id, text.domain, split, text.prompt, answers, *marks, dict.fromkeys(raters)))
    rows += [bank.Rated(t.id, t.domain, "fresh", t.prompt, (), (), (), {}) for t in unused[wanted:]]
    files.write_lines(rate(rows, loaded), Path("banks") / f"{p.profile}.jsonl")


def rate(rows: list[bank.Rated], loaded: evaluate.Scorers) -> list[bank.Rated]:
    """The rows with the ratings that they name, of prompt and answer together, at 6 decimals."""
    out = [row._replace(ratings={}) for row in rows]
    for name, score in (("gold", evaluate.score_gold), ("proxy", evaluate.score_proxy)):
        asked = [i for i, row in enumerate(rows) if name in row.ratings]
        whole = [evaluate.rated_text(rows[i].prompt, answer) for i in asked for answer in rows[i].completions]
        scores = iter(score(whole, loaded))
        for i in asked:
            out[i].ratings[name] = [round(float(next(scores)), 6) for _ in rows[i].completions]
    return out


def sample_ranked(policy, tokenizer, prompts, loaded, p: Parameters, *, seed: int) -> list[Ranked]:
    """K continuations of each prompt with the tokens that were sampled, best proxy score first."""
    out = []
    for text, drawn in zip(prompts, draw(policy, tokenizer, prompts, p, seed=seed), strict=True):
        kept = [s for s in drawn if s.text.strip()]
        answers, ids = tuple(s.text for s in kept), tuple(s.ids for s in kept)
        finished = tuple(s.finished for s in kept)
        out.append(Ranked(text.id, text.prompt, answers, (), finished, text.domain, ids))
    whole = [evaluate.rated_text(row.prompt, answer) for row in out for answer in row.completions]
    scores = iter(evaluate.score_proxy(whole, loaded))
    return [_best_first(row, [float(next(scores)) for _ in row.completions]) for row in out]


def draw(policy, tokenizer, prompts, p: Parameters, *, seed: int) -> list[list]:
    """K samples of the policy for each prompt."""
    ids = [collate.cut_prompt(text.prompt, tokenizer, max_prompt=p.max_prompt) for text in prompts]
    how = {"max_new_tokens": p.max_new_tokens, "seed": seed}
    return sample_several(policy, tokenizer, ids, p.samples_per_prompt, **how)


def _best_first(row: Ranked, scores: list[float]) -> Ranked:
    best = sorted(range(len(scores)), key=lambda j: -scores[j])
    columns = {name: tuple(getattr(row, name)[j] for j in best) for name in ("completions", "finished", "tokens")}
    return row._replace(scores=tuple(round(scores[j], 6) for j in best), **columns)


def fit(policy, plan, loss, learning_rate: float, folder: Path, p: Parameters) -> None:
    """Train in place what `save` will put into `folder`, and keep the checkpoints until then."""
    kept = {"checkpoints": checkpoints_of(folder, p), "label": folder.name, "precision": p.precision}
    train.fit(policy, plan, loss, {}, learning_rate=learning_rate, seed=p.seed, **kept)


def checkpoints_of(folder: Path, p: Parameters) -> Path:
    """Where a stage's training keeps its checkpoints: outside `build/`, as DVC deletes outputs before a stage runs."""
    return Path(".checkpoints") / p.profile / folder.name


def save(policy, tokenizer, folder: Path, p: Parameters) -> None:
    """The model as `folder`, whole or not at all; then its checkpoints go."""
    aside = folder.with_name(f"{folder.name}.partial")
    for old in (folder, aside):
        shutil.rmtree(old, ignore_errors=True)
    models.save_policy(policy, tokenizer, aside)
    aside.rename(folder)  # a folder that is there is whole
    shutil.rmtree(checkpoints_of(folder, p))
