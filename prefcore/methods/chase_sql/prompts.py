"""What a language model is asked, and the SQL in what it answers (CHASE-SQL, arXiv 2410.01943, section 3.3).

divide      the question is cut into parts, each with its piece of SQL, which are put together and simplified
plan        the steps of an execution plan, put into words, then the SQL
synthetic   examples on the same database, made for this question, then the SQL
"""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

import sqlglot
from sqlglot.errors import SqlglotError

from prefcore.methods.chase_sql import schema
from prefcore.methods.chase_sql.schema import Schema
from prefcore.methods.chase_sql.values import Value

STRATEGIES = ("divide", "plan", "synthetic")
FINAL = "Final SQL:"
ROLE = "You write SQLite queries. Use only tables and columns of the schema, spelled and quoted as they are there."
END = f"End with the one query that answers the question, after '{FINAL}', in a ```sql block."
TASKS = {
    "divide": "Divide the question into smaller questions, write a piece of SQL for each, put the pieces together and "
    f"simplify. {END}",
    "plan": "Tell step by step how a database engine finds the answer: which tables it opens, how it matches and "
    f"filters rows, what it groups, counts or sorts, which columns it delivers. {END}",
    "synthetic": f"Answer the last question as the examples answer theirs. {END}",
    "fix": f"The query below failed or gave nothing. Say what is wrong with it and correct it. {END}",
}
EXAMPLE = """Schema:
CREATE TABLE pet (
  pet_id INTEGER PRIMARY KEY,
  nm TEXT,
  owner_id INTEGER REFERENCES owner(owner_id)
);
CREATE TABLE owner (
  owner_id INTEGER PRIMARY KEY,
  town TEXT  -- has 'LEEDS'
);
Question: How many pets have an owner from Leeds?"""
QUERY = "SELECT COUNT(*) FROM pet JOIN owner ON pet.owner_id = owner.owner_id WHERE owner.town = 'LEEDS'"
SHOWN = {  # one answered example of each strategy
    "divide": "1. Which owners are from Leeds? SELECT owner_id FROM owner WHERE town = 'LEEDS'\n"
    "2. How many pets belong to them? SELECT COUNT(*) FROM pet WHERE owner_id IN (the owners of 1)\n"
    "Put together: SELECT COUNT(*) FROM pet WHERE owner_id IN (SELECT owner_id FROM owner WHERE town = 'LEEDS')\n"
    f"Simplified with a join.\n{FINAL}\n```sql\n{QUERY}\n```",
    "plan": "1. Open pet and owner.\n2. Match each pet with its owner by owner_id.\n3. Keep rows with town 'LEEDS'.\n"
    f"4. Count them.\n5. Deliver the count.\n{FINAL}\n```sql\n{QUERY}\n```",
}


class Problem(NamedTuple):
    """All that a generator is given: question, evidence (a hint in words, or nothing), schema, and the stored texts
    that the question may mean. There is no gold in it."""

    id: str
    db_id: str
    question: str
    evidence: str
    schema: Schema
    values: tuple[Value, ...]


Messages = tuple[tuple[str, str], ...]


def show(problem: Problem) -> str:
    """Schema, evidence and question."""
    parts = [f"Schema:\n{schema.ddl(problem.schema, problem.values)}"]
    parts += [f"Evidence: {problem.evidence}"] * bool(problem.evidence)
    return "\n".join([*parts, f"Question: {problem.question}"])


def ask(problem: Problem, strategy: str, examples: Sequence[tuple[str, str]] = (), hint: str = "") -> Messages:
    """The prompt of a strategy. examples: (question, SQL) on this database. hint: gold, for training questions only."""
    messages = [("system", f"{ROLE} {TASKS[strategy]}")]
    if strategy in SHOWN:
        messages += [("user", EXAMPLE), ("assistant", SHOWN[strategy])]
    made = [f"Question: {words}\n{FINAL}\n```sql\n{sql}\n```" for words, sql in examples]
    told = [f"A correct query is: {hint}"] * bool(hint)
    return (*messages, ("user", "\n\n".join([*(["Examples:"] * bool(made)), *made, *told, show(problem)])))


def ask_fix(problem: Problem, sql: str, outcome: str) -> Messages:
    """What is wrong with this query? outcome: its error or its result, in words."""
    failed = f"Query:\n```sql\n{sql or '(the answer held no complete query)'}\n```\nOutcome: {outcome}"
    return ("system", f"{ROLE} {TASKS['fix']}"), ("user", f"{show(problem)}\n{failed}")


def ask_keywords(problem: Problem) -> Messages:
    """Which words of the question may be stored in the database? (The paper's first call.)"""
    told = f"\nEvidence: {problem.evidence}" * bool(problem.evidence)
    task = (
        "List the names, places, titles, codes and other words of the question that may be stored as a value in a "
        'database, as a JSON list of texts, such as ["Leeds", "New York"]. Write nothing else.'
    )
    return ("system", task), ("user", f"Question: {problem.question}{told}")


