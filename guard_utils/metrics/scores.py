"""Scores of a predictions table: per category, over all categories, calibration, and two kinds of confusion matrix.

Gold and predicted codes are sets: order and position never count. Point values come from scikit-learn. Where there is
nothing to measure (a category without positives) the value is NaN and a note says why: a 0 there would be a lie, and an
average over it another. Intervals and tests (`bootstrap`, `paired_bootstrap`, `mcnemar`) are in `intervals`, the checks
in `predictions`; both can be imported from here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    fbeta_score,
    hamming_loss,
    jaccard_score,
    multilabel_confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)

from guard_utils.data.predictions import (
    BoolMatrix,
    FloatArray,
    check_predictions,
    gold_matrix,
    predicted_matrix,
    score_matrix,
)
from guard_utils.metrics.intervals import bootstrap, mcnemar, paired_bootstrap
from guard_utils.policy import Taxonomy

__all__ = [
    "bootstrap",
    "check_predictions",
    "confusion_2x2",
    "expected_calibration_error",
    "gold_matrix",
    "mcnemar",
    "multilabel_confusion",
    "paired_bootstrap",
    "per_category",
    "predicted_matrix",
    "reliability",
    "score_matrix",
    "summary",
]

NO_TRUE, NO_PREDICTED = "no true label", "no predicted label"


def per_category(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Scores each category on its own.

    Args:
        df: Predictions table.
        policy: Its policy.

    Returns:
        One row a category: `code, name, support, tp, fp, fn, precision, recall, f1, f2, ap, auroc, brier, ece, note`.
        `ap` is the average precision and `auroc` the area under the ROC curve of the exact marginals. `note` is empty
        where everything could be measured.

    Raises:
        ValueError: The table is faulty.
    """
    check_predictions(df, policy)
    gold, predicted, score = gold_matrix(df, policy), predicted_matrix(df, policy), score_matrix(df, policy)
    rows = []
    for i, (code, name) in enumerate(policy.names.items()):
        y, guess, p = gold[:, i], predicted[:, i], score[:, i]
        scores: dict[str, float | str] = {
            "brier": float(brier_score_loss(y, p, pos_label=True)),
            "ece": expected_calibration_error(y, p),
        }
        if not y.any():
            scores["note"] = f"no positive among {len(y)} rows: nothing to find, so only fp and calibration are known"
        else:
            scores |= _positive_scores(y, guess, p)
        counts = {"tp": int((y & guess).sum()), "fp": int((~y & guess).sum()), "fn": int((y & ~guess).sum())}
        rows.append({"code": code, "name": name, "support": int(y.sum()), **counts, **scores})
    columns = ["code", "name", "support", "tp", "fp", "fn", "precision", "recall", "f1", "f2", "ap", "auroc"]
    return pd.DataFrame(rows, columns=[*columns, "brier", "ece", "note"])


def _positive_scores(y: BoolMatrix, guess: BoolMatrix, p: FloatArray) -> dict[str, float | str]:
    """Scores of a category that has positives."""
    note = [
        "" if guess.any() else "never predicted: precision unknown",
        "no negative: auroc unknown" if y.all() else "",
    ]
    return {
        "precision": float(precision_score(y, guess)) if guess.any() else np.nan,
        "recall": float(recall_score(y, guess)),
        "f1": float(f1_score(y, guess)),
        "f2": float(fbeta_score(y, guess, beta=2)),
        "ap": float(average_precision_score(y, p)),
        "auroc": float(roc_auc_score(y, p)) if not y.all() else np.nan,
        "note": "; ".join(filter(None, note)),
    }


def summary(df: pd.DataFrame, policy: Taxonomy) -> dict[str, float]:
    """Scores the whole table.

    F1s average over categories with positives; false alarms of the others show in `micro_f1`, `hamming` and the binary
    scores. A row without gold and predicted code counts 1 in `samples_f1` and `jaccard`. The binary scores read safe
    against unsafe, as the Llama Guard cards do: F1 and false positive rate of the verdict, area of P(unsafe).

    Returns:
        `weighted_f1, micro_f1, macro_f1, samples_f1, subset_accuracy, hamming, jaccard, outside` (mean mass outside the
        grammar), `binary_f1, binary_fpr, binary_auprc`. NaN where there is nothing to measure.

    Raises:
        ValueError: The table is faulty.
    """
    check_predictions(df, policy)
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    unsafe, flagged = np.any(gold, axis=1), np.any(predicted, axis=1)
    found = dict.fromkeys(("weighted_f1", "micro_f1", "macro_f1"), np.nan)
    if unsafe.any():
        some = np.flatnonzero(gold.any(axis=0))
        found = {
            "weighted_f1": float(f1_score(gold, predicted, average="weighted", zero_division=0)),
            "micro_f1": float(f1_score(gold, predicted, average="micro")),
            "macro_f1": float(f1_score(gold, predicted, average="macro", labels=some)),
        }
    return found | {
        "samples_f1": float(f1_score(gold, predicted, average="samples", zero_division=1.0)),
        "subset_accuracy": float(accuracy_score(gold, predicted)),
        "hamming": float(hamming_loss(gold, predicted)),
        "jaccard": float(jaccard_score(gold, predicted, average="samples", zero_division=1.0)),
        "outside": float(df["outside"].mean()),
        "binary_f1": float(f1_score(unsafe, flagged)) if unsafe.any() else np.nan,
        "binary_fpr": float(flagged[~unsafe].mean()) if not unsafe.all() else np.nan,
        "binary_auprc": float(average_precision_score(unsafe, df["p_unsafe"])) if unsafe.any() else np.nan,
    }


