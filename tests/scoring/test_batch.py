"""Files of texts: what was cut off goes on to the same table, shards are the whole, and no row is lost."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from guard_utils import __main__ as command
from guard_utils.profiles import resolve
from guard_utils.scoring import batch

TEXTS = [f"Ring {name} on 020 7946 00{number:02}." for number, name in enumerate(["Carmen", "Ann", "Bob"] * 8)]


@pytest.fixture
def run(tmp_path: Path, smoke_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A smoke run whose fine-tuned model is the untrained one; chunks are of seven rows."""
    monkeypatch.setenv("GUARD_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setattr(batch, "CHUNK", 7)
    run = resolve("smoke")
    (run.folder / "training").mkdir()
    (run.folder / "training" / "config.yaml").write_text("epochs: 1\n")
    (run.folder / "training" / "finished.json").write_text('{"fingerprint": "one"}')
    (run.folder / "training" / "epoch_0").symlink_to(smoke_folder)
    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": f"t{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    return path


KILLED = """
import os, pathlib
from guard_utils.profiles import resolve
from guard_utils.scoring import batch
write, batch.CHUNK = batch.write_table, 7
batch.write_table = lambda path, table: os.kill(os.getpid(), 9) if path.name == "21.parquet" else write(path, table)
batch.score_file(resolve("smoke"), *map(pathlib.Path, {!r}))
"""


def test_what_was_killed_goes_on_to_the_same_table_and_shards_are_the_whole(
    run: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batch.score_file(run, file, tmp_path / "whole.parquet")
    assert list(whole) == ["row", "id", "predicted", *(f"p_S{i}" for i in range(1, 6)), "p_unsafe", "outside", "fault"]
    assert whole["id"].tolist() == [f"t{i}" for i in range(24)]
    expected = batch.load_guard(run).score(TEXTS, progress=False)
    assert np.allclose(whole["p_S1"], expected.marginals[:, 0]) and np.allclose(whole["outside"], expected.outside)
    assert whole["predicted"].map(tuple).tolist() == [verdict.codes for verdict in expected.best]

    output, parts = tmp_path / "out.parquet", tmp_path / "out.parquet.parts"
    code = KILLED.format([str(file), str(output)])
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -9
    assert not output.exists() and len(list(parts.glob("*.parquet"))) == 3
    shutil.copytree(parts, tmp_path / "killed")
    scored, score = [], batch._score
    monkeypatch.setattr(batch, "_score", lambda *of: scored.append(of[2]) or score(*of))
    pd.testing.assert_frame_equal(batch.score_file(run, file, output), whole, check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(output), whole, check_exact=True)
    assert scored == [range(21, 24)] and not parts.exists()
    for changed in (file, run.folder / "training" / "finished.json"):
        shutil.copytree(tmp_path / "killed", parts)
        text = changed.read_text()
        changed.write_text(text.replace("Ann", "Eve").replace("one", "two"))
        scored.clear()
        batch.score_file(run, file, output)
        assert len(scored) == 4
        changed.write_text(text)

    shards = [batch.score_file(run, file, output, shard=(number, 3)) for number in (1, 2, 3)]
    assert min(map(len, shards)) > 0
    pd.testing.assert_frame_equal(pd.concat(shards, ignore_index=True), whole, check_exact=True)
    with pytest.raises(ValueError, match="it has 24 rows, so take at most 4"):
        batch.score_file(run, file, output, shard=(1, 5))


def test_the_command_keeps_bad_rows_in_their_place_and_says_why(
    run: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def score(file: Path, *more: str) -> int:
        asked = ["guard_utils", "score", str(file), "--output", str(tmp_path / "out"), "--profile", "smoke", *more]
        monkeypatch.setattr(sys, "argv", asked)
        return command.main()

    bad = [b'{"text": " "}', b'{"id": "x"}', b"nonsense", b"[1]", b'{"text": 5}', b'{"text": "\xff"}']
    bad.append(json.dumps({"text": "z" * 20_000}).encode())
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join([b'{"text": "NA"}', *bad, b"", b'{"id": "\xff", "text": "fine"}']))
    assert score(tmp_path / "bad.jsonl") == 2
    table = pd.read_parquet(tmp_path / "out")
    assert table["row"].tolist() == list(range(1, 10)) and table["id"].tolist()[::2] == ["1", "x", "5", "7", "\\udcff"]
    why = ["", "empty", "expected a text", "no JSON", "no JSON", "expected a text", "surrogate", "shorten", ""]
    assert all((part in fault) if part else not fault for part, fault in zip(why, table["fault"], strict=True))
    assert table["p_S1"].notna().tolist() == table["predicted"].notna().tolist() == [not part for part in why]
    said = capsys.readouterr()
    assert "row 2: User's message is empty" in said.err and "9 rows, 7 of them not scored" in said.out

    assert score(file, "--shard", "4/4") == 0 and len(pd.read_parquet(tmp_path / "out")) == 3
    for wrong in ("2/1", "0/2", "half"):
        with pytest.raises(SystemExit, match="1"):
            score(file, "--shard", wrong)
        assert f"{wrong!r} is no shard; the first of four is 1/4" in capsys.readouterr().err


def test_csv_and_parquet_give_the_rows_of_jsonl(run: Any, file: Path, tmp_path: Path) -> None:
    rows = pd.read_json(file, lines=True)
    rows.to_csv(tmp_path / "texts.csv", index=False, encoding="utf-8-sig")  # as spreadsheets write it
    rows.to_parquet(tmp_path / "texts.parquet")
    tables = [batch.score_file(run, tmp_path / f"texts.{end}", tmp_path / "out") for end in ("jsonl", "csv", "parquet")]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)
    csv = tmp_path / "x.csv"
    csv.write_text('text,id\nplain,1\nwith, comma,2\n"two\nlines",3\nshort\n' + '"' + "z" * 200_000 + '",5\n')
    faults = batch.score_file(run, csv, tmp_path / "out")["fault"]
    assert [bool(fault) for fault in faults] == [False, True, False, False, True] and "quotes" in faults[1]
    for text, why in [
        ('text\n"an open quote\nmore\n', r"x\.csv, after line 1: .*; close or double the quotes"),
        ("message\nhello\n", r"x\.csv has no column 'text' but message; give"),
    ]:
        csv.write_text(text)
        with pytest.raises(ValueError, match=why):
            batch.score_file(run, csv, tmp_path / "out")
    for name, why in [("x.csv", "x.csv is the file of texts"), ("x.txt", "x.txt is no .jsonl, .csv or .parquet")]:
        with pytest.raises(ValueError, match=why):
            batch.score_file(run, tmp_path / name, csv)
