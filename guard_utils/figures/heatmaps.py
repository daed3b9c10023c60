"""Figures that are tables: confusion matrices and tables of errors, each cell with its number.

Counts nothing: the tables come from `metrics`. Colours run from white to nearly black, so a rare cell stays pale and
grey print keeps the order.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from guard_utils.figures.style import BLUE, FAINT, SKY, TEXT, VERMILLION, canvas, check, style

HEAT = LinearSegmentedColormap.from_list("heat", ["white", SKY, BLUE, "#002b45"])


def _heat(ax: Axes, shares: pd.DataFrame, texts: pd.DataFrame, *, label: str, size: float = 9, top: float = 1) -> None:
    """Draws shares in [0, top] as colours, NaN white, a text or count in each cell, and a colour bar named `label`."""
    values = shares.to_numpy(dtype=float)
    image = ax.pcolormesh(values, vmin=0, vmax=top, cmap=HEAT, edgecolors=FAINT, linewidth=0.8)
    for (row, column), cell in np.ndenumerate(texts.to_numpy(dtype=object)):
        text = cell if isinstance(cell, str) else f"{cell:,}" if cell > 0 else ""
        color = "white" if values[row, column] > 0.55 * top else "#262626"
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=color)
    ax.set_xticks(np.arange(shares.shape[1]) + 0.5, shares.columns)
    ax.set_yticks(np.arange(shares.shape[0]) + 0.5, shares.index)
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(image, ax=ax, shrink=0.5, aspect=20, pad=0.02, label=label)


def _confusion(counts: pd.DataFrame, title: str, predicted: str, truth: str) -> tuple[Figure, Axes]:
    check(counts)
    cell = min(0.6, max(0.3, 10 / len(counts)))  # inches
    side = cell * len(counts)
    figure, (ax,) = canvas(title, width=max(6.0, side + 2.6), height=max(4.0, side + 1.6))
    shares = counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0)
    _heat(ax, shares, counts, label="share of the row", size=min(9, 18 * cell))
    ax.set(xlabel=predicted, ylabel=truth)
    ax.tick_params(axis="x", rotation=90 if cell < 0.5 else 0)
    return figure, ax


@style()
def plot_confusion(matrix: pd.DataFrame, *, title: str) -> Figure:
    """Draws what `metrics.confusion_matrix_with_M` returns; the padding labels `_M`, which nobody gave, are red."""
    figure, ax = _confusion(matrix, title, "predicted, padded", "truth, padded")
    for tick in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        if tick.get_text().endswith("_M"):
            tick.set(color=VERMILLION, style="italic")
    return figure


@style()
def plot_multilabel_confusion(matrix: pd.DataFrame, *, title: str) -> Figure:
    """Draws what `metrics.multilabel_confusion` returns; lines set the margins apart (extra and missed codes)."""
    named = matrix.rename(columns=lambda name: name.replace(" label", "\nlabel"))
    figure, ax = _confusion(named, title, "predicted code", "true code")
    ax.axhline(len(matrix) - 1, color=TEXT, linewidth=1.6)
    ax.axvline(len(matrix) - 1, color=TEXT, linewidth=1.6)
    return figure


@style()
def plot_errors(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws how often each group goes wrong, and in which way, from what `metrics.error_table` returns."""
    check(table, "rows", "wrong", "error_rate")
    counts = table.drop(columns=["rows", "wrong", "error_rate"]).rename(columns=lambda kind: kind.replace(" ", "\n"))
    shares = counts.div(table["rows"], axis=0)
    shares.index = [f"{row.Index}  ({row.wrong:,} of {row.rows:,} wrong)" for row in table.itertuples()]
    figure, (ax,) = canvas(title, height=1.5 + 0.36 * len(counts))
    _heat(ax, shares, counts, label="share of the group's rows", top=max(0.01, float(shares.max(axis=None))))
    ax.set_ylabel(str(table.index.name or ""), labelpad=10)
    return figure


@style()
def plot_label_errors(table: pd.DataFrame, *, title: str, n: int = 20) -> Figure:
    """Draws `metrics.by_source_label`: where gold and model disagree. A wrong **label** has a dark cell.

    The darkest `n` labels are drawn; more where more disagree about a code in half of their rows or more.
    """
    check(table, "label", "code", "rows", "missed", "extra", "disagreement")
    darkest = table.groupby("label")["disagreement"].max().sort_values(ascending=False, kind="stable")
    labels = darkest.index[: max(n, int((darkest >= 0.5).sum()))]
    told = [
        "\n".join(f"{count:,} {kind}" for count, kind in ((missed, "missed"), (extra, "extra")) if count)
        for missed, extra in zip(table["missed"], table["extra"], strict=True)
    ]
    wide = table.assign(told=told).pivot(index="label", columns="code").loc[labels]
    wide = wide.reindex(columns=table["code"].unique(), level="code")
    rows = table.groupby("label")["rows"].max()
    shares = wide["disagreement"].set_axis([f"{label}  ({rows[label]:,} rows)" for label in labels])
    figure, (ax,) = canvas(title, width=max(7.0, 3.0 + 0.65 * shares.shape[1]), height=1.4 + 0.38 * len(labels))
    _heat(ax, shares, wide["told"], label="share of the label's rows", size=7.5)
    ax.tick_params(labeltop=True, labelbottom=False)
    return figure
