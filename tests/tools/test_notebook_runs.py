"""The notebooks as they run on smoke from nothing: twice the same, with solutions, by papermill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import notebook_lint as lint
import pytest

from guard_utils.profiles import repository
from tools.notebooks import build, execute, sources

SOURCES = sources()
every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of the whole series from nothing, at the same time, each on one core."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    processes = [run_series(folder) for folder in folders]
    for process in processes:
        out, _ = process.communicate()
        assert process.returncode == 0, out[-6000:]
    return [folder / "smoke" for folder in folders]


def run_series(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"GUARD_ARTIFACTS": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tools.notebooks", "run", "--profile", "smoke"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@every_source
def test_two_runs_give_the_same_bytes(source: Path, smoke: list[Path]) -> None:
    one, two = ((folder / "notebooks" / f"{source.stem}.ipynb").read_bytes() for folder in smoke)
    assert one == two
    notebook = nbformat.reads(one.decode(), as_version=4)
    assert [fault for rule in lint.EXECUTED for fault in rule(notebook)] == []


def test_a_second_run_finds_nothing_to_do(smoke: list[Path]) -> None:
    out, _ = run_series(smoke[0].parent).communicate()
    assert out.count("reused") == len(SOURCES), out


def test_figures_have_alt_texts_beside_them(smoke: list[Path]) -> None:
    figures = list((smoke[0] / "figures").glob("*.png"))
    assert len(figures) >= 8
    assert all(figure.with_suffix(".alt.txt").read_text(encoding="utf-8").strip() for figure in figures)


@every_source
def test_solutions_pass_their_checks(source: Path, smoke: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARD_ARTIFACTS", str(smoke[0].parent))
    notebook = build(source, "smoke", solved=True)
    execute(notebook)
    assert lint.solutions_pass(notebook) == []


def test_papermill_sets_the_profile(smoke: list[Path], tmp_path: Path) -> None:
    given, made = tmp_path / "given.ipynb", tmp_path / "made.ipynb"
    given.write_text(nbformat.writes(build(SOURCES[4], "laptop")), encoding="utf-8")
    papermill = [sys.executable, "-m", "papermill", "--no-progress-bar", "--cwd", str(repository() / "notebooks")]
    environment = os.environ | {"GUARD_ARTIFACTS": str(smoke[0].parent)}
    result = subprocess.run(
        [*papermill, "-p", "PROFILE", "smoke", str(given), str(made)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert lint.card(nbformat.read(made, as_version=4))["profile"] == "smoke"
