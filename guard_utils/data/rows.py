"""Rows of ai4privacy's two schemas, read from the hub or a file and checked.

Does: bring a `.jsonl` or `.parquet` file, a hub data set or plain rows to one Arrow table. The embedded corpus and the
independent benchmark have the 200k schema too. Does not: skip or repair a row. A fault is a `DataError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from datasets import Dataset

HUB_REVISIONS = {
    "ai4privacy/pii-masking-65k": "main",
    "ai4privacy/pii-masking-200k": "a58ec6b71411206684132d333663bc203e0f69a4",
}
"""Revision that `load` asks the hub for; a branch is resolved to its commit before anything is downloaded."""

_MASK = pa.struct({"value": pa.string(), "start": pa.int64(), "end": pa.int64(), "label": pa.string()})

FIELDS: Mapping[str, pa.DataType] = {
    "unmasked_text": pa.string(),
    "masked_text": pa.string(),
    "tokenised_unmasked_text": pa.list_(pa.string()),
    "token_entity_labels": pa.list_(pa.string()),
    "source_text": pa.string(),
    "target_text": pa.string(),
    "privacy_mask": pa.list_(_MASK),
    "language": pa.string(),
    "id": pa.string(),
    "template_id": pa.string(),
    "situation": pa.string(),
    "clause_ids": pa.list_(pa.string()),
    "split": pa.string(),
    "phase": pa.int64(),
}
"""The fields that are read, of either schema. Others are dropped."""


class DataError(ValueError):
    """Rows that cannot be read; the message names file, row (counted from 1), field and the fix."""


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
    name_or_path: str | Path,
    *,
    languages: Sequence[str] | None = None,
    revision: str | None = None,
    data_files: str | None = None,
) -> Dataset:
    """Loads rows of the 65k or 200k schema, in file order.

    Args:
        name_or_path: A hub name such as "ai4privacy/pii-masking-200k", or a local `.jsonl` or `.parquet` file.
        languages: Keep these values of the `language` column; all rows if left out.
        revision: Of a hub set; the pin of `HUB_REVISIONS` if left out.
        data_files: Pattern of a hub set's files. 65k has no language column; its languages are separate files.

    Returns:
        A `datasets.Dataset` with the columns of `FIELDS` that the source has, and an `id`.

    Raises:
        DataError: The source cannot be read; says which file, row and field, or what the hub wants.
    """
    from datasets import Dataset

    place = str(name_or_path)
    if Path(place).suffix in (".jsonl", ".parquet"):
        source = _read_file(Path(place))
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", place):
        source = _read_hub(place, revision, data_files)
    else:
        raise DataError(f"{place}: neither a .jsonl or .parquet file nor a hub name such as {list(HUB_REVISIONS)[1]!r}")
    table, _ = as_table(source, place)
    if languages is not None:
        if "language" not in table.column_names:
            raise DataError(f"{place}: no 'language' column; choose files with data_files=...")
        available = sorted(pc.unique(table["language"]).to_pylist())
        absent = sorted(set(languages) - set(available))
        if absent:
            raise DataError(f"{place}, field 'language': no row in {absent}; available: {available}")
        table = table.filter(pc.is_in(table["language"], pa.array(list(languages), pa.string())))
    return Dataset(table)


def as_table(rows: Any, place: str) -> tuple[pa.Table, Schema]:
    """Brings a `datasets.Dataset`, an Arrow table or plain rows to a checked table with an `id` column.

    Args:
        rows: Of either schema.
        place: Name of the source, for errors.

    Raises:
        DataError: A row is faulty.
    """
    source = rows.with_format("arrow")[:] if hasattr(rows, "with_format") else rows
    if isinstance(source, pa.Table):
        found = dict(zip(source.column_names, source.columns, strict=True))
    else:
        found = _columns_of(list(source), place)
    schema = _schema_of(found, place)
    columns = {name: _checked(found[name], name, schema, place) for name in FIELDS if name in found}
    if "id" not in columns:
        numbers = range(1, len(columns[schema.text]) + 1)
        columns["id"] = pa.array([f"{schema.name}-{number:06d}" for number in numbers], pa.string())
    if schema is SCHEMA_65K:
        tokens, labels = (pc.list_value_length(columns[name]) for name in (*schema.more, schema.labels))
        row = pc.index(pc.not_equal(tokens, labels), True).as_py()
        if row >= 0:
            raise _fault(place, row, schema.labels, f"{labels[row]} labels for {tokens[row]} tokens")
    return pa.table(columns), schema


def _fault(place: str, row: int, field: str, what: str) -> DataError:
    return DataError(f"{place}, row {row + 1}, field {field!r}: {what}; correct the row or remove it")


def _columns_of(rows: list[Any], place: str) -> dict[str, list[Any]]:
    """The columns of plain rows, unchecked; a field that a row lacks is None there."""
    if not rows:
        raise DataError(f"{place}: no rows; pass at least one")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"{place}, row {number}: expected an object with named fields, got {row!r:.80}")
    columns = {name: [row.get(name) for row in rows] for name in {name for row in rows for name in row}}
    if "id" in columns:
        columns["id"] = [str(value) if isinstance(value, int) else value for value in columns["id"]]
    return columns


def _schema_of(columns: Iterable[str], place: str) -> Schema:
    """The schema of which most columns are there."""
    found = set(columns)
    schema = max((SCHEMA_200K, SCHEMA_65K), key=lambda schema: len(found.intersection(schema.required)))
    missing = [column for column in schema.required if column not in found]
    if missing:
        raise DataError(
            f"{place}: column(s) {missing} of the {schema.name} schema are missing; found {sorted(found)}. "
            "Rename the columns, or pass a data set of the 65k or 200k schema."
        )
    return schema


def _checked(column: pa.ChunkedArray | list[Any], name: str, schema: Schema, place: str) -> pa.Array:
    """Brings a column to its type; where it is required, no value is null, and none inside a list."""
    kind, required = FIELDS[name], name in schema.required
    try:
        array = pa.array(column, kind) if isinstance(column, list) else column.cast(kind)
        if not required or _is_full(array):
            return array
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass  # the loop finds which value it is
    values = column if isinstance(column, list) else column.to_pylist()
    for row, value in enumerate(values):
        try:
            full = _is_full(pa.array([value], kind))
        except (ValueError, TypeError, OverflowError) as error:
            raise _fault(place, row, name, f"expected {kind}, {error}") from None
        if required and not full:
            raise _fault(place, row, name, f"missing or null in {value!r:.80}")
    return pa.array(values, kind)


def _is_full(array: pa.Array | pa.ChunkedArray) -> bool:
    """Whether neither an array nor the lists and objects in it hold a null."""
    parts: list[pa.Array] = []
    if isinstance(array, pa.ChunkedArray):
        parts = array.chunks
    elif pa.types.is_list(array.type):
        parts = [array.flatten()]
    elif pa.types.is_struct(array.type):
        parts = array.flatten()
    return array.null_count == 0 and all(_is_full(part) for part in parts)


def _read_file(path: Path) -> pa.Table | Iterator[Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a .jsonl or .parquet file, or the name of a hub data set")
    if path.suffix == ".jsonl":
        return _lines(path)
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); write it again") from None


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({error}); correct the line") from None


def resolve_revision(name: str, revision: str | None = None) -> str:
    """Resolves a hub data set's branch or tag to its commit, so that a run reads one version of it.

    Args:
        name: Hub name.
        revision: Branch, tag or commit; the pin of `HUB_REVISIONS` if left out.

    Returns:
        The 40-digit commit; the revision itself where the hub does not tell, so that a cached copy still loads.
    """
    from huggingface_hub import HfApi

    revision = revision or HUB_REVISIONS.get(name, "main")
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    try:
        return HfApi().dataset_info(name, revision=revision).sha or revision
    except Exception:
        return revision


_HUB_FIXES = {
    "GatedRepoError|gated": "it is gated: accept its conditions at {page}, then run `hf auth login`",
    "RevisionNotFoundError": "it has no revision {revision!r}: pass one that {page}/commits/main lists",
    "RepositoryNotFoundError|DatasetNotFoundError": "the hub knows no public data set of this name: check spelling, "
    "or run `hf auth login` if it is private",
    "": "the hub cannot be reached and the local cache does not hold it: run once online (HF_HUB_OFFLINE unset), "
    "or pass a .jsonl or .parquet file of the same schema",
}
"""Type or text of a hub error, as a pattern, to the cause and its fix; the first that fits counts."""


def _read_hub(name: str, revision: str | None, data_files: str | None) -> Any:
    from datasets import load_dataset

    commit = resolve_revision(name, revision)
    try:
        return load_dataset(name, revision=commit, data_files=data_files, split="train")
    except Exception as error:
        told = f"{type(error).__mro__} {error}"
        fix = next(fix for sign, fix in _HUB_FIXES.items() if re.search(sign, told))
        why = fix.format(page=f"https://huggingface.co/datasets/{name}", revision=commit)
        raise DataError(f"cannot load {name}: {why}. ({type(error).__name__}: {error})") from error
