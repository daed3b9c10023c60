"""Run records: what a run measured, whether it is what the series promises, and the card that ends a notebook.

A record is one JSON file a result under `artifacts/<profile>/records/`, without date or path, so that two runs can be
compared byte for byte. This file computes no score; `tools/publish.py` writes the promises.
"""

import hashlib
import json
import math
import os
import platform
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import cpu_count

import guard_utils
from guard_utils.data.rows import HUB_REVISIONS
from guard_utils.files import write_text
from guard_utils.policy import PII, require_list
from guard_utils.profiles import EMBEDDED, Run, repository

PACKAGES = ("torch", "torchtune", "transformers", "datasets", "scikit-learn")


@dataclass(frozen=True)
class Interval:
    """A score and its bounds, which a plain number lacks: NaN. Prints as `0.912 [0.899, 0.924]` or `0.912`."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not measured"
        return f"{self.value:.3f}" + ("" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]")


def intervals_of(table: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Interval]:
    """Picks metrics of a `bootstrap` table (columns `metric, value, low, high`) as values for `record`."""
    require_list(metrics, "metrics")
    rows = table.set_index("metric")[["value", "low", "high"]]
    return {metric: Interval(*(float(number) for number in rows.loc[metric])) for metric in metrics}


@dataclass(frozen=True)
class Record:
    """One named result of a run: scores, measured on `n` prompts, what decides them, and cores and versions used."""

    profile: str
    name: str
    values: Mapping[str, Interval]
    n: int
    seed: int
    model: str
    config: str
    data: str
    cores: int
    versions: Mapping[str, str]
    extra: Mapping[str, Any]


def machine() -> dict[str, Any]:
    """Returns `cores`, and `versions` of Python, this package and the packages that decide the numbers."""
    own = {"python": platform.python_version(), "guard_utils": guard_utils.__version__}
    return {"cores": cpu_count(), "versions": own | {name: metadata.version(name) for name in PACKAGES}}


def hashes(run: Run) -> dict[str, str]:
    """SHA-256 of the run's `config`, and of its `data` where they are embedded; of the hub's, both `name@revision`."""
    config = hashlib.sha256(run.config_path.read_bytes()).hexdigest()
    data, own = hashlib.sha256(), run.profile.own_files
    if run.profile.train_data != EMBEDDED and not own:
        names = (run.profile.train_data, run.profile.test_data)
        return {"config": config, "data": " ".join(f"{name}@{HUB_REVISIONS[name]}" for name in names)}
    for path in [*sorted((repository() / "notebooks" / "data").glob("*.parquet")), *own]:
        data.update(path.name.encode() + path.read_bytes())
    return {"config": config, "data": data.hexdigest()}


def record(
    run: Run,
    name: str,
    values: Mapping[str, float | Interval],
    n: int,
    *,
    model: str | None = None,
    made_on: Mapping[str, Any] | None = None,
    **extra: Any,
) -> Record:
    """Writes a result to `records/<name>.json` of the run, whole or not at all; an older one is replaced.

    Args:
        run: Whose profile, seed, config and data decide the result.
        name: Letters, digits, `_` and `-`, as each metric's.
        values: At least one metric to number or `Interval`.
        n: Prompts measured.
        model: Name of the model or system; the profile's model if left out.
        made_on: `machine()` where the numbers were made, if that is not here and now.
        extra: Whatever else decides the numbers, as JSON without a path of this machine.
    """
    for key in (name, *values):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
            raise ValueError(f"{key!r} names a file or a TOML key; use letters, digits, '_' and '-' only")
    if not values or n < 1:
        raise ValueError(f"result {name!r} has {len(values)} values on {n} prompts; record at least one of each")
    scores = {key: score if isinstance(score, Interval) else Interval(float(score)) for key, score in values.items()}
    facts = hashes(run) | dict(made_on or machine())
    made = Record(run.profile.name, name, scores, int(n), run.seed, model or run.profile.model, **facts, extra=extra)
    # NaN is no JSON and left out.
    cells = {key: {k: x for k, x in asdict(score).items() if not math.isnan(x)} for key, score in scores.items()}
    text = json.dumps(vars(made) | {"values": cells}, indent=2, allow_nan=False, ensure_ascii=False)
    if path := re.search(r'"/.*?"', text):
        raise ValueError(f"result {name!r} holds the path {path[0]}, which no other machine has; give a name or a hash")
    write_text(run.folder / "records" / f"{name}.json", f"{text}\n")
    return made


def load_records(folder: Path | str) -> list[Record]:
    """Reads the records of a run's folder, sorted by name; raises FileNotFoundError where there is none yet."""
    records, folder = [], Path(folder) / "records"
    for file in sorted(folder.glob("*.json")):
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            values = {metric: Interval(**{"value": math.nan} | cell) for metric, cell in fields["values"].items()}
            records.append(Record(**fields | {"values": values}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is no run record ({error}); delete it and run its notebook again") from error
    if not records:
        raise FileNotFoundError(f"no records in {folder}; the notebooks write them, run them first")
    return records


def expect(run: Run, name: str, *metrics: str) -> bool:
    """Compares a record with `notebooks/expected/<profile>.toml`, a line per metric: ✓ within the tolerance, else !.

    All promised metrics are compared, if none is named; one that was not recorded is out of tolerance. Returns False
    where a number is; where `GUARD_STRICT=1` is set, a line without ✓ is an AssertionError.
    """
    scores = {item.name: item.values for item in load_records(run.folder)}[name]
    file = repository() / "notebooks" / "expected" / f"{run.profile.name}.toml"
    promised = tomllib.loads(file.read_text(encoding="utf-8")).get(name, {}) if file.is_file() else {}
    missed = 0
    for metric in metrics or [key for key in promised if key != "model"] or scores:
        score, promise, good = scores.get(metric, Interval(math.nan)), promised.get(metric), False
        told = "no expected value yet"
        if promise:
            # The last digit of a sum may differ between machines; NaN is never near anything.
            good = abs(score.value - promise["value"]) <= promise["tolerance"] + 1e-12
            missed += not good
            told = f"expected {promise['value']:.3f} ± {promise['tolerance']:.3f} (n={promise['n']})"
        line = f"{name} {metric} {score}, {told}{': outside the tolerance' if promise and not good else ''}"
        if not good and os.environ.get("GUARD_STRICT") == "1":
            raise AssertionError(line)
        print(f"{'✓' if good else '!'} {line}")
    return not missed


@contextmanager
def attempt(answer: Any) -> Iterator[None]:
    """Checks an exercise: the block says ✓ where it runs through, else its first complaint; `...` is no answer yet."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        print(f"! not yet: {'put your answer in the place of the dots above' if answer is ... else reason}")
    else:
        print("✓ right")


def _left_out(lines: list[str]) -> list[str]:
    left_out = ["print('left out: this cell is about the five categories of the series')\n"]
    return left_out if "".join(lines).startswith("# Reference only") else lines


def skip_reference_cells(run: Run) -> None:
    """Where a notebook's policy is your own, lets cells that begin with `# Reference only` say that they do nothing."""
    from IPython import get_ipython

    transformers = getattr(get_ipython(), "input_transformers_cleanup", [])  # a plain script has none
    transformers[:] = [each for each in transformers if each is not _left_out] + [_left_out] * (run.policy != PII)


class Card(str):
    """A text that a notebook shows as it is, line by line."""

    __repr__ = str.__str__


def run_card(run: Run, n: int, **more: str | int | float) -> Card:
    """Makes the card that ends a notebook on `n` prompts; `more` adds rows, or replaces one such as `model`."""
    facts = {"profile": run.profile.name, "model": run.profile.model, "n": f"{n:,}", "seed": str(run.seed)}
    facts |= hashes(run) | {name: str(value) for name, value in more.items()}
    facts["versions"] = " · ".join(f"{name} {version}" for name, version in machine()["versions"].items())
    width = max(map(len, facts))
    # Of a hash, 12 characters are shown.
    texts = {name: re.sub(r"^(\w{12})\w{52}$", r"\1", value) for name, value in facts.items()}
    return Card("\n".join(f"{name:<{width}}  {text}" for name, text in texts.items()))
