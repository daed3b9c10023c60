"""Exact probabilities of every verdict, in one forward pass per batch.

Each prompt's conversation and tail are followed by the nodes of the verdict trie, under a mask in which a node sees its
prompt and its ancestors only, at the position it has in its own answer. The log-probabilities along a path sum to the
joint log-probability of a verdict, end token included. As in training, all prompts of a batch share one copy of the
policy's prefix, without padding. Does not: generate text or parse it, or read and write tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import linear
from tqdm.auto import tqdm
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

from guard_utils.data.examples import Example
from guard_utils.data.predictions import predictions_table
from guard_utils.policy import Verdict
from guard_utils.profiles import Run
from guard_utils.prompt import GuardPrompt, Segments, Turn
from guard_utils.scoring.trie import VerdictTrie
from guard_utils.training.launch import checkpoint
from guard_utils.training.shared_prefix import Window, attend, window

POSITIONS_PER_CHUNK = 256
"""Logits are computed for so many positions at a time: those of a whole batch would take a gigabyte."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Scores:
    """Probabilities of a guard's answers to some texts.

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
        """[texts] probability of anything else: what no parser could read, and verdicts beyond the cap."""
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
        self.model = model
        self.prompt = prompt
        self.batch_tokens = batch_tokens
        self.trie = VerdictTrie.build(prompt, max_violations=max_violations)
        self._visible = torch.from_numpy(self.trie.visible())

    def score(self, texts: Sequence[str | Sequence[Turn]], *, progress: bool = True) -> Scores:
        """Scores texts; the rows of the scores are in their order.

        Args:
            texts: Messages or conversations; see `GuardPrompt.segments`.
            progress: Whether to show a bar with a rate.

        Raises:
            ValueError, TypeError: As `GuardPrompt.segments`, with the place of the text.
        """
        segments = []
        for number, text in enumerate(texts):
            try:
                segments.append(self.prompt.segments(text))
            except (TypeError, ValueError) as error:
                raise type(error)(f"text {number}: {error}") from error
        log_probs = np.empty((len(texts), len(self.trie.verdicts)))
        with tqdm(total=len(texts), unit=" prompts", desc="scoring", disable=not progress) as bar:
            for batch in self._batches(segments):
                log_probs[batch] = self._score_batch([segments[i] for i in batch])
                bar.update(len(batch))
        return Scores(self.trie.verdicts, log_probs, self.prompt.policy.codes)

    def _batches(self, segments: Sequence[Segments]) -> list[list[int]]:
        """Cuts texts in order of length so that no batch is larger than `batch_tokens`, with one text at least."""
        batches: list[list[int]] = []
        for i in sorted(range(len(segments)), key=lambda i: len(segments[i].conversation_ids)):
            size = len(segments[i].conversation_ids) + len(segments[i].tail_ids) + len(self.trie.tokens)
            if batches and size * (len(batches[-1]) + 1) <= self.batch_tokens:
                batches[-1].append(i)
            else:
                batches.append([i])
        return batches

    @torch.inference_mode()
    def _score_batch(self, batch: Sequence[Segments]) -> np.ndarray:
        """[texts, verdicts] log-probabilities."""
        trie, head = self.trie, self.model.get_output_embeddings()
        hidden = self._hidden(batch)
        total = torch.cat([head(part).float().logsumexp(-1) for part in hidden.split(POSITIONS_PER_CHUNK)])
        # Of the logits themselves, only those of the trie's few tokens are needed.
        used = sorted({*trie.tokens, trie.end_id})
        logits = linear(hidden, head.weight[torch.tensor(used, device=hidden.device)]).float()
        # [texts, 1 + nodes, used]; row 0 predicts the root's children, row 1 + i those of node i.
        steps = (logits - total[:, None]).view(len(batch), -1, len(used)).double().cpu()
        parents, ends = torch.tensor(trie.parents) + 1, torch.tensor(trie.ends) + 1
        paths = steps[:, parents, [used.index(token) for token in trie.tokens]] @ self._visible.double().T
        return np.asarray(paths[:, list(trie.ends)] + steps[:, ends, used.index(trie.end_id)])

    def _hidden(self, batch: Sequence[Segments]) -> Tensor:
        """[texts * (1 + nodes), dim] last hidden states of the tokens that predict a node or an end."""
        device, prefix, tokens, depths = self.model.device, self.prompt.prefix_ids, self.trie.tokens, self.trie.depths()
        ids, positions, wanted = list(prefix), list(range(len(prefix))), list[int]()
        windows = [window(torch.ones(len(prefix), len(prefix), dtype=torch.bool, device=device).tril())]
        for segments in batch:
            body = segments.conversation_ids + segments.tail_ids
            length, last = len(body) + len(tokens), len(prefix) + len(body) - 1
            wanted += range(len(ids) + len(body) - 1, len(ids) + length)
            ids += [*body, *tokens]
            positions += [*range(len(prefix), last + 1), *(last + depth for depth in depths)]
            visible = torch.ones(length, length, dtype=torch.bool).tril()
            visible[len(body) :, len(body) :] = self._visible
            windows.append(window(visible.to(device), prefix=0, prefix_length=len(prefix)))
        packed, places = torch.tensor([ids], device=device), torch.tensor([positions], device=device)
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation("guard_windows")
        try:
            output = self.model.get_decoder()(packed, position_ids=places, windows=windows, use_cache=False)
        finally:
            self.model.set_attn_implementation(before)
        return output.last_hidden_state[0, torch.tensor(wanted, device=device)]


def _attend_windows(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, *, windows: list[Window], **_: Any
) -> tuple[Tensor, None]:
    """Attention of a layer of `transformers` over a packed sequence: [1, heads, packed, dim] each."""
    key, value = (each.repeat_interleave(module.num_key_value_groups, dim=1) for each in (key, value))
    return attend(query[0], key[0], value[0], windows).transpose(0, 1).unsqueeze(0), None


AttentionInterface.register("guard_windows", _attend_windows)


def predict(scorer: GuardScorer, examples: Sequence[Example], *, progress: bool = True) -> pd.DataFrame:
    """Scores examples into a predictions table; see `guard_utils.data.predictions`."""
    scores = scorer.score([example.text for example in examples], progress=progress)
    answers = [verdict.codes for verdict in scores.best]
    policy = scorer.prompt.policy
    return predictions_table(examples, policy, scores.marginals, answers, scores.outside, unsafe=scores.unsafe)


def load_model(folder: Path | str, *, dtype: str, device: str = "cpu") -> tuple[Any, Any]:
    """Loads a model in evaluation mode, and its tokenizer.

    Args:
        folder: A checkpoint that `transformers` reads, or the name of a repository of the hub.
        dtype: `fp32` or `bf16`.
        device: `cpu`, `cuda`, ...

    Raises:
        ValueError: Another dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}; a guard is scored in one of them")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype])
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)


def load_guard(run: Run) -> GuardScorer:
    """Loads the scorer of a run's fine-tuned model; see `checkpoint` for the error where nothing is trained."""
    model, tokenizer = load_model(checkpoint(run), dtype=run.dtype, device=run.device)
    return GuardScorer(model, GuardPrompt(run.policy, tokenizer))
