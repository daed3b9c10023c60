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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import OmegaConf
from tqdm.auto import tqdm

from guard_utils.files import write_text
from guard_utils.profiles import Run

if TYPE_CHECKING:
    from guard_utils.training.resume import State

DONE = "finished.json"
STARTED = "started.json"
# Of no influence on what is learned.
_OTHERWISE_EQUAL = ("save_every_n_steps",)
_PROGRESS = re.compile(r"(\d+)\|(\d+)\|Loss: ([-\d.naif]+)")
_STEP = re.compile(r"^Step (\d+) \| (.*)$", re.MULTILINE)
_HINTS = (
    ("out of memory", "halve batch_size in the config, or use a smaller profile"),
    ("Killed", "the system was short of memory; close other programs or halve batch_size in the config"),
    ("No space left", "make room on the disk, or set GUARD_ARTIFACTS to another one"),
    ("Loss: nan", "the loss diverged; lower optimizer.lr in the config"),
    ("loading state_dict", "the config's model has another shape than the weights in model_dir; compare both"),
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
        seconds: From launch to checkpoint; of a run that was cut off, those of its saved steps and of the rest.
        config: The resolved config.
        reused: Whether an earlier, identical run was found instead of training anew.
        resumed_from: Step at which this call took up an earlier, identical run that was cut off; 0 if it did not.
    """

    checkpoint: Path
    log: pd.DataFrame
    examples: int
    seconds: float
    config: dict[str, Any]
    reused: bool
    resumed_from: int = 0


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


def fingerprint(config: dict[str, Any], *, processes: int = 1) -> str:
    """Identifies a training by its config and the bytes of its training file, not by where they lie.

    Args:
        config: A resolved config.
        processes: That train together.
    """
    data = hashlib.sha256(Path(config["train_file"]).read_bytes()).hexdigest()
    moved = (config["output_dir"], config["train_file"], config["model_dir"])
    text = json.dumps({key: config[key] for key in config if key not in _OTHERWISE_EQUAL}, sort_keys=True)
    for place in moved:
        text = text.replace(place, "")
    together = f" {processes} processes" if processes > 1 else ""
    return hashlib.sha256(f"{text}{Path(config['model_dir']).name}{data}{together}".encode()).hexdigest()


def finetune(run: Run, train_file: Path, *, processes: int = 1, progress: bool = True) -> Training:
    """Trains a run's model with torchtune. An identical training is returned if finished, and taken up if cut off.

    Args:
        run: A resolved profile.
        train_file: What `write_training_file` wrote.
        processes: For distributed recipes, how many to launch.
        progress: Whether to show a bar with loss and examples a second, and a word where an earlier run is taken up.

    Raises:
        ConfigFaults: The config can't be run; lists every fault. Nothing was touched.
        TrainingError: torchtune failed; its own last lines and a hint.
    """
    config = resolve_config(run, train_file)
    folder = Path(config["output_dir"])
    mark = fingerprint(config, processes=processes)
    with _alone(folder) as lock:
        done = _read(folder / DONE)
        if done.get("fingerprint") == mark:
            return _result(config, done, processes, reused=True)
        # They import torchtune, which takes seconds.
        from guard_utils.training.preflight import preflight
        from guard_utils.training.resume import STATES, saved_state

        preflight(config, processes=processes)
        state = saved_state(folder) if _read(folder / STARTED).get("fingerprint") == mark else None
        if state is None:
            shutil.rmtree(folder, ignore_errors=True)  # cut off before its first save, or of another config or data
        for half_written in folder.glob("epoch_*"):
            shutil.rmtree(half_written)
        write_text(folder / STARTED, json.dumps({"fingerprint": mark}) + "\n")
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
        rows = sum(1 for _ in train_file.open(encoding="utf-8"))
        seconds = _launch(config, rows, processes, state, lock, progress)
        _tidy(_final(config), run.profile.model if run.profile.from_hub else config["model_dir"])
        done = {"fingerprint": mark, "seconds": seconds, "rows": rows}
        write_text(folder / DONE, json.dumps(done, indent=2) + "\n")
        shutil.rmtree(folder / STATES, ignore_errors=True)
    return _result(config, done, processes, resumed_from=state.step if state else 0)


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Waits until no process trains into a folder, a recipe that outlives its notebook for a moment among them."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is training into {folder}; waiting until it ends")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _final(config: dict[str, Any]) -> Path:
    return Path(config["output_dir"]) / f"epoch_{config['epochs'] - 1}"


def _size(config: dict[str, Any], rows: int, processes: int) -> tuple[int, int]:
    """Examples of a step, and steps of the whole run."""
    per_step = int(config["batch_size"] * config["gradient_accumulation_steps"] * processes)
    per_epoch = min(rows // per_step, config["max_steps_per_epoch"] or rows)
    return per_step, per_epoch * int(config["epochs"])


def _launch(config: dict[str, Any], rows: int, processes: int, state: State | None, lock: int, progress: bool) -> float:
    """Runs torchtune to its end.

    Returns:
        The seconds that all of its steps took, whichever launch made them.
    """
    # torchrun looks its own host up, which not every machine can; all processes stand on this one.
    launcher = ["--nproc_per_node", str(processes), "--local_addr", "127.0.0.1"] if processes > 1 else []
    path = f"{config['output_dir']}/config.yaml"
    command = [sys.executable, "-m", "torchtune._cli.tune", "run", *launcher, config["recipe"], "--config", path]
    # Huge pages save a tenth of the time on CPUs: large activations are allocated and freed at every step.
    environment = {"THP_MEM_ALLOC_ENABLE": "1", "PYTHONUNBUFFERED": "1"} | os.environ
    last: deque[str] = deque(maxlen=25)
    per_step, steps = _size(config, rows, processes)
    behind = state.step if state else 0
    if state:
        command.append("resume_from_checkpoint=True")
        if progress:
            print(f"this training was cut off before: it goes on after step {behind} of {steps}")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        errors="replace",
        pass_fds=[lock],  # held for as long as the recipe lives
    )
    assert process.stdout is not None  # it is a pipe
    shown: dict[str, Any] = {"total": steps * per_step, "initial": behind * per_step, "unit": " examples"}
    try:
        with tqdm(desc="training", disable=not progress, **shown) as bar:
            for line in process.stdout:
                last.append(line.rstrip())
                for _, step, loss in _PROGRESS.findall(line):
                    bar.update(int(step) * per_step - bar.n)
                    bar.set_postfix(loss=f"{float(loss):.3f}")
            seconds = bar.format_dict["elapsed"]
        code = process.wait()
    finally:
        process.terminate()  # a notebook that is interrupted leaves no training behind
    if code:
        raise TrainingError(_explain(code, list(last)))
    return float(seconds) + (state.seconds if state else 0.0)


def _tidy(checkpoint: Path, base: str) -> None:
    """Makes a checkpoint say what plain `transformers` and `peft` need to know.

    LoRA's own files move to `adapter/`, because `transformers` would add an adapter beside merged weights once more.
    """
    adapter = checkpoint / "adapter"
    for file in sorted(checkpoint.glob("adapter_*")):
        adapter.mkdir(exist_ok=True)
        file.rename(adapter / file.name)
    if adapter.exists():
        (adapter / "adapter_model.pt").unlink()  # the same in torchtune's names
        about = _read(adapter / "adapter_config.json") | {"base_model_name_or_path": base, "task_type": "CAUSAL_LM"}
        write_text(adapter / "adapter_config.json", json.dumps(about, indent=2) + "\n")
    index = _read(checkpoint / "model.safetensors.index.json")
    if index:
        about = _read(checkpoint / "config.json") | {"tie_word_embeddings": "lm_head.weight" not in index["weight_map"]}
        write_text(checkpoint / "config.json", json.dumps(about, indent=2) + "\n")


def _explain(code: int, lines: list[str]) -> str:
    text = "\n".join(lines) + ("\nKilled" if code == -9 else "")
    hint = next(
        (hint for sign, hint in _HINTS if sign in text), "read torchtune's lines above; the last names the cause"
    )
    return f"torchtune ended with status {code}. Its last lines:\n{text}\nHint: {hint}."


def read_log(folder: Path, *, batch_size: int) -> pd.DataFrame:
    """Turns the logs of torchtune's `DiskLogger`, one a launch, into a data frame.

    Args:
        folder: `output_dir` of the config.
        batch_size: Examples a step.

    Returns:
        One row a step. Steps that a killed launch logged after its last save stand as the next launch repeated them.

    Raises:
        FileNotFoundError: The run left no log.
    """
    logs = sorted((folder / "logs").glob("*.txt"))
    if not logs:
        raise FileNotFoundError(f"no torchtune log in {folder / 'logs'}; the run did not start, train it again")
    rows = {}
    for step, fields in _STEP.findall("\n".join(log.read_text() for log in logs)):
        values = dict(field.split(":", 1) for field in fields.split())
        rows[int(step)] = {"step": int(step), "examples": int(step) * batch_size} | {
            key: float(value) for key, value in values.items()
        }
    return pd.DataFrame([rows[step] for step in sorted(rows)])


def _result(
    config: dict[str, Any], done: dict[str, Any], processes: int, *, reused: bool = False, resumed_from: int = 0
) -> Training:
    per_step, steps = _size(config, done["rows"], processes)
    return Training(
        checkpoint=_final(config),
        log=read_log(Path(config["output_dir"]), batch_size=per_step),
        examples=steps * per_step,
        seconds=done["seconds"],
        config=config,
        reused=reused,
        resumed_from=resumed_from,
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
