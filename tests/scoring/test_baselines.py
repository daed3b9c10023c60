"""Baselines and the predictions table that all systems share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from guard_utils.data.examples import Example, Span, to_examples
from guard_utils.data.labels import PII_200K
from guard_utils.data.predictions import predictions_table
from guard_utils.metrics.scores import summary
from guard_utils.policy import LLAMA_GUARD_3, PII
from guard_utils.scoring.baselines import DETECTORS, majority, regular_expressions, tfidf
from tools.corpus.compose import generate

COLUMNS = [
    *("id", "text", "language", "template_id", "situation", "gold", "labels", "predicted"),
    *("p_S1", "p_S2", "p_S3", "p_S4", "p_S5", "p_unsafe", "outside"),
]


def example(number, text, *codes, labels=()):
    spans = tuple(Span(-1, -1, label, None) for label in labels)
    return Example(f"r{number}", text, codes, "en", f"t{number}", "talk", spans)


@pytest.fixture(scope="module")
def corpus():
    train = to_examples(list(generate(500, split="train")), PII_200K)
    return train, to_examples(list(generate(200, split="validation")), PII_200K)


# --- the table --------------------------------------------------------------


def test_the_table_has_the_columns_and_the_order_of_the_examples():
    rows = [example(1, "a", "S1", "S4", labels=["FIRSTNAME", "CITY", "FIRSTNAME"]), example(0, "b")]
    table = predictions_table(rows, PII, [[0.5, 0, 0, 0.5, 0], [0, 0, 0, 0, 0]], [["S4", "S1"], ()], [0.25, 0])
    assert list(table.columns) == COLUMNS
    assert table["id"].tolist() == ["r1", "r0"] and table["template_id"].tolist() == ["t1", "t0"]
    assert table["gold"].tolist() == [["S1", "S4"], []]
    assert table["labels"].tolist() == [["FIRSTNAME", "CITY"], []], "distinct, in order of appearance"
    assert table["predicted"].tolist() == [["S1", "S4"], []], "ascending lists"
    assert table["p_unsafe"].tolist() == [0.75, 0] and table["outside"].tolist() == [0.25, 0]


def test_a_guard_gives_its_own_probability_of_unsafe():
    table = predictions_table([example(0, "a")], PII, [[0.5] * 5], [["S1"]], 0.1, unsafe=[0.5])
    assert table["p_unsafe"].tolist() == [0.5] and table["outside"].tolist() == [0.1]


@pytest.mark.parametrize(
    ("marginals", "predicted", "message"),
    [
        ([[0.5] * 4], [[]], r"marginals \[1, 4\].*5 categories"),
        ([[0.5] * 5] * 2, [[]], "1 examples"),
        ([[0.5] * 5], [[], []], "2 predictions"),
        ([[1.5] * 5], [[]], "p_S1 is 1.5"),
        ([[float("nan")] * 5], [[]], "p_S1 is nan"),
        ([[0.5] * 5], [["S6"]], "'S6'"),
        ([[0.5] * 5], [["S1", "S1"]], "repeats a code"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(marginals, predicted, message):
    with pytest.raises(ValueError, match=message):
        predictions_table([example(0, "a")], PII, marginals, predicted, 0.0)


# --- majority ---------------------------------------------------------------


def test_majority_answers_the_most_frequent_verdict_with_the_shares_of_training():
    train = [example(i, "x", *codes) for i, codes in enumerate([["S1", "S2"], ["S1", "S2"], ["S1"], []])]
    table = majority(train, [example(9, "y"), example(10, "z", "S5")], PII)
    assert table["predicted"].tolist() == [["S1", "S2"]] * 2
    assert table[["p_S1", "p_S2", "p_S5", "p_unsafe", "outside"]].iloc[1].tolist() == [0.75, 0.5, 0, 0.75, 0]


def test_majority_breaks_ties_alike_in_any_order():
    train = [example(i, "x", *codes) for i, codes in enumerate([["S2"], ["S1", "S2"], ["S1"]])]
    for rows in (train, train[::-1]):
        assert majority(rows, train[:1], PII)["predicted"].tolist() == [["S1"]]


def test_majority_needs_training_examples():
    with pytest.raises(ValueError, match="training split"):
        majority([], [example(0, "a")], PII)


# --- regular expressions ----------------------------------------------------


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("Nothing to see here.", []),
        ("the host 109.4.61.213 was down", ["S2"]),
        ("ping 10.0.0.1:8080, then stop.", ["S2"]),
        ("from 4d36:f8ad:4ebd:1bff:c5eb:62aa:b4d7:dddf.", ["S2"]),
        ("via [2001:db8::1]:443", ["S2"]),
        ("no address: 999.4.61.213", []),
        ("std::vector at 12:30:45", []),
        ("version 1.2.3.4.5 is out", []),
        ("pay with 4242 4242 4242 4242", ["S5"]),
        ("pay with 378282246310005", ["S5"]),
        ("the reference is 4242 4242 4242 4243", []),
        ("the cvv is 123", ["S5"]),
        ("ring +44 20 7946 0018", ["S3"]),
        ("ring (555) 123-4567 today", ["S3"]),
        ("it was on 2021-10-03", []),
        ("order 12345678 is late", []),
        ("he lives at 5 Elm Street", ["S4"]),
        ("near the Lindenstraße", ["S4"]),
        ("ZIP: 90210", ["S4"]),
        ("in SW1A 1AA", ["S4"]),
        ("as told by Dr. Okafor", ["S1"]),
        ("Dear Carmen, welcome", ["S1"]),
        ("we met Ada Lovelace", ["S1"]),
    ],
)
def test_patterns_find_what_they_are_for(text, codes):
    table = regular_expressions([example(0, text)], PII)
    assert table["predicted"].tolist() == [codes]
    assert table[[f"p_{code}" for code in PII.codes]].iloc[0].tolist() == [float(code in codes) for code in PII.codes]
    assert table["p_unsafe"].tolist() == [float(bool(codes))]


def test_patterns_follow_the_policy_by_name():
    policy = PII.select(["S5", "S2"])
    table = regular_expressions([example(0, "the host 109.4.61.213 was down")], policy)
    assert table["predicted"].tolist() == [["S2"]] and table["p_S1"].tolist() == [0]
    assert set(DETECTORS) == set(PII.names.values())
    with pytest.raises(ValueError, match="Violent Crimes"):
        regular_expressions([example(0, "a")], LLAMA_GUARD_3)


# --- TF-IDF -----------------------------------------------------------------


def test_tfidf_learns_and_predicts_by_its_own_probabilities(corpus):
    train, validation = corpus
    table = tfidf(train, validation, PII)
    p = table[[f"p_{code}" for code in PII.codes]].to_numpy()
    assert table["predicted"].tolist() == [[c for c, v in zip(PII.codes, row, strict=True) if v >= 0.5] for row in p]
    np.testing.assert_allclose(table["p_unsafe"], 1 - np.prod(1 - p, axis=1))
    assert summary(table, PII)["weighted_f1"] > 0.3
    pd.testing.assert_frame_equal(table, tfidf(train, validation, PII), obj="the same seed")


def test_tfidf_scores_a_policy_of_one_category():
    train = [example(i, f"the card number {i}", "S1") for i in range(10)] + [
        example(i, f"a tree {i}") for i in range(10, 20)
    ]
    table = tfidf(train, [example(30, "my card number"), example(31, "a tall tree")], PII.select(["S5"]))
    assert table["predicted"].tolist() == [["S1"], []] and table["p_S1"].iloc[0] > table["p_S1"].iloc[1]


def test_tfidf_names_a_category_that_it_cannot_learn():
    train = [example(0, "a name", "S1"), example(1, "nothing")]
    with pytest.raises(ValueError, match="S2, S3, S4, S5 stand in none or in all of the 2"):
        tfidf(train, train, PII)


# --- together ---------------------------------------------------------------


def test_baselines_are_scored_on_the_same_rows(corpus):
    train, validation = corpus
    tables = [majority(train, validation, PII), regular_expressions(validation, PII)]
    for table in tables:
        assert list(table.columns) == COLUMNS and table["id"].tolist() == [e.id for e in validation]
        assert (table["outside"] == 0).all()
    assert summary(tables[1], PII)["weighted_f1"] > summary(tables[0], PII)["weighted_f1"] + 0.3
