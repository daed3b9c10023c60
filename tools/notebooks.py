"""Builds the notebooks from their sources and runs them in order.

    python -m tools.notebooks run --profile laptop          # what `make tutorial` does
    python -m tools.notebooks run --profile laptop --keep   # what `make notebooks` does: also commits-to-be
    python -m tools.notebooks run --profile smoke --only 03

A notebook whose source, code, configs and predecessors are those of its last run is not run again. Two runs on one
machine give the same bytes: nothing that a clock, a progress bar or a path decides is kept.

An exercise is three cells of a source: `exercise`, the stub with `...` for the answer; `check`, which tells whether the
answer is right; and `solution`, code and words, which the notebook shows folded and does not run.
"""

import argparse
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from filelock import FileLock, Timeout
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from guard_utils.files import write_text, write_whole
from guard_utils.profiles import Run, repository, resolve

ADDRESS = "https://github.com/{owner}/{repository}"
"""Where the series is published, once it is: the badges of the README name it, too."""

SETUP = f"""\
import os
import subprocess
import sys
from importlib.metadata import version

if "google.colab" in sys.modules and not os.path.exists("../pyproject.toml"):  # Colab starts empty; no other place does
    if not os.path.exists("series"):
        subprocess.run(["git", "clone", "--quiet", "--depth=1", "{ADDRESS}", "series"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "./series"], check=True)
    old = [m for m in ("numpy", "pandas") if m in sys.modules and sys.modules[m].__version__ != version(m)]
    assert not old, f"pip changed {{old}}, already loaded: choose Runtime > Restart session, then run this cell again"
    os.chdir("series/notebooks")"""
"""First code cell of every notebook."""


def sources() -> list[Path]:
    """The notebook sources in reading order."""
    return sorted((repository() / "notebooks" / "src").glob("[0-9][0-9]_*.py"))


def tagged(cell: Any, tag: str) -> bool:
    """Whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def build(source: Path, profile: str, *, solved: bool = False) -> Any:
    """Makes a notebook without outputs.

    Args:
        source: A py:percent file.
        profile: Written into the cell tagged `parameters`.
        solved: Whether to add each solution to its stub, as the tests do.

    Returns:
        A notebook with stable cell ids; its second cell is `SETUP`.

    Raises:
        ValueError: Not exactly one cell is tagged `parameters`, or a solution has no exercise before it.
    """
    notebook = jupytext.read(source)
    parameters = [cell for cell in notebook.cells if tagged(cell, "parameters")]
    if len(parameters) != 1:
        raise ValueError(f'{source.name} has {len(parameters)} cells tagged "parameters"; give one: PROFILE = "laptop"')
    parameters[0].source = f'PROFILE = "{profile}"'
    opening, *cells = notebook.cells
    setup = nbformat.v4.new_code_cell(SETUP, metadata={"tags": ["setup"]})
    notebook.cells = [opening, setup, *_folded(cells, solved=solved, place=source.name)]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem[:2]}-{number:03d}"
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook


def _folded(cells: Iterable[Any], *, solved: bool, place: str) -> list[Any]:
    """Turns each run of cells tagged `solution` into one Markdown cell that a click unfolds."""
    found: list[Any] = []
    for is_solution, run in itertools.groupby(cells, lambda cell: tagged(cell, "solution")):
        group = list(run)
        if not is_solution:
            found += group
            continue
        stub = next((cell for cell in reversed(found) if tagged(cell, "exercise")), None)
        if stub is None:
            raise ValueError(
                f'{place}: a solution without a cell tagged "exercise" before it: {group[0].source[:60]!r}'
            )
        if solved:
            stub.source = "\n\n".join([stub.source, *(cell.source for cell in group if cell.cell_type == "code")])
        parts = [f"```python\n{cell.source}\n```" if cell.cell_type == "code" else cell.source for cell in group]
        text = "\n\n".join(["<details>\n<summary>Solution</summary>", *parts, "</details>"])
        found.append(nbformat.v4.new_markdown_cell(text, metadata={"tags": ["solution"]}))
    return found


def clean(notebook: Any) -> Any:
    """Takes out what differs between two equal runs: timings, progress bars, warnings' paths, language details."""
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _fleeting(output)]
    return notebook


