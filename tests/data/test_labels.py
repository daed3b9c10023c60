"""Label maps: exact, total, the same in training and evaluation; the reference's substring rules beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guard_utils.data import PII_65K, PII_200K, LabelMap, LabelRule, UnknownLabelError
from guard_utils.data.labels import reference_codes_evaluation, reference_codes_training

VIOLATIONS = {
    "S1": {"NAME", "FULLNAME", "FIRSTNAME", "MIDDLENAME", "LASTNAME"},
    "S2": {"IP", "IPV4", "IPV6"},
    "S3": {"PHONE_NUMBER", "PHONENUMBER"},
    "S4": {"STREET", "STREETADDRESS", "BUILDINGNUMBER", "SECONDARYADDRESS", "CITY", "COUNTY", "ZIPCODE"},
    "S5": {"CREDITCARDNUMBER", "CREDITCARDCVV"},
}


@pytest.mark.parametrize(("label_map", "size"), [(PII_65K, 60), (PII_200K, 56)])
def test_map_decides_each_label_with_a_reason(label_map: LabelMap, size: int) -> None:
    assert len(label_map.by_label) == size
    for label, rule in label_map.by_label.items():
        expected = {code for code, labels in VIOLATIONS.items() if label in labels}
        assert set(label_map.codes([label])) == expected, label
        assert rule.reason and "\n" not in rule.reason


def test_codes_are_ascending_unique_and_blind_to_order() -> None:
    assert PII_200K.codes(["ZIPCODE", "CITY", "PREFIX", "FIRSTNAME", "FIRSTNAME"]) == ("S1", "S4")
    assert PII_200K.codes([]) == ()
    many = LabelMap("many", tuple(LabelRule(f"L{n}", f"S{n}", "a reason") for n in (10, 2)))
    assert many.codes(["L10", "L2"]) == ("S2", "S10")


@pytest.mark.parametrize("label", ["firstname", " FIRSTNAME", "B-FIRSTNAME", "NAMES", ""])
def test_labels_match_as_whole_words_only(label: str) -> None:
    with pytest.raises(UnknownLabelError):
        PII_200K.codes([label])


def test_a_map_can_be_extended_but_not_contradicted() -> None:
    more = LabelMap("mine", (*PII_200K.rules, LabelRule("TEL", "S3", "a number to call")))
    assert more.codes(["TEL", "CITY"]) == ("S3", "S4")
    with pytest.raises(ValueError, match=r"\['CITY'\] more than once"):
        LabelMap("mine", (*PII_200K.rules, LabelRule("CITY", None, "no")))


@pytest.mark.parametrize("code", ["s1", "S0", "S100", " S1", "safe", ""])
def test_a_rule_with_a_code_that_is_none_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match=f"code '{code}' of TEL is not S1 ... S99; give None"):
        LabelRule("TEL", code, "a number to call")
    with pytest.raises(ValueError, match="has no label"):
        LabelRule(" ", "S3", "a number to call")


@pytest.mark.parametrize("codes_of", [PII_200K.codes, reference_codes_evaluation, reference_codes_training])
def test_one_label_is_not_a_list(codes_of: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="labels is one text, 'FIRSTNAME'; pass a list"):
        codes_of("FIRSTNAME")


def test_a_csv_file_becomes_a_map(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('label,code,reason\nTEL,S3,"a number, to call"\nORDER,,no person\n', encoding="utf-8-sig")
    rules = (LabelRule("TEL", "S3", "a number, to call"), LabelRule("ORDER", None, "no person"))
    assert LabelMap.from_csv(path, name="mine") == LabelMap("mine", rules)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("label;code;reason", r"line 1: the header is \['label;code;reason'\]; write label,code,reason"),
        ("label,code,reason\nTEL, S3,call", "line 2: code ' S3' of TEL is not S1 ... S99; .* nothing"),
        ("label,code,reason\nTEL,S3,a number, to call", r"line 2: .*'a number', .* quote a reason"),
        ("label,code,reason\n,S3,call", "line 2: the rule 'S3', 'call' has no label"),
        ("label,code,reason\nTEL,s3,call", "line 2: code 's3' of TEL"),
        ("label,code,reason\nTEL,S3,Gespräch", "line 1: 'utf-8' codec can't decode"),
        ("label,code,reason\nTEL,S3,call\nTEL,,no", "line 3: label 'TEL' is decided a second time; keep one line"),
    ],
)
def test_a_faulty_csv_file_is_refused_by_line(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=f"mine.csv, {fault}"):
        LabelMap.from_csv(path, name="mine")


def test_table_shows_every_decision() -> None:
    table = PII_65K.table()
    assert list(table.columns) == ["label", "code", "reason"]
    assert len(table) == len(PII_65K.rules)
    assert table.set_index("label").code["STATE"] == "safe"
    assert table.code.iloc[0] == "S1"


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
