"""Views of what a guard reads and answers: marked texts, token runs, the trie of verdicts, attention behind a prefix.

Texts are HTML, where everything is escaped and colour never carries the meaning alone, so that they also read in print.
Scores nothing and loads no model: probabilities, lengths and spans are given.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from guard_utils.data.examples import Span
from guard_utils.figures.style import BLUE, FAINT, GREEN, MUTED, ORANGE, SERIES, SKY, TEXT, canvas, style
from guard_utils.policy import Verdict
from guard_utils.scoring.trie import VerdictTrie

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
    parts = []
    for row in errors.to_dict("records"):
        gold, predicted = (", ".join(row[name]) or "safe" for name in ("gold", "predicted"))
        title = f"{row['id']} · {row['kind']} · gold {gold} · model {predicted} · sure {row['confidence']:.0%}"
        body = marked_html(row["text"], spans.get(row["id"], ()))
        parts.append(f'<div class="{PLAIN}" style="white-space:pre-wrap"><b>{escape(title)}</b>{body}</div>')
    return "\n".join(parts)


def tokens_html(runs: Mapping[str, Sequence[int]], decode: Callable[[int], str], *, shown: int = 40) -> str:
    """Renders named runs of token ids, each token in a box; of a run longer than `shown`, the middle is counted."""
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


def _branch(ax: Axes, start: tuple[float, float], end: tuple[float, float], probability: float) -> None:
    x, y = [start[0], end[0] - 0.7, end[0] - 0.7, end[0]], [start[1], start[1], end[1], end[1]]
    color = BLUE if probability >= 0.01 else FAINT
    # The likelier lies on top, where branches leave one node together.
    ax.plot(x, y, color=color, linewidth=0.8 + 7 * probability, zorder=1 + probability)


def _token(ax: Axes, place: tuple[float, float], text: str) -> None:
    frame = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": MUTED, "linewidth": 0.8}
    ax.text(*place, text, ha="center", va="center", fontsize=8.5, family="monospace", bbox=frame, zorder=3)


@style()
def plot_trie(
    trie: VerdictTrie,
    probabilities: npt.ArrayLike,
    token_text: Callable[[int], str],
    *,
    title: str,
    top: int = 8,
    wanted: Verdict | None = None,
) -> Figure:
    """Draws the trie of the most probable verdicts: one box a token, a line as thick as the probability through it.

    Args:
        trie: `GuardScorer.trie`.
        probabilities: [verdicts] of one prompt: a row of `np.exp(scores.log_probs)`.
        token_text: Id to text, such as `lambda token: tokenizer.decode([token])`.
        title: The finding.
        top: Verdicts drawn; the others are summed in a line.
        wanted: A verdict that is drawn in any case, and marked.
    """
    p = np.asarray(probabilities, dtype=float)
    best = np.argsort(-p, kind="stable").tolist()
    shown = set(best[:top]) | {place for place, verdict in enumerate(trie.verdicts) if verdict == wanted}
    through = trie.visible()[list(trie.ends)]  # [verdicts, nodes]
    mass = p @ through
    paths = {verdict: np.flatnonzero(through[verdict]).tolist() for verdict in shown}
    order = sorted(shown, key=paths.__getitem__)  # of the tree, so that no lines cross
    names = [",".join(trie.verdicts[verdict].codes) or "safe" for verdict in order]
    end = 1.25 * (1 + max(map(len, paths.values())))
    right = end + 3.0 + 0.2 * max(map(len, names))
    figure, (ax,) = canvas(title, width=min(9.5, max(7.0, 0.55 * right)), height=1.1 + 0.38 * len(order))
    ax.set(xlim=(-1.1, right + 0.1), ylim=(len(order) + 0.2, -0.7))
    ax.axis("off")
    places: dict[int, tuple[float, float]] = {}
    for line, (verdict, name) in enumerate(zip(order, names, strict=True)):
        before = (-0.3, 0.0)
        for depth, node in enumerate(paths[verdict], 1):
            if node not in places:
                places[node] = (1.25 * depth, line)
                _branch(ax, before, places[node], mass[node])
                _token(ax, places[node], token_text(trie.tokens[node]).translate(VISIBLE))
            before = places[node]
        _branch(ax, before, (end, line), p[verdict])
        told, color = (f"{name} (wanted)", GREEN) if trie.verdicts[verdict] == wanted else (name, TEXT)
        weight = "bold" if verdict == best[0] else "normal"
        ax.text(end + 0.25, line, told, va="center", fontsize=9, color=color, weight=weight)
        ax.text(right, line, f"{p[verdict]:.4f}", va="center", ha="right", fontsize=9)
    _token(ax, (-0.3, 0.0), "prompt")
    rest = f"{len(p) - len(order)} other verdicts {p.sum() - p[order].sum():.4f} · " if len(order) < len(p) else ""
    rest += f"outside the grammar {max(0.0, 1 - p.sum()):.4f}"
    ax.text(right, len(order) - 0.1, rest, va="center", ha="right", fontsize=8.5, color=MUTED)
    return figure


def _attention(ax: Axes, prefix: int, prefix_len: int, start: int, length: int) -> None:
    """Draws what the policy at `prefix` and the conversation at `start` attend to."""
    ax.add_patch(Rectangle((prefix, start), prefix_len, length, color=SKY, linewidth=0))
    for corner, size, color in ((prefix, prefix_len, BLUE), (start, length, ORANGE)):
        ax.fill([corner, corner, corner + size], [corner, corner + size, corner + size], color=color, linewidth=0)


@style()
def plot_prefix_mask(prefix_len: int, lengths: Sequence[int], *, title: str) -> Figure:
    """Draws which token attends to which, in a stock batch and behind a shared prefix, to the same scale.

    `prefix_len` counts the tokens of the policy, `lengths` those of each conversation after it.
    """
    longest = prefix_len + max(lengths)
    stock, packed = longest * len(lengths), prefix_len + sum(lengths)
    figure, (left, right) = canvas(title, width=8.5, height=4.9, ncols=2, sharex=True, sharey=True)
    for i, (begin, length) in enumerate(zip(accumulate(lengths, initial=prefix_len), lengths, strict=False)):
        start, padding = i * longest, max(lengths) - length
        _attention(left, start, prefix_len, start + prefix_len, length)
        left.add_patch(Rectangle((start, start + longest - padding), longest, padding, color=FAINT, linewidth=0))
        _attention(right, 0, prefix_len, begin, length)
    told = f"{packed:,} tokens, {stock / packed:.1f} times fewer"
    for ax, size, name in ((left, stock, f"stock batch: {stock:,} tokens"), (right, packed, f"shared prefix: {told}")):
        ax.add_patch(Rectangle((0, 0), size, size, fill=False, edgecolor=MUTED))
        ax.set(xlim=(-0.01 * stock, 1.01 * stock), ylim=(1.01 * stock, -0.01 * stock), aspect="equal")
        ax.set(xlabel="token attended to", title=name)
    left.set_ylabel("token")
    names = ["policy to itself", "conversation to policy", "conversation to itself", "padding"]
    patches = [Patch(color=color, label=name) for color, name in zip((BLUE, SKY, ORANGE, FAINT), names, strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=4)
    return figure
