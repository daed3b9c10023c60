"""The guard that comes with the series: a fine-tuned model as a small adapter of its base model.

The change of each linear layer's weight is kept in low rank, in `peft`'s own files and numbers of 8 bits; `guard.json`
beside them says what the adapter is of. Embedding and norms stay those of the base model. Does not: train an adapter (a
LoRA config does; `tools/adapter.py` makes the one that comes with the series).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from guard_utils.files import DONE, write_whole
from guard_utils.profiles import Run, repository
from guard_utils.prompt import GuardPrompt
from guard_utils.records import machine
from guard_utils.training.launch import checkpoint

FACTS = "guard.json"
WEIGHTS = "adapter_model.safetensors"
FORMAT = 2  # of guard.json; a change that older code would misread raises it
SCALE = 64  # of both matrices: 8-bit floats are finest between 2^-6 and 2^8
MOST_BYTES = 12_000_000  # of the weights, which lie in the repository


def shipped_adapter(run: Run) -> Path | None:
    """Folder of the adapter that comes with the series for a run's profile; None where there is none."""
    folder = repository() / "notebooks" / "models" / run.profile.adapter
    return folder if run.profile.adapter and folder.is_dir() else None


def guard_adapter(run: Run) -> Path | None:
    """The adapter that answers for a run; None where it has a training of its own, which goes first.

    Raises:
        FileNotFoundError: Nothing is trained, and no guard comes with the series for this profile.
    """
    try:
        checkpoint(run)
        return None
    except FileNotFoundError:
        if adapter := shipped_adapter(run):
            return adapter
        raise


def write_adapter(
    base: Any, weights: Mapping[str, Any], folder: Path, *, prompt: GuardPrompt, training: str, updates: int
) -> None:
    """Writes an adapter, whole or not at all; an older folder is replaced.

    Args:
        base: A `transformers` model, loaded from the folder of an asset.
        weights: Name in `peft` to matrix, two for each linear layer.
        folder: Gets `adapter_config.json`, `adapter_model.safetensors` (8-bit floats) and `guard.json`.
        prompt: That the guard was trained on.
        training: Fingerprint of its training.
        updates: By which the matrices were trained on afterwards.

    Raises:
        ValueError: The base model is no asset, or the adapter is too large to come with the series.
    """
    import torch
    from peft import LoraConfig
    from safetensors.torch import save

    stored = {key: (SCALE * weight).to(torch.float8_e4m3fn).contiguous() for key, weight in weights.items()}
    rank = next(len(weight) for key, weight in weights.items() if "lora_A" in key)
    content = save(stored, metadata={"format": "pt"})
    if len(content) > MOST_BYTES:
        raise ValueError(f"{folder} would take {len(content):,} bytes, {MOST_BYTES:,} are allowed; lower rank {rank}")
    facts = {
        "format": FORMAT,
        "sha256": hashlib.sha256(content).hexdigest(),
        **_made_for(base, prompt),
        "policy": prompt.policy.name,
        "rank": rank,
        "updates": updates,
        "training": training,
        "versions": machine()["versions"],
    }
    config = LoraConfig(r=rank, task_type="CAUSAL_LM", inference_mode=True)
    config.lora_alpha = rank / SCALE**2
    config.target_modules = sorted({key.split(".")[-3] for key in weights})  # given above, it becomes an unordered set
    config.base_model_name_or_path = facts["base"].partition(":")[0]

    def write(made: Path) -> None:
        config.save_pretrained(str(made))
        (made / WEIGHTS).write_bytes(content)
        (made / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    write_whole(folder, write)


def load_adapter(base_model: Any, folder: Path, *, prompt: GuardPrompt) -> Any:
    """Merges an adapter into its base model, which is best in fp32, and returns that plain `transformers` model.

    Raises:
        ValueError: The adapter is damaged, of another format, base model, policy or prompt. The model is as it was.
    """
    import torch
    from safetensors.torch import load

    facts = adapter_facts(folder)
    file = folder / WEIGHTS
    content = file.read_bytes() if file.exists() else b""
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        found = f"{file} has {len(content):,} bytes whose SHA-256 is not the one in {FACTS}"
        raise ValueError(f"{found}; it was cut off or changed: restore it, for instance with `git restore`")
    for key, here in _made_for(base_model, prompt).items():
        if facts[key] != here:
            fix = "use it with the base model, policy and prompt of its training, or train your own guard"
            raise ValueError(f"the adapter in {folder} has {key} {facts[key]!r}, here it is {here!r}; {fix}")
    weights = load(content)
    with torch.no_grad():
        for down, up, layer in _linear_layers(base_model):
            layer.weight += (weights[up].float() @ weights[down].float() / SCALE**2).to(layer.weight)
    return base_model


def adapter_facts(folder: Path) -> dict[str, Any]:
    """What `guard.json` says of an adapter; raises ValueError where it is missing, damaged or of another format."""
    file = folder / FACTS
    try:
        facts = dict(json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        facts = {}
    if facts.get("format") != FORMAT:
        found = f"{file} has format {facts.get('format')}, this code reads {FORMAT}"
        raise ValueError(f"{found}; take the folder of this version, or make it with `python -m tools.publish adapter`")
    return facts


def _made_for(model: Any, prompt: GuardPrompt) -> dict[str, str]:
    """What an adapter fits: the asset that its base model comes from, its policy, the token ids round a text."""
    asset = Path(model.name_or_path) / DONE
    if not asset.exists():
        raise ValueError(f"base model {model.name_or_path!r} is no asset; load it from the folder that fetch() gives")
    categories = [(category.name, category.description) for category in prompt.policy.categories]
    base = json.loads(asset.read_text(encoding="utf-8"))
    return {
        "base": f"{base['name']}: {base['source']}",
        "policy_sha256": _sha256(categories),
        "prompt": _sha256([prompt.prefix_ids, prompt.tail_ids]),
    }


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _linear_layers(model: Any) -> Iterator[tuple[str, str, Any]]:
    """Each linear layer of the transformer, after `peft`'s names of its matrices into the low rank and out of it."""
    import torch

    for name, layer in model.get_decoder().named_modules():
        if isinstance(layer, torch.nn.Linear):
            place = f"base_model.model.{model.base_model_prefix}.{name}"
            yield f"{place}.lora_A.weight", f"{place}.lora_B.weight", layer
