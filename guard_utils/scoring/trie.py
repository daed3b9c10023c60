"""The verdicts of a policy as a trie of token strings that share their beginnings.

Does: build the trie of a prompt's policy, and say which node sees which. Does not: know a model, or load torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guard_utils.policy import Verdict, all_verdicts
from guard_utils.prompt import GuardPrompt


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
        """[nodes] distance of each node from the prompt's last token."""
        return self.visible().sum(axis=1).tolist()

    def visible(self) -> npt.NDArray[np.bool_]:
        """[nodes, nodes] whether the row's node sees the column's, that is, itself and its ancestors."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen
