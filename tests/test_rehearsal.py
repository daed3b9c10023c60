"""Every Llama Guard profile, from rows to scores, on a stand-in: what a reader with a GPU and a token would run.

Only the dimensions of the config's model, the number of its steps and the device are others.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from peft import PeftModel
from torchtune.config import instantiate
from torchtune.models import convert_weights
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from guard_utils.data import load_splits
from guard_utils.formatter import write_training_file
from guard_utils.metrics import summary
from guard_utils.policy import PII
from guard_utils.profiles import PROFILES, Run, repository
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring import GuardScorer, load_guard, load_model, predict
from guard_utils.training import finetune, launch
from tests.standin import PUBLISHED, config_of, write_model, write_rows
from tools.notebooks import build, execute, sources

pytestmark = pytest.mark.rehearsal
GUARDS = [name for name in PROFILES if name.startswith("guard-")]
SMALL = {"vocab_size": 128256, "num_layers": 2, "num_heads": 2, "embed_dim": 128, "intermediate_dim": 128}
FEW_STEPS = {"epochs": 1, "batch_size": 2, "gradient_accumulation_steps": 1, "max_steps_per_epoch": 6}
ON_THE_STAND_IN = """
from dataclasses import replace
from pathlib import Path
from guard_utils import profiles
profiles._faults = lambda *_: []  # of the machine, which has no GPU
profiles.Run.config_path = property(lambda self: Path({config!r}))
profiles.PROFILES[{name!r}] = replace(profiles.PROFILES[{name!r}], independent_rows=48)
"""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, llama3_tokenizer: Any) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("mirror")
    for name in PUBLISHED:
        write_model(root, name, llama3_tokenizer)
    write_rows(root, 160)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUARD_MIRROR", str(root))
        yield root


@pytest.fixture
def rehearsed(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Run]:
    """A profile's run on the stand-in, with its config but for the model's dimensions and the number of steps."""

    def make(name: str) -> Run:
        config = OmegaConf.load(repository() / "torchtune_configs" / f"{name}.yaml")
        builder = config.model._component_
        config.model._component_ = builder.removesuffix("_8b").removesuffix("_1b").replace("qlora", "lora")
        config.model.update(SMALL, max_seq_len=4096, num_kv_heads=1 if "1b" in name else 2)
        if "qlora" in builder:
            config.model.quantize_base = True
        if "llama3_2" in builder:
            config.model.scale_factor = 32
        config.update(FEW_STEPS, save_every_n_steps=3)
        config.optimizer.lr = 1e-2
        if "lr_scheduler" in config:
            config.lr_scheduler.num_warmup_steps = 0
        path = tmp_path / f"{name}.yaml"
        OmegaConf.save(config, path)
        monkeypatch.setattr(Run, "config_path", property(lambda self: path))
        run = Run(PROFILES[name], PII, 0, mirror / "artifacts" / name)
        vars(run)["dtype"] = "fp32"
        return run

    return make


class TestBeside:  # a scope of its own, so that two workers share the rehearsal
    def test_notebooks_run(self, rehearsed: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch) -> None:
        run = rehearsed("guard-8b-lora")
        monkeypatch.setenv("GUARD_ARTIFACTS", str(run.folder.parent))
        series = [build(source, run.profile.name) for source in sources()[:5]]
        first = nbformat.v4.new_code_cell(ON_THE_STAND_IN.format(config=str(run.config_path), name=run.profile.name))
        series[0].cells = [first, *(cell for notebook in series for cell in notebook.cells)]
        execute(series[0])
        assert (run.folder / "predictions" / "tuned-test.parquet").exists()
        monkeypatch.setattr(launch, "_tune_run", lambda *_: pytest.fail("what the notebooks trained is not found"))
        train_resume_save_and_score(run, monkeypatch)

    def test_guard_1b(self, rehearsed: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch) -> None:
        train_resume_save_and_score(rehearsed("guard-1b"), monkeypatch)


def cut_off(bar: Any, examples: int) -> None:
    """In place of a progress bar's `update`: an interrupt, as of a notebook, at the fifth update of 2 x 2 rows."""
    if examples == 20:
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", [name for name in GUARDS if name not in ("guard-1b", "guard-8b-lora")])
def test_a_profile(name: str, rehearsed: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch) -> None:
    train_resume_save_and_score(rehearsed(name), monkeypatch)


