"""The reference's own rows: found and in order, or an error that says what is there instead. Rows are hand-made."""

import gzip
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from guard_utils.data import reference_rows
from guard_utils.data.examples import to_examples
from guard_utils.data.labels import PII_200K, reference_codes_evaluation
from guard_utils.data.reference_rows import FILES, WHOLE, load_reference_rows, reference_examples, reference_labels
from guard_utils.data.rows import DataError, load
from guard_utils.profiles import repository
from tests.data.made import Row, row_65k, row_200k, write_jsonl

ROWS = [
    row_200k("All is well.", 10),
    row_200k("<FIRSTNAME|Ada> in <CITY|Graz>, <ZIPCODE|8010>.", 11),
    row_200k("Write to <EMAIL|a@b.org>.", 12),
    row_200k("To <ZIPCODE|1010>.", 13),  # by the reference's rules an IP address too
    row_200k("Ring <PHONENUMBER|+43 1 000>.", 14),  # by its rules safe
]
WANTED = pd.DataFrame({"row": range(5), "set": ["single", "multi", "single", "multi", "single"]})
WANTED["labels"] = [[], ["FIRSTNAME", "CITY", "ZIPCODE"], ["EMAIL"], ["ZIPCODE"], ["PHONENUMBER"]]
given = pytest.mark.skipif("GUARD_AI4PRIVACY" not in os.environ, reason="the rows are not ours to ship")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUARD_AI4PRIVACY", str(tmp_path))
    monkeypatch.setattr(reference_rows, "reference_labels", lambda: WANTED)
    return tmp_path


def test_the_shipped_labels_are_the_selection_and_hold_no_text() -> None:
    table = reference_labels()
    names = pq.read_schema(repository() / "notebooks" / "data" / "reference_labels.parquet").names
    assert names == ["row", "set", "labels"] and len(table) == 1998
    assert table["row"].is_monotonic_increasing and table["row"].is_unique
    assert table["set"].value_counts().to_dict() == {"single": 999, "multi": 999}
    for kind, labels in zip(table["set"], table["labels"], strict=True):
        assert set(labels) <= set(PII_200K.by_label)
        assert (len(reference_codes_evaluation(labels)) > 1) == (kind == "multi")


def test_examples_without_text_have_exact_codes() -> None:
    examples = reference_examples()
    assert [example.id for example in examples] == [str(row) for row in reference_labels()["row"]]
    assert {example.text for example in examples} == {""}
    assert [e.codes for e in examples[:3]] == [(), ("S1",), ("S1",)]
    by_set = {kind: [len(e.codes) for e in examples if e.situation == kind] for kind in ("single", "multi")}
    assert sum(count > 1 for count in by_set["single"]) == 69 and sum(count < 2 for count in by_set["multi"]) == 339


@pytest.mark.parametrize("name", FILES)
def test_rows_come_in_order_with_their_numbers(folder: Path, name: str) -> None:
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    sets = load_reference_rows()
    assert [(e.id, e.codes) for e in sets["single"]] == [("0", ()), ("2", ()), ("4", ("S3",))]
    assert [(e.id, e.codes) for e in sets["multi"]] == [("1", ("S1", "S4")), ("3", ("S4",))]
    assert sets["multi"][0].text == "Ada in Graz, 8010." and {e.situation for e in sets["multi"]} == {"multi"}


def test_the_hub_is_asked_only_where_wanted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def hub(name: str, **options: Any) -> Dataset:
        asked.append((name, options))
        return Dataset.from_list(ROWS)

    monkeypatch.setattr(reference_rows, "load", hub)
    assert [e.id for e in load_reference_rows(hub=True)["multi"]] == ["1", "3"]
    assert asked == [("ai4privacy/pii-masking-200k", {"data_files": WHOLE})]


