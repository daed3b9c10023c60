"""A real torchtune run on the smoke model: checkpoint, log, reuse, and what is said when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guard_utils.profiles import Run
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring.scorer import GuardScorer, load_model
from guard_utils.training.config import ConfigFaults, fingerprint, resolve_config
from guard_utils.training.dataset import GuardDataset, RecipeTokenizer
from guard_utils.training.launch import DONE, Training, TrainingError, checkpoint, finetune, read_log


@pytest.fixture(scope="module")
def training(run: Run, train_file: Path) -> Training:
    return finetune(run, train_file, progress=False)


def test_checkpoint_loads_in_plain_transformers_and_differs_from_the_base(run: Run, training: Training) -> None:
    assert checkpoint(run) == training.checkpoint
    tuned, tokenizer = load_model(training.checkpoint, dtype="fp32")
    base, _ = load_model(run.model_folder(), dtype="fp32")
    moved = (tuned.model.layers[0].mlp.up_proj.weight - base.model.layers[0].mlp.up_proj.weight).abs().max()
    assert moved > 0
    scores = GuardScorer(tuned, GuardPrompt(run.policy, tokenizer)).score(["Hi Ann", "ok"], progress=False)
    assert scores.log_probs.shape == (2, 32)


def test_log_is_a_table_and_the_loss_falls(training: Training) -> None:
    assert list(training.log["step"]) == list(range(1, 7))
    assert list(training.log["examples"])[-1] == training.examples == 96
    assert training.log["loss"].iloc[-1] < training.log["loss"].iloc[0]


def test_a_step_that_two_launches_logged_stands_once(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    first = "Step 1 | loss:3.0 \nStep 2 | loss:2.5 \nStep 3 | loss:9.0 \n"
    (tmp_path / "logs" / "log_1000000001.txt").write_text(first)
    (tmp_path / "logs" / "log_1000000002.txt").write_text("Step 3 | loss:2.0 \nStep 4 | loss:1.5 \n")
    log = read_log(tmp_path, batch_size=8)
    assert list(log["step"]) == [1, 2, 3, 4] and list(log["loss"]) == [3.0, 2.5, 2.0, 1.5]
    assert list(log["examples"]) == [8, 16, 24, 32]


def test_an_identical_run_is_reused_and_a_changed_one_is_not(run: Run, train_file: Path, training: Training) -> None:
    finished = (run.folder / "training" / DONE).stat().st_mtime_ns
    assert finetune(run, train_file, progress=False).seconds == training.seconds
    assert (run.folder / "training" / DONE).stat().st_mtime_ns == finished
    config = resolve_config(run, train_file)
    same = fingerprint(config)
    assert fingerprint(config | {"batch_size": 8}) != same
    assert fingerprint(config | {"save_every_n_steps": 1}) == same
    text = train_file.read_text()
    try:
        train_file.write_text(text.replace("safe", "unsafe\\nS1", 1))
        assert fingerprint(config) != same
    finally:
        train_file.write_text(text)


def test_a_faulty_config_is_refused_before_any_work(
    train_file: Path, elsewhere: Callable[..., Run], tmp_path: Path
) -> None:
    other = elsewhere({"optimizer": {"_component_": "torch.optim.AdamWW"}})
    kept = other.folder / "training" / "epoch_0" / "kept"
    kept.mkdir(parents=True)
    with pytest.raises(ConfigFaults, match="AdamWW"):
        finetune(other, train_file, progress=False)
    assert kept.exists()
    with pytest.raises(ConfigFaults, match="train_file = .*run the notebook that makes it"):
        finetune(other, tmp_path / "none.jsonl")


def test_a_crash_shows_torchtunes_last_lines_and_a_hint(train_file: Path, elsewhere: Callable[..., Run]) -> None:
    other = elsewhere({"model": {"num_layers": 3}})
    with pytest.raises(TrainingError, match=r"(?s)layers\.2.*Hint: the config's model has another shape"):
        finetune(other, train_file, progress=False)
    assert not (other.folder / "training" / DONE).exists()
    with pytest.raises(FileNotFoundError, match="notebook 03"):
        checkpoint(other)


def test_dataset_puts_the_loss_on_the_answer_only_and_names_broken_lines(
    smoke_folder: Path, train_file: Path, tmp_path: Path
) -> None:
    tokenizer = RecipeTokenizer(str(smoke_folder))
    dataset, lines = GuardDataset(tokenizer, source=str(train_file)), train_file.read_text().splitlines()
    for i in range(20):
        row = dataset[i]
        labels = [label for label in row["labels"] if label != -100]
        assert row["labels"][-len(labels) :] == labels == row["tokens"][-len(labels) :]
        assert tokenizer.tokenizer.decode(labels[:-1]) == json.loads(lines[i])["answer"]
    broken = tmp_path / "broken.jsonl"
    with pytest.raises(FileNotFoundError, match="notebook 02"):
        GuardDataset(tokenizer, source=str(broken))
    for text, says in (("", "empty"), ("\n".join([*lines[:16], '{"text": "?"}']), r"broken\.jsonl:17")):
        broken.write_text(text)
        with pytest.raises(ValueError, match=says):
            GuardDataset(tokenizer, source=str(broken))


def test_the_room_imports_no_torch_until_a_name_is_asked_for() -> None:
    code = "import guard_utils.training, guard_utils.training.launch, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
