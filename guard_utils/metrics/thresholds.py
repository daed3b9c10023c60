"""Decisions from exact marginals: P(code) against a threshold per category, chosen on validation rows only.

The most probable verdict is one way to decide; thresholds are another, and say what a miss costs. Does not: calibrate
probabilities.
"""

from typing import Literal

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from guard_utils.data.predictions import BoolMatrix, FloatArray, check_predictions, codes_of, gold_matrix, score_matrix
from guard_utils.policy import Taxonomy

Objective = Literal["f1", "recall", "fpr"]


Thresholds = dict[str, float]
"""A threshold of P(code) per code, in policy order."""


def decide(df: pd.DataFrame, policy: Taxonomy, thresholds: Thresholds) -> pd.DataFrame:
    """Returns a copy in which `predicted` holds the codes whose marginal reaches its threshold."""
    check_predictions(df, policy)
    codes = tuple(thresholds)
    if codes != policy.codes:
        raise ValueError(f"thresholds are for {codes}, policy {policy.name!r} has {policy.codes}; tune them anew")
    return df.assign(predicted=codes_of(score_matrix(df, policy) >= np.array(list(thresholds.values())), policy))


def tune(
    df_validation: pd.DataFrame, policy: Taxonomy, objective: Objective = "f1", *, bound: float | None = None
) -> Thresholds:
    """Chooses thresholds for an operating point, never on the rows that will be reported.

    * `f1`: each category's best F1.
    * `recall`: each category's best precision where its recall is at least `bound` (0.95).
    * `fpr`: one threshold for all, as low as it can be where at most a share `bound` (0.05) of the safe rows is called
      unsafe.

    Every cut between two neighbouring scores is tried. The threshold is set half-way between them, and of equally good
    cuts the one nearest 0.5 is taken: both make it depend less on single rows. Without positives (`fpr`: without safe
    rows) it is 0.5.
    """
    bound = {"recall": 0.95, "fpr": 0.05}.get(objective, 1.0) if bound is None else bound
    if objective not in ("f1", "recall", "fpr") or not 0 < bound <= 1:
        raise ValueError(f"objective is {objective!r}, bound is {bound}; write 'f1', 'recall' or 'fpr', and 0 to 1")
    check_predictions(df_validation, policy)
    gold, score = gold_matrix(df_validation, policy), score_matrix(df_validation, policy)
    if objective == "fpr":
        return dict.fromkeys(policy.codes, _cut_of_safe(score[~gold.any(axis=1)].max(axis=1), bound))
    least_recall = bound if objective == "recall" else None
    return {code: _best(y, p, least_recall) for code, y, p in zip(policy.codes, gold.T, score.T, strict=True)}


def _cut_of_safe(scores: FloatArray, share: float) -> float:
    """The lowest threshold that at most a share of the safe rows reaches, given the greatest P(code) of each."""
    highest = np.sort(scores)[::-1]
    shares = np.arange(len(highest) + 1) / max(1, len(highest))
    reach = int(np.searchsorted(shares, share, side="right")) - 1  # most rows that are no more than the share
    if reach == len(highest):
        return 0.0 if len(highest) else 0.5
    halfway = (highest[reach] + (highest[reach - 1] if reach else 1)) / 2
    return float(min(1.0, max(halfway, np.nextafter(highest[reach], 2))))


def _best(y: BoolMatrix, p: FloatArray, least_recall: float | None) -> float:
    """The threshold of one category with gold [rows] and P(code) [rows]: best F1, or precision at a least recall."""
    if not y.any():
        return 0.5
    precision, recall, cuts = precision_recall_curve(y, p)
    precision, recall = precision[:-1], recall[:-1]  # without the end of the curve, which no cut reaches
    if least_recall is None:
        value = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    else:
        value = np.where(recall >= least_recall, precision, -1.0)
    below = np.concatenate([[0.0], cuts[:-1]])
    # Near 1 the mean of neighbouring floats can round down to the lower one, which must stay out.
    halfway = np.clip((cuts + below) / 2, np.minimum(np.nextafter(below, 1), cuts), cuts)
    best = halfway[np.isclose(value, value.max(), rtol=0, atol=1e-12)]
    return float(best[np.argmin(np.abs(best - 0.5))])
