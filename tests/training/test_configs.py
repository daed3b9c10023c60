"""The configs are without fault, and the two ways to install name the same environment."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from guard_utils.profiles import PROFILES, repository
from guard_utils.training.preflight import preflight
from guard_utils.training.recipe import stock_recipe

CONFIGS = sorted((repository() / "torchtune_configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_without_fault_once_it_is_filled(path: Path, tmp_path: Path) -> None:
    config = OmegaConf.load(path)
    config.model_dir = config.output_dir = str(tmp_path)
    config.train_file = str(tmp_path / "train.jsonl")
    # Llama Guard's weights are gated: empty files stand for them.
    for name in ("train.jsonl", "config.json", "tokenizer.json", *config.checkpointer.checkpoint_files):
        (tmp_path / name).touch()
    processes = 4 if "distributed" in config.recipe else 1
    preflight(OmegaConf.to_container(config, resolve=True), processes=processes, hardware=False)


def test_every_profile_has_its_config_and_every_config_its_profile() -> None:
    assert {profile.config for profile in PROFILES.values()} == {path.name for path in CONFIGS}


def test_unknown_stock_recipe_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no_such_recipe"):
        stock_recipe("no_such_recipe")


def test_conda_environment_installs_what_pyproject_pins() -> None:
    environment = yaml.safe_load((repository() / "environment.yml").read_text())
    project = tomllib.loads((repository() / "pyproject.toml").read_text())["project"]
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["--editable .[dev]"]
    assert f"python{project['requires-python']}" in conda
    # Versions stand in one place only.
    assert not [entry for entry in conda if "==" in entry]
    pinned = {requirement.split("==")[0] for requirement in project["dependencies"] if "==" in requirement}
    assert {"torch", "torchtune", "torchao", "transformers", "datasets"} <= pinned
