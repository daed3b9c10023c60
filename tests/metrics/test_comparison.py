from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from guard_utils.metrics.comparison import against, category_table, interval_table
from guard_utils.metrics.intervals import bootstrap, holm, mcnemar, paired_bootstrap
from guard_utils.policy import PII


def system(error, rows=200, seed=0):
    """A system that gets each code of the same gold wrong with the given probability; S5 never occurs."""
    r = np.random.default_rng(0)
    gold = r.random((rows, 5)) < [0.4, 0.3, 0.3, 0.3, 0.0]
    said = gold ^ (np.random.default_rng(seed).random((rows, 5)) < error) if error else gold
    said[:, 4] = False
    lists = [[[PII.codes[j] for j in np.flatnonzero(row)] for row in matrix] for matrix in (gold, said)]
    p = np.where(said, 0.9, 0.1)
    table = {"id": [f"r{i}" for i in range(rows)], "gold": lists[0], "predicted": lists[1], "outside": 0.0}
    table |= {f"p_{code}": p[:, i] for i, code in enumerate(PII.codes)} | {"p_unsafe": p.max(axis=1)}
    return pd.DataFrame(table | {"template_id": [f"t{i % 40}" for i in range(rows)]})


def test_interval_table_is_text_of_the_bootstrap():
    boot = bootstrap(system(0.1, seed=1), PII, resamples=50)
    row = boot.set_index("metric").loc["micro_f1"]
    table = interval_table({"a": boot, "b": boot}, ["micro_f1", "f1_S5"])
    assert table.index.tolist() == ["a", "b"] and table.columns.tolist() == ["micro_f1", "f1_S5"]
    assert table.loc["b", "micro_f1"] == f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    assert table.loc["a", "f1_S5"] == "not measured"
    with pytest.raises(ValueError, match=r"no metrics \['f9'\]"):
        interval_table({"a": boot}, ["f9"])


def test_category_table_tells_support_templates_and_why_a_cell_is_blank():
    df = system(0.1, seed=1)
    table = category_table(df, PII, bootstrap(df, PII, resamples=50), metrics=("f1",))
    assert table.columns.tolist() == ["name", "support", "templates", "f1", "note"]
    has = df["gold"].map(lambda codes: "S1" in codes)
    assert table.loc["S1", "support"] == has.sum()
    assert table.loc["S1", "templates"] == df["template_id"][has].nunique()
    assert table.loc["S5", "f1"] == "not measured" and "no positive" in table.loc["S5", "note"]
    four = PII.select(PII.codes[:4])
    rest = df.drop(columns="template_id")
    plain = category_table(rest, four, bootstrap(rest, four, resamples=5, cluster=None), metrics=("recall",))
    assert plain.columns.tolist() == ["name", "support", "recall"]


def test_against_joins_the_paired_tests():
    ours, others = system(0.02, seed=1), {"good": system(0.03, seed=2), "bad": system(0.3, seed=3)}
    table = against(ours, others, PII, resamples=200)
    assert table.index.tolist() == ["good", "bad"]
    paired = paired_bootstrap(ours, others["bad"], PII, resamples=200).set_index("metric").loc["weighted_f1"]
    assert table.loc["bad", ["ours", "theirs", "difference", "low", "high"]].tolist() == pytest.approx(
        paired[["a", "b", "difference", "low", "high"]].tolist()
    )
    exact = [mcnemar(ours, other, PII).set_index("what").loc["exact match"] for other in others.values()]
    assert table["ours_only"].tolist() == [row["a_only"] for row in exact]
    assert table["theirs_only"].tolist() == [row["b_only"] for row in exact]
    assert table["p_holm"].tolist() == pytest.approx(holm([row["p"] for row in exact]).tolist(), abs=0)
    assert table.loc["bad", "low"] > 0 and table.loc["bad", "p_holm"] < 0.001 < table.loc["good", "p_holm"]


def test_against_takes_any_metric_and_names_an_unknown_one():
    ours, other = system(0.0), {"x": system(0.1, seed=2)}
    assert against(ours, other, PII, metric="subset_accuracy", resamples=20).loc["x", "ours"] == 1
    with pytest.raises(ValueError, match="no metric 'f9'; name one of weighted_f1"):
        against(ours, other, PII, metric="f9", resamples=2)
    with pytest.raises(ValueError, match="same rows"):
        against(ours.head(10), other, PII, resamples=2)
