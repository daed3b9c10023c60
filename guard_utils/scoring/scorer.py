"""Exact probabilities of every verdict, in one forward pass a batch.

The 32 verdicts of five categories, as token strings, form a small trie. Each prompt's conversation and tail are
followed by the trie's nodes under a mask in which a node sees its prompt and its ancestors only, at the position it
would have in its own answer. The log-probabilities along a path sum to the exact joint log-probability of a verdict,
end token included. As in training, all prompts of a batch stand in one packed sequence behind one copy of the
policy's prefix, without padding. Nothing is generated and nothing is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import linear
from tqdm.auto import tqdm

from guard_utils.data.examples import Example
from guard_utils.data.predictions import predictions_table
from guard_utils.policy import Verdict, all_verdicts
from guard_utils.prompt import GuardPrompt, Segments, Turn
from guard_utils.training.shared_prefix import Window, attend, window

# Logits of so many positions at a time: those of a whole batch would be a gigabyte, written and read thrice.
POSITIONS_PER_CHUNK = 256


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
        self, model: Any, prompt: GuardPrompt, *, max_violations: int | None = None, batch_tokens: int = 4096
    ) -> None:
        from transformers import AttentionInterface  # takes seconds, which who only draws a trie need not wait

        self.model = model
        self.prompt = prompt
        self.batch_tokens = batch_tokens
        self.trie = VerdictTrie.build(prompt, max_violations=max_violations)
        self._depths = torch.tensor(self.trie.depths())
        self._visible = self.trie.visible()
        AttentionInterface.register("guard_windows", _attend_windows)

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
        device = self.model.device
        ids, positions, windows, wanted = self._packed(batch)
        with _attention(self.model, "guard_windows"):
            hidden = self.model.get_decoder()(
                ids.to(device), position_ids=positions.to(device), windows=windows, use_cache=False
            ).last_hidden_state[0, wanted.to(device)]
        head = self.model.get_output_embeddings()
        total = torch.cat([head(part).float().logsumexp(-1) for part in hidden.split(POSITIONS_PER_CHUNK)])
        # Of the logits themselves, only those of the trie's few tokens are needed.
        used = sorted({*self.trie.tokens, self.trie.end_id})
        chosen = torch.tensor(used, device=device)
        logits = linear(hidden, head.weight[chosen], None if head.bias is None else head.bias[chosen]).float()
        # [texts, 1 + nodes, used]; row 0 predicts the root's children, row 1 + i those of node i.
        steps = (logits - total[:, None]).view(len(batch), -1, len(used)).double().cpu()
        parents, ends = torch.tensor(self.trie.parents) + 1, torch.tensor(self.trie.ends) + 1
        paths = steps[:, parents, [used.index(token) for token in self.trie.tokens]] @ self._visible.double().T
        return np.asarray(paths[:, list(self.trie.ends)] + steps[:, ends, used.index(self.trie.end_id)])

    def _packed(self, batch: Sequence[Segments]) -> tuple[Tensor, Tensor, list[Window], Tensor]:
        """Ids and positions [1, packed], the windows, and the tokens that predict [texts * (1 + nodes)]."""
        prefix, nodes = list(self.prompt.prefix_ids), len(self.trie.tokens)
        ids, positions, wanted = [torch.tensor(prefix)], [torch.arange(len(prefix))], []
        causal = torch.ones(len(prefix), len(prefix), dtype=torch.bool, device=self.model.device).tril()
        windows = [window(causal)]
        at = len(prefix)
        for segments in batch:
            body = segments.conversation_ids + segments.tail_ids
            last = len(prefix) + len(body) - 1
            ids.append(torch.tensor([*body, *self.trie.tokens]))
            positions += [torch.arange(len(prefix), last + 1), last + self._depths]
            wanted.append(torch.arange(at + len(body) - 1, at + len(body) + nodes))
            visible = torch.ones(len(body) + nodes, len(body) + nodes, dtype=torch.bool).tril()
            visible[len(body) :, len(body) :] = self._visible
            windows.append(window(visible.to(self.model.device), prefix=0, prefix_length=len(prefix)))
            at += len(body) + nodes
        return torch.cat(ids)[None], torch.cat(positions)[None], windows, torch.cat(wanted)


@contextmanager
def _attention(model: Any, name: str) -> Iterator[None]:
    """Within, the model attends by the named function of `transformers.AttentionInterface`."""
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attend_windows(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, *, windows: list[Window], **_: Any
) -> tuple[Tensor, None]:
    """Attention of a layer of `transformers` over a packed sequence: [1, heads, packed, dim] each."""
    key, value = (each.repeat_interleave(module.num_key_value_groups, dim=1) for each in (key, value))
    output = attend(query[0], key[0], value[0], windows)
    return output.transpose(0, 1).unsqueeze(0), None


def predict(scorer: GuardScorer, examples: Sequence[Example], *, progress: bool = True) -> pd.DataFrame:
    """Scores examples into a predictions table; see `guard_utils.data.predictions`."""
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
