"""Reading views: what they show, what they leave out, and that nothing gets through unescaped."""

from __future__ import annotations

import re

import pytest

from guard_utils.figures.html import side_by_side_html, tokens_html

WORDS = {0: "<b>", 1: " Ann", 2: "\n", 3: "safe"}


def tokens(markup: str) -> list[str]:
    return re.findall(r"<code[^>]*>(.*?)</code>", markup)


def test_every_token_stands_once_in_order_with_blanks_made_visible() -> None:
    markup = tokens_html({"prefix": [3, 1], "answer": [2]}, WORDS.__getitem__)
    assert tokens(markup) == ["safe", "␣Ann", "↵"]
    assert re.findall(r"<b style[^>]*>(\w+)</b> · ([^<]+)", markup) == [("prefix", "2 tokens"), ("answer", "1 token")]


def test_runs_differ_in_colour() -> None:
    markup = tokens_html({"prefix": [3], "answer": [3]}, WORDS.__getitem__)
    assert len(set(re.findall(r"solid (#\w+)", markup))) == 2


@pytest.mark.parametrize(("length", "shown", "hidden"), [(10, 4, 6), (10, 5, 5), (5, 5, 0)])
def test_the_middle_of_a_long_run_is_counted(length: int, shown: int, hidden: int) -> None:
    markup = tokens_html({"prefix": list(range(length))}, str, shown=shown)
    ids = [int(token) for token in tokens(markup)]
    assert ids[0] == 0 and ids[-1] == length - 1 and len(ids) == shown and ids == sorted(ids)
    assert (f"… {hidden} more …" in markup) == bool(hidden)
    assert f"{length} tokens" in markup


def test_text_of_tokens_headings_and_columns_is_escaped() -> None:
    markup = tokens_html({"<i>": [0]}, WORDS.__getitem__)
    assert tokens(markup) == ["&lt;b&gt;"] and "&lt;i&gt;" in markup and "<i>" not in markup
    table = side_by_side_html({"<i>": "<script>"})
    assert "&lt;script&gt;" in table and "<script>" not in table and "<i>" not in table


def test_columns_stand_in_order_with_their_line_breaks() -> None:
    table = side_by_side_html({"plain": "a\n  b", "shuffled": "c"})
    assert re.findall(r"<th style[^>]*>(.*?)</th>", table) == ["plain", "shuffled"]
    assert re.findall(r"<pre[^>]*>(.*?)</pre>", table, re.DOTALL) == ["a\n  b", "c"]


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="no token runs given"):
        tokens_html({}, str)
    with pytest.raises(ValueError, match="no texts given"):
        side_by_side_html({})
    with pytest.raises(ValueError, match="shown is 1; show at least 2"):
        tokens_html({"prefix": [1]}, str, shown=1)
