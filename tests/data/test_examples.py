"""Rows to examples: both schemas, every fault named by file, row and field; splits; leakage. Rows are hand-made."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from guard_utils.data import rows as rows_module
from guard_utils.data.examples import (
    DataError,
    Example,
    Span,
    load,
    reference_codes,
    reference_selection,
    resolve_revision,
    split,
    to_examples,
    training_lines,
)
from guard_utils.data.labels import PII_65K, PII_200K, UnknownLabelError
from guard_utils.data.leakage import drop_leaks, leakage, masked_text, without_leaks

Row = dict[str, Any]


def row_200k(marked: str, number: int = 1, **more: Any) -> Row:
    """Makes a row of the 200k schema from text with `<LABEL|value>` marks."""
    text, mask, done = "", [], 0
    for mark in re.finditer(r"<(\w+)\|([^>]*)>", marked):
        text += marked[done : mark.start()]
        mask.append({"value": mark[2], "start": len(text), "end": len(text) + len(mark[2]), "label": mark[1]})
        text, done = text + mark[2], mark.end()
    target = re.sub(r"<(\w+)\|[^>]*>", r"[\1]", marked)
    row = {"source_text": text + marked[done:], "target_text": target, "privacy_mask": mask}
    return row | {"language": "en", "id": str(number)} | more


def row_65k(masked: str = "Ask [FULLNAME_1] on [PHONE_NUMBER_1].") -> Row:
    """Makes a row of the 65k schema."""
    return {
        "unmasked_text": "Ask Zoë Brandl on 555-0101.",
        "masked_text": masked,
        "tokenised_unmasked_text": ["ask", "zoe", "bran", "##dl", "on", "555", "-", "0101", "."],
        "token_entity_labels": [
            *("O", "B-FULLNAME", "I-FULLNAME", "I-FULLNAME", "O"),
            *("B-PHONE_NUMBER", "I-PHONE_NUMBER", "I-PHONE_NUMBER", "O"),
        ],
    }


def write_jsonl(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def example(number: int, text: str, template: str = "", clauses: tuple[str, ...] = ()) -> Example:
    return Example(str(number), text, (), "en", template, "", (), clauses)


# --- Both schemas -----------------------------------------------------------------------------------------------------


def test_200k_rows_become_examples() -> None:
    rows = [
        row_200k("<PREFIX|Dr> <FIRSTNAME|Ada> lives in <ZIPCODE|1010> <CITY|Wien>.", 7),
        row_200k("Nothing here.", 8),
    ]
    first, second = to_examples(rows, PII_200K)
    assert (first.id, first.text, first.codes, first.language) == (
        "7",
        "Dr Ada lives in 1010 Wien.",
        ("S1", "S4"),
        "en",
    )
    assert first.spans[0] == Span(0, 2, "PREFIX", None)
    assert [first.text[span.start : span.end] for span in first.spans] == ["Dr", "Ada", "1010", "Wien"]
    assert first.verdict.text == "unsafe\nS1,S4"
    assert (second.codes, second.spans, second.verdict.text) == ((), (), "safe")
    assert masked_text(first) == rows[0]["target_text"]


def test_corpus_fields_are_kept() -> None:
    corpus: Row = {"template_id": "en/health/3", "situation": "health", "clause_ids": ["a", "b"], "split": "train"}
    only = to_examples([row_200k("Hi.", **corpus)], PII_200K)[0]
    assert (only.template_id, only.situation, only.clause_ids) == ("en/health/3", "health", ("a", "b"))


def test_65k_rows_get_ids_and_offsets_by_aligning_tokens() -> None:
    first, second = to_examples([row_65k(), row_65k()], PII_65K)
    assert (first.id, second.id) == ("65k-000001", "65k-000002")
    assert first.codes == ("S1", "S3")
    assert first.spans == (Span(4, 14, "FULLNAME", "S1"), Span(18, 26, "PHONE_NUMBER", "S3"))
    assert masked_text(first) == "Ask [FULLNAME] on [PHONENUMBER]."
    assert first.language == "und"


def test_65k_alignment_bears_case_accents_and_chance_hits() -> None:
    cased = row_65k() | {"tokenised_unmasked_text": ["Ask", "Zoë", "Bran", "##dl", "on", "555", "-", "0101", "."]}
    assert to_examples([cased], PII_65K)[0].spans[0] == Span(4, 14, "FULLNAME", "S1")
    text = "The xy was sent by Ada, and it stayed there for a week or so in box xy."
    tags = ["O", "O", "B-FIRSTNAME", "O"]
    far = row_65k() | {"unmasked_text": text, "token_entity_labels": tags}
    # "box" was not written where its token stands: the far hit must not draw the tokens after it along.
    far["tokenised_unmasked_text"] = ["the", "box", "ada", ","]
    assert to_examples([far], PII_65K)[0].spans == (Span(19, 22, "FIRSTNAME", "S1"),)


def test_values_off_their_offsets_count_and_are_reported() -> None:
    row = row_200k("Call <PHONENUMBER|555-0101>.")
    row["privacy_mask"][0]["start"] += 1
    with pytest.warns(UserWarning, match="my set: 1 values do not stand"):
        found = to_examples([row], PII_200K, place="my set")[0]
    assert found.spans == (Span(-1, -1, "PHONENUMBER", "S3"),)
    assert found.codes == ("S3",)
    lost = row_65k() | {"tokenised_unmasked_text": ["ask", "[UNK]", "bran", "##dl", "on", "555", "-", "0101", "."]}
    with pytest.warns(UserWarning, match="1 values"):
        spans = to_examples([lost], PII_65K)[0].spans
    assert spans == (Span(-1, -1, "FULLNAME", "S1"), Span(18, 26, "PHONE_NUMBER", "S3"))


def test_template_fingerprints_ignore_values_numbers_and_schema() -> None:
    one = to_examples(
        [row_200k("Call <PHONENUMBER|1>, <IPV4|1.1.1.1>."), row_200k("Call <PHONENUMBER|2>,  <IPV4|8.8.8.8>.")],
        PII_200K,
    )
    other = to_examples([row_65k("Call [PHONE_NUMBER_1], [IPV4_2]."), row_65k("Call [IPV4_1].")], PII_65K)
    assert one[0].template_id == one[1].template_id == other[0].template_id != other[1].template_id


# --- Files ------------------------------------------------------------------------------------------------------------


def test_jsonl_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    rows = [row_200k(f"Hi <FIRSTNAME|Ünal{n}>, <STREET|Am Platz>.", n, extra="dropped") for n in range(30)]
    for row in rows:
        row["id"] = int(row["id"])
    lines = load(write_jsonl(tmp_path / "a.jsonl", rows))
    shuffled = [row | {"privacy_mask": [dict(sorted(m.items())) for m in row["privacy_mask"]]} for row in rows]
    pq.write_table(pa.Table.from_pylist(shuffled), tmp_path / "a.parquet")
    columns = load(tmp_path / "a.parquet")
    assert lines.to_list() == columns.to_list()
    assert lines.column_names == ["source_text", "target_text", "privacy_mask", "language", "id"]
    assert to_examples(lines, PII_200K) == to_examples(rows, PII_200K)
    assert lines[3]["id"] == "3"


def test_a_filtered_data_set_maps_its_own_rows() -> None:
    rows = Dataset.from_list([row_200k(f"{n} <CITY|Graz>" if n % 2 else f"{n}", n) for n in range(10)])
    kept = rows.filter(lambda row: int(row["id"]) % 2 == 1)
    assert [e.codes for e in to_examples(kept, PII_200K)] == [("S4",)] * 5
    assert to_examples(rows.select([]), PII_200K) == []


def test_languages_and_limit(tmp_path: Path) -> None:
    rows = [row_200k("Hallo.", n, language="de" if n % 3 else "en") for n in range(9)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert load(path, languages=["de"])["id"] == ["1", "2", "4", "5", "7", "8"]
    assert load(path, languages=["de"], limit=2)["id"] == ["1", "2"]
    with pytest.raises(DataError, match=r"'language': no row in \['fr'\]; available: \['de', 'en'\]"):
        load(path, languages=["de", "fr"])
    with pytest.raises(DataError, match="no 'language' column; choose files with data_files"):
        load(write_jsonl(tmp_path / "b.jsonl", [row_65k()]), languages=["en"])


@pytest.mark.parametrize("line", [b'{"source_text": "cut', b"", b'{"id": "\xff"}'])
def test_broken_line_17_is_named(tmp_path: Path, line: bytes) -> None:
    lines = [json.dumps(row_200k("Hi.", n)).encode() for n in range(40)]
    lines[16] = line
    path = tmp_path / "broken.jsonl"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"broken\.jsonl, line 17: not valid JSON"):
        load(path)


def drop(field: str) -> Callable[[Row], Any]:
    return lambda row: {key: value for key, value in row.items() if key != field}


def spoil_mask(**change: Any) -> Callable[[Row], Any]:
    return lambda row: row | {"privacy_mask": [row["privacy_mask"][0] | change]}


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda row: row | {"source_text": None}, "source_text"),
        (lambda row: row | {"source_text": 5}, "source_text"),
        (lambda row: row | {"source_text": "\ud800"}, "source_text"),
        (lambda row: row | {"id": None}, "id"),
        (drop("target_text"), "target_text"),
        (lambda row: row | {"privacy_mask": "[]"}, "privacy_mask"),
        (spoil_mask(label=None), r"privacy_mask\.label"),
        (spoil_mask(start="four"), "privacy_mask"),
        (lambda row: row | {"mbert_text_tokens": ["a", "b"], "mbert_bio_labels": ["O"]}, "mbert_bio_labels"),
        (lambda row: ["no", "object"], ""),
    ],
)
def test_a_bad_row_is_named_by_file_row_and_field(tmp_path: Path, spoil: Callable[[Row], Any], field: str) -> None:
    rows = [row_200k("Hi <CITY|Graz>.", n) for n in range(20)]
    rows[16] = spoil(rows[16])
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=rf"bad\.jsonl, row 17.*{field}"):
        load(path)


def test_a_bad_row_beyond_the_first_chunk_is_named() -> None:
    rows = [row_200k("Hi.", n) for n in range(10_005)]
    rows[10_002]["language"] = ["en"]
    with pytest.raises(DataError, match="row 10003, field 'language'"):
        to_examples(rows, PII_200K)


def test_65k_labels_of_unequal_length_and_null_text() -> None:
    rows = [row_65k(), row_65k(), row_65k()]
    rows[2]["token_entity_labels"] = ["O", "O"]
    with pytest.raises(DataError, match="row 3, field 'token_entity_labels': 2 labels for 9 tokens"):
        to_examples(rows, PII_65K)
    with pytest.raises(DataError, match="row 2, field 'unmasked_text': missing or null"):
        list(training_lines([row_65k(), row_65k() | {"unmasked_text": None}], PII_65K))
    with pytest.raises(DataError, match="row 1, field 'token_entity_labels': token tag 'FULLNAME'"):
        to_examples([row_65k() | {"token_entity_labels": ["FULLNAME"] + ["O"] * 8}], PII_65K)


def test_parquet_faults_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist([row_200k("a <CITY|b>"), row_200k("c <CITY|d>") | {"source_text": None}]), path)
    with pytest.raises(DataError, match=r"p\.parquet, row 2, field 'source_text': missing or null"):
        load(path)
    pq.write_table(pa.Table.from_pylist([row_200k("a") | {"privacy_mask": "x"}]), path)
    with pytest.raises(DataError, match=r"p\.parquet, field 'privacy_mask': is string, expected list"):
        load(path)
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"p\.parquet: not a readable Parquet file"):
        load(path)


def test_wrong_columns_and_sources(tmp_path: Path) -> None:
    row = row_200k("Hi.")
    row["text"] = row.pop("source_text")
    with pytest.raises(DataError, match=r"w\.jsonl.*\['source_text'\] of the 200k schema are missing; found .*'text'"):
        load(write_jsonl(tmp_path / "w.jsonl", [row]))
    with pytest.raises(DataError, match="no rows"):
        load(write_jsonl(tmp_path / "empty.jsonl", []))
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match=r"neither a \.jsonl or \.parquet file nor a hub name"):
        load(tmp_path / "rows.csv")


def test_unknown_labels_are_collected_over_the_whole_set() -> None:
    texts = ["<CITY|Graz>", "<TEL|1>", "<GIVENNAME|Ada> <TEL|2>", "<TEL|3>"]
    rows = [row_200k(text, n) for n, text in enumerate(texts)]
    for way in (
        lambda: to_examples(rows, PII_200K, place="mine"),
        lambda: list(training_lines(rows, PII_200K, place="mine")),
    ):
        with pytest.raises(UnknownLabelError) as caught:
            way()
        assert caught.value.counts == {"TEL": 3, "GIVENNAME": 1}
        assert caught.value.examples["TEL"] == "mine, row 2, field 'privacy_mask': '1'"
        assert caught.value.examples["GIVENNAME"].startswith("mine, row 3")
    tagged = row_65k() | {"token_entity_labels": ["O", "B-TEL", *["O"] * 7]}
    later = row_65k() | {"token_entity_labels": ["O", "I-TEL", *["O"] * 7]}
    with pytest.raises(UnknownLabelError, match="'TEL': 3 times, first in rows, row 2"):
        to_examples([row_65k(), tagged, later, later], PII_65K)


# --- The hub ----------------------------------------------------------------------------------------------------------


def test_hub_rows_are_loaded_at_the_pinned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load_dataset(name: str, **options: Any) -> Dataset:
        asked.update(options, name=name)
        return Dataset.from_list([row_200k("Hi <LASTNAME|Ito>.")])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert len(load("ai4privacy/pii-masking-200k")) == 1
    assert asked["revision"] == rows_module.HUB_REVISIONS["ai4privacy/pii-masking-200k"]
    assert asked["split"] == "train"


class GatedRepoError(Exception):
    """Named as the hub library's own, which wants an HTTP response to be built."""


