"""Scores side by side, as readers see them: sets, categories and systems, each number with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from guard_utils.metrics.intervals import holm, mcnemar, paired_bootstrap
from guard_utils.metrics.scores import gold_matrix, per_category
from guard_utils.policy import Taxonomy
from guard_utils.records import intervals_of


def interval_table(boots: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> pd.DataFrame:
    """Tabulates scores as text, `0.912 [0.899, 0.924]`.

    Args:
        boots: Name of a set or system to its `bootstrap` table.
        metrics: Metrics of these tables.

    Returns:
        One row a name, one column a metric; "not measured" where there is nothing to measure.

    Raises:
        ValueError: A table has no such metric.
    """
    cells = {name: {m: str(cell) for m, cell in intervals_of(boot, metrics).items()} for name, boot in boots.items()}
    return pd.DataFrame.from_dict(cells, orient="index")


def category_table(
    df: pd.DataFrame,
    policy: Taxonomy,
    boot: pd.DataFrame,
    *,
    metrics: Sequence[str] = ("precision", "recall", "f1", "ap"),
) -> pd.DataFrame:
    """Tabulates the scores of each category with their intervals.

    Args:
        df: Predictions table.
        policy: Its policy.
        boot: What `bootstrap` returns of it.
        metrics: Of `precision`, `recall`, `f1`, `f2`, `ap`, `auroc`, `brier`.

    Returns:
        Index code; `name, support` (rows), `templates` (distinct `template_id` among them, where the table has that
        column), one text column a metric, and `note`, where any category has one.

    Raises:
        ValueError: A table is faulty.
    """
    counts = per_category(df, policy).set_index("code")
    shown = ["name", "support"]
    if "template_id" in df.columns:
        has = gold_matrix(df, policy)
        counts["templates"] = [df["template_id"][column].nunique() for column in has.T]
        shown.append("templates")
    names = {code: [f"{metric}_{code}" for metric in metrics] for code in policy.codes}
    cells = {code: list(intervals_of(boot, names[code]).values()) for code in policy.codes}
    scores = pd.DataFrame.from_dict(cells, orient="index", columns=list(metrics)).map(str)
    notes = [] if (counts["note"].fillna("") == "").all() else ["note"]
    return counts[shown].join(scores).join(counts[notes])


def against(
    ours: pd.DataFrame,
    others: Mapping[str, pd.DataFrame],
    policy: Taxonomy,
    *,
    metric: str = "weighted_f1",
    resamples: int = 1000,
    seed: int = 0,
    cluster: str | None = "template_id",
) -> pd.DataFrame:
    """Tests one system against others on the same rows.

    Args:
        ours: Predictions table.
        others: System to its predictions table of the same rows.
        policy: Policy of all.
        metric: What the differences are of; a metric of `bootstrap`.
        resamples: Of the paired bootstrap.
        seed: Of the paired bootstrap.
        cluster: Column drawn as a whole.

    Returns:
        Index system; `ours, theirs, difference, low, high` (`low > 0`: ours is better), `ours_only` and `theirs_only`
        (rows that only one of the two answers exactly), and `p_holm`, McNemar's p for these, adjusted for the number of
        systems.

    Raises:
        ValueError: Ids or gold of the tables differ, there is no such metric, or a table is faulty.
    """
    rows = {}
    for name, theirs in others.items():
        paired = paired_bootstrap(ours, theirs, policy, resamples=resamples, seed=seed, cluster=cluster)
        paired = paired.set_index("metric")
        if metric not in paired.index:
            raise ValueError(f"there is no metric {metric!r}; name one of {', '.join(paired.index)}")
        exact = mcnemar(ours, theirs, policy).set_index("what").loc["exact match"]
        rows[name] = {**paired.loc[metric], **exact[["a_only", "b_only", "p"]]}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")
    names = {"a": "ours", "b": "theirs", "a_only": "ours_only", "b_only": "theirs_only"}
    table = table.rename(columns=names).astype({"ours_only": int, "theirs_only": int})
    return table.drop(columns="p").assign(p_holm=holm(table["p"]))
