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

from tools.corpus.compose import labelled
from tools.corpus.values import Piece

Filler = Callable[[random.Random], list[Piece]]
"""Draws the pieces of one slot from a private generator."""

PEOPLE = "FakeNameGenerator.com_3000.csv"
COMPANIES = "companies_and_organizations.csv"
NATIONALITIES = "nationalities.csv"
PERSON_FIELDS = (
    *("Gender", "GivenName", "Surname", "Title", "TelephoneNumber", "Age", "Occupation"),
    *("StreetAddress", "City", "ZipCode", "CountryFull"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# One template of the source has its slots in single braces.
_SLOT = re.compile(r"\{\{?\s*(\w+)\s*\}\}?")


def presidio_templates(asset_dir: Path) -> list[str]:
    r"""Reads the templates of the `presidio-templates` asset, one a line; the number of a template is its position.

    The escapes `\n` and `\,` are brought to what they mean.
    """
    lines = (asset_dir / "templates.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip().replace("\\n", "\n").replace("\\,", ",") for line in lines if line.strip()]


def _records(asset_dir: Path, name: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """Reads a CSV's records in which every one of the fields has a value."""
    with (asset_dir / name).open(encoding="utf-8-sig", newline="") as file:
        # Unquoted commas in a few company names leave a rest under None: those records are broken.
        whole = [record for record in csv.DictReader(file) if None not in record]
    records = [{field: (record[field] or "").strip() for field in fields} for record in whole]
    return [record for record in records if all(record.values())]


def _street(line: str) -> list[Piece]:
    """Splits a street line into street and house number, whichever comes first."""
    before = re.fullmatch(r"(\d+\w*)( )(.+)", line)
    after = re.fullmatch(r"(.+?)( )(\d+\w*)", line)
    if before:
        return [Piece(before[1], "BUILDINGNUMBER"), Piece(" "), Piece(before[3], "STREET")]
    if after and not re.search(r"\bbox\b", line, re.IGNORECASE):
        return [Piece(after[1], "STREET"), Piece(" "), Piece(after[3], "BUILDINGNUMBER")]
    return [Piece(line, "STREET")]


def _address(person: Mapping[str, str], form: int) -> list[Piece]:
    """Writes a person's address in one of four common forms."""
    city, code = Piece(person["City"], "CITY"), Piece(person["ZipCode"], "ZIPCODE")
    tails = [
        [Piece(", "), city],
        [Piece(", "), city, Piece(" "), code],
        [Piece(", "), code, Piece(" "), city],
        [Piece("\n"), city, Piece(" "), code, Piece("\n"), Piece(person["CountryFull"])],
    ]
    return _street(person["StreetAddress"]) + tails[form]


def _person_fillers(asset_dir: Path) -> dict[str, Filler]:
    """Slots filled from the invented people of the asset."""
    people = _records(asset_dir, PEOPLE, PERSON_FIELDS)
    by_gender = {g: [p for p in people if p["Gender"] == g] or people for g in ("female", "male")} | {"": people}
    streets = [pieces for p in people if len(pieces := _street(p["StreetAddress"])) == 3]

    def field(name: str, label: str | None, gender: str = "") -> Filler:
        return lambda rng: [Piece(rng.choice(by_gender[gender])[name], label)]

    def full_name(gender: str = "") -> Filler:
        def fill(rng: random.Random) -> list[Piece]:
            person = rng.choice(by_gender[gender])
            return [Piece(person["GivenName"], "FIRSTNAME"), Piece(" "), Piece(person["Surname"], "LASTNAME")]

        return fill

    def street_part(label: str) -> Filler:
        return lambda rng: [piece for piece in rng.choice(streets) if piece.label == label]

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
    """
    fake = Factory.create("en_US")
    companies = _records(asset_dir, COMPANIES, ["organization"])
    nations = _records(asset_dir, NATIONALITIES, ["nationality", "man", "woman", "plural"])

    def faked(method: str, label: str | None, **arguments: Any) -> Filler:
        def fill(rng: random.Random) -> list[Piece]:
            fake.random = rng
            return [Piece(str(getattr(fake, method)(**arguments)), label)]

        return fill

    def nation(column: str) -> Filler:
        return lambda rng: [Piece(rng.choice(nations)[column].title())]

    def date(rng: random.Random) -> str:
        year, month, day = rng.randint(1950, 2024), rng.randint(1, 12), rng.randint(1, 28)
        return rng.choice((f"{year}-{month:02}-{day:02}", f"{month}/{day}/{year}", f"{day:02}.{month:02}.{year}"))

    ipv4, ipv6 = faked("ipv4", "IPV4"), faked("ipv6", "IPV6")
    return _person_fillers(asset_dir) | {
        "organization": lambda rng: [Piece(rng.choice(companies)["organization"], "COMPANYNAME")],
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
        "day_of_week": lambda rng: [Piece(rng.choice(WEEKDAYS))],
        "year": lambda rng: [Piece(str(rng.randint(1950, 2024)), "DATE")],
        "date_of_birth": lambda rng: [Piece(date(rng), "DOB")],
        "date_time": lambda rng: [Piece(date(rng), "DATE")],
    }


def fill(templates: Sequence[str], fillers: Mapping[str, Filler], *, n: int = 1500, seed: int) -> list[dict[str, Any]]:
    """Fills templates in turn until there are `n` rows, so that their counts differ by at most one.

    A row depends on the seed, its template's number and its turn only: a larger `n` begins with the same rows.

    Args:
        templates: With slots `{{slot}}`.
        fillers: Slot to filler.
        n: Rows.
        seed: Another seed draws other values.

    Returns:
        Rows of the 200k schema: language "en", situation "independent", split "test"; `template_id` is the
        template's number.
    """
    rows = []
    for position in range(n):
        turn, number = divmod(position, len(templates))
        rng, pieces = random.Random(f"{seed}:{number}:{turn}"), list[Piece]()
        for place, part in enumerate(_SLOT.split(templates[number])):
            pieces += fillers[part.lower()](rng) if place % 2 else [Piece(part)]
        row = labelled(pieces)
        row |= {"language": "en", "id": f"independent-{number:03}-{turn:03}", "template_id": f"independent-{number:03}"}
        rows.append(row | {"situation": "independent", "clause_ids": [], "split": "test"})
    return rows
