"""What errors go with: tokens of the text, and the source labels that made the gold codes.

A model's error and a **label's** error look alike in one row. They part in a cross-tabulation: a label that is mapped
wrongly disagrees with a good model on nearly every row that carries it, and hardly anywhere else.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer

from guard_utils.data.predictions import BoolMatrix, check_predictions, gold_matrix, need_columns, predicted_matrix
from guard_utils.metrics.intervals import ratio
from guard_utils.policy import Taxonomy


def token_patterns(
    df: pd.DataFrame, policy: Taxonomy, code: str, kind: Literal["missed", "extra"], *, n: int = 15, min_rows: int = 5
) -> pd.DataFrame:
    """Finds token patterns that go with one kind of error in one category.

    A pattern is a token in lower case with every digit read as 0, so all five-digit post codes are one pattern. A
    missed code is sought among rows that have it in gold, an extra one among the others.

    Args:
        df: Predictions table with `text`.
        policy: Its policy.
        code: Category.
        kind: `missed` or `extra`.
        n: Patterns at most.
        min_rows: A pattern counts from this many rows on.

    Returns:
        Columns `pattern, rows, errors, error_rate, elsewhere` (error rate of the rows without it), `phi` (correlation
        of pattern and error, -1 to 1), greatest `phi` first; empty where there is no error.

    Raises:
        ValueError: The table, code or kind is faulty.
    """
    if kind not in ("missed", "extra"):
        raise ValueError(f"kind is {kind!r}; write 'missed' or 'extra'")
    check_predictions(df, policy)
    need_columns(df, "text")
    place = policy.position(code)
    gold, predicted = gold_matrix(df, policy)[:, place], predicted_matrix(df, policy)[:, place]
    among = gold if kind == "missed" else ~gold
    wrong = (gold ^ predicted)[among]
    columns = ["pattern", "rows", "errors", "error_rate", "elsewhere", "phi"]
    if not wrong.any():
        return pd.DataFrame(columns=columns)
    counter = CountVectorizer(binary=True, token_pattern=r"\w+(?:[.:'@-]\w+)*")
    present = counter.fit_transform(df["text"][among].str.replace(r"\d", "0", regex=True))
    table = _association(
        np.asarray(present.sum(axis=0)).ravel(), present.T @ wrong.astype(int), len(wrong), int(wrong.sum())
    )
    table.insert(0, "pattern", counter.get_feature_names_out())
    table = table[(table["rows"] >= min_rows) & (table["errors"] > 0)]
    return table.sort_values(["phi", "pattern"], ascending=[False, True], ignore_index=True).head(n)


def _association(rows: np.ndarray[Any, Any], errors: np.ndarray[Any, Any], total: int, wrong: int) -> pd.DataFrame:
    """Error rate with and without a feature, and their phi coefficient (0 where the feature never varies)."""
    spread = np.sqrt(rows * (total - rows) * float(wrong) * (total - wrong))
    phi = np.nan_to_num(ratio(errors * float(total) - rows * float(wrong), spread))
    elsewhere = ratio(wrong - errors, total - rows)
    return pd.DataFrame(
        {"rows": rows, "errors": errors, "error_rate": ratio(errors, rows), "elsewhere": elsewhere, "phi": phi}
    )


def _label_matrix(df: pd.DataFrame) -> tuple[list[str], BoolMatrix]:
    """Source labels, sorted, and bool [rows, labels]: which stand in a row."""
    need_columns(df, "labels")
    names = sorted({label for labels in df["labels"] for label in labels})
    place = {label: i for i, label in enumerate(names)}
    present = np.zeros((len(df), len(names)), dtype=bool)
    for row, labels in enumerate(df["labels"]):
        present[row, [place[label] for label in labels]] = True
    return names, present


def by_source_label(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Cross-tabulates source labels, codes and errors.

    Returns:
        One row a (label, code) pair, sorted by both: `label, code, rows` (with the label), `gold`, `predicted`, `hit`,
        `missed`, `extra` (how many of them), `missed_rate` (missed / gold; NaN without gold), `extra_rate` (extra /
        rows without gold; NaN if all have it), `disagreement` ((missed + extra) / rows).

    Raises:
        ValueError: The table is faulty or lacks `labels`.
    """
    check_predictions(df, policy)
    names, present = _label_matrix(df)
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    cells = {"gold": gold, "predicted": predicted, "hit": gold & predicted}
    cells |= {"missed": gold & ~predicted, "extra": predicted & ~gold}
    counts = {name: (present.T.astype(int) @ matrix.astype(int)).ravel() for name, matrix in cells.items()}
    rows = np.repeat(present.sum(axis=0), len(policy))
    table = pd.DataFrame(
        {"label": np.repeat(names, len(policy)), "code": np.tile(policy.codes, len(names)), "rows": rows}
    )
    table = table.assign(**counts)
    table["missed_rate"] = ratio(table["missed"], table["gold"])
    table["extra_rate"] = ratio(table["extra"], rows - table["gold"])
    table["disagreement"] = (table["missed"] + table["extra"]) / rows
    return table


