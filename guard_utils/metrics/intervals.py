"""How sure a score is: bootstrap intervals, paired comparison of systems, McNemar's test.

Prompts of one template are right or wrong together, so whole clusters are drawn (Field and Welsh 2007,
https://doi.org/10.1111/j.1467-9868.2007.00593.x). Scores are functions of sums over rows: these are added up once per
cluster, and a draw is a vector of weights times that small matrix. Two tables must have the same ids and gold, else
ValueError. Does not: compare versions of labels or measurements (`steps`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.stats import binomtest

from guard_utils.data.predictions import check_predictions, check_same_rows, gold_matrix, predicted_matrix, score_matrix
from guard_utils.policy import Taxonomy

LEVEL = 0.95
WEIGHTS_AT_ONCE = 4_000_000
Array = npt.NDArray[Any]
Score = Callable[[Array], Mapping[str, Array]]
"""Scores by name, [draws] each, given how often each cluster counts, [draws, clusters]."""


class Draws(TypedDict, total=False):
    """How a bootstrap draws; the same seed gives the same draws, whatever the order of the rows.

    Attributes:
        resamples: How many tables, 1000.
        seed: Of the random numbers, 0.
        cluster: Column whose equal values are drawn together, "template_id"; None draws single rows.
    """

    resamples: int
    seed: int
    cluster: str | None


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Array:
    """Divides element by element; NaN where the denominator is 0, because nothing was measured there."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float))
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0))


def outcomes(gold: Array, predicted: Array) -> tuple[Array, Array, Array]:
    """Returns hits, extras and misses, bool [rows, categories] each."""
    return gold & predicted, ~gold & predicted, gold & ~predicted


def f1_of_counts(tp: Array, fp: Array, fn: Array) -> Array:
    """Returns the support-weighted mean F1 of counts [..., labels]; NaN where no label has support."""
    support = tp + fn
    f1 = np.nan_to_num(ratio(2 * tp, 2 * tp + fp + fn))
    return ratio((support * f1).sum(axis=-1), support.sum(axis=-1))


def cluster_index(df: pd.DataFrame, cluster: str | None) -> Array:
    """Numbers the clusters of a table, [rows], in sorted order, so that row order does not matter."""
    column = "id" if cluster is None else cluster
    if column not in df.columns or df[column].isna().any():
        raise ValueError(f"column {column!r} is missing or has a gap; cluster by a full column or pass cluster=None")
    names, index = np.unique(df[column].astype(str).to_numpy(dtype=object), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"all rows share {column} {names[0]!r}; an interval needs two: add rows or pass cluster=None")
    return index


def cluster_sums(rows: npt.ArrayLike, index: Array) -> Array:
    """Adds up [rows, ...] by cluster: [clusters, ...]."""
    member = csr_matrix((np.ones(len(index)), (index, np.arange(len(index)))), shape=(index.max() + 1, len(index)))
    return np.asarray(member @ np.asarray(rows, dtype=float))


