"""How sure a score is: bootstrap by cluster, paired comparison, McNemar's test.

Prompts made from one template are near copies of each other: they are right or wrong together. An interval that treats
them as independent is far too narrow, so whole clusters are drawn (Field and Welsh 2007,
https://doi.org/10.1111/j.1467-9868.2007.00593.x). Every count-based score is a function of sums over rows; the sums are
taken once per cluster, and a resample is a row of weights times that small matrix. Rank scores (average precision,
AUROC) sort once and re-weigh the sorted rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.stats import binomtest

from guard_utils.data.predictions import (
    FloatArray,
    check_predictions,
    check_same_rows,
    gold_matrix,
    predicted_matrix,
    score_matrix,
)
from guard_utils.policy import Taxonomy

ROW_MEANS = ("samples_f1", "subset_accuracy", "hamming", "jaccard", "outside")
CHUNK_CELLS = 4_000_000


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Divides element by element; NaN where the denominator is 0, because nothing was measured there."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float))
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0))


def weighted_f1_of_counts(tp: FloatArray, fp: FloatArray, fn: FloatArray) -> FloatArray:
    """Returns the support-weighted mean F1 of counts [..., labels]; NaN where no label has support."""
    support = tp + fn
    f1 = np.nan_to_num(ratio(2 * tp, 2 * tp + fp + fn))
    return ratio((support * f1).sum(axis=-1), support.sum(axis=-1))


def cluster_index(df: pd.DataFrame, cluster: str | None) -> npt.NDArray[np.intp]:
    """Numbers the clusters of a table in sorted order, so that row order does not matter.

    Args:
        df: The table.
        cluster: Column whose equal values are drawn together; None draws single rows.

    Raises:
        ValueError: No such column, a missing value, or fewer than two clusters.
    """
    column = "id" if cluster is None else cluster
    if column not in df.columns:
        raise ValueError(f"no column {column!r} to cluster by; name one of {sorted(df.columns)} or pass cluster=None")
    if df[column].isna().any():
        row = int(np.argmax(df[column].isna()))
        raise ValueError(f"{column} is missing on row {row}; fill it or pass cluster=None")
    names, index = np.unique(df[column].astype(str).to_numpy(dtype=object), return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"all rows share {column} {names[0]!r}; an interval needs two clusters: add rows or cluster=None"
        )
    return index


def cluster_sums(rows: npt.ArrayLike, index: npt.NDArray[np.intp]) -> FloatArray:
    """Adds up [rows, statistics] by cluster: [clusters, statistics]."""
    values = np.asarray(rows, dtype=float)
    member = csr_matrix((np.ones(len(index)), (index, np.arange(len(index)))), shape=(index.max() + 1, len(index)))
    return np.asarray(member @ values)


def draws(clusters: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yields weights [some resamples, clusters]: how often each cluster was drawn, `resamples` rows in all.

    Raises:
        ValueError: `resamples` is below 1.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; draw at least 1, 1000 for a 95 % interval")
    generator = np.random.default_rng(seed)
    size = max(1, CHUNK_CELLS // clusters)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        picks = (generator.integers(clusters, size=clusters) for _ in range(count))
        yield np.array([np.bincount(pick, minlength=clusters) for pick in picks], dtype=float)


@dataclass(frozen=True)
class _Ranked:
    """Rows by falling score, and where each run of equal scores ends."""

    positive: FloatArray
    cluster: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]

    @classmethod
    def of(cls, positive: npt.ArrayLike, score: FloatArray, index: npt.NDArray[np.intp]) -> _Ranked:
        order = np.argsort(-score, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
        return cls(np.asarray(positive, dtype=float)[order], index[order], ends)

    def score(self, weights: FloatArray) -> tuple[float, float]:
        """Average precision and AUROC with every cluster counted `weights[cluster]` times."""
        row = weights[self.cluster]
        total = np.cumsum(row)[self.ends]
        tp = np.cumsum(row * self.positive)[self.ends]
        positives, negatives = tp[-1], total[-1] - tp[-1]
        if positives == 0:
            return np.nan, np.nan
        step = np.diff(tp, prepend=0.0)
        average_precision = float(np.sum(step * tp / np.maximum(total, 1.0)) / positives)
        if negatives == 0:
            return average_precision, np.nan
        area = np.sum(np.diff(total - tp, prepend=0.0) * (tp - step / 2))
        return average_precision, float(area / (positives * negatives))


class _Statistics:
    """All scores of one table as a function of cluster weights."""

    def __init__(self, df: pd.DataFrame, policy: Taxonomy, index: npt.NDArray[np.intp]) -> None:
        gold, predicted, score = gold_matrix(df, policy), predicted_matrix(df, policy), score_matrix(df, policy)
        unsafe, flagged = gold.any(axis=1), predicted.any(axis=1)
        size = gold.sum(axis=1) + predicted.sum(axis=1)
        hits, wrong = (gold & predicted).sum(axis=1), (gold ^ predicted).sum(axis=1)
        means = [
            np.where(size == 0, 1.0, 2 * hits / np.maximum(size, 1)),
            wrong == 0,
            wrong / len(policy),
            np.where(size == 0, 1.0, hits / np.maximum(size - hits, 1)),
            df["outside"].to_numpy(dtype=float),
        ]
        binary = [unsafe & flagged, ~unsafe & flagged, unsafe & ~flagged, ~unsafe]
        blocks = [gold & predicted, ~gold & predicted, gold & ~predicted, (gold - score) ** 2]
        self.codes = policy.codes
        self.sums = cluster_sums(np.column_stack([*blocks, *means, *binary, np.ones(len(df))]), index)
        self.ranked = [_Ranked.of(gold[:, i], score[:, i], index) for i in range(len(policy))]
        self.ranked.append(_Ranked.of(unsafe, df["p_unsafe"].to_numpy(dtype=float), index))

    def scores(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Every score, one value a row of `weights` [resamples, clusters]."""
        count, sums = len(self.codes), weights @ self.sums
        tp, fp, fn, squares = (sums[:, i * count : (i + 1) * count] for i in range(4))
        *means, btp, bfp, bfn, bnegatives, rows = sums[:, 4 * count :].T
        support = tp + fn
        some = support > 0
        f1 = np.where(some, ratio(2 * tp, 2 * tp + fp + fn), np.nan)
        table = {
            "precision": np.where(some, ratio(tp, tp + fp), np.nan),
            "recall": ratio(tp, support),
            "f1": f1,
            "f2": np.where(some, ratio(5 * tp, 5 * tp + fp + 4 * fn), np.nan),
            "brier": squares / rows[:, None],
        }
        ranks = np.array([[ranked.score(row) for ranked in self.ranked] for row in weights])
        table |= {"ap": ranks[:, :-1, 0], "auroc": ranks[:, :-1, 1]}
        hits, all_wrong = tp.sum(axis=1), (fp + fn).sum(axis=1)
        found = {
            "weighted_f1": weighted_f1_of_counts(tp, fp, fn),
            "micro_f1": np.where(some.any(axis=1), ratio(2 * hits, 2 * hits + all_wrong), np.nan),
            "macro_f1": ratio(np.where(some, f1, 0).sum(axis=1), some.sum(axis=1)),
            **{name: value / rows for name, value in zip(ROW_MEANS, means, strict=True)},
            "binary_f1": np.where(btp + bfn > 0, ratio(2 * btp, 2 * btp + bfp + bfn), np.nan),
            "binary_fpr": ratio(bfp, bnegatives),
            "binary_auprc": ranks[:, -1, 0],
        }
        return found | {f"{name}_{code}": table[name][:, i] for name in table for i, code in enumerate(self.codes)}


