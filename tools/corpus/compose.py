"""The embedded corpus: short clauses composed into texts, with the privacy values they contain.

A text is composed, not picked: clauses about a few privacy categories, harmless ones and look-alikes are drawn from a
bank of our own, shuffled, joined as prose or set as a record (JSON, log line, form, ...), and their slots filled with
values of many countries. Rows have the schema of ai4privacy/pii-masking-200k, so the same label maps serve both.

Splits are disjoint in clauses and in values; some situations occur in the validation or the test split only.
"""

import random
import re
import tomllib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from guard_utils.data.labels import PII_200K
from guard_utils.policy import PII
from tools.corpus.formats import FORMATS
from tools.corpus.values import Piece, Split, Values, config

HERE = Path(__file__).parent
LANGUAGES = ("en", "de", "fr", "it")
LANGUAGE_SHARES = (0.85, 0.05, 0.05, 0.05)
# Clauses drawn; some carry two or three categories themselves, so that texts hold more than these.
CATEGORY_COUNTS = {0: 0.3, 1: 0.42, 2: 0.17, 3: 0.07, 4: 0.03, 5: 0.01}
# Names and places are the open classes: they need more examples than numbers with a grammar.
CODE_WEIGHTS = {"S1": 1.5, "S2": 0.8, "S3": 1.0, "S4": 1.7, "S5": 1.0}
RECORD_SHARE = 0.18
SEPARATORS = (" ", " ", " ", " ", "\n", ", ", " - ", "; ", "\n\n", " ... ", " and ", "\n* ")
# Machine formats write `street_address`, people write `Street address`.
_SLOT = re.compile(r"\{([a-z0-9_]+)\}")


@dataclass(frozen=True)
class Clause:
    """A sentence or fragment with slots.

    Attributes:
        id: Stable: language, situation and a checksum of the text.
        language: Of the text.
        situation: What the clause is about, for example `parcel_locker`.
        parts: Text and slot names in turn; odd places are slots.
        codes: Privacy categories its slots may stand for.
        split: The only split that uses it.
    """

    id: str
    language: str
    situation: str
    parts: tuple[str, ...]
    codes: frozenset[str]
    split: Split


@cache
def _fields() -> dict[str, Any]:
    return tomllib.loads((HERE / "fields.toml").read_text(encoding="utf-8"))


@cache
def slot_codes(slot: str) -> frozenset[str]:
    """Privacy categories that a value of a slot always or sometimes belongs to."""
    label = config()["labels"].get(slot)
    if label is not None:
        return frozenset(PII_200K.codes([label]))
    if slot.startswith("street"):
        return frozenset({"S4"})
    inner = {name for pattern in config()["patterns"].get(slot, []) for name in _SLOT.findall(pattern)}
    return frozenset().union(*(slot_codes(name) for name in inner))


def _bucket(text: str) -> int:
    return zlib.crc32(text.encode()) % 20


def clause_split(text: str, situation: str) -> Split:
    """The split of a clause: that of its situation where one is kept from training, else by checksum of its text.

    Of the situations that training sees, one in five lends clauses to the test too: about as many as are kept from it.
    """
    whole, own = _bucket(f"situation:{situation}"), _bucket(text.casefold())
    if whole < 2 or (whole in (2, 4, 5, 6) and own < 6):
        return "test"
    return "validation" if whole == 3 or own in (6, 7) else "train"


@cache
def load_clauses() -> tuple[Clause, ...]:
    """Reads the clause bank, in file and line order; see `read_bank` for errors."""
    return read_bank(HERE / "clauses", split_of=clause_split)


def read_bank(folder: Path, *, split_of: Callable[[str, str], Split]) -> tuple[Clause, ...]:
    """Reads the clauses of a folder with a folder for each language, in file and line order.

    Args:
        folder: Holds `<language>/*.txt`: lines `[situation]`, each followed by its clauses.
        split_of: Text and situation of a clause to its split.

    Raises:
        ValueError: A line outside a situation or a clause that stands twice, with file and line.
    """
    clauses: dict[tuple[str, str], Clause] = {}
    for language in LANGUAGES:
        for file in sorted((folder / language).glob("*.txt")):
            situation = ""
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                text = line.strip()
                if text.startswith("[") and text.endswith("]"):
                    situation = text[1:-1]
                elif text:
                    if not situation or (language, text) in clauses:
                        raise ValueError(
                            f"{file.name}:{number}: clause stands twice or outside a [situation]: {line!r}"
                        )
                    clauses[language, text] = _clause(text, language, situation, split_of(text, situation))
    return tuple(clauses.values())


