"""Rows with known label noise, shared by the tests of the audit."""

from dataclasses import replace

import pandas as pd
import pytest

from guard_utils.audit.changes import LabelNoise, add_label_noise
from guard_utils.data.examples import Example, to_examples
from guard_utils.data.labels import PII_200K
from guard_utils.policy import PII
from guard_utils.scoring.baselines import regular_expressions
from tools.corpus.compose import generate


@pytest.fixture(scope="session")
def clean() -> list[Example]:
    return to_examples(generate(800, split="train", seed=0), PII_200K)


@pytest.fixture(scope="session")
def noisy(clean: list[Example]) -> LabelNoise:
    return add_label_noise(clean, PII, seed=1)


@pytest.fixture(scope="session")
def witness(noisy: LabelNoise) -> pd.DataFrame:
    return regular_expressions(noisy.examples, PII)


@pytest.fixture(scope="session")
def fixed(noisy: LabelNoise) -> list[Example]:
    """The noisy rows once no rule is wrong any more: what annotators marked, mapped rightly."""
    return [replace(row, codes=PII_200K.codes(span.label for span in row.spans)) for row in noisy.examples]
