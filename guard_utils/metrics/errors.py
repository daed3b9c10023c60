"""What went wrong, and what the wrong rows have in common.

A model's error and a **label's** error look alike in one row, but a label that is mapped wrongly disagrees with a good
model on nearly every row that has it. All need the column `labels`. Does not: draw (`figures`),
correct labels (`audit`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.preprocessing import MultiLabelBinarizer

from guard_utils.data.predictions import codes_of, score_matrix
from guard_utils.metrics.scores import Array, ratio, table_outcomes
from guard_utils.policy import Taxonomy

KINDS = ("missed", "extra", "swapped", "mixed", "policy boundary", "parse")
"""`missed`: gold codes were not reported; `extra`: other codes were; `swapped`: as many of each; `mixed`: unequally
many of each; `policy boundary`: nothing is missed, and a label beside the category explains every extra (a STATE for
S4); `parse`: the model put most of its probability outside the grammar."""

BORDERLINE: Mapping[str, tuple[str, ...]] = {
    "S1": ("USERNAME", "DISPLAYNAME", "EMAIL", "COMPANYNAME", "COMPANY_NAME"),
    "S2": ("MAC",),
    "S3": ("PHONEIMEI",),
    "S4": ("STATE", "NEARBYGPSCOORDINATE"),
    "S5": ("CREDITCARDISSUER", "MASKEDNUMBER"),
}
"""Code to labels that the `PII` policy calls safe, and that a stricter reader would give this code."""


def disagreements(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Classifies every row whose predicted codes are not its gold codes.

    Returns:
        The wrong rows with all their columns, surest mistake first, and `confidence` (probability that the model gave
        to its surest mistake: P(code) of an extra, 1 - P(code) of a missed code), `missed`, `extra` (lists of codes)
        and `kind`.
    """
    _, extra, missed = table_outcomes(df, policy)
    score = score_matrix(df, policy)
    wrong = (missed | extra).any(axis=1)
    surest = np.where(missed, 1 - score, np.where(extra, score, 0.0)).max(axis=1)
    table = df[wrong].assign(confidence=surest[wrong])
    table["missed"], table["extra"] = codes_of(missed[wrong], policy), codes_of(extra[wrong], policy)
    table["kind"] = [_kind(row) for row in table.itertuples()]
    return table.sort_values(["confidence", "id"], ascending=[False, True])


def _kind(row: Any) -> str:
    if row.outside >= 0.5:
        return "parse"
    if not row.missed:
        explained = all({*row.labels} & {*BORDERLINE.get(code, ())} for code in row.extra)
        return "policy boundary" if explained else "extra"
    if not row.extra:
        return "missed"
    return "swapped" if len(row.missed) == len(row.extra) else "mixed"


def error_table(df: pd.DataFrame, policy: Taxonomy, by: str = "category") -> pd.DataFrame:
    """Counts the kinds of error by group.

    Groups are the values of a column such as `language`, or `category`: gold or predicted codes, "safe" for neither; a
    row counts once in each.

    Returns:
        Index `by`; `rows, wrong, error_rate` and one column per kind; most errors first, then in the order of groups.
    """
    kind = df["id"].map(disagreements(df, policy).set_index("id")["kind"])
    if by == "category":
        codes = zip(df["gold"], df["predicted"], strict=True)
        df = df.assign(category=[sorted({*gold, *said}) or ["safe"] for gold, said in codes])
    long = df[[by]].assign(kind=kind).explode(by)
    rows = long.groupby(by, observed=True).size()
    counts = pd.crosstab(long[by], long["kind"]).reindex(index=rows.index, columns=list(KINDS), fill_value=0)
    table = pd.DataFrame({"rows": rows, "wrong": counts.sum(axis=1)})
    table["error_rate"] = table["wrong"] / table["rows"]
    table = table.join(counts).sort_values("wrong", ascending=False, kind="stable")
    return table.set_axis(table.index.astype(str)).rename_axis(by)


def _label_matrix(df: pd.DataFrame) -> tuple[list[str], Array]:
    """Source labels, sorted, and bool [rows, labels]: which stand in a row."""
    binarizer = MultiLabelBinarizer()
    present = binarizer.fit_transform(df["labels"]).astype(bool)
    return list(binarizer.classes_), present


def by_source_label(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Cross-tabulates source labels, codes and errors.

    Returns:
        One row per label and code, sorted by both: `label, code, rows` (with the label), `missed`, `extra` (of these),
        and `disagreement` ((missed + extra) / rows).
    """
    names, present = _label_matrix(df)
    _, extra, missed = table_outcomes(df, policy)
    table = pd.DataFrame({"label": np.repeat(names, len(policy)), "code": np.tile(policy.codes, len(names))})
    table["rows"] = np.repeat(present.sum(axis=0), len(policy))
    table["missed"] = (present.T.astype(int) @ missed.astype(int)).ravel()
    table["extra"] = (present.T.astype(int) @ extra.astype(int)).ravel()
    return table.assign(disagreement=(table["missed"] + table["extra"]) / table["rows"])


def suspicious_labels(df: pd.DataFrame, policy: Taxonomy, *, min_rows: int = 10) -> pd.DataFrame:
    """Ranks (source label, code) pairs on which model and gold mostly disagree: look here for wrong **labels**.

    For each code and direction the label that goes best with the disagreement (greatest phi, the correlation of label
    and error) is taken, its rows are set aside, and the rest is searched again, so that labels that merely stand beside
    the culprit do not echo it.

    Returns:
        Pairs whose label is in `min_rows` rows or more, with errors in half of them, most errors first:
        `label, code, kind` ("missed": gold says so, the model does not; "extra": the reverse), `rows, errors,
        error_rate, elsewhere` (error rate without the label), `phi`. A missed pair may also be something that the model
        never learned: read its rows before changing a map.
    """
    names, present = _label_matrix(df)
    _, extra, missed = table_outcomes(df, policy)
    found = []
    for place, code in enumerate(policy.codes):
        for kind, wrong in (("missed", missed[:, place]), ("extra", extra[:, place])):
            left = np.ones(len(df), dtype=bool)
            while wrong[left].any():
                table = _association(names, present[left], wrong[left])
                table = table[(table["rows"] >= min_rows) & (table["error_rate"] >= 0.5)]
                if table.empty:
                    break
                best = table["phi"].idxmax()
                found.append({"code": code, "kind": kind, **table.loc[best]})
                left &= ~present[:, best]
    columns = ["label", "code", "kind", "rows", "errors", "error_rate", "elsewhere", "phi"]
    table = pd.DataFrame(found, columns=columns)
    return table.sort_values(["errors", "label", "code"], ascending=[False, True, True], ignore_index=True)


def _association(names: list[str], present: Array, wrong: Array) -> pd.DataFrame:
    """Error rate with and without each label, and their phi coefficient (0 where the label never varies)."""
    rows, errors, total, all_errors = present.sum(axis=0), present[wrong].sum(axis=0), len(wrong), float(wrong.sum())
    spread = np.sqrt(rows * (total - rows) * all_errors * (total - all_errors))
    table = pd.DataFrame({"label": names, "rows": rows, "errors": errors, "error_rate": ratio(errors, rows)})
    table["elsewhere"] = ratio(all_errors - errors, total - rows)
    return table.assign(phi=np.nan_to_num(ratio(errors * total - rows * all_errors, spread)))
