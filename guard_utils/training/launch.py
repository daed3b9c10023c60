"""Launches torchtune on a profile's config; gives back its checkpoint and log, or a clear word on why it failed.

Does not: train (the recipe does, in processes of its own), write the training file, score.
"""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from tqdm.auto import tqdm

from guard_utils.files import write_text
from guard_utils.profiles import Run
from guard_utils.records import machine
from guard_utils.training.config import TrainingError, check_config, count_steps, fingerprint, resolve_config

DONE = "finished.json"
STARTED = "started.json"
_PROGRESS = re.compile(r"\d+\|(\d+)\|Loss: ([-\d.naif]+)")
_HINTS = {
    "out of memory": "halve batch_size in the config, or use a smaller profile",
    "Killed": "the system was short of memory; close other programs or halve batch_size in the config",
    "loading state_dict": "the config's model has another shape than the weights in model_dir; compare both",
    # The last two are what torch.save says.
    "No space left|unexpected pos|iostream error": "the disk is full; make room and call again, which resumes it",
}


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        checkpoint: Folder that `transformers` loads.
        log: See `read_log`.
        examples: Trained on, all epochs together.
        seconds: From launch to checkpoint; of a run that was cut off, those of its saved steps and of the rest.
        made_on: `machine()` where it was trained, for `record`.
    """

    checkpoint: Path
    log: pd.DataFrame
    examples: int
    seconds: float
    made_on: dict[str, Any] | None = None


def finetune(run: Run, train_file: Path, *, processes: int = 1, progress: bool = True) -> Training:
    """Trains a run's model with torchtune. An identical training is returned if finished, and resumed if cut off.

    `train_file` is of `write_training_file`; the `processes` are on this machine.

    Raises:
        ValueError: The file has rows that can't be trained on; see `GuardDataset`. Nothing was touched.
        TrainingError: The config can't be run (nothing was touched), the disk can't be written, or torchtune failed.
    """
    config = resolve_config(run, train_file)
    check_config(config, processes=processes)
    # They import torch, which takes seconds.
    from torchtune.config import instantiate

    from guard_utils.training.resume import STATES, saved_state

    dataset = instantiate(OmegaConf.create(config["dataset"]), instantiate(OmegaConf.create(config["tokenizer"])))
    per_step = config["batch_size"] * config["gradient_accumulation_steps"] * processes
    examples = count_steps(config, dataset, processes=processes) * per_step
    folder, mark = Path(config["output_dir"]), fingerprint(run, dataset, processes=processes)
    final, older = folder / f"epoch_{config['epochs'] - 1}", Path(f"{folder}.older")
    with _hold(f"{folder}.lock"):
        if older.exists():
            with _hold(f"{folder}.recipe.lock"):
                _bring_back(folder, older)
        done = _read(folder / DONE)
        if done.get("fingerprint") != mark:
            with _hold(f"{folder}.recipe.lock"):  # a recipe whose launcher was killed lives on for a moment
                state = saved_state(folder) if _read(folder / STARTED).get("fingerprint") == mark else None
            if state is None and folder.exists():
                if done:  # of another config or data; kept until this one is finished, see `_bring_back`
                    shutil.rmtree(older, ignore_errors=True)
                    folder.rename(older)
                else:
                    shutil.rmtree(folder)  # cut off before its first save
            for half_written in folder.glob("epoch_*"):
                shutil.rmtree(half_written)
            _write(folder / STARTED, fingerprint=mark)
            write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
            # torchrun looks its own host up, which not every machine can; all processes are on this one.
            several = ["--nproc_per_node", str(processes), "--local_addr", "127.0.0.1"] if processes > 1 else []
            command = [*several, config["recipe"], "--config", f"{folder}/config.yaml"]
            first, seconds = (state.step * per_step, state.seconds) if state else (0, 0.0)
            if state:
                command.append("resume_from_checkpoint=True")
                print(f"this training was cut off before: it goes on after {first:,} of {examples:,} examples")
            try:
                seconds += _tune_run(command, per_step, first, examples, progress)
            except TrainingError:
                _bring_back(folder, older)
                raise
            _tidy(final, run.profile.model if run.profile.from_hub else config["model_dir"])
            done = _write(folder / DONE, fingerprint=mark, seconds=seconds, made_on=machine())
            shutil.rmtree(folder / STATES, ignore_errors=True)
            shutil.rmtree(older, ignore_errors=True)
    return Training(final, read_log(folder, batch_size=per_step), examples, done["seconds"], done.get("made_on"))


def _bring_back(folder: Path, older: Path) -> None:
    """Puts a finished training back that made room for one which ended, in whatever way, before its first save."""
    from guard_utils.training.resume import saved_state

    if older.exists() and not _read(folder / DONE) and saved_state(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)
        older.rename(folder)


@contextmanager
def _hold(path: str) -> Iterator[None]:
    """Holds a lock, and says so where it has to wait for it; what the disk refuses meanwhile is a TrainingError."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            print(f"another process holds {path}; waiting until it ends")
            held = lock.acquire()
        with held:
            yield
    except OSError as error:
        why, _, _ = str(error.strerror).partition(";")  # `write_whole` says what to do, others do not
        fix = "make room or allow writing there, or set GUARD_ARTIFACTS to another folder"
        raise TrainingError(f"can't train in {Path(path).parent}: {why}; {fix}") from error


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _write(path: Path, **values: Any) -> dict[str, Any]:
    """Sets values of a JSON file."""
    fields = _read(path) | values
    write_text(path, json.dumps(fields, indent=2) + "\n")
    return fields


