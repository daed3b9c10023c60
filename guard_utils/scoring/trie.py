"""The verdicts of a policy as a trie of token strings that share their beginnings.

Does: build the trie of a prompt's policy, and say which node follows or sees which. Does not: know a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np
import numpy.typing as npt

from guard_utils.policy import Verdict, all_verdicts
from guard_utils.prompt import GuardPrompt

MOST_VERDICTS = 5000
"""Verdicts listed where no cap on violations is given: all up to 12 categories, at most 5 codes of 14, 3 of 30."""


@dataclass(frozen=True)
class VerdictTrie:
    """Token strings of verdicts.

    Attributes:
        verdicts: In the order of the columns of `Scores.log_probs`.
        tokens: [nodes] token of each node; parents come before their children.
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
        """Builds the trie of a prompt's policy.

        Args:
            prompt: Its policy and its tokenizer.
            max_violations: Cap on the codes of one verdict; left out, the largest that gives `MOST_VERDICTS` or fewer.
        """
        n = len(prompt.policy)
        fits = [k for k in range(1, n + 1) if sum(comb(n, i) for i in range(k + 1)) <= MOST_VERDICTS]
        max_violations = max(fits, default=1) if max_violations is None else max_violations
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

    @cached_property
    def children(self) -> list[list[int]]:
        """[1 + nodes] nodes after each node; those of the root come last, so that it has the index -1."""
        found: list[list[int]] = [[] for _ in range(len(self.tokens) + 1)]
        for node, parent in enumerate(self.parents):
            found[parent].append(node)
        return found

    def chain(self, node: int) -> list[int]:
        """A node and its descendants, for as long as there is but one and no verdict ends."""
        found = [node]
        while len(self.children[node]) == 1 and node not in self.ends:
            found.append(node := self.children[node][0])
        return found

    def visible(self) -> npt.NDArray[np.bool_]:
        """[nodes, nodes] whether the row's node sees the column's, that is, itself and its ancestors."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen
