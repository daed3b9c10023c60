"""House rules for notebooks: each takes a notebook and returns the faults it finds, in words.

`STATIC` rules read a notebook as it is built, `EXECUTED` rules read its outputs too. test_notebook_lint.py breaks each
of them. No rule judges whether a sentence is true.
"""

import ast
import pkgutil
import re
import statistics
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from guard_utils.profiles import PROFILES, repository
from tools.notebooks import sources, tagged

SOURCES = sources()
ROOT = repository()
OPENING = ("What you will learn", "What you need", "Agenda", " profile", "minute", " GB")
CLOSING = ["Take-aways", "Exercises", "Where to go next"]
# Quoted from the published tutorial; every other score is printed by code, from a record.
QUOTED = {"85.41", "80.02"}
SCORE = re.compile(r"(?<![\w.])(?:\d?\.\d+|\d\d\.\d+|\d+(?:\.\d+)?(?= ?%))(?![\w.]*\d)")
NO_SCORE = re.compile(r"`[^`]*`|95 % (bootstrap )?interval|Python [\d.]+( to [\d.]+)?")
FILE_ENDINGS = (".py", ".md", ".yaml", ".yml", ".toml", ".ipynb", ".txt", ".json", ".jsonl", ".parquet", ".png")
# A machine's path, an object's address, a time (those of the corpus end with Z), the random id of a styled table.
TIME = r"\d{4}-\d\d-\d\dT\d\d:(?!\d\d:\d\d(?:\.\d+)?Z)"
TRACE = re.compile(rf"/(?:home|root|work|tmp|Users)/\w| at 0x[0-9a-f]{{6}}|{TIME}|#T_[0-9a-f]{{5}}")

# Of a figure's title, which its alt text holds.
COMPARING = re.compile(r"\b(ahead|beats?|best|better|gains?|highest|leads?|lowest|minus|than|worse)\b")


def without_fences(text: str) -> str:
    return re.sub(r"(?s)```.*?```", "", text)


def markdown(notebook: Any) -> list[str]:
    return [without_fences(cell.source) for cell in notebook.cells if cell.cell_type == "markdown"]


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def headings(notebook: Any) -> list[str]:
    return re.findall(r"^## (.+)$", "\n".join(markdown(notebook)), re.M)


def opening(notebook: Any) -> list[str]:
    return [f"the opening says nothing of {word.strip()!r}" for word in OPENING if word not in notebook.cells[0].source]


def agenda(notebook: Any) -> list[str]:
    heads = headings(notebook)
    links = re.findall(r"^\d+\. (\[.+?\]\(#.+?\))$", notebook.cells[0].source, re.M)
    right = [f"[{head}](#{head.replace(' ', '-')})" for head in heads]
    faults = [f"the agenda is {links}, the headings {heads}"] if links != right else []
    return faults + ([f"the last headings are {heads[-3:]}, not {CLOSING}"] if heads[-3:] != CLOSING else [])


def lengths(notebook: Any) -> list[str]:
    lines = [len(cell.source.splitlines()) for cell in code(notebook)]
    faults = [f"a cell of {count} lines" for count in lines if count > 25]
    return faults + ([f"the median cell has {statistics.median(lines)} lines"] if statistics.median(lines) > 6 else [])


def rhythm(notebook: Any) -> list[str]:
    kinds = [cell.cell_type for cell in notebook.cells]
    runs = [i for i in range(len(kinds) - 2) if kinds[i : i + 3] == ["code"] * 3]
    return [f"three code cells without a word between them, from {notebook.cells[i].source[:50]!r}" for i in runs]


def typed_scores(notebook: Any) -> list[str]:
    return [f"a score typed by hand: {found}" for text in markdown(notebook) for found in scores_in(text)]


def scores_in(text: str) -> list[str]:
    return [found for found in SCORE.findall(NO_SCORE.sub("", text)) if found not in QUOTED]


