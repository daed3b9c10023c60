"""The reference's scoring against hand-worked cases and a second, naive implementation."""

import random

import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from guard_utils.metrics.reference import align, answer_of, reference_ceilings, rescore

CODES = ("S1", "S2", "S3", "S4", "S5")


def test_answer_of_a_set():
    assert answer_of([]) == ["safe"]
    assert answer_of({"S4", "S1"}) == ["S1", "S4"]
    assert answer_of(["S2", "S10"]) == ["S10", "S2"]


@pytest.mark.parametrize(
    ("predicted", "truth", "aligned"),
    [
        # a missed code: the prediction is padded
        (["S1"], ["S1", "S4"], (["S1", "S4_M"], ["S1", "S4"])),
        # an extra code: the truth is padded
        (["S1", "S3", "S4"], ["S1", "S4"], (["S1", "S3", "S4"], ["S1", "S3_M", "S4"])),
        # the missed S4 is pushed out and lost
        (["S1", "S5"], ["S4"], (["S1", "S5"], ["S1_M", "S5_M"])),
        # the right S4 counts as two errors
        (["S4", "S5"], ["S1", "S4"], (["S4", "S5"], ["S1", "S4"])),
        (["S1", "S4"], ["safe"], (["S1", "S4"], ["S1_M", "S4_M"])),
        # after an insertion the rest is compared one place further on
        (["S2", "S4"], ["S1", "S2", "S5"], (["S1_M", "S2", "S5_M"], ["S1", "S2", "S5"])),
    ],
)
def test_align_by_hand(predicted, truth, aligned):
    before = list(predicted), list(truth)
    assert align(predicted, truth) == aligned
    assert (predicted, truth) == before, "the arguments stay as they are"


def naive_align(predicted, truth):
    """The same words, written as a walk over two queues instead of insertions into a list."""
    if len(predicted) == len(truth):
        return list(predicted), list(truth)
    longer = predicted if len(predicted) > len(truth) else truth
    queue = list(truth if longer is predicted else predicted)
    out = []
    for code in longer:
        out.append(queue.pop(0) if queue and queue[0] == code else code + "_M")
    return (list(predicted), out) if longer is predicted else (out, list(truth))


def test_ten_thousand_random_pairs_against_a_second_implementation():
    r = random.Random(0)
    columns = {name: [r.sample(CODES, r.randint(0, 5)) for _ in range(10_000)] for name in ("predicted", "gold")}
    pairs = [(answer_of(said), answer_of(gold)) for said, gold in zip(*columns.values(), strict=True)]
    expected = [naive_align(*pair) for pair in pairs]
    assert [align(*pair) for pair in pairs] == expected
    assert [align(*pair[::-1]) for pair in pairs] == [(right, left) for left, right in expected]

    left, right = ([label for pair in expected for label in pair[side]] for side in (0, 1))
    found = rescore(pd.DataFrame(columns))
    assert found.weighted_f1 == f1_score(right, left, average="weighted", zero_division=0)
    labels = sorted({*left, *right})
    assert found.confusion.index.tolist() == found.confusion.columns.tolist() == labels
    assert (found.confusion == confusion_matrix(right, left, labels=labels)).all(axis=None)


def test_rescore_a_table():
    df = pd.DataFrame({"gold": [["S1", "S4"], [], ["S2"]], "predicted": [["S1"], [], ["S5", "S1"]]})
    found = rescore(df)
    # (S1,S1) (S4_M,S4) (safe,safe) (S1,S1_M) (S5,S5_M); S1: tp 1 fp 1 -> 2/3, weight 1; safe 1; S4, S1_M, S5_M 0
    assert found.weighted_f1 == pytest.approx((2 / 3 + 1) / 5)
    assert found.confusion.to_numpy().sum() == 5 and found.confusion.loc["S4", "S4_M"] == 1
    assert rescore(df.assign(gold=[["S1"], [], ["S1", "S5"]])).weighted_f1 == 1


def test_ceilings_of_the_references_own_rows():
    found = reference_ceilings()
    assert found.round(4).loc["single"].to_dict() == {"perfect_guard": 0.7803, "perfect_learner": 0.9565}
    assert found.round(4).loc["multi"].to_dict() == {"perfect_guard": 0.8518, "perfect_learner": 0.8557}
