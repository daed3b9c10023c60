from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from guard_utils.data.examples import Example, Span, rows_fingerprint
from guard_utils.data.predictions import predictions_table
from guard_utils.files import read_table, write_table
from guard_utils.policy import PII
from guard_utils.profiles import PROFILES, Run
from guard_utils.scoring import cached as scored
from guard_utils.scoring.cached import predictions_path, read_predictions, tuned_predictions


def examples(n=3, text="call Ann"):
    spans = (Span(5, 8, "FIRSTNAME", "S1"),)
    return [Example(f"e{i}", text, ("S1",), "en", f"t{i}", "", spans) for i in range(n)]


def table_of(rows, probability=0.9):
    p = np.zeros((len(rows), len(PII)))
    p[:, 0] = probability
    return predictions_table(rows, PII, p, [["S1"]] * len(rows), 0.0)


@pytest.fixture
def run(tmp_path):
    return Run(PROFILES["smoke"], PII, "cpu", "fp32", 0, tmp_path, {})


def finish(run, fingerprint="one", checkpoint: Path | None = None):
    """Leaves what a finished training leaves."""
    folder = run.folder / "training"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("epochs: 1\n")
    (folder / "finished.json").write_text(json.dumps({"fingerprint": fingerprint}))
    if checkpoint is not None:
        (folder / "epoch_0").symlink_to(checkpoint)


@pytest.fixture
def scoring(monkeypatch):
    """Replaces the model by a constant and lists which parts it was asked for."""
    asked: list[str] = []

    def score(run, parts, *, progress):
        asked.extend(parts)
        return {part: table_of(rows) for part, rows in parts.items()}

    monkeypatch.setattr(scored, "_score", score)
    return asked


def test_a_second_call_reads_what_the_first_one_scored(run, scoring):
    finish(run)
    first = tuned_predictions(run, {"test": examples(), "validation": examples(2)})
    again = tuned_predictions(run, {"test": examples(), "validation": examples(2)})
    assert scoring == ["test", "validation"]
    assert list(first) == list(again) == ["test", "validation"]
    for part in first:
        assert again[part].equals(first[part])
        assert {**again[part].attrs, "origin": ""} == {**first[part].attrs, "origin": ""}
    assert first["test"].attrs["origin"] == "scored now" and "this checkpoint" in again["test"].attrs["origin"]
    assert again["test"].attrs["checkpoint"] == "one"


@pytest.mark.parametrize("change", ["checkpoint", "text", "codes", "dtype", "order"])
def test_whatever_changes_the_numbers_is_scored_anew(run, scoring, change):
    rows = [*examples(), *examples(1, "ask Bob")]
    rows[3] = Example("e3", *[getattr(rows[3], name) for name in Example.__slots__[1:]])
    finish(run)
    tuned_predictions(run, {"test": rows})
    if change == "checkpoint":
        finish(run, "two")
    elif change == "dtype":
        run = Run(run.profile, PII, "cpu", "bf16", 0, run.folder, {})
    elif change == "order":
        rows = rows[::-1]
    else:
        old = rows[0]
        text, codes = ("call Eve", old.codes) if change == "text" else (old.text, ())
        rows[0] = Example(old.id, text, codes, "en", old.template_id, "", old.spans)
    tuned_predictions(run, {"test": rows})
    assert scoring == ["test", "test"]


def test_only_the_missing_part_is_scored(run, scoring):
    finish(run)
    tuned_predictions(run, {"test": examples()})
    both = tuned_predictions(run, {"validation": examples(2), "test": examples()})
    assert scoring == ["test", "validation"]
    assert [len(table) for table in both.values()] == [2, 3]


def test_without_a_checkpoint_the_tables_of_the_same_rows_serve(run, scoring, monkeypatch):
    finish(run)
    tuned_predictions(run, {"test": examples()})
    monkeypatch.undo()
    (run.folder / "training" / "finished.json").unlink()
    table = tuned_predictions(run, {"test": examples()})["test"]
    assert "no checkpoint" in table.attrs["origin"] and table.attrs["checkpoint"] == "one"
    with pytest.raises(FileNotFoundError, match="run notebook 03"):
        tuned_predictions(run, {"test": examples(4)})


def test_the_checkpoint_is_loaded_and_scored(run, smoke_folder):
    finish(run, checkpoint=smoke_folder)
    table = tuned_predictions(run, {"test": examples()}, progress=False)["test"]
    assert table["id"].tolist() == ["e0", "e1", "e2"]
    assert table["p_S1"].nunique() == 1 and 0 < table["p_S1"][0] < 1


def test_lists_and_attrs_survive_the_file(tmp_path):
    table = table_of(examples())
    table.attrs = {"rows": "r"}
    path = write_table(tmp_path / "t.parquet", table)
    again = read_table(path, made_by="04")
    assert again["gold"].tolist() == [["S1"]] * 3 and again["labels"][0] == ["FIRSTNAME"]
    assert again.attrs == {"rows": "r"} and list(again.columns) == list(table.columns)


def test_predictions_of_other_rows_are_refused(run):
    write_table(predictions_path(run, "regex", "test"), table_of(examples()))
    assert len(read_predictions(run, "regex", "test", examples())) == 3
    for others in (examples(2), examples(3, "call Eve"), examples()[::-1]):
        with pytest.raises(ValueError, match=r"regex-test\.parquet holds 3 rows .* run notebook 01_.* 'smoke'"):
            read_predictions(run, "regex", "test", others)
    with pytest.raises(FileNotFoundError, match="run notebook 04_"):
        read_predictions(run, "tuned", "test", examples())


def test_the_fingerprint_knows_order_text_and_codes():
    rows = examples()
    assert rows_fingerprint(rows) == rows_fingerprint(examples())
    assert len({rows_fingerprint(other) for other in (rows, rows[::-1], rows[:2], examples(3, "x"))}) == 4
