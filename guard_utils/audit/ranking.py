"""Single wrong labels: probabilities from a model that has not seen the row, a ranking to review, a careful decision.

Does: out-of-fold scores by template, cleanlab's label quality, decisions without a reader. Does not: find mapping
errors (`mapping`; correct them first, a model repeats what it was taught) or apply corrections.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pandas as pd
from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class
from sklearn.model_selection import StratifiedGroupKFold

from guard_utils.audit.corrections import Correction
from guard_utils.data.examples import Example
from guard_utils.data.predictions import BoolMatrix, check_predictions, gold_matrix, score_matrix
from guard_utils.policy import Taxonomy

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


def automatic_corrections(ranked: pd.DataFrame, *, quality: float = 0.1) -> list[Correction]:
    """Decides without a reader the pairs where the model says the opposite and label quality is below `quality`."""
    opposite = np.where(ranked["action"] == "add", ranked["p"], 1 - ranked["p"]) > 0.5
    return [
        Correction(row.id, row.code, row.action, f"the model disagrees, label quality {row.quality:.3f}", "automatic")
        for row in ranked[opposite & (ranked["quality"] < quality)].itertuples()
    ]


def undecided_rows(ranked: pd.DataFrame, corrections: Collection[Correction], *, quality: float = 0.4) -> set[str]:
    """Returns ids of rows to set aside until someone reads them: a code may be missing, and nobody decided.

    A missing code teaches silence, and there are plenty of other rows; a code too many is rarer and costs less.
    """
    done = {(item.id, item.code) for item in corrections}
    doubtful = ranked[(ranked["quality"] < quality) & (ranked["action"] == "add")]
    return {row.id for row in doubtful.itertuples() if (row.id, row.code) not in done}
