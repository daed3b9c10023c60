"""From rows to examples and training lines, and splits by template.

Does: map labels to codes, each distinct label decided once; find where the labelled values are in a text. Does not:
read files (`rows`), decide what a label means (`labels`), compare sets (`leakage`).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import warnings
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from guard_utils.data.labels import LabelMap, UnknownLabelError, bio_label
from guard_utils.data.rows import SCHEMA_65K, DataError, Schema, as_table
from guard_utils.policy import Verdict


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled stretch of a text.

    Attributes:
        start: First character; -1 where the value is not found in the text.
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
        UserWarning: Some values are not at their offsets. Their labels count; their spans get offsets -1.
    """
    table, schema = as_table(rows, place)
    spans_of = _token_spans if schema is SCHEMA_65K else _mask_spans
    examples = []
    plain = (row for batch in table.to_batches(max_chunksize=10_000) for row in batch.to_pylist())
    for row, codes in zip(plain, _codes(table, schema, label_map, place), strict=True):
        spans = spans_of(row, row[schema.text])
        examples.append(
            Example(
                id=row["id"],
                text=row[schema.text],
                codes=codes,
                language=row.get("language") or "und",
                template_id=row.get("template_id") or _template_fingerprint(row[schema.masked]),
                situation=row.get("situation") or "",
                spans=tuple(Span(*span, label_map.by_label[span[2]].code) for span in spans),
                clause_ids=tuple(row.get("clause_ids") or ()),
            )
        )
    lost = sum(span.start < 0 for example in examples for span in example.spans)
    if lost:
        warnings.warn(f"{place}: {lost} values are not at their offsets; their labels count", stacklevel=2)
    return examples


def training_lines(rows: Any, label_map: LabelMap, *, place: str = "rows") -> Iterator[dict[str, str]]:
    """Maps rows to lines `{"id", "text", "answer"}`: the fast way, for sets whose spans are not needed.

    Everything is checked before the first line.

    Raises:
        DataError: See `load`.
        UnknownLabelError: Lists every label that the map does not decide.
    """
    table, schema = as_table(rows, place)
    codes = _codes(table, schema, label_map, place)
    answers = {found: Verdict(found).text for found in set(codes)}
    ids, texts = table["id"].to_pylist(), table[schema.text].to_pylist()
    return ({"id": i, "text": t, "answer": answers[c]} for i, t, c in zip(ids, texts, codes, strict=True))


def _codes(table: pa.Table, schema: Schema, label_map: LabelMap, place: str) -> list[tuple[str, ...]]:
    """Codes of each row. Each distinct label is decided once, each distinct list of codes is put in order once."""
    column = table[schema.labels].combine_chunks()
    values = column.flatten()
    tags = (pc.struct_field(values, "label") if pa.types.is_struct(values.type) else values).dictionary_encode()
    numbers = tags.indices.to_numpy()
    ends = np.concatenate([[0], np.cumsum(pc.list_value_length(column))])
    decided: list[str] = []  # code of each distinct tag; empty where it is safe
    unknown: Counter[str] = Counter()
    first: dict[str, str] = {}
    for number, tag in enumerate(tags.dictionary.to_pylist()):
        hits = np.flatnonzero(numbers == number)
        row = int(np.searchsorted(ends, hits[0], side="right"))
        where = f"{place}, row {row}, field {schema.labels!r}: {table[schema.text][row - 1].as_py()[:80]!r}"
        try:
            label = bio_label(tag) if schema is SCHEMA_65K else tag
        except ValueError as error:
            raise DataError(f"{where}: {error}; correct the row or remove it") from None
        if label is not None and label not in label_map.by_label:
            unknown[label] += len(hits)
            first.setdefault(label, where)
            label = None
        decided.append("" if label is None else label_map.by_label[label].code or "")
    if unknown:
        raise UnknownLabelError(label_map.name, unknown, first)

    @cache
    def ordered(codes: tuple[str, ...]) -> tuple[str, ...]:
        return Verdict.of(codes).codes

    # Most labels are safe; what is left of each row is short, and the same few lists come again and again.
    violates = np.array([code != "" for code in decided], dtype=bool)[numbers]
    codes = tuple([decided[number] for number in numbers[violates].tolist()])
    ends = np.concatenate([[0], np.cumsum(violates)])[ends]
    return [ordered(codes[start:end]) for start, end in pairwise(ends.tolist())]


def _mask_spans(row: Mapping[str, Any], text: str) -> Iterable[tuple[int, int, str]]:
    """Spans of a 200k row, which has offsets."""
    for mask in row["privacy_mask"]:
        start, end = mask["start"], mask["end"]
        right = 0 <= start < end <= len(text) and text[start:end] == mask["value"]
        yield (start, end, mask["label"]) if right else (-1, -1, mask["label"])


def _token_spans(row: Mapping[str, Any], text: str) -> Iterable[tuple[int, int, str]]:
    """Spans of a 65k row, which has no offsets: tokens are looked for in the text from left to right.

    A token's `##` (WordPiece) or `\u2581` (SentencePiece) is no part of the text; case and accents may differ. `B-`
    opens a span and `I-` of the same label continues it; an `I-` with nothing to continue opens one.
    """
    folded, cursor, previous = _fold(text), 0, None
    spans: list[tuple[int, int, str]] = []
    for token, tag in zip(row["tokenised_unmasked_text"], row["token_entity_labels"], strict=True):
        piece = _fold(token.removeprefix("##").lstrip("\u2581"))
        # A hit far from the last token is chance behind an unknown token, not this token's place.
        start = folded.find(piece, cursor, cursor + 40 + len(piece)) if piece else -1
        cursor = start + len(piece) if start >= 0 else cursor
        label = bio_label(tag)
        if label is not None:
            continues = tag.startswith("I-") and label == previous
            opening = spans.pop()[0] if continues else start
            spans.append((opening, cursor, label) if min(opening, start) >= 0 else (-1, -1, label))
        previous = label
    return spans


def _fold(text: str) -> str:
    """Removes case and accents character by character, so that offsets stay."""
    return text.lower() if text.isascii() else "".join(unicodedata.normalize("NFD", c)[0].lower()[0] for c in text)


def _template_fingerprint(masked: str) -> str:
    """Names a template by its masked text, alike for both schemas: `[PHONE_NUMBER_1]` and `[PHONENUMBER]` are one."""
    plain = re.sub(r"\[([A-Z][A-Z0-9_]*?)(?:_\d+)?\]", lambda slot: f"[{slot[1].replace('_', '')}]", masked)
    return "t" + hashlib.blake2b(" ".join(plain.split()).casefold().encode(), digest_size=8).hexdigest()


def rows_fingerprint(examples: Iterable[Example]) -> str:
    """Identifies examples by their ids, texts and codes, in order: equal on every machine for equal data (SHA-256)."""
    lines = (json.dumps([example.id, example.text, example.codes]) for example in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


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


def split_by_template(
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
    names, bounds = list(shares), list(accumulate(shares.values()))
    parts: dict[str, list[Example]] = {name: [] for name in shares}
    for example in examples:
        digest = hashlib.blake2b(f"{seed}:{example.template_id}".encode(), digest_size=8).digest()
        draw = int.from_bytes(digest, "big") / 2**64
        parts[names[min(bisect(bounds, draw), len(names) - 1)]].append(example)
    return parts