def _tune_run(arguments: list[str], per_step: int, first: int, examples: int, progress: bool) -> float:
    """Runs torchtune and shows its progress, of which `first` examples are done; returns the seconds that it took."""
    # Huge pages save a tenth of the time on CPUs: large activations are allocated and freed at every step.
    environment = {"THP_MEM_ALLOC_ENABLE": "1", "PYTHONUNBUFFERED": "1"} | os.environ
    command = [sys.executable, "-m", "torchtune._cli.tune", "run", *arguments]
    started, lines = time.monotonic(), list[str]()
    process = Popen(command, env=environment, stdout=PIPE, stderr=STDOUT, text=True, errors="replace")
    try:
        with tqdm(desc="training", total=examples, initial=first, unit=" examples", disable=not progress) as bar:
            for line in process.stdout or ():
                lines.append(line)
                for step, loss in _PROGRESS.findall(line):
                    bar.update(int(step) * per_step - bar.n)
                    bar.set_postfix(loss=f"{float(loss):.3f}")
        code = process.wait()
    finally:
        process.terminate()  # a notebook that is interrupted leaves no training behind
    if code:
        # Of several processes the last lines are torchrun's report, and the cause is above them.
        end = next((number for number, line in enumerate(lines) if "failed (exitcode" in line), len(lines))
        text = "".join(lines[: end + 1][-25:]) + ("Killed\n" if code == -9 else "")
        hints = [hint for sign, hint in _HINTS.items() if re.search(sign, text)]
        hint = (hints or ["the last of its lines names the cause"])[0]
        raise TrainingError(f"torchtune ended with status {code}: {hint}. Its last lines:\n{text}")
    return time.monotonic() - started


def _tidy(checkpoint: Path, base: str) -> None:
    """Makes a checkpoint one that plain `transformers` and `peft` load; `base` is the name or path of its base model.

    LoRA's own files move to `adapter/`: beside merged weights, `transformers` would add the adapter once more.
    """
    adapter = checkpoint / "adapter"
    for file in sorted(checkpoint.glob("adapter_*")):
        adapter.mkdir(exist_ok=True)
        file.rename(adapter / file.name)
    if adapter.exists():
        (adapter / "adapter_model.pt").unlink()  # the same in torchtune's names
        _write(adapter / "adapter_config.json", base_model_name_or_path=base, task_type="CAUSAL_LM")
    if index := _read(checkpoint / "model.safetensors.index.json"):
        _write(checkpoint / "config.json", tie_word_embeddings="lm_head.weight" not in index["weight_map"])


def read_log(folder: Path, *, batch_size: int) -> pd.DataFrame:
    """Reads the logs of torchtune's `DiskLogger` in `output_dir`, one per launch; `batch_size` is examples per step.

    One row per step: `step`, `examples` (seen so far), `loss` (nats per token) and what else torchtune logged; of a
    step that two launches logged, the later one.
    """
    rows = {}
    for log in sorted((folder / "logs").glob("*.txt")):
        for step, fields in re.findall(r"^Step (\d+) \| (.*)$", log.read_text(), re.MULTILINE):
            values = {name: float(value) for name, value in re.findall(r"(\w+):(\S+)", fields)}
            rows[int(step)] = {"step": int(step), "examples": int(step) * batch_size, **values}
    return pd.DataFrame([rows[step] for step in sorted(rows)])


def checkpoint(run: Run) -> Path:
    """Folder of a run's fine-tuned model; raises FileNotFoundError if it is not trained yet."""
    folder = run.folder / "training"
    if not (folder / DONE).exists():
        raise FileNotFoundError(f"profile {run.profile.name!r} has no fine-tuned model yet; run notebook 03 first")
    return folder / f"epoch_{OmegaConf.load(folder / 'config.yaml').epochs - 1}"


def checkpoint_fingerprint(run: Run) -> str:
    """Identifies a run's fine-tuned model by its config and data; raises FileNotFoundError if it is not trained yet."""
    return str(_read(checkpoint(run).parent / DONE)["fingerprint"])
