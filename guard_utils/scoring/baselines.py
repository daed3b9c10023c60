"""Honest baselines: what a guard has to beat.

Three systems that fill the same predictions table as a guard: the most frequent answer, a set of regular expressions
with the checks an engineer would add, and TF-IDF features with logistic regression. None knows a text it is scored on.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from guard_utils.data.examples import Example
from guard_utils.data.predictions import predictions_table
from guard_utils.policy import Taxonomy, Verdict
from tools.corpus.values import luhn_digit


def majority(train_examples: Sequence[Example], examples: Sequence[Example], policy: Taxonomy) -> pd.DataFrame:
    """Answers every text with the most frequent verdict of the training set.

    Probabilities are the training set's shares, so each category ranks all texts alike.

    Args:
        train_examples: At least one.
        examples: To score.
        policy: The policy of both.

    Returns:
        A predictions table; see `predictions_table`.

    Raises:
        ValueError: There is no training example.
    """
    gold = _gold(train_examples, policy)
    counts = Counter(example.codes for example in train_examples)
    # Of equally frequent verdicts the shorter, then the lower one: nothing depends on the order of rows.
    answer = min(counts, key=lambda codes: (-counts[codes], len(codes), codes))
    n = len(examples)
    unsafe = np.full(n, gold.any(axis=1).mean())
    return predictions_table(examples, policy, np.tile(gold.mean(axis=0), (n, 1)), [answer] * n, 0.0, unsafe=unsafe)


def tfidf(
    train_examples: Sequence[Example], examples: Sequence[Example], policy: Taxonomy, seed: int = 0
) -> pd.DataFrame:
    """Logistic regression, one a category, on TF-IDF of 2 to 5 characters within words and of 1 or 2 words.

    Args:
        train_examples: Some with and some without each category.
        examples: To score.
        policy: The policy of both.
        seed: Of the solver.

    Returns:
        A predictions table; `predicted` holds the codes with a probability of at least one half.

    Raises:
        ValueError: A category of the policy stands in no training example, or in each.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import FeatureUnion, make_pipeline

    gold = _gold(train_examples, policy)
    one_sided = [code for code, share in zip(policy.codes, gold.mean(axis=0), strict=True) if share in (0.0, 1.0)]
    if one_sided:
        raise ValueError(
            f"{', '.join(one_sided)} stand in none or in all of the {len(gold)} training examples, from which nothing "
            "can be learned: train on more rows, or score a policy without them"
        )
    features = FeatureUnion(
        [
            ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True)),
            ("words", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)),
        ]
    )
    regression = LogisticRegression(C=20.0, max_iter=1000, solver="liblinear", random_state=seed)
    model = make_pipeline(features, OneVsRestClassifier(regression))
    model.fit([example.text for example in train_examples], gold.astype(int))
    found = model.predict_proba([example.text for example in examples])
    # A policy of one category gets both columns, those of "no" and "yes".
    marginals = found[:, -len(policy) :]
    return predictions_table(examples, policy, marginals, _codes(marginals >= 0.5, policy), 0.0)


def regular_expressions(examples: Sequence[Example], policy: Taxonomy) -> pd.DataFrame:
    """Finds each category with patterns, without training. Probabilities are 0 or 1.

    Args:
        examples: To score.
        policy: `PII`, or a policy made of its categories, in any order.

    Returns:
        A predictions table; see `predictions_table`.

    Raises:
        ValueError: The policy has a category without a pattern.
    """
    if strange := [name for name in policy.names.values() if name not in DETECTORS]:
        raise ValueError(
            f"no pattern for {strange} of policy {policy.name!r}; there are some for {', '.join(DETECTORS)}"
        )
    detectors = [DETECTORS[category.name] for category in policy.categories]
    found = np.array([[finds(e.text) for finds in detectors] for e in examples], dtype=bool)
    found = found.reshape(len(examples), len(policy))
    return predictions_table(examples, policy, found, _codes(found, policy), 0.0)


def _gold(examples: Sequence[Example], policy: Taxonomy) -> np.ndarray:
    if not examples:
        raise ValueError("there is no training example; pass the training split")
    return np.array([[code in example.codes for code in policy.codes] for example in examples])


def _codes(found: np.ndarray, policy: Taxonomy) -> list[tuple[str, ...]]:
    return [Verdict.of(np.array(policy.codes)[row].tolist()).codes for row in found]


# --- Patterns ---------------------------------------------------------------

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
    candidates = (match[0] for pattern in (_IPV4, _IPV6) for match in pattern.finditer(text))
    return any(_is_ip(form) for found in candidates for form in (found, found.rstrip(":")))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text != "::"  # an operator in code more often than the unspecified address


def _has_card(text: str) -> bool:
    return _SECURITY_CODE.search(text) is not None or any(_is_card(match[0]) for match in _CARD.finditer(text))


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return luhn_digit(digits[:-1]) == digits[-1]


def _phones(text: str) -> Iterator[str]:
    """Stretches that look like a phone number and like nothing else."""
    for match in _PHONE.finditer(text):
        found = match[0]
        digits = re.sub(r"\D", "", found)
        written_so = found[0] in "+(" or digits[0] == "0" or len(re.findall(r"[ .()/-]+", found)) >= 2
        other = _IPV4.fullmatch(found) or _DATE.fullmatch(found) or (len(digits) > 13 and _is_card(found))
        if 7 <= len(digits) <= 15 and written_so and not other:
            yield found


DETECTORS: dict[str, Callable[[str], bool]] = {
    "Name": lambda text: any(p.search(_STREET.sub("", text)) for p in (_TITLED, _GREETED, _PAIR)),
    "IP Address": _has_ip,
    "Phone Number": lambda text: any(True for _ in _phones(text)),
    "Address": lambda text: bool(_STREET.search(text) or _POST_CODE.search(text)),
    "Credit Card": _has_card,
}
"""Name of a category of `PII` to its detector."""
