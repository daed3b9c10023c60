"""Rows of ai4privacy's two schemas, read from the hub or a file and checked.

Field names as the data sets spell them:

* 65k: `unmasked_text`, `masked_text`, `tokenised_unmasked_text`, `token_entity_labels`.
* 200k: `source_text`, `target_text`, `privacy_mask`, `language`, `id`; the embedded corpus and the independent
  benchmark yield it too, with `template_id`, `situation`, `clause_ids` and `split` beside it.

Columns are checked as Arrow arrays. No row is skipped: a fault is a `DataError` that names the file, the row
(counted from 1) and the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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
"""Revision that `load` asks the hub for. A branch is resolved to its commit before anything is downloaded
(`resolve_revision`), and a run record stores that commit."""

_CHUNK = 10_000
_STRINGS = pa.list_(pa.string())
_MASK = pa.list_(pa.struct({"value": pa.string(), "start": pa.int64(), "end": pa.int64(), "label": pa.string()}))


class DataError(ValueError):
    """Rows that cannot be read; the message names file, row, field and the fix."""


@dataclass(frozen=True)
class Schema:
    """Columns of one data set family.

    Attributes:
        name: For errors and ids.
        text: Column with the text.
        masked: Column with the text, values replaced by labels in brackets.
        labels: Column with the labels.
        required: Column to Arrow type; each must be there and never null.
        optional: Column to Arrow type; read where present.
        aligned: Two list columns of equal length in each row.
    """

    name: str
    text: str
    masked: str
    labels: str
    required: Mapping[str, pa.DataType]
    optional: Mapping[str, pa.DataType]
    aligned: tuple[str, str]


SCHEMA_65K = Schema(
    "65k",
    "unmasked_text",
    "masked_text",
    "token_entity_labels",
    {
        "unmasked_text": pa.string(),
        "masked_text": pa.string(),
        "tokenised_unmasked_text": _STRINGS,
        "token_entity_labels": _STRINGS,
    },
    {"id": pa.string(), "language": pa.string()},
    ("tokenised_unmasked_text", "token_entity_labels"),
)
SCHEMA_200K = Schema(
    "200k",
    "source_text",
    "target_text",
    "privacy_mask",
    {
        "source_text": pa.string(),
        "target_text": pa.string(),
        "privacy_mask": _MASK,
        "language": pa.string(),
        "id": pa.string(),
    },
    {
        "mbert_text_tokens": _STRINGS,
        "mbert_bio_labels": _STRINGS,
        "template_id": pa.string(),
        "situation": pa.string(),
        "clause_ids": _STRINGS,
        "split": pa.string(),
    },
    ("mbert_text_tokens", "mbert_bio_labels"),
)


def detect_schema(columns: Iterable[str], *, place: str = "rows") -> Schema:
    """Finds the schema that a set of columns belongs to.

    Raises:
        DataError: A required column is missing.
    """
    found = set(columns)
    schema = max((SCHEMA_200K, SCHEMA_65K), key=lambda s: len(found & set(s.required)) / len(s.required))
    missing = [column for column in schema.required if column not in found]
    if missing:
        raise DataError(
            f"{place}: column(s) {missing} of the {schema.name} schema are missing; found {sorted(found)}. "
            "Rename the columns, or pass a data set of the 65k or 200k schema."
        )
    return schema


def _first(bad: Any) -> int | None:
    """Index of the first true value of an Arrow boolean array, or None."""
    index = pc.index(bad, True).as_py()
    return None if index < 0 else index


def _check(table: pa.Table, schema: Schema, place: str) -> None:
    """Finds null values and lists of unequal length.

    Raises:
        DataError: Names the first row and the field.
    """

    def fail(row: int | None, field: str, what: str) -> None:
        if row is not None:
            raise DataError(f"{place}, row {row + 1}, field {field!r}: {what}; mend the row or remove it")

    for field in schema.required:
        column = table[field].combine_chunks()
        fail(_first(pc.is_null(column)), field, "missing or null")
        if not pa.types.is_list(column.type):
            continue
        parents, values = pc.list_parent_indices(column), pc.list_flatten(column)
        parts = {"": values}
        if pa.types.is_struct(values.type):
            parts |= {f".{key.name}": pc.struct_field(values, key.name) for key in values.type}
        for part, content in parts.items():
            at = _first(pc.is_null(content))
            fail(None if at is None else parents[at].as_py(), field + part, "holds a missing or null value")
    left, right = schema.aligned
    if left in table.column_names and right in table.column_names:
        sizes = [pc.list_value_length(table[name].combine_chunks()) for name in (left, right)]
        row = _first(pc.fill_null(pc.not_equal(*sizes), False))
        if row is not None:
            fail(row, right, f"{sizes[1][row]} labels for {sizes[0][row]} tokens of {left!r}")


def _column(rows: Sequence[Mapping[str, Any]], field: str, kind: pa.DataType, *, place: str, first: int) -> pa.Array:
    """Turns one field of some rows into an Arrow array."""
    values = [row.get(field) for row in rows]
    if field == "id":
        values = [str(value) if isinstance(value, int) else value for value in values]
    try:
        return pa.array(values, kind)
    except (ValueError, TypeError, OverflowError):
        for number, value in enumerate(values, first + 1):
            try:
                pa.array([value], kind)
            except (ValueError, TypeError, OverflowError) as error:
                raise DataError(f"{place}, row {number}, field {field!r}: expected {kind}, {error}") from None
        raise


def _table_of_dicts(rows: Iterable[Mapping[str, Any]], place: str) -> pa.Table:
    """Builds an unchecked table of one schema from plain rows, chunk by chunk."""
    iterator = iter(rows)
    chunks: list[pa.Table] = []
    schema: Schema | None = None
    done = 0
    while chunk := list(islice(iterator, _CHUNK)):
        for number, row in enumerate(chunk, done + 1):
            if not isinstance(row, Mapping):
                raise DataError(f"{place}, row {number}: expected an object with named fields, got {row!r:.80}")
        schema = schema or detect_schema(chunk[0], place=f"{place}, row 1")
        kinds = {**schema.required, **schema.optional}
        chunks.append(pa.table({f: _column(chunk, f, k, place=place, first=done) for f, k in kinds.items()}))
        done += len(chunk)
    if schema is None:
        raise DataError(f"{place}: no rows; pass at least one")
    table = pa.concat_tables(chunks)
    return table.select(
        [name for name in table.column_names if table[name].null_count < done or name in schema.required]
    )


def as_table(rows: Any, place: str) -> tuple[pa.Table, Schema]:
    """Brings a `datasets.Dataset`, an Arrow table or plain rows to a checked table of one schema, with an id column."""
    table = rows.with_format("arrow")[:] if hasattr(rows, "with_format") else rows
    if not isinstance(table, pa.Table):
        table = _table_of_dicts(table, place)
    schema = detect_schema(table.column_names, place=place)
    kinds = {name: kind for name, kind in {**schema.required, **schema.optional}.items() if name in table.column_names}
    columns = {}
    for name, kind in kinds.items():
        try:
            columns[name] = table[name].cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            raise DataError(f"{place}, field {name!r}: is {table[name].type}, expected {kind}") from None
    if "id" not in columns:
        columns["id"] = pa.array([f"{schema.name}-{number:06d}" for number in range(1, table.num_rows + 1)])
    table = pa.table(columns)
    _check(table, schema, place)
    return table, schema


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({error}); mend the line") from None


def _read_file(path: Path) -> pa.Table:
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a .jsonl or .parquet file, or the name of a hub data set")
    if path.suffix == ".jsonl":
        return _table_of_dicts(_jsonl(path), str(path))
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); write it again") from None


def _hub_fault(name: str, revision: str, error: Exception) -> DataError:
    """Explains a failure of the hub."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    page = f"https://huggingface.co/datasets/{name}"
    if "GatedRepoError" in kinds or "gated" in str(error):
        why = f"it is gated: accept its conditions at {page}, then run `hf auth login`"
    elif "RevisionNotFoundError" in kinds:
        why = f"it has no revision {revision!r}: pass one that {page}/commits/main lists"
    elif kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"}:
        why = (
            "the hub knows no public data set of this name: check the spelling, or run `hf auth login` if it is private"
        )
    else:
        why = (
            "the hub cannot be reached and the local cache does not hold it: run once online (HF_HUB_OFFLINE unset), "
            "or pass a .jsonl or .parquet file of the same schema"
        )
    return DataError(f"cannot load {name}: {why}. ({type(error).__name__}: {error})")