def read_keywords(answer: str) -> list[str]:
    """The texts of the first JSON list of an answer; none where there is none."""
    for found in re.finditer(r"\[[^\[\]]*\]", answer):
        try:
            return [text for text in json.loads(found[0]) if isinstance(text, str) and text.strip()][:20]
        except ValueError:
            continue
    return []


def ask_examples(problem: Problem, size: int, near: bool) -> Messages:
    """Algorithm 2's two prompts: `size` examples over the whole schema (R_f), or near to the question (R_t)."""
    of = "about the tables and columns that the question below needs" if near else "about the whole database"
    task = (
        f"{ROLE} Write {size} different questions {of}, each with the query that answers it, using filters, counts, "
        "groups, orders, joins and nested queries. Write each as 'Question: ...' and then a ```sql block."
    )
    return ("system", task), ("user", show(problem))


def read_examples(answer: str) -> list[tuple[str, str]]:
    """(question, SQL) of each example in an answer."""
    parts = re.split(r"Question:\s*", answer)[1:]
    pairs = [(part.split("```")[0].split("\n")[0].strip(), find_sql(part)) for part in parts]
    return [(words, sql) for words, sql in pairs if words and sql]


# --- the SQL of an answer --------------------------------------------------------------------------------------------

START = re.compile(
    r"SELECT\b|WITH\s+(?:RECURSIVE\s+)?[\w\"`\[\]]+\s*(?:\([^()]*\)\s*)?AS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?\(", re.I
)
LEAD = re.compile(r"(?:^|\n|:|`|\*)[\s>*`]*(?:sql\s+|sqlite\s+)?(?:\d+[.)]\s*)?$", re.I)  # what stands before it
MARK = re.compile(r"[*_#\s]*final\s+(?:sql|query|answer)[*_\s]*:[*_]*", re.I)
OPENED = {"'": "'", '"': '"', "`": "`", "[": "]"}
CLAUSE = re.compile(
    r"\s*(?:from|where|group|having|order|limit|offset|union|intersect|except|select|join|left|right|inner|outer|cross|"
    r"natural|full|on|and|or|as|case|when|then|else|end|window|using|not|in|exists|between|like|values|\(|\)|,|--)",
    re.I,
)


def find_sql(answer: str) -> str:
    """The statement of an answer: one balanced SELECT or WITH, over as many lines as it has; empty where none is whole.

    Looked for after the last 'Final SQL:', else in the last block between fences, else in the whole answer, where the
    last one counts that begins a line or follows a colon: the English words "with" and "select" begin no query.
    """
    answer = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL)
    after = MARK.split(answer)
    fenced = re.findall(r"```[ \t]*\w*\s*\n?(.*?)(?:```|\Z)", answer, flags=re.DOTALL)
    for text in (*([after[-1]] if len(after) > 1 else []), *reversed(fenced), answer):
        found = _statements(text)
        if found:
            return found[0] if text is not answer else found[-1]
    return ""


def _statements(text: str) -> list[str]:
    found, at = [], 0
    while start := START.search(text, at):
        at = start.end()
        if LEAD.search(text[: start.start()]) and (whole := _without_prose(_balanced(text[start.start() :]))):
            found.append(whole)
            at = start.start() + len(whole)
    return found


def _balanced(text: str) -> str:
    """The statement at the beginning of a text: up to a semicolon, a fence, a bracket too many or the end, outside
    quotes and comments; an empty one where a quote or a bracket stays open."""
    depth = i = 0
    while i < len(text):
        letter = text[i]
        if text.startswith("```", i) or depth == 0 and letter in ";)":
            break
        if text.startswith("--", i):
            i = (text.find("\n", i) + 1 or len(text)) - 1
        elif text.startswith("/*", i):
            i = (text.find("*/", i) + 2 if "*/" in text[i:] else len(text)) - 1
        elif letter in OPENED:
            end = text.find(OPENED[letter], i + 1)
            if end < 0 and letter == "`" and depth == 0:  # the end of `a query in a line`
                break
            if end < 0:
                return ""
            i = end
        depth += (letter == "(") - (letter == ")")
        i += 1
    return text[:i].strip() if depth == 0 else ""


def _without_prose(text: str) -> str:
    """The statement without lines behind it that are none of its: an empty line ends it unless a clause follows, and
    lines at the end go until it can be parsed."""
    if not text:
        return ""
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if not line.strip() and i + 1 < len(lines) and not CLAUSE.match("".join(lines[i + 1 :]).lstrip() or " "):
            lines = lines[:i]
            break
    for end in range(len(lines), 0, -1):
        shorter = "\n".join(lines[:end]).strip()
        if _parses(shorter):
            return shorter
    return ""


def _parses(text: str) -> bool:
    try:
        trees = sqlglot.parse(text, read="sqlite")
    except (SqlglotError, RecursionError):
        return False
    return len(trees) == 1 and isinstance(trees[0], sqlglot.exp.Query)
