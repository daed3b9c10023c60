"""Thresholds by hand and against every other cut."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from guard_utils.metrics.scores import per_category
from guard_utils.metrics.thresholds import decide, tune
from guard_utils.policy import LLAMA_GUARD_3, PII, Category, Taxonomy
from tests.metrics.tables import predictions

ONE = Taxonomy("one", (Category("A"),))


def one_table(gold, p):
    return predictions(np.array(gold, dtype=bool)[:, None], p=np.array(p)[:, None], policy=ONE)


def test_decide_reports_codes_that_reach_their_threshold():
    df = predictions([[]], p=np.array([[0.3, 0.31, 0.9, 0.29, 0.0]]))
    decided = decide(df, PII, {"S1": 0.3, "S2": 0.4, "S3": 0.9, "S4": 0.3, "S5": 0.1})
    assert decided["predicted"].tolist() == [["S1", "S3"]]
    assert df["predicted"].tolist() == [["S3"]], "the table passed in stays"
    pd.testing.assert_frame_equal(decided.drop(columns="predicted"), df.drop(columns="predicted"))


def test_tune_by_hand():
    # falling scores: + + - + -   cuts' F1: 2/4  4/5  4/6  6/7  6/8 -> after the fourth, half-way between 0.2 and 0.1
    df = one_table([1, 1, 0, 1, 0], [0.9, 0.8, 0.4, 0.2, 0.1])
    assert tune(df, ONE, "f1")["S1"] == pytest.approx(0.15)
    # recall >= 0.6: two of three positives; best precision at the cut between 0.8 and 0.4
    assert tune(df, ONE, "recall", bound=0.6)["S1"] == pytest.approx(0.6)
    # one of the two safe rows may be called unsafe, or none
    assert tune(df, ONE, "fpr", bound=0.5)["S1"] == pytest.approx(0.25)
    assert tune(df, ONE, "fpr", bound=0.49)["S1"] == pytest.approx(0.7)
    assert tune(df, ONE, "fpr", bound=1)["S1"] == 0
    assert tune(one_table([1, 1], [0.9, 0.8]), ONE, "fpr")["S1"] == 0.5


def test_neighbouring_floats_are_told_apart():
    low = np.nextafter(1, 0)
    df = one_table([1, 0, 0], [1.0, low, np.nextafter(low, 0)])
    assert per_category(decide(df, ONE, tune(df, ONE)), ONE).loc[0, "f1"] == 1
    df = one_table([0, 1, 0], [1.0, low, np.nextafter(low, 0)])
    assert per_category(decide(df, ONE, tune(df, ONE)), ONE).loc[0, "fp"] == 1


def test_equally_good_cuts_go_to_the_one_nearest_a_half():
    # F1 2/3 after one and after four of six; the cuts are 0.875 and 0.6
    df = one_table([1, 0, 0, 1, 0, 0], [0.95, 0.8, 0.75, 0.7, 0.5, 0.05])
    assert tune(df, ONE, "f1")["S1"] == pytest.approx(0.6)
    df = one_table([1, 0, 0, 1, 0, 0], [0.6, 0.5, 0.4, 0.2, 0.1, 0.05])
    assert tune(df, ONE, "f1")["S1"] == pytest.approx(0.55)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=30), st.floats(0.1, 1))
def test_no_other_threshold_is_better_on_the_tuning_rows(rows, wanted):
    gold, p = np.array([g for g, _ in rows]), np.array([s / 20 for _, s in rows])
    df = one_table(gold, p)
    best = per_category(decide(df, ONE, tune(df, ONE, "f1")), ONE).loc[0, "f1"]
    recall = per_category(decide(df, ONE, tune(df, ONE, "recall", bound=wanted)), ONE).loc[0, "recall"]
    if not gold.any():
        assert tune(df, ONE, "f1") == {"S1": 0.5}, "nothing to tune on"
        return
    assert recall >= wanted - 1e-12
    called = decide(df, ONE, tune(df, ONE, "fpr", bound=wanted))["predicted"].map(len).to_numpy()
    assert gold.all() or called[~gold].mean() <= wanted or p[~gold].max() == 1
    assert best == pytest.approx(max(f1_score(gold, p >= cut) for cut in np.unique(p)))


def test_bad_arguments_are_named():
    df = one_table([1, 0], [0.9, 0.1])
    with pytest.raises(ValueError, match="objective is 'f3'"):
        tune(df, ONE, "f3")
    with pytest.raises(ValueError, match="bound is 95"):
        tune(df, ONE, "recall", bound=95)
    with pytest.raises(ValueError, match=r"thresholds are for .*S14.*tune them anew"):
        decide(df, ONE, dict.fromkeys(LLAMA_GUARD_3.codes, 0.5))
    with pytest.raises(ValueError, match=r"p_S1 is 2.0"):
        tune(df.assign(p_S1=[2.0, 0.1]), ONE)
