"""Checks a torchtune config before any work and lists every fault at once, each with its fix.

    python -m guard_utils.training.preflight torchtune_configs/laptop.yaml model_dir=... train_file=... output_dir=...

torchtune ignores keys that it does not know (its `tune validate` calls a misspelled `batch_sizee` well-formed) and ends
at the first fault it meets, the last of them after an epoch, when there is no room for the checkpoint.
"""

from __future__ import annotations

import argparse
import inspect
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, InterpolationToMissingValueError
from torchtune.config._utils import _get_component_from_path, _merge_yaml_and_cli_args
from torchtune.modules.peft import get_adapter_params
from torchtune.training import FormattedCheckpointFiles, get_dtype, set_default_dtype

from guard_utils.training.config_faults import UNSET, Fault, key_faults, recipe_faults

# What `needs` reads; without any of them, or with a fault in it, there is nothing to estimate.
_SIZES = {"model", "dtype", "device", "batch_size", "epochs", "optimizer", "output_dir", "recipe"}
_TOKENS = 100  # of a short example, without its policy


class ConfigFaults(ValueError):
    """A config can't be run. The message numbers all faults; the attribute `faults` holds them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        lines = [f"  {number}. {fault}" for number, fault in enumerate(faults, 1)]
        super().__init__("\n".join([f"the config has {len(lines)} fault{'s' * (len(lines) > 1)}:", *lines]))


def preflight(config: Mapping[str, Any], *, processes: int = 1, files: bool = True, hardware: bool = True) -> None:
    """Checks a torchtune config: keys, values, components, files, device, memory and disk.

    Args:
        config: Interpolations may be resolved or not.
        processes: That will be launched on this machine.
        files: Whether the files it names must be here.
        hardware: Whether its device, memory and disk must be here; False checks a config for another machine.

    Raises:
        ConfigFaults: Something is wrong; everything that is.
    """
    faults: list[Fault] = []
    plain = _resolve(OmegaConf.create(dict(config)), "", faults)
    faults += recipe_faults(plain, processes)
    faults += key_faults(plain)
    if files:
        faults += _file_faults(plain)
    faults += _device_faults(plain, processes, hardware)
    if plain.keys() >= _SIZES and not (_SIZES | {"autocast"}) & {fault.key.split(".")[0] for fault in faults}:
        try:
            need = needs(plain, processes=processes)
        except Exception as error:  # whatever a model's builder raises
            faults.append(Fault("model", "as given", f"can't be built ({error})", "correct its arguments"))
        else:
            faults += _room_faults(plain, need) if hardware else ()
    if faults:
        raise ConfigFaults(faults)


def _resolve(node: Any, at: str, faults: list[Fault]) -> Any:
    """Plain values of a config. What can't be resolved becomes `UNSET`, and a fault where it is meant to be set."""
    if not isinstance(node, DictConfig | ListConfig):
        return node
    plain: dict[str, Any] = {}
    keys: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        where = f"{at}{key}"
        plain[str(key)] = UNSET
        try:
            if OmegaConf.is_missing(node, key):
                faults.append(Fault(where, "???", "is not filled in", f"give it: {where}=..."))
            else:
                plain[str(key)] = _resolve(node[key], f"{where}.", faults)
        except InterpolationToMissingValueError:
            pass  # a fault of the key it refers to
        except InterpolationResolutionError as error:
            raw = OmegaConf.to_container(node)[key]  # type: ignore[index]
            faults.append(Fault(where, repr(raw), str(error).split("\n")[0], "refer to a key of this config"))
    return plain if isinstance(node, DictConfig) else list(plain.values())


def _file_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    wanted = {key: config[key] for key in config if key.endswith(("_dir", "_file")) and key != "output_dir"}
    for block, key in (("tokenizer", "path"), ("checkpointer", "checkpoint_dir")):
        if isinstance(config.get(block), dict):
            wanted[f"{block}.{key}"] = config[block].get(key)
    paths = {key: Path(value) for key, value in wanted.items() if isinstance(value, str)}
    # One fault, however many keys refer to the same file.
    missing = {path: key for key, path in reversed(paths.items()) if not path.exists()}
    for path, key in reversed(missing.items()):
        yield Fault(key, repr(str(path)), "no such file or folder", "correct it, or run the notebook that makes it")
    for key, path in paths.items():
        if key == "checkpointer.checkpoint_dir" and path.is_dir():
            yield from _checkpoint_faults(config["checkpointer"], path)
        if key == "tokenizer.path" and path.is_dir() and not any(path.glob("tokenizer.*")):
            yield Fault(key, repr(str(path)), "holds no tokenizer.json", "fetch the model again")