class DatasetNotFoundError(Exception):
    """Likewise."""


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (
            GatedRepoError("403"),
            r"gated: accept its conditions at https://.*pii-masking-200k, then run `hf auth login`",
        ),
        (DatasetNotFoundError("Dataset is a gated dataset on the Hub"), "accept its conditions"),
        (DatasetNotFoundError("no"), "check the spelling"),
        (ConnectionError("Couldn't reach it"), r"cannot be reached.*pass a \.jsonl or \.parquet file"),
    ],
)
def test_hub_faults_are_explained(monkeypatch: pytest.MonkeyPatch, error: Exception, fix: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(DataError, match=f"cannot load ai4privacy/pii-masking-200k: .*{fix}"):
        load("ai4privacy/pii-masking-200k")


def test_revisions_resolve_to_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Info:
        sha = "c" * 40

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, name, revision: Info)
    assert resolve_revision("ai4privacy/pii-masking-65k", "main") == "c" * 40
    assert resolve_revision("any/set", "d" * 40) == "d" * 40

    def offline(self: Any, name: str, revision: str) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", offline)
    assert resolve_revision("any/set", "v1") == "v1"


# --- Codes, lines, the reference's rules ------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.sampled_from([rule.label for rule in PII_200K.rules]), max_size=6), min_size=1, max_size=12)
)
def test_columnar_codes_equal_the_map_row_by_row(labels: list[list[str]]) -> None:
    rows = [row_200k(" ".join(f"<{label}|v>" for label in found), n) for n, found in enumerate(labels)]
    examples = to_examples(rows, PII_200K)
    assert [e.codes for e in examples] == [PII_200K.codes(found) for found in labels]
    lines = list(training_lines(rows, PII_200K))
    assert lines == [{"id": e.id, "text": e.text, "answer": e.verdict.text} for e in examples]


