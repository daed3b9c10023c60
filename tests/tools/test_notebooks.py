"""The notebooks as they are built, as they are committed, and as they run again on laptop."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import notebook_lint as lint
import pytest
from packaging.requirements import Requirement

from guard_utils.profiles import repository, resolve
from tools.notebooks import SETUP, _ship, build, execute, sources

SOURCES = sources()
NAMES = [source.stem for source in SOURCES]
every_source = pytest.mark.parametrize("source", SOURCES, ids=NAMES)
# Those that need neither a training nor a model: predictions of our own run come with the repository.
AGAIN = [source for source in SOURCES if source.stem[:2] in ("02", "04", "05", "06")]

built = cache(build)


@cache
def committed(source: Path) -> Any:
    return nbformat.read(repository() / "notebooks" / f"{source.stem}.ipynb", as_version=4)


def test_the_series_is_numbered_without_gaps() -> None:
    assert [name[:2] for name in NAMES] == [f"{number:02}" for number in range(1, len(NAMES) + 1)]
    assert len(NAMES) >= 5


@every_source
@pytest.mark.parametrize("rule", lint.STATIC, ids=lambda rule: rule.__name__)
def test_source_keeps_the_house_rules(source: Path, rule: Callable[[Any], list[str]]) -> None:
    assert rule(built(source, "laptop")) == []


def test_no_definition_stands_in_two_notebooks() -> None:
    assert lint.repeated_definitions([built(source, "laptop") for source in SOURCES]) == []


@every_source
def test_committed_notebook_is_built_from_its_source(source: Path) -> None:
    nbformat.validate(committed(source))
    assert lint.other_source(committed(source), built(source, "laptop")) == []


@every_source
@pytest.mark.parametrize("rule", lint.EXECUTED, ids=lambda rule: rule.__name__)
def test_committed_outputs_keep_the_house_rules(source: Path, rule: Callable[[Any], list[str]]) -> None:
    assert rule(committed(source)) == []


@every_source
def test_committed_card_is_of_this_code(source: Path, laptop_again: dict[str, Any]) -> None:
    card, run = lint.card(committed(source)), resolve("laptop")
    assert (card["profile"], card["seed"]) == ("laptop", "0") and card["model"] in ("none", run.profile.model)
    assert card["config"] == hashlib.sha256(run.config_path.read_bytes()).hexdigest()[:12]
    assert card["data"] == lint.card(laptop_again["02_data_preparation"])["data"]
    used = dict(pair.split() for pair in card["versions"].split(" · "))
    project = tomllib.loads((repository() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {pin.name: pin.specifier for pin in map(Requirement, project["dependencies"]) if pin.name in used}
    assert "torch" in pins and all(pin.contains(used[name]) for name, pin in pins.items()), used


@pytest.fixture(scope="module")
def laptop_again(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Notebooks run again on the laptop profile, where a number beyond its tolerance is an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUARD_ARTIFACTS", str(tmp_path_factory.mktemp("laptop")))
        patch.setenv("GUARD_STRICT", "1")
        notebooks = {source.stem: build(source, "laptop") for source in AGAIN}
        for notebook in notebooks.values():
            execute(notebook)
    return notebooks


@pytest.mark.parametrize("source", AGAIN, ids=lambda source: source.stem)
def test_committed_outputs_are_those_of_another_run(source: Path, laptop_again: dict[str, Any]) -> None:
    assert lint.stale(committed(source), laptop_again[source.stem]) == []


def test_what_readers_begin_with_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    for folder in ("torchtune_configs", "run/predictions", "run/figures"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("predictions/tuned-test.parquet", "figures/04-systems.png", "figures/04-systems.alt.txt"):
        (tmp_path / "run" / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    _ship(SimpleNamespace(folder=tmp_path / "run", profile=SimpleNamespace(name="laptop")))  # type: ignore[arg-type]
    assert {
        path.relative_to(tmp_path / "notebooks").as_posix(): path.read_text()
        for path in tmp_path.glob("notebooks/*/**/*.*")
    } == {
        "predictions/laptop/tuned-test.parquet": "predictions/tuned-test.parquet",
        "figures/scores.png": "figures/04-systems.png",
        "figures/scores.alt.txt": "figures/04-systems.alt.txt",
    }


def test_setup_does_something_on_colab_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: done.append(command))
    monkeypatch.chdir(tmp_path)
    exec(SETUP, {})
    assert done == [] and Path.cwd() == tmp_path
    (tmp_path / "series" / "notebooks").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    exec(SETUP, {})
    assert [command[-1] for command in done] == ["series", "./series"]
    assert Path.cwd() == tmp_path / "series" / "notebooks"
    (tmp_path / "series" / "pyproject.toml").touch()
    exec(SETUP, {})
    assert len(done) == 2 and len(SETUP.splitlines()) <= 8
