"""Which labels are wrong? Out-of-sample probabilities, cleanlab's scores, a ranking to review, a careful policy.

A model can only contradict a label that it was not trained on, so every row is scored by a model that has seen neither
it nor any other row of its template. Systematic faults come first (`label_faults`): a model repeats what it was taught.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class
from sklearn.model_selection import StratifiedGroupKFold

from guard_utils.audit.corrections import Correction
from guard_utils.data.examples import Example, rows_fingerprint
from guard_utils.data.predictions import FloatArray, check_same_rows, gold_matrix, predictions_table, score_matrix
from guard_utils.files import read_table, write_table
from guard_utils.policy import Taxonomy
from guard_utils.profiles import Run
from guard_utils.scoring.cached import predictions_path, shipped_path

Model = Callable[[Sequence[Example], Sequence[Example], Taxonomy, int], pd.DataFrame]
"""Trains on the first examples and returns a predictions table of the second: `tfidf`, `word_model`, `GuardModel`."""

CHEAP_ROOMS = ("scoring/baselines.py", "audit/word_model.py", "audit/retraining.py")
"""What decides the probabilities of a cheap model besides its data: a change here makes remembered tables stale."""
SCALE = 1_000
"""Remembered probabilities are whole thousandths, so that the files are small."""


def out_of_fold(
    examples: Sequence[Example], policy: Taxonomy, model: Model, *, folds: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Scores every example with a model that was trained on other templates (`template_id`, a text's main clause).

    Args:
        examples: With their given codes.
        policy: Its categories.
        model: Trained `folds` times.
        folds: Parts that the templates are dealt to, the rarest given codes evenly.
        seed: Of the dealing and of the model.

    Returns:
        A predictions table in the order of the examples, `gold` being the given codes.

    Raises:
        ValueError: Fewer than two folds, fewer templates than folds, or a category that is given to no row or to all.
    """
    if folds < 2:
        raise ValueError(
            f"folds is {folds}; a row must be scored by a model that has not seen it, which takes at least 2"
        )
    groups = [example.template_id for example in examples]
    if len(set(groups)) < folds:
        raise ValueError(f"{len(set(groups))} templates can't be dealt to {folds} folds; take fewer folds or more rows")
    counts = {code: sum(code in example.codes for example in examples) for code in policy.codes}
    _need_both_sides(counts, len(examples))
    rarest = [min(example.codes, key=lambda code: counts[code], default="safe") for example in examples]
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(groups, rarest, groups)
    tables = []
    for train, held_out in parts:
        table = model([examples[i] for i in train], [examples[i] for i in held_out], policy, seed)
        tables.append(table.set_axis(held_out))
    return pd.concat(tables).sort_index()


def _need_both_sides(counts: Mapping[str, int], rows: int) -> None:
    if bare := [code for code, count in counts.items() if not count]:
        raise ValueError(
            f"{', '.join(bare)} is given to no row, so no model can learn it: look for a source label that was never "
            "mapped (find_faults) and correct it first, or audit a policy without the category"
        )
    if full := [code for code, count in counts.items() if count == rows]:
        raise ValueError(
            f"{', '.join(full)} is given to all {rows} rows, so no model can learn it; add rows without it"
        )


def remembered(
    run: Run,
    name: str,
    examples: Sequence[Example],
    facts: Mapping[str, object],
    make: Callable[[], pd.DataFrame] | None,
) -> pd.DataFrame:
    """Reads the predictions of an audit where they were made from these very facts, or makes and keeps them.

    The file, `predictions/audit-<name>.parquet` of the run or of the repository, holds numbers only: no id, no text.

    Args:
        run: A resolved profile.
        name: Of the file.
        examples: What is scored, in order.
        facts: Whatever else decides the numbers: training rows, folds, seed, a guard's config.
        make: Makes the predictions table; None if that takes too long to do unasked.

    Returns:
        The table, its probabilities rounded as the file has them. Its `attrs["origin"]` says where it comes from.

    Raises:
        FileNotFoundError: There is no such table, and nothing to make it with.
    """
    known = _marks(run, examples, facts)
    own, shipped = predictions_path(run, "audit", name), shipped_path(run, "audit", name)
    for path in (own, shipped):
        if path.exists() and (slim := read_table(path, made_by="06_label_audit")).attrs == known:
            origin = f"read from {'this run' if path == own else 'the repository'}"
            break
    else:
        if make is None:
            raise FileNotFoundError(
                f"neither this run nor the repository has predictions/{own.name} of these very rows and labels"
            )
        slim, origin = _slim(make(), run.policy), "made now"
        slim.attrs = known
        write_table(own, slim)
    p = {column: slim[column] / SCALE for column in slim if column.startswith("p_") or column == "outside"}
    marginals = np.column_stack([p[f"p_{code}"] for code in run.policy.codes])
    answers = [[code for code in codes.split(",") if code] for codes in slim["predicted"]]
    whole = predictions_table(examples, run.policy, marginals, answers, p["outside"], unsafe=p["p_unsafe"])
    table = pd.concat([whole, slim[[column for column in slim if column.startswith("at_")]]], axis=1)
    table.attrs = known | {"origin": origin}
    return table