def resolve_revision(name: str, revision: str | None = None) -> str:
    """Resolves a hub data set's branch or tag to its commit, for `load` and for run records.

    Args:
        name: Hub name.
        revision: Branch, tag or commit; the pin of `HUB_REVISIONS` if left out.

    Returns:
        The 40-digit commit; the revision itself where the hub cannot be reached, so that a cached copy still loads.

    Raises:
        DataError: The set is gated, unknown or has no such revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    revision = revision or HUB_REVISIONS.get(name, "main")
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    try:
        return HfApi().dataset_info(name, revision=revision).sha or revision
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _hub_fault(name, revision, error) from error
    except Exception:
        return revision


def _read_hub(name: str, revision: str | None, data_files: str | None) -> Any:
    from datasets import load_dataset

    commit = resolve_revision(name, revision)
    try:
        return load_dataset(name, revision=commit, data_files=data_files, split="train")
    except Exception as error:
        raise _hub_fault(name, commit, error) from error


def load(
    name_or_path: str | Path,
    *,
    languages: Sequence[str] | None = None,
    revision: str | None = None,
    data_files: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """Loads rows of the 65k or 200k schema, in file order.

    Args:
        name_or_path: A hub name such as "ai4privacy/pii-masking-200k", or a local `.jsonl` or `.parquet` file.
        languages: Keep these values of the `language` column; all rows if left out.
        revision: Of a hub set; the pin of `HUB_REVISIONS` if left out.
        data_files: Pattern of a hub set's files. 65k has no language column; its languages are separate files.
        limit: Keep the first rows only, after the language filter.

    Returns:
        A `datasets.Dataset` with the schema's columns (others are dropped) and an `id`.

    Raises:
        DataError: The source cannot be read; says which file, row and field, or what the hub wants.
    """
    place = str(name_or_path)
    local = Path(name_or_path).suffix in (".jsonl", ".parquet")
    if not local and not re.fullmatch(r"[\w.-]+/[\w.-]+", place):
        raise DataError(
            f"{place}: neither a .jsonl or .parquet file nor a hub name such as 'ai4privacy/pii-masking-200k'"
        )
    table, schema = as_table(_read_file(Path(name_or_path)) if local else _read_hub(place, revision, data_files), place)
    if languages is not None:
        if "language" not in table.column_names:
            raise DataError(
                f"{place}: the {schema.name} schema has no 'language' column; choose files with data_files=..."
            )
        available = sorted(pc.unique(table["language"]).to_pylist())
        absent = sorted(set(languages) - set(available))
        if absent:
            raise DataError(f"{place}, field 'language': no row in {absent}; available: {available}")
        table = table.filter(pc.is_in(table["language"], pa.array(list(languages), pa.string())))
    from datasets import Dataset

    return Dataset(table if limit is None else table.slice(0, limit))
