"""Profiles: one name at the top of a notebook decides model, data, training and budgets."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import psutil

from guard_utils.assets import ASSETS, fetch
from guard_utils.policy import PII, Taxonomy

EMBEDDED = "embedded"


class ProfileError(RuntimeError):
    """The profile can't run here; the message lists every reason with the command that mends it."""


@dataclass(frozen=True)
class Profile:
    """What a profile runs.

    Attributes:
        name: As in `PROFILE`.
        model: An asset of ours, or a repository of the hub.
        train_data: `embedded` or a data set of the hub; `test_data` likewise.
        config: torchtune config in `torchtune_configs/`.
        train_rows: Examples to train on; the other `*_rows` are examples to score.
        zero_shot_rows: Validation rows that the untuned model and the baselines are scored on.
        gpus: GPUs needed.
        gpu_gb: Memory each of them needs.
        memory_gb: Main memory needed.
        disk_gb: Free disk needed under `artifacts/`.
    """

    name: str
    model: str
    train_data: str
    test_data: str
    config: str
    train_rows: int
    validation_rows: int
    test_rows: int
    independent_rows: int
    zero_shot_rows: int
    gpus: int = 0
    gpu_gb: int = 0
    memory_gb: int = 8
    disk_gb: int = 4

    @property
    def from_hub(self) -> bool:
        """Whether the model is gated and lives on the hub."""
        return self.model not in (*ASSETS, "smoke")


_GUARD = Profile(
    name="guard-1b",
    model="meta-llama/Llama-Guard-3-1B",
    train_data="ai4privacy/pii-masking-65k",
    test_data="ai4privacy/pii-masking-200k",
    config="guard-1b.yaml",
    train_rows=21_588,
    validation_rows=2_000,
    test_rows=1_998,
    independent_rows=1_500,
    zero_shot_rows=1_000,
    gpus=1,
    gpu_gb=24,
    memory_gb=16,
    disk_gb=20,
)
_EIGHT = replace(_GUARD, model="meta-llama/Llama-Guard-3-8B", memory_gb=40, disk_gb=80)

PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", "smoke", EMBEDDED, EMBEDDED, "smoke.yaml", 96, 48, 64, 48, 24, memory_gb=2, disk_gb=1),
        Profile("laptop", "smollm2-135m", EMBEDDED, EMBEDDED, "laptop.yaml", 6_144, 400, 800, 1_500, 200),
        _GUARD,
        replace(_EIGHT, name="guard-8b-lora", config="guard-8b-lora.yaml", gpu_gb=40),
        replace(_EIGHT, name="guard-8b-qlora", config="guard-8b-qlora.yaml", gpu_gb=16),
        replace(_EIGHT, name="guard-8b", config="guard-8b.yaml", gpus=4, gpu_gb=80, memory_gb=128, disk_gb=180),
    )
}


def repository() -> Path:
    """The folder with `pyproject.toml`, found upwards of the working directory or of this file.

    Raises:
        ProfileError: Neither stands in a clone of the repository.
    """
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").exists() and (folder / "torchtune_configs").is_dir():
                return folder
    raise ProfileError("the repository is not here; start in a clone of it (its notebooks/ folder is fine)")


@dataclass(frozen=True)
class Run:
    """A profile on this machine.

    Attributes:
        profile: The profile.
        policy: Categories that are trained and scored.
        device: `cpu` or `cuda`.
        dtype: Of scoring, and of activations in training: `bf16` where this machine is fast at it, else `fp32`.
        seed: Of everything.
        folder: Where artifacts go: `artifacts/<profile>/` of the repository, or `$GUARD_ARTIFACTS/<profile>/`.
        origins: Where each value comes from, for `describe`.
    """

    profile: Profile
    policy: Taxonomy
    device: str
    dtype: str
    seed: int
    folder: Path
    origins: dict[str, str]

    @property
    def config_path(self) -> Path:
        """The profile's torchtune config."""
        return repository() / "torchtune_configs" / self.profile.config

    def model_folder(self) -> Path:
        """Folder of the base model, fetched where it is missing."""
        if not self.profile.from_hub:
            return fetch(self.profile.model)
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self.profile.model, ignore_patterns=["original/*"]))

    def describe(self) -> Any:
        """Every resolved value with its origin, as a data frame."""
        import pandas as pd

        values = {field.name: getattr(self.profile, field.name) for field in fields(self.profile)}
        values |= {"policy": self.policy.name, "device": self.device, "dtype": self.dtype, "seed": self.seed}
        rows = [(name, value, self.origins.get(name, "profile")) for name, value in values.items()]
        return pd.DataFrame(rows, columns=["setting", "value", "from"]).set_index("setting")


