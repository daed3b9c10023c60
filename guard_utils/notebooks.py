"""Builds the notebooks from their sources and runs them in order.

    python -m guard_utils.notebooks run --profile laptop          # what `make tutorial` does
    python -m guard_utils.notebooks run --profile laptop --keep   # what `make notebooks` does: also commits-to-be
    python -m guard_utils.notebooks run --profile smoke --only 03

A notebook whose source, code, configs and predecessors are those of its last run is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from guard_utils.files import write_text
from guard_utils.profiles import Run, repository, resolve


def sources() -> list[Path]:
    """The notebook sources in reading order."""
    return sorted((repository() / "notebooks" / "src").glob("[0-9][0-9]_*.py"))


def build(source: Path, profile: str) -> Any:
    """Makes a notebook without outputs.

    Args:
        source: A py:percent file.
        profile: Written into the cell tagged `parameters`.

    Returns:
        A notebook with stable cell ids.

    Raises:
        ValueError: Not exactly one cell is tagged `parameters`.
    """
    notebook = jupytext.read(source)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f'{source.name} has {len(tagged)} cells tagged "parameters"; give it one: PROFILE = "laptop"')
    tagged[0].source = f'PROFILE = "{profile}"'
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem[:2]}-{number:03d}"
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook


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


def run_all(profile: str, *, only: str = "", keep: bool = False) -> int:
    """Runs the notebooks of a profile in order and prints what happened to each.

    Args:
        profile: Name of a profile.
        only: Start of a notebook's name, to run just that one.
        keep: Whether to write the executed notebooks to `notebooks/` as well.

    Returns:
        0, or 1 if a notebook failed.
    """
    run = resolve(profile)
    folder = run.folder / "notebooks"
    timings_path = run.folder / "timings.json"
    timings = json.loads(timings_path.read_text()) if timings_path.exists() else {}
    state = _code_state()
    for source in sources():
        state = hashlib.sha256((state + source.read_text(encoding="utf-8")).encode()).hexdigest()
        if only and not source.stem.startswith(only):
            continue
        executed, mark = folder / f"{source.stem}.ipynb", folder / f".{source.stem}.state"
        if executed.exists() and mark.exists() and mark.read_text() == state and not only:
            print(f"{source.stem}: reused, nothing it depends on has changed", flush=True)
        else:
            seconds = _execute(source, run, executed)
            if seconds is None:
                return 1
            write_text(mark, state)
            timings[source.stem] = round(seconds, 1)
            write_text(timings_path, json.dumps(timings, indent=2) + "\n")
            print(f"{source.stem}: {seconds:.0f} s", flush=True)
        if keep:
            write_text(repository() / "notebooks" / f"{source.stem}.ipynb", executed.read_text(encoding="utf-8"))
    return 0


def _code_state() -> str:
    """A hash of everything a notebook may depend on besides its own source."""
    root = repository()
    digest = hashlib.sha256(sys.version.encode())
    for pattern in ("guard_utils/**/*.py", "guard_utils/data/**/*.t*", "torchtune_configs/*.yaml", "pyproject.toml"):
        for path in sorted(root.glob(pattern)):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _execute(source: Path, run: Run, executed: Path) -> float | None:
    print(f"{source.stem}: running ...", flush=True)
    notebook = build(source, run.profile.name)
    place = repository() / "notebooks"
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    start = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(place)}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"{source.stem}: failed\n{error}", flush=True)
        return None
    finally:
        write_text(executed, nbformat.writes(clean(notebook)) + "\n")
    return time.perf_counter() - start


def main() -> int:
    """Command line; see the top of this file."""
    parser = argparse.ArgumentParser(description="Builds and runs the notebooks.")
    parser.add_argument("command", choices=["run"])
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--only", default="", metavar="NN", help="run one notebook, whether it changed or not")
    parser.add_argument("--keep", action="store_true", help="write the executed notebooks to notebooks/ as well")
    arguments = parser.parse_args()
    return run_all(arguments.profile, only=arguments.only, keep=arguments.keep)


if __name__ == "__main__":
    sys.exit(main())
