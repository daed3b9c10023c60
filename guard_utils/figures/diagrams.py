"""Drawings that explain how things work: the series, the verdict trie, the shared prefix, the metric's alignment.

They are part of `plots`, and can be imported from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch, Polygon, Rectangle

from guard_utils.figures.style import BLUE, FAINT, GREEN, MUTED, ORANGE, SKY, TEXT, VERMILLION, canvas, style

if TYPE_CHECKING:
    from guard_utils.scoring.scorer import VerdictTrie

PALE = "#f4f4f4"


def _blank(ax: Axes, width: float, height: float) -> None:
    """Makes an empty drawing board, y downwards."""
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.axis("off")


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, **look: Any) -> None:
    """Draws a rounded box round (x, y)."""
    size, color = look.pop("size", 9), look.pop("color", TEXT)
    frame: dict[str, Any] = {"facecolor": PALE, "edgecolor": MUTED, "linewidth": 1.0} | look
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.08", **frame))
    ax.text(x, y, text, ha="center", va="center", fontsize=size, color=color, linespacing=1.35)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], *, bend: str = "arc3") -> None:
    look = {"arrowstyle": "-|>", "color": MUTED, "lw": 1.3, "connectionstyle": bend, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=look)


@style()
def data_flow(*, title: str = "Each notebook reads what the one before it wrote") -> Figure:
    """Draws the series: what flows from notebook to notebook."""
    figure, (ax,) = canvas(title, width=9.5, height=3.3)
    _blank(ax, 19, 5.5)
    files = ["corpus rows", "examples", "train.jsonl", "checkpoint", "predictions\n.parquet"]
    makers = ["labels", "formatter", "torchtune", "scorer"]
    origins = ["hub or embedded", "notebook 02", "notebook 02", "notebook 03", "notebook 04"]
    places = [1.6 + 3.95 * i for i in range(len(files))]
    for x, file, origin in zip(places, files, origins, strict=True):
        _box(ax, x, 1.3, 2.3, 1.2, file, facecolor="#e3f0f8", edgecolor=BLUE)
        ax.text(x, 0.45, origin, ha="center", fontsize=8, color=MUTED)
    for left, right, maker in zip(places, places[1:], makers, strict=False):
        _arrow(ax, (left + 1.15, 1.3), (right - 1.15, 1.3))
        ax.text((left + right) / 2, 1.1, maker, ha="center", va="bottom", fontsize=9)
    results = [("metrics,\nfigures", "04"), ("errors", "05"), ("audited\nlabels", "06")]
    for x, (text, number) in zip(places[:1:-1], results, strict=True):
        _box(ax, x, 4.2, 2.3, 1.2, text, facecolor="#fdf3df", edgecolor=ORANGE)
        ax.text(x, 5.25, f"notebook {number}", ha="center", fontsize=8, color=MUTED)
    _arrow(ax, (places[4], 1.9), (places[4], 3.6))
    for right, left in zip(places[:2:-1], places[3:1:-1], strict=True):
        _arrow(ax, (right - 1.15, 4.2), (left + 1.15, 4.2))
    _arrow(ax, (places[2] - 1.15, 4.2), (places[1], 1.9), bend="angle,angleA=180,angleB=90,rad=6")
    ax.text(places[1] + 0.2, 3.1, "retrain", fontsize=9)
    return figure


def _shown(trie: VerdictTrie, chosen: Sequence[int]) -> list[int]:
    """Nodes on the paths of the chosen verdicts, in the trie's order."""
    nodes = set()
    for verdict in chosen:
        node = trie.ends[verdict]
        while node >= 0:
            nodes.add(node)
            node = trie.parents[node]
    return sorted(nodes)


