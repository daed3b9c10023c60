"""Examples a second: torchtune's stock batches against a shared prefix, at equal loss.

    python -m tools.benchmarks.training --profile laptop --examples 32

Same LoRA model, same examples, same update rule, same dtype, same machine, one run. Run notebook 02 first.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn
from torchtune import config
from torchtune.data import padded_collate_sft
from torchtune.models.llama3_2 import lora_llama3_2
from torchtune.modules.peft import get_adapter_params, set_trainable_params

from guard_utils.profiles import resolve
from guard_utils.training import (
    GuardDataset,
    RecipeTokenizer,
    collate_shared_prefix,
    resolve_config,
    shared_prefix_loss,
    use_shared_prefix,
)
from tools.benchmarks.figures import write_benchmark

WARM_UP = 2  # steps whose time does not count: memory is asked for the first time, kernels are prepared
LORA = {"lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"], "apply_lora_to_mlp": True}


def stock_loss(model: nn.Module, rows: list[dict[str, Any]]) -> torch.Tensor:
    """The loss of the stock recipe: a padded batch, all positions projected on the vocabulary."""
    batch = padded_collate_sft(rows)
    logits = model(batch["tokens"])
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())


def one_side(side: str, profile: str, examples: int, batch: int, steps: int, dtype: str) -> dict[str, Any]:
    """Trains a few steps one way; run in a process of its own, so that peak memory is its own."""
    run = resolve(profile)
    settings = resolve_config(run, run.folder / "train.jsonl")
    base = {key: value for key, value in settings["model"].items() if key != "_component_"}
    torch.manual_seed(0)
    model = lora_llama3_2(**base, **LORA, lora_rank=16, lora_alpha=32)
    checkpointer = config.instantiate(
        OmegaConf.create(settings["checkpointer"]) | {"output_dir": str(run.folder / "benchmark")}
    )
    model.load_state_dict(checkpointer.load_checkpoint()["model"], strict=False)
    set_trainable_params(model, get_adapter_params(model))
    if side == "shared":
        use_shared_prefix(model)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    dataset = GuardDataset(RecipeTokenizer(str(run.model_folder())), source=str(run.folder / "train.jsonl"))
    rows = [dataset[i * len(dataset) // examples] for i in range(examples)]  # of short and of composed texts alike
    losses, seconds = [], []
    for _ in range(steps):
        start = time.perf_counter()
        total = 0.0
        labels = sum(label != -100 for row in rows for label in row["labels"])
        for first in range(0, examples, batch):
            part = rows[first : first + batch]
            share = sum(label != -100 for row in part for label in row["labels"]) / labels
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
                loss = (
                    stock_loss(model, part)
                    if side == "stock"
                    else shared_prefix_loss(model, nn.CrossEntropyLoss(), collate_shared_prefix(part))
                ) * share
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
        seconds.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rate = examples / statistics.median(seconds[WARM_UP:])
    return {"examples_per_second": rate, "losses": losses, "seconds": seconds, "peak_memory_gib": memory}


def main() -> None:
    """Times both sides and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--examples", type=int, default=32, help="examples of one update")
    parser.add_argument("--stock-batch", type=int, default=4, help="examples of one stock forward pass")
    parser.add_argument("--shared-batch", type=int, default=32, help="examples behind one prefix")
    parser.add_argument("--steps", type=int, default=5, help=f"more than {WARM_UP}, which warm up")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], help="of activations; default: the profile's")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--side", choices=["stock", "shared"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps {arguments.steps} leaves nothing to time; give at least {WARM_UP + 1}")
    dtype = arguments.dtype or resolve(arguments.profile).dtype
    if arguments.side:
        batch = arguments.stock_batch if arguments.side == "stock" else arguments.shared_batch
        figures = one_side(arguments.side, arguments.profile, arguments.examples, batch, arguments.steps, dtype)
        print(json.dumps(figures))
        return
    sides = {}
    for side in ("shared", "stock"):
        command = [sys.executable, "-m", "tools.benchmarks.training", *sys.argv[1:], "--side", side]
        sides[side] = json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        )
    rates = {side: figures["examples_per_second"] for side, figures in sides.items()}
    figures = {
        "ratio": rates["shared"] / rates["stock"],
        "loss_difference": max(
            abs(a - b) for a, b in zip(sides["shared"]["losses"], sides["stock"]["losses"], strict=True)
        ),
        **sides,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
    }
    write_benchmark(figures, arguments.output)


if __name__ == "__main__":
    main()
