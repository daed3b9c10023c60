"""A config is checked before any work, and everything that is wrong with it is said at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchtune
from omegaconf import OmegaConf
from torchtune.config import validate

from guard_utils.profiles import repository
from guard_utils.training.preflight import ConfigFaults, main, needs, preflight

SHIPPED = Path(torchtune.__file__).parents[1] / "recipes" / "configs" / "llama3_2"


@pytest.fixture
def smoke(smoke_folder: Path, tmp_path: Path) -> dict[str, Any]:
    train_file = tmp_path / "train.jsonl"
    train_file.touch()
    config = OmegaConf.load(repository() / "torchtune_configs" / "smoke.yaml")
    config.model_dir, config.train_file, config.output_dir = str(smoke_folder), str(train_file), str(tmp_path / "out")
    config.autocast, config.save_every_n_steps = None, None
    return OmegaConf.to_container(config, resolve=True)


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with dotted keys set, or taken out where the value is `del`."""
    copy = OmegaConf.create(dict(config))
    for key, value in changes.items():
        if value == "del":
            block, _, name = key.rpartition(".")
            OmegaConf.select(copy, block).pop(name) if block else copy.pop(name)
        else:
            OmegaConf.update(copy, key, value, merge=False)
    return OmegaConf.to_container(copy)


def faults(config: Mapping[str, Any], **options: Any) -> dict[str, str]:
    """Key to the whole line of each fault."""
    try:
        preflight(config, **options)
    except ConfigFaults as error:
        assert len({fault.key for fault in error.faults}) == len(error.faults)
        assert all(f"{number}. {fault}" in str(error) for number, fault in enumerate(error.faults, 1))
        return {fault.key: str(fault) for fault in error.faults}
    return {}


def test_a_good_config_passes_with_all_that_it_needs(smoke: dict[str, Any]) -> None:
    assert faults(smoke) == {}


def test_five_different_faults_are_told_in_one_error(smoke: dict[str, Any]) -> None:
    broken = changed(smoke, {"batch_size": "del", "batch_sizee": 4, "optimizer.lr": "fast", "train_file": "/no/file"})
    broken = changed(broken, {"loss._component_": "torch.nn.CrossEntropyLos", "dtype": "bf61"})
    found = faults(broken)
    assert set(found) == {"batch_sizee", "optimizer.lr", "train_file", "loss._component_", "dtype"}
    assert found["batch_sizee"] == "batch_sizee = 4: unknown key; did you mean 'batch_size'?"


def test_what_torchtune_calls_well_formed_is_not(smoke: dict[str, Any]) -> None:
    broken = changed(smoke, {"batch_size": "del", "batch_sizee": 4})
    validate(OmegaConf.create(broken))  # torchtune finds nothing
    assert set(faults(broken)) == {"batch_sizee"}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("optimizer.amsgradd", True, "did you mean 'amsgrad'?"),
        ("optimizer.lrr", 1e-3, "did you mean 'lr'?"),
        ("model.embed_dimm", 64, "unknown key"),
        ("wandb_project", "mine", "nothing reads it"),
        ("thread", 2, "did you mean 'threads'?"),
        ("epochs", "del", "is required"),
        ("model.num_layers", "del", "is required"),
        ("dataset.source", "del", "is required"),
        ("lr_scheduler.num_warmup_steps", "del", "is required"),
        ("recipe", "del", "tune ls"),
        ("recipe", "guard_utils/recpie.py", "did you mean 'guard_utils/training/recipe.py'?"),
        ("recipe", "guard_utils/training/recipe_distributed.py", "number of processes, 1"),
        ("model", "torchtune.models.llama3_2.llama3_2", "no block with a _component_"),
        (
            "collate_fn",
            "guard_utils.training.shared_prefix.collate_shared_prefx",
            "did you mean 'collate_shared_prefix'?",
        ),
        ("collate_fn", "guard_utils.training.shared_prefix", "no class or function"),
        ("batch_size", 0, "at least 1"),
        ("epochs", 1.5, "at least 1"),
        ("gradient_accumulation_steps", None, "at least 1"),
        ("max_steps_per_epoch", -1, "at least 1"),
        ("optimizer.lr", "3e-4", "above 0 and below 1"),
        ("optimizer.lr", 3, "above 0 and below 1"),
        ("optimizer.weight_decay", "much", "give a number"),
        ("optimizer.fused", "del", ""),
        ("clip_grad_norm", -1.0, "above 0"),
        ("clip_grad_norm", "inf", ""),
        ("clip_grad_norm", None, ""),
        ("seed", None, ""),
        ("profiler", {"enabled": False}, ""),
        ("save_every_n_steps", 5, ""),
        ("shuffle", "Flase", "give True or False"),
        ("checkpointer.checkpoint_files", "model.safetensors", "is no list"),
        ("checkpointer.checkpoint_files", {"filename_format": "{}.x", "max_filename": "1"}, "two placeholders"),
        ("checkpointer.checkpoint_files", ["other.safetensors"], "other.safetensors"),
        ("checkpointer.checkpoint_dir", "/no/folder", "no such file"),
        ("tokenizer.path", "{train_folder}", "no tokenizer.json"),
        ("device", "gpu", "cpu or cuda"),
        ("dtype", "fp16", "bf16 or fp32"),
        ("autocast", "bf16", "bfloat16 or null"),
        ("model.num_heads", 5, "can't be built"),
        ("output_dir", "???", "is not filled in"),
        ("seed", "${sead}", "refer to a key"),
    ],
)
def test_each_fault_is_found_where_it_is(smoke: dict[str, Any], key: str, value: Any, says: str) -> None:
    value = str(Path(smoke["train_file"]).parent) if value == "{train_folder}" else value
    found = faults(changed(smoke, {key: value}))
    if key == "model.num_heads":
        key = "model"
    assert list(found) == ([key] if says else [])
    assert says in found.get(key, "")


