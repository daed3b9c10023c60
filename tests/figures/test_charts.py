from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from guard_utils.figures import charts as plots
from guard_utils.figures import style as plot_style
from guard_utils.metrics.errors import KINDS
from guard_utils.metrics.reference import align
from guard_utils.policy import PII

TITLE = "A finding in a sentence that is long enough to need a second line on a figure of the usual width"
CODES = list(PII.codes)
COUNTS = {"S1,S4": 630, "safe": 9600, "S1": 5195, "S1,S3,S4": 39}


def bootstrap_table(shift=0.0):
    rows = [
        (f"{metric}_{code}", 0.5 + 0.08 * i + shift) for metric in ("precision", "f1") for i, code in enumerate(CODES)
    ]
    table = pd.DataFrame(rows, columns=["metric", "value"])
    return table.assign(low=table["value"] - 0.05, high=table["value"] + 0.02)


def score_table():
    rows = [
        (s, m, 0.6 + 0.1 * i + 0.05 * j) for i, s in enumerate(("a", "b")) for j, m in enumerate(("f1", "binary_fpr"))
    ]
    table = pd.DataFrame(rows, columns=["system", "metric", "value"])
    return table.assign(low=table["value"] - 0.03, high=table["value"] + 0.01)


def loss_table():
    return pd.DataFrame({"step": range(1, 101), "loss": np.linspace(2, 0.2, 100)})


def points():
    trained = [(1500, 900, 1.0), (3000, 1100, 1.0), (6000, 1200, 1.0), (6000, 300, 0.25)]
    rows = [(*point, part, point[1] / 2000 + 0.1 * i) for point in trained for i, part in enumerate(("own", "other"))]
    table = pd.DataFrame(rows, columns=["texts", "clauses", "share_of_clauses", "part", "value"])
    return table.assign(low=table["value"] - 0.04, high=table["value"] + 0.02)


def confusion(names):
    return pd.DataFrame(np.arange(len(names) ** 2).reshape(len(names), -1) * 100, index=names, columns=names)


def margins():
    return confusion([*CODES, "no true label"]).rename(columns={"no true label": "no predicted label"})


def cells():
    counts = [[900 + i, 10 + i, 20 + i, 100 + i] for i in range(5)]
    return pd.DataFrame(counts, index=CODES, columns=["tn", "fp", "fn", "tp"])


def curve():
    recall = np.linspace(1, 0.1, 10)
    return pd.DataFrame({"threshold": np.linspace(0.05, 0.95, 10), "precision": 1 - recall / 2, "recall": recall})


def bins():
    low = np.arange(10) / 10
    return pd.DataFrame({"low": low, "high": low + 0.1, "rows": 10, "predicted": low + 0.05, "observed": low + 0.02})


def steps():
    names = ["reference labels, reference metric", "exact labels, reference metric", "exact labels, set metric"]
    table = pd.DataFrame({"step": names, "weighted_f1": [0.61, 0.58, 0.86], "change": [np.nan, -0.03, 0.28]})
    table = table.assign(low=table["weighted_f1"] - 0.03, high=table["weighted_f1"] + 0.02)
    return table.assign(rows_moved=[0, 259, 1340])


def errors():
    table = pd.DataFrame({"rows": [400, 100], "wrong": [40, 50]}, index=pd.Index(["S1", "safe"], name="category"))
    return table.assign(**(dict.fromkeys(KINDS, 0) | {"missed": [40, 0], "extra": [0, 50]}))


def crosstab():
    labels = ["CITY", "PHONENUMBER", "ZIPCODE"]
    table = pd.DataFrame([(label, code) for label in labels for code in CODES], columns=["label", "code"])
    table = table.assign(rows=200, missed=0, extra=3)
    table.loc[(table["label"] == "ZIPCODE") & (table["code"] == "S2"), "missed"] = 180
    table.loc[(table["label"] == "PHONENUMBER") & (table["code"] == "S3"), "extra"] = 190
    return table.assign(disagreement=(table["missed"] + table["extra"]) / 200)


def trie():
    """safe, S1, S2, S1+S2 in tokens 0 safe, 1 unsafe, 2 S1, 3 S2, 4 comma."""
    from guard_utils.policy import Verdict
    from guard_utils.scoring.scorer import VerdictTrie

    verdicts = tuple(map(Verdict, [(), ("S1",), ("S2",), ("S1", "S2")]))
    return VerdictTrie(verdicts, (0, 1, 2, 3, 4, 3), (-1, -1, 1, 1, 2, 4), (0, 2, 3, 5), 99)


