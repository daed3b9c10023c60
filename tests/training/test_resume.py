"""Runs that are killed and taken up again end like runs that were left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from guard_utils.data.splits import load_splits
from guard_utils.profiles import Run, resolve
from guard_utils.training.dataset import write_training_file
from guard_utils.training.launch import DONE, finetune, fingerprint, read_log, resolve_config
from guard_utils.training.recipe import shared_prefix_recipe
from guard_utils.training.resume import STATES, saved_state

LORA = {
    "_component_": "torchtune.models.llama3_2.lora_llama3_2",
    "lora_attn_modules": ["q_proj", "v_proj"],
    "apply_lora_to_mlp": True,
    "lora_rank": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.2,
}


class Killed(BaseException):
    """Ends a training loop in this process as abruptly as Python can."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUARD_ARTIFACTS", str(tmp_path_factory.mktemp("artifacts")))
        return resolve("smoke")


@pytest.fixture(scope="module")
def train_file(run: Run) -> Path:
    path = run.folder / "train.jsonl"
    write_training_file(load_splits(run).train, path)
    return path


@pytest.fixture
def settings(run: Run, train_file: Path) -> Callable[..., Any]:
    """The smoke config with overrides, as the recipe gets it."""

    def make(folder: Path, **overrides: Any) -> Any:
        config = OmegaConf.create(resolve_config(run, train_file))
        config.output_dir = config.checkpointer.output_dir = str(folder)
        config.metric_logger.log_dir = str(folder / "logs")
        model = overrides.pop("model", {})
        return OmegaConf.merge(config, overrides, {"model": model})

    return make


def train(config: Any, *, kill_at_batch: int | None = None) -> tuple[list[torch.Tensor], pd.DataFrame]:
    """Trains in this process; returns weights and log."""
    recipe = shared_prefix_recipe(config)
    recipe.setup(cfg=config)
    step, batches = recipe._loss_step, 0

    def loss_step(batch: Any) -> torch.Tensor:
        nonlocal batches
        batches += 1
        if batches == kill_at_batch:
            raise Killed
        return step(batch)

    recipe._loss_step = loss_step
    try:
        recipe.train()
    finally:
        recipe.cleanup()
    return list(recipe._model.parameters()), read_log(Path(config.output_dir), batch_size=1)


# 96 rows in batches of 8 are 12 a pass. The first case leaves 2 batches whose gradients torchtune carries into the next
# epoch, the second stops each epoch before its end and draws dropout.
CASES = {
    "full": {"gradient_accumulation_steps": 5, "epochs": 2, "shuffle": True, "save_every_n_steps": 1},
    "lora": {"max_steps_per_epoch": 5, "epochs": 2, "save_every_n_steps": 2, "model": LORA},
    "epochs": {"max_steps_per_epoch": 3, "epochs": 2, "save_every_n_steps": None},
}


@pytest.mark.parametrize(
    ("case", "batch", "step"),
    [("full", 15, 2), ("lora", 8, 6), ("epochs", 5, 3)],
)
def test_weights_and_log_are_those_of_an_uninterrupted_run(
    settings: Callable[..., Any], tmp_path: Path, case: str, batch: int, step: int
) -> None:
    options = {"batch_size": 8, **CASES[case]}
    weights, log = train(settings(tmp_path / "whole", **options))
    with pytest.raises(Killed):
        train(settings(tmp_path / "cut", **options), kill_at_batch=batch)
    state = saved_state(tmp_path / "cut")
    assert state is not None and state.step == step
    resumed, resumed_log = train(settings(tmp_path / "cut", resume_from_checkpoint=True, **options))
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))
    columns = ["step", "loss", "lr", "grad_norm"]
    pd.testing.assert_frame_equal(log[columns], resumed_log[columns], check_exact=True)
    # Of the states before, only the last one stands, and torchtune's own checkpoint of the last epoch only.
    assert len(list((tmp_path / "whole" / STATES).iterdir())) == 1
    assert [path.name for path in (tmp_path / "cut").glob("epoch_*")] == [f"epoch_{options['epochs'] - 1}"]


def test_a_half_written_state_is_not_taken_for_a_whole_one(settings: Callable[..., Any], tmp_path: Path) -> None:
    options = {"batch_size": 16, "save_every_n_steps": 2}
    with pytest.raises(Killed):
        train(settings(tmp_path, **options), kill_at_batch=4)
    half = tmp_path / STATES / "step_3" / "rank_0.pt"
    half.parent.mkdir()
    whole = tmp_path / STATES / "step_2" / "rank_0.pt"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    state = saved_state(tmp_path)
    assert state is not None and (state.step, state.batches) == (2, 2)
    _, log = train(settings(tmp_path, resume_from_checkpoint=True, **options))
    assert list(log["step"]) == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in (tmp_path / STATES).iterdir()] == ["step_4"]


def test_resuming_without_a_state_says_so(settings: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="resume_from_checkpoint is True"):
        train(settings(tmp_path, resume_from_checkpoint=True))


SCRIPT = """
import sys
from pathlib import Path
from guard_utils.training.launch import finetune
from guard_utils.profiles import Run, resolve
Run.config_path = property(lambda self: Path(sys.argv[1]))
finetune(resolve("smoke"), Path(sys.argv[2]))
"""


