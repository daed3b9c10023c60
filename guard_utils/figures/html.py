"""Reading views for notebooks, as HTML: texts with their spans, and token runs.

Escapes everything and scores nothing. Colour never carries the meaning alone, so the views also read in print.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

import pandas as pd

from guard_utils.data.examples import Span
from guard_utils.figures.style import SERIES, check

VISIBLE = str.maketrans({"\n": "↵", " ": "␣", "\t": "⇥"})
PLAIN = "tex2jax_ignore mathjax_ignore"  # else a notebook reads two dollar amounts as a formula


def marked_html(text: str, spans: Iterable[Span]) -> str:
    """Renders a text as one `<p>` with its spans marked, each followed by label and code; no mark without an offset.

    Raises:
        ValueError: A span lies outside the text or overlaps another.
    """
    pieces, done = [], 0
    for span in sorted((span for span in spans if span.start >= 0), key=lambda span: (span.start, span.end)):
        if not done <= span.start < span.end <= len(text):
            place = f"span {span.label} at {span.start}-{span.end} in a text of {len(text)} characters"
            raise ValueError(f"{place} overlaps another or leaves the text; offsets must count its characters")
        tag = f"{span.label} {span.code or ''}".strip()
        marked = f"<mark>{escape(text[span.start : span.end])}<sub>{escape(tag)}</sub></mark>"
        pieces += [escape(text[done : span.start]), marked]
        done = span.end
    return f"<p>{''.join(pieces)}{escape(text[done:])}</p>"


def reading_html(errors: pd.DataFrame, spans: Mapping[str, Iterable[Span]]) -> str:
    """Renders rows of `metrics.disagreements` for reading; `spans` holds by row id what is marked in its text."""
    check(errors, "id", "text", "gold", "predicted", "kind", "confidence")
    parts = []
    for row in errors.to_dict("records"):
        gold, predicted = (", ".join(row[name]) or "safe" for name in ("gold", "predicted"))
        title = f"{row['id']} · {row['kind']} · gold {gold} · model {predicted} · sure {row['confidence']:.0%}"
        body = marked_html(row["text"], spans.get(row["id"], ()))
        parts.append(f'<div class="{PLAIN}" style="white-space:pre-wrap"><b>{escape(title)}</b>{body}</div>')
    return "\n".join(parts)


def tokens_html(runs: Mapping[str, Sequence[int]], decode: Callable[[int], str], *, shown: int = 40) -> str:
    """Renders named runs of token ids, each token in a box; of a run longer than `shown`, the middle is counted."""
    check(runs)
    parts = []
    for number, (name, ids) in enumerate(runs.items()):
        color = SERIES[number % len(SERIES)]
        frame = f'<code style="border:1px solid {color};border-radius:3px;padding:0 2px">'
        boxes = [f"{frame}{escape(decode(token).translate(VISIBLE))}</code>" for token in ids]
        if len(boxes) > shown:
            boxes[shown - shown // 2 : len(boxes) - shown // 2] = [f"… {len(boxes) - shown:,} more …"]
        title = f'<b style="color:{color}">{escape(name)}</b> · {len(ids):,} token{"s" * (len(ids) != 1)}'
        parts.append(f'<p style="line-height:1.9">{title}<br>{" ".join(boxes)}</p>')
    return "\n".join(parts)