def resample(
    make_score: Callable[[Array], Score],
    df: pd.DataFrame,
    *,
    resamples: int = 1000,
    seed: int = 0,
    cluster: str | None = "template_id",
) -> pd.DataFrame:
    """Scores a table as it is, and resamples of it: [1 + resamples, scores]. Options are those of `Draws`.

    `make_score` is given the cluster of each row, and makes the scoring function.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; draw at least 1, 1000 for a 95 % interval")
    index = cluster_index(df, cluster)
    score, clusters = make_score(index), int(index.max()) + 1
    generator = np.random.default_rng(seed)
    at_once = max(1, WEIGHTS_AT_ONCE // clusters)
    scores = [pd.DataFrame(score(np.ones((1, clusters))))]
    for start in range(0, resamples, at_once):
        weights = np.zeros((min(at_once, resamples - start), clusters))
        for draw in weights:
            draw += np.bincount(generator.integers(clusters, size=clusters), minlength=clusters)
        scores.append(pd.DataFrame(score(weights)))
    return pd.concat(scores, ignore_index=True)


def percentiles(scores: pd.DataFrame) -> pd.DataFrame:
    """Tabulates what `resample` returned: `value, low, high` of each score; draws where it is NaN are left out."""
    low, high = scores[1:].quantile([(1 - LEVEL) / 2, (1 + LEVEL) / 2]).to_numpy()
    return pd.DataFrame({"value": scores.loc[0], "low": low, "high": high})


class _Ranking:
    """Rows by falling score, for average precision and AUROC under any weights."""

    def __init__(self, positive: Array, score: Array, index: Array) -> None:
        order = np.argsort(-score, kind="stable")
        self.cluster, self.positive = index[order], positive[order].astype(int)
        self.ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # of runs of equal scores

    def areas(self, weights: Array) -> tuple[float, float]:
        """Average precision and AUROC; NaN where no row has weight that is positive, or negative."""
        row = weights[self.cluster]
        total, tp = np.cumsum(row)[self.ends], np.cumsum(row * self.positive)[self.ends]
        positives, negatives = tp[-1], total[-1] - tp[-1]
        step = np.diff(tp, prepend=0)
        precisions = np.sum(step * tp / np.maximum(total, 1))
        area = np.sum(np.diff(total - tp, prepend=0) * (tp - step / 2))
        pairs = positives * negatives
        return precisions / positives if positives else np.nan, area / pairs if pairs else np.nan


def _table_scores(df: pd.DataFrame, policy: Taxonomy, index: Array) -> Score:
    """The scores of `summary` and `per_category`. "Unsafe" is counted as one more category, the last."""
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    hits, wrong = (gold & predicted).sum(axis=1), (gold ^ predicted).sum(axis=1)
    row_scores = {
        "samples_f1": np.nan_to_num(ratio(2 * hits, 2 * hits + wrong), nan=1.0),
        "subset_accuracy": wrong == 0,
        "jaccard": np.nan_to_num(ratio(hits, hits + wrong), nan=1.0),
        "outside": df["outside"],
    }
    row_sums = {name: cluster_sums(values, index) for name, values in row_scores.items()}
    row_counts = cluster_sums(np.ones(len(df)), index)
    gold, predicted = (np.column_stack([cells, cells.any(axis=1)]) for cells in (gold, predicted))
    score = np.column_stack([score_matrix(df, policy), df["p_unsafe"]])
    counts = [cluster_sums(cells, index) for cells in outcomes(gold, predicted)]
    rankings = [_Ranking(y, p, index) for y, p in zip(gold.T, score.T, strict=True)]

    def scores(weights: Array) -> dict[str, Array]:
        tp, fp, fn = (weights @ cells for cells in counts)
        rows, support = weights @ row_counts, tp + fn
        hits, errors = tp[:, :-1].sum(axis=1), (fp + fn)[:, :-1].sum(axis=1)
        f1 = np.where(support > 0, ratio(2 * tp, 2 * tp + fp + fn), np.nan)
        precision = np.where(support > 0, ratio(tp, tp + fp), np.nan)
        whole = weights.astype(int)  # whole numbers add up several times faster
        ap, auroc = np.array([[ranking.areas(draw) for ranking in rankings] for draw in whole]).transpose(2, 0, 1)
        found = {
            "weighted_f1": f1_of_counts(tp[:, :-1], fp[:, :-1], fn[:, :-1]),
            "micro_f1": np.where(support[:, -1] > 0, ratio(2 * hits, 2 * hits + errors), np.nan),
            "macro_f1": ratio(np.nansum(f1[:, :-1], axis=1), (support[:, :-1] > 0).sum(axis=1)),
            **{name: weights @ sums / rows for name, sums in row_sums.items()},
            "hamming": errors / (rows * len(policy)),
            "binary_f1": f1[:, -1],
            "binary_fpr": ratio(fp[:, -1], rows - support[:, -1]),
            "binary_auprc": ap[:, -1],
        }
        table = {"precision": precision, "recall": ratio(tp, support), "f1": f1, "ap": ap, "auroc": auroc}
        return found | {f"{name}_{code}": table[name][:, i] for name in table for i, code in enumerate(policy.codes)}

    return scores


def bootstrap(df: pd.DataFrame, policy: Taxonomy, **draws: Unpack[Draws]) -> pd.DataFrame:
    """95 % percentile intervals of every score of a predictions table, whole clusters drawn with replacement.

    Args:
        df: Predictions table.
        policy: Its policy.
        draws: `resamples`, `seed` and `cluster`, see `Draws`.

    Returns:
        Columns `metric, value, low, high`. Metrics are those of `summary`, and `<score>_<code>` for precision, recall,
        f1, ap, auroc. A score without anything to measure is NaN in all three.
    """
    check_predictions(df, policy)
    return percentiles(resample(partial(_table_scores, df, policy), df, **draws)).rename_axis("metric").reset_index()


def paired_bootstrap(a: pd.DataFrame, b: pd.DataFrame, policy: Taxonomy, **draws: Unpack[Draws]) -> pd.DataFrame:
    """95 % intervals of the difference a - b of two systems on the same rows, both scored on the same draws.

    What makes a draw hard makes it hard for both, so the difference is surer than the two intervals suggest.

    Returns:
        Columns `metric, a, b, difference, low, high`. `low > 0` says that `a` has the greater score.
    """
    aligned = check_same_rows(a, b, policy)
    first, second = (resample(partial(_table_scores, df, policy), a, **draws) for df in (a, aligned))
    table = pd.DataFrame({"a": first.loc[0], "b": second.loc[0]}).join(percentiles(first - second))
    return table.rename(columns={"value": "difference"}).rename_axis("metric").reset_index()


def holm(p_values: npt.ArrayLike) -> Array:
    """Adjusts p-values for their number, step down (Holm 1979): the family-wise error stays at the level."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0)[np.argsort(order)]