WORDS = ("safe", "unsafe", "S1", "S2", ",")
FIGURES = {
    "label_set_counts": lambda: plots.label_set_counts(COUNTS, title=TITLE),
    "category_bars": lambda: plots.category_bars({"a": bootstrap_table(), "b": bootstrap_table(0.1)}, PII, title=TITLE),
    "score_comparison": lambda: plots.score_comparison(score_table(), title=TITLE),
    "loss_curve": lambda: plots.loss_curve(loss_table(), title=TITLE, batch_size=16, entropy=1.2),
    "learning_curve": lambda: plots.learning_curve(points(), title=TITLE),
    "confusion_reference": lambda: plots.confusion_reference(confusion([*CODES, "S1_M", "safe"]), title=TITLE),
    "confusion_multilabel": lambda: plots.confusion_multilabel(margins(), title=TITLE),
    "confusion_2x2": lambda: plots.confusion_2x2(cells(), PII, title=TITLE),
    "precision_recall": lambda: plots.precision_recall({"S1": curve()}, title=TITLE, thresholds={"S1": 0.5}),
    "reliability": lambda: plots.reliability(dict.fromkeys([*CODES, "unsafe"], bins()), title=TITLE),
    "ladder": lambda: plots.ladder(steps(), title=TITLE),
    "error_heatmap": lambda: plots.error_heatmap(errors(), title=TITLE),
    "label_crosstab": lambda: plots.label_crosstab(crosstab(), title=TITLE),
    "verdict_trie": lambda: plots.verdict_trie(trie(), [0.1, 0.2, 0.05, 0.6], WORDS.__getitem__, title=TITLE),
    "prefix_mask": lambda: plots.prefix_mask(240, [60, 80, 100], title=TITLE),
    "data_flow": lambda: plots.data_flow(title=TITLE),
    "alignment_example": lambda: plots.alignment_example(
        ["S4"], ["S1", "S5"], *align(["S1", "S5"], ["S4"])[::-1], title=TITLE
    ),
}


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def drawn(figure: Figure, monkeypatch):
    """What is really drawn: each text and its box in pixels."""
    boxes = []
    draw = Text.draw

    def note(self, renderer):
        if self.get_visible() and self.get_text().strip():
            boxes.append((self.get_text(), self.get_window_extent(renderer)))
        draw(self, renderer)

    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    monkeypatch.setattr(Text, "draw", note)
    canvas.draw()
    return boxes


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_is_on_the_page_and_none_covers_another(name, monkeypatch):
    figure = FIGURES[name]()
    boxes = drawn(figure, monkeypatch)
    assert " ".join(words(figure)).replace("\n", " ").count(TITLE) == 1
    page = figure.bbox
    for i, (text, box) in enumerate(boxes):
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert inside, f"{text!r} leaves the page"
        for other, its in boxes[:i]:
            width = min(box.x1, its.x1) - max(box.x0, its.x0)
            height = min(box.y1, its.y1) - max(box.y0, its.y0)
            assert min(width, height) < 2, f"{text!r} covers {other!r}"


def test_save_writes_picture_and_alt_text_whatever_the_users_style(tmp_path):
    made = plots.save(FIGURES["score_comparison"](), tmp_path / "figures", "scores", "Two systems.\n  B is better.")
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "black", "axes.linewidth": 5, "savefig.dpi": 10}):
        before = dict(matplotlib.rcParams)
        again = plots.save(FIGURES["score_comparison"](), tmp_path / "again", "scores", "x")
        assert dict(matplotlib.rcParams) == before
    assert made.path.read_bytes() == again.path.read_bytes()
    assert sorted(path.name for path in made.path.parent.iterdir()) == ["scores.alt.txt", "scores.png"]
    assert (made.path.parent / "scores.alt.txt").read_text() == "Two systems. B is better.\n"
    data, metadata = made._repr_mimebundle_()
    assert data["image/png"][:4] == b"\x89PNG" and data["text/plain"] == "Two systems. B is better."
    assert metadata == {"image/png": {"alt": "Two systems. B is better."}}


@pytest.mark.parametrize(("name", "alt", "message"), [("a b", "x", "figure name 'a b'"), ("a", " \n", "no alt text")])
def test_save_wants_a_plain_name_and_an_alt_text(tmp_path, name, alt, message):
    with pytest.raises(ValueError, match=message):
        plots.save(Figure(), tmp_path, name, alt)
    assert not list(tmp_path.iterdir())


