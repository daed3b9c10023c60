"""The tool that scores systems on the reference's rows: labels without texts, scores by set, answers without texts."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from guard_utils.data import Example, Span, predictions_table
from guard_utils.policy import PII
from guard_utils.profiles import repository
from tests.data.made import row_200k, write_jsonl
from tools.reference import METRICS, scores, write_labels

SHELF = repository() / "notebooks" / "predictions" / "laptop"


@pytest.mark.parametrize("numbered", [True, False])
def test_labels_are_those_of_the_first_rows_of_each_set_and_nothing_else(tmp_path: Path, numbered: bool) -> None:
    rows = [row_200k(f"<CITY|Graz> {n}", n) for n in range(1000)]
    rows += [row_200k("<FIRSTNAME|Ada>, <ZIPCODE|1010> <CITY|Wien>", 1000), row_200k("Nothing.", 1001)]
    more = [{"row": 3 * number} if numbered else {} for number in range(len(rows))]
    source = write_jsonl(tmp_path / "rows.jsonl", [row | extra for row, extra in zip(rows, more, strict=True)])
    write_labels(source, tmp_path / "labels.parquet")
    schema = pq.read_schema(tmp_path / "labels.parquet")
    assert [str(kind) for kind in schema.types] == ["int64", "string", "list<element: string>"]
    table = pd.read_parquet(tmp_path / "labels.parquet")
    places = [*range(999), 1000]  # neither the thousandth "single" row, nor one after it
    assert table["row"].tolist() == [3 * place if numbered else place for place in places]
    assert table["set"].tolist() == ["single"] * 999 + ["multi"]
    assert list(table["labels"].iloc[-1]) == ["FIRSTNAME", "ZIPCODE", "CITY"]
    assert b"Ada" not in (tmp_path / "labels.parquet").read_bytes()


def test_scores_have_intervals_and_the_references_measure_where_it_is_its_set() -> None:
    spans = (Span(-1, -1, "ZIPCODE", "S4"),)
    rows = [Example(str(n), "", ("S4",) if n % 2 else (), "en", f"t{n // 4}", "", spans * (n % 2)) for n in range(40)]
    table = predictions_table(rows, PII, [[0, 0, 0, n % 2, 0] for n in range(40)], [e.codes for e in rows], 0.0)
    found = scores(table, "multi")
    assert set(found) == {"n", *METRICS, "reference_measure"} and found["n"] == 40
    assert found["weighted_f1"] == {"value": 1, "low": 1, "high": 1}
    # By its rules a post code is an IP address too: 20 pairs safe, 20 S4 and 20 S2 of which none is found.
    assert found["reference_measure"] == pytest.approx(40 / 60, abs=1e-4)
    assert "reference_measure" not in scores(table, "test")


def test_what_is_shipped_of_the_reference_holds_answers_only() -> None:
    files = sorted(SHELF.glob("*-reference.parquet"))
    assert {file.name.split("-")[0] for file in files} >= {"rampart", "presidio", "regex", "tfidf", "majority"}
    for file in files:
        probabilities = [f"p_{code}" for code in PII.codes]
        assert pq.read_schema(file).names == ["id", "predicted", *probabilities, "p_unsafe", "outside"]
        assert pd.read_parquet(file)["id"].str.fullmatch(r"\d+").all()
