"""The four sets of a run: frozen but for the order of training rows, and named by a digest."""

import random

from guard_utils.data.examples import Example, rows_fingerprint
from guard_utils.data.splits import Splits, load_splits, split_by_template
from guard_utils.profiles import resolve

ANN = Example("1", "Hi Ann", ("S1",), "en", "t1", "", ())
RAIN = Example("2", "It rains", (), "en", "t2", "", ())
SPLITS = Splits([ANN, RAIN], [ANN], [RAIN], [])


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