@given(st.text())
def test_any_unicode_text_passes_unchanged(text: str) -> None:
    sendable = text.encode("utf-8", "ignore").decode()
    row = row_200k("x") | {"source_text": sendable}
    assert next(training_lines([row], PII_200K))["text"] == sendable


def test_reference_codes_keep_the_substring_fault() -> None:
    rows = [row_200k("<ZIPCODE|99578>"), row_200k("<PHONENUMBER|1>"), row_200k("<USERNAME|x>"), row_200k("y")]
    assert reference_codes(rows, rules="evaluation") == [("S2", "S4"), (), ("S1",), ()]
    assert [PII_200K.codes([m["label"] for m in row["privacy_mask"]]) for row in rows] == [("S4",), ("S3",), (), ()]
    for row in rows:
        row |= {"mbert_text_tokens": ["a", "b"], "mbert_bio_labels": ["B-CITY", "O"]}
    assert reference_codes(rows, rules="evaluation") == [("S4",)] * 4
    assert reference_codes([row_65k()], rules="training") == [("S1", "S3")]
    with pytest.raises(ValueError, match="use 'training' or 'evaluation'"):
        reference_codes(rows, rules="test")


def test_reference_selection_is_the_first_n_in_file_order() -> None:
    codes = [("S1",), ("S1", "S2"), (), ("S2", "S3"), ("S3",)]
    assert reference_selection(codes, kind="single") == [0, 2, 4]
    assert reference_selection(codes, kind="multi") == [1, 3]
    assert reference_selection(codes, kind="single", n=2) == [0, 2]
    assert reference_selection([()] * 2000, kind="single") == list(range(999))
    with pytest.raises(ValueError, match="use 'single' or 'multi'"):
        reference_selection(codes, kind="both")


