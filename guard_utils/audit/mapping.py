"""Mapping errors: a source label mapped to the wrong code, or to none. One finding for all rows of the label.

Does: compare given codes with systems that were not trained on them (a model repeats what it was taught), and turn
accepted findings into corrections. Does not: find single wrong rows (ranking), train or score.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from guard_utils.audit.corrections import Correction
from guard_utils.data.predictions import BoolMatrix, gold_matrix, predicted_matrix
from guard_utils.metrics.errors import suspicious_labels
from guard_utils.policy import Taxonomy, Verdict

WRONG, NEVER = "mapped by mistake", "never mapped"


def label_codes(df: pd.DataFrame, policy: Taxonomy, *, min_rows: int = 5) -> dict[str, tuple[str, ...]]:
    """Reads from `labels` and `gold` of a predictions table which codes each source label stands for.

    Per code the label that goes best with it is taken, its rows are set aside, and the rest is searched again, so a
    title that merely stands beside names gets no code.

    Returns:
        Every source label, sorted, with its codes, ascending; none for a label in fewer than `min_rows` rows.
    """
    silent = df.assign(predicted=[[] for _ in range(len(df))])
    pairs = suspicious_labels(silent, policy, min_rows=min_rows, n=len(df) * len(policy))
    found: dict[str, tuple[str, ...]] = dict.fromkeys(sorted({name for labels in df["labels"] for name in labels}), ())
    return found | {str(label): Verdict.of(group["code"]).codes for label, group in pairs.groupby("label")}


def find_mapping_errors(
    witnesses: Mapping[str, pd.DataFrame], policy: Taxonomy, *, min_rows: int = 10, sure: float = 0.85
) -> pd.DataFrame:
    """Lists source labels on whose rows a witness and the given codes disagree as a rule.

    Args:
        witnesses: Name to predictions table of the same rows, `gold` being the given codes, of systems that were not
            trained on these labels.
        policy: Its policy.
        min_rows: Of a finding.
        sure: A finding is certain where a witness disagrees on at least this share of its rows, and agrees on at least
            this share of the rows elsewhere that could show it wrong.

    Returns:
        One row per finding, certain ones first, then most rows: `label, code, kind` ("mapped by mistake" or "never
        mapped"), `certain, rows, label_codes` (of the label), and both shares: `<name>: objects`, `<name>: reliable`.

    Raises:
        ValueError: There is no witness, or a table is faulty.
    """
    if not witnesses:
        raise ValueError("no witness given; pass the predictions of a system that was not trained on these labels")
    given = next(iter(witnesses.values()))
    meaning = label_codes(given, policy)
    tables = [suspicious_labels(df, policy, min_rows=min_rows, n=len(df) * len(policy)) for df in witnesses.values()]
    found: list[dict[str, object]] = []
    for label, code, side in pd.concat(tables)[["label", "code", "kind"]].drop_duplicates().itertuples(index=False):
        finding = {"label": label, "code": code, "kind": WRONG if side == "missed" else NEVER}
        rows = mapping_error_rows(given, policy, finding, meaning)
        # A label that the code never came with can't have been mapped to it, and the other way round.
        if rows.sum() < min_rows or (code in meaning[label]) != (finding["kind"] == WRONG):
            continue
        shares = {name: _objects_and_reliable(df, policy, finding, rows) for name, df in witnesses.items()}
        finding |= {"certain": any(min(both) >= sure for both in shares.values()), "rows": int(rows.sum())}
        finding |= {"label_codes": ", ".join(meaning[label]) or "none"}
        for name, (objects, reliable) in shares.items():
            finding |= {f"{name}: objects": objects, f"{name}: reliable": reliable}
        found.append(finding)
    columns = ["label", "code", "kind", "certain", "rows", "label_codes"]
    columns += [f"{name}: {what}" for name in witnesses for what in ("objects", "reliable")]
    table = pd.DataFrame(found, columns=columns).astype({"certain": bool})
    return table.sort_values(["certain", "rows", "label"], ascending=[False, False, True], ignore_index=True)


def _objects_and_reliable(
    df: pd.DataFrame, policy: Taxonomy, finding: Mapping[str, object], rows: BoolMatrix
) -> tuple[float, float]:
    """How often a witness disagrees on the rows of a finding, and agrees on comparable rows without its label."""
    place = policy.position(str(finding["code"]))
    given, says = gold_matrix(df, policy)[:, place], predicted_matrix(df, policy)[:, place]
    elsewhere = ~_with_label(df, str(finding["label"])) & (given == (finding["kind"] == WRONG))
    reliable = (says == given)[elsewhere]
    return float((says != given)[rows].mean()), float(reliable.mean()) if len(reliable) else 0.0


def _with_label(df: pd.DataFrame, *labels: str) -> BoolMatrix:
    return np.array([not set(labels).isdisjoint(own) for own in df["labels"]], dtype=bool)


def mapping_error_rows(
    df: pd.DataFrame, policy: Taxonomy, finding: Mapping[str, object], meaning: Mapping[str, tuple[str, ...]]
) -> BoolMatrix:
    """Returns, as bool [rows], which rows a finding would change.

    Mapped by mistake: rows that are given the code and have no other label that stands for it. Never mapped: rows with
    the label that are not given the code.

    Args:
        df: Predictions table with `labels`, `gold` being the given codes.
        policy: Its policy.
        finding: `label, code, kind` of `find_mapping_errors`.
        meaning: What `label_codes` returned.
    """
    label, code = str(finding["label"]), str(finding["code"])
    here, given = _with_label(df, label), gold_matrix(df, policy)[:, policy.position(code)]
    if finding["kind"] == NEVER:
        return here & ~given
    others = [name for name, codes in meaning.items() if code in codes and name != label]
    return here & given & ~_with_label(df, *others)


def mapping_corrections(
    df: pd.DataFrame, policy: Taxonomy, findings: pd.DataFrame, *, reviewer: str
) -> list[Correction]:
    """Turns accepted `findings` (rows of `find_mapping_errors`) into corrections of the rows of any witness's table."""
    meaning = label_codes(df, policy)
    for label, code in zip(findings["label"], findings["code"], strict=True):
        # Two accused labels in one row must not excuse each other.
        meaning[label] = tuple(other for other in meaning.get(label, ()) if other != code)
    found = {}
    for finding in findings.to_dict("records"):
        code, action = str(finding["code"]), "remove" if finding["kind"] == WRONG else "add"
        reason = f"{finding['label']} was {finding['kind']}: {code}"
        for row in df["id"][mapping_error_rows(df, policy, finding, meaning)]:
            found[row, code] = Correction(row, code, action, reason, reviewer)
    return sorted(found.values())
