"""Decisions about labels as a small file that holds no text, and the pure function that applies them.

The file is JSON lines: a header with the hash of the data that was reviewed, then one decision a line (row id, code,
`add`, `remove` or `keep`, reason, reviewer). So corrections of a set that may not be redistributed can be shared, and
they can't be applied to another version of it by mistake.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from guard_utils.data.examples import Example, rows_fingerprint
from guard_utils.files import write_text
from guard_utils.policy import CODE_PATTERN, Taxonomy, Verdict

ACTIONS = ("add", "remove", "keep")
FORMAT = "guard-utils-corrections-1"


class CorrectionError(ValueError):
    """Corrections that do not fit the data or each other; the message lists what and how to mend it."""


@dataclass(frozen=True, order=True)
class Correction:
    """What a reviewer decided about one code of one row.

    Attributes:
        id: Of the row.
        code: The category.
        action: `add` a code that is not given, `remove` one that is, or `keep` the row as it is in this respect.
        reason: Why, in one line.
        reviewer: Who decided: a person, or the name of a policy.
    """

    id: str
    code: str
    action: str
    reason: str
    reviewer: str

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise CorrectionError(f"action {self.action!r} of row {self.id!r} is none of {', '.join(ACTIONS)}")
        if not CODE_PATTERN.fullmatch(self.code):
            raise CorrectionError(f"code {self.code!r} of row {self.id!r} is no code; write S1, S2, ...")
        if not self.reviewer.strip():
            raise CorrectionError(f"the decision on {self.code} of row {self.id!r} has no reviewer; say who decided")


def write_corrections(
    path: Path, corrections: Iterable[Correction], examples: Sequence[Example], policy: Taxonomy
) -> Path:
    """Writes corrections, sorted, behind the hash of the examples they are about; whole or not at all.

    Args:
        path: JSON-lines file to write.
        corrections: What was decided.
        examples: The data as it was reviewed, before any of these corrections.
        policy: Of the review.

    Raises:
        CorrectionError, ValueError: They do not fit the examples; see `apply_corrections`.
    """
    decided = sorted(set(corrections))
    apply_corrections(examples, decided, policy)
    head = {"format": FORMAT, "rows": len(examples), "data": rows_fingerprint(examples)}
    lines = (json.dumps(item, ensure_ascii=False) for item in (head, *map(asdict, decided)))
    return write_text(path, "\n".join(lines) + "\n")


def read_corrections(path: Path, examples: Sequence[Example]) -> list[Correction]:
    """Reads corrections of these very examples.

    Args:
        path: What `write_corrections` wrote.
        examples: The data to be corrected.

    Raises:
        CorrectionError: The file is of another format, a line is broken (named by number), or the corrections are of
            another version of the data.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
            if number > 1:
                found[-1] = Correction(**found[-1])
        except (ValueError, TypeError) as error:
            raise CorrectionError(f"{path.name}, line {number}: {error}") from None
    if not found or not isinstance(found[0], dict) or found[0].get("format") != FORMAT:
        raise CorrectionError(f"{path.name} does not begin with a header of {FORMAT}; write it with write_corrections")
    head, own = found[0], rows_fingerprint(examples)
    if head.get("data") != own:
        raise CorrectionError(
            f"{path.name} corrects {head.get('rows')} rows with hash {str(head.get('data'))[:12]}, these are "
            f"{len(examples)} rows with hash {own[:12]}: load the version that was reviewed, or review this one"
        )
    return found[1:]


def apply_corrections(
    examples: Sequence[Example], corrections: Iterable[Correction], policy: Taxonomy
) -> list[Example]:
    """Returns the examples with their codes corrected; nothing is changed in place, and spans stay as they are.

    Several reviewers may decide alike. What they may not do is contradict each other, or the data.

    Args:
        examples: The data.
        corrections: In any order.
        policy: Its codes are the only ones that may be decided.

    Raises:
        CorrectionError: An unknown id, one that stands on several rows, two different decisions on one (row, code)
            pair, or a decision that does not fit: adding a code that is given, removing one that is not.
        ValueError: A code is not in the policy.
    """
    decided = list(corrections)
    twice = [name for name, count in Counter(example.id for example in examples).items() if count > 1]
    if twice:
        raise CorrectionError(f"id {twice[0]!r} stands on several rows; give each row its own before correcting any")
    codes = {example.id: set(example.codes) for example in examples}
    if unknown := sorted({item.id for item in decided} - set(codes)):
        raise CorrectionError(
            f"{len(unknown)} ids are not in the data, the first is {unknown[0]!r}; load the reviewed set"
        )
    actions: dict[tuple[str, str], Correction] = {}
    for item in decided:
        other = actions.setdefault((item.id, item.code), item)
        if other.action != item.action:
            raise CorrectionError(
                f"{item.code} of row {item.id!r}: {other.reviewer} says {other.action}, {item.reviewer} says "
                f"{item.action}; let one of them decide and keep that line"
            )
    for (row, code), item in actions.items():
        policy.position(code)
        if item.action != "keep" and (item.action == "add") == (code in codes[row]):
            raise CorrectionError(
                f"{item.reviewer} wants to {item.action} {code} of row {row!r}, which is given {sorted(codes[row])}; "
                "was it corrected before?"
            )
        if item.action != "keep":
            codes[row] ^= {code}
    return [replace(example, codes=Verdict.of(codes[example.id]).codes) for example in examples]


def read_review(path: Path, *, reviewer: str) -> list[Correction]:
    """Reads decisions from a spreadsheet that `review_table` began: rows with a filled column `decision`.

    Args:
        path: CSV file with the columns `id, code, decision, reason`.
        reviewer: Who filled it in.

    Raises:
        CorrectionError: A column is missing or a decision is none of add, remove and keep.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in ("id", "code", "decision", "reason") if name not in table.columns]
    if missing:
        raise CorrectionError(f"{path.name} lacks the columns {missing}; fill in the file that the review began with")
    decided = table[table["decision"].str.strip() != ""]
    return [
        Correction(row.id, row.code, row.decision.strip().lower(), row.reason, reviewer) for row in decided.itertuples()
    ]
