"""Label audit: add noise to practise on, find mapping errors and single wrong labels, keep and apply corrections.

Takes examples and predictions tables, whoever made them, and their policy; raises ValueError where a table is faulty.
Does not: train or score a guard, or import torch.
"""

from guard_utils import room

__getattr__, __all__ = room(
    __name__,
    {
        "changes": "Correction LabelNoise add_label_noise apply_corrections read_corrections wrong_pairs "
        "write_corrections",
        "label_issues": "find_mapping_errors label_codes mapping_corrections out_of_fold rank_label_issues",
    },
)
