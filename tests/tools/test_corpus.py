"""The embedded corpus and its values: same bytes, exact offsets, disjoint splits, right labels."""

import ipaddress
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard_utils.data import PII_200K, load
from guard_utils.profiles import repository
from tests.data.made import assert_exact
from tools.corpus import __main__ as frozen
from tools.corpus import compose as corpus
from tools.corpus import values
from tools.corpus.compose import LANGUAGES, generate, load_clauses, slot_codes
from tools.corpus.values import Values, luhn_digit

SPLITS = ("train", "validation", "test")
PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))
CARD = repository() / "notebooks" / "data" / "DATA_CARD.md"

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def rows():
    return {split: list(generate(1000, split=split)) for split in SPLITS}


@pytest.fixture(scope="module")
def clauses():
    return {clause.id: clause for clause in load_clauses()}


def pooled(split, kind):
    """All values of a kind in a split, of whatever locale or country."""
    return {value for pool in values._pools(split)[kind].values() for value in pool}


def codes_of(row):
    return PII_200K.codes(span["label"] for span in row["privacy_mask"])


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


def test_seeds_and_splits_differ_and_more_rows_begin_with_the_fewer():
    texts = [[row["source_text"] for row in generate(20, split="train", seed=seed)] for seed in (0, 1)]
    assert not set(texts[0]) & set(texts[1])
    assert list(generate(10, split="train")) == list(generate(30, split="train"))[:10]
    ids = [row["id"] for seed in (0, 1) for split in SPLITS for row in generate(20, split=split, seed=seed)]
    assert len(set(ids)) == len(ids)


@few
@given(seed=st.integers(0, 2**40), split=st.sampled_from(SPLITS))
def test_offsets_are_exact_and_masks_stand_at_them(seed, split):
    for row in generate(20, split=split, seed=seed):
        assert_exact(row)


@pytest.mark.parametrize("split", SPLITS)
def test_every_category_language_and_number_of_categories_is_present(rows, split):
    counts = Counter(code for row in rows[split] for code in codes_of(row))
    assert all(counts[code] >= 80 for code in ("S1", "S2", "S3", "S4", "S5")), counts
    sizes = Counter(len(codes_of(row)) for row in rows[split])
    assert sizes[0] >= 150 and all(sizes[n] for n in range(5)), sizes
    languages = Counter(row["language"] for row in rows[split])
    # The small validation split has no clause of every category in German and Italian and does without them.
    spoken = LANGUAGES if split != "validation" else ("en", "fr")
    assert all(languages[language] >= 20 for language in spoken) and languages["en"] > 700


def test_labels_come_only_from_clauses_that_declare_them(rows, clauses):
    for some in rows.values():
        for row in some:
            if row["clause_ids"]:
                declared = frozenset().union(*(clauses[id_].codes for id_ in row["clause_ids"]))
                # A greeting or a signature may add a name, a signature a telephone number too.
                assert set(codes_of(row)) <= declared | {"S1", "S3"}, row["source_text"]


def test_no_clause_is_shared_between_splits(rows, clauses):
    used = {split: {id_ for row in some for id_ in row["clause_ids"]} for split, some in rows.items()}
    for split, ids in used.items():
        assert {clauses[id_].split for id_ in ids} == {split}
    words: dict[str, set[str]] = {split: set() for split in SPLITS}
    for clause in clauses.values():
        words[clause.split].add(re.sub(r"\W+", " ", "".join(clause.parts)).casefold())
    for a, b in PAIRS:
        assert not used[a] & used[b]
        assert not {text for text in words[a] & words[b] if len(text.split()) > 3}, "nor one that differs in marks only"


def test_half_of_the_test_texts_open_in_a_situation_unseen_in_training(rows, clauses):
    trained = {clause.situation for clause in clauses.values() if clause.split == "train"}
    opening = [row["situation"] for row in rows["test"] if row["situation"] != "record"]
    assert sum(situation not in trained for situation in opening) >= len(opening) / 2
    assert any(situation in trained for situation in opening), "the other half asks about known situations"


@pytest.mark.parametrize(
    ("lines", "message"),
    [(["No situation"], "general.txt:1"), (["[talk]", "Hi {first_name}", "", "Hi {first_name}"], "general.txt:4")],
)
def test_a_faulty_bank_is_refused_with_file_and_line(monkeypatch, tmp_path, lines, message):
    for language in LANGUAGES:
        folder = tmp_path / "clauses" / language
        folder.mkdir(parents=True)
        (folder / "general.txt").write_text("\n".join(lines if language == "en" else []), encoding="utf-8")
    slot_codes("first_name")  # read before the folder is swapped
    monkeypatch.setattr(corpus, "HERE", tmp_path)
    with pytest.raises(ValueError, match=message):
        load_clauses.__wrapped__()


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
    pools = {split: pooled(split, kind) for split in SPLITS}
    assert all(len(pool) >= 80 for pool in pools.values())
    assert all(value == value.strip() != "" for pool in pools.values() for value in pool)
    for a, b in PAIRS:
        assert not pools[a] & pools[b]
    assert len(pools["train"]) > 4 * len(pools["test"]) > 8 * len(pools["validation"])


def test_cards_and_addresses_are_valid(rows):
    spans = [span for some in rows.values() for row in some for span in row["privacy_mask"]]
    published = ("79927398713", "4242424242424242", "378282246310005", "6011111111111117")
    assert all(luhn_digit(card[:-1]) == card[-1] for card in published)
    cards = ["".join(re.findall(r"\d", span["value"])) for span in spans if span["label"] == "CREDITCARDNUMBER"]
    assert len(cards) > 100 and all(luhn_digit(card[:-1]) == card[-1] for card in cards)
    assert {len(card) for card in cards} >= {14, 15, 16}
    made = [span["value"] for span in spans if span["label"] in ("IPV4", "IPV6")]
    assert {ipaddress.ip_address(value).version for value in made} == {4, 6}


@pytest.mark.parametrize("arguments", [{"n": 5, "split": "dev"}, {"n": -1, "split": "train"}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match="train, validation or test"):
        list(generate(**arguments))
    assert list(generate(0, split="train")) == []
