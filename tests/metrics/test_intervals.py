"""Bootstrap against point scores and hand-drawn resamples, coverage, comparisons of two systems, and the ladder."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from guard_utils.data.labels import reference_codes_evaluation
from guard_utils.metrics.intervals import (
    bootstrap,
    compare_systems,
    holm,
    ladder,
    mcnemar,
    paired_bootstrap,
    percentiles,
)
from guard_utils.metrics.reference import rescore
from guard_utils.metrics.scores import per_category, summary
from guard_utils.policy import PII, Category, Taxonomy
from tests.metrics.tables import predictions, random_predictions

ONE = Taxonomy("one", (Category("A"),))


def one_category(seed, clusters=50, size=6):
    """Each cluster is right with its own probability of mean 0.75; F1 is then 0.75 too."""
    r = np.random.default_rng(seed)
    right = r.random((clusters, size)) < r.beta(3, 1, clusters)[:, None]
    gold = r.random((clusters, size)) < 0.5
    template = np.repeat([f"t{i}" for i in range(clusters)], size)
    p = np.where(gold == right, 0.8, 0.2).reshape(-1, 1)
    return predictions(gold.reshape(-1, 1), p=p, policy=ONE, template_id=template)


def point_scores(df):
    table = per_category(df, PII).set_index("code")
    names = ("precision", "recall", "f1")
    whole = {name: value for name, value in summary(df, PII).items() if name != "binary_auprc"}
    return whole | {f"{name}_{code}": table.loc[code, name] for name in names for code in PII.codes}


def test_a_resample_is_scored_as_the_table_it_stands_for():
    """Draws the same clusters by hand, repeats their rows, and asks the point scores."""
    df = random_predictions(rows=80, clusters=9)
    table = bootstrap(df, PII, resamples=1, seed=3).set_index("metric")
    assert table["value"].to_dict() == pytest.approx(point_scores(df), nan_ok=True)
    names = np.unique(df["template_id"])
    drawn = np.random.default_rng(3).integers(len(names), size=len(names))
    copies = pd.concat([df[df["template_id"] == names[i]] for i in drawn], ignore_index=True)
    copies["id"] = [f"c{i}" for i in range(len(copies))]
    assert table["low"].to_dict() == pytest.approx(point_scores(copies), nan_ok=True)


def test_percentiles_by_hand():
    samples = {"a": np.linspace(0, 1, 1001), "b": np.nan, "c": [np.nan, *np.linspace(0, 2, 1000)]}
    whole = pd.DataFrame({"a": [0.4], "b": [np.nan], "c": [1.0]})
    table = percentiles(pd.concat([whole, pd.DataFrame(samples)], ignore_index=True))
    np.testing.assert_allclose(table, [[0.4, 0.025, 0.975], [np.nan] * 3, [1, 0.05, 1.95]])


def test_same_seed_same_interval_whatever_the_row_order():
    df = random_predictions()
    again = bootstrap(df.sample(frac=1, random_state=1), PII, resamples=50, seed=7)
    pd.testing.assert_frame_equal(again, bootstrap(df, PII, resamples=50, seed=7))
    assert not again.equals(bootstrap(df, PII, resamples=50, seed=8))


def test_a_category_without_positives_stays_blank():
    df = random_predictions()
    df["gold"] = [[code for code in cell if code != "S5"] for cell in df["gold"]]
    table = bootstrap(df, PII, resamples=20).set_index("metric")
    blank = [f"{name}_S5" for name in ("precision", "recall", "f1")]
    assert table.loc[blank].isna().all(axis=None) and table.drop(index=blank).notna().all(axis=None)


def test_coverage_on_simulated_clusters():
    names = ["subset_accuracy", "f1_S1", "micro_f1"]
    inside = {"template_id": [], None: []}
    for seed in range(120):
        df = one_category(seed)
        for cluster, hits in inside.items():
            if cluster or seed < 40:
                table = bootstrap(df, ONE, resamples=100, seed=seed, cluster=cluster).set_index("metric").loc[names]
                hits.append((table["low"] <= 0.75) & (table["high"] >= 0.75))
    clustered, by_row = (np.mean(hits, axis=0) for hits in inside.values())
    assert (clustered >= 0.90).all() and (clustered <= 0.98).all(), clustered
    assert (by_row < 0.90).all(), f"single rows pretend to more than they know: {by_row}"


def test_paired_difference():
    a, b = random_predictions(noise=1.0), random_predictions(noise=2.5)
    table = paired_bootstrap(a, b.sample(frac=1, random_state=0), PII, resamples=200).set_index("metric")
    better = table.loc["micro_f1"]
    assert better["a"] == pytest.approx(summary(a, PII)["micro_f1"])
    assert better["b"] == pytest.approx(summary(b, PII)["micro_f1"])
    assert better["difference"] == pytest.approx(better["a"] - better["b"]) and better["low"] > 0
    turned = paired_bootstrap(b, a, PII, resamples=200).set_index("metric").loc["micro_f1"]
    assert [turned["low"], turned["high"]] == pytest.approx([-better["high"], -better["low"]])
    same = paired_bootstrap(a, a, PII, resamples=20)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None), "the draws are shared"


def test_mcnemar_by_hand():
    # Both are right on row 8 and wrong on the last two.
    gold, first, second = [["S1"]] * 12, [["S1"]] * 9 + [[]] * 3, [[]] * 8 + [["S1"]] * 2 + [[]] * 2
    a_only, b_only, p = mcnemar(predictions(gold, first), predictions(gold, second), PII)
    assert (a_only, b_only) == (8, 1)
    assert p == pytest.approx(2 * binom.cdf(1, 9, 0.5)) == pytest.approx(20 / 512)
    assert mcnemar(predictions(gold, first), predictions(gold, first), PII) == (0, 0, 1.0)


def test_holm_by_hand():
    # sorted: .01*3=.03, .02*2=.04, .03*1=.03 -> never below the one before
    np.testing.assert_allclose(holm([0.03, 0.01, 0.02]), [0.04, 0.03, 0.04])
    np.testing.assert_allclose(holm([0.5, 0.6]), [1, 1])


def test_compare_systems_joins_the_paired_tests():
    ours = random_predictions(noise=1.5)
    others = {"good": random_predictions(noise=1.52), "bad": random_predictions(noise=3)}
    table = compare_systems(ours, others, PII, resamples=200)
    assert table.index.tolist() == ["good", "bad"]
    paired = paired_bootstrap(ours, others["bad"], PII, resamples=200).set_index("metric").loc["weighted_f1"]
    assert table.loc["bad", ["ours", "theirs", "difference", "low", "high"]].tolist() == paired.tolist()
    exact = [mcnemar(ours, other, PII) for other in others.values()]
    assert table[["ours_only", "theirs_only"]].values.tolist() == [[a, b] for a, b, _ in exact]
    assert table["p_holm"].tolist() == pytest.approx(holm([p for *_, p in exact]).tolist(), abs=0)
    assert table.loc["bad", "low"] > 0 and table.loc["bad", "p_holm"] < 0.001 < table.loc["good", "p_holm"]


@pytest.mark.parametrize("compare", [paired_bootstrap, mcnemar, lambda a, b, p: compare_systems(a, {"b": b}, p)])
def test_different_rows_are_named(compare):
    a = random_predictions(20)
    with pytest.raises(ValueError, match="1 ids stand in one table only, the first is 'r19'"):
        compare(a, a.iloc[:-1], PII)
    b = a.copy()
    b["gold"] = [["S1", "S2", "S3", "S4", "S5"], *a["gold"][1:]]
    with pytest.raises(ValueError, match=r"gold of id 'r0' is .* label map"):
        compare(a, b, PII)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cluster": "kind"}, "column 'kind' is missing"),
        ({"cluster": "hole"}, "column 'hole' is missing or has a gap"),
        ({"cluster": "same"}, "all rows share same 'x'"),
        ({"resamples": 0}, "resamples is 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    df = random_predictions(20).assign(hole=[None] + ["x"] * 19, same="x")
    with pytest.raises(ValueError, match=message):
        bootstrap(df, PII, **{"resamples": 3} | arguments)


LABELS = {"S1": "FIRSTNAME", "S2": "IPV4", "S3": "PHONENUMBER", "S4": "ZIPCODE", "S5": "CREDITCARDNUMBER"}


def reference_gold(df):
    """By the reference's rules a post code is an IP address too, and a phone number is nothing."""
    return [reference_codes_evaluation([LABELS[code] for code in codes]) for codes in df["gold"]]


