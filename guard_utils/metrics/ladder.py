"""The ladder: the same predictions under better and better measurement, one mistake removed a step."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from guard_utils.data.labels import reference_codes_evaluation
from guard_utils.data.predictions import FloatArray, check_predictions, gold_matrix, need_columns, predicted_matrix
from guard_utils.metrics.intervals import cluster_index, cluster_sums, draws, percentile_interval, weighted_f1_of_counts
from guard_utils.metrics.reference import align, answer_of, flatten_pairs
from guard_utils.metrics.thresholds import Thresholds, decide, rows_moved
from guard_utils.policy import Taxonomy

Counts = tuple[FloatArray, FloatArray, FloatArray]


def reference_codes(df: pd.DataFrame) -> list[list[str]]:
    """Returns the gold codes that the reference's substring rules make of the column `labels`, one list a row.

    Raises:
        ValueError: The table has no such column.
    """
    need_columns(df, "labels")
    return [list(reference_codes_evaluation(labels)) for labels in df["labels"]]


def _set_counts(df: pd.DataFrame, policy: Taxonomy) -> Counts:
    """Hits, extras and misses of every row: three matrices [rows, categories]."""
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    hit, extra, missed = (
        np.asarray(cells, dtype=float) for cells in (gold & predicted, predicted & ~gold, gold & ~predicted)
    )
    return hit, extra, missed


def _positional_counts(df: pd.DataFrame) -> Counts:
    """The same over the flattened pairs of the reference: three matrices [rows, labels], `safe` and `_M` included."""
    predicted, truth, rows = flatten_pairs(map(answer_of, df["predicted"]), map(answer_of, df["gold"]))
    place = {label: i for i, label in enumerate(sorted({*predicted, *truth}))}
    left, right = (np.array([place[label] for label in labels]) for labels in (predicted, truth))
    row, same = np.array(rows), left == right
    counts = np.zeros((3, len(df), len(place)))
    for cells, labels, where in zip(counts, (right, left, right), (same, ~same, ~same), strict=True):
        np.add.at(cells, (row[where], labels[where]), 1)
    return counts[0], counts[1], counts[2]


def _misread(predicted: Iterable[str], gold: Iterable[str]) -> bool:
    """Whether the pairs of a row hold other hits, missed true labels or extras than its sets.

    A padded prediction only says "missed" and is left out; a padded truth is a true label that no answer can hit.
    """
    guess, truth = set(predicted), set(gold)
    pairs = list(zip(*align(answer_of(guess), answer_of(truth)), strict=True))
    hits = {right for left, right in pairs if left == right} - {"safe"}
    missed = {right for left, right in pairs if left != right} - {"safe"}
    extra = {left for left, right in pairs if left != right and left in guess}
    return (hits, missed, extra) != (guess & truth, truth - guess, guess - truth)


def ladder(
    df: pd.DataFrame,
    policy: Taxonomy,
    *,
    reference_gold: Iterable[Iterable[str]],
    thresholds: Thresholds | None = None,
    resamples: int = 1000,
    seed: int = 0,
    cluster: str | None = "template_id",
    level: float = 0.95,
) -> pd.DataFrame:
    """Scores the same predictions step by step: from the reference's measurement to an honest one.

    Steps: reference labels with the reference metric; exact labels with the reference metric; exact labels with the set
    metric; and, with `thresholds`, tuned decisions. All are weighted F1, and all are scored on the same draws, so the
    change from step to step has an interval of its own. The reference metric counts `safe` as one more label; the set
    metric averages over categories only.

    Args:
        df: Predictions table with exact `gold`; not the rows tuned on.
        policy: Its policy.
        reference_gold: Gold codes by the reference's label rules, one list a row: `reference_codes(df)`.
        thresholds: Tuned on validation; without them the last step is left out.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.
        cluster: Column drawn as a whole; None draws single rows.
        level: Nominal coverage.

    Returns:
        One row a step: `step, weighted_f1, low, high, change, change_low, change_high, rows_moved`. A row is moved
        where its gold set changed (step 2), where its pairs hold other hits, true labels or extras than its sets
        (step 3), or where its predicted set changed (step 4). The first step has no change (NaN) and moves 0.

    Raises:
        ValueError: The table, `reference_gold` or another argument is faulty.
    """
    codes = [list(cell) for cell in reference_gold]
    if len(codes) != len(df):
        raise ValueError(f"reference_gold has {len(codes)} lists for {len(df)} rows; pass one a row, in row order")
    old = df.assign(gold=pd.Series(codes, index=df.index, dtype=object))
    for table in (df, old):
        check_predictions(table, policy)
    misread = sum(_misread(guess, gold) for guess, gold in zip(df["predicted"], df["gold"], strict=True))
    steps: list[tuple[str, Counts, int]] = [
        ("reference labels, reference metric", _positional_counts(old), 0),
        ("exact labels, reference metric", _positional_counts(df), rows_moved(old, df, "gold")),
        ("exact labels, set metric", _set_counts(df, policy), misread),
    ]
    if thresholds is not None:
        tuned = decide(df, policy, thresholds)
        steps.append(
            (f"+ thresholds tuned for {thresholds.objective}", _set_counts(tuned, policy), rows_moved(df, tuned))
        )
    index = cluster_index(df, cluster)
    sums = [[cluster_sums(cells, index) for cells in counts] for _, counts, _ in steps]
    value = np.array([weighted_f1_of_counts(*(cells.sum(axis=0) for cells in counts)) for counts in sums])
    samples = np.concatenate(
        [
            np.column_stack([weighted_f1_of_counts(*(weights @ cells for cells in counts)) for counts in sums])
            for weights in draws(int(index.max()) + 1, resamples, seed)
        ]
    )
    low, high = percentile_interval(samples, level)
    change_low, change_high = percentile_interval(np.diff(samples, axis=1, prepend=np.nan), level)
    columns = {"step": [name for name, _, _ in steps], "weighted_f1": value, "low": low, "high": high}
    columns |= {"change": np.diff(value, prepend=np.nan), "change_low": change_low, "change_high": change_high}
    return pd.DataFrame(columns | {"rows_moved": [moved for _, _, moved in steps]})
