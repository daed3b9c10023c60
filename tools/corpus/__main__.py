"""Makes the frozen data of the series again: `python -m tools.corpus` writes notebooks/data/*.parquet.

* `corpus.parquet`: the embedded corpus with its splits; training rows in two phases (1: texts of one clause, 2:
  composed texts and letters, mixed), those that share anything with a held-out set taken out.
* `presidio-templates.parquet`: the independent benchmark, templates of presidio-evaluator (MIT) with values.
* `own/train.jsonl`, `own/test.jsonl`: rows of notebook 07's own policy.

Everything that a change of this folder would alter shows as another SHA-256 of canonical JSON, which is printed.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from guard_utils.data import PII_200K, drop_leaks, leakage, to_examples
from guard_utils.files import fetch, write_text, write_whole
from guard_utils.profiles import repository
from tools.corpus.compose import generate
from tools.corpus.independent import fill, presidio_fillers, presidio_templates
from tools.corpus.letters import generate_letters, generate_own
from tools.corpus.values import Split

Row = dict[str, Any]

SEED = 0
ROWS = {
    "train-1": 1_500,
    "train-2": 2_000,
    "train-letters": 3_500,
    "validation": 400,
    "validation-letters": 200,
    "test": 800,
    "independent": 1_500,
}
"""Rows of each part, before leaks are taken out of training."""
OWN_ROWS: dict[Split, int] = {"train": 3_200, "test": 400}
PHASES = {"train-1": 1, "train-2": 2, "train-letters": 2}
MASK = pa.struct({"value": pa.string(), "start": pa.int64(), "end": pa.int64(), "label": pa.string()})
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "source_text": pa.string(),
        "target_text": pa.string(),
        "privacy_mask": pa.list_(MASK),
        "language": pa.string(),
        "template_id": pa.string(),
        "situation": pa.string(),
        "clause_ids": pa.list_(pa.string()),
        "split": pa.string(),
        "phase": pa.int64(),
    }
)


def rows_of(part: str, count: int) -> Iterator[dict[str, Any]]:
    """Generates the first rows of a part of `ROWS`; training rows carry their phase, leaks are still in."""
    split, _, kind = part.partition("-")
    if part == "independent":
        folder = fetch("presidio-templates")
        rows: Iterable[dict[str, Any]] = fill(presidio_templates(folder), presidio_fillers(folder), n=count, seed=SEED)
    elif kind == "letters":
        rows = generate_letters(count, split=cast(Split, split), seed=SEED)
    else:
        rows = generate(count, split=cast(Split, split), seed=SEED, simple=kind == "1")
    return (row | {"phase": PHASES.get(part)} for row in rows)


def sha256(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of rows as canonical JSON: sorted keys, one row per line."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def without_leaks(
    train: Sequence[dict[str, Any]], held_out: Iterable[Sequence[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Takes out the training rows that share a template, a clause or a near-duplicate text with any held-out part."""
    examples = to_examples(train, PII_200K, place="train")
    for part in held_out:
        examples = drop_leaks(examples, leakage(examples, to_examples(part, PII_200K, place="held out")))
    kept = {example.id for example in examples}
    return [row for row in train if row["id"] in kept]


def main() -> None:
    """Writes both files and prints what is in them."""
    parts = {part: list(rows_of(part, count)) for part, count in ROWS.items()}
    held_out = {part: rows for part, rows in parts.items() if not part.startswith("train")}
    # Any share of a phase is a sample of what it holds.
    second = parts["train-2"] + parts["train-letters"]
    random.Random(SEED).shuffle(second)
    train = without_leaks(parts["train-1"] + second, held_out.values())
    files = {
        "corpus": [*train, *held_out["validation"], *held_out["validation-letters"], *held_out["test"]],
        "presidio-templates": held_out["independent"],
    }
    for name, rows in files.items():
        path = repository() / "notebooks" / "data" / f"{name}.parquet"
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        write_whole(path, partial(pq.write_table, table, compression="zstd", compression_level=19))
        size = path.stat().st_size / 1e6
        print(f"{path.name}: {len(rows):,} rows, {size:.2f} MB, SHA-256 of the rows {sha256(rows)}")

    for split, count in OWN_ROWS.items():
        lines = "".join(f"{json.dumps(row)}\n" for row in generate_own(count, split=split, seed=SEED))
        write_text(repository() / "notebooks" / "data" / "own" / f"{split}.jsonl", lines)


if __name__ == "__main__":
    main()
