"""Twenty-four traits that are measured on any text, and the phrases by which a planted annotator names each.

A meter is a formula of the text alone: words (brief: minus the number of words), letters per word (plain: minus them),
or marks and words of a list per 10 words of the text. They are crude on purpose: exact, the same for a person's text
and for a model's, and nobody's opinion. In use they are standard scores of the planted world's texts, cut at +-4.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LIMIT = 4.0  # standard scores of traits are cut there


def _share(*words: str):
    """A meter: these words (regular expressions) per 10 words of the text."""
    return _marks(r"(?i)\b(?:" + "|".join(words) + r")\b")


def _marks(pattern: str):
    """A meter: matches of the pattern per 10 words of the text."""
    found = re.compile(pattern)
    return lambda text: 10 * len(found.findall(text)) / max(len(text.split()), 1)


def _letters(text: str) -> float:
    words = re.findall(r"[A-Za-z]+", text)
    return sum(map(len, words)) / max(len(words), 1)


# Category -> its meter. The order is the order of planted frequencies.
METERS = {
    "brief": lambda t: -len(t.split()),
    "praise": _share(
        "good", "great", "best", "love[sd]?", "excellent", "wonderful", "perfect(?:ly)?", "beautiful(?:ly)?",
        "enjoy\\w*", "fun", "amazing", "nice", "happy", "brilliant", "charming",
    ),
    "detail": lambda t: len(t.split()),
    "criticism": _share(
        "bad(?:ly)?", "worst?", "worse", "poor(?:ly)?", "terrible", "awful", "boring", "dull", "fail\\w*",
        "problems?", "wrong", "hate[sd]?", "stupid", "waste", "disappoint\\w*",
    ),
    "plain": lambda t: -_letters(t),
    "personal": _share("I", "I'm", "I've", "I'd", "me", "my", "mine", "myself"),
    "learned": _letters,
    "contrast": _share("but", "yet", "although", "though", "however", "despite", "while", "instead", "rather"),
    "enthusiasm": _marks("!"),
    "comparison": _share("than", "like", "as", "more", "most", "less", "better", "similar", "compared"),
    "names": _marks("(?<=[a-z,;'\\\"] )[A-Z][a-z]+"),
    "reasons": _share("because", "since", "so", "therefore", "why", "reasons?", "due", "thus", "cause[sd]?"),
    "intensity": _share("very", "really", "so", "too", "extremely", "truly", "absolutely", "quite", "even"),
    "figures": _marks("\\d+"),
    "casual": _share(
        "\\w+n't", "\\w+'(?:re|ve|ll|m|d)", "it's", "that's", "lol", "ok", "yeah", "gonna", "guys?", "stuff",
    ),
    "questions": _marks("\\?"),
    "refusal": _share("not", "no", "never", "nothing", "none", "without", "\\w+n't", "nor"),
    "reader": _share("you", "your", "yours", "you'll", "you're"),
    "hedging": _share(
        "may", "might", "perhaps", "maybe", "could", "seems?", "probably", "possibly", "somewhat", "almost",
        "would",
    ),
    "chronology": _share(
        "now", "today", "years?", "days?", "time", "ago", "when", "after", "before", "last", "new", "old",
    ),
    "community": _share("we", "us", "our", "ours", "we're", "we've"),
    "certainty": _share(
        "must", "always", "will", "all", "every", "clear(?:ly)?", "certain(?:ly)?", "definitely", "only", "has to",
        "have to",
    ),
    "quotation": _marks("[\"\u201c\u201d]|''"),
    "clauses": _marks("[,;:()]"),
}  # fmt: skip
PHRASES = {  # category -> seven phrases
    "brief": (
        "brevity|conciseness|short and to the point|few words|no padding|compactness|getting to the point quickly"
    ),
    "praise": "praise|positive tone|compliments|warm approval|optimism|saying good things|admiration",
    "detail": (
        "rich detail|thoroughness|a full account|in-depth description|completeness|more information|an extensive answer"
    ),
    "criticism": "criticism|negative tone|harsh judgement|fault-finding|disapproval|complaints|pessimism",
    "plain": (
        "simple words|plain language|easy vocabulary|everyday words|easy reading|language a child understands|no jargon"
    ),
    "personal": (
        "personal experience|first person voice|speaking of oneself|a personal story|"
        "the writer's own feelings|a subjective view|private confession"
    ),
    "learned": (
        "sophisticated vocabulary|learned language|academic wording|technical terms|elevated diction|"
        "erudite style|advanced words"
    ),
    "contrast": (
        "weighing both sides|balanced argument|contrast and concession|acknowledging the other side|nuance|"
        "pros and cons|seeing two sides"
    ),
    "enthusiasm": "enthusiasm|excitement|an energetic tone|exclamations|passion|lively spirit|eagerness",
    "comparison": (
        "comparison with others|drawing comparisons|ranking against alternatives|benchmarks|likening things|"
        "relative judgement|analogies"
    ),
    "names": (
        "names of people and places|proper names|mentioning specific people|naming names|"
        "references to real places|named examples|saying who it is about"
    ),
    "reasons": (
        "giving reasons|explaining why|causal explanation|justification|logical reasoning|stating the cause|"
        "arguments for the claim"
    ),
    "intensity": (
        "strong emphasis|intensifiers|emphatic wording|forceful expression|heightened language|underlining|"
        "intense wording"
    ),
    "figures": (
        "numbers and figures|quantitative detail|statistics|exact amounts|numerical evidence|"
        "counts and percentages|hard data"
    ),
    "casual": (
        "casual tone|informal style|conversational language|chatty manner|colloquial speech|relaxed wording|slang"
    ),
    "questions": (
        "asking questions|a question to think about|curiosity|rhetorical questions|inquisitive tone|"
        "raising a question|inviting an answer"
    ),
    "refusal": (
        "saying what it is not|negation|denial|refutation|pointing out what is missing|rejection of a claim|"
        "disagreement"
    ),
    "reader": (
        "speaking to the reader|direct address|second person voice|engaging the audience|"
        "advice to the reader|talking to you|involving the listener"
    ),
    "hedging": (
        "cautious wording|hedged claims|admitting uncertainty|tentative tone|careful qualification|"
        "saying maybe|modest claims"
    ),
    "chronology": (
        "a sense of time|saying when it happened|temporal detail|historical context|chronology|timeliness|"
        "the order of events"
    ),
    "community": (
        "a sense of community|speaking for us all|togetherness|collective voice|shared identity|solidarity|"
        "group belonging"
    ),
    "certainty": "confidence|firm assertions|certainty|decisive tone|bold claims|no doubt|speaking in absolutes",
    "quotation": (
        "quotations|citing someone's words|quoted speech|direct quotes|quotation marks|letting others speak|"
        "verbatim citations"
    ),
    "clauses": (
        "complex sentence structure|long winding clauses|intricate syntax|layered sentences|"
        "elaborate phrasing|parenthetical asides|nested clauses"
    ),
}
WORDINGS = (
    "{}", "more {}", "clear {}", "prefers {}", "a preference for {}", "{} overall", "{} in this text", "values {}",
    "{} from the start", "noticeable {}", "{} above all", "likes {}", "good {}", "{} where it matters",
    "{} for the reader", "{} suited to the subject", "appreciates {}", "a touch of {}", "plenty of {}", "{} at the end",
    "natural {}", "wants {}", "greater {}", "{} that helps", "{} that convinces", "{} throughout", "effective {}",
    "{} in every line", "enjoys {}", "{} over everything else",
)  # fmt: skip
NAMES = tuple(METERS)


def measure(texts: Sequence[str]) -> np.ndarray:
    """The 24 traits [n, 24] of any texts, in each meter's own unit: words, letters per word, or marks per 10 words."""
    return np.array([[meter(text) for meter in METERS.values()] for text in texts], dtype=float)


class Scale(NamedTuple):
    """Mean and standard deviation [24] of the traits of the world's texts."""

    mean: np.ndarray
    spread: np.ndarray

    def standard(self, texts: Sequence[str]) -> np.ndarray:
        """Traits [n, 24] of any texts in standard scores of the world's texts, cut at +-4."""
        return np.clip((measure(texts) - self.mean) / self.spread, -LIMIT, LIMIT)


def scale_of(texts: Sequence[str]) -> Scale:
    """The scale that these texts give."""
    raw = measure(texts)
    return Scale(raw.mean(0), np.maximum(raw.std(0), 1e-9))


def phrases() -> tuple[list[str], np.ndarray]:
    """(all phrases, category of each)."""
    kinds = [PHRASES[name].split("|") for name in NAMES]
    made = [(wording.format(base), c) for c, bases in enumerate(kinds) for base in bases for wording in WORDINGS]
    return [phrase for phrase, _ in made], np.array([c for _, c in made])


def zipf(size: int) -> np.ndarray:
    """[size] weights 1/1, 1/2, 1/3 ... that sum to 1."""
    weights = 1 / np.arange(1, size + 1)
    return weights / weights.sum()