def rows_behind(df: pd.DataFrame, policy: Taxonomy, label: str, code: str) -> pd.DataFrame:
    """Picks the rows with a source label on which gold and model disagree about a code: one cell of `by_source_label`.

    Raises:
        ValueError: The table is faulty, lacks `labels`, or the code is unknown.
    """
    check_predictions(df, policy)
    need_columns(df, "labels")
    place = policy.position(code)
    differs = gold_matrix(df, policy)[:, place] ^ predicted_matrix(df, policy)[:, place]
    return df[differs & np.array([label in labels for labels in df["labels"]], dtype=bool)]


def suspicious_labels(
    df: pd.DataFrame, policy: Taxonomy, *, min_rows: int = 10, rate: float = 0.5, n: int = 10
) -> pd.DataFrame:
    """Ranks (source label, code) pairs on which model and gold disagree nearly always: look here for wrong **labels**.

    For each code and direction the label that goes best with the disagreement (greatest phi) is taken, its rows are set
    aside, and the rest is searched again, so that labels that merely stand beside the culprit do not echo it.

    Args:
        df: Predictions table with `labels`.
        policy: Its policy.
        min_rows: A label counts from this many rows on.
        rate: A pair counts from this share of disagreeing rows on.
        n: Pairs at most.

    Returns:
        Columns `label, code, kind` ("missed": gold says so, the model does not; "extra": the reverse), `rows, errors,
        error_rate, elsewhere` (error rate without the label), `phi`, `reading`; most errors first. A missed pair may
        also be something that the model never learned: read its rows before changing a map.

    Raises:
        ValueError: The table is faulty or lacks `labels`.
    """
    check_predictions(df, policy)
    names, present = _label_matrix(df)
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    found = []
    for place, code in enumerate(policy.codes):
        for kind, wrong in (("missed", gold & ~predicted), ("extra", predicted & ~gold)):
            found += [
                pair | {"code": code, "kind": kind, "reading": _reading(pair["label"], code, kind)}
                for pair in _peel(names, present, wrong[:, place], min_rows, rate)
            ]
    columns = ["label", "code", "kind", "rows", "errors", "error_rate", "elsewhere", "phi", "reading"]
    table = pd.DataFrame(found, columns=columns)
    return table.sort_values(["errors", "label", "code"], ascending=[False, True, True], ignore_index=True).head(n)


def _peel(names: list[str], present: BoolMatrix, wrong: BoolMatrix, min_rows: int, rate: float) -> list[dict[str, Any]]:
    left = np.ones(len(wrong), dtype=bool)
    found = []
    while wrong[left].any():
        seen, errors = present[left], wrong[left]
        table = _association(seen.sum(axis=0), (seen & errors[:, None]).sum(axis=0), len(errors), int(errors.sum()))
        table = table[(table["rows"] >= min_rows) & (table["error_rate"] >= rate)]
        if table.empty:
            break
        best = int(table["phi"].idxmax())
        found.append({"label": names[best]} | table.loc[best].to_dict())
        left &= ~present[:, best]
    return found


def _reading(label: str, code: str, kind: str) -> str:
    if kind == "missed":
        return f"gold says {code} where {label} stands, the model does not: is {label} mapped to {code} by mistake?"
    return f"the model says {code} where {label} stands, gold does not: was {label} never mapped to {code}?"
