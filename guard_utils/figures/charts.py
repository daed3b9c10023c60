"""Figures of the series. Each takes data objects and a title, which states the finding, and returns a `Figure`.

The look is in `plot_style`, the drawings that explain how things work are in `diagrams`; both can be imported from
here. `save(figure, folder, name, alt)` writes a figure with its alt text and shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from guard_utils.figures.curves import learning_curve, loss_curve, precision_recall
from guard_utils.figures.diagrams import alignment_example, data_flow, prefix_mask, verdict_trie
from guard_utils.figures.heatmaps import (
    confusion_2x2,
    confusion_multilabel,
    confusion_reference,
    error_heatmap,
    label_crosstab,
)
from guard_utils.figures.style import (
    BLUE,
    FAINT,
    MARKERS,
    MUTED,
    SERIES,
    TEXT,
    VERMILLION,
    Picture,
    bounds,
    canvas,
    legend_below,
    need,
    save,
    some,
    style,
)
from guard_utils.policy import Taxonomy

__all__ = [
    "Picture",
    "alignment_example",
    "category_bars",
    "confusion_2x2",
    "confusion_multilabel",
    "confusion_reference",
    "data_flow",
    "error_heatmap",
    "label_crosstab",
    "label_set_counts",
    "ladder",
    "learning_curve",
    "loss_curve",
    "precision_recall",
    "prefix_mask",
    "reliability",
    "save",
    "score_comparison",
    "style",
    "verdict_trie",
]


def _name(metric: str) -> str:
    """A metric as readers write it: `weighted_f1` is weighted F1."""
    words = {"f1": "F1", "f2": "F2", "fpr": "FPR", "ap": "average precision", "auroc": "AUROC", "auprc": "AUPRC"}
    return " ".join(words.get(word, word) for word in metric.split("_"))


@style()
def label_set_counts(counts: Mapping[str, int], *, title: str) -> Figure:
    """Draws how often each label set occurs, most frequent first; the colour tells how many codes it has.

    Args:
        counts: Label set (`safe`, `S1`, `S1,S4`) to number of rows.
        title: The finding.
    """
    table = pd.DataFrame({"set": list(counts), "rows": list(counts.values())})
    need(table, ["set"], what="counts")
    table = table.sort_values(["rows", "set"], ascending=[False, True], ignore_index=True)
    size = [0 if name == "safe" else name.count(",") + 1 for name in table["set"]]
    figure, (ax,) = canvas(title, height=1.7 + 0.21 * len(table))
    for number in sorted(set(size)):
        rows = table[np.array(size) == number]
        label = "safe" if number == 0 else f"{number} code{'s' * (number > 1)}"
        color = MUTED if number == 0 else SERIES[(number - 1) % len(SERIES)]
        ax.barh(rows.index, rows["rows"], color=color, label=label, height=0.75)
    for place, rows in table["rows"].items():
        ax.annotate(f"{rows:,}", (rows, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(table.index, table["set"], fontsize=9)
    ax.set(ylim=(len(table) - 0.4, -0.6), xlabel="rows")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    ax.margins(x=0.1)
    legend_below(ax, 6)
    return figure


@style()
def category_bars(
    scores: Mapping[str, pd.DataFrame], policy: Taxonomy, *, title: str, metrics: Sequence[str] = ("f1",)
) -> Figure:
    """Draws scores of each category with intervals: systems side by side, or precision, recall and F1 of one.

    Args:
        scores: System to its `bootstrap` table (`metric, value, low, high`, metrics such as `f1_S1`).
        policy: Its policy.
        title: The finding.
        metrics: Of `precision`, `recall`, `f1`, `f2`, `ap`, `auroc`, `brier`.

    Raises:
        ValueError: A metric is not in a table.
    """
    some(scores, what="scores")
    series = [(system, metric) for system in scores for metric in metrics]
    figure, (ax,) = canvas(title, width=max(7.0, 1.3 * len(policy)), height=3.8)
    width, places = 0.8 / len(series), np.arange(len(policy))
    for i, (system, metric) in enumerate(series):
        need(scores[system], ["metric", "value", "low", "high"], what=f"the table of {system!r}")
        names = [f"{metric}_{code}" for code in policy.codes]
        missing = set(names) - set(scores[system]["metric"])
        if missing:
            raise ValueError(f"the table of {system!r} has no {sorted(missing)}; pass what bootstrap() returns")
        rows = scores[system].set_index("metric").loc[names]
        x = places - 0.4 + width * (i + 0.5)
        known = [part for part, several in ((system, len(scores) > 1), (_name(metric), len(metrics) > 1)) if several]
        ax.bar(x, rows["value"], width * 0.92, color=SERIES[i % len(SERIES)], label=", ".join(known) or system)
        ax.errorbar(x, rows["value"], bounds(rows), fmt="none", ecolor=TEXT, elinewidth=1.2, capsize=2.5)
        for place in x[rows["value"].isna()]:
            ax.text(place, 0.02, "nothing to measure", rotation=90, ha="center", fontsize=8, color=MUTED)
    ax.set_xticks(places, [f"{code}\n{name}" for code, name in policy.names.items()])
    ax.tick_params(axis="x", length=0)
    ax.set(xlim=(-0.5, len(policy) - 0.5), ylim=(0, 1.03), ylabel=_name(metrics[0]) if len(metrics) == 1 else "score")
    ax.grid(axis="y")
    legend_below(ax, 4)
    return figure


@style()
def score_comparison(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws scores as dots with intervals, one row a metric, one colour and shape a system.

    Args:
        table: Columns `system, metric, value, low, high`, in the order to be drawn.
        title: The finding.
    """
    need(table, ["system", "metric", "value", "low", "high"], what="the table")
    metrics, systems = list(table["metric"].unique()), list(table["system"].unique())
    step = 0.7 / len(systems)
    figure, (ax,) = canvas(title, height=1.5 + len(metrics) * (0.25 + 0.2 * len(systems)))
    for i, system in enumerate(systems):
        rows = table[table["system"] == system]
        y = rows["metric"].map(metrics.index) + step * (i - (len(systems) - 1) / 2)
        color, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
        ax.errorbar(
            rows["value"], y, xerr=bounds(rows), fmt=marker, color=color, ms=6, elinewidth=1.8, capsize=3, label=system
        )
        for value, high, place in zip(rows["value"], rows["high"].fillna(rows["value"]), y, strict=True):
            ax.annotate(f"{value:.3f}", (high, place), (6, 0), textcoords="offset points", va="center", fontsize=8)
    for edge in range(1, len(metrics)):
        ax.axhline(edge - 0.5, color=FAINT, linewidth=0.8)
    ax.set_yticks(range(len(metrics)), [_name(metric) for metric in metrics])
    ax.tick_params(axis="y", length=0)
    ax.set(ylim=(len(metrics) - 0.5, -0.5), xlabel="score, with its 95 % interval")
    ax.margins(x=0.1)
    ax.grid(axis="x")
    legend_below(ax, 3)
    return figure


