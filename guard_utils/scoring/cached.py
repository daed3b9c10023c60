"""Prediction tables on disk: a table is read again only if it answers the same rows and policy from the same facts.

`<name>.parquet` holds answers only: `id`, `predicted`, `p_<code>`..., `p_unsafe`, `outside`. `<name>.json` beside it
holds what they were made from. Text and gold come from the examples at each reading. Does not: score.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import pandas as pd

from guard_utils.data.examples import Example
from guard_utils.data.predictions import predictions_table
from guard_utils.data.reference_rows import reference_examples
from guard_utils.files import write_table, write_text
from guard_utils.policy import PII
from guard_utils.profiles import PROFILES, Run, repository
from guard_utils.training.adapters import shipped_adapter
from guard_utils.training.launch import checkpoint_fingerprint

Facts = Mapping[str, Any]
"""What decides the answers besides texts and policy, as JSON values: model, dtype, seed, the training rows."""
Make = Callable[[], pd.DataFrame]


def cached_predictions(
    run: Run, name: str, examples: Sequence[Example], facts: Facts, make: Make | None, *, shipped: bool = True
) -> pd.DataFrame:
    """Reads a table from this run's folder or from `notebooks/predictions/<profile>/`, or makes and writes it.

    Args:
        run: A resolved profile.
        name: Of the file, without its ending.
        examples: What is scored. Ids and texts must be those of the table; codes need not.
        facts: All must be the table's; it may have more.
        make: Makes the predictions table of the examples; None if that takes too long to do unasked.
        shipped: Whether the repository's own table will do.

    Returns:
        A predictions table. `attrs`: what it was made from, and `origin`, where it comes from.

    Raises:
        FileNotFoundError: There is no such table, and `make` is None.
    """
    wanted = {**_made_from(run, examples), **facts}
    folders = {"this run": run.folder / "predictions"}
    if shipped:
        folders["the repository"] = repository() / "notebooks" / "predictions" / run.profile.name
    for place, folder in folders.items():
        path = folder / f"{name}.json"
        made_from = json.loads(path.read_text()) if path.exists() else {}
        if wanted.items() <= made_from.items():
            answers, origin = pd.read_parquet(path.with_suffix(".parquet")), f"read from {place}"
            break
    else:
        if make is None:
            raise FileNotFoundError(f"no {name}.parquet with {', '.join(wanted)} as asked in {' or '.join(folders)}")
        answers, made_from, origin = make(), wanted, "made now"
        write_predictions(run, name, examples, answers, facts)
    marginals = answers[[f"p_{code}" for code in run.policy.codes]]
    predicted, outside, unsafe = (answers[column].tolist() for column in ("predicted", "outside", "p_unsafe"))
    table = predictions_table(examples, run.policy, marginals, predicted, outside, unsafe=unsafe)
    table.attrs = made_from | {"origin": origin}
    return table


def write_predictions(run: Run, name: str, examples: Sequence[Example], table: pd.DataFrame, facts: Facts) -> None:
    """Writes the answers of a predictions table into this run's folder, for `read_predictions`.

    Raises:
        ValueError: The table is not of these examples in this order.
    """
    if table["id"].tolist() != [example.id for example in examples]:
        raise ValueError(f"{name}: the {len(table)} rows are not the {len(examples)} examples in this order")
    columns = ["id", "predicted", *(f"p_{code}" for code in run.policy.codes), "p_unsafe", "outside"]
    path = run.folder / "predictions" / f"{name}.json"
    path.unlink(missing_ok=True)  # so that it never describes another table, wherever this is cut off
    write_table(path.with_suffix(".parquet"), pd.DataFrame({column: table[column] for column in columns}))
    write_text(path, json.dumps({**_made_from(run, examples), **facts}, indent=2) + "\n")


def read_predictions(run: Run, system: str, part: str, examples: Sequence[Example]) -> pd.DataFrame:
    """Reads what a system (`regex`, `tuned`, ...) answered to a part (`test`, ...), from this run or the repository.

    Where there is no table of these very examples, FileNotFoundError names the notebook to run.
    """
    try:
        return cached_predictions(run, f"{system}-{part}", examples, {}, None)
    except FileNotFoundError as error:
        made_by = "notebooks 03 and 04" if system == "tuned" else "notebook 01"
        raise FileNotFoundError(f"{error}; run {made_by} with PROFILE = {run.profile.name!r} first") from None


def reference_predictions() -> dict[str, pd.DataFrame]:
    """Reads what each system answered to the reference tutorial's own rows, without their texts, by system.

    The tables come with the repository, whatever the profile; `guard` is that of its published run.
    """
    ours = Run(PROFILES["laptop"], PII, 0, repository() / "notebooks")
    names = [path.stem for path in sorted((ours.folder / "predictions" / "laptop").glob("*-reference.json"))]
    examples = reference_examples()
    return {name.partition("-")[0]: cached_predictions(ours, name, examples, {}, None) for name in names}


def tuned_predictions(run: Run, parts: Mapping[str, Sequence[Example]], **settings: Any) -> dict[str, pd.DataFrame]:
    """Scores parts (`test`, ...) with a run's fine-tuned model, or reads what this very checkpoint answered before.

    Where nothing is trained, `read_predictions` serves, so that a reader can start without training; for other rows,
    the guard that comes with the series. `settings` are those of `GuardScorer`, such as `max_violations`.
    """
    system = "tuned"
    try:
        checkpoint_fingerprint(run)
    except FileNotFoundError:
        try:
            return {part: read_predictions(run, "tuned", part, rows) for part, rows in parts.items()}
        except FileNotFoundError:
            if shipped_adapter(run) is None:
                raise
            system = "series"  # no answer of it is ever read as one of a training
    from guard_utils.scoring.batch import guard_facts, load_guard
    from guard_utils.scoring.scorer import predict  # torch, which no reader without a guard needs

    facts = guard_facts(run, **settings)
    guard = cache(partial(load_guard, run, **settings))  # loaded once, and only if a table is missing
    tables = {}
    for part, rows in parts.items():
        make = partial(lambda asked: predict(guard(), asked), rows)
        tables[part] = cached_predictions(run, f"{system}-{part}", rows, facts, make, shipped=False)
    return tables


def _made_from(run: Run, examples: Sequence[Example]) -> dict[str, str]:
    """SHA-256 of ids and texts, in order, and the policy as prompts show it."""
    rows = json.dumps([(example.id, example.turns or example.text) for example in examples])
    shown = zip(run.policy.codes, run.policy.categories, strict=True)
    policy = [f"{code}: {category.name}. {category.description}" for code, category in shown]
    return {"rows": hashlib.sha256(rows.encode()).hexdigest(), "policy": "\n".join(policy)}
