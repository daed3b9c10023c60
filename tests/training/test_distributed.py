"""Two processes over gloo on CPUs against one process of torchtune's own: same loss at every step, same weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import AutoModelForCausalLM

from guard_utils.data.examples import to_examples
from guard_utils.data.labels import PII_200K
from guard_utils.policy import PII
from guard_utils.profiles import repository
from guard_utils.training.launch import read_log
from guard_utils.training.recipe import initial_adapter, stock_recipe
from guard_utils.training.recipe_distributed import distributed_recipe
from guard_utils.training.rows import PolicyExample, policy_augmentations, to_training_row
from tools.corpus.compose import generate

EPOCHS, STEPS_PER_EPOCH, PER_PROCESS = 2, 2, 3
TIMEOUT = 300  # seconds; an idle machine needs some fifteen
# As a reader launches it, by torchtune's command or by torch's. Both find a free port; no name service is needed.
TWO = ["--nproc_per_node", "2", "--local_addr", "127.0.0.1"]
TUNE = ["torchtune._cli.tune", "run", *TWO, "guard_utils/training/recipe_distributed.py"]
TORCHRUN = ["torch.distributed.run", "--standalone", *TWO, "-m", "guard_utils.training.recipe_distributed"]
LORA = {
    "_component_": "torchtune.models.llama3_2.lora_llama3_2",
    "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
    "apply_lora_to_mlp": True,
    "lora_rank": 4,
    "lora_alpha": 8,
}


@pytest.fixture(scope="module")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows under two policies. Their answers differ in length, so a mean of the processes' means would be wrong."""
    rows = generate(2 * PER_PROCESS * STEPS_PER_EPOCH, split="train", seed=0, simple=True)
    examples = [
        PolicyExample((("User", example.text),), example.verdict, PII)
        for example in to_examples(rows, PII_200K, place="corpus")
    ]
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    path.write_text("\n".join(map(to_training_row, policy_augmentations(examples, policies=2, seed=0))) + "\n")
    return path


def make_config(folder: Path, train_file: Path, model: Path, *, lora: bool, batch_size: int) -> DictConfig:
    config = OmegaConf.load(repository() / "torchtune_configs" / "smoke.yaml")
    config.update(model_dir=str(model), train_file=str(train_file), output_dir=str(folder), batch_size=batch_size)
    config.update(epochs=EPOCHS, shuffle=True)
    if lora:
        config.model.update(LORA)
        config.optimizer.lr = 1e-2
    return config


def train_in_two_processes(launch: Sequence[str], config: DictConfig, path: Path) -> None:
    OmegaConf.save(config, path)
    process = subprocess.Popen(
        [sys.executable, "-m", *launch, "--config", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=repository(),
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
        state = f"ended with status {process.returncode}"
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher ends its processes
        output, _ = process.communicate(timeout=60)
        state = f"was not done after {TIMEOUT} s"
    if process.returncode:
        pytest.fail(f"{' '.join(launch)} {state}; its last lines:\n{output[-6000:]}", pytrace=False)


def train_in_one_process(config: DictConfig, *, lora: bool) -> None:
    """The stock recipe, its loop and its padded batches; nothing of ours but where LoRA begins."""
    config.collate_fn = "torchtune.data.padded_collate_sft"
    name = "lora_finetune_single_device" if lora else "full_finetune_single_device"
    recipe_class = "LoRAFinetuneRecipeSingleDevice" if lora else "FullFinetuneRecipeSingleDevice"
    recipe = getattr(stock_recipe(name), recipe_class)(cfg=config)
    recipe.setup(cfg=config)
    if lora:
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


@pytest.mark.parametrize(("lora", "launch"), [(False, TUNE), (True, TORCHRUN)], ids=["full", "lora"])
def test_two_processes_train_as_one_does(
    lora: bool, launch: Sequence[str], train_file: Path, smoke_folder: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train_in_one_process(make_config(one, train_file, smoke_folder, lora=lora, batch_size=2 * PER_PROCESS), lora=lora)
    train_in_two_processes(
        launch, make_config(two, train_file, smoke_folder, lora=lora, batch_size=PER_PROCESS), tmp_path / "two.yaml"
    )
    expected, found = (read_log(folder, batch_size=2 * PER_PROCESS) for folder in (one, two))
    assert found["step"].tolist() == expected["step"].tolist() == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    assert found["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-5)
    assert found["grad_norm"].tolist() == pytest.approx(expected["grad_norm"].tolist(), rel=1e-4)

    assert [folder.name for folder in two.glob("epoch_*")] == ["epoch_1"], "of earlier epochs there are only states"
    start = weights(smoke_folder)
    learned, as_one = weights(two / "epoch_1") - start, weights(one / "epoch_1") - start
    assert learned.norm() > 1e-3 * start.norm(), "it learns, so a wrong update would show"
    assert (learned - as_one).norm() < 1e-2 * as_one.norm()


def test_what_it_cannot_do_is_said_before_any_work(train_file: Path, smoke_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, train_file, smoke_folder, lora=False, batch_size=1)
    with pytest.raises(RuntimeError, match="--nproc_per_node 2"):
        distributed_recipe(config)
    config.tensor_parallel_dim = 2
    with pytest.raises(ValueError, match="tensor_parallel_dim=2"):
        distributed_recipe(config)
