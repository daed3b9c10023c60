from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import f1_score, log_loss

from guard_utils.metrics.scores import per_category, predicted_matrix, summary
from guard_utils.metrics.thresholds import (
    Thresholds,
    calibrate,
    compare_calibration,
    compare_decisions,
    decide,
    precision_recall,
    tune,
)
from guard_utils.policy import LLAMA_GUARD_3, PII, Category, Taxonomy

ONE = Taxonomy("one", (Category("A"),))


def make_table(gold, p, policy=PII, cut=0.5):
    lists = [[[policy.codes[j] for j in np.flatnonzero(row)] for row in m] for m in (gold, p >= cut)]
    table = {"id": [f"r{i}" for i in range(len(p))], "gold": lists[0], "predicted": lists[1], "outside": 0.01}
    table |= {f"p_{code}": p[:, i] for i, code in enumerate(policy.codes)}
    return pd.DataFrame(table | {"p_unsafe": 1 - np.prod(1 - p, axis=1)})


def one_table(gold, p):
    return make_table(np.array(gold, dtype=bool)[:, None], np.array(p)[:, None], ONE)


def overconfident(rows=2000, seed=0, temperature=0.4):
    """Probabilities that are true at temperature 1, sharpened."""
    r = np.random.default_rng(seed)
    logit = r.normal(-0.5, 1.5, (rows, 5))
    gold = r.random((rows, 5)) < 1 / (1 + np.exp(-logit))
    return make_table(gold, 1 / (1 + np.exp(-logit / temperature)))


def test_decide_reports_codes_that_reach_their_threshold():
    df = make_table(np.zeros((1, 5), dtype=bool), np.array([[0.3, 0.31, 0.9, 0.29, 0.0]]))
    decided = decide(df, PII, Thresholds(PII.codes, (0.3, 0.4, 0.9, 0.3, 0.1), "by hand", 0))
    assert decided["predicted"].tolist() == [["S1", "S3"]]
    assert df["predicted"].tolist() == [["S3"]], "the table passed in stays"
    pd.testing.assert_frame_equal(decided.drop(columns="predicted"), df.drop(columns="predicted"))


def test_tune_by_hand():
    # falling scores: + + - + -   cuts' F1: 2/4  4/5  4/6  6/7  6/8 -> after the fourth, half-way between 0.2 and 0.1
    df = one_table([1, 1, 0, 1, 0], [0.9, 0.8, 0.4, 0.2, 0.1])
    assert tune(df, ONE, "f1").values == pytest.approx((0.15,))
    # recall >= 0.6: two of three positives; best precision at the cut between 0.8 and 0.4
    chosen = tune(df, ONE, "recall", recall=0.6)
    assert chosen.values == pytest.approx((0.6,)) and chosen.objective == "recall >= 0.6" and chosen.rows == 5
    # + - - - - - - + -: F1 2/3 after one, 4/10 after eight; F2 5/9 after one, 10/16 after eight
    late = one_table([1, 0, 0, 0, 0, 0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.1])
    assert tune(late, ONE, "f1").values == pytest.approx((0.85,))
    assert tune(late, ONE, "f2").values == pytest.approx((0.2,))


def test_neighbouring_floats_are_told_apart():
    low = np.nextafter(1, 0)
    df = one_table([1, 0, 0], [1.0, low, np.nextafter(low, 0)])
    assert per_category(decide(df, ONE, tune(df, ONE)), ONE).loc[0, "f1"] == 1
    df = one_table([0, 1, 0], [1.0, low, np.nextafter(low, 0)])
    assert per_category(decide(df, ONE, tune(df, ONE)), ONE).loc[0, "fp"] == 1


def test_equally_good_cuts_go_to_the_one_nearest_a_half():
    # F1 2/3 after one and after four of six; the cuts are 0.875 and 0.6
    df = one_table([1, 0, 0, 1, 0, 0], [0.95, 0.8, 0.75, 0.7, 0.5, 0.05])
    assert tune(df, ONE, "f1").values == pytest.approx((0.6,))
    df = one_table([1, 0, 0, 1, 0, 0], [0.6, 0.5, 0.4, 0.2, 0.1, 0.05])
    assert tune(df, ONE, "f1").values == pytest.approx((0.55,))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=30), st.floats(0.1, 1))
def test_no_other_threshold_is_better_on_the_tuning_rows(rows, wanted):
    gold, p = np.array([g for g, _ in rows]), np.array([s / 20 for _, s in rows])
    df = one_table(gold, p)
    best = per_category(decide(df, ONE, tune(df, ONE, "f1")), ONE).loc[0, "f1"]
    recall = per_category(decide(df, ONE, tune(df, ONE, "recall", recall=wanted)), ONE).loc[0, "recall"]
    if not gold.any():
        assert tune(df, ONE, "f1") == Thresholds(("S1",), (0.5,), "f1", len(p), untuned=("S1",))
        return
    assert recall >= wanted - 1e-12
    assert best == pytest.approx(max(f1_score(gold, p >= cut) for cut in np.unique(p)))


