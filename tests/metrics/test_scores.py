"""Scores by hand, against scikit-learn, and where there is nothing to measure."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from guard_utils.data.predictions import check_predictions, gold_matrix, predicted_matrix
from guard_utils.metrics.intervals import bootstrap
from guard_utils.metrics.scores import interval_table, multilabel_confusion, per_category, summary
from guard_utils.policy import PII
from tests.metrics.tables import predictions, random_predictions


@pytest.fixture
def small():
    p = np.full((4, 5), 0.2)
    p[:, 0] = [0.9, 0.3, 0.1, 0.6]
    gold = [["S1"], ["S1", "S4"], [], ["S4"]]
    return predictions(gold, [["S1"], ["S4", "S5"], [], ["S1", "S5"]], p, outside=[0.1, 0.0, 0.0, 0.3])


def test_summary_by_hand(small):
    found = summary(small, PII)
    # S1: tp 1 fp 1 fn 1, F1 1/2; S4: tp 1 fp 0 fn 1, F1 2/3; S5: fp 2, no positive.
    assert found["weighted_f1"] == pytest.approx((2 * 1 / 2 + 2 * 2 / 3) / 4)
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2), "averages over categories with positives only"
    assert found["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 3 + 2)), "false alarms of S5 count"
    assert found["subset_accuracy"] == 0.5
    assert found["outside"] == pytest.approx(0.1)
    # p_unsafe 0.9 + / 0.3 + / 0.2 - / 0.6 +
    assert found["binary_f1"] == 1 and found["binary_fpr"] == 0 and found["binary_auprc"] == 1


def test_binary_scores_by_hand():
    df = predictions([["S1"], [], [], ["S2"]], [[], ["S3"], [], ["S1", "S4"]], p_unsafe=[0.4, 0.8, 0.1, 0.9])
    found = summary(df, PII)
    assert found["binary_f1"] == pytest.approx(2 / (2 + 1 + 1)), "the wrong category still flags the prompt"
    assert found["binary_fpr"] == 0.5
    assert found["binary_auprc"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_nothing_to_measure_is_blank_not_zero():
    found = summary(predictions([[], []], [[], ["S1"]]), PII)
    assert all(np.isnan(found[k]) for k in ("weighted_f1", "micro_f1", "macro_f1", "binary_f1", "binary_auprc"))
    assert found["subset_accuracy"] == 0.5 and found["binary_fpr"] == 0.5
    assert np.isnan(summary(predictions([["S1"]], [["S1"]]), PII)["binary_fpr"]), "no safe row"


CODES = st.lists(st.sampled_from(PII.codes), unique=True)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(CODES, CODES), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_scores_are_bounded_and_ignore_the_order_of_rows_and_codes(pairs, random):
    df = predictions([g for g, _ in pairs], [p for _, p in pairs])
    found = summary(df, PII)
    assert all(np.isnan(v) or 0 <= v <= 1 for v in found.values())
    shuffled = df.sample(frac=1, random_state=random.randrange(2**31))
    for column in ("gold", "predicted"):
        shuffled[column] = [random.sample(cell, len(cell)) for cell in shuffled[column]]
    assert summary(shuffled, PII) == pytest.approx(found, nan_ok=True)
    pd.testing.assert_frame_equal(per_category(shuffled, PII), per_category(df, PII))
    perfect = summary(df.assign(predicted=df["gold"]), PII)
    ones = ("weighted_f1", "micro_f1", "macro_f1", "subset_accuracy", "binary_f1")
    assert all(np.isnan(perfect[k]) or perfect[k] == 1 for k in ones)


def test_per_category_by_hand(small):
    table = per_category(small, PII).set_index("code")
    s1, s4, s5 = table.loc["S1"], table.loc["S4"], table.loc["S5"]
    assert [s1[k] for k in ("name", "support", "tp", "fp", "fn")] == ["Name", 2, 1, 1, 1]
    assert [s1[k] for k in ("precision", "recall", "f1")] == [0.5, 0.5, 0.5]
    assert s1["ap"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert s1["auroc"] == pytest.approx(3 / 4)
    assert s4[["tp", "fp", "fn"]].tolist() == [1, 0, 1]
    assert s5["fp"] == 2 and s5[["precision", "recall", "f1", "ap", "auroc"]].isna().all()


def test_a_category_never_predicted_or_never_negative():
    table = per_category(predictions([["S1", "S2"], ["S1"]], [["S1"], ["S1"]]), PII).set_index("code")
    assert np.isnan(table.loc["S2", "precision"]) and table.loc["S2", "f1"] == 0
    assert np.isnan(table.loc["S1", "auroc"]) and table.loc["S1", "ap"] == 1


def test_per_category_agrees_with_scikit_learn_and_summary_with_its_rows():
    df = random_predictions(400)
    table, gold, predicted = per_category(df, PII), gold_matrix(df, PII), predicted_matrix(df, PII)
    for name, score in {"precision": precision_score, "recall": recall_score, "f1": f1_score}.items():
        np.testing.assert_allclose(table[name], score(gold, predicted, average=None))
    found = summary(df, PII)
    for average in ("weighted", "micro", "macro"):
        assert found[f"{average}_f1"] == pytest.approx(f1_score(gold, predicted, average=average))
    assert found["binary_f1"] == pytest.approx(f1_score(gold.any(axis=1), predicted.any(axis=1)))
    assert found["weighted_f1"] == pytest.approx(np.average(table["f1"], weights=table["support"]))
    assert found["macro_f1"] == pytest.approx(table["f1"].mean())


@pytest.mark.parametrize(
    ("gold", "predicted", "cells"),
    [
        ([], [], {("no true label", "no predicted label"): 1}),
        ([], ["S2", "S3"], {("no true label", "S2"): 1, ("no true label", "S3"): 1}),
        (["S1", "S4"], [], {("S1", "no predicted label"): 1, ("S4", "no predicted label"): 1}),
        (["S1", "S4"], ["S1"], {("S1", "S1"): 1, ("S4", "no predicted label"): 1}),
        (["S1", "S4"], ["S1", "S2"], {("S1", "S1"): 1, ("S4", "S2"): 1}),
        (["S1", "S4"], ["S2", "S3"], {(g, p): 1 for g in ("S1", "S4") for p in ("S2", "S3")}),
        (["S1", "S4"], ["S1", "S4"], {("S1", "S1"): 1, ("S4", "S4"): 1}),
        (["S1", "S4"], ["S1", "S4", "S5"], {("S1", "S1"): 1, ("S4", "S4"): 1, ("no true label", "S5"): 1}),
    ],
)
def test_multilabel_confusion_of_one_prompt(gold, predicted, cells):
    table = multilabel_confusion(predictions([gold], [predicted]), PII).stack()
    assert table[table > 0].to_dict() == cells


def test_interval_table_is_text_of_the_bootstrap(small):
    boot = bootstrap(small, PII, resamples=50, cluster=None)
    row = boot.set_index("metric").loc["micro_f1"]
    table = interval_table({"a": boot, "b": boot}, ["micro_f1", "f1_S5"])
    assert table.index.tolist() == ["a", "b"] and table.columns.tolist() == ["micro_f1", "f1_S5"]
    assert table.loc["b", "micro_f1"] == f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    assert table.loc["a", "f1_S5"] == "not measured"
    with pytest.raises(KeyError, match="f9"):
        interval_table({"a": boot}, ["f9"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ["a", "b", "b", "c"]}, "id 'b' stands on more than one row"),
        ({"id": ["a", None, "b", "c"]}, "row 1 has no id"),
        ({"predicted": [[], ["S1"], ["S9"], []]}, r"predicted holds 'S9' on row 2 \(id 'r2'\).*only S1, S2"),
        ({"gold": [[], ["S1", "S1"], [], []]}, r"gold repeats a code on row 1 \(id 'r1'\)"),
        ({"gold": [[], [], [], "S1"]}, r"gold is 'S1' on row 3 .*write a list"),
        ({"gold": [[], None, [], []]}, r"gold is None on row 1"),
        ({"p_S3": [0.1, 1.2, 0.1, 0.1]}, r"p_S3 is 1.2 on row 1 \(id 'r1'\)"),
        ({"p_S3": [0.1, 0.1, -0.1, 0.1]}, "p_S3 is -0.1 on row 2"),
        ({"p_unsafe": [0.1, 0.1, 0.1, np.nan]}, "p_unsafe is nan on row 3"),
        ({"outside": [np.inf, 0.1, 0.1, 0.1]}, "outside is inf on row 0"),
        ({"outside": ["0", "0", "0", "0"]}, "column outside holds .*not numbers"),
    ],
)
@pytest.mark.parametrize("function", [check_predictions, summary, per_category, multilabel_confusion])
def test_bad_input_is_named(small, change, message, function):
    with pytest.raises(ValueError, match=message):
        function(small.assign(**change), PII)


def test_missing_columns_and_rows_are_named(small):
    with pytest.raises(ValueError, match=r"lack the columns \['p_S2', 'outside'\]"):
        check_predictions(small.drop(columns=["p_S2", "outside"]), PII)
    with pytest.raises(ValueError, match="no row"):
        check_predictions(small.iloc[:0], PII)


def test_rounding_and_arrays_are_accepted(small):
    small["p_S1"] = [1 + 1e-9, 0.3, -1e-9, 0.6]
    small["gold"] = [np.array(cell, dtype=object) for cell in small["gold"]]  # as parquet returns them
    assert summary(small, PII)["subset_accuracy"] == 0.5
    assert per_category(small, PII)["ap"].dropna().between(0, 1).all()
