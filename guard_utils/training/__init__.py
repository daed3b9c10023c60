"""Trains a guard with torchtune behind a shared prefix: config check, data set, recipe, launch, resuming.

Does: everything from a training file to a checkpoint with its log. Does not: write training files, score a model.
"""

from guard_utils import room

__getattr__, __all__ = room(
    __name__,
    {
        "config": "TrainingError check_config resolve_config",
        "dataset": "GuardDataset RecipeTokenizer",
        "launch": "Training checkpoint checkpoint_fingerprint finetune",
        "shared_prefix": "collate_shared_prefix shared_prefix_loss use_shared_prefix",
    },
)
