"""Every figure: what it draws, that its texts stand apart with one category or thirty, and how it is saved."""

from functools import partial
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from guard_utils import figures
from guard_utils.figures.style import BLUE, GREEN, MUTED, ORANGE, SYSTEMS, VERMILLION
from guard_utils.policy import Verdict
from guard_utils.scoring.trie import VerdictTrie

TITLE = "A finding in a sentence that is long enough to need a second line on a figure of the usual width"
COUNTS = {"S1,S4": 630, "safe": 9600, "S1": 5195, "S1,S3,S4": 39}
LOG = pd.DataFrame({"examples": np.arange(1, 101) * 32, "loss": np.geomspace(4, 0.1, 100)})
CURVE = pd.DataFrame({"threshold": [0.1, 0.5, 0.9], "precision": [0.2, 0.9, 1.0], "recall": [1.0, 0.9, 0.8]})


def codes(n):
    return [f"S{i + 1}" for i in range(n)]


def scores(systems, groups):
    rows = [(system, group, 0.6 + 0.05 * i) for i, system in enumerate(systems) for group in groups]
    table = pd.DataFrame(rows, columns=["system", "metric", "value"])
    return table.assign(low=table["value"] - 0.03, high=table["value"] + 0.01)


def confusion(names):
    return pd.DataFrame(np.arange(len(names) ** 2).reshape(len(names), -1) * 100, index=names, columns=names)


def crosstab(n=5):
    rows = {"CITY": 2000, "PHONENUMBER": 200, "ZIPCODE": 40}
    table = pd.DataFrame([(label, code) for label in rows for code in codes(n)], columns=["label", "code"])
    table = table.assign(rows=table["label"].map(rows), missed=0, extra=3)
    table.loc[(table["label"] == "ZIPCODE") & (table["code"] == "S2"), "missed"] = 36
    table.loc[(table["label"] == "PHONENUMBER") & (table["code"] == "S1"), "extra"] = 190
    return table.assign(disagreement=(table["missed"] + table["extra"]) / table["rows"])


def trie(p=(0.1, 0.2, 0.05, 0.6), **options):
    """safe, S1, S2, S1+S2 in tokens 0 safe, 1 unsafe, 2 S1, 3 S2, 4 comma."""
    verdicts = tuple(map(Verdict, [(), ("S1",), ("S2",), ("S1", "S2")]))
    tree = VerdictTrie(verdicts, (0, 1, 2, 3, 4, 3), (-1, -1, 1, 1, 2, 4), (0, 2, 3, 5), 99)
    return figures.plot_trie(tree, p, ("safe", "unsafe", "S1", "S2", ",").__getitem__, title=TITLE, **options)


FIGURES = {
    "label_sets": lambda n: (figures.plot_label_sets, COUNTS if n < 30 else {f"S1,S{i}": 5 for i in range(2, 99)}),
    "scores": lambda n: (figures.plot_scores, scores(["tuned", "regex", "mine"][:n], codes(n))),
    "loss": lambda n: (partial(figures.plot_loss, entropy=1.2), LOG),
    "curve": lambda n: (figures.plot_precision_recall, dict.fromkeys(codes(min(n, 9)), CURVE)),
    "confusion": lambda n: (figures.plot_confusion, confusion([*codes(n), *(f"{code}_M" for code in codes(n))])),
    "multilabel": lambda n: (figures.plot_multilabel_confusion, confusion([*codes(n), "no true label"])),
    "label_errors": lambda n: (figures.plot_label_errors, crosstab(n)),
    "mask": lambda n: (partial(figures.plot_prefix_mask, 240), [60, 80, 100][:n]),
}


def draw(name, n=5):
    """A figure with n categories, where it has categories."""
    plot, data = FIGURES[name](n)
    return plot(data, title=TITLE)


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def ticks(labels):
    return [label.get_text() for label in labels]