def train_resume_save_and_score(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    name = run.profile.name
    splits = load_splits(run)
    assert min(map(len, (splits.train, splits.validation, splits.test))) >= 8
    file = run.folder / "train.jsonl"
    write_training_file(splits.train, file, run.policy)
    processes = 2 if name == "guard-8b" else 1
    if processes == 2:  # resuming one process has tests of its own
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(launch.tqdm, "update", cut_off)
            finetune(run, file, processes=2, progress=False)
    training = finetune(run, file, processes=processes, progress=False)
    assert len(training.log) == 6 and np.isfinite(training.log["loss"]).all()
    logs = [log.read_text() for log in sorted((run.folder / "training" / "logs").glob("*.txt"))]
    losses = [re.findall(r"Step ([45]) \| loss:(\S+)", log) for log in logs]
    assert len(losses) == processes and losses[0] == losses[-1], "it went on from the third update, as if never cut off"

    base, tokenizer = load_model(run.model_folder(), dtype="fp32")
    prompt = GuardPrompt(run.policy, tokenizer)
    texts = [example.text for example in splits.test[:4]]

    def log_probs(model: Any) -> np.ndarray:
        return GuardScorer(model, prompt, epsilon=0).score(texts, progress=False).log_probs

    guard = load_guard(run)
    assert guard.prompt.chat_format == prompt.chat_format, "the checkpoint keeps the template"
    table = predict(guard, splits.test[:8], progress=False)
    assert len(table) == 8 and 0 <= summary(table, run.policy)["weighted_f1"] <= 1
    tuned, before = log_probs(guard.model), log_probs(base)
    assert np.abs(tuned - before).max() > 0.1, "training changed nothing"
    plain = AutoModelForCausalLM.from_pretrained(training.checkpoint, dtype=torch.float32)
    assert np.abs(log_probs(plain.eval()) - tuned).max() < 1e-4
    if name == "guard-8b":  # what GPU.md says of the published run's labels and prompt
        scope = {"run": run, "tokenizer": tokenizer}
        exec(re.findall(r"(?s)```python\n(from.+?)```", (repository() / "GPU.md").read_text())[0], scope)
        assert scope["prompt"].prefix_ids[:5] == (128000, 128000, 128006, 882, 128007)
        assert file.read_text() != (run.folder / "theirs.jsonl").read_text()
    else:
        adapted = PeftModel.from_pretrained(base, training.checkpoint / "adapter").eval()
        # Merged weights were rounded to bf16, and those of QLoRA to four bits before.
        assert np.abs(log_probs(adapted) - tuned).max() < (0.5 if "qlora" in name else 0.1)


@pytest.mark.parametrize("name", GUARDS)
def test_the_shipped_model_block_fits_the_published_checkpoint(name: str) -> None:
    config = OmegaConf.load(repository() / "torchtune_configs" / f"{name}.yaml")
    config.model._component_ = config.model._component_.replace("qlora", "lora")
    published = config_of(PROFILES[name].model)
    with torch.device("meta"):
        ours = instantiate(config.model).state_dict()
        theirs = LlamaForCausalLM(published).state_dict()
    own = {key: weight for key, weight in ours.items() if "lora_" not in key}
    heads, kv_heads, dim = published.num_attention_heads, published.num_key_value_heads, published.hidden_size
    with torch.device("meta"):
        made = convert_weights.tune_to_hf(own, num_heads=heads, num_kv_heads=kv_heads, dim=dim)
    if published.tie_word_embeddings:
        theirs.pop("lm_head.weight")
    assert {key: weight.shape for key, weight in made.items()} == {key: weight.shape for key, weight in theirs.items()}
