"""Rows of your own: a file of texts with their codes, or with labels that a label map decides.

Does: read `.jsonl`, `.csv` and `.parquet`, check every row against the policy, and list all faults in one `DataError`.
Does not: guess a code, drop a row, or read ai4privacy's schemas (`rows`).
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from guard_utils.data.examples import Example, Span
from guard_utils.data.labels import LabelMap
from guard_utils.data.rows import MAX_CHARACTERS, DataError, Fault, refuse
from guard_utils.policy import Role, Taxonomy, Verdict

Row = tuple[dict[str, Any], str]
"""Fields, and what is wrong where they could not be read."""
Turns = tuple[tuple[Role, str], ...]


def read_file(file: Path) -> list[Row]:
    """Reads a file of rows, each with a field `text` or `turns`; rows that can't be read are in it with their fault.

    Raises:
        DataError: It is of another kind, cut off, not UTF-8 at its head, or has no such column.
    """
    if file.suffix == ".jsonl":
        rows = list(_read_jsonl(file))
    elif file.suffix == ".csv":
        rows = list(_read_csv(file))
    elif file.suffix == ".parquet":
        try:
            rows = [(fields, "") for fields in pd.read_parquet(file).to_dict("records")]
        except (OSError, ValueError) as error:
            raise DataError(f"{file} can't be read ({error}); write it again") from None
    else:
        raise DataError(f"{file} is no .jsonl, .csv or .parquet file; save it as one of them, from Excel as CSV UTF-8")
    if not any({"text", "turns"} & set(fields) for fields, _ in rows):
        found = ", ".join(map(str, rows[0][0])) if rows else "no row"
        fix = "part columns by commas, not semicolons" if ";" in found else "give the column of texts this name"
        raise DataError(f"{file} has no column 'text' but {found}; {fix}")
    return rows


def _read_jsonl(file: Path) -> Iterator[Row]:
    # Bytes that are no UTF-8 become lone surrogates, which are refused by row.
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for line in filter(str.strip, lines):
            try:
                yield dict(json.loads(line)), ""
            except (RecursionError, TypeError, ValueError):
                yield {}, f"{line[:40]!r} is no JSON object; write one a line, with a field 'text'"


def _read_csv(file: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # a long text is refused by its row, and keeps no other from being read
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for fields in reader:
                yield fields, "it has more fields than the header; put the text in quotes" if None in fields else ""
        except csv.Error as error:  # an open quote would swallow rows
            raise DataError(f"{file}, after line {reader.line_num}: {error}; close or double the quotes") from error


def own_examples(
    file: Path, policy: Taxonomy, label_map: LabelMap | None = None, *, role: Role = "User"
) -> list[Example]:
    """Reads rows of your own, in file order.

    A row has `text`, or `text` and an agent's `response`, or `turns` as [role, text] pairs; `codes` or `labels`, lists
    (in CSV: joined by commas), empty where it is safe; perhaps `id`, `language`, and `template_id`, which texts made
    from one pattern share. A label may be [start, end, label], its place in the last text: training learns faster then.

    Args:
        file: `.jsonl`, `.csv` or `.parquet`.
        policy: Whose codes are allowed.
        label_map: Decides `labels`.
        role: Whose message stands last and is judged, `User` or `Agent`.

    Raises:
        DataError: Lists each row that can't be used: file, row, field, what is wrong and the fix.
    """
    if label_map and (unknown := {rule.code for rule in label_map.rules} - {None, *policy.codes}):
        raise DataError(f"label map {label_map.name!r} gives {sorted(map(str, unknown))}, policy has {policy.codes}")
    examples, faults, numbers = list[Example](), list[Fault](), dict[str, int]()
    for number, (fields, unreadable) in enumerate(read_file(file), 1):
        row = {key: value for key, value in fields.items() if not _is_empty(value)}
        field = ""
        spans: tuple[Span, ...]
        try:
            if unreadable:
                raise ValueError(unreadable)
            name = str(row.get("id", number))
            field = "id"
            if numbers.setdefault(name, number) != number:
                raise ValueError(f"{name!r} is the id of row {numbers[name]} too; give each row its own")
            field = next((key for key in ("turns", "response", "text") if key in row), "text")
            turns = _turns(row, role)
            field = "labels" if "labels" in row or "codes" not in fields else "codes"
            if field not in fields or {"codes", "labels"} <= set(row):
                raise ValueError("a row needs 'codes' or 'labels', one of them, empty where it is safe")
            given = _list(row.get(field, []), split=file.suffix == ".csv")
            if field == "codes":
                spans, codes = (), _codes(given, policy)
            elif label_map is None:
                raise ValueError("there is no label map to decide labels; give one, or write 'codes'")
            else:
                spans = tuple(_span(part, turns[-1][1], label_map) for part in given)
                codes = Verdict.of(span.code for span in spans if span.code).codes
        except ValueError as error:
            faults.append((number, field, str(error)))
        else:
            text = turns[-1][1]
            digest = hashlib.blake2b(text.casefold().encode(), digest_size=8).hexdigest()
            examples.append(
                Example(
                    id=name,
                    text=text,
                    codes=codes,
                    language=str(row.get("language", "und")),
                    template_id=str(row.get("template_id", f"t{digest}")),
                    situation=str(row.get("situation", "")),
                    spans=spans,
                    turns=turns if len(turns) > 1 else (),
                )
            )
    refuse(faults, str(file))
    return examples


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and pd.isna(value))


def _turns(row: dict[str, Any], role: Role) -> Turns:
    """The conversation of a row; its last message is that of the role."""
    turns: Turns
    if "turns" in row:
        pairs = [] if isinstance(row["turns"], str) else [list(pair) for pair in row["turns"]]
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"{row['turns']!r:.60}; give a list of [role, text] pairs")
        turns = tuple((who, text) for who, text in pairs)
    else:
        said: list[tuple[Role, Any]] = [("User", row.get("text"))]
        turns = (*said, ("Agent", row["response"])) if "response" in row else tuple(said)
    for _, text in turns:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{text!r:.60}; give text")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"{len(text):,} characters, more than {MAX_CHARACTERS:,}; shorten or split it")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError(f"{text[:40]!r} is not UTF-8; save the file in that encoding")
    roles = [str(who) for who, _ in turns]
    if roles != [("User", "Agent")[place % 2] for place in range(len(roles))] or roles[-1] != role:
        raise ValueError(f"roles are {roles}; begin with 'User', alternate with 'Agent', end with {role!r}")
    return turns


def _list(value: Any, *, split: bool) -> list[Any]:
    if split and isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise ValueError(f"{value!r:.60}; write a list, such as ['S1', 'S4'], [] where it is safe")
    return list(value)


def _span(part: Any, text: str, label_map: LabelMap) -> Span:
    """A label alone, or [start, end, label]."""
    start, end, label = (-1, -1, part) if isinstance(part, str) or len(part) != 3 else part
    if label not in label_map.by_label:
        raise ValueError(f"{label!r} is not in label map {label_map.name!r}; add it there")
    if end >= 0 and not 0 <= start < end <= len(text):
        raise ValueError(f"{label} stands at {start} to {end} of a text of {len(text)} characters; correct its place")
    return Span(int(start), int(end), str(label), label_map.by_label[label].code)


def _codes(given: list[Any], policy: Taxonomy) -> tuple[str, ...]:
    if unknown := [code for code in given if code not in policy.codes]:
        raise ValueError(
            f"{unknown} are not in policy {policy.name!r}, which has {', '.join(policy.codes)}; correct it"
        )
    return Verdict.of(given).codes
