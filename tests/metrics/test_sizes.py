"""Every score and table takes a policy of one to thirty categories."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from guard_utils.metrics import (
    bootstrap,
    by_source_label,
    category_table,
    compare_systems,
    confusion_2x2,
    decide,
    disagreements,
    error_table,
    gains,
    multilabel_confusion,
    per_category,
    precision_recall,
    summary,
    suspicious_labels,
    tune,
)
from guard_utils.policy import Category, Taxonomy

ROWS = 40


def table(policy: Taxonomy, seed: int) -> pd.DataFrame:
    """Random answers whose labels are the codes themselves; every category has a positive and a negative row."""
    random = np.random.default_rng(seed)
    gold = np.random.default_rng(0).random((ROWS, len(policy))) < 0.3
    gold[0], gold[1] = True, False
    p = np.clip(gold * 0.6 + random.random(gold.shape) * 0.5, 0, 1)
    codes = np.array(policy.codes, dtype=object)
    lists = {name: [codes[row].tolist() for row in cells] for name, cells in (("gold", gold), ("predicted", p > 0.55))}
    columns = {f"p_{code}": p[:, i] for i, code in enumerate(policy.codes)}
    ids = [str(row) for row in range(ROWS)]
    facts = {"id": ids, "template_id": ids, "text": ids, "language": "en", "situation": "made", "labels": lists["gold"]}
    return pd.DataFrame(facts | lists | columns | {"p_unsafe": p.max(axis=1), "outside": 0.0})


@pytest.mark.parametrize("size", [1, 2, 5, 14, 30])
def test_every_score_takes_one_to_thirty_categories(size: int) -> None:
    policy = Taxonomy("sizes", tuple(Category(f"Kind {number}") for number in range(size)))
    df, other = table(policy, 1), table(policy, 2)
    gold = np.array([[code in codes for code in policy.codes] for codes in df["gold"]])
    said = np.array([[code in codes for code in policy.codes] for codes in df["predicted"]])
    counts = per_category(df, policy)
    assert counts["tp"].tolist() == (gold & said).sum(axis=0).tolist()
    scores = summary(df, policy)
    assert scores["subset_accuracy"] == pytest.approx((gold == said).all(axis=1).mean())
    hits, wrong = (gold & said).sum(), (gold ^ said).sum()
    assert scores["micro_f1"] == pytest.approx(2 * hits / (2 * hits + wrong))
    cells = confusion_2x2(df, policy)
    assert cells.loc["S1", "fn"] == (gold[:, 0] & ~said[:, 0]).sum() and (cells.sum(axis=1) == ROWS).all()
    assert multilabel_confusion(df, policy).shape == (size + 1, size + 1)
    boot = bootstrap(df, policy, resamples=20)
    value = boot.set_index("metric").loc["weighted_f1", "value"]
    assert value == pytest.approx(scores["weighted_f1"])
    assert len(category_table(df, policy, boot)) == size
    assert compare_systems(df, {"other": other}, policy, resamples=20).loc["other", "ours"] == pytest.approx(value)
    assert all(set(codes) <= set(policy.codes) for codes in decide(df, policy, tune(df, policy))["predicted"])
    assert len(precision_recall(df, policy, "S1")) > 1
    wrong_rows = disagreements(df, policy)
    assert len(wrong_rows) == (gold != said).any(axis=1).sum()
    assert error_table(df, policy, "category")["wrong"].sum() >= len(wrong_rows)
    assert len(gains(df, policy)) <= 2 * size and len(by_source_label(df, policy)) == size * size
    assert set(suspicious_labels(df, policy).columns) >= {"label", "code"}
