"""The four sets of examples of a run: train, validation, test, and independent text that nobody here wrote.

Does: read the frozen data of the series, or the hub's rows of a profile, and order training rows by the seed. Does not:
generate rows, or change which rows are held out.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from guard_utils.data.examples import Example, rows_fingerprint, to_examples
from guard_utils.data.labels import PII_65K, PII_200K
from guard_utils.data.leaks import drop_leaks, leakage
from guard_utils.data.rows import load
from guard_utils.profiles import EMBEDDED, Profile, Run, mirrored, repository


@dataclass(frozen=True)
class Splits:
    """Examples of a run. Only `train` is trained on, only `validation` is tuned on."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    independent: list[Example]

    @property
    def held_out(self) -> dict[str, list[Example]]:
        """Name to examples of the sets that are scored."""
        return {"validation": self.validation, "test": self.test, "independent": self.independent}

    @property
    def digest(self) -> str:
        """SHA-256 of the fingerprints of the four sets."""
        parts = (self.train, *self.held_out.values())
        return hashlib.sha256(" ".join(map(rows_fingerprint, parts)).encode()).hexdigest()


def load_splits(run: Run) -> Splits:
    """Loads the examples of a run, as many as its profile says; training rows that share anything with a held-out set
    are not among them. The seed orders the training rows within each phase, and nothing else.

    Raises:
        DataError: A file is missing or faulty, or the hub can't be read.
    """
    profile = run.profile
    independent = _frozen("presidio-templates")["test"][: profile.independent_rows]
    if profile.train_data != EMBEDDED:
        return _from_hub(profile, run.seed, independent)
    corpus = _frozen("corpus")
    phases = [corpus["train-1"], corpus["train-2"]]
    share = min(1.0, profile.train_rows / sum(map(len, phases)))
    train: list[Example] = []
    for phase in phases:
        count = round(share * len(phase))
        train += [phase[i] for i in np.random.default_rng(run.seed).permutation(count)]
    validation, test = corpus["validation"][: profile.validation_rows], corpus["test"][: profile.test_rows]
    return Splits(train, validation, test, independent)


def _frozen(name: str) -> dict[str, list[Example]]:
    """Examples of a file of `notebooks/data/` by split; training by phase: `train-1`, `train-2`."""
    rows = load(repository() / "notebooks" / "data" / f"{name}.parquet")
    parts: dict[str, list[Example]] = {}
    examples = to_examples(rows, PII_200K, place=name)
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


def _from_hub(profile: Profile, seed: int, independent: list[Example]) -> Splits:
    rows = load(mirrored(profile.train_data) or profile.train_data)
    own = split_by_template(to_examples(rows, PII_65K, place=profile.train_data), seed=seed)
    rows = load(mirrored(profile.test_data) or profile.test_data, languages=["en"])
    other = split_by_template(to_examples(rows, PII_200K, place=profile.test_data), seed=seed)
    train, validation = own["train"][: profile.train_rows], own["validation"][: profile.validation_rows]
    test = other["test"][: profile.test_rows]
    for examples in (validation, test, independent):
        train = drop_leaks(train, leakage(train, examples))
    return Splits(train, validation, test, independent)
