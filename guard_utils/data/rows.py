"""Rows of ai4privacy's two schemas, read from the hub or a file and checked.

Does: read a `.jsonl`, `.jsonl.gz` or `.parquet` file, a hub data set or plain rows. Does not: skip or repair a row.
Rows that cannot be read or trained on are listed in one `DataError`.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard_utils.policy import require_list

if TYPE_CHECKING:
    from datasets import Dataset

HUB_REVISIONS = {
    "ai4privacy/pii-masking-65k": "main",
    "ai4privacy/pii-masking-200k": "a58ec6b71411206684132d333663bc203e0f69a4",
}
"""Revision that `load` asks the hub for."""

MAX_CHARACTERS = 8_000
"""A longer text is refused: about 2,048 tokens, the longest conversation that `GuardPrompt` accepts."""

FIELDS: Mapping[str, Any] = {
    "unmasked_text": str,
    "masked_text": str,
    "tokenised_unmasked_text": [str],
    "token_entity_labels": [str],
    "source_text": str,
    "target_text": str,
    "privacy_mask": [{"value": str, "start": int, "end": int, "label": str}],
    "language": str,
    "id": str,
    "template_id": str,
    "situation": str,
    "clause_ids": [str],
    "split": str,
    "phase": int,
}
"""The fields that are read, of either schema. Others are dropped."""


class DataError(ValueError):
    """Rows that cannot be used; the message names file, row (counted from 1), field and the fix."""


Fault = tuple[int, str, str]
"""A row (counted from 1), its field, and what is wrong there with the fix."""


def refuse(faults: Iterable[Fault], place: str) -> None:
    """Raises one DataError that lists the first twenty faults and counts the rest; no fault is fine."""
    found = list(faults)
    lines = [f"{place}, row {row}, field {field!r}: {what}" for row, field, what in found[:20]]
    if len(found) > 20:
        lines.append(f"... and {len(found) - 20:,} more, {len(found):,} in all")
    if found:
        raise DataError("\n".join([*lines, "Correct these rows or remove them."]))


@dataclass(frozen=True)
class Schema:
    """Columns of one data set family: the text, the text with labels in place of values, the labels, and `more`."""

    name: str
    text: str
    masked: str
    labels: str
    more: tuple[str, ...]

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that must be there and hold no null; the rest of `FIELDS` is optional."""
        return (self.text, self.masked, self.labels, *self.more)


SCHEMA_65K = Schema("65k", "unmasked_text", "masked_text", "token_entity_labels", ("tokenised_unmasked_text",))
SCHEMA_200K = Schema("200k", "source_text", "target_text", "privacy_mask", ("language", "id"))


def load(
    name_or_path: str | Path, *, languages: Sequence[str] | None = None, data_files: str | None = None
) -> "Dataset":
    """Loads rows of the 65k or 200k schema, in file order.

    Args:
        name_or_path: A hub name such as "ai4privacy/pii-masking-200k", or a local .jsonl, .jsonl.gz or .parquet file.
        languages: Keep these values of the `language` column; all rows if left out.
        data_files: Pattern of a hub set's files. 65k has no language column; its languages are separate files.

    Returns:
        A `datasets.Dataset` with the columns of `FIELDS` that the source has, and an `id`.

    Raises:
        DataError: The source cannot be read, or rows of it cannot be trained on.
    """
    from datasets import Dataset

    place = str(name_or_path)
    if place.lower().endswith((".jsonl", ".jsonl.gz", ".parquet")):
        rows = _read_file(Path(place))
    elif isinstance(name_or_path, str) and _HUB_NAME.fullmatch(place) and not Path(place).exists():
        rows = _read_hub(place, data_files)
    else:
        kinds = "neither a .jsonl, .jsonl.gz or .parquet file nor a hub name such as 'ai4privacy/pii-masking-200k'"
        raise DataError(f"{place}: {kinds}; write the rows as .jsonl, one JSON object a line")
    return Dataset.from_list(checked_rows(rows, place, languages)[0])


def checked_rows(rows: Any, place: str, languages: Sequence[str] | None = None) -> tuple[list[dict[str, Any]], Schema]:
    """Brings a `datasets.Dataset` or plain rows of either schema to rows of equal `FIELDS`, `id` included.

    Raises:
        DataError: A row is faulty; `place` names the source.
        TypeError: One text or one row instead of a list.
    """
    require_list(rows, "rows")
    require_list(languages, "languages")
    if isinstance(rows, Mapping):
        raise TypeError(f"rows is one row, {str(rows)[:40]!r}; pass a list of rows")
    columns = getattr(rows, "column_names", None) or []
    used = [name for name in columns if name in FIELDS]
    if used:
        rows = rows.select_columns(used)  # reading what is dropped below would take most of the time
    plain = rows.to_list() if hasattr(rows, "to_list") else list(rows)
    if not plain:
        raise DataError(f"{place}: no rows; pass at least one")
    for number, row in enumerate(plain, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"{place}, row {number}: expected an object with named fields, got {row!r:.80}")
    found = {name for row in plain for name in row}.union(columns)
    schema = max((SCHEMA_200K, SCHEMA_65K), key=lambda schema: len(found.intersection(schema.required)))
    if missing := [name for name in schema.required if name not in found]:
        lacks = f"column(s) {missing} of the {schema.name} schema are missing; found {sorted(found)}"
        raise DataError(f"{place}: {lacks}. Rename the columns, or pass a data set of the 65k or 200k schema.")
    names = [name for name in FIELDS if name in found or name == "id"]
    numbered = {}
    for number, row in enumerate(plain, 1):
        own = row.get("id") if "id" in found else f"{schema.name}-{number:06d}"
        numbered[number] = {name: row.get(name) for name in names}
        if isinstance(labels := row.get(schema.labels), str):  # as JSON text, in some copies of the sets
            with suppress(ValueError):
                numbered[number][schema.labels] = json.loads(labels)
        numbered[number]["id"] = str(own) if isinstance(own, int) else own
    if languages is not None:
        if "language" not in found:
            raise DataError(f"{place}: no 'language' column; choose files with data_files=...")
        available = {row["language"] for row in numbered.values() if isinstance(row["language"], str)}
        if absent := sorted(set(languages) - available):
            raise DataError(f"{place}, field 'language': no row in {absent}; available: {sorted(available)}")
        others = available - set(languages)
        numbered = {number: row for number, row in numbered.items() if str(row["language"]) not in others}
    refuse(_faults(numbered, schema), place)
    return list(numbered.values()), schema


