"""A run's torchtune config: filled in, identified, and checked before any work.

torchtune ignores keys that it does not know and ends at the first fault that it meets; here one error lists every fault
with its fix. Does not: build the model, estimate memory or disk, check values other than counts, device, dtypes, files.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import pkgutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torchtune.training.precision import verify_bf16_support

from guard_utils.profiles import Run

# Keys that our launcher and recipe read (first line), and torchtune's recipes for fine-tuning.
_KEYS = frozenset(
    """recipe model_dir train_file autocast threads save_every_n_steps
    ac_mode ac_option batch_size checkpointer clip_grad_norm collate_fn compile cudnn_deterministic_mode
    custom_sharded_layers dataset device dtype enable_activation_checkpointing enable_activation_offloading
    enable_async_checkpointing epochs fsdp fsdp_cpu_offload fsdp_reshard_after_forward gradient_accumulation_steps
    log_every_n_steps log_peak_memory_stats loss low_cpu_ram lr_scheduler max_steps_per_epoch metric_logger model
    optimizer optimizer_in_bwd output_dir profiler resume_from_checkpoint save_adapter_weights_only seed shuffle
    tensor_parallel_dim tensor_parallel_plan tokenizer""".split()
)
_COUNTS = ("batch_size", "epochs", "gradient_accumulation_steps")
_OPTIONAL_COUNTS = ("max_steps_per_epoch", "log_every_n_steps", "save_every_n_steps", "threads")


def resolve_config(run: Run, train_file: Path) -> dict[str, Any]:
    """A profile's config with this run's paths, seed, device and dtype; raises where a value is not filled in."""
    config = OmegaConf.load(run.config_path)
    config.update(model_dir=str(run.model_folder()), train_file=str(train_file))
    config.update(output_dir=str(run.folder / "training"), seed=run.seed, device=run.device)
    if "autocast" in config:
        config.autocast = "bfloat16" if run.dtype == "bf16" else None
    return dict(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]


def fingerprint(config: dict[str, Any], *, processes: int = 1) -> str:
    """Identifies a training by its resolved config and the bytes of its training file, not by where they are."""
    data = hashlib.sha256(Path(config["train_file"]).read_bytes()).hexdigest()
    text = json.dumps({key: config[key] for key in config if key != "save_every_n_steps"}, sort_keys=True)
    for place in ("output_dir", "train_file", "model_dir"):
        text = text.replace(config[place], "")
    together = f" {processes} processes" if processes > 1 else ""
    return hashlib.sha256(f"{text}{Path(config['model_dir']).name}{data}{together}".encode()).hexdigest()


class Fault(NamedTuple):
    """A key's path (`optimizer.lr`), its value, what is wrong with it, and what to do."""

    key: str
    value: Any
    wrong: str
    fix: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value!r:.80}: {self.wrong}; {self.fix}"


class ConfigFaults(ValueError):
    """A config can't be run. The message numbers all faults; the attribute `faults` holds them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        lines = [f"\n  {number}. {fault}" for number, fault in enumerate(faults, 1)]
        super().__init__(f"the config has {len(lines)} fault{'s' * (len(lines) > 1)}:{''.join(lines)}")


def check_config(config: Mapping[str, Any], *, processes: int = 1, here: bool = True) -> None:
    """Raises ConfigFaults, which lists everything that is wrong with a config whose interpolations are resolved.

    Args:
        config: Of a recipe of ours, or of a stock recipe for fine-tuning.
        processes: How many will be launched on this machine.
        here: False checks a config for another machine, without its files and GPUs.
    """
    faults = [*_unknown("", config, _KEYS), *_value_faults(config, processes if here else 0)]
    blocks = {f"{key}.": value for key, value in config.items() if isinstance(value, Mapping)}
    for at, block in {"": config, **blocks}.items():
        faults += [*_component_faults(at, block), *(_file_faults(at, block) if here else ())]
    if faults:
        raise ConfigFaults(faults)


def _unknown(at: str, given: Mapping[str, Any], known: Collection[str]) -> Iterator[Fault]:
    for key in given:
        if key not in known:
            close = get_close_matches(str(key), sorted(known), n=1)
            fix = f"did you mean {close[0]!r}?" if close else "remove it, nothing reads it"
            yield Fault(f"{at}{key}", given[key], "unknown key", fix)


def _component_faults(at: str, block: Mapping[str, Any]) -> Iterator[Fault]:
    """Imports what a block names, and compares a component's arguments with its signature."""
    for key in ("recipe", "collate_fn", "_component_"):
        name = str(block.get(key, ""))
        if "." not in name:
            continue  # absent, or a recipe of torchtune's own
        try:
            named = pkgutil.resolve_name(name.removesuffix(".py").replace("/", "."))
            parameters = inspect.signature(named).parameters if key == "_component_" else {}
        except Exception as error:  # importing runs others' code
            yield Fault(f"{at}{key}", name, str(error), "correct its spelling, or install what is missing")
            continue
        if key == "_component_" and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            yield from _unknown(at, block, ["_component_", *parameters])


def _file_faults(at: str, block: Mapping[str, Any]) -> Iterator[Fault]:
    named = [(key, block[key]) for key in ("train_file", "path") if block.get(key)]
    if isinstance(block.get("checkpoint_files"), list):
        named += [("checkpoint_files", f"{block.get('checkpoint_dir')}/{name}") for name in block["checkpoint_files"]]
    for key, path in named:
        if not Path(str(path)).exists():
            yield Fault(f"{at}{key}", path, "no such file or folder", "correct it, or run the notebook that makes it")


def _value_faults(config: Mapping[str, Any], processes: int) -> Iterator[Fault]:
    for key in (*_COUNTS, *_OPTIONAL_COUNTS):
        value = config.get(key)
        if not (type(value) is int and value >= 1) and (value is not None or key in _COUNTS):
            yield Fault(key, value, "is no whole number of at least 1", "give one")
    device, dtype, autocast = str(config.get("device")), config.get("dtype"), config.get("autocast")
    if device.partition(":")[0] not in ("cpu", "cuda", "mps", "npu", "xpu"):
        yield Fault("device", device, "no such device", "give cpu or cuda")
    elif device.startswith("cuda") and torch.cuda.device_count() < processes:
        wrong = f"{processes} GPU(s) needed, {torch.cuda.device_count()} found"
        yield Fault("device", device, wrong, "set device: cpu, or launch fewer processes")
    elif device != "cpu" and dtype == "bf16" and processes and not verify_bf16_support():
        yield Fault("dtype", dtype, "this device does not have it", "give fp32")
    if dtype not in ("bf16", "fp32"):
        yield Fault("dtype", dtype, "torchtune does not train in it", "give bf16 or fp32")
    if autocast is not None and not isinstance(getattr(torch, str(autocast), None), torch.dtype):
        yield Fault("autocast", autocast, "no such dtype of torch", "give bfloat16 or null")
