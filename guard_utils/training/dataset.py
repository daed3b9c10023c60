"""What torchtune loads by name from our configs: the tokenizer and the rows, as token ids with labels."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from guard_utils.data.examples import Example
from guard_utils.files import write_text
from guard_utils.policy import PII, POLICIES, Taxonomy
from guard_utils.prompt import GuardPrompt
from guard_utils.training.rows import PolicyExample, from_training_row, to_training_row


class RecipeTokenizer:
    """A `transformers` tokenizer with the attribute torchtune's recipes ask for.

    Args:
        path: Folder with `tokenizer.json`.

    Attributes:
        tokenizer: The `transformers` tokenizer.
        pad_id: Id that stock batches are padded with; never seen by the loss.
    """

    def __init__(self, path: str) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(path)
        pad_id = self.tokenizer.pad_token_id
        self.pad_id: int = self.tokenizer.eos_token_id if pad_id is None else pad_id


class GuardDataset(Dataset[dict[str, Any]]):
    """Rows of a training file as `tokens`, `labels` and `prefix_length`; loss on the answer and its end token only.

    Args:
        tokenizer: Made by torchtune from the config's `tokenizer`.
        source: JSON-lines file that `write_training_file` made.
        taxonomy: Name of the taxonomy the rows' codes belong to.

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
        self._tokenizer = tokenizer.tokenizer
        self._rows = [
            from_training_row(line, POLICIES[taxonomy], where=f"{source}:{number}")
            for number, line in enumerate(lines, 1)
        ]
        self._prompt = lru_cache(maxsize=None)(self._make_prompt)

    def _make_prompt(self, policy: Taxonomy, role: Any) -> GuardPrompt:
        return GuardPrompt(policy, self._tokenizer, role=role)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[index]
        prompt = self._prompt(row.policy, row.conversation[-1][0])
        ids, answer = prompt.training_ids(row.conversation, row.verdict)  # type: ignore[arg-type]
        labels = [CROSS_ENTROPY_IGNORE_IDX] * (len(ids) - answer) + list(ids[-answer:])
        return {"tokens": list(ids), "labels": labels, "prefix_length": len(prompt.prefix_ids)}


def write_training_file(examples: Iterable[Example], path: Path, policy: Taxonomy = PII) -> int:
    """Writes examples as training rows under one policy, whole or not at all.

    Args:
        examples: In the order they are to be trained.
        path: JSON-lines file to write.
        policy: Shown to every example.

    Returns:
        Number of rows.
    """
    rows = [to_training_row(PolicyExample((("User", example.text),), example.verdict, policy)) for example in examples]
    write_text(path, "\n".join(rows) + "\n")
    return len(rows)