def test_what_is_missing_is_named_once_and_not_where_it_is_referred_to(tmp_path: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(repository() / "torchtune_configs" / "smoke.yaml"))
    assert set(faults(config)) == {"model_dir", "train_file", "output_dir"}
    filled = OmegaConf.create(config | {"model_dir": "/no/folder", "train_file": __file__, "output_dir": str(tmp_path)})
    assert set(faults(OmegaConf.to_container(filled, resolve=True))) == {"model_dir"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_a_missing_gpu_is_a_fault_here_but_not_elsewhere(smoke: dict[str, Any]) -> None:
    config = changed(smoke, {"device": "cuda"})
    assert "0 found" in faults(config)["device"]
    assert faults(config, hardware=False) == {}


def test_short_memory_and_short_disk_are_faults(smoke: dict[str, Any]) -> None:
    assert "GB of memory" in faults(changed(smoke, {"batch_size": 10**8}))["batch_size"]
    stock = {"recipe": "full_finetune_single_device", "autocast": "del", "save_every_n_steps": "del"}
    often = {"epochs": 10**9}
    assert set(faults(changed(smoke, stock | often))) == {"output_dir"}
    assert faults(changed(smoke, often)) == {}  # our recipe exports once


def test_needs_are_those_worked_out_by_hand(smoke: dict[str, Any]) -> None:
    # 49,152 x 64 of the embedding; each of 2 layers: attention 64 x 64 x (1 + 1/2 + 1/2 + 1), feed-forward
    # 3 x 64 x 128, two norms of 64; one norm at the end.
    numbers = 49_152 * 64 + 2 * (64 * 64 * 3 + 3 * 64 * 128 + 2 * 64) + 64
    gradients = 4 * numbers
    activations = 17 * 4 * 64 * 2 * 100 * 16
    assert gradients < activations
    assert needs(smoke) == (0, 4 * numbers + 8 * numbers + activations, 4 * numbers)
    less = needs(changed(smoke, {"enable_activation_checkpointing": True}))
    assert less == (0, 4 * numbers + 8 * numbers + gradients, 4 * numbers)


def test_an_adapter_needs_less_and_four_bits_less_still(tmp_path: Path) -> None:
    need = {}
    for name, processes in (("guard-8b", 4), ("guard-8b-lora", 1), ("guard-8b-qlora", 1)):
        config = OmegaConf.load(repository() / "torchtune_configs" / f"{name}.yaml")
        config.output_dir = config.model_dir = config.train_file = str(tmp_path)
        need[name] = needs(OmegaConf.to_container(config, resolve=True), processes=processes).gpu / 1e9
    # Llama 3.1 8B has 8,030,261,248 parameters: in bf16 16.06 GB of weights, as many gradients, and Adam's 32.12.
    assert need["guard-8b"] == pytest.approx(4 * 16.06 / 4, rel=1e-3)
    assert 16.06 < need["guard-8b-lora"] < 18
    assert 5 < need["guard-8b-qlora"] < 7.4  # measured by torchtune's authors on another training: 7.4 GiB


@pytest.mark.parametrize("name", ["1B_full_single_device", "1B_lora_single_device", "1B_qlora_single_device"])
def test_torchtunes_own_configs_are_without_fault(name: str) -> None:
    config = OmegaConf.to_container(OmegaConf.load(SHIPPED / f"{name}.yaml"), resolve=True)
    recipe = "full_finetune_single_device" if "full" in name else "lora_finetune_single_device"
    found = faults(config | {"recipe": recipe}, files=False, hardware=False)
    if "full" in name:
        assert "No module named 'bitsandbytes'" in found.pop(
            "optimizer._component_"
        )  # bitsandbytes is no dependency of ours
    assert found == {}


def test_the_command_tells_faults_and_takes_overrides(smoke: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create(smoke), path)
    assert main([str(path), "batch_size=8", "optimizer.lr=1e-4"]) == 0
    assert main([str(path), "batch_size=none", "optimizer=torch.optim.AdamWW"]) == 1
    told = capsys.readouterr().err
    assert "2 faults" in told and "1. batch_size = 'none'" in told and "did you mean 'AdamW'?" in told
    assert main([str(path), "--elsewhere", "model_dir=/no/folder"]) == 0
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.yaml")])
