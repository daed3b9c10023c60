"""Expected results, and the tables and cards made of run records.

`expect` compares a number with `expected/<profile>.toml`, `attempt` checks an answer to an exercise, `run_card` ends a
notebook, and `python -m guard_utils.report laptop` prints everything a run has measured. Records are written by
`record` in `records`, which can be imported from here.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import os
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from guard_utils.profiles import ProfileError, repository
from guard_utils.records import Interval, Record, check_name, intervals_of, load_records, record, versions

__all__ = [
    "Card",
    "Interval",
    "Record",
    "attempt",
    "expect",
    "headline_table",
    "intervals_of",
    "load_records",
    "main",
    "record",
    "run_card",
    "versions",
]

STRICT = "GUARD_STRICT"
"""Environment variable; at 1, `expect` raises where it would warn, as tests want it."""
GREEN, AMBER = "#1b7f4d", "#b36b00"


def headline_table(folder: Path | str) -> pd.DataFrame:
    """Tabulates every recorded number of a profile.

    Returns:
        One row a number, sorted by result: `result, metric, score` (text), `value, low, high` (NaN without interval),
        `n, model`.

    Raises:
        FileNotFoundError: There is no record yet.
        ValueError: A file is no record.
    """
    rows = []
    for found in load_records(folder):
        for metric, number in found.values.items():
            cell = number if isinstance(number, Interval) else Interval(number, math.nan, math.nan)
            score = f"{number:.3f}" if isinstance(number, float) and not math.isnan(number) else str(cell)
            row = {"result": found.name, "metric": metric, "score": score, **asdict(cell)}
            rows.append(row | {"n": found.n, "model": found.model})
    return pd.DataFrame(rows)


def expect(profile: str, name: str, metric: str, value: float | Interval) -> bool:
    """Compares a number with its expected result and says so in one line: green, or amber outside the tolerance.

    Expected results stand in `expected/<profile>.toml` at the root of the repository, which `published` writes: a table
    `[name.metric]` each with `value`, `tolerance` and `n`, the number of prompts, at least. Where there is none, the
    line says so, which is fine.

    Args:
        profile: Profile of the run.
        name: Name of the result, as in its record.
        metric: Its metric.
        value: What this run measured.

    Returns:
        Whether the number is within the tolerance, or has no expected result yet.

    Raises:
        AssertionError: Outside the tolerance or without expected result, while the environment has `GUARD_STRICT=1`.
        ValueError: The file or the entry is faulty.
    """
    for key, what in ((profile, "profile"), (name, "result"), (metric, "metric")):
        check_name(key, what)
    number = value.value if isinstance(value, Interval) else float(value)
    entry = _expected(repository() / "notebooks" / "expected" / f"{profile}.toml", name, metric)
    line = f"{name} {metric} {value:.3f}"
    if entry is None:
        good, known, line = True, False, f"{line}: no expected value yet"
    else:
        # The last digit of a sum may differ between machines; NaN is never near anything.
        good, known = abs(number - entry["value"]) <= entry["tolerance"] + 1e-12, True
        line += f", expected {entry['value']:.3f} ± {entry['tolerance']:.3f} (n={entry['n']:.0f})"
        line += "" if good else ": outside the tolerance"
    if os.environ.get(STRICT) == "1" and not (good and known):
        raise AssertionError(line)
    fine = good and known
    _show(f"{'✓' if fine else '!'} {line}", color=GREEN if fine else AMBER)
    return good


def _expected(file: Path, name: str, metric: str) -> dict[str, float] | None:
    """Reads one entry, None where there is no file or entry."""
    if not file.is_file():
        return None
    place = f"[{name}.{metric}] of expected/{file.name}"
    try:
        entry = tomllib.loads(file.read_text(encoding="utf-8")).get(name, {}).get(metric)
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        raise ValueError(f"expected/{file.name} can't be read: {error}") from error
    if entry is None:
        return None
    keys = {"value", "tolerance", "n"}
    if not isinstance(entry, dict) or not keys <= set(entry) or not {type(v) for v in entry.values()} <= {int, float}:
        raise ValueError(f"{place} is {entry}; give it the numbers value, tolerance and n")
    return entry


@contextmanager
def attempt(answer: Any) -> Iterator[None]:
    """Checks an answer to an exercise: the block says ✓ where it runs through, and its first complaint where it fails.

    Args:
        answer: What the reader filled in; `...` as long as nothing is.
    """
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        reason = "put your answer in the place of the dots above" if answer is ... else reason
        _show(f"! not yet: {reason}", color=AMBER)
    else:
        _show("✓ right", color=GREEN)


def _show(line: str, *, color: str) -> None:
    """Prints a line; in a notebook, in colour."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or not hasattr(shell, "kernel"):
        print(line)
        return
    from IPython.display import display

    markup = f'<div style="color:{color};font-weight:600">{html.escape(line)}</div>'
    display({"text/plain": line, "text/html": markup}, raw=True)


