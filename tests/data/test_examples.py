"""Rows to examples: both schemas, every fault named by file, row and field; codes; splits. Rows are hand-made."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from guard_utils.data.examples import Example, Span, reference_selection, split_by_template, to_examples, training_lines
from guard_utils.data.labels import PII_65K, PII_200K, UnknownLabelError
from guard_utils.data.leaks import masked_text
from guard_utils.data.rows import HUB_REVISIONS, DataError, load, resolve_revision

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


def test_200k_rows_become_examples() -> None:
    rows = [row_200k("<PREFIX|Dr> <FIRSTNAME|Ada> lives in <ZIPCODE|1010> <CITY|Wien>.", 7), row_200k("No one.", 8)]
    first, second = to_examples(rows, PII_200K)
    assert (first.id, first.text, first.language) == ("7", "Dr Ada lives in 1010 Wien.", "en")
    assert first.spans[0] == Span(0, 2, "PREFIX", None)
    assert [first.text[span.start : span.end] for span in first.spans] == ["Dr", "Ada", "1010", "Wien"]
    assert first.verdict.text == "unsafe\nS1,S4"
    assert (second.codes, second.spans, second.verdict.text) == ((), (), "safe")
    assert masked_text(first) == rows[0]["target_text"]


def test_corpus_fields_are_kept(tmp_path: Path) -> None:
    corpus: Row = {"template_id": "en/health/3", "situation": "health", "clause_ids": ["a", "b"], "split": "train"}
    rows = load(write_jsonl(tmp_path / "a.jsonl", [row_200k("Hi.", **corpus, phase=2)]))
    assert (rows[0]["split"], rows[0]["phase"]) == ("train", 2)
    only = to_examples(rows, PII_200K)[0]
    assert (only.template_id, only.situation, only.clause_ids) == ("en/health/3", "health", ("a", "b"))


def test_65k_rows_get_ids_and_offsets_by_aligning_tokens() -> None:
    first, second = to_examples([row_65k(), row_65k()], PII_65K)
    assert (first.id, second.id, first.codes, first.language) == ("65k-000001", "65k-000002", ("S1", "S3"), "und")
    assert first.spans == (Span(4, 14, "FULLNAME", "S1"), Span(18, 26, "PHONE_NUMBER", "S3"))
    assert masked_text(first) == "Ask [FULLNAME] on [PHONENUMBER]."


def test_65k_token_tags_become_spans_and_none_is_lost() -> None:
    tags = ["I-IP", "I-IP", "B-IP", "I-MAC", "O", "I-MAC", "B-MAC", "I-IP", "O"]
    spans = to_examples([row_65k() | {"token_entity_labels": tags}], PII_65K)[0].spans
    assert [span.label for span in spans] == ["IP", "IP", "MAC", "MAC", "MAC", "IP"]
    assert [(span.start, span.end) for span in spans] == [(0, 7), (8, 12), (12, 14), (18, 21), (21, 22), (22, 26)]


def test_65k_alignment_bears_case_accents_and_chance_hits() -> None:
    cased = row_65k() | {"tokenised_unmasked_text": ["Ask", "Zoë", "Bran", "##dl", "on", "555", "-", "0101", "."]}
    assert to_examples([cased], PII_65K)[0].spans[0] == Span(4, 14, "FULLNAME", "S1")
    far = row_65k() | {"unmasked_text": "The xy was sent by Ada, and it stayed there for a week or so in box xy."}
    # "box" was not written where its token stands: the far hit must not draw the tokens after it along.
    far |= {
        "tokenised_unmasked_text": ["the", "box", "ada", ","],
        "token_entity_labels": ["O", "O", "B-FIRSTNAME", "O"],
    }
    assert to_examples([far], PII_65K)[0].spans == (Span(19, 22, "FIRSTNAME", "S1"),)


def test_values_off_their_offsets_count_and_are_reported() -> None:
    row = row_200k("Call <PHONENUMBER|555-0101>.")
    row["privacy_mask"][0]["start"] += 1
    with pytest.warns(UserWarning, match="my set: 1 values are not at their offsets"):
        found = to_examples([row], PII_200K, place="my set")[0]
    assert (found.codes, found.spans) == (("S3",), (Span(-1, -1, "PHONENUMBER", "S3"),))
    lost = row_65k() | {"tokenised_unmasked_text": ["ask", "[UNK]", "bran", "##dl", "on", "555", "-", "0101", "."]}
    with pytest.warns(UserWarning, match="1 values"):
        spans = to_examples([lost], PII_65K)[0].spans
    assert spans == (Span(-1, -1, "FULLNAME", "S1"), Span(18, 26, "PHONE_NUMBER", "S3"))


def test_template_fingerprints_ignore_values_numbers_and_schema() -> None:
    rows = [row_200k("Call <PHONENUMBER|1>, <IPV4|1.1.1.1>."), row_200k("Call <PHONENUMBER|2>,  <IPV4|8.8.8.8>.")]
    one, two = to_examples(rows, PII_200K)
    same, other = to_examples([row_65k("Call [PHONE_NUMBER_1], [IPV4_2]."), row_65k("Call [IPV4_1].")], PII_65K)
    assert one.template_id == two.template_id == same.template_id != other.template_id


def test_jsonl_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    rows = [row_200k(f"Hi <FIRSTNAME|Ünal{n}>.", n, extra="dropped") | {"id": n} for n in range(30)]
    lines = load(write_jsonl(tmp_path / "a.jsonl", rows))
    shuffled = [row | {"privacy_mask": [dict(sorted(m.items())) for m in row["privacy_mask"]]} for row in rows]
    pq.write_table(pa.Table.from_pylist(shuffled), tmp_path / "a.parquet")
    assert lines.to_list() == load(tmp_path / "a.parquet").to_list()
    assert lines.column_names == ["source_text", "target_text", "privacy_mask", "language", "id"]
    assert to_examples(lines, PII_200K) == to_examples(rows, PII_200K)
    assert lines[3]["id"] == "3"


def test_a_filtered_data_set_maps_its_own_rows() -> None:
    rows = Dataset.from_list([row_200k(f"{n} <CITY|Graz>" if n % 2 else f"{n}", n) for n in range(10)])
    kept = rows.filter(lambda row: int(row["id"]) % 2 == 1)
    assert [e.codes for e in to_examples(kept, PII_200K)] == [("S4",)] * 5
    assert to_examples(rows.select([]), PII_200K) == []
    assert [e.codes for e in to_examples(rows.with_format("arrow")[:].slice(7), PII_200K)] == [("S4",), (), ("S4",)]


def test_languages(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row_200k("Hi.", n, language="de" if n % 3 else "en") for n in range(9)])
    assert load(path, languages=["de"])["id"] == ["1", "2", "4", "5", "7", "8"]
    with pytest.raises(DataError, match=r"'language': no row in \['fr'\]; available: \['de', 'en'\]"):
        load(path, languages=["de", "fr"])
    with pytest.raises(DataError, match="no 'language' column; choose files with data_files"):
        load(write_jsonl(tmp_path / "b.jsonl", [row_65k()]), languages=["en"])


@pytest.mark.parametrize("line", [b'{"source_text": "cut', b"", b'{"id": "\xff"}'])
def test_a_broken_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = write_jsonl(tmp_path / "broken.jsonl", [row_200k("Hi.", n) for n in range(16)])
    path.write_bytes(path.read_bytes() + line + b"\n{}\n")
    with pytest.raises(DataError, match=r"broken\.jsonl, line 17: not valid JSON"):
        load(path)


def change(**fields: Any) -> Callable[[Row], Any]:
    return lambda row: row | fields


def change_mask(**fields: Any) -> Callable[[Row], Any]:
    return lambda row: row | {"privacy_mask": [row["privacy_mask"][0] | fields]}


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (change(source_text=None), "field 'source_text': missing or null"),
        (change(source_text=5), "field 'source_text': expected string"),
        (change(source_text="\ud800"), "field 'source_text'"),
        (change(id=None), "field 'id': missing or null"),
        (lambda row: {key: row[key] for key in row if key != "target_text"}, "field 'target_text': missing or null"),
        (change(privacy_mask="[]"), "field 'privacy_mask': expected list"),
        (change_mask(label=None), "field 'privacy_mask': missing or null in .*'label': None"),
        (change_mask(start="four"), "field 'privacy_mask': expected list"),
        (lambda row: ["no", "object"], "expected an object with named fields"),
    ],
)
def test_a_bad_row_is_named_by_file_row_and_field(tmp_path: Path, spoil: Callable[[Row], Any], fault: str) -> None:
    rows = [row_200k("Hi <CITY|Graz>.", n) for n in range(20)]
    rows[16] = spoil(rows[16])
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=rf"bad\.jsonl, row 17.*{fault}"):
        load(path)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (change(token_entity_labels=["O", "O"]), "field 'token_entity_labels': 2 labels for 9 tokens"),
        (change(unmasked_text=None), "field 'unmasked_text': missing or null"),
        (change(token_entity_labels=["FULLNAME"] + ["O"] * 8), "field 'token_entity_labels': .*token tag 'FULLNAME'"),
    ],
)
def test_a_bad_65k_row_is_named(spoil: Callable[[Row], Any], fault: str) -> None:
    for use in (to_examples, training_lines):
        with pytest.raises(DataError, match=f"rows, row 2, {fault}"):
            use([row_65k(), spoil(row_65k())], PII_65K)


def test_parquet_faults_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    for spoil, fault in (
        (change(source_text=None), "row 2, field 'source_text': missing or null"),
        (change_mask(label=None), "row 2, field 'privacy_mask': missing or null"),
    ):
        pq.write_table(pa.Table.from_pylist([row_200k("a <CITY|b>"), spoil(row_200k("c <CITY|d>"))]), path)
        with pytest.raises(DataError, match=rf"p\.parquet, {fault}"):
            load(path)
    pq.write_table(pa.Table.from_pylist([row_200k("a") | {"privacy_mask": "x"}]), path)
    with pytest.raises(DataError, match=r"p\.parquet, row 1, field 'privacy_mask': expected list"):
        load(path)
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"p\.parquet: not a readable Parquet file"):
        load(path)


def test_wrong_columns_and_sources(tmp_path: Path) -> None:
    row = row_200k("Hi.")
    row["text"] = row.pop("source_text")
    write_jsonl(tmp_path / "columns.jsonl", [row])
    write_jsonl(tmp_path / "empty.jsonl", [])
    for name, fault in (
        ("columns.jsonl", r"\['source_text'\] of the 200k schema are missing; found .*'text'"),
        ("empty.jsonl", "no rows"),
        ("absent.jsonl", "no such file"),
        ("rows.csv", r"neither a \.jsonl or \.parquet file nor a hub name"),
    ):
        with pytest.raises(DataError, match=f"{name}: .*{fault}"):
            load(tmp_path / name)


def test_unknown_labels_are_collected_over_the_whole_set() -> None:
    texts = ["<CITY|Graz>", "<TEL|1>", "<GIVENNAME|Ada> <TEL|2>", "<TEL|3>"]
    rows = [row_200k(text, n) for n, text in enumerate(texts)]
    for use in (to_examples, training_lines):
        with pytest.raises(UnknownLabelError) as caught:
            use(rows, PII_200K, place="mine")
        assert caught.value.counts == {"TEL": 3, "GIVENNAME": 1}
        assert caught.value.examples["TEL"] == "mine, row 2, field 'privacy_mask': '1'"
        assert caught.value.examples["GIVENNAME"].startswith("mine, row 3")
    tagged, later = (row_65k() | {"token_entity_labels": ["O", tag, *["O"] * 7]} for tag in ("B-TEL", "I-TEL"))
    with pytest.raises(UnknownLabelError, match="'TEL': 3 times, first in rows, row 2"):
        to_examples([row_65k(), tagged, later, later], PII_65K)


def test_hub_rows_are_loaded_at_the_pinned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load_dataset(name: str, **options: Any) -> Dataset:
        asked.update(options)
        return Dataset.from_list([row_200k("Hi <LASTNAME|Ito>.")])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    name = "ai4privacy/pii-masking-200k"
    assert len(load(name, data_files="english*")) == 1
    assert asked == {"revision": HUB_REVISIONS[name], "split": "train", "data_files": "english*"}


# The hub library's own errors want an HTTP response to be built; `load` goes by their names.
@pytest.mark.parametrize(
    ("kind", "text", "fix"),
    [
        ("GatedRepoError", "403", "gated: accept its conditions at https://.*pii-masking-200k, .*`hf auth login`"),
        ("DatasetNotFoundError", "Dataset is a gated dataset on the Hub", "accept its conditions"),
        ("DatasetNotFoundError", "no", "check spelling"),
        ("RevisionNotFoundError", "no", "no revision 'a58e.*commits/main lists"),
        ("ConnectionError", "Couldn't reach it", r"cannot be reached.*pass a \.jsonl or \.parquet file"),
    ],
)
def test_hub_faults_are_explained(monkeypatch: pytest.MonkeyPatch, kind: str, text: str, fix: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise type(kind, (Exception,), {})(text)

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(DataError, match=f"cannot load ai4privacy/pii-masking-200k: .*{fix}"):
        load("ai4privacy/pii-masking-200k")


def test_revisions_resolve_to_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset_info(self: Any, name: str, revision: str) -> Any:
        if revision != "main":
            raise ConnectionError("offline")
        return SimpleNamespace(sha="c" * 40)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    assert resolve_revision("ai4privacy/pii-masking-65k") == "c" * 40
    assert resolve_revision("any/set", "d" * 40) == "d" * 40
    assert resolve_revision("any/set", "v1") == "v1"


LABELS = st.lists(st.sampled_from([rule.label for rule in PII_200K.rules]), max_size=6)


@given(st.lists(st.tuples(LABELS, st.text(st.characters(exclude_categories=["Cs"]))), min_size=1, max_size=12))
def test_columnar_codes_equal_the_map_row_by_row(drawn: list[tuple[list[str], str]]) -> None:
    rows = [row_200k(" ".join(f"<{label}|v>" for label in labels)) for labels, _ in drawn]
    for row, (_, text) in zip(rows, drawn, strict=True):
        row["source_text"] += text
    examples = to_examples(rows, PII_200K)
    assert [e.codes for e in examples] == [PII_200K.codes(labels) for labels, _ in drawn]
    assert [e.text for e in examples] == [row["source_text"] for row in rows]
    expected = [{"id": e.id, "text": e.text, "answer": e.verdict.text} for e in examples]
    assert list(training_lines(rows, PII_200K)) == expected


def test_reference_selection_is_the_first_n_in_file_order() -> None:
    codes = [("S1",), ("S1", "S2"), (), ("S2", "S3"), ("S3",)]
    assert reference_selection(codes, kind="single", n=2) == [0, 2]
    assert reference_selection(codes, kind="multi") == [1, 3]
    assert reference_selection([()] * 2000, kind="single") == list(range(999))
    with pytest.raises(ValueError, match="use 'single' or 'multi'"):
        reference_selection(codes, kind="both")


def test_split_is_by_template_and_blind_to_order() -> None:
    examples = [Example(str(n), "x", (), "en", f"t{n % 200}", "", ()) for n in range(1000)]
    parts = split_by_template(examples, seed=1)
    templates = {name: {e.template_id for e in part} for name, part in parts.items()}
    assert sum(map(len, parts.values())) == 1000
    assert sum(map(len, templates.values())) == 200
    assert 0.7 < len(parts["train"]) / 1000 < 0.9
    again = split_by_template(random.Random(0).sample(examples[:500], 500), seed=1)
    for name, part in parts.items():
        assert {e.id for e in again[name]} == {e.id for e in part if int(e.id) < 500}
        assert part == sorted(part, key=lambda e: int(e.id))
    assert {e.template_id for e in split_by_template(examples, seed=2)["test"]} != templates["test"]
    assert 400 < len(split_by_template(examples, seed=1, fractions={"a": 0.5, "b": 0.5})["a"]) < 600
    for wrong in ({"a": 0.5, "b": 0.6}, {"a": 1.0, "b": 0.0}):
        with pytest.raises(ValueError, match="add up to 1"):
            split_by_template(examples, seed=1, fractions=wrong)


def test_benchmark_data_prep_runs_and_agrees(tmp_path: Path) -> None:
    output = tmp_path / "record.json"
    command = [sys.executable, "-m", "tools.benchmarks.data_prep", "--rows", "2000", "--output", str(output)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True)
    record = json.loads(output.read_text())
    assert 0 < record["rules_agree"] <= record["lines_equal"] < record["rows"] == 2000
    assert {"reference", "reference_narrow", "ours"} == set(record["sides"])
    assert record["sides"]["ours"]["peak_mib"] < 1500
