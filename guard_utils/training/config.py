"""A run's torchtune config: filled in, checked before any work, and identified.

torchtune ignores keys that it does not know and ends at the first fault that it meets; here one error lists every fault
with its fix. Does not: build the model, estimate memory or disk.
"""

import hashlib
import inspect
import json
import pkgutil
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from guard_utils.files import DONE, code_fingerprint
from guard_utils.policy import POLICIES
from guard_utils.profiles import Run, located

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
_OPTIONAL = ("max_steps_per_epoch", "save_every_n_steps", "threads")
_COUNTS = ("batch_size", "gradient_accumulation_steps", "log_every_n_steps", "epochs", *_OPTIONAL)
# Keys that don't decide a training, and our code that does.
_ELSEWHERE = ("device", "threads", "save_every_n_steps")
_CODE = ["guard_utils.prompt", "guard_utils.training_rows:read_training_row"]
_CODE += [f"guard_utils.training.{module}" for module in ("dataset", "shared_prefix", "recipe")]


Fault = tuple[str, Any, str]
"""A key's path (`optimizer.lr`), its value, and what is wrong and what to do."""


class TrainingError(RuntimeError):
    """A training can't start or ended with an error; the message says why and what to do."""


def resolve_config(run: Run, train_file: Path | None) -> dict[str, Any]:
    """A profile's config with this run's paths (empty without a training file), seed, device and dtype.

    Raises MissingMandatoryValue where a value is not filled in.
    """
    places = (run.model_folder(), train_file, run.folder / "training") if train_file else ("", "", "")
    config = OmegaConf.load(run.config_path)
    config.update(zip(("model_dir", "train_file", "output_dir"), map(str, places), strict=True))
    config.update(seed=run.seed, device=run.device)
    if "autocast" in config:
        config.autocast = "bfloat16" if run.dtype == "bf16" else None
    if train_file and run.profile.policy not in POLICIES:  # a path, which enters no fingerprint; its text does
        config.dataset.taxonomy = str(located(run.profile.policy))
    return dict(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]


def fingerprint(run: Run, dataset: Any, *, processes: int = 1) -> str:
    """SHA-256 of what decides a training: config, rows, policies, base model, processes and code, but no path.

    `dataset` is the config's.
    """
    config = {key: value for key, value in resolve_config(run, None).items() if key not in _ELSEWHERE}
    folder, rows = run.model_folder(), hashlib.sha256(Path(dataset.source).read_bytes()).hexdigest()
    model: list[Any] = [(folder / "config.json").read_text(encoding="utf-8")]
    model += sorted((file.name, file.stat().st_size) for file in folder.glob("*.safetensors"))
    if (folder / DONE).exists():  # an asset: its declaration holds its hash, and is the same on every machine
        model = [(folder / DONE).read_text(encoding="utf-8")]
    facts = [config, rows, dataset.frames, model, processes, code_fingerprint(_CODE)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def count_steps(config: Mapping[str, Any], dataset: Any, *, processes: int = 1) -> int:
    """Optimizer steps of a training; raises TrainingError if none would be logged, or a batch may be too long."""
    size, accumulated, logged = (config[key] for key in _COUNTS[:3])
    batches = -(-len(dataset) // processes) // size  # the sampler repeats rows until every process has as many
    steps: int = min(batches // accumulated, config.get("max_steps_per_epoch") or batches) * config["epochs"]
    if steps < logged:
        found = f"{len(dataset)} examples in {processes} process(es) with"
        found += f" batch_size={size} and gradient_accumulation_steps={accumulated} make {steps} steps"
        raise TrainingError(f"{found}, log_every_n_steps={logged} logs none; lower these, or give more rows")
    longest = sorted(range(len(dataset)), key=lambda i: len(dataset[i]["tokens"]))[-size:]
    collate = pkgutil.resolve_name(config.get("collate_fn", "torchtune.data.padded_collate_sft"))  # torchtune's default
    tokens = collate([dataset[i] for i in longest])["tokens"].shape[1]
    if tokens > (limit := config["model"].get("max_seq_len", tokens)):
        found = f"a batch of the {size} longest examples has {tokens} tokens, model.max_seq_len is {limit}"
        raise TrainingError(f"{found}; raise it, or lower batch_size")
    return steps


def check_config(config: Mapping[str, Any], *, processes: int = 1) -> None:
    """Raises a TrainingError that lists all that is wrong with a config whose interpolations are resolved.

    The config is of our recipe or of a stock one; the `processes` are those of this machine.
    """
    faults = [*_unknown("", config, _KEYS), *_value_faults(config, processes)]
    blocks = {f"{key}.": value for key, value in config.items() if isinstance(value, Mapping)}
    for at, block in {"": config, **blocks}.items():
        faults += _block_faults(at, block)
    if faults:
        lines = [f"\n  {i}. {key} = {value!r:.80}: {says}" for i, (key, value, says) in enumerate(faults, 1)]
        raise TrainingError(f"the config has {len(lines)} fault{'s' * (len(lines) > 1)}:{''.join(lines)}")


def _unknown(at: str, given: Mapping[str, Any], known: Collection[str]) -> Iterator[Fault]:
    for key in given:
        if key not in known:
            close = get_close_matches(str(key), sorted(known), n=1)
            fix = f"did you mean {close[0]!r}?" if close else "remove it, nothing reads it"
            yield (f"{at}{key}", given[key], f"unknown key; {fix}")


def _block_faults(at: str, block: Mapping[str, Any]) -> Iterator[Fault]:
    """Imports what a block names, compares a component's arguments with its signature, and looks for its files."""
    for key in ("recipe", "collate_fn", "_component_"):
        name = str(block.get(key, ""))
        if "." not in name:
            continue  # absent, or a recipe of torchtune's own
        try:
            named = pkgutil.resolve_name(name.removesuffix(".py").replace("/", "."))
            parameters = inspect.signature(named).parameters if key == "_component_" else {}
        except Exception as error:  # importing runs others' code
            yield (f"{at}{key}", name, f"{error}; correct its spelling, or install what is missing")
            continue
        if key == "_component_" and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            yield from _unknown(at, block, ["_component_", *parameters])
    files = [(key, str(block[key])) for key in ("train_file", "path") if block.get(key)]
    if isinstance(block.get("checkpoint_files"), list):
        files += [("checkpoint_files", f"{block.get('checkpoint_dir')}/{name}") for name in block["checkpoint_files"]]
    for key, path in files:
        if not Path(path).exists():
            yield (f"{at}{key}", path, "no such file or folder; correct it, or run the notebook that makes it")


def _value_faults(config: Mapping[str, Any], processes: int) -> Iterator[Fault]:
    """Values that can't be run here, alone or together, or whose result nothing could read."""
    import torch

    get, model = config.get, config.get("model") or {}
    lora, packed = "lora_rank" in model, "collate_shared_prefix" in str(get("collate_fn"))
    loss, logger = (str((get(key) or {}).get("_component_")) for key in ("loss", "metric_logger"))
    kind, _, index = str(get("device")).partition(":")
    needed = max(processes, int(index) + 1 if index.isdecimal() else 1)
    try:
        found = needed if kind == "cpu" else torch.get_device_module(kind).device_count()
    except RuntimeError:  # unknown to torch
        found = 0
    autocast = get("autocast") is None or isinstance(getattr(torch, str(get("autocast")), None), torch.dtype)
    clips = get("clip_grad_norm") is not None or get("gradient_accumulation_steps") != 1
    offloads = get("enable_activation_offloading") and (kind == "cpu" or not get("enable_activation_checkpointing"))
    counts = [key for key in _COUNTS if key not in _OPTIONAL or get(key) is not None]
    rules: list[tuple[str, Any, str]] = [
        *((key, type(get(key)) is not int or config[key] < 1, "give a whole number of at least 1") for key in counts),
        ("device", found < needed, f"{needed} needed, {found} here; give cpu or cuda, or launch fewer processes"),
        ("dtype", get("dtype") not in ("bf16", "fp32"), "torchtune does not train in it; give bf16 or fp32"),
        ("autocast", not autocast, "no dtype of torch; give bfloat16 or null"),
        ("save_adapter_weights_only", get("save_adapter_weights_only"), "leaves no model to score; give False"),
        ("optimizer_in_bwd", get("optimizer_in_bwd") and (lora or clips), "no LoRA, clipping or accumulation with it"),
        ("enable_activation_offloading", offloads, "needs a GPU and enable_activation_checkpointing; give False"),
        ("lr_scheduler", lora and not get("lr_scheduler"), "torchtune's LoRA recipe needs one; copy guard-1b.yaml's"),
        ("model.use_dora", get("recipe") and model.get("use_dora"), "its magnitudes would start at zero; give False"),
        ("tensor_parallel_dim", packed and get("tensor_parallel_dim", 1) != 1, "can't share a prefix; give 1"),
        ("model.attn_dropout", packed and model.get("attn_dropout"), "can't share a prefix; give 0.0"),
        ("loss._component_", packed and "Chunked" in loss, "can't share a prefix; give torch.nn.CrossEntropyLoss"),
        ("metric_logger._component_", not logger.endswith("DiskLogger"), "leaves no log; give torchtune's DiskLogger"),
    ]
    for key, wrong, says in rules:
        block, _, name = key.rpartition(".")
        if wrong:
            yield (key, (get(block, {}) if block else config).get(name), says)
