"""What torchtune loads by name from our configs: the tokenizer, and training rows as token ids with labels.

Does not: write or parse training files (`guard_utils.formatter`), pack rows (`shared_prefix`).
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from guard_utils.policy import PII, Taxonomy, find_policy
from guard_utils.prompt import GuardPrompt
from guard_utils.training_rows import read_training_row


class RecipeTokenizer:
    """A folder's `transformers` tokenizer in `tokenizer`, and the `pad_id` that torchtune's recipes ask for."""

    def __init__(self, path: str) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(path)
        pad_id = self.tokenizer.pad_token_id
        self.pad_id: int = self.tokenizer.eos_token_id if pad_id is None else pad_id


class GuardDataset(Dataset[dict[str, Any]]):
    """Rows as `tokens`, `labels` (the answer and its end token; -100 elsewhere) and `prefix_length`.

    With `evidence`, the last token of some labelled values has a label too: the last token of the value's code, or of
    `safe`. So the model learns where a violation is while it reads, not only that there is one; nothing is added to
    the prompt, and answers are asked for as before.

    Args:
        source: JSON-lines file of `write_training_file`.
        taxonomy: Name or YAML file of the policy that the rows' codes belong to.
        evidence: Most values of a text that are labelled; 0 labels answers alone.

    Raises:
        FileNotFoundError: No such file.
        ValueError: An unknown policy, an empty file, or rows that can't be trained on: file, line, what and fix.
    """

    def __init__(self, tokenizer: RecipeTokenizer, *, source: str, taxonomy: str = PII.name, evidence: int = 0) -> None:
        policy = find_policy(taxonomy)
        if not Path(source).exists():
            raise FileNotFoundError(f"no training file {source}; run notebook 02 to make it")
        self.source = source
        self._tokenizer = tokenizer.tokenizer
        self._prompts: dict[tuple[Taxonomy, str], GuardPrompt] = {}
        self._evidence = evidence
        # Prompt, ids after its prefix, and their labels.
        self._rows: list[tuple[GuardPrompt, array[int], array[int]]] = []
        faults: list[str] = []
        # Bytes that are no UTF-8 become lone surrogates, which the prompt refuses.
        with open(source, encoding="utf-8", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{source}:{number}"
                try:
                    self._read(line, policy, where)
                except ValueError as error:
                    faults.append(f"{where}: {str(error).removeprefix(f'{where}: ')}")
        if faults:
            shown = [*faults[:20], f"and {len(faults) - 20:,} more"] if len(faults) > 20 else faults
            raise ValueError("\n  ".join([f"{len(faults):,} training rows can't be trained on:", *shown]))
        if not self._rows:
            raise ValueError(f"training file {source} is empty; run notebook 02 again")

    def _read(self, line: str, taxonomy: Taxonomy, where: str) -> None:
        row = read_training_row(line, taxonomy, where=where)
        role: Any = row.turns[-1][0]
        if (row.policy, role) not in self._prompts:
            self._prompts[row.policy, role] = GuardPrompt(row.policy, self._tokenizer, role=role)
        prompt = self._prompts[row.policy, role]
        ids, answer = prompt.training_ids(row.turns, row.verdict)  # type: ignore[arg-type]
        rest = ids[len(prompt.prefix_ids) :]
        labels = [CROSS_ENTROPY_IGNORE_IDX] * (len(rest) - answer) + list(rest[-answer:])
        every = -(-len(row.evidence) // max(1, self._evidence))  # thinned evenly
        shown = row.evidence[::every] if self._evidence and row.evidence else ()
        places = prompt.evidence(row.turns, [end for end, _ in shown]) if shown else []  # type: ignore[arg-type]
        for place, (_, code) in zip(places, shown, strict=True):
            labels[place + 1] = self._tokenizer(code, add_special_tokens=False)["input_ids"][-1]
        self._rows.append((prompt, array("l", rest), array("l", labels)))

    @property
    def frames(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Ids of prefix and tail of each prompt, in the order of the rows: the policies as the model sees them."""
        return [(prompt.prefix_ids, prompt.tail_ids) for prompt in self._prompts.values()]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        prompt, rest, labels = self._rows[index]
        start = len(prompt.prefix_ids)
        return {
            "tokens": [*prompt.prefix_ids, *rest],
            "labels": [CROSS_ENTROPY_IGNORE_IDX] * start + list(labels),
            "prefix_length": start,
        }
