"""A config is checked before any work, all faults in one error, and what decides a training makes another one of it."""

import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchtune
import yaml
from omegaconf import OmegaConf
from torchtune._recipe_registry import get_all_recipes
from torchtune.config import validate

from guard_utils import files, prompt
from guard_utils.policy import PII, POLICIES, Taxonomy
from guard_utils.profiles import PROFILES, Run, repository
from guard_utils.training.config import _CODE, TrainingError, check_config, fingerprint
from guard_utils.training.dataset import GuardDataset, RecipeTokenizer

CONFIGS = sorted((repository() / "torchtune_configs").glob("*.yaml"))
STOCK = ("full_finetune_single_device", "full_finetune_distributed")
STOCK += ("lora_finetune_single_device", "lora_finetune_distributed")


@pytest.fixture
def smoke(settings: Callable[..., Any], tmp_path: Path) -> Any:
    return settings(tmp_path / "out")


def faults(config: Any, *, processes: int = 1) -> dict[str, str]:
    """Key to what is said about it."""
    try:
        check_config(OmegaConf.to_container(config, resolve=True), processes=processes)
    except TrainingError as error:
        lines = re.findall(r"^  (\d+)\. (\S+) = (.*)$", str(error), re.MULTILINE)
        assert [int(number) for number, *_ in lines] == list(range(1, len(lines) + 1)) and lines
        return {key: says for _, key, says in lines}
    return {}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_ours_is_without_fault(path: Path, tmp_path: Path) -> None:
    config = OmegaConf.load(path)
    config.update(model_dir=str(tmp_path), train_file=__file__, output_dir=str(tmp_path))
    for name in config.checkpointer.checkpoint_files:
        (tmp_path / name).touch()  # Llama Guard's weights are gated: empty files stand for them
    assert set(faults(config)) <= ({"device"} if not torch.cuda.is_available() else set())


def test_every_profile_has_its_config_and_every_config_its_profile() -> None:
    assert {f"{name}.yaml" for name in PROFILES} == {path.name for path in CONFIGS} - {"own.yaml"}, "own: notebook 07"
    assert PROFILES["laptop"].train_rows % 32 == 0, "a part of a batch would be dropped"


def test_torchtunes_own_configs_are_without_fault_but_for_what_is_not_installed() -> None:
    folder, checked = Path(torchtune.__file__).parents[1] / "recipes" / "configs", 0
    for shipped in (config for recipe in get_all_recipes() if recipe.name in STOCK for config in recipe.configs):
        if (folder / shipped.file_path).exists() and "vision" not in shipped.file_path:
            found = faults(OmegaConf.load(folder / shipped.file_path))
            here = ("cuda", "/tmp/", "No module named 'bitsandbytes'", "leaves no model to score")
            assert all(any(sign in fault for sign in here) for fault in found.values()), (shipped.name, found)
            checked += 1
    assert checked > 50


def test_five_different_faults_are_told_in_one_error(smoke: Any) -> None:
    smoke.update(shufle=True, train_file="/no/file", dtype="bf61")
    validate(smoke)  # torchtune itself finds nothing
    smoke.optimizer.lrr, smoke.loss._component_ = 1e-3, "torch.nn.CrossEntropyLos"
    found = faults(smoke)
    assert set(found) == {"shufle", "optimizer.lrr", "train_file", "loss._component_", "dtype"}
    assert found["shufle"] == "True: unknown key; did you mean 'shuffle'?"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("optimizer.amsgradd", True, "did you mean 'amsgrad'?"),
        ("model.embed_dimm", 64, "did you mean 'embed_dim'?"),
        ("wandb_project", "mine", "nothing reads it"),
        ("recipe", "guard_utils/training/recipe_distributed.py", "no name 'recipe_distributed'"),
        ("recipe", "full_finetune_single_device", ""),
        ("collate_fn", "guard_utils.training.shared_prefix.no_such", "no attribute 'no_such'"),
        ("loss._component_", "guard_utils.training.shared_prefix", "not a callable"),
        ("batch_size", 0, "at least 1"),
        ("epochs", 1.5, "at least 1"),
        ("gradient_accumulation_steps", None, "at least 1"),
        ("max_steps_per_epoch", -1, "at least 1"),
        ("save_every_n_steps", None, ""),
        ("clip_grad_norm", None, ""),
        ("profiler", {"enabled": False}, ""),
        ("checkpointer.checkpoint_files", ["other.safetensors"], "other.safetensors"),
        ("tokenizer.path", "/no/folder", "no such file"),
        ("device", "gpu", "cpu or cuda"),
        ("device", "npu:1", "2 needed, 0 here"),
        ("log_every_n_steps", None, "at least 1"),
        ("save_adapter_weights_only", True, "no model to score"),
        ("optimizer_in_bwd", True, "no LoRA, clipping or accumulation"),
        ("enable_activation_offloading", True, "needs a GPU"),
        ("tensor_parallel_dim", 2, "can't share a prefix"),
        ("model.attn_dropout", 0.1, "give 0.0"),
        ("loss._component_", "torchtune.modules.loss.CEWithChunkedOutputLoss", "give torch.nn.CrossEntropyLoss"),
        ("metric_logger._component_", "torchtune.training.metric_logging.TensorBoardLogger", "DiskLogger"),
        ("lr_scheduler", None, ""),
        ("dtype", "fp16", "bf16 or fp32"),
        ("autocast", "bf16", "bfloat16 or null"),
    ],
)
def test_each_fault_is_found_where_it_is(smoke: Any, key: str, value: Any, says: str) -> None:
    OmegaConf.update(smoke, key, value, merge=False)
    found = faults(smoke)
    assert list(found) == ([key] if says else [])
    assert says in found.get(key, "")