def _clause(text: str, language: str, situation: str, split: Split) -> Clause:
    parts = tuple(_SLOT.split(text))
    return Clause(
        id=f"{language}-{situation}-{zlib.crc32(text.encode()):08x}",
        language=language,
        situation=situation,
        parts=parts,
        codes=frozenset().union(*(slot_codes(slot) for slot in parts[1::2])),
        split=split,
    )


@cache
def _bank(language: str, split: Split) -> dict[str, tuple[Clause, ...]]:
    """A language's and split's clauses by category, `safe` for those without one, and all `:situation`s."""
    bank: dict[str, list[Clause]] = {}
    for clause in load_clauses():
        if clause.language == language and clause.split == split:
            for key in sorted(clause.codes) or ["safe"]:
                bank.setdefault(key, []).append(clause)
                bank.setdefault(f"{key}:{clause.situation}", []).append(clause)
    return {key: tuple(clauses) for key, clauses in bank.items()}


class _Composer:
    """Composes the rows of one split with one random generator."""

    def __init__(self, split: Split, rng: random.Random) -> None:
        self.split = split
        self.rng = rng
        self.banks = {language: _bank(language, split) for language in LANGUAGES}
        # A small language may lack clauses about a category in a small split, which then does without the language.
        whole = [i for i, language in enumerate(LANGUAGES) if set(self.banks[language]) >= {*PII.codes, "safe"}]
        self.languages = [LANGUAGES[i] for i in whole], [LANGUAGE_SHARES[i] for i in whole]
        self.values = {language: Values(language=language, split=split, rng=rng) for language in LANGUAGES}

    def row(self, row_id: str, *, simple: bool) -> dict[str, Any]:
        rng = self.rng
        (language,) = rng.choices(*self.languages)
        (count,) = rng.choices(list(CATEGORY_COUNTS), list(CATEGORY_COUNTS.values()))
        codes = self._codes(min(count, 1) if simple else count)
        clauses: list[Clause] = []
        if rng.random() < RECORD_SHARE:
            pieces = self._record(language, codes, others=1 if simple else 5)
        else:
            clauses = self._clauses(language, codes, simple=simple)
            pieces = self._prose(language, clauses, framed=not simple)
        return render_row(row_id, pieces, clauses, language=language, split=self.split)

    def _codes(self, count: int) -> list[str]:
        """Different categories, drawn one by one by weight."""
        weights = dict(CODE_WEIGHTS)
        codes: list[str] = []
        for _ in range(count):
            codes += self.rng.choices(list(weights), list(weights.values()))
            del weights[codes[-1]]
        return codes

    def _clauses(self, language: str, codes: Sequence[str], *, simple: bool) -> list[Clause]:
        rng, bank = self.rng, self.banks[language]
        (harmless,) = (
            rng.choices((0, 1, 2, 3), (0.35, 0.35, 0.2, 0.1))
            if codes
            else rng.choices((1, 2, 3, 4), (0.45, 0.3, 0.15, 0.1))
        )
        if simple:
            harmless = 0 if codes else 1
        keys = [*codes, *["safe"] * harmless]
        rng.shuffle(keys)
        clauses: list[Clause] = []
        for key in keys:
            # Most texts keep to their subject, so that the mix itself betrays nothing.
            near = bank.get(f"{key}:{clauses[0].situation}") if clauses and rng.random() < 0.6 else None
            clause = rng.choice(near or bank[key])
            if clause not in clauses:
                clauses.append(clause)
        return clauses

    def _prose(self, language: str, clauses: Sequence[Clause], *, framed: bool) -> list[Piece]:
        rng = self.rng
        frames = _fields()["frames"]
        separator = " " if rng.random() < 0.5 else rng.choice(SEPARATORS)
        pieces: list[Piece] = []
        if framed and rng.random() < 0.13:
            pieces += self._fill(language, tuple(_SLOT.split(rng.choice(frames["openings"][language]))))
        for number, clause in enumerate(clauses):
            if number:
                pieces.append(Piece(_joint(pieces[-1], separator)))
            pieces += self._fill(language, clause.parts)
        if framed and rng.random() < 0.13:
            pieces += self._fill(language, tuple(_SLOT.split(rng.choice(frames["closings"][language]))))
        return self._restyle(pieces)

    def _fill(self, language: str, parts: Sequence[str]) -> list[Piece]:
        pieces: list[Piece] = []
        for place, part in enumerate(parts):
            pieces += self.values[language].pieces(part) if place % 2 else [Piece(part)] if part else []
        return pieces

    def _restyle(self, pieces: list[Piece]) -> list[Piece]:
        """Lower case as in a chat, capitals, or a missing full stop, now and then."""
        style = self.rng.random()
        change: Callable[[str], str] | None = str.lower if style < 0.12 else str.upper if style < 0.135 else None
        if change is not None:
            pieces = [Piece(change(piece.text), piece.label) for piece in pieces]
        elif style < 0.2:  # "hi carmen, ...": the name alone, as thumbs type it
            names = ("FIRSTNAME", "LASTNAME")
            pieces = [Piece(p.text.lower(), p.label) if p.label in names else p for p in pieces]
        if self.rng.random() < 0.15 and pieces[-1].label is None:
            pieces[-1] = Piece(pieces[-1].text.rstrip(".!"))
        return pieces

    def _record(self, language: str, codes: Sequence[str], *, others: int) -> list[Piece]:
        """A machine-made or filled-in text: fields and values in one of several formats."""
        rng = self.rng
        keys: dict[str, list[str]] = _fields()["keys"]["en"]
        own: dict[str, list[str]] = _fields()["keys"][language]
        by_code: dict[str, list[str]] = {}
        for slot in keys:
            for code in sorted(slot_codes(slot)) or ["safe"]:
                by_code.setdefault(code, []).append(slot)
        slots = [rng.choice(by_code[code]) for code in codes]
        slots += [rng.choice(by_code["safe"]) for _ in range(rng.randint(0 if slots else 1, others))]
        rng.shuffle(slots)
        fields = [
            (rng.choice(own.get(slot) or keys[slot]), self.values[language].pieces(slot))
            for slot in dict.fromkeys(slots)
        ]
        return rng.choice(FORMATS)(fields, rng)


