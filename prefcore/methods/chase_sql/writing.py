"""Candidates: the three generators and the fixer, each a language model with a prompt of its own (section 3.3, 3.4).

The model is anything that answers requests (prefcore.scoring.llm): a server, or a local model, which reads a prompt
once for all its draws. Departs from the paper: tables and columns are shuffled for each question and strategy, not for
each draw, and the model is shown one answered example, not many.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from prefcore.methods.chase_sql import database, fixer, prompts, schema
from prefcore.methods.chase_sql.candidates import Candidate
from prefcore.methods.chase_sql.prompts import STRATEGIES, Messages, Problem
from prefcore.scoring.llm import LanguageModel, Request

EXAMPLES = 4  # synthetic examples that each of the two prompts asks for
HINTED = "hinted"  # the system of a candidate for which gold was shown: of training questions alone


def write(
    problems: Sequence[Problem],
    model: LanguageModel,
    connections: Mapping[str, object],
    *,
    samples: int,
    temperature: float,
    attempts: int,
    max_tokens: int,
    seed: int,
) -> list[tuple[Candidate, ...]]:
    """For each problem `samples` candidates of each strategy, repaired in at most `attempts` rounds.

    connections: the guarded connection of each problem's database, by db_id.
    """
    limits = {"temperature": temperature, "max_tokens": max_tokens}
    examples = synthesise(problems, model, connections, max_tokens=max_tokens, seed=seed)
    asked = []
    for name in STRATEGIES:
        for i, problem in enumerate(problems):
            mixed = shuffled(problem, STRATEGIES.index(name), seed)
            text = prompts.ask(mixed, name, examples[i] if name == "synthetic" else ())
            asked += [(i, name, Request(text, seed=seed + k, **limits)) for k in range(samples)]
    drafts = [prompts.find_sql(text) for text in model([request for *_, request in asked])]
    places = [i for i, *_ in asked]
    fixed = repair(problems, places, drafts, model, connections, attempts=attempts, max_tokens=max_tokens, seed=seed)
    out: list[list[Candidate]] = [[] for _ in problems]
    for (i, name, _), draft, sql in zip(asked, drafts, fixed, strict=True):
        out[i].append(Candidate(name, sql, draft if draft != sql else None))
    return [tuple(made) for made in out]


def repair(
    problems: Sequence[Problem], places: Sequence[int], drafts: Sequence[str], model: LanguageModel,
    connections: Mapping[str, object], *, attempts: int, max_tokens: int, seed: int,
) -> list[str]:  # fmt: skip
    """The drafts after the fixer; draft k is on problem places[k]."""

    def run(k: int, sql: str) -> database.Result:
        return database.execute(connections[problems[places[k]].db_id], sql)

    def rewrite(waiting: Sequence[int], failed: Sequence[str], outcomes: Sequence[str], attempt: int) -> list[str]:
        texts = [prompts.ask_fix(problems[places[k]], sql, outcome)
                 for k, sql, outcome in zip(waiting, failed, outcomes, strict=True)]  # fmt: skip
        requests = [Request(text, 1.0, max_tokens, seed + attempt) for text in texts]
        return [prompts.find_sql(text) for text in model(requests)]

    return [one.sql for one in fixer.fix(drafts, run, rewrite, database.show, attempts)]


def synthesise(
    problems: Sequence[Problem], model: LanguageModel, connections: Mapping[str, object], *, max_tokens: int, seed: int
) -> list[list[tuple[str, str]]]:
    """For each problem (question, SQL) examples that the model makes on its database (Algorithm 2): over all of it, and
    near to the question. Those whose query gives no rows are left out."""
    texts = [prompts.ask_examples(problem, EXAMPLES, near) for problem in problems for near in (False, True)]
    answers = model([Request(text, 0.0, max_tokens, seed) for text in texts])
    out = []
    for i, problem in enumerate(problems):
        made = dict.fromkeys(pair for text in answers[2 * i : 2 * i + 2] for pair in prompts.read_examples(text))
        out.append([(words, sql) for words, sql in made
                    if database.execute(connections[problem.db_id], sql).rows])  # fmt: skip
    return out


def greedy(problems: Sequence[Problem], model: LanguageModel, name: str, *, max_tokens: int) -> list[Candidate]:
    """For each problem one answer at temperature 0 by the plan prompt, as the candidate of system `name`."""
    return _once([prompts.ask(problem, "plan") for problem in problems], model, name, max_tokens)


def hinted(
    problems: Sequence[Problem], golds: Sequence[str], model: LanguageModel, *, max_tokens: int
) -> list[Candidate]:
    """For each training question a candidate that was written with gold in the prompt (section 3.5)."""
    texts = [prompts.ask(problem, "plan", hint=gold) for problem, gold in zip(problems, golds, strict=True)]
    return _once(texts, model, HINTED, max_tokens)


def _once(texts: Sequence[Messages], model: LanguageModel, name: str, max_tokens: int) -> list[Candidate]:
    answers = model([Request(text, 0.0, max_tokens, 0) for text in texts])
    return [Candidate(name, prompts.find_sql(answer)) for answer in answers]


def shuffled(problem: Problem, number: int, seed: int) -> Problem:
    """The problem with tables and columns in another order for each strategy; 0 and its seed fix the order."""
    rng = np.random.default_rng([seed, number, len(problem.question), *problem.id.encode()])
    return problem._replace(schema=schema.shuffle(problem.schema, rng))
