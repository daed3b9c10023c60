"""House rules for notebooks: each takes a notebook and returns the faults it finds, in words.

`STATIC` rules read a notebook as it is built, `EXECUTED` rules read its outputs too. tests/test_notebook_lint.py breaks
each of them once.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import statistics
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from guard_utils.profiles import PROFILES, repository
from tools.notebooks import tagged

CLOSING = ["Take-aways", "Exercises", "Where to go next"]
# Quoted from the published tutorial; every other score is printed by code, from a record.
QUOTED = {"85.41", "80.02"}
SCORE = re.compile(r"(?<![\w.])(?:\d?\.\d+|\d\d\.\d+|\d+(?:\.\d+)?(?= ?%))(?![\w.]*\d)")
FILE_ENDINGS = (".py", ".md", ".yaml", ".yml", ".toml", ".ipynb", ".txt", ".json", ".jsonl", ".parquet", ".png")


def markdown(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def without_fences(text: str) -> str:
    return re.sub(r"(?s)```.*?```", "", text)


def headings(notebook: Any) -> list[str]:
    return [found for text in markdown(notebook) for found in re.findall(r"^## (.+)$", without_fences(text), re.M)]


def opening(notebook: Any) -> list[str]:
    first = notebook.cells[0].source
    words = ("What you will learn", "What you need", "Agenda", " profile", "minute", " GB")
    return [f"the opening block says nothing of {word.strip()!r}" for word in words if word not in first]


def agenda(notebook: Any) -> list[str]:
    found = re.findall(r"^\d+\. \[(.+?)\]\(#(.+?)\)$", notebook.cells[0].source, re.M)
    titles, heads = [title for title, _ in found], headings(notebook)
    faults = [f"the agenda says {titles}, the headings {heads}"] if titles != heads else []
    faults += [f"the agenda links {title!r} to #{to}" for title, to in found if to != title.replace(" ", "-")]
    return faults + ([f"the last headings are {heads[-3:]}, not {CLOSING}"] if heads[-3:] != CLOSING else [])


def lengths(notebook: Any) -> list[str]:
    lines = [len(cell.source.splitlines()) for cell in code(notebook)]
    faults = [f"a cell of {n} lines: {c.source[:50]!r}" for n, c in zip(lines, code(notebook), strict=True) if n > 25]
    return faults + ([f"the median cell has {median} lines"] if (median := statistics.median(lines)) > 6 else [])


def rhythm(notebook: Any) -> list[str]:
    kinds = [cell.cell_type for cell in notebook.cells]
    runs = [i for i in range(len(kinds) - 2) if kinds[i : i + 3] == ["code"] * 3]
    return [f"three code cells without a word between them, from {notebook.cells[i].source[:50]!r}" for i in runs]


def typed_scores(notebook: Any) -> list[str]:
    return [f"a score typed by hand: {found}" for text in markdown(notebook) for found in scores_in(text)]


def scores_in(text: str) -> Iterator[str]:
    prose = re.sub(r"`[^`]*`|95 % (bootstrap )?interval|Python [\d.]+( to [\d.]+)?", "", without_fences(text))
    return (found for found in SCORE.findall(prose) if found not in QUOTED)


def definitions(notebook: Any) -> list[tuple[str, int]]:
    """Names and lengths of the functions and classes in code cells."""
    trees = (ast.parse(cell.source) for cell in code(notebook))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]
    return [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in nodes]


def long_definitions(notebook: Any) -> list[str]:
    return [
        f"{name} has {length} lines; it belongs in guard_utils" for name, length in definitions(notebook) if length > 10
    ]


def repeated_definitions(notebooks: Iterable[Any]) -> list[str]:
    names = [name for notebook in notebooks for name in {name for name, _ in definitions(notebook)}]
    return [f"{name} is defined in several notebooks" for name in sorted({n for n in names if names.count(n) > 1})]


def exercises(notebook: Any) -> list[str]:
    tags = [tag for cell in notebook.cells for tag in ("exercise", "check", "solution") if tagged(cell, tag)]
    faults = [f"the exercises' cells are {tags}"] if tags != ["exercise", "check", "solution"] * 3 else []
    after = "\n".join(markdown(notebook)).partition("\n## Exercises\n")[2]
    named = re.findall(r"^\*\*(\S+?)\.\*\* ", after, re.M)
    faults += [f"the exercises are {named}"] if named != ["Warm-up", "Core", "Stretch"] else []
    faults += [
        f"a stub without dots: {c.source[:50]!r}"
        for c in code(notebook)
        if tagged(c, "exercise") and "..." not in c.source
    ]
    checks = [cell for cell in code(notebook) if tagged(cell, "check")]
    return faults + [f"a check without attempt: {c.source[:50]!r}" for c in checks if "with attempt(" not in c.source]


def references(notebook: Any) -> list[str]:
    place = repository() / "notebooks"
    heads = {head.replace(" ", "-") for head in headings(notebook)}
    return [fault for text in markdown(notebook) for fault in missing(without_fences(text), place, heads)]


def missing(text: str, place: Path, heads: set[str]) -> list[str]:
    """What a text names and nobody has: links, files, modules, flags, profiles, notebooks.

    Args:
        text: Markdown without fenced code.
        place: Folder that links are relative to.
        heads: Anchors of the document's own headings.
    """
    faults = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if not re.match(r"https?:", target) and (
            (path and not (place / path).exists()) or (not path and anchor not in heads)
        ):
            faults.append(f"a link to {target}")
    prose = re.sub(r"\]\([^)\s]+\)", "]", text)
    faults += [f"notebook {n}" for n in re.findall(r"(?<![\w/.:-])0\d(?![\w/:-]|\.\d)", prose) if not _notebook(n)]
    return faults + [f"`{token}`" for token in re.findall(r"`([^`\n]+)`", prose) if not _exists(token)]


def _notebook(number: str) -> bool:
    return bool(list((repository() / "notebooks" / "src").glob(f"{number}_*.py")))


def _exists(token: str) -> bool:
    if command := re.search(r"python -m ([\w.]+)(.*)", token):
        module = importlib.util.find_spec(command[1])
        text = Path(module.origin).read_text(encoding="utf-8") if module and module.origin else ""
        profiles = re.findall(r"--profile ([\w-]+)", command[2])
        return (
            bool(module)
            and all(f'"{flag}"' in text for flag in re.findall(r"--[\w-]+", command[2]))
            and {*profiles} <= {*PROFILES}
        )
    if target := re.match(r"make ([a-z]+)", token):
        return bool(re.search(rf"^{target[1]}:", (repository() / "Makefile").read_text(encoding="utf-8"), re.M))
    if profile := re.fullmatch(r"PROFILE = ['\"](.*)['\"]|(guard-\w[\w-]*)", token):
        return (profile[1] or profile[2]) in PROFILES
    if re.fullmatch(r"guard_utils(\.\w+)+", token):
        return _importable(token)
    if (
        re.fullmatch(r"[\w./-]+", token)
        and ("/" in token or token.endswith(FILE_ENDINGS))
        and not token.startswith(".venv")
    ):
        return any((root / token).exists() for root in (repository(), repository() / "notebooks")) or _made(token)
    return True


def _importable(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return hasattr(importlib.import_module(module), attribute)


def _made(name: str) -> bool:
    """Whether code writes or fetches it: artifacts and assets stand in no checkout."""
    rooms = [
        *repository().glob("guard_utils/*.py"),
        *repository().glob("notebooks/src/*.py"),
        repository() / ".gitignore",
    ]
    lines = (line for room in rooms for line in room.read_text(encoding="utf-8").splitlines())
    return any(name in line for line in lines if not line.startswith("# "))


def outputs(notebook: Any) -> Iterator[tuple[Any, Any]]:
    return ((cell, output) for cell in code(notebook) for output in cell.get("outputs", []))


def told(output: Any) -> str:
    """The text of an output."""
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


def ran(notebook: Any) -> list[str]:
    counts = [cell.execution_count for cell in code(notebook)]
    faults = [f"cells ran in the order {counts}"] if counts != list(range(1, len(counts) + 1)) else []
    return faults + [
        f"{output.ename} in {c.source[:50]!r}" for c, output in outputs(notebook) if output.output_type == "error"
    ]


def alt_texts(notebook: Any) -> list[str]:
    pictures = [(c, out) for c, out in outputs(notebook) if "image/png" in out.get("data", {})]
    bare = [c for c, out in pictures if not out.metadata.get("image/png", {}).get("alt", "").strip()]
    faults = [f"a figure without alt text from {cell.source[-60:]!r}" for cell in bare]
    return faults + [
        f"an image without alt text: {found}" for t in markdown(notebook) for found in re.findall(r"!\[\s*\]\(.*?\)", t)
    ]


TRACES = {
    "a machine's path": r"/(?:home|root|work|tmp|Users)/\w",
    "an object's address": r" at 0x[0-9a-f]{6}",
    "a time": r"\d{4}-\d\d-\d\dT\d\d:",
    "a random id of a styled table": r"#T_[0-9a-f]{5}",
}


def traces(notebook: Any) -> list[str]:
    said = [
        (c, str(text)) for c, out in outputs(notebook) for text in (out.get("text", ""), *out.get("data", {}).values())
    ]
    return [
        f"{what} from {c.source[-60:]!r}" for c, text in said for what, sign in TRACES.items() if re.search(sign, text)
    ]


def marks(notebook: Any) -> list[str]:
    """The first character of each exercise's check: ✓ or !."""
    return [told(output)[:1] for cell, output in outputs(notebook) if tagged(cell, "check")]


