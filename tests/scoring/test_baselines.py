"""What baselines and detectors of others answer, and that their shipped answers give the recorded scores."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from guard_utils.data.examples import Example, to_examples
from guard_utils.data.labels import PII_200K
from guard_utils.data.reference_rows import reference_examples
from guard_utils.data.splits import load_splits
from guard_utils.metrics.scores import summary
from guard_utils.policy import LLAMA_GUARD_3, PII, Category, Taxonomy
from guard_utils.profiles import repository, resolve
from guard_utils.scoring.baselines import majority, regular_expressions, tfidf
from guard_utils.scoring.cached import read_predictions
from tools.corpus.compose import generate


def example(number, text, *codes):
    return Example(f"r{number}", text, codes, "en", f"t{number}", "talk", ())


@pytest.fixture(scope="module")
def corpus():
    train = to_examples(list(generate(500, split="train")), PII_200K)
    return train, to_examples(list(generate(200, split="validation")), PII_200K)


def test_majority_answers_the_most_frequent_verdict_with_the_shares_of_training():
    train = [example(i, "x", *codes) for i, codes in enumerate([["S1", "S2"], ["S1", "S2"], ["S1"], []])]
    table = majority(train, [example(9, "y"), example(10, "z", "S5")], PII)
    assert table["predicted"].tolist() == [["S1", "S2"]] * 2
    assert table[["p_S1", "p_S2", "p_S5", "p_unsafe", "outside"]].iloc[1].tolist() == [0.75, 0.5, 0, 0.75, 0]
    equally_often = [train[0], train[2], example(4, "x", "S2")]
    for rows in (equally_often, equally_often[::-1]):
        assert majority(rows, train[:1], PII)["predicted"].tolist() == [["S1"]], "in any order"


@pytest.mark.parametrize("baseline", [majority, tfidf, lambda _, asked, policy: regular_expressions(asked, policy)])
def test_examples_are_a_list_and_at_least_one(baseline):
    one = [example(0, "a")]
    for train, asked in [("text", one), (one, "text")][baseline not in (majority, tfidf) :]:
        with pytest.raises(TypeError, match="examples is one text, 'text'; pass a list"):
            baseline(train, asked, PII)
    for train, asked in [([], one), (one, [])][baseline not in (majority, tfidf) :]:
        with pytest.raises(ValueError, match="no example; pass at least one"):
            baseline(train, asked, PII)


@pytest.mark.parametrize("baseline", [majority, tfidf])
def test_policies_of_one_to_thirty_categories(baseline):
    for n in (1, 2, 30):
        policy = Taxonomy("own", tuple(Category(f"Kind {number}") for number in range(n)))
        train = [example(i, f"kind {i % n} of thing", f"S{i % n + 1}") for i in range(4 * n)]
        table = baseline(train, [example(99, "kind 0 of thing")], policy)
        assert table["predicted"].tolist() == [["S1"]] and f"p_S{n}" in table
    with pytest.raises(ValueError, match=r"'S2' on row 1 .*has only S1"):
        baseline([example(0, "a"), example(1, "b", "S2")], train, PII.select(["S1"]))


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
    assert table["predicted"].tolist() == [["S2"]] and table["p_S5"].tolist() == [0]
    with pytest.raises(ValueError, match="Violent Crimes"):
        regular_expressions([example(0, "a")], LLAMA_GUARD_3)


def test_tfidf_learns_and_predicts_by_its_own_probabilities(corpus):
    train, validation = corpus
    table = tfidf(train, validation, PII)
    for code in PII.codes:
        assert [code in codes for codes in table["predicted"]] == (table[f"p_{code}"] >= 0.5).tolist()
    assert table["id"].tolist() == [e.id for e in validation]
    assert summary(table, PII)["weighted_f1"] > 0.3
    pd.testing.assert_frame_equal(table, tfidf(train, validation, PII), obj="the same seed")


def test_tfidf_knows_only_the_share_of_a_category_that_none_or_all_have():
    train = [example(i, f"the card number {i}", "S1", "S5") for i in range(10)]
    train += [example(i, f"a tree {i}", "S5") for i in range(10, 20)]
    asked = [example(30, "my card number"), example(31, "a tall tree")]
    table = tfidf(train, asked, PII)
    assert table["predicted"].tolist() == [["S1", "S5"], ["S5"]] and table["p_S5"].tolist() == [1, 1]
    assert (table[["p_S2", "p_S3", "p_S4"]] == 0).all(axis=None)
    alone = tfidf([replace(row, codes=row.codes[:-1]) for row in train], asked, PII.select(["S1"]))
    assert alone["p_S1"].equals(table["p_S1"]), "a policy of one category"


@pytest.mark.parametrize("system", ["rampart", "presidio", "regex", "tfidf", "majority"])
def test_shipped_answers_give_the_recorded_scores(system):
    run = resolve("laptop")
    file = repository() / "notebooks" / "predictions" / "laptop" / "rivals.json"
    record = json.loads(file.read_text())[system]["sets"]
    assert set(record) == {"reference", "single", "multi", "development", "validation", "test", "independent"}
    parts = {"reference": reference_examples()}  # without their texts
    if system in ("rampart", "presidio"):
        parts |= load_splits(run).held_out
    for part, examples in parts.items():
        found = summary(read_predictions(run, system, part, examples), PII)
        told = record[part]
        assert told["n"] == len(examples)
        for metric in ("weighted_f1", "subset_accuracy", "binary_fpr"):
            assert told[metric]["low"] <= told[metric]["value"] <= told[metric]["high"]
            assert found[metric] == pytest.approx(told[metric]["value"], abs=1e-4)
