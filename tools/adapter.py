"""The adapter of a trained guard: its weight change in low rank, trained on for some updates.

Rank and 8 bits cost accuracy and the updates win it back: the two matrices of each linear layer start from the
truncated singular value decomposition of the layer's change, and learn, rounded as they will be written, from the
training file as the guard did, behind a shared prefix. Does not: load an adapter (`guard_utils.training.adapters`).
"""

from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from torchtune.config import instantiate
from torchtune.models.convert_weights import hf_to_tune, tune_to_peft_adapter_weights
from tqdm.auto import tqdm

from guard_utils.profiles import Run
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring import load_model
from guard_utils.training import (
    checkpoint,
    checkpoint_fingerprint,
    collate_shared_prefix,
    resolve_config,
    shared_prefix_loss,
    use_shared_prefix,
)
from guard_utils.training.adapters import SCALE, adapter_facts, guard_adapter, load_adapter, write_adapter

LEARNING_RATE = 3e-4


class LowRank(nn.Module):
    """Adds the product of two matrices, which are trained, to a weight, which is not."""

    def __init__(self, change: Tensor, rank: int) -> None:
        super().__init__()
        rows, values, columns = torch.linalg.svd(change, full_matrices=False)
        roots, missing = values[:rank].sqrt(), max(0, rank - len(values))
        self.up = nn.Parameter(nn.functional.pad(rows[:, :rank] * roots, (0, missing)))
        self.down = nn.Parameter(nn.functional.pad(roots[:, None] * columns[:rank], (0, 0, 0, missing)))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + _rounded(self.up) @ _rounded(self.down)


def _rounded(matrix: Tensor) -> Tensor:
    """The matrix in the numbers that are written; its gradient passes as if it were not rounded."""
    written = (SCALE * matrix).to(torch.float8_e4m3fn).float() / SCALE
    return matrix + (written - matrix).detach()


def make_adapter(run: Run, folder: Path, *, rank: int = 38, updates: int = 360) -> None:
    """Writes the adapter of a run's finished training; without one, trains on the adapter that comes with the series.

    Args:
        run: Of a profile whose base model is an asset.
        folder: An older adapter there is replaced; see `write_adapter`.
        rank: Of each linear layer's change.
        updates: Optimizer steps, on the last rows of the training file; those that the adapter has are not repeated.

    Raises:
        FileNotFoundError: Neither is there.
        ValueError: The adapter is too large, or the older one is damaged.
    """
    config = OmegaConf.create(resolve_config(run, run.folder / "train.jsonl"))
    original, tokenizer = load_model(run.model_folder(), dtype="fp32")
    prompt, older = GuardPrompt(run.policy, tokenizer), guard_adapter(run)
    if older:
        start = load_adapter(load_model(run.model_folder(), dtype="fp32")[0], older, prompt=prompt)
        done, training = (adapter_facts(older)[key] for key in ("updates", "training"))
    else:
        start = load_model(checkpoint(run), dtype="fp32")[0]
        done, training = 0, checkpoint_fingerprint(run)
    fields = {"num_heads": "num_attention_heads", "num_kv_heads": "num_key_value_heads", "dim": "hidden_size"}
    sizes = {name: getattr(original.config, theirs) for name, theirs in fields.items()}
    base, tuned = (_weights(found, sizes) for found in (original, start))
    model = instantiate(config.model)
    model.load_state_dict(base)
    model.requires_grad_(False)
    layers = {name: layer for name, layer in model.layers.named_modules() if isinstance(layer, nn.Linear)}
    for name, layer in layers.items():
        key = f"layers.{name}.weight"
        register_parametrization(layer, "weight", LowRank(tuned[key] - base[key], rank))
    if updates > done:
        _train(model, config, updates - done, fast=run.dtype == "bf16")
    weights = {}
    for name, layer in layers.items():
        factors = cast(Any, layer).parametrizations.weight[0]
        weights[f"layers.{name}.lora_a.weight"] = factors.down.detach()
        weights[f"layers.{name}.lora_b.weight"] = factors.up.detach()
    named = tune_to_peft_adapter_weights(weights, **sizes)
    write_adapter(original, named, folder, prompt=prompt, training=training, updates=max(done, updates))


def _weights(model: Any, sizes: dict[str, int]) -> dict[str, Tensor]:
    """A model's weights, copied, under torchtune's names; the output projection is the embedding."""
    weights = {name: weight.clone() for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    return hf_to_tune(weights, **sizes)


def _train(model: nn.Module, config: Any, updates: int, *, fast: bool) -> None:
    """Trains what may be trained; the rate falls to nothing on a cosine."""
    dataset = instantiate(config.dataset, instantiate(config.tokenizer))
    size, model = config.batch_size, use_shared_prefix(model)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, updates))
    for step in tqdm(range(updates), desc="adapter", unit=" updates"):
        rows = [dataset[(len(dataset) - size * updates + size * step + i) % len(dataset)] for i in range(size)]
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = shared_prefix_loss(model, nn.CrossEntropyLoss(), collate_shared_prefix(rows))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
