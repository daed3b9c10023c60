"""Label maps: exact, total, the same in training and evaluation; the reference's substring rules beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard_utils.data.labels import (
    PII_65K,
    PII_200K,
    LabelMap,
    LabelRule,
    UnknownLabelError,
    bio_label,
    reference_codes_evaluation,
    reference_codes_training,
)

BOTH = """
    ACCOUNTNAME ACCOUNTNUMBER AMOUNT BIC BITCOINADDRESS BUILDINGNUMBER CITY COUNTY CREDITCARDCVV CREDITCARDISSUER
    CREDITCARDNUMBER CURRENCY CURRENCYCODE CURRENCYNAME CURRENCYSYMBOL DATE EMAIL ETHEREUMADDRESS FIRSTNAME GENDER IBAN
    IP IPV4 IPV6 JOBAREA JOBTITLE JOBTYPE LASTNAME LITECOINADDRESS MAC MASKEDNUMBER MIDDLENAME NEARBYGPSCOORDINATE
    ORDINALDIRECTION PASSWORD PHONEIMEI PIN PREFIX SECONDARYADDRESS SEX SSN STATE STREET TIME URL USERAGENT USERNAME
    VEHICLEVIN VEHICLEVRM ZIPCODE
"""
ONLY_65K = "COMPANY_NAME DISPLAYNAME FULLNAME JOBDESCRIPTOR NAME NUMBER PHONE_NUMBER SEXTYPE STREETADDRESS SUFFIX"
ONLY_200K = "AGE COMPANYNAME DOB EYECOLOR HEIGHT PHONENUMBER"
VIOLATIONS = {
    "S1": {"NAME", "FULLNAME", "FIRSTNAME", "MIDDLENAME", "LASTNAME"},
    "S2": {"IP", "IPV4", "IPV6"},
    "S3": {"PHONE_NUMBER", "PHONENUMBER"},
    "S4": {"STREET", "STREETADDRESS", "BUILDINGNUMBER", "SECONDARYADDRESS", "CITY", "COUNTY", "ZIPCODE"},
    "S5": {"CREDITCARDNUMBER", "CREDITCARDCVV"},
}


@pytest.mark.parametrize(("label_map", "own"), [(PII_65K, ONLY_65K), (PII_200K, ONLY_200K)])
def test_map_decides_the_vocabulary_and_nothing_else(label_map: LabelMap, own: str) -> None:
    assert sorted(label_map.by_label) == sorted((BOTH + own).split())
    for label, rule in label_map.by_label.items():
        expected = {code for code, labels in VIOLATIONS.items() if label in labels}
        assert set(label_map.codes([label])) == expected, label
        assert rule.reason
        assert "\n" not in rule.reason


def test_codes_are_ascending_unique_and_blind_to_order() -> None:
    assert PII_200K.codes(["ZIPCODE", "CITY", "PREFIX", "FIRSTNAME", "FIRSTNAME"]) == ("S1", "S4")
    assert PII_200K.codes([]) == ()
    many = LabelMap("many", tuple(LabelRule(f"L{n}", f"S{n}", "a reason") for n in (10, 2)))
    assert many.codes(["L10", "L2"]) == ("S2", "S10")


@pytest.mark.parametrize("label", ["firstname", " FIRSTNAME", "B-FIRSTNAME", "NAMES", ""])
def test_labels_match_as_whole_words_only(label: str) -> None:
    with pytest.raises(UnknownLabelError):
        PII_200K.codes([label])


def test_unknown_labels_are_all_listed_with_counts() -> None:
    with pytest.raises(UnknownLabelError, match=r"(?s)'GIVENNAME': 2 times.*'TEL': 1 times.*extended") as caught:
        PII_200K.codes(["TEL", "CITY", "GIVENNAME", "GIVENNAME"])
    assert caught.value.counts == {"TEL": 1, "GIVENNAME": 2}


def test_a_map_can_be_extended_but_not_contradicted() -> None:
    more = PII_200K.extended([LabelRule("TEL", "S3", "a number to call")], name="mine")
    assert more.name == "mine"
    assert more.codes(["TEL", "CITY"]) == ("S3", "S4")
    with pytest.raises(ValueError, match=r"\['CITY'\] more than once"):
        PII_200K.extended([LabelRule("CITY", None, "no")])


def test_a_csv_file_becomes_a_map(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('label,code,reason\nTEL,S3,"a number, to call"\nORDER,,no person\n', encoding="utf-8-sig")
    found = LabelMap.from_csv(path, name="mine")
    assert found == LabelMap(
        "mine", (LabelRule("TEL", "S3", "a number, to call"), LabelRule("ORDER", None, "no person"))
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("label;code;reason", r"line 1: the header is \['label;code;reason'\]; write label,code,reason"),
        ("label,code,reason\nTEL, S3,call", "line 2: code ' S3' of TEL is not S1 ... S99; leave it empty for safe"),
        ("label,code,reason\nTEL,S3,a number, to call", r"line 2: .*'a number', .* quote a reason"),
        ("label,code,reason\n,S3,call", r"line 2: \['', 'S3', 'call'\]"),
        ("label,code,reason\nTEL,S3,call\nTEL,,no", "line 3: label 'TEL' is decided a second time; keep one line"),
    ],
)
def test_a_faulty_csv_file_is_refused_by_line(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"mine.csv, {fault}"):
        LabelMap.from_csv(path, name="mine")


def test_table_shows_every_decision() -> None:
    table = PII_65K.table()
    assert list(table.columns) == ["label", "code", "reason"]
    assert len(table) == len(PII_65K.rules)
    assert table.set_index("label").code["STATE"] == "safe"
    assert table.code.iloc[0] == "S1"


def test_bio_prefixes() -> None:
    assert [bio_label(tag) for tag in ("O", "B-IP", "I-COMPANY_NAME")] == [None, "IP", "COMPANY_NAME"]
    for tag in ("", "IP", "B-", "X-IP", "o"):
        with pytest.raises(ValueError, match="token tag"):
            bio_label(tag)


def test_reference_rules_are_kept_with_their_faults() -> None:
    assert reference_codes_evaluation(["B-ZIPCODE"]) == ("S2", "S4")  # "IP" is in "ZIPCODE"
    assert reference_codes_training(["B-ZIPCODE"]) == ("S4",)
    assert reference_codes_evaluation(["PHONENUMBER"]) == ()  # the key is "PHONE_NUMBER"
    assert reference_codes_training(["PHONE_NUMBER"]) == ("S3",)
    assert reference_codes_training(["CITY"]) == ()
    assert reference_codes_evaluation(["CITY"]) == ("S4",)
    for label in ("USERNAME", "ACCOUNTNAME", "COMPANYNAME", "CURRENCYNAME"):
        assert reference_codes_training([label]) == ("S1",)
    assert reference_codes_training(["CREDITCARDCVV", "IPV6", "I-STREETADDRESS", "O"]) == ("S2", "S4", "S5")
    assert reference_codes_evaluation([]) == ()
