"""Scoring: what a guard or a baseline answers, with the probability of every category.

Does: score texts and files of them exactly, run the baselines, keep tables of answers. Does not: train, or compute a
metric.
"""

from guard_utils import room

__getattr__, __all__ = room(
    __name__,
    {
        "trie": "VerdictTrie",
        "scorer": "GuardScorer Scores load_model predict",
        "batch": "export_guard load_guard score_file",
        "baselines": "majority regular_expressions tfidf",
        "cached": "cached_predictions read_predictions reference_predictions tuned_predictions write_predictions",
    },
)
