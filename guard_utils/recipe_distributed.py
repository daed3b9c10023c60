"""The recipe for several processes: torchtune's own distributed recipes, full (FSDP2) and LoRA, with a shared prefix.

    tune run --nproc_per_node 4 guard_utils/recipe_distributed.py --config torchtune_configs/guard-8b.yaml

Each process packs its own share of a step's examples behind its own copy of the prefix. torchtune's training loop runs
as it stands, weighting, gradient scaling and checkpoints included; the model and the loss it calls are given another
form. A step's loss is that of one process with the same examples (tests/test_distributed.py). Configs are those of
`guard_utils.recipe`, and `batch_size` is of one process. With `device: cpu`, processes speak over gloo.
"""

from __future__ import annotations

import gc
import math
import sys
from types import SimpleNamespace
from typing import Any, cast

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.distributed import init_process_group
from torchtune import config, training
from torchtune.modules.peft import get_adapter_params

from guard_utils.recipe import fit_output, stock_recipe
from guard_utils.resume import Resumable
from guard_utils.shared_prefix import only_positions, use_shared_prefix


class LossAtLabels(nn.Module):
    """A loss for logits that exist only where a label stands.

    Args:
        loss_fn: Takes logits [labels, vocabulary] and labels [labels]; has an `ignore_index`.
    """

    def __init__(self, loss_fn: nn.Module) -> None:
        super().__init__()
        self.loss_fn = loss_fn
        self.ignore_index: int = cast(Any, loss_fn).ignore_index

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of `logits` [labels, vocabulary] and of those of `labels` [packed] that are not ignored."""
        return cast(Tensor, self.loss_fn(logits, labels[labels != self.ignore_index]))


def logits_at_labels(model: nn.Module, device: torch.device, autocast: str | None) -> nn.Module:
    """Lets a model read packed batches and project only the positions that their layout calls `labelled`.

    Args:
        model: A torchtune `TransformerDecoder`, sharded or not.
        device: Of the model.
        autocast: Dtype of activations, such as `bfloat16`; None leaves them in that of the weights.

    Returns:
        The same model.
    """
    forward = use_shared_prefix(model).forward
    dtype = getattr(torch, autocast) if autocast else None

    def forward_labelled(tokens: Tensor, *, mask: dict[str, Tensor], **kwargs: Any) -> Tensor:
        with only_positions(model, mask["labelled"]), torch.autocast(device.type, dtype, enabled=bool(autocast)):
            return cast(Tensor, forward(tokens, mask=mask, **kwargs))

    # Of the instance, so that FSDP's hooks, which gather the weights and free them, stand around it.
    cast(Any, model).forward = forward_labelled
    return model


def initial_adapter(cfg_model: DictConfig, seed: int) -> dict[str, Tensor]:
    """LoRA's first weights, drawn from the seed alone: torchtune's processes each draw their own shards.

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


_Recipe: Any = object


class SharedPrefix(_Recipe):
    """Put before one of torchtune's recipes among a class's bases: trains behind a shared prefix.

    The recipe's own loop calls `_model` and `_loss_fn`; here they are given a form in which they do just that.
    """

    _loss_fn: Any

    def setup(self, cfg: DictConfig) -> None:
        """Sets up torchtune's recipe and narrows its loss to the labels."""
        self._autocast = cfg.get("autocast")
        super().setup(cfg=cfg)
        self._loss_fn = LossAtLabels(self._loss_fn)
        if client := getattr(self, "_checkpoint_client", None):
            # The full recipe saves through it after each epoch; before the last, there are the states of `Resumable`.
            save, last = client.save_checkpoint, self.total_epochs - 1
            client.save_checkpoint = lambda **parts: save(**parts) if parts["epoch"] == last else None

    def _setup_model(self, cfg_model: DictConfig, **kwargs: Any) -> nn.Module:
        weights = kwargs.get("base_model_state_dict") or kwargs["model_state_dict"]
        checkpointer = getattr(self, "_checkpointer", None) or self._checkpoint_client._get_checkpointer()
        cfg_model = fit_output(cfg_model, weights, checkpointer)
        if "lora_rank" in cfg_model and kwargs.get("lora_weights_state_dict") is None:
            kwargs["lora_weights_state_dict"] = initial_adapter(cfg_model, self.seed)
        model = super()._setup_model(cfg_model=cfg_model, **kwargs)
        return logits_at_labels(model, self._device, self._autocast)

    def _setup_data(self, **kwargs: Any) -> Any:
        loader = super()._setup_data(**kwargs)
        collate, ignore_idx = loader.collate_fn, self._loss_fn.ignore_index

        def collate_labelled(rows: list[dict[str, Any]]) -> dict[str, Any]:
            batch: dict[str, Any] = collate(rows)
            # The logits of position i predict the token at i + 1; no prefix and no conversation begins with a label.
            batch["mask"]["labelled"] = (batch["labels"][0, 1:] != ignore_idx).nonzero(as_tuple=True)[0]
            return batch

        loader.collate_fn = collate_labelled
        return loader


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
        raise RuntimeError("launch this recipe with `tune run --nproc_per_node 2 guard_utils/recipe_distributed.py`")
    base = _stock(cfg)
    if "lora_rank" in cfg.model:  # the full recipe does this itself
        init_process_group(training.get_distributed_backend(cfg.device, offload_ops_to_cpu=cfg.device != "cpu"))
    return type("SharedPrefixRecipe", (SharedPrefix, Resumable, base), {})(cfg=cfg)


def main(cfg: DictConfig) -> None:
    """Runs a training in each process, as `tune run` does."""
    config.log_config(recipe_name="SharedPrefixRecipe", cfg=cfg)
    if "threads" in cfg:
        torch.set_num_threads(cfg.threads)
    recipe = distributed_recipe(cfg)
    recipe.setup(cfg=cfg)
    recipe.train()
    recipe.cleanup()


if __name__ == "__main__":
    sys.exit(config.parse(main)())
