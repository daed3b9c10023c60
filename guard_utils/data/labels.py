"""From a data set's own entity labels to the codes of the `PII` policy, exactly.

Does: decide every known label of a data set by a table, `pii_65k.csv` or `pii_200k.csv`; keep the reference tutorial's
substring rules for comparison. Does not: guess. An unknown label is an error, never safe.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from guard_utils.policy import CODE_PATTERN, Verdict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LabelRule:
    """The code of one label of a data set, spelled without a `B-` or `I-` prefix; None is safe."""

    label: str
    code: str | None
    reason: str


class UnknownLabelError(ValueError):
    """Labels that a map does not decide.

    Attributes:
        counts: Unknown label to how often it occurs.
        examples: Unknown label to the place where it occurs first.
    """

    def __init__(self, map_name: str, counts: Mapping[str, int], examples: Mapping[str, str] | None = None) -> None:
        self.counts = dict(counts)
        self.examples = dict(examples or {})
        listed = ""
        for label, count in sorted(self.counts.items()):
            first = f", first in {self.examples[label]}" if label in self.examples else ""
            listed += f"\n  {label!r}: {count} times{first}"
        super().__init__(
            f"label map {map_name!r} does not decide {len(self.counts)} label(s):{listed}\n"
            "Decide each with map.extended([LabelRule(label, code or None, reason)]), or use the map of this data set."
        )


@dataclass(frozen=True)
class LabelMap:
    """A total, exact-match map from labels to codes; `name` is for errors and run records."""

    name: str
    rules: tuple[LabelRule, ...]

    def __post_init__(self) -> None:
        labels = [rule.label for rule in self.rules]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"label map {self.name!r} decides {twice} more than once; keep one rule each")

    @classmethod
    def from_csv(cls, path: str | Path, *, name: str) -> LabelMap:
        """Reads a map from a CSV file with the columns `label,code,reason`; an empty code is safe.

        Raises:
            ValueError: A line is malformed or decides a label again; names file and line.
        """
        rules: list[LabelRule] = []
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if header != ["label", "code", "reason"]:
                raise ValueError(f"{path}, line 1: the header is {header}; write label,code,reason")
            for cells in reader:
                place = f"{path}, line {reader.line_num}"
                if len(cells) != 3 or not cells[0]:
                    raise ValueError(f"{place}: {cells} is not label,code,reason; quote a reason that holds a comma")
                label, code, reason = cells
                if code and not CODE_PATTERN.fullmatch(code):
                    raise ValueError(f"{place}: code {code!r} of {label} is not S1 ... S99; leave it empty for safe")
                if any(rule.label == label for rule in rules):
                    raise ValueError(f"{place}: label {label!r} is decided a second time; keep one line")
                rules.append(LabelRule(label, code or None, reason))
        return cls(name, tuple(rules))

    @cached_property
    def by_label(self) -> dict[str, LabelRule]:
        """Label to its rule."""
        return {rule.label: rule for rule in self.rules}

    def codes(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Maps the labels of one text to its codes, ascending and each once; `()` means safe.

        Args:
            labels: Whole labels. Nothing is stripped: remove prefixes with `bio_label` first.

        Raises:
            UnknownLabelError: Lists every label that the map does not hold.
        """
        seen = list(labels)
        unknown = {label: seen.count(label) for label in seen if label not in self.by_label}
        if unknown:
            raise UnknownLabelError(self.name, unknown)
        found = (self.by_label[label].code for label in seen)
        return Verdict.of(code for code in found if code is not None).codes

    def extended(self, rules: Iterable[LabelRule], *, name: str | None = None) -> LabelMap:
        """Makes a map with more rules, for a data set that uses labels beyond these."""
        return LabelMap(name or f"{self.name}+", self.rules + tuple(rules))

    def table(self) -> pd.DataFrame:
        """Tabulates the decisions: columns `label`, `code` ("safe" for none) and `reason`, violations first."""
        import pandas as pd

        order = sorted(self.rules, key=lambda rule: (rule.code or "~", rule.label))
        return pd.DataFrame([{"label": r.label, "code": r.code or "safe", "reason": r.reason} for r in order])


PII_65K = LabelMap.from_csv(Path(__file__).with_name("pii_65k.csv"), name="ai4privacy-65k")
"""Labels of ai4privacy/pii-masking-65k (field `token_entity_labels`, prefixes removed)."""

PII_200K = LabelMap.from_csv(Path(__file__).with_name("pii_200k.csv"), name="ai4privacy-200k")
"""Labels of ai4privacy/pii-masking-200k (field `privacy_mask`), the embedded corpus and the independent benchmark."""


def bio_label(tag: str) -> str | None:
    """Removes the `B-` or `I-` prefix of a token tag; None for `O`.

    Raises:
        ValueError: The tag is none of `O`, `B-...` and `I-...`.
    """
    if tag == "O":
        return None
    if tag[:2] in ("B-", "I-") and len(tag) > 2:
        return tag[2:]
    raise ValueError(f"token tag {tag!r} is none of 'O', 'B-LABEL' and 'I-LABEL'")


REFERENCE_TRAINING_KEYS: Mapping[str, str] = {
    "NAME": "S1",
    "IPV4": "S2",
    "IPV6": "S2",
    "PHONE_NUMBER": "S3",
    "ZIPCODE": "S4",
    "COUNTY": "S4",
    "STREET": "S4",
    "CREDITCARDNUMBER": "S5",
    "CREDITCARDCVV": "S5",
}
"""The reference tutorial's keys for training on 65k, each looked for inside a label."""

REFERENCE_EVALUATION_KEYS: Mapping[str, str] = {**REFERENCE_TRAINING_KEYS, "IP": "S2", "CITY": "S4"}
"""The reference tutorial's keys for evaluation on 200k: `IP` is inside `ZIPCODE` too."""


def reference_codes_training(labels: Iterable[str]) -> tuple[str, ...]:
    """Codes by the reference's training rules, for comparison only: a key fires inside any label or tag.

    The reference leaves the order to a Python set; here it is ascending.
    """
    return _codes_by_substring(labels, REFERENCE_TRAINING_KEYS)


def reference_codes_evaluation(labels: Iterable[str]) -> tuple[str, ...]:
    """Codes by the reference's evaluation rules, as `reference_codes_training`."""
    return _codes_by_substring(labels, REFERENCE_EVALUATION_KEYS)


def _codes_by_substring(labels: Iterable[str], keys: Mapping[str, str]) -> tuple[str, ...]:
    return Verdict.of(code for label in labels for key, code in keys.items() if key in label).codes
