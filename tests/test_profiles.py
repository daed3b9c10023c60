"""A profile fits this machine or says, before any work, everything that is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from guard_utils import profiles
from guard_utils.policy import PII
from guard_utils.profiles import PROFILES, ProfileError, Run, resolve


@pytest.fixture(autouse=True)
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUARD_ARTIFACTS", str(tmp_path))
    return tmp_path


def test_smoke_runs_on_the_cpu_in_fp32(monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
    monkeypatch.setattr(profiles, "gpus", lambda: [("a GPU", 80.0)])
    run = resolve("smoke")
    assert (run.device, run.dtype, run.folder) == ("cpu", "fp32", artifacts / "smoke")
    assert run.folder.is_dir()


def test_the_machine_decides_device_and_dtype_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, fast, expected in (
        ([], False, ("cpu", "fp32")),
        ([], True, ("cpu", "bf16")),
        ([("a GPU", 80.0)], False, ("cuda", "bf16")),
    ):
        monkeypatch.setattr(profiles, "gpus", lambda gpus=gpus: gpus)
        monkeypatch.setattr(profiles, "fast_bf16", lambda fast=fast: fast)
        run = resolve("laptop")
        assert (run.device, run.dtype) == expected
    monkeypatch.setattr(profiles, "gpus", lambda: [])
    assert run.device == "cuda", "computed when first asked for"


def test_no_torch_before_a_model_is_trained_or_asked() -> None:
    code = """
import sys
import guard_utils.profiles, guard_utils.policy, guard_utils.records, guard_utils.metrics, guard_utils.figures
import guard_utils.audit, guard_utils.data, guard_utils.training.launch
from guard_utils.scoring import VerdictTrie, tfidf, tuned_predictions
guard_utils.profiles.resolve("laptop")
for room in (guard_utils.metrics, guard_utils.figures, guard_utils.audit, guard_utils.data):
    for name in room.__all__:
        getattr(room, name)
assert "torch" not in sys.modules, "torch is loaded"
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=profiles.repository())


def test_unknown_profile_lists_the_known() -> None:
    with pytest.raises(ProfileError, match="unknown PROFILE 'lptop'.*laptop"):
        resolve("lptop")


def test_everything_that_is_missing_is_listed_at_once(monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5e8))
    monkeypatch.setattr(profiles.psutil, "virtual_memory", lambda: SimpleNamespace(total=4e9))
    monkeypatch.setattr(profiles, "gpus", lambda: [("large", 80.0), ("small", 24.0)])
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ProfileError) as error:
        resolve("guard-8b")
    text = str(error.value)
    for word in ("180 GB of disk", "GUARD_ARTIFACTS", "128 GB of memory", "4 GPU(s) of 80 GB, found 1", "hf auth"):
        assert word in text, word
    assert not (artifacts / "guard-8b").exists()


def test_artifacts_that_may_not_be_written_are_named(monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != artifacts)
    with pytest.raises(ProfileError, match=f"may not write in {artifacts}: set GUARD_ARTIFACTS to a folder of yours"):
        resolve("smoke")
    (artifacts / "file").touch()
    monkeypatch.setenv("GUARD_ARTIFACTS", str(artifacts / "file"))
    with pytest.raises(ProfileError, match="may not write in .*file: set GUARD_ARTIFACTS"):
        resolve("smoke")


def test_the_seed_comes_from_the_call_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (resolve("smoke").seed, resolve("smoke", seed=3).seed) == (0, 3)
    monkeypatch.setenv("GUARD_SEED", "")
    assert (resolve("smoke").seed, resolve("smoke", seed=3).seed) == (0, 3)
    monkeypatch.setenv("GUARD_SEED", "2")
    assert (resolve("smoke").seed, resolve("smoke", seed=1).seed) == (2, 1)
    monkeypatch.setenv("GUARD_SEED", "two")
    with pytest.raises(ProfileError, match="GUARD_SEED='two' is no whole number"):
        resolve("smoke")


def test_a_mirror_stands_for_the_hub(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(PROFILES["guard-1b"], PII, 0, artifacts)
    monkeypatch.setattr(profiles, "gpus", lambda: [("a GPU", 80.0)])
    monkeypatch.setenv("GUARD_MIRROR", str(artifacts))
    with pytest.raises(ProfileError, match="GUARD_MIRROR: no meta-llama/Llama-Guard-3-1B in .*or unset GUARD_MIRROR"):
        resolve("guard-1b")
    model = artifacts / "meta-llama" / "Llama-Guard-3-1B"
    model.mkdir(parents=True)
    (artifacts / "ai4privacy").mkdir()
    for name, ending in (("65k", "jsonl"), ("200k", "parquet")):
        (artifacts / "ai4privacy" / f"pii-masking-{name}.{ending}").touch()
    assert run.model_folder() == model
    assert profiles.mirrored("ai4privacy/pii-masking-200k") == artifacts / "ai4privacy" / "pii-masking-200k.parquet"
    assert "gated" not in "".join(profiles._faults(run.profile, artifacts))
