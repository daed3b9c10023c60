"""Reading views: what they show, what they leave out, and that nothing gets through unescaped."""

import re

import pandas as pd
import pytest

from guard_utils.data import Span
from guard_utils.figures import marked_html, reading_html, tokens_html


def tokens(markup: str) -> list[str]:
    return re.findall(r"<code[^>]*>(.*?)</code>", markup)


def test_marked_text_has_label_and_code_and_escapes_everything() -> None:
    spans = [Span(13, 18, "ZIP<CODE>", None), Span(3, 6, "FIRSTNAME", "S1"), Span(-1, -1, "CITY", "S4")]
    assert marked_html("<b>Ann</b> & 99578", spans) == (
        "<p>&lt;b&gt;<mark>Ann<sub>FIRSTNAME S1</sub></mark>&lt;/b&gt; "
        "&amp; <mark>99578<sub>ZIP&lt;CODE&gt;</sub></mark></p>"
    )
    assert marked_html("<script>", []) == "<p>&lt;script&gt;</p>"
    assert '"' not in marked_html('"x"', [Span(0, 3, '"A"', None)])


@pytest.mark.parametrize("spans", [[(0, 3), (2, 4)], [(0, 99)], [(2, 2)], [(3, 1)]])
def test_spans_that_do_not_fit_are_named(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"span CITY at .* text of 6 characters"):
        marked_html("abcdef", [Span(start, end, "CITY", None) for start, end in spans])


def test_reading_view() -> None:
    columns = ["id", "text", "gold", "predicted", "kind", "confidence"]
    rows = [["r1", "<i>", [], ["S2"], "extra", 0.9], ["<r0>", "in Rome", ["S1", "S4"], [], "missed", 0.8]]
    view = reading_html(pd.DataFrame(rows, columns=columns), {"<r0>": [Span(3, 7, "CITY", "S4")]})
    assert reading_html(pd.DataFrame(columns=columns), {}) == "", "no row is wrong"
    first, second = view.splitlines()
    assert "r1 · extra · gold safe · model S2 · sure 90%" in first and "<p>&lt;i&gt;</p>" in first
    assert "&lt;r0&gt; · missed · gold S1, S4 · model safe · sure 80%" in second
    assert "<mark>Rome<sub>CITY S4</sub></mark>" in second and "mathjax_ignore" in second


def test_every_token_appears_once_in_order_with_blanks_made_visible_and_all_escaped() -> None:
    markup = tokens_html({"prefix": [0, 1], "answer": [2]}, ["safe", " Ann", "\n"].__getitem__)
    assert tokens(markup) == ["safe", "␣Ann", "↵"]
    assert re.findall(r"<b style[^>]*>(\w+)</b> · ([^<]+)", markup) == [("prefix", "2 tokens"), ("answer", "1 token")]
    assert len(set(re.findall(r"solid (#\w+)", markup))) == 2
    markup = tokens_html({"<i>": "<"}, str)
    assert "&lt;i&gt;" in markup and ">&lt;<" in markup and "<i>" not in markup


@pytest.mark.parametrize(("length", "shown", "hidden"), [(10, 4, 6), (10, 5, 5), (5, 5, 0), (10, 1, 9)])
def test_the_middle_of_a_long_run_is_counted(length: int, shown: int, hidden: int) -> None:
    markup = tokens_html({"prefix": list(range(length))}, str, shown=shown)
    head, tail = shown - shown // 2, shown // 2
    assert [int(token) for token in tokens(markup)] == [*range(head), *range(length - tail, length)]
    assert (f"… {hidden} more …" in markup) == bool(hidden) and f"{length} tokens" in markup
