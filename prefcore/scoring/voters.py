"""Your own voted pairs: a file of two texts and people's votes on them, checked before anything is trained.

    a, b, votes            the two texts, and a list of 1 (prefers a), 0 (prefers b) and 0.5 (a tie)
    arg1, arg2, votes      ids of texts that a file `arguments.*` beside holds as id, text (UKPConvArg's layout)

Optional: prompt or topic (what the texts answer; also the group by which data are split), id. A vote may also be an
object with who cast it: {"voter": name, "vote": "a" | "b" | "tie"}, or UKPConvArg's {"w": name, "v": "a1" | "a2" |
"equal"}. Instead of `votes` a row may hold one `vote` (with its `voter`), or the counts votes_a and votes_b (and
votes_tie); rows of the same pair are joined. `--data` may name the file, or a folder with pairs.* and arguments.*.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from prefcore.data.chats import unpack
from prefcore.data.rows import SUFFIXES, DataError, Row, fault, read_text, refuse_weight, rows, short, usable_rows
from prefcore.data.types import Pair, Parameters
from prefcore.scoring import votes
from prefcore.scoring.votes import VotedPair

WORDS = {"a": 1.0, "a1": 1.0, "b": 0.0, "a2": 0.0, "tie": 0.5, "equal": 0.5}
SPLITS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)  # of the pairs, where they fall into groups that share no text
TEXT_SHARES = (0.6, 0.15, 0.25)  # of the texts, where they do not: a pair needs both of its texts on one side
NAMELESS = ("", "none", "null", "nan")  # what stands where nobody knows who voted


def open_pairs(p: Parameters) -> list[VotedPair]:
    """The pairs of a chapter, with their split: those of the file that `data` names, else what votes.prepare wrote."""
    return read(p.data, p.seed) if p.data else votes.read(Path("build") / p.profile / "voted.jsonl")


def read(source: str, seed: int = 0) -> list[VotedPair]:
    """All pairs of the file with their split: no text is on two sides.

    share is the mean vote; truth is empty, stratum "all", domain the prompt. Raises DataError with file, line and field
    for the first bad row and says how many there are. A pair of the same text twice is left out, and counted aloud;
    rows of one pair are joined.
    """
    path, library = _places(source)
    texts = _texts(library) if library else {}
    pairs, problems = [], []
    for row in rows(str(path)):
        try:
            if isinstance(row, DataError):
                raise row
            pairs.append(_pair(row, texts, library))
        except DataError as problem:
            problems.append(problem)
    if problems:
        count = len(problems)
        raise DataError(f"{problems[0]} ({count} of {count + len(pairs)} rows {'is' if count == 1 else 'are'} bad)")
    different = [pair for pair in pairs if pair.a != pair.b]
    if not different:
        raise DataError(f"{path}:1: no pair of two different texts; give at least one row with a, b and votes")
    if len(different) < len(pairs):
        print(f"{len(pairs) - len(different)} of {len(pairs)} pairs show the same text twice; they are left out")
    joined = _join(different)
    if len(joined) < len(different):
        print(f"{len(different)} rows hold votes on {len(joined)} pairs; those of a pair are joined")
    return split(joined, seed)


def read_enough(source: str) -> list[VotedPair]:
    """What `read` gives; DataError where that is too little to train and test on, or all votes are ties."""
    pairs = read(source)
    if all(vote == 0.5 for pair in pairs for vote in pair.votes):
        raise DataError(f"{source}: field 'votes': all votes on all {len(pairs)} pairs are ties; nothing can be learnt")
    if lacking := [name for name in SPLITS if not any(pair.split == name for pair in pairs)]:
        what = f"{len(pairs)} pairs in {len(_groups(pairs))} groups that share no text leave none for {lacking[0]}"
        raise DataError(f"{source}: {what}; give at least 10 pairs of different texts")
    return pairs


def are_voted(source: str) -> bool:
    """Whether the first row of this file or folder shows two texts that are equal in rank, with votes on them."""
    path = Path(source)
    if not path.exists() or path.is_dir() and not any(path.glob("pairs.*")):
        return False
    try:
        names = set(next(iter(usable_rows(str(_places(source)[0])))).values)
    except (DataError, StopIteration):
        return False  # whoever reads the rows says what is wrong
    return bool(names & {"votes", "vote", "votes_a"}) and (names >= {"a", "b"} or names >= {"arg1", "arg2"})


def preferred(pairs: Sequence[VotedPair]) -> tuple[list[Pair], int]:
    """(a preference of each pair, by most of its votes; how many pairs are left out, as half prefer either text).

    strength is the share that prefers the chosen text, margin how far that is above the others' share, in (0, 1].
    """
    made = []
    for pair in pairs:
        first, strength = pair.share > 0.5, max(pair.share, 1 - pair.share)
        chosen, rejected = (pair.a, pair.b) if first else (pair.b, pair.a)
        if strength > 0.5:
            made.append(Pair(pair.id, pair.prompt, chosen, rejected, margin=2 * strength - 1, strength=strength))
    return made, len(pairs) - len(made)


def _join(pairs: Sequence[VotedPair]) -> list[VotedPair]:
    """One pair of all rows that show the same two texts, in whichever order, for the same prompt."""
    found: dict[tuple, VotedPair] = {}
    for pair in pairs:
        key = (pair.prompt, *sorted((pair.a, pair.b)))
        first = found.setdefault(key, pair)
        if first is pair:
            continue
        more = pair if pair.a == first.a else votes.swap(pair)
        if bool(first.voters) != bool(more.voters):
            raise DataError(f"pair {pair.id}: some rows name who voted and some do not; name all or none")
        cast = first.votes + more.votes
        found[key] = first._replace(votes=cast, share=float(np.mean(cast)), voters=first.voters + more.voters)
    return list(found.values())


def split(pairs: Sequence[VotedPair], seed: int) -> list[VotedPair]:
    """The pairs with their split; no text is on two sides.

    Pairs that share a text, directly or through others, belong together (in UKPConvArg: those of one debate and side).
    Such groups are dealt out 80/10/10. Where one group holds more than half of all pairs, texts are dealt out instead,
    and pairs whose texts fell on two sides are left out.
    """
    groups = _groups(pairs)
    rng = np.random.default_rng(seed)
    if max(map(len, groups)) <= len(pairs) / 2:
        order = [groups[i] for i in rng.permutation(len(groups))]
        sizes = np.array([len(group) for group in order])
        places = np.searchsorted(np.cumsum(SHARES)[:-1], (np.cumsum(sizes) - sizes / 2) / len(pairs))
        side = {i: SPLITS[place] for group, place in zip(order, places, strict=True) for i in group}
        return [pair._replace(split=side[i]) for i, pair in enumerate(pairs)]
    texts = sorted({text for pair in pairs for text in (pair.a, pair.b)})
    places = np.searchsorted(np.cumsum(TEXT_SHARES)[:-1], rng.permutation(len(texts)) / len(texts), side="right")
    of = {text: SPLITS[place] for text, place in zip(texts, places, strict=True)}
    return [pair._replace(split=of[pair.a]) for pair in pairs if of[pair.a] == of[pair.b]]


def _groups(pairs: Sequence[VotedPair]) -> list[list[int]]:
    """Positions of pairs that share a text, directly or through others."""
    texts: dict[str, int] = {}
    ends = np.array([[texts.setdefault(text, len(texts)) for text in (pair.a, pair.b)] for pair in pairs])
    edges = coo_array((np.ones(len(pairs)), ends.T), shape=(len(texts), len(texts)))
    _, labels = connected_components(edges, directed=False)
    members: dict[int, list[int]] = {}
    for i, label in enumerate(labels[ends[:, 0]].tolist()):
        members.setdefault(label, []).append(i)
    return list(members.values())


def _places(source: str) -> tuple[Path, Path | None]:
    """(file of pairs, file of texts that it refers to or None)."""
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    endings = [suffix + more for suffix in SUFFIXES for more in ("", ".gz")]
    found = {stem: next((folder / f"{stem}{end}" for end in endings if (folder / f"{stem}{end}").exists()), None)
             for stem in ("pairs", "arguments")}  # fmt: skip
    if path.is_dir():
        if found["pairs"] is None:
            raise DataError(f"{source}: this folder holds no pairs{SUFFIXES[0]} (or {', '.join(endings[1:])})")
        path = found["pairs"]
    return path, found["arguments"]


def _texts(library: Path) -> dict[str, str]:
    out = {}
    for row in usable_rows(str(library)):
        out[str(row.values.get("id"))] = read_text(row, "text")
    return out


def _pair(row: Row, texts: dict[str, str], library: Path | None) -> VotedPair:
    refuse_weight(row)
    if "arg1" in row.values:
        sides = []
        for name in ("arg1", "arg2"):
            key = str(row.values.get(name))
            if key not in texts:
                where = f"not in {library.name}" if library else "an id, but no file arguments.* lies beside"
                raise fault(row, name, f"{short(key)} is {where}")
            sides.append(texts[key])
    else:
        sides = [read_text(row, name) for name in ("a", "b")]
        if any(unpack(row, name) is not row.values[name] for name in ("a", "b")):
            raise fault(row, "a", "holds chat messages; give the answers as texts, and what they answer as 'prompt'")
    cast, names = _votes(row)
    group = str(row.values.get("prompt") or row.values.get("topic") or "")
    id = row.values.get("id")
    id = row.id if id in (None, "") else str(id)
    return VotedPair(id, group, *sides, cast, (), float(np.mean(cast)), group, "all", "", names)


def _votes(row: Row) -> tuple[tuple[float, ...], tuple[str, ...]]:
    given = _given(row)
    if not isinstance(given, list) or not given:
        raise fault(row, "votes", f"{short(given)} has no vote; give a list of 1 (prefers a), 0 (prefers b), 0.5 (tie)")
    cast, names = [], []
    for item in given:
        named = isinstance(item, dict)
        vote = item.get("vote", item.get("v")) if named else item
        value = WORDS.get(vote) if isinstance(vote, str) else vote
        if isinstance(value, bool) or value not in (0, 0.5, 1):
            raise fault(row, "votes", f"{short(item)} is no vote; give 1 or \"a\", 0 or \"b\", 0.5 or \"tie\"")
        cast.append(float(value))
        name = str(item.get("voter", item.get("w")) if named else None).strip()
        if name.lower() not in NAMELESS:
            names.append(name)
    if names and len(names) != len(cast):
        raise fault(row, "votes", "some votes name their voter and some do not; name all or none")
    return tuple(cast), tuple(names)


def _given(row: Row):
    """The list of votes as a row holds it: under `votes`, as one `vote` with its `voter`, or as counts."""
    if "votes" in row.values:
        return row.values["votes"]
    if "vote" in row.values:
        return [{"vote": row.values["vote"], "voter": row.values.get("voter")}]
    counts = {vote: row.values.get(name, 0) for name, vote in (("votes_a", 1), ("votes_b", 0), ("votes_tie", 0.5))}
    if not {"votes_a", "votes_b"} <= row.values.keys():
        raise fault(row, "votes", f"there is no such column; the row has {', '.join(map(repr, row.values))}")
    for name, count in zip(("votes_a", "votes_b", "votes_tie"), counts.values(), strict=True):
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise fault(row, name, f"{short(count)} is no count of votes; give a whole number from 0 up")
    return [vote for vote, count in counts.items() for _ in range(count)]
