"""Label noise to practise on: added with a seed, so that every wrong (row, code) pair is known.

Does: overlook categories, confuse them, apply wrong rules. Does not: look for wrong labels (`label_issues`) or
correct them (`corrections`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from guard_utils.data.examples import Example, Span
from guard_utils.data.labels import reference_codes_evaluation
from guard_utils.data.splits import draw
from guard_utils.policy import Taxonomy, Verdict


@dataclass(frozen=True)
class LabelNoise:
    """Noisy examples, whose spans have no code, and the truth about every (row, code) pair that was touched.

    Columns of `truth`: `id, code, kind` ("rule", "missing" or "wrong"), `given` (the row has the code now), `right` (it
    should). Where two kinds cancel out, `given` equals `right`.
    """

    examples: list[Example]
    truth: pd.DataFrame


def add_label_noise(
    examples: Sequence[Example],
    policy: Taxonomy,
    *,
    seed: int,
    missing: float = 0.05,
    wrong: float = 0.03,
    rules: Callable[[Iterable[str]], tuple[str, ...]] = reference_codes_evaluation,
) -> LabelNoise:
    """Adds noise to right examples; it depends on the seed and a row's id, not on the order of rows.

    Of the (row, code) pairs, a share of `missing` loses its spans; in a share of `wrong` they get a label of another
    category. Then `rules` turn the labels of each row into its codes.
    """
    if min(missing, wrong) < 0 or missing + wrong > 1:
        raise ValueError(f"missing {missing} and wrong {wrong} must be shares of the codes that add up to at most 1")
    labels = {code: sorted({s.label for e in examples for s in e.spans if s.code == code}) for code in policy.codes}
    if absent := [code for code, names in labels.items() if not names]:
        raise ValueError(f"no span has {', '.join(absent)}; add noise to rows that have every category")

    def annotate(row: str, span: Span) -> Span | None:
        """The span as a careless annotator leaves it; all spans of a category in a row change alike."""
        luck = draw(seed, row, span.code)
        if span.code is None or luck >= missing + wrong:
            return span
        if luck < missing:
            return None
        others = [code for code in sorted(labels) if code != span.code]
        code = others[int(draw(seed, row, span.code, "code") * len(others))]
        label = labels[code][int(draw(seed, row, span.code, "label") * len(labels[code]))]
        return replace(span, label=label, code=code)

    noisy, truth = [], []
    for example in examples:
        spans = [new for span in example.spans if (new := annotate(example.id, span))]
        annotated = {span.code for span in spans if span.code}
        given = Verdict.of(rules(span.label for span in spans)).codes
        changed = set(example.codes) ^ annotated
        for code in sorted(changed | (annotated ^ set(given))):
            kind = "rule" if code not in changed else "missing" if code in example.codes else "wrong"
            truth.append((example.id, code, kind, code in given, code in example.codes))
        noisy.append(replace(example, codes=given, spans=tuple(replace(span, code=None) for span in spans)))
    return LabelNoise(noisy, pd.DataFrame(truth, columns=["id", "code", "kind", "given", "right"]))


def wrong_pairs(given: Sequence[Example], right: Sequence[Example]) -> set[tuple[str, str]]:
    """Returns the (id, code) pairs on which two versions of the same rows differ."""
    if [example.id for example in given] != [example.id for example in right]:
        raise ValueError("the ids differ, or their order does; pass two versions of the same rows")
    return {(a.id, code) for a, b in zip(given, right, strict=True) for code in set(a.codes) ^ set(b.codes)}
