"""Policies, and the grammar of a guard's answer under one of them.

A policy is an ordered list of categories. The code of a category is its position: the first is `S1`. An answer is
`safe`, or `unsafe`, a line break and ascending codes joined by commas.

Does: name categories, list the verdicts of a policy, read an answer strictly. Does not: know prompts, models or labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

CODE_PATTERN = re.compile(r"S([1-9][0-9]?)")


@dataclass(frozen=True)
class Category:
    """One kind of violation, as the prompt shows it.

    Attributes:
        name: Short name.
        description: What counts and what does not; empty where the name says it all.
    """

    name: str
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("a category has no name; the prompt shows names, give it one")


@dataclass(frozen=True)
class Taxonomy:
    """A policy: categories in the order in which the prompt shows them.

    Attributes:
        name: For file names and run records.
        categories: At least one.
    """

    name: str
    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        if not self.categories:
            raise ValueError(f"policy {self.name!r} has no category; give it at least one")

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes in order: `("S1", "S2", ...)`."""
        return tuple(f"S{number}" for number in range(1, len(self) + 1))

    @property
    def names(self) -> dict[str, str]:
        """Code to name."""
        return {code: category.name for code, category in zip(self.codes, self.categories, strict=True)}

    def position(self, code: str) -> int:
        """Returns the 0-based position of a code.

        Raises:
            ValueError: The code is not in this policy.
        """
        if code not in self.codes:
            raise ValueError(f"code {code!r} is not in policy {self.name!r}, which has {', '.join(self.codes)}")
        return self.codes.index(code)

    def select(self, codes: Iterable[str], *, name: str | None = None) -> Taxonomy:
        """Makes a policy of some categories in the given order, codes numbered anew.

        Args:
            codes: Codes of this policy, each at most once.
            name: Of the new policy; made from the codes if left out.

        Raises:
            ValueError: No code, an unknown code or a repeated one.
        """
        chosen = list(codes)
        if not chosen or len(set(chosen)) != len(chosen):
            raise ValueError(f"a policy needs at least one code and each once, got {chosen}")
        picked = tuple(self.categories[self.position(code)] for code in chosen)
        return Taxonomy(name or f"{self.name}[{','.join(chosen)}]", picked)


LLAMA_GUARD_3 = Taxonomy(
    "llama-guard-3",
    (
        Category("Violent Crimes"),
        Category("Non-Violent Crimes"),
        Category("Sex Crimes"),
        Category("Child Exploitation"),
        Category("Defamation"),
        Category("Specialized Advice"),
        Category("Privacy"),
        Category("Intellectual Property"),
        Category("Indiscriminate Weapons"),
        Category("Hate"),
        Category("Self-Harm"),
        Category("Sexual Content"),
        Category("Elections"),
        Category("Code Interpreter Abuse"),
    ),
)
"""The fourteen hazards of Llama Guard 3 8B, names only, as its chat template lists them
(https://huggingface.co/meta-llama/Llama-Guard-3-8B)."""

PII = Taxonomy(
    "pii",
    (
        Category("Name", "The name of a person: first name, last name, full name, titled or initialled."),
        Category("IP Address", "An IPv4 or IPv6 address."),
        Category("Phone Number", "A telephone number in any national or international form."),
        Category(
            "Address", "A place where someone can be found: street, city, county, post code, flat or full address."
        ),
        Category("Credit Card", "A payment card number or its security code."),
    ),
)
"""The five privacy categories of this series."""

POLICIES = {policy.name: policy for policy in (PII, LLAMA_GUARD_3)}
"""Name to policy, for configs."""


@dataclass(frozen=True)
class Verdict:
    """A guard's answer about one conversation.

    Attributes:
        codes: Violated categories in ascending order, each once; empty means safe.
    """

    codes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.codes != _ascending(self.codes):
            raise ValueError(f"codes {self.codes} are not ascending and unique; use Verdict.of()")

    @classmethod
    def of(cls, codes: Iterable[str]) -> Verdict:
        """Builds the canonical verdict of a set of codes, whatever their order or repetition."""
        return cls(_ascending(codes))

    @property
    def is_safe(self) -> bool:
        """Whether no category is violated."""
        return not self.codes

    @property
    def text(self) -> str:
        """What the model writes, without its end token."""
        return "safe" if self.is_safe else "unsafe\n" + ",".join(self.codes)


def _ascending(codes: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(codes), key=lambda code: int(code[1:])))


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
        policy: The policy that the prompt showed; other codes are failures.
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
    if codes != _ascending(codes):
        return ParseFailure(answer, "codes are not ascending and unique")
    return Verdict(codes)


def all_verdicts(policy: Taxonomy, *, max_violations: int | None = None) -> list[Verdict]:
    """Lists every verdict of a policy: safe first, then by number of codes and code order.

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
