"""What a guard has to beat: the most frequent answer, regular expressions, and TF-IDF with logistic regression.

Each fills the same predictions table as a guard, and raises ValueError where there is no example to learn from or to
answer. Does not: load a language model, or see a text before it is scored; rivals of others are in `tools/rivals.py`.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from guard_utils.data.examples import Example
from guard_utils.data.predictions import BoolMatrix, codes_of, gold_matrix, predictions_table
from guard_utils.policy import Taxonomy, require_list


def majority(train_examples: Sequence[Example], examples: Sequence[Example], policy: Taxonomy) -> pd.DataFrame:
    """Answers every text with the most frequent verdict of the training set, and with its shares as probabilities."""
    gold = _gold(train_examples, policy)
    counts = Counter(example.codes for example in train_examples)
    # Of equally frequent verdicts the shorter, then the lower one, whatever the order of rows.
    answer = min(counts, key=lambda codes: (-counts[codes], len(codes), codes))
    n = len(_texts(examples))
    unsafe = np.full(n, gold.any(axis=1).mean())
    return predictions_table(examples, policy, np.tile(gold.mean(axis=0), (n, 1)), [answer] * n, 0.0, unsafe=unsafe)


def tfidf(
    train_examples: Sequence[Example], examples: Sequence[Example], policy: Taxonomy, seed: int = 0
) -> pd.DataFrame:
    """Logistic regression per category, on TF-IDF of 2 to 5 characters within words and of 1 or 2 words.

    A category that none or all of the training examples have gets that share, 0 or 1, as its probability everywhere.
    The answer holds the categories with a probability of at least 0.5. `seed` is the solver's.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    gold, texts = _gold(train_examples, policy), _texts(examples)
    features = make_union(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True),
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
    )
    known = features.fit_transform(_texts(train_examples))
    asked = features.transform(texts)
    marginals = np.tile(gold.mean(axis=0), (len(examples), 1))
    for column in np.flatnonzero(gold.any(axis=0) & ~gold.all(axis=0)):
        model = LogisticRegression(C=20.0, max_iter=1000, solver="liblinear", random_state=seed)
        marginals[:, column] = model.fit(known, gold[:, column]).predict_proba(asked)[:, 1]
    return predictions_table(examples, policy, marginals, codes_of(marginals >= 0.5, policy), 0.0)


def regular_expressions(examples: Sequence[Example], policy: Taxonomy) -> pd.DataFrame:
    """Finds each category of a policy made of those of `PII` with patterns. Probabilities are 0 or 1.

    Raises:
        ValueError: The policy has a category without a pattern.
    """

    def find(text: str) -> Found:
        return [(name, 1.0) for name, finds in DETECTORS.items() if finds(text)]

    return detections_table(examples, policy, find)


def luhn_digit(digits: str) -> str:
    """The check digit that makes a card number of these digits valid (ISO/IEC 7812-1)."""
    doubled = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(digits))]
    return str(-sum(d - 9 if d > 9 else d for d in doubled) % 10)


def _texts(examples: Sequence[Example]) -> list[str]:
    require_list(examples, "examples")
    if not examples:
        raise ValueError("there is no example; pass at least one to learn from, and one to answer")
    return [example.text for example in examples]


def _gold(examples: Sequence[Example], policy: Taxonomy) -> BoolMatrix:
    _texts(examples)  # checks them
    return gold_matrix(pd.DataFrame({"id": [e.id for e in examples], "gold": [e.codes for e in examples]}), policy)


_UPPER = "A-ZÀ-ÖØ-ÞĀĂĄĆČĎĐĒĖĘĚĞĢĪĮİŁŃŇŌŐŘŚŞŠŢŤŪŮŰŹŻŽ"
_WORD = rf"[{_UPPER}][\w'’-]+"

