"""README, workshop plans and report: numbers come from records, and everything that is named is there."""

import re
import tomllib
from pathlib import Path
from typing import Any

import notebook_lint as lint
import pytest

from guard_utils.profiles import repository, resolve
from guard_utils.records import Interval, record
from tools import publish
from tools.notebooks import ADDRESS

README, WORKSHOP = repository() / "README.md", repository() / "notebooks" / "WORKSHOP.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = r"(?s)<!-- (results|speed):start -->.*?<!-- \1:end -->|!\[[^]]*\]|(?<=\| )[\d.]+(?= \|)|Apache-2\.0"


def test_results_are_those_of_the_expected_file() -> None:
    assert publish.fill_readme(TEXT, "laptop") == TEXT, "run python -m tools.publish readme laptop"


@pytest.mark.parametrize(
    "before",
    [r"\| own test set \| ", "minutes on 2 CPU", "apart by at most ", r"05_error\w+\.ipynb\) \|[^|]+\| "],
)
def test_a_number_edited_by_hand_is_found(before: str) -> None:
    edited, count = re.subn(f"({before})", r"\g<1>9", TEXT)
    assert count and publish.fill_readme(edited, "laptop") == TEXT


@pytest.mark.parametrize("file", [README, WORKSHOP], ids=lambda file: file.name)
def test_everything_named_is_there_and_no_score_is_typed(file: Path) -> None:
    text = lint.without_fences(file.read_text(encoding="utf-8"))
    assert lint.missing(text, file.parent, set()) == []
    assert lint.scores_in(re.sub(BLOCKS, "", text)) == []


def test_commands_in_the_readme_are_there() -> None:
    commands = re.findall(r"^\$ (.+?)(?: *#.*)?$", TEXT, re.M)
    assert len(commands) >= 3
    assert lint.missing(" ".join(f"`{command}`" for command in commands), repository(), set()) == []


def test_badges_and_setup_name_one_address() -> None:
    owner = ADDRESS.removeprefix("https://github.com/")
    badges = re.findall(r"\]\((https://(?:colab\.research\.google\.com/github|mybinder\.org/v2/gh)/[^)]+)\)", TEXT)
    assert len(badges) == 2 and all(f"/{owner}/" in badge for badge in badges)


def test_workshop_plans_fill_their_time_with_parts_that_are_there() -> None:
    plans = re.split(r"^## ", WORKSHOP.read_text(encoding="utf-8"), flags=re.M)[1:3]
    minutes = [sum(map(int, re.findall(r"^\| (\d+) \|", plan, re.M))) for plan in plans]
    assert minutes == [120, 240]
    sources = "".join(path.read_text(encoding="utf-8") for path in repository().glob("notebooks/src/*.py"))
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


def test_of_one_run_half_the_interval_is_the_tolerance(runs: Any) -> None:
    facts = tomllib.loads(publish.expected_text("smoke", runs(0.5)))
    assert facts["run"]["seeds"] == [0] and facts["run"]["minutes"] == {"01_first": 1.5, "02_second": 0.5}
    assert facts["single"] == {
        "model": "tiny",
        "f1": {"value": 0.5, "low": 0.25, "high": 0.625, "tolerance": 0.1875, "n": 40},
        "plain": {"value": 0.5, "tolerance": 0.02, "n": 40},
    }


def test_of_three_runs_two_standard_deviations_are_the_tolerance(runs: Any) -> None:
    facts = tomllib.loads(publish.expected_text("smoke", runs(0.5, 0.75, 1.0)))  # whose standard deviation is 0.25
    assert facts["run"]["seeds"] == [0, 1, 2]
    assert facts["single"]["f1"].items() >= {"value": 0.5, "spread": 0.5, "tolerance": 0.5}.items()
    for scores, told in (((0.5, 0.5, 0.5), "spread = 0.0, tolerance = 0.02"), ((0.5, 0.7), "tolerance = 0.02")):
        assert f"plain = {{ value = 0.5, {told}, n = 40 }}" in publish.expected_text("smoke", runs(*scores))


def test_a_number_is_rounded_once_on_its_way_to_the_reader(runs: Any) -> None:
    score = 0.70049  # by way of four digits it would be 0.701
    facts = tomllib.loads(publish.expected_text("smoke", runs(score)))
    assert f"{facts['single']['plain']['value']:.3f}" == f"{score:.3f}" == "0.700"


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
