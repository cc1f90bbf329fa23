"""What a text is to the signatures: a sentence encoder's vector beside counts of words, marks and shapes.

An uncased sentence encoder hears what a text is about, and hardly how long, loud or learned it is. So its vectors stand
beside a latent space of all words and marks, and beside six plain numbers. None knows what anybody prefers.
"""

from collections.abc import Sequence

import numpy as np

TOKEN = r"(?u)\w+|[^\w\s]"  # words, and every mark by itself
WEIGHT = 3.0  # of shapes, six numbers that would be lost among hundreds when the leading dimensions are kept
SHAPES = ("log words", "letters a word", "capitals", "digits", "marks", "log letters")


def describe(texts: Sequence[str], vectors: np.ndarray, *, words: int, seed: int) -> np.ndarray:
    """[n, H + words + 6] the encoder's vectors [n, H] of the same texts, words, shapes (WEIGHT times as wide)."""
    if len(texts) != len(vectors):
        raise ValueError(f"{len(texts)} texts and {len(vectors)} vectors; give one vector for each text")
    counted = count_words(texts, dims=words, seed=seed)
    return np.hstack([_even(vectors), _even(counted), WEIGHT * _even(measure_shapes(texts))])


def count_words(texts: Sequence[str], *, dims: int, seed: int) -> np.ndarray:
    """[n, dims] latent dimensions of tf-idf over words and marks."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    table = TfidfVectorizer(token_pattern=TOKEN, sublinear_tf=True, min_df=2).fit_transform(texts)
    return TruncatedSVD(min(dims, *(side - 1 for side in table.shape)), random_state=seed).fit_transform(table)


def measure_shapes(texts: Sequence[str]) -> np.ndarray:
    """[n, 6] SHAPES of each text, in standard scores."""
    rows = []
    for text in texts:
        split, letters = text.split(), max(len(text), 1)
        kinds = [sum(map(test, text)) / letters for test in (str.isupper, str.isdigit, _is_mark)]
        longest = sum(map(len, split)) / max(len(split), 1)
        rows.append([np.log1p(len(split)), longest, *kinds, np.log1p(len(text))])
    found = np.array(rows, float)
    return (found - found.mean(0)) / np.maximum(found.std(0), 1e-9)


def _is_mark(letter: str) -> bool:
    return not letter.isalnum() and not letter.isspace()


def _even(block: np.ndarray) -> np.ndarray:
    """The block with a standard deviation of 1 a dimension, on average."""
    return (block - block.mean(0)) / max(float(block.std(0).mean()), 1e-9)