def stubs_fail(notebook: Any) -> list[str]:
    return [f"the checks of the stubs say {marks(notebook)}"] if marks(notebook) != ["!"] * 3 else []


def solutions_pass(notebook: Any) -> list[str]:
    """For a notebook that was built with its solutions."""
    wrong = [
        f"{told(output)} from {c.source[:60]!r}"
        for c, output in outputs(notebook)
        if tagged(c, "check") and told(output)[:1] != "✓"
    ]
    return wrong or ([] if len(marks(notebook)) == 3 else ["there are not three checks"])


def drift(notebook: Any) -> list[str]:
    """Compares what `expect` printed with the expected results of today."""
    faults = []
    for profile in {match for c in code(notebook) for match in re.findall(r'^PROFILE = "(.*)"', c.source)}:
        file = repository() / "notebooks" / "expected" / f"{profile}.toml"
        promised = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        lines = [line for _, output in outputs(notebook) for line in told(output).splitlines()]
        for mark, name, metric, value in (
            m.groups() for m in map(re.compile(r"([✓!]) ([\w-]+) (\w+) ([\d.]+)").match, lines) if m
        ):
            entry = promised.get(name, {}).get(metric)
            if promised and (
                entry is None or abs(float(value) - entry["value"]) > entry["tolerance"] + 5e-4 or mark == "!"
            ):
                faults.append(f"{name} {metric} is {value}, expected {entry}")
    return faults


