"""Leakage: shared templates, shared clauses and near-duplicates are found, whatever the values in a text."""

import random

from guard_utils.data.examples import Example
from guard_utils.data.splits import drop_leaks, leakage, near_duplicates

LONG = "the lift in the north wing was stuck again this morning and the caretaker has been told twice already"


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
