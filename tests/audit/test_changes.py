"""Changed labels: noise that is seeded and known; what a file of corrections holds, changes, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard_utils.audit import Correction, LabelNoise, add_label_noise, apply_corrections, wrong_pairs
from guard_utils.audit.changes import read_corrections, write_corrections
from guard_utils.data.examples import Example
from guard_utils.data.labels import reference_codes_evaluation
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
    lost = add_label_noise(clean, PII, seed=0, missing=0.2, wrong=0).truth["kind"]
    assert set(lost) == {"missing", "rule"} and abs((lost == "missing").sum() / codes - 0.2) < 0.04
    swapped = add_label_noise(clean, PII, seed=0, missing=0, wrong=0.2).truth["kind"].value_counts()
    assert abs(swapped["missing"] / codes - 0.2) < 0.04
    assert 0.6 * swapped["missing"] < swapped["wrong"] < swapped["missing"]


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


def rows(*codes: tuple[str, ...]) -> list[Example]:
    return [Example(f"r{i}", f"secret text {i}", own, "en", f"t{i}", "", ()) for i, own in enumerate(codes)]


DATA = rows(("S1",), (), ("S2", "S4"))
ADD = Correction("r0", "S3", "add", "a phone number stands there", "ann")
REMOVE = Correction("r2", "S2", "remove", "a post code", "ann")
KEEP = Correction("r1", "S1", "keep", "Paris is a city here", "ann")


def test_codes_change_where_decided_and_nowhere_else() -> None:
    corrected = apply_corrections(DATA, [REMOVE, KEEP, ADD, replace(ADD, reviewer="bob")], PII)
    assert [example.codes for example in corrected] == [("S1", "S3"), (), ("S4",)]
    assert [replace(e, codes=()) for e in corrected] == [replace(e, codes=()) for e in DATA]
    assert [example.codes for example in DATA] == [("S1",), (), ("S2", "S4")]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(PII.codes)), unique=True))
def test_applying_the_opposite_gives_the_data_back_in_any_order(pairs: list[tuple[int, str]]) -> None:
    there = [Correction(f"r{i}", c, "remove" if c in DATA[i].codes else "add", "", "x") for i, c in pairs]
    back = [replace(item, action="add" if item.action == "remove" else "remove") for item in reversed(there)]
    corrected = apply_corrections(DATA, there, PII)
    assert corrected == apply_corrections(DATA, there[::-1], PII)
    assert apply_corrections(corrected, back, PII) == DATA


@pytest.mark.parametrize(
    ("data", "corrections", "words"),
    [
        (DATA, [replace(ADD, id="r9")], "'r9'"),
        ([*DATA, DATA[0]], [ADD], "4 rows have 3 ids"),
        (DATA, [ADD, replace(ADD, action="keep", reviewer="bob")], "S3 of row 'r0' has both add and keep"),
        (DATA, [replace(ADD, code="S1")], "can't add S1: row 'r0' has"),
        (DATA, [replace(REMOVE, code="S5")], "can't remove S5"),
        (DATA, [replace(ADD, code="S6")], "S6.*not in policy 'pii'"),
    ],
)
def test_what_does_not_fit_is_refused(data: list[Example], corrections: list[Correction], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        apply_corrections(data, corrections, PII)


def test_file_holds_no_text_and_comes_back(tmp_path: Path) -> None:
    path = write_corrections(tmp_path / "c.jsonl", [REMOVE, ADD, KEEP, ADD], DATA, PII)
    assert read_corrections(path, DATA) == [ADD, KEEP, REMOVE]
    assert "secret" not in path.read_text()
    head, *lines = map(json.loads, path.read_text().splitlines())
    assert head["rows"] == 3 and set(lines[0]) == {"id", "code", "action", "reason", "reviewer"}
    again = write_corrections(tmp_path / "d.jsonl", [ADD, KEEP, REMOVE], DATA, PII)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="r9"):
        write_corrections(tmp_path / "e.jsonl", [replace(ADD, id="r9")], DATA, PII)
    assert not (tmp_path / "e.jsonl").exists()


@pytest.mark.parametrize("other", [DATA[:2], DATA[::-1], [replace(DATA[0], codes=()), *DATA[1:]]])
def test_corrections_of_another_version_are_refused(other: list[Example], tmp_path: Path) -> None:
    path = write_corrections(tmp_path / "c.jsonl", [ADD], DATA, PII)
    with pytest.raises(ValueError, match="load the reviewed version"):
        read_corrections(path, other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin with a header"),
        ('{"id": "r0"}\n', "does not begin with a header"),
        ('HEAD{"id": "r0", "code": "S3"', "line 2"),
        ('HEAD{"id": "r0", "code": "S3"}', "line 2: .*missing"),
        ('HEAD{"id": "r0", "code": "S3", "action": "delete", "reason": "", "reviewer": "x"}', "add, remove, keep"),
    ],
)
def test_a_broken_file_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = write_corrections(tmp_path / "c.jsonl", [], DATA, PII)
    path.write_text(text.replace("HEAD", path.read_text()))
    with pytest.raises(ValueError, match=words):
        read_corrections(path, DATA)