# --- Split and leakage ------------------------------------------------------------------------------------------------


def test_split_is_by_template_and_blind_to_order() -> None:
    examples = [example(n, "x", template=f"t{n % 200}") for n in range(1000)]
    parts = split(examples, seed=1)
    templates = {name: {e.template_id for e in part} for name, part in parts.items()}
    assert sum(map(len, parts.values())) == 1000
    assert not templates["train"] & templates["test"]
    assert not templates["train"] & templates["validation"]
    assert 0.7 < len(parts["train"]) / 1000 < 0.9
    shuffled = random.Random(0).sample(examples[:500], 500)
    again = split(shuffled, seed=1)
    assert {e.template_id for e in again["test"]} == templates["test"]
    assert {e.id for e in again["train"]} == {e.id for e in parts["train"] if int(e.id) < 500}
    assert [e.id for e in parts["test"]] == sorted((e.id for e in parts["test"]), key=int)
    assert {e.template_id for e in split(examples, seed=2)["test"]} != templates["test"]
    halves = split(examples, seed=1, fractions={"a": 0.5, "b": 0.5})
    assert 400 < len(halves["a"]) < 600
    for wrong in ({"a": 0.5, "b": 0.6}, {"a": 1.0, "b": 0.0}):
        with pytest.raises(ValueError, match="add up to 1"):
            split(examples, seed=1, fractions=wrong)


