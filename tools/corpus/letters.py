"""Letters: messages of schools, clinics, shops and offices with values of many kinds, few of which are a category.

Frames stand in `letters/<language>/*.txt`, by situation, and are whole messages with slots; `letters.toml` fills them.
They complete the first bank of clauses: more kinds of values in one text, values without a word that names them, and
sentences that an automatic message put together. A letter is never in a test set: splits are train and validation.
"""

import random
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from tools.corpus.compose import HERE, LANGUAGES, Clause, read_bank, render_row
from tools.corpus.values import Piece, Split, Values

LANGUAGE_SHARES = (0.85, 0.05, 0.05, 0.05)
FRAME_COUNTS = {1: 0.6, 2: 0.32, 3: 0.08}
# Frames about numbers are fewer than those about names and places, and are drawn more often.
CODE_WEIGHTS = {"S2": 3.0, "S3": 1.8, "S5": 2.2}
JOINTS = (" ", " ", " ", "\n", "\n\n", "\n- ")
ROWS_PER_LETTER = 8  # of notebook 07's training rows
DISGUISED_SHARE = 0.04
"""Texts whose private values are written so that software overlooks them."""
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LOOK_ALIKES = str.maketrans("aeopcxAEOPCTHKB", "аеорсхАЕОРСТНКВ")


def _checksum(text: str) -> int:
    return zlib.crc32(text.casefold().encode())


@cache
def load_frames() -> tuple[Clause, ...]:
    """Reads the frames of all languages, one in ten of which is for validation; see `read_bank` for errors."""
    return read_bank(HERE / "letters", split_of=lambda text, _: "train" if _checksum(text) % 10 else "validation")


@cache
def _frames(language: str, split: Split) -> tuple[Clause, ...]:
    return tuple(frame for frame in load_frames() if frame.language == language and frame.split == split)


def _spaced(text: str) -> str:
    return " ".join(text.replace(" ", ""))


def _spelled(text: str) -> str:
    return " ".join(DIGIT_WORDS[int(char)] if char in "0123456789" else char for char in text if char != " ")


def _full_width(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if char.isascii() and char.isalnum() else char for char in text)


def _zero_width(text: str) -> str:
    return "\u200b".join(text)


def _words_for_marks(text: str) -> str:
    return text.replace("@", " at ").replace(".", " dot ").replace(":", " colon ").replace("-", " dash ")


def _look_alike(text: str) -> str:
    return text.translate(LOOK_ALIKES)


def disguise(piece: Piece, rng: random.Random) -> Piece:
    """Writes a labelled value as people do who hide it from software; a reader still knows what it is."""
    digits = sum(char.isdigit() for char in piece.text)
    ways: tuple[Callable[[str], str], ...] = (_zero_width, _full_width, _look_alike, str.upper, _spaced)
    if digits > 3:
        ways = (_spaced, _spelled, _full_width, _zero_width, _words_for_marks)
    return Piece(unicodedata.normalize("NFC", rng.choice(ways)(piece.text)), piece.label)


def _fill(frames: Sequence[Clause], joint: str, values: Values) -> list[Piece]:
    pieces: list[Piece] = []
    for number, frame in enumerate(frames):
        if number:
            pieces.append(Piece(joint))
        for place, part in enumerate(frame.parts):
            pieces += values.pieces(part) if place % 2 else [Piece(part)] if part else []
    return pieces


class _Writer:
    """Writes the letters of one split with one random generator."""

    def __init__(self, split: Split, rng: random.Random) -> None:
        self.split = split
        self.rng = rng
        spoken = [i for i, language in enumerate(LANGUAGES) if _frames(language, split)]
        self.languages = [LANGUAGES[i] for i in spoken], [LANGUAGE_SHARES[i] for i in spoken]
        self.values = {language: Values(language=language, split=split, rng=rng) for language in LANGUAGES}

    def row(self, row_id: str) -> dict[str, Any]:
        rng = self.rng
        (language,) = rng.choices(*self.languages)
        (count,) = rng.choices(list(FRAME_COUNTS), list(FRAME_COUNTS.values()))
        frames = self._choose(language, count)
        pieces = _fill(frames, rng.choice(JOINTS), self.values[language])
        return render_row(row_id, self._restyle(pieces), frames, language=language, split=self.split)

    def _choose(self, language: str, count: int) -> list[Clause]:
        """Frames that mostly keep to one situation."""
        bank = _frames(language, self.split)
        weights = [max((CODE_WEIGHTS.get(code, 1.0) for code in frame.codes), default=1.0) for frame in bank]
        chosen = self.rng.choices(bank, weights)
        near = [frame for frame in bank if frame.situation == chosen[0].situation]
        while len(chosen) < min(count, len(bank)):
            frame = self.rng.choice(near if self.rng.random() < 0.5 else bank)
            if frame not in chosen:
                chosen.append(frame)
        return chosen

    def _restyle(self, pieces: Sequence[Piece]) -> list[Piece]:
        style = self.rng.random()
        if style < DISGUISED_SHARE:
            return [disguise(piece, self.rng) if piece.label else piece for piece in pieces]
        if style < 0.09:
            return [Piece(piece.text.lower(), piece.label) for piece in pieces]
        if style < 0.11:
            return [Piece(piece.text.upper(), piece.label) for piece in pieces]
        if style < 0.16:
            return [Piece(piece.text.lower(), piece.label) if piece.label == "FIRSTNAME" else piece for piece in pieces]
        return list(pieces)


def generate_letters(n: int, *, split: Split, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Generates letters of a split as rows of the 200k schema; same seed, same bytes.

    Args:
        n: How many.
        split: `train` or `validation`.
        seed: Of everything.
    """
    writer = _Writer(split, random.Random(f"{seed}:letters:{split}"))
    for number in range(n):
        yield writer.row(f"letter-{split}-{seed}-{number:06d}")


def generate_own(n: int, *, split: Split, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Generates rows of notebook 07's policy: one frame of `own/`, or two in training; no test frame is trained on.

    Training texts of one situation are one template: no frame is in training rows and in validation rows. Letters of
    the corpus are among them: a guard of other categories learns there that these are none here.
    """
    rng = random.Random(f"{seed}:own:{split}")
    frames_of = read_bank(
        HERE / "own",  # its records came after the test rows were frozen, and are trained on alone
        split_of=lambda text, topic: "train" if topic.startswith("records") or _checksum(text) % 10 > 2 else "test",
    )
    bank = [frame for frame in frames_of if frame.split == split]
    values = Values(language="en", split=split, rng=rng)
    letters = (row for row in generate_letters(n, split="train", seed=seed + 1) if row["language"] == "en")
    for number in range(n):
        row_id, frames = f"own-{split}-{number:04d}", [bank[number % len(bank)]]
        if split == "train" and number % ROWS_PER_LETTER == ROWS_PER_LETTER - 1:
            row = next(letters) | {"id": row_id, "situation": "letters"}
        else:
            if split == "train" and rng.random() < 0.5:
                frames.append(rng.choice([frame for frame in bank if frame.situation == frames[0].situation]))
            row = render_row(row_id, _fill(frames, " ", values), frames, language="en", split=split)
        labels = [(span["start"], span["end"], span["label"]) for span in row["privacy_mask"]]
        template = row["situation"] if split == "train" else row["template_id"]
        yield {"id": row["id"], "text": row["source_text"], "labels": labels, "template_id": template}
