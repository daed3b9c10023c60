"""The four sets of examples of a run, and what they share: train, validation, test, and text that nobody here wrote.

Does: read the frozen data of the series, or the hub's rows of a profile, order training rows by the seed, and find
leaks: templates, clauses and near-duplicates, by the Jaccard similarity of word triples of masked texts. Does not:
generate rows, change which rows are held out, or know what a text means.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from guard_utils.data.examples import Example, rows_fingerprint, to_examples
from guard_utils.data.labels import PII_65K, PII_200K, LabelMap
from guard_utils.data.own_rows import own_examples
from guard_utils.data.rows import load
from guard_utils.profiles import EMBEDDED, Profile, Run, located, mirrored, repository


@dataclass(frozen=True)
class Splits:
    """Examples of a run. Only `train` is trained on, only `validation` is tuned on."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    independent: list[Example]

    @property
    def held_out(self) -> dict[str, list[Example]]:
        """Name to examples of the sets that are scored; your own rows have no independent one."""
        sets = {"validation": self.validation, "test": self.test, "independent": self.independent}
        return {name: examples for name, examples in sets.items() if examples}

    @property
    def digest(self) -> str:
        """SHA-256 of the fingerprints of the sets."""
        parts = (self.train, *self.held_out.values())
        return hashlib.sha256(" ".join(map(rows_fingerprint, parts)).encode()).hexdigest()


def load_splits(run: Run) -> Splits:
    """Loads the examples of a run, as many as its profile says; training rows that share anything with a held-out set
    are not among them. The seed orders the training rows within each phase, draws those of your own, and nothing else.

    Raises:
        DataError: A file is missing or faulty, or the hub can't be read.
    """
    profile = run.profile
    label_map = LabelMap.from_csv(located(profile.labels), name=profile.labels) if profile.labels else PII_200K
    independent = _frozen("presidio-templates", label_map)["test"][: profile.independent_rows]
    if located(profile.train_data) in profile.own_files:
        return _from_files(run, label_map if profile.labels else None)
    if profile.train_data != EMBEDDED:
        return _from_hub(profile, run.seed, independent)
    corpus = _frozen("corpus", label_map)
    phases = [corpus["train-1"], corpus["train-2"]]
    share = min(1.0, profile.train_rows / sum(map(len, phases)))
    train: list[Example] = []
    for phase in phases:
        train += _shuffled(phase[: round(share * len(phase))], run.seed)
    validation, test = corpus["validation"][: profile.validation_rows], corpus["test"][: profile.test_rows]
    return Splits(train, validation, test, independent)


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    return [examples[i] for i in np.random.default_rng(seed).permutation(len(examples))]


def _frozen(name: str, label_map: LabelMap) -> dict[str, list[Example]]:
    """Examples of a file of `notebooks/data/` by split; training by phase: `train-1`, `train-2`."""
    rows = load(repository() / "notebooks" / "data" / f"{name}.parquet")
    parts: dict[str, list[Example]] = {}
    examples = to_examples(rows, label_map, place=name)
    for example, split, phase in zip(examples, rows["split"], rows["phase"], strict=True):
        parts.setdefault(split if phase is None else f"{split}-{phase}", []).append(example)
    return parts


def split_by_template(examples: Iterable[Example], *, seed: int) -> dict[str, list[Example]]:
    """Splits examples so that a template is in one part only.

    A template's part follows from its id and the seed alone: neither order nor the other examples matter.

    Returns:
        Examples in the given order by part: about 80 % of the *templates* in "train", 10 % each in "validation" and
        "test".
    """
    parts: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for example in examples:
        place = draw(seed, example.template_id)
        parts["train" if place < 0.8 else "validation" if place < 0.9 else "test"].append(example)
    return parts


def draw(*keys: object) -> float:
    """A number in [0, 1) that depends on the keys alone."""
    digest = hashlib.blake2b(":".join(map(str, keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _from_files(run: Run, label_map: LabelMap | None) -> Splits:
    """The rows of your own files: those of one file are parted by template; a second file is the test set."""
    profile = run.profile
    own, other = located(profile.train_data), located(profile.test_data)
    parts = split_by_template(own_examples(own, run.policy, label_map, role=profile.role), seed=run.seed)
    train, test = parts["train"], parts["test"]
    if other != own and other in profile.own_files:
        train, test = train + test, own_examples(other, run.policy, label_map, role=profile.role)
    # A file may be sorted, and updates of one kind of row after another teach little.
    train = _shuffled(train, run.seed)[: profile.train_rows]
    validation, test = parts["validation"][: profile.validation_rows], test[: profile.test_rows]
    return _without_leaks(train, validation, test, [])


def _from_hub(profile: Profile, seed: int, independent: list[Example]) -> Splits:
    rows = load(mirrored(profile.train_data) or profile.train_data)
    own = split_by_template(to_examples(rows, PII_65K, place=profile.train_data), seed=seed)
    rows = load(mirrored(profile.test_data) or profile.test_data, languages=["en"])
    other = split_by_template(to_examples(rows, PII_200K, place=profile.test_data), seed=seed)
    train, validation = own["train"][: profile.train_rows], own["validation"][: profile.validation_rows]
    return _without_leaks(train, validation, other["test"][: profile.test_rows], independent)


def _without_leaks(train: list[Example], *held_out: list[Example]) -> Splits:
    for examples in held_out:
        train = drop_leaks(train, leakage(train, examples))
    return Splits(train, *held_out)


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
