"""Scores of a predictions table: of each category, over all categories, and two kinds of confusion matrix.

Codes are sets: order never counts. Where there is nothing to measure (a category without positives) a score is NaN, not
0. Does not: intervals and tests (`intervals`), scores by position (`reference`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from guard_utils.data.predictions import check_predictions, gold_matrix, predicted_matrix, score_matrix
from guard_utils.policy import Taxonomy
from guard_utils.records import intervals_of

Array = npt.NDArray[Any]
Score = Callable[[Array], Mapping[str, Array]]
"""Scores by name, [draws] each, given how often each row counts, [draws, rows]."""


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Array:
    """Divides element by element; NaN where the denominator is 0, because nothing was measured there."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float))
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0))


def outcomes(gold: Array, predicted: Array) -> tuple[Array, Array, Array]:
    """Returns hits, extras and misses, bool [rows, categories] each."""
    return gold & predicted, ~gold & predicted, gold & ~predicted


def table_outcomes(df: pd.DataFrame, policy: Taxonomy) -> tuple[Array, Array, Array]:
    """Checks a predictions table and returns its `outcomes`."""
    check_predictions(df, policy)
    return outcomes(gold_matrix(df, policy), predicted_matrix(df, policy))


def f1_of_counts(tp: Array, fp: Array, fn: Array) -> Array:
    """Returns the support-weighted mean F1 of counts [..., labels]; NaN where no label has support."""
    support = tp + fn
    f1 = np.nan_to_num(ratio(2 * tp, 2 * tp + fp + fn))
    return ratio((support * f1).sum(axis=-1), support.sum(axis=-1))


def category_scores(tp: Array, fp: Array, fn: Array) -> dict[str, Array]:
    """Precision, recall and F1 from counts [..., categories]; NaN where a category has no support."""
    supported = tp + fn > 0
    return {
        "precision": np.where(supported, ratio(tp, tp + fp), np.nan),
        "recall": ratio(tp, tp + fn),
        "f1": np.where(supported, ratio(2 * tp, 2 * tp + fp + fn), np.nan),
    }


def overall_scores(rows: Array, tp: Array, fp: Array, fn: Array) -> dict[str, Array]:
    """F1s over all categories, and safe against unsafe, from counts [..., categories + 1], "unsafe" being the last."""
    own = [counts[..., :-1] for counts in (tp, fp, fn)]
    hits, extra, missed = (counts.sum(axis=-1) for counts in own)
    support, f1 = tp + fn, category_scores(tp, fp, fn)["f1"]
    return {
        "weighted_f1": f1_of_counts(*own),
        "micro_f1": np.where(support[..., -1] > 0, ratio(2 * hits, 2 * hits + extra + missed), np.nan),
        "macro_f1": ratio(np.nansum(f1[..., :-1], axis=-1), (support[..., :-1] > 0).sum(axis=-1)),
        "binary_f1": f1[..., -1],
        "binary_fpr": ratio(fp[..., -1], rows - support[..., -1]),
    }


def per_category(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Scores each category: `code, name, support, tp, fp, fn, precision, recall, f1, ap, auroc`, a row each.

    `ap` is the average precision and `auroc` the area under the ROC curve of P(code). NaN: nothing was to be measured,
    that is, no positive, for precision none predicted, for `auroc` no negative.
    """
    hits, extra, missed = table_outcomes(df, policy)
    tp, fp, fn = (cells.sum(axis=0) for cells in (hits, extra, missed))
    columns = list(zip((hits | missed).T, score_matrix(df, policy).T, strict=True))
    table = pd.DataFrame({"code": policy.codes, "name": list(policy.names.values()), "support": tp + fn})
    table = table.assign(tp=tp, fp=fp, fn=fn, **category_scores(tp, fp, fn))
    table["ap"] = [average_precision_score(y, p) if y.any() else np.nan for y, p in columns]
    table["auroc"] = [roc_auc_score(y, p) if 0 < y.sum() < len(y) else np.nan for y, p in columns]
    return table


def summary(df: pd.DataFrame, policy: Taxonomy) -> dict[str, float]:
    """Scores the whole table.

    `weighted_f1` and `macro_f1` average over categories with positives; false alarms of the others show in `micro_f1`.
    The binary scores read safe against unsafe, as the Llama Guard cards do: F1 and false positive rate of the verdict,
    average precision of P(unsafe). `outside` is the mean probability mass outside the grammar.
    """
    scores = weighted_scores(df, policy)(np.ones((1, len(df))))
    found = {name: float(value[0]) for name, value in scores.items() if not name.endswith(policy.codes)}
    found["outside"] = float(df["outside"].mean())  # the last digit of a dot product differs between processors
    unsafe = gold_matrix(df, policy).any(axis=1)
    found["binary_auprc"] = float(average_precision_score(unsafe, df["p_unsafe"])) if unsafe.any() else np.nan
    return found


def weighted_scores(df: pd.DataFrame, policy: Taxonomy) -> Score:
    """The scores of `summary` and `per_category` that need no ranking, of rows that count several times or not."""
    check_predictions(df, policy)
    codes = (gold_matrix(df, policy), predicted_matrix(df, policy))
    gold, predicted = (np.column_stack([cells, cells.any(axis=1)]) for cells in codes)  # "unsafe" is one more category
    exact, outside = (gold == predicted).all(axis=1), df["outside"].to_numpy(dtype=float)
    counted = [cells.astype(float) for cells in outcomes(gold, predicted)]

    def scores(weights: Array) -> dict[str, Array]:
        counts, rows = [weights @ cells for cells in counted], weights.sum(axis=1)
        found = overall_scores(rows, *counts)
        found |= {"subset_accuracy": weights @ exact / rows, "outside": weights @ outside / rows}
        table = category_scores(*counts)
        return found | {f"{name}_{code}": table[name][:, i] for name in table for i, code in enumerate(policy.codes)}

    return scores


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
    hits, extra, missed = table_outcomes(df, policy)
    # A row that misses (adds) nothing has its 1 in the margin: the product then counts 2 to 5 at once.
    rows = np.column_stack([missed, ~np.any(missed, axis=1)]).astype(float)
    columns = np.column_stack([extra, ~np.any(extra, axis=1)]).astype(float)
    counted = (extra | missed).any(axis=1) | ~hits.any(axis=1)  # a full hit is no safe prompt: not in the corner
    cells = (rows[counted].T @ columns[counted]).astype(int)
    cells[np.diag_indices(len(policy))] += hits.sum(axis=0)
    index = pd.Index([*policy.codes, "no true label"], name="gold")
    return pd.DataFrame(cells, index=index, columns=pd.Index([*policy.codes, "no predicted label"], name="predicted"))


def interval_table(boots: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> pd.DataFrame:
    """Tabulates scores as text, `0.912 [0.899, 0.924]` or "not measured": a row per `bootstrap` table, by name."""
    cells = {name: {m: str(cell) for m, cell in intervals_of(boot, metrics).items()} for name, boot in boots.items()}
    return pd.DataFrame.from_dict(cells, orient="index")
