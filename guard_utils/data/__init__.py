"""Labels, rows, splits and prediction tables.

Does: turn labelled rows into examples, split them without leaks, check the table that each system fills (a faulty one
raises ValueError). Does not: know models, or compute a score.
"""

from guard_utils import room

__getattr__, __all__ = room(
    __name__,
    {
        "labels": "LabelMap LabelRule UnknownLabelError PII_65K PII_200K REFERENCE_EVALUATION_KEYS "
        "reference_codes_training reference_codes_evaluation",
        "rows": "load DataError",
        "examples": "Example Span to_examples rows_fingerprint reference_selection",
        "reference_rows": "load_reference_rows reference_examples reference_labels",
        "own_rows": "own_examples",
        "splits": "Splits load_splits split_by_template leakage drop_leaks",
        "predictions": "predictions_table check_predictions gold_matrix predicted_matrix score_matrix",
    },
)
