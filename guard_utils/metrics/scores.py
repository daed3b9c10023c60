"""Scores of a predictions table: of each category, over all categories, and two kinds of confusion matrix.

All take a predictions table and its policy, and raise ValueError where `check_predictions` does. Codes are sets: order
never counts. Values come from scikit-learn; where there is nothing to measure (a category without positives) they are
NaN, not 0. Does not: intervals and tests (`intervals`), scores by position (`reference`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from guard_utils.data.predictions import BoolMatrix, check_predictions, gold_matrix, predicted_matrix, score_matrix
from guard_utils.policy import Taxonomy
from guard_utils.records import intervals_of

F1S = ("weighted_f1", "micro_f1", "macro_f1", "samples_f1")
SUMMARY = (*F1S, "subset_accuracy", "hamming", "jaccard", "outside", "binary_f1", "binary_fpr", "binary_auprc")


def per_category(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Scores each category on its own.

    Returns:
        One row per category: `code, name, support, tp, fp, fn, precision, recall, f1, ap, auroc, note`. `ap` is the
        average precision and `auroc` the area under the ROC curve of P(code). `note` says why a score is NaN.
    """
    check_predictions(df, policy)
    gold, predicted, score = gold_matrix(df, policy), predicted_matrix(df, policy), score_matrix(df, policy)
    rows = []
    for i, (code, name) in enumerate(policy.names.items()):
        y, guess, p = gold[:, i], predicted[:, i], score[:, i]
        row = {"code": code, "name": name, "support": int(y.sum()), "note": _note(y, guess)}
        row |= {"tp": int((y & guess).sum()), "fp": int((~y & guess).sum()), "fn": int((y & ~guess).sum())}
        if y.any():
            row["precision"] = float(sklearn_metrics.precision_score(y, guess, zero_division=np.nan))
            row["recall"] = float(sklearn_metrics.recall_score(y, guess))
            row["f1"] = float(sklearn_metrics.f1_score(y, guess))
            row["ap"] = float(sklearn_metrics.average_precision_score(y, p))
        if y.any() and not y.all():
            row["auroc"] = float(sklearn_metrics.roc_auc_score(y, p))
        rows.append(row)
    columns = ["code", "name", "support", "tp", "fp", "fn", "precision", "recall", "f1", "ap", "auroc", "note"]
    return pd.DataFrame(rows, columns=columns)


def _note(y: BoolMatrix, guess: BoolMatrix) -> str:
    """Why scores of a category are NaN; empty where all could be measured."""
    if not y.any():
        return f"no positive among {len(y)} rows: nothing to find, so only fp is known"
    never = "" if guess.any() else "never predicted: precision unknown"
    always = "no negative: auroc unknown" if y.all() else ""
    return "; ".join(filter(None, (never, always)))


def summary(df: pd.DataFrame, policy: Taxonomy) -> dict[str, float]:
    """Scores the whole table.

    F1s average over categories with positives; false alarms of the others show in `micro_f1`, `hamming` and the binary
    scores. A row without gold and predicted code counts 1 in `samples_f1` and `jaccard`. The binary scores read safe
    against unsafe, as the Llama Guard cards do: F1 and false positive rate of the verdict, area of P(unsafe).

    Returns:
        The metrics of `SUMMARY`; `outside` is the mean probability mass outside the grammar.
    """
    check_predictions(df, policy)
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    unsafe, flagged = np.any(gold, axis=1), np.any(predicted, axis=1)
    f1 = sklearn_metrics.f1_score
    found = dict.fromkeys(SUMMARY, np.nan)
    found["samples_f1"] = float(f1(gold, predicted, average="samples", zero_division=1.0))
    found["subset_accuracy"] = float(sklearn_metrics.accuracy_score(gold, predicted))
    found["hamming"] = float(sklearn_metrics.hamming_loss(gold, predicted))
    found["jaccard"] = float(sklearn_metrics.jaccard_score(gold, predicted, average="samples", zero_division=1.0))
    found["outside"] = float(df["outside"].mean())
    if unsafe.any():
        found["weighted_f1"] = float(f1(gold, predicted, average="weighted", zero_division=0))
        found["micro_f1"] = float(f1(gold, predicted, average="micro"))
        found["macro_f1"] = float(f1(gold, predicted, average="macro", labels=np.flatnonzero(gold.any(axis=0))))
        found["binary_f1"] = float(f1(unsafe, flagged))
        found["binary_auprc"] = float(sklearn_metrics.average_precision_score(unsafe, df["p_unsafe"]))
    if not unsafe.all():
        found["binary_fpr"] = float(flagged[~unsafe].mean())
    return found


