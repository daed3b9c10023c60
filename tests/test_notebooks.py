"""Every notebook runs on the smoke profile; the committed ones are those of their sources."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from guard_utils.notebooks import build, sources
from guard_utils.profiles import repository

SOURCES = sources()
NAMES = [source.stem for source in SOURCES]


def committed(source: Path) -> Path:
    return repository() / "notebooks" / f"{source.stem}.ipynb"


def test_the_series_has_its_five_notebooks() -> None:
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05"]


def test_all_notebooks_run_in_order_on_smoke(tmp_path: Path) -> None:
    environment = os.environ | {"GUARD_ARTIFACTS": str(tmp_path)}
    command = [sys.executable, "-m", "guard_utils.notebooks", "run", "--profile", "smoke"]
    first = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert first.returncode == 0, first.stdout[-6000:] + first.stderr[-2000:]
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.stdout.count("reused") == len(SOURCES), again.stdout
    figures = list((tmp_path / "smoke" / "figures").glob("*.png"))
    assert len(figures) >= 8
    assert all(figure.with_suffix(".alt.txt").read_text().strip() for figure in figures)


def test_04_and_05_run_from_the_shipped_predictions_and_give_the_expected_numbers(tmp_path: Path) -> None:
    environment = os.environ | {"GUARD_ARTIFACTS": str(tmp_path), "GUARD_STRICT": "1"}
    for number in ("04", "05"):
        command = [sys.executable, "-m", "guard_utils.notebooks", "run", "--profile", "laptop", "--only", number]
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stdout[-6000:]
    assert not (tmp_path / "laptop" / "training").exists()


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_committed_notebook_is_built_from_its_source(source: Path) -> None:
    notebook = nbformat.read(committed(source), as_version=4)
    nbformat.validate(notebook)
    fresh = build(source, "laptop")
    assert [(c.id, c.cell_type, c.source) for c in notebook.cells] == [
        (c.id, c.cell_type, c.source) for c in fresh.cells
    ]


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_committed_notebook_ran_from_top_to_bottom_without_an_error(source: Path) -> None:
    notebook = nbformat.read(committed(source), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_agenda_is_the_list_of_headings(source: Path) -> None:
    cells = [cell.source for cell in jupytext.read(source).cells if cell.cell_type == "markdown"]
    agenda = re.findall(r"^\d+\. \[(.+?)\]\(", cells[0], re.MULTILINE)
    headings = [h for cell in cells for h in re.findall(r"^## (.+)$", cell, re.MULTILINE)]
    assert agenda == headings
    for word in ("What you will learn", "What you need", "Agenda"):
        assert word in cells[0]
    assert headings[-3:] == ["Take-aways", "Exercises", "Where to go next"]


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_cells_are_short(source: Path) -> None:
    lengths = sorted(len(c.source.splitlines()) for c in jupytext.read(source).cells if c.cell_type == "code")
    assert lengths[-1] <= 25
    assert lengths[len(lengths) // 2] <= 6


def test_a_source_without_parameters_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "09_none.py"
    source.write_text("# %%\nPROFILE = 'laptop'\n")
    with pytest.raises(ValueError, match="parameters"):
        build(source, "smoke")


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_no_machine_path_or_date_in_a_committed_notebook(source: Path) -> None:
    text = committed(source).read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|tmp|Users)/\w", text)