@pytest.mark.parametrize("device", ["cuda", "mps", "xpu"])
def test_a_device_that_is_not_here_is_a_fault(smoke: Any, device: str) -> None:
    smoke.device = device
    count = torch.get_device_module(device).device_count()
    assert f"{count + 1} needed, {count} here" in faults(smoke, processes=count + 1)["device"]


def test_what_adapters_do_not_go_with_is_a_fault(smoke: Any, lora: dict[str, Any]) -> None:
    smoke.update(lr_scheduler=None, optimizer_in_bwd=True, clip_grad_norm=None)
    assert faults(smoke) == {}
    smoke.model.update(lora)
    smoke.model.use_dora = True
    assert set(faults(smoke)) == {"lr_scheduler", "optimizer_in_bwd", "model.use_dora"}


def test_conda_environment_installs_what_pyproject_pins() -> None:
    environment = yaml.safe_load((repository() / "environment.yml").read_text())
    project = tomllib.loads((repository() / "pyproject.toml").read_text())["project"]
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["--editable .[dev]"]
    assert f"python{project['requires-python']}" in conda
    # Versions stand in one place only.
    assert not [entry for entry in conda if "==" in entry]
    pinned = {requirement.split("==")[0] for requirement in project["dependencies"] if "==" in requirement}
    assert {"torch", "torchtune", "torchao", "transformers", "datasets"} <= pinned


@pytest.fixture(scope="module")
def mark(run: Run, train_file: Path, smoke_folder: Path) -> Callable[..., str]:
    """The fingerprint of a training."""
    tokenizer = RecipeTokenizer(str(smoke_folder))

    def make(run: Run = run, source: Path = train_file, processes: int = 1) -> str:
        return fingerprint(run, GuardDataset(tokenizer, source=str(source)), processes=processes)

    return make


def test_policy_and_prompt_enter_as_the_model_sees_them(mark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before, last = mark(), PII.categories[-1]
    changed = {replace(last, name="Card"), replace(last, description="A card."), replace(last, description="")}
    found = {before}
    for category in changed:
        with monkeypatch.context() as patch:
            patch.setitem(POLICIES, "pii", Taxonomy("pii", (*PII.categories[:-1], category)))
            found.add(mark())
    with monkeypatch.context() as patch:
        patch.setattr(prompt, "ASSESSMENT", prompt.ASSESSMENT.replace("safety assessment", "verdict"))
        found.add(mark())
    assert len(found) == 5 and mark() == before


def test_config_rows_and_processes_enter_but_not_what_only_says_where(
    mark: Any, run: Run, train_file: Path, elsewhere: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, there = mark(), elsewhere({}).folder / "train.jsonl"
    there.parent.mkdir(parents=True)
    shutil.copy(train_file, there)
    same: list[dict[str, Any]] = [{}, {"save_every_n_steps": 9}, {"threads": 1}]
    assert {mark(elsewhere(options), there) for options in same} == {before}
    other: list[dict[str, Any]] = [{"batch_size": 8}, {"dtype": "bf16"}, {"epochs": 2}, {"model": {"norm_eps": 1e-6}}]
    assert len({before, *(mark(elsewhere(options), there) for options in other)}) == 5
    there.write_text(train_file.read_text().replace(': "safe"', ': "unsafe\\nS1"', 1))
    plain = elsewhere({})
    assert before not in {mark(plain, there), mark(plain, train_file, 2), mark(replace(plain, seed=1), train_file)}
    monkeypatch.setattr(Run, "dtype", "bf16")
    assert mark(plain, train_file) != before


def test_an_asset_is_known_by_its_hash_and_another_model_by_config_and_size(
    mark: Any, smoke_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, copy = mark(), tmp_path / "mödel"
    shutil.copytree(smoke_folder, copy)
    monkeypatch.setattr(Run, "model_folder", lambda self: copy)
    assert mark() == before
    for name in (files.DONE, "config.json", "model.safetensors"):
        found = mark()
        with (copy / name).open("a") as file:
            file.write(" ")
        assert mark() != found
        (copy / files.DONE).unlink(missing_ok=True)


def test_code_enters_without_comments_and_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({files.code_fingerprint([name]) for name in _CODE}) == len(_CODE) == 5
    text = '"""What it does."""\n\nA = 1\n"""An attribute."""\n\n\ndef f():\n    """Says so."""\n    return A\n'
    monkeypatch.syspath_prepend(tmp_path)

    def marks(old: str, new: str) -> tuple[str, str]:
        """Of the module and of its function, with something else in it."""
        (tmp_path / "decides.py").write_text(text.replace(old, new))
        sys.modules.pop("decides", None)
        return files.code_fingerprint(["decides"]), files.code_fingerprint(["decides:f"])

    module, function = marks("A", "A")
    same = {"What it does": "Else", "Says so": "Says why", "An attribute": "A number", "\n\n\n": "\n"}
    for old, new in (same | {"return A": "return A  # why"}).items():
        assert marks(old, new) == (module, function), new
    assert not {*marks("return A", "return A + 1")} & {module, function}
    changed, kept = marks("A = 1", "A = 2")
    assert changed != module and kept == function
