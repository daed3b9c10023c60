"""Does a test set share anything with the training set? Templates, clauses and near-duplicates, found and removed.

Does: compare texts after each labelled value is replaced by its label, by the exact Jaccard similarity of their word
triples. Does not: know what a text means; a paraphrase is no near-duplicate.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from guard_utils.data.examples import Example

THRESHOLD = 0.8
"""Least Jaccard similarity of the word triples of near-duplicates."""

_BLOCK = 200


@dataclass(frozen=True)
class LeakageReport:
    """What two sets share.

    Attributes:
        counts: How many templates, clauses, near-duplicate texts, and examples of either side.
        train_ids: Training examples that share anything with the test set.
        test_ids: Test examples that share anything with the training set.
    """

    counts: dict[str, int]
    train_ids: frozenset[str]
    test_ids: frozenset[str]


def leakage(train: Sequence[Example], test: Sequence[Example]) -> LeakageReport:
    """Looks for templates, clauses and near-duplicate texts that two sets share."""
    pairs = list(near_duplicates(train, test))
    templates = ({e.template_id for e in train} & {e.template_id for e in test}) - {""}
    clauses = {c for e in train for c in e.clause_ids} & {c for e in test for c in e.clause_ids}

    def concerned(examples: Sequence[Example], near: Iterable[Sequence[str]]) -> frozenset[str]:
        same = {e.id for e in examples if e.template_id in templates or clauses.intersection(e.clause_ids)}
        return frozenset(same.union(*near))

    train_ids = concerned(train, (ids for ids, _, _ in pairs))
    test_ids = concerned(test, (ids for _, ids, _ in pairs))
    counts = {
        "templates": len(templates),
        "clauses": len(clauses),
        "near-duplicate texts": len(pairs),
        "training examples concerned": len(train_ids),
        "test examples concerned": len(test_ids),
    }
    return LeakageReport(counts, train_ids, test_ids)


def drop_leaks(train: Iterable[Example], report: LeakageReport) -> list[Example]:
    """Removes the training examples that a report names. The test set stays as it is, so scores stay comparable."""
    return [example for example in train if example.id not in report.train_ids]


def near_duplicates(
    train: Iterable[Example], test: Iterable[Example]
) -> Iterator[tuple[Sequence[str], Sequence[str], float]]:
    """Yields training ids, test ids and similarity of each two masked texts whose word triples are nearly the same.

    The similarity of the triples A and B is |A and B| / |A or B|; every pair is compared.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    train_texts, test_texts = _ids_by_triples(train), _ids_by_triples(test)
    if not train_texts or not test_texts:
        return
    has = CountVectorizer(analyzer=list, dtype=np.int32).fit_transform([*train_texts, *test_texts])
    train_has, test_has = has[: len(train_texts)].T.tocsr(), has[len(train_texts) :]
    train_sizes, test_sizes = np.split(np.diff(has.indptr), [len(train_texts)])
    train_ids, test_ids = list(train_texts.values()), list(test_texts.values())
    for first in range(0, len(test_ids), _BLOCK):  # the counts of all pairs at once would take gigabytes
        common = (test_has[first : first + _BLOCK] @ train_has).tocoo()
        rows = common.row + first
        similarity = common.data / (test_sizes[rows] + train_sizes[common.col] - common.data)
        for at in np.flatnonzero(similarity >= THRESHOLD):
            yield train_ids[common.col[at]], test_ids[rows[at]], float(similarity[at])


def _ids_by_triples(examples: Iterable[Example]) -> dict[frozenset[str], list[str]]:
    """Ids of the examples by the word triples of their masked texts: texts of one template are compared once."""
    groups: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for example in examples:
        words = re.findall(r"\w+", (example.masked or example.text).casefold())
        triples = frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))
        groups[triples - {""}].append(example.id)
    groups.pop(frozenset(), None)
    return groups