@style()
def reliability(tables: Mapping[str, pd.DataFrame], *, title: str) -> Figure:
    """Draws predicted probability against observed share, one panel a category; below it, the rows of each bin.

    Args:
        tables: Name to what `reliability` of `metrics` returns: `low, high, rows, predicted, observed`.
        title: The finding.
    """
    some(tables, what="tables")
    columns = min(3, len(tables))
    lines = -(-len(tables) // columns)
    figure, axes = canvas(
        title,
        width=2.5 * columns + 0.5,
        height=2.5 * lines + 0.8,
        rows=lines,
        columns=columns,
        sharex=True,
        sharey=True,
    )
    for ax, (name, table) in zip(axes, tables.items(), strict=False):
        need(table, ["low", "high", "rows", "predicted", "observed"], what=f"the table of {name!r}")
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        share = table["rows"] / table["rows"].max() * 0.25
        ax.bar(table["low"], share, table["high"] - table["low"], align="edge", color=FAINT, edgecolor="white")
        ax.plot(table["predicted"], table["observed"], "o-", color=BLUE, ms=4.5, linewidth=1.4)
        ax.set(title=name, xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    for ax in axes[len(tables) :]:
        ax.set_visible(False)
    figure.supxlabel("predicted probability (grey: how many rows)", fontsize=10)
    figure.supylabel("observed share", fontsize=10)
    return figure


@style()
def ladder(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws the ladder: the same predictions step by step under better measurement.

    Args:
        table: What `ladder` of `ladder` returns: `step, weighted_f1, low, high, change, rows_moved`.
        title: The finding.
    """
    need(table, ["step", "weighted_f1", "low", "high", "change", "rows_moved"], what="the table")
    figure, (ax,) = canvas(title, width=8.0, height=1.4 + 0.62 * len(table))
    places = range(len(table))
    ax.plot(table["weighted_f1"], places, color=FAINT, linewidth=1.5, zorder=1)
    ax.errorbar(table["weighted_f1"], places, xerr=bounds(table, "weighted_f1"), fmt="o", color=BLUE, ms=7, capsize=3.5)
    for place, row in zip(places, table.itertuples(), strict=True):
        label, place_of = f"{row.weighted_f1:.3f}", (row.weighted_f1, place)
        ax.annotate(
            label,
            place_of,
            (0, 9),
            textcoords="offset points",
            ha="center",
            bbox={"fc": "white", "ec": "none", "pad": 1},
        )
        if place:
            told = f"{row.change:+.3f}\n{row.rows_moved:,} rows moved"
            color = VERMILLION if row.change < 0 else TEXT
            ax.text(1.02, place, told, transform=ax.get_yaxis_transform(), va="center", fontsize=9, color=color)
    ax.set_yticks(places, [step.replace(", ", ",\n") for step in table["step"]])
    ax.set(ylim=(len(table) - 0.5, -0.6), xlabel="weighted F1, with its 95 % interval")
    ax.margins(x=0.08)
    ax.grid(axis="x")
    return figure
