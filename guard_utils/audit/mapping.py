"""Systematic faults of labels: a source label mapped to the wrong code, or never mapped, one finding each.

A model trained on a fault repeats it, so only a witness who learned from other labels, or from none, can object to it.
A witness is trusted as far as it knows the category elsewhere: one that misses most addresses can't tell whether a city
is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from guard_utils.audit.corrections import Correction
from guard_utils.data.examples import Example
from guard_utils.data.predictions import BoolMatrix, gold_matrix, predicted_matrix, predictions_table
from guard_utils.metrics.associations import suspicious_labels
from guard_utils.policy import Taxonomy, Verdict

WRONG, NEVER = "mapped by mistake", "never mapped"
Tied = Mapping[str, tuple[str, ...]]


def given_table(examples: Sequence[Example], policy: Taxonomy) -> pd.DataFrame:
    """Returns the predictions table of a system that never reports anything: `gold` and `labels` are what matters."""
    return predictions_table(examples, policy, np.zeros((len(examples), len(policy))), [()] * len(examples), 0.0)


def tied_codes(df: pd.DataFrame, policy: Taxonomy, *, min_rows: int = 5) -> dict[str, tuple[str, ...]]:
    """Reads from the rows what each source label seems to mean: the codes that come with it.

    For each code the label that goes best with it is taken, its rows are set aside, and the rest is searched again, so
    a title that merely stands beside names is tied to nothing.

    Args:
        df: Predictions table with `labels`; only they and `gold` are read.
        policy: Its policy.
        min_rows: A label that stands in fewer rows is tied to nothing.

    Returns:
        Every source label, sorted, with its codes, ascending.
    """
    silent = df.assign(predicted=[[] for _ in range(len(df))])
    pairs = suspicious_labels(silent, policy, min_rows=min_rows, n=len(df) * len(policy))
    tied: dict[str, tuple[str, ...]] = dict.fromkeys(sorted({name for labels in df["labels"] for name in labels}), ())
    return tied | {str(label): Verdict.of(group["code"]).codes for label, group in pairs.groupby("label")}


def find_faults(
    witnesses: Mapping[str, pd.DataFrame], policy: Taxonomy, *, min_rows: int = 10, sure: float = 0.85
) -> pd.DataFrame:
    """Accuses source labels on which a witness and the given codes disagree as a rule.

    Args:
        witnesses: Name to predictions table of the same rows, `gold` being the given codes. Untrained systems, a guard
            of another data set: whoever has not learned from these labels.
        policy: Its policy.
        min_rows: A label counts from this many rows on.
        sure: A finding is certain where a witness disagrees on at least this share of the label's rows, and agrees with
            the given codes on at least this share of the rows elsewhere that could show it wrong.

    Returns:
        One row a finding, certain ones first, then most rows: `label, code, kind` ("mapped by mistake" or "never
        mapped"), `certain, rows, tied` (all codes that come with the label), and for each witness `<name>: objects`
        (share of the label's rows) and `<name>: reliable` (share elsewhere).

    Raises:
        ValueError: There is no witness, or a table is faulty.
    """
    if not witnesses:
        raise ValueError("no witness given; pass the predictions of a system that was not trained on these labels")
    tied = tied_codes(next(iter(witnesses.values())), policy)
    tables = [suspicious_labels(df, policy, min_rows=min_rows, n=len(df) * len(policy)) for df in witnesses.values()]
    accused = pd.concat(tables)[["label", "code", "kind"]].drop_duplicates()
    found = []
    for label, code, side in accused.itertuples(index=False):
        kind = WRONG if side == "missed" else NEVER
        # A label that the code never came with can't have been mapped to it, and the other way round.
        if (code in tied[label]) == (kind == WRONG):
            found.append({"label": label, "code": code, "kind": kind, "tied": ", ".join(tied[label]) or "none"})
    for finding in found:
        seen = {name: _heard(df, policy, finding, tied) for name, df in witnesses.items()}
        rows = fault_rows(next(iter(witnesses.values())), policy, finding, tied)
        finding |= {f"{name}: {what}": share for name, heard in seen.items() for what, share in heard.items()}
        finding |= {"rows": int(rows.sum()), "certain": any(min(heard.values()) >= sure for heard in seen.values())}
    columns = ["label", "code", "kind", "certain", "rows", "tied"]
    columns += [f"{name}: {what}" for name in witnesses for what in ("objects", "reliable")]
    table = pd.DataFrame([item for item in found if item["rows"] >= min_rows], columns=columns).astype(
        {"certain": bool}
    )
    return table.sort_values(["certain", "rows", "label"], ascending=[False, False, True], ignore_index=True)


def _present(df: pd.DataFrame, labels: set[str]) -> BoolMatrix:
    return np.array([not labels.isdisjoint(own) for own in df["labels"]], dtype=bool)


def fault_rows(df: pd.DataFrame, policy: Taxonomy, finding: Mapping[str, object], tied: Tied) -> BoolMatrix:
    """Tells which rows a finding would change.

    Args:
        df: Predictions table with `labels`, `gold` being the given codes.
        policy: Its policy.
        finding: A row of `find_faults`: `label, code, kind`.
        tied: What `tied_codes` returned.

    Returns:
        Bool [rows]. Mapped by mistake: rows that are given the code and have no other label that comes with it. Never
        mapped: rows with the label that are not given the code.
    """
    label, code = str(finding["label"]), str(finding["code"])
    here, given = _present(df, {label}), gold_matrix(df, policy)[:, policy.position(code)]
    if finding["kind"] == NEVER:
        return here & ~given
    others = {name for name, codes in tied.items() if code in codes and name != label}
    return here & given & ~_present(df, others)


def _heard(df: pd.DataFrame, policy: Taxonomy, finding: Mapping[str, object], tied: Tied) -> dict[str, float]:
    """How often a witness objects on the rows of a finding, and how often it agrees on comparable rows elsewhere."""
    place = policy.position(str(finding["code"]))
    given, says = gold_matrix(df, policy)[:, place], predicted_matrix(df, policy)[:, place]
    here, wrong = _present(df, {str(finding["label"])}), finding["kind"] == WRONG
    rows = fault_rows(df, policy, finding, tied)
    elsewhere = ~here & (given if wrong else ~given)
    shares = {"objects": (says != given)[rows], "reliable": (says == given)[elsewhere]}
    return {name: float(hits.mean()) if len(hits) else 0.0 for name, hits in shares.items()}


def fault_corrections(df: pd.DataFrame, policy: Taxonomy, findings: pd.DataFrame, *, reviewer: str) -> list[Correction]:
    """Turns accepted findings into corrections, one for each of their rows.

    Args:
        df: The table that the findings are about, of any witness.
        policy: Its policy.
        findings: The accepted rows of `find_faults`.
        reviewer: Who accepted them.
    """
    tied, accused = tied_codes(df, policy), set(zip(findings["label"], findings["code"], strict=True))
    # An accused label is no excuse for a code that another accused label brought.
    held = {label: tuple(code for code in codes if (label, code) not in accused) for label, codes in tied.items()}
    found = []
    for finding in findings.to_dict("records"):
        action = "remove" if finding["kind"] == WRONG else "add"
        reason = f"{finding['label']} was {finding['kind']}: {finding['code']}"
        rows = df["id"][fault_rows(df, policy, finding, held)]
        found += [Correction(row, str(finding["code"]), action, reason, reviewer) for row in rows]
    return sorted({(item.id, item.code): item for item in found}.values())
