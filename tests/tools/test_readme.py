"""README, other pages and report: numbers come from records, and everything that is named is there."""

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import notebook_lint as lint
import pytest

from guard_utils import __version__
from guard_utils.profiles import repository, resolve
from guard_utils.records import Interval, record
from tools import publish

ROOT = repository()
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("notebooks/*.md"), *ROOT.glob("notebooks/models/*/*.md")]
TEXT = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "GUIDE.md"))


def test_results_are_those_of_the_expected_file() -> None:
    assert publish.fill_readme(TEXT, "laptop") == TEXT, "run python -m tools.publish readme laptop"


def test_one_version_stands_everywhere() -> None:
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        assert re.findall(r"^(?:version\W+|## )([\d.]+)", (ROOT / name).read_text(), re.M)[0] == __version__


def test_a_number_edited_by_hand_is_found() -> None:
    places = (r"\| own test set \| ", "minutes on 2 CPU", "apart by at most ", r"05_error\w+\.ipynb\) \|[^|]+\| ")
    for before in (*places, "reference rows: "):  # the last in the figure's alt text, whose interval has brackets
        edited, count = re.subn(f"({before})", r"\g<1>9", TEXT)
        assert count and publish.fill_readme(edited, "laptop") == TEXT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_everything_named_is_there_and_every_number_has_a_record(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = "".join(f" `{command}`" for command in re.findall(r"^\$ (.+?)(?: *#.*)?$", text, re.M))
    assert lint.missing(lint.without_fences(text) + commands, page.parent, set()) == []
    assert unrecorded(text) == []
    assert len(unrecorded(re.sub(r" \[0\.", " [9.", text) + "F1 of 0.8941 and 99.9 %")) == 2 + text.count(" [0.")


def test_launch_links_are_there_once_there_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "ADDRESS", "https://github.com/ann/guard")
    links = re.findall(r"\]\((https://(?:colab|mybinder)[^)]+/ann/guard/[^)]+)\)", publish.fill_readme(TEXT, "laptop"))
    assert len(links) == 2 and Path(links[0]).name == f"{lint.SOURCES[0].stem}.ipynb"


def numbers(record: Any) -> list[Interval]:
    """Every number of a record, with its interval where it has one."""
    if not isinstance(record, dict):
        return [Interval(record)] if isinstance(record, float) else []
    if "value" in record:
        over_seeds = [Interval(record[key]) for key in ("mean", "spread") if key in record]
        return [Interval(*(record.get(key, math.nan) for key in ("value", "low", "high"))), *over_seeds]
    return [number for item in record.values() for number in numbers(item)]


LOAD = {".toml": tomllib.loads, ".json": json.loads}
FILES = [*ROOT.glob("notebooks/expected/*.toml"), *ROOT.glob("tools/benchmarks/results/*.json")]
FOUND = {number for file in FILES for number in numbers(LOAD[file.suffix](file.read_text(encoding="utf-8")))}
RECORDED = {form for n in FOUND for form in (str(n), f"{n.value * 100:.1f}", *(f"{n.value:.{d}f}" for d in (1, 2, 3)))}


def unrecorded(text: str) -> list[str]:
    whole, plain = r"-?\d\.\d{3} \[[^]]+\]", re.sub(r"(?i)apache-2\.0|95 %\s|\+", "", lint.without_fences(text))
    shown = [*re.findall(whole, plain), *lint.scores_in(re.sub(whole, "", plain))]
    return [number for number in shown if number not in RECORDED]


def test_workshop_plans_fill_their_time_with_parts_that_are_there() -> None:
    plans = re.split(r"^## ", (ROOT / "notebooks" / "WORKSHOP.md").read_text(encoding="utf-8"), flags=re.M)[1:3]
    minutes = [sum(map(int, re.findall(r"^\| (\d+) \|", plan, re.M))) for plan in plans]
    assert minutes == [120, 240]
    sources = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("notebooks/src/*.py"))
    parts = re.findall(r"\*([A-Z][^*]+)\*", "".join(plans))
    assert [part for part in parts if f"# ## {part}\n" not in sources] == []


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes folders of runs with one result each, the first with the minutes it took."""

    def made(*scores: float) -> list[Path]:
        folders = []
        for seed, score in enumerate(scores):
            monkeypatch.setenv("GUARD_ARTIFACTS", str(tmp_path / str(seed)))
            run = resolve("smoke", seed=seed)
            values = {"f1": Interval(score, score - 0.25, score + 0.125), "plain": score, "none": float("nan")}
            record(run, "single", values, 40, model="tiny")
            folders.append(run.folder)
        (folders[0] / "timings.json").write_text('{"02_second": 30, "01_first": 90}')
        return folders

    return made


def test_of_one_run_half_the_interval_is_the_tolerance_and_nothing_is_rounded(runs: Any) -> None:
    score = 0.70049  # by way of four digits it would be shown as 0.701
    facts = tomllib.loads(publish.expected_text("smoke", runs(score)))
    assert facts["run"]["seeds"] == [0] and facts["run"]["minutes"] == {"01_first": 1.5, "02_second": 0.5}
    half = pytest.approx(0.1875)
    assert facts["single"] == {
        "model": "tiny",
        "f1": {"value": score, "low": score - 0.25, "high": score + 0.125, "tolerance": half, "n": 40},
        "plain": {"value": score, "tolerance": 0.02, "n": 40},
    }


def test_of_three_runs_two_standard_deviations_are_the_tolerance(runs: Any) -> None:
    facts = tomllib.loads(publish.expected_text("smoke", runs(0.5, 0.75, 1.0)))  # whose standard deviation is 0.25
    assert facts["run"]["seeds"] == [0, 1, 2]
    assert facts["single"]["f1"].items() >= {"value": 0.5, "mean": 0.75, "spread": 0.5, "tolerance": 0.5}.items()
    for scores, told in (((0.5,) * 3, "mean = 0.5, spread = 0.0, tolerance = 0.02"), ((0.5, 0.7), "tolerance = 0.02")):
        assert f"plain = {{ value = 0.5, {told}, n = 40 }}" in publish.expected_text("smoke", runs(*scores))


def test_cores_versions_and_minutes_are_those_of_the_machine_that_trained(runs: Any) -> None:
    (folder,) = runs(0.5)
    (folder / "timings.json").write_text('{"03_train": 30, "04_score": 90}')
    there = {"cores": 96, "versions": {"torch": "2.12"}}
    record(resolve("smoke", seed=0), "training", {"minutes": 18.25}, 40, made_on=there)
    run = tomllib.loads(publish.expected_text("smoke", [folder]))["run"]
    assert {name: run[name] for name in there} == there
    assert run["minutes"] == {"03_train": 18.2, "04_score": 1.5}, "a training that was reused took its time, too"


def test_report_prints_numbers_figures_and_minutes(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GUARD_ARTIFACTS", str(tmp_path / "nothing"))
    assert publish.main(["report", "laptop"]) == 1
    assert "no records" in capsys.readouterr().err
    (folder,) = runs(0.5)
    (folder / "figures").mkdir()
    (folder / "figures" / "a.png").touch()
    assert publish.main(["report", "smoke"]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert words[1] == ["single", "f1", "0.500", "[0.250,", "0.625]", "40", "tiny"]
    assert words[4][:2] == ["1", "figures"] and words[4][-1].endswith("smoke/figures")
    assert words[5:] == [["01_first", "1.5", "min"], ["02_second", "0.5", "min"], ["total", "2.0", "min"]]
