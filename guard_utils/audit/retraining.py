"""What corrected labels win: models trained on noisy, audited and clean labels, scored on the same rows.

The cheap model is the baseline of the series. `GuardModel` is the guard itself, for those with the minutes or a GPU:
one training for each part of an audit and for each version of the labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from guard_utils.audit.ranking import remembered
from guard_utils.data.examples import Example, rows_fingerprint
from guard_utils.data.predictions import (
    FloatArray,
    check_same_rows,
    gold_matrix,
    predicted_matrix,
    predictions_table,
    score_matrix,
)
from guard_utils.metrics.intervals import (
    cluster_index,
    cluster_sums,
    draws,
    percentile_interval,
    ratio,
    weighted_f1_of_counts,
)
from guard_utils.policy import Taxonomy
from guard_utils.profiles import Run
from guard_utils.records import Interval
from guard_utils.scoring.baselines import tfidf
from guard_utils.training.dataset import write_training_file
from guard_utils.training.launch import checkpoint, finetune


def cheap_model(
    train_examples: Sequence[Example], examples: Sequence[Example], policy: Taxonomy, seed: int = 0
) -> pd.DataFrame:
    """Trains `tfidf` on the categories that the labels show both sides of; of the others it knows the share, 0 or 1.

    So labels that lack a whole category can be trained on, and what that costs can be measured.

    Raises:
        ValueError: No category has both positives and negatives.
    """
    share = np.mean([[code in example.codes for code in policy.codes] for example in train_examples], axis=0)
    known = [code for code, part in zip(policy.codes, share, strict=True) if 0 < part < 1]
    own = policy.select(known)
    renamed = dict(zip(known, own.codes, strict=True))
    shown, asked = (
        [replace(e, codes=tuple(renamed[code] for code in e.codes if code in renamed)) for e in part]
        for part in (train_examples, examples)
    )
    marginals = np.tile(share, (len(examples), 1))
    marginals[:, [policy.position(code) for code in known]] = score_matrix(tfidf(shown, asked, own, seed), own)
    answers = [[code for code, p in zip(policy.codes, row, strict=True) if p >= 0.5] for row in marginals]
    return predictions_table(examples, policy, marginals, answers, 0.0)


class GuardModel:
    """The run's guard as a model of `label_audit`: fine-tuned on some examples, exact probabilities of the others.

    Each training replaces the checkpoint of the one before, in `audit/` of the run's folder. The tables are remembered,
    so a run that broke off goes on where it stopped.

    Args:
        run: A resolved profile.
        progress: Whether to show bars.
    """

    def __init__(self, run: Run, *, progress: bool = True) -> None:
        self.run = run
        self.progress = progress

    def __call__(
        self, train_examples: Sequence[Example], examples: Sequence[Example], policy: Taxonomy, seed: int
    ) -> pd.DataFrame:
        """Trains and scores; see `finetune` and `predict` for what can go wrong."""
        config = hashlib.sha256(self.run.config_path.read_bytes()).hexdigest()
        facts = {"train": rows_fingerprint(train_examples), "seed": seed, "config": config, "dtype": self.run.dtype}
        name = hashlib.sha256(f"{facts}{rows_fingerprint(examples)}".encode()).hexdigest()[:12]
        run = replace(self.run, seed=seed, policy=policy)
        return remembered(run, f"guard-{name}", examples, facts, lambda: self._make(run, train_examples, examples))

    def _make(self, run: Run, train_examples: Sequence[Example], examples: Sequence[Example]) -> pd.DataFrame:
        from guard_utils.prompt import GuardPrompt
        from guard_utils.scoring.scorer import GuardScorer, load_model, predict

        run = replace(run, folder=run.folder / "audit")
        write_training_file(train_examples, run.folder / "train.jsonl", run.policy)
        finetune(run, run.folder / "train.jsonl", processes=max(1, run.profile.gpus), progress=self.progress)
        model, tokenizer = load_model(checkpoint(run), dtype=run.dtype, device=run.device)
        return predict(GuardScorer(model, GuardPrompt(run.policy, tokenizer)), examples, progress=self.progress)


@dataclass(frozen=True)
class Recovery:
    """What each version of the labels is worth.

    Attributes:
        steps: One row a version: `step, weighted_f1, low, high, change, change_low, change_high, rows_moved` (answers
            that differ from the step before), all means over the seeds, on the same draws.
        recovered: Share of the F1 lost between the last version and the first that the one before the last wins back.
        seeds: Weighted F1 of each seed, one column a version.
    """

    steps: pd.DataFrame
    recovered: Interval
    seeds: pd.DataFrame


def recovery(
    versions: Mapping[str, Sequence[pd.DataFrame]],
    policy: Taxonomy,
    *,
    resamples: int = 1000,
    seed: int = 0,
    cluster: str | None = "template_id",
    level: float = 0.95,
) -> Recovery:
    """Compares models trained on several versions of the labels, on the same rows and the same draws.

    Args:
        versions: Version (noisy, audited, clean) to the predictions tables of its models, one for each seed of the
            noise; a single one stands for all seeds.
        policy: Its policy.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        cluster: Column drawn as a whole; None draws single rows.
        level: Nominal coverage.

    Raises:
        ValueError: Fewer than three versions, numbers of seeds that do not fit, or tables of different rows or gold.
    """
    most = max(map(len, versions.values()), default=0)
    if len(versions) < 3 or not most or any(len(tables) not in (1, most) for tables in versions.values()):
        told = {name: len(tables) for name, tables in versions.items()}
        raise ValueError(f"the versions have {told} tables; pass three or more, each with one a seed or one for all")
    first = next(iter(versions.values()))[0]
    aligned = [[check_same_rows(first, df, policy) for df in part] * (most // len(part)) for part in versions.values()]
    index = cluster_index(first, cluster)
    sums = [[_sums(table, policy, index) for table in tables] for tables in aligned]
    clusters = int(index.max()) + 1
    each = _scores(sums, np.ones((1, clusters)))[:, :, 0]
    value = each.mean(axis=1)
    samples = np.concatenate([_scores(sums, weights).mean(axis=1).T for weights in draws(clusters, resamples, seed)])
    low, high = percentile_interval(np.column_stack([samples, _won(samples)]), level)
    change_low, change_high = percentile_interval(np.diff(samples, axis=1, prepend=np.nan), level)
    steps = pd.DataFrame({"step": list(versions), "weighted_f1": value, "low": low[:-1], "high": high[:-1]})
    steps["change"], steps["change_low"], steps["change_high"] = np.diff(value, prepend=np.nan), change_low, change_high
    steps["rows_moved"] = [0, *(_moved(a, b, policy) for a, b in pairwise(aligned))]
    recovered = Interval(float(_won(value[None])[0]), float(low[-1]), float(high[-1]))
    return Recovery(steps, recovered, pd.DataFrame(each.T, columns=list(versions)))


def _sums(table: pd.DataFrame, policy: Taxonomy, index: np.ndarray) -> FloatArray:
    """Hits, extras and misses by cluster: [3, clusters, categories]."""
    gold, said = gold_matrix(table, policy), predicted_matrix(table, policy)
    return np.array([cluster_sums(cells, index) for cells in (gold & said, said & ~gold, gold & ~said)])


def _scores(sums: Sequence[Sequence[FloatArray]], weights: FloatArray) -> FloatArray:
    """Weighted F1 [versions, seeds, draws]."""
    return np.array([[weighted_f1_of_counts(*(weights @ cells for cells in one)) for one in part] for part in sums])


def _won(scores: FloatArray) -> FloatArray:
    """(audited - noisy) / (clean - noisy) of scores [draws, versions]; NaN where nothing was lost."""
    lost = scores[:, -1] - scores[:, 0]
    return ratio(scores[:, -2] - scores[:, 0], np.where(lost > 0, lost, 0.0))


def _moved(before: Sequence[pd.DataFrame], after: Sequence[pd.DataFrame], policy: Taxonomy) -> int:
    """Rows whose answers differ, the mean over the seeds."""
    moved = [predicted_matrix(a, policy) != predicted_matrix(b, policy) for a, b in zip(before, after, strict=True)]
    return round(float(np.any(moved, axis=2).sum(axis=1).mean()))