def definitions(notebook: Any) -> dict[str, int]:
    """Names and lengths of the functions and classes in code cells."""
    nodes = [node for cell in code(notebook) for node in ast.walk(ast.parse(cell.source))]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in nodes if isinstance(node, kinds)}


def long_definitions(notebook: Any) -> list[str]:
    found = definitions(notebook).items()
    return [f"{name} has {lines} lines; it belongs in guard_utils" for name, lines in found if lines > 10]


def repeated_definitions(notebooks: Iterable[Any]) -> list[str]:
    names = [name for notebook in notebooks for name in definitions(notebook)]
    return [f"{name} is defined in several notebooks" for name in sorted(set(names)) if names.count(name) > 1]


def exercises(notebook: Any) -> list[str]:
    tags = [tag for cell in notebook.cells for tag in ("exercise", "check", "solution") if tagged(cell, tag)]
    faults = [f"the exercises' cells are {tags}"] if tags != ["exercise", "check", "solution"] * 3 else []
    after = "\n".join(markdown(notebook)).partition("\n## Exercises\n")[2]
    named = re.findall(r"^\*\*(\S+?)\.\*\* ", after, re.M)
    faults += [f"the exercises are {named}"] if named != ["Warm-up", "Core", "Stretch"] else []
    for tag, needed in (("exercise", "..."), ("check", "with attempt(")):
        lacking = [cell for cell in code(notebook) if tagged(cell, tag) and needed not in cell.source]
        faults += [f"{tag} without {needed!r}: {cell.source[:50]!r}" for cell in lacking]
    return faults


def references(notebook: Any) -> list[str]:
    heads = {head.replace(" ", "-") for head in headings(notebook)}
    return [fault for text in markdown(notebook) for fault in missing(text, ROOT / "notebooks", heads)]


def missing(text: str, place: Path, heads: set[str]) -> list[str]:
    """What a text names and nobody has: links, files, modules, flags, profiles, notebooks.

    Args:
        text: Markdown without fenced code.
        place: Folder that links are relative to.
        heads: Anchors of the document's own headings.
    """
    faults = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if not (place / path).exists() if path else anchor not in heads:
            faults.append(f"a link to {target}")
    prose = re.sub(r"\]\([^)\s]+\)", "]", text)
    for number in re.findall(r"(?<![\w/.:-])0\d(?![\w/:-]|\.\d)", prose):
        if not list(ROOT.glob(f"notebooks/src/{number}_*.py")):
            faults.append(f"notebook {number}")
    return faults + [f"`{token}`" for token in re.findall(r"`([^`\n]+)`", prose) if not _exists(token)]


def _exists(token: str) -> bool:
    if command := re.search(r"python -m (?!pip )([\w.]+)(.*)", token):
        place = ROOT / command[1].replace(".", "/")
        files = [file for file in (place / "__main__.py", place.with_suffix(".py")) if file.exists()]
        named = [*re.findall(r"--[\w-]+", command[2]), *re.findall(r"--profile ([\w-]+)", command[2])]
        known = [name in PROFILES or f'"{name}"' in files[0].read_text(encoding="utf-8") for name in named if files]
        return bool(files) and all(known)
    if target := re.match(r"make ([a-z]+)", token):
        return f"\n{target[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    if profile := re.fullmatch(r"PROFILE = ['\"](.*)['\"]|(guard-\w[\w-]*)", token):
        return (profile[1] or profile[2]) in PROFILES
    if re.fullmatch(r"guard_utils(\.\w+)+", token):
        try:
            return bool(pkgutil.resolve_name(token))
        except (ImportError, AttributeError):
            return False
    is_file = re.fullmatch(r"[\w./-]+", token) and ("/" in token or token.endswith(FILE_ENDINGS))
    if is_file and not token.startswith((".venv", "artifacts")):
        return (ROOT / token).exists() or (ROOT / "notebooks" / token).exists() or _made(token)
    return True


