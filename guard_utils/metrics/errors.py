"""What went wrong, and what the wrong rows have in common.

Every row whose predicted set is not its gold set gets one kind:

* `missed`: gold codes were not reported; `extra`: other codes were; `swapped`: as many of each; `mixed`: unequally many
  of each.
* `policy boundary`: nothing is missed, and a span whose label lies beside the category explains every extra (a STATE
  for S4). The policy decided that label; a reader might decide otherwise.
* `parse`: the model put most of its probability outside the grammar, so its own answer would not have been a verdict.

What errors have in common (tokens, source labels) is in `associations`; its functions can be imported from here.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd

from guard_utils.data.predictions import check_predictions, gold_matrix, need_columns, predicted_matrix, score_matrix
from guard_utils.metrics.associations import by_source_label, rows_behind, suspicious_labels, token_patterns
from guard_utils.metrics.intervals import weighted_f1_of_counts
from guard_utils.policy import Taxonomy

__all__ = [
    "BORDERLINE",
    "KINDS",
    "by_source_label",
    "disagreements",
    "error_table",
    "gains",
    "marked_html",
    "reading_html",
    "rows_behind",
    "suspicious_labels",
    "token_patterns",
    "worst",
]

KINDS = ("missed", "extra", "swapped", "mixed", "policy boundary", "parse")

BORDERLINE: Mapping[str, str] = {
    "STATE": "S4",
    "NEARBYGPSCOORDINATE": "S4",
    "USERNAME": "S1",
    "DISPLAYNAME": "S1",
    "EMAIL": "S1",
    "COMPANYNAME": "S1",
    "COMPANY_NAME": "S1",
    "MAC": "S2",
    "PHONEIMEI": "S3",
    "CREDITCARDISSUER": "S5",
    "MASKEDNUMBER": "S5",
}
"""Labels that the `PII` policy calls safe, and the code that a stricter reader would give them."""

PLAIN = "tex2jax_ignore mathjax_ignore"
"""HTML classes that keep a notebook from reading two dollar amounts as a formula; pandas uses the same."""

WORDS = (0, 10, 20, 40, 80, np.inf)
Grouping = Literal["category", "label", "template_id", "situation", "language", "length"]


def disagreements(
    df: pd.DataFrame, policy: Taxonomy, *, borderline: Mapping[str, str] = BORDERLINE, outside: float = 0.5
) -> pd.DataFrame:
    """Classifies every row whose predicted codes are not its gold codes.

    Args:
        df: Predictions table with `labels`.
        policy: Its policy.
        borderline: Safe label to the code that it may be mistaken for.
        outside: From this mass outside the grammar on, the row is a `parse` error.

    Returns:
        The wrong rows with all their columns, and `missed`, `extra` (lists of codes), `kind`, `boundary` (extra codes
        that a borderline label explains) and `confidence`: the probability the model gave to its surest mistake,
        P(code) of an extra and 1 - P(code) of a missed code.

    Raises:
        ValueError: The table is faulty or lacks `labels`.
    """
    check_predictions(df, policy)
    need_columns(df, "labels")
    gold, predicted, score = gold_matrix(df, policy), predicted_matrix(df, policy), score_matrix(df, policy)
    missed, extra = gold & ~predicted, predicted & ~gold
    wrong = np.flatnonzero((missed | extra).any(axis=1))
    surest = np.where(missed, 1 - score, np.where(extra, score, 0.0)).max(axis=1)
    codes = np.array(policy.codes, dtype=object)
    found: dict[str, list[Any]] = {name: [] for name in ("missed", "extra", "boundary", "kind")}
    for row, labels, mass in zip(wrong, df["labels"].iloc[wrong], df["outside"].iloc[wrong], strict=True):
        less, more = codes[missed[row]].tolist(), codes[extra[row]].tolist()
        beside = {borderline[label] for label in labels if label in borderline}
        boundary = [code for code in more if code in beside]
        kind = "parse" if mass >= outside else _kind(len(less), len(more), len(boundary))
        for name, value in zip(found, (less, more, boundary, kind), strict=True):
            found[name].append(value)
    index = df.index[wrong]
    new = {name: pd.Series(values, index=index, dtype=object) for name, values in found.items()}
    return df.iloc[wrong].assign(**new, confidence=surest[wrong])


def _kind(missed: int, extra: int, boundary: int) -> str:
    if not missed:
        return "policy boundary" if boundary == extra else "extra"
    if not extra:
        return "missed"
    return "swapped" if missed == extra else "mixed"


def error_table(
    df: pd.DataFrame, policy: Taxonomy, by: Grouping, *, errors: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Counts the kinds of error by group.

    Args:
        df: Predictions table with `labels`, and the column or `text` (for `length`) that `by` reads.
        policy: Its policy.
        by: `category` (gold or predicted codes, "safe" for neither), `label` (source labels), `length` (words), or a
            column: `template_id`, `situation`, `language`. A row counts once in each of its categories or labels.
        errors: What `disagreements` returned, where it was called with other arguments.

    Returns:
        Index `by`; `rows, wrong, error_rate` and one column a kind; most errors first, then in the order of the groups.

    Raises:
        ValueError: The table is faulty or `by` unknown.
    """
    wrong = disagreements(df, policy) if errors is None else errors
    kind = wrong.set_index("id")["kind"].reindex(df["id"]).to_numpy(dtype=object)
    long = pd.DataFrame({by: _groups(df, by), "kind": kind}).explode(by)
    counts = pd.crosstab(long[by], long["kind"]).reindex(columns=list(KINDS), fill_value=0)
    rows = long.groupby(by, observed=True).size()
    counts = counts.reindex(rows.index, fill_value=0)
    table = pd.DataFrame({"rows": rows, "wrong": counts.sum(axis=1)})
    table["error_rate"] = table["wrong"] / table["rows"]
    table = table.join(counts).sort_values("wrong", ascending=False, kind="stable")
    return table.set_axis(table.index.astype(str)).rename_axis(by)


