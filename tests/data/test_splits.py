"""The four sets of a run: frozen but for the order of training rows, named by a digest, and without leaks."""

import random

from guard_utils.data.examples import Example, rows_fingerprint
from guard_utils.data.splits import drop_leaks, leakage, load_splits, near_duplicates, split_by_template
from guard_utils.profiles import resolve

LONG = "the lift in the north wing was stuck again this morning and the caretaker has been told twice already"


def test_the_test_set_is_frozen() -> None:
    test = load_splits(resolve("laptop")).test
    assert rows_fingerprint(test) == "5fadb0effc81827a8b56620e800537245a025d6d0d2e5d628a1f5291079c469b"


def test_a_seed_orders_training_rows_within_their_phase_and_nothing_else() -> None:
    one, two = (load_splits(resolve("smoke", seed=seed)) for seed in (1, 2))
    assert one.held_out == two.held_out
    assert [example.id for example in one.train] != [example.id for example in two.train]
    simple = sum(example.id.startswith("train-simple") for example in one.train)
    for phase in (slice(0, simple), slice(simple, None)):
        first, second = (sorted(example.id for example in splits.train[phase]) for splits in (one, two))
        assert first == second, "the phases hold the same rows, the simple ones first"
    assert one == load_splits(resolve("smoke", seed=1))


def test_a_small_profile_takes_both_phases_in_proportion() -> None:
    small, whole = load_splits(resolve("smoke")), load_splits(resolve("laptop"))
    assert (len(small.train), len(small.validation), len(small.test), len(small.independent)) == (96, 48, 64, 48)
    assert small.test == whole.test[:64]
    shares = [sum(e.id.startswith("train-simple") for e in part.train) / len(part.train) for part in (small, whole)]
    assert abs(shares[0] - shares[1]) < 0.01


def test_split_is_by_template_and_blind_to_order() -> None:
    examples = [Example(str(n), "x", (), "en", f"t{n % 200}", "", ()) for n in range(1000)]
    parts = split_by_template(examples, seed=1)
    templates = {name: {e.template_id for e in part} for name, part in parts.items()}
    assert sum(map(len, parts.values())) == 1000
    assert sum(map(len, templates.values())) == 200
    assert 0.7 < len(parts["train"]) / 1000 < 0.9
    again = split_by_template(random.Random(0).sample(examples[:500], 500), seed=1)
    for name, part in parts.items():
        assert {e.id for e in again[name]} == {e.id for e in part if int(e.id) < 500}
        assert part == sorted(part, key=lambda e: int(e.id))
    assert {e.template_id for e in split_by_template(examples, seed=2)["test"]} != templates["test"]


def example(number: int, text: str, template: str = "", clauses: tuple[str, ...] = ()) -> Example:
    return Example(str(number), text, (), "en", template, "", (), clauses)


def test_templates_clauses_and_near_duplicates_are_found_and_dropped() -> None:
    train = [
        example(1, "one two three four", template="shared"),
        example(2, "five six seven eight", template="a", clauses=("c1", "c2")),
        example(3, LONG, template="b"),
        example(4, "nothing in common with any of them at all", template="c", clauses=("c9",)),
    ]
    test = [
        example(11, "nine ten eleven twelve", template="shared"),
        example(12, "red green blue yellow", template="d", clauses=("c2", "c3")),
        example(13, LONG.replace("already", "now").title(), template="e"),
        example(14, "a text of its own kind", template="f", clauses=("c8",)),
    ]
    report = leakage(train, test)
    assert list(near_duplicates(train, test)) == [(["3"], ["13"], 16 / 18)]
    assert (report.train_ids, report.test_ids) == ({"1", "2", "3"}, {"11", "12", "13"})
    assert list(report.counts.values()) == [1, 1, 1, 3, 3]
    assert [e.id for e in drop_leaks(train, report)] == ["4"]
    assert not any(leakage(drop_leaks(train, report), test).counts.values())


def test_masked_texts_are_compared_and_empty_texts_are_not() -> None:
    def made(name: str, number: int) -> Example:
        rest = "moved house after the school year ended"
        return Example(str(number), f"{name} {rest}", (), "en", f"t{number}", "", (), (), f"[FIRSTNAME] {rest}")

    found = near_duplicates([made("Ada", 1), made("Kim", 2)], [made("Maximilian", 3)])
    assert list(found) == [(["1", "2"], ["3"], 1.0)]
    for one, other in (("abc", "xyz"), ("", ""), ("...", "abc")):
        assert not leakage([example(1, one)], [example(2, other)]).train_ids
    assert not leakage([], [example(2, "abc")]).test_ids


def test_the_pairs_are_those_of_comparing_every_text_with_every_other() -> None:
    rng = random.Random(3)
    train = [[f"w{rng.randrange(3_000)}" for _ in range(42)] for _ in range(300)]
    test = [[*words[: rng.randrange(30, 42)], *"uvwxyz"] for words in train]

    def triples(words: list[str]) -> set[tuple[str, ...]]:
        return set(zip(words, words[1:], words[2:], strict=False))

    expected = set()
    for i, one in enumerate(map(triples, train)):
        for j, other in enumerate(map(triples, test)):
            if len(one & other) / len(one | other) >= 0.8:
                expected.add((str(i), str(j), len(one & other) / len(one | other)))
    sides = [[example(n, " ".join(words)) for n, words in enumerate(texts)] for texts in (train, test)]
    found = [(*train_ids, *test_ids, similarity) for train_ids, test_ids, similarity in near_duplicates(*sides)]
    assert set(found) == expected
    assert 50 < len(found) < 250
