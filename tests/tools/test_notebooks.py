"""The notebooks as they are built, and what is made beside them."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import notebook_lint as lint
import numpy
import papermill
import pytest
from filelock import FileLock

from guard_utils.profiles import repository, resolve
from tools.notebooks import SETUP, _ship, build, run_all

STALE = repository() / "notebooks" / "STALE"
built = cache(build)


def test_the_series_is_numbered_without_gaps() -> None:
    numbers = [source.stem[:2] for source in lint.SOURCES]
    assert numbers == [f"{number:02}" for number in range(1, len(lint.SOURCES) + 1)] and len(lint.SOURCES) >= 5


@pytest.mark.parametrize("source", lint.SOURCES, ids=lambda source: source.stem)
@pytest.mark.parametrize("rule", lint.STATIC, ids=lambda rule: rule.__name__)
def test_source_keeps_the_house_rules(source: Path, rule: Callable[[Any], list[str]]) -> None:
    assert rule(built(source, "laptop")) == []


def test_no_definition_stands_in_two_notebooks() -> None:
    assert lint.repeated_definitions([built(source, "laptop") for source in lint.SOURCES]) == []


def test_whoever_leaves_the_committed_notebooks_behind_says_why() -> None:
    why = STALE.read_text(encoding="utf-8").splitlines() if STALE.exists() else []
    assert len(why) == STALE.exists()
    for line in why:
        warnings.warn(f"test_committed.py is skipped: {line}", stacklevel=1)


def test_papermill_sets_the_profile(tmp_path: Path) -> None:
    given, made = tmp_path / "given.ipynb", tmp_path / "made.ipynb"
    given.write_text(nbformat.writes(built(lint.SOURCES[0], "laptop")), encoding="utf-8")
    papermill.execute_notebook(given, made, parameters={"PROFILE": "smoke"}, prepare_only=True, progress_bar=False)
    cells = lint.code(nbformat.read(made, as_version=4))
    place = [cell.source for cell in cells].index('PROFILE = "laptop"')
    assert cells[place + 1].source.splitlines()[-1] == 'PROFILE = "smoke"'


def test_what_readers_begin_with_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("torchtune_configs", "run/predictions", "run/figures"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("pyproject.toml", "run/predictions/a.parquet", "run/figures/04-systems.png"):
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    _ship(SimpleNamespace(folder=tmp_path / "run", profile=SimpleNamespace(name="laptop")))  # type: ignore[arg-type]
    assert (tmp_path / "notebooks/predictions/laptop/a.parquet").read_text() == "run/predictions/a.parquet"
    assert (tmp_path / "notebooks/figures/scores.png").read_text() == "run/figures/04-systems.png"


def test_setup_does_something_on_colab_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: done.append(command))
    monkeypatch.chdir(tmp_path)
    exec(SETUP, {})
    assert done == [] and Path.cwd() == tmp_path
    (tmp_path / "series" / "notebooks").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    exec(SETUP, {})
    assert [command[-1] for command in done] == ["./series"], "cloned before, so it is not cloned again"
    assert Path.cwd() == tmp_path / "series" / "notebooks"
    (tmp_path / "series" / "pyproject.toml").touch()
    exec(SETUP, {})
    assert len(done) == 1 and len(SETUP.splitlines()) <= 12


def test_setup_says_when_the_runtime_must_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: done.append(command[-1]))
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(numpy, "__version__", "1.26")
    with pytest.raises(AssertionError, match=r"pip changed \['numpy'\], already loaded: .*Restart session"):
        exec(SETUP, {})
    assert done == ["series", "./series"] and Path.cwd() == tmp_path


def test_two_runs_in_one_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("GUARD_ARTIFACTS", str(tmp_path))
    with FileLock(resolve("smoke").folder / "notebooks.lock"):
        assert run_all("smoke") == 1
    assert f"another run works in {tmp_path}/smoke; wait until" in capsys.readouterr().out
