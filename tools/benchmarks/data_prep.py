"""Rows of the 200k schema to training lines: the reference tutorial's loop against ours.

    python -m tools.benchmarks.data_prep --output data_prep.json             # 200,000 generated rows
    python -m tools.benchmarks.data_prep --rows 2000

All sides start from the same memory-mapped `datasets.Dataset` and end with a file of lines `{"id", "text", "answer"}`.
Reading, mapping and writing are timed.

* `reference`: a loop over rows, keys looked for inside each token label (our re-implementation of its rules).
* `ours`: `guard_utils.data.training_lines`, exact labels of `privacy_mask`, column by column.
* `ours_checked`: `guard_utils.data.to_examples`, which makes the spans and compares the parts of every row.

Both of ours must give the same file, and the reference's lines wherever both rules give each label of a row the same
code.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from guard_utils.data import (
    PII_200K,
    REFERENCE_EVALUATION_KEYS,
    reference_codes_evaluation,
    to_examples,
    training_lines,
)
from tools.benchmarks.figures import write_benchmark

SYLLABLES = ("ba", "ko", "ri", "ten", "mul", "sha", "do", "vi", "ler", "gan", "po", "st")


def make_row(number: int, rng: random.Random) -> dict[str, Any]:
    """Makes a row of the 200k schema: about 50 tokens, 0 to 6 labelled values."""
    labels = [rule.label for rule in PII_200K.rules]
    words = [rng.choice(SYLLABLES) + rng.choice(SYLLABLES) for _ in range(rng.randint(12, 36))]
    kinds: list[str | None] = [None] * len(words)
    for place in rng.sample(range(len(words)), rng.randint(0, 6)):
        kinds[place] = rng.choice(labels)
    mask, tags, start = [], [], 0
    for word, kind in zip(words, kinds, strict=True):
        tags += [f"B-{kind}", f"I-{kind}"] if kind else ["O", "O"]
        if kind:
            mask.append({"value": word, "start": start, "end": start + len(word), "label": kind})
        start += len(word) + 1
    masked = " ".join(f"[{kind}]" if kind else word for word, kind in zip(words, kinds, strict=True))
    texts = {"source_text": " ".join(words), "target_text": masked, "language": rng.choice(("en", "fr", "de", "it"))}
    return texts | {"privacy_mask": mask, "mbert_bio_labels": tags, "id": str(number)}


def reference_lines(rows: Iterable[Any]) -> Iterator[dict[str, str]]:
    """The reference's way: row by row, token by token, key by key; codes joined in ascending order."""
    for row in rows:
        codes = set()
        for label in row["mbert_bio_labels"]:
            for key, code in REFERENCE_EVALUATION_KEYS.items():
                if key in label:
                    codes.add(code)
        answer = "unsafe\n" + ",".join(sorted(codes)) if codes else "safe"
        yield {"id": row["id"], "text": row["source_text"], "answer": answer}


SIDES = {
    "reference": reference_lines,
    "ours": lambda rows: training_lines(rows, PII_200K),
    "ours_checked": lambda rows: (
        {"id": e.id, "text": e.text, "answer": e.verdict.text} for e in to_examples(rows, PII_200K)
    ),
}


def compare(rows: Dataset, targets: dict[str, Path]) -> dict[str, int]:
    """Counts the rows on which both rules agree, and the equal lines; AssertionError where a line differs unduly."""
    lines = {side: path.read_text(encoding="utf-8").splitlines() for side, path in targets.items()}
    assert lines["ours"] == lines["ours_checked"]
    agrees = {label: reference_codes_evaluation([label]) == PII_200K.codes([label]) for label in PII_200K.by_label}
    alike = [all(agrees[span["label"]] for span in mask) for mask in rows["privacy_mask"]]
    equal = [a == b for a, b in zip(lines["reference"], lines["ours"], strict=True)]
    assert all(same for same, known in zip(equal, alike, strict=True) if known)
    return {"rows": len(rows), "rules_agree": sum(alike), "lines_equal": sum(equal)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        Dataset.from_list([make_row(number, rng) for number in range(arguments.rows)]).save_to_disk(f"{folder}/rows")
        targets, speed = {side: Path(folder) / f"{side}.jsonl" for side in SIDES}, {}
        for side, lines_of in SIDES.items():
            rows, encode = Dataset.load_from_disk(f"{folder}/rows"), json.JSONEncoder(ensure_ascii=False).encode
            start = time.perf_counter()
            with targets[side].open("w", encoding="utf-8") as file:
                file.writelines(encode(line) + "\n" for line in lines_of(rows))
            speed[side] = arguments.rows / (time.perf_counter() - start)
            print(f"{side:12} {speed[side]:>10,.0f} rows/s")
        counts = compare(rows, targets)
    ratio = speed["ours"] / speed["reference"]
    write_benchmark({"seed": arguments.seed, **counts, "ratio": ratio, "rows_per_second": speed}, arguments.output)


if __name__ == "__main__":
    main()