def test_label_sets_stand_by_frequency_and_are_coloured_by_size():
    (ax,) = FIGURES["label_set_counts"]().axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["safe", "S1", "S1,S4", "S1,S3,S4"]
    bars = {bar.get_width(): to_hex(bar.get_facecolor()).upper() for bar in ax.patches}
    assert bars[9600] == plot_style.MUTED.upper() and bars[5195] == plot_style.BLUE and bars[630] == plot_style.ORANGE


def test_category_bars_have_heights_intervals_and_explained_blanks():
    table = bootstrap_table()
    table.loc[table["metric"] == "f1_S5", ["value", "low", "high"]] = np.nan
    figure = plots.category_bars({"a": table}, PII, metrics=("precision", "f1"), title="t")
    (ax,) = figure.axes
    heights = [bar.get_height() for bar in ax.patches]
    assert heights[:9] == pytest.approx([*table["value"][:9]]) and np.isnan(heights[9])
    assert words(figure).count("nothing to measure") == 1
    ends = np.array(ax.collections[0].get_segments())[:, :, 1]
    assert ends == pytest.approx(table[["low", "high"]].to_numpy()[:5])
    assert {"precision", "F1"} <= set(words(figure))
    with pytest.raises(ValueError, match=r"the table of 'a' has no \['auroc_S1'"):
        plots.category_bars({"a": table}, PII, metrics=("auroc",), title="t")


def test_score_comparison_puts_dots_and_intervals():
    (ax,) = FIGURES["score_comparison"]().axes
    dots = {container.get_label(): list(container.lines[0].get_xdata()) for container in ax.containers}
    segments = np.concatenate([np.array(c.get_segments())[:, :, 0] for c in ax.collections])
    assert segments == pytest.approx(score_table()[["low", "high"]].to_numpy())
    assert dots == {"a": pytest.approx([0.6, 0.65]), "b": pytest.approx([0.7, 0.75])}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["F1", "binary FPR"]


def test_loss_curve_smooths_counts_examples_and_marks_the_entropy(monkeypatch):
    figure = FIGURES["loss_curve"]()
    drawn(figure, monkeypatch)
    ax, raw, mean, entropy = figure.axes[0], *figure.axes[0].lines
    assert raw.get_ydata()[:2] == pytest.approx(loss_table()["loss"][:2])
    assert mean.get_ydata()[50] == pytest.approx(loss_table()["loss"][40:60].mean())
    assert set(entropy.get_ydata()) == {1.2}
    (top,) = ax.child_axes
    assert top.get_xlim() == pytest.approx(np.array(ax.get_xlim()) * 16)


def test_learning_curve_has_texts_on_the_left_and_clauses_on_the_right():
    texts, clauses = FIGURES["learning_curve"]().axes
    for ax, places, heights in ((texts, [1500, 3000, 6000], [0.45, 0.55, 0.6]), (clauses, [300, 1200], [0.15, 0.6])):
        own, other = ax.lines[::3]  # two lines of caps follow each
        assert own.get_xdata() == pytest.approx(np.array(places) / 1.05) and own.get_ydata() == pytest.approx(heights)
        assert other.get_ydata() == pytest.approx(np.array(heights) + 0.1)
    assert clauses.get_xlabel().startswith("clauses that up to 6,000 texts")


def test_confusion_matrices_show_every_count():
    names = [*CODES, "S1_M", "safe"]
    figure = FIGURES["confusion_reference"]()
    told = words(figure.axes[0])
    assert {f"{100 * i:,}" for i in range(1, 49)} <= set(told)
    padded = [tick.get_color() for tick in figure.axes[0].get_yticklabels() if tick.get_text() == "S1_M"]
    assert padded == [plot_style.VERMILLION]
    shares = figure.axes[0].images[0].get_array()
    assert np.asarray(shares).sum(axis=1) == pytest.approx(np.ones(len(names)))
    lines = FIGURES["confusion_multilabel"]().axes[0].lines
    assert [lines[0].get_ydata()[0], lines[1].get_xdata()[0]] == [4.5, 4.5]


def test_confusion_2x2_puts_each_count_in_its_corner():
    ax = FIGURES["confusion_2x2"]().axes[1]
    places = {text.get_text(): text.get_position() for text in ax.texts}
    assert ax.get_title() == "S2 IP Address"
    assert places == {"901": (0, 0), "11": (1, 0), "21": (0, 1), "101": (1, 1)}


