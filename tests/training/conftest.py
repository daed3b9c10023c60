"""A smoke run with its training file, and its config with overrides."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from guard_utils.data.splits import load_splits
from guard_utils.formatter import write_training_file
from guard_utils.profiles import Run, resolve
from guard_utils.training.config import resolve_config


@pytest.fixture(scope="session", autouse=True)
def imported() -> None:
    """Spares what is imported the garbage collection that torchtune does in each training: a third of its seconds."""
    gc.freeze()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUARD_ARTIFACTS", str(tmp_path_factory.mktemp("artifacts")))
        run = resolve("smoke")
    write_training_file(load_splits(run).train, run.folder / "train.jsonl", run.policy)
    return run


@pytest.fixture(scope="session")
def train_file(run: Run) -> Path:
    return run.folder / "train.jsonl"


@pytest.fixture(scope="session")
def lora() -> dict[str, Any]:
    """Turns the smoke config's model into one with adapters."""
    return {
        "_component_": "torchtune.models.llama3_2.lora_llama3_2",
        "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
        "apply_lora_to_mlp": True,
        "lora_rank": 4,
        "lora_alpha": 8,
    }


@pytest.fixture(scope="session")
def settings(run: Run, train_file: Path) -> Callable[..., Any]:
    """Makes the config of a run into a folder, as the recipe gets it; overrides may be nested."""

    def make(folder: Path, **overrides: Any) -> Any:
        config = OmegaConf.create(resolve_config(run, train_file))
        config.output_dir = config.checkpointer.output_dir = str(folder)
        config.metric_logger.log_dir = str(folder / "logs")
        return OmegaConf.merge(config, overrides)

    return make


@pytest.fixture
def elsewhere(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Run]:
    """Makes the run with another folder, and with other values in its config."""

    def make(options: dict[str, Any]) -> Run:
        path = tmp_path / "config.yaml"
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(run.config_path), options), path)
        monkeypatch.setattr(Run, "config_path", property(lambda self: path))
        return replace(run, folder=tmp_path / "ü b" / "smoke")

    return make
