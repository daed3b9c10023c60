import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.lib.pretty import pretty

from guard_utils.policy import PII
from guard_utils.profiles import PROFILES, Run
from guard_utils.records import Interval, attempt, expect, hashes, intervals_of, load_records, machine, record, run_card

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of nothing


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run in a repository of its own, entered from its notebooks, which promises one result and has no data yet."""
    for folder in ("notebooks/data", "notebooks/expected", "torchtune_configs"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("pyproject.toml", "torchtune_configs/smoke.yaml", "torchtune_configs/guard-1b.yaml"):
        (tmp_path / file).touch()
    promise = '[single]\nmodel = "tiny"\nf1 = { value = 0.9, tolerance = 0.02, n = 999 }\n'
    (tmp_path / "notebooks/expected/smoke.toml").write_text(promise)
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv("GUARD_STRICT", raising=False)
    return Run(profile=PROFILES["smoke"], policy=PII, seed=7, folder=tmp_path / "artifacts/smoke")


def test_intervals_of_a_bootstrap_table() -> None:
    table = pd.DataFrame({"metric": ["f1", "ap"], "value": [0.5, 0.7], "low": [0.4, 0.6], "high": [0.6, 0.8]})
    assert intervals_of(table, ["ap"]) == {"ap": Interval(0.7, 0.6, 0.8)}
    with pytest.raises(KeyError, match="auroc"):
        intervals_of(table, ["f1", "auroc"])
    with pytest.raises(TypeError, match="metrics is one text, 'ap'; pass a list"):
        intervals_of(table, "ap")


def test_record_writes_all_that_decides_a_number(run: Run) -> None:
    values = {"weighted_f1": Interval(0.9, 0.8, 0.95), "outside": np.float64(0.001), "f1_S5": math.nan}
    record(run, "test_single", values, 40, checkpoint="f00")
    (file,) = run.folder.rglob("*.*")
    told = json.loads(file.read_text())
    assert told.pop("cores") >= 1
    packages = ["python", "guard_utils", "torch", "torchtune", "transformers", "datasets", "scikit-learn"]
    assert file.name == "test_single.json" and list(told.pop("versions")) == packages
    cells = {"weighted_f1": {"value": 0.9, "low": 0.8, "high": 0.95}, "outside": {"value": 0.001}, "f1_S5": {}}
    facts = {"profile": "smoke", "name": "test_single", "n": 40, "seed": 7, "model": "smoke"}
    assert told == facts | {"values": cells, "config": EMPTY, "data": EMPTY, "extra": {"checkpoint": "f00"}}


def test_the_data_hash_covers_the_embedded_files_or_names_those_of_the_hub(run: Run) -> None:
    for text in ("rows", "other rows"):
        before = hashes(run)["data"]
        Path("data/corpus.parquet").write_text(text)
        assert hashes(run)["data"] != before
    one, two = hashes(replace(run, profile=PROFILES["guard-1b"]))["data"].split()
    assert one.startswith("ai4privacy/pii-masking-65k@") and two.startswith("ai4privacy/pii-masking-200k@a58ec6b7")


def test_records_come_back_sorted_and_equal(run: Run) -> None:
    first = record(run, "b", {"f1": Interval(0.5, 0.4, 0.6)}, 3, model="tfidf")
    second, before = record(run, "a", {"f1": math.nan}, 3, k=[1]), (run.folder / "records/a.json").read_bytes()
    record(run, "a", {"f1": math.nan}, 3, k=[1])
    assert (run.folder / "records/a.json").read_bytes() == before
    assert load_records(run.folder) == [second, first] and first.model == "tfidf"


def test_cores_and_versions_are_those_of_the_machine_that_made_the_numbers(run: Run) -> None:
    there = {"cores": 96, "versions": {"torch": "2.12"}}
    made = record(run, "training", {"minutes": 3.0}, 3, made_on=there)
    assert (made.cores, made.versions) == (96, {"torch": "2.12"}) and load_records(run.folder) == [made]
    assert record(run, "scores", {"f1": 0.5}, 3).versions == machine()["versions"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "../up"}, "'../up' names a file"),
        ({"values": {"f 1": 0.5}}, "'f 1' names a file"),
        ({"values": {}}, "0 values"),
        ({"n": 0}, "on 0 prompts"),
        ({"values": {"f1": math.inf}}, "JSON"),
        ({"files": {"config": ["/somewhere/run.yaml"]}}, 'holds the path "/somewhere/run.yaml"'),
        ({"model": "/cache/model"}, "holds the path"),
        ({"place": Path("main")}, "JSON"),
    ],
)
def test_faulty_records_are_refused_and_write_nothing(run: Run, changed: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        record(run, **({"name": "r", "values": {"f1": 0.5}, "n": 1} | changed))
    assert not list(run.folder.rglob("*.*"))


def test_missing_and_broken_records_say_what_to_do(run: Run) -> None:
    with pytest.raises(FileNotFoundError, match="the notebooks write them"):
        load_records(run.folder)
    record(run, "r", {"f1": 0.5}, 1)
    for broken in ("{", "[]", '{"values": {}}'):
        (run.folder / "records/r.json").write_text(broken)
        with pytest.raises(ValueError, match=r"r\.json is no run record"):
            load_records(run.folder)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.88, "✓ single f1 0.880, expected 0.900 ± 0.020 (n=999)"),
        (Interval(0.92, 0.5, 0.99), "✓ single f1 0.920 [0.500, 0.990], expected 0.900 ± 0.020 (n=999)"),
        (0.879, "! single f1 0.879, expected 0.900 ± 0.020 (n=999): outside the tolerance"),
        (math.nan, "! single f1 not measured, expected 0.900 ± 0.020 (n=999): outside the tolerance"),
    ],
)
def test_expect_warns_or_fails(run: Run, value: float, told: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record(run, "single", {"f1": value, "other": 0.5}, 40)
    for metrics in ((), ("f1",)):
        assert expect(run, "single", *metrics) == (told[0] == "✓")
        assert capsys.readouterr().out == f"{told}\n"
    monkeypatch.setenv("GUARD_STRICT", "1")
    with nullcontext() if told[0] == "✓" else pytest.raises(AssertionError, match="outside the tolerance"):
        expect(run, "single")


def test_what_is_not_promised_yet_is_fine_unless_strict(run: Run, capsys: Any, monkeypatch: Any) -> None:
    record(run, "multi", {"ap": 0.5}, 40)
    assert expect(run, "multi") is True
    Path("expected/smoke.toml").unlink()
    assert expect(run, "multi", "ap") is True
    assert capsys.readouterr().out == "! multi ap 0.500, no expected value yet\n" * 2
    assert expect(run, "multi", "recall") is True
    assert "multi recall not measured, no" in capsys.readouterr().out
    with pytest.raises(KeyError, match="multy"):
        expect(run, "multy")
    monkeypatch.setenv("GUARD_STRICT", "1")
    with pytest.raises(AssertionError, match="no expected value yet"):
        expect(run, "multi")


@pytest.mark.parametrize(
    ("answer", "check", "told"),
    [
        (2, "assert answer == 2", "✓ right"),
        (3, "assert answer == 2, '1 < 2'", "! not yet: 1 < 2"),
        (3, "{}[answer]", "! not yet: KeyError: 3"),
        (..., "answer + 1", "! not yet: put your answer in the place of the dots above"),
    ],
)
def test_attempt_says_whether_an_answer_is_right(answer: Any, check: str, told: str, capsys: Any) -> None:
    with attempt(answer):
        exec(check)
    assert capsys.readouterr().out == f"{told}\n"


def test_run_card(run: Run) -> None:
    card = run_card(run, 4000, model="none", note="<b>")
    assert pretty(card) == str(card), "a notebook shows it line by line"
    lines = dict(line.split(maxsplit=1) for line in str(card).splitlines())
    assert "torchtune 0.6.1 · " in lines.pop("versions")
    facts = {"profile": "smoke", "model": "none", "n": "4,000", "seed": "7", "config": EMPTY[:12], "data": EMPTY[:12]}
    assert lines == facts | {"note": "<b>"}
    assert "data      ai4privacy/pii-masking-65k@" in str(run_card(replace(run, profile=PROFILES["guard-1b"]), 1))