def card(notebook: Any) -> dict[str, str]:
    """The run card's rows; empty where there is none."""
    texts = [told(output) for _, output in outputs(notebook) if told(output).startswith("profile ")]
    return dict(line.split(maxsplit=1) for line in texts[-1].splitlines()) if texts else {}


def has_card(notebook: Any) -> list[str]:
    lacking = {"profile", "model", "seed", "data", "config", "versions"} - set(card(notebook))
    return [f"the run card lacks {sorted(lacking)}"] if lacking else []


def other_source(notebook: Any, fresh: Any) -> list[str]:
    """Cells that are not those of the source as it is now."""
    pairs = [[(cell.id, cell.cell_type, cell.source) for cell in each.cells] for each in (notebook, fresh)]
    return [f"cell {a[0]} differs: {a[2][:50]!r}" for a, b in zip(*pairs, strict=False) if a != b] or (
        [f"{len(pairs[0])} cells, the source has {len(pairs[1])}"] if len(pairs[0]) != len(pairs[1]) else []
    )


def stale(notebook: Any, again: Any) -> list[str]:
    """Cells whose outputs another run does not repeat. Pixels are left out: another machine has other fonts."""

    def said(cell: Any) -> list[Any]:
        shown = [(out.output_type, out.get("text"), dict(out.get("data", {}))) for out in cell.outputs]
        return [
            (kind, text, {key: value for key, value in data.items() if key != "image/png"})
            for kind, text, data in shown
        ]

    pairs = zip(code(notebook), code(again), strict=True)
    return [f"the output of cell {a.id} is stale: {a.source[-60:]!r}" for a, b in pairs if said(a) != said(b)]


STATIC = (opening, agenda, lengths, rhythm, typed_scores, long_definitions, exercises, references)
EXECUTED = (ran, alt_texts, traces, stubs_fail, drift, has_card)
