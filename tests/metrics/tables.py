"""Predictions tables for the tests of `guard_utils.metrics`."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from guard_utils.data.predictions import codes_of
from guard_utils.policy import PII, Taxonomy


def predictions(
    gold: Sequence[Iterable[object]],
    predicted: Sequence[Iterable[object]] | None = None,
    p: np.ndarray | None = None,
    policy: Taxonomy = PII,
    **columns: object,
) -> pd.DataFrame:
    """Without probabilities, predicted codes get 0.9 and others 0.2; without answers, P >= 0.5 is predicted."""
    gold, said = (
        codes_of(rows, policy) if isinstance(rows, np.ndarray) else [list(row) for row in rows]
        for rows in (gold, p >= 0.5 if predicted is None else predicted)
    )
    if p is None:
        p = np.array([[0.9 if code in row else 0.2 for code in policy.codes] for row in said])
    table = {"id": [f"r{i}" for i in range(len(said))], "gold": gold, "predicted": said}
    table |= {f"p_{code}": p[:, i] for i, code in enumerate(policy.codes)}
    return pd.DataFrame(table | {"p_unsafe": p.max(axis=1), "outside": 0.01} | columns)


def random_predictions(rows: int = 300, seed: int = 0, noise: float = 1.5, clusters: int = 40) -> pd.DataFrame:
    """Gold of a seed, and the answers of a guard that is the worse the greater the noise; scores have ties."""
    r = np.random.default_rng(seed)
    gold = r.random((rows, 5)) < [0.4, 0.2, 0.15, 0.35, 0.1]
    template = [f"t{i}" for i in r.integers(0, clusters, rows)]
    p = 1 / (1 + np.exp(-(3 * gold - 1.5 + noise * np.random.default_rng(seed + 1).normal(0, 1, gold.shape))))
    return predictions(gold, p=p.round(2), template_id=template)
