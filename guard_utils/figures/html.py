"""Reading views for notebooks: token runs and texts side by side, as HTML.

Colour helps but never carries the meaning alone: every run has its name and its number of tokens, so that the view also
reads in print and where a viewer drops the styles. Everything is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

from guard_utils.figures.style import SERIES, some

VISIBLE = {"\n": "↵", " ": "␣", "\t": "⇥"}


def tokens_html(runs: Mapping[str, Sequence[int]], decode: Callable[[int], str], *, shown: int = 40) -> str:
    """Renders runs of token ids, one paragraph and colour a run, each token in a box of its own.

    Args:
        runs: Name to ids, such as the prefix, conversation and tail of `GuardPrompt.segments`.
        decode: Id to text, such as `lambda token: tokenizer.decode([token])`.
        shown: Tokens drawn of one run; of a longer one the middle is counted instead.

    Returns:
        One `<p>` element a run.

    Raises:
        ValueError: There is no run, or `shown` is below 2.
    """
    some(runs, what="token runs")
    if shown < 2:
        raise ValueError(f"shown is {shown}; show at least 2 tokens of a run, its first and its last")
    parts = []
    for number, (name, ids) in enumerate(runs.items()):
        color = SERIES[number % len(SERIES)]
        boxes = [_token(decode(token), color) for token in ids]
        if len(boxes) > shown:
            head, tail = (shown + 1) // 2, shown // 2
            boxes = [*boxes[:head], f"… {len(boxes) - shown:,} more …", *boxes[-tail:]]
        title = f'<b style="color:{color}">{html.escape(name)}</b> · {len(ids):,} token{"s" * (len(ids) != 1)}'
        parts.append(f'<p style="line-height:1.9">{title}<br>{" ".join(boxes)}</p>')
    return "\n".join(parts)


def _token(text: str, color: str) -> str:
    text = "".join(VISIBLE.get(character, character) for character in text)
    return f'<code style="border:1px solid {color};border-radius:3px;padding:0 2px">{html.escape(text)}</code>'


def side_by_side_html(texts: Mapping[str, str]) -> str:
    """Renders texts in columns, line breaks and blanks kept.

    Args:
        texts: Heading to text, in the order of the columns.

    Returns:
        One `<table>` element.

    Raises:
        ValueError: There is no text.
    """
    some(texts, what="texts")
    cell = "text-align:left;vertical-align:top"
    heads = "".join(f'<th style="{cell}">{html.escape(name)}</th>' for name in texts)
    cells = "".join(
        f'<td style="{cell}"><pre style="white-space:pre-wrap;margin:0">{html.escape(text)}</pre></td>'
        for text in texts.values()
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table>"
