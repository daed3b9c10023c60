"""From rows to examples.

Does: map the labels of a row to codes; warn of rows whose parts contradict each other. Does not:
read files (`rows`), decide what a label means (`labels`), compare sets (`leaks`).
"""

import hashlib
import json
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from guard_utils.data.labels import LabelMap, UnknownLabelError
from guard_utils.data.rows import SCHEMA_65K, SCHEMA_200K, Schema, checked_rows
from guard_utils.policy import Role, Verdict, require_list


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled stretch of a text.

    Attributes:
        start: First character; -1 where the place of the value is not known.
        end: Character after the last; -1 likewise.
        code: Category of the data set's `label`; None where it is safe.
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
        masked: The set's text with `[LABEL]` in place of each value, the same for `[PHONE_NUMBER_1]` and
            `[PHONENUMBER]`; empty where the data has none.
        turns: (role, text) of a conversation whose last text this is; empty for a message of a user alone.
    """

    id: str
    text: str
    codes: tuple[str, ...]
    language: str
    template_id: str
    situation: str
    spans: tuple[Span, ...]
    clause_ids: tuple[str, ...] = ()
    masked: str = ""
    turns: tuple[tuple[Role, str], ...] = ()

    @property
    def conversation(self) -> tuple[tuple[Role, str], ...]:
        """The turns, or that of the text alone."""
        return self.turns or (("User", self.text),)

    @property
    def verdict(self) -> Verdict:
        """The right answer."""
        return Verdict(self.codes)


def to_examples(rows: Any, label_map: LabelMap, *, place: str = "rows") -> list[Example]:
    """Maps rows to examples, in the rows' order.

    Args:
        rows: What `load` returns, or plain rows of either schema.
        label_map: The map of this data set, e.g. `PII_200K`.
        place: Name of the source, for errors and warnings.

    Raises:
        DataError: Lists the rows that cannot be read or trained on.
        UnknownLabelError: Lists every label that the map does not decide.

    Warns:
        UserWarning: Rows contradict themselves: how many in which way. They are returned, with the labels they have.
    """
    checked, schema = checked_rows(rows, place)
    rules = label_map.by_label
    examples: list[Example] = []
    unknown: dict[str, list[str]] = defaultdict(list)
    contradictions: dict[str, list[str]] = defaultdict(list)
    for number, row in enumerate(checked, 1):
        spans, masked = _spans(row, schema), _normalised(row[schema.masked])
        labels = [label for _, _, label in spans]
        fingerprint = hashlib.blake2b(" ".join(masked.split()).casefold().encode(), digest_size=8).hexdigest()
        for label in labels:
            if label not in rules:
                unknown[label].append(f"{place}, row {number}, field {schema.labels!r}: {row[schema.text][:80]!r}")
        for kind, what in _contradictions(row, schema, masked, spans):
            contradictions[kind].append(f"row {number} {what}")
        if unknown:
            continue
        example = Example(
            id=row["id"],
            text=row[schema.text],
            codes=label_map.codes(labels),
            language=row.get("language") or "und",
            template_id=row.get("template_id") or f"t{fingerprint}",
            situation=row.get("situation") or "",
            spans=tuple(Span(start, end, label, rules[label].code) for start, end, label in spans),
            clause_ids=tuple(row.get("clause_ids") or ()),
            masked=masked,
        )
        examples.append(example)
    if unknown:
        raise UnknownLabelError(label_map.name, unknown)
    if contradictions:
        kinds = [f"\n{len(hits):>6} rows: {kind}; first {hits[0]}" for kind, hits in contradictions.items()]
        head = f"{place}: parts of a row contradict each other; its labels count as they are, check them:"
        warnings.warn(head + "".join(kinds), stacklevel=2)
    return examples


def _spans(row: Mapping[str, Any], schema: Schema) -> list[tuple[int, int, str]]:
    """Start, end and label of each value: 65k does not say where a value is, 200k does, and sometimes wrongly."""
    spans = []
    if schema is SCHEMA_65K:
        previous = None
        for tag in row[schema.labels]:
            label = tag[2:]  # nothing is left of "O"
            if label and not (tag.startswith("I-") and label == previous):
                spans.append((-1, -1, label))
            previous = label
        return spans
    text = row[schema.text]
    for mask in row[schema.labels]:
        start, end = mask["start"], mask["end"]
        right = 0 <= start < end <= len(text) and text[start:end] == mask["value"]
        spans.append((start, end, mask["label"]) if right else (-1, -1, mask["label"]))
    return spans


_SLOT = re.compile(r"\[([\w -]+?)(?:_\d+)?\]")


def _normalised(masked: str) -> str:
    """Spells placeholders alike for both schemas: `[PHONE_NUMBER_1]` and `[PHONENUMBER]` are one."""
    if "_" not in masked:
        return masked
    return _SLOT.sub(lambda slot: f"[{slot[1].replace('_', '')}]", masked)


def _contradictions(
    row: Mapping[str, Any], schema: Schema, masked: str, spans: Sequence[tuple[int, int, str]]
) -> Iterator[tuple[str, str]]:
    """Yields kind and detail of what the parts of a row disagree about."""
    text = row[schema.text]
    if schema is SCHEMA_200K and row[schema.masked] == _masked(text, spans):
        return
    listed = Counter(_SLOT.findall(_normalised("".join(f"[{label}]" for _, _, label in spans))))
    # Brackets that the text has too, or in small letters, are no placeholders: `[see below]`.
    slots = Counter(_SLOT.findall(masked)) - Counter(_SLOT.findall(_normalised(text)))
    slots = Counter({slot: count for slot, count in slots.items() if slot.isupper() or slot in listed})
    if schema is SCHEMA_65K:
        # A masked text may name a value twice that is tagged once.
        listed, slots = Counter(listed.keys()), Counter(slots.keys())
        tokens, tags = row[schema.more[0]], row[schema.labels]
        if len(tokens) != len(tags):
            yield f"{schema.labels} and {schema.more[0]} differ in length", f"has {len(tags)} and {len(tokens)}"
        if not {"[UNK]", "<unk>"} & set(tokens) and not _letters(text).startswith(_letters("".join(tokens))):
            yield f"{schema.more[0]} are not those of {schema.text}", f"begins {tokens[:5]}"
    elif lost := [label for start, _, label in spans if start < 0]:
        yield "a value is not at its offsets", f"has {lost}"
    if lost := list((listed - slots).elements()):
        yield f"a label of {schema.labels} is not in {schema.masked}", f"has {lost}"
    if lost := list((slots - listed).elements()):
        yield f"a label of {schema.masked} is not in {schema.labels}", f"has {lost}"
    place, pieces = 0, _SLOT.split(masked)[::2]
    fits = text.startswith(pieces[0]) and text.endswith(pieces[-1])
    for piece in pieces:
        found = text.find(piece, place)
        fits, place = fits and found >= 0, found + len(piece)
    if not fits:
        yield f"{schema.masked} is not {schema.text} with values replaced", f"begins {text[:40]!r}"


def _masked(text: str, spans: Sequence[tuple[int, int, str]]) -> str | None:
    """The text with `[LABEL]` in place of each value; None where a value has no place, or overlaps another."""
    parts, done = [], 0
    for start, end, label in sorted(spans):
        if start < done:
            return None
        parts += [text[done:start], f"[{label}]"]
        done = end
    return "".join([*parts, text[done:]])


def _letters(text: str) -> str:
    """Letters and digits of a text without case and accents, as far as tokenizers agree about them."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", text).lower())


def rows_fingerprint(examples: Iterable[Example]) -> str:
    """Identifies examples by their ids, texts and codes, in order: equal on every machine for equal data (SHA-256)."""
    lines = (json.dumps([each.id, each.turns or each.text, each.codes]) for each in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def reference_selection(codes: Sequence[Sequence[str]], *, kind: str, n: int = 999) -> list[int]:
    """Positions of the rows that the reference evaluates: the first `n` in file order of the codes of each row.

    Those of `kind` "single" have at most one code, those of "multi" two or more.
    """
    if kind not in ("single", "multi"):
        raise ValueError(f"kind is {kind!r}; use 'single' or 'multi'")
    for found in (codes, *codes):
        require_list(found, "codes")
    return list(islice((i for i, found in enumerate(codes) if (len(found) > 1) == (kind == "multi")), n))
