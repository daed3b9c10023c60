"""Predictions on disk: what this checkpoint made of these rows is read again, and nothing else is.

Each table of the fine-tuned model carries in its `attrs` (which parquet keeps) the fingerprints of the checkpoint and
of the rows, so that a table of another training, another seed or another corpus is never taken for this one's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from guard_utils.data.examples import Example, rows_fingerprint
from guard_utils.files import read_table, write_table
from guard_utils.profiles import Run, repository
from guard_utils.training.launch import checkpoint, checkpoint_fingerprint

MADE_BY = {"tuned": "04_confusion_matrix_benchmark"}
"""System to the notebook that scores it; all others are scored by the first."""


def predictions_path(run: Run, system: str, part: str) -> Path:
    """Where a run writes the predictions of a system on a part."""
    return run.folder / "predictions" / f"{system}-{part}.parquet"


def shipped_path(run: Run, system: str, part: str) -> Path:
    """Where the repository keeps the predictions of its own run, for readers who start without training."""
    return repository() / "notebooks" / "predictions" / run.profile.name / f"{system}-{part}.parquet"


def read_predictions(run: Run, system: str, part: str, examples: Sequence[Example]) -> pd.DataFrame:
    """Reads the predictions of a system, and makes sure that they are of these rows.

    Args:
        run: A resolved profile.
        system: `majority`, `regex`, `tfidf`, `zero_shot` or `tuned`.
        part: `validation`, `test` or `independent`.
        examples: The rows, in order.

    Raises:
        FileNotFoundError: The table is missing; names the notebook to run.
        ValueError: The table is of other rows or of an older corpus.
    """
    made_by = MADE_BY.get(system, "01_baseline_evaluation")
    own, shipped = predictions_path(run, system, part), shipped_path(run, system, part)
    table = read_table(own if own.exists() or not shipped.exists() else shipped, made_by=made_by)
    if list(zip(table["id"], table["text"], strict=True)) != [(example.id, example.text) for example in examples]:
        raise ValueError(
            f"{system}-{part}.parquet holds {len(table)} rows that are not the {len(examples)} of this corpus; "
            f"run notebook {made_by} again with PROFILE = {run.profile.name!r}"
        )
    return table


def tuned_predictions(
    run: Run, parts: Mapping[str, Sequence[Example]], *, progress: bool = True
) -> dict[str, pd.DataFrame]:
    """Scores sets of examples with a run's fine-tuned model, or reads the tables that it made before.

    Tables lie in `predictions/tuned-<part>.parquet` of the run's folder. Where there is no checkpoint, tables of the
    same rows are read all the same, the repository's own at last, so that a reader can start without training.

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
    paths = {part: predictions_path(run, "tuned", part) for part in parts}
    if not mark:
        paths |= {part: shipped_path(run, "tuned", part) for part, path in paths.items() if not path.exists()}
    tables = {part: read_table(path, made_by=MADE_BY["tuned"]) for part, path in paths.items() if path.exists()}
    tables = {part: table for part, table in tables.items() if wanted[part].items() <= table.attrs.items()}
    made = _score(run, {part: parts[part] for part in parts if part not in tables}, progress=progress)
    for part, table in made.items():
        table.attrs = wanted[part]
        write_table(paths[part], table)
    origin = "read: this checkpoint made it" if mark else "read: there is no checkpoint here to compare with"
    for table in tables.values():
        table.attrs["origin"] = origin
    for table in made.values():
        table.attrs["origin"] = "scored now"
    tables |= made
    return {part: tables[part] for part in parts}


def _rows(run: Run, examples: Sequence[Example]) -> dict[str, str]:
    return {"rows": rows_fingerprint(examples), "policy": run.policy.name}


def _score(run: Run, parts: Mapping[str, Sequence[Example]], *, progress: bool) -> dict[str, pd.DataFrame]:
    """Scores the parts with the checkpoint, which is loaded only if there are any."""
    if not parts:
        return {}
    from guard_utils.prompt import GuardPrompt
    from guard_utils.scoring.scorer import GuardScorer, load_model, predict

    model, tokenizer = load_model(checkpoint(run), dtype=run.dtype, device=run.device)
    scorer = GuardScorer(model, GuardPrompt(run.policy, tokenizer))
    return {part: predict(scorer, examples, progress=progress) for part, examples in parts.items()}
