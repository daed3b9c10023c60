"""Hazard categories and the policies made of them.

A *taxonomy* is an ordered list of categories. A *policy* is what a prompt shows to the guard: a taxonomy,
or a subset or re-ordering of one, whose codes are numbered anew (`S1`, `S2`, ...).

The fourteen hazards carry the names of the Llama Guard 3 model card and chat template
(https://huggingface.co/meta-llama/Llama-Guard-3-8B).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

CODE_PATTERN = re.compile(r"S([1-9][0-9]?)")


@dataclass(frozen=True)
class Category:
    """One kind of violation.

    Attributes:
        code: `S` and a number from 1, as the guard writes it.
        name: Short name, as the prompt shows it.
        description: What counts and what does not; empty where the name says it all.
    """

    code: str
    name: str
    description: str = ""

    def __post_init__(self) -> None:
        if not CODE_PATTERN.fullmatch(self.code):
            raise ValueError(f"category code {self.code!r} of {self.name!r} is not S1 ... S99; write e.g. 'S1'")
        if not self.name.strip():
            raise ValueError(f"category {self.code} has no name; the prompt shows names, give it one")


@dataclass(frozen=True)
class Taxonomy:
    """An ordered set of categories numbered S1, S2, ... without gaps.

    Attributes:
        name: For file names and run records.
        categories: In code order.
    """

    name: str
    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        expected = tuple(f"S{i + 1}" for i in range(len(self.categories)))
        if not self.categories or self.codes != expected:
            raise ValueError(
                f"taxonomy {self.name!r} has codes {self.codes}, expected {expected or ('S1', '...')}: "
                "number the categories from S1 without gaps, or use Taxonomy.of()"
            )

    @classmethod
    def of(cls, name: str, categories: Iterable[Category | tuple[str, str]]) -> Taxonomy:
        """Builds a taxonomy from categories or (name, description) pairs, numbering them from S1."""
        pairs = [(c.name, c.description) if isinstance(c, Category) else c for c in categories]
        return cls(name, tuple(Category(f"S{i}", *pair) for i, pair in enumerate(pairs, 1)))

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes in order: `("S1", "S2", ...)`."""
        return tuple(category.code for category in self.categories)

    @property
    def names(self) -> dict[str, str]:
        """Code to name."""
        return {category.code: category.name for category in self.categories}

    def __len__(self) -> int:
        return len(self.categories)

    def position(self, code: str) -> int:
        """Returns the 0-based position of a code.

        Raises:
            ValueError: The code is not in this policy.
        """
        try:
            return self.codes.index(code)
        except ValueError:
            raise ValueError(
                f"code {code!r} is not in policy {self.name!r}, which has {', '.join(self.codes)}"
            ) from None

    def select(self, codes: Iterable[str], *, name: str | None = None) -> Taxonomy:
        """Makes a policy of the given categories in the given order, codes numbered anew.

        Args:
            codes: Codes of this taxonomy, each at most once.
            name: Name of the policy; made from the codes if left out.

        Raises:
            ValueError: No code, an unknown code or a repeated one.
        """
        chosen = list(codes)
        if not chosen or len(set(chosen)) != len(chosen):
            raise ValueError(f"a policy needs at least one code and each once, got {chosen}")
        picked = [self.categories[self.position(code)] for code in chosen]
        return Taxonomy.of(name or f"{self.name}[{','.join(chosen)}]", picked)


LLAMA_GUARD_3 = Taxonomy.of(
    "llama-guard-3",
    [
        (name, "")
        for name in (
            "Violent Crimes",
            "Non-Violent Crimes",
            "Sex Crimes",
            "Child Exploitation",
            "Defamation",
            "Specialized Advice",
            "Privacy",
            "Intellectual Property",
            "Indiscriminate Weapons",
            "Hate",
            "Self-Harm",
            "Sexual Content",
            "Elections",
            "Code Interpreter Abuse",
        )
    ],
)
"""The fourteen hazards of Llama Guard 3, names only, as its own chat template lists them."""

PII = Taxonomy.of(
    "pii",
    [
        ("Name", "The name of a person: first name, last name, full name, titled or initialled."),
        ("IP Address", "An IPv4 or IPv6 address."),
        ("Phone Number", "A telephone number in any national or international form."),
        ("Address", "A place where someone can be found: street, city, county, post code, flat or full address."),
        ("Credit Card", "A payment card number or its security code."),
    ],
)
"""The five privacy categories of this series."""