@pytest.mark.parametrize("n", [1, 5, 30])
@pytest.mark.parametrize("name", [*FIGURES, "trie"])
def test_every_text_is_on_the_page_and_none_covers_another(name, n, monkeypatch):
    figure = trie(top=n, wanted=Verdict(("S2",))) if name == "trie" else draw(name, n)
    boxes = []
    original = Text.draw

    def note(self, renderer):
        if self.get_visible() and self.get_text().strip():
            boxes.append((self.get_text(), self.get_window_extent(renderer)))
        original(self, renderer)

    canvas = FigureCanvasAgg(figure)
    monkeypatch.setattr(Text, "draw", note)
    canvas.draw()
    assert [text.replace("\n", " ") for text, _ in boxes].count(TITLE) == 1
    corners = np.array([box.extents for _, box in boxes])
    for i, (text, box) in enumerate(boxes):
        assert figure.bbox.count_contains(box.corners()) == 4, f"{text!r} leaves the page"
        low = np.maximum(corners[i, :2], corners[:i, :2])
        high = np.minimum(corners[i, 2:], corners[:i, 2:])
        covered = np.flatnonzero((high - low).min(axis=1) >= 2)
        assert not covered.size, f"{text!r} covers {boxes[covered[0]][0]!r}"


def test_save_writes_picture_and_alt_text_whatever_the_users_style(tmp_path):
    one, two = (SimpleNamespace(folder=tmp_path / name) for name in ("one", "two"))
    made = figures.save(draw("scores"), one, "scores", "Two systems.\n  B is better.")
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "black", "axes.linewidth": 5, "savefig.dpi": 10}):
        before = dict(matplotlib.rcParams)
        again = figures.save(draw("scores"), two, "scores", "x")
        assert dict(matplotlib.rcParams) == before
    assert made.path.read_bytes() == again.path.read_bytes()
    assert sorted(path.name for path in (tmp_path / "one/figures").iterdir()) == ["scores.alt.txt", "scores.png"]
    assert (tmp_path / "one/figures/scores.alt.txt").read_text() == "Two systems. B is better.\n"
    data, metadata = made._repr_mimebundle_()
    assert data["image/png"][:4] == b"\x89PNG" and data["text/plain"] == "Two systems. B is better."
    assert metadata == {"image/png": {"alt": "Two systems. B is better."}}


@pytest.mark.parametrize(("name", "alt"), [("a b", "x"), ("../a", "x"), ("a", " \n")])
def test_save_wants_a_plain_name_and_an_alt_text(tmp_path, name, alt):
    with pytest.raises(ValueError, match="use only letters, digits, _ and -, and a sentence"):
        figures.save(Figure(), SimpleNamespace(folder=tmp_path), name, alt)
    assert not list(tmp_path.iterdir())


def test_label_sets_are_in_order_of_frequency_and_coloured_by_size():
    (ax,) = draw("label_sets").axes
    assert ticks(ax.get_yticklabels()) == ["safe", "S1", "S1,S4", "S1,S3,S4"]
    assert [to_hex(bar.get_facecolor()).upper() for bar in ax.patches] == [MUTED.upper(), BLUE, ORANGE, ORANGE]
    (ax,) = figures.plot_label_sets(COUNTS, title="t", top=2).axes
    assert len(ax.patches) == 2 and ax.get_xlabel() == "rows, the 2 most frequent of 4 sets"


def test_scores_are_dots_with_intervals_or_told_to_be_nothing():
    table = scores(["a", "b"], ["weighted_f1", "binary_fpr"]).rename(columns={"metric": "part"})
    (ax,) = figures.plot_scores(table, title="t", group="part", score="share").axes
    dots = {container.get_label(): list(container.lines[0].get_xdata()) for container in ax.containers}
    assert dots == {"a": [0.6, 0.6], "b": [0.65, 0.65]}
    segments = np.concatenate([np.array(c.get_segments())[:, :, 0] for c in ax.collections])
    assert segments == pytest.approx(table[["low", "high"]].to_numpy())
    assert ticks(ax.get_yticklabels()) == ["weighted F1", "binary fpr"] and ax.get_xlabel().startswith("share, with")
    table.loc[0, ["low", "high"]] = np.nan
    table.loc[1, ["value", "low", "high"]] = np.nan
    told = words(figures.plot_scores(table, title="t", group="part"))
    assert told.count("nothing to measure") == 1 and "0.600" in told


def test_a_system_has_one_title_colour_and_marker_in_every_figure():
    def look(*systems):
        (ax,) = figures.plot_scores(scores(systems, ["f1"]), title="t").axes
        lines = {container.get_label(): container.lines[0] for container in ax.containers}
        return {label: (line.get_color(), line.get_marker()) for label, line in lines.items()}

    known = look(*SYSTEMS)
    assert known == {title: (color, marker) for title, color, marker in SYSTEMS.values()}
    assert len(set(known.values())) == 7
    mixed = look("mine", "tfidf", "tuned", "yours")
    assert mixed["TF-IDF"] == known["TF-IDF"] and mixed["tuned guard"] == known["tuned guard"]
    assert len(set(mixed.values())) == 4


