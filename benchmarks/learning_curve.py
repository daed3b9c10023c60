"""Weighted F1 against what a guard is trained on: how many texts, and composed of how many of the bank's clauses.

    python benchmarks/learning_curve.py --rows 1536 3072 6144 --shares 0.25 0.5 1.0

Every point is a training of its own, all else equal: each number of texts with the whole bank, and each share of the
bank with the largest number. A point is one record a part, `learning_curve-<texts>-<share>-<part>`, in the profile's
artifacts; a point that is there is not trained again, and one that was cut off goes on. To choose, read the validation
column.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import pandas as pd

from guard_utils.finetune import finetune
from guard_utils.intervals import bootstrap
from guard_utils.profiles import Run, resolve
from guard_utils.prompt import GuardPrompt
from guard_utils.records import intervals_of, record
from guard_utils.scorer import GuardScorer, load_model, predict
from guard_utils.splits import Splits, embedded_training, load_splits
from guard_utils.training_data import write_training_file

PARTS = ("validation", "test", "independent")


def point(run: Run, splits: Splits, rows: int, share: float) -> dict[str, float | str]:
    """Trains on `rows` texts from a share of the bank, scores every part, writes one record a part."""
    name = f"{rows}-{round(100 * share)}"
    own = replace(run, folder=run.folder / "learning_curve" / name)
    train_file = own.folder / "train.jsonl"
    write_training_file(embedded_training(rows, seed=run.seed, clause_share=share), train_file, run.policy)
    training = finetune(own, train_file)
    model, tokenizer = load_model(training.checkpoint, dtype=run.dtype, device=run.device)
    scorer = GuardScorer(model, GuardPrompt(run.policy, tokenizer))
    row: dict[str, float | str] = {"texts": rows, "share of clauses": share, "minutes": round(training.seconds / 60, 1)}
    for part in PARTS:
        predictions = predict(scorer, getattr(splits, part))
        found = intervals_of(bootstrap(predictions, run.policy, seed=run.seed), ["weighted_f1"])
        record(
            run.folder, profile=run.profile.name, name=f"learning_curve-{name}-{part}", values=found,
            n=len(predictions), seed=run.seed, model=run.profile.model,
            extra={"texts": rows, "clause_share": share, "seconds": round(training.seconds, 1)},
        )  # fmt: skip
        row[part] = str(found["weighted_f1"])
    return row


def main() -> None:
    """Trains and scores every point and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--rows", type=int, nargs="+", default=[1536, 3072, 6144])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--seed", type=int, help="default: $GUARD_SEED, or 0")
    arguments = parser.parse_args()
    run = resolve(arguments.profile, seed=arguments.seed)
    splits = load_splits(run)
    points = {(rows, 1.0) for rows in arguments.rows} | {(max(arguments.rows), share) for share in arguments.shares}
    table = pd.DataFrame([point(run, splits, rows, share) for rows, share in sorted(points)])
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
