"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Lets `write` fill a file beside `path`, then renames it; a crash leaves the old file or none.

    Args:
        path: The file to be; its folder is made.
        write: Called with the path to write to.

    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """Writes a text file whole."""
    return write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """Writes a parquet file whole."""
    return write_whole(path, lambda beside: table.to_parquet(beside, index=False))


def read_table(path: Path, *, made_by: str) -> pd.DataFrame:
    """Reads a parquet file that an earlier notebook made; its lists come back as lists, its `attrs` as they were.

    Args:
        path: The file.
        made_by: The notebook that makes it, for the error.

    Raises:
        FileNotFoundError: The file is missing; names the notebook to run.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path.name} is missing from {path.parent}; run notebook {made_by} with this PROFILE first"
        )
    table = pd.read_parquet(path)
    arrays = [name for name in table.columns if len(table) and isinstance(table[name].iloc[0], np.ndarray)]
    return table.assign(**{name: [list(cell) for cell in table[name]] for name in arrays})
