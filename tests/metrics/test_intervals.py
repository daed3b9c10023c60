"""Bootstrap against point scores and hand-drawn resamples, coverage, comparisons of two systems, and the ladder."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from guard_utils.data.labels import reference_codes_evaluation
from guard_utils.metrics.intervals import bootstrap, compare_systems, ladder, percentiles
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


def test_the_difference_of_two_systems():
    ours, theirs = random_predictions(noise=1.0), random_predictions(noise=2.5)
    shuffled = {"theirs": theirs.sample(frac=1, random_state=0), "same": ours}
    table = compare_systems(ours, shuffled, PII, resamples=200)
    better = table.loc["theirs"]
    expected = [summary(df, PII)["weighted_f1"] for df in (ours, theirs)]
    assert better[["ours", "theirs"]].tolist() == expected
    assert better["difference"] == expected[0] - expected[1] and better["low"] > 0 and better["p_holm"] < 0.001
    turned = compare_systems(theirs, {"ours": ours}, PII, resamples=200).loc["ours"]
    assert [turned["low"], turned["high"]] == [-better["high"], -better["low"]]
    assert table.loc["same"].tolist() == [expected[0], expected[0], 0, 0, 0, 0, 0, 1], "the draws are shared"


def test_mcnemar_with_holm_by_hand():
    def answers(*right):
        df = predictions([["S1"]] * 12, [["S1"] * (row in right) for row in range(12)])
        return df.assign(template_id=df["id"])

    others = {"a": answers(*range(8), 9, 10), "b": answers(), "c": answers(*range(9))}
    table = compare_systems(answers(*range(9)), others, PII, resamples=10)
    assert table[["ours_only", "theirs_only"]].values.tolist() == [[1, 2], [9, 0], [0, 0]]
    # p is 1, 1/256 and 1: the smallest times 3, then never below the one before and never above 1
    assert table["p_holm"].tolist() == pytest.approx([1, 3 * 2 * binom.cdf(0, 9, 0.5), 1])
    others = {"a": answers(*range(3)), "b": answers(*range(2)), "c": answers(*range(4))}
    # 1/32 * 2, 1/64 * 3, 1/16 * 1
    assert compare_systems(answers(*range(9)), others, PII, resamples=1)["p_holm"].tolist() == [2 / 32, 3 / 64, 2 / 32]


def test_different_rows_are_named():
    a = random_predictions(20)
    with pytest.raises(ValueError, match="1 ids stand in one table only, the first is 'r19'"):
        compare_systems(a, {"b": a.iloc[:-1]}, PII)
    b = a.copy()
    b["gold"] = [["S1", "S2", "S3", "S4", "S5"], *a["gold"][1:]]
    with pytest.raises(ValueError, match=r"gold of id 'r0' is .* label map"):
        compare_systems(a, {"b": b}, PII)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cluster": "kind"}, "column 'kind' is missing"),
        ({"cluster": "hole"}, "column 'hole' is missing or has a gap"),
        ({"cluster": "same"}, "all rows share same 'x'"),
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
