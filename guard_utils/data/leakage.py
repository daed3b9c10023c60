"""Does a test set share anything with the training set? Templates, clauses and near-duplicates, found and removed.

Sets made by one template generator differ in names and numbers only. So texts are compared after each labelled value is
replaced by its label, as sets of word triples: MinHash LSH (`datasketch`) finds candidates, and the exact Jaccard
similarity of the triples decides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasketch import MinHash, MinHashLSH

from guard_utils.data.examples import Example

if TYPE_CHECKING:
    import pandas as pd

_PERMUTATIONS = 128
_SHINGLE_WORDS = 3


@dataclass(frozen=True)
class NearDuplicate:
    """Two masked texts, one of each set, that are almost the same.

    Attributes:
        train_ids: Training examples with the one text.
        test_ids: Test examples with the other.
        similarity: Jaccard similarity of their word triples, above 0 and at most 1.
    """

    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    similarity: float


@dataclass(frozen=True)
class LeakageReport:
    """What two sets share.

    Attributes:
        threshold: Least similarity of a near-duplicate.
        template_ids: Templates in both sets, ascending.
        clause_ids: Clauses in both sets, ascending.
        near_duplicates: Most similar first.
        train_ids: Training examples that share anything with the test set.
        test_ids: Test examples that share anything with the training set.
    """

    threshold: float
    template_ids: tuple[str, ...]
    clause_ids: tuple[str, ...]
    near_duplicates: tuple[NearDuplicate, ...]
    train_ids: frozenset[str]
    test_ids: frozenset[str]

    @property
    def clean(self) -> bool:
        """Whether nothing is shared."""
        return not self.train_ids and not self.test_ids

    def table(self) -> pd.DataFrame:
        """Tabulates the findings: columns `shared`, `count`."""
        import pandas as pd

        counts = {
            "templates": len(self.template_ids),
            "clauses": len(self.clause_ids),
            f"near-duplicate texts (similarity >= {self.threshold:g})": len(self.near_duplicates),
            "training examples concerned": len(self.train_ids),
            "test examples concerned": len(self.test_ids),
        }
        return pd.DataFrame({"shared": list(counts), "count": list(counts.values())})


def masked_text(example: Example) -> str:
    """Replaces each labelled value of a text by its label (`[PHONENUMBER]`, underscores removed)."""
    parts, done = [], 0
    for span in sorted((span for span in example.spans if span.start >= 0), key=lambda span: (span.start, -span.end)):
        if span.start >= done:
            parts += [example.text[done : span.start], f"[{span.label.replace('_', '')}]"]
            done = span.end
    return "".join([*parts, example.text[done:]])


def _shingles(text: str) -> frozenset[str]:
    """Word triples of a text, case folded; a text of fewer words is one shingle."""
    words = re.findall(r"\w+", text.casefold())
    last = max(1, len(words) - _SHINGLE_WORDS + 1)
    return frozenset(" ".join(words[i : i + _SHINGLE_WORDS]) for i in range(last)) - {""}


def _ids_by_text(examples: Iterable[Example]) -> dict[frozenset[str], tuple[str, ...]]:
    """Groups example ids by their text's shingles: texts of one template are compared once."""
    groups: defaultdict[frozenset[str], list[str]] = defaultdict(list)
    for example in examples:
        groups[_shingles(masked_text(example))].append(example.id)
    return {shingles: tuple(ids) for shingles, ids in groups.items() if shingles}


def _minhash(shingles: frozenset[str]) -> MinHash:
    sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
    sketch.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return sketch


def _near_duplicates(train: Sequence[Example], test: Sequence[Example], threshold: float) -> list[NearDuplicate]:
    train_texts, test_texts = _ids_by_text(train), _ids_by_text(test)
    # An index tuned to the threshold itself misses half of the pairs that just reach it. One tuned well below it
    # finds more than 99 % of them, and the exact similarity sorts out what is too much.
    index = MinHashLSH(threshold=0.6 * threshold, num_perm=_PERMUTATIONS)
    keyed = list(train_texts)
    for key, shingles in enumerate(keyed):
        index.insert(key, _minhash(shingles))
    found = []
    for shingles, test_ids in test_texts.items():
        for key in index.query(_minhash(shingles)):
            other = keyed[key]
            similarity = len(shingles & other) / len(shingles | other)
            if similarity >= threshold:
                found.append(NearDuplicate(train_texts[other], test_ids, similarity))
    return sorted(found, key=lambda pair: (-pair.similarity, pair.test_ids, pair.train_ids))


def leakage(train: Sequence[Example], test: Sequence[Example], *, threshold: float = 0.8) -> LeakageReport:
    """Looks for templates, clauses and near-duplicate texts that two sets share.

    Args:
        train: Examples to train on.
        test: Examples to measure on.
        threshold: Least Jaccard similarity of word triples, above 0 and at most 1.

    Returns:
        What is shared, and by which examples.

    Raises:
        ValueError: The threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it must be above 0 and at most 1")

    def shared(keys: Callable[[Example], Iterable[str]]) -> set[str]:
        sides = [{key for example in side for key in keys(example) if key} for side in (train, test)]
        return sides[0] & sides[1]

    templates, clauses = shared(lambda example: [example.template_id]), shared(lambda example: example.clause_ids)
    pairs = _near_duplicates(train, test, threshold)

    def concerned(side: Sequence[Example]) -> set[str]:
        return {e.id for e in side if e.template_id in templates or clauses.intersection(e.clause_ids)}

    return LeakageReport(
        threshold=threshold,
        template_ids=tuple(sorted(templates)),
        clause_ids=tuple(sorted(clauses)),
        near_duplicates=tuple(pairs),
        train_ids=frozenset(concerned(train).union(*(pair.train_ids for pair in pairs))),
        test_ids=frozenset(concerned(test).union(*(pair.test_ids for pair in pairs))),
    )


def drop_leaks(train: Iterable[Example], report: LeakageReport) -> list[Example]:
    """Removes the training examples that a report names. The test set stays as it is, so scores stay comparable."""
    return [example for example in train if example.id not in report.train_ids]


def without_leaks(train: Iterable[Example], held_out: Iterable[Sequence[Example]]) -> list[Example]:
    """Removes the training examples that share a template, a clause or a near-duplicate text with any held-out set."""
    kept = list(train)
    for examples in held_out:
        kept = drop_leaks(kept, leakage(kept, examples))
    return kept
