"""A real torchtune run on the smoke model: checkpoint, log, reuse, and what is said when it fails."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from guard_utils.profiles import Run
from guard_utils.training.config import TrainingError, count_steps, resolve_config
from guard_utils.training.dataset import GuardDataset, RecipeTokenizer
from guard_utils.training.launch import DONE, Training, checkpoint, finetune, read_log


@pytest.fixture(scope="module")
def training(run: Run, train_file: Path) -> Training:
    return finetune(run, train_file, progress=False)


def test_log_is_a_table_and_the_loss_falls(run: Run, training: Training) -> None:
    assert checkpoint(run) == training.checkpoint
    assert list(training.log["step"]) == list(range(1, 7))
    assert list(training.log["examples"])[-1] == training.examples == 96
    assert training.log["loss"].iloc[-1] < training.log["loss"].iloc[0]


def test_a_step_that_two_launches_logged_stands_once(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    first = "Step 1 | loss:3.0 \nStep 2 | loss:2.5 \nStep 3 | loss:9.0 \n"
    (tmp_path / "logs" / "log_1000000001.txt").write_text(first)
    (tmp_path / "logs" / "log_1000000002.txt").write_text("Step 3 | loss:2.0 \nStep 4 | loss:1.5 \n")
    log = read_log(tmp_path, batch_size=8)
    assert list(log["step"]) == [1, 2, 3, 4] and list(log["loss"]) == [3.0, 2.5, 2.0, 1.5]
    assert list(log["examples"]) == [8, 16, 24, 32]


def test_a_finished_training_is_reused_where_it_was_moved(run: Run, training: Training, tmp_path: Path) -> None:
    moved = replace(run, folder=tmp_path / "bei Jürgen" / "smoke")
    shutil.copytree(run.folder, moved.folder)
    for place in (run, moved):
        finished = (place.folder / "training" / DONE).stat().st_mtime_ns
        again = finetune(place, place.folder / "train.jsonl", progress=False)
        assert again.seconds == training.seconds and again.checkpoint == place.folder / "training" / "epoch_0"
        assert (place.folder / "training" / DONE).stat().st_mtime_ns == finished
    pd.testing.assert_frame_equal(again.log, training.log)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "component": ({"optimizer": {"_component_": "torch.optim.AdamWW"}}, "AdamWW"),
    "no step": ({"batch_size": 97}, "96 examples in 1 process.* make 0 steps"),
    "no step of several batches": ({"gradient_accumulation_steps": 7}, "make 0 steps"),
    "no step in the log": ({"log_every_n_steps": 7}, "make 6 steps, log_every_n_steps=7 logs none"),
    "long batches": ({"model": {"max_seq_len": 900}}, "16 longest examples has .* model.max_seq_len is 900; raise it"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_an_untrainable_run_is_refused_first(train_file: Path, elsewhere: Callable[..., Run], case: str) -> None:
    options, says = FAULTS[case]
    other = elsewhere(options)
    kept = other.folder / "training" / "epoch_0" / "kept"
    kept.mkdir(parents=True)
    with pytest.raises(TrainingError, match=says):
        finetune(other, train_file, progress=False)
    assert kept.exists()


def test_a_missing_or_empty_training_file_is_refused(elsewhere: Callable[..., Run], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="train_file = .*run the notebook that makes it"):
        finetune(elsewhere({}), tmp_path / "none.jsonl")
    (tmp_path / "none.jsonl").touch()
    with pytest.raises(ValueError, match="is empty; run notebook 02"):
        finetune(elsewhere({}), tmp_path / "none.jsonl")


def test_steps_are_those_of_several_processes(run: Run, train_file: Path, smoke_folder: Path) -> None:
    config = resolve_config(run, train_file) | {"batch_size": 19, "epochs": 2}
    dataset = GuardDataset(RecipeTokenizer(str(smoke_folder)), source=str(train_file))
    # The sampler gives each of 5 processes 20 of 96 rows, some of them twice.
    assert [count_steps(config, dataset, processes=n) for n in (1, 2, 5)] == [10, 4, 2]
    with pytest.raises(TrainingError, match="96 examples in 6 process"):
        count_steps(config, dataset, processes=6)


@pytest.mark.parametrize("folder", ["/sys/guard", __file__])
def test_an_output_folder_that_can_not_be_written_is_one_sentence(run: Run, train_file: Path, folder: str) -> None:
    with pytest.raises(TrainingError, match=f"can't train in {folder}/smoke: .*set GUARD_ARTIFACTS") as caught:
        finetune(replace(run, folder=Path(folder) / "smoke"), train_file)
    assert "\n" not in str(caught.value)


def test_the_loss_is_on_the_answer_and_a_file_is_needed(smoke_folder: Path, train_file: Path, tmp_path: Path) -> None:
    tokenizer = RecipeTokenizer(str(smoke_folder))
    dataset, lines = GuardDataset(tokenizer, source=str(train_file)), train_file.read_text().splitlines()
    for i in range(20):
        row = dataset[i]
        labels = [label for label in row["labels"] if label != -100]
        assert row["labels"][-len(labels) :] == labels == row["tokens"][-len(labels) :]
        assert tokenizer.tokenizer.decode(labels[:-1]) == json.loads(lines[i])["answer"]
    broken = tmp_path / "broken.jsonl"
    with pytest.raises(FileNotFoundError, match="notebook 02"):
        GuardDataset(tokenizer, source=str(broken))
    # Line breaks of Unicode are no line breaks of the file.
    broken.write_text('{"policy": ["S1"], "turns": [["User", "a\x85b\u2028c"]], "answer": "safe"}\n')
    assert len(GuardDataset(tokenizer, source=str(broken))) == 1


def test_values_are_labelled_where_they_end(smoke_folder: Path, tmp_path: Path) -> None:
    tokenizer = RecipeTokenizer(str(smoke_folder))
    text = "  Ms Zo\u00eb Ash\u200b, order 4711, asks from 10.0.0.1 "
    ends = [(text.index(value) + len(value), code) for value, code in (("Ash", "S1"), ("4711", "safe"), ("0.1", "S2"))]
    turns = [["User", "Hi"], ["Agent", "Yes?"], ["User", text]]
    row = {"policy": ["S1", "S2"], "turns": turns, "answer": "unsafe\nS1,S2", "evidence": ends}
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(row) + "\n")
    examples = [GuardDataset(tokenizer, source=str(source), evidence=most)[0] for most in (0, 1, 2, 8)]
    answer = sum(label != -100 for label in examples[0]["labels"])
    read, found = tokenizer.tokenizer.decode, []
    for example in examples:
        tokens, labels = example["tokens"], example["labels"]
        assert labels[-answer:] == tokens[-answer:]
        early = [place for place, label in enumerate(labels[:-answer]) if label != -100]
        found.append([(read(tokens[:place])[-3:], read(labels[place])) for place in early])
    name, order, address = ("Ash", "1"), ("711", "safe"), ("0.1", "2")
    assert found == [[], [name], [name, address], [name, order, address]]


def test_every_untrainable_row_is_listed_at_once(smoke_folder: Path, train_file: Path, tmp_path: Path) -> None:
    def row(text: str) -> bytes:
        return json.dumps({"policy": ["S1"], "turns": [["User", text]], "answer": "safe"}).encode()

    good = train_file.read_bytes().splitlines()[:16]
    bad = [b'{"text": "?"}', row("many " * 3000), row(" \n"), row("\ud800"), row("caf").replace(b"caf", b"caf\xe9")]
    broken = tmp_path / "broken.jsonl"
    for lines, count, more in (([*good, *bad], "5", ""), (bad * 300, "1,500", "and 1,480 more")):
        broken.write_bytes(b"\n".join(lines))
        with pytest.raises(ValueError, match=f"^{count} training rows can't be trained on") as caught:
            GuardDataset(RecipeTokenizer(str(smoke_folder)), source=str(broken))
        _, *listed = str(caught.value).splitlines()
        assert listed[20:] == ([f"  {more}"] if more else [])
        first = len(lines) - 5 if not more else 0
        for number, says in enumerate(("row is", "3000 tokens", "is empty", "lone surrogate", "lone surrogate")):
            assert f"broken.jsonl:{first + number + 1}: " in listed[number] and says in listed[number]
