"""Training rows that carry their own policy.

A policy (which categories a prompt shows, in which order) belongs to the row. Policies come from a bounded set, so that
rows of one policy can be trained together behind one shared prefix.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from guard_utils.formatter import TrainingExample, is_prompt_only, require, violated_positions
from guard_utils.policy import Taxonomy, Verdict, parse

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PolicyExample:
    """A judged conversation under the policy its prompt shows.

    Attributes:
        conversation: (role, text) turns: "User", "Agent", "User" ...; the last one is judged.
        verdict: The answer, in the policy's codes.
        policy: The categories shown, numbered from S1.
        evidence: (violated code, text that shows it) pairs, in the policy's codes.
        source_codes: The policy's categories as the taxonomy it was drawn from numbers them; () if it is the taxonomy.
    """

    conversation: Pairs
    verdict: Verdict
    policy: Taxonomy
    evidence: Pairs = ()
    source_codes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        roles = [role for role, _ in _pairs("turns", self.conversation)]
        good = bool(roles) and roles == [("User", "Agent")[turn % 2] for turn in range(len(roles))]
        require(good, "roles of the turns", roles, "begin with 'User' and alternate with 'Agent'")
        codes, source = self.verdict.codes, self.source_codes
        require(set(codes) <= set(self.policy.codes), "verdict", codes, f"the policy has {self.policy.codes}")
        good = {code for code, _ in _pairs("evidence", self.evidence)} <= set(codes)
        require(good, "evidence", self.evidence, f"give it for violated codes only: {codes}")
        good = not source or len(set(source)) == len(source) == len(self.policy)
        require(good, "source_codes", source, f"give one for each of {self.policy.codes}")

    @property
    def policy_codes(self) -> tuple[str, ...]:
        """The taxonomy's codes in the order shown; equal for examples that share a prompt prefix."""
        return self.source_codes or self.policy.codes


def policy_examples(
    training_examples: Iterable[TrainingExample], policy: Taxonomy, *, category_code_prefix: str = "S"
) -> Iterator[PolicyExample]:
    """Streams training examples under a policy; code `<prefix>3` is its third category. Explanations stay behind.

    Raises:
        ValueError: An example is invalid: its index, value and the fix.
    """
    positions = {f"{category_code_prefix}{i + 1}": i for i in range(len(policy))}
    for index, example in enumerate(training_examples):
        codes = [policy.codes[i] for i in violated_positions(index, example, positions, codes_needed=True)]
        agent = () if is_prompt_only(example) else (("Agent", str(example.response)),)
        yield PolicyExample((("User", example.prompt), *agent), Verdict.of(codes), policy)


def renumber(codes: Iterable[str], policy_codes: Sequence[str]) -> tuple[str, ...]:
    """Numbers a taxonomy's codes as a policy that shows `policy_codes` does, ascending; those not shown drop out."""
    return Verdict.of(f"S{policy_codes.index(code) + 1}" for code in codes if code in policy_codes).codes


def policy_augmentations(
    examples: Iterable[PolicyExample], *, policies: int, seed: int, copies: int = 1
) -> Iterator[PolicyExample]:
    """Streams each example under random policies of a bounded set; violated categories that are not shown drop out.

    Args:
        examples: All under one taxonomy.
        policies: Size of the set: first the taxonomy itself, then distinct random subsets in random order.
        seed: Fixes the set and the choices.
        copies: Under how many of the policies each example is put.

    Raises:
        ValueError: An example is under another policy, or the taxonomy has fewer policies than asked for.
    """
    rng, taxonomy = random.Random(seed), None
    for index, example in enumerate(examples):
        if taxonomy is None:
            taxonomy = example.policy
            drawn = _draw_policies(taxonomy.codes, policies, copies, rng)
        good = example.policy == taxonomy and not example.source_codes
        require(good, f"example {index}: policy", example.policy.name, f"put all under {taxonomy.name!r}, none drawn")
        for codes in (drawn[i] for i in sorted(rng.sample(range(policies), copies))):
            verdict = Verdict(renumber(example.verdict.codes, codes))
            evidence = tuple((renumber([code], codes)[0], text) for code, text in example.evidence if code in codes)
            yield _under(taxonomy, codes, example.conversation, verdict, evidence)


def _draw_policies(codes: tuple[str, ...], policies: int, copies: int, rng: random.Random) -> list[tuple[str, ...]]:
    possible = sum(math.perm(len(codes), size) for size in range(1, len(codes) + 1))
    good = 1 <= copies <= policies <= possible
    require(good, "(copies, policies)", (copies, policies), f"keep 1 <= copies <= policies <= {possible}")
    drawn = {codes: None}  # a dict, as an ordered set
    while len(drawn) < policies:
        drawn[tuple(rng.sample(codes, rng.randint(1, len(codes))))] = None
    return list(drawn)


@lru_cache(maxsize=1024)
def _policy(taxonomy: Taxonomy, codes: tuple[str, ...]) -> Taxonomy:
    return taxonomy if codes == taxonomy.codes else taxonomy.select(codes)


def _under(
    taxonomy: Taxonomy, codes: tuple[str, ...], turns: Pairs, verdict: Verdict, evidence: Pairs
) -> PolicyExample:
    policy = _policy(taxonomy, codes)
    return PolicyExample(turns, verdict, policy, evidence, () if policy == taxonomy else codes)


def _pairs(name: str, value: Any) -> Pairs:
    good = isinstance(value, list | tuple) and all(
        isinstance(pair, list | tuple) and [type(part) for part in pair] == [str, str] for pair in value
    )
    require(good, name, value, "give a list of pairs of texts")
    return tuple((first, second) for first, second in value)


def to_training_row(example: PolicyExample) -> str:
    r"""Writes an example as one line of JSON, in ASCII, so that no character of a text can break the line.

    `{"policy": ["S4", "S1"], "turns": [["User", "Hi Ann"]], "answer": "unsafe\nS2"}`: the taxonomy's codes as shown,
    and the answer in the policy's own numbers (S2 is S1 of the taxonomy). Evidence, in these numbers too, is a fourth
    key, `"evidence"`, only where there is some.
    """
    row = {"policy": example.policy_codes, "turns": example.conversation, "answer": example.verdict.text}
    return json.dumps(row | ({"evidence": example.evidence} if example.evidence else {}))


def from_training_row(
    row: str | Mapping[str, Any], taxonomy: Taxonomy, *, where: str = "training row"
) -> PolicyExample:
    """Reads a row (a JSON line or its fields; evidence may be None) strictly: the inverse of `to_training_row`.

    Raises:
        ValueError: The row is broken: `where` (say, file and line), the field, its value and the fix.
    """
    try:
        fields = json.loads(row) if isinstance(row, str) else row
        good = isinstance(fields, Mapping) and set(fields) - {"evidence"} == {"policy", "turns", "answer"}
        require(good, "row", fields, "give 'policy', 'turns', 'answer' and nothing else but 'evidence'")
        codes, answer, evidence = fields["policy"], fields["answer"], fields.get("evidence")
        good = isinstance(codes, list | tuple) and all(isinstance(code, str) for code in codes)
        require(good, "policy", codes, f"give a list of codes of {taxonomy.codes}")
        verdict = parse(str(answer), _policy(taxonomy, tuple(codes)))
        if not isinstance(verdict, Verdict) or verdict.text != answer:
            raise ValueError(f"answer is {answer!r}; write 'safe', or 'unsafe\\n' and ascending codes to S{len(codes)}")
        pairs = () if evidence is None else _pairs("evidence", evidence)
        return _under(taxonomy, tuple(codes), _pairs("turns", fields["turns"]), verdict, pairs)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
