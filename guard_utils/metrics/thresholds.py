"""Decisions from exact marginals: thresholds per category, and calibrated probabilities.

The most probable verdict is one way to decide; P(code) against a threshold is another, and the threshold says what a
miss costs. Thresholds and calibration are fitted on validation rows only: fitted on the test they measure nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, precision_recall_curve

from guard_utils.data.predictions import BoolMatrix, FloatArray, check_predictions, gold_matrix, score_matrix
from guard_utils.metrics.scores import expected_calibration_error, summary
from guard_utils.policy import Taxonomy

Objective = Literal["f1", "f2", "recall"]
Method = Literal["temperature", "isotonic"]

EPSILON = 1e-12
"""Probabilities are kept this far from 0 and 1 before a logarithm."""
TEMPERATURES = (0.05, 20.0)
"""Range of fitted temperatures; separable rows would otherwise drive it to 0."""


@dataclass(frozen=True)
class Thresholds:
    """One threshold a category: a code is reported where its marginal reaches it.

    Attributes:
        codes: Codes of the policy.
        values: Their thresholds, in the same order.
        objective: What they were chosen for, e.g. `f1` or `recall >= 0.95`.
        rows: Number of validation rows.
        untuned: Codes left at 0.5 because validation has no positive row.
    """

    codes: tuple[str, ...]
    values: tuple[float, ...]
    objective: str
    rows: int
    untuned: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.codes) != len(self.values):
            raise ValueError(f"{len(self.values)} thresholds for {len(self.codes)} codes; give each code one")
        for code, value in zip(self.codes, self.values, strict=True):
            if not 0 <= value <= 1:
                raise ValueError(f"threshold of {code} is {value}; it must be a probability in [0, 1]")

    @classmethod
    def fixed(cls, policy: Taxonomy, value: float = 0.5) -> Thresholds:
        """Makes the same threshold for every code, chosen without looking at data."""
        return cls(policy.codes, (value,) * len(policy), f"fixed at {value}", 0)

    def as_dict(self) -> dict[str, float]:
        """Code to threshold."""
        return dict(zip(self.codes, self.values, strict=True))


def decide(df: pd.DataFrame, policy: Taxonomy, thresholds: Thresholds) -> pd.DataFrame:
    """Decides anew: `predicted` becomes the codes whose marginal reaches its threshold.

    Returns:
        A copy; the other columns stay.

    Raises:
        ValueError: The table is faulty, or the thresholds are of another policy.
    """
    check_predictions(df, policy)
    if thresholds.codes != policy.codes:
        raise ValueError(
            f"thresholds are for {thresholds.codes}, policy {policy.name!r} has {policy.codes}; tune them anew"
        )
    reached = score_matrix(df, policy) >= np.array(thresholds.values)
    codes = np.array(policy.codes, dtype=object)
    return df.assign(predicted=pd.Series([codes[row].tolist() for row in reached], index=df.index, dtype=object))


def tune(
    df_validation: pd.DataFrame, policy: Taxonomy, objective: Objective = "f1", *, recall: float = 0.95
) -> Thresholds:
    """Chooses a threshold per category on validation rows.

    Every cut between two neighbouring scores is tried. The threshold is set half-way between them, and of equally good
    cuts the one nearest 0.5 is taken: both make it less the child of single rows.

    Args:
        df_validation: Predictions table of the validation rows; never the rows that will be reported.
        policy: Its policy.
        objective: Maximise `f1` or `f2` (recall counts four times as much), or `recall`: the best precision among cuts
            with recall of at least `recall`.
        recall: Wanted recall, for that objective.

    Raises:
        ValueError: The table is faulty, the objective unknown or `recall` not in (0, 1].
    """
    if objective not in ("f1", "f2", "recall"):
        raise ValueError(f"objective is {objective!r}; write 'f1', 'f2' or 'recall'")
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}; it must be in (0, 1]")
    check_predictions(df_validation, policy)
    gold, score = gold_matrix(df_validation, policy), score_matrix(df_validation, policy)
    values = tuple(
        _best_threshold(y, p, objective, recall) if y.any() else 0.5 for y, p in zip(gold.T, score.T, strict=True)
    )
    untuned = tuple(code for code, y in zip(policy.codes, gold.T, strict=True) if not y.any())
    label = f"recall >= {recall}" if objective == "recall" else objective
    return Thresholds(policy.codes, values, label, len(df_validation), untuned)


def _best_threshold(y: BoolMatrix, p: FloatArray, objective: Objective, wanted: float) -> float:
    precision, recall, cuts = precision_recall_curve(y, p)
    precision, recall = precision[:-1], recall[:-1]  # the last point is no cut: nothing reported
    if objective == "recall":
        value = np.where(recall >= wanted, precision, -1.0)
    else:
        weight = 1.0 if objective == "f1" else 4.0
        value = (1 + weight) * precision * recall / np.maximum(weight * precision + recall, EPSILON)
    below = np.concatenate([[0.0], cuts[:-1]])
    # Near 1 the mean of neighbouring floats can round down to the lower one, which must stay out.
    halfway = np.clip((cuts + below) / 2, np.minimum(np.nextafter(below, 1), cuts), cuts)
    best = np.flatnonzero(np.isclose(value, value.max(), rtol=0, atol=1e-12))
    return float(halfway[best[np.argmin(np.abs(halfway[best] - 0.5))]])


def precision_recall(df: pd.DataFrame, policy: Taxonomy, code: str) -> pd.DataFrame:
    """Tabulates the precision-recall curve of a category's marginals.

    Returns:
        Columns `threshold, precision, recall`, thresholds rising; no row where the category has no positive.

    Raises:
        ValueError: The table or the code is faulty.
    """
    check_predictions(df, policy)
    place = policy.position(code)
    y = gold_matrix(df, policy)[:, place]
    if not y.any():
        return pd.DataFrame(columns=["threshold", "precision", "recall"], dtype=float)
    precision, recall, cuts = precision_recall_curve(y, score_matrix(df, policy)[:, place])
    return pd.DataFrame({"threshold": cuts, "precision": precision[:-1], "recall": recall[:-1]})


def compare_decisions(df: pd.DataFrame, policy: Taxonomy, thresholds: Thresholds) -> pd.DataFrame:
    """Scores three ways to decide on the same marginals: joint verdict, marginals at 0.5, tuned thresholds.

    Args:
        df: Predictions table whose `predicted` is the most probable verdict; not the rows tuned on.
        policy: Its policy.
        thresholds: Tuned thresholds.

    Returns:
        Index `decision`; the scores of `summary`, and `rows_moved`: rows decided otherwise than by the joint verdict.

    Raises:
        ValueError: The table or the thresholds are faulty.
    """
    tables = {
        "joint verdict": df,
        "marginals at 0.5": decide(df, policy, Thresholds.fixed(policy)),
        f"tuned for {thresholds.objective}": decide(df, policy, thresholds),
    }
    rows = {name: summary(table, policy) | {"rows_moved": rows_moved(df, table)} for name, table in tables.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("decision")


def rows_moved(before: pd.DataFrame, after: pd.DataFrame, column: str = "predicted") -> int:
    """Counts rows whose set of codes in a list column differs between two tables of the same rows in the same order."""
    return sum(set(a) != set(b) for a, b in zip(before[column], after[column], strict=True))


@dataclass(frozen=True)
class Calibration:
    """A map of each probability column to a calibrated one.

    Attributes:
        method: `temperature` (one number a column: logit / T, keeps the ranking) or `isotonic` (any rising step
            function; wants some hundred positives).
        maps: Column (`p_S1`, ..., `p_unsafe`) to its map's knots: probabilities before and after, rising.
        temperatures: Column to T; empty for isotonic.
        rows: Number of validation rows.
        unfitted: Columns left as they are, because validation has no positive or no negative row.
    """

    method: Method
    maps: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]
    temperatures: Mapping[str, float]
    rows: int
    unfitted: tuple[str, ...] = ()

    def apply(self, df: pd.DataFrame) -> pd.DataFrame:
        """Returns a copy with calibrated probabilities; `predicted` stays: call `decide` to decide anew.

        Each column is calibrated on its own, so P(unsafe) may end a little below the greatest P(code).

        Raises:
            ValueError: A column is missing.
        """
        missing = [name for name in (*self.maps, *self.temperatures) if name not in df.columns]
        if missing:
            raise ValueError(f"predictions lack {missing}; the calibration was fitted on another policy")
        steps = {name: np.interp(df[name].to_numpy(dtype=float), *knots) for name, knots in self.maps.items()}
        cooled = {
            name: 1 / (1 + np.exp(-_logit(df[name].to_numpy(dtype=float)) / value))
            for name, value in self.temperatures.items()
        }
        return df.assign(**steps, **cooled)


def _logit(p: FloatArray) -> FloatArray:
    kept = np.clip(p, EPSILON, 1 - EPSILON)
    return np.log(kept) - np.log1p(-kept)


def _targets(df: pd.DataFrame, policy: Taxonomy) -> dict[str, BoolMatrix]:
    """Probability column to what it predicts."""
    check_predictions(df, policy)
    gold = gold_matrix(df, policy)
    return {f"p_{code}": gold[:, i] for i, code in enumerate(policy.codes)} | {"p_unsafe": np.any(gold, axis=1)}


def calibrate(df_validation: pd.DataFrame, policy: Taxonomy, method: Method = "temperature") -> Calibration:
    """Fits a calibration on validation rows.

    A temperature for one binary column is logistic regression on the logit without intercept: the slope is 1 / T.

    Raises:
        ValueError: The table is faulty or the method unknown.
    """
    if method not in ("temperature", "isotonic"):
        raise ValueError(f"method is {method!r}; write 'temperature' or 'isotonic'")
    maps: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}
    temperatures: dict[str, float] = {}
    unfitted = []
    for name, y in _targets(df_validation, policy).items():
        p = df_validation[name].to_numpy(dtype=float)
        if y.all() or not y.any():
            unfitted.append(name)
        elif method == "isotonic":
            fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p, y)
            maps[name] = (tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist()))
        else:
            slope = float(LogisticRegression(C=np.inf, fit_intercept=False).fit(_logit(p)[:, None], y).coef_[0, 0])
            temperatures[name] = float(np.clip(1 / max(slope, EPSILON), *TEMPERATURES))
    return Calibration(method, maps, temperatures, len(df_validation), tuple(unfitted))


def compare_calibration(df: pd.DataFrame, policy: Taxonomy, *calibrations: Calibration) -> pd.DataFrame:
    """Shows where calibration helps: the same rows before and after each calibration.

    Args:
        df: Predictions table; not the rows fitted on.
        policy: Its policy.
        calibrations: Fitted calibrations.

    Returns:
        One row a column and method: `column, method` ("none" first), `brier, ece, log_loss`. Smaller is better.

    Raises:
        ValueError: The table is faulty.
    """
    rows = []
    targets = _targets(df, policy)
    for method, table in [("none", df), *((c.method, c.apply(df)) for c in calibrations)]:
        for name, y in targets.items():
            p = np.clip(table[name].to_numpy(dtype=float), 0, 1)
            loss = log_loss(y, np.clip(p, EPSILON, 1 - EPSILON), labels=[False, True])
            ece = expected_calibration_error(y, p)
            rows.append(
                {"column": name, "method": method, "brier": ((p - y) ** 2).mean(), "ece": ece, "log_loss": loss}
            )
    return pd.DataFrame(rows).sort_values(["column"], kind="stable", ignore_index=True)
