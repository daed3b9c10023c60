"""The independent benchmark's filling, on templates and assets made here."""

from __future__ import annotations

import csv
import random
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

from guard_utils.data.examples import to_examples
from guard_utils.data.labels import PII_200K
from tools.corpus.independent import (
    COMPANIES,
    NATIONALITIES,
    PEOPLE,
    PERSON_FIELDS,
    TEMPLATES,
    fill,
    presidio_fillers,
    presidio_templates,
)

STREETS = ("Rosenweg 12", "44b Mill Lane", "P.O. Box 77")


@pytest.fixture
def asset_dir(tmp_path: Path) -> Path:
    people = [
        dict(zip(PERSON_FIELDS, values, strict=True))
        for values in (
            ("female", "Zoë", "Brandl", "Mrs.", "555-0101", "31", "Baker", STREETS[0], "Graz", "8010", "Austria"),
            ("male", "Tom", "O'Hara", "Mr.", "(555) 0102", "48", "Pilot", STREETS[1], "Leeds", "LS1 4AB", "England"),
            ("male", "Ivo", "Horak", "Dr.", "555 0103", "52", "Judge", STREETS[2], "Brno", "602 00", "Czechia"),
        )
    ]
    write_csv(tmp_path / PEOPLE, people)
    (tmp_path / COMPANIES).write_text("organization\nAcme Ltd\nSmith, Wesson and Sons\n\n", encoding="utf-8")
    nations = [
        {"country": "chile", "nationality": "chilean", "man": "chilean", "woman": "chilean", "plural": "chileans"}
    ]
    write_csv(tmp_path / NATIONALITIES, nations)
    lines = ["Hi {{ Name }}!", "Between {street_name} and\\n{{street_name}}\\, please.", "", "Nothing to fill."]
    (tmp_path / TEMPLATES).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def write_csv(path: Path, records: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def rebuilt(row: dict[str, Any]) -> str:
    """Masks a row's text by its spans."""
    text = row["source_text"]
    for mask in sorted(row["privacy_mask"], key=lambda mask: -mask["start"]):
        assert text[mask["start"] : mask["end"]] == mask["value"] != ""
        text = text[: mask["start"]] + f"[{mask['label']}]" + text[mask["end"] :]
    return text


def test_templates_are_brought_to_one_form(asset_dir: Path) -> None:
    assert presidio_templates(asset_dir) == [
        "Hi {{name}}!",
        "Between {{street_name}} and\n{{street_name}}, please.",
        "Nothing to fill.",
    ]


SLOTS = {
    "person name name_female name_male": {"FIRSTNAME", "LASTNAME"},
    "first_name first_name_female first_name_male first_name_nonbinary": {"FIRSTNAME"},
    "last_name last_name_female last_name_male": {"LASTNAME"},
    "prefix prefix_female prefix_male": {"PREFIX"},
    "city": {"CITY"},
    "zipcode postcode": {"ZIPCODE"},
    "street_name": {"STREET"},
    "building_number": {"BUILDINGNUMBER"},
    "secondary_address": {"SECONDARYADDRESS"},
    "address": {"STREET", "BUILDINGNUMBER", "CITY", "ZIPCODE"},
    "phone_number": {"PHONENUMBER"},
    "ip_address": {"IPV4", "IPV6"},
    "credit_card_number": {"CREDITCARDNUMBER"},
    "organization": {"COMPANYNAME"},
    "country nationality nation_man nation_woman nation_plural day_of_week us_driver_license": set(),
    "state state_abbr": {"STATE"},
    "date_time year": {"DATE"},
    "date_of_birth": {"DOB"},
    "age": {"AGE"},
    "job": {"JOBTITLE"},
    "email": {"EMAIL"},
    "url": {"URL"},
    "iban": {"IBAN"},
    "ssn": {"SSN"},
}


def test_every_slot_has_its_labels_and_exact_offsets(asset_dir: Path) -> None:
    fillers = presidio_fillers(asset_dir)
    assert set(fillers) == {slot for slots in SLOTS for slot in slots.split()}
    for slots, labels in SLOTS.items():
        for slot in slots.split():
            rows = fill([f"A {{{{{slot}}}}}, b\n{{{{{slot}}}}}"], fillers, n=40, seed=3)
            assert {mask["label"] for row in rows for mask in row["privacy_mask"]} == labels, slot
            for row in rows:
                assert rebuilt(row) == row["target_text"]
                assert "{" not in row["source_text"]
                assert row["source_text"].startswith("A ")


def test_no_slot_asks_for_the_date(asset_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoClock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> NoReturn:
            raise AssertionError("a filler asked Faker for the time: the same seed would give other rows tomorrow")

        today = now

    monkeypatch.setattr("faker.providers.date_time.datetime", NoClock)
    for filler in presidio_fillers(asset_dir).values():
        assert filler(random.Random(1)) == filler(random.Random(1))


def test_values_come_from_the_assets(asset_dir: Path) -> None:
    fillers = presidio_fillers(asset_dir)

    def values(slot: str) -> set[str]:
        return {"".join(text for text, _ in fillers[slot](random.Random(n))) for n in range(60)}

    assert values("name_male") == {"Tom O'Hara", "Ivo Horak"}
    assert values("name_female") == {"Zoë Brandl"}
    assert values("street_name") == {"Rosenweg", "Mill Lane"}  # a box is no street
    assert values("building_number") == {"12", "44b"}
    assert values("organization") == {"Acme Ltd"}  # the record with unquoted commas is broken
    assert values("nation_plural") == {"Chileans"}
    assert {"Rosenweg 12, Graz", "44b Mill Lane, LS1 4AB Leeds", "P.O. Box 77\nBrno 602 00\nCzechia"} <= values(
        "address"
    )


def test_rows_have_the_200k_schema(asset_dir: Path) -> None:
    rows = fill(presidio_templates(asset_dir), presidio_fillers(asset_dir), n=3, seed=1)
    examples = to_examples(rows, PII_200K)
    assert [e.codes for e in examples] == [("S1",), ("S4",), ()]
    assert [e.id for e in examples] == ["independent-000-000", "independent-001-000", "independent-002-000"]
    assert examples[1].template_id == "independent-001"
    assert {(e.language, e.situation) for e in examples} == {("en", "independent")}
    assert {row["split"] for row in rows} == {"test"}


def test_rows_are_spread_evenly_and_depend_on_the_seed_alone(asset_dir: Path) -> None:
    templates = presidio_templates(asset_dir)
    rows = fill(templates, presidio_fillers(asset_dir), n=100, seed=1)
    assert sorted(Counter(row["template_id"] for row in rows).values()) == [33, 33, 34]
    assert len({row["id"] for row in rows}) == 100
    random.seed(0)
    state = random.getstate()
    assert fill(templates, presidio_fillers(asset_dir), n=50, seed=1) == rows[:50]
    assert random.getstate() == state
    phones = ["{{credit_card_number}} {{ip_address}} {{email}}"]
    first, again, other = (fill(phones, presidio_fillers(asset_dir), n=5, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_unknown_slots_are_all_listed(asset_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"no filler for slot\(s\) \['planet', 'star'\]"):
        fill(["{{star}} {{name}}", "{planet}"], presidio_fillers(asset_dir), seed=1)
    for templates, n in (([], 5), (["x"], 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            fill(templates, {}, n=n, seed=1)


def test_incomplete_assets_are_named(asset_dir: Path) -> None:
    (asset_dir / PEOPLE).write_text("GivenName,Surname\nAda,Byron\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{PEOPLE}: column\(s\) \['Gender', .* are missing"):
        presidio_fillers(asset_dir)
    (asset_dir / COMPANIES).write_text("organization\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{COMPANIES}: no record"):
        presidio_fillers(asset_dir)
    (asset_dir / TEMPLATES).write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no template"):
        presidio_templates(asset_dir)
    (asset_dir / TEMPLATES).unlink()
    with pytest.raises(ValueError, match=f"{TEMPLATES} is missing"):
        presidio_templates(asset_dir)
