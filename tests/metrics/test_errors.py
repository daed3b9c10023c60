"""Kinds of error by hand, tables of them, and label bugs that stand out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard_utils.metrics.errors import KINDS, by_source_label, disagreements, error_table, suspicious_labels
from guard_utils.policy import PII
from tests.metrics.tables import predictions


def make_table(rows, **columns):
    """A table of (gold, predicted, labels)."""
    gold, predicted, labels = (list(column) for column in zip(*rows, strict=True))
    return predictions(gold, predicted, labels=labels, **{"outside": 0.0} | columns)


def corpus(rows=600, seed=0):
    """A good model (3 % errors) on labels with the reference's two bugs; CITY mostly stands beside ZIPCODE."""
    r = np.random.default_rng(seed)
    exact = {"FIRSTNAME": "S1", "IPV4": "S2", "PHONENUMBER": "S3", "ZIPCODE": "S4", "CITY": "S4", "DATE": None}
    table = []
    for _ in range(rows):
        labels = [name for name in exact if name != "CITY" and r.random() < 0.3]
        labels += ["CITY"] if r.random() < (0.8 if "ZIPCODE" in labels else 0.1) else []
        right = {exact[name] for name in labels} - {None}
        gold = (right - {"S3"}) | ({"S2"} if "ZIPCODE" in labels else set())
        predicted = {code for code in PII.codes if (code in right) != (r.random() < 0.03)}
        table.append((sorted(gold), sorted(predicted), labels))
    return make_table(table)


def test_kinds_by_hand():
    rows = [
        (["S1"], ["S1"], ["FIRSTNAME"], None),
        (["S1", "S4"], ["S1"], ["FIRSTNAME", "CITY"], "missed"),
        (["S1"], ["S1", "S5"], ["FIRSTNAME"], "extra"),
        (["S1"], ["S2"], ["FIRSTNAME"], "swapped"),
        (["S1", "S4"], ["S2"], ["FIRSTNAME", "CITY"], "mixed"),
        (["S1"], ["S1", "S4"], ["FIRSTNAME", "STATE"], "policy boundary"),
        # Something is missed, a borderline label does not excuse that.
        (["S1"], ["S4"], ["FIRSTNAME", "STATE"], "swapped"),
        # STATE explains S4, nothing explains S1.
        ([], ["S1", "S4"], ["STATE"], "extra"),
        ([], ["S1"], [], "parse"),
        ([], [], [], None),
    ]
    df = make_table([row[:3] for row in rows], outside=[0.9, 0, 0, 0, 0, 0, 0, 0, 0.5, 0.9])
    found = disagreements(df, PII).set_index("id")
    assert found["kind"].to_dict() == {f"r{i}": kind for i, (*_, kind) in enumerate(rows) if kind}
    assert found.loc["r4", ["missed", "extra"]].tolist() == [["S1", "S4"], ["S2"]]
    assert found.loc["r1", "confidence"] == pytest.approx(0.8), "1 - P(S4)"
    assert found.loc["r3", "confidence"] == pytest.approx(0.9), "P(S2) is surer than 1 - P(S1)"


CODES = st.lists(st.sampled_from(PII.codes), unique=True)
LABELS = st.lists(st.sampled_from(["STATE", "CITY", "EMAIL"]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(CODES, CODES, LABELS), min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_every_disagreement_has_one_kind_in_any_order(rows, random):
    df = make_table(rows)
    found = disagreements(df, PII)
    wrong = [i for i, (gold, predicted, _) in zip(df["id"], rows, strict=True) if set(gold) != set(predicted)]
    assert found["confidence"].is_monotonic_decreasing, "the surest mistake comes first"
    assert sorted(found["id"]) == sorted(wrong) and set(found["kind"]) <= set(KINDS)
    for row in found.to_dict("records"):
        assert set(row["missed"]) == set(row["gold"]) - set(row["predicted"])
        assert set(row["extra"]) == set(row["predicted"]) - set(row["gold"])
        assert 0 <= row["confidence"] <= 1
    shuffled = df.sample(frac=1, random_state=random.randrange(2**31))
    pd.testing.assert_frame_equal(disagreements(shuffled, PII), found)
    table = error_table(df, PII)
    pd.testing.assert_frame_equal(error_table(shuffled, PII), table)
    assert (table[list(KINDS)].sum(axis=1) == table["wrong"]).all()


def test_error_tables_by_hand():
    df = make_table(
        [
            (["S1"], [], ["FIRSTNAME", "FIRSTNAME"]),
            (["S1", "S4"], ["S1", "S4"], ["FIRSTNAME", "CITY"]),
            ([], ["S4"], ["STATE"]),
            ([], [], []),
        ],
        language=["en", "en", "de", "de"],
    )
    category = error_table(df.set_axis([0] * len(df)), PII)
    assert category["rows"].to_dict() == {"S1": 2, "S4": 2, "safe": 1}
    assert category["missed"].to_dict() == {"S1": 1, "S4": 0, "safe": 0}
    assert category["policy boundary"].to_dict() == {"S1": 0, "S4": 1, "safe": 0}
    assert error_table(df, PII, "language")["wrong"].to_dict() == {"de": 1, "en": 1}


def test_by_source_label_by_hand():
    df = make_table(
        [
            (["S2", "S4"], ["S4"], ["ZIPCODE"]),
            (["S2", "S4"], ["S2", "S4"], ["ZIPCODE", "IPV4", "ZIPCODE"]),
            ([], ["S3"], ["PHONENUMBER"]),
        ]
    )
    table = by_source_label(df, PII).set_index(["label", "code"])
    assert len(table) == 3 * 5
    counts = ["rows", "missed", "extra", "disagreement"]
    assert table.loc[("ZIPCODE", "S2"), counts].tolist() == [2, 1, 0, 0.5]
    assert table.loc[("ZIPCODE", "S4"), counts].tolist() == [2, 0, 0, 0]
    assert table.loc[("PHONENUMBER", "S3"), counts].tolist() == [1, 0, 1, 1]


def test_the_reference_label_bugs_stand_out_and_nothing_else_does():
    df = corpus()
    table = suspicious_labels(df, PII)
    found = table[["label", "code", "kind"]].apply(tuple, axis=1).tolist()
    assert sorted(found) == [("PHONENUMBER", "S3", "extra"), ("ZIPCODE", "S2", "missed")]
    assert (table["error_rate"] > 0.6).all() and (table["elsewhere"] < 0.1).all() and (table["phi"] > 0.7).all()
    shuffled = suspicious_labels(df.sample(frac=1, random_state=0), PII)
    pd.testing.assert_frame_equal(shuffled, table)


def test_a_companion_that_is_wrong_on_its_own_is_found_too():
    df = corpus()
    city = [set(labels) & {"CITY", "ZIPCODE"} == {"CITY"} for labels in df["labels"]]
    df["gold"] = [sorted({*gold, "S2"}) if only else gold for gold, only in zip(df["gold"], city, strict=True)]
    found = suspicious_labels(df, PII).query("code == 'S2'")
    assert set(found["label"]) == {"ZIPCODE", "CITY"}
