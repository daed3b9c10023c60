"""What a training leaves loads in plain `transformers` and `peft`, whichever way its model ties its embeddings.

Every option that a comment in torchtune_configs names trains such a model, or is refused (test_config).
"""

import ctypes
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from torchtune.modules import MultiHeadAttention
from torchtune.modules.attention_utils import _sdpa_or_flex_attention
from transformers import AutoModelForCausalLM

from guard_utils.profiles import Run
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring.scorer import GuardScorer, load_model
from guard_utils.training import recipe
from guard_utils.training.launch import _tidy, read_log

Settings = Callable[..., Any]
TEXTS = ["Ring Carmen on 020 7946 0018.", "ok", "109.4.61.213 is down, card 4539 1488 0343 6467 was charged"]
TOKENS = torch.arange(1000, 1040).unsqueeze(0)


@pytest.fixture
def train(settings: Settings, tmp_path: Path) -> Callable[..., tuple[Any, torch.Tensor, Path]]:
    """Two steps at a high rate; returns the trained model, its logits of `TOKENS` when saved, and its checkpoint."""

    def run_recipe(model_dir: Path, **overrides: Any) -> tuple[Any, torch.Tensor, Path]:
        config = settings(tmp_path / "run", max_steps_per_epoch=2, **overrides)
        config.checkpointer.checkpoint_dir = str(model_dir)
        config.optimizer.lr, config.lr_scheduler.num_warmup_steps = 1e-2, 0
        made = recipe.shared_prefix_recipe(config)
        made.setup(cfg=config)
        save, logits = made.save_checkpoint, torch.empty(0)

        def save_checkpoint(epoch: int) -> None:
            nonlocal logits
            # Only now: on a CPU, torchtune merges an adapter into the very weights that it goes on with.
            for module in made._model.modules():
                vars(module).pop("forward", None)  # that of its class again
                if isinstance(module, MultiHeadAttention):
                    module._attention_call = _sdpa_or_flex_attention()  # torchtune's own
            with torch.inference_mode():
                logits = made._model(TOKENS)
            save(epoch)

        made.save_checkpoint = save_checkpoint
        made.train()
        made.cleanup()
        _tidy(tmp_path / "run" / "epoch_0", str(model_dir))
        return made._model, logits, tmp_path / "run" / "epoch_0"

    return run_recipe


def log_probs(run: Run, model: Any) -> np.ndarray:
    _, tokenizer = load_model(run.model_folder(), dtype="fp32")
    scorer = GuardScorer(model.eval(), GuardPrompt(run.policy, tokenizer), epsilon=0)
    return scorer.score(TEXTS, progress=False).log_probs


def test_adapter_and_merged_model_score_alike(run: Run, lora: dict[str, Any], train: Callable[..., Any]) -> None:
    *_, checkpoint = train(run.model_folder(), model=lora)
    base = AutoModelForCausalLM.from_pretrained(run.model_folder(), dtype=torch.float32)
    before = log_probs(run, base)
    merged = log_probs(run, AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32))
    adapted = log_probs(run, PeftModel.from_pretrained(base, checkpoint / "adapter"))
    assert np.abs(merged - before).max() > 0.1
    assert np.abs(adapted - merged).max() < 1e-4
    alone = AutoPeftModelForCausalLM.from_pretrained(checkpoint / "adapter", dtype=torch.float32)
    assert np.abs(log_probs(run, alone) - merged).max() < 1e-4
    # Beside the merged weights, transformers would add the adapter a second time.
    assert not list(checkpoint.glob("adapter_*"))
    files = {path.name for path in (checkpoint / "adapter").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}


def base_model(run: Run, folder: Path, *, config_ties: bool, projection: str) -> None:
    """The smoke model with its output projection left out (tied), as a second copy of the embedding, or of its own."""
    model, tokenizer = load_model(run.model_folder(), dtype="fp32")
    weights = model.state_dict()
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    if projection == "none":
        del weights["lm_head.weight"]
    if projection == "own":
        weights["lm_head.weight"] += torch.randn(weights["lm_head.weight"].shape, generator=torch.manual_seed(1))
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.tie_word_embeddings = config_ties
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# Whether the config ties, the projection's kind, whether the trained model is tied, and whether adapters are trained.
# The others, of the two Llama Guards, are rehearsed in test_rehearsal.py.
CASES = [(True, "none", True, False), (True, "own", False, False)]


@pytest.mark.parametrize("case", CASES)
def test_tied_and_untied_models_are_trained_and_exported_as_what_they_are(
    run: Run, lora: dict[str, Any], train: Callable[..., Any], tmp_path: Path, case: tuple[bool, str, bool, bool]
) -> None:
    config_ties, projection, tied, adapters = case
    base_model(run, tmp_path / "base", config_ties=config_ties, projection=projection)
    trained, logits, checkpoint = train(tmp_path / "base", model=lora if adapters else {})
    assert ("output.weight" in dict(trained.named_parameters())) is not tied
    exported = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    assert (exported.lm_head.weight is exported.model.embed_tokens.weight) is tied
    with torch.inference_mode():
        assert (exported(TOKENS).logits - logits).abs().max() < 1e-4
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())["weight_map"]
    with safe_open(next(checkpoint.glob("*.safetensors")), "pt") as shard:
        assert set(shard.keys()) == set(index) and ("lm_head.weight" in index) is not tied
    assert json.loads((checkpoint / "config.json").read_text())["tie_word_embeddings"] is tied


STOCK = "torchtune.data.padded_collate_sft"
# Loss of the second step: as without the options, or another. Two that have nothing to do with each other share a run.
SAME = {"stock batch, recomputed": {"collate_fn": STOCK, "enable_activation_checkpointing": True}}
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


def test_a_c_library_may_lack_the_trim(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: Any) -> Any:
        raise TypeError("no library without a name")  # Windows

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "sys", SimpleNamespace(platform="win32"))
        patch.setattr(ctypes, "CDLL", missing)
        assert len(losses(settings, tmp_path / "windows")) == 2
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())  # musl
    assert len(losses(settings, tmp_path / "musl")) == 2