def _faults(numbered: Mapping[int, Mapping[str, Any]], schema: Schema) -> Iterator[Fault]:
    """What cannot be read or trained on, by row: wrong types first, then what a guard or a later step refuses."""
    first: dict[str, int] = {}
    for number, row in numbered.items():
        asked = {name: value for name, value in row.items() if name in schema.required or value is not None}
        faults = [(number, name, what) for name in asked if (what := _wrong(row[name], FIELDS[name]))]
        yield from faults
        if faults:
            continue
        text = row[schema.text]
        if not text.strip():
            yield (number, schema.text, "blank; give it text")
        if len(text) > MAX_CHARACTERS:
            what = f"{len(text):,} characters, more than {MAX_CHARACTERS:,}; shorten or split it"
            yield (number, schema.text, what)
        if first.setdefault(row["id"], number) != number:
            yield (number, "id", f"{row['id']!r} is the id of row {first[row['id']]} too; give each row its own")
        tags = row[schema.labels] if schema is SCHEMA_65K else []
        if wrong := [tag for tag in tags if not re.fullmatch("O|[BI]-.+", tag)]:
            yield (number, schema.labels, f"token tag {wrong[0]!r} is none of 'O', 'B-LABEL' and 'I-LABEL'")


def _wrong(value: Any, kind: Any) -> str:
    """What is wrong with a value: `kind` is a type, a list of one kind, or a dict of kinds by name."""
    if type(value) is kind and (kind is not str or value.isascii()):
        return ""
    if value is None:
        return "missing or null; give it a value"
    if isinstance(kind, list):
        if isinstance(value, list | tuple):
            return next(filter(None, (_wrong(item, kind[0]) for item in value)), "")
        return f"expected a list, got {value!r:.60}; write a list"
    if isinstance(kind, dict):
        if not isinstance(value, Mapping):
            return f"expected an object with {', '.join(kind)}, got {value!r:.60}"
        parts = ((name, _wrong(value.get(name), kind[name])) for name in kind)
        return next((f"{name!r} of {value!r:.80}: {what}" for name, what in parts if what), "")
    if not isinstance(value, kind):
        return f"expected {kind.__name__}, got {value!r:.60}"
    if kind is str and not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        return f"{value!r:.60} holds a lone surrogate; decode the file with errors='replace'"
    return ""


def _read_file(path: Path) -> list[Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a .jsonl or .parquet file, or the name of a hub data set")
    rows = []
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path).to_pylist()
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise DataError(f"{path}, line {number}: not valid JSON in UTF-8 ({error}); correct it") from None
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the file or write it again") from None
    return rows


_HUB_NAME = re.compile(r"(?!.*\.(json|csv|tsv|txt|xlsx?|arrow|gz|zip|bz2|zst)$)[\w.-]+/[\w.-]+", re.IGNORECASE)

_HUB_FIXES = {
    r"\[Errno (28|122)\]|Not enough disk space": "the disk is full: free space, or set HF_HOME to a folder on another",
    "ImportError": "a package is missing: install the one that the error names",
    "CastError": "its files have different columns: choose files of one kind with data_files=...",
    r"GatedRepoError|\bgated\b": "it is gated: accept its conditions at {page}, then run `hf auth login`",
    "RevisionNotFoundError": "{page} has no revision {revision!r}: pass rows of datasets.load_dataset at another",
    "(Repository|Dataset)NotFoundError": "no public data set has this name: check spelling, or run `hf auth login`",
    "DataFilesNotFoundError|EmptyDataset|Unable to find": "no such file: choose data_files=... from {page}/tree/main",
    "ConnectionError|Timeout|Offline|LocalEntryNotFound|HTTPError|Couldn't reach": "the hub cannot be reached and the "
    "local cache does not hold it: run once online (HF_HUB_OFFLINE unset), or pass a .jsonl or .parquet file",
}
"""Type or text of an error, as a pattern, to the cause and its fix. The outer error counts first, then its cause."""


def _read_hub(name: str, data_files: str | None) -> Any:
    from datasets import load_dataset

    revision = HUB_REVISIONS.get(name, "main")
    try:
        return load_dataset(name, revision=revision, data_files=data_files, split="train")
    except Exception as error:
        fix, cause = _fix_and_cause(error)
        fix = fix.format(page=f"https://huggingface.co/datasets/{name}", revision=revision)
        raise DataError(f"cannot load {name}: {fix}. ({type(cause).__name__}: {cause})") from error


def _fix_and_cause(error: BaseException) -> tuple[str, BaseException]:
    told = f"{type(error).__mro__} {error}"
    for sign, fix in _HUB_FIXES.items():
        if re.search(sign, told):
            return fix, error
    cause = error.__cause__ or error.__context__
    return ("the cause is none that `load` knows, read the error", error) if cause is None else _fix_and_cause(cause)
