"""Rows of the 200k schema to training lines: the reference tutorial's loop against ours.

    python -m tools.benchmarks.data_prep --output data_prep.json             # 200,000 generated rows
    python -m tools.benchmarks.data_prep --rows 2000 --output data_prep.json

What is compared. Both sides start from the same memory-mapped `datasets.Dataset` with all nine columns of
ai4privacy/pii-masking-200k and end with the same file of JSON lines `{"id", "text", "answer"}`. Reading, mapping and
writing are timed; generating the rows and importing are not. Each side runs in a process of its own, which gives its
peak memory.

* `reference`: a loop over rows, keys looked for inside each token label (our re-implementation of its rules).
* `reference_narrow`: the same loop after all columns but the three it reads were dropped, as the reference does not.
* `ours`: `guard_utils.data.training_lines`, exact labels of `privacy_mask`, column by column.
* `ours_checked`: `guard_utils.data.to_examples`, which makes the spans and compares the parts of every row.

Both of ours must give the same file, and the reference's lines wherever both rules give each label of a row the same
code.
"""

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from guard_utils.data import (
    PII_200K,
    REFERENCE_EVALUATION_KEYS,
    reference_codes_evaluation,
    to_examples,
    training_lines,
)
from tools.benchmarks.figures import write_benchmark

SIDES = ("reference", "reference_narrow", "ours", "ours_checked")
SYLLABLES = ("ba", "ko", "ri", "ten", "mul", "sha", "do", "vi", "ler", "gan", "po", "st")
SCHEMA = pa.schema(
    {
        "source_text": pa.string(),
        "target_text": pa.string(),
        "privacy_mask": pa.list_(
            pa.struct({"value": pa.string(), "start": pa.int64(), "end": pa.int64(), "label": pa.string()})
        ),
        "span_labels": pa.string(),
        "mbert_text_tokens": pa.list_(pa.string()),
        "mbert_bio_labels": pa.list_(pa.string()),
        "id": pa.string(),
        "language": pa.string(),
        "set": pa.string(),
    }
)


def make_row(number: int, rng: random.Random) -> dict[str, Any]:
    """Makes a row of the 200k schema: about 50 tokens, 0 to 6 labelled values."""
    labels = [rule.label for rule in PII_200K.rules]
    words = [rng.choice(SYLLABLES) + rng.choice(SYLLABLES) for _ in range(rng.randint(12, 36))]
    kinds: list[str | None] = [None] * len(words)
    for place in rng.sample(range(len(words)), rng.randint(0, 6)):
        kinds[place] = rng.choice(labels)
    text, masked = " ".join(words), " ".join(f"[{k}]" if k else w for w, k in zip(words, kinds, strict=True))
    mask, tokens, tags, start = [], [], [], 0
    for word, kind in zip(words, kinds, strict=True):
        half = len(word) // 2
        tokens += [word[:half], "##" + word[half:]]
        tags += [f"B-{kind}", f"I-{kind}"] if kind else ["O", "O"]
        if kind:
            mask.append({"value": word, "start": start, "end": start + len(word), "label": kind})
        start += len(word) + 1
    return {
        "source_text": text,
        "target_text": masked,
        "privacy_mask": mask,
        "span_labels": json.dumps([[m["start"], m["end"], m["label"]] for m in mask]),
        "mbert_text_tokens": tokens,
        "mbert_bio_labels": tags,
        "id": str(number),
        "language": rng.choice(("en", "fr", "de", "it")),
        "set": "train",
    }


def generate(path: Path, rows: int, *, seed: int) -> None:
    """Writes generated rows as an Arrow stream, the form in which `datasets` caches a hub set."""
    rng = random.Random(seed)
    with pa.ipc.new_stream(path, SCHEMA) as writer:
        for first in range(0, rows, 10_000):
            chunk = [make_row(number, rng) for number in range(first, min(first + 10_000, rows))]
            writer.write_table(pa.Table.from_pylist(chunk, SCHEMA))


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


def measure(side: str, source: str, target: str) -> dict[str, float]:
    """Runs one side and returns its seconds and the process's peak memory in MiB."""
    rows = Dataset.from_file(source)
    encode = json.JSONEncoder(ensure_ascii=False).encode
    start = time.perf_counter()
    if side == "ours":
        lines: Iterator[dict[str, str]] = training_lines(rows, PII_200K)
    elif side == "ours_checked":
        examples = to_examples(rows, PII_200K)
        lines = ({"id": e.id, "text": e.text, "answer": e.verdict.text} for e in examples)
    else:
        narrow = side == "reference_narrow"
        lines = reference_lines(rows.select_columns(["id", "source_text", "mbert_bio_labels"]) if narrow else rows)
    with open(target, "w", encoding="utf-8") as file:
        file.writelines(encode(line) + "\n" for line in lines)
    seconds = time.perf_counter() - start
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def compare(source: str, targets: dict[str, Path]) -> dict[str, int]:
    """Counts the rows on which both rules agree, and the equal lines.

    Raises:
        AssertionError: A line differs though the rules agree, or the two files of ours do.
    """
    assert targets["ours"].read_bytes() == targets["ours_checked"].read_bytes()
    rows = Dataset.from_file(source)
    agrees = {label: reference_codes_evaluation([label]) == PII_200K.codes([label]) for label in PII_200K.by_label}
    counts = {"rows": len(rows), "rules_agree": 0, "lines_equal": 0}
    with targets["reference"].open(encoding="utf-8") as theirs, targets["ours"].open(encoding="utf-8") as ours:
        masks = (mask for batch in rows.select_columns("privacy_mask").iter(1000) for mask in batch["privacy_mask"])
        for their_line, our_line, mask in zip(theirs, ours, masks, strict=True):
            equal = their_line == our_line
            counts["lines_equal"] += equal
            if all(agrees[span["label"]] for span in mask):
                counts["rules_agree"] += 1
                assert equal, (their_line, our_line)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = str(Path(folder) / "rows.arrow")
        targets = {side: Path(folder) / f"{side}.jsonl" for side in SIDES}
        print(f"generating {arguments.rows:,} rows")
        generate(Path(source), arguments.rows, seed=arguments.seed)
        results: dict[str, dict[str, float]] = {}
        for side in SIDES:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                result = pool.submit(measure, side, source, str(targets[side])).result()
            results[side] = result | {"rows_per_second": arguments.rows / result["seconds"]}
            print(f"{side:17} {results[side]['rows_per_second']:>10,.0f} rows/s, peak {result['peak_mib']:,.0f} MiB")
        counts = compare(source, targets)
    ratios = {f"ratio_to_{s}": results["ours"]["rows_per_second"] / results[s]["rows_per_second"] for s in SIDES[:2]}
    print(
        f"ours is {ratios['ratio_to_reference']:.1f}x the loop, "
        f"{ratios['ratio_to_reference_narrow']:.1f}x the narrow one"
    )
    print(
        f"identical lines in all {counts['rules_agree']:,} rows where the rules agree; "
        f"{counts['lines_equal']:,} overall"
    )
    write_benchmark({"seed": arguments.seed, **counts, **ratios, "sides": results}, arguments.output)


if __name__ == "__main__":
    main()
