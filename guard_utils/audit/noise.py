"""Label noise to learn on: planted with a seed, and every wrong (row, code) pair known.

Three kinds. An annotator *overlooks* everything of one category in a text. Or marks it with a label of *another*
category. And a *rule* that turns labels into codes is wrong, the same way in every row. The first two change spans, as
annotators do, so that no repaired rule brings the right codes back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from guard_utils.audit.corrections import Correction
from guard_utils.data.examples import Example, Span
from guard_utils.data.labels import reference_codes_evaluation
from guard_utils.policy import Taxonomy, Verdict


@dataclass(frozen=True)
class Noisy:
    """Examples with planted noise.

    Attributes:
        examples: As they would be given to us. Their spans have labels and no code: only rows have codes.
        truth: One row a (row, code) pair that the noise touched: `id, code, kind` ("rule", "missing" or "wrong"),
            `given` (the row has the code now), `right` (it should). Where two kinds cancel out, `given == right`.
    """

    examples: list[Example]
    truth: pd.DataFrame


def _draw(*keys: object) -> float:
    """A number in [0, 1) that depends on the keys alone."""
    digest = hashlib.blake2b(":".join(map(str, keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def plant(
    examples: Sequence[Example],
    policy: Taxonomy,
    *,
    seed: int,
    missing: float = 0.05,
    wrong: float = 0.03,
    rules: Callable[[Iterable[str]], tuple[str, ...]] = reference_codes_evaluation,
) -> Noisy:
    """Plants noise: what a row gets follows from the seed and its id alone.

    Args:
        examples: With right spans and codes.
        policy: Codes that a wrong one is drawn from.
        seed: Another seed, other rows.
        missing: Share of the (row, code) pairs that are overlooked.
        wrong: Share of the pairs whose spans get a label of another category.
        rules: Turns the labels of a row into its codes; the reference's substring rules if left out.

    Raises:
        ValueError: The shares are not in [0, 1], or the labels of some category do not occur.
    """
    if min(missing, wrong) < 0 or missing + wrong > 1:
        raise ValueError(f"missing {missing} and wrong {wrong} must be shares of the codes that add up to at most 1")
    labels = {code: sorted({s.label for e in examples for s in e.spans if s.code == code}) for code in policy.codes}
    if bare := [code for code, names in labels.items() if not names]:
        raise ValueError(f"no span has {', '.join(bare)}; plant noise in rows that have every category")
    noisy, pairs = [], []
    for example in examples:
        spans = [
            span for code in (None, *example.codes) for span in _annotated(example, code, labels, seed, missing, wrong)
        ]
        spans.sort(key=lambda span: span.start)
        annotated = {span.code for span in spans if span.code}
        given = set(rules(span.label for span in spans))
        touched = set(example.codes) ^ annotated
        for code in sorted(touched | (annotated ^ given)):
            kind = "rule" if code not in touched else "missing" if code in example.codes else "wrong"
            pairs.append((example.id, code, kind, code in given, code in example.codes))
        bare_spans = tuple(replace(span, code=None) for span in spans)
        noisy.append(replace(example, codes=Verdict.of(given).codes, spans=bare_spans))
    return Noisy(noisy, pd.DataFrame(pairs, columns=["id", "code", "kind", "given", "right"]))


def _annotated(
    example: Example, code: str | None, labels: dict[str, list[str]], seed: int, missing: float, wrong: float
) -> list[Span]:
    """The spans of one category as a careless annotator leaves them."""
    spans = [span for span in example.spans if span.code == code]
    luck = _draw(seed, example.id, code)
    if code is None or luck >= missing + wrong:
        return spans
    if luck < missing:
        return []
    others = sorted(set(labels) - {code})
    other = others[int(_draw(seed, example.id, code, "code") * len(others))]
    label = labels[other][int(_draw(seed, example.id, code, "label") * len(labels[other]))]
    return [replace(span, label=label, code=other) for span in spans]


def wrong_pairs(given: Sequence[Example], right: Sequence[Example]) -> set[tuple[str, str]]:
    """Lists the (id, code) pairs on which two versions of the same rows differ.

    Raises:
        ValueError: The rows are not the same.
    """
    if [example.id for example in given] != [example.id for example in right]:
        raise ValueError("the two lists hold other rows, or the same in another order; pass two versions of one set")
    return {(a.id, code) for a, b in zip(given, right, strict=True) for code in set(a.codes) ^ set(b.codes)}


def found_within(ranked: pd.DataFrame, pairs: set[tuple[str, str]], *, share: float = 0.1) -> float:
    """Returns which share of the wrong pairs stands in the first `share` of a ranking; NaN where there is none.

    Args:
        ranked: Columns `id, code`, most suspicious first, every pair of the data.
        pairs: The wrong ones.
        share: Of the ranking.
    """
    top = ranked.head(round(len(ranked) * share))
    hits = pairs & set(zip(top["id"], top["code"], strict=True))
    return len(hits) / len(pairs) if pairs else float("nan")


def precision(corrections: Iterable[Correction], pairs: set[tuple[str, str]]) -> float:
    """Returns which share of the corrections changes a wrong pair, and so rights it; NaN where there is none."""
    changes = [(item.id, item.code) for item in corrections if item.action != "keep"]
    return sum(change in pairs for change in changes) / len(changes) if changes else float("nan")
