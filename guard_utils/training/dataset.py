"""What torchtune loads by name from our configs: the tokenizer, and training rows as token ids with labels.

Does not: write or parse training files (`guard_utils.formatter`), pack rows (`shared_prefix`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from guard_utils.formatter import read_training_row
from guard_utils.policy import PII, POLICIES, Taxonomy
from guard_utils.prompt import GuardPrompt


class RecipeTokenizer:
    """A folder's `transformers` tokenizer in `tokenizer`, and the `pad_id` that torchtune's recipes ask for."""

    def __init__(self, path: str) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(path)
        pad_id = self.tokenizer.pad_token_id
        self.pad_id: int = self.tokenizer.eos_token_id if pad_id is None else pad_id


class GuardDataset(Dataset[dict[str, Any]]):
    """Rows as `tokens`, `labels` (the answer and its end token; -100 elsewhere) and `prefix_length`.

    Args:
        source: JSON-lines file of `write_training_file`.
        taxonomy: Name of the taxonomy that the rows' codes belong to.

    Raises:
        FileNotFoundError: No such file.
        ValueError: An empty file, an unknown taxonomy, or a broken line, with file and line.
    """

    def __init__(self, tokenizer: RecipeTokenizer, *, source: str, taxonomy: str = PII.name) -> None:
        if taxonomy not in POLICIES:
            raise ValueError(f"unknown taxonomy {taxonomy!r} in the config; choose one of {sorted(POLICIES)}")
        if not Path(source).exists():
            raise FileNotFoundError(f"no training file {source}; run notebook 02 to make it")
        lines = Path(source).read_text(encoding="utf-8").splitlines()
        if not lines:
            raise ValueError(f"training file {source} is empty; run notebook 02 again")
        policy = POLICIES[taxonomy]
        self._rows = [read_training_row(line, policy, where=f"{source}:{n}") for n, line in enumerate(lines, 1)]

        @cache
        def prompt(policy: Taxonomy, role: Any) -> GuardPrompt:
            return GuardPrompt(policy, tokenizer.tokenizer, role=role)

        self._prompt = prompt

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[index]
        prompt = self._prompt(row.policy, row.turns[-1][0])
        ids, answer = prompt.training_ids(row.turns, row.verdict)  # type: ignore[arg-type]
        labels = [CROSS_ENTROPY_IGNORE_IDX] * (len(ids) - answer) + list(ids[-answer:])
        return {"tokens": list(ids), "labels": labels, "prefix_length": len(prompt.prefix_ids)}