def _joint(before: Piece, separator: str) -> str:
    """The separator, with a full stop where two sentences would run into one."""
    ended = before.text.endswith((".", "!", "?", ":", ","))
    return separator.lstrip(",;") if ended else separator if separator.strip() or "\n" in separator else "." + separator


def render_row(
    row_id: str, pieces: Sequence[Piece], clauses: Sequence[Clause], *, language: str, split: Split
) -> dict[str, Any]:
    """Makes a row of the 200k schema of pieces; without clauses it is a record."""
    row = labelled(pieces)
    text = row["source_text"]
    shift = len(text) - len(text.lstrip())
    for span in row["privacy_mask"]:
        span["start"] -= shift
        span["end"] -= shift
    ids = [clause.id for clause in clauses]
    return {
        "id": row_id,
        "source_text": text.strip(),
        "target_text": row["target_text"].strip(),
        "privacy_mask": row["privacy_mask"],
        "language": language,
        # Texts that share their first clause may share errors: the unit that intervals resample.
        "template_id": ids[0] if ids else f"{language}-record-{row_id}",
        "situation": clauses[0].situation if clauses else "record",
        "clause_ids": ids,
        "split": split,
    }


def labelled(pieces: Sequence[Piece]) -> dict[str, Any]:
    """Text, masked text and spans of pieces, as in the 200k schema; offsets count characters."""
    text, masked, spans = "", "", list[dict[str, Any]]()
    for piece in pieces:
        start, text = len(text), text + piece.text
        masked += f"[{piece.label}]" if piece.label else piece.text
        if piece.label:
            spans.append({"value": piece.text, "start": start, "end": len(text), "label": piece.label})
    return {"source_text": text, "target_text": masked, "privacy_mask": spans}


def generate(n: int, *, split: Split, seed: int = 0, simple: bool = False) -> Iterator[dict[str, Any]]:
    """Generates rows of a split.

    Args:
        n: How many.
        split: `train`, `validation` or `test`; splits share no clause and no pooled value.
        seed: Same seed, same bytes, on every machine.
        simple: One clause or one field a text: what a young model should read first.

    Yields:
        Rows of the 200k schema plus `template_id`, `situation`, `clause_ids` and `split`.
    """
    kind = f"{split}-simple" if simple else split
    composer = _Composer(split, random.Random(f"{seed}:{kind}"))
    for number in range(n):
        yield composer.row(f"{kind}-{seed}-{number:06d}", simple=simple)
