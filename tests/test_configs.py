"""The configs name what exists, and the two ways to install name the same environment."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from torchtune.config._utils import _get_component_from_path

from guard_utils.profiles import PROFILES, repository
from guard_utils.recipe import stock_recipe

CONFIGS = sorted((repository() / "torchtune_configs").glob("*.yaml"))


def components(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("_component_", "collate_fn"):
                yield value
            else:
                yield from components(value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_dotpath_of_a_config_can_be_imported(path: Path) -> None:
    names = list(components(OmegaConf.to_container(OmegaConf.load(path))))
    assert len(names) >= 7
    for name in names:
        assert callable(_get_component_from_path(name)), name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_exists(path: Path) -> None:
    recipe = OmegaConf.load(path).recipe
    if recipe.endswith(".py"):
        assert (repository() / recipe).exists()
    else:
        assert hasattr(stock_recipe(recipe), "recipe_main")


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
