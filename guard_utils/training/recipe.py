"""The recipe that `tune run` launches: torchtune's own single-device recipes, with a shared prefix.

    tune run guard_utils/training/recipe.py --config torchtune_configs/laptop.yaml

A config whose model has a `lora_rank` trains adapters, any other trains all weights. Beyond torchtune's keys it knows
`autocast` (a dtype for activations, while the weights keep `dtype`), `threads` (CPU threads; absent: all cores) and
`save_every_n_steps` (see `guard_utils.training.resume`). torchtune keeps its recipes outside any package, so the files are
loaded by path.
"""

from __future__ import annotations

import ctypes
import importlib.util
import inspect
import math
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
import torchtune
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torchtune import config
from torchtune.modules.peft import get_adapter_params

from guard_utils.training.resume import Resumable
from guard_utils.training.shared_prefix import LossAtLabels, use_shared_prefix

# On a CPU, freed tensors leave holes that the next ones do not quite fit. Training SmolLM2, a trim brings the process
# from 6 GB back to 2.6 between two batches; the next one pays with page faults.
BATCHES_PER_TRIM = 4


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


def fit_output(cfg_model: DictConfig, weights: dict[str, Tensor], checkpointer: Any) -> Any:
    """Ties a model's output projection to its embedding where the checkpoint does, by the rule of `transformers`.

    torchtune's Llama 3.2 ties them unless told otherwise, and then refuses a checkpoint with a projection, which
    Llama-Guard-3-1B has (torchtune issue 2237). A projection that the checkpoint's config ties and that equals the
    embedding is a second copy: it is taken out, here and from what will be exported. Any other is the model's own.

    Args:
        cfg_model: `model` of a config.
        weights: What `checkpointer` loaded, in torchtune's names.
        checkpointer: A `FullModelHFCheckpointer` that has loaded.

    Returns:
        `cfg_model`, with `tie_word_embeddings` where its builder knows it.
    """
    if "tie_word_embeddings" not in inspect.signature(pkgutil.resolve_name(cfg_model["_component_"])).parameters:
        return cfg_model
    own = weights.get("output.weight")
    tied = checkpointer._config.get("tie_word_embeddings", False)
    if own is not None and tied and torch.equal(own, weights["tok_embeddings.weight"]):
        del weights["output.weight"], checkpointer._weight_map["lm_head.weight"]
    return OmegaConf.merge(cfg_model, {"tie_word_embeddings": "output.weight" not in weights})


def initial_adapter(cfg_model: DictConfig, seed: int) -> dict[str, Tensor]:
    """LoRA's first weights, drawn from the seed alone: on any number of processes they are the same.

    Args:
        cfg_model: `model` of a config.
        seed: Of the config.

    Returns:
        Name to full tensor on the CPU: A uniform as torchtune has it, everything else zero.
    """
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in get_adapter_params(config.instantiate(cfg_model)).items()}
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, weight in weights.items():
        if "lora_a" in name:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    return weights


def trim_heap() -> None:
    """Returns to the system what the C library holds free between tensors, where it knows how to (glibc)."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


_Recipe: Any = object


class SharedPrefix(Resumable, _Recipe):
    """Put before one of torchtune's recipes among a class's bases: resumable, and trains behind a shared prefix.

    The recipe's own loop calls `_model` and `_loss_fn`; here they are given a form in which they do just that.
    """

    _loss_fn: Any

    def setup(self, cfg: DictConfig) -> None:
        """Sets up torchtune's recipe and narrows its loss to the labels."""
        self._autocast = cfg.get("autocast")
        super().setup(cfg=cfg)
        self._loss_fn = LossAtLabels(self._loss_fn)

    def _setup_model(self, cfg_model: DictConfig, **kwargs: Any) -> nn.Module:
        weights = kwargs.get("base_model_state_dict") or kwargs["model_state_dict"]
        checkpointer = getattr(self, "_checkpointer", None) or self._checkpoint_client._get_checkpointer()
        cfg_model = fit_output(cfg_model, weights, checkpointer)
        if "lora_rank" in cfg_model and kwargs.get("lora_weights_state_dict") is None:
            kwargs["lora_weights_state_dict"] = initial_adapter(cfg_model, self.seed)
        model = use_shared_prefix(super()._setup_model(cfg_model=cfg_model, **kwargs))
        if self._autocast:
            cast(Any, model).forward = torch.autocast(self._device.type, getattr(torch, self._autocast))(model.forward)
        return model

    def _batches(self, loader: Any) -> Iterator[dict[str, Any]]:
        for number, batch in enumerate(super()._batches(loader)):
            if self._device.type == "cpu" and number % BATCHES_PER_TRIM == 0:
                trim_heap()
            yield batch


def shared_prefix_recipe(cfg: DictConfig) -> Any:
    """Builds the recipe a config asks for."""
    if "lora_rank" in cfg.model:
        base = stock_recipe("lora_finetune_single_device").LoRAFinetuneRecipeSingleDevice
    else:
        base = stock_recipe("full_finetune_single_device").FullFinetuneRecipeSingleDevice
    return type("SharedPrefixRecipe", (SharedPrefix, base), {})(cfg=cfg)


def launch(make: Callable[[DictConfig], Any], cfg: DictConfig) -> None:
    """Runs the training of the recipe that `make` builds from a config."""
    config.log_config(recipe_name="SharedPrefixRecipe", cfg=cfg)
    if "threads" in cfg:
        torch.set_num_threads(cfg.threads)
    recipe = make(cfg)
    recipe.setup(cfg=cfg)
    recipe.train()
    recipe.cleanup()


def main(cfg: DictConfig) -> None:
    """Runs a training as `tune run` does."""
    launch(shared_prefix_recipe, cfg)


if __name__ == "__main__":
    sys.exit(config.parse(main)())
