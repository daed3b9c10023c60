"""Mapping errors: what is certain, which rows it concerns, and who can't witness it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from guard_utils.audit import find_mapping_errors, label_codes, mapping_corrections
from guard_utils.audit.noise import LabelNoise, wrong_pairs
from guard_utils.data.examples import Example, Span
from guard_utils.data.labels import reference_codes_evaluation
from guard_utils.data.predictions import predictions_table
from guard_utils.policy import PII
from guard_utils.scoring.baselines import regular_expressions


def table(*rows: tuple[Sequence[str], Sequence[str]]) -> pd.DataFrame:
    """Predictions table that reports nothing, of rows given as codes and source labels."""
    examples = [
        Example(f"r{i}", "text", tuple(codes), "en", f"t{i}", "", tuple(Span(0, 4, label, None) for label in labels))
        for i, (codes, labels) in enumerate(rows)
    ]
    return predictions_table(examples, PII, np.zeros((len(rows), len(PII))), [()] * len(rows), 0.0)


def test_planted_errors_come_first(noisy: LabelNoise, witness: pd.DataFrame, clean: list[Example]) -> None:
    found = find_mapping_errors(witness, PII)
    certain = found[found["certain"]]
    named = set(zip(certain["label"], certain["code"], certain["kind"], strict=True))
    assert named == {("PHONENUMBER", "S3", "never mapped"), ("ZIPCODE", "S2", "mapped by mistake")}
    assert found["certain"].is_monotonic_decreasing
    codes = dict(zip(certain["label"], certain["label_codes"], strict=True))
    assert codes == {"PHONENUMBER": "none", "ZIPCODE": "S2, S4"}
    corrections = mapping_corrections(witness, PII, certain, reviewer="test")
    assert len(corrections) == certain["rows"].sum()
    wrong = wrong_pairs(noisy.examples, clean)
    assert sum((item.id, item.code) in wrong for item in corrections) / len(corrections) >= 0.9


def test_nothing_is_certain_on_clean_labels(clean: list[Example]) -> None:
    assert not find_mapping_errors(regular_expressions(clean, PII), PII)["certain"].any()


def test_a_witness_taught_by_the_error_finds_nothing(witness: pd.DataFrame) -> None:
    taught = witness.assign(predicted=witness["gold"])
    none = find_mapping_errors(taught, PII)
    assert none.empty and none[none["certain"]].empty


def test_labels_have_the_codes_that_the_rules_gave_them(witness: pd.DataFrame) -> None:
    found = label_codes(witness, PII)
    frequent = [name for name in found if sum(name in labels for labels in witness["labels"]) >= 20]
    assert len(frequent) > 20 and list(found) == sorted(found)
    assert {name: found[name] for name in frequent} == {name: reference_codes_evaluation([name]) for name in frequent}


def test_rows_of_a_finding_by_hand() -> None:
    df = table(
        (["S2", "S4"], ["ZIPCODE"]),
        (["S2", "S4"], ["ZIPCODE", "IPV4"]),
        (["S2"], ["IPV4"]),
        ([], ["PHONENUMBER"]),
        (["S3"], ["PHONENUMBER"]),
    )
    df = pd.concat([df.assign(id=df["id"] + f"-{copy}") for copy in range(5)])  # enough to see what IPV4 stands for
    findings = pd.DataFrame(
        [("ZIPCODE", "S2", "mapped by mistake"), ("PHONENUMBER", "S3", "never mapped")],
        columns=["label", "code", "kind"],
    )
    found = {(item.id, item.code, item.action) for item in mapping_corrections(df, PII, findings, reviewer="x")}
    changes = (("r0", "S2", "remove"), ("r3", "S3", "add"))
    assert found == {(f"{row}-{copy}", code, action) for row, code, action in changes for copy in range(5)}


def test_two_labels_accused_of_one_code_do_not_excuse_each_other() -> None:
    kinds = [(["S1"], ["COMPANYNAME", "USERNAME"]), (["S1"], ["COMPANYNAME"]), (["S1"], ["USERNAME"]), ([], [])]
    df = table(*(row for row in kinds for _ in range(8)))
    accused = pd.DataFrame({"label": ["COMPANYNAME", "USERNAME"], "code": "S1", "kind": "mapped by mistake"})
    found = mapping_corrections(df, PII, accused, reviewer="x")
    assert len(found) == 24 and {item.action for item in found} == {"remove"}
