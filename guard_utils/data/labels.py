"""From a data set's own entity labels to the codes of the `PII` policy, exactly.

A map lists every label its data set is known to use and decides each one: one of S1 ... S5, or safe, with the
reason in the table. Labels match as whole words; an unknown one is an error that lists it. Training and
evaluation use the same decisions.

The last section holds the reference tutorial's rules for comparison. They fire when a key is a *substring* of a label:
`IP` is in `ZIPCODE`, so each post code counts as an IP address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from guard_utils.policy import Verdict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LabelRule:
    """What one label of a data set means under the `PII` policy.

    Attributes:
        label: As the data set spells it, without a `B-` or `I-` prefix.
        code: The violated category, or None where the label is safe.
        reason: Why, in one line.
    """

    label: str
    code: str | None
    reason: str


class UnknownLabelError(ValueError):
    """Labels that a map does not decide.

    Attributes:
        counts: Unknown label to how often it stands in the data.
        examples: Unknown label to where it stands first.
    """

    def __init__(self, map_name: str, counts: Mapping[str, int], examples: Mapping[str, str] | None = None) -> None:
        self.counts = dict(counts)
        self.examples = dict(examples or {})
        listed = "".join(
            f"\n  {label!r}: {self.counts[label]} times"
            + (f", first in {self.examples[label]}" if label in self.examples else "")
            for label in sorted(self.counts)
        )
        super().__init__(
            f"label map {map_name!r} does not decide {len(self.counts)} label(s):{listed}\n"
            "Decide each with map.extended([LabelRule(label, code or None, reason)]), or use the map of this data set."
        )


@dataclass(frozen=True)
class LabelMap:
    """A total, exact-match map from labels to codes.

    Attributes:
        name: For errors and run records.
        rules: One rule a label.
    """

    name: str
    rules: tuple[LabelRule, ...]

    def __post_init__(self) -> None:
        labels = [rule.label for rule in self.rules]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"label map {self.name!r} decides {twice} more than once; keep one rule each")

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


def _rules(text: str) -> tuple[LabelRule, ...]:
    """Reads lines `LABEL code reason`, where the code `-` is safe."""
    parts = (line.split(maxsplit=2) for line in text.strip().splitlines())
    return tuple(LabelRule(label, None if code == "-" else code, reason) for label, code, reason in parts)


_COMMON = _rules("""
    FIRSTNAME           S1 names a person
    MIDDLENAME          S1 part of a person's name
    LASTNAME            S1 names a person or a family
    IP                  S2 an address of either version
    IPV4                S2 an address of version 4
    IPV6                S2 an address of version 6
    STREET              S4 a street, where someone can be found
    BUILDINGNUMBER      S4 the house number completes a street
    SECONDARYADDRESS    S4 flat or suite: the last step to the door
    CITY                S4 part of a postal address; the reference counts it in evaluation only
    COUNTY              S4 part of a postal address
    ZIPCODE             S4 a post code; the reference also reads it as an IP address
    CREDITCARDNUMBER    S5 the card itself
    CREDITCARDCVV       S5 the card's security code
    STATE               -  a region of millions locates no one; the reference leaves it out too
    NEARBYGPSCOORDINATE -  coordinates near a place, not a postal address
    ORDINALDIRECTION    -  a compass direction
    PREFIX              -  a title such as Mr or Dr is no name
    USERNAME            -  a handle that its owner chose, not a name
    EMAIL               -  a mailbox, not a name, even where it holds one
    URL                 -  a web address is neither a postal nor an IP address
    MAC                 -  a device's hardware address, not an IP address
    USERAGENT           -  describes a browser
    PHONEIMEI           -  identifies a handset; nobody can be called on it
    CREDITCARDISSUER    -  a brand such as Visa, shared by millions of cards
    MASKEDNUMBER        -  an account's digits, shown masked; not marked as a payment card
    ACCOUNTNAME         -  the kind of account, such as savings account
    ACCOUNTNUMBER       -  a bank account, not a card
    IBAN                -  a bank account, not a card
    BIC                 -  names a bank
    BITCOINADDRESS      -  a wallet, neither place nor card
    ETHEREUMADDRESS     -  a wallet, neither place nor card
    LITECOINADDRESS     -  a wallet, neither place nor card
    PIN                 -  a secret, but no card number or card security code
    PASSWORD            -  a secret outside the five categories
    SSN                 -  a national number outside the five categories
    VEHICLEVIN          -  identifies a vehicle
    VEHICLEVRM          -  identifies a vehicle
    AMOUNT              -  a sum of money
    CURRENCY            -  names a currency
    CURRENCYCODE        -  names a currency
    CURRENCYNAME        -  names a currency, not a person
    CURRENCYSYMBOL      -  names a currency
    DATE                -  a day
    TIME                -  a time of day
    GENDER              -  a trait shared by many
    SEX                 -  a trait shared by many
    JOBAREA             -  a field of work
    JOBTITLE            -  a role, not a name
    JOBTYPE             -  a role, not a name
""")

PII_65K = LabelMap(
    "ai4privacy-65k",
    _COMMON
    + _rules("""
    NAME                S1 names a person
    FULLNAME            S1 names a person
    PHONE_NUMBER        S3 a number to call
    STREETADDRESS       S4 street and house number
    SUFFIX              -  Jr, PhD and the like name nobody
    DISPLAYNAME         -  a screen name is a handle, as USERNAME is
    COMPANY_NAME        -  names an organisation, not a person
    NUMBER              -  a bare number; nothing says what of
    JOBDESCRIPTOR       -  a role, not a name
    SEXTYPE             -  a trait shared by many
    """),
)
"""Labels of ai4privacy/pii-masking-65k (field `token_entity_labels`, prefixes removed)."""

PII_200K = LabelMap(
    "ai4privacy-200k",
    _COMMON
    + _rules("""
    PHONENUMBER         S3 a number to call; spelled unlike 65k's, so the reference never finds it
    COMPANYNAME         -  names an organisation, not a person
    AGE                 -  a trait shared by many
    DOB                 -  a day of birth is a date, outside the five categories
    EYECOLOR            -  a trait shared by many
    HEIGHT              -  a trait shared by many
    """),
)
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


def bio_entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Groups token tags into entities.

    `B-` opens an entity and `I-` of the same label continues it; an `I-` with nothing to continue opens one, so that
    no tag is lost.

    Returns:
        `(label, first token, token after the last)` in text order.
    """
    entities: list[tuple[str, int, int]] = []
    for position, tag in enumerate(tags):
        label = bio_label(tag)
        if label is None:
            continue
        if tag[0] == "I" and entities and entities[-1][0] == label and entities[-1][2] == position:
            entities[-1] = (label, entities[-1][1], position + 1)
        else:
            entities.append((label, position, position + 1))
    return entities


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
"""The reference tutorial's keys for evaluation on 200k, each looked for inside a label."""


def _codes_by_substring(labels: Iterable[str], keys: Mapping[str, str]) -> tuple[str, ...]:
    return Verdict.of(code for label in labels for key, code in keys.items() if key in label).codes


def reference_codes_training(labels: Iterable[str]) -> tuple[str, ...]:
    """Codes by the reference's training rules (for comparison only): each key as a substring of each label or tag.

    The reference leaves the order to a Python set; here it is ascending.
    """
    return _codes_by_substring(labels, REFERENCE_TRAINING_KEYS)


def reference_codes_evaluation(labels: Iterable[str]) -> tuple[str, ...]:
    """Codes by the reference's evaluation rules (for comparison only), as `reference_codes_training`."""
    return _codes_by_substring(labels, REFERENCE_EVALUATION_KEYS)
