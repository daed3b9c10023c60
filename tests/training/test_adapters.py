"""What a training leaves loads in plain `transformers` and `peft`, whichever way its model ties its embeddings."""

import json
from collections.abc import Callable
from pathlib import Path
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
from guard_utils.training.launch import _tidy
from guard_utils.training.recipe import shared_prefix_recipe

TEXTS = ["Ring Carmen on 020 7946 0018.", "ok", "109.4.61.213 is down, card 4539 1488 0343 6467 was charged"]
TOKENS = torch.arange(1000, 1040).unsqueeze(0)


@pytest.fixture
def train(settings: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[Any, torch.Tensor, Path]]:
    """Two steps at a high rate; returns the trained model, its logits of `TOKENS` when saved, and its checkpoint."""

    def run_recipe(model_dir: Path, **overrides: Any) -> tuple[Any, torch.Tensor, Path]:
        config = settings(tmp_path / "run", max_steps_per_epoch=2, **overrides)
        config.checkpointer.checkpoint_dir = str(model_dir)
        config.optimizer.lr, config.lr_scheduler.num_warmup_steps = 1e-2, 0
        recipe = shared_prefix_recipe(config)
        recipe.setup(cfg=config)
        save, logits = recipe.save_checkpoint, torch.empty(0)

        def save_checkpoint(epoch: int) -> None:
            nonlocal logits
            # Only now: on a CPU, torchtune merges an adapter into the very weights that it goes on with.
            for module in recipe._model.modules():
                if isinstance(module, MultiHeadAttention):
                    module._attention_call = _sdpa_or_flex_attention()  # torchtune's own
            del recipe._model.forward  # that of its class again
            with torch.inference_mode():
                logits = recipe._model(TOKENS)
            save(epoch)

        recipe.save_checkpoint = save_checkpoint
        recipe.train()
        recipe.cleanup()
        _tidy(tmp_path / "run" / "epoch_0", str(model_dir))
        return recipe._model, logits, tmp_path / "run" / "epoch_0"

    return run_recipe


def log_probs(run: Run, model: Any) -> np.ndarray:
    _, tokenizer = load_model(run.model_folder(), dtype="fp32")
    scorer = GuardScorer(model.eval(), GuardPrompt(run.policy, tokenizer), epsilon=0)
    return scorer.score(TEXTS, progress=False).log_probs


def test_adapter_in_peft_and_merged_model_in_transformers_score_alike(
    run: Run, lora: dict[str, Any], train: Callable[..., Any]
) -> None:
    *_, checkpoint = train(run.model_folder(), model=lora)
    base = AutoModelForCausalLM.from_pretrained(run.model_folder(), dtype=torch.float32)
    before = log_probs(run, base)
    merged = log_probs(run, AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32))
    adapted = log_probs(run, PeftModel.from_pretrained(base, checkpoint / "adapter"))
    assert np.abs(merged - before).max() > 0.1
    assert np.abs(adapted - merged).max() < 1e-4
    # The adapter knows its base model and what it is for.
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
CASES = [(True, "none", True, False), (True, "copy", True, False), (True, "own", False, False)]
CASES += [(False, "own", False, False), (True, "copy", True, True), (False, "own", False, True)]


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
    # Index, weights and config agree.
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())["weight_map"]
    with safe_open(next(checkpoint.glob("*.safetensors")), "pt") as shard:
        assert set(shard.keys()) == set(index) and ("lm_head.weight" in index) is not tied
    assert json.loads((checkpoint / "config.json").read_text())["tie_word_embeddings"] is tied
