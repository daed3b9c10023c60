"""Policies of one's own through training, scores and metrics, at smoke size."""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from guard_utils import metrics
from guard_utils.data.predictions import gold_matrix, predicted_matrix
from guard_utils.data.splits import load_splits
from guard_utils.figures import plot_multilabel_confusion
from guard_utils.formatter import write_training_file
from guard_utils.profiles import PROFILES, Run, resolve
from guard_utils.scoring import export_guard, load_guard, predict
from guard_utils.training import launch
from guard_utils.training.launch import finetune
from guard_utils.training.recipe import shared_prefix_recipe


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe without a process of its own, which takes seconds to start; notebook 07 has one in another test."""

    def train(arguments: list[str], *_: object) -> float:
        recipe = shared_prefix_recipe(OmegaConf.load(arguments[-1]))
        recipe.setup(cfg=OmegaConf.load(arguments[-1]))
        recipe.train()
        recipe.cleanup()
        return 1.0

    monkeypatch.setattr(launch, "_tune_run", train)


def words(number: int, count: int) -> tuple[list[str], str]:
    """Codes of a row and a text that holds their words; each tenth row is safe."""
    codes = [] if number % 10 == 0 else sorted({f"S{number % count + 1}", f"S{number * 7 % count + 1}"})
    return (
        codes,
        f"row {number} of {number * 31 % 97} names {' and '.join(f'thing {code}' for code in codes) or 'none'}",
    )


SIZES = [(1, "User", None), (2, "User", None), (5, "Agent", None), (14, "Agent", 2), (30, "User", 2)]


@pytest.mark.parametrize(("count", "role", "most"), SIZES)
def test_a_policy_of_any_size_trains_scores_and_is_measured(tmp_path: Path, monkeypatch, count, role, most) -> None:
    monkeypatch.setenv("GUARD_ARTIFACTS", str(tmp_path))
    categories = "".join(f"  - name: Thing {i}\n" for i in range(1, count + 1))
    (tmp_path / "mine.yaml").write_text(f"name: mine\ncategories:\n{categories}", encoding="utf-8")
    rows = []
    for number in range(160):
        codes, text = words(number, count)
        talk = {"text": text} if role == "User" else {"text": f"question {number}", "response": text}
        if number % 3 == 0 and role == "User":
            talk = {"turns": [["User", f"hi {number}"], ["Agent", "yes?"], ["User", text]]}
        rows.append(json.dumps({**talk, "codes": sorted(codes, key=lambda code: int(code[1:]))}))
    (tmp_path / "mine.jsonl").write_text("\n".join(rows), encoding="utf-8")
    profile = replace(PROFILES["smoke"], name="mine", config="smoke", role=role, train_data=f"{tmp_path}/mine.jsonl")
    run = resolve(replace(profile, policy=f"{tmp_path}/mine.yaml"), seed=0)
    splits = load_splits(run)
    assert write_training_file(splits.train, run.folder / "train.jsonl", run.policy) == 96
    trained = finetune(run, run.folder / "train.jsonl", progress=False)
    assert trained.log["loss"].iloc[-1] < trained.log["loss"].iloc[0]
    table = predict(load_guard(run, max_violations=most), splits.test, progress=False)
    gold, said = gold_matrix(table, run.policy), predicted_matrix(table, run.policy)
    assert metrics.per_category(table, run.policy)["tp"].tolist() == (gold & said).sum(axis=0).tolist()
    scores, boot = metrics.summary(table, run.policy), metrics.bootstrap(table, run.policy, resamples=20)
    assert scores["subset_accuracy"] == pytest.approx((gold == said).all(axis=1).mean())
    assert boot.set_index("metric").loc["weighted_f1", "value"] == pytest.approx(scores["weighted_f1"])
    decided = metrics.decide(table, run.policy, metrics.tune(table, run.policy))
    assert all(set(codes) <= set(run.policy.codes) for codes in decided["predicted"])
    compared = metrics.compare_systems(table, {"decided": decided}, run.policy, resamples=20)
    assert compared.loc["decided", "ours"] == pytest.approx(scores["weighted_f1"])
    wrong = metrics.disagreements(table, run.policy)
    assert len(wrong) == (gold != said).any(axis=1).sum() <= metrics.error_table(table, run.policy)["wrong"].sum()
    labelled = table.assign(labels=table["gold"])
    assert len(metrics.by_source_label(labelled, run.policy)) == count * len({*chain(*table["gold"])})
    assert set(metrics.suspicious_labels(labelled, run.policy).columns) >= {"label", "code"}
    matrix = metrics.multilabel_confusion(table, run.policy)
    assert matrix.shape == (count + 1, count + 1)
    plot_multilabel_confusion(matrix, title="any size")


def test_a_training_starts_from_an_exported_guard(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GUARD_ARTIFACTS", str(tmp_path))
    run = resolve("smoke", seed=0)
    write_training_file(load_splits(run).train, run.folder / "train.jsonl", run.policy)
    finetune(run, run.folder / "train.jsonl", progress=False)
    folder = export_guard(run, tmp_path / "exported")
    mine = resolve(replace(run.profile, name="mine", config="smoke", model=str(folder)), seed=0)
    texts = [example.text for example in load_splits(run).test[:8]]

    def logs(guard: Run) -> np.ndarray:
        return load_guard(guard, or_untrained=True, epsilon=0).score(texts, progress=False).log_probs

    np.testing.assert_allclose(logs(run), logs(mine), atol=1e-5)
    before = (mine.model_folder() / "asset.json").read_text()
    finetune(mine, run.folder / "train.jsonl", progress=False)
    assert np.abs(logs(run) - logs(mine)).max() > 0.1
    assert export_guard(mine, folder) and (folder / "asset.json").read_text() != before, "trained on: another guard"
