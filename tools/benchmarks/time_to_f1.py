r"""F1 against minutes of training: configurations in turn, on one machine.

    python -m tools.benchmarks.time_to_f1 "rows=3488 batch_size=32 dataset.evidence=0" "rows=1744" \
        "rows=1744 optimizer.lr=3e-4" --seeds 0 1 2 --output tools/benchmarks/results/time_to_f1.json

A configuration is what it changes in `torchtune_configs/<profile>.yaml`, and how many training rows it takes; others
are compared with the first. Each training has its own folder: one that is done is not repeated, one that was cut off
goes on. Scored are validation rows and, with `$GUARD_AI4PRIVACY`, development rows. Does not: score a test set.
"""

import argparse
import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from guard_utils.data import load_splits
from guard_utils.formatter import write_training_file
from guard_utils.metrics import bootstrap, compare_systems
from guard_utils.policy import PII
from guard_utils.profiles import resolve
from guard_utils.records import intervals_of
from guard_utils.scoring import tuned_predictions
from guard_utils.training import finetune
from tools.benchmarks.figures import write_benchmark
from tools.reference import cluster_of, development_rows


def train(profile: str, changes: str, seed: int) -> tuple[dict[str, float], dict[str, pd.DataFrame]]:
    """Trains one configuration, unless that is done; returns what it cost, and its answers to each set."""
    series, changed = resolve(profile, seed=seed), OmegaConf.from_dotlist(changes.split())
    rows = changed.pop("rows", series.profile.train_rows)
    name = f"{profile}-{hashlib.sha256(f'{changes} {seed}'.encode()).hexdigest()[:8]}"
    run = resolve(replace(series.profile, name=name, adapter="", train_rows=rows), seed=seed)
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(series.config_path), changed), run.folder / "config.yaml")
    run = replace(run, profile=replace(run.profile, config=str(run.folder / "config")))
    splits, file = load_splits(run), run.folder / "train.jsonl"
    write_training_file(splits.train, file, run.policy)
    training, sets = finetune(run, file), {"validation": splits.validation}
    if os.environ.get("GUARD_AI4PRIVACY"):
        sets["development"] = development_rows()
    return {"examples": training.examples, "minutes": training.seconds / 60}, tuned_predictions(run, sets)


def scores(tables: dict[str, pd.DataFrame], first: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Weighted F1 of a training on each set, and the difference to the first configuration's; both with intervals."""
    told: dict[str, Any] = {}
    for part, table in tables.items():
        draws = {"cluster": cluster_of(part)}
        f1 = intervals_of(bootstrap(table, PII, **draws), ["weighted_f1"])["weighted_f1"]
        compared = compare_systems(table, {"first": first[part]}, PII, **draws)[["difference", "low", "high"]]
        told[part] = {"n": len(table), "weighted_f1": asdict(f1), "to_first": compared.loc["first"].to_dict()}
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configurations", nargs="+", metavar="KEY=VALUE ...", help="the first is compared with")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    given = parser.parse_args(arguments)
    trainings = []
    for seed in given.seeds:
        first: dict[str, pd.DataFrame] = {}
        for changes in given.configurations:
            cost, tables = train(given.profile, changes, seed)
            first = first or tables
            trainings.append({"changes": changes, "seed": seed, **cost, **scores(tables, first)})
    write_benchmark({"trainings": trainings}, given.output)


if __name__ == "__main__":
    main()
