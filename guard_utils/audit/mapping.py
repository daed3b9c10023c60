"""Mapping errors: a source label mapped to the wrong code, or to none. One finding for all rows of the label.

Does: compare given codes with a system that was not trained on them (a model repeats what it was taught), and turn
accepted findings into corrections. Does not: find single wrong rows (`ranking`), train or score.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from guard_utils.audit.corrections import Correction
from guard_utils.data.predictions import BoolMatrix, gold_matrix, predicted_matrix
from guard_utils.metrics.errors import suspicious_labels
from guard_utils.policy import Taxonomy, Verdict

MISTAKE = "mapped by mistake"
KINDS = {"missed": MISTAKE, "extra": "never mapped"}
"""What a label is suspected of where a witness misses a given code, or reports one that is not given."""


def label_codes(df: pd.DataFrame, policy: Taxonomy, *, min_rows: int = 5) -> dict[str, tuple[str, ...]]:
    """Reads from `labels` and `gold` which codes each source label, in sorted order, stands for.

    A label in fewer than `min_rows` rows, or one that merely stands beside another, has none; see `suspicious_labels`.
    """
    pairs = suspicious_labels(df.assign(predicted=[[]] * len(df)), policy, min_rows=min_rows)
    found: dict[str, tuple[str, ...]] = dict.fromkeys(sorted({name for labels in df["labels"] for name in labels}), ())
    return found | {str(label): Verdict.of(group["code"]).codes for label, group in pairs.groupby("label")}


def find_mapping_errors(df: pd.DataFrame, policy: Taxonomy, *, min_rows: int = 10, sure: float = 0.85) -> pd.DataFrame:
    """Lists source labels on whose rows a witness and the given codes disagree as a rule.

    The table is of a witness that was not trained on these labels, `gold` being the given codes.

    Returns:
        Findings of `min_rows` rows or more, certain ones first, then most rows: `label, code, kind` ("mapped by
        mistake" or "never mapped"), `certain` (both shares are at least `sure`), `rows, label_codes` (of the label),
        `objects` (share of these rows on which the witness disagrees) and `reliable` (share on which it agrees of the
        rows elsewhere that could show it wrong).
    """
    meaning = label_codes(df, policy)
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    found = []
    for label, code, side, *_ in suspicious_labels(df, policy, min_rows=min_rows).itertuples(index=False):
        place, mistake = policy.position(code), side == "missed"
        given, agrees = gold[:, place], gold[:, place] == predicted[:, place]
        rows = _error_rows(df, given, label, code, mistake, meaning)
        # A label that the code never came with can't have been mapped to it, and the other way round.
        if rows.sum() >= min_rows and (code in meaning[label]) == mistake:
            elsewhere = agrees[~_with_label(df, label) & (given == mistake)]
            shares = (~agrees)[rows].mean(), elsewhere.sum() / max(1, len(elsewhere))
            codes = ", ".join(meaning[label]) or "none"
            found.append((label, code, KINDS[side], min(shares) >= sure, rows.sum(), codes, *shares))
    columns = ["label", "code", "kind", "certain", "rows", "label_codes", "objects", "reliable"]
    table = pd.DataFrame(found, columns=columns).astype({"certain": bool})
    return table.sort_values(["certain", "rows", "label"], ascending=[False, False, True], ignore_index=True)


def _with_label(df: pd.DataFrame, *labels: str) -> BoolMatrix:
    return np.array([not set(labels).isdisjoint(own) for own in df["labels"]], dtype=bool)


def _error_rows(
    df: pd.DataFrame, given: BoolMatrix, label: str, code: str, mistake: bool, meaning: Mapping[str, tuple[str, ...]]
) -> BoolMatrix:
    """Which rows a finding would change, [rows], where `given` says which have the code.

    Mapped by mistake: rows that have the code and no other label that stands for it. Never mapped: rows that lack it.
    """
    others = [name for name, codes in meaning.items() if mistake and code in codes and name != label]
    return _with_label(df, label) & (given == mistake) & ~_with_label(df, *others)


def mapping_corrections(
    df: pd.DataFrame, policy: Taxonomy, findings: pd.DataFrame, *, reviewer: str
) -> list[Correction]:
    """Turns accepted findings (columns `label, code, kind`) into corrections of the rows of the witness's table."""
    gold, meaning = gold_matrix(df, policy), label_codes(df, policy)
    for label, code in zip(findings["label"], findings["code"], strict=True):
        # Two accused labels in one row must not excuse each other.
        meaning[label] = tuple(other for other in meaning.get(label, ()) if other != code)
    found = {}
    for label, code, kind in findings[["label", "code", "kind"]].itertuples(index=False):
        action, reason = "remove" if kind == MISTAKE else "add", f"{label} was {kind}: {code}"
        for row in df["id"][_error_rows(df, gold[:, policy.position(code)], label, code, kind == MISTAKE, meaning)]:
            found[row, code] = Correction(row, code, action, reason, reviewer)
    return sorted(found.values())
