"""One look for every figure: colours, a white page with grey text, and a file with its alt text.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers tell apart; heat maps
run from white through their blues to nearly black, so a rare cell stays pale and grey print keeps the order. Figures
are made without pyplot, so no global state is read or left behind.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from guard_utils.files import write_text, write_whole
from guard_utils.records import check_name

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)
MARKERS = "osD^vP"
TEXT, MUTED, FAINT = "#4d4d4d", "#6f6f6f", "#d9d9d9"
HEAT = LinearSegmentedColormap.from_list("heat", ["white", SKY, BLUE, "#002b45"])
DPI = 130

RC: dict[str, Any] = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 10,
    "text.color": TEXT,
    "text.parse_math": False,  # a "$" in a title or token is a dollar sign
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "axes.titlesize": 10,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=SERIES),
    "grid.color": FAINT,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def style() -> Iterator[None]:
    """Draws in the house style within a `with` block or a decorated function, whatever the user's own settings."""
    with matplotlib.style.context(["default", RC]):
        yield


@dataclass(frozen=True)
class Picture:
    """A saved figure, which a notebook shows as an image with its alt text.

    Attributes:
        path: The PNG file.
        alt: What the figure shows, in words.
    """

    path: Path
    alt: str

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.path.read_bytes(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def save(fig: Figure, folder: Path | str, name: str, alt: str) -> Picture:
    """Writes `<name>.png` and `<name>.alt.txt`, each whole or not at all.

    Args:
        fig: The figure.
        folder: Where to; made if missing.
        name: Letters, digits, `_` and `-`.
        alt: What a reader who can't see the figure has to know: what is drawn, and what it shows.

    Returns:
        The picture; as the last line of a cell it is shown.

    Raises:
        ValueError: A faulty name or an empty alt text.
    """
    check_name(name, "figure")
    words = " ".join(alt.split())
    if not words:
        raise ValueError(f"figure {name!r} has no alt text; say in a sentence or two what it shows")
    path = Path(folder) / f"{name}.png"
    with style():
        write_whole(path, lambda beside: fig.savefig(beside, format="png", dpi=DPI))
    write_text(path.with_suffix(".alt.txt"), f"{words}\n")
    return Picture(path, words)


def canvas(
    title: str, *, width: float = 7.0, height: float = 4.0, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Makes a figure with its title, set left and wrapped, and its axes in reading order.

    Args:
        title: The finding, as a sentence.
        width: Inches.
        height: Inches.
        rows: Of axes.
        columns: Of axes.
        options: For `Figure.subplots`.
    """
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.07))
    figure.suptitle(textwrap.fill(title, int(width * 9.3)), x=0.012, ha="left")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def legend_below(ax: Axes, columns: int) -> None:
    """Sets the legend of some axes below the figure, in so many columns."""
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def bounds(table: pd.DataFrame, value: str = "value") -> np.ndarray:
    """Distances [2, rows] from the value to its bounds; 0 where there is none."""
    low, high = table[value] - table["low"], table["high"] - table[value]
    return np.nan_to_num(np.array([low, high], dtype=float)).clip(min=0)


def need(table: pd.DataFrame, columns: Sequence[str], *, what: str) -> None:
    """Checks that a table has rows and the columns a figure draws.

    Raises:
        ValueError: Names what is missing.
    """
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{what} lacks the columns {missing}, it has {[str(name) for name in table.columns]}")
    if table.empty:
        raise ValueError(f"{what} has no row; there is nothing to draw")


def some(items: Sized, *, what: str) -> None:
    """Checks that there is anything to draw.

    Raises:
        ValueError: There is not.
    """
    if not len(items):
        raise ValueError(f"no {what} given; there is nothing to draw, pass at least one")
