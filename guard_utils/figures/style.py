"""The look that all figures share, the systems' colours, and how a figure is saved with its alt text.

Draws no data. The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers
tell apart. pyplot is not used, so no global state is read or left behind.
"""

import re
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from guard_utils.files import write_text, write_whole
from guard_utils.profiles import Run

BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)
TEXT, MUTED, FAINT = "#4d4d4d", "#6f6f6f", "#d9d9d9"
SYSTEMS = {
    "tuned": ("tuned guard", BLUE, "o"),
    "zero_shot": ("untrained model", ORANGE, "s"),
    "regex": ("regular expressions", GREEN, "D"),
    "tfidf": ("TF-IDF", PURPLE, "^"),
    "majority": ("majority", MUTED, "v"),
    "presidio": ("Presidio", VERMILLION, "P"),
    "rampart": ("Rampart", SKY, "X"),
}
"""Name of a prediction table to the title, colour and marker that the system has in every figure."""
RC = dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], TEXT) | {
    "text.parse_math": False,  # a "$" in a title or token is a dollar sign
    "figure.titleweight": "bold",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "legend.frameon": False,
}


style = partial(matplotlib.style.context, ["default", RC])
"""`with style():` or `@style()` draws in the style of the series, whatever the user's own settings."""


@dataclass(frozen=True)
class Picture:
    """A saved figure: its PNG file and, in words, what it shows. A notebook shows it as an image with alt text."""

    path: Path
    alt: str

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"image/png": self.path.read_bytes(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def save(figure: Figure, run: Run, name: str, alt: str) -> Picture:
    """Writes `<name>.png` and `<name>.alt.txt` to `figures/` of the run's folder, each whole or not at all.

    Raises:
        ValueError: `name` has other characters than letters, digits, `_` and `-`, or `alt` is empty.
    """
    words = " ".join(alt.split())
    if not re.fullmatch(r"[\w-]+", name) or not words:
        raise ValueError(f"figure {name!r} with alt text {words!r}: use only letters, digits, _ and -, and a sentence")
    path = run.folder / "figures" / f"{name}.png"
    with style():
        write_whole(path, lambda beside: figure.savefig(beside, format="png", dpi=130))
    write_text(path.with_suffix(".alt.txt"), f"{words}\n")
    return Picture(path, words)


def canvas(title: str, *, width: float = 7.0, height: float = 4.0, **options: Any) -> tuple[Figure, list[Axes]]:
    """Makes a figure of so many inches with its title and its axes in reading order; options as `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.07))
    figure.suptitle(textwrap.fill(title, int(width * 9.3)), x=0.012, ha="left")
    return figure, list(figure.subplots(squeeze=False, **options).flat)
