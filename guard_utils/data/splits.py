"""The four sets of examples of a run: train, validation, test, and independent text that nobody here wrote."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import Any

from guard_utils.assets import fetch
from guard_utils.data.examples import Example, load, rows_fingerprint, split, to_examples
from guard_utils.data.labels import PII_65K, PII_200K
from guard_utils.profiles import EMBEDDED, Profile, Run
from tools.corpus.compose import generate
from tools.corpus.independent import fill, presidio_fillers, presidio_templates
from tools.corpus.values import Split

# Training begins with texts of one clause: they cost half as much, and what a code stands for is plain to see in them.
SIMPLE_SHARE = 0.55


@dataclass(frozen=True)
class Splits:
    """Examples of a run. Only `train` is trained on, only `validation` is tuned on."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    independent: list[Example]

    @property
    def digest(self) -> str:
        """SHA-256 of the fingerprints of the four sets."""
        parts = (self.train, self.validation, self.test, self.independent)
        return hashlib.sha256(" ".join(map(rows_fingerprint, parts)).encode()).hexdigest()


def load_splits(run: Run) -> Splits:
    """Loads or generates the examples of a run; the same for the same profile and seed.

    Args:
        run: A resolved profile.

    Returns:
        The four sets, as large as the profile says.
    """
    profile = run.profile
    if profile.train_data == EMBEDDED:
        train = embedded_training(profile.train_rows, seed=run.seed)
        validation = _embedded("validation", profile.validation_rows, run.seed)
        test = _embedded("test", profile.test_rows, run.seed)
    else:
        train, validation, test = _hub(profile, run.seed)
    assets = fetch("presidio-templates")
    rows = fill(presidio_templates(assets), presidio_fillers(assets), n=profile.independent_rows, seed=run.seed)
    return Splits(train, validation, test, to_examples(rows, PII_200K, place="presidio-templates"))


def embedded_training(rows: int, *, seed: int, clause_share: float = 1.0) -> list[Example]:
    """What the embedded corpus trains a guard on: first texts of one clause, then composed ones; see `generate`."""
    simple = int(rows * SIMPLE_SHARE)
    first = _embedded("train", simple, seed, simple=True, clause_share=clause_share)
    return first + _embedded("train", rows - simple, seed, clause_share=clause_share)


def _embedded(part: Split, rows: int, seed: int, **how: Any) -> list[Example]:
    return to_examples(generate(rows, split=part, seed=seed, **how), PII_200K, place=f"embedded {part}")


def _hub(profile: Profile, seed: int) -> tuple[list[Example], list[Example], list[Example]]:
    own = split(to_examples(load(profile.train_data), PII_65K, place=profile.train_data), seed=seed)
    other = to_examples(load(profile.test_data, languages=["en"]), PII_200K, place=profile.test_data)
    held_out = split(other, seed=seed)["test"]
    return (
        list(islice(own["train"], profile.train_rows)),
        list(islice(own["validation"], profile.validation_rows)),
        list(islice(held_out, profile.test_rows)),
    )
