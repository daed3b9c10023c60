"""Charts of counts, scores and curves, and heat maps: each takes a table and a title that states the finding.

Computes no score: tables and intervals come from `metrics`. What a guard reads and answers is shown by `views`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from guard_utils.figures.style import BLUE, FAINT, MUTED, ORANGE, SERIES, SKY, SYSTEMS, TEXT, VERMILLION, canvas, style


@style()
def plot_label_sets(counts: Mapping[str, int], *, title: str, top: int = 40) -> Figure:
    """Draws in how many rows each label set (`safe`, `S1`, `S1,S4`) occurs: the `top` most frequent, first ones on top.

    One code is blue, several are orange.
    """
    sets = sorted(counts, key=lambda name: (-counts[name], name))[:top]
    figure, (ax,) = canvas(title, height=1.3 + 0.21 * len(sets))
    colors = [MUTED if name == "safe" else ORANGE if "," in name else BLUE for name in sets]
    bars = ax.barh(range(len(sets)), [counts[name] for name in sets], 0.75, color=colors)
    ax.bar_label(bars, fmt="{:,.0f}", padding=4, fontsize=8)
    ax.set_yticks(range(len(sets)), sets, fontsize=9)
    more = f", the {top} most frequent of {len(counts)} sets" if len(counts) > top else ""
    ax.set(ylim=(len(sets) - 0.4, -0.6), xlabel=f"rows{more}")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.margins(x=0.1)
    return figure


def _looks(systems: Sequence[str]) -> list[tuple[str, str, str]]:
    """Title, colour and marker of each system; those that are not of the series get what is left, in order."""
    left = cycle([look for name, look in SYSTEMS.items() if name not in systems] or SYSTEMS.values())
    return [SYSTEMS[name] if name in SYSTEMS else (name, *next(left)[1:]) for name in systems]


def _dots(ax: Axes, table: pd.DataFrame, places: Sequence[float], look: tuple[str, str, str], numbers: bool) -> None:
    """Draws a dot with its interval and number for each row of a table `value, low, high`, at these heights."""
    name, color, marker = look
    # A bound that is unknown, or that a skewed resampling puts on the value's other side, has no length.
    bounds = np.nan_to_num([table["value"] - table["low"], table["high"] - table["value"]]).clip(min=0)
    line: dict[str, Any] = {"fmt": marker, "color": color, "label": name, "ms": 6, "elinewidth": 1.8, "capsize": 3}
    ax.errorbar(table["value"], places, xerr=bounds, **line)
    for value, high, place in zip(table["value"], table["high"].fillna(table["value"]), places, strict=True):
        if np.isnan(value):
            ax.text(0.01, place, "nothing to measure", transform=ax.get_yaxis_transform(), va="center", color=color)
        elif numbers:
            ax.annotate(f"{value:.3f}", (high, place), (6, 0), textcoords="offset points", va="center", fontsize=8)
    ax.margins(x=0.1)
    ax.grid(axis="x")


@style()
def plot_scores(table: pd.DataFrame, *, title: str, group: str = "metric", score: str = "score") -> Figure:
    """Draws scores as dots with intervals: a row for each metric, category or test set, a mark for each system.

    Args:
        table: Columns `system`, the one that `group` names, `value, low, high`; drawn in its order. A system of the
            series (`SYSTEMS`) has the same title, colour and marker in every figure; a value of NaN is told in words.
        title: The finding.
        group: Column whose values make the rows.
        score: What the x-axis measures.
    """
    groups, systems = list(table[group].unique()), list(table["system"].unique())
    numbers = len(groups) * len(systems) <= 45  # more would need a figure longer than a screen
    figure, (ax,) = canvas(title, height=1.5 + len(groups) * (0.2 + (0.2 if numbers else 0.11) * len(systems)))
    for i, (system, look) in enumerate(zip(systems, _looks(systems), strict=True)):
        rows = table[table["system"] == system]
        places = [groups.index(name) + (i + 0.5) * 0.7 / len(systems) - 0.35 for name in rows[group]]
        _dots(ax, rows, places, look, numbers)
    for edge in range(1, len(groups)):
        ax.axhline(edge - 0.5, color=FAINT, linewidth=0.8)
    ax.set_yticks(range(len(groups)), [str(name).replace("_", " ").replace("f1", "F1") for name in groups])
    ax.set(ylim=(len(groups) - 0.5, -0.5), xlabel=f"{score}, with its 95 % interval")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@style()
def plot_loss(log: pd.DataFrame, *, title: str, entropy: float | None = None) -> Figure:
    """Draws the training loss on a log scale: every step pale, the mean of the last steps bold.

    Args:
        log: Columns `examples` (seen so far) and `loss` (nats per token), a row a step.
        title: The finding.
        entropy: Of the label sets, in nats per token: the loss of a model that knows only how frequent each answer is.
            Where the mean of five steps first falls below it is marked.
    """
    figure, (ax,) = canvas(title)
    mean = log["loss"].rolling(5).mean()
    ax.plot(log["examples"], log["loss"], color=BLUE, alpha=0.35, linewidth=0.9, label="each step")
    ax.plot(log["examples"], mean, color=BLUE, linewidth=2.2, label="mean of the last 5 steps")
    if entropy is not None:
        ax.axhline(entropy, color=ORANGE, linestyle="--", linewidth=1.4, label="entropy of the label sets")
        for seen in log["examples"][mean < entropy][:1]:
            ax.plot(seen, entropy, "o", color=ORANGE)
            ax.annotate(f"{seen:,} examples", (seen, entropy), (6, 6), textcoords="offset points")
    ax.set(xlabel="examples seen", ylabel="loss, nats per token", yscale="log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.minorticks_off()
    ax.grid(axis="y")
    ax.legend(loc="upper right")
    return figure


@style()
def plot_precision_recall(curves: Mapping[str, pd.DataFrame], *, title: str) -> Figure:
    """Draws curves (columns `precision, recall`), by name, on axes that show where they differ."""
    figure, (ax,) = canvas(title, width=7.5, height=4.2)
    for color, (name, curve) in zip(cycle(SERIES), curves.items(), strict=False):
        ax.plot(curve["recall"], curve["precision"], color=color, linewidth=1.8, label=name)
    points = pd.concat(curves.values())
    left = np.nan_to_num(points.loc[points["precision"] < 0.98, "recall"].min())
    bottom = np.nan_to_num(points.loc[points["recall"] < 0.98, "precision"].min())
    ax.set(xlabel="recall", ylabel="precision", xlim=(left - 0.02, 1.02), ylim=(bottom - 0.02, 1.02))
    ax.grid()
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


HEAT = LinearSegmentedColormap.from_list("heat", ["white", SKY, BLUE, "#002b45"])


def _heat(ax: Axes, shares: pd.DataFrame, texts: pd.DataFrame, *, label: str, size: float) -> None:
    """Draws shares in [0, 1] as colours, NaN white, a text or count in each cell, and a colour bar named `label`."""
    values = shares.to_numpy(dtype=float)
    image = ax.pcolormesh(values, vmin=0, vmax=1, cmap=HEAT, edgecolors=FAINT, linewidth=0.8)
    for (row, column), cell in np.ndenumerate(texts.to_numpy(dtype=object)):
        text = cell if isinstance(cell, str) else f"{cell:,}" if cell > 0 else ""
        color = "white" if values[row, column] > 0.55 else "#262626"
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=color)
    ax.set_xticks(np.arange(shares.shape[1]) + 0.5, shares.columns)
    ax.set_yticks(np.arange(shares.shape[0]) + 0.5, shares.index)
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(image, ax=ax, shrink=0.5, aspect=20, pad=0.02, label=label)


def _confusion(counts: pd.DataFrame, title: str, predicted: str, truth: str) -> tuple[Figure, Axes]:
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
    """Draws the `confusion` of `metrics.rescore`; the padding labels `_M`, which nobody gave, are red."""
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
def plot_label_errors(table: pd.DataFrame, *, title: str, n: int = 20) -> Figure:
    """Draws `metrics.by_source_label`: where gold and model disagree. A wrong **label** has a dark cell.

    The darkest `n` labels are drawn; more where more disagree about a code in half of their rows or more.
    """
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