def test_loss_is_logarithmic_smooth_and_marked_where_it_crosses_the_entropy():
    figure = draw("loss")
    ax, raw, mean, entropy, mark = figure.axes[0], *figure.axes[0].lines
    assert ax.get_yscale() == "log" and raw.get_ydata() == pytest.approx(LOG["loss"])
    assert mean.get_ydata()[50] == pytest.approx(LOG["loss"][46:51].mean())
    seen = LOG["examples"][LOG["loss"].rolling(5).mean() < 1.2].iloc[0]
    assert set(entropy.get_ydata()) == {1.2} and (mark.get_xdata(), mark.get_ydata()) == ([seen], [1.2])
    assert f"{seen:,} examples" in words(figure)
    assert len(figures.plot_loss(LOG, title="t", entropy=0.01).axes[0].lines) == 3


def test_precision_recall_shows_where_curves_differ():
    (ax,) = figures.plot_precision_recall({"S1": CURVE, "S2": CURVE}, title="t").axes
    assert ticks(ax.get_legend().get_texts()) == ["S1", "S2"]
    assert ax.get_xlim() == (0.88, 1.02) and ax.get_ylim() == (0.88, 1.02)
    (ax,) = figures.plot_precision_recall({"perfect": CURVE[2:].assign(recall=1.0)}, title="t").axes
    assert ax.get_xlim() == ax.get_ylim() == (-0.02, 1.02)


def test_confusion_matrices_show_every_count():
    ax = draw("confusion").axes[0]
    assert {f"{100 * i:,}" for i in range(1, 100)} <= set(words(ax))
    padded = {tick.get_text(): tick.get_color() for tick in ax.get_yticklabels()}
    assert padded["S1_M"] == VERMILLION != padded["S1"]
    assert np.asarray(ax.collections[0].get_array()).sum(axis=1) == pytest.approx(np.ones(10))
    lines = draw("multilabel").axes[0].lines
    assert [lines[0].get_ydata()[0], lines[1].get_xdata()[0]] == [5, 5]


def test_label_errors_have_every_culprit_on_top_however_rare():
    figure = draw("label_errors", 30)
    names = ["ZIPCODE  (40 rows)", "PHONENUMBER  (200 rows)", "CITY  (2,000 rows)"]
    assert ticks(figure.axes[0].get_yticklabels()) == names and ticks(figure.axes[0].get_xticklabels()) == codes(30)
    shares = np.asarray(figure.axes[0].collections[0].get_array())
    assert shares[1, 0] == 0.95 and shares[0, 1] == 0.975 and "36 missed\n3 extra" in words(figure)
    assert ticks(figures.plot_label_errors(crosstab(), title="t", n=1).axes[0].get_yticklabels()) == names[:2]


def test_trie_draws_lines_by_probability_and_sums_the_rest():
    widths = {round((line.get_linewidth() - 0.8) / 7, 6) for line in trie().axes[0].lines}
    # through unsafe 0.85, through S1 0.8, and the verdicts' own
    assert widths == {0.1, 0.85, 0.8, 0.05, 0.6, 0.2}
    told = words(trie(top=2))
    assert {"S1", "S1,S2", "0.6000", "2 other verdicts 0.1500 · outside the grammar 0.0500"} <= set(told)
    assert "safe" not in told


@pytest.mark.parametrize(("top", "rest"), [(1, "2 other verdicts 0.3000"), (4, "outside the grammar 0.0500")])
def test_trie_always_has_the_wanted_verdict(top, rest):
    figure = trie(top=top, wanted=Verdict(("S2",)))
    colors = {text.get_text(): text.get_color() for text in figure.findobj(Text)}
    assert colors["S2 (wanted)"] == GREEN and any(text.startswith(rest) for text in colors)


def test_prefix_mask_counts_tokens_with_padding():
    assert {"stock batch: 1,020 tokens", "shared prefix: 480 tokens, 2.1 times fewer"} <= set(words(draw("mask")))