def _marks(run: Run, examples: Sequence[Example], facts: Mapping[str, object]) -> dict[str, str]:
    """What a remembered table was made from; rows alone are not enough, since a model may learn from spans."""
    rooms = b"".join((Path(__file__).parents[1] / room).read_bytes() for room in CHEAP_ROOMS)
    spans = repr([[(span.start, span.end, span.label) for span in example.spans] for example in examples])
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in (("code", rooms), ("spans", spans.encode()))}
    own = {"rows": rows_fingerprint(examples), "policy": run.policy.name, "scale": str(SCALE)}
    return {name: str(value) for name, value in facts.items()} | own | hashes


def _slim(table: pd.DataFrame, policy: Taxonomy) -> pd.DataFrame:
    numbers = [*(f"p_{code}" for code in policy.codes), "p_unsafe", "outside"]
    small = (table[numbers] * SCALE).round().astype("uint16")
    places = table[[column for column in table if column.startswith("at_")]].astype("int32")
    parts = pd.concat([small, places], axis=1).assign(predicted=table["predicted"].map(",".join))
    return parts.reset_index(drop=True)


def out_of_sample(
    run: Run, name: str, examples: Sequence[Example], models: Mapping[str, Model], *, folds: int = 5
) -> dict[str, pd.DataFrame]:
    """Scores examples by several models that have not seen them, or reads what was remembered of the same.

    Args:
        run: A resolved profile; its seed deals the folds.
        name: Of this version of the data, for the files.
        examples: With their given codes.
        models: Name to model.
        folds: See `out_of_fold`.

    Returns:
        Model to its predictions table.
    """
    tables = {}
    for kind, model in models.items():
        make = partial(out_of_fold, examples, run.policy, model, folds=folds, seed=run.seed)
        tables[kind] = remembered(run, f"{kind}-{name}", examples, {"folds": folds, "seed": run.seed}, make)
    return tables


def suspects(tables: Mapping[str, pd.DataFrame], policy: Taxonomy) -> pd.DataFrame:
    """Ranks every (row, code) pair by how much out-of-sample models doubt it, most doubtful first.

    The score is cleanlab's label quality of the models' mean probability, adjusted for how sure they usually are of a
    category (Kuan and Mueller 2022; Thyagarajan and others 2022, https://arxiv.org/abs/2211.13895).

    Args:
        tables: Model to its out-of-sample predictions table of the same rows.
        policy: Its policy.

    Returns:
        All pairs: `id, code, action` ("add" where the code is not given, else "remove"), `quality` (0 to 1), `issues`
        (how many models' probabilities cleanlab's issue finder flags), and `p_<model>` for each model.

    Raises:
        ValueError: There is no table, they differ in rows or given codes, or a category is given to no
            row or to all.
    """
    if not tables:
        raise ValueError("no table given; pass the out-of-sample predictions of at least one model")
    first = next(iter(tables.values()))
    aligned = {name: check_same_rows(first, df, policy) for name, df in tables.items()}
    given = gold_matrix(first, policy)
    _need_both_sides(dict(zip(policy.codes, given.sum(axis=0).tolist(), strict=True)), len(given))
    p: dict[str, FloatArray] = {name: score_matrix(df, policy) for name, df in aligned.items()}
    labels = [np.flatnonzero(row).tolist() for row in given]
    mean = np.mean(list(p.values()), axis=0)
    quality = get_label_quality_scores_per_class(labels, mean, adjust_pred_probs=True)
    issues = np.sum([find_multilabel_issues_per_class(labels, each, n_jobs=1) for each in p.values()], axis=0)
    pairs = {
        "id": np.repeat(first["id"].to_numpy(), len(policy)),
        "code": np.tile(policy.codes, len(first)),
        "action": np.where(given, "remove", "add").ravel(),
        "quality": quality.ravel(),
        "issues": issues.ravel(),
    }
    table = pd.DataFrame(pairs | {f"p_{name}": each.ravel() for name, each in p.items()})
    return table.sort_values(["quality", "id", "code"], ignore_index=True)


