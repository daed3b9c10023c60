"""The recipe that `tune run` launches: torchtune's own recipes, trained behind a shared prefix and resumable.

    tune run [--nproc_per_node 4] guard_utils/training/recipe.py --config torchtune_configs/laptop.yaml

One process runs torchtune's single-device recipe; several run its distributed one (FSDP2), each with its share of a
step's examples behind its own copy of the prefix, over gloo where `device` is cpu. `batch_size` is of one process; a
step's loss is that of one process with the same examples. A model with `lora_rank` trains adapters, any other all
weights. Keys beyond torchtune's: `autocast` (dtype of activations; weights keep `dtype`), `threads` (absent: all cores)
and `save_every_n_steps` (see `resume`). With another `collate_fn`, as torchtune's `padded_collate_sft`, batches, model
and loss are stock. Does not: tensor parallelism, a training loop of its own.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import inspect
import math
import os
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import torch
import torchtune
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.distributed import init_process_group
from torchtune import config, training
from torchtune.modules.peft import get_adapter_params

from guard_utils.training.config import check_config
from guard_utils.training.resume import Resumable
from guard_utils.training.shared_prefix import LossAtLabels, use_shared_prefix

# On a CPU, glibc gives the memory of large tensors back and takes it anew, page by page: a tenth of a step. Told to
# keep it, it is left with holes that the next tensors don't quite fit; a trim now and then gives them back.
BATCHES_PER_TRIM = 8
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def stock_recipe(name: str) -> ModuleType:
    """Loads one of torchtune's recipe files (`lora_finetune_single_device`), which are beside the package."""
    path = Path(torchtune.__file__).parents[1] / "recipes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"torchtune_recipe_{name}", path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fit_output(cfg_model: DictConfig, weights: dict[str, Tensor], checkpointer: Any) -> Any:
    """Ties a model's output projection to its embedding where the checkpoint does, by the rule of `transformers`.

    torchtune's Llama 3.2 ties them unless told otherwise, and then refuses a checkpoint with a projection, which
    Llama-Guard-3-1B has (torchtune issue 2237). A projection that equals the embedding and that the checkpoint's config
    ties is a copy: it is taken out of `weights`, which `checkpointer` loaded, and of what will be exported. Returns
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
    """LoRA's first weights, drawn from the seed alone, so that they are the same on any number of processes.

    Name to full tensor on the CPU: A uniform as in torchtune, everything else zero.
    """
    with torch.device("meta"):
        adapter = get_adapter_params(config.instantiate(cfg_model))
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.zeros(weight.shape) for name, weight in adapter.items()}
    for name, weight in weights.items():
        if "lora_a" in name:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    return weights


class SharedPrefix(Resumable):
    """Put before one of torchtune's recipes as a base class: its loop then runs model and loss on packed batches."""

    _loss_fn: Any

    def setup(self, cfg: DictConfig) -> None:
        """Sets up torchtune's recipe; where batches are packed, narrows its loss to the labels."""
        self._autocast, self._packs = cfg.get("autocast"), "collate_shared_prefix" in str(cfg.get("collate_fn"))
        super().setup(cfg=cfg)
        if self._packs:
            self._loss_fn = LossAtLabels(self._loss_fn)
        # glibc only: other C libraries have no such call.
        libc = ctypes.CDLL(None) if sys.platform == "linux" and self._device.type == "cpu" else None
        self._trim = getattr(libc, "malloc_trim", None)
        if libc is not None and self._trim:
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, -1)

    def _setup_model(self, cfg_model: DictConfig, **kwargs: Any) -> nn.Module:
        weights = kwargs.get("base_model_state_dict") or kwargs["model_state_dict"]
        checkpointer = getattr(self, "_checkpointer", None) or self._checkpoint_client._get_checkpointer()
        cfg_model = fit_output(cfg_model, weights, checkpointer)
        if "lora_rank" in cfg_model:
            kwargs["lora_weights_state_dict"] = initial_adapter(cfg_model, self.seed)
        model: nn.Module = super()._setup_model(cfg_model=cfg_model, **kwargs)
        if self._packs:
            use_shared_prefix(model)
        if self._autocast:
            cast(Any, model).forward = torch.autocast(self._device.type, getattr(torch, self._autocast))(model.forward)
        return model

    def _batches(self, loader: Any) -> Iterator[dict[str, Any]]:
        for number, batch in enumerate(super()._batches(loader)):
            if self._trim and number % BATCHES_PER_TRIM == 0:
                self._trim(0)
            yield batch


def shared_prefix_recipe(cfg: DictConfig) -> Any:
    """Builds the recipe that a config asks for; torchtune's distributed one in a process launched as one of several."""
    lora, several = "lora_rank" in cfg.model, training.is_distributed()
    name = f"{'lora' if lora else 'full'}_finetune_{'distributed' if several else 'single_device'}"
    module = cast(Any, stock_recipe(name))
    if several and cfg.device == "cpu":
        # The distributed recipes ask for a GPU's memory statistics; the names are replaced in this one module only.
        no_gpu = {"cleanup_before_training": gc.collect, "get_memory_stats": lambda device: {}}
        no_gpu["log_memory_stats"] = lambda stats: None
        module.training = SimpleNamespace(**vars(training) | no_gpu)
    if several and lora:  # the full recipe does this itself
        init_process_group(training.get_distributed_backend(cfg.device, offload_ops_to_cpu=cfg.device != "cpu"))
    kind = "Distributed" if several else "SingleDevice"
    base = getattr(module, f"{'LoRA' if lora else 'Full'}FinetuneRecipe{kind}")
    return type("SharedPrefixRecipe", (SharedPrefix, base), {})(cfg=cfg)


def main(cfg: DictConfig) -> None:
    """Runs a training, as `tune run` does."""
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    check_config(settings, processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if cfg.get("threads"):
        torch.set_num_threads(cfg.threads)
    Path(cfg.output_dir).mkdir(parents=True, exist_ok=True)
    # Held by one process until it ends, so that a new launch waits for a recipe whose launcher has died.
    with FileLock(f"{cfg.output_dir}.recipe.lock") if os.environ.get("RANK", "0") == "0" else nullcontext():
        recipe = shared_prefix_recipe(cfg)
        recipe.setup(cfg=cfg)
        recipe.train()
        recipe.cleanup()


if __name__ == "__main__":
    sys.exit(config.parse(main)())
