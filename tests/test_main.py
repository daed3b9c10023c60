"""The check of the machine: here it finds nothing that keeps the default profile from running."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from types import SimpleNamespace

import huggingface_hub
import psutil
import pytest

from guard_utils import __main__ as check
from guard_utils.profiles import PROFILES


def faults() -> list[str]:
    return [text for good, text in check.findings() if not good]


def test_this_machine_runs_the_default_profile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check"])
    assert check.main() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("      ")]
    assert all(line.startswith(("[ok] ", "[fail] ")) for line in lines)
    for word in ("Python 3", "torch 2", "GB of memory", "GB of disk", "GPU", "bf16", "hub", *PROFILES):
        assert any(word in line for line in lines), word


def test_every_fault_comes_with_its_fix() -> None:
    for text in faults():
        assert ": " in text and any(verb in text for verb in ("run ", "use ", "set ", "accept ", "close ", "log")), text


def test_a_wrong_and_a_missing_package_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "datasketch":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.16.0" if name == "torchao" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = [text.split(":")[0] for good, text in check._packages() if not good]
    assert {"torchao 0.16.0 is not ==0.14.1", "datasketch is missing"} <= set(found)
    assert "torchao" not in check._packages()[0][1]


def test_little_memory_and_disk_are_faults(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=4e9, available=3e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e9))
    monkeypatch.setattr(sys, "argv", ["check"])
    assert check.main() == 1
    out = capsys.readouterr().out
    assert "[fail] 4 GB of memory, 3 GB of it free: training" in out
    assert "[fail] 2 GB of disk free: laptop needs 4, set GUARD_ARTIFACTS" in out
    assert "[fail] profile 'laptop' can't run here" in out and "[ok] profile smoke on cpu" in out


def test_the_hub_is_asked_only_with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(huggingface_hub, "auth_check", asked.append)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert check._hub()[0] is False and asked == []
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    assert check._hub() == (True, "the hub lets you read meta-llama/Llama-Guard-3-1B")
    assert asked == ["meta-llama/Llama-Guard-3-1B"]

    def refuse(_: str) -> None:
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "auth_check", refuse)
    good, text = check._hub()
    assert not good and text.startswith(
        "meta-llama/Llama-Guard-3-1B can't be read (ConnectionError): accept the licence"
    )


def test_every_system_gives_its_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = "Write to 109.4.61.213."
    table = check.verdicts(text, "smoke")
    assert [name.split(",")[0] for name in table.index] == ["regular expressions", "TF-IDF + regression", "smoke"]
    assert table.loc["regular expressions", "verdict"] == "unsafe S2"
    assert table.iloc[2]["outside"] > 0.9  # a random model does not know the grammar
    asked = []
    monkeypatch.setattr(check, "verdicts", lambda *words: asked.append(words) or table)
    monkeypatch.setattr(sys, "argv", ["check", "--profile", "smoke", "--verdict", text])
    assert check.main() == 0 and asked == [(text, "smoke")]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == text and lines[3].split()[:4] == ["regular", "expressions", "unsafe", "S2"]
