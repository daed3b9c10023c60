"""Policies, and the grammar of a guard's answer under one of them.

A policy is an ordered list of categories. The code of a category is its position, the first is `S1`; a selection keeps
the codes of the whole. An answer is `safe`, or `unsafe`, a line break and ascending codes joined by commas. A policy of
your own is a small YAML file. Does not: know prompts, models or labels.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Literal, Self

import yaml

Role = Literal["User", "Agent"]
CODE_PATTERN = re.compile(r"S([1-9][0-9]?)")
MOST_CATEGORIES = 30
_UNFIT = re.compile(r"[\r\n\u2028{}]|<\|[^|]*\|>")
"""What would change the prompt's own form: line breaks, braces, control tokens."""


def require_list(value: object, what: str) -> None:
    """Raises a TypeError where one text is given for a list of texts: it would be read letter by letter."""
    if isinstance(value, str | bytes):
        raise TypeError(f"{what} is one text, {value[:40]!r}; pass a list of texts")


def require(good: bool, what: str, value: object, fix: str) -> None:
    """Raises a ValueError that names what is wrong, its value and the fix, unless it is good."""
    if not good:
        raise ValueError(f"{what} is {value!r:.200}; {fix}")


@dataclass(frozen=True)
class Category:
    """One kind of violation, as the prompt shows it; the description may be empty where the name says it all."""

    name: str
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("a category has no name; the prompt shows names, give it one")


@dataclass(frozen=True)
class Taxonomy:
    """A policy: at least one category, in the order in which the prompt shows them; the name is for configs and errors.

    Attributes:
        codes: Of the categories, in order; left out, `("S1", "S2", ...)`.
    """

    name: str
    categories: tuple[Category, ...]
    codes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.categories:
            raise ValueError(f"policy {self.name!r} has no category; give it at least one")
        if not all(isinstance(category, Category) for category in self.categories):
            raise TypeError(f"categories of policy {self.name!r} are {self.categories!r:.80}; give Category objects")
        if not self.codes:
            object.__setattr__(self, "codes", tuple(f"S{number}" for number in range(1, len(self) + 1)))
        require(len(self.codes) == len(self), f"codes of policy {self.name!r}", self.codes, "give each category one")

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def names(self) -> dict[str, str]:
        """Code to name."""
        return {code: category.name for code, category in zip(self.codes, self.categories, strict=True)}

    def position(self, code: str) -> int:
        """Returns the 0-based position of a code; raises ValueError if the policy lacks it."""
        if code not in self.codes:
            raise ValueError(f"code {code!r} is not in policy {self.name!r}, which has {', '.join(self.codes)}")
        return self.codes.index(code)

    def select(self, codes: Iterable[str]) -> Self:
        """Makes a policy of some categories in the given order, each at most once.

        Codes stay what they are, as in Llama Guard's own template with `excluded_category_keys`. A
        `Taxonomy(name, categories)` numbers them anew.
        """
        require_list(codes, "codes")
        chosen = list(codes)
        require(0 < len(set(chosen)) == len(chosen), "codes of a policy", chosen, "give at least one code, each once")
        picked = tuple(self.categories[self.position(code)] for code in chosen)
        return type(self)(f"{self.name}[{','.join(chosen)}]", picked, tuple(chosen))


_HAZARDS = (
    "Violent Crimes, Non-Violent Crimes, Sex Crimes, Child Exploitation, Defamation, Specialized Advice, Privacy, "
    "Intellectual Property, Indiscriminate Weapons, Hate, Self-Harm, Sexual Content, Elections, Code Interpreter Abuse"
)
LLAMA_GUARD_3 = Taxonomy("llama-guard-3", tuple(Category(name) for name in _HAZARDS.split(", ")))
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


