"""Exact probabilities of every verdict, in one forward pass a batch.

The 32 verdicts of five categories, as token strings, form a small trie. Each prompt's conversation and tail are
followed by the trie's nodes under a mask in which a node sees its prompt and its ancestors only, at the position it
would have in its own answer. The log-probabilities along a path sum to the exact joint log-probability of a verdict,
end token included. The policy's prefix is run once and its key-value cache shared. Nothing is generated and nothing
is parsed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from guard_utils.datasets import Example
from guard_utils.predictions import predictions_table
from guard_utils.prompt import GuardPrompt, Segments, Turn
from guard_utils.verdict import Verdict, all_verdicts


@dataclass(frozen=True)
class VerdictTrie:
    """Token strings of verdicts that share their beginnings.

    Attributes:
        verdicts: In the order of `Scores.log_probs`' columns.
        tokens: [nodes] token of each node; parents stand before their children.
        parents: [nodes] index of the parent, -1 for children of the root (the prompt's last token).
        ends: [verdicts] node after which the verdict's end token comes.
        end_id: The end token.
    """

    verdicts: tuple[Verdict, ...]
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    ends: tuple[int, ...]
    end_id: int

    @classmethod
    def build(cls, prompt: GuardPrompt, *, max_violations: int | None = None) -> VerdictTrie:
        """Builds the trie of a prompt's policy; see `all_verdicts` for `max_violations`."""
        verdicts = all_verdicts(prompt.policy, max_violations=max_violations)
        index: dict[tuple[int, int], int] = {}
        ends = []
        for verdict in verdicts:
            node = -1
            for token in prompt.answer_ids(verdict)[:-1]:
                node = index.setdefault((node, token), len(index))
            ends.append(node)
        parents, tokens = zip(*index, strict=True)
        return cls(tuple(verdicts), tokens, parents, tuple(ends), prompt.end_id)

    def depths(self) -> list[int]:
        """Distance of each node from the prompt's last token."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return depths

    def visible(self) -> Tensor:
        """[nodes, nodes] bool: whether the row's node sees the column's, that is, itself and its ancestors."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


@dataclass(frozen=True)
class Scores:
    """What a guard thinks of some texts.

    Attributes:
        verdicts: Every verdict of the policy (up to the cap on violations).
        log_probs: [texts, verdicts] natural log of the joint probability, end token included.
        codes: Of the policy.
    """

    verdicts: tuple[Verdict, ...]
    log_probs: np.ndarray
    codes: tuple[str, ...]

    @property
    def marginals(self) -> np.ndarray:
        """[texts, categories] probability that the answer is a verdict with the category."""
        contains = np.array([[code in verdict.codes for code in self.codes] for verdict in self.verdicts])
        return np.minimum(np.exp(self.log_probs) @ contains, 1.0)

    @property
    def unsafe(self) -> np.ndarray:
        """[texts] probability that the answer is an unsafe verdict."""
        return np.minimum(np.exp(self.log_probs[:, [not v.is_safe for v in self.verdicts]]).sum(axis=1), 1.0)

    @property
    def outside(self) -> np.ndarray:
        """[texts] probability of anything else: the model's own parse-failure mass (and verdicts beyond the cap)."""
        return np.clip(1.0 - np.exp(self.log_probs).sum(axis=1), 0.0, 1.0)

    @property
    def best(self) -> list[Verdict]:
        """The most probable verdict of each text."""
        return [self.verdicts[i] for i in self.log_probs.argmax(axis=1)]


class GuardScorer:
    """Scores texts under one policy.

    Args:
        model: A `transformers` causal language model of the Llama family, in evaluation mode.
        prompt: The prompt it was trained on.
        max_violations: Cap on the codes of one verdict, for policies with many categories.
        batch_tokens: Rough number of tokens in one forward pass; smaller needs less memory.
    """

    def __init__(
        self, model: Any, prompt: GuardPrompt, *, max_violations: int | None = None, batch_tokens: int = 2048
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.batch_tokens = batch_tokens
        self.trie = VerdictTrie.build(prompt, max_violations=max_violations)
        self._depths = torch.tensor(self.trie.depths())
        self._visible = self.trie.visible()
        with torch.inference_mode():
            prefix = torch.tensor([prompt.prefix_ids], device=model.device)
            self._prefix_cache = model(prefix, use_cache=True, logits_to_keep=1).past_key_values

    def score(self, texts: Sequence[str | Sequence[Turn]], *, progress: bool = True) -> Scores:
        """Scores texts.

        Args:
            texts: Messages or conversations; see `GuardPrompt.segments`.
            progress: Whether to show a bar with a rate.

        Returns:
            Scores in the order of the texts.

        Raises:
            ValueError, TypeError: As `GuardPrompt.segments`, with the place of the text.
        """
        segments = []
        for number, text in enumerate(texts):
            try:
                segments.append(self.prompt.segments(text))
            except (TypeError, ValueError) as error:
                raise type(error)(f"text {number}: {error}") from error
        order = sorted(range(len(texts)), key=lambda i: (len(segments[i].conversation_ids), i))
        log_probs = np.empty((len(texts), len(self.trie.verdicts)))
        with tqdm(total=len(texts), unit=" prompts", desc="scoring", disable=not progress) as bar:
            for batch in self._batches(order, segments):
                log_probs[batch] = self._score_batch([segments[i] for i in batch])
                bar.update(len(batch))
        return Scores(self.trie.verdicts, log_probs, self.prompt.policy.codes)

    def _batches(self, order: Sequence[int], segments: Sequence[Segments]) -> list[list[int]]:
        """Cuts texts in order of length so that no batch is larger than `batch_tokens`, one text at the least."""
        batches: list[list[int]] = []
        for i in order:
            size = len(segments[i].conversation_ids) + len(segments[i].tail_ids) + len(self.trie.tokens)
            if batches and size * (len(batches[-1]) + 1) <= self.batch_tokens:
                batches[-1].append(i)
            else:
                batches.append([i])
        return batches

    @torch.inference_mode()
    def _score_batch(self, batch: Sequence[Segments]) -> np.ndarray:
        nodes, device = len(self.trie.tokens), self.model.device
        ids, positions, mask = (tensor.to(device) for tensor in self._inputs(batch))
        cache = copy.deepcopy(self._prefix_cache)
        cache.batch_repeat_interleave(len(batch))
        bias = torch.zeros(mask.shape, dtype=self.model.dtype, device=device)
        bias.masked_fill_(~mask, torch.finfo(self.model.dtype).min)
        output = self.model(
            ids, attention_mask=bias, position_ids=positions, past_key_values=cache, logits_to_keep=nodes + 1
        )
        logits = output.logits.float()
        # Column 0 predicts the root's children, column 1 + i those of node i.
        total = logits.logsumexp(dim=-1)
        parents = torch.tensor(self.trie.parents, device=device) + 1
        ends = torch.tensor(self.trie.ends, device=device) + 1
        tokens = torch.tensor(self.trie.tokens, device=device)
        steps = (logits[:, parents, tokens] - total[:, parents]).double().cpu()
        end_steps = (logits[:, ends, self.trie.end_id] - total[:, ends]).double().cpu()
        paths = steps @ self._visible.double().T
        return np.asarray(paths[:, list(self.trie.ends)] + end_steps)

    def _inputs(self, batch: Sequence[Segments]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and positions [batch, length], mask [batch, 1, length, prefix + length]; padding stands on the left."""
        prefix, nodes = len(self.prompt.prefix_ids), len(self.trie.tokens)
        bodies = [list(s.conversation_ids + s.tail_ids) for s in batch]
        longest = max(map(len, bodies))
        length = longest + nodes
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        positions = torch.zeros(len(batch), length, dtype=torch.long)
        mask = torch.zeros(len(batch), 1, length, prefix + length, dtype=torch.bool)
        mask[..., :prefix] = True
        for row, body in enumerate(bodies):
            start = longest - len(body)
            ids[row, start:longest] = torch.tensor(body)
            ids[row, longest:] = torch.tensor(self.trie.tokens)
            positions[row, start:longest] = torch.arange(prefix, prefix + len(body))
            positions[row, longest:] = prefix + len(body) - 1 + self._depths
            own = mask[row, 0, :, prefix:]
            own[start:longest, start:longest] = torch.ones(len(body), len(body), dtype=torch.bool).tril()
            own[longest:, start:longest] = True
            own[longest:, longest:] = self._visible
        return ids, positions, mask


def predict(scorer: GuardScorer, examples: Sequence[Example], *, progress: bool = True) -> pd.DataFrame:
    """Scores examples into a predictions table; see `guard_utils.predictions`."""
    scores = scorer.score([example.text for example in examples], progress=progress)
    return predictions_table(
        examples,
        scorer.prompt.policy,
        scores.marginals,
        [verdict.codes for verdict in scores.best],
        scores.outside,
        unsafe=scores.unsafe,
    )


def load_model(folder: Path | str, *, dtype: str, device: str = "cpu") -> tuple[Any, Any]:
    """Loads a checkpoint and its tokenizer for scoring.

    Args:
        folder: A checkpoint that `transformers` reads, or the name of a repository of the hub.
        dtype: `fp32` or `bf16`.
        device: `cpu`, `cuda`, ...

    Returns:
        The model in evaluation mode, and the tokenizer.

    Raises:
        FileNotFoundError: There is no checkpoint in the folder.
        ValueError: Another dtype.
    """
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if dtype not in dtypes:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(dtypes)}; a guard is scored in one of them")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if isinstance(folder, Path) and not (folder / "config.json").exists():
        raise FileNotFoundError(f"no checkpoint in {folder}; run notebook 03 (or make tutorial) to train one")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtypes[dtype])
    model = model.to(device).eval()
    return model, AutoTokenizer.from_pretrained(folder)
