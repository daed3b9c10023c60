"""What this machine can run, verdicts on texts and on files of them, and downloads.

    python -m guard_utils check [--profile guard-1b]
    python -m guard_utils verdict "Ask Carmen about 109.4.61.213" ["another text" ...]
    python -m guard_utils score texts.jsonl --output predictions.parquet [--shard 1/2]
    python -m guard_utils fetch --all

Does not: train (notebook 03), or decide what a profile needs (`guard_utils.profiles`).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pandas as pd
import psutil
from packaging.requirements import Requirement

from guard_utils.files import ASSETS, AssetError, fetch
from guard_utils.policy import require_list
from guard_utils.profiles import PROFILES, ProfileError, gpus, repository, resolve

DEFAULT = PROFILES["laptop"]
SUPPORTED = "use Linux, macOS (only fp32, about three times as long), or Windows through WSL"
Finding = tuple[bool, str]
"""Whether it is well, and what it is; where it is not, the fix follows."""


def findings() -> list[Finding]:
    """System, Python, packages, free memory, GPUs, and which profiles run with them."""
    free = psutil.virtual_memory().available / 1e9
    found = ", ".join(f"{name} ({size:.0f} GB)" for name, size in gpus()) or "none, and smoke and laptop need none"
    enough = free >= 0.9 * DEFAULT.memory_gb
    needs = f"training on laptop takes {DEFAULT.memory_gb}" + ("" if enough else ": close programs")
    return [
        (platform.system() != "Windows", f"{platform.system()}: {SUPPORTED}"),
        ((3, 11) <= sys.version_info[:2] < (3, 14), f"Python {platform.python_version()}: use 3.11 to 3.13"),
        _packages(),
        (enough, f"{free:.0f} GB of memory free, {needs}"),
        (True, f"GPU: {found}"),
        *(_profile(name) for name in PROFILES),
    ]


def _packages() -> Finding:
    text, faults = (repository() / "pyproject.toml").read_text(encoding="utf-8"), []
    for pin in map(Requirement, tomllib.loads(text)["project"]["dependencies"]):
        try:
            version = importlib.metadata.version(pin.name)
            if not pin.specifier.contains(version, prereleases=True):
                faults.append(f"{pin.name} {version} is not {pin.specifier}")
        except importlib.metadata.PackageNotFoundError:
            faults.append(f"{pin.name} is missing")
    if faults:
        return False, f"{', '.join(faults)}: run `pip install --editable .` in this environment"
    return True, f"torch {importlib.metadata.version('torch')} and the other packages are as pyproject.toml asks"


def _profile(name: str) -> Finding:
    try:
        run = resolve(name)
        return True, f"profile {name} on {run.device} in {run.dtype}"
    except ProfileError as error:
        return False, str(error).replace("\n", "\n       ")


def verdicts(texts: Sequence[str], profile: str = DEFAULT.name) -> pd.DataFrame:
    """Asks the guard of a profile; where there is none, its model as it is, which is no guard yet.

    Returns:
        A row per text: answer, probability of each category, and of no verdict at all.
    """
    require_list(texts, "texts")
    from guard_utils.scoring import load_guard

    run = resolve(profile)
    scores = load_guard(run, or_untrained=True).score(texts, progress=False)
    table = pd.DataFrame(scores.marginals, index=pd.Index(texts, name="text"), columns=list(run.policy.names.values()))
    table["no verdict"] = scores.outside
    table.insert(0, "verdict", [verdict.text.replace("\n", " ") for verdict in scores.best])
    return table.round(3)


class _Parser(argparse.ArgumentParser):
    """Ends with 1 where an argument is wrong: 2 is `score`'s word for bad rows."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.format_usage()}{message}\n")


def _shard(text: str) -> tuple[int, int]:
    numbers = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if not 1 <= shard[0] <= shard[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; the first of four is 1/4, the last 4/4")
    return shard


def _score(file: Path, output: Path, profile: str, shard: tuple[int, int]) -> int:
    """Scores a file and lists its bad rows; 0 where there is none, else 2."""
    from guard_utils.scoring.batch import score_file

    table = score_file(resolve(profile), file, output, shard=shard)
    bad = table[table["fault"] != ""]
    for number, fault in zip(bad["row"][:20], bad["fault"][:20], strict=True):
        print(f"row {number}: {fault}", file=sys.stderr)
    if len(bad) > 20:
        print(f"... and {len(bad) - 20:,} more, see column 'fault'", file=sys.stderr)
    print(f"{output}: {len(table):,} rows, {len(bad):,} of them not scored")
    return 2 if len(bad) else 0


def main() -> int:
    """Runs the command of the command line.

    Returns:
        1 where `check` says that the chosen profile can't run, 2 where `score` met bad rows, else 0.
    """
    parser = _Parser(prog="python -m guard_utils")
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="what this machine can run")
    checking.add_argument("--profile", default=DEFAULT.name, choices=PROFILES, help="decides the exit status")
    verdict = commands.add_parser("verdict", help="ask the guard about texts")
    verdict.add_argument("texts", metavar="TEXT", nargs="+")
    verdict.add_argument("--profile", default=DEFAULT.name)
    score = commands.add_parser("score", help="score a file of texts; the same command resumes what was cut off")
    score.add_argument("file", metavar="FILE", type=Path, help=".jsonl, .csv or .parquet with a column 'text'")
    score.add_argument("--output", type=Path, required=True, help="parquet file to write; each shard has its own")
    score.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="only the I-th of N parts")
    score.add_argument("--profile", default=DEFAULT.name)
    fetching = commands.add_parser("fetch", help=f"have assets in the cache: {', '.join([*ASSETS, 'smoke'])}")
    fetching.add_argument("names", metavar="NAME", nargs="*")
    fetching.add_argument("--all", action="store_true")
    options = parser.parse_args()
    if options.command == "check":
        for good, text in findings():
            print(f"[{'ok' if good else 'fail'}] {text}")
        return 0 if _profile(options.profile)[0] else 1
    if options.command == "score":
        return _score(options.file, options.output, options.profile, options.shard)
    if options.command == "verdict":
        for text, answer in verdicts(options.texts, options.profile).iterrows():
            print(f"\n{text}\n\n{answer.to_string()}")
    else:
        for name in [*ASSETS, "smoke"] if options.all else options.names or [DEFAULT.model]:
            print(f"{name}: {fetch(name)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (AssetError, OSError, ProfileError, ValueError) as error:
        sys.exit(f"{error}")