LONG = "the lift in the north wing was stuck again this morning and the caretaker has been told twice already"


def test_leakage_finds_templates_clauses_and_near_duplicates() -> None:
    train = [
        example(1, "one two three four", template="shared"),
        example(2, "five six seven eight", template="a", clauses=("c1", "c2")),
        example(3, LONG, template="b"),
        example(4, "nothing in common with any of them at all", template="c", clauses=("c9",)),
    ]
    test = [
        example(11, "nine ten eleven twelve", template="shared"),
        example(12, "red green blue yellow", template="d", clauses=("c2", "c3")),
        example(13, LONG.replace("already", "now").title(), template="e"),
        example(14, "a text of its own kind", template="f", clauses=("c8",)),
    ]
    report = leakage(train, test)
    assert report.template_ids == ("shared",)
    assert report.clause_ids == ("c2",)
    assert [(pair.train_ids, pair.test_ids) for pair in report.near_duplicates] == [(("3",), ("13",))]
    assert report.near_duplicates[0].similarity == pytest.approx(16 / 18)
    assert report.train_ids == {"1", "2", "3"}
    assert report.test_ids == {"11", "12", "13"}
    assert not report.clean
    assert list(report.table()["count"]) == [1, 1, 1, 3, 3]
    assert [e.id for e in drop_leaks(train, report)] == ["4"]
    assert leakage(drop_leaks(train, report), test).clean
    assert [e.id for e in without_leaks(train, [test[:1], test[1:]])] == ["4"]
    assert without_leaks(train, []) == train
    assert not leakage(train, test, threshold=0.9).near_duplicates
    for wrong in (0, 1.1):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            leakage(train, test, threshold=wrong)


def test_leakage_sees_through_values_and_ignores_empty_template_ids() -> None:
    def made(name: str, city: str, number: int) -> Example:
        row = row_200k(
            f"<FIRSTNAME|{name}> moved to <CITY|{city}> after the school year ended", number, template_id=f"t{number}"
        )
        return to_examples([row], PII_200K)[0]

    report = leakage([made("Ada", "Graz", 1), made("Kim", "Linz", 2)], [made("Maximilian", "Bad Ischl", 3)])
    assert [(p.train_ids, p.test_ids, p.similarity) for p in report.near_duplicates] == [(("1", "2"), ("3",), 1.0)]
    assert leakage([example(1, "abc")], [example(2, "xyz")]).clean


def test_leakage_misses_no_pair_that_just_reaches_the_threshold() -> None:
    rng = random.Random(3)
    texts = [[f"w{rng.randrange(10_000)}" for _ in range(42)] for _ in range(200)]
    train = [example(n, " ".join(words)) for n, words in enumerate(texts)]
    test = [
        example(n, " ".join([*words[:-4], "u", "v", "w", "x"])) for n, words in enumerate(texts)
    ]  # 36 of 44 triples
    assert len(leakage(train, test).near_duplicates) == 200


# --- The benchmark ----------------------------------------------------------------------------------------------------


def test_benchmark_data_prep_runs_and_agrees(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    output = tmp_path / "record.json"
    command = [sys.executable, "benchmarks/data_prep.py", "--rows", "2000", "--output", str(output)]
    subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root)}
    )
    record = json.loads(output.read_text())
    assert record["rows"] == 2000
    assert 0 < record["rules_agree"] <= record["lines_equal"] < 2000
    assert {"reference", "reference_narrow", "ours"} == set(record["sides"])
    assert record["sides"]["ours"]["peak_mib"] < 1500
