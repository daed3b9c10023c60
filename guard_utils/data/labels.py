"""From a data set's own entity labels to the codes of the `PII` policy, exactly.

Does: decide every known label of a data set by a table, `pii_65k.csv` or `pii_200k.csv`; keep the reference tutorial's
substring rules for comparison. Does not: guess. An unknown label is an error, never safe.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import pandas as pd

from guard_utils.policy import CODE_PATTERN, Verdict, require_list


@dataclass(frozen=True)
class LabelRule:
    """The code of one label of a data set, spelled without a `B-` or `I-` prefix; None is safe."""

    label: str
    code: str | None
    reason: str

    def __post_init__(self) -> None:
        if not self.label.strip():
            raise ValueError(f"the rule {self.code!r}, {self.reason!r} has no label; name the one it decides")
        if self.code is not None and not CODE_PATTERN.fullmatch(self.code):
            raise ValueError(
                f"code {self.code!r} of {self.label} is not S1 ... S99; give None (in a file: nothing) for safe"
            )


class UnknownLabelError(ValueError):
    """Labels that a map does not decide, from the places where each is."""

    def __init__(self, map_name: str, places: Mapping[str, Sequence[str]]) -> None:
        lines = [f"  {label!r}: {len(where)} times, first in {where[0]}" for label, where in sorted(places.items())]
        head = f"label map {map_name!r} does not decide {len(lines)} label(s):"
        fix = "Add LabelRule(label, code or None, reason) to map.rules for each, or use the map of this data set."
        super().__init__("\n".join([head, *lines, fix]))


@dataclass(frozen=True)
class LabelMap:
    """A total, exact-match map from labels to codes; `name` is for errors and run records."""

    name: str
    rules: tuple[LabelRule, ...]

    def __post_init__(self) -> None:
        labels = [rule.label for rule in self.rules]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"label map {self.name!r} decides {twice} more than once; keep one rule each")

    @classmethod
    def from_csv(cls, path: str | Path, *, name: str) -> Self:
        """Reads a map from a CSV file with the columns `label,code,reason`; an empty code is safe.

        Raises:
            ValueError: A line is malformed or decides a label again; names file and line.
        """
        rules: dict[str, LabelRule] = {}
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            try:
                if (header := next(reader, [])) != ["label", "code", "reason"]:
                    raise ValueError(f"the header is {header}; write label,code,reason")
                for cells in reader:
                    if len(cells) != 3:
                        raise ValueError(f"{cells} is not label,code,reason; quote a reason that holds a comma")
                    label, code, reason = cells
                    if label in rules:
                        raise ValueError(f"label {label!r} is decided a second time; keep one line")
                    rules[label] = LabelRule(label, code or None, reason)
            except (ValueError, csv.Error) as error:
                raise ValueError(f"{path}, line {max(1, reader.line_num)}: {error}") from None
        return cls(name, tuple(rules.values()))

    @cached_property
    def by_label(self) -> dict[str, LabelRule]:
        """Label to its rule."""
        return {rule.label: rule for rule in self.rules}

    def codes(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Maps whole labels of one text (no `B-`, `I-`) to its codes, ascending and each once; `()` means safe.

        Raises:
            UnknownLabelError: Lists every label that the map does not hold.
        """
        require_list(labels, "labels")
        seen = list(labels)
        if unknown := [label for label in seen if label not in self.by_label]:
            raise UnknownLabelError(self.name, {label: [str(seen)] * unknown.count(label) for label in unknown})
        return Verdict.of(code for label in seen if (code := self.by_label[label].code) is not None).codes

    def table(self) -> pd.DataFrame:
        """Tabulates the decisions: columns `label`, `code` ("safe" for none) and `reason`, violations first."""
        order = sorted(self.rules, key=lambda rule: (rule.code or "~", rule.label))
        return pd.DataFrame([{"label": r.label, "code": r.code or "safe", "reason": r.reason} for r in order])


PII_65K = LabelMap.from_csv(Path(__file__).with_name("pii_65k.csv"), name="ai4privacy-65k")
"""Labels of ai4privacy/pii-masking-65k (field `token_entity_labels`, prefixes removed)."""

PII_200K = LabelMap.from_csv(Path(__file__).with_name("pii_200k.csv"), name="ai4privacy-200k")
"""Labels of ai4privacy/pii-masking-200k (field `privacy_mask`), the embedded corpus and the independent benchmark."""


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
    require_list(labels, "labels")
    return Verdict.of(code for label in labels for key, code in keys.items() if key in label).codes
