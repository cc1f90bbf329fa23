"""The whole path, played by a stub of a strong model on a server: values, three generators, fixer, selector, answer;
and the command line around it."""

import json
import sqlite3
import threading
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from prefcore.methods.chase_sql import apply, candidates, judges, system
from prefcore.methods.chase_sql.candidates import Question
from prefcore.scoring import llm

RIGHT = "SELECT count(*) FROM pet JOIN owner ON pet.owner = owner.id WHERE owner.\"home town\" = 'NEW HAVEN'"
WRONG = "SELECT count(*) FROM pet"
ASKED = "How many pets live in New Haven?"


def reply(messages, seed):
    """What a strong model says: the right query by two strategies, a plausible wrong one more often, and one that
    fails until the fixer asks; as a judge it knows the right one."""
    task, last = messages[0]["content"], messages[-1]["content"]
    if "JSON list" in task:
        return '["New Haven"]'
    if "different questions" in task:
        return f"Question: How many pets?\n```sql\n{WRONG}\n```\nQuestion: None?\n```sql\nSELECT 1 FROM nothing\n```"
    if "Answer with one letter" in task:
        return "A" if "NEW HAVEN" in last.split("Query A:")[1].split("Query B:")[0] else "B"
    if "The query below failed" in task:
        assert "no such column: town" in last
        return f'The column is "home town".\nFinal SQL:\n```sql\n{RIGHT}\n```'
    if "step by step how a database engine" in task:
        return "Final SQL:\n```sql\nSELECT count(*) FROM owner WHERE town = 'NEW HAVEN'\n```"
    if "as the examples answer" in task:
        assert f"Question: How many pets?\nFinal SQL:\n```sql\n{WRONG}" in last and "nothing" not in last
    return f"**Final SQL:**\n{WRONG};"


class Server:
    """A chat server that gives log-probabilities to who asks for them, unless it refuses to."""

    def __init__(self):
        self.seen, self.refuse, server = [], False, self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.seen.append(body)
                text = reply(body["messages"], body["seed"])
                choice = {"message": {"content": text}}
                if body.get("logprobs"):
                    other = "AB".replace(text, "")
                    top = [{"token": text, "logprob": np.log(0.9)}, {"token": other, "logprob": np.log(0.1)}]
                    choice["logprobs"] = {"content": [top[0] | {"top_logprobs": top}]}
                raw = json.dumps({"choices": [choice]}).encode()
                self.send_response(400 if server.refuse and body.get("logprobs") else 200)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def stub():
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def shelter(tmp_path):
    path = tmp_path / "database" / "shelter.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as made:
        made.execute('CREATE TABLE owner (id INTEGER PRIMARY KEY, "home town" TEXT)')
        made.execute("CREATE TABLE pet (id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owner)")
        made.executemany("INSERT INTO owner VALUES (?, ?)", [(1, "NEW HAVEN"), (2, "York")])
        made.executemany("INSERT INTO pet VALUES (?, ?)", [(i, 1 + i % 2) for i in range(1, 6)])
        made.commit()
    return path


def model_of(stub):
    return llm.endpoint(stub.url, "strong")


def judge_of(stub):
    return partial(judges.ask_with, llm.verdicts(stub.url, "strong"))


def test_the_selector_finds_the_right_query_that_the_votes_miss(stub, shelter, embed):
    """14 of 21 candidates are wrong alike; 7 failed, and the fixer made them right."""
    how = {"embed": embed, "evidence": "live means home town", "samples": 7}
    answer = system.answer(shelter, ASKED, model_of(stub), judge=judge_of(stub), **how)
    assert answer.sql == RIGHT and answer.result.rows == ((2,),) and len(answer.pool.sqls) == 21
    by_votes = system.answer(shelter, ASKED, model_of(stub), **how)
    assert by_votes.sql == WRONG and by_votes.result.rows == ((5,),)
    first, second = system.clusters(answer)
    assert (first["votes"], second["votes"]) == (7, 14) and first["points"] > second["points"]
    writers = [body for body in stub.seen if "Final SQL" in body["messages"][0]["content"]]
    assert all("Evidence: live means home town" in body["messages"][-1]["content"] for body in writers)
    assert all("has 'NEW HAVEN'" in body["messages"][-1]["content"] for body in writers)
    assert {body["max_tokens"] for body in writers} == {2048}


def test_a_judge_is_asked_in_both_orders_and_its_probabilities_are_read(stub, shelter, embed):
    answer = system.answer(shelter, ASKED, model_of(stub), embed=embed, samples=1)
    stub.seen.clear()
    judge = judge_of(stub)([answer.pool])
    right = answer.pool.sqls.index(RIGHT)
    wrong = answer.pool.sqls.index(WRONG)
    both = judge([judges.Comparison(0, right, wrong), judges.Comparison(0, wrong, right)])
    assert both == pytest.approx([0.9, 0.1], abs=1e-5)
    assert all('"home town"' in body["messages"][1]["content"] for body in stub.seen)
    stub.refuse = True  # a server without log-probabilities is asked for the letter alone
    assert judge([judges.Comparison(0, wrong, right)]).tolist() == [0.0]


class P(dict):
    __getattr__ = dict.__getitem__


@pytest.fixture
def p(stub):
    name = f"{stub.url}#strong"
    return P(generator=name, selector=name, queries=2, temperature=1.0, attempts=3, answer_tokens=2048, seed=0)


@pytest.fixture
def here(tmp_path, monkeypatch, embed):
    monkeypatch.chdir(tmp_path)

    def open_parts(p):
        judge = judges.open_judge(p.selector, p, embed)
        return {"model": llm.open_model(p.generator, p), "embed": embed, "judge": judge}

    monkeypatch.setattr(apply, "open_parts", open_parts)
    return tmp_path


def test_a_question_is_answered_on_the_terminal_and_as_json(p, shelter, here, capsys):
    path = apply.ask(str(shelter), ASKED, "", p)
    said = capsys.readouterr().out
    assert said.startswith(RIGHT) and "count(*)\n2\n(1 rows)" in said
    assert "4 votes" in said and "2 votes" in said and "points: 1 row: 2" in said
    found = json.loads(path.read_text())
    assert found["sql"] == RIGHT and found["rows"] == [[2]] and len(found["candidates"]) == 6
    assert {one["system"] for one in found["candidates"]} == {"divide", "plan", "synthetic"}


def test_a_file_of_questions_gets_candidates_where_it_has_none_and_they_are_read_again(p, shelter, here, capsys):
    kept = candidates.Candidate("mine", RIGHT)
    asked = [Question("a", "shelter", ASKED, RIGHT), Question("b", "shelter", "How many pets?", "", (kept,))]
    candidates.write(Path("questions.jsonl"), asked, {})
    path = apply.answer_all("questions.jsonl", "", p)
    first, second = candidates.read(str(path), gold=False)[0]
    assert len(first.candidates) == 6 and second.candidates == (kept,)
    assert sum(c.draft is not None for c in first.candidates) == 2  # what the fixer changed is kept as it was
    assert "2 questions answered; 1 of 1 with gold are right" in capsys.readouterr().out


def test_without_a_generator_nothing_starts(p):
    with pytest.raises(ValueError, match="no model writes the queries: --set generator"):
        apply.open_parts(P(p, generator=""))
