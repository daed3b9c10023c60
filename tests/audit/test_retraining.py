"""What corrected labels win: the arithmetic by hand, the cheap model, and the guard itself on smoke."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from guard_utils.audit.retraining import GuardModel, cheap_model, recovery
from guard_utils.data.examples import Example, to_examples
from guard_utils.data.labels import PII_200K
from guard_utils.data.predictions import predictions_table
from guard_utils.metrics.scores import paired_bootstrap, summary
from guard_utils.policy import PII
from guard_utils.profiles import resolve
from guard_utils.scoring.baselines import tfidf
from tools.corpus.compose import generate


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    return to_examples(generate(260, split="train", seed=3), PII_200K)


def answers(rows: Sequence[Example], hits: float, seed: int = 0) -> pd.DataFrame:
    """A system that finds each code with a probability, and nothing else."""
    r = np.random.default_rng(seed)
    said = [[code for code in row.codes if r.random() < hits] for row in rows]
    p = [[0.9 if code in own else 0.1 for code in PII.codes] for own in said]
    return predictions_table(rows, PII, np.array(p), said, 0.0)


def test_recovery_agrees_with_the_scores_it_is_made_of(rows: list[Example]) -> None:
    noisy, audited, clean = answers(rows, 0.3), answers(rows, 0.7), answers(rows, 0.9)
    found = recovery({"noisy": [noisy], "audited": [audited], "clean": [clean]}, PII, resamples=300)
    scores = [summary(df, PII)["weighted_f1"] for df in (noisy, audited, clean)]
    assert found.steps["weighted_f1"].tolist() == pytest.approx(scores)
    assert found.recovered.value == pytest.approx((scores[1] - scores[0]) / (scores[2] - scores[0]))
    assert found.recovered.low < found.recovered.value < found.recovered.high
    paired = paired_bootstrap(audited, noisy, PII, resamples=300).set_index("metric").loc["weighted_f1"]
    change = found.steps.loc[1, ["change", "change_low", "change_high"]].astype(float).tolist()
    assert change == pytest.approx(paired[["difference", "low", "high"]].tolist())
    moved = sum(a != b for a, b in zip(noisy["predicted"], audited["predicted"], strict=True))
    assert found.steps["rows_moved"].tolist()[:2] == [0, moved]


def test_all_and_nothing_recovered(rows: list[Example]) -> None:
    noisy, clean = answers(rows, 0.3), answers(rows, 0.9)
    for audited, share in ((clean, 1.0), (noisy, 0.0)):
        found = recovery({"noisy": [noisy], "audited": [audited], "clean": [clean]}, PII, resamples=50).recovered
        assert (found.value, found.low, found.high) == pytest.approx((share,) * 3)
    nothing_lost = recovery({"a": [clean], "b": [clean], "c": [clean]}, PII, resamples=50).recovered
    assert np.isnan(nothing_lost.value)


def test_seeds_are_averaged_and_one_table_may_stand_for_all(rows: list[Example]) -> None:
    noisy, clean = [answers(rows, 0.3, seed) for seed in range(3)], answers(rows, 0.9)
    audited = [answers(rows, 0.8, seed) for seed in range(3)]
    found = recovery({"noisy": noisy, "audited": audited, "clean": [clean]}, PII, resamples=50)
    assert found.seeds.shape == (3, 3) and found.seeds["clean"].nunique() == 1
    assert found.seeds["noisy"].tolist() == pytest.approx([summary(df, PII)["weighted_f1"] for df in noisy])
    assert found.steps["weighted_f1"].tolist() == pytest.approx(found.seeds.mean().tolist())


def test_versions_that_do_not_fit_are_refused(rows: list[Example]) -> None:
    df = answers(rows, 0.9)
    for versions in (
        {"noisy": [df], "clean": [df]},
        {"a": [df] * 2, "b": [df] * 3, "c": [df]},
        {"a": [], "b": [], "c": []},
    ):
        with pytest.raises(ValueError, match="three or more"):
            recovery(versions, PII)
    with pytest.raises(ValueError, match="ids"):
        recovery({"a": [df], "b": [df.head(9)], "c": [df]}, PII)


def test_cheap_model_is_tfidf_where_every_category_is_known(rows: list[Example]) -> None:
    pd.testing.assert_frame_equal(cheap_model(rows[:200], rows[200:], PII), tfidf(rows[:200], rows[200:], PII))


def test_cheap_model_never_says_what_no_label_says(rows: list[Example]) -> None:
    bare = [replace(row, codes=tuple(code for code in row.codes if code != "S3")) for row in rows[:200]]
    found = cheap_model(bare, rows[200:], PII)
    assert (found["p_S3"] == 0).all() and not any("S3" in said for said in found["predicted"])
    assert any("S3" in gold for gold in found["gold"]) and any("S4" in said for said in found["predicted"])
    others = [code for code in PII.codes if code != "S3"]
    known = tfidf(rows[:200], rows[200:], PII)
    np.testing.assert_allclose(found[[f"p_{c}" for c in others]], known[[f"p_{c}" for c in others]])


def test_the_guard_itself_is_trained_and_its_answers_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Example]
) -> None:
    monkeypatch.setenv("GUARD_ARTIFACTS", str(tmp_path))
    run = resolve("smoke")
    guard = GuardModel(run, progress=False)
    found = guard(rows[:32], rows[32:40], PII, 0)
    assert list(found["id"]) == [row.id for row in rows[32:40]] and found["outside"].between(0, 1).all()
    assert (run.folder / "audit" / "training").is_dir() and not (run.folder / "training").exists()
    shutil.rmtree(run.folder / "audit")
    pd.testing.assert_frame_equal(guard(rows[:32], rows[32:40], PII, 0), found)
    assert not (run.folder / "audit").exists()
