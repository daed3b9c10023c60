"""The recipe for several processes: torchtune's own distributed recipes, full (FSDP2) and LoRA, with a shared prefix.

    tune run --nproc_per_node 4 guard_utils/training/recipe_distributed.py --config torchtune_configs/guard-8b.yaml

Each process packs its own share of a step's examples behind its own copy of the prefix. torchtune's training loop runs
as it stands, weighting, gradient scaling and checkpoints included; the model and the loss it calls are given another
form. A step's loss is that of one process with the same examples (tests/test_distributed.py). Configs are those of
`guard_utils.training.recipe`, and `batch_size` is of one process. With `device: cpu`, processes speak over gloo.
"""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace
from typing import Any, cast

from omegaconf import DictConfig
from torch.distributed import init_process_group
from torchtune import config, training

from guard_utils.training.recipe import SharedPrefix, launch, stock_recipe


def _stock(cfg: DictConfig) -> Any:
    """The stock recipe class for a config, able to run on CPUs."""
    lora = "lora_rank" in cfg.model
    module = cast(Any, stock_recipe("lora_finetune_distributed" if lora else "full_finetune_distributed"))
    if cfg.device == "cpu":
        # The recipes ask for the statistics of a GPU's memory at start; the name is replaced in this one module only.
        no_gpu = {
            "cleanup_before_training": gc.collect,
            "get_memory_stats": lambda device: {},
            "log_memory_stats": lambda stats: None,
        }
        module.training = SimpleNamespace(**vars(training) | no_gpu)
    return module.LoRAFinetuneRecipeDistributed if lora else module.FullFinetuneRecipeDistributed


def distributed_recipe(cfg: DictConfig) -> Any:
    """Builds the recipe a config asks for, in every process of a launch by `tune run --nproc_per_node` or `torchrun`.

    Raises:
        ValueError: Tensor parallelism, which would cut packed sequences into pieces.
        RuntimeError: The process was not launched as one of several.
    """
    if cfg.get("tensor_parallel_dim", 1) > 1:
        raise ValueError(
            f"tensor_parallel_dim={cfg.tensor_parallel_dim} is not supported with a shared prefix; set it to 1"
        )
    if not training.is_distributed():
        raise RuntimeError(
            "launch this recipe with `tune run --nproc_per_node 2 guard_utils/training/recipe_distributed.py`"
        )
    base = _stock(cfg)
    if "lora_rank" in cfg.model:  # the full recipe does this itself
        init_process_group(training.get_distributed_backend(cfg.device, offload_ops_to_cpu=cfg.device != "cpu"))
    return type("SharedPrefixRecipe", (SharedPrefix, base), {})(cfg=cfg)


def main(cfg: DictConfig) -> None:
    """Runs a training in each process, as `tune run` does."""
    launch(distributed_recipe, cfg)


if __name__ == "__main__":
    sys.exit(config.parse(main)())
