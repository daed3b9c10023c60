"""The notebooks as they run on smoke from nothing, solutions filled in; as readers get them, they are committed."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import notebook_lint as lint
import pytest


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the whole series."""
    folder = tmp_path_factory.mktemp("solved")
    done = run_series(folder)
    assert done.returncode == 0, done.stdout[-6000:]
    return folder / "smoke"


def run_series(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"GUARD_ARTIFACTS": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tools.notebooks", "run", "--profile", "smoke", "--solved", *options]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.mark.parametrize("source", lint.SOURCES, ids=lambda source: source.stem)
def test_outputs_keep_the_house_rules_and_solutions_pass(source: Path, smoke: Path) -> None:
    solved = nbformat.read(smoke / "notebooks" / f"{source.stem}.ipynb", as_version=4)
    assert [fault for rule in lint.EXECUTED if rule is not lint.stubs_fail for fault in rule(solved)] == []
    assert lint.marks(solved) == ["✓"] * 3


def test_a_second_run_finds_records_and_figures_with_words_and_nothing_to_do(smoke: Path) -> None:
    out = run_series(smoke.parent).stdout
    assert out.count("reused") == len(lint.SOURCES), out
    assert (smoke / "records" / "training.json").exists()
    figures = [*smoke.glob("figures/*.png")]
    assert len(figures) >= 8 and all(path.with_suffix(".alt.txt").read_text().strip() for path in figures)


def test_04_names_the_notebook_whose_answers_are_missing(smoke: Path) -> None:
    for path in [*smoke.glob("notebooks/04*"), *smoke.glob("predictions/regex-*")]:
        path.unlink()
    assert "run notebook 01 with PROFILE = 'smoke' first" in run_series(smoke.parent, "--only", "04").stdout
