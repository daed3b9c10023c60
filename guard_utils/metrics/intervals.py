"""How sure a score is: bootstrap intervals, paired comparison of systems, McNemar's test.

Prompts of one template are right or wrong together, so whole clusters are drawn with replacement (Field and Welsh 2007,
https://doi.org/10.1111/j.1467-9868.2007.00593.x); a draw is a vector of how often each row counts.
`ladder` scores the same answers under better and better measurement, all on the same draws. Does not: define a score.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from guard_utils.data.predictions import check_predictions, check_same_rows, gold_matrix, predicted_matrix
from guard_utils.metrics.reference import pair_counts
from guard_utils.metrics.scores import Array, Score, f1_of_counts, table_outcomes, weighted_scores
from guard_utils.policy import Taxonomy

LEVEL = 0.95
WEIGHTS_AT_ONCE = 4_000_000


def _clusters(df: pd.DataFrame, cluster: str | None) -> Array:
    """Numbers the clusters of a table, [rows], in sorted order, so that row order does not matter."""
    column = "id" if cluster is None else cluster
    if column not in df.columns or df[column].isna().any():
        raise ValueError(f"column {column!r} is missing or has a gap; cluster by a full column or pass cluster=None")
    names, index = np.unique(df[column].astype(str).to_numpy(dtype=object), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"all rows share {column} {names[0]!r}; an interval needs two: add rows or pass cluster=None")
    return index


def resample(
    score: Score, df: pd.DataFrame, *, resamples: int = 1000, seed: int = 0, cluster: str | None = "template_id"
) -> pd.DataFrame:
    """Scores a table as it is, and resamples of it: [1 + resamples, scores].

    Rows with equal values in the column `cluster` are drawn together; None draws single rows. The same seed gives the
    same draws, whatever the order of the rows.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; draw at least 1, 1000 for a 95 % interval")
    index = _clusters(df, cluster)
    clusters, at_once = int(index.max()) + 1, max(1, WEIGHTS_AT_ONCE // len(df))
    generator = np.random.default_rng(seed)
    scores = [pd.DataFrame(score(np.ones((1, len(df)))))]
    for start in range(0, resamples, at_once):
        weights = np.zeros((min(at_once, resamples - start), len(df)))
        for draw in weights:
            draw += np.bincount(generator.integers(clusters, size=clusters), minlength=clusters)[index]
        scores.append(pd.DataFrame(score(weights)))
    return pd.concat(scores, ignore_index=True)


def percentiles(scores: pd.DataFrame) -> pd.DataFrame:
    """Tabulates what `resample` returned: `value, low, high` of each score; draws where it is NaN are left out."""
    low, high = scores[1:].quantile([(1 - LEVEL) / 2, (1 + LEVEL) / 2]).to_numpy()
    return pd.DataFrame({"value": scores.loc[0], "low": low, "high": high})


def bootstrap(df: pd.DataFrame, policy: Taxonomy, **draws: Any) -> pd.DataFrame:
    """95 % percentile intervals of every score, columns `metric, value, low, high`; options are those of `resample`.

    Metrics are those of `summary` but average precision, and `precision_<code>`, `recall_<code>`, `f1_<code>`.
    """
    check_predictions(df, policy)
    return percentiles(resample(weighted_scores(df, policy), df, **draws)).rename_axis("metric").reset_index()


def paired_bootstrap(a: pd.DataFrame, b: pd.DataFrame, policy: Taxonomy, **draws: Any) -> pd.DataFrame:
    """95 % intervals of the difference a - b of two systems on the same rows: `metric, a, b, difference, low, high`.

    Both are scored on the same draws. What makes a draw hard makes it hard for both, so the difference is surer than
    the two intervals suggest. `low > 0` says that `a` has the greater score.
    """
    aligned = check_same_rows(a, b, policy)
    first, second = (resample(weighted_scores(df, policy), a, **draws) for df in (a, aligned))
    table = pd.DataFrame({"a": first.loc[0], "b": second.loc[0]}).join(percentiles(first - second))
    return table.rename(columns={"value": "difference"}).rename_axis("metric").reset_index()


def mcnemar(a: pd.DataFrame, b: pd.DataFrame, policy: Taxonomy) -> tuple[int, int, float]:
    """Exact McNemar test on the same rows: how many only `a` answers exactly, how many only `b`, and p.

    Under the null each of the two is as likely to be the one that is right. Rows count as independent: with few
    templates trust `paired_bootstrap` more.
    """
    rows = (a, check_same_rows(a, b, policy))
    first, second = ((gold_matrix(df, policy) == predicted_matrix(df, policy)).all(axis=1) for df in rows)
    a_only, b_only = int((first & ~second).sum()), int((second & ~first).sum())
    return a_only, b_only, float(binomtest(a_only, a_only + b_only).pvalue) if a_only + b_only else 1.0


def holm(p_values: npt.ArrayLike) -> Array:
    """Adjusts p-values for their number, step down (Holm 1979): the family-wise error stays at the level."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0)[np.argsort(order)]


def compare_systems(
    ours: pd.DataFrame, others: Mapping[str, pd.DataFrame], policy: Taxonomy, **draws: Any
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


def ladder(
    df: pd.DataFrame, policy: Taxonomy, *, reference_gold: Iterable[Iterable[str]], **draws: Any
) -> pd.DataFrame:
    """Scores the same predictions from the reference's measurement to an honest one.

    Steps: reference labels with the reference metric; exact labels with it; exact labels with the set metric. The
    reference metric counts `safe` as one more label.

    Args:
        df: Predictions table with exact `gold`.
        policy: Its policy.
        reference_gold: Codes of each row by the reference's rules, `reference_codes_evaluation`.
        draws: Options of `resample`.

    Returns:
        One row per step: `step, value, low, high` of weighted F1, and `change, change_low, change_high` (NaN at first).
    """
    old = df.assign(gold=[list(codes) for codes in reference_gold])
    check_predictions(old, policy)
    steps = {
        "its labels, its counting": pair_counts(old, policy),
        "exact labels, its counting": pair_counts(df, policy),
        "exact labels, sets": table_outcomes(df, policy),
    }

    def score(weights: Array) -> dict[str, Array]:
        return {name: f1_of_counts(*(weights @ cells for cells in counts)) for name, counts in steps.items()}

    scores = resample(score, df, **draws)
    change = percentiles(scores.diff(axis=1)).set_axis(["change", "change_low", "change_high"], axis=1)
    return percentiles(scores).join(change).rename_axis("step").reset_index()
