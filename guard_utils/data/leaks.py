"""Does a test set share anything with the training set? Templates, clauses and near-duplicates, found and removed.

Does: compare texts after each labelled value is replaced by its label, by the exact Jaccard similarity of their word
triples. Does not: know what a text means; a paraphrase is no near-duplicate.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from guard_utils.data.examples import Example

if TYPE_CHECKING:
    import pandas as pd

_BLOCK = 200


class NearDuplicate(NamedTuple):
    """Ids of the training and of the test examples with two masked texts that are almost the same."""

    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    similarity: float


@dataclass(frozen=True)
class LeakageReport:
    """What two sets share.

    Attributes:
        template_ids: Templates in both sets, ascending.
        clause_ids: Clauses in both sets, ascending.
        near_duplicates: Most similar first.
        train_ids: Training examples that share anything with the test set.
        test_ids: Test examples that share anything with the training set.
    """

    template_ids: tuple[str, ...]
    clause_ids: tuple[str, ...]
    near_duplicates: tuple[NearDuplicate, ...]
    train_ids: frozenset[str]
    test_ids: frozenset[str]

    def table(self) -> pd.DataFrame:
        """Tabulates the findings: columns `shared`, `count`."""
        import pandas as pd

        counts = {
            "templates": len(self.template_ids),
            "clauses": len(self.clause_ids),
            "near-duplicate texts": len(self.near_duplicates),
            "training examples concerned": len(self.train_ids),
            "test examples concerned": len(self.test_ids),
        }
        return pd.DataFrame({"shared": list(counts), "count": list(counts.values())})


def leakage(train: Sequence[Example], test: Sequence[Example], *, threshold: float = 0.8) -> LeakageReport:
    """Looks for templates, clauses and near-duplicate texts that two sets share.

    Args:
        train: Examples to train on.
        test: Examples to measure on.
        threshold: Least Jaccard similarity of word triples, above 0 and at most 1.

    Raises:
        ValueError: The threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must be above 0 and at most 1")
    pairs = _near_duplicates(train, test, threshold)
    templates = ({e.template_id for e in train} & {e.template_id for e in test}) - {""}
    clauses = {c for e in train for c in e.clause_ids} & {c for e in test for c in e.clause_ids}

    def concerned(examples: Sequence[Example], near: Iterable[tuple[str, ...]]) -> frozenset[str]:
        same = {e.id for e in examples if e.template_id in templates or clauses.intersection(e.clause_ids)}
        return frozenset(same.union(*near))

    return LeakageReport(
        template_ids=tuple(sorted(templates)),
        clause_ids=tuple(sorted(clauses)),
        near_duplicates=tuple(pairs),
        train_ids=concerned(train, (pair.train_ids for pair in pairs)),
        test_ids=concerned(test, (pair.test_ids for pair in pairs)),
    )


def drop_leaks(train: Iterable[Example], report: LeakageReport) -> list[Example]:
    """Removes the training examples that a report names. The test set stays as it is, so scores stay comparable."""
    return [example for example in train if example.id not in report.train_ids]


def masked_text(example: Example) -> str:
    """Replaces each labelled value of a text by its label (`[PHONENUMBER]`, underscores removed)."""
    parts, done = [], 0
    for span in sorted((span for span in example.spans if span.start >= 0), key=lambda span: (span.start, -span.end)):
        if span.start >= done:
            parts += [example.text[done : span.start], f"[{span.label.replace('_', '')}]"]
            done = span.end
    return "".join([*parts, example.text[done:]])


def _near_duplicates(train: Sequence[Example], test: Sequence[Example], threshold: float) -> list[NearDuplicate]:
    """Pairs of texts whose triples have |A and B| / |A or B| >= threshold, most similar first; exact."""
    from sklearn.feature_extraction.text import CountVectorizer

    train_texts, test_texts = _ids_by_triples(train), _ids_by_triples(test)
    if not train_texts or not test_texts:
        return []
    has = CountVectorizer(analyzer=list, dtype=np.int32).fit_transform([*train_texts, *test_texts])
    train_has, test_has = has[: len(train_texts)].T.tocsr(), has[len(train_texts) :]
    train_sizes, test_sizes = np.split(np.diff(has.indptr), [len(train_texts)])
    train_ids, test_ids = list(train_texts.values()), list(test_texts.values())
    found = []
    for first in range(0, len(test_ids), _BLOCK):  # the counts of all pairs at once would take gigabytes
        common = (test_has[first : first + _BLOCK] @ train_has).tocoo()
        rows = common.row + first
        similarity = common.data / (test_sizes[rows] + train_sizes[common.col] - common.data)
        for at in np.flatnonzero(similarity >= threshold):
            ids = tuple(train_ids[common.col[at]]), tuple(test_ids[rows[at]])
            found.append(NearDuplicate(*ids, float(similarity[at])))
    return sorted(found, key=lambda pair: (-pair.similarity, pair.test_ids, pair.train_ids))


def _ids_by_triples(examples: Iterable[Example]) -> dict[frozenset[str], list[str]]:
    """Ids of the examples by the word triples of their masked texts: texts of one template are compared once."""
    groups: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for example in examples:
        words = re.findall(r"\w+", masked_text(example).casefold())
        triples = frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))
        groups[triples - {""}].append(example.id)
    groups.pop(frozenset(), None)
    return groups