def confusion_2x2(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Counts one 2x2 matrix per category: index code, columns `tn, fp, fn, tp`."""
    check_predictions(df, policy)
    cells = sklearn_metrics.multilabel_confusion_matrix(gold_matrix(df, policy), predicted_matrix(df, policy))
    index = pd.Index(policy.codes, name="code")
    return pd.DataFrame(cells.reshape(len(policy), 4), index=index, columns=["tn", "fp", "fn", "tp"])


def multilabel_confusion(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Counts what was called what: [categories + 1, categories + 1], index `gold`, columns `predicted`.

    After Heydarian, Doyle and Samavi, "MLCM: Multi-Label Confusion Matrix", IEEE Access 10, 2022,
    https://doi.org/10.1109/ACCESS.2022.3151048. Each prompt counts so:

    1. Each code in both sets adds 1 on the diagonal.
    2. Each pair of a missed and an extra code adds 1: two missed and two extra make 4. (The authors' program spreads
       them so that its counts depend on the order of the categories.)
    3. Missed codes and no extra: each adds 1 in the column "no predicted label".
    4. Extra codes and no missed one: each adds 1 in the row "no true label". (The paper adds 1 in the row of every gold
       code, which shows a right S1 as confused with whatever else was reported.)
    5. A safe prompt called safe adds 1 in the corner.
    """
    check_predictions(df, policy)
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    missed, extra = gold & ~predicted, predicted & ~gold
    # A row that misses (adds) nothing has its 1 in the margin: the product then counts 2 to 5 at once.
    rows = np.column_stack([missed, ~np.any(missed, axis=1)]).astype(int)
    columns = np.column_stack([extra, ~np.any(extra, axis=1)]).astype(int)
    counted = (gold != predicted).any(axis=1) | ~gold.any(axis=1)  # a full hit is no safe prompt: not in the corner
    cells = rows[counted].T @ columns[counted]
    cells[np.diag_indices(len(policy))] += (gold & predicted).sum(axis=0)
    index = pd.Index([*policy.codes, "no true label"], name="gold")
    return pd.DataFrame(cells, index=index, columns=pd.Index([*policy.codes, "no predicted label"], name="predicted"))


def interval_table(boots: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> pd.DataFrame:
    """Tabulates scores as text, `0.912 [0.899, 0.924]` or "not measured": a row per name, a column per metric.

    Args:
        boots: Name of a set or system to its `bootstrap` table.
        metrics: Metrics of these tables.

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
        boot: What `bootstrap` returned for the table.
        metrics: Of `precision`, `recall`, `f1`, `ap`, `auroc`.

    Returns:
        Index code; `name, support, templates` (distinct `template_id` of its rows, where the table has that column),
        a text column per metric, and `note` where any category has one.
    """
    counts = per_category(df, policy).set_index("code")
    table = counts[["name", "support"]]
    if "template_id" in df.columns:
        table = table.assign(templates=[df["template_id"][has].nunique() for has in gold_matrix(df, policy).T])
    for metric in metrics:
        cells = intervals_of(boot, [f"{metric}_{code}" for code in policy.codes])
        table[metric] = [str(cell) for cell in cells.values()]
    return table.assign(note=counts["note"]) if counts["note"].any() else table