def mcnemar(a: pd.DataFrame, b: pd.DataFrame, policy: Taxonomy) -> tuple[int, int, float]:
    """Exact McNemar test of two systems on the same rows: does one answer more of them exactly than the other?

    Under the null each of the two is as likely to be the one that is right. Rows count as independent: with few
    templates trust `paired_bootstrap` more.

    Returns:
        Rows that only `a` answers exactly, rows that only `b` does, and p.
    """
    aligned = check_same_rows(a, b, policy)
    gold = gold_matrix(a, policy)
    first, second = ((gold == predicted_matrix(df, policy)).all(axis=1) for df in (a, aligned))
    a_only, b_only = int((first & ~second).sum()), int((second & ~first).sum())
    return a_only, b_only, float(binomtest(a_only, a_only + b_only).pvalue) if a_only + b_only else 1.0


def compare_systems(
    ours: pd.DataFrame, others: Mapping[str, pd.DataFrame], policy: Taxonomy, **draws: Unpack[Draws]
) -> pd.DataFrame:
    """Compares the weighted F1 of one system with that of others, by name, on the same rows.

    Returns:
        Index system; `ours, theirs, difference, low, high` (`low > 0`: ours is better), `ours_only` and `theirs_only`
        (rows that only one of the two answers exactly), and `p_holm`, McNemar's p for these, adjusted for the number of
        systems.
    """
    rows = {}
    for name, theirs in others.items():
        paired = paired_bootstrap(ours, theirs, policy, **draws).set_index("metric").loc["weighted_f1"]
        ours_only, theirs_only, p = mcnemar(ours, theirs, policy)
        rows[name] = {**paired, "ours_only": ours_only, "theirs_only": theirs_only, "p_holm": p}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")
    return table.rename(columns={"a": "ours", "b": "theirs"}).assign(p_holm=holm(table["p_holm"]))
