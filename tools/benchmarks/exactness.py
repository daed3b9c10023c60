"""Loss and gradients of shared-prefix batches against torchtune's padded ones, on a profile's own model and weights.

    python -m tools.benchmarks.exactness --profile laptop --examples 6

Examples of mixed length under two policies, fp32, once with all weights and once with LoRA. Differences are relative:
of gradients, the norm of the difference by the norm; of all weights together, and of the worst one.
"""

import argparse
import json
import re
import tempfile
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torchtune import config
from torchtune.data import padded_collate_sft
from torchtune.modules.peft import get_adapter_params, set_trainable_params
from transformers import AutoTokenizer

from guard_utils.data import load_splits
from guard_utils.policy import Taxonomy, Verdict
from guard_utils.profiles import Run, resolve
from guard_utils.prompt import GuardPrompt
from guard_utils.training import collate_shared_prefix, shared_prefix_loss, use_shared_prefix

ADAPTERS: dict[str, Any] = {
    "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
    "apply_lora_to_mlp": True,
}
ADAPTERS |= {"lora_rank": 16, "lora_alpha": 32}


def make_rows(run: Run, count: int) -> list[dict[str, Any]]:
    """Token ids and labels of examples, each under the run's policy and under its first three categories."""
    tokenizer, rows = AutoTokenizer.from_pretrained(run.model_folder()), []
    for example in load_splits(run).train[:count]:
        for policy in (run.policy, Taxonomy("part", run.policy.categories[:3])):
            prompt = GuardPrompt(policy, tokenizer)
            verdict = Verdict(tuple(code for code in example.codes if code in policy.codes))
            ids, answer = prompt.training_ids(example.text, verdict)
            labels = [-100] * (len(ids) - answer) + list(ids[-answer:])
            rows.append({"tokens": list(ids), "labels": labels, "prefix_length": len(prompt.prefix_ids)})
    return rows


def make_model(cfg_model: DictConfig, weights: dict[str, Tensor], *, lora: bool) -> nn.Module:
    """The config's model with a checkpoint's weights; LoRA's are drawn, as a zero in B would hide A's gradient."""
    package, name = cfg_model["_component_"].rsplit(".", 1)
    settings = {key: value for key, value in cfg_model.items() if "lora" not in str(key)}
    settings["_component_"] = f"{package}.{'lora_' if lora else ''}{re.sub('^q?lora_', '', name)}"
    model = config.instantiate(OmegaConf.create(settings | (ADAPTERS if lora else {})))
    model.load_state_dict(weights, strict=not lora)
    if lora:
        set_trainable_params(model, get_adapter_params(model))
        generator = torch.Generator().manual_seed(0)
        for weight in get_adapter_params(model).values():
            nn.init.normal_(weight, std=0.02, generator=generator)
    return model


def compare(model: nn.Module, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Both losses of the rows, and how far losses and gradients are apart."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    batch = padded_collate_sft(rows)
    stock = nn.functional.cross_entropy(model(batch["tokens"])[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    expected = torch.autograd.grad(stock, trained)
    shared = shared_prefix_loss(use_shared_prefix(model), nn.CrossEntropyLoss(), collate_shared_prefix(rows))
    found = torch.autograd.grad(shared, trained)
    apart = torch.stack([(a - b).norm() for a, b in zip(found, expected, strict=True)])
    size = torch.stack([b.norm() for b in expected])
    return {
        "losses": f"stock {stock.item():.6f}, shared prefix {shared.item():.6f}",
        "loss_difference": ((shared - stock).abs() / stock).item(),
        "gradient_difference": (apart.norm() / size.norm()).item(),
        "worst_gradient_difference": (apart / size).max().item(),
    }


def main() -> None:
    """Compares a full and a LoRA model and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--examples", type=int, default=6)
    arguments = parser.parse_args()
    run = resolve(arguments.profile)
    rows = make_rows(run, arguments.examples)
    settings = OmegaConf.load(run.config_path)
    with tempfile.TemporaryDirectory() as scratch:
        settings.update(model_dir=str(run.model_folder()), output_dir=scratch)
        weights = config.instantiate(settings.checkpointer).load_checkpoint()["model"]
    full, lora = (compare(make_model(settings.model, weights, lora=lora), rows) for lora in (False, True))
    lengths = str([len(row["tokens"]) for row in rows])
    print(json.dumps({"profile": run.profile.name, "lengths": lengths, "full": full, "lora": lora}, indent=2))


if __name__ == "__main__":
    main()
