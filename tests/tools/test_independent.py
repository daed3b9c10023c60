"""The independent benchmark's filling. That its rows are those of the file is in test_corpus.py."""

import random
import shutil
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import pytest

from guard_utils.files import fetch
from tests.data.made import assert_exact
from tools.corpus.independent import COMPANIES, PEOPLE, TEMPLATES, Filler, fill, presidio_fillers, presidio_templates


@pytest.fixture(scope="module")
def fillers() -> dict[str, Filler]:
    return presidio_fillers(fetch("presidio-templates"))


def test_offsets_are_exact_whatever_fills_a_slot(fillers: dict[str, Filler]) -> None:
    templates = [f"A {{{{{slot}}}}}, b\n{{{{{slot}}}}}" for slot in fillers]
    for row in fill(templates, fillers, n=20 * len(templates), seed=3):
        assert row["source_text"].startswith("A ") and "{" not in row["source_text"]
        assert_exact(row)


def test_no_slot_asks_for_the_date(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoClock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> NoReturn:
            raise AssertionError("a filler asked Faker for the time: the same seed would give other rows tomorrow")

        today = now

    monkeypatch.setattr("faker.providers.date_time.datetime", NoClock)
    for filler in presidio_fillers(fetch("presidio-templates")).values():
        assert filler(random.Random(1)) == filler(random.Random(1))


def test_rows_are_spread_evenly_and_depend_on_the_seed_alone(fillers: dict[str, Filler]) -> None:
    templates = ["{{credit_card_number}} {{ip_address}}", "{{email}}", "Nothing to fill."]
    rows = fill(templates, fillers, n=100, seed=1)
    assert sorted(Counter(row["template_id"] for row in rows).values()) == [33, 33, 34]
    assert len({row["id"] for row in rows}) == 100
    random.seed(0)
    state = random.getstate()
    assert fill(templates, fillers, n=50, seed=1) == rows[:50]
    assert random.getstate() == state
    assert fill(templates, fillers, n=2, seed=2) != rows[:2]


def test_unknown_slots_are_all_listed(fillers: dict[str, Filler]) -> None:
    with pytest.raises(ValueError, match=r"no filler for slot\(s\) \['planet', 'star'\]"):
        fill(["{{star}} {{name}}", "{planet}"], fillers, seed=1)
    for templates, n in (([], 5), (["x"], 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            fill(templates, {}, n=n, seed=1)


def test_incomplete_assets_are_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fetch("presidio-templates"), tmp_path / "asset"))
    (folder / PEOPLE).write_text("GivenName,Surname\nAda,Byron\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{PEOPLE}: column\(s\) \['Gender', .* are missing"):
        presidio_fillers(folder)
    (folder / COMPANIES).write_text("organization\n", encoding="utf-8")
    shutil.copy(fetch("presidio-templates") / PEOPLE, folder / PEOPLE)
    with pytest.raises(ValueError, match=f"{COMPANIES}: no record"):
        presidio_fillers(folder)
    (folder / TEMPLATES).write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no template"):
        presidio_templates(folder)
    (folder / TEMPLATES).unlink()
    with pytest.raises(ValueError, match=f"{TEMPLATES} is missing"):
        presidio_templates(folder)
