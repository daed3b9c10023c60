"""Wrong labels, found: a source label that is mapped wrongly on all its rows, and single rows, ranked for a reader.

Mapping errors come first: codes are compared with a system that was not trained on them, as a model repeats what it was
taught. Then a model that has not seen a row doubts its codes (cleanlab's label quality). Does not: train or score a
guard, or apply corrections.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class
from sklearn.model_selection import StratifiedGroupKFold

from guard_utils.audit.changes import Correction
from guard_utils.data.examples import Example
from guard_utils.data.predictions import BoolMatrix, check_predictions, gold_matrix, predicted_matrix, score_matrix
from guard_utils.metrics.errors import suspicious_labels
from guard_utils.policy import Taxonomy, Verdict

MISTAKE = "mapped by mistake"
KINDS = {"missed": MISTAKE, "extra": "never mapped"}
"""What a label is suspected of where a witness misses a given code, or reports one that is not given."""


def label_codes(df: pd.DataFrame, policy: Taxonomy) -> dict[str, tuple[str, ...]]:
    """Reads from `labels` and `gold` which codes each source label, in sorted order, stands for.

    A label in fewer than five rows, or one that merely stands beside another, has none; see `suspicious_labels`.
    """
    pairs = suspicious_labels(df.assign(predicted=[[]] * len(df)), policy, min_rows=5)
    found: dict[str, tuple[str, ...]] = dict.fromkeys(sorted({name for labels in df["labels"] for name in labels}), ())
    return found | {str(label): Verdict.of(group["code"]).codes for label, group in pairs.groupby("label")}


def find_mapping_errors(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Lists source labels on whose rows a witness and the given codes disagree as a rule.

    The table is of a witness that was not trained on these labels, `gold` being the given codes.

    Returns:
        Findings of ten rows or more, certain ones first, then most rows: `label, code, kind` ("mapped by mistake" or
        "never mapped"), `certain` (both shares are at least 0.85), `rows, label_codes` (of the label), `objects` (share
        of these rows on which the witness disagrees) and `reliable` (share on which it agrees of the rows elsewhere
        that could show it wrong).
    """
    meaning = label_codes(df, policy)
    gold, predicted = gold_matrix(df, policy), predicted_matrix(df, policy)
    found = []
    for label, code, side, *_ in suspicious_labels(df, policy).itertuples(index=False):
        place, mistake = policy.position(code), side == "missed"
        given, agrees = gold[:, place], gold[:, place] == predicted[:, place]
        rows = _error_rows(df, given, label, code, mistake, meaning)
        # A label that the code never came with can't have been mapped to it, and the other way round.
        if rows.sum() >= 10 and (code in meaning[label]) == mistake:
            elsewhere = agrees[~_with_label(df, label) & (given == mistake)]
            shares = (~agrees)[rows].mean(), elsewhere.sum() / max(1, len(elsewhere))
            codes = ", ".join(meaning[label]) or "none"
            found.append((label, code, KINDS[side], min(shares) >= 0.85, rows.sum(), codes, *shares))
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


Model = Callable[[Sequence[Example], Sequence[Example], Taxonomy, int], pd.DataFrame]
"""Trains on the first examples and returns a predictions table of the second, such as `tfidf`."""


def out_of_fold(
    examples: Sequence[Example], policy: Taxonomy, model: Model, *, folds: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Scores each example with one of `folds` models that were trained on other templates (`template_id`).

    Templates are dealt to the folds so that the rarest codes are spread evenly. The table is in the examples' order.
    """
    groups = [example.template_id for example in examples]
    if not 2 <= folds <= len(set(groups)):
        raise ValueError(f"folds is {folds}; take at least 2 and at most {len(set(groups))}, the number of templates")
    given = np.array([[code in example.codes for code in policy.codes] for example in examples])
    _check_both_sides(given, policy)
    counts = dict(zip(policy.codes, given.sum(axis=0).tolist(), strict=True))
    rarest = [min(example.codes, key=lambda code: counts[code], default="safe") for example in examples]
    tables = []
    for train, held_out in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(groups, rarest, groups):
        table = model([examples[i] for i in train], [examples[i] for i in held_out], policy, seed)
        tables.append(table.set_axis(held_out))
    return pd.concat(tables).sort_index()


def _check_both_sides(given: BoolMatrix, policy: Taxonomy) -> None:
    codes = ", ".join(code for code, mean in zip(policy.codes, given.mean(axis=0), strict=True) if mean in (0, 1))
    if codes:
        raise ValueError(f"{codes} is given to no row or to all: was a label never mapped? See find_mapping_errors")


def rank_label_issues(df: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Ranks every (row, code) pair by how much an out-of-sample model doubts it, most doubtful first.

    Columns are `id, code, action` ("add" where the code is not given, else "remove"), `p` (the model's probability of
    the code) and `quality` (0 to 1): cleanlab's label quality, adjusted for how sure the model usually is of a category
    (Kuan and Mueller 2022; Thyagarajan and others 2022, https://arxiv.org/abs/2211.13895).
    """
    check_predictions(df, policy)
    given, p = gold_matrix(df, policy), score_matrix(df, policy)
    _check_both_sides(given, policy)
    labels = [np.flatnonzero(row).tolist() for row in given]
    pairs = {
        "id": np.repeat(df["id"].to_numpy(), len(policy)),
        "code": np.tile(policy.codes, len(df)),
        "action": np.where(given, "remove", "add").ravel(),
        "p": p.ravel(),
        "quality": get_label_quality_scores_per_class(labels, p, adjust_pred_probs=True).ravel(),
    }
    return pd.DataFrame(pairs).sort_values(["quality", "id", "code"], ignore_index=True)
