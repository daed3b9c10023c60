"""Every score and table takes a policy of one to thirty categories."""

import numpy as np
import pandas as pd
import pytest

from guard_utils import metrics
from guard_utils.policy import Category, Taxonomy
from tests.metrics.tables import predictions

ROWS = 40


def table(policy: Taxonomy, seed: int) -> pd.DataFrame:
    """Random answers whose labels are the codes themselves; every category has a positive and a negative row."""
    gold = np.random.default_rng(0).random((ROWS, len(policy))) < 0.3
    gold[0], gold[1] = True, False
    p = np.clip(gold * 0.6 + np.random.default_rng(seed).random(gold.shape) * 0.5, 0, 1)
    names = [str(row) for row in range(ROWS)]
    df = predictions(gold, p=p, policy=policy, template_id=names, text=names, language="en", situation="made")
    return df.assign(labels=df["gold"])


@pytest.mark.parametrize("size", [1, 2, 5, 14, 30])
def test_every_score_takes_one_to_thirty_categories(size: int) -> None:
    policy = Taxonomy("sizes", tuple(Category(f"Kind {number}") for number in range(size)))
    df, other = table(policy, 1), table(policy, 2)
    gold = np.array([[code in codes for code in policy.codes] for codes in df["gold"]])
    said = np.array([[code in codes for code in policy.codes] for codes in df["predicted"]])
    assert metrics.per_category(df, policy)["tp"].tolist() == (gold & said).sum(axis=0).tolist()
    scores = metrics.summary(df, policy)
    assert scores["subset_accuracy"] == pytest.approx((gold == said).all(axis=1).mean())
    assert metrics.multilabel_confusion(df, policy).shape == (size + 1, size + 1)
    boot = metrics.bootstrap(df, policy, resamples=20)
    value = boot.set_index("metric").loc["weighted_f1", "value"]
    assert value == pytest.approx(scores["weighted_f1"])
    compared = metrics.compare_systems(df, {"other": other}, policy, resamples=20)
    assert compared.loc["other", "ours"] == pytest.approx(value)
    decided = metrics.decide(df, policy, metrics.tune(df, policy))
    assert all(set(codes) <= set(policy.codes) for codes in decided["predicted"])
    wrong_rows = metrics.disagreements(df, policy)
    assert len(wrong_rows) == (gold != said).any(axis=1).sum()
    assert metrics.error_table(df, policy, "category")["wrong"].sum() >= len(wrong_rows)
    assert len(metrics.by_source_label(df, policy)) == size * size
    assert set(metrics.suspicious_labels(df, policy).columns) >= {"label", "code"}
