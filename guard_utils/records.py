"""Run records: what was measured, on how many prompts, with which model, seed and versions.

A number in prose comes from a record: one JSON file a result under `artifacts/<profile>/records/`. It holds no date and
no path, so that two runs can be compared byte for byte.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

import guard_utils
from guard_utils.files import write_text

PACKAGES = ("torch", "torchtune", "transformers", "datasets", "scikit-learn")
NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Interval:
    """A score and its interval; `str` gives `0.912 [0.899, 0.924]`, and a format spec applies to each number.

    Attributes:
        value: The score; NaN where nothing was measured.
        low: Lower bound.
        high: Upper bound.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"interval [{self.low}, {self.high}] is upside down; pass low before high")

    def __format__(self, spec: str) -> str:
        if math.isnan(self.value):
            return "not measured"
        value, low, high = (format(number, spec or ".3f") for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)


@dataclass(frozen=True)
class Record:
    """One named result of a run.

    Attributes:
        profile: Profile of the run.
        name: Name of the result, unique in the profile.
        values: Metric to number, or number with interval.
        n: Prompts measured.
        seed: Of the run.
        model: Name of the model or system.
        revision: Of the model, where it has one.
        versions: Package to version.
        extra: Whatever else decides the numbers, such as data and config hashes.
    """

    profile: str
    name: str
    values: Mapping[str, float | Interval]
    n: int
    seed: int
    model: str
    revision: str | None
    versions: Mapping[str, str]
    extra: Mapping[str, Any]


def check_name(name: str, what: str) -> None:
    """Checks a name that becomes a file name and a TOML key.

    Raises:
        ValueError: It has other characters than letters, digits, `_` and `-`.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} name {name!r} may hold letters, digits, '_' and '-' only, for it becomes a file name")


def versions() -> dict[str, str]:
    """Returns the versions of Python, this package and the packages that decide the numbers."""
    found = {"python": platform.python_version(), "guard_utils": guard_utils.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_benchmark(figures: Mapping[str, Any], output: Path | None) -> None:
    """Prints a benchmark's figures as JSON with the machine they were taken on, and writes them where asked."""
    cpu = re.search(r"model name\s*: (.*)", _text(Path("/proc/cpuinfo")))
    machine = {
        "platform": platform.platform(),
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": os.cpu_count(),
    }
    text = json.dumps(dict(figures) | {"machine": machine, "versions": versions()}, indent=2)
    print(text)
    if output is not None:
        write_text(output, text + "\n")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _no_paths(value: Any, place: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _no_paths(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for item in value:
            _no_paths(item, place)
    elif isinstance(value, PurePath) or (isinstance(value, str) and PurePath(value).is_absolute()):
        raise ValueError(f"{place} is the path {str(value)!r}, which no other machine has; give a name or a hash")


def _number(value: float) -> float | None:
    """NaN is no JSON: null stands for it."""
    return None if math.isnan(value) else float(value)


def record(
    path: Path | str,
    *,
    profile: str,
    name: str,
    values: Mapping[str, float | Interval],
    n: int,
    seed: int,
    model: str,
    revision: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Record:
    """Writes a result to `<path>/records/<name>.json`, whole or not at all; an older one of that name is replaced.

    Args:
        path: Artifacts folder of the profile, `artifacts/<profile>`.
        profile: Profile of the run.
        name: Name of the result: letters, digits, `_` and `-`.
        values: Metric to number or `Interval`; `intervals_of` makes them of a bootstrap table.
        n: Prompts measured.
        seed: Of the run.
        model: Name of the model or system.
        revision: Of the model.
        extra: Hashes of data and config, and whatever else decides the numbers; must be JSON.

    Raises:
        ValueError: A faulty name, no value, an infinite one, no prompt, or a path of this machine.
    """
    check_name(name, "result")
    for metric in values:
        check_name(metric, "metric")
    if not values or n < 1:
        raise ValueError(f"result {name!r} has {len(values)} values on {n} prompts; record at least one of each")
    made = Record(profile, name, dict(values), int(n), int(seed), model, revision, versions(), dict(extra or {}))
    _no_paths({"model": model, "revision": revision, "extra": made.extra}, name)
    cells = {
        metric: {key: _number(number) for key, number in asdict(value).items()}
        if isinstance(value, Interval)
        else {"value": _number(value)}
        for metric, value in values.items()
    }
    try:
        text = json.dumps(vars(made) | {"values": cells}, indent=2, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"result {name!r} can't be written as JSON: {error}; pass plain finite numbers") from error
    write_text(Path(path) / "records" / f"{name}.json", f"{text}\n")
    return made


def intervals_of(table: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Interval]:
    """Picks metrics of a `bootstrap` table (columns `metric, value, low, high`) as values for `record`.

    Raises:
        ValueError: The table has no such metric.
    """
    rows = table.set_index("metric")[["value", "low", "high"]]
    missing = [metric for metric in metrics if metric not in rows.index]
    if missing:
        raise ValueError(f"the table has no metrics {missing}; it has {', '.join(rows.index)}")
    return {metric: Interval(*(float(number) for number in rows.loc[metric])) for metric in metrics}


def load_records(folder: Path | str) -> list[Record]:
    """Reads the records of a profile, sorted by name.

    Args:
        folder: Artifacts folder of the profile.

    Raises:
        FileNotFoundError: There is none yet.
        ValueError: A file is no record.
    """
    files = sorted((Path(folder) / "records").glob("*.json"))
    if not files:
        raise FileNotFoundError(f"no records in {Path(folder) / 'records'}; the notebooks write them, run them first")
    records = []
    for file in files:
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            cells = {metric: _read(cell) for metric, cell in fields["values"].items()}
            records.append(Record(**fields | {"values": cells}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is no run record ({error}); delete it and run its notebook again") from error
    return records


def _read(cell: Mapping[str, float | None]) -> float | Interval:
    numbers = {key: math.nan if number is None else float(number) for key, number in cell.items()}
    return numbers["value"] if len(numbers) == 1 else Interval(**numbers)
