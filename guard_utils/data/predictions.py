"""The predictions table, which every system fills and every metric reads.

One row per prompt: `id` (unique), `gold` and `predicted` (lists of codes), `p_<code>` for every code of the policy,
`p_unsafe`, and `outside` (probability mass outside the grammar). Does: build the table, check it, give its columns as
matrices. Does not: score a text, or compute a metric.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from guard_utils.data.examples import Example
from guard_utils.policy import Taxonomy, require_list

BoolMatrix = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

ROUNDING = 1e-6
"""Sums of exponentials may pass 0 or 1 by this much; more is an error."""


def predictions_table(
    examples: Sequence[Example],
    policy: Taxonomy,
    marginals: npt.ArrayLike,
    predicted: Sequence[Iterable[str]],
    outside: npt.ArrayLike,
    *,
    unsafe: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Builds the predictions table of any system, a guard or a baseline.

    Args:
        examples: What was scored.
        policy: Its codes name the columns.
        marginals: [examples, categories] P(code).
        predicted: The codes of each example's answer, in any order.
        outside: [examples] probability mass outside the grammar, or one number for all.
        unsafe: [examples] P(any code). If left out, 1 - product of (1 - P(code)), which holds for a system that
            decides each category by itself; a guard does not, so give `Scores.unsafe`.

    Returns:
        One row per example, in the given order: `id`, `text`, `language`, `template_id`, `situation`, `gold`, `labels`
        (distinct source labels in order of appearance), `predicted`, `p_<code>`..., `p_unsafe`, `outside`.

    Raises:
        TypeError: One text instead of a list in `predicted`.
        ValueError: A number of rows or columns does not fit, or the table is faulty.
    """
    for codes in predicted:
        require_list(codes, "the codes of an answer")
    values = np.asarray(marginals, dtype=float)
    if values.shape != (len(examples), len(policy)) or len(predicted) != len(examples):
        raise ValueError(
            f"marginals {list(values.shape)} and {len(predicted)} predictions do not fit {len(examples)} examples and "
            f"the {len(policy)} categories of policy {policy.name!r}; score exactly these examples with that policy"
        )
    place = {code: i for i, code in enumerate(policy.codes)}
    table = pd.DataFrame(
        {
            "id": [e.id for e in examples],
            "text": [e.text for e in examples],
            "language": [e.language for e in examples],
            "template_id": [e.template_id for e in examples],
            "situation": [e.situation for e in examples],
            "gold": [list(e.codes) for e in examples],
            "labels": [list(dict.fromkeys(span.label for span in e.spans)) for e in examples],
            "predicted": [sorted(codes, key=lambda code: place.get(code, -1)) for codes in predicted],
            **{f"p_{code}": values[:, i] for code, i in place.items()},
            "p_unsafe": 1 - np.prod(1 - values, axis=1) if unsafe is None else np.asarray(unsafe, dtype=float),
            "outside": np.broadcast_to(np.asarray(outside, dtype=float), len(examples)),
        }
    )
    check_predictions(table, policy)
    return table


def check_predictions(df: pd.DataFrame, policy: Taxonomy) -> None:
    """Checks a predictions table.

    Raises:
        ValueError: A column is missing, there is no row, an id is missing or repeated, a cell of `gold` or `predicted`
            is not a list of distinct codes of the policy, or a probability is NaN or outside [0, 1].
    """
    probabilities = [*(f"p_{code}" for code in policy.codes), "p_unsafe", "outside"]
    need_columns(df, "id", "gold", "predicted", *probabilities)
    if df.empty:
        raise ValueError("predictions have no row; score at least one prompt")
    if df["id"].isna().any():
        raise ValueError(f"row {int(np.argmax(df['id'].isna()))} has no id; give each prompt its own")
    if len(repeated := df["id"][df["id"].duplicated()]):
        raise ValueError(f"id {repeated.iloc[0]!r} stands on more than one row; keep each prompt once")
    gold_matrix(df, policy)
    predicted_matrix(df, policy)
    for column in probabilities:
        if not pd.api.types.is_numeric_dtype(df[column]):
            raise ValueError(f"column {column} holds {df[column].dtype}, not numbers; convert it to float")
        values = df[column].to_numpy(dtype=float, na_value=np.nan)
        good = (values >= -ROUNDING) & (values <= 1 + ROUNDING)
        if not good.all():
            row = int(np.argmin(good))
            found = f"{column} is {values[row]} on row {row} (id {df['id'].iloc[row]!r})"
            fix = "exponentiate log-probabilities, drop unscored rows"
            raise ValueError(f"{found}; it must be a probability in [0, 1]: {fix}")