def _mass(trie: VerdictTrie, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[nodes] probability of all verdicts whose path runs through the node."""
    mass = np.zeros(len(trie.tokens))
    np.add.at(mass, list(trie.ends), probabilities)
    for node in reversed(range(len(mass))):
        if trie.parents[node] >= 0:
            mass[trie.parents[node]] += mass[node]
    return mass


def _rows(trie: VerdictTrie, nodes: Sequence[int], lines: dict[int, int]) -> dict[int, float]:
    """Height of each node: the first line among the verdicts that run through it."""
    heights: dict[int, float] = {}
    for node in reversed(nodes):
        below = [heights[child] for child in nodes if trie.parents[child] == node]
        heights[node] = min([*below, *([lines[node]] if node in lines else [])])
    return heights


@style()
def verdict_trie(
    trie: VerdictTrie, probabilities: npt.ArrayLike, token_text: Callable[[int], str], *, title: str, top: int = 8
) -> Figure:
    """Draws the trie of the most probable verdicts: one box a token, a line as thick as the probability through it.

    Args:
        trie: `GuardScorer.trie`.
        probabilities: [verdicts] of one prompt: a row of `np.exp(scores.log_probs)`.
        token_text: Id to text, such as `lambda token: tokenizer.decode([token])`.
        title: The finding.
        top: Verdicts drawn; the others are summed in a line.

    Raises:
        ValueError: Not one probability a verdict.
    """
    p = np.asarray(probabilities, dtype=float)
    if p.shape != (len(trie.verdicts),):
        raise ValueError(f"probabilities have shape {p.shape}; pass the {len(trie.verdicts)} verdicts of one prompt")
    best = np.argsort(-p, kind="stable")[:top]
    depths, mass, nodes = trie.depths(), _mass(trie, p), _shown(trie, best.tolist())
    # Verdicts stand in the order of the tree, so that no lines cross.
    order = sorted(best.tolist(), key=lambda verdict: _path(trie, trie.ends[verdict]))
    heights = _rows(trie, nodes, {trie.ends[verdict]: line for line, verdict in enumerate(order)})
    deepest, step = max(depths[node] for node in nodes), 1.25
    end = step * (deepest + 1)
    names = [",".join(trie.verdicts[verdict].codes) or "safe" for verdict in order]
    right = end + 2.0 + 0.2 * max(map(len, names))
    figure, (ax,) = canvas(title, width=min(9.5, max(7.0, 0.55 * right)), height=1.1 + 0.38 * len(order))
    ax.set(xlim=(-1.1, right + 0.1), ylim=(len(order) + 0.2, -0.7))
    ax.axis("off")
    place = {-1: (-0.3, heights[nodes[0]])} | {node: (step * depths[node], heights[node]) for node in nodes}
    for node in nodes:
        _branch(ax, place[trie.parents[node]], place[node], mass[node])
    for line, (verdict, name) in enumerate(zip(order, names, strict=True)):
        _branch(ax, place[trie.ends[verdict]], (end, line), p[verdict])
        ax.text(end + 0.25, line, name, va="center", fontsize=9, weight="bold" if verdict == best[0] else "normal")
        ax.text(right, line, f"{p[verdict]:.4f}", va="center", ha="right", fontsize=9)
    _token(ax, place[-1], "prompt")
    for node in nodes:
        _token(ax, place[node], token_text(trie.tokens[node]).replace("\n", "↵").replace(" ", "␣"))
    others = f"{len(p) - len(order)} other verdicts {p.sum() - p[best].sum():.4f} · " if len(order) < len(p) else ""
    rest = f"{others}outside the grammar {max(0.0, 1 - p.sum()):.4f}"
    ax.text(right, len(order) - 0.1, rest, va="center", ha="right", fontsize=8.5, color=MUTED)
    return figure


def _path(trie: VerdictTrie, node: int) -> list[int]:
    path: list[int] = []
    while node >= 0:
        path.insert(0, node)
        node = trie.parents[node]
    return path


def _branch(ax: Axes, start: tuple[float, float], end: tuple[float, float], probability: float) -> None:
    turn = end[0] - 0.7
    x, y = [start[0], turn, turn, end[0]], [start[1], start[1], end[1], end[1]]
    color = BLUE if probability >= 0.01 else FAINT
    # The likelier lies on top, where branches leave one node together.
    ax.plot(x, y, color=color, linewidth=0.8 + 7 * probability, zorder=1 + probability, solid_joinstyle="round")


def _token(ax: Axes, place: tuple[float, float], text: str) -> None:
    look = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": MUTED, "linewidth": 0.8}
    ax.text(*place, text, ha="center", va="center", fontsize=8.5, family="monospace", bbox=look, zorder=3)


def _causal(ax: Axes, start: int, length: int, color: str) -> None:
    ax.add_patch(
        Polygon([(start, start), (start, start + length), (start + length, start + length)], color=color, lw=0)
    )


@style()
def prefix_mask(
    prefix_len: int, lengths: Sequence[int], *, title: str = "The policy is computed once, not once an example"
) -> Figure:
    """Draws which token attends to which, in a stock batch and behind a shared prefix, to the same scale.

    Args:
        prefix_len: Tokens of the policy.
        lengths: Tokens of each conversation after it.
        title: The finding.

    Raises:
        ValueError: A length below 1.
    """
    if not lengths or min(prefix_len, *lengths) < 1:
        raise ValueError(f"prefix_len={prefix_len}, lengths={list(lengths)}: each must be at least 1")
    longest = prefix_len + max(lengths)
    stock, packed = longest * len(lengths), prefix_len + sum(lengths)
    figure, (left, right) = canvas(title, width=8.5, height=4.9, columns=2, sharex=True, sharey=True)
    for i, length in enumerate(lengths):
        start, size = i * longest, prefix_len + length
        left.add_patch(Rectangle((start, start), longest, longest, facecolor=FAINT, lw=0))
        left.add_patch(Rectangle((start, start), size, size, facecolor="white", lw=0))
        _causal(left, start, prefix_len, BLUE)
        left.add_patch(Rectangle((start, start + prefix_len), prefix_len, length, color=SKY, lw=0))
        _causal(left, start + prefix_len, length, ORANGE)
    _causal(right, 0, prefix_len, BLUE)
    for end, length in zip(accumulate(lengths, initial=prefix_len), lengths, strict=False):
        right.add_patch(Rectangle((0, end), prefix_len, length, color=SKY, lw=0))
        _causal(right, end, length, ORANGE)
    for ax, size, name in ((left, stock, "stock batch"), (right, packed, "shared prefix")):
        ax.add_patch(Rectangle((0, 0), size, size, fill=False, edgecolor=MUTED, lw=1))
        ax.set(xlim=(-0.01 * stock, 1.01 * stock), ylim=(1.01 * stock, -0.01 * stock), aspect="equal")
        ax.set_xlabel("token attended to")
        ax.set_title(f"{name}: {size:,} tokens computed")
    left.set_ylabel("token")
    text = f"{stock / packed:.1f} times fewer tokens"
    right.text(0.98, 0.06, text, transform=right.transAxes, ha="right", fontsize=10, weight="bold")
    names = {
        BLUE: "policy to itself",
        SKY: "conversation to policy",
        ORANGE: "conversation to itself",
        FAINT: "padding",
    }
    figure.legend(handles=[Patch(color=c, label=n) for c, n in names.items()], loc="outside lower center", ncols=4)
    return figure


@style()
def alignment_example(
    y_true: Sequence[str],
    y_pred: Sequence[str],
    aligned_true: Sequence[str],
    aligned_pred: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Draws how the reference compares an answer with the truth by position, next to the comparison of sets.

    Args:
        y_true: The gold codes.
        y_pred: The model's codes.
        aligned_true: The gold list as `align` returns it.
        aligned_pred: The model's list as `align` returns it.
        title: The finding.
    """
    codes = sorted({*y_true, *y_pred})
    pairs = list(zip(aligned_true, aligned_pred, strict=True))
    sets = [(code if code in y_true else "", code if code in y_pred else "") for code in codes]
    notes = _notes(y_true, y_pred, pairs)
    figure, axes = canvas(title, width=8.0, height=2.9 + 0.24 * len(notes), columns=2)
    width = 1.2 + 1.3 * max(len(pairs), len(sets))
    for ax, cells, name in zip(axes, (sets, pairs), ("as sets", "by position, as the reference does"), strict=True):
        _blank(ax, width, 3.6)
        ax.set_title(name, loc="left")
        for y, what in ((0.7, "truth"), (1.9, "answer")):
            ax.text(0, y, what, va="center", fontsize=9)
        for i, (true, said) in enumerate(cells):
            x, right = 1.85 + 1.3 * i, true == said
            mark, verdict = ("✓", GREEN) if right else ("✗", VERMILLION)
            for y, text in ((0.7, true), (1.9, said)):
                edge = verdict if text else FAINT
                color = VERMILLION if text.endswith("_M") else TEXT
                _box(ax, x, y, 1.1, 0.8, text or "–", edgecolor=edge, facecolor="white", linewidth=1.6, color=color)
            ax.text(x, 2.85, mark, ha="center", va="center", fontsize=14, color=verdict)
    figure.supxlabel("\n".join(notes), fontsize=10, x=0.012, ha="left")
    return figure


def _notes(y_true: Sequence[str], y_pred: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Sentences on what the positions got wrong."""
    truth, said = {true for true, _ in pairs}, {guess for _, guess in pairs}
    notes = []
    for code in sorted({*y_true, *y_pred}):
        if code in y_true and code in y_pred:
            if (code, code) not in pairs:
                notes.append(f"{code} is right, but stands at different positions: counted as wrong.")
        elif code in y_true and code not in truth:
            notes.append(f"{code} was missed, but is cut off: counted nowhere.")
        elif code in y_pred and code not in said:
            notes.append(f"{code} was reported by mistake, but is cut off: counted nowhere.")
    padded = [true for true, _ in pairs if true.endswith("_M")]
    if padded:
        notes.append(f"{' and '.join(padded)} in the truth: padding, which no answer can hit.")
    return notes or ["Here both count the same."]
