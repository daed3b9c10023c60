"""The committed notebooks: their cells, outputs and cards are those that today's sources and code give.

Not compared while `notebooks/STALE` says why: an unfinished change renews them in its last step.
"""

import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import notebook_lint as lint
import pytest
from kernels import one_kernel
from packaging.requirements import Requirement

from guard_utils.profiles import repository, resolve
from guard_utils.records import hashes
from tools.notebooks import build, execute

if (repository() / "notebooks" / "STALE").exists():
    pytest.skip("notebooks/STALE says why", allow_module_level=True)

every_source = pytest.mark.parametrize("source", lint.SOURCES, ids=lambda source: source.stem)
# Those that need neither a training nor a model: predictions of our own run come with the repository.
AGAIN = [source for source in lint.SOURCES if source.stem[:2] in ("02", "04", "05")]


@cache
def committed(source: Path) -> Any:
    return nbformat.read(repository() / "notebooks" / f"{source.stem}.ipynb", as_version=4)


@every_source
def test_committed_notebook_is_built_from_its_source(source: Path) -> None:
    nbformat.validate(committed(source))
    ours, theirs = committed(source).cells, build(source, "laptop").cells
    assert [(a.id, a.cell_type, a.source) for a in ours] == [(b.id, b.cell_type, b.source) for b in theirs]


@every_source
@pytest.mark.parametrize("rule", lint.EXECUTED, ids=lambda rule: rule.__name__)
def test_committed_outputs_keep_the_house_rules(source: Path, rule: Callable[[Any], list[str]]) -> None:
    assert rule(committed(source)) == []


@every_source
def test_committed_card_is_of_this_code(source: Path) -> None:
    card, run = lint.card(committed(source)), resolve("laptop", seed=0)
    assert (card["profile"], card["seed"]) == ("laptop", "0") and card["model"] in ("none", run.profile.model)
    assert {name: card[name] for name in hashes(run)} == {name: value[:12] for name, value in hashes(run).items()}
    used = dict(pair.split() for pair in card["versions"].split(" · "))
    project = tomllib.loads((repository() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {pin.name: pin.specifier for pin in map(Requirement, project["dependencies"]) if pin.name in used}
    assert "torch" in pins and all(pin.contains(used[name]) for name, pin in pins.items()), used


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Notebooks run again on the laptop profile, where a number beyond its tolerance is an error."""
    notebooks = {source.stem: build(source, "laptop") for source in AGAIN}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GUARD_AI4PRIVACY", raising=False)  # with the rows, 04 scores them too
        with one_kernel(GUARD_ARTIFACTS=str(tmp_path_factory.mktemp("laptop")), GUARD_STRICT="1"):
            for notebook in notebooks.values():
                execute(notebook)
    return notebooks


@pytest.mark.parametrize("source", AGAIN, ids=lambda source: source.stem)
def test_committed_outputs_are_those_of_another_run(source: Path, again: dict[str, Any]) -> None:
    assert lint.said(committed(source)) == lint.said(again[source.stem])
