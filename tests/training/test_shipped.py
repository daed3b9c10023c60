"""The adapter that comes with the series: it gives the tuned model's answers, or is refused with one sentence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from guard_utils.data import load_splits
from guard_utils.data.examples import Example
from guard_utils.files import fetch
from guard_utils.formatter import write_training_file
from guard_utils.policy import PII
from guard_utils.profiles import PROFILES, Run
from guard_utils.prompt import GuardPrompt
from guard_utils.records import record
from guard_utils.scoring import GuardScorer, load_guard, load_model, tuned_predictions
from guard_utils.training import adapters
from guard_utils.training.adapters import load_adapter, write_adapter
from tools.adapter import LowRank, make_adapter
from tools.publish import publish_adapter

TEXTS = ["Ring Carmen on 020 7946 0018.", "ok", "109.4.61.213 is down, card 4539 1488 0343 6467 was charged"]


def untuned() -> Any:
    return load_model(fetch("smoke"), dtype="fp32")[0]


@pytest.fixture
def tuned() -> Any:
    """The base model with other linear layers: a change of rank 4, and a little of full rank."""
    model = untuned()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.model.modules():
            if isinstance(layer, torch.nn.Linear):
                rows, columns = layer.weight.shape
                change = torch.randn(rows, 4, generator=noise) @ torch.randn(4, columns, generator=noise)
                layer.weight += 0.1 * change + 0.01 * torch.randn(rows, columns, generator=noise)
    return model


@pytest.fixture
def prompt(smol_tokenizer: Any) -> GuardPrompt:
    return GuardPrompt(PII, smol_tokenizer)


def write(tuned: Any, prompt: GuardPrompt, folder: Path, rank: int) -> None:
    base, weights = untuned(), {}
    pairs = zip(adapters._linear_layers(base), adapters._linear_layers(tuned), strict=True)
    for (down, up, layer), (_, _, other) in pairs:
        factors = LowRank((other.weight - layer.weight).detach(), rank)
        weights |= {down: factors.down.detach(), up: factors.up.detach()}
    write_adapter(base, weights, folder, prompt=prompt, training="t", updates=0)


def log_probs(model: Any, prompt: GuardPrompt) -> np.ndarray:
    return GuardScorer(model, prompt, epsilon=0).score(TEXTS, progress=False).log_probs


def test_more_rank_is_nearer_to_the_tuned_model(tuned: Any, prompt: GuardPrompt, tmp_path: Path) -> None:
    before, wanted, found = log_probs(untuned(), prompt), log_probs(tuned, prompt), {}
    for rank in (1, 4, 128):
        torch.manual_seed(rank)
        write(tuned, prompt, tmp_path / str(rank), rank)
        found[rank] = log_probs(load_adapter(untuned(), tmp_path / str(rank), prompt=prompt), prompt)
    errors = [np.abs(found[rank] - wanted).mean() / np.abs(before - wanted).mean() for rank in (128, 4, 1)]
    assert errors[0] < 0.15 and errors == sorted(errors) and errors[2] < 1
    adapted = PeftModel.from_pretrained(untuned(), tmp_path / "4")
    assert np.abs(log_probs(adapted, prompt) - found[4]).max() < 1e-4
    # The same bytes again, in an order that no hash decides; no path.
    write(tuned, prompt, tmp_path / "again", 4)
    for name in ("adapter_config.json", "adapter_model.safetensors", "guard.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "4" / name).read_bytes()
    config = json.loads((tmp_path / "4" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "smoke" and config["target_modules"] == sorted(config["target_modules"])


def test_what_does_not_fit_is_refused_and_changes_nothing(
    tuned: Any, prompt: GuardPrompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = untuned(), tmp_path / "adapter"
    write(tuned, prompt, folder, 4)
    facts, weights = (folder / "guard.json").read_text(), (folder / "adapter_model.safetensors").read_bytes()
    before = base.model.layers[0].mlp.up_proj.weight.clone()

    def refused(why: str, *, asked: GuardPrompt = prompt) -> None:
        with pytest.raises(ValueError, match=why) as caught:
            load_adapter(base, folder, prompt=asked)
        assert str(folder) in str(caught.value) and len(str(caught.value).splitlines()) == 1

    refused("has policy_sha256 .*; use it with", asked=GuardPrompt(PII.select(["S2"]), prompt._tokenizer))
    refused("has prompt .*; use it with", asked=GuardPrompt(PII, prompt._tokenizer, role="Agent"))
    (folder / "guard.json").write_text(facts.replace("made here, seed 0", "made elsewhere"))
    refused("has base 'smoke: made elsewhere', here it is 'smoke: made here")
    for older in (facts.replace('"format": 2', '"format": 0'), facts[:40], ""):
        (folder / "guard.json").write_text(older)
        refused("has format (0|None), this code reads 2; take the folder")
    (folder / "guard.json").write_text(facts)
    for damaged in (weights[:-100], b"", weights[:-1] + bytes([weights[-1] ^ 1])):
        (folder / "adapter_model.safetensors").write_bytes(damaged)
        refused("cut off or changed: restore it")
    assert torch.equal(base.model.layers[0].mlp.up_proj.weight, before)

    monkeypatch.setattr(adapters, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match=r"bytes, 1,000 are allowed; lower rank 4"):
        write(tuned, prompt, folder, 4)
    assert (folder / "guard.json").read_text() == facts and list(tmp_path.iterdir()) == [folder]


def test_without_a_training_of_yours_the_published_adapter_answers(
    tuned: Any, prompt: GuardPrompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adapters, "repository", lambda: tmp_path / "clone")
    run = Run(replace(PROFILES["smoke"], adapter="tiny"), PII, 0, tmp_path / "run")
    training = run.folder / "training"
    tuned.save_pretrained(training / "epoch_0")
    prompt._tokenizer.save_pretrained(training / "epoch_0")
    (training / "config.yaml").write_text("epochs: 1\n")
    (training / "finished.json").write_text('{"fingerprint": "one"}')
    record(run, "tuned-test", {"weighted_f1": 0.25}, 64, checkpoint="one")
    record(run, "tuned-old", {"weighted_f1": 0.75}, 64, checkpoint="zero")
    folder = tmp_path / "clone" / "notebooks" / "models" / "tiny"
    write_training_file(load_splits(run).train, run.folder / "train.jsonl", PII)
    folder.mkdir(parents=True)
    (folder / "guard.json").write_text('{"format": 1}')  # of another version: made anew
    publish_adapter(run, folder, rank=64, updates=0)
    publish_adapter(run, folder, rank=64, updates=0)
    card = (folder / "README.md").read_text()
    assert "| tuned-test | 64 | 0.250 |" in card and "0.750" not in card and str(tmp_path) not in card
    assert all(f"- **{code} {name}**" in card for code, name in PII.names.items()) and "made here, seed 0" in card

    for name, updates in (("a", 2), ("b", 2), ("c", 0)):
        make_adapter(run, tmp_path / name, rank=8, updates=updates)
    a, b, c = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "abc")
    assert a == b != c, "updates change the weights, and the same way each time"

    rows = [Example(str(i), text, (), "en", str(i), "", ()) for i, text in enumerate(TEXTS)]
    fast = replace(run)
    vars(fast)["dtype"] = "bf16"
    answers = []
    for which, asked in (("you trained", rows), ("comes with the series", rows[:2])):
        answers.append(load_guard(run, epsilon=0).score(TEXTS, progress=False).log_probs)
        assert which in capsys.readouterr().err
        model = load_guard(fast).model
        assert model.dtype == torch.bfloat16 and model.model.rotary_emb.inv_freq.dtype == torch.float32
        tables = [tuned_predictions(run, {"test": asked}, epsilon=epsilon)["test"] for epsilon in (0.5, 0, 0)]
        assert [table.attrs["origin"] for table in tables] == ["made now", "made now", "read from this run"]
        assert np.allclose(tables[1]["outside"], 1 - np.exp(answers[-1]).sum(axis=1)[: len(asked)])
        if training.exists():
            training.rename(tmp_path / "gone")
    assert 0 < np.abs(answers[1] - answers[0]).mean() < 0.2
    before = json.loads((folder / "guard.json").read_text())
    publish_adapter(run, folder, rank=64, updates=2)  # trains on the one that is there
    after = json.loads((folder / "guard.json").read_text())
    assert (after["updates"], after["training"]) == (2, "one") and after["sha256"] != before["sha256"]
    with pytest.raises(FileNotFoundError, match="notebook 03"):
        load_guard(replace(run, profile=PROFILES["smoke"]))
