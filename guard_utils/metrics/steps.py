"""Weighted F1 step by step: the same answers under better and better measurement.

All steps are scored on the same draws, so the change from one to the next has an interval of its own. Does not: measure
(`scores`, `reference`) or tune (`thresholds`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

import numpy as np
import pandas as pd

from guard_utils.data.predictions import check_predictions
from guard_utils.metrics.intervals import Draws, percentiles, resample
from guard_utils.metrics.reference import align, answer_of
from guard_utils.metrics.scores import Array, f1_of_counts, table_outcomes
from guard_utils.metrics.thresholds import Thresholds, decide
from guard_utils.policy import Taxonomy


def _pair_counts(df: pd.DataFrame, policy: Taxonomy) -> tuple[Array, Array, Array]:
    """Hits, extras and misses, bool [rows, labels] each, of the reference's pairs; labels include `safe` and `S1_M`."""
    labels = sorted(f"{name}{suffix}" for name in ("safe", *policy.codes) for suffix in ("", "_M"))
    place = {label: i for i, label in enumerate(labels)}
    hits, extras, misses = np.zeros((3, len(df), len(labels)), dtype=bool)
    for row, (said, gold) in enumerate(zip(df["predicted"], df["gold"], strict=True)):
        for left, right in zip(*align(answer_of(said), answer_of(gold)), strict=True):
            if left == right:
                hits[row, place[left]] = True
            else:
                extras[row, place[left]] = misses[row, place[right]] = True
    return hits, extras, misses


def ladder(
    df: pd.DataFrame,
    policy: Taxonomy,
    *,
    reference_gold: Iterable[Iterable[str]],
    thresholds: Thresholds,
    **draws: Unpack[Draws],
) -> pd.DataFrame:
    """Scores the same predictions from the reference's measurement to an honest one.

    Steps: reference labels with the reference metric; exact labels with it; exact labels with the set metric; tuned
    decisions. The reference metric counts `safe` as one more label.

    Args:
        df: Predictions table with exact `gold`; not the rows tuned on.
        policy: Its policy.
        reference_gold: Codes by the reference's rules, a list per row: `reference_codes_evaluation` of its labels.
        thresholds: Tuned on validation.
        draws: See `Draws`.

    Returns:
        One row per step: `step, weighted_f1, low, high, change, change_low, change_high` (NaN for the first).
    """
    old = df.assign(gold=[list(codes) for codes in reference_gold])
    check_predictions(old, policy)
    steps = {
        "reference labels, reference metric": _pair_counts(old, policy),
        "exact labels, reference metric": _pair_counts(df, policy),
        "exact labels, set metric": table_outcomes(df, policy),
        f"+ thresholds tuned for {thresholds.objective}": table_outcomes(decide(df, policy, thresholds), policy),
    }

    def score(weights: Array) -> dict[str, Array]:
        return {name: f1_of_counts(*(weights @ cells for cells in counts)) for name, counts in steps.items()}

    scores = resample(score, df, **draws)
    change = percentiles(scores.diff(axis=1)).set_axis(["change", "change_low", "change_high"], axis=1)
    table = percentiles(scores).rename(columns={"value": "weighted_f1"}).join(change)
    return table.rename_axis("step").reset_index()
