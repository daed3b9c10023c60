"""A real torchtune run on the smoke model: checkpoint, log, reuse, and what is said when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from guard_utils.data.splits import load_splits
from guard_utils.profiles import Run, repository, resolve
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring.scorer import GuardScorer, load_model
from guard_utils.training import launch as room
from guard_utils.training.dataset import GuardDataset, RecipeTokenizer, write_training_file
from guard_utils.training.launch import TrainingError, checkpoint, finetune, fingerprint, resolve_config
from guard_utils.training.preflight import ConfigFaults


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUARD_ARTIFACTS", str(tmp_path_factory.mktemp("artifacts")))
        run = resolve("smoke")
    file = run.folder / "train.jsonl"
    write_training_file(load_splits(run).train, file)
    finetune(run, file, progress=False)
    return run, file


def test_checkpoint_loads_in_plain_transformers_and_differs_from_the_base(trained: tuple[Run, Path]) -> None:
    run, _ = trained
    tuned, tokenizer = load_model(checkpoint(run), dtype="fp32")
    base, _ = load_model(run.model_folder(), dtype="fp32")
    moved = (tuned.model.layers[0].mlp.up_proj.weight - base.model.layers[0].mlp.up_proj.weight).abs().max()
    assert moved > 0
    scores = GuardScorer(tuned, GuardPrompt(run.policy, tokenizer)).score(["Hi Ann", "ok"], progress=False)
    assert scores.log_probs.shape == (2, 32)


def test_log_is_a_table_and_the_loss_falls(trained: tuple[Run, Path]) -> None:
    training = finetune(*trained, progress=False)
    assert list(training.log["step"]) == list(range(1, 7))
    assert list(training.log["examples"])[-1] == training.examples == 96
    assert training.log["loss"].iloc[-1] < training.log["loss"].iloc[0]


def test_an_identical_run_is_reused_and_a_changed_one_is_not(trained: tuple[Run, Path]) -> None:
    run, file = trained
    assert finetune(run, file, progress=False).reused
    config = resolve_config(run, file)
    same = fingerprint(config)
    assert fingerprint(config | {"batch_size": 8}) != same
    text = file.read_text()
    try:
        file.write_text(text.replace("safe", "unsafe\\nS1", 1))
        assert fingerprint(config) != same
    finally:
        file.write_text(text)


def changed(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object) -> Run:
    """The run in another folder, with one key of its config changed."""
    config = OmegaConf.load(run.config_path)
    OmegaConf.update(config, key, value)
    path = folder / "config.yaml"
    OmegaConf.save(config, path)
    monkeypatch.setattr(Run, "config_path", property(lambda self: path))
    return Run(run.profile, run.policy, run.device, run.dtype, run.seed, folder / "run", run.origins)


def test_a_faulty_config_is_refused_before_any_work(trained: tuple[Run, Path], tmp_path: Path, monkeypatch) -> None:
    run, file = trained
    other = changed(run, tmp_path, monkeypatch, "optimizer._component_", "torch.optim.AdamWW")
    kept = other.folder / "training" / "epoch_0" / "kept"
    kept.mkdir(parents=True)
    with pytest.raises(ConfigFaults, match="AdamWW"):
        finetune(other, file, progress=False)
    assert kept.exists()


def test_a_crash_shows_torchtunes_last_lines_and_a_hint(trained: tuple[Run, Path], tmp_path: Path, monkeypatch) -> None:
    run, file = trained
    other = changed(run, tmp_path, monkeypatch, "model.num_layers", 3)
    with pytest.raises(TrainingError, match=r"(?s)layers\.2.*Hint: the config's model has another shape"):
        finetune(other, file, progress=False)
    assert not (other.folder / "training" / room.DONE).exists()
    with pytest.raises(FileNotFoundError, match="notebook 03"):
        checkpoint(other)


def test_missing_and_broken_training_files_are_named(trained: tuple[Run, Path], tmp_path: Path) -> None:
    run, file = trained
    tokenizer = RecipeTokenizer(str(run.model_folder()))
    with pytest.raises(FileNotFoundError, match="notebook 02"):
        finetune(run, tmp_path / "none.jsonl")
    with pytest.raises(FileNotFoundError, match="notebook 02"):
        GuardDataset(tokenizer, source=str(tmp_path / "none.jsonl"))
    broken = tmp_path / "broken.jsonl"
    lines = file.read_text().splitlines()[:20]
    lines[16] = json.dumps({"text": "?"})
    broken.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"broken\.jsonl:17"):
        GuardDataset(tokenizer, source=str(broken))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="empty"):
        GuardDataset(tokenizer, source=str(tmp_path / "empty.jsonl"))


def test_dataset_puts_the_loss_on_the_answer_only(trained: tuple[Run, Path]) -> None:
    run, file = trained
    tokenizer = RecipeTokenizer(str(run.model_folder()))
    dataset = GuardDataset(tokenizer, source=str(file))
    for i in range(20):
        row = dataset[i]
        labels = [label for label in row["labels"] if label != -100]
        assert row["labels"][-len(labels) :] == labels == row["tokens"][-len(labels) :]
        assert tokenizer.tokenizer.decode(labels[:-1]) == json.loads(file.read_text().splitlines()[i])["answer"]


def test_recipe_path_is_in_the_repository() -> None:
    assert (repository() / "guard_utils" / "training" / "recipe.py").exists()
