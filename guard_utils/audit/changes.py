"""Labels that are changed: noise to practise on, whose every wrong (row, code) pair is known, and corrections.

Does: overlook categories, confuse them and apply wrong rules by a seed; write, read, check and apply decisions, a small
file without text, so that corrections of rows that may not be redistributed can be shared. Does not: look for wrong
labels (`label_issues`), or decide anything.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from guard_utils.data.examples import Example, Span, rows_fingerprint
from guard_utils.data.labels import reference_codes_evaluation
from guard_utils.data.splits import draw
from guard_utils.files import write_text
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
    examples: Sequence[Example], policy: Taxonomy, *, seed: int, missing: float = 0.05, wrong: float = 0.03
) -> LabelNoise:
    """Adds noise to right examples; it depends on the seed and a row's id, not on the order of rows.

    Of the (row, code) pairs, a share of `missing` loses its spans; in a share of `wrong` they get a label of another
    category. Then the reference's rules of evaluation turn the labels of each row into its codes.
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
        given = Verdict.of(reference_codes_evaluation(span.label for span in spans)).codes
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


ACTIONS = ("add", "remove", "keep")
FORMAT = "guard-utils-corrections-1"


@dataclass(frozen=True, order=True)
class Correction:
    """A decision on one code of one row: `action` is `add`, `remove` or `keep`, `reviewer` a person or a program."""

    id: str
    code: str
    action: str
    reason: str
    reviewer: str

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action {self.action!r} of row {self.id!r} is none of {', '.join(ACTIONS)}")


def write_corrections(
    path: Path, corrections: Iterable[Correction], examples: Sequence[Example], policy: Taxonomy
) -> Path:
    """Writes corrections of these examples, sorted; raises what `apply_corrections` raises, and then writes nothing."""
    decided = sorted(set(corrections))
    apply_corrections(examples, decided, policy)
    head = {"format": FORMAT, "rows": len(examples), "data": rows_fingerprint(examples)}
    lines = [json.dumps(item, ensure_ascii=False) for item in (head, *map(asdict, decided))]
    return write_text(path, "\n".join(lines) + "\n")


def read_corrections(path: Path, examples: Sequence[Example]) -> list[Correction]:
    """Reads what `write_corrections` wrote about these examples, and no other version of them."""
    head, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    if FORMAT not in head:
        raise ValueError(f"{path.name} does not begin with a header of {FORMAT}; write it with write_corrections")
    reviewed, own = json.loads(head)["data"], rows_fingerprint(examples)
    if reviewed != own:
        raise ValueError(f"{path.name} is of data {reviewed[:12]}, not {own[:12]}; load the reviewed version")
    found = []
    for number, line in enumerate(lines, 2):
        try:
            found.append(Correction(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path.name}, line {number}: {error}") from None
    return found


def apply_corrections(
    examples: Sequence[Example], corrections: Iterable[Correction], policy: Taxonomy
) -> list[Example]:
    """Returns the examples with corrected codes, spans unchanged; equal decisions of several reviewers are fine.

    Raises:
        ValueError: An id is unknown or on several rows, or a decision contradicts another or the data.
    """
    codes = {example.id: set(example.codes) for example in examples}
    if len(codes) < len(examples):
        raise ValueError(f"{len(examples)} rows have {len(codes)} ids; give each row its own before correcting any")
    decided: dict[tuple[str, str], Correction] = {}
    for item in corrections:
        if item.id not in codes:
            raise ValueError(f"id {item.id!r} is not in the data; load the reviewed rows")
        policy.position(item.code)
        first = decided.setdefault((item.id, item.code), item)
        if first.action != item.action:
            raise ValueError(f"{item.code} of row {item.id!r} has both {first.action} and {item.action}; keep one")
    for (row, code), item in decided.items():
        if item.action == "keep":
            continue
        if (item.action == "add") == (code in codes[row]):
            raise ValueError(f"can't {item.action} {code}: row {row!r} has {sorted(codes[row])}; done before?")
        codes[row] ^= {code}
    return [replace(example, codes=Verdict.of(codes[example.id]).codes) for example in examples]