def start_and_kill(config: Path, train_file: Path, folder: Path, *, after_step: int, recipe_too: bool) -> None:
    """Calls `finetune` in a process and kills it with SIGKILL once the log holds a step."""
    command = [sys.executable, "-c", SCRIPT, str(config), str(train_file)]
    environment = os.environ | {"GUARD_ARTIFACTS": str(folder.parent)}
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not any(f"Step {after_step} |" in log.read_text() for log in (folder / "training").glob("logs/*.txt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    if recipe_too:
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def test_kill_9_in_the_middle_of_an_epoch_and_again(
    run: Run,
    train_file: Path,
    settings: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    options = {"batch_size": 4, "epochs": 2, "save_every_n_steps": 5, "shuffle": True}
    _, alone = train(settings(tmp_path / "alone", **options))
    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(run.config_path), options), path)
    monkeypatch.setattr(Run, "config_path", property(lambda self: path))
    cut = tmp_path / "cut" / "smoke"
    again = Run(run.profile, run.policy, run.device, run.dtype, run.seed, cut, run.origins)
    start_and_kill(path, train_file, cut, after_step=7, recipe_too=True)
    first = saved_state(cut / "training")
    assert first is not None and 5 <= first.step < 24 and not (cut / "training" / DONE).exists()
    # Of the second launch only the notebook dies: its recipe ends by itself at the next step, and the third waits.
    start_and_kill(path, train_file, cut, after_step=first.step + 12, recipe_too=False)
    (cut / "training" / "epoch_1").mkdir()
    (cut / "training" / "epoch_1" / "tokenizer.json").write_text("{")
    capfd.readouterr()
    resumed = finetune(again, train_file)
    said = capfd.readouterr()
    assert resumed.resumed_from >= first.step + 10 and resumed.resumed_from % 5 == 0
    assert f"goes on after step {resumed.resumed_from} of 48" in said.out
    assert f"| {resumed.resumed_from * 4}/192" in said.err  # the bar starts where the run stood
    assert list(resumed.log["step"]) == list(range(1, 49)) and resumed.examples == 192
    columns = ["step", "loss", "lr"]
    pd.testing.assert_frame_equal(alone[columns], resumed.log[columns], rtol=1e-6)
    folders = (tmp_path / "alone" / "epoch_1", resumed.checkpoint)
    weights = [load_file(next(folder.glob("*.safetensors"))) for folder in folders]
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=1e-6) for key in weights[0])
    assert json.loads((resumed.checkpoint / "tokenizer.json").read_text())
    assert not (cut / "training" / STATES).exists()
    assert finetune(again, train_file).reused


def test_a_state_of_other_data_is_not_resumed(
    run: Run, train_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(run.config_path), {"max_steps_per_epoch": 1}), path)
    monkeypatch.setattr(Run, "config_path", property(lambda self: path))
    other = Run(run.profile, run.policy, run.device, run.dtype, run.seed, tmp_path / "smoke", run.origins)
    state = other.folder / "training" / STATES / "step_4"
    state.mkdir(parents=True)
    (state / "whole.json").write_text(json.dumps({"step": 4, "epoch": 0, "batches": 4, "seconds": 1.0}))
    (other.folder / "training" / "started.json").write_text(json.dumps({"fingerprint": "of other data"}))
    training = finetune(other, train_file, progress=False)
    assert training.resumed_from == 0 and list(training.log["step"]) == [1]


def test_a_second_call_waits_for_the_first(
    run: Run, train_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    folder = tmp_path / "smoke"
    folder.mkdir()
    with (folder / "training.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        other = Run(run.profile, run.policy, run.device, run.dtype, run.seed, folder, run.origins)
        said: list[str] = []

        def second() -> None:
            try:
                finetune(other, train_file)
            except FileNotFoundError as error:
                said.append(str(error))

        call = threading.Thread(target=second)
        call.start()
        call.join(timeout=0.5)
        assert call.is_alive() and not (folder / "training").exists()
        (folder / "training").mkdir()
        mark = fingerprint(resolve_config(other, train_file))
        done = json.dumps({"fingerprint": mark, "rows": 96, "seconds": 1.0})
        (folder / "training" / DONE).write_text(done)
    call.join(timeout=30)
    assert "waiting until it ends" in capfd.readouterr().out
    # It found what the first call finished, and misses only the log, which was not written here.
    assert len(said) == 1 and "no torchtune log" in said[0]


def test_a_step_that_two_launches_logged_stands_once(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "log_1000000001.txt").write_text(
        "Step 1 | loss:3.0 \nStep 2 | loss:2.5 \nStep 3 | loss:9.0 \n"
    )
    (tmp_path / "logs" / "log_1000000002.txt").write_text("Step 3 | loss:2.0 \nStep 4 | loss:1.5 \n")
    log = read_log(tmp_path, batch_size=8)
    assert list(log["step"]) == [1, 2, 3, 4] and list(log["loss"]) == [3.0, 2.5, 2.0, 1.5]
    assert list(log["examples"]) == [8, 16, 24, 32]
