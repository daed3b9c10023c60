"""The digest of a run's data: equal for equal data, different for any change that could move a number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guard_utils.data.examples import Example
from guard_utils.data.splits import Splits

ANN = Example("1", "Hi Ann", ("S1",), "en", "t1", "", ())
RAIN = Example("2", "It rains", (), "en", "t2", "", ())
SPLITS = Splits([ANN, RAIN], [ANN], [RAIN], [])


def test_equal_data_has_an_equal_digest() -> None:
    again = Splits([replace(ANN), replace(RAIN)], [replace(ANN)], [replace(RAIN)], [])
    assert again.digest == SPLITS.digest and len(SPLITS.digest) == 64


@pytest.mark.parametrize(
    "other",
    [
        replace(SPLITS, train=[replace(ANN, text="Hi Eve"), RAIN]),
        replace(SPLITS, train=[replace(ANN, codes=("S2",)), RAIN]),
        replace(SPLITS, train=[replace(ANN, id="3"), RAIN]),
        replace(SPLITS, train=[RAIN, ANN]),
        replace(SPLITS, validation=[], test=[ANN, RAIN]),
        replace(SPLITS, independent=[RAIN]),
    ],
    ids=["text", "codes", "id", "order", "part", "more"],
)
def test_any_change_changes_the_digest(other: Splits) -> None:
    assert other.digest != SPLITS.digest
