"""Every option that a comment in torchtune_configs names trains a model, or is refused (test_config)."""

import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guard_utils.profiles import Run
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring.scorer import GuardScorer, load_model
from guard_utils.training import recipe
from guard_utils.training.launch import _tidy, read_log

Settings = Callable[..., Any]
STOCK = "torchtune.data.padded_collate_sft"
# Loss of the second step: as without the options, or another. Two that have nothing to do with each other share a run.
SAME: dict[str, dict[str, Any]] = {
    "stock batch, recomputed": {"collate_fn": STOCK, "enable_activation_checkpointing": True},
}
OTHER: dict[str, dict[str, Any]] = {
    "second epoch, each step saved": {"epochs": 2, "save_every_n_steps": 1},
    "bf16, no clipping": {"dtype": "bf16", "clip_grad_norm": None},
    "bf16 activations": {"autocast": "bfloat16"},
    "step in backward": {"optimizer_in_bwd": True, "clip_grad_norm": None},
}


def losses(settings: Settings, folder: Path, **options: Any) -> list[float]:
    """Two steps an epoch, the first with the whole rate."""
    config = settings(folder, batch_size=4, max_steps_per_epoch=2, lr_scheduler={"num_warmup_steps": 0}, **options)
    recipe.check_config(config)
    made = recipe.shared_prefix_recipe(config)
    made.setup(cfg=config)
    made.train()
    made.cleanup()
    return list(read_log(folder, batch_size=4)["loss"])


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "lora"])
def test_options_train_and_leave_a_model_to_score(
    run: Run, settings: Settings, lora: dict[str, Any], tmp_path: Path, adapters: bool
) -> None:
    model = {"model": lora} if adapters else {}
    plain = losses(settings, tmp_path / "plain", **model)
    for name, options in (SAME | OTHER).items():
        if adapters and "optimizer_in_bwd" in options:
            continue
        found = losses(settings, tmp_path / name, **options, **model)
        assert len(found) == 2 * options.get("epochs", 1) and all(map(math.isfinite, found)), name
        assert found[:2] == pytest.approx(plain, rel=1e-5 if name in SAME else 0.1), name
        checkpoint = tmp_path / name / f"epoch_{options.get('epochs', 1) - 1}"
        _tidy(checkpoint, str(run.model_folder()))
        tuned, tokenizer = load_model(checkpoint, dtype="fp32")
        assert GuardScorer(tuned, GuardPrompt(run.policy, tokenizer)).score(["Hi Ann"], progress=False).log_probs.size


def test_memory_is_trimmed_only_where_the_c_library_can(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: Any) -> Any:
        raise TypeError("no library without a name")  # Windows

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "sys", SimpleNamespace(platform="win32"))
        patch.setattr(ctypes, "CDLL", missing)
        assert len(losses(settings, tmp_path / "windows")) == 2
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())  # musl
    assert len(losses(settings, tmp_path / "musl")) == 2