_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?![\w])")
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){11,18}(?!\d)")
_SECURITY_CODE = re.compile(r"\b(?:cvv2?|cvc2?|cid|security code)\b\D{0,12}(?<!\d)\d{3,4}(?!\d)", re.IGNORECASE)
_PHONE = re.compile(r"(?<![\w.:,/#@=-])(?:\+|\(\+?)?\d[\d ().\-/]{5,18}\d(?:\s?(?:x|ext\.?)\s?\d+)?(?![\w:@]|[.,-]\d)")
_DATE = re.compile(r"\d{1,4}([-./])\d{1,2}\1\d{1,4}(?:\s+\d{1,2})?")
_STREET = re.compile(
    rf"\b{_WORD}\s(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Way|Place|Pl|Square|Terrace|"
    r"Crescent|Close|Parkway|Pkwy|Highway|Hwy|Trail|Circle|Alley|Row|Grove|Mews)\b"
    rf"|\b{_WORD}(?:straße|strasse|str\.|gasse|weg|platz|allee)\b|\b\w+(?:gatan|vägen|veien|vej|straat|laan)\b"
    rf"|\b(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Vv]ia|[Vv]iale|[Pp]iazza|[Cc]orso|[Cc]alle|[Aa]venida|[Rr]ua)"
    rf"\s(?:d\w+\s)?{_WORD}"
    r"|\b(?:Apt|Suite|Flat|Unit)\.?\s\d+|\bP\.?\s?O\.?\s?Box\s\d+"
)
_POST_CODE = re.compile(
    r"\b[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}\b|\b[A-Z]\d[A-Z]\s\d[A-Z]\d\b|\b[A-Z]{2}\s\d{5}(?:-\d{4})?\b|\b\d{5}-\d{4}\b"
    rf"|(?<![\d.,#-])\d{{5}}\s{_WORD}"
    r"|\b(?i:zip|zip code|postcode|post code|postal code|plz|code postal|cap)\b\W{0,4}[A-Z\d]{4,}"
)
_TITLED = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Sir|Dame|Herr|Frau|Monsieur|Madame|Mme|Sig|Signor|Signora|Dott)\b\.?\s" + _WORD
)
_GREETED = re.compile(
    rf"\b(?i:dear|hi|hello|hey|thanks|regards|cheers|sincerely|hallo|bonjour|ciao|i am|i'm|my name is)\b,?\s{_WORD}"
)
_PAIR = re.compile(rf"(?<![.!?:\n]\s)(?<!^)\b{_WORD}\s(?:[{_UPPER}]\.\s)?{_WORD}")


def _has_ip(text: str) -> bool:
    candidates = [match[0] for pattern in (_IPV4, _IPV6) for match in pattern.finditer(text)]
    return any(is_ip(found) or is_ip(found.rstrip(":")) for found in candidates)


def is_ip(text: str) -> bool:
    """Whether a text is an IP address of either version."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text != "::"  # an operator in code more often than the unspecified address


def is_card(text: str) -> bool:
    """Whether the digits of a text end with the right check digit."""
    digits = re.sub(r"\D", "", text)
    return luhn_digit(digits[:-1]) == digits[-1]


def _is_phone(text: str) -> bool:
    """Whether it looks like a phone number and like nothing else."""
    digits = re.sub(r"\D", "", text)
    written_so = text[0] in "+(" or digits[0] == "0" or len(re.findall(r"[ .()/-]+", text)) >= 2
    other = _IPV4.fullmatch(text) or _DATE.fullmatch(text) or (len(digits) > 13 and is_card(text))
    return 7 <= len(digits) <= 15 and written_so and not other


DETECTORS: dict[str, Callable[[str], bool]] = {
    "Name": lambda text: any(pattern.search(_STREET.sub("", text)) for pattern in (_TITLED, _GREETED, _PAIR)),
    "IP Address": _has_ip,
    "Phone Number": lambda text: any(_is_phone(match[0]) for match in _PHONE.finditer(text)),
    "Address": lambda text: bool(_STREET.search(text) or _POST_CODE.search(text)),
    "Credit Card": lambda text: bool(_SECURITY_CODE.search(text)) or any(map(is_card, _CARD.findall(text))),
}
"""Name of a category of `PII` to its detector."""

LABELS = {
    "Name": ("GIVEN_NAME", "SURNAME", "PERSON"),
    "IP Address": ("IP_ADDRESS",),
    "Phone Number": ("PHONE", "PHONE_NUMBER"),
    "Address": ("BUILDING_NUMBER", "STREET_NAME", "SECONDARY_ADDRESS", "CITY", "ZIP_CODE", "LOCATION"),
    "Credit Card": ("CREDIT_CARD",),
}
"""Category of `PII` to the detectors' labels of it. Others, such as EMAIL or STATE, are safe, as in our data."""

Found = list[tuple[str, float]]  # labels and scores


def detections_table(examples: Sequence[Example], policy: Taxonomy, find: Callable[[str], Found]) -> pd.DataFrame:
    """The predictions table of what is found: categories by name, or a detector's labels of them."""
    names = list(policy.names.values())
    if strange := set(names) - set(LABELS):
        raise ValueError(f"nothing finds {sorted(strange)} of policy {policy.name!r}; take some of {', '.join(LABELS)}")
    column = {label: place for place, name in enumerate(names) for label in (name, *LABELS[name])}
    marginals = np.zeros((len(examples), len(policy)))
    for row, text in zip(marginals, _texts(examples), strict=True):
        for label, score in find(text):
            if label in column:
                row[column[label]] = max(row[column[label]], score)
    return predictions_table(examples, policy, marginals, codes_of(marginals > 0, policy), 0.0)