def _groups(df: pd.DataFrame, by: str) -> list[Any]:
    """One group, or list of groups, a row."""
    if by == "category":
        pairs = zip(df["gold"], df["predicted"], strict=True)
        return [sorted({*gold, *predicted}) or ["safe"] for gold, predicted in pairs]
    if by == "label":
        return [sorted(set(labels)) or ["(none)"] for labels in df["labels"]]
    if by == "length":
        need_columns(df, "text")
        names = [f"{low + 1}-{high} words" if high < np.inf else f"over {low} words" for low, high in pairwise(WORDS)]
        return list(pd.cut(df["text"].str.split().str.len(), WORDS, labels=names, include_lowest=True))
    if by not in ("template_id", "situation", "language"):
        raise ValueError(f"by is {by!r}; write category, label, length, template_id, situation or language")
    need_columns(df, by)
    return list(df[by])


def gains(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Tells what each kind of error costs: the score if a category's misses, or its extras, were all mended.

    Args:
        df: Predictions table.
        policy: Its policy.

    Returns:
        One row a category and kind with any error: `code, kind` ("missed" or "extra"), `codes` (how many), `share` of
        all wrong codes, `weighted_f1` once they are mended, and `gain`; greatest gain first. Gains do not add up.

    Raises:
        ValueError: The table is faulty.
    """
    check_predictions(df, policy)
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    tp, fp, fn = (cells.sum(axis=0).astype(float) for cells in (gold & predicted, predicted & ~gold, gold & ~predicted))
    now = float(weighted_f1_of_counts(tp, fp, fn))
    rows = []
    for place, code in enumerate(policy.codes):
        one = np.arange(len(policy)) == place
        mended = {"missed": (fn, (tp + fn * one, fp, fn * ~one)), "extra": (fp, (tp, fp * ~one, fn))}
        for kind, (errors, counts) in mended.items():
            score = float(weighted_f1_of_counts(*counts))
            rows.append({"code": code, "kind": kind, "codes": int(errors[place]), "weighted_f1": score})
    table = pd.DataFrame(rows)
    table = table.assign(share=table["codes"] / max(1, table["codes"].sum()), gain=table["weighted_f1"] - now)
    table = table[table["codes"] > 0].sort_values(["gain", "codes"], ascending=False, kind="stable", ignore_index=True)
    return table[["code", "kind", "codes", "share", "weighted_f1", "gain"]]


def worst(df: pd.DataFrame, policy: Taxonomy, n: int = 20) -> pd.DataFrame:
    """Returns the `n` wrong rows with the surest mistakes, surest first, columns as `disagreements`.

    A guard that is sure and wrong is worth reading first: either the rows need more training data, or the label is
    wrong.
    """
    return disagreements(df, policy).sort_values(["confidence", "id"], ascending=[False, True]).head(n)


def marked_html(text: str, spans: Iterable[Any]) -> str:
    """Renders a text with its spans marked, each followed by its label and code. Everything is escaped.

    Args:
        text: The text.
        spans: `Span` objects or `privacy_mask` entries: `start`, `end`, `label` and, where known, `code`. A span whose
            start is -1 has no place in the text and is left out.

    Returns:
        One `<p>` element.

    Raises:
        ValueError: A span lies outside the text or overlaps another.
    """
    read = [_span(span) for span in spans]
    pieces, done = [], 0
    for start, end, label, code in sorted((span for span in read if span[0] >= 0), key=lambda span: span[:2]):
        if not done <= start < end <= len(text):
            raise ValueError(
                f"span {label} at {start}-{end} overlaps another or leaves the text of {len(text)} characters; "
                "offsets must count characters of this very text"
            )
        tag = html.escape(f"{label} {code}" if code else label)
        pieces += [html.escape(text[done:start]), f"<mark>{html.escape(text[start:end])}<sub>{tag}</sub></mark>"]
        done = end
    return f"<p>{''.join(pieces)}{html.escape(text[done:])}</p>"


def _span(span: Any) -> tuple[int, int, str, str | None]:
    if isinstance(span, Mapping):
        return int(span["start"]), int(span["end"]), str(span["label"]), span.get("code")
    return int(span.start), int(span.end), str(span.label), span.code


def reading_html(errors: pd.DataFrame, spans: Mapping[str, Iterable[Any]]) -> str:
    """Renders rows of `disagreements` or `worst` for reading: kind, gold, answer, confidence, and the marked text.

    Args:
        errors: The rows, with `text`.
        spans: Row id to the spans of its text, as `marked_html` takes them; a row without spans is shown unmarked.

    Raises:
        ValueError: A column is missing or a span does not fit its text.
    """
    need_columns(errors, "id", "text", "gold", "predicted", "kind", "confidence")
    parts = []
    for row in errors.to_dict("records"):
        gold, predicted = (", ".join(row[name]) or "safe" for name in ("gold", "predicted"))
        title = f"{row['id']} · {row['kind']} · gold {gold} · model {predicted} · sure {row['confidence']:.0%}"
        body = marked_html(row["text"], spans.get(row["id"], ()))
        parts.append(f'<div class="{PLAIN}" style="white-space:pre-wrap"><b>{html.escape(title)}</b>{body}</div>')
    return "\n".join(parts)
