"""Ladder and recovery: by hand, and against the single measurements that they are made of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from guard_utils.data.labels import reference_codes_evaluation
from guard_utils.data.predictions import gold_matrix, predicted_matrix
from guard_utils.metrics.intervals import bootstrap, paired_bootstrap
from guard_utils.metrics.reference import rescore
from guard_utils.metrics.scores import summary
from guard_utils.metrics.steps import ladder, recovery
from guard_utils.metrics.thresholds import Thresholds, decide
from guard_utils.policy import PII
from tests.metrics.tables import predictions, random_predictions

LABELS = {"S1": "FIRSTNAME", "S2": "IPV4", "S3": "PHONENUMBER", "S4": "ZIPCODE", "S5": "CREDITCARDNUMBER"}


def reference_gold(df):
    """By the reference's rules a post code is an IP address too, and a phone number is nothing."""
    return [reference_codes_evaluation([LABELS[code] for code in codes]) for codes in df["gold"]]


def by_hand(**values):
    return Thresholds(dict.fromkeys(PII.codes, 0.5) | values, "recall >= 0.9")


def test_rows_moved_by_hand():
    rows = [
        (["S4"], ["S4"]),  # right
        (["S3"], ["S3"]),  # right
        (["S1"], ["S1"]),  # right
        (["S1", "S4"], ["S4", "S5"]),  # the right S4 is shifted
        (["S4"], ["S1", "S5"]),  # the missed S4 is lost in the cut
        ([], []),  # right
        ([], ["S5"]),  # an extra where sets and pairs agree
        (["S1"], ["S1", "S2"]),  # S2_M in the truth
        (["S1", "S3"], ["S1"]),  # a miss where sets and pairs agree
    ]
    gold, predicted = (list(column) for column in zip(*rows, strict=True))
    df = predictions(gold, predicted, template_id=[f"t{i % 7}" for i in range(len(rows))])
    table = ladder(df, PII, reference_gold=reference_gold(df), thresholds=by_hand(S5=0.95), resamples=10)
    # rows 0, 3, 4 lose a wrong S2, rows 1, 8 gain their S3; rows 3, 4, 7 are misread; rows 3, 4, 6 lose S5
    assert table["rows_moved"].tolist() == [0, 5, 3, 3]


def test_values_are_those_of_the_single_measurements():
    df, thresholds = random_predictions(), by_hand(S1=0.2)
    old = reference_gold(df)
    table = ladder(df, PII, reference_gold=old, thresholds=thresholds, resamples=200)
    tuned = decide(df, PII, thresholds)
    expected = [
        rescore(df.assign(gold=old)).weighted_f1,
        rescore(df).weighted_f1,
        summary(df, PII)["weighted_f1"],
        f1_score(gold_matrix(df, PII), predicted_matrix(tuned, PII), average="weighted"),
    ]
    np.testing.assert_allclose(table["weighted_f1"], expected, atol=1e-12)
    np.testing.assert_allclose(table["change"].iloc[1:], np.diff(expected), atol=1e-12)
    assert table.loc[0, ["change", "change_low", "change_high"]].isna().all()
    assert table["step"].iloc[3] == "+ thresholds tuned for recall >= 0.9"
    assert (table["low"] < table["weighted_f1"]).all() and (table["weighted_f1"] < table["high"]).all()
    assert (table["change_low"].iloc[1:] <= table["change_high"].iloc[1:]).all() and table["change_low"].iloc[1] > 0

    interval = bootstrap(df, PII, resamples=200).set_index("metric").loc["weighted_f1"]
    assert table.loc[2, ["low", "high"]].tolist() == pytest.approx([interval["low"], interval["high"]])


def test_order_of_rows_and_missing_thresholds():
    df = random_predictions()
    turned = df.iloc[::-1]
    first, second = (ladder(d, PII, reference_gold=reference_gold(d), resamples=30) for d in (df, turned))
    pd.testing.assert_frame_equal(first, second)
    assert len(first) == 3


def test_other_rows_or_codes_are_named():
    df = random_predictions(20)
    with pytest.raises(ValueError, match=r"values \(19\).*index \(20\)"):
        ladder(df, PII, reference_gold=reference_gold(df)[:-1])
    with pytest.raises(ValueError, match="gold holds 'S7' on row 0"):
        ladder(df, PII, reference_gold=[["S7"]] * 20)


def test_recovery_agrees_with_the_scores_it_is_made_of():
    noisy, audited, clean = (random_predictions(noise=noise) for noise in (3, 2, 1))
    found = recovery({"noisy": [noisy], "audited": [audited], "clean": [clean]}, PII, resamples=300)
    scores = [summary(df, PII)["weighted_f1"] for df in (noisy, audited, clean)]
    assert found.steps["weighted_f1"].tolist() == pytest.approx(scores)
    assert found.recovered.value == pytest.approx((scores[1] - scores[0]) / (scores[2] - scores[0]))
    assert found.recovered.low < found.recovered.value < found.recovered.high
    paired = paired_bootstrap(audited, noisy, PII, resamples=300).set_index("metric").loc["weighted_f1"]
    change = found.steps.loc[1, ["change", "change_low", "change_high"]].astype(float).tolist()
    assert change == pytest.approx(paired[["difference", "low", "high"]].tolist())
    moved = sum(a != b for a, b in zip(noisy["predicted"], audited["predicted"], strict=True))
    assert found.steps["rows_moved"].tolist()[:2] == [0, moved]


def test_all_and_nothing_recovered():
    noisy, clean = random_predictions(noise=3), random_predictions(noise=1)
    for audited, share in ((clean, 1.0), (noisy, 0.0)):
        found = recovery({"noisy": [noisy], "audited": [audited], "clean": [clean]}, PII, resamples=50).recovered
        assert (found.value, found.low, found.high) == pytest.approx((share,) * 3)
    nothing_lost = recovery({"a": [clean], "b": [clean], "c": [clean]}, PII, resamples=50).recovered
    assert np.isnan(nothing_lost.value)


def test_seeds_are_averaged_and_one_table_may_stand_for_all():
    noisy, audited = ([random_predictions(noise=n + seed / 10) for seed in range(3)] for n in (3, 2))
    found = recovery({"noisy": noisy, "audited": audited, "clean": [random_predictions(noise=1)]}, PII, resamples=50)
    assert found.seeds.shape == (3, 3) and found.seeds["clean"].nunique() == 1
    assert found.seeds["noisy"].tolist() == pytest.approx([summary(df, PII)["weighted_f1"] for df in noisy])
    assert found.steps["weighted_f1"].tolist() == pytest.approx(found.seeds.mean().tolist())


def test_versions_that_do_not_fit_are_refused():
    df = random_predictions(40)
    for versions in (
        {"noisy": [df], "clean": [df]},
        {"a": [df] * 2, "b": [df] * 3, "c": [df]},
        {"a": [], "b": [], "c": []},
    ):
        with pytest.raises(ValueError, match="three or more"):
            recovery(versions, PII)
    with pytest.raises(ValueError, match="ids"):
        recovery({"a": [df], "b": [df.head(9)], "c": [df]}, PII)
