"""The training benchmarks at smoke size: each runs to its end, and what it compares is equal, or scored."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from guard_utils.profiles import Run
from tools.benchmarks import time_to_f1


@pytest.fixture
def asked(run: Run, train_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("GUARD_ARTIFACTS", str(run.folder.parent))
    return ["--profile", "smoke", "--output", str(tmp_path / "figures.json")]


def test_the_same_lora_learns_the_same_behind_a_shared_prefix(asked: list[str]) -> None:
    command = [sys.executable, "-m", "tools.benchmarks.training", *"--examples 8 --shared-batch 8 --steps 3".split()]
    subprocess.run([*command, *asked], check=True)
    told = json.loads(Path(asked[-1]).read_text())
    assert told["loss_difference"] < 1e-3 and len(told["stock"]["losses"]) == 3 and told["ratio"] > 0


def test_configurations_are_compared_and_what_is_trained_is_kept(asked: list[str]) -> None:
    told = []
    for _ in range(2):
        time_to_f1.main(["rows=48", "rows=32 optimizer.lr=0.1", "--seeds", "3", *asked])
        told.append(json.loads(Path(asked[-1]).read_text())["trainings"])
    assert told[0] == told[1], "the minutes, too"
    first, second = told[0]
    assert [(row["examples"], row["seed"]) for row in (first, second)] == [(48, 3), (32, 3)]
    assert first["validation"]["n"] == 48 and first["validation"]["to_first"]["difference"] == 0
