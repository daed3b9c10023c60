"""Figures and reading views of the series, each with a title or heading that says what to see.

Draws tables that other rooms computed and writes PNG files with alt texts; computes no score and loads no model.
"""

from guard_utils import room

__getattr__, __all__ = room(
    __name__,
    {
        "style": "Picture save",
        "charts": "plot_confusion plot_label_errors plot_label_sets plot_loss "
        "plot_multilabel_confusion plot_precision_recall plot_scores",
        "views": "marked_html plot_prefix_mask plot_trie reading_html tokens_html",
    },
)
