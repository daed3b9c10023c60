"""Which *word* carries a category: a cheap model that points at its evidence.

One logistic regression a category decides each word by its form and its neighbours, digits read as 0. A text has the
category of its surest word. Unlike a model of whole texts it can be asked where it saw something, and whether the very
words that an annotator marked look like another category.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from guard_utils.audit.mapping import given_table, tied_codes
from guard_utils.data.examples import Example
from guard_utils.data.predictions import BoolMatrix, FloatArray, predictions_table
from guard_utils.policy import Taxonomy, Verdict

WORD = re.compile(r"\S+")
NEIGHBOURS = (-3, -2, -1, 1, 2, 3)


def words(text: str) -> list[tuple[int, int]]:
    """Places of the words of a text: first character, character after the last."""
    return [match.span() for match in WORD.finditer(text)]


def carriers(example: Example, code: str, tied: Mapping[str, tuple[str, ...]]) -> list[int]:
    """Numbers of the words that an annotator marked with a label of the code; empty where the row is not given it."""
    if code not in example.codes:
        return []
    spans = [span for span in example.spans if code in tied.get(span.label, ()) and span.start >= 0]
    places = enumerate(words(example.text))
    return [i for i, (start, end) in places if any(start < span.end and end > span.start for span in spans)]


def word_model(
    train_examples: Sequence[Example], examples: Sequence[Example], policy: Taxonomy, seed: int = 0
) -> pd.DataFrame:
    """Scores texts by their words.

    Where a row is *given* a code and its words are marked, those words are asked instead of the surest ones: the
    probability is the mean of what they have of the code and of what no other category claims of them.

    Args:
        train_examples: With spans; those of each category mark what is to be learned.
        examples: To score. Their own labels are not learned from.
        policy: The policy of both.
        seed: Of the solver.

    Returns:
        A predictions table with `at_<code>`: where in the text the word stands that decided, as its first character.

    Raises:
        ValueError: No word is marked with a category of the policy.
    """
    from sklearn.linear_model import LogisticRegression

    tied = tied_codes(given_table(train_examples, policy), policy)
    seen, target = _features(train_examples), _marked(train_examples, policy, tied)
    if bare := [code for i, code in enumerate(policy.codes) if not target[:, i].any()]:
        raise ValueError(
            f"no word of {len(train_examples)} training examples is marked with {', '.join(bare)}; this model learns "
            "from spans, so pass rows that have them, or use a model of whole texts"
        )
    asked = _features(examples)
    fits = (LogisticRegression(C=30.0, solver="liblinear", random_state=seed).fit(seen, column) for column in target.T)
    p = np.column_stack([fit.predict_proba(asked)[:, 1] for fit in fits])
    marginals, places = np.zeros((2, len(examples), len(policy)))
    ends = np.cumsum([len(words(example.text)) for example in examples])
    for row, (example, of_row) in enumerate(zip(examples, np.split(p, ends[:-1]), strict=True)):
        for column, code in enumerate(policy.codes):
            marginals[row, column], word = _decide(of_row, column, carriers(example, code, tied))
            places[row, column] = words(example.text)[word][0]
    answers = [Verdict.of(np.array(policy.codes)[row].tolist()).codes for row in marginals >= 0.5]
    table = predictions_table(examples, policy, marginals, answers, 0.0)
    return table.assign(**{f"at_{code}": places[:, i].astype(int) for i, code in enumerate(policy.codes)})


def _decide(p: FloatArray, column: int, marked: Sequence[int]) -> tuple[float, int]:
    """Probability of a category, and the word that decides; `p` is [words, categories]."""
    if not marked:
        return float(p[:, column].max()), int(p[:, column].argmax())
    rival = np.delete(p, column, axis=1).max(axis=1, initial=0.0)[marked]
    return float((p[marked, column].max() + 1 - rival.max()) / 2), int(marked[rival.argmax()])


def _marked(examples: Sequence[Example], policy: Taxonomy, tied: Mapping[str, tuple[str, ...]]) -> BoolMatrix:
    """[words of all examples, categories]: whether a word is marked with the category."""
    parts = []
    for example in examples:
        part = np.zeros((len(words(example.text)), len(policy)), dtype=bool)
        for column, code in enumerate(policy.codes):
            part[carriers(example, code, tied), column] = True
        parts.append(part)
    return np.concatenate(parts)


def _features(examples: Sequence[Example]) -> csr_matrix:
    """Hashed features of every word of all examples, rows of unit length."""
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.preprocessing import normalize

    hasher = FeatureHasher(2**18, input_type="string", alternate_sign=False)
    return normalize(hasher.transform(found for example in examples for found in _word_features(example.text)))


def _word_features(text: str) -> Iterator[list[str]]:
    """Of each word: its pieces of 2 to 4 characters, its shape (`Aa0`), and the words and shapes around it."""
    found = WORD.findall(text)
    plain = [re.sub(r"\d", "0", word.lower()) for word in found]
    shapes = [_shape(word) for word in found]
    short = [re.sub(r"(.)\1+", r"\1+", shape) for shape in shapes]
    for i, word in enumerate(plain):
        framed = f"^{word}$"
        features = [f"shape {shapes[i]}", f"short {short[i]}"]
        features += [framed[j : j + size] for size in (2, 3, 4) for j in range(len(framed) - size + 1)]
        for step in NEIGHBOURS:
            if not 0 <= i + step < len(found):
                features.append(f"{step} end")
                continue
            near = short[i + step]
            features += [f"{step} {plain[i + step]}", f"{step} shape {near}", f"{step} {short[i]} {near}"]
        yield features


def _shape(word: str) -> str:
    letters = re.sub(r"[^\W\d_]", lambda letter: "A" if letter[0].isupper() else "a", word)
    return re.sub(r"\d", "0", letters)