@dataclass(frozen=True)
class Card:
    """What a notebook's numbers come from, shown as a small table, or as lines of text.

    Attributes:
        rows: Name to value, as text.
    """

    rows: dict[str, str]

    def __str__(self) -> str:
        width = max(map(len, self.rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.rows.items())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        pairs = ((html.escape(name), html.escape(value)) for name, value in self.rows.items())
        cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in pairs)
        return f'<table style="font-size:smaller"><caption>Run card</caption>{cells}</table>'


def run_card(
    *, profile: str, n: int, seed: int, model: str, data_hash: str, config_hash: str, **more: str | int | float
) -> Card:
    """Makes the card that ends a notebook: where its numbers come from.

    Args:
        profile: Profile of the run.
        n: Prompts measured.
        seed: Of the run.
        model: Name of the model, with its revision where it has one.
        data_hash: Hash of the data; its first 12 characters are shown.
        config_hash: Hash of the configuration, likewise.
        more: Further rows.
    """
    facts = {"profile": profile, "model": model, "n": f"{n:,}", "seed": seed}
    facts |= {"data": data_hash[:12], "config": config_hash[:12], **more}
    facts["versions"] = " · ".join(f"{name} {version}" for name, version in versions().items())
    return Card({name: str(value) for name, value in facts.items()})


def _timings(file: Path) -> list[str]:
    """Lines that tell how long each notebook took."""
    if not file.is_file():
        return [f"No {file.name} yet: the notebooks have not been run in order."]
    try:
        seconds: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON ({error}); delete it, the next run writes it anew") from error
    width = max(map(len, ["total", *seconds]))
    rows = [*sorted(seconds.items()), ("total", sum(seconds.values()))]
    return [f"{name:<{width}}  {took / 60:6.1f} min" for name, took in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints every number of a profile, where its figures are, and how long each notebook took.

    Args:
        arguments: Of the command line; those of the process if left out.

    Returns:
        Exit status: 1 where there is nothing to report, and the reason stands on standard error.
    """
    parser = argparse.ArgumentParser(prog="python -m guard_utils.report", description="What a run has measured.")
    parser.add_argument("profile", help="such as laptop")
    profile = parser.parse_args(arguments).profile
    try:
        folder = Path(os.environ.get("GUARD_ARTIFACTS") or repository() / "artifacts") / profile
        table = headline_table(folder)[["result", "metric", "score", "n", "model"]]
        timings = _timings(folder / "timings.json")
    except (FileNotFoundError, ValueError, ProfileError) as error:
        print(error, file=sys.stderr)
        return 1
    figures = len(list((folder / "figures").glob("*.png")))
    print(table.to_string(index=False, justify="left"))
    print(f"\n{figures} figures in {os.path.relpath(folder / 'figures')}\n", *timings, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
