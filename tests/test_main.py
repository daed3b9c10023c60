"""The command line: here the check finds nothing that keeps the default profile from running."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from guard_utils import __main__ as command
from guard_utils.policy import PII
from guard_utils.profiles import PROFILES, repository


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["guard_utils", *arguments])
    return command.main()


def test_this_machine_runs_the_default_profile(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run(monkeypatch, "check") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("      ")]
    assert all(line.startswith(("[ok] ", "[fail] ")) for line in lines)
    for word in ("macOS (only fp32", "Python 3", "torch 2", "GB of memory", "GPU", "laptop on", *PROFILES):
        assert any(word in line for line in lines), word


def test_bare_windows_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.findings()[0][0]
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert command.findings()[0] == (False, f"Windows: {command.SUPPORTED}")


def test_a_wrong_and_a_missing_package_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "transformers":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.16.0" if name == "torchao" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    good, text = command._packages()
    assert not good and text.endswith(": run `pip install --editable .` in this environment")
    assert {"torchao 0.16.0 is not ==0.14.1", "transformers is missing"} <= set(text.split(":")[0].split(", "))


def test_little_memory_and_disk_are_faults(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=4e9, available=3e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e9))
    assert run(monkeypatch, "check") == 1
    out = capsys.readouterr().out
    assert "[fail] 3 GB of memory free, training on laptop takes 8: close programs" in out
    laptop = out.split("[fail] profile 'laptop' can't run here")[1].split("\n[")[0]
    assert "needs 4 GB of disk, 2.0 are free: set GUARD_ARTIFACTS" in laptop and "needs 8 GB of memory" in laptop
    assert "[ok] profile smoke on cpu in fp32" in out
    assert [run(monkeypatch, "check", "--profile", name) for name in ("smoke", "guard-8b")] == [0, 1]
    with pytest.raises(SystemExit, match="1"):
        run(monkeypatch, "check", "--profile", "gaurd-8b")
    assert "'gaurd-8b' (choose from 'smoke', 'laptop'" in capsys.readouterr().err


def test_the_guard_or_the_model_as_it_is_gives_a_verdict(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    texts = ["Could you ping 109.4.61.213?", "The meeting is at noon."]
    table = command.verdicts(texts, "smoke")
    assert "before training" in capsys.readouterr().err and list(table.index) == texts
    assert list(table.columns) == ["verdict", *PII.names.values(), "no verdict"]
    assert (table["no verdict"] > 0.9).all()  # a random model does not know the grammar
    asked = []
    monkeypatch.setattr(command, "verdicts", lambda *words: asked.append(words) or table)
    assert run(monkeypatch, "verdict", *texts, "--profile", "smoke") == 0 and asked == [(texts, "smoke")]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == texts[0] and lines[3].split() == ["verdict", *table["verdict"].iloc[0].split()]
    assert lines[11] == texts[1] and lines[-1].split()[:2] == ["no", "verdict"]


def test_bad_input_is_one_sentence_and_no_traceback() -> None:
    for arguments, said in ((["fetch", "model"], "asset 'model'"), (["verdict", "x", "--profile", "x"], "PROFILE")):
        done = subprocess.run([sys.executable, "-m", "guard_utils", *arguments], capture_output=True, text=True)
        assert done.returncode == 1 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_make_hands_a_text_on_as_it_is_typed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".installed").touch()
    text = 'Carmen\'s "bill" of $500, $(HOME) and `x`'
    # `make test` runs this: what it tells the make within would be printed too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "verdict", f"TEXT={text}", f"VENV={tmp_path}"]
    done = subprocess.run(command, cwd=repository(), env=environment, capture_output=True, text=True)
    assert done.stdout == f"-m|guard_utils|verdict|{text}|", done.stderr


def test_fetch_names_the_folders(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "fetch", lambda name: f"cache/{name}")
    assert run(monkeypatch, "fetch", "llama3-tokenizer") == 0
    assert capsys.readouterr().out == "llama3-tokenizer: cache/llama3-tokenizer\n"
    assert run(monkeypatch, "fetch") == 0
    assert capsys.readouterr().out == "smollm2-135m: cache/smollm2-135m\n", "what the default profile needs"
    assert run(monkeypatch, "fetch", "--all") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(command.ASSETS) + 1
