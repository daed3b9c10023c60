"""Measures predictions tables: scores, intervals, comparisons, thresholds, kinds of error, the reference's own scoring.

Takes tables as `guard_utils.data` defines them, whoever filled them, and their policy; raises ValueError where a table
is faulty, or two differ in ids or gold. Does not: run models (`scoring`), correct labels (`audit`), draw (`figures`).
"""

from guard_utils import room

__getattr__, __all__ = room(
    __name__,
    {
        "scores": "interval_table multilabel_confusion per_category summary",
        "intervals": "bootstrap compare_systems ladder",
        "reference": "align answer_of reference_ceilings rescore",
        "thresholds": "decide tune",
        "errors": "KINDS by_source_label disagreements error_table suspicious_labels",
    },
)
