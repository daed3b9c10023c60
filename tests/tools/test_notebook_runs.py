"""The notebooks as they run on smoke from nothing, solutions filled in; as readers get them, they are committed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import notebook_lint as lint
import pytest
from kernels import one_kernel
from nbclient.exceptions import CellExecutionError

from guard_utils.profiles import repository
from tools.notebooks import build, execute, run_all


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    with one_kernel(GUARD_ARTIFACTS=str(folder), OMP_NUM_THREADS="1"):
        yield folder


@pytest.fixture(scope="module")
def smoke(artifacts: Path) -> Path:
    """A run of the whole series."""
    assert run_all("smoke", solved=True) == 0
    return artifacts / "smoke"


OWN = """
from dataclasses import replace
from guard_utils.profiles import PROFILES

files = {{"train_data": "{own}/train.jsonl", "test_data": "{own}/test.jsonl", "labels": "{own}/labels.csv"}}
PROFILE = replace(PROFILES["smoke"], name="mine", config="smoke", policy="{policy}", **files)
"""


def test_the_course_runs_on_a_policy_of_ones_own_and_leaves_out_what_is_about_the_reference(artifacts: Path) -> None:
    left_out, policy = [], artifacts / "six.yaml"  # more categories than the series has
    own = repository() / "notebooks" / "data" / "own"
    policy.write_text((own / "policy.yaml").read_text() + "  - name: Passport Number\n  - name: Tax Number\n")
    for source in lint.SOURCES[:5]:
        notebook = build(source, "smoke")
        parameters = next(cell for cell in notebook.cells if cell.source.startswith("PROFILE ="))
        parameters.source = OWN.format(own=own, policy=policy)
        execute(notebook)
        left_out.append(str(notebook).count("left out: this cell"))
    assert left_out == [0, 0, 0, 7, 11]
    records = {path.stem for path in artifacts.glob("mine/records/*.json")}
    assert records >= {"zero_shot-validation", "tfidf-test", "training", "tuned-test", "best-rival-test"}
    assert not [name for name in records if "reference" in name or "ladder" in name]


@pytest.mark.parametrize("source", lint.SOURCES, ids=lambda source: source.stem)
def test_outputs_keep_the_house_rules_and_solutions_pass(source: Path, smoke: Path) -> None:
    solved = nbformat.read(smoke / "notebooks" / f"{source.stem}.ipynb", as_version=4)
    assert [fault for rule in lint.EXECUTED if rule is not lint.stubs_fail for fault in rule(solved)] == []
    assert lint.marks(solved) == ["✓"] * 3


def test_a_second_run_finds_records_and_figures_with_words_and_nothing_to_do(smoke: Path, capsys: Any) -> None:
    assert run_all("smoke", solved=True) == 0
    assert capsys.readouterr().out.count("reused") == len(lint.SOURCES)
    assert (smoke / "records" / "training.json").exists()
    figures = [*smoke.glob("figures/*.png")]
    assert len(figures) >= 8 and all(path.with_suffix(".alt.txt").read_text().strip() for path in figures)


def test_04_names_the_notebook_whose_answers_are_missing(smoke: Path) -> None:
    for path in smoke.glob("predictions/regex-*"):
        path.unlink()
    with pytest.raises(CellExecutionError, match="run notebook 01 with PROFILE = 'smoke' first"):
        execute(build(lint.SOURCES[3], "smoke"))