def test_the_ladder_is_made_of_single_measurements():
    df = random_predictions()
    old = reference_gold(df)
    table = ladder(df, PII, reference_gold=old, resamples=200)
    expected = [
        rescore(df.assign(gold=old)).weighted_f1,
        rescore(df).weighted_f1,
        summary(df, PII)["weighted_f1"],
    ]
    np.testing.assert_allclose(table["value"], expected, atol=1e-12)
    np.testing.assert_allclose(table["change"].iloc[1:], np.diff(expected), atol=1e-12)
    assert table.loc[0, ["change", "change_low", "change_high"]].isna().all()
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    assert (table["change_low"].iloc[1:] <= table["change_high"].iloc[1:]).all() and table["change_low"].iloc[1] > 0

    interval = bootstrap(df, PII, resamples=200).set_index("metric").loc["weighted_f1"]
    assert table.loc[2, ["low", "high"]].tolist() == pytest.approx([interval["low"], interval["high"]])


def test_other_rows_or_codes_on_the_ladder_are_named():
    df = random_predictions(20)
    with pytest.raises(ValueError, match=r"values \(19\).*index \(20\)"):
        ladder(df, PII, reference_gold=reference_gold(df)[:-1])
    with pytest.raises(ValueError, match="gold holds 'S7' on row 0"):
        ladder(df, PII, reference_gold=[["S7"]] * 20)
