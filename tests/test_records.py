from __future__ import annotations

import json
import math
import pathlib
import sys
import types

import numpy as np
import pandas as pd
import pytest

from guard_utils import report
from guard_utils.report import Interval, expect, headline_table, intervals_of, load_records, record, run_card

FACTS = {"profile": "smoke", "n": 40, "seed": 7, "model": "tiny"}


def test_interval_reads_as_text():
    interval = Interval(0.9119, 0.8991, 0.924)
    assert str(interval) == "0.912 [0.899, 0.924]"
    assert f"{interval:.1f}" == "0.9 [0.9, 0.9]"
    assert str(Interval(math.nan, math.nan, math.nan)) == "not measured"
    with pytest.raises(ValueError, match="upside down"):
        Interval(0.5, 0.6, 0.4)


def test_record_writes_all_that_decides_a_number(tmp_path):
    values = {"weighted_f1": Interval(0.9, 0.8, 0.95), "outside": np.float64(0.001), "f1_S5": math.nan}
    made = record(tmp_path, name="test_single", values=values, revision="abc", extra={"data": "f00"}, **FACTS)
    assert [path.name for path in (tmp_path / "records").iterdir()] == ["test_single.json"]
    told = json.loads((tmp_path / "records/test_single.json").read_text())
    cells = {"weighted_f1": {"value": 0.9, "low": 0.8, "high": 0.95}, "outside": {"value": 0.001}}
    assert told["values"] == cells | {"f1_S5": {"value": None}}
    names = ["python", "guard_utils", "torch", "torchtune", "transformers", "datasets", "scikit-learn"]
    assert list(told.pop("versions")) == names
    assert told["revision"] == "abc" and told["extra"] == {"data": "f00"}
    assert {key: told[key] for key in FACTS} == FACTS
    assert set(told) == {*FACTS, "name", "values", "revision", "extra"}  # no date, no host, no path
    assert made.versions["python"] == ".".join(map(str, sys.version_info[:3]))


