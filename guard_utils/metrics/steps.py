"""Weighted F1 step by step: the same answers under better measurement, and the answers of models of better labels.

All steps are scored on the same draws, so the change from one to the next has an interval of its own. Does not: measure
(`scores`, `reference`), train or correct labels (`guard_utils.audit`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Unpack

import numpy as np
import pandas as pd

from guard_utils.data.predictions import check_predictions, check_same_rows, gold_matrix, predicted_matrix
from guard_utils.metrics.intervals import (
    Array,
    Draws,
    Score,
    cluster_sums,
    f1_of_counts,
    outcomes,
    percentiles,
    resample,
)
from guard_utils.metrics.reference import align, answer_of
from guard_utils.metrics.scores import summary
from guard_utils.metrics.thresholds import Thresholds, decide, rows_moved
from guard_utils.policy import Taxonomy
from guard_utils.records import Interval

Counts = tuple[Array, Array, Array]
"""Hits, extras and misses of every row, bool [rows, labels] each."""


def _set_counts(df: pd.DataFrame, policy: Taxonomy) -> Counts:
    return outcomes(gold_matrix(df, policy), predicted_matrix(df, policy))


def _pair_counts(df: pd.DataFrame, labels: Sequence[str]) -> Counts:
    """The same over the aligned pairs of the reference, whose labels include `safe` and `<code>_M`."""
    hits, extras, misses = np.zeros((3, len(df), len(labels)), dtype=bool)
    place = {label: i for i, label in enumerate(labels)}
    for row, (said, gold) in enumerate(zip(df["predicted"], df["gold"], strict=True)):
        for left, right in zip(*align(answer_of(said), answer_of(gold)), strict=True):
            if left == right:
                hits[row, place[left]] = True
            else:
                extras[row, place[left]] = misses[row, place[right]] = True
    return hits, extras, misses


def _step_scores(steps: Mapping[str, Sequence[Counts]], index: Array) -> Score:
    """Weighted F1 of each step, the mean over its tables."""
    sums = {name: [[cluster_sums(cells, index) for cells in one] for one in tables] for name, tables in steps.items()}

    def scores(weights: Array) -> dict[str, Array]:
        found = {}
        for name, tables in sums.items():
            found[name] = np.mean([f1_of_counts(*(weights @ cells for cells in one)) for one in tables], axis=0)
        return found

    return scores


def _table(scores: pd.DataFrame, moved: Sequence[int]) -> pd.DataFrame:
    """One row per step; `change` is the difference to the step before."""
    change = percentiles(scores.diff(axis=1)).set_axis(["change", "change_low", "change_high"], axis=1)
    table = percentiles(scores).rename(columns={"value": "weighted_f1"}).join(change)
    return table.assign(rows_moved=moved).rename_axis("step").reset_index()


def ladder(
    df: pd.DataFrame,
    policy: Taxonomy,
    *,
    reference_gold: Iterable[Iterable[str]],
    thresholds: Thresholds | None = None,
    **draws: Unpack[Draws],
) -> pd.DataFrame:
    """Scores the same predictions from the reference's measurement to an honest one.

    Steps: reference labels with the reference metric; exact labels with it; exact labels with the set metric; and, with
    `thresholds`, tuned decisions. The reference metric counts `safe` as one more label.

    Args:
        df: Predictions table with exact `gold`; not the rows tuned on.
        policy: Its policy.
        reference_gold: Codes by the reference's rules, a list per row: `reference_codes_evaluation` of its labels.
        thresholds: Tuned on validation.
        draws: `resamples`, `seed` and `cluster`, see `Draws`.

    Returns:
        One row per step: `step, weighted_f1, low, high, change, change_low, change_high, rows_moved`. A row is moved
        where its gold set changed (step 2), where its pairs hold other hits, true labels or extras than its sets
        (step 3), or where its predicted set changed (step 4). The first step has no change (NaN).
    """
    old = df.assign(gold=[list(codes) for codes in reference_gold])
    for table in (df, old):
        check_predictions(table, policy)
    padded = [f"{code}_M" for code in policy.codes]
    labels = sorted([*policy.codes, *padded, "safe", "safe_M"])
    pairs, sets = _pair_counts(df, labels), _set_counts(df, policy)
    own = [labels.index(code) for code in policy.codes]
    misread = np.any([a[:, own] != b for a, b in zip(pairs, sets, strict=True)], axis=(0, 2))
    misread |= pairs[2][:, [labels.index(label) for label in padded]].any(axis=1)  # true labels that nobody gave
    steps = {
        "reference labels, reference metric": [_pair_counts(old, labels)],
        "exact labels, reference metric": [pairs],
        "exact labels, set metric": [sets],
    }
    moved = [0, rows_moved(old, df, "gold"), int(misread.sum())]
    if thresholds is not None:
        tuned = decide(df, policy, thresholds)
        steps[f"+ thresholds tuned for {thresholds.objective}"] = [_set_counts(tuned, policy)]
        moved.append(rows_moved(df, tuned))
    return _table(resample(partial(_step_scores, steps), df, **draws), moved)


@dataclass(frozen=True)
class Recovery:
    """What each version of the labels is worth.

    Attributes:
        steps: One row per version, columns as of `ladder`, means over the seeds; `rows_moved` counts other answers than
            in the step before.
        recovered: Share of the F1 lost between the last version and the first that the last but one wins back.
        seeds: Weighted F1 of each seed, one column per version.
    """

    steps: pd.DataFrame
    recovered: Interval
    seeds: pd.DataFrame


def recovery(versions: Mapping[str, Sequence[pd.DataFrame]], policy: Taxonomy, **draws: Unpack[Draws]) -> Recovery:
    """Compares models trained on several versions of the labels, on the same rows and the same draws.

    Args:
        versions: Version (noisy, audited, clean) to the predictions tables of its models, one per seed of the noise; a
            single one stands for all seeds.
        policy: Its policy.
        draws: `resamples`, `seed` and `cluster`, see `Draws`.

    Raises:
        ValueError: Fewer than three versions, numbers of seeds that do not fit, or tables of different rows or gold.
    """
    numbers = {name: len(tables) for name, tables in versions.items()}
    seeds = max(numbers.values(), default=0)
    if len(versions) < 3 or not {*numbers.values()} <= {1, max(1, seeds)}:
        raise ValueError(f"the versions have {numbers} tables; pass three or more, each with one a seed or one for all")
    first, *_, last, clean = versions
    some = versions[first][0]
    aligned = {}
    for name, tables in versions.items():
        aligned[name] = [check_same_rows(some, df, policy) for df in tables] * (seeds // len(tables))
    moved = [0]
    for before, after in pairwise(aligned.values()):
        moved.append(round(sum(map(rows_moved, before, after)) / seeds))
    counts = {name: [_set_counts(df, policy) for df in tables] for name, tables in aligned.items()}
    scores = resample(partial(_step_scores, counts), some, **draws)
    lost = scores[clean] - scores[first]
    won = (scores[last] - scores[first]) / lost.where(lost > 0)
    recovered = Interval(*percentiles(won.to_frame()).iloc[0])
    each = {name: [summary(df, policy)["weighted_f1"] for df in tables] for name, tables in aligned.items()}
    return Recovery(_table(scores, moved), recovered, pd.DataFrame(each))
