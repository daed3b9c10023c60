"""The recipe that `tune run` launches: torchtune's own single-device recipes, with a shared prefix.

    tune run guard_utils/recipe.py --config torchtune_configs/laptop.yaml

A config whose model has a `lora_rank` trains adapters, any other trains all weights. Beyond torchtune's keys it knows
`autocast` (a dtype for activations, while the weights keep `dtype`) and `threads` (CPU threads; absent: all cores).
torchtune keeps its recipes outside any package, so the files are loaded by path.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torchtune
from omegaconf import DictConfig
from torch import Tensor, nn
from torchtune import config

from guard_utils.shared_prefix import shared_prefix_loss, use_shared_prefix


def stock_recipe(name: str) -> ModuleType:
    """Loads one of torchtune's recipe files, which stand beside the package.

    Args:
        name: For example `lora_finetune_single_device`.

    Raises:
        FileNotFoundError: torchtune has no such recipe.
    """
    path = Path(torchtune.__file__).parents[1] / "recipes" / f"{name}.py"
    if not path.exists():
        raise FileNotFoundError(f"torchtune {torchtune.__version__} has no recipe {name!r}; see `tune ls`")
    spec = importlib.util.spec_from_file_location(f"torchtune_recipe_{name}", path)
    assert spec is not None and spec.loader is not None  # the file exists and ends in .py
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shared_prefix_recipe(cfg: DictConfig) -> Any:
    """Builds the recipe a config asks for: torchtune's, with two of its methods overridden."""
    if "lora_rank" in cfg.model:
        base = stock_recipe("lora_finetune_single_device").LoRAFinetuneRecipeSingleDevice
    else:
        base = stock_recipe("full_finetune_single_device").FullFinetuneRecipeSingleDevice

    class SharedPrefixRecipe(base):  # type: ignore[misc, valid-type]
        def _setup_model(self, *args: Any, **kwargs: Any) -> nn.Module:
            return use_shared_prefix(super()._setup_model(*args, **kwargs))

        def _loss_step(self, batch: dict[str, Any]) -> Tensor:
            autocast = cfg.get("autocast")
            dtype = getattr(torch, autocast) if autocast else None
            with self.activations_handling_ctx, torch.autocast(self._device.type, dtype, enabled=bool(autocast)):
                return shared_prefix_loss(self._model, self._loss_fn, batch, ignore_idx=self._loss_fn.ignore_index)

    return SharedPrefixRecipe(cfg=cfg)


def main(cfg: DictConfig) -> None:
    """Runs a training as `tune run` does."""
    config.log_config(recipe_name="SharedPrefixRecipe", cfg=cfg)
    if "threads" in cfg:
        torch.set_num_threads(cfg.threads)
    recipe = shared_prefix_recipe(cfg)
    recipe.setup(cfg=cfg)
    recipe.train()
    recipe.cleanup()


if __name__ == "__main__":
    sys.exit(config.parse(main)())
