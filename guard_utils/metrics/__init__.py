"""Measures predictions tables: scores, intervals, comparisons, thresholds, kinds of error, the reference's own scoring.

Every function takes a table as `guard_utils.data` defines it, whoever filled it: a guard, a baseline, your own system.
Does not: run models (`guard_utils.scoring`), correct labels (`guard_utils.audit`), draw (`guard_utils.figures`).
"""

from guard_utils import room

__getattr__, __all__ = room(
    __name__,
    {
        "scores": [
            "category_table",
            "confusion_2x2",
            "interval_table",
            "multilabel_confusion",
            "per_category",
            "summary",
        ],
        "intervals": ["bootstrap", "compare_systems", "holm", "mcnemar", "paired_bootstrap"],
        "steps": ["Recovery", "ladder", "recovery"],
        "reference": ["align", "answer_of", "confusion_matrix_with_M", "parse_answer", "rescore", "weighted_f1"],
        "thresholds": ["Thresholds", "compare_decisions", "decide", "precision_recall", "tune"],
        "errors": [
            "KINDS",
            "by_source_label",
            "disagreements",
            "error_table",
            "gains",
            "rows_behind",
            "suspicious_labels",
            "worst",
        ],
    },
)
