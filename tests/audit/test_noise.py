"""Label noise: seeded, as frequent as asked, and its truth complete."""

import pytest

from guard_utils.audit.noise import LabelNoise, add_label_noise, wrong_pairs
from guard_utils.data.examples import Example
from guard_utils.data.labels import PII_200K, reference_codes_evaluation
from guard_utils.policy import PII


def test_noise_is_seeded_and_its_truth_is_complete(clean: list[Example], noisy: LabelNoise) -> None:
    assert add_label_noise(clean[::-1], PII, seed=1).examples[::-1] == noisy.examples
    assert add_label_noise(clean, PII, seed=2).examples != noisy.examples
    wrong = noisy.truth[noisy.truth["given"] != noisy.truth["right"]]
    assert set(zip(wrong["id"], wrong["code"], strict=True)) == wrong_pairs(noisy.examples, clean)
    assert not noisy.truth.duplicated(["id", "code"]).any()
    assert not any(span.code for row in noisy.examples for span in row.spans)


def test_noise_is_as_frequent_as_asked(clean: list[Example]) -> None:
    codes = sum(len(row.codes) for row in clean)
    lost = add_label_noise(clean, PII, seed=0, missing=0.2, wrong=0, rules=PII_200K.codes).truth
    assert set(lost["kind"]) == {"missing"} and abs(len(lost) / codes - 0.2) < 0.04
    swapped = add_label_noise(clean, PII, seed=0, missing=0, wrong=0.2, rules=PII_200K.codes).truth
    left = (swapped["kind"] == "missing").sum()
    assert abs(left / codes - 0.2) < 0.04 and 0.6 * left < (swapped["kind"] == "wrong").sum() < left
    assert add_label_noise(clean, PII, seed=0, missing=0, wrong=0, rules=PII_200K.codes).truth.empty


def test_rules_alone_give_the_references_codes(clean: list[Example]) -> None:
    found = add_label_noise(clean, PII, seed=0, missing=0, wrong=0)
    assert [e.codes for e in found.examples] == [reference_codes_evaluation(s.label for s in e.spans) for e in clean]
    assert set(found.truth["kind"]) == {"rule"}


def test_impossible_noise_and_other_rows_are_refused(clean: list[Example]) -> None:
    with pytest.raises(ValueError, match="add up to at most 1"):
        add_label_noise(clean, PII, seed=0, missing=0.8, wrong=0.3)
    with pytest.raises(ValueError, match="no span has S1"):
        add_label_noise([row for row in clean if "S1" not in row.codes], PII, seed=0)
    with pytest.raises(ValueError, match="two versions of the same rows"):
        wrong_pairs(clean[:1], clean[1:2])
