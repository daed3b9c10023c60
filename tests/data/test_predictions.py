"""The predictions table of some examples; its checks are tested with the metrics that call them."""

import pytest

from guard_utils.data.examples import Example, Span
from guard_utils.data.predictions import predictions_table
from guard_utils.policy import PII


def example(number, text, *codes, labels=()):
    spans = tuple(Span(-1, -1, label, None) for label in labels)
    return Example(f"r{number}", text, codes, "en", f"t{number}", "talk", spans)


def test_the_table_has_the_columns_and_the_order_of_the_examples():
    rows = [example(1, "a", "S1", "S4", labels=["FIRSTNAME", "CITY", "FIRSTNAME"]), example(0, "b")]
    table = predictions_table(rows, PII, [[0.5, 0, 0, 0.5, 0], [0, 0, 0, 0, 0]], [["S4", "S1"], ()], [0.25, 0])
    names = "id text language template_id situation gold labels predicted p_S1 p_S2 p_S3 p_S4 p_S5 p_unsafe outside"
    assert list(table.columns) == names.split()
    assert table["id"].tolist() == ["r1", "r0"] and table["template_id"].tolist() == ["t1", "t0"]
    assert table["labels"].tolist() == [["FIRSTNAME", "CITY"], []], "distinct, in order of appearance"
    assert table["gold"].tolist() == table["predicted"].tolist() == [["S1", "S4"], []], "ascending lists"
    assert table["p_unsafe"].tolist() == [0.75, 0] and table["outside"].tolist() == [0.25, 0]
    guard = predictions_table(rows[:1], PII, [[0.5] * 5], [["S1"]], 0.1, unsafe=[0.5])
    assert guard["p_unsafe"].tolist() == [0.5], "a guard gives its own"


@pytest.mark.parametrize(
    ("marginals", "predicted", "message"),
    [
        ([[0.5] * 4], [[]], r"marginals \[1, 4\].*5 categories"),
        ([[0.5] * 5] * 2, [[]], "1 examples"),
        ([[0.5] * 5], [[], []], "2 predictions"),
        ([[1.5] * 5], [[]], "p_S1 is 1.5"),
        ([[0.5] * 5], [["S6"]], "'S6'"),
        ([[0.5] * 5], ["S1"], "the codes of an answer is one text, 'S1'; pass a list"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(marginals, predicted, message):
    with pytest.raises((ValueError, TypeError), match=message):
        predictions_table([example(0, "a")], PII, marginals, predicted, 0.0)
