"""The embedded corpus and its values: same bytes, exact offsets, disjoint splits, right labels."""

import json
import random
import re
from collections import Counter

import pytest

from guard_utils.data import PII_200K, load
from guard_utils.profiles import repository
from tests.data.made import assert_exact
from tools.corpus import __main__ as frozen
from tools.corpus import letters, values
from tools.corpus.compose import LANGUAGES, generate, load_clauses
from tools.corpus.values import Values

SPLITS = ("train", "validation", "test")
PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))
CARD = repository() / "notebooks" / "data" / "DATA_CARD.md"


@pytest.fixture(scope="module")
def clauses():
    return {clause.id: clause for clause in load_clauses()}


@pytest.mark.parametrize("part", frozen.ROWS)
def test_the_generator_makes_the_frozen_rows_again(part):
    """They were made in another process, so neither hash order nor a global random state decides anything."""
    name = "presidio-templates" if part == "independent" else "corpus"
    stored = {row["id"]: row for row in load(repository() / "notebooks" / "data" / f"{name}.parquet").to_list()}
    random.seed(99)
    made = list(frozen.rows_of(part, frozen.ROWS[part]))
    kept = [row for row in made if row["id"] in stored]
    assert len(kept) >= 0.99 * len(made), "only leaks are taken out"
    same = frozen.sha256(kept) == frozen.sha256(stored[row["id"]] for row in kept)
    assert same, "the data is frozen: undo the change"
    for row in kept if part != "independent" else ():  # whose templates may begin with blanks
        assert_exact(row)


def test_no_clause_is_shared_between_splits(clauses):
    used = {split: {id_ for row in generate(1000, split=split) for id_ in row["clause_ids"]} for split in SPLITS}
    for split, ids in used.items():
        assert {clauses[id_].split for id_ in ids} == {split}
    words: dict[str, set[str]] = {split: set() for split in SPLITS}
    for clause in clauses.values():
        words[clause.split].add(re.sub(r"\W+", " ", "".join(clause.parts)).casefold())
    for a, b in PAIRS:
        assert not used[a] & used[b]
        assert not {text for text in words[a] & words[b] if len(text.split()) > 3}, "nor one that differs in marks only"


def test_own_rows_are_made_again_and_no_pattern_is_in_two_templates():
    made = {split: list(letters.generate_own(count, split=split)) for split, count in frozen.OWN_ROWS.items()}
    for split, own in made.items():
        stored = repository() / "notebooks" / "data" / "own" / f"{split}.jsonl"
        assert stored.read_text(encoding="utf-8") == "".join(f"{json.dumps(row)}\n" for row in own)
    for frame in letters.read_bank(letters.HERE / "own", split_of=lambda *_: "train"):
        pattern = max(frame.parts[::2], key=len)
        templates = {row["template_id"] for own in made.values() for row in own if pattern in row["text"]}
        assert len(templates) <= 1 or len(pattern) < 20, f"{pattern!r} is in {templates}"


def card_table(heading):
    """The cells of the rows of the one table under a heading of the data card."""
    section = CARD.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_each_kind_of_hard_negative_on_the_card_is_in_the_bank_and_safe(clauses):
    written = {"".join(f"{{{p}}}" if n % 2 else p for n, p in enumerate(c.parts)): c for c in clauses.values()}
    slots = {slot for clause in clauses.values() for slot in clause.parts[1::2]}
    rows = card_table("Hard negatives")
    assert len({kind for _, kind, _, _ in rows}) == len(rows) >= 40
    made = Values(language="en", split="train", rng=random.Random(0))
    for example, kind, label, rule in rows:
        text = example.strip("`")
        assert rule and (text in written or text.strip("{}") in slots), kind
        if text in written and not text.startswith("{"):
            assert label == "-" and not written[text].codes, kind
        else:
            found = {piece.label for _ in range(40) for piece in made.pieces(text.strip("{}"))} - {None}
            assert found == ({label} - {"-"}) and not PII_200K.codes(found), kind


def test_the_counts_on_the_card_are_those_of_the_bank(clauses):
    assert len(clauses) == len(load_clauses()), "ids are unique"
    for language, split, *counts in card_table("Counts"):
        own = [c for c in clauses.values() if (c.language, c.split) == (language, split)]
        kinds = Counter(code for c in own for code in c.codes or ("safe",))
        assert [int(n) for n in counts] == [len(own), *(kinds[k] for k in ("S1", "S2", "S3", "S4", "S5", "safe"))]
    assert len(card_table("Counts")) == len(LANGUAGES) * len(SPLITS)


@pytest.mark.parametrize("kind", ["first", "last", "city", "county"])
def test_pooled_values_of_the_splits_are_disjoint(kind):
    pools = {split: set().union(*values._pools(split)[kind].values()) for split in SPLITS}
    assert all(len(pool) >= 80 for pool in pools.values())
    assert all(value == value.strip() != "" for pool in pools.values() for value in pool)
    for a, b in PAIRS:
        assert not pools[a] & pools[b]
    assert len(pools["train"]) > 4 * len(pools["test"]) > 8 * len(pools["validation"])