def _fleeting(output: Any) -> bool:
    return output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def run_all(profile: str, *, only: str = "", last: str = "99", keep: bool = False, solved: bool = False) -> int:
    """Runs the notebooks of a profile in order and prints what happened to each.

    Args:
        profile: Name of a profile.
        only: Start of a notebook's name, to run just that one.
        last: Number of the last one to run.
        keep: Whether to write the executed notebooks to `notebooks/` as well, with the files that readers begin with.
        solved: Whether to add each solution to its stub.

    Returns:
        0, or 1 if a notebook failed or another run works in the same folder.
    """
    run = resolve(profile)
    lock = FileLock(run.folder / "notebooks.lock", blocking=False)
    try:
        with lock:
            return _run_all(run, only, last, keep, solved)
    except Timeout:
        print(f"another run works in {run.folder}; wait until it ends, or set GUARD_ARTIFACTS to another folder")
        return 1


def _run_all(run: Run, only: str, last: str, keep: bool, solved: bool) -> int:
    folder = run.folder / "notebooks"
    timings_path = run.folder / "timings.json"
    timings = json.loads(timings_path.read_text()) if timings_path.exists() else {}
    state = f"{_code_state()} {solved}"
    for source in sources():
        state = hashlib.sha256((state + source.read_text(encoding="utf-8")).encode()).hexdigest()
        if not source.stem.startswith(only) or source.stem[:2] > last:
            continue
        executed, mark = folder / f"{source.stem}.ipynb", folder / f".{source.stem}.state"
        if executed.exists() and mark.exists() and mark.read_text() == state and not only:
            print(f"{source.stem}: reused, nothing it depends on has changed", flush=True)
        else:
            seconds = _execute(build(source, run.profile.name, solved=solved), executed)
            if seconds is None:
                return 1
            write_text(mark, state)
            timings[source.stem] = seconds
            write_text(timings_path, json.dumps(timings, indent=2) + "\n")
            print(f"{source.stem}: {seconds:.0f} s", flush=True)
        if keep:
            write_text(repository() / "notebooks" / f"{source.stem}.ipynb", executed.read_text(encoding="utf-8"))
    if keep:
        _ship(run)
    return 0


def _code_state() -> str:
    """A hash of everything a notebook may depend on besides its own source."""
    root = repository()
    digest = hashlib.sha256(sys.version.encode())
    code = ("guard_utils/**/*.py", "guard_utils/**/*.csv", "torchtune_configs/*.yaml", "pyproject.toml")
    for pattern in (*code, "notebooks/expected/*.toml", "notebooks/data/*.parquet", "notebooks/data/own/*"):
        for path in sorted(root.glob(pattern)):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def execute(notebook: Any) -> None:
    """Runs a notebook in place, in `notebooks/`, and cleans it, also where a cell fails.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    client = NotebookClient(
        notebook,
        timeout=None,
        startup_timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # else the moment of a flush decides where a stream is cut,
        iopub_timeout=600,  # and on a busy machine outputs that come 4 s late would be lost
        resources={"metadata": {"path": str(repository() / "notebooks")}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    try:
        client.execute()
    finally:
        clean(notebook)


def _execute(notebook: Any, executed: Path) -> float | None:
    """Runs a notebook and writes it; returns the seconds, or None where a cell failed."""
    print(f"{executed.stem}: running ...", flush=True)
    start = time.perf_counter()
    try:
        execute(notebook)
    except CellExecutionError as error:
        print(f"{executed.stem}: failed\n{error}", flush=True)
        return None
    finally:
        write_text(executed, nbformat.writes(notebook) + "\n")
    return time.perf_counter() - start


def _ship(run: Run) -> None:
    """Copies what readers begin with who have run nothing: every table of predictions, and the figure of the README."""
    place = repository() / "notebooks"
    shelf = place / "predictions" / run.profile.name
    for table in sorted((run.folder / "predictions").glob("[!.]*")):
        write_whole(shelf / table.name, partial(shutil.copyfile, table))
    for ending in (".png", ".alt.txt"):
        figure = run.folder / "figures" / f"04-systems{ending}"
        if figure.exists():
            write_whole(place / "figures" / f"scores{ending}", partial(shutil.copyfile, figure))


def main() -> int:
    """Command line; see the top of this file."""
    parser = argparse.ArgumentParser(description="Builds and runs the notebooks.")
    parser.add_argument("command", choices=["run"])
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--only", default="", metavar="NN", help="run one notebook, whether it changed or not")
    parser.add_argument("--last", default="99", metavar="NN", help="stop after this one")
    parser.add_argument("--keep", action="store_true", help="write the executed notebooks to notebooks/ as well")
    parser.add_argument("--solved", action="store_true", help="fill in the solutions of the exercises, as tests do")
    given = parser.parse_args()
    return run_all(given.profile, only=given.only, last=given.last, keep=given.keep, solved=given.solved)


if __name__ == "__main__":
    sys.exit(main())
