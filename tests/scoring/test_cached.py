"""Tables on disk: what is read again, what is made anew, and what is joined from the examples."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from guard_utils.data.examples import Example, Span
from guard_utils.data.predictions import predictions_table
from guard_utils.policy import PII, Taxonomy
from guard_utils.profiles import PROFILES, Run
from guard_utils.scoring import batch, cached
from guard_utils.scoring.cached import cached_predictions, read_predictions, tuned_predictions, write_predictions

FACTS = {"model": "m", "seed": 0}


def examples(n=3, text="call Ann"):
    spans = (Span(5, 8, "FIRSTNAME", "S1"),)
    return [Example(f"e{i}", text, ("S1",), "en", f"t{i}", "", spans) for i in range(n)]


def table_of(rows, probability=0.1 + 0.2):
    p = np.zeros((len(rows), len(PII)))
    p[:, 0] = probability
    return predictions_table(rows, PII, p, [["S1"]] * len(rows), 0.0)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(cached, "repository", lambda: tmp_path / "clone")
    return Run(PROFILES["smoke"], PII, 0, tmp_path / "run")


def shelve(run, name):
    """Moves a table from the run to the repository."""
    shelf = cached.repository() / "notebooks" / "predictions" / "smoke"
    shelf.mkdir(parents=True, exist_ok=True)
    for file in (run.folder / "predictions").glob(f"{name}.*"):
        file.rename(shelf / file.name)


def test_what_was_made_is_read_again_to_the_last_bit(run):
    first = cached_predictions(run, "x", examples(), FACTS, lambda: table_of(examples()))
    again = cached_predictions(run, "x", examples(), FACTS, None)
    pd.testing.assert_frame_equal(first, table_of(examples()), check_exact=True)
    pd.testing.assert_frame_equal(again, first, check_exact=True)
    assert again["predicted"].tolist() == [["S1"]] * 3 and again["labels"][0] == ["FIRSTNAME"]
    assert (first.attrs.pop("origin"), again.attrs.pop("origin")) == ("made now", "read from this run")
    assert first.attrs == again.attrs and FACTS.items() <= again.attrs.items()
    shelve(run, "x")
    assert cached_predictions(run, "x", examples(), FACTS, None).attrs["origin"] == "read from the repository"
    with pytest.raises(FileNotFoundError, match=r"no x\.parquet with rows, policy, model, seed as asked in this run$"):
        cached_predictions(run, "x", examples(), FACTS, None, shipped=False)


def test_a_file_holds_answers_and_plain_facts(run):
    table = table_of(examples())
    table.attrs = {"not": "kept"}
    write_predictions(run, "x", examples(), table, FACTS)
    file = run.folder / "predictions" / "x.parquet"
    stored = pd.read_parquet(file)
    assert list(stored) == ["id", "predicted", "p_S1", "p_S2", "p_S3", "p_S4", "p_S5", "p_unsafe", "outside"]
    assert stored.attrs == {} and json.loads(file.with_suffix(".json").read_text()).keys() == {"rows", "policy", *FACTS}
    with pytest.raises(ValueError, match="x: the 3 rows are not the 2 examples"):
        write_predictions(run, "x", examples(2), table, FACTS)


def test_whatever_changes_the_answers_is_made_anew_and_gold_is_joined(run):
    rows = [*examples(), *examples(4, "ask Bob")[3:]]
    made = []

    def ask(rows, **facts):
        return cached_predictions(run, "x", rows, FACTS | facts, lambda: made.append(0) or table_of(rows))

    ask(rows)
    relabelled = ask([replace(rows[0], codes=(), situation="talk"), *rows[1:]])
    assert len(made) == 1 and relabelled["gold"].tolist() == [[], ["S1"], ["S1"], ["S1"]]
    assert relabelled["situation"][0] == "talk"
    ask(rows, seed=1)
    for other in (rows[::-1], rows[:3], [replace(rows[0], text="call Eve"), *rows[1:]], [replace(rows[0], id="e9")]):
        ask(other)
    assert len(made) == 6


def test_a_write_that_is_cut_off_leaves_no_table_with_old_facts(run, monkeypatch):
    write_predictions(run, "x", examples(), table_of(examples()), FACTS)
    monkeypatch.setattr(cached, "write_text", lambda *_: None)
    write_predictions(run, "x", examples(), table_of(examples(), 0.5), {"model": "other"})
    with pytest.raises(FileNotFoundError):
        cached_predictions(run, "x", examples(), FACTS, None)


def test_the_own_table_comes_first_and_others_name_the_notebook(run):
    write_predictions(run, "regex-test", examples(), table_of(examples()), FACTS)
    shelve(run, "regex-test")
    assert read_predictions(run, "regex", "test", examples())["p_S1"][0] == 0.1 + 0.2
    write_predictions(run, "regex-test", examples(), table_of(examples(), 0.5), FACTS)
    assert read_predictions(run, "regex", "test", examples())["p_S1"][0] == 0.5
    for others in (examples(2), examples(3, "call Eve"), examples()[::-1]):
        with pytest.raises(FileNotFoundError, match=r"no regex-test\.parquet .* run notebook 01 with PROFILE"):
            read_predictions(run, "regex", "test", others)
    with pytest.raises(FileNotFoundError, match="run notebooks 03 and 04"):
        read_predictions(run, "tuned", "test", examples())


def trained(run, smoke_folder, fingerprint="one"):
    folder = run.folder / "training"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("epochs: 1\n")
    (folder / "finished.json").write_text(json.dumps({"fingerprint": fingerprint}))
    if not (folder / "epoch_0").exists():
        (folder / "epoch_0").symlink_to(smoke_folder)


def origins(run, *, settings=None, **parts):
    return [table.attrs["origin"] for table in tuned_predictions(run, parts, **settings or {}).values()]


def test_the_checkpoint_scores_what_it_has_not_answered_before(run, smoke_folder):
    trained(run, smoke_folder)
    table = tuned_predictions(run, {"test": examples()})["test"]
    assert table["id"].tolist() == ["e0", "e1", "e2"] and table.attrs["checkpoint"] == "one"
    assert table["p_unsafe"].nunique() == 1 and 0 < table["outside"][0] < 1
    assert origins(run, validation=examples(2), test=examples()) == ["made now", "read from this run"]
    shelve(run, "tuned-test")
    assert origins(run, test=examples()) == ["made now"], "another machine's checkpoint is not this one"


def test_what_decides_the_answers_makes_them_anew_and_nothing_else(run, smoke_folder, tmp_path, monkeypatch):
    trained(run, smoke_folder)
    assert origins(run, test=examples()) == ["made now"]
    first, *rest = run.policy.categories
    faster = replace(run)
    vars(faster)["dtype"] = "bf16"
    for changed, settings in [
        (faster, {}),
        (replace(run, policy=PII.select(["S2", "S1"])), {}),
        (replace(run, policy=Taxonomy("anew", PII.select(["S2", "S1"]).categories)), {}),
        (replace(run, policy=replace(PII, categories=(replace(first, description="Any name."), *rest))), {}),
        (run, {"epsilon": 0.0}),
        (run, {"max_violations": 2}),
    ]:
        for expected in ("made now", "read from this run"):
            assert origins(changed, test=examples(), settings=settings) == [expected]
    trained(run, smoke_folder, "two")
    assert origins(run, test=examples()) == ["made now"]
    moved = tmp_path / "moved"
    run.folder.rename(moved)
    elsewhere = replace(run, folder=moved, policy=replace(PII, name="mine"))
    assert origins(elsewhere, test=examples()) == ["read from this run"], "neither a path nor a name decides"
    monkeypatch.setattr(batch, "code_fingerprint", lambda _: "other code")
    assert origins(elsewhere, test=examples()) == ["made now"]


def test_without_a_checkpoint_the_tables_of_the_same_rows_serve(run):
    write_predictions(run, "tuned-test", examples(), table_of(examples()), {"checkpoint": "one"})
    for origin in ("this run", "the repository"):
        table = tuned_predictions(run, {"test": examples()})["test"]
        assert table.attrs["origin"] == f"read from {origin}" and table.attrs["checkpoint"] == "one"
        shelve(run, "tuned-test")
    for other, rows in [(run, examples(4)), (replace(run, policy=PII.select(PII.codes[::-1])), examples())]:
        with pytest.raises(FileNotFoundError, match="run notebooks 03 and 04"):
            tuned_predictions(other, {"test": rows})
