"""Decisions about labels as a small file without text, and a pure function that applies them.

Does: write, read and check decisions (JSON lines behind the hash of the reviewed data), so that corrections of rows
that may not be redistributed can be shared. Does not: decide anything.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from guard_utils.data.examples import Example, rows_fingerprint
from guard_utils.files import write_text
from guard_utils.policy import Taxonomy, Verdict

ACTIONS = ("add", "remove", "keep")
FORMAT = "guard-utils-corrections-1"


class CorrectionError(ValueError):
    """Corrections that do not fit the data or each other; the message says which and how to fix it."""


@dataclass(frozen=True, order=True)
class Correction:
    """A decision on one code of one row: `action` is `add`, `remove` or `keep`, `reviewer` a person or a program."""

    id: str
    code: str
    action: str
    reason: str
    reviewer: str

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise CorrectionError(f"action {self.action!r} of row {self.id!r} is none of {', '.join(ACTIONS)}")


def write_corrections(
    path: Path, corrections: Iterable[Correction], examples: Sequence[Example], policy: Taxonomy
) -> Path:
    """Writes corrections of these examples, sorted; raises what `apply_corrections` raises, and then writes nothing."""
    decided = sorted(set(corrections))
    apply_corrections(examples, decided, policy)
    head = {"format": FORMAT, "rows": len(examples), "data": rows_fingerprint(examples)}
    lines = [json.dumps(item, ensure_ascii=False) for item in (head, *map(asdict, decided))]
    return write_text(path, "\n".join(lines) + "\n")


def read_corrections(path: Path, examples: Sequence[Example]) -> list[Correction]:
    """Reads what `write_corrections` wrote about these examples, and no other version of them."""
    head, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    if FORMAT not in head:
        raise CorrectionError(f"{path.name} does not begin with a header of {FORMAT}; write it with write_corrections")
    reviewed, own = json.loads(head)["data"], rows_fingerprint(examples)
    if reviewed != own:
        raise CorrectionError(f"{path.name} is of data {reviewed[:12]}, not {own[:12]}; load the reviewed version")
    found = []
    for number, line in enumerate(lines, 2):
        try:
            found.append(Correction(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise CorrectionError(f"{path.name}, line {number}: {error}") from None
    return found


def apply_corrections(
    examples: Sequence[Example], corrections: Iterable[Correction], policy: Taxonomy
) -> list[Example]:
    """Returns the examples with corrected codes, spans unchanged; equal decisions of several reviewers are fine.

    Raises:
        CorrectionError: An id is unknown or on several rows, or a decision contradicts another or the data.
    """
    codes: dict[str, set[str]] = {}
    for example in examples:
        if example.id in codes:
            raise CorrectionError(f"id {example.id!r} is on several rows; give each row its own before correcting any")
        codes[example.id] = set(example.codes)
    decided: dict[tuple[str, str], Correction] = {}
    for item in corrections:
        if item.id not in codes:
            raise CorrectionError(f"id {item.id!r} is not in the data; load the reviewed rows")
        policy.position(item.code)
        first = decided.setdefault((item.id, item.code), item)
        if first.action != item.action:
            raise CorrectionError(f"{item.code} of row {item.id!r} has both {first.action} and {item.action}; keep one")
    for (row, code), item in decided.items():
        if item.action == "keep":
            continue
        if (item.action == "add") == (code in codes[row]):
            raise CorrectionError(f"can't {item.action} {code}: row {row!r} has {sorted(codes[row])}; done before?")
        codes[row] ^= {code}
    return [replace(example, codes=Verdict.of(codes[example.id]).codes) for example in examples]
