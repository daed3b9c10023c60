"""Figures that are tables: confusion matrices and cross-tabulations, each cell with its number.

They are part of `plots`, and can be imported from there.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from guard_utils.figures.style import FAINT, HEAT, TEXT, VERMILLION, canvas, need, style
from guard_utils.metrics.errors import KINDS
from guard_utils.policy import Taxonomy


def heat(
    ax: Axes, shares: pd.DataFrame, texts: pd.DataFrame, *, label: str = "", size: float = 9, top: float = 1.0
) -> None:
    """Draws a heat map with a text in each cell; a share that is NaN stays white.

    Args:
        ax: Where to.
        shares: In [0, 1]; index and columns are the tick labels.
        texts: What each cell says, of the same shape.
        label: What the colour means; without it there is no colour bar.
        size: Of the text, in points.
        top: Share of the darkest colour.
    """
    values = shares.to_numpy(dtype=float)
    image = ax.imshow(values, vmin=0, vmax=top, cmap=HEAT, aspect="auto")
    for (row, column), text in np.ndenumerate(texts.to_numpy(dtype=object)):
        dark = values[row, column] > 0.55 * top
        ax.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if dark else "#262626")
    ax.set_xticks(range(shares.shape[1]), [str(name) for name in shares.columns])
    ax.set_yticks(range(shares.shape[0]), [str(name) for name in shares.index])
    ax.set_xticks(np.arange(-0.5, shares.shape[1]), minor=True)
    ax.set_yticks(np.arange(-0.5, shares.shape[0]), minor=True)
    ax.grid(which="minor", color=FAINT, linewidth=0.8)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    if not label:
        return
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.5, aspect=20, pad=0.02)
    bar.set_label(label, fontsize=9)
    bar.outline.set_visible(False)


def _row_shares(counts: pd.DataFrame) -> pd.DataFrame:
    return counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0).fillna(0.0)


def _numbers(counts: pd.DataFrame) -> pd.DataFrame:
    return counts.map(lambda count: f"{count:,}" if count else "")


def _confusion(counts: pd.DataFrame, title: str, axes: tuple[str, str]) -> tuple[Figure, Axes]:
    size = 0.52 * len(counts)
    figure, (ax,) = canvas(title, width=max(6.0, size + 2.6), height=max(4.0, size + 1.6))
    heat(ax, _row_shares(counts), _numbers(counts), label="share of the row")
    ax.set(xlabel=axes[0], ylabel=axes[1])
    return figure, ax


@style()
def confusion_reference(matrix: pd.DataFrame, *, title: str) -> Figure:
    """Draws the reference's confusion matrix; the names of its padding labels `_M`, which nobody gave, are red.

    Args:
        matrix: What `confusion_matrix_with_M` returns.
        title: The finding.
    """
    need(matrix, [], what="the matrix")
    figure, ax = _confusion(matrix, title, ("predicted, padded", "truth, padded"))
    for tick in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        if tick.get_text().endswith("_M"):
            tick.set(color=VERMILLION, style="italic")
    return figure


@style()
def confusion_multilabel(matrix: pd.DataFrame, *, title: str) -> Figure:
    """Draws the multi-label confusion matrix, its margins (extra and missed codes) set apart by lines.

    Args:
        matrix: What `multilabel_confusion` returns.
        title: The finding.
    """
    need(matrix, [], what="the matrix")
    names = ([name.replace(" label", "\nlabel") for name in axis] for axis in (matrix.index, matrix.columns))
    figure, ax = _confusion(pd.DataFrame(matrix.to_numpy(), *names), title, ("predicted code", "true code"))
    for line in (ax.axhline, ax.axvline):
        line(len(matrix) - 1.5, color=TEXT, linewidth=1.6)
    return figure


@style()
def confusion_2x2(cells: pd.DataFrame, policy: Taxonomy, *, title: str) -> Figure:
    """Draws one 2x2 confusion matrix a category.

    Args:
        cells: What `confusion_2x2` of `metrics` returns: index code, columns `tn, fp, fn, tp`.
        policy: Its policy.
        title: The finding.
    """
    need(cells, ["tn", "fp", "fn", "tp"], what="the table")
    columns = min(5, len(cells))
    rows = -(-len(cells) // columns)
    figure, axes = canvas(title, width=max(5.0, 1.9 * columns), height=0.8 + 1.9 * rows, rows=rows, columns=columns)
    for ax, (code, row) in zip(axes, cells.iterrows(), strict=False):
        counts = pd.DataFrame(row[["tn", "fp", "fn", "tp"]].to_numpy().reshape(2, 2), ["no", "yes"], ["no", "yes"])
        heat(ax, _row_shares(counts), _numbers(counts))
        ax.set_title(f"{code} {policy.names[str(code)]}")
    for ax in axes[len(cells) :]:
        ax.set_visible(False)
    figure.supxlabel("predicted", fontsize=10)
    figure.supylabel("in gold", fontsize=10)
    return figure


@style()
def error_heatmap(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws how often each group goes wrong, and in which way.

    Args:
        table: What `error_table` returns: index group, columns `rows, wrong`, and one a kind of error.
        title: The finding.
    """
    need(table, ["rows", "wrong", *KINDS], what="the table")
    counts = table[list(KINDS)]
    shares = counts.div(table["rows"], axis=0)
    shares.index = [f"{row.Index}  ({row.wrong:,} of {row.rows:,} wrong)" for row in table.itertuples()]
    figure, (ax,) = canvas(title, height=1.5 + 0.36 * len(counts))
    heat(ax, shares, _numbers(counts), label="share of the group's rows", top=max(0.01, float(shares.max(axis=None))))
    ax.set_xticklabels([kind.replace(" ", "\n") for kind in KINDS])
    ax.set_ylabel(str(table.index.name or ""), labelpad=10)
    return figure


@style()
def label_crosstab(table: pd.DataFrame, *, title: str, n: int = 20) -> Figure:
    """Draws on which source labels gold and model disagree about which code; a wrong **label** is a dark cell.

    Args:
        table: What `by_source_label` returns: `label, code, rows, missed, extra, disagreement`.
        title: The finding.
        n: Labels at most, those with the most disagreement in one code first.
    """
    need(table, ["label", "code", "rows", "missed", "extra", "disagreement"], what="the table")
    errors = (table["missed"] + table["extra"]).groupby(table["label"]).max()
    labels = errors.sort_values(ascending=False, kind="stable").index[:n]
    told = [
        "\n".join(f"{count:,} {word}" for count, word in ((missed, "missed"), (extra, "extra")) if count)
        for missed, extra in zip(table["missed"], table["extra"], strict=True)
    ]
    wide = table.assign(told=told).pivot(index="label", columns="code")
    codes = list(dict.fromkeys(table["code"]))
    rows = wide["rows"].loc[labels, codes[0]]
    shares = wide["disagreement"].loc[labels, codes]
    shares.index = [f"{label}  ({count:,} rows)" for label, count in rows.items()]
    figure, (ax,) = canvas(title, width=max(7.0, 3.0 + 0.9 * len(codes)), height=1.4 + 0.38 * len(labels))
    heat(ax, shares, wide["told"].loc[labels, codes].fillna(""), label="share of the label's rows", size=7.5)
    ax.tick_params(labeltop=True, labelbottom=False)
    return figure
