"""From rows to examples and training lines: exact, total, fast; splits by template.

`load` and the schemas live in `guard_utils.data.rows`, the leakage guard in `guard_utils.data.leakage`. Labels are mapped as
Arrow arrays, each distinct label decided once, so 200,000 rows take about a second.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from guard_utils.data.labels import (
    LabelMap,
    UnknownLabelError,
    bio_entities,
    bio_label,
    reference_codes_evaluation,
    reference_codes_training,
)
from guard_utils.data.rows import HUB_REVISIONS, SCHEMA_65K, DataError, Schema, as_table, load, resolve_revision
from guard_utils.policy import Verdict

__all__ = [
    "HUB_REVISIONS",
    "DataError",
    "Example",
    "Span",
    "load",
    "reference_codes",
    "reference_selection",
    "resolve_revision",
    "split",
    "to_examples",
    "training_lines",
]


_CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled stretch of a text.

    Attributes:
        start: First character; -1 where the data gives no offset at which the value stands.
        end: Character after the last; -1 likewise.
        label: Label of the data set.
        code: Category of the label; None where it is safe.
    """

    start: int
    end: int
    label: str
    code: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """One text and what it violates.

    Attributes:
        id: Unique in its set.
        text: As a user would send it.
        codes: Violated categories, ascending; empty means safe.
        language: ISO 639-1 code; "und" where the data does not say.
        template_id: The set's own, or a fingerprint of the masked text: texts of one template share it.
        situation: What the text is about; empty where the data does not say.
        spans: Labelled stretches in the data's order.
        clause_ids: Clauses the text is composed of; empty where it is not.
    """

    id: str
    text: str
    codes: tuple[str, ...]
    language: str
    template_id: str
    situation: str
    spans: tuple[Span, ...]
    clause_ids: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The right answer."""
        return Verdict(self.codes)


def _row_codes(column: pa.Array, code_of: Callable[[list[str]], list[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """Maps a list column of tags, or of structs with a label, to the codes of each row.

    Each distinct tag is decided once and becomes a bit set; rows are joined by "or" over their stretch of the column.
    """
    tags, lengths = pc.list_flatten(column), pc.list_value_length(column).to_numpy()
    encoded = (pc.struct_field(tags, "label") if pa.types.is_struct(tags.type) else tags).dictionary_encode()
    of_tag = code_of(encoded.dictionary.to_pylist())
    codes = Verdict.of(code for found in of_tag for code in found).codes
    bits = np.array([sum(1 << codes.index(code) for code in found) for found in of_tag], dtype=np.int64)
    rows = np.zeros(len(lengths), dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])[lengths > 0] if len(lengths) else lengths
    if len(starts):
        rows[lengths > 0] = np.bitwise_or.reduceat(bits[encoded.indices.to_numpy()], starts)
    of_bits = {b: tuple(c for i, c in enumerate(codes) if b >> i & 1) for b in np.unique(rows).tolist()}
    return [of_bits[b] for b in rows.tolist()]


def _table_codes(table: pa.Table, schema: Schema, label_map: LabelMap, place: str) -> list[tuple[str, ...]]:
    column = table[schema.labels].combine_chunks()

    def where(tag: str) -> tuple[int, int, str]:
        """How often a tag stands, in which row first, and that row's text."""
        tags = pc.list_flatten(column)
        hits = pc.equal(pc.struct_field(tags, "label") if pa.types.is_struct(tags.type) else tags, tag)
        row = pc.list_parent_indices(column)[pc.index(hits, True).as_py()].as_py()
        return pc.sum(hits).as_py(), row, table[schema.text][row].as_py()

    def code_of(tags: list[str]) -> list[tuple[str, ...]]:
        decided: list[tuple[str, ...]] = []
        counts: defaultdict[str, int] = defaultdict(int)
        examples: dict[str, str] = {}
        for tag in tags:
            try:
                label = bio_label(tag) if schema is SCHEMA_65K else tag
            except ValueError as error:
                raise DataError(f"{place}, row {where(tag)[1] + 1}, field {schema.labels!r}: {error}") from None
            if label is not None and label not in label_map.by_label:
                count, row, text = where(tag)
                counts[label] += count
                examples.setdefault(label, f"{place}, row {row + 1}, field {schema.labels!r}: {text[:80]!r}")
                continue
            decided.append(() if label is None else label_map.codes([label]))
        if counts:
            raise UnknownLabelError(label_map.name, counts, examples)
        return decided

    return _row_codes(column, code_of)


