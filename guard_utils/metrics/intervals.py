"""How sure a score is: bootstrap intervals, and paired comparison of systems with McNemar's test.

Prompts of one template are right or wrong together, so whole clusters are drawn with replacement (Field and Welsh 2007,
https://doi.org/10.1111/j.1467-9868.2007.00593.x); a draw is a vector of how often each row counts.
`ladder` scores the same answers under better and better measurement, all on the same draws. Does not: define a score.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from guard_utils.data.predictions import check_predictions, check_same_rows
from guard_utils.metrics.reference import pair_counts
from guard_utils.metrics.scores import Array, Score, f1_of_counts, table_outcomes, weighted_scores
from guard_utils.policy import Taxonomy

LEVEL = 0.95


def resample(
    score: Score, df: pd.DataFrame, *, resamples: int = 1000, seed: int = 0, cluster: str | None = "template_id"
) -> pd.DataFrame:
    """Scores a table as it is, and resamples of it: [1 + resamples, scores].

    Rows with equal values in the column `cluster` are drawn together; None draws single rows. The same seed gives the
    same draws, whatever the order of the rows. All draws are in memory: 16 MB for 1,000 of 2,000 rows.
    """
    column = "id" if cluster is None else cluster
    if column not in df.columns or df[column].isna().any():
        raise ValueError(f"column {column!r} is missing or has a gap; cluster by a full column or pass cluster=None")
    names, index = np.unique(df[column].astype(str).to_numpy(dtype=object), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"all rows share {column} {names[0]!r}; an interval needs two: add rows or pass cluster=None")
    weights, generator = np.ones((1 + resamples, len(df))), np.random.default_rng(seed)
    for draw in weights[1:]:
        draw[:] = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))[index]
    return pd.DataFrame(score(weights))


def percentiles(scores: pd.DataFrame) -> pd.DataFrame:
    """Tabulates what `resample` returned: `value, low, high` of each score; draws where it is NaN are left out."""
    low, high = scores[1:].quantile([(1 - LEVEL) / 2, (1 + LEVEL) / 2]).to_numpy()
    return pd.DataFrame({"value": scores.loc[0], "low": low, "high": high})


def bootstrap(df: pd.DataFrame, policy: Taxonomy, **draws: Any) -> pd.DataFrame:
    """95 % percentile intervals of every score, columns `metric, value, low, high`; options are those of `resample`.

    Metrics are those of `summary` but average precision, and `precision_<code>`, `recall_<code>`, `f1_<code>`.
    """
    return percentiles(resample(weighted_scores(df, policy), df, **draws)).rename_axis("metric").reset_index()


def _weighted_f1(counted: Mapping[str, tuple[Array, Array, Array]]) -> Score:
    """Weighted F1 by name, all on the same draws, of hits, extras and misses, bool [rows, labels] each."""

    def score(weights: Array) -> dict[str, Array]:
        return {name: f1_of_counts(*(weights @ cells for cells in counts)) for name, counts in counted.items()}

    return score


def compare_systems(
    ours: pd.DataFrame, others: Mapping[str, pd.DataFrame], policy: Taxonomy, **draws: Any
) -> pd.DataFrame:
    """Compares the weighted F1 of one system with that of others, by name, on the same rows and draws.

    What makes a draw hard makes it hard for both, so the difference is surer than the two intervals suggest.

    Returns:
        Index system; `ours, theirs, difference, low, high` (`low > 0`: ours is better), `ours_only` and `theirs_only`
        (rows that only one of the two answers exactly), and `p_holm`: the exact p of McNemar's test, that each of the
        two is as likely to be the one that is right, adjusted for the number of systems (Holm 1979, step down). It
        takes rows as independent: with few templates trust the interval more.
    """
    theirs = {name: table_outcomes(check_same_rows(ours, table, policy), policy) for name, table in others.items()}
    own = table_outcomes(ours, policy)
    scores, own_scores = (resample(_weighted_f1(counted), ours, **draws) for counted in (theirs, {"ours": own}))
    difference = percentiles(scores.rsub(own_scores["ours"], axis=0)).rename(columns={"value": "difference"})
    table = pd.DataFrame({"ours": own_scores.loc[0, "ours"], "theirs": scores.loc[0]}).join(difference)
    right, *others_right = (~(extra | missed).any(axis=1) for _, extra, missed in (own, *theirs.values()))
    table["ours_only"] = [int((right & ~other).sum()) for other in others_right]
    table["theirs_only"] = [int((other & ~right).sum()) for other in others_right]
    only = zip(table["ours_only"], table["theirs_only"], strict=True)
    p = pd.Series([binomtest(a, max(1, a + b)).pvalue for a, b in only], table.index).sort_values(kind="stable")
    table["p_holm"] = (p * np.arange(len(p), 0, -1)).cummax().clip(upper=1)
    return table.rename_axis("system")


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
    scores = resample(_weighted_f1(steps), df, **draws)
    change = percentiles(scores.diff(axis=1)).set_axis(["change", "change_low", "change_high"], axis=1)
    return percentiles(scores).join(change).rename_axis("step").reset_index()
