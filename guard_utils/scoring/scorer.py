"""Exact probabilities of the verdicts that matter, in few forward passes.

The policy's prefix is run once. On top of it a batch of prompts is run, each with the nodes of the verdict trie that
every answer needs; then, level by level, the nodes that the model may reach. A node sees its prompt and its ancestors,
and is normalised over the whole vocabulary: the log-probabilities along a path sum to the joint log-probability of a
verdict, end token included. Does not: generate text or parse it, or read and write tables.
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
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer, DynamicCache

from guard_utils.data.examples import Example
from guard_utils.data.predictions import predictions_table
from guard_utils.policy import Verdict, require_list
from guard_utils.prompt import GuardPrompt, Segments, Turn
from guard_utils.scoring.trie import VerdictTrie

POSITIONS_PER_CHUNK = 256
"""Logits are computed for so many positions at a time: those of a whole batch would take a gigabyte."""
FEW = 64
"""So many nodes of a batch, or fewer, are expanded with all their descendants."""
_FILLER = -2  # in place of a token's place or node where a text has fewer than another
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Layout:
    """Which tokens of one forward pass belong to which text, for attention.

    Attributes:
        rows: [texts, new] place in the pass of each new token of a text; filler has any.
        places: [texts, own] place in the cache of each token that a text has so far, the new ones among them.
        bias: [texts, new, own] 0 where the new token sees the other, -inf elsewhere.
        back: [tokens] where each token of the pass stands in the flattened `rows`.
        prefix: Of each layer, keys and values of the policy's prefix, which every token sees; [heads, prefix, dim].
    """

    rows: Tensor
    places: Tensor
    bias: Tensor
    back: Tensor
    prefix: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Scores:
    """Probabilities of a guard's answers to some texts. `marginals` and `unsafe` are at most `unexpanded` too low.

    Attributes:
        verdicts: Every verdict of the policy (up to the cap on violations).
        log_probs: [texts, verdicts] natural log of the joint probability, end token included; -inf where the verdict's
            path is too improbable to be expanded.
        codes: Of the policy.
        unexpanded: [texts] upper bound on the summed probability of the verdicts with -inf.
    """

    verdicts: tuple[Verdict, ...]
    log_probs: np.ndarray
    codes: tuple[str, ...]
    unexpanded: np.ndarray

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
        """[texts] probability of anything else: what no parser could read, verdicts beyond the cap, `unexpanded`."""
        return np.clip(1.0 - np.exp(self.log_probs).sum(axis=1), 0.0, 1.0)

    @property
    def best(self) -> list[Verdict]:
        """The most probable verdict of each text, whatever was expanded."""
        return [self.verdicts[i] for i in self.log_probs.argmax(axis=1)]


class GuardScorer:
    """Scores texts under one policy.

    Args:
        model: A `transformers` causal language model of the Llama family, in evaluation mode. It runs the prefix once:
            make a new scorer where the weights have changed.
        prompt: The prompt it was trained on.
        max_violations: Cap on the codes of one verdict; see `VerdictTrie.build`.
        epsilon: A path less probable than this is not expanded, unless it could hold the best verdict. 0 expands all.
        batch_tokens: Rough number of tokens in one forward pass; smaller needs less memory.
    """

    def __init__(
        self,
        model: Any,
        prompt: GuardPrompt,
        *,
        max_violations: int | None = None,
        epsilon: float = 1e-6,
        batch_tokens: int = 4096,
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.epsilon = epsilon
        self.batch_tokens = batch_tokens
        self.trie = VerdictTrie.build(prompt, max_violations=max_violations)
        with torch.inference_mode():
            ids = torch.tensor([prompt.prefix_ids], device=model.device)
            cache = model.get_decoder()(ids, use_cache=True).past_key_values
        self._prefix = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        self._first = [-1, *(node for child in self.trie.children[-1] for node in self.trie.chain(child))]
        visible = self.trie.visible()
        self._depths = visible.sum(axis=1).tolist()
        self._below = [np.flatnonzero(column).tolist() for column in visible.T]  # a node and its descendants
        # The last row and column are those of a prompt's tokens, which are no nodes.
        self._visible = torch.from_numpy(np.pad(visible, (0, 1)))
        self._verdict = {node: verdict for verdict, node in enumerate(self.trie.ends)}
        # Of the logits, only those of the trie's few tokens are kept. The end token's place among them comes last.
        self._used, self._place = np.unique([*self.trie.tokens, self.trie.end_id], return_inverse=True)

    def score(self, texts: Sequence[str | Sequence[Turn]], *, progress: bool = True) -> Scores:
        """Scores messages or conversations; the rows of the scores are in their order.

        Raises:
            TypeError: One text instead of a list.
            ValueError: `GuardPrompt.segments` refuses some texts; lists them by place, before any is scored.
        """
        require_list(texts, "texts")
        segments, faults = [], []
        for number, text in enumerate(texts):
            try:
                segments.append(self.prompt.segments(text))
            except (TypeError, ValueError) as error:
                faults.append(f"text {number}: {error}")
        if faults:
            rest = [f"... and {len(faults) - 20} more"] * (len(faults) > 20)
            raise ValueError("\n".join([f"{len(faults)} of {len(texts)} can't be scored", *faults[:20], *rest]))
        log_probs, unexpanded = np.empty((len(texts), len(self.trie.verdicts))), np.empty(len(texts))
        with tqdm(total=len(texts), unit=" prompts", desc="scoring", disable=not progress) as bar:
            for batch in self._batches(segments):
                log_probs[batch], unexpanded[batch] = self._score_batch([segments[i] for i in batch])
                bar.update(len(batch))
        return Scores(self.trie.verdicts, log_probs, self.prompt.policy.codes, unexpanded)

    def _batches(self, segments: Sequence[Segments]) -> list[list[int]]:
        """Cuts texts in order of length so that no batch is larger than `batch_tokens`, with one text at least."""
        batches: list[list[int]] = []
        for i in sorted(range(len(segments)), key=lambda i: len(segments[i].conversation_ids)):
            size = len(segments[i].conversation_ids) + len(segments[i].tail_ids) + len(self._first)
            if batches and size * (len(batches[-1]) + 1) <= self.batch_tokens:
                batches[-1].append(i)
            else:
                batches.append([i])
        return batches

    @torch.inference_mode()
    def _score_batch(self, batch: Sequence[Segments]) -> tuple[np.ndarray, np.ndarray]:
        """[texts, verdicts] log-probabilities, and [texts] the bound on what is not expanded."""
        prompts, cache = [each.conversation_ids + each.tail_ids for each in batch], DynamicCache()
        # Of each text: place in the cache, node (-1: none) and position of each token that it has so far.
        tokens: list[list[tuple[int, int, int]]] = [[] for _ in batch]
        # Of each text: nodes whose parent is expanded but not they, and the log-probability of their paths.
        pending: list[dict[int, float]] = [{} for _ in batch]
        log_probs = np.full((len(batch), len(self.trie.verdicts)), -np.inf)
        chosen = dict.fromkeys(range(len(batch)), self._first)
        while chosen:
            steps = self._run(cache, prompts, tokens, chosen)
            entries = [(text, node) for text, nodes in chosen.items() for node in nodes]
            for (text, node), step in zip(entries, steps, strict=True):
                path = pending[text].pop(node, 0.0)  # 0 is that of the root
                pending[text] |= {child: path + step[self._place[child]] for child in self.trie.children[node]}
                if node in self._verdict:
                    log_probs[text, self._verdict[node]] = path + step[self._place[-1]]
            wanted = {text: self._wanted(paths, log_probs[text].max()) for text, paths in enumerate(pending)}
            # The last few are expanded with all that follows: many small passes would cost more than a large one.
            few = sum(map(len, wanted.values())) <= FEW
            room = max(1, self.batch_tokens // len(batch))
            chosen = {
                text: [
                    node for first in nodes[:room] for node in (self._below[first] if few else self.trie.chain(first))
                ]
                for text, nodes in wanted.items()
                if nodes
            }
        return log_probs, np.array([np.exp(list(paths.values())).sum() for paths in pending])

    def _wanted(self, paths: dict[int, float], best: float) -> list[int]:
        """Which of the nodes with these log-probabilities may matter, where `best` is that of the best verdict."""
        likely = [node for node, path in paths.items() if np.exp(path) >= self.epsilon]
        return likely or [node for node, path in paths.items() if path > best]

    def _run(
        self,
        cache: Any,
        prompts: Sequence[Sequence[int]],
        tokens: list[list[tuple[int, int, int]]],
        chosen: dict[int, list[int]],
    ) -> np.ndarray:
        """Runs nodes of texts, -1 for the prompt, and continues `tokens`; [nodes, used tokens] next log-probabilities.

        All texts share one sequence, and what comes before it in the cache. They meet in attention only, see `_attend`.
        """
        device, start, before = self.model.device, len(self.prompt.prefix_ids), cache.get_seq_length()
        ids, positions, last, rows = list[int](), list[int](), list[int](), list[Tensor]()
        for text, nodes in chosen.items():
            first = len(ids)
            for node in nodes:
                new = prompts[text] if node < 0 else [self.trie.tokens[node]]
                position = start if node < 0 else start + len(prompts[text]) - 1 + self._depths[node]
                tokens[text] += [(before + len(ids) + i, node, position + i) for i in range(len(new))]
                positions += range(position, position + len(new))
                ids += new
                last.append(len(ids) - 1)
            rows.append(torch.arange(first, len(ids)))
        layout = self._layout(rows, [torch.tensor(tokens[text]) for text in chosen])
        attention = self.model.config._attn_implementation
        self.model.set_attn_implementation("guard_trie")
        try:
            packed, at = (torch.tensor([row], device=device) for row in (ids, positions))
            output = self.model.get_decoder()(packed, position_ids=at, past_key_values=cache, layout=layout)
        finally:
            self.model.set_attn_implementation(attention)
        head, steps = self.model.get_output_embeddings(), []
        for hidden in output.last_hidden_state[0, last].split(POSITIONS_PER_CHUNK):
            logits = head(hidden).float()
            steps.append(logits[:, self._used] - logits.logsumexp(-1, keepdim=True))
        return torch.cat(steps).double().cpu().numpy()

    def _layout(self, rows: Sequence[Tensor], tokens: Sequence[Tensor]) -> Layout:
        """Layout of a pass, of each text's `rows` in it and of all `tokens` (place, node, position) that it has."""
        places, nodes, at = pad_sequence(list(tokens), batch_first=True, padding_value=_FILLER).unbind(-1)
        padded = pad_sequence(list(rows), batch_first=True, padding_value=_FILLER)
        # A text's new tokens are the last that it has.
        new = [each[len(each) - len(found) :] for each, found in zip(tokens, rows, strict=True)]
        _, new_nodes, new_at = pad_sequence(new, batch_first=True).unbind(-1)
        seen = self._visible[new_nodes[:, :, None], nodes[:, None, :]]
        visible = torch.where(nodes[:, None, :] < 0, at[:, None, :] <= new_at[:, :, None], seen)
        visible &= places[:, None, :] != _FILLER
        bias = torch.zeros(visible.shape, dtype=self.model.dtype).masked_fill_(~visible, float("-inf"))
        back = (padded.flatten() != _FILLER).nonzero().flatten()
        to = self.model.device
        return Layout(padded.clamp(0).to(to), places.clamp(0).to(to), bias.to(to), back.to(to), self._prefix)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, *, layout: Layout, **_: Any
) -> tuple[Tensor, None]:
    """Attention of a layer: all texts to the prefix in one product, and each to its own tokens.

    Tensors are [1, heads, tokens, dim], the result [1, tokens, heads, dim]; keys and values are those of the cache.
    """
    prefix_key, prefix_value = layout.prefix[module.layer_idx]
    texts, groups = len(layout.rows), module.num_key_value_groups
    # Query heads that share a key head stand one after another: [key heads, texts, groups * new, dim].
    queries = (query[0] * module.scaling)[:, layout.rows].unflatten(0, (-1, groups)).transpose(1, 2).flatten(2, 3)
    keys, values = key[0][:, layout.places], value[0][:, layout.places]
    to_prefix = (queries.flatten(1, 2) @ prefix_key.transpose(1, 2)).unflatten(1, (texts, -1))
    to_own = queries @ keys.transpose(2, 3) + layout.bias.repeat(1, groups, 1)
    weights = torch.cat([to_prefix, to_own], dim=-1).softmax(-1)
    on_prefix, on_own = weights.split([to_prefix.shape[-1], to_own.shape[-1]], dim=-1)
    output = (on_prefix.flatten(1, 2) @ prefix_value).unflatten(1, (texts, -1)) + on_own @ values
    by_head = output.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1, 2)
    return by_head[:, layout.back].transpose(0, 1)[None], None


AttentionInterface.register("guard_trie", _attend)


def predict(scorer: GuardScorer, examples: Sequence[Example], *, progress: bool = True) -> pd.DataFrame:
    """Scores examples into a predictions table; see `guard_utils.data.predictions`."""
    require_list(examples, "examples")
    scores = scorer.score([example.conversation for example in examples], progress=progress)
    answers = [verdict.codes for verdict in scores.best]
    policy = scorer.prompt.policy
    return predictions_table(examples, policy, scores.marginals, answers, scores.outside, unsafe=scores.unsafe)


def load_model(folder: Path | str, *, dtype: str, device: str = "cpu") -> tuple[Any, Any]:
    """Loads a model in evaluation mode and its tokenizer, from a folder or the hub. `dtype` is `fp32` or `bf16`."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}; a guard is scored in one of them")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype])
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)
