"""The notebooks as they run on smoke from nothing: once as readers get them, once with the solutions filled in."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import notebook_lint as lint
import pytest

from tools.notebooks import tagged

every_source = pytest.mark.parametrize("source", lint.SOURCES, ids=lambda source: source.stem)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both runs of the whole series, at the same time, each on one core."""
    folders = [tmp_path_factory.mktemp(name) for name in ("given", "solved")]
    for process in [run_series(folders[0]), run_series(folders[1], "--solved")]:
        out, _ = process.communicate()
        assert process.returncode == 0, out[-6000:]
    return [folder / "smoke" for folder in folders]


def run_series(folder: Path, *options: str) -> subprocess.Popen[str]:
    environment = os.environ | {"GUARD_ARTIFACTS": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tools.notebooks", "run", "--profile", "smoke", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def notebook(folder: Path, source: Path) -> Any:
    return nbformat.read(folder / "notebooks" / f"{source.stem}.ipynb", as_version=4)


@every_source
def test_outputs_keep_the_house_rules_and_solutions_pass(source: Path, smoke: list[Path]) -> None:
    given, solved = (notebook(folder, source) for folder in smoke)
    assert [fault for rule in lint.EXECUTED for fault in rule(given)] == []
    assert lint.marks(solved) == ["✓"] * 3


@every_source
def test_two_runs_give_the_same_outside_the_exercises(source: Path, smoke: list[Path]) -> None:
    one, two = (
        [cell for cell in notebook(folder, source).cells if not (tagged(cell, "exercise") or tagged(cell, "check"))]
        for folder in smoke
    )
    assert len(one) > 20 and one == two


def test_two_runs_leave_the_same_records_and_figures(smoke: list[Path]) -> None:
    one, two = (
        {path.name: path.read_bytes() for path in [*folder.glob("records/*"), *folder.glob("figures/*")]}
        for folder in smoke
    )
    assert one.pop("training.json") != two.pop("training.json")  # it tells how long training took
    assert one == two
    figures = [name for name in one if name.endswith(".png")]
    assert len(figures) >= 8 and all(one[name.replace(".png", ".alt.txt")].strip() for name in figures)


def test_a_second_run_finds_nothing_to_do(smoke: list[Path]) -> None:
    out, _ = run_series(smoke[0].parent).communicate()
    assert out.count("reused") == len(lint.SOURCES), out