def confusion_2x2(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Counts one 2x2 matrix per category.

    Returns:
        Index code, columns `tn, fp, fn, tp`.

    Raises:
        ValueError: The table is faulty.
    """
    check_predictions(df, policy)
    cells = multilabel_confusion_matrix(gold_matrix(df, policy), predicted_matrix(df, policy))
    index = pd.Index(policy.codes, name="code")
    return pd.DataFrame(cells.reshape(len(policy), 4), index=index, columns=["tn", "fp", "fn", "tp"])


def multilabel_confusion(
    df: pd.DataFrame, policy: Taxonomy, *, extras: Literal["no true label", "true labels"] = "no true label"
) -> pd.DataFrame:
    """Counts what was called what: one row a gold code, one column a predicted code, and a margin on either side.

    After Heydarian, Doyle and Samavi, "MLCM: Multi-Label Confusion Matrix", IEEE Access 10, 2022,
    https://doi.org/10.1109/ACCESS.2022.3151048. Each prompt counts so:

    1. Each code in both sets adds 1 on the diagonal.
    2. Missed codes and extra codes left over: each pair (missed, extra) adds 1, two missed and two extra make 4. (The
       authors' program gives all missed codes to the first extra and spreads the next over every gold code, so that its
       counts depend on the order of the categories.)
    3. Missed codes and no extra: each adds 1 under "no predicted label".
    4. Extra codes beside full hits (every gold code was found): each adds 1 in the row "no true label". The paper adds
       1 in the row of **every** gold code of the prompt, which paints a right S1 as confused with whatever else was
       reported; `extras="true labels"` counts so, to compare with published matrices.
    5. Extra codes of a safe prompt: each adds 1 in the row "no true label". A safe prompt called safe adds 1 in the
       corner.

    Args:
        df: Predictions table.
        policy: Its policy.
        extras: Where extras beside full hits go (4).

    Returns:
        Counts (q+1) x (q+1); index `gold`, columns `predicted`.

    Raises:
        ValueError: The table or `extras` is faulty.
    """
    if extras not in (NO_TRUE, "true labels"):
        raise ValueError(f"extras is {extras!r}; write 'no true label' or 'true labels'")
    check_predictions(df, policy)
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    missed, extra = gold & ~predicted, predicted & ~gold
    no_missed, no_extra = ~np.any(missed, axis=1), ~np.any(extra, axis=1)
    spread = np.any(gold, axis=1) & no_missed & (extras != NO_TRUE)
    rows = np.column_stack([missed | (gold & spread[:, None]), no_missed & ~spread]).astype(int)
    columns = np.column_stack([extra, no_extra]).astype(int)
    # A prompt without error has only its hits; the product would add it to the corner, where safe prompts belong.
    wrong_or_safe = ~(no_missed & no_extra) | ~np.any(gold, axis=1)
    cells = rows[wrong_or_safe].T @ columns[wrong_or_safe]
    cells[np.diag_indices(len(policy))] += (gold & predicted).sum(axis=0)
    index = pd.Index([*policy.codes, NO_TRUE], name="gold")
    return pd.DataFrame(cells, index=index, columns=pd.Index([*policy.codes, NO_PREDICTED], name="predicted"))


def _bins(y: BoolMatrix, p: FloatArray, bins: int) -> pd.DataFrame:
    """Rows, mean probability and share of positives of equally wide bins; the last one holds 1."""
    if bins < 1:
        raise ValueError(f"bins is {bins}; use at least 1, usually 10")
    place = np.minimum((p * bins).astype(int), bins - 1)
    rows = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (p, y.astype(float))]
    mean, share = (np.divide(s, rows, out=np.full(bins, np.nan), where=rows > 0) for s in sums)
    edges = np.arange(bins + 1) / bins
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "rows": rows, "predicted": mean, "observed": share})


def expected_calibration_error(y: BoolMatrix, p: FloatArray, *, bins: int = 10) -> float:
    """Mean distance between predicted probability and observed share over equally wide bins, weighted by rows.

    Args:
        y: Whether each row is positive, bool [rows].
        p: Its probability, float [rows].
        bins: How many bins.

    Raises:
        ValueError: `bins` is below 1.
    """
    table = _bins(y, p, bins)
    gaps = (table["predicted"] - table["observed"]).abs() * table["rows"]
    return float(gaps.sum() / table["rows"].sum())


def reliability(df: pd.DataFrame, policy: Taxonomy, code: str, *, bins: int = 10) -> pd.DataFrame:
    """Tabulates the reliability diagram of one category, or of `"unsafe"`.

    Returns:
        One row a bin: `low, high, rows, predicted` (mean probability), `observed` (share of positives); the last two
        NaN in an empty bin.

    Raises:
        ValueError: The table, the code or `bins` is faulty.
    """
    check_predictions(df, policy)
    gold = gold_matrix(df, policy)
    if code == "unsafe":
        return _bins(np.any(gold, axis=1), np.clip(df["p_unsafe"].to_numpy(dtype=float), 0, 1), bins)
    place = policy.position(code)
    return _bins(gold[:, place], score_matrix(df, policy)[:, place], bins)