def test_bad_arguments_are_named():
    df = one_table([1, 0], [0.9, 0.1])
    with pytest.raises(ValueError, match="objective is 'f3'"):
        tune(df, ONE, "f3")
    with pytest.raises(ValueError, match="recall is 95"):
        tune(df, ONE, "recall", recall=95)
    with pytest.raises(ValueError, match=r"thresholds are for .*S14.*tune them anew"):
        decide(df, ONE, Thresholds.fixed(LLAMA_GUARD_3))
    with pytest.raises(ValueError, match=r"threshold of S1 is 1.5"):
        Thresholds(("S1",), (1.5,), "f1", 1)
    with pytest.raises(ValueError, match="2 thresholds for 1 codes"):
        Thresholds(("S1",), (0.5, 0.5), "f1", 1)
    with pytest.raises(ValueError, match="method is 'platt'"):
        calibrate(df, ONE, "platt")
    with pytest.raises(ValueError, match=r"p_S1 is 2.0"):
        tune(df.assign(p_S1=[2.0, 0.1]), ONE)


def test_compare_decisions():
    df = overconfident()
    df["predicted"] = [cell[:1] for cell in df["predicted"]]  # a joint verdict that names at most one code
    thresholds = tune(overconfident(seed=1), PII, "f2")
    table = compare_decisions(df, PII, thresholds)
    assert table.index.tolist() == ["joint verdict", "marginals at 0.5", "tuned for f2"]
    tuned = decide(df, PII, thresholds)
    assert table.loc["tuned for f2"].drop("rows_moved").to_dict() == pytest.approx(summary(tuned, PII))
    moved = (predicted_matrix(tuned, PII) != predicted_matrix(df, PII)).any(axis=1).sum()
    assert table["rows_moved"].iloc[0] == 0 and table.loc["tuned for f2", "rows_moved"] == moved > 0
    assert table.loc["tuned for f2", "micro_f1"] > table.loc["joint verdict", "micro_f1"]


def test_precision_recall_by_hand():
    table = precision_recall(one_table([1, 0, 1], [0.9, 0.5, 0.2]), ONE, "S1")
    assert table["threshold"].tolist() == [0.2, 0.5, 0.9]
    np.testing.assert_allclose(table["precision"], [2 / 3, 1 / 2, 1])
    np.testing.assert_allclose(table["recall"], [1, 1 / 2, 1 / 2])
    assert precision_recall(one_table([0, 0], [0.9, 0.5]), ONE, "S1").empty


def test_temperature_is_found_and_keeps_the_ranking():
    train, test = overconfident(8000), overconfident(seed=1)
    fitted = calibrate(train, PII)
    assert all(fitted.temperatures[f"p_{code}"] == pytest.approx(2.5, rel=0.1) for code in PII.codes)
    p, y = train["p_S1"].to_numpy(), np.array(["S1" in cell for cell in train["gold"]])
    logit = np.log(p / (1 - p))
    best = minimize_scalar(lambda t: log_loss(y, 1 / (1 + np.exp(-logit / t))), bounds=(0.1, 10), method="bounded").x
    assert fitted.temperatures["p_S1"] == pytest.approx(best, rel=1e-3)
    cooled = fitted.apply(test)
    assert (cooled["p_S2"].rank() == test["p_S2"].rank()).all()
    pd.testing.assert_series_equal(cooled["predicted"], test["predicted"])
    np.testing.assert_allclose(per_category(cooled, PII)["auroc"], per_category(test, PII)["auroc"])


def test_calibration_lowers_the_error_on_other_rows():
    train, test = overconfident(), overconfident(seed=1)
    fitted = [calibrate(train, PII, method) for method in ("temperature", "isotonic")]
    table = compare_calibration(test, PII, *fitted).set_index(["column", "method"])
    assert len(table) == 6 * 3
    for column in (f"p_{code}" for code in PII.codes):
        for method in ("temperature", "isotonic"):
            for score in ("brier", "ece", "log_loss"):
                assert table.loc[(column, method), score] < table.loc[(column, "none"), score]


def test_isotonic_equals_scikit_learn_and_stays_a_probability():
    train, test = overconfident(300), overconfident(seed=1)
    y = np.array(["S3" in cell for cell in train["gold"]])
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(train["p_S3"], y)
    after = calibrate(train, PII, "isotonic").apply(test)
    np.testing.assert_allclose(after["p_S3"], model.predict(test["p_S3"]), atol=1e-12)
    assert np.isfinite(summary(decide(after, PII, Thresholds.fixed(PII)), PII)["micro_f1"])


def test_what_cannot_be_fitted_is_left_and_said():
    df = overconfident(200)
    df["gold"] = [[code for code in cell if code != "S5"] for cell in df["gold"]]
    for method in ("temperature", "isotonic"):
        fitted = calibrate(df, PII, method)
        assert fitted.unfitted == ("p_S5",)
        pd.testing.assert_series_equal(fitted.apply(df)["p_S5"], df["p_S5"])
    with pytest.raises(ValueError, match=r"lack \['p_S1'\]"):
        fitted.apply(df.drop(columns="p_S1"))


def test_separable_rows_do_not_break_the_temperature():
    fitted = calibrate(one_table([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1]), ONE)
    assert 0.05 <= fitted.temperatures["p_S1"] < 0.5
    upside_down = calibrate(one_table([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1]), ONE)
    assert upside_down.temperatures["p_S1"] == 20, "never turns the ranking round"
