"""Launches torchtune on a profile's config and turns its run into a checkpoint, a log and a clear word on failure."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from tqdm.auto import tqdm

from guard_utils.files import write_text
from guard_utils.profiles import Run

DONE = "finished.json"
_PROGRESS = re.compile(r"(\d+)\|(\d+)\|Loss: ([-\d.naif]+)")
_STEP = re.compile(r"^Step (\d+) \| (.*)$", re.MULTILINE)
_HINTS = (
    ("out of memory", "halve batch_size in the config, or use a smaller profile"),
    ("Killed", "the system was short of memory; close other programs or halve batch_size in the config"),
    ("No space left", "make room on the disk, or set GUARD_ARTIFACTS to another one"),
    ("Loss: nan", "the loss diverged; lower optimizer.lr in the config"),
    ("InstantiationError", "a _component_ in the config can't be imported; check its spelling"),
    ("ConfigError", "the config is not well-formed; compare it with the one in torchtune_configs/"),
)


class TrainingError(RuntimeError):
    """torchtune ended with an error; the message holds its last lines and a hint."""


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        checkpoint: Folder that `transformers` loads.
        log: One row a step: `step`, `examples` (seen so far), `loss` (nats a token) and what else torchtune logged.
        examples: Trained on, all epochs together.
        seconds: From launch to checkpoint.
        config: The resolved config.
        reused: Whether an earlier, identical run was found instead of training anew.
    """

    checkpoint: Path
    log: pd.DataFrame
    examples: int
    seconds: float
    config: dict[str, Any]
    reused: bool


def resolve_config(run: Run, train_file: Path) -> dict[str, Any]:
    """Fills a profile's config with this run's paths, device and dtype.

    Raises:
        FileNotFoundError: The training file is missing.
    """
    if not train_file.exists():
        raise FileNotFoundError(f"no training file {train_file.name} in {train_file.parent}; run notebook 02 first")
    config = OmegaConf.load(run.config_path)
    config.model_dir = str(run.model_folder())
    config.train_file = str(train_file)
    config.output_dir = str(run.folder / "training")
    config.seed = run.seed
    config.device = run.device
    if "autocast" in config:
        config.autocast = "bfloat16" if run.dtype == "bf16" else None
    return dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]


def fingerprint(config: dict[str, Any]) -> str:
    """Identifies a training by its config and the bytes of its training file, not by where they lie."""
    data = hashlib.sha256(Path(config["train_file"]).read_bytes()).hexdigest()
    moved = (config["output_dir"], config["train_file"], config["model_dir"])
    text = json.dumps(config, sort_keys=True)
    for place in moved:
        text = text.replace(place, "")
    return hashlib.sha256(f"{text}{Path(config['model_dir']).name}{data}".encode()).hexdigest()


def finetune(run: Run, train_file: Path, *, processes: int = 1, progress: bool = True) -> Training:
    """Trains a run's model with torchtune, or returns the identical training that was finished before.

    Args:
        run: A resolved profile.
        train_file: What `write_training_file` wrote.
        processes: For distributed recipes, how many to launch.
        progress: Whether to show a bar with loss and examples a second.

    Raises:
        TrainingError: torchtune failed; its own last lines and a hint.
    """
    config = resolve_config(run, train_file)
    folder = Path(config["output_dir"])
    if (folder / DONE).exists():
        done = json.loads((folder / DONE).read_text())
        if done["fingerprint"] == fingerprint(config):
            return _result(config, done, reused=True)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed, or of another config
    folder.mkdir(parents=True)
    path = folder / "config.yaml"
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(config)))
    rows = sum(1 for _ in train_file.open(encoding="utf-8"))
    seconds = _launch(config["recipe"], path, config, rows, processes, progress)
    _set_adapter_apart(folder / f"epoch_{config['epochs'] - 1}")
    done = {"fingerprint": fingerprint(config), "seconds": seconds, "rows": rows}
    write_text(folder / DONE, json.dumps(done, indent=2) + "\n")
    return _result(config, done, reused=False)