def test_precision_recall_marks_the_chosen_cut_and_names_the_blank():
    figure = plots.precision_recall({"S1": curve(), "S2": curve()[:0]}, title="t", thresholds={"S1": 0.6})
    marked = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    row = curve().iloc[6]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marked] == [(row["recall"], row["precision"])]
    assert "S2: no positive" in words(figure)


def test_reliability_has_a_panel_a_category():
    axes = FIGURES["reliability"]().axes
    assert [ax.get_title() for ax in axes] == [*CODES, "unsafe"]
    assert axes[0].lines[1].get_ydata() == pytest.approx(bins()["observed"])


def test_ladder_tells_change_and_rows():
    told = words(FIGURES["ladder"]())
    assert {"0.610", "0.580", "0.860", "-0.030\n259 rows moved", "+0.280\n1,340 rows moved"} <= set(told)


def test_error_heatmap_and_crosstab_make_the_culprits_dark():
    figure = FIGURES["error_heatmap"]()
    assert "safe  (50 of 100 wrong)" in words(figure)
    assert figure.axes[0].images[0].get_array()[1, list(KINDS).index("extra")] == 0.5
    figure = plots.label_crosstab(crosstab(), title="t", n=2)
    ax = figure.axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["PHONENUMBER  (200 rows)", "ZIPCODE  (200 rows)"]
    shares = ax.images[0].get_array()
    assert shares[0, 2] == 0.95 and shares[1, 1] == 0.915
    assert "180 missed\n3 extra" in words(figure)


def test_verdict_trie_draws_lines_by_probability_and_sums_the_rest():
    p = [0.1, 0.2, 0.05, 0.6]
    widths = {round((line.get_linewidth() - 0.8) / 7, 6) for line in FIGURES["verdict_trie"]().axes[0].lines}
    # through unsafe 0.85, through S1 0.8, and the verdicts' own
    assert widths == {0.1, 0.85, 0.8, 0.05, 0.6, 0.2}
    told = words(plots.verdict_trie(trie(), p, WORDS.__getitem__, title="t", top=2))
    assert {"S1", "S1,S2", "0.6000", "2 other verdicts 0.1500 · outside the grammar 0.0500"} <= set(told)
    assert "safe" not in told
    with pytest.raises(ValueError, match="pass the 4 verdicts of one prompt"):
        plots.verdict_trie(trie(), p[:3], WORDS.__getitem__, title="t")


def test_prefix_mask_counts_tokens_with_padding():
    told = words(FIGURES["prefix_mask"]())
    assert {"stock batch: 1,020 tokens computed", "shared prefix: 480 tokens computed"} <= set(told)
    assert "2.1 times fewer tokens" in told
    with pytest.raises(ValueError, match="each must be at least 1"):
        plots.prefix_mask(240, [])


@pytest.mark.parametrize(
    ("gold", "said", "note"),
    [
        (["S4"], ["S1", "S5"], "S4 was missed, but is cut off: counted nowhere.\nS1_M and S5_M in the truth"),
        (["S1", "S4"], ["S4", "S5"], "S4 is right, but stands at different positions: counted as wrong."),
        (["S2", "S4"], ["S1"], "S1 was reported by mistake, but is cut off: counted nowhere."),
        (["S1"], ["S1"], "Here both count the same."),
    ],
)
def test_alignment_example_says_what_goes_wrong(gold, said, note):
    answer, truth = align(said, gold)
    assert any(text.startswith(note) for text in words(plots.alignment_example(gold, said, truth, answer, title="t")))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.label_set_counts({}, title="t"), "counts has no row"),
        (lambda: plots.category_bars({}, PII, title="t"), "no scores given"),
        (lambda: plots.precision_recall({}, title="t"), "no curves given"),
        (lambda: plots.reliability({}, title="t"), "no tables given"),
        (lambda: plots.loss_curve(pd.DataFrame({"loss": [1.0]}), title="t"), r"lacks the columns \['step'\]"),
        (lambda: plots.confusion_2x2(cells().drop(columns="tn"), PII, title="t"), r"lacks the columns \['tn'\]"),
        (lambda: plots.ladder(steps()[:0], title="t"), "no row"),
    ],
)
def test_nothing_to_draw_is_an_error_that_says_so(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