def automatic(
    ranked: pd.DataFrame, *, quality: float = 0.25, kept: Collection[Correction] = (), reviewer: str = "automatic"
) -> list[Correction]:
    """Decides without a reader, and so only where every model says the opposite of the given code and quality is low.

    Args:
        ranked: What `suspects` returned.
        quality: Pairs below are decided.
        kept: Earlier decisions; these pairs are left alone.
        reviewer: Name that the corrections carry.
    """
    done = {(item.id, item.code) for item in kept}
    p = ranked[[column for column in ranked if column.startswith("p_")]]
    against = np.where(ranked["action"] == "add", p.min(axis=1), 1 - p.max(axis=1)) > 0.5
    chosen = ranked[against & (ranked["quality"] < quality)]
    reason = "every model says the opposite, label quality {:.3f}"
    return [
        Correction(row.id, row.code, row.action, reason.format(row.quality), reviewer)
        for row in chosen.itertuples()
        if (row.id, row.code) not in done
    ]


def undecided(ranked: pd.DataFrame, corrections: Collection[Correction], *, quality: float = 0.4) -> set[str]:
    """Lists the rows to set aside from training until someone reads them: a code may be lacking, and nobody decided.

    A lacking code teaches silence, and there are plenty of other rows; a code too many is rarer and costs less.

    Args:
        ranked: What `suspects` returned.
        corrections: What was decided, keeping included.
        quality: Pairs below are doubtful.

    Returns:
        Ids of rows.
    """
    done = {(item.id, item.code) for item in corrections}
    doubtful = ranked[(ranked["quality"] < quality) & (ranked["action"] == "add")]
    return {row.id for row in doubtful.itertuples() if (row.id, row.code) not in done}


def proposal(df: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with `predicted` set to the given codes, turned round in the given pairs.

    So whatever compares gold with predictions (`by_source_label`, `error_table`, `suspicious_labels`) tells where the
    suspects gather: a label or category that holds most of them has a fault of its own.

    Args:
        df: Predictions table.
        pairs: Rows of `suspects`: columns `id, code`.
    """
    flips = pairs.groupby("id")["code"].agg(set)
    codes = [sorted(set(gold) ^ flips.get(row, set())) for row, gold in zip(df["id"], df["gold"], strict=True)]
    return df.assign(predicted=pd.Series(codes, index=df.index, dtype=object))


def review_table(ranked: pd.DataFrame, df: pd.DataFrame, *, around: int = 30) -> pd.DataFrame:
    """Makes the table that a reviewer reads and fills in; `read_review` of `corrections` reads it back from CSV.

    Args:
        ranked: Pairs of `suspects` to be reviewed.
        df: Predictions table of these rows with `text`; where it has `at_<code>`, the evidence is cut from the text.
        around: Characters shown on both sides of the word in question.

    Returns:
        `id, code, decision` and `reason` (both empty), `suggestion`, `given`, `evidence`, `text`, `quality`,
        `p_<model>`.

    Raises:
        ValueError: An id of `ranked` is not in `df`.
    """
    rows = df.set_index("id")
    if lost := sorted(set(ranked["id"]) - set(rows.index)):
        raise ValueError(
            f"{len(lost)} ids are not among the rows, the first is {lost[0]!r}; pass the table of these rows"
        )
    texts = rows["text"].loc[ranked["id"]].tolist()
    places = [
        int(rows.at[i, f"at_{c}"]) if f"at_{c}" in rows else -1
        for i, c in zip(ranked["id"], ranked["code"], strict=True)
    ]
    given = [", ".join(codes) or "safe" for codes in rows["gold"].loc[ranked["id"]]]
    told = {
        "decision": "",
        "reason": "",
        "suggestion": ranked["action"].to_numpy(),
        "given": given,
        "evidence": [_snippet(text, place, around) for text, place in zip(texts, places, strict=True)],
        "text": texts,
    }
    return pd.concat(
        [ranked[["id", "code"]].assign(**told), ranked.drop(columns=["id", "code", "action", "issues"])], axis=1
    )


def _snippet(text: str, place: int, around: int) -> str:
    """The word at a place in square brackets, with what stands around it; empty without a place."""
    if place < 0:
        return ""
    word = text[place:].split(maxsplit=1)[0]
    end = place + len(word)
    before, after = text[max(0, place - around) : place], text[end : end + around]
    return f"{'…' * (place > around)}{before}[{word}]{after}{'…' * (len(text) > end + around)}".replace("\n", " ")
