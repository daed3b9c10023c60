"""A run's tuned guard, and whole files of texts scored with it, as often as that is cut off.

A result has a row for each of the file, in its order: `row` (from 1), `id`, `predicted`, `p_<code>`..., `p_unsafe`,
`outside`; and `fault`, empty where the row was scored, else why not. Does not: compare answers with labels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm
from transformers import AutoTokenizer

from guard_utils.data.own_rows import Row, read_file
from guard_utils.files import DONE, code_fingerprint, write_table, write_text, write_whole
from guard_utils.profiles import Run
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring.scorer import DTYPES, GuardScorer, load_model
from guard_utils.training.adapters import adapter_facts, guard_adapter, load_adapter
from guard_utils.training.launch import checkpoint, checkpoint_fingerprint

_CODE = ("guard_utils.prompt", "guard_utils.scoring.trie", "guard_utils.scoring.scorer")
CHUNK = 256  # rows that are scored and saved at a time; a kill costs at most these


def load_guard(run: Run, *, or_untrained: bool = False, **settings: Any) -> GuardScorer:
    """Loads a run's own fine-tuned model, else the guard that comes with the series, and says which.

    Args:
        run: Whose guard.
        or_untrained: Whether to take the profile's model as it is where there is neither.
        settings: Those of `GuardScorer`.

    Raises:
        FileNotFoundError: There is no guard.
        ValueError: The guard that comes with the series is refused; see `load_adapter`.
    """
    adapter, told = None, f"none; this is {run.profile.model} before training, which notebook 03 does"
    try:
        adapter = guard_adapter(run)
        folder = run.model_folder() if adapter else checkpoint(run)
        told = "the one that comes with the series; notebook 03 trains your own" if adapter else "the one you trained"
    except FileNotFoundError:
        if not or_untrained:
            raise
        folder = run.model_folder()
    model, tokenizer = load_model(folder, dtype="fp32" if adapter else run.dtype, device=run.device)
    prompt = GuardPrompt(run.policy, tokenizer, role=run.profile.role)
    if adapter:
        load_adapter(model, adapter, prompt=prompt)
        for weight in model.parameters():  # buffers stay: transformers keeps rotary frequencies in fp32, too
            weight.data = weight.data.to(DTYPES[run.dtype])
    print(f"guard: {told}", file=sys.stderr)
    return GuardScorer(model, prompt, **settings)


def guard_facts(run: Run, **settings: Any) -> dict[str, Any]:
    """What decides the answers of the guard that `load_guard` loads, besides texts: `settings` are those of both.

    Raises FileNotFoundError where there is none; see `guard_adapter`.
    """
    adapter = guard_adapter(run)
    decides = adapter_facts(adapter)["sha256"] if adapter else checkpoint_fingerprint(run)
    return {"dtype": run.dtype, "settings": settings, "code": code_fingerprint(_CODE), "checkpoint": decides}


def export_guard(run: Run, folder: Path) -> Path:
    """Writes the guard of a run, in the precision of its scoring, as a folder that `transformers` and vLLM load.

    So does a profile whose `model` it is. An older folder is replaced; errors are those of `load_guard`.
    """
    guard = load_guard(run)

    def write(made: Path) -> None:
        guard.model.save_pretrained(made)
        AutoTokenizer.from_pretrained(run.model_folder()).save_pretrained(made)
        # A training that starts from this folder is another one where this says something else.
        source = {"name": run.profile.name, "source": guard_facts(run)["checkpoint"]}
        write_text(made / DONE, json.dumps(source) + "\n")

    return write_whole(folder, write)


def score_file(run: Run, file: Path, output: Path, *, shard: tuple[int, int] = (1, 1)) -> pd.DataFrame:
    """Scores the texts of a file into a table; the same call goes on where one was cut off, to the same table.

    Args:
        run: Whose guard scores; see `load_guard`.
        file: `.jsonl`, `.csv` or `.parquet`, with a column `text`, and `id` where rows have names.
        output: Parquet file to write. Until all is done, `<output>.parts/` holds what is.
        shard: Number of a part, from 1, and of all parts; their tables, one after another, are that of the whole.

    Raises:
        FileNotFoundError: There is no such file, or no guard.
        ValueError: The file can't be read, would be overwritten, has no column of texts, or too few rows for so many
            parts.
    """
    if output.resolve() == file.resolve():
        raise ValueError(f"{output} is the file of texts; write the result to another")
    rows = read_file(file)
    number, count = shard
    chunks = [range(start, min(start + CHUNK, len(rows))) for start in range(0, len(rows), CHUNK)]
    if count > len(chunks):
        raise ValueError(f"{count} shards of {file} asked for; it has {len(rows)} rows, so take at most {len(chunks)}")
    chunks = chunks[len(chunks) * (number - 1) // count : len(chunks) * number // count]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    facts = json.dumps({"file": digest, "shard": shard, "policy": repr(run.policy), **guard_facts(run)}, indent=2)
    folder = output.with_name(f"{output.name}.parts")
    made_from = folder / "facts.json"
    if not made_from.exists() or made_from.read_text(encoding="utf-8") != facts:
        if folder.exists():
            shutil.rmtree(folder)  # of another file, guard or shard
        write_text(made_from, facts)
    parts = {folder / f"{chunk.start}.parquet": chunk for chunk in chunks}
    missing = [part for part in parts if not part.exists()]
    if missing:
        guard = load_guard(run)
        total, left = sum(map(len, chunks)), sum(len(parts[part]) for part in missing)
        with tqdm(desc="scoring", total=total, initial=total - left, unit=" texts") as bar:
            for part in missing:
                write_table(part, _score(guard, rows, parts[part]))
                bar.update(len(parts[part]))
    table = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    write_table(output, table)
    shutil.rmtree(folder)
    return table


def _score(guard: GuardScorer, rows: list[Row], chunk: range) -> pd.DataFrame:
    """The result's rows of a chunk."""
    ids, texts, faults = list[str](), list[Any](), list[str]()
    for number in chunk:
        fields, fault = rows[number]
        name: Any = fields.get("id")
        text: Any = fields.get("text")
        if not fault:
            try:
                guard.prompt.segments(text)
            except (TypeError, ValueError) as error:
                fault = str(error)
        ids.append(str(number + 1 if pd.isna(name) else name).encode(errors="backslashreplace").decode())
        texts.append(text)
        faults.append(fault)
    good = [place for place, fault in enumerate(faults) if not fault]
    scores = guard.score([texts[place] for place in good], progress=False)
    answers = pd.DataFrame({"predicted": [list(verdict.codes) for verdict in scores.best]}, index=good)
    for code, marginals in zip(scores.codes, scores.marginals.T, strict=True):
        answers[f"p_{code}"] = marginals
    answers = answers.assign(p_unsafe=scores.unsafe, outside=scores.outside)
    return pd.DataFrame({"row": [number + 1 for number in chunk], "id": ids}).join(answers).assign(fault=faults)
