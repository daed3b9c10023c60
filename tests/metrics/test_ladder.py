from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from guard_utils.metrics.ladder import ladder, reference_codes
from guard_utils.metrics.reference import rescore
from guard_utils.metrics.scores import bootstrap, gold_matrix, predicted_matrix, summary
from guard_utils.metrics.thresholds import Thresholds, decide
from guard_utils.policy import PII

LABELS = {"S1": "FIRSTNAME", "S2": "IPV4", "S3": "PHONENUMBER", "S4": "ZIPCODE", "S5": "CREDITCARDNUMBER"}


def make_table(gold, predicted):
    p = np.array([[0.9 if code in row else 0.3 for code in PII.codes] for row in predicted])
    table = {"id": [f"r{i}" for i in range(len(gold))], "gold": gold, "predicted": predicted, "outside": 0.0}
    table |= {"labels": [[LABELS[code] for code in row] for row in gold], "p_unsafe": p.max(axis=1)}
    table |= {f"p_{code}": p[:, i] for i, code in enumerate(PII.codes)}
    return pd.DataFrame(table | {"template_id": [f"t{i % 7}" for i in range(len(gold))]})


def random_table(rows=300):
    r = np.random.default_rng(0)
    gold = r.random((rows, 5)) < [0.4, 0.2, 0.25, 0.35, 0.1]
    predicted = gold ^ (r.random((rows, 5)) < 0.08)
    return make_table(*([[PII.codes[j] for j in np.flatnonzero(row)] for row in m] for m in (gold, predicted)))


def test_reference_codes_show_the_post_code_and_phone_bugs():
    df = make_table([["S4"], ["S3"], ["S1", "S4"], []], [[], [], [], []])
    assert reference_codes(df) == [["S2", "S4"], [], ["S1", "S2", "S4"], []]
    with pytest.raises(ValueError, match=r"lack the columns \['labels'\]"):
        reference_codes(df.drop(columns="labels"))


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
    df = make_table(gold, predicted)
    thresholds = Thresholds(PII.codes, (0.5, 0.5, 0.5, 0.5, 0.95), "by hand", 0)
    table = ladder(df, PII, reference_gold=reference_codes(df), thresholds=thresholds, resamples=10)
    # rows 0, 3, 4 lose a wrong S2, rows 1, 8 gain their S3; rows 3, 4, 7 are misread; rows 3, 4, 6 lose S5
    assert table["rows_moved"].tolist() == [0, 5, 3, 3]


def test_values_are_those_of_the_single_measurements():
    df = random_table()
    old = reference_codes(df)
    thresholds = Thresholds(PII.codes, (0.2, 0.5, 0.5, 0.5, 0.5), "recall >= 0.9", 0)
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
    df = random_table()
    turned = df.iloc[::-1]
    first = ladder(df, PII, reference_gold=reference_codes(df), resamples=30)
    second = ladder(turned, PII, reference_gold=reference_codes(turned), resamples=30)
    pd.testing.assert_frame_equal(first, second)
    assert len(first) == 3


def test_other_rows_or_codes_are_named():
    df = random_table(20)
    with pytest.raises(ValueError, match="reference_gold has 19 lists for 20 rows"):
        ladder(df, PII, reference_gold=reference_codes(df)[:-1])
    with pytest.raises(ValueError, match="gold holds 'S7' on row 0"):
        ladder(df, PII, reference_gold=[["S7"]] * 20)
