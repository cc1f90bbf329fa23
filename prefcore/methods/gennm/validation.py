"""Names checked against the flow of data: a variable that is copied to another should not be called otherwise.

Six rules (arXiv 2306.02546, appendix D) send names along direct copies, through casts and parentheses but through no
arithmetic; then each variable's candidates are voted on by how alike they are to all names that reached it.
Departs from the released code, in which the two rules for returned values never fire: all six do here, declarations
with a value are assignments too, and a call with another number of arguments than parameters is counted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tree_sitter_c
from tree_sitter import Language, Node, Parser

from prefcore.methods.gennm.corpus import Item

PARSER = Parser(Language(tree_sitter_c.language()))
SWEEPS = 3
Place = tuple[str, str]  # key of a function, placeholder


class Flow(NamedTuple):
    """Names go from `source` to `target`: all that reached it (assign, call, ret) or only its own (the -r rules)."""

    rule: str
    source: Place
    target: Place


def tree(code: str) -> Node:
    """The syntax tree of C code; what cannot be read is an error node inside, the rest stays."""
    return PARSER.parse(code.encode()).root_node


def nodes(node: Node, *kinds: str) -> Iterator[Node]:
    """The node's descendants (and itself) of these kinds, in the order of the text."""
    if node.type in kinds:
        yield node
    for child in node.children:
        yield from nodes(child, *kinds)


def bare(node: Node | None) -> Node | None:
    """What is inside casts and parentheses."""
    while node is not None and node.type in ("parenthesized_expression", "cast_expression"):
        node = node.child_by_field_name("value") or next((c for c in node.named_children), None)
    return node


def identifier(node: Node | None) -> str | None:
    """The variable's name if the expression is a variable and nothing else."""
    node = bare(node)
    return node.text.decode() if node is not None and node.type == "identifier" else None


def assignments(root: Node) -> Iterator[tuple[str, Node]]:
    """(variable, bare right side) of each `v = ...` and of each declaration with a value."""
    for node in nodes(root, "assignment_expression", "init_declarator"):
        if node.type == "assignment_expression":
            plain = node.child_by_field_name("operator").type == "="
            left, right = identifier(node.child_by_field_name("left")), node.child_by_field_name("right")
        else:
            plain = True
            left = next((n.text.decode() for n in nodes(node.child_by_field_name("declarator"), "identifier")), None)
            right = node.child_by_field_name("value")
        right = bare(right)
        while right is not None and right.type == "assignment_expression":  # a = b = c
            right = bare(right.child_by_field_name("left"))
        if plain and left and right is not None:
            yield left, right


def parameters(root: Node) -> list[str]:
    """Names of the parameters of the first function."""
    for function in nodes(root, "function_declarator"):
        found = nodes(function.child_by_field_name("parameters"), "parameter_declaration")
        inner = [list(nodes(p.child_by_field_name("declarator"), "identifier")) if p.child_by_field_name("declarator")
                 else [] for p in found]  # fmt: skip
        return [names[-1].text.decode() for names in inner if names]
    return []


def calls(root: Node) -> Iterator[tuple[str, list[str | None]]]:
    """(called function, each argument's variable or None) of each call by name."""
    for node in nodes(root, "call_expression"):
        called = identifier(node.child_by_field_name("function"))
        given = node.child_by_field_name("arguments")
        if called and given is not None:
            yield called, [identifier(argument) for argument in given.named_children if argument.type != "comment"]


def returned(root: Node) -> set[str]:
    """Variables that are returned as they are."""
    values = [next(iter(node.named_children), None) for node in nodes(root, "return_statement")]
    return {name for name in map(identifier, values) if name}


def flows(items: Sequence[Item]) -> tuple[list[Flow], int]:
    """(all flows between variables of these functions, calls whose number of arguments does not fit)."""
    trees = {item.key: tree(item.code) for item in items}
    out, misfits = [], 0
    for item in items:
        root, key = trees[item.key], item.key
        for left, right in assignments(root):
            if name := identifier(right):
                out += both("assign", (key, name), (key, left))
            called = identifier(right.child_by_field_name("function")) if right.type == "call_expression" else None
            theirs = item.calls.get(called or "")
            for name in sorted(returned(trees[theirs])) if theirs in trees else ():
                out += both("ret", (theirs, name), (key, left))
        for called, given in calls(root):
            theirs = item.calls.get(called)
            taken = parameters(trees[theirs]) if theirs in trees else None
            if taken is not None and len(taken) != len(given):
                misfits += 1
            elif taken is not None:
                for name, parameter in zip(given, taken, strict=True):
                    out += both("call", (key, name), (theirs, parameter)) if name else []
    return [flow for flow in out if flow.source != flow.target], misfits


def both(rule: str, source: Place, target: Place) -> list[Flow]:
    """The rule, and its reverse by which only the target's own name goes back."""
    return [Flow(rule, source, target), Flow(f"{rule}-r", target, source)]


def reach(names: Mapping[Place, str], along: Sequence[Flow], sweeps: int = SWEEPS) -> dict[Place, set]:
    """For each variable the (origin, name) that reached it; an origin counts once, however many ways lead from it."""
    arrived = {place: {(place, name)} for place, name in names.items()}
    for _ in range(sweeps):
        before = sum(map(len, arrived.values()))
        for flow in along:
            if flow.rule.endswith("-r"):
                new = {(flow.source, names[flow.source])} if flow.source in names else set()
            else:
                new = arrived.get(flow.source, set())
            arrived.setdefault(flow.target, set()).update(new)
        if sum(map(len, arrived.values())) == before:
            break
    return arrived


def vote(candidates: Sequence[str], correlated: Sequence[str], embed: Callable) -> str:
    """The candidate most alike, on average, to all candidates and correlated names; of equals the first by letter.

    candidates may repeat (a name predicted in three rounds counts three times). embed(names) -> unit vectors [n, H].
    """
    choices = sorted(set(candidates))
    if len(choices) == 1:
        return choices[0]
    vectors = dict(zip(texts := sorted({*candidates, *correlated}), embed(texts), strict=True))
    others = np.stack([vectors[name] for name in (*candidates, *correlated)])
    return max(choices, key=lambda name: (round(float((others @ vectors[name]).mean()), 6), -choices.index(name)))


def validate(rounds: Sequence[Mapping[str, Mapping[str, str]]], items: Sequence[Item], embed: Callable) -> dict:
    """Key of a function -> placeholder -> name: the names last given, replaced where a vote says so.

    rounds: names after each round of propagation, as callgraph.propagate gives them. A variable that no other name
    reached keeps its last name, and so does the function's own name.
    """
    last: dict[str, dict[str, str]] = {}
    for found in rounds:
        for key, given in found.items():
            last[key] = last.get(key, {}) | given
    names = {(key, id): name for key, found in last.items() for id, name in found.items() if id != "f0"}
    arrived = reach(names, flows(items)[0])
    out = {key: dict(found) for key, found in last.items()}
    for place in names:
        correlated = sorted(name for origin, name in arrived[place] if origin != place)
        if correlated:
            key, id = place
            pool = [found[key][id] for found in rounds if id in found.get(key, {})]
            out[key][id] = vote(pool, correlated, embed)
    return out