def percentile_interval(samples: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Returns the lower and upper bound of [resamples, scores]; resamples without a value are left out.

    Raises:
        ValueError: `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; write 0.95 for a 95 % interval")
    low, high = np.full((2, samples.shape[1]), np.nan)
    some = ~np.isnan(samples).all(axis=0)
    low[some], high[some] = np.nanquantile(samples[:, some], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def bootstrap(
    df: pd.DataFrame,
    policy: Taxonomy,
    *,
    resamples: int = 1000,
    seed: int = 0,
    cluster: str | None = "template_id",
    level: float = 0.95,
) -> pd.DataFrame:
    """Percentile intervals of every score, whole clusters drawn with replacement.

    Args:
        df: Predictions table.
        policy: Its policy.
        resamples: How many tables are drawn.
        seed: Same seed, same intervals, whatever the order of the rows.
        cluster: Column of the clusters; None draws single rows.
        level: Nominal coverage.

    Returns:
        Columns `metric, value, low, high`. Metrics are the keys of `summary` and `<score>_<code>` for precision,
        recall, f1, f2, brier, ap, auroc. A score without anything to measure is NaN in all three.

    Raises:
        ValueError: The table or an argument is faulty.
    """
    check_predictions(df, policy)
    index = cluster_index(df, cluster)
    statistics = _Statistics(df, policy, index)
    names, value, samples = _sample([statistics], int(index.max()) + 1, resamples, seed)
    low, high = percentile_interval(samples[0], level)
    blank = np.isnan(value[0])
    return pd.DataFrame(
        {"metric": names, "value": value[0], "low": np.where(blank, np.nan, low), "high": np.where(blank, np.nan, high)}
    )


def _sample(
    systems: list[_Statistics], clusters: int, resamples: int, seed: int
) -> tuple[list[str], list[FloatArray], list[FloatArray]]:
    """Names, values [scores] and samples [resamples, scores] of each system, under the same draws."""
    whole = [system.scores(np.ones((1, clusters))) for system in systems]
    parts: list[list[FloatArray]] = [[] for _ in systems]
    for weights in draws(clusters, resamples, seed):
        for part, system in zip(parts, systems, strict=True):
            part.append(np.column_stack(list(system.scores(weights).values())))
    values = [np.array([score[0] for score in scores.values()]) for scores in whole]
    return list(whole[0]), values, [np.concatenate(part) for part in parts]


def paired_bootstrap(
    a: pd.DataFrame,
    b: pd.DataFrame,
    policy: Taxonomy,
    *,
    resamples: int = 1000,
    seed: int = 0,
    cluster: str | None = "template_id",
    level: float = 0.95,
) -> pd.DataFrame:
    """Intervals of the difference a - b of two systems on the same rows, both scored on the same draws.

    What makes a draw hard makes it hard for both, so the difference is much surer than the two intervals suggest.

    Returns:
        Columns `metric, a, b, difference, low, high`. `low > 0` says that `a` has the greater score.

    Raises:
        ValueError: Ids or gold of the tables differ, or a table or an argument is faulty.
    """
    aligned = check_same_rows(a, b, policy)
    index = cluster_index(a, cluster)
    systems = [_Statistics(table, policy, index) for table in (a, aligned)]
    names, (first, second), samples = _sample(systems, int(index.max()) + 1, resamples, seed)
    low, high = percentile_interval(samples[0] - samples[1], level)
    columns = {"metric": names, "a": first, "b": second, "difference": first - second, "low": low, "high": high}
    return pd.DataFrame(columns)


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Adjusts p-values for their number, step down (Holm 1979): the family-wise error stays at the level."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def mcnemar(a: pd.DataFrame, b: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Exact McNemar test of two systems on the same rows: per category, and of the whole answer.

    Only rows on which exactly one system is right count; under the null each is as likely to be that one. The test
    takes rows as independent: with few templates trust `paired_bootstrap` more.

    Returns:
        Columns `what` (code or "exact match"), `a_only` and `b_only` (rows on which only that system is right), `p`,
        `p_holm`.

    Raises:
        ValueError: Ids or gold of the tables differ, or a table is faulty.
    """
    aligned = check_same_rows(a, b, policy)
    gold = gold_matrix(a, policy)
    right = [gold == predicted_matrix(table, policy) for table in (a, aligned)]
    first, second = (np.column_stack([cells, cells.all(axis=1)]) for cells in right)
    a_only, b_only = (first & ~second).sum(axis=0), (second & ~first).sum(axis=0)
    p = [binomtest(int(x), int(x + y)).pvalue if x + y else 1.0 for x, y in zip(a_only, b_only, strict=True)]
    names = [*policy.codes, "exact match"]
    return pd.DataFrame({"what": names, "a_only": a_only, "b_only": b_only, "p": p, "p_holm": holm(p)})
