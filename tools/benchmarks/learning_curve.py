"""Weighted F1 against what a guard is trained on: how many texts, and composed of how many of the bank's clauses.

    python benchmarks/learning_curve.py --rows 1536 3072 6144 --shares 0.25 0.5 1.0 --output learning_curve.json

Every point is a training of its own, all else equal: each number of texts with the whole bank, and each share of the
bank with the largest number. A point that is there is neither trained nor scored again, and one that was cut off goes
on. To choose, read the validation column.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from guard_utils.data.leakage import without_leaks
from guard_utils.data.splits import Splits, embedded_training, load_splits
from guard_utils.metrics.intervals import bootstrap
from guard_utils.profiles import Run, resolve
from guard_utils.records import intervals_of, write_benchmark
from guard_utils.scoring.cached import tuned_predictions
from guard_utils.training.dataset import write_training_file
from guard_utils.training.launch import finetune


def point(run: Run, splits: Splits, rows: int, share: float) -> dict[str, Any]:
    """Trains on `rows` texts from a share of the bank and scores every held-out set."""
    parts = {part: getattr(splits, part) for part in ("validation", "test", "independent")}
    train = without_leaks(embedded_training(rows, seed=run.seed, clause_share=share), parts.values())
    own = replace(run, folder=run.folder / "learning_curve" / f"{rows}-{round(100 * share)}")
    train_file = own.folder / "train.jsonl"
    write_training_file(train, train_file, run.policy)
    finetune(own, train_file)
    figures: dict[str, Any] = {
        "texts": len(train),
        "share_of_clauses": share,
        "clauses": len({clause for example in train for clause in example.clause_ids}),
    }
    for part, table in tuned_predictions(own, parts).items():
        found = intervals_of(bootstrap(table, run.policy, seed=run.seed), ["weighted_f1"])["weighted_f1"]
        print(f"{figures['texts']} texts of {figures['clauses']} clauses, {part}: {found}")
        figures[part] = asdict(found) | {"n": len(table)}
    return figures


def main() -> None:
    """Trains and scores every point and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--rows", type=int, nargs="+", default=[1536, 3072, 6144])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--seed", type=int, help="default: $GUARD_SEED, or 0")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    run = resolve(arguments.profile, seed=arguments.seed)
    splits = load_splits(run)
    points = {(rows, 1.0) for rows in arguments.rows} | {(max(arguments.rows), share) for share in arguments.shares}
    curve = [point(run, splits, rows, share) for rows, share in sorted(points)]
    facts = {"profile": run.profile.name, "model": run.profile.model, "seed": run.seed, "dtype": run.dtype}
    write_benchmark(facts | {"points": curve}, arguments.output)


if __name__ == "__main__":
    main()
