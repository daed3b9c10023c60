"""Two processes over gloo on CPUs against one process of torchtune's own: same loss at every step, same weights."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import AutoModelForCausalLM

from guard_utils.data.splits import load_splits
from guard_utils.policy import PII, Verdict
from guard_utils.profiles import Run, repository
from guard_utils.training.launch import read_log
from guard_utils.training.recipe import initial_adapter, stock_recipe

EPOCHS, STEPS_PER_EPOCH, PER_PROCESS = 2, 2, 3
TIMEOUT = 300  # seconds; an idle machine needs some fifteen
# As a reader launches it, by torchtune's command or by torch's. Both find a free port; no name service is needed.
TWO = ["--nproc_per_node", "2", "--local_addr", "127.0.0.1"]
LAUNCH = {
    "full": ["torchtune._cli.tune", "run", *TWO, "guard_utils/training/recipe.py"],
    "lora": ["torch.distributed.run", "--standalone", *TWO, "-m", "guard_utils.training.recipe"],
}


@pytest.fixture(scope="module")
def rows(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows under two policies. Their answers differ in length, so a mean of the processes' means would be wrong."""
    lines = []
    for number, example in enumerate(load_splits(run).train[: 2 * PER_PROCESS * STEPS_PER_EPOCH]):
        codes = PII.codes if number % 2 else ("S4", "S1")
        answer = Verdict.of(code for code in example.verdict.codes if code in codes).text
        lines.append(json.dumps({"policy": codes, "turns": [["User", example.text]], "answer": answer}) + "\n")
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    path.write_text("".join(lines))
    return path


def train_in_two_processes(launch: Sequence[str], config: DictConfig, path: Path) -> None:
    OmegaConf.save(config, path)
    command = [sys.executable, "-m", *launch, "--config", str(path)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=repository(), timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stdout[-6000:]


def train_in_one_process(config: DictConfig, kind: str) -> None:
    """The stock recipe, its loop and its padded batches; nothing of ours but where LoRA begins."""
    config.collate_fn = "torchtune.data.padded_collate_sft"
    recipe_class = {"lora": "LoRAFinetuneRecipeSingleDevice", "full": "FullFinetuneRecipeSingleDevice"}[kind]
    recipe = getattr(stock_recipe(f"{kind}_finetune_single_device"), recipe_class)(cfg=config)
    recipe.setup(cfg=config)
    if kind == "lora":
        recipe._model.load_state_dict(initial_adapter(config.model, config.seed), strict=False)
    # Between epochs, on a CPU, torchtune's LoRA recipe merges the adapter into the very weights that it trains on.
    save = recipe.save_checkpoint
    recipe.save_checkpoint = lambda epoch: save(epoch) if epoch + 1 == EPOCHS else None
    recipe.train()
    recipe.cleanup()


def weights(folder: Path) -> torch.Tensor:
    """All weights of a checkpoint, as plain `transformers` loads them."""
    for file in folder.glob("adapter_*"):
        file.unlink()  # transformers would add the adapter to weights that hold it already
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_two_processes_train_as_one_does(
    kind: str, rows: Path, lora: dict[str, Any], settings: Callable[..., Any], smoke_folder: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    options: dict[str, Any] = {"dataset": {"source": str(rows)}, "epochs": EPOCHS, "shuffle": True}
    if kind == "lora":
        options |= {"model": lora, "optimizer": {"lr": 1e-2}}
    train_in_one_process(settings(one, batch_size=2 * PER_PROCESS, **options), kind)
    train_in_two_processes(LAUNCH[kind], settings(two, batch_size=PER_PROCESS, **options), tmp_path / "two.yaml")
    expected, found = (read_log(folder, batch_size=2 * PER_PROCESS) for folder in (one, two))
    assert found["step"].tolist() == expected["step"].tolist() == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    assert found["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-5)
    assert found["grad_norm"].tolist() == pytest.approx(expected["grad_norm"].tolist(), rel=1e-4)

    assert [folder.name for folder in two.glob("epoch_*")] == ["epoch_1"], "of earlier epochs there are only states"
    start = weights(smoke_folder)
    learned, as_one = weights(two / "epoch_1") - start, weights(one / "epoch_1") - start
    assert learned.norm() > 1e-3 * start.norm(), "it learns, so a wrong update would show"
    assert (learned - as_one).norm() < 1e-2 * as_one.norm()
