"""Reading: files, hub and plain rows of both schemas; every fault is named by file, row, field and fix."""

import errno
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from datasets.exceptions import DatasetGenerationCastError, DatasetGenerationError, DatasetNotFoundError

from guard_utils.data.examples import to_examples
from guard_utils.data.labels import PII_65K, PII_200K
from guard_utils.data.rows import HUB_REVISIONS, MAX_CHARACTERS, DataError, load
from tests.data.made import Row, row_65k, row_200k, write_jsonl

NAME = "ai4privacy/pii-masking-200k"


def test_jsonl_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    rows = [row_200k(f"Hi <FIRSTNAME|Ünal{n}>.", n, extra="dropped") | {"id": n} for n in range(30)]
    lines = load(write_jsonl(tmp_path / "a.jsonl", rows))
    shuffled = [row | {"privacy_mask": [dict(sorted(m.items())) for m in row["privacy_mask"]]} for row in rows]
    pq.write_table(pa.Table.from_pylist(shuffled), tmp_path / "a.parquet")
    assert lines.to_list() == load(tmp_path / "a.parquet").to_list()
    assert lines.column_names == ["source_text", "target_text", "privacy_mask", "language", "id"]
    assert to_examples(lines, PII_200K) == to_examples(rows, PII_200K)
    assert lines[3]["id"] == "3"


def test_files_of_other_systems_are_read(tmp_path: Path) -> None:
    rows = [row_200k(f"Hi <FIRSTNAME|Ünal{n}>.", n) for n in range(3)]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "b.JSONL.gz").write_bytes(gzip.compress(text.encode()))
    write_jsonl(tmp_path / "c.jsonl", [row | {"privacy_mask": json.dumps(row["privacy_mask"])} for row in rows])
    for name in ("a.jsonl", "b.JSONL.gz", "c.jsonl"):
        assert load(tmp_path / name).to_list() == rows
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-9])
    with pytest.raises(DataError, match=r"cut.jsonl.gz: cannot be read"):
        load(tmp_path / "cut.jsonl.gz")
    (tmp_path / "utf16.jsonl").write_text(text, encoding="utf-16")
    with pytest.raises(DataError, match=r"utf16.jsonl, line 1: not valid JSON in UTF-8"):
        load(tmp_path / "utf16.jsonl")


def test_languages(tmp_path: Path) -> None:
    rows = [row_200k("Hi.", n, language="de" if n % 3 else "en") for n in range(9)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert load(path, languages=["de"])["id"] == ["1", "2", "4", "5", "7", "8"]
    with pytest.raises(DataError, match=r"'language': no row in \['fr'\]; available: \['de', 'en'\]"):
        load(path, languages=["de", "fr"])
    with pytest.raises(TypeError, match="languages is one text, 'de'"):
        load(path, languages="de")
    with pytest.raises(DataError, match="no 'language' column; choose files with data_files"):
        load(write_jsonl(tmp_path / "b.jsonl", [row_65k()]), languages=["en"])
    spoilt = write_jsonl(tmp_path / "c.jsonl", [*rows, row_200k("", language="en"), row_200k(" ", 9, language="de")])
    with pytest.raises(DataError, match="^.*c.jsonl, row 11, field 'source_text': blank; give it text\n[^\n]*$"):
        load(spoilt, languages=["de"])


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


BAD_ROWS = [
    (change(source_text=None), "source_text", "missing or null"),
    (change(source_text=5), "source_text", "expected str, got 5"),
    (change(source_text="Ann \ud800"), "source_text", r"'Ann \\ud800' holds a lone surrogate; decode the file with"),
    (change(source_text=" \n\u3000"), "source_text", "blank; give it text"),
    (change(source_text="x" * (MAX_CHARACTERS + 1)), "source_text", "8,001 characters, .*shorten or split it"),
    (change(id=None), "id", "missing or null"),
    (change(id="3"), "id", "'3' is the id of row 4 too; give each row its own"),
    (lambda row: {key: row[key] for key in row if key != "target_text"}, "target_text", "missing or null"),
    (change(privacy_mask="[{'label': 'CITY'}]"), "privacy_mask", "expected a list, got .*write a list"),
    (change(privacy_mask=["CITY"]), "privacy_mask", "expected an object with value, start, end, label, got 'CITY'"),
    (change_mask(label=None), "privacy_mask", "'label' of .*missing or null"),
    (change_mask(start="four"), "privacy_mask", "'start' of .*expected int, got 'four'"),
]


@pytest.mark.parametrize(("spoil", "field", "fault"), BAD_ROWS)
def test_a_bad_row_is_named_by_file_row_and_field(tmp_path: Path, spoil: Any, field: str, fault: str) -> None:
    rows = [row_200k("Hi <CITY|Graz>.", n) for n in range(20)]
    rows[16] = spoil(rows[16])
    with pytest.raises(DataError, match=rf"bad\.jsonl, row 17, field '{field}': .*{fault}"):
        load(write_jsonl(tmp_path / "bad.jsonl", rows))
    with pytest.raises(DataError, match=rf"mine, row 17, field '{field}': .*{fault}"):
        to_examples(rows, PII_200K, place="mine")


def test_all_bad_rows_are_in_one_error() -> None:
    rows = [spoil(row_200k("Hi <CITY|Graz>.", n)) for n, (spoil, _, _) in enumerate(BAD_ROWS)]
    with pytest.raises(DataError) as caught:
        to_examples(rows, PII_200K)
    assert all(f"rows, row {n}, field " in str(caught.value) for n in range(1, len(BAD_ROWS) + 1))
    with pytest.raises(DataError, match=r"(?s)row 20, .*\n\.\.\. and 5 more, 25 in all\nCorrect these rows"):
        to_examples([row_200k("", n) for n in range(25)], PII_200K)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"unmasked_text": None}, "field 'unmasked_text': missing or null"),
        ({"token_entity_labels": ["FULLNAME"] + ["O"] * 8}, "field 'token_entity_labels': .*'FULLNAME' is none"),
        ({"token_entity_labels": ["O", "B-"]}, "token tag 'B-' is none of 'O', 'B-LABEL' and 'I-LABEL'"),
    ],
)
def test_a_bad_65k_row_is_named(changes: Row, fault: str) -> None:
    with pytest.raises(DataError, match=f"rows, row 2, .*{fault}"):
        to_examples([row_65k(), row_65k(**changes)], PII_65K)


