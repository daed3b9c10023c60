"""The answer's grammar: `safe`, or `unsafe`, a line break and ascending codes joined by commas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from guard_utils.taxonomy import Taxonomy


@dataclass(frozen=True)
class Verdict:
    """A guard's answer about one conversation.

    Attributes:
        codes: Violated categories in ascending order, each once; empty means safe.
    """

    codes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if list(self.codes) != sorted(set(self.codes), key=lambda code: int(code[1:])):
            raise ValueError(f"codes {self.codes} are not ascending and unique; use Verdict.of()")

    @classmethod
    def of(cls, codes: Iterable[str]) -> Verdict:
        """Builds the canonical verdict of a set of codes, whatever their order or repetition."""
        return cls(tuple(sorted(set(codes), key=lambda code: int(code[1:]))))

    @property
    def is_safe(self) -> bool:
        """Whether no category is violated."""
        return not self.codes

    @property
    def text(self) -> str:
        """What the model writes, without its end token."""
        return "safe" if self.is_safe else "unsafe\n" + ",".join(self.codes)


@dataclass(frozen=True)
class ParseFailure:
    """An answer outside the grammar. A value, so that it is counted and never read as safe.

    Attributes:
        answer: What the model wrote.
        reason: Why it is no verdict.
    """

    answer: str
    reason: str


def parse(answer: str, policy: Taxonomy) -> Verdict | ParseFailure:
    """Reads a generated answer strictly.

    White space round the whole answer is allowed (Llama Guard begins with a blank line), nothing else is.

    Args:
        answer: Decoded text without special tokens.
        policy: The policy the prompt showed; other codes are failures.

    Returns:
        The verdict, or a `ParseFailure` that says what is wrong.
    """
    lines = answer.strip().split("\n")
    if lines == ["safe"]:
        return Verdict()
    if lines[0] != "unsafe":
        return ParseFailure(answer, f"first line is {lines[0]!r}, not 'safe' or 'unsafe'")
    if len(lines) != 2:
        return ParseFailure(answer, f"'unsafe' needs exactly one more line, found {len(lines) - 1}")
    codes = tuple(lines[1].split(","))
    unknown = [code for code in codes if code not in policy.codes]
    if unknown:
        return ParseFailure(answer, f"unknown codes {unknown}")
    if codes != Verdict.of(codes).codes:
        return ParseFailure(answer, "codes are not ascending and unique")
    return Verdict(codes)


def all_verdicts(policy: Taxonomy, *, max_violations: int | None = None) -> list[Verdict]:
    """Lists every verdict of a policy, safe first, then by number of codes and code order.

    Five categories give 2^5 = 32 verdicts. Fourteen capped at two violations give 1 + 14 + 91 = 106.

    Args:
        policy: The policy.
        max_violations: Largest number of codes in one verdict; all of them if left out.

    Raises:
        ValueError: `max_violations` is below 1.
    """
    if max_violations is not None and max_violations < 1:
        raise ValueError(f"max_violations is {max_violations}; it must be at least 1")
    largest = min(len(policy), max_violations or len(policy))
    return [Verdict(codes) for k in range(largest + 1) for codes in combinations(policy.codes, k)]
