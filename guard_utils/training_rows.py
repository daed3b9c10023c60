"""Rows of a training file, read strictly: a line that can't be trained on is an error that names line, field and fix.

Does not: write them (`formatter`), or make tokens of them (`training`).
"""

import json
from dataclasses import dataclass
from typing import Any

from guard_utils.policy import Taxonomy, Verdict, parse, require


@dataclass(frozen=True)
class TrainingRow:
    """A conversation of (role, text) turns, the answer about its last one, and the policy that the prompt shows.

    Attributes:
        evidence: Values in the last text: the character after each, and its code or `safe`; see `GuardDataset`.
    """

    turns: tuple[tuple[str, str], ...]
    verdict: Verdict
    policy: Taxonomy
    evidence: tuple[tuple[int, str], ...] = ()


def read_training_row(line: str, taxonomy: Taxonomy, *, where: str = "training row") -> TrainingRow:
    """Reads one line of a training file strictly; its policy may show some of the taxonomy, in any order.

    Raises:
        ValueError: The line is broken: `where` (its file and number), the field, its value and the fix.
    """
    try:
        row = json.loads(line)
        good = isinstance(row, dict) and set(row) - {"evidence"} == {"policy", "turns", "answer"}
        fix = "give a JSON object of 'policy', 'turns', 'answer', perhaps 'evidence', and nothing else"
        require(good, "row", row, fix)
        codes, turns, answer = row["policy"], row["turns"], row["answer"]
        require(_are_texts(codes), "policy", codes, f"give a list of codes of {taxonomy.codes}")
        policy = taxonomy if tuple(codes) == taxonomy.codes else taxonomy.select(codes)
        good = isinstance(turns, list) and all(_are_texts(turn) and len(turn) == 2 for turn in turns)
        require(good, "turns", turns, "give a list of [role, text] pairs of texts")
        roles = [role for role, _ in turns]
        good = bool(roles) and roles == [("User", "Agent")[turn % 2] for turn in range(len(roles))]
        require(good, "roles of the turns", roles, "begin with 'User' and alternate with 'Agent'")
        verdict = parse(str(answer), policy)
        if not isinstance(verdict, Verdict) or verdict.text != answer:
            raise ValueError(f"answer is {answer!r}; write 'safe', or 'unsafe\\n' and ascending codes of {codes}")
        known, length, evidence = ("safe", *policy.codes), len(turns[-1][1]), row.get("evidence", [])
        good = isinstance(evidence, list) and all(isinstance(found, list) and len(found) == 2 for found in evidence)
        good = good and all(isinstance(end, int) and 0 < end <= length and code in known for end, code in evidence)
        require(good, "evidence", evidence, f"give [end, code] pairs: ends of values up to {length}, codes of {known}")
        return TrainingRow(tuple(map(tuple, turns)), verdict, policy, tuple(map(tuple, evidence)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: row is {line!r:.80}; make it JSON ({error})") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)