def _checkpoint_faults(checkpointer: Mapping[str, Any], folder: Path) -> Iterator[Fault]:
    key, names = "checkpointer.checkpoint_files", checkpointer.get("checkpoint_files", [])
    try:
        if isinstance(names, dict):
            names = FormattedCheckpointFiles.from_dict(names).build_checkpoint_filenames()
    except ValueError as error:
        yield Fault(key, repr(names), str(error), "list the files")
        return
    if not isinstance(names, list):
        yield Fault(key, repr(names), "is no list", "put it in brackets")
        return
    hub = str(checkpointer.get("_component_")).endswith("HFCheckpointer")
    lost = [name for name in [*names, *["config.json"] * hub] if not (folder / str(name)).exists()]
    if lost:
        yield Fault(key, f"{lost!r:.80}", f"not in {folder}", "fetch the model again")


def _device_faults(config: Mapping[str, Any], processes: int, hardware: bool) -> Iterator[Fault]:
    name, dtype, autocast = (config.get(key) for key in ("device", "dtype", "autocast"))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        device = torch.device(name)  # type: ignore[arg-type]
    except (RuntimeError, TypeError):
        yield Fault("device", repr(name), "no such device", "give cpu or cuda")
        return
    if hardware and device.type == "cuda" and gpus < max(processes, (device.index or 0) + 1):
        fix = f"launch {gpus} processes" if gpus else "set device: cpu, or use a machine with a GPU"
        yield Fault("device", repr(name), f"{processes} GPU(s) needed, {gpus} found", fix)
        return
    try:
        if get_dtype(dtype, device if hardware else torch.device("cpu")) not in (torch.float32, torch.bfloat16):
            yield Fault("dtype", repr(dtype), "torchtune does not train in it", "give bf16 or fp32")
    except (RuntimeError, ValueError) as error:
        yield Fault("dtype", repr(dtype), str(error), "give fp32, or bf16 where the device has it")
    if autocast is not None and not isinstance(getattr(torch, str(autocast), None), torch.dtype):
        yield Fault("autocast", repr(autocast), "no such dtype of torch", "give bfloat16 or null")


class Needs(NamedTuple):
    """Bytes that a training needs at least: memory of each GPU, memory of the machine, disk under `output_dir`."""

    gpu: float
    memory: float
    disk: float


def needs(config: Mapping[str, Any], *, processes: int = 1) -> Needs:
    """Estimates from below what a training needs. Its parameters are counted on a model built without memory.

    With b bytes a number (`dtype`: fp32 4, bf16 2), N parameters and T trained ones (LoRA: the adapters; else N):

        weights       b N; of those in NF4, 0.516 instead of b: 4 bits, and a byte for each 64
        optimizer     2 b T for Adam, 2 T in 8 bits, 0 for any other and for a paged one
        gradients     b T; 0 with `optimizer_in_bwd`
        activations   17 a E L K, with activation checkpointing a E L K; a: bytes of one (`autocast`, else b), E: width,
                      L: layers, K: tokens, 100 an example. Korthikanti et al., arXiv 2205.05198, equation 1, without
                      its attention scores.
        memory        weights + optimizer + the larger of gradients and activations, which peak at different times
        disk          exported: b N, or b T with `save_adapter_weights_only`; once, by torchtune's own recipes each
                      epoch; and the trained weights and the optimizer of a saved state

    Processes share all but activations (FSDP). Of a GPU run, the machine holds b N while it loads.

    Args:
        config: Resolved, without faults in what is read here.
        processes: That train together.

    Returns:
        The GPU's part is 0 where it trains on the CPU.
    """
    dtype = get_dtype(config["dtype"], torch.device("cpu"))
    with torch.device("meta"), set_default_dtype(dtype):
        model, four_bits = _build(**config["model"])
    size, numbers = dtype.itemsize, sum(weight.numel() for weight in model.parameters())
    adapter = sum(weight.numel() for weight in get_adapter_params(model).values())
    trained = adapter or numbers
    in_nf4 = sum(w.numel() for n, w in model.layers.named_parameters() if w.ndim == 2 and "lora_" not in n) * four_bits
    weights = size * (numbers - in_nf4) + 0.516 * in_nf4
    name = config["optimizer"]["_component_"].rpartition(".")[2].lower()
    optimizer = trained * (0 if "adam" not in name or "paged" in name else 2 if "8bit" in name else 2 * size)
    gradients = 0 if config.get("optimizer_in_bwd") else trained * size
    one = getattr(torch, config["autocast"]).itemsize if config.get("autocast") else size
    kept = one * (1 if config.get("enable_activation_checkpointing") else 17)
    layers, width = (
        len(getattr(model, "layers", ())),
        getattr(getattr(model, "tok_embeddings", None), "embedding_dim", 0),
    )
    activations = kept * width * layers * _TOKENS * config["batch_size"]

    exported = size * (trained if config.get("save_adapter_weights_only") else numbers)
    exports = 1 if config["recipe"].endswith(".py") else config["epochs"]
    saves = config["epochs"] > 1 or config.get("save_every_n_steps") is not None
    disk = exported * exports + saves * (trained * size + optimizer)
    if config["device"].startswith("cuda") and not config.get("fsdp_cpu_offload"):
        return Needs((weights + optimizer + max(gradients, activations * processes)) / processes, size * numbers, disk)
    return Needs(0, weights + optimizer + max(gradients, activations * processes), disk)


def _build(*, _component_: str, **arguments: Any) -> tuple[Any, bool]:
    """A config's model, and whether its layers' weights are to be in NF4, which is not made here: it takes seconds."""
    component = _get_component_from_path(_component_)
    option = inspect.signature(component).parameters.get("quantize_base")
    four_bits = option is not None and bool(arguments.get("quantize_base", option.default))
    return component(**arguments | ({"quantize_base": False} if four_bits else {})), four_bits


def _room_faults(config: Mapping[str, Any], need: Needs) -> Iterator[Fault]:
    folder = Path(config["output_dir"]).absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        yield Fault("output_dir", repr(str(folder)), "can't be written to", "give another folder")
    gpus = range(torch.cuda.device_count() if need.gpu else 0)
    old = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())  # will be replaced
    less = "halve it, set enable_activation_checkpointing: True, or take a smaller profile"
    for key, what, least, free, fix in (
        ("batch_size", "GPU memory", need.gpu, min((torch.cuda.mem_get_info(gpu)[0] for gpu in gpus), default=0), less),
        ("batch_size", "memory", need.memory, psutil.virtual_memory().available, less),
        ("output_dir", "disk", need.disk, shutil.disk_usage(there).free + old, "make room, or give another disk"),
    ):
        if least > free:
            wrong = f"the run needs {least / 1e9:.1f} GB of {what} or more, {free / 1e9:.1f} are free"
            yield Fault(key, repr(config[key]), wrong, fix)


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the config of a command line; 0 if it is without fault."""
    parser = argparse.ArgumentParser(
        prog="python -m guard_utils.training.preflight", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("config", type=Path, help="YAML file")
    parser.add_argument("overrides", nargs="*", help="key=value, as for `tune run`")
    parser.add_argument("--nproc_per_node", type=int, default=1, help="processes that will be launched here")
    parser.add_argument("--elsewhere", action="store_true", help="for another machine: no device, memory, disk, files")
    given = parser.parse_intermixed_args(arguments)
    try:
        keys = OmegaConf.to_container(OmegaConf.load(given.config))
        merged = _merge_yaml_and_cli_args(Namespace(**keys), given.overrides)  # type: ignore[arg-type]
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        parser.error(f"{given.config}: {error}")
    here = not given.elsewhere
    try:
        preflight(OmegaConf.to_container(merged), processes=given.nproc_per_node, files=here, hardware=here)  # type: ignore[arg-type]
    except ConfigFaults as faults:
        print(faults, file=sys.stderr)
        return 1
    print("no faults")
    return 0


if __name__ == "__main__":
    sys.exit(main())
