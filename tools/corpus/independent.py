"""The independent benchmark: sentence templates that nobody here wrote, filled with values of our choosing.

Templates, names, addresses and companies come of the wheel `presidio-evaluator` (MIT), which `guard_utils.files`
downloads as `presidio-templates`; none of its text stands in this repository. Rows have the 200k schema with exact
offsets. Nothing is trained or tuned on them.

Slots with a label in 200k get a span: persons FIRSTNAME and LASTNAME, addresses BUILDINGNUMBER, STREET, CITY and so
on. Country, nationality, weekday and driving licence have none there; they are filled without a span, as 200k leaves
them unlabelled.
"""

import csv
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from faker import Factory

Piece = tuple[str, str | None]
"""A stretch of text and its 200k label; None for none."""
Filler = Callable[[random.Random], list[Piece]]
"""Draws the text for one slot from a private generator."""

TEMPLATES = "templates.txt"
PEOPLE = "FakeNameGenerator.com_3000.csv"
COMPANIES = "companies_and_organizations.csv"
NATIONALITIES = "nationalities.csv"
PERSON_FIELDS = (
    *("Gender", "GivenName", "Surname", "Title", "TelephoneNumber", "Age", "Occupation"),
    *("StreetAddress", "City", "ZipCode", "CountryFull"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# One template of the source has its slots in single braces.
_SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}|\{(\w+)\}")


def presidio_templates(asset_dir: Path) -> list[str]:
    r"""Reads the templates, one a line; the number of a template is its position.

    Slots are brought to one form, `{{slot}}` in lower case, and the escapes `\n` and `\,` to what they mean.

    Args:
        asset_dir: Folder of the `presidio-templates` asset.

    Raises:
        ValueError: The file is missing or holds no template.
    """
    lines = _asset(asset_dir, TEMPLATES).read_text(encoding="utf-8").splitlines()
    templates = [line.strip().replace("\\n", "\n").replace("\\,", ",") for line in lines if line.strip()]
    if not templates:
        raise ValueError(f"{asset_dir / TEMPLATES} holds no template; fetch the asset 'presidio-templates' again")
    return [_SLOT.sub(lambda slot: "{{" + (slot[1] or slot[2]).lower() + "}}", template) for template in templates]


def _asset(asset_dir: Path, name: str) -> Path:
    path = Path(asset_dir) / name
    if not path.is_file():
        raise ValueError(f"{path} is missing; run python -m guard_utils fetch presidio-templates")
    return path


def _records(asset_dir: Path, name: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """Reads a CSV's records in which every one of the fields has a value.

    Raises:
        ValueError: The file is missing, lacks a field or has no such record.
    """
    path = _asset(asset_dir, name)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        absent = [field for field in fields if field not in (reader.fieldnames or [])]
        if absent:
            raise ValueError(f"{path}: column(s) {absent} are missing; fetch the asset 'presidio-templates' again")
        # Unquoted commas in a few company names leave a rest under None: those records are broken.
        records = [r for r in reader if None not in r and all((r[field] or "").strip() for field in fields)]
    if not records:
        raise ValueError(f"{path}: no record with {list(fields)}; fetch the asset 'presidio-templates' again")
    return [{field: record[field].strip() for field in fields} for record in records]


def _street(line: str) -> list[Piece]:
    """Splits a street line into street and house number, whichever comes first."""
    before = re.fullmatch(r"(\d+\w*)( )(.+)", line)
    after = re.fullmatch(r"(.+?)( )(\d+\w*)", line)
    if before:
        return [(before[1], "BUILDINGNUMBER"), (" ", None), (before[3], "STREET")]
    if after and not re.search(r"\bbox\b", line, re.IGNORECASE):
        return [(after[1], "STREET"), (" ", None), (after[3], "BUILDINGNUMBER")]
    return [(line, "STREET")]


def _address(person: Mapping[str, str], form: int) -> list[Piece]:
    """Writes a person's address in one of four common forms."""
    street, city, code = _street(person["StreetAddress"]), (person["City"], "CITY"), (person["ZipCode"], "ZIPCODE")
    tails: list[list[Piece]] = [
        [(", ", None), city],
        [(", ", None), city, (" ", None), code],
        [(", ", None), code, (" ", None), city],
        [("\n", None), city, (" ", None), code, ("\n", None), (person["CountryFull"], None)],
    ]
    return street + tails[form]


def _person_fillers(asset_dir: Path) -> dict[str, Filler]:
    """Slots filled from the invented people of the asset."""
    people = _records(asset_dir, PEOPLE, PERSON_FIELDS)
    by_gender = {g: [p for p in people if p["Gender"] == g] or people for g in ("female", "male")} | {"": people}
    streets = [pieces for p in people if len(pieces := _street(p["StreetAddress"])) == 3]

    def field(name: str, label: str | None, gender: str = "") -> Filler:
        return lambda rng: [(rng.choice(by_gender[gender])[name], label)]

    def full_name(gender: str = "") -> Filler:
        def fill(rng: random.Random) -> list[Piece]:
            person = rng.choice(by_gender[gender])
            return [(person["GivenName"], "FIRSTNAME"), (" ", None), (person["Surname"], "LASTNAME")]

        return fill

    def street_part(label: str) -> Filler:
        return lambda rng: [piece for piece in rng.choice(streets) if piece[1] == label]

    fillers: dict[str, Filler] = {
        "person": full_name(),
        "name": full_name(),
        "first_name_nonbinary": field("GivenName", "FIRSTNAME"),
        "first_name": field("GivenName", "FIRSTNAME"),
        "last_name": field("Surname", "LASTNAME"),
        "prefix": field("Title", "PREFIX"),
        "phone_number": field("TelephoneNumber", "PHONENUMBER"),
        "city": field("City", "CITY"),
        "zipcode": field("ZipCode", "ZIPCODE"),
        "postcode": field("ZipCode", "ZIPCODE"),
        "country": field("CountryFull", None),
        "age": field("Age", "AGE"),
        "job": field("Occupation", "JOBTITLE"),
        "street_name": street_part("STREET"),
        "building_number": street_part("BUILDINGNUMBER"),
        "address": lambda rng: _address(rng.choice(people), rng.randrange(4)),
    }
    for gender in ("female", "male"):
        fillers |= {
            f"name_{gender}": full_name(gender),
            f"first_name_{gender}": field("GivenName", "FIRSTNAME", gender),
            f"last_name_{gender}": field("Surname", "LASTNAME", gender),
            f"prefix_{gender}": field("Title", "PREFIX", gender),
        }
    return fillers


def presidio_fillers(asset_dir: Path) -> dict[str, Filler]:
    """Fillers for every slot of the templates: from the asset's own files where they hold the kind, else from Faker.

    The asset's card numbers were rounded by a spreadsheet, so cards come from Faker. Nothing depends on today's date.

    Args:
        asset_dir: Folder of the `presidio-templates` asset.

    Raises:
        ValueError: A file is missing or incomplete.
    """
    fake = Factory.create("en_US")
    companies = _records(asset_dir, COMPANIES, ["organization"])
    nations = _records(asset_dir, NATIONALITIES, ["nationality", "man", "woman", "plural"])

    def faked(method: str, label: str | None, **arguments: Any) -> Filler:
        def fill(rng: random.Random) -> list[Piece]:
            fake.random = rng
            return [(str(getattr(fake, method)(**arguments)), label)]

        return fill

    def nation(column: str) -> Filler:
        return lambda rng: [(rng.choice(nations)[column].title(), None)]

    def date(rng: random.Random) -> str:
        year, month, day = rng.randint(1950, 2024), rng.randint(1, 12), rng.randint(1, 28)
        return rng.choice((f"{year}-{month:02}-{day:02}", f"{month}/{day}/{year}", f"{day:02}.{month:02}.{year}"))

    ipv4, ipv6 = faked("ipv4", "IPV4"), faked("ipv6", "IPV6")
    return _person_fillers(asset_dir) | {
        "organization": lambda rng: [(rng.choice(companies)["organization"], "COMPANYNAME")],
        "nationality": nation("nationality"),
        "nation_man": nation("man"),
        "nation_woman": nation("woman"),
        "nation_plural": nation("plural"),
        "ip_address": lambda rng: (ipv4 if rng.random() < 0.7 else ipv6)(rng),
        "credit_card_number": faked("credit_card_number", "CREDITCARDNUMBER"),
        "secondary_address": faked("secondary_address", "SECONDARYADDRESS"),
        "state": faked("state", "STATE"),
        "state_abbr": faked("state_abbr", "STATE"),
        "email": faked("email", "EMAIL"),
        "url": faked("url", "URL"),
        "iban": faked("iban", "IBAN"),
        "ssn": faked("ssn", "SSN"),
        "us_driver_license": faked("bothify", None, text="?#######"),
        # Faker's own filler draws a moment between 1970 and today, so that its answers change with the date.
        "day_of_week": lambda rng: [(rng.choice(WEEKDAYS), None)],
        "year": lambda rng: [(str(rng.randint(1950, 2024)), "DATE")],
        "date_of_birth": lambda rng: [(date(rng), "DOB")],
        "date_time": lambda rng: [(date(rng), "DATE")],
    }


def _fill_one(template: str, fillers: Mapping[str, Filler], rng: random.Random) -> dict[str, Any]:
    """Fills one template; returns the text, the masked text and the spans."""
    text, masked, spans, done = "", "", [], 0
    for slot in _SLOT.finditer(template):
        literal = template[done : slot.start()]
        text, masked, done = text + literal, masked + literal, slot.end()
        for value, label in fillers[slot[1] or slot[2]](rng):
            if label is not None:
                spans.append({"value": value, "start": len(text), "end": len(text) + len(value), "label": label})
            text, masked = text + value, masked + (value if label is None else f"[{label}]")
    return {"source_text": text + template[done:], "target_text": masked + template[done:], "privacy_mask": spans}


def fill(templates: Sequence[str], fillers: Mapping[str, Filler], *, n: int = 1500, seed: int) -> list[dict[str, Any]]:
    """Fills templates in turn until there are `n` rows, so that their counts differ by at most one.

    A row depends on the seed, its template's number and its turn only: a larger `n` begins with the same rows.

    Args:
        templates: With slots `{{slot}}`.
        fillers: Slot to filler.
        n: Number of rows.
        seed: Another seed draws other values.

    Returns:
        Rows of the 200k schema: language "en", situation "independent", split "test"; `template_id` is the
        template's number.

    Raises:
        ValueError: No template, `n` below 1, or slots without a filler (all are listed).
    """
    if not templates or n < 1:
        raise ValueError(f"{len(templates)} templates and n={n}: both must be at least 1")
    slots = {match[1] or match[2] for template in templates for match in _SLOT.finditer(template)}
    if unknown := sorted(slots - set(fillers)):
        raise ValueError(f"no filler for slot(s) {unknown}; add one each to the fillers, known: {sorted(fillers)}")
    rows = []
    for position in range(n):
        turn, number = divmod(position, len(templates))
        row = _fill_one(templates[number], fillers, random.Random(f"{seed}:{number}:{turn}"))
        row |= {"language": "en", "id": f"independent-{number:03}-{turn:03}", "template_id": f"independent-{number:03}"}
        rows.append(row | {"situation": "independent", "clause_ids": [], "split": "test"})
    return rows