def test_no_folder_and_no_file_are_said_with_the_fix(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=rf"{folder} holds none of {WHOLE}, .*; download .* from https://.*hub=True"):
        load_reference_rows()
    for value, told in (("", "is not set: download"), (str(folder / "none"), "none is no folder; download")):
        monkeypatch.setenv("GUARD_AI4PRIVACY", value)
        with pytest.raises(DataError, match=told):
            load_reference_rows()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([*ROWS[:1], *ROWS[2:]], r"row 1 has labels \['EMAIL'\], but the reference's row 2 has"),
        ([*ROWS[3:], *ROWS[:3]], r"row 1 has labels \['PHONENUMBER'\], but the reference's row 0 has \[\]"),
        ([row_200k("New.", 9), *ROWS], r"another order or release"),
        ([*ROWS[:3], row_200k("<GIVENNAME|Ada> <TEL|1>")], r"labels \['GIVENNAME', 'TEL'\] are those of another"),
        ([row_65k(), row_65k()], "rows of another data set, with columns"),
        ([*ROWS[:2], row_65k()], "row 3, field 'source_text': missing"),
    ],
)
def test_other_rows_are_named_and_never_used(folder: Path, rows: list[Row], told: str) -> None:
    write_jsonl(folder / WHOLE, rows)
    with pytest.raises(DataError, match=told) as caught:
        load_reference_rows()
    assert str(folder / WHOLE) in str(caught.value) and f"download {WHOLE} from" in str(caught.value)


@pytest.mark.parametrize(("cut", "told"), [(-20, "not valid JSON"), (None, "2 rows of set 'single', not 3")])
def test_half_a_download_is_named(folder: Path, cut: int | None, told: str) -> None:
    text = write_jsonl(folder / WHOLE, ROWS[:4]).read_text()
    (folder / WHOLE).write_text(text[:cut])
    with pytest.raises(DataError, match=told) as caught:
        load_reference_rows()
    assert re.search(rf"download {WHOLE} from \S+ again", str(caught.value))


@given
def test_the_rows_at_hand_are_the_marked_ones() -> None:
    """Positions, labels and texts; a failure shows no text."""
    sets, wanted = load_reference_rows(), reference_labels()
    for kind, table in wanted.groupby("set"):
        assert [int(example.id) for example in sets[str(kind)]] == table["row"].tolist()
        assert [[span.label for span in e.spans] for e in sets[str(kind)]] == table["labels"].map(list).tolist()
    assert all(example.text for rows in sets.values() for example in rows)
    reduced = Path(os.environ["GUARD_AI4PRIVACY"], "reference_rows.jsonl.gz")
    if reduced.exists():
        marked = [json.loads(line) for line in gzip.decompress(reduced.read_bytes()).splitlines()]
        for kind, examples in sets.items():
            same = [(str(row["row"]), row["source_text"]) for row in marked if row["set"] == kind]
            assert [(e.id, e.text) for e in examples] == same or not "the marked rows in this order"


def shingles(text: str) -> Iterator[str]:
    words = re.findall(r"\w+", text.lower())
    return (" ".join(words[start : start + 8]) for start in range(len(words) - 7))


@given
def test_no_eight_words_of_these_texts_are_in_the_corpus() -> None:
    """But for user agents, which browsers write so; a failure shows no text."""
    theirs = [example for rows in load_reference_rows().values() for example in rows]
    development = Path(os.environ["GUARD_AI4PRIVACY"], "development_rows.jsonl.gz")
    if development.exists():
        theirs += to_examples(load(development), PII_200K)
    known = set()
    for example in theirs:
        agents = [example.text[span.start : span.end] for span in example.spans if span.label == "USERAGENT"]
        for piece in re.split("|".join(map(re.escape, agents)) or "$", example.text):
            known.update(shingles(piece))
    ours = {"corpus.parquet": load(repository() / "notebooks" / "data" / "corpus.parquet")["source_text"]}
    for folder in ("clauses", "letters"):
        for file in sorted((repository() / "tools" / "corpus" / folder).rglob("*.txt")):
            ours[str(file)] = [file.read_text(encoding="utf-8")]
    shared = {name: sum(part in known for text in texts for part in shingles(text)) for name, texts in ours.items()}
    assert len(known) > 1998
    assert {name: count for name, count in shared.items() if count} == {}