def gold_matrix(df: pd.DataFrame, policy: Taxonomy) -> BoolMatrix:
    """Gold codes as bool [rows, categories], checked."""
    return _code_matrix(df, "gold", policy)


def predicted_matrix(df: pd.DataFrame, policy: Taxonomy) -> BoolMatrix:
    """Predicted codes as bool [rows, categories], checked."""
    return _code_matrix(df, "predicted", policy)


def _code_matrix(df: pd.DataFrame, column: str, policy: Taxonomy) -> BoolMatrix:
    place = {code: i for i, code in enumerate(policy.codes)}
    matrix = np.zeros((len(df), len(policy)), dtype=bool)

    def where() -> str:
        return f"on row {row} (id {df['id'].iloc[row]!r})"

    for row, cell in enumerate(df[column]):
        if not isinstance(cell, list | tuple | np.ndarray):
            raise ValueError(f"{column} is {cell!r} {where()}; write a list of codes, [] where safe")
        for code in cell:
            if code not in place:
                has = f"policy {policy.name!r} has only {', '.join(policy.codes)}"
                raise ValueError(f"{column} holds {code!r} {where()}; {has}: map the labels to these codes")
            if matrix[row, place[code]]:
                raise ValueError(f"{column} repeats a code {where()}: {list(cell)}; write it once")
            matrix[row, place[code]] = True
    return matrix


def codes_of(matrix: BoolMatrix, policy: Taxonomy) -> list[list[str]]:
    """The codes of each row of a bool [rows, categories]."""
    return [[code for code, there in zip(policy.codes, row, strict=True) if there] for row in matrix]


def score_matrix(df: pd.DataFrame, policy: Taxonomy) -> FloatArray:
    """Marginals P(code) as float [rows, categories], rounding beyond 0 and 1 clipped."""
    return np.clip(df[[f"p_{code}" for code in policy.codes]].to_numpy(dtype=float), 0.0, 1.0)


def need_columns(df: pd.DataFrame, *columns: str) -> None:
    """Checks that a table has some columns; the error names the missing ones."""
    if missing := [name for name in columns if name not in df.columns]:
        raise ValueError(f"predictions lack the columns {missing}; score with the same policy, or join them by id")


def check_same_rows(a: pd.DataFrame, b: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    """Checks that two tables answer the same prompts with the same gold, and returns `b` in the row order of `a`."""
    check_predictions(a, policy)
    check_predictions(b, policy)
    if alone := sorted(set(a["id"]) ^ set(b["id"])):
        found = f"{len(alone)} ids stand in one table only, the first is {alone[0]!r}"
        raise ValueError(f"{found}; score both systems on the same rows")
    aligned = b.set_index("id", drop=False).loc[a["id"]].reset_index(drop=True)
    differs = (gold_matrix(a, policy) != gold_matrix(aligned, policy)).any(axis=1)
    if differs.any():
        row = int(np.argmax(differs))
        raise ValueError(
            f"gold of id {a['id'].iloc[row]!r} is {list(a['gold'].iloc[row])} in one table and "
            f"{list(aligned['gold'].iloc[row])} in the other; score both against one label map"
        )
    return aligned