def reference_codes(rows: Any, *, rules: str) -> list[tuple[str, ...]]:
    """Codes of each row by the reference's substring rules, for comparison only.

    Args:
        rows: A data set or plain rows.
        rules: "training" (keys for 65k) or "evaluation" (keys for 200k; reads `mbert_bio_labels` where present).

    Raises:
        ValueError: Other rules.
    """
    by_name = {"training": reference_codes_training, "evaluation": reference_codes_evaluation}
    if rules not in by_name:
        raise ValueError(f"rules is {rules!r}; use 'training' or 'evaluation'")
    table, schema = as_table(rows, "rows")
    field = "mbert_bio_labels" if "mbert_bio_labels" in table.column_names else schema.labels
    return _row_codes(table[field].combine_chunks(), lambda tags: [by_name[rules]([tag]) for tag in tags])


def reference_selection(codes: Sequence[Sequence[str]], *, kind: str, n: int = 999) -> list[int]:
    """Positions of the rows that the reference evaluates: the first `n` in file order.

    Args:
        codes: Codes of each row, in file order.
        kind: "single" (at most one code) or "multi" (two or more).
        n: At most so many.

    Raises:
        ValueError: Another kind.
    """
    if kind not in ("single", "multi"):
        raise ValueError(f"kind is {kind!r}; use 'single' or 'multi'")
    return list(islice((i for i, found in enumerate(codes) if (len(found) > 1) == (kind == "multi")), n))


def training_lines(rows: Any, label_map: LabelMap, *, place: str = "rows") -> Iterator[dict[str, str]]:
    """Maps rows to lines `{"id", "text", "answer"}`: the fast way, for sets whose spans are not needed.

    Everything is checked before the first line.

    Raises:
        DataError: See `load`.
        UnknownLabelError: Lists every label that the map does not decide.
    """
    table, schema = as_table(rows, place)
    codes = _table_codes(table, schema, label_map, place)
    answers = {found: Verdict(found).text for found in set(codes)}
    ids, texts = (table[name].to_pylist() for name in ("id", schema.text))
    return ({"id": i, "text": t, "answer": answers[c]} for i, t, c in zip(ids, texts, codes, strict=True))