def fast_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16)."""
    import torch

    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_tile") or capabilities.get("avx512_bf16"))


def resolve(name: str, *, seed: int | None = None) -> Run:
    """Fits a profile to this machine, or says before any work why it can't run here.

    Args:
        name: A key of `PROFILES`.
        seed: Of data, training and intervals; by default `$GUARD_SEED`, or 0.

    Raises:
        ProfileError: A `GUARD_SEED` that is no number; unknown name; or a GPU, memory, disk or token that is missing:
            lists all with the fixes.
    """
    if name not in PROFILES:
        raise ProfileError(f"unknown PROFILE {name!r}; choose one of {', '.join(PROFILES)}")
    import torch

    told = os.environ.get("GUARD_SEED") if seed is None else None
    if told is not None and not told.isdecimal():
        raise ProfileError(f"GUARD_SEED={told!r} is no whole number; unset it, or set it to 0, 1, 2, ...")
    profile = PROFILES[name]
    folder = Path(os.environ.get("GUARD_ARTIFACTS") or repository() / "artifacts") / name
    device = "cuda" if torch.cuda.is_available() and name != "smoke" else "cpu"
    bf16 = name != "smoke" and (device == "cuda" or fast_bf16())
    why = (
        "this GPU"
        if device == "cuda"
        else f"this CPU ({platform.machine()}{', fast bf16' if bf16 else ', no fast bf16'})"
    )
    if name == "smoke":
        why = "profile: exact and small"
    faults = _faults(profile, folder, torch.cuda)
    if faults:
        raise ProfileError(f"profile {name!r} can't run here:\n" + "\n".join(f"  - {fault}" for fault in faults))
    folder.mkdir(parents=True, exist_ok=True)
    origins = {"device": why, "dtype": why, "seed": "call" if told is None else "GUARD_SEED", "policy": "series"}
    return Run(profile, PII, device, "bf16" if bf16 else "fp32", int(told or seed or 0), folder, origins)


def _faults(profile: Profile, folder: Path, cuda: Any) -> list[str]:
    faults = []
    parent = next(place for place in (folder, *folder.parents) if place.exists())
    free_disk, memory = shutil.disk_usage(parent).free / 1e9, psutil.virtual_memory().total / 1e9
    if free_disk < profile.disk_gb:
        faults.append(
            f"needs {profile.disk_gb} GB of disk, {free_disk:.1f} GB are free: set GUARD_ARTIFACTS to another disk"
        )
    # A machine sold as 8 GB shows a little less.
    if memory < 0.9 * profile.memory_gb:
        faults.append(f"needs {profile.memory_gb} GB of memory, this machine has {memory:.1f}: use PROFILE = 'smoke'")
    gpus = cuda.device_count() if cuda.is_available() else 0
    small = [i for i in range(gpus) if cuda.get_device_properties(i).total_memory / 1e9 < 0.9 * profile.gpu_gb]
    if gpus < profile.gpus or small:
        faults.append(
            f"needs {profile.gpus} GPU(s) of {profile.gpu_gb} GB, found {gpus} ({len(small)} too small): "
            "use PROFILE = 'laptop', or a machine with such GPUs"
        )
    if profile.from_hub:
        from huggingface_hub import get_token

        if get_token() is None:
            faults.append(
                f"{profile.model} is gated and there is no token: accept its licence on its page, then `hf auth login`"
            )
    return faults
