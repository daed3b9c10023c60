"""Label audit: add noise to practise on, find mapping errors and single wrong labels, keep and apply corrections.

Does not train or score a guard, and imports no torch: it reads predictions tables, whoever made them.
"""

from guard_utils import room

__getattr__, __all__ = room(
    __name__,
    {
        "noise": ["LabelNoise", "add_label_noise", "correction_precision", "found_within", "wrong_pairs"],
        "mapping": ["find_mapping_errors", "label_codes", "mapping_corrections", "mapping_error_rows"],
        "ranking": [
            "automatic_corrections",
            "out_of_fold",
            "rank_label_issues",
            "review_table",
            "undecided_rows",
        ],
        "corrections": [
            "Correction",
            "CorrectionError",
            "apply_corrections",
            "read_corrections",
            "read_review",
            "write_corrections",
        ],
    },
)
