"""The ladder against the single measurements that it is made of."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from guard_utils.data.labels import reference_codes_evaluation
from guard_utils.data.predictions import gold_matrix, predicted_matrix
from guard_utils.metrics.intervals import bootstrap, ladder
from guard_utils.metrics.reference import rescore
from guard_utils.metrics.scores import summary
from guard_utils.metrics.thresholds import Thresholds, decide
from guard_utils.policy import PII
from tests.metrics.tables import random_predictions

LABELS = {"S1": "FIRSTNAME", "S2": "IPV4", "S3": "PHONENUMBER", "S4": "ZIPCODE", "S5": "CREDITCARDNUMBER"}


def reference_gold(df):
    """By the reference's rules a post code is an IP address too, and a phone number is nothing."""
    return [reference_codes_evaluation([LABELS[code] for code in codes]) for codes in df["gold"]]


def by_hand(**values):
    return Thresholds(dict.fromkeys(PII.codes, 0.5) | values, "recall >= 0.9")


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


def test_other_rows_or_codes_are_named():
    df = random_predictions(20)
    with pytest.raises(ValueError, match=r"values \(19\).*index \(20\)"):
        ladder(df, PII, reference_gold=reference_gold(df)[:-1], thresholds=by_hand())
    with pytest.raises(ValueError, match="gold holds 'S7' on row 0"):
        ladder(df, PII, reference_gold=[["S7"]] * 20, thresholds=by_hand())