def _made(name: str) -> bool:
    """Whether code writes or fetches it: artifacts and assets stand in no checkout."""
    files = [*ROOT.glob("guard_utils/**/*.py"), *ROOT.glob("notebooks/src/*.py"), ROOT / ".gitignore"]
    lines = (line for file in files for line in file.read_text(encoding="utf-8").splitlines())
    return any(name in line for line in lines if not line.startswith("# "))


def outputs(notebook: Any) -> Iterator[tuple[Any, Any]]:
    return ((cell, output) for cell in code(notebook) for output in cell.get("outputs", []))


def told(output: Any) -> str:
    """The text of an output."""
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


def ran(notebook: Any) -> list[str]:
    counts = [cell.execution_count for cell in code(notebook)]
    return [f"cells ran in the order {counts}"] if counts != list(range(1, len(counts) + 1)) else []


def alt_texts(notebook: Any) -> list[str]:
    faults = [f"no alt text: {found}" for text in markdown(notebook) for found in re.findall(r"!\[\s*\]\(.*?\)", text)]
    for cell, output in outputs(notebook):
        alt = output.get("metadata", {}).get("image/png", {}).get("alt", "").strip()
        if "image/png" in output.get("data", {}) and not alt:
            faults.append(f"no alt text: figure of {cell.source[-60:]!r}")
        if COMPARING.search(alt) and not re.search(r"\[[-+\d.]+, [-+\d.]+\]", alt):
            faults.append(f"compared without an interval: {alt}")
    return faults


def traces(notebook: Any) -> list[str]:
    texts = [(cell, f"{out.get('text')} {list(out.get('data', {}).values())}") for cell, out in outputs(notebook)]
    return [f"{found} from {cell.source[-60:]!r}" for cell, text in texts for found in TRACE.findall(text)]


def marks(notebook: Any) -> list[str]:
    """The first character of each exercise's check: ✓ or !."""
    return [told(output)[:1] for cell, output in outputs(notebook) if tagged(cell, "check")]


def stubs_fail(notebook: Any) -> list[str]:
    return [f"the checks of the stubs say {marks(notebook)}"] if marks(notebook) != ["!"] * 3 else []


def drift(notebook: Any) -> list[str]:
    """Compares what `expect` printed with the expected results of today."""
    profile = next(match for cell in code(notebook) for match in re.findall(r'^PROFILE = "(.*)"', cell.source))
    file = ROOT / "notebooks" / "expected" / f"{profile}.toml"
    promised, faults = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}, []
    for line in (line for _, output in outputs(notebook) for line in told(output).splitlines()):
        found = re.match(r"([✓!]) ([\w-]+) ([\w-]+) ([\d.]+|not measured)", line)
        if found and promised:
            entry = promised.get(found[2], {}).get(found[3])
            good = found[1] == "✓" and entry and abs(float(found[4]) - entry["value"]) <= entry["tolerance"] + 5e-4
            faults += [] if good else [f"{found[2]} {found[3]} is {found[4]}, expected {entry}"]
    return faults


def card(notebook: Any) -> dict[str, str]:
    """The run card's rows; empty where there is none."""
    texts = [told(output) for _, output in outputs(notebook) if told(output).startswith("profile ")]
    return dict(line.split(maxsplit=1) for line in texts[-1].splitlines()) if texts else {}


def has_card(notebook: Any) -> list[str]:
    lacking = {"profile", "model", "seed", "data", "config", "versions"} - set(card(notebook))
    return [f"the run card lacks {sorted(lacking)}"] if lacking else []


def said(notebook: Any) -> dict[str, list[Any]]:
    """Cell to outputs, as two runs must agree on them. Pixels are left out: another machine has other fonts."""
    found: dict[str, list[Any]] = {cell.id: [] for cell in code(notebook)}
    for cell, output in outputs(notebook):
        data = {kind: shown for kind, shown in output.get("data", {}).items() if kind != "image/png"}
        found[cell.id].append((output.output_type, output.get("text"), data))
    return found


STATIC = (opening, agenda, lengths, rhythm, typed_scores, long_definitions, exercises, references)
EXECUTED = (ran, alt_texts, traces, stubs_fail, drift, has_card)