def read_policy(path: str | Path) -> Taxonomy:
    """Reads a policy from YAML: its `name`, and `categories`, each with a `name` and perhaps a `description`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such policy of 1 to 30 categories: file, category, field, what is wrong and the fix.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not YAML in UTF-8 ({error}); correct it") from None
    good = isinstance(content, dict) and set(content) == {"name", "categories"}
    require(good, f"{path}: its content", content, "give 'name' and 'categories', and nothing else")
    name, entries = content["name"], content["categories"]
    good = isinstance(name, str) and name not in POLICIES and "[" not in name
    require(good, f"{path}, field 'name'", name, f"give a text of your own, none of {', '.join(POLICIES)}")
    good = isinstance(entries, list) and 1 <= len(entries) <= MOST_CATEGORIES
    require(good, f"{path}, field 'categories'", entries, f"give a list of 1 to {MOST_CATEGORIES} categories")
    names: list[str] = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}, category {number}"
        good = isinstance(entry, dict) and {"name"} <= set(entry) <= {"name", "description"}
        require(good, where, entry, "give a 'name', perhaps a 'description', and nothing else")
        for key, value in entry.items():
            good = isinstance(value, str) and bool(value.strip()) and not _UNFIT.search(value)
            require(good, f"{where}, field {key!r}", value, "give one line of text, no braces or control tokens")
        own = entry["name"]
        require(own not in names, f"{where}, field 'name'", own, "another has it; give each its own")
        names.append(own)
    return Taxonomy(name, tuple(Category(**entry) for entry in entries))


def find_policy(name_or_path: str | Path) -> Taxonomy:
    """The policy of a name in `POLICIES`, or of a YAML file; see `read_policy`."""
    if str(name_or_path) in POLICIES:
        return POLICIES[str(name_or_path)]
    if not Path(name_or_path).is_file():
        raise FileNotFoundError(f"no policy {str(name_or_path)!r}; give one of {', '.join(POLICIES)}, or a YAML file")
    return read_policy(name_or_path)


@dataclass(frozen=True)
class Verdict:
    """A guard's answer about one conversation: violated categories in ascending order, each once; none means safe."""

    codes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.codes != _ascending(self.codes):
            raise ValueError(f"codes {self.codes} are not ascending and unique; use Verdict.of()")

    @classmethod
    def of(cls, codes: Iterable[str]) -> Self:
        """Builds the verdict of some codes in any order, also repeated."""
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
    require_list(codes, "codes")
    return _in_order(frozenset(codes))


@lru_cache(maxsize=1024)
def _in_order(codes: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(codes, key=lambda code: int(code[1:])))


@dataclass(frozen=True)
class ParseFailure:
    """An answer that is no verdict, and why. A value, so that it is counted and never read as safe."""

    answer: str
    reason: str


def parse(answer: str, policy: Taxonomy) -> Verdict | ParseFailure:
    """Reads a decoded answer without special tokens; codes that the policy of the prompt lacks are failures.

    White space round the whole answer is allowed (Llama Guard begins with a blank line), nothing else is.
    """
    label, *rest = answer.strip().split("\n")
    if label not in ("safe", "unsafe"):
        return ParseFailure(answer, f"first line is {label!r}, not 'safe' or 'unsafe'")
    wanted = int(label == "unsafe")
    if len(rest) != wanted:
        return ParseFailure(answer, f"{label!r} needs {wanted} more lines, found {len(rest)}")
    if label == "safe":
        return Verdict()
    codes = tuple(rest[0].split(","))
    unknown = [code for code in codes if code not in policy.codes]
    if unknown:
        return ParseFailure(answer, f"unknown codes {unknown}")
    if codes != _ascending(codes):
        return ParseFailure(answer, "codes are not ascending and unique")
    return Verdict(codes)


def all_verdicts(policy: Taxonomy, *, max_violations: int | None = None) -> list[Verdict]:
    """Lists every verdict of a policy: safe first, then by number of codes and code order.

    Five categories give 2^5 = 32. Fourteen with at most two codes (`max_violations`, at least 1) give 1 + 14 + 91. More
    than 200,000 are a ValueError: thirty categories give 2^30, which no memory holds.
    """
    largest = len(policy) if max_violations is None else min(len(policy), max_violations)
    require(largest > 0, "max_violations", max_violations, "it must be at least 1")
    count = sum(comb(len(policy), k) for k in range(largest + 1))
    require(count <= 200_000, f"verdicts of {len(policy)} categories", count, "set max_violations, to 3 for instance")
    return [Verdict(codes) for k in range(largest + 1) for codes in combinations(_ascending(policy.codes), k)]
