"""What this package computed from the committed predictions at dfea01a, it computes still, to the last digit."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from guard_utils import metrics
from guard_utils.data import load_splits, reference_codes_evaluation
from guard_utils.policy import PII
from guard_utils.profiles import resolve
from guard_utils.scoring import read_predictions

GOLDEN = json.loads(Path(__file__).with_name("dfea01a.json").read_text())
SYSTEMS = ("majority", "regex", "tfidf", "tuned")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUARD_ARTIFACTS", str(tmp_path_factory.mktemp("artifacts")))
        run = resolve("laptop")
        shutil.copytree(Path(__file__).with_name("dfea01a"), run.folder / "predictions")
        parts = load_splits(run).held_out
        return {f"{s}-{part}": read_predictions(run, s, part, rows) for part, rows in parts.items() for s in SYSTEMS}


def plain(value: Any) -> Any:
    """As JSON holds it: a table by column, NaN as None."""
    if isinstance(value, pd.DataFrame):
        value = {column: value[column].tolist() for column in value}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith(SYSTEMS)])
def test_scores_and_intervals(tables: dict[str, pd.DataFrame], name: str) -> None:
    df, golden = tables[name], GOLDEN[name]
    assert plain(metrics.summary(df, PII)) == golden["summary"]
    assert plain(metrics.per_category(df, PII)) == golden["per_category"]
    assert metrics.multilabel_confusion(df, PII).to_numpy().tolist() == golden["confusion"]
    assert metrics.rescore(df).weighted_f1 == golden["reference"]
    found = {metric: plain(row) for metric, *row in metrics.bootstrap(df, PII, resamples=200).itertuples(index=False)}
    # A mean of fractions: BLAS adds them up in an order of its own on each processor, so the last digit may differ.
    assert found.pop("outside") == pytest.approx(golden["bootstrap"].pop("outside"), rel=1e-12)
    ranked = ("ap_", "binary_auprc")  # has no interval any more
    assert found == {name: cells for name, cells in golden["bootstrap"].items() if not name.startswith(ranked)}


@pytest.mark.parametrize("part", ["test", "independent"])
def test_comparison(tables: dict[str, pd.DataFrame], part: str) -> None:
    df, others = tables[f"tuned-{part}"], {name: tables[f"{name}-{part}"] for name in SYSTEMS[:3]}
    assert plain(metrics.compare_systems(df, others, PII, resamples=200)) == GOLDEN[f"against-{part}"]


def test_thresholds_ladder_and_the_reference_sets(tables: dict[str, pd.DataFrame]) -> None:
    tuned = {goal: metrics.tune(tables["tuned-validation"], PII, goal) for goal in ("f1", "recall")}
    assert tuned.items() <= GOLDEN["thresholds"].items()
    df = tables["tuned-test"]
    old = [reference_codes_evaluation(labels) for labels in df["labels"]]
    steps = metrics.ladder(df, PII, reference_gold=old, resamples=200).rename(columns={"value": "weighted_f1"})
    assert plain(steps.drop(columns="step")) == {k: v[:3] for k, v in GOLDEN["ladder"].items() if k != "step"}
    several = df["gold"].map(len) >= 2
    single, multi = (metrics.rescore(df[rows]).weighted_f1 for rows in (~several, several))
    assert [single, multi] == [GOLDEN["single"], GOLDEN["multi"]]