def test_parquet_faults_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    for spoil, fault in (
        (change(source_text=None), "row 2, field 'source_text': missing or null"),
        (change_mask(label=None), "row 2, field 'privacy_mask': .*missing or null"),
    ):
        pq.write_table(pa.Table.from_pylist([row_200k("a <CITY|b>"), spoil(row_200k("c <CITY|d>", 2))]), path)
        with pytest.raises(DataError, match=rf"p\.parquet, {fault}"):
            load(path)
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"p\.parquet: cannot be read .*; check the file"):
        load(path)


def test_wrong_columns_and_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_200k("Hi.")
    row["text"] = row.pop("source_text")
    write_jsonl(tmp_path / "columns.jsonl", [row])
    write_jsonl(tmp_path / "list.jsonl", [["no", "object"]])
    write_jsonl(tmp_path / "empty.jsonl", [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.v2").touch()
    for name, fault in (
        ("columns.jsonl", r"\['source_text'\] of the 200k schema are missing; found .*'text'"),
        ("list.jsonl", r"row 1: expected an object with named fields, got \['no'"),
        ("empty.jsonl", "no rows"),
        ("absent.jsonl", "no such file"),
        ("rows.csv", r"neither a .*nor a hub name"),
        ("data/rows.json", r"neither a \.jsonl, \.jsonl\.gz or \.parquet file nor a hub name .*write the rows as"),
        ("data/rows.v2", "neither a"),
        (Path("data/absent"), "neither a"),
    ):
        with pytest.raises(DataError, match=f"{name}[:,] .*{fault}"):
            load(name)


@pytest.mark.parametrize("rows", ["text", b"text", row_200k("Hi.")])
def test_one_text_or_row_is_not_a_list(rows: Any) -> None:
    with pytest.raises(TypeError, match="rows is one .*pass a list of"):
        to_examples(rows, PII_200K)


def test_hub_rows_are_loaded_at_the_pinned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load_dataset(name: str, **options: Any) -> Dataset:
        asked.update(options)
        return Dataset.from_list([row_200k("Hi <LASTNAME|Ito>.")])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert len(load(NAME, data_files="english*")) == 1
    assert asked == {"revision": HUB_REVISIONS[NAME], "split": "train", "data_files": "english*"}


def named(kind: str, text: str = "no") -> Exception:
    """An error of the hub library, whose own want an HTTP response to be built; `load` goes by their names."""
    return type(kind, (Exception,), {})(text)


def wrapped(cause: Exception) -> Exception:
    error = DatasetGenerationError("An error occurred while generating the dataset")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (named("GatedRepoError", "403"), "accept its conditions at https://.*200k, .*`hf auth login`"),
        (DatasetNotFoundError("Dataset is a gated dataset on the Hub"), "accept its conditions"),
        (DatasetNotFoundError("no"), "check spelling"),
        (named("RevisionNotFoundError"), "no revision 'a58e"),
        (named("ConnectionError", "Couldn't reach it"), r"cannot be reached.*pass a \.jsonl or \.parquet file"),
        (named("OfflineModeIsEnabled"), "cannot be reached"),
        (wrapped(DatasetGenerationCastError("column 'gated' differs")), "files have different columns: .*data_files"),
        (wrapped(OSError(errno.ENOSPC, "No space left on device")), "disk is full: free space, or set HF_HOME"),
        (OSError("Not enough disk space. Needed: 1 GB"), "disk is full"),
        (wrapped(ModuleNotFoundError("No module named 'zstandard'")), "package is missing: .*'zstandard'"),
        (FileNotFoundError("Unable to find 'hf://x/y*'"), "choose data_files=... from https://.*/tree/main"),
        (wrapped(ValueError("odd")), r"none that `load` knows, read the error. \(ValueError: odd\)"),
    ],
)
def test_hub_faults_have_their_own_cause(monkeypatch: pytest.MonkeyPatch, error: Exception, fix: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(DataError, match=f"cannot load {NAME}: .*{fix}") as caught:
        load(NAME)
    assert ("reached" in str(caught.value)) == ("reached" in fix), "the network is blamed for its own faults only"
