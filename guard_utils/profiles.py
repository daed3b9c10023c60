"""Profiles: one name at the top of a notebook decides model, data, training and budgets.

Holds names and paths, and says before any work what keeps a profile from running on this machine. Does not load a model
or data, nor torch before a device, a dtype or a GPU is asked for.
"""

import os
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import psutil

from guard_utils.files import fetch
from guard_utils.policy import PII, POLICIES, Role, Taxonomy, find_policy

EMBEDDED = "embedded"


class ProfileError(RuntimeError):
    """The profile can't run here, and why; lists every reason with its fix."""


@dataclass(frozen=True)
class Profile:
    """What a profile runs. Files and folders are named from the repository's root, or in full.

    Attributes:
        name: Of the profile, and of its folder in `artifacts/`.
        model: An asset of ours, a folder that `export_guard` wrote, or a repository of the hub.
        train_data: `embedded`, a file of your own rows (see `own_examples`), or a data set of the hub; `test_data`
            likewise. Rows in one file are split by template.
        train_rows: Examples to train on; the other `*_rows` are examples to score.
        zero_shot_rows: Validation rows that the untuned model and the baselines are scored on.
        adapter: Folder in `notebooks/models/` of the tuned guard that comes with the series; empty where none does.
        gpus: GPUs needed, each with `gpu_gb` of memory; `memory_gb` of main memory, `disk_gb` under `artifacts/`.
        config: Name of its file in `torchtune_configs/`; that of the profile if left out.
        policy: Name or YAML file of the policy; see `read_policy`.
        labels: CSV file of the label map, `label,code,reason`; ai4privacy's own, for the five categories, if left out.
        role: Whose last message is judged, `User` or `Agent`.
    """

    name: str
    model: str
    train_data: str
    test_data: str
    train_rows: int
    validation_rows: int
    test_rows: int
    independent_rows: int
    zero_shot_rows: int
    adapter: str = ""
    gpus: int = 0
    gpu_gb: int = 0
    memory_gb: int = 8
    disk_gb: int = 4
    config: str = ""
    policy: str = PII.name
    labels: str = ""
    role: Role = "User"

    @property
    def from_hub(self) -> bool:
        """Whether the model is gated and lives on the hub."""
        return "/" in self.model and not located(self.model).is_dir()

    @property
    def own_files(self) -> list[Path]:
        """Files of your own rows and of your labels."""
        names = dict.fromkeys((self.train_data, self.test_data, self.labels))
        return [located(name) for name in names if name.endswith((".jsonl", ".csv", ".parquet"))]


_HUB = ("ai4privacy/pii-masking-65k", "ai4privacy/pii-masking-200k")
_GUARD = Profile("guard-1b", "meta-llama/Llama-Guard-3-1B", *_HUB, 21_588, 2_000, 1_998, 1_500, 1_000)
_ONE = replace(_GUARD, gpus=1, gpu_gb=24, memory_gb=16, disk_gb=20)
_EIGHT = replace(_ONE, model="meta-llama/Llama-Guard-3-8B", memory_gb=40, disk_gb=80)
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", "smoke", EMBEDDED, EMBEDDED, 96, 48, 64, 48, 24, memory_gb=2, disk_gb=1),
        Profile("laptop", "smollm2-135m", EMBEDDED, EMBEDDED, 6_976, 400, 800, 1_500, 200, "laptop"),
        _ONE,
        replace(_EIGHT, name="guard-8b-lora", gpu_gb=40),
        replace(_EIGHT, name="guard-8b-qlora", gpu_gb=16),
        replace(_EIGHT, name="guard-8b", gpus=4, gpu_gb=80, memory_gb=128, disk_gb=180),
    )
}


def repository() -> Path:
    """The folder with `pyproject.toml`, found upwards of the working directory or of this file; else a ProfileError."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").exists() and (folder / "torchtune_configs").is_dir():
                return folder
    raise ProfileError("the repository is not here; start in a clone of it (its notebooks/ folder is fine)")


def located(name: str) -> Path:
    """The place of a profile's file or folder."""
    return repository() / name


def mirrored(name: str) -> Path | None:
    """What stands for a model or data set of the hub: `$GUARD_MIRROR/<name>`, a folder, or a file with an ending.

    None where `GUARD_MIRROR` is not set, and the hub is asked; FileNotFoundError where it is and has no such thing.
    """
    folder = os.environ.get("GUARD_MIRROR")
    if not folder:
        return None
    for ending in ("", ".jsonl", ".jsonl.gz", ".parquet"):
        if (place := Path(folder, f"{name}{ending}")).exists():
            return place
    raise FileNotFoundError(f"GUARD_MIRROR: no {name} in {folder}; copy it there from the hub, or unset GUARD_MIRROR")


def fast_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16)."""
    import torch

    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_tile") or capabilities.get("avx512_bf16"))


def gpus() -> list[tuple[str, float]]:
    """Name and memory in GB of every GPU."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [(gpu.name, gpu.total_memory / 1e9) for gpu in map(torch.cuda.get_device_properties, range(count))]