def test_records_come_back_sorted_and_equal(tmp_path):
    first = record(tmp_path, name="b", values={"f1": Interval(0.5, 0.4, 0.6)}, **FACTS)
    second = record(tmp_path, name="a", values={"f1": 0.25}, extra={"k": [1, "x"]}, **FACTS)
    before = (tmp_path / "records/a.json").read_bytes()
    record(tmp_path, name="a", values={"f1": 0.25}, extra={"k": [1, "x"]}, **FACTS)
    assert (tmp_path / "records/a.json").read_bytes() == before
    assert load_records(tmp_path) == [second, first]
    for name in "fgedc":
        record(tmp_path, name=name, values={"f1": 0.25}, **FACTS)
    assert [found.name for found in load_records(tmp_path)] == list("abcdefg")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "../up"}, "result name '../up'"),
        ({"values": {"f 1": 0.5}}, "metric name 'f 1'"),
        ({"values": {}}, "0 values"),
        ({"n": 0}, "on 0 prompts"),
        ({"values": {"f1": math.inf}}, "can't be written as JSON"),
        ({"extra": {"when": object()}}, "can't be written as JSON"),
        ({"extra": {"files": {"config": ["/somewhere/run.yaml"]}}}, r"r\.extra\.files\.config is the path"),
        ({"model": "/cache/model"}, r"r\.model is the path"),
        ({"revision": pathlib.Path("main")}, r"r\.revision is the path"),
    ],
)
def test_faulty_records_are_refused_and_write_nothing(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        record(tmp_path, **({"name": "r", "values": {"f1": 0.5}} | FACTS | changed))
    assert not list(tmp_path.rglob("*.*"))


def test_a_write_that_fails_leaves_the_old_record(tmp_path, monkeypatch):
    record(tmp_path, name="r", values={"f1": 0.5}, **FACTS)
    before = (tmp_path / "records/r.json").read_bytes()

    def no_space(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        record(tmp_path, name="r", values={"f1": 0.6}, **FACTS)
    assert [path.read_bytes() for path in (tmp_path / "records").iterdir()] == [before]


def test_missing_and_broken_records_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="the notebooks write them"):
        load_records(tmp_path)
    record(tmp_path, name="r", values={"f1": 0.5}, **FACTS)
    for broken in ("{", "[]", '{"values": {}}'):
        (tmp_path / "records/r.json").write_text(broken)
        with pytest.raises(ValueError, match=r"r\.json is no run record"):
            load_records(tmp_path)


def test_intervals_of_a_bootstrap_table():
    table = pd.DataFrame({"metric": ["f1", "ap"], "value": [0.5, 0.7], "low": [0.4, 0.6], "high": [0.6, 0.8]})
    assert intervals_of(table, ["ap"]) == {"ap": Interval(0.7, 0.6, 0.8)}
    with pytest.raises(ValueError, match=r"no metrics \['auroc'\]; it has f1, ap"):
        intervals_of(table, ["f1", "auroc"])


def test_headline_table_has_one_row_a_number(tmp_path):
    record(tmp_path, name="z", values={"f1": Interval(0.9, 0.8, 0.95), "fpr": 0.02}, **FACTS)
    record(tmp_path, name="a", values={"f1": math.nan}, **FACTS)
    table = headline_table(tmp_path)
    assert table["result"].tolist() == ["a", "z", "z"]
    assert table["metric"].tolist() == ["f1", "f1", "fpr"]
    assert table["score"].tolist() == ["not measured", "0.900 [0.800, 0.950]", "0.020"]
    assert table["low"].isna().tolist() == [True, False, True]
    assert table["n"].tolist() == [40, 40, 40]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one expected result, entered from its notebooks folder."""
    (tmp_path / "pyproject.toml").touch()
    for folder in ("notebooks", "expected", "torchtune_configs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "expected/smoke.toml").write_text("[single.f1]\nvalue = 0.9\ntolerance = 0.02\nn = 999\n")
    monkeypatch.chdir(tmp_path / "notebooks")
    for name in (report.STRICT, "GUARD_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("value", [0.9, 0.88, 0.92, Interval(0.91, 0.5, 0.99)])
def test_expect_is_green_within_the_tolerance(repository, capsys, monkeypatch, value):
    monkeypatch.setenv(report.STRICT, "1")
    assert expect("smoke", "single", "f1", value) is True
    assert capsys.readouterr().out == f"✓ single f1 {value:.3f}, expected 0.900 ± 0.020 (n=999)\n"


@pytest.mark.parametrize("value", [0.879, 0.921, math.nan])
def test_expect_warns_a_reader_and_fails_a_test(repository, capsys, monkeypatch, value):
    assert expect("smoke", "single", "f1", value) is False
    line = f"single f1 {value:.3f}, expected 0.900 ± 0.020 (n=999): outside the tolerance"
    assert capsys.readouterr().out == f"! {line}\n"
    monkeypatch.setenv(report.STRICT, "1")
    with pytest.raises(AssertionError, match="outside the tolerance"):
        expect("smoke", "single", "f1", value)


@pytest.mark.parametrize("missing", [("smoke", "single", "ap"), ("smoke", "multi", "f1"), ("laptop", "single", "f1")])
def test_expect_without_entry_is_fine_unless_strict(repository, capsys, monkeypatch, missing):
    assert expect(*missing, 0.5) is True
    assert capsys.readouterr().out == f"! {missing[1]} {missing[2]} 0.500: no expected value yet\n"
    monkeypatch.setenv(report.STRICT, "1")
    with pytest.raises(AssertionError, match="no expected value yet"):
        expect(*missing, 0.5)


@pytest.mark.parametrize(
    "text",
    ["[single.f1]\nvalue = 0.9\n", "[single]\nf1 = 0.9\n", "[single.f1]\nvalue = '0.9'\ntolerance = 0.1\nn = 9\n"],
)
def test_faulty_entries_are_named(repository, text):
    (repository / "expected/smoke.toml").write_text(text)
    with pytest.raises(ValueError, match=r"\[single\.f1\] of expected/smoke\.toml"):
        expect("smoke", "single", "f1", 0.9)


def test_a_file_that_is_no_toml_is_named(repository):
    (repository / "expected/smoke.toml").write_text("[single")
    with pytest.raises(ValueError, match=r"expected/smoke\.toml can't be read"):
        expect("smoke", "single", "f1", 0.9)


def test_expect_shows_colour_in_a_notebook(repository, monkeypatch):
    IPython = pytest.importorskip("IPython")
    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: types.SimpleNamespace(kernel=object()))
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    expect("smoke", "single", "f1", 0.9)
    expect("smoke", "single", "f1", 0.5)
    assert [bundle["text/plain"][0] for bundle in shown] == ["✓", "!"]
    assert report.GREEN in shown[0]["text/html"] and report.AMBER in shown[1]["text/html"]


def test_run_card_in_text_and_html():
    card = run_card(**FACTS, data_hash="d" * 64, config_hash="c" * 64, note="<b>")
    lines = dict(line.split(maxsplit=1) for line in str(card).splitlines())
    assert lines["profile"] == "smoke" and lines["n"] == "40" and lines["seed"] == "7"
    assert lines["data"] == "d" * 12 and lines["config"] == "c" * 12
    assert "torchtune" in lines["versions"]
    assert "<td>&lt;b&gt;</td>" in card._repr_html_() and "<td>smoke</td>" in card._repr_html_()


def test_command_prints_numbers_figures_and_minutes(repository, capsys, monkeypatch):
    folder = repository / "artifacts/smoke"
    assert report.main(["smoke"]) == 1
    assert "no records" in capsys.readouterr().err
    record(folder, name="single", values={"f1": Interval(0.9, 0.8, 0.95)}, **FACTS)
    assert report.main(["smoke"]) == 0
    assert "No timings.json yet" in capsys.readouterr().out
    (folder / "figures").mkdir()
    (folder / "figures/a.png").touch()
    (folder / "timings.json").write_text('{"02_data": 30, "01_baseline": 90}')
    assert report.main(["smoke"]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert words[1] == ["single", "f1", "0.900", "[0.800,", "0.950]", "40", "tiny"]
    assert words[2] == ["1", "figures", "in", "../artifacts/smoke/figures"]
    assert words[3:] == [["01_baseline", "1.5", "min"], ["02_data", "0.5", "min"], ["total", "2.0", "min"]]
    monkeypatch.setenv("GUARD_ARTIFACTS", str(repository / "elsewhere"))
    assert report.main(["smoke"]) == 1
    assert "elsewhere/smoke/records" in capsys.readouterr().err
    monkeypatch.delenv("GUARD_ARTIFACTS")
    (folder / "timings.json").write_text("{")
    assert report.main(["smoke"]) == 1
    assert "timings.json is no JSON" in capsys.readouterr().err
