"""Rows to examples: spans, codes, masked texts; rows that contradict themselves. Rows are hand-made."""

import warnings
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from guard_utils.data.examples import Span, reference_selection, to_examples
from guard_utils.data.labels import PII_65K, PII_200K, UnknownLabelError
from guard_utils.data.rows import DataError, load
from tests.data.made import Row, row_65k, row_200k, write_jsonl


def test_200k_rows_become_examples() -> None:
    rows = [row_200k("<PREFIX|Dr> <FIRSTNAME|Ada> lives in <ZIPCODE|1010> <CITY|Wien>.", 7), row_200k("No one.", 8)]
    first, second = to_examples(rows, PII_200K)
    assert (first.id, first.text, first.language) == ("7", "Dr Ada lives in 1010 Wien.", "en")
    assert first.spans[0] == Span(0, 2, "PREFIX", None)
    assert [first.text[span.start : span.end] for span in first.spans] == ["Dr", "Ada", "1010", "Wien"]
    assert first.verdict.text == "unsafe\nS1,S4"
    assert (second.codes, second.spans, second.verdict.text) == ((), (), "safe")
    assert first.masked == rows[0]["target_text"]


def test_65k_rows_get_ids_and_no_offsets() -> None:
    first, second = to_examples([row_65k(), row_65k()], PII_65K)
    assert (first.id, second.id, first.codes, first.language) == ("65k-000001", "65k-000002", ("S1", "S3"), "und")
    assert first.spans == (Span(-1, -1, "FULLNAME", "S1"), Span(-1, -1, "PHONE_NUMBER", "S3"))
    assert first.masked == "Ask [FULLNAME] on [PHONENUMBER]."


def test_65k_token_tags_become_spans_and_none_is_lost() -> None:
    tags = ["I-IP", "I-IP", "B-IP", "I-MAC", "O", "I-MAC", "B-MAC", "I-IP", "O"]
    with pytest.warns(UserWarning):
        spans = to_examples([row_65k(token_entity_labels=tags)], PII_65K)[0].spans
    assert [span.label for span in spans] == ["IP", "IP", "MAC", "MAC", "MAC", "IP"]


def test_corpus_fields_are_kept(tmp_path: Path) -> None:
    corpus: Row = {"template_id": "en/health/3", "situation": "health", "clause_ids": ["a", "b"], "split": "train"}
    rows = load(write_jsonl(tmp_path / "a.jsonl", [row_200k("Hi.", **corpus, phase=2)]))
    assert (rows[0]["split"], rows[0]["phase"]) == ("train", 2)
    only = to_examples(rows, PII_200K)[0]
    assert (only.template_id, only.situation, only.clause_ids) == ("en/health/3", "health", ("a", "b"))


def test_template_fingerprints_ignore_values_numbers_and_schema() -> None:
    rows = [row_200k("Call <PHONENUMBER|1>, <IPV4|1.1.1.1>."), row_200k("Call <PHONENUMBER|2>,  <IPV4|8.8.8.8>.", 2)]
    one, two = to_examples(rows, PII_200K)
    with pytest.warns(UserWarning):
        masked = ("Call [PHONE_NUMBER_1], [IPV4_2].", "Call [IPV4_1].")
        same, other = to_examples([row_65k(masked_text=text) for text in masked], PII_65K)
    assert one.template_id == two.template_id == same.template_id != other.template_id


def test_a_filtered_data_set_maps_its_own_rows() -> None:
    rows = Dataset.from_list([row_200k(f"{n} <CITY|Graz>" if n % 2 else f"{n}", n) for n in range(10)])
    kept = rows.filter(lambda row: int(row["id"]) % 2 == 1)
    assert [e.codes for e in to_examples(kept, PII_200K)] == [("S4",)] * 5
    with pytest.raises(DataError, match="rows: no rows"):
        to_examples(rows.select([]), PII_200K)


def test_unknown_labels_are_collected_over_the_whole_set() -> None:
    texts = ["<CITY|Graz>", "<TEL|1>", "<GIVENNAME|Ada> <TEL|2>", "<TEL|3>"]
    rows = [row_200k(text, n) for n, text in enumerate(texts)]
    with pytest.raises(UnknownLabelError) as caught:
        to_examples(rows, PII_200K, place="mine")
    assert "'TEL': 3 times, first in mine, row 2, field 'privacy_mask': '1'" in str(caught.value)
    assert "'GIVENNAME': 1 times, first in mine, row 3" in str(caught.value) and "Add LabelRule" in str(caught.value)
    tagged, later = (row_65k(token_entity_labels=["O", tag, *["O"] * 7]) for tag in ("B-TEL", "I-TEL"))
    with pytest.raises(UnknownLabelError, match="'TEL': 3 times, first in rows, row 2"):
        to_examples([row_65k(), tagged, later, later], PII_65K)