@dataclass(frozen=True)
class Run:
    """A profile on this machine.

    Attributes:
        seed: Of everything.
        folder: Where artifacts go: `artifacts/<profile>/` of the repository, or `$GUARD_ARTIFACTS/<profile>/`.
    """

    profile: Profile
    policy: Taxonomy
    seed: int
    folder: Path

    @cached_property
    def device(self) -> str:
        """`cuda` where there is a GPU, else `cpu`; the config of smoke always runs on the CPU."""
        return "cuda" if "smoke" not in (self.profile.name, self.profile.config) and gpus() else "cpu"

    @cached_property
    def dtype(self) -> str:
        """Of scoring, and of activations in training: `bf16` where the device is fast at it, else `fp32`."""
        fast = "smoke" not in (self.profile.name, self.profile.config) and (self.device == "cuda" or fast_bf16())
        return "bf16" if fast else "fp32"

    @property
    def config_path(self) -> Path:
        """The profile's torchtune config."""
        return repository() / "torchtune_configs" / f"{self.profile.config or self.profile.name}.yaml"

    def model_folder(self) -> Path:
        """Folder of the base model, fetched where it is missing."""
        if (own := located(self.profile.model)).is_dir():
            return own
        if not self.profile.from_hub:
            return fetch(self.profile.model)
        if place := mirrored(self.profile.model):
            return place
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self.profile.model, ignore_patterns=["original/*"]))


def resolve(profile: str | Profile, *, seed: int | None = None) -> Run:
    """Fits a profile, one of `PROFILES` or your own, to this machine, or says before any work why it can't run here.

    The seed is of data, training and intervals; by default `$GUARD_SEED`, or 0. One of your own is made of another:
    `replace(PROFILES["laptop"], name="mine", config="laptop", policy="mine.yaml", train_data="mine.jsonl", ...)`.

    Raises:
        ProfileError: Unknown name, a `GUARD_SEED` that is no number, or all that the machine lacks, with the fixes.
        ValueError: The policy's file is faulty.
    """
    if isinstance(profile, str) and profile not in PROFILES:
        raise ProfileError(f"unknown PROFILE {profile!r}; choose one of {', '.join(PROFILES)}")
    chosen = PROFILES[profile] if isinstance(profile, str) else profile
    told = os.environ.get("GUARD_SEED", "") if seed is None else ""
    if told and not told.isdecimal():
        raise ProfileError(f"GUARD_SEED={told!r} is no whole number; unset it, or set it to 0, 1, 2, ...")
    folder = Path(os.environ.get("GUARD_ARTIFACTS") or repository() / "artifacts") / chosen.name
    faults = _faults(chosen, folder)
    if faults:
        raise ProfileError(f"profile {chosen.name!r} can't run here:\n" + "\n".join(f"  - {fault}" for fault in faults))
    policy = find_policy(chosen.policy if chosen.policy in POLICIES else located(chosen.policy))
    folder.mkdir(parents=True, exist_ok=True)
    return Run(chosen, policy, int(told or seed or 0), folder)


def _faults(profile: Profile, folder: Path) -> list[str]:
    """The one check of the machine: what a profile lacks here, each with the fix. Sizes are in 10^9 bytes."""
    faults = []
    parent = next(place for place in (folder, *folder.parents) if place.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        faults.append(f"may not write in {parent}: set GUARD_ARTIFACTS to a folder of yours")
    disk, memory = shutil.disk_usage(parent).free / 1e9, psutil.virtual_memory().total / 1e9
    if disk < profile.disk_gb:
        faults.append(f"needs {profile.disk_gb} GB of disk, {disk:.1f} are free: set GUARD_ARTIFACTS to another disk")
    # A machine sold as 8 GB shows a little less.
    if memory < 0.9 * profile.memory_gb:
        faults.append(f"needs {profile.memory_gb} GB of memory, this machine has {memory:.1f}: use PROFILE = 'smoke'")
    if profile.gpus:
        found = [size for _, size in gpus()[: profile.gpus] if size >= 0.9 * profile.gpu_gb]
        if len(found) < profile.gpus:
            needs = f"needs {profile.gpus} GPU(s) of {profile.gpu_gb} GB"
            faults.append(f"{needs}, found {len(found)}: use such a machine or PROFILE = 'laptop'")
    faults += [f"no file {file}: correct its name" for file in profile.own_files if not file.is_file()]
    data = (name for name in (profile.train_data, profile.test_data) if located(name) not in profile.own_files)
    try:
        here = all(mirrored(name) for name in (profile.model * profile.from_hub, *data) if "/" in name)
    except FileNotFoundError as error:
        return [*faults, str(error)]
    if profile.from_hub and not here:
        from huggingface_hub import get_token

        if get_token() is None:
            faults.append(f"{profile.model} is gated: accept its licence on its page, then `hf auth login`")
    return faults
