from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from guard_utils.metrics.intervals import holm, percentile_interval
from guard_utils.metrics.scores import bootstrap, mcnemar, paired_bootstrap, per_category, summary
from guard_utils.policy import PII, Category, Taxonomy

ONE = Taxonomy("one", (Category("A"),))


def make_table(gold, p, policy=PII, **columns):
    """A predictions table from bool [rows, categories] and probabilities; P >= 0.5 is predicted."""
    lists = [[[policy.codes[j] for j in np.flatnonzero(row)] for row in m] for m in (gold, p >= 0.5)]
    table = {"id": [f"r{i}" for i in range(len(p))], "gold": lists[0], "predicted": lists[1], "outside": 0.01}
    table |= {f"p_{code}": p[:, i] for i, code in enumerate(policy.codes)}
    return pd.DataFrame(table | {"p_unsafe": p.max(axis=1)} | columns)


def random_table(rows=300, seed=0, noise=1.5, clusters=40):
    r = np.random.default_rng(seed)
    gold = r.random((rows, 5)) < [0.4, 0.2, 0.15, 0.35, 0.1]
    template = r.integers(0, clusters, rows)
    p = 1 / (1 + np.exp(-(3 * gold - 1.5 + noise * np.random.default_rng(seed + 1).normal(0, 1, gold.shape))))
    return make_table(gold, p.round(2), template_id=[f"t{i}" for i in template])


def one_category(seed, clusters=50, size=6):
    """Each cluster is right with its own probability of mean 0.75; F1 is then 0.75 too."""
    r = np.random.default_rng(seed)
    right = r.random((clusters, size)) < r.beta(3, 1, clusters)[:, None]
    gold = r.random((clusters, size)) < 0.5
    p = np.where(gold == right, 0.8, 0.2).reshape(-1, 1)
    return make_table(gold.reshape(-1, 1), p, ONE, template_id=np.repeat([f"t{i}" for i in range(clusters)], size))


def test_values_are_those_of_the_point_scores():
    df = random_table()
    value = bootstrap(df, PII, resamples=2).set_index("metric")["value"]
    expected = summary(df, PII)
    table = per_category(df, PII).set_index("code")
    names = ("precision", "recall", "f1", "f2", "ap", "auroc", "brier")
    expected |= {f"{name}_{code}": table.loc[code, name] for name in names for code in PII.codes}
    assert value.to_dict() == pytest.approx(expected)


def test_a_resample_is_scored_as_the_table_it_stands_for():
    """Draws the same clusters by hand, repeats their rows, and asks the point scores."""
    df = random_table(rows=80, clusters=9)
    low = bootstrap(df, PII, resamples=1, seed=3).set_index("metric")["low"]
    names = np.unique(df["template_id"])
    drawn = np.random.default_rng(3).integers(len(names), size=len(names))
    copies = pd.concat([df[df["template_id"] == names[i]] for i in drawn], ignore_index=True)
    copies["id"] = [f"c{i}" for i in range(len(copies))]
    expected = summary(copies, PII)
    table = per_category(copies, PII).set_index("code")
    expected |= {f"{name}_{code}": table.loc[code, name] for name in ("f1", "ap", "auroc") for code in PII.codes}
    assert {name: low[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_intervals_hold_their_value_and_grow_with_the_level():
    df = random_table()
    wide, narrow = bootstrap(df, PII, resamples=300), bootstrap(df, PII, resamples=300, level=0.5)
    assert (wide["low"] <= wide["value"]).all() and (wide["value"] <= wide["high"]).all()
    assert (wide["low"] <= narrow["low"] + 1e-12).all() and (narrow["high"] <= wide["high"] + 1e-12).all()
    assert wide[["low", "high"]].to_numpy().min() >= 0 and wide[["low", "high"]].to_numpy().max() <= 1 + 1e-12


def test_percentiles_by_hand():
    samples = np.column_stack([np.linspace(0, 1, 1001), np.full(1001, np.nan), [np.nan, *np.linspace(0, 2, 1000)]])
    low, high = percentile_interval(samples, 0.95)
    np.testing.assert_allclose(low, [0.025, np.nan, 0.05])
    np.testing.assert_allclose(high, [0.975, np.nan, 1.95])


def test_same_seed_same_interval_whatever_the_row_order():
    df = random_table()
    again = bootstrap(df.sample(frac=1, random_state=1), PII, resamples=50, seed=7)
    pd.testing.assert_frame_equal(again, bootstrap(df, PII, resamples=50, seed=7))
    assert not again.equals(bootstrap(df, PII, resamples=50, seed=8))


def test_a_category_without_positives_stays_blank():
    df = random_table()
    df["gold"] = [[code for code in cell if code != "S5"] for cell in df["gold"]]
    table = bootstrap(df, PII, resamples=20).set_index("metric")
    assert table.loc[["f1_S5", "ap_S5", "recall_S5"]].isna().all(axis=None)
    assert (
        table.drop(index=[f"{k}_S5" for k in ("precision", "recall", "f1", "f2", "ap", "auroc")]).notna().all(axis=None)
    )


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
    a, b = random_table(noise=1.0), random_table(noise=2.5)
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
    gold = np.zeros((12, 5), dtype=bool)
    gold[:, 0] = True
    a, b = np.zeros((12, 5)), np.zeros((12, 5))
    a[:9, 0] = 0.9  # a: right on 0-8; b: right on 8-9; both wrong on 10-11
    b[8:10, 0] = 0.9
    first, second = make_table(gold, a), make_table(gold, b)
    table = mcnemar(first, second, PII).set_index("what")
    assert table.loc["S1", ["a_only", "b_only"]].tolist() == [8, 1]
    p = 2 * binom.cdf(1, 9, 0.5)
    assert table.loc["S1", "p"] == pytest.approx(p) == pytest.approx(20 / 512)
    assert table.loc["exact match", "p"] == pytest.approx(p)
    assert table.loc["S2", "p"] == 1 and table.loc["S1", "p_holm"] == pytest.approx(6 * p)


def test_holm_by_hand_and_its_bounds():
    # sorted: .01*3=.03, .02*2=.04, .03*1=.03 -> never below the one before
    np.testing.assert_allclose(holm([0.03, 0.01, 0.02]), [0.04, 0.03, 0.04])
    p = np.random.default_rng(0).random(20)
    adjusted = holm(p)
    assert (p <= adjusted).all() and (adjusted <= 1).all() and adjusted.min() == min(1, p.min() * 20)
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


@pytest.mark.parametrize("function", [paired_bootstrap, mcnemar])
def test_different_rows_are_named(function):
    a = random_table(20)
    with pytest.raises(ValueError, match="1 ids stand in one table only, the first is 'r19'"):
        function(a, a.iloc[:-1], PII)
    b = a.copy()
    b["gold"] = [["S1", "S2", "S3", "S4", "S5"], *a["gold"][1:]]
    with pytest.raises(ValueError, match=r"gold of id 'r0' is .* label map"):
        function(a, b, PII)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cluster": "kind"}, "no column 'kind' to cluster by"),
        ({"cluster": "hole"}, "hole is missing on row 0"),
        ({"cluster": "same"}, "all rows share same 'x'"),
        ({"resamples": 0}, "resamples is 0"),
        ({"level": 95}, "level is 95"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    df = random_table(20).assign(hole=[None] + ["x"] * 19, same="x")
    with pytest.raises(ValueError, match=message):
        bootstrap(df, PII, **{"resamples": 3} | arguments)
