"""Runs that are killed and taken up again end like runs that were left alone."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from guard_utils.profiles import Run
from guard_utils.training.config import TrainingError, fingerprint
from guard_utils.training.dataset import GuardDataset, RecipeTokenizer
from guard_utils.training.launch import DONE, Training, finetune, read_log
from guard_utils.training.recipe import shared_prefix_recipe
from guard_utils.training.resume import STATES, saved_state

Settings = Callable[..., Any]


class Killed(BaseException):
    """Ends a training loop in this process as abruptly as Python can."""


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
# epoch, the second stops each epoch before its end and draws dropout. Then: the batch at which the run is killed, and
# the step of the state that it leaves.
CASES = {
    "full": ({"gradient_accumulation_steps": 5, "shuffle": True, "save_every_n_steps": 1}, 15, 2),
    "lora": ({"max_steps_per_epoch": 5, "save_every_n_steps": 2}, 8, 6),
    "epochs": ({"max_steps_per_epoch": 3, "save_every_n_steps": None}, 5, 3),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_ends_as_a_whole_one(settings: Settings, lora: dict[str, Any], tmp_path: Path, case: str) -> None:
    options, batch, step = CASES[case]
    options |= {"batch_size": 8, "epochs": 2, "model": lora | {"lora_dropout": 0.2} if case == "lora" else {}}
    weights, log = train(settings(tmp_path / "whole", **options))
    with pytest.raises(Killed):
        train(settings(tmp_path / "cut", **options), kill_at_batch=batch)
    state = saved_state(tmp_path / "cut")
    assert state is not None and state.step == step
    resumed, resumed_log = train(settings(tmp_path / "cut", resume_from_checkpoint=True, **options))
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))
    columns = ["step", "loss", "lr", "grad_norm"]
    pd.testing.assert_frame_equal(log[columns], resumed_log[columns], check_exact=True)
    # Only the last state is left, and torchtune's own checkpoint of the last epoch.
    assert len(list((tmp_path / "whole" / STATES).iterdir())) == 1
    assert [path.name for path in (tmp_path / "cut").glob("epoch_*")] == ["epoch_1"]


def test_a_half_written_state_is_not_taken_for_a_whole_one(settings: Settings, tmp_path: Path) -> None:
    options = {"batch_size": 16, "save_every_n_steps": 2}
    with pytest.raises(FileNotFoundError, match="resume_from_checkpoint is True"):
        train(settings(tmp_path, resume_from_checkpoint=True))
    with pytest.raises(Killed):
        train(settings(tmp_path, **options), kill_at_batch=4)
    half = tmp_path / STATES / "step_3" / "rank_0.pt"
    half.parent.mkdir()
    half.write_bytes((tmp_path / STATES / "step_2" / "rank_0.pt").read_bytes()[:1000])
    state = saved_state(tmp_path)
    assert state is not None and (state.step, state.batches) == (2, 2)
    _, log = train(settings(tmp_path, resume_from_checkpoint=True, **options))
    assert list(log["step"]) == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in (tmp_path / STATES).iterdir()] == ["step_4"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_and_leaves_the_last_whole_state(
    train_file: Path, settings: Settings, elsewhere: Callable[..., Run], capfd: Any
) -> None:
    run = elsewhere({})
    folder = run.folder / "training"
    with pytest.raises(Killed):
        train(settings(folder), kill_at_batch=4)
    dataset = GuardDataset(RecipeTokenizer(str(run.model_folder())), source=str(train_file))
    (folder / "started.json").write_text(json.dumps({"fingerprint": fingerprint(run, dataset)}))
    full = folder / STATES / "step_4" / "rank_0.pt"
    full.parent.mkdir()
    full.symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="status 1: the disk is full; make room"):
        finetune(run, train_file, progress=False)
    assert "goes on after 32 of 96 examples" in capfd.readouterr().out
    assert saved_state(folder).step == 2


SCRIPT = """
import sys
from pathlib import Path
from guard_utils.training.launch import finetune
from guard_utils.profiles import Run, resolve
Run.config_path = property(lambda self: Path(sys.argv[1]))
finetune(resolve("smoke"), Path(sys.argv[2]))
"""


def test_a_recipe_outlives_its_killed_notebook_and_the_next_call_waits_and_resumes(
    train_file: Path, settings: Settings, elsewhere: Callable[..., Run], tmp_path: Path, capfd: Any
) -> None:
    options = {"batch_size": 4, "save_every_n_steps": 5, "shuffle": True}
    _, alone = train(settings(tmp_path / "alone", **options))
    run = elsewhere(options)
    training = run.folder / "training"
    notebook = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(run.config_path), str(train_file)],
        env=os.environ | {"GUARD_ARTIFACTS": str(run.folder.parent)},
    )
    deadline = time.monotonic() + 600
    while not any("Step 7 |" in log.read_text() for log in training.glob("logs/*.txt")):
        assert notebook.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    notebook.kill()  # SIGKILL: its recipe ends by itself, when it next shows its progress
    notebook.wait()
    (training / "epoch_0").mkdir()
    (training / "epoch_0" / "tokenizer.json").write_text("{")
    capfd.readouterr()
    resumed, said = finetune(run, train_file), capfd.readouterr()
    done = int(said.out.split("goes on after ")[1].split()[0])
    assert 20 <= done < 96 and done % 20 == 0
    assert f"| {done}/96" in said.err  # the bar starts where the run was cut off
    assert list(resumed.log["step"]) == list(range(1, 25)) and resumed.examples == 96
    columns = ["step", "loss", "lr"]
    pd.testing.assert_frame_equal(alone[columns], resumed.log[columns], rtol=1e-6)
    folders = (tmp_path / "alone" / "epoch_0", resumed.checkpoint)
    weights = [load_file(next(folder.glob("*.safetensors"))) for folder in folders]
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=1e-6) for key in weights[0])
    assert json.loads((resumed.checkpoint / "tokenizer.json").read_text())
    assert not (training / STATES).exists()


def start_and_wait(run: Run, train_file: Path, capfd: Any, processes: int = 1) -> Future[Training]:
    """Calls `finetune` in a thread; returns once it says that it waits."""
    call = ThreadPoolExecutor(1).submit(finetune, run, train_file, processes=processes, progress=False)
    said, deadline = "", time.monotonic() + 60
    while "waiting until it ends" not in said:
        assert not call.done() and time.monotonic() < deadline
        time.sleep(0.05)
        said += capfd.readouterr().out
    return call


def test_a_live_recipe_is_waited_for_and_a_crash_before_the_first_save_brings_the_older_training_back(
    train_file: Path, elsewhere: Callable[..., Run], capfd: Any
) -> None:
    run = elsewhere({"model": {"num_layers": 3}})
    training = run.folder / "training"
    state = training / STATES / "step_4"
    state.mkdir(parents=True)
    (state / "whole.json").write_text(json.dumps({"step": 4, "epoch": 0, "batches": 4, "seconds": 1.0}))
    for name in ("started.json", DONE):
        (training / name).write_text(json.dumps({"fingerprint": "of other data"}))
    with FileLock(run.folder / "training.recipe.lock"):
        call = start_and_wait(run, train_file, capfd, processes=2)
        assert state.exists()
    with pytest.raises(TrainingError, match=r"(?s)status 1: the config's model has another shape.*layers\.2"):
        call.result(timeout=300)
    assert state.exists() and "of other data" in (training / DONE).read_text()
    assert not Path(f"{training}.older").exists()


def test_a_second_call_takes_what_the_first_made(train_file: Path, elsewhere: Callable[..., Run], capfd: Any) -> None:
    run = elsewhere({})
    (run.folder / "training" / "logs").mkdir(parents=True)
    with FileLock(run.folder / "training.lock"):
        call = start_and_wait(run, train_file, capfd)
        (run.folder / "training" / "logs" / "log_1.txt").write_text("Step 1 | loss:3.0 \n")
        dataset = GuardDataset(RecipeTokenizer(str(run.model_folder())), source=str(train_file))
        mark = fingerprint(run, dataset)
        (run.folder / "training" / DONE).write_text(json.dumps({"fingerprint": mark, "seconds": 1.0}))
    assert call.result(timeout=30).seconds == 1.0


def test_a_training_killed_before_its_first_save_gives_way_to_the_finished_one(
    train_file: Path, elsewhere: Callable[..., Run]
) -> None:
    run = elsewhere({})
    older = run.folder / "training.older"
    (older / "logs").mkdir(parents=True)
    (older / "logs" / "log_1.txt").write_text("Step 1 | loss:3.0 \n")
    mark = fingerprint(run, GuardDataset(RecipeTokenizer(str(run.model_folder())), source=str(train_file)))
    (older / DONE).write_text(json.dumps({"fingerprint": mark, "seconds": 1.0}))
    (run.folder / "training" / "epoch_0").mkdir(parents=True)
    assert finetune(run, train_file, progress=False).seconds == 1.0
    assert not older.exists() and not (run.folder / "training" / "epoch_0").exists()
