"""The 1,998 prompts of ai4privacy/pii-masking-200k that the reference tutorial evaluates on.

Their labels come with the repository; their texts are ai4privacy's and are read from your copy or from the hub. Does
not: put other rows in the place of missing ones, or score.
"""

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from guard_utils.data.examples import Example, Span, reference_selection, to_examples
from guard_utils.data.labels import PII_200K, reference_codes_evaluation
from guard_utils.data.rows import DataError, load
from guard_utils.profiles import repository

HUB_NAME, WHOLE = "ai4privacy/pii-masking-200k", "english_pii_43k.jsonl"
FILES = (WHOLE, "reference_rows.jsonl", "reference_rows.jsonl.gz")
"""What the folder `$GUARD_AI4PRIVACY` may hold: the hub's file, or these rows of it alone, in its order."""
FIX = f"download {WHOLE} from https://huggingface.co/datasets/{HUB_NAME}"


def reference_labels() -> pd.DataFrame:
    """Reads the labels of the rows, in file order.

    Returns:
        Columns `row` (position in `english_pii_43k.jsonl`, from 0), `set` (999 rows "single": at most one code by the
        reference's evaluation rules, 999 "multi") and `labels` (list of those of `privacy_mask`, in its order).
    """
    return pd.read_parquet(repository() / "notebooks" / "data" / "reference_labels.parquet")


def reference_examples() -> list[Example]:
    """Makes examples without text, in file order, to read and score answers that were given to the texts elsewhere."""
    examples = []
    for number, kind, labels in reference_labels().itertuples(index=False):
        spans = tuple(Span(-1, -1, label, PII_200K.by_label[label].code) for label in labels)
        examples.append(Example(str(number), "", PII_200K.codes(labels), "en", str(number), kind, spans))
    return examples


def load_reference_rows(*, hub: bool = False) -> dict[str, list[Example]]:
    """Selects the rows as the reference does: the first 999 with at most one code by its rules, 999 with two or more.

    Args:
        hub: Whether to read them from the hub rather than from the folder that `GUARD_AI4PRIVACY` names.

    Returns:
        "single" and "multi", in file order, with exact codes; `id` is the row's number, `situation` its set.

    Raises:
        DataError: The rows are not there, or not those of `reference_labels`; says what is there, and the fix.
    """
    path = Path(HUB_NAME) if hub else _file()
    try:
        rows = load(HUB_NAME, data_files=WHOLE) if hub else load(path)
    except DataError as error:
        raise DataError(f"{error}\nIs this half a download? {FIX} again") from error
    if "privacy_mask" not in rows.column_names:
        raise DataError(f"{path}: rows of another data set, with columns {rows.column_names}; {FIX}")
    labels = [[mask["label"] for mask in masks] for masks in rows["privacy_mask"]]
    if undecided := sorted({label for found in labels for label in found}.difference(PII_200K.by_label)):
        raise DataError(f"{path}: labels {undecided} are those of another release; {FIX}")
    codes = [reference_codes_evaluation(found) for found in labels]
    sets = {}
    for kind, wanted in reference_labels().groupby("set", sort=False):
        places = reference_selection(codes, kind=str(kind))
        for place, number, known in zip(places, wanted["row"], wanted["labels"].map(list), strict=False):
            if labels[place] != known or (path.name in (WHOLE, Path(HUB_NAME).name) and place != number):
                what = f"row {place} has labels {labels[place]}, but the reference's row {number} has {known}"
                raise DataError(f"{path}: {what}: another order or release; {FIX}")
        if len(places) < len(wanted):
            raise DataError(f"{path}: {len(places)} rows of set {kind!r}, not {len(wanted)}; {FIX} again, whole")
        examples = to_examples(rows.select(places), PII_200K, place=f"{path}, set {kind!r}")
        sets[str(kind)] = [
            replace(example, id=str(number), situation=str(kind))
            for example, number in zip(examples, wanted["row"], strict=True)
        ]
    return sets


def _file() -> Path:
    """The file of the rows in the folder that the environment names."""
    folder = os.environ.get("GUARD_AI4PRIVACY")
    if not folder:
        raise DataError(f"GUARD_AI4PRIVACY is not set: {FIX} into a folder and set it to that, or pass hub=True")
    files = [Path(folder, name) for name in FILES if Path(folder, name).is_file()]
    if not files:
        what = f"holds none of {', '.join(FILES)}" if Path(folder).is_dir() else "is no folder"
        raise DataError(f"GUARD_AI4PRIVACY: {folder} {what}; {FIX} into it, or pass hub=True")
    return files[0]
