"""Labels, rows, splits and prediction tables.

Does: turn labelled rows into examples, split them without leaks, check the table that each system fills. Does not: know
models, or compute a score.
"""

from guard_utils import room

__getattr__, __all__ = room(
    __name__,
    {
        "labels": [
            "LabelMap",
            "LabelRule",
            "UnknownLabelError",
            "PII_65K",
            "PII_200K",
            "REFERENCE_TRAINING_KEYS",
            "REFERENCE_EVALUATION_KEYS",
            "reference_codes_training",
            "reference_codes_evaluation",
        ],
        "rows": ["load", "DataError", "resolve_revision", "HUB_REVISIONS"],
        "examples": [
            "Example",
            "Span",
            "to_examples",
            "training_lines",
            "rows_fingerprint",
            "split_by_template",
            "reference_selection",
        ],
        "splits": ["Splits", "load_splits"],
        "leaks": ["leakage", "drop_leaks", "masked_text", "LeakageReport"],
        "predictions": [
            "predictions_table",
            "check_predictions",
            "check_same_rows",
            "code_matrix",
            "gold_matrix",
            "predicted_matrix",
            "score_matrix",
            "need_columns",
        ],
    },
)
