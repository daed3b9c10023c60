"""What decides a training's result makes another one of it; where it lies and what is said about it do not."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard_utils import files, prompt
from guard_utils.policy import PII, POLICIES, Taxonomy
from guard_utils.profiles import Run
from guard_utils.training import config
from guard_utils.training.dataset import GuardDataset, RecipeTokenizer


@pytest.fixture(scope="module")
def mark(run: Run, train_file: Path, smoke_folder: Path) -> Callable[..., str]:
    """The fingerprint of a training."""
    tokenizer = RecipeTokenizer(str(smoke_folder))

    def make(run: Run = run, source: Path = train_file, processes: int = 1) -> str:
        return config.fingerprint(run, GuardDataset(tokenizer, source=str(source)), processes=processes)

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
    assert len({files.code_fingerprint([name]) for name in config._CODE}) == len(config._CODE) == 5
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
