"""README and workshop plans: numbers come from expected results, and everything they name is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import notebook_lint as lint
import pytest

from guard_utils.profiles import repository
from guard_utils.records import Interval, record
from tools import publish as published
from tools.notebooks import ADDRESS

README, WORKSHOP = repository() / "README.md", repository() / "notebooks" / "WORKSHOP.md"
TEXT = README.read_text(encoding="utf-8")
GENERATED = re.compile(
    r"(?s)<!-- (results|speed):start -->.*?<!-- \1:end -->|!\[[^]]*\]|(?<=\| )[\d.]+(?= \|)|Apache-2\.0"
)


def test_results_are_those_of_the_expected_file() -> None:
    assert published.fill_readme(TEXT, "laptop") == TEXT, "run python -m tools.publish laptop --readme"


@pytest.mark.parametrize(
    "generated", ["| own test set | ", "on test, ", "minutes on 2 CPU", "apart by at most ", "notebook is wrong | "]
)
def test_a_number_edited_by_hand_is_found(generated: str) -> None:
    row = "(notebooks/05_error_analysis.ipynb) | find out who is wrong, the model or the label | "
    generated = row if generated.startswith("notebook") else generated
    assert TEXT.count(generated) >= 1
    edited = TEXT.replace(generated, f"{generated}9")
    assert published.fill_readme(edited, "laptop") == TEXT


@pytest.mark.parametrize("file", [README, WORKSHOP], ids=lambda file: file.name)
def test_everything_named_is_there_and_no_score_is_typed(file: Path) -> None:
    text = lint.without_fences(file.read_text(encoding="utf-8"))
    assert lint.missing(text, file.parent, set()) == []
    assert list(lint.scores_in(GENERATED.sub("", text))) == []


def test_commands_in_the_readme_are_there() -> None:
    commands = [line[2:].split("#")[0].strip() for line in TEXT.splitlines() if line.startswith("$ ")]
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
    sources = [path.read_text(encoding="utf-8") for path in repository().glob("notebooks/src/*.py")]
    for part in re.findall(r"\*([A-Z][^*]+)\*", "".join(plans)):
        assert any(f"# ## {part}\n" in source for source in sources), part


FACTS: dict[str, Any] = {"profile": "smoke", "n": 40, "model": "tiny"}


def expected(tmp_path: Path, *scores: float) -> Any:
    for seed, score in enumerate(scores):
        values = {"f1": Interval(score, score - 0.25, score + 0.15), "plain": score, "none": float("nan")}
        record(tmp_path / str(seed), name="single", values=values, seed=seed, **FACTS)
    runs = [tmp_path / str(seed) for seed in range(len(scores))]
    (runs[0] / "timings.json").write_text('{"01_first": 90}')
    return tomllib.loads(published.expected_text("smoke", runs))


def test_of_one_run_half_the_interval_is_the_tolerance(tmp_path: Path) -> None:
    facts = expected(tmp_path, 0.5)
    assert facts["run"]["seeds"] == [0] and facts["run"]["minutes"] == {"01_first": 1.5}
    assert facts["single"] == {
        "model": "tiny",
        "f1": {"value": 0.5, "low": 0.25, "high": 0.65, "tolerance": 0.2, "n": 40},
        "plain": {"value": 0.5, "tolerance": 0.02, "n": 40},
    }


def test_of_three_runs_two_standard_deviations_are_the_tolerance(tmp_path: Path) -> None:
    facts = expected(tmp_path, 0.5, 0.6, 0.7)  # whose standard deviation is 0.1
    assert facts["run"]["seeds"] == [0, 1, 2]
    assert facts["single"]["f1"] == {"value": 0.5, "low": 0.25, "high": 0.65, "spread": 0.2, "tolerance": 0.2, "n": 40}
    assert expected(tmp_path, 0.5, 0.5, 0.5)["single"]["plain"] == {
        "value": 0.5,
        "spread": 0.0,
        "tolerance": 0.02,
        "n": 40,
    }
    assert expected(tmp_path, 0.5, 0.7)["single"]["plain"]["tolerance"] == 0.02


def test_readme_tells_the_spread_over_seeds() -> None:
    facts = tomllib.loads((repository() / "notebooks" / "expected" / "laptop.toml").read_text(encoding="utf-8"))
    for name, spread in (("tuned-test", 0.0123), ("tuned-independent", 0.0456)):
        facts[name]["weighted_f1"]["spread"] = spread
    facts["run"]["seeds"] = [0, 1, 2]
    told = "Two standard deviations of weighted F1 over the seeds 0, 1, 2: 0.012 on test and 0.046 on independent."
    assert told in published._block(facts, "laptop")
