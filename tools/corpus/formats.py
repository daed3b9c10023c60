"""Formats of machine-made and filled-in texts: forms, key=value, JSON, XML, CSV, log lines, Markdown tables.

Each takes fields (a name and the labelled pieces of a value) and sets them as pieces of text, so that offsets survive.
"""

import json
import random
import re
from collections.abc import Callable, Sequence

from tools.corpus.values import Piece

Fields = Sequence[tuple[str, list[Piece]]]
Format = Callable[[Fields, random.Random], list[Piece]]


def _machine_key(key: str, rng: random.Random) -> str:
    words = re.findall(r"\w+", key.lower())
    return rng.choice(
        ("_".join(words), "_".join(words), "-".join(words), words[0] + "".join(w.title() for w in words[1:]))
    )


def _wrap(
    fields: Fields, rng: random.Random, *, form: str, joint: str, ends: tuple[str, str] = ("", ""), machine: bool
) -> list[Piece]:
    pieces = [Piece(ends[0])]
    for number, (key, value) in enumerate(fields):
        name = _machine_key(key, rng) if machine else key
        before, after = form.replace("KEY", name).split("VALUE")
        pieces += [Piece((joint if number else "") + before), *value, Piece(after)]
    return [*pieces, Piece(ends[1])]


def _json(fields: Fields, rng: random.Random) -> list[Piece]:
    escaped = [
        (key, [Piece(json.dumps(p.text, ensure_ascii=False)[1:-1], p.label) for p in value]) for key, value in fields
    ]
    if rng.random() < 0.5:
        return _wrap(escaped, rng, form='"KEY": "VALUE"', joint=", ", ends=("{", "}"), machine=True)
    return _wrap(escaped, rng, form='  "KEY": "VALUE"', joint=",\n", ends=("{\n", "\n}"), machine=True)


def _xml(fields: Fields, rng: random.Random) -> list[Piece]:
    root = rng.choice(("record", "entry", "customer", "row", "event", "item"))
    joint = rng.choice(("", "\n"))
    return _wrap(
        fields, rng, form="<KEY>VALUE</KEY>", joint=joint, ends=(f"<{root}>{joint}", f"{joint}</{root}>"), machine=True
    )


def _form(fields: Fields, rng: random.Random) -> list[Piece]:
    form, joint = rng.choice(
        (
            ("KEY: VALUE", "\n"),
            ("KEY: VALUE", ", "),
            ("KEY - VALUE", "\n"),
            ("- KEY: VALUE", "\n"),
            ("**KEY:** VALUE", "\n"),
            ("KEY VALUE", "; "),
        )
    )
    return _wrap(fields, rng, form=form, joint=joint, machine=False)


def _key_value(fields: Fields, rng: random.Random) -> list[Piece]:
    form, joint = rng.choice(
        (("KEY=VALUE", " "), ("KEY=VALUE", "&"), ('KEY="VALUE"', " "), ("KEY: VALUE", "\n"), ("KEY=VALUE", "; "))
    )
    return _wrap(fields, rng, form=form, joint=joint, machine=True)


def _log(fields: Fields, rng: random.Random) -> list[Piece]:
    day = f"20{rng.randint(10, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    stamp = f"{day} {rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
    level = rng.choice(("INFO", "WARN", "ERROR", "DEBUG", "audit", "[notice]"))
    return _wrap(fields, rng, form="KEY=VALUE", joint=" ", ends=(f"{stamp} {level} ", ""), machine=True)


def _self_evident(value: Sequence[Piece]) -> bool:
    """Whether a reader can tell what a value is without its key, and that a look-alike is none."""
    text = "".join(piece.text for piece in value)
    labels = {piece.label for piece in value}
    if labels & {"IPV4", "IPV6"}:
        return True
    if labels & {"FIRSTNAME", "LASTNAME"}:
        return labels >= {"FIRSTNAME", "LASTNAME"}
    if "CREDITCARDNUMBER" in labels:
        return bool(re.fullmatch(r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}", text))
    if "PHONENUMBER" in labels:
        return bool(re.match(r"\+\d+[ (-]|\(\d", text))
    if labels & {"STREET", "CITY", "COUNTY", "ZIPCODE", "SECONDARYADDRESS"}:
        return len(labels - {None}) > 1
    # A stretch of digits, dots and dashes could be anything, a word of its own a name or a place.
    mixed = re.search(r"\d", text) and re.search(r"[^\d .,-]", text)
    return labels <= {None, "DATE", "TIME", "AMOUNT", "EMAIL", "URL", "MAC"} and bool(mixed or "@" in text)


def _values_only(fields: Fields, rng: random.Random) -> list[Piece]:
    joint = rng.choice((",", ", ", ";", "\t", " | ", "\n", " "))
    if all(_self_evident(value) for _, value in fields):
        return _wrap(fields, rng, form="VALUE", joint=joint, machine=False)
    joint = "," if joint in ("\n", " ") else joint
    header = joint.join(_machine_key(key, rng) for key, _ in fields) + "\n"
    return _wrap(fields, rng, form="VALUE", joint=joint, ends=(header, ""), machine=False)


def _markdown(fields: Fields, rng: random.Random) -> list[Piece]:
    head = "| " + " | ".join(key for key, _ in fields) + " |\n|" + "---|" * len(fields) + "\n| "
    return _wrap(fields, rng, form="VALUE", joint=" | ", ends=(head, " |"), machine=False)


FORMATS: tuple[Format, ...] = (_json, _xml, _form, _form, _key_value, _log, _values_only, _markdown)