def _launch(recipe: str, path: Path, config: dict[str, Any], rows: int, processes: int, progress: bool) -> float:
    launcher = ["--nproc_per_node", str(processes)] if processes > 1 else []
    command = [sys.executable, "-m", "torchtune._cli.tune", "run", *launcher, recipe, "--config", str(path)]
    # Huge pages save a tenth of the time on CPUs: large activations are allocated and freed at every step.
    environment = {"THP_MEM_ALLOC_ENABLE": "1", "PYTHONUNBUFFERED": "1"} | os.environ
    last: deque[str] = deque(maxlen=25)
    total = rows // config["batch_size"] * config["batch_size"] * config["epochs"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, errors="replace"
    )
    assert process.stdout is not None  # it is a pipe
    per_step = config["batch_size"] * config["gradient_accumulation_steps"]
    with tqdm(total=total, unit=" examples", desc="training", disable=not progress) as bar:
        for line in process.stdout:
            last.append(line.rstrip())
            for _, step, loss in _PROGRESS.findall(line):
                bar.update(int(step) * per_step - bar.n)
                bar.set_postfix(loss=f"{float(loss):.3f}")
        seconds = bar.format_dict["elapsed"]
    if process.wait():
        raise TrainingError(_explain(process.returncode, list(last)))
    return float(seconds)


def _set_adapter_apart(checkpoint: Path) -> None:
    """Moves LoRA's own files out of the merged checkpoint, to which `transformers` would add the adapter again."""
    for file in sorted(checkpoint.glob("adapter_*")):
        (checkpoint / "adapter").mkdir(exist_ok=True)
        file.rename(checkpoint / "adapter" / file.name)


def _explain(code: int, lines: list[str]) -> str:
    text = "\n".join(lines) + ("\nKilled" if code == -9 else "")
    hint = next(
        (hint for sign, hint in _HINTS if sign in text), "read torchtune's lines above; the last names the cause"
    )
    return f"torchtune ended with status {code}. Its last lines:\n{text}\nHint: {hint}."


def read_log(folder: Path, *, batch_size: int) -> pd.DataFrame:
    """Turns the log of torchtune's `DiskLogger` into a data frame.

    Args:
        folder: `output_dir` of the config.
        batch_size: Examples a step.

    Raises:
        FileNotFoundError: The run left no log.
    """
    logs = sorted((folder / "logs").glob("*.txt"))
    if not logs:
        raise FileNotFoundError(f"no torchtune log in {folder / 'logs'}; the run did not start, train it again")
    rows = []
    for step, fields in _STEP.findall("\n".join(log.read_text() for log in logs)):
        values = dict(field.split(":", 1) for field in fields.split())
        rows.append({"step": int(step), "examples": int(step) * batch_size} | {k: float(v) for k, v in values.items()})
    return pd.DataFrame(rows)


def _result(config: dict[str, Any], done: dict[str, Any], *, reused: bool) -> Training:
    folder = Path(config["output_dir"])
    per_step = config["batch_size"] * config["gradient_accumulation_steps"]
    return Training(
        checkpoint=folder / f"epoch_{config['epochs'] - 1}",
        log=read_log(folder, batch_size=per_step),
        examples=done["rows"] // per_step * per_step * config["epochs"],
        seconds=done["seconds"],
        config=config,
        reused=reused,
    )


def checkpoint(run: Run) -> Path:
    """Folder of a run's fine-tuned model.

    Raises:
        FileNotFoundError: It is not trained yet.
    """
    folder = run.folder / "training"
    if not (folder / DONE).exists():
        raise FileNotFoundError(f"profile {run.profile.name!r} has no fine-tuned model yet; run notebook 03 first")
    return folder / f"epoch_{OmegaConf.load(folder / 'config.yaml').epochs - 1}"


def checkpoint_fingerprint(run: Run) -> str:
    """Identifies a run's fine-tuned model by the config and the data it was trained with; see `fingerprint`.

    Raises:
        FileNotFoundError: It is not trained yet.
    """
    return str(json.loads((checkpoint(run).parent / DONE).read_text())["fingerprint"])