def rows_fingerprint(examples: Iterable[Example]) -> str:
    """Identifies examples by their ids, texts and codes, in order: equal on every machine for equal data (SHA-256)."""
    lines = (json.dumps([example.id, example.text, example.codes]) for example in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _template_fingerprint(masked: str) -> str:
    """Names a template by its masked text, alike for both schemas: `[PHONE_NUMBER_1]` and `[PHONENUMBER]` are one."""
    plain = re.sub(r"\[([A-Z][A-Z0-9_]*?)(?:_\d+)?\]", lambda slot: f"[{slot[1].replace('_', '')}]", masked)
    return "t" + hashlib.blake2b(" ".join(plain.split()).casefold().encode(), digest_size=8).hexdigest()


def _mask_spans(row: Mapping[str, Any], text: str) -> Iterator[tuple[int, int, str]]:
    """Spans of a 200k row; offsets -1 where the value does not stand at them."""
    for mask in row["privacy_mask"]:
        start, end = mask["start"], mask["end"]
        stands = 0 <= start < end <= len(text) and text[start:end] == mask["value"]
        yield (start, end, mask["label"]) if stands else (-1, -1, mask["label"])


def _fold(text: str) -> str:
    """Removes case and accents character by character, so that offsets stay."""
    return text.lower() if text.isascii() else "".join(unicodedata.normalize("NFD", c)[0].lower()[0] for c in text)


def _token_spans(row: Mapping[str, Any], text: str) -> Iterator[tuple[int, int, str]]:
    """Spans of a 65k row, which has no offsets: tokens are looked for in the text from left to right.

    A token's `##` (WordPiece) or `\u2581` (SentencePiece) is no part of the text; case and accents may differ.
    """
    folded = _fold(text)
    places: list[tuple[int, int]] = []
    cursor = 0
    for token in row["tokenised_unmasked_text"]:
        piece = _fold(token.removeprefix("##").lstrip("\u2581"))
        at = folded.find(piece, cursor) if piece else -1
        # A token far from the last one is a chance hit behind an unknown token, not its place.
        near = at >= 0 and at - cursor <= 40
        places.append((at, at + len(piece)) if near else (-1, -1))
        cursor = places[-1][1] if near else cursor
    for label, first, last in bio_entities(row["token_entity_labels"]):
        whole = all(start >= 0 for start, _ in places[first:last])
        yield (places[first][0], places[last - 1][1], label) if whole else (-1, -1, label)


def to_examples(rows: Any, label_map: LabelMap, *, place: str = "rows") -> list[Example]:
    """Maps rows to examples, in the rows' order.

    Args:
        rows: What `load` returns, or plain rows of either schema.
        label_map: The map of this data set, e.g. `PII_200K`.
        place: Name of the source, for errors.

    Raises:
        DataError: See `load`.
        UnknownLabelError: Lists every label that the map does not decide.

    Warns:
        UserWarning: Some values do not stand at their offsets. Their labels count; their spans get offsets -1.
    """
    table, schema = as_table(rows, place)
    codes = iter(_table_codes(table, schema, label_map, place))
    spans_of = _token_spans if schema is SCHEMA_65K else _mask_spans
    examples = []
    for batch in table.to_batches(max_chunksize=_CHUNK):
        for row in batch.to_pylist():
            text = row[schema.text]
            spans = tuple(Span(s, e, label, label_map.by_label[label].code) for s, e, label in spans_of(row, text))
            examples.append(
                Example(
                    id=row["id"],
                    text=text,
                    codes=next(codes),
                    language=row.get("language") or "und",
                    template_id=row.get("template_id") or _template_fingerprint(row[schema.masked]),
                    situation=row.get("situation") or "",
                    spans=spans,
                    clause_ids=tuple(row.get("clause_ids") or ()),
                )
            )
    adrift = sum(span.start < 0 for example in examples for span in example.spans)
    if adrift:
        warnings.warn(f"{place}: {adrift} values do not stand at their offsets; their labels count", stacklevel=2)
    return examples


def split(
    examples: Iterable[Example], *, seed: int, fractions: Mapping[str, float] | None = None
) -> dict[str, list[Example]]:
    """Splits examples so that a template is in one part only.

    A template's part follows from its id and the seed alone: neither order nor the other examples matter, and a part
    gets its fraction of the *templates* in expectation.

    Args:
        examples: Any number.
        seed: Another seed gives another split.
        fractions: Part to share, adding up to 1; train .8, validation .1 and test .1 if left out.

    Returns:
        Part to its examples, in the given order.

    Raises:
        ValueError: A share is not above 0 or they do not add up to 1.
    """
    shares = dict(fractions or {"train": 0.8, "validation": 0.1, "test": 0.1})
    if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"fractions {shares} must each be above 0 and add up to 1")
    names, bounds = list(shares), np.cumsum(list(shares.values()))
    parts: dict[str, list[Example]] = {name: [] for name in names}
    for example in examples:
        digest = hashlib.blake2b(f"{seed}:{example.template_id}".encode(), digest_size=8).digest()
        draw = int.from_bytes(digest, "big") / 2**64
        parts[names[min(int(np.searchsorted(bounds, draw, side="right")), len(names) - 1)]].append(example)
    return parts
