"""Predictions of the fine-tuned model, scored once: what this checkpoint made of these rows is read again.

Each table carries in its `attrs` (which parquet keeps) the fingerprints of the checkpoint and of the rows, so that a
table of another training, another seed or another corpus is never taken for this one's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import pandas as pd

from guard_utils.datasets import Example
from guard_utils.files import read_table, write_table
from guard_utils.finetune import checkpoint, checkpoint_fingerprint
from guard_utils.profiles import Run

NOTEBOOK = "04_confusion_matrix_benchmark"


def rows_fingerprint(examples: Sequence[Example]) -> str:
    """Identifies examples by their ids, texts and codes, in order."""
    lines = (json.dumps([example.id, example.text, example.codes]) for example in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def tuned_predictions(
    run: Run, parts: Mapping[str, Sequence[Example]], *, progress: bool = True
) -> dict[str, pd.DataFrame]:
    """Scores sets of examples with a run's fine-tuned model, or reads the tables that it made before.

    Tables lie in `predictions/tuned-<part>.parquet` of the run's folder. Where there is no checkpoint, tables of the
    same rows are read all the same, so that a reader can start from someone else's predictions.

    Args:
        run: A resolved profile.
        parts: Name of the set (`test`, ...) to its examples.
        progress: Whether to show a bar with a rate.

    Returns:
        Part to its predictions table. Its `attrs`: `checkpoint`, `rows` (fingerprints), `dtype`, `policy`, and
        `origin`, which says in words where the table comes from.

    Raises:
        FileNotFoundError: There is neither a table of these rows nor a checkpoint; names the notebook to run.
    """
    try:
        mark = {"checkpoint": checkpoint_fingerprint(run), "dtype": run.dtype}
    except FileNotFoundError:
        mark = {}
    wanted = {part: mark | _rows(run, examples) for part, examples in parts.items()}
    paths = {part: run.folder / "predictions" / f"tuned-{part}.parquet" for part in parts}
    found = {part: read_table(path, made_by=NOTEBOOK) for part, path in paths.items() if path.exists()}
    missing = [part for part in parts if part not in found or not wanted[part].items() <= found[part].attrs.items()]
    made = _score(run, {part: parts[part] for part in missing}, progress=progress)
    for part, table in made.items():
        table.attrs = wanted[part]
        write_table(paths[part], table)
    origin = "read: this checkpoint made it" if mark else "read: there is no checkpoint here to compare with"
    tables = {part: made.get(part, found.get(part)) for part in parts}
    for part, table in tables.items():
        table.attrs["origin"] = "scored now" if part in made else origin
    return tables


def _rows(run: Run, examples: Sequence[Example]) -> dict[str, str]:
    return {"rows": rows_fingerprint(examples), "policy": run.policy.name}


def _score(run: Run, parts: Mapping[str, Sequence[Example]], *, progress: bool) -> dict[str, pd.DataFrame]:
    """Scores the parts with the checkpoint, which is loaded only if there are any."""
    if not parts:
        return {}
    from guard_utils.prompt import GuardPrompt
    from guard_utils.scorer import GuardScorer, load_model, predict

    model, tokenizer = load_model(checkpoint(run), dtype=run.dtype, device=run.device)
    scorer = GuardScorer(model, GuardPrompt(run.policy, tokenizer))
    return {part: predict(scorer, examples, progress=progress) for part, examples in parts.items()}