GOOD = row_200k("Call <FIRSTNAME|Ada> on <PHONENUMBER|555-0101>.")
NAME, PHONE = GOOD["privacy_mask"]
TAGS = row_65k()["token_entity_labels"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (GOOD | {"target_text": "Call [FIRSTNAME] on 555-0101."}, r"label of privacy_mask .*'PHONENUMBER'\]"),
        (GOOD | {"privacy_mask": [NAME]}, r"label of target_text .* first row 2 has \['PHONENUMBER'"),
        (GOOD | {"target_text": "Call [FIRSTNAME] on [TEL]."}, r"label of target_text .*\['TEL'\]"),
        (GOOD | {"privacy_mask": [NAME, PHONE | {"start": 13}]}, r"not at its offsets; .*\['PHONENUMBER'\]"),
        (GOOD | {"privacy_mask": [NAME, PHONE | {"start": 0}]}, r"not at its offsets; .*\['PHONENUMBER'\]"),
        (GOOD | {"target_text": "Ask [FIRSTNAME] on [PHONENUMBER]."}, "target_text is not source_text with values"),
        (row_65k(masked_text="Ask Zoë Brandl on [PHONE_NUMBER_1]."), r"of token_entity_labels .*\['FULLNAME'\]"),
        (row_65k(token_entity_labels=["O"] * 5 + TAGS[5:]), r"label of masked_text is not in .*\['FULLNAME'\]"),
        (row_65k(token_entity_labels=TAGS[:-1]), "differ in length; first row 2 has 8 and 9"),
        (row_65k(tokenised_unmasked_text=["tell", *["x"] * 8]), "tokenised_unmasked_text are not those of"),
        (row_65k(masked_text="Tell [FULLNAME_1] to [PHONE_NUMBER_1]."), "masked_text is not unmasked_text"),
    ],
)
def test_rows_that_contradict_themselves_are_shown_and_kept(row: Row, told: str) -> None:
    row, good, label_map = (row, row_65k(), PII_65K) if "masked_text" in row else (row | {"id": "2"}, GOOD, PII_200K)
    with pytest.warns(UserWarning, match=f"(?s)mine: parts of a row contradict .*\n +1 rows: .*{told}") as shown:
        found = to_examples([good, row], label_map, place="mine")
    assert len(found) == 2 and len(shown) == 1
    assert found[1].codes == label_map.codes({span.label for span in found[1].spans})


def test_contradictions_are_counted_by_kind_in_one_warning() -> None:
    rows = [GOOD | {"id": str(n), "privacy_mask": [NAME][: n % 2]} for n in range(5)]
    with pytest.warns(UserWarning, match=r" 5 rows: a label of target_text .*; first row 1 has") as shown:
        found = to_examples(rows, PII_200K)
    assert len(shown) == 1 and [e.codes for e in found] == [(), ("S1",), (), ("S1",), ()]


@pytest.mark.parametrize(
    "row",
    [
        row_200k("Pay <CURRENCYSYMBOL|€><AMOUNT|12> [see below] [1] [OK] to <CITY|Graz>, dear [FIRSTNAME_N]."),
        row_200k("[FIRSTNAME] is <FIRSTNAME|Ada>."),
        row_65k(masked_text="Ask [FULLNAME_1][FULLNAME_2] on [PHONE_NUMBER_1]."),
        row_65k(tokenised_unmasked_text=["Ask", "Zo", "##ë", "Brandl", "on", "555", "-", "01", "##01"]),
        row_65k(tokenised_unmasked_text=["ask", "[UNK]", "bran", "##dl", "on", "555", "-", "0101", "."]),
    ],
)
def test_brackets_that_are_no_label_and_adjacent_labels_contradict_nothing(row: Row) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_examples([row], PII_65K if "masked_text" in row else PII_200K)


LABELS = st.lists(st.sampled_from([rule.label for rule in PII_200K.rules]), max_size=6)


@given(st.lists(st.tuples(LABELS, st.text(st.characters(exclude_categories=["Cs"]))), min_size=1, max_size=12))
def test_examples_are_those_of_the_rows(drawn: list[tuple[list[str], str]]) -> None:
    rows = [row_200k(" ".join(f"<{name}|v>" for name in names) + "!", n) for n, (names, _) in enumerate(drawn)]
    for row, (_, text) in zip(rows, drawn, strict=True):
        row["source_text"] += text
        row["target_text"] += text
    examples = to_examples(rows, PII_200K)
    assert [e.codes for e in examples] == [PII_200K.codes(labels) for labels, _ in drawn]
    assert [e.text for e in examples] == [row["source_text"] for row in rows]


def test_reference_selection_is_the_first_n_in_file_order() -> None:
    codes = [("S1",), ("S1", "S2"), (), ("S2", "S3"), ("S3",)]
    assert reference_selection(codes, kind="single", n=2) == [0, 2]
    assert reference_selection(codes, kind="multi") == [1, 3]
    assert reference_selection([()] * 2000, kind="single") == list(range(999))
    with pytest.raises(ValueError, match="use 'single' or 'multi'"):
        reference_selection(codes, kind="both")
    for one in ("S1", ["S1", "S2"]):
        with pytest.raises(TypeError, match="one text, 'S1'"):
            reference_selection(one, kind="multi")
