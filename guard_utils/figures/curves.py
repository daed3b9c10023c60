"""Figures with a curve: loss, learning curve, precision against recall. All can be imported from `plots`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from guard_utils.figures.style import (
    BLUE,
    MARKERS,
    MUTED,
    SERIES,
    VERMILLION,
    bounds,
    canvas,
    legend_below,
    need,
    some,
    style,
)


@style()
def loss_curve(
    table: pd.DataFrame, *, title: str, batch_size: int | None = None, entropy: float | None = None, span: int = 20
) -> Figure:
    """Draws the training loss: every step pale, its running mean bold.

    Args:
        table: Columns `step, loss`.
        title: The finding.
        batch_size: Examples a step; adds an axis that counts examples.
        entropy: Of the label sets, in nats a token: the loss of a model that knows only how frequent each answer is.
        span: Steps in the mean, half of them before and half after.
    """
    need(table, ["step", "loss"], what="the log")
    figure, (ax,) = canvas(title, height=3.8)
    mean = table["loss"].rolling(span, center=True, min_periods=1).mean()
    ax.plot(table["step"], table["loss"], color=BLUE, alpha=0.3, linewidth=0.9, label="each step")
    ax.plot(table["step"], mean, color=BLUE, linewidth=2.2, label=f"mean of {span} steps")
    if entropy is not None:
        ax.axhline(entropy, color=VERMILLION, linestyle="--", linewidth=1.4, label="entropy of the label sets")
    ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
    ax.grid(axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if batch_size is not None:
        top = ax.secondary_xaxis(
            "top", functions=(lambda x: np.multiply(x, batch_size), lambda x: np.divide(x, batch_size))
        )
        top.set_xlabel("examples")
        top.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        top.spines["top"].set_visible(True)
    ax.legend(loc="upper right")
    return figure


@style()
def learning_curve(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws scores against what a model was trained on: texts of the whole bank, and clauses at the most texts.

    Args:
        table: One row a training and part: columns `texts, clauses, share_of_clauses, part, value, low, high`.
        title: The finding.
    """
    need(table, ["texts", "clauses", "share_of_clauses", "part", "value", "low", "high"], what="the table")
    whole = table[table["share_of_clauses"] == table["share_of_clauses"].max()]
    most = table[table["texts"] == table.groupby("share_of_clauses")["texts"].transform("max")]
    figure, axes = canvas(title, width=8.0, height=4.0, columns=2, sharey=True)
    for ax, rows, x in zip(axes, (whole, most), ("texts", "clauses"), strict=True):
        for i, part in enumerate(table["part"].unique()):
            points = rows[rows["part"] == part].sort_values(x)
            line = {"fmt": f"{MARKERS[i]}-", "color": SERIES[i], "ms": 6, "capsize": 3, "label": part}
            ax.errorbar(points[x] * 1.05 ** (i - 1), points["value"], yerr=bounds(points), **line)  # side by side
        ax.set_xscale("log", base=2)
        ax.set_xticks(rows[x].unique(), [f"{count:,}" for count in rows[x].unique()])
        ax.minorticks_off()
        ax.margins(x=0.12)
        ax.grid(axis="y")
    axes[0].set(xlabel="training texts, of all clauses", ylabel="weighted F1, with its 95 % interval", ylim=(0, 1))
    axes[1].set_xlabel(f"clauses that up to {most['texts'].max():,} texts are composed of")
    legend_below(axes[0], 3)
    return figure


@style()
def precision_recall(
    curves: Mapping[str, pd.DataFrame], *, title: str, thresholds: Mapping[str, float] | None = None
) -> Figure:
    """Draws the precision-recall curve of each category, and where the chosen thresholds stand on it.

    Args:
        curves: Name to what `precision_recall` of `thresholds` returns: `threshold, precision, recall`.
        title: The finding.
        thresholds: Name to its chosen threshold, where it has one.
    """
    some(curves, what="curves")
    figure, (ax,) = canvas(title, width=6.5, height=4.4)
    for i, (name, curve) in enumerate(curves.items()):
        color = SERIES[i % len(SERIES)]
        if curve.empty:
            ax.plot([], [], color=color, label=f"{name}: no positive")
            continue
        need(curve, ["threshold", "precision", "recall"], what=f"the curve of {name!r}")
        ax.plot(curve["recall"], curve["precision"], color=color, linewidth=1.8, label=name)
        if thresholds and name in thresholds:
            chosen = curve[curve["threshold"] >= thresholds[name]].head(1)
            ax.plot(chosen["recall"], chosen["precision"], MARKERS[i % len(MARKERS)], color=color, ms=8, mec="white")
    if thresholds:
        ax.plot([], [], "o", color=MUTED, label="chosen threshold")
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    ax.grid()
    ax.legend(loc="lower left")
    return figure
