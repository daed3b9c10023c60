"""Categories, policies and the answer's grammar."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard_utils import policy as grammar
from guard_utils.policy import LLAMA_GUARD_3, PII, Category, ParseFailure, Taxonomy, Verdict

codes_of_pii = st.sets(st.sampled_from(PII.codes))


def test_the_two_taxonomies_are_as_published():
    assert LLAMA_GUARD_3.codes == tuple(f"S{i}" for i in range(1, 15))
    published = {"S1": "Violent Crimes", "S7": "Privacy", "S14": "Code Interpreter Abuse"}
    assert published.items() <= LLAMA_GUARD_3.names.items()
    assert list(PII.names.values()) == ["Name", "IP Address", "Phone Number", "Address", "Credit Card"]


def test_a_code_is_the_position_of_its_category():
    mixed = Taxonomy("mine", (Category("Pets", "Any animal."), Category("Plants")))
    assert mixed.names == {"S1": "Pets", "S2": "Plants"}
    assert Taxonomy("many", mixed.categories * 15).codes[-1] == "S30"


def test_a_selection_keeps_the_order_given_and_the_codes_of_the_whole():
    policy = PII.select(["S4", "S1"])
    assert policy.names == {"S4": "Address", "S1": "Name"} and policy.select(["S4"]).codes == ("S4",)
    assert policy.categories[0].description == PII.categories[3].description
    assert policy.position("S1") == 1 and len(policy) == 2 and policy.name == "pii[S4,S1]"
    assert [verdict.text for verdict in grammar.all_verdicts(policy)][-1] == "unsafe\nS1,S4"
    assert isinstance(grammar.parse("unsafe\nS2", policy), ParseFailure)
    assert Taxonomy("anew", policy.categories).names == {"S1": "Address", "S2": "Name"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Category(" "), "no name"),
        (lambda: Taxonomy("empty", ()), "empty"),
        (lambda: replace(PII, categories=PII.categories[:2]), "give each category one"),
        (lambda: PII.select([]), "at least one"),
        (lambda: PII.select(["S1", "S1"]), "each once"),
        (lambda: PII.select(["S6"]), "S1, S2, S3, S4, S5"),
        (lambda: PII.position("S0"), "'S0'"),
    ],
)
def test_faulty_taxonomies_are_refused_with_the_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grammar.require_list("Ann", "texts"), "^texts is one text, 'Ann'; pass a list of texts$"),
        (lambda: grammar.require_list(b"Ann" * 99, "texts"), "^texts is one text, b'AnnAnn.{0,40}; pass"),
        (lambda: PII.select("S1"), "codes is one text, 'S1'"),
        (lambda: Verdict.of("S1"), "codes is one text, 'S1'"),
        (lambda: Verdict("S1"), "codes is one text, 'S1'"),
        (lambda: Taxonomy("mine", "abc"), "categories of policy 'mine' are 'abc'; give Category objects"),
        (lambda: Taxonomy("mine", ("Pets",)), r"are \('Pets',\); give Category objects"),
    ],
)
def test_one_text_where_a_list_is_meant_is_no_list_of_letters(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@given(codes_of_pii)
def test_a_verdict_is_read_back_from_its_own_text(codes):
    verdict = Verdict.of(codes)
    assert grammar.parse(verdict.text, PII) == verdict
    assert grammar.parse(f"\n\n{verdict.text}\n ", PII) == verdict, "Llama Guard begins with a blank line"
    assert verdict.is_safe == (not codes)


def test_codes_sort_by_number_and_stand_once():
    assert Verdict.of(["S10", "S2", "S10"]).text == "unsafe\nS2,S10"
    with pytest.raises(ValueError, match=r"Verdict\.of"):
        Verdict(("S2", "S1"))
    with pytest.raises(ValueError, match=r"Verdict\.of"):
        Verdict(("S1", "S1"))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "first line"),
        ("Safe", "first line"),
        ("safe.", "first line"),
        ("safe\nS1", "'safe' needs 0 more lines, found 1"),
        ("unsafe", "'unsafe' needs 1 more lines, found 0"),
        ("unsafe\nS1\nbecause", "'unsafe' needs 1 more lines, found 2"),
        ("unsafe S1", "first line"),
        ("unsafe\nS6", "unknown codes"),
        ("unsafe\nS1, S2", "unknown codes"),
        ("unsafe\nS1,", "unknown codes"),
        ("unsafe\ns1", "unknown codes"),
        ("unsafe\nS2,S1", "ascending"),
        ("unsafe\nS1,S1", "ascending"),
    ],
)
def test_anything_else_is_a_failure_with_its_reason(answer, reason):
    found = grammar.parse(answer, PII)
    assert isinstance(found, ParseFailure)
    assert found.answer == answer and reason in found.reason


pieces = ["safe", "unsafe", "Safe", "UNSAFE", "\n", ",", "S1", "s2", "S5", "S6", " ", "\r", "x", ".", "ſafe", "\x1c"]
answers = st.one_of(st.text(max_size=8), st.lists(st.sampled_from(pieces)).map("".join))


@given(answers)
def test_parse_is_total_and_strict(answer):
    found = grammar.parse(answer, PII)
    assert isinstance(found, ParseFailure) or found.text == answer.strip()


def test_every_set_of_codes_is_one_verdict():
    verdicts = grammar.all_verdicts(PII)
    assert len(verdicts) == len(set(verdicts)) == 32
    assert {v.codes for v in verdicts} == {c for k in range(6) for c in combinations(PII.codes, k)}
    assert verdicts[0].is_safe and [len(v.codes) for v in verdicts] == sorted(len(v.codes) for v in verdicts)


def test_a_cap_limits_the_number_of_codes():
    capped = grammar.all_verdicts(LLAMA_GUARD_3, max_violations=2)
    assert len(capped) == 1 + 14 + 91 and max(len(v.codes) for v in capped) == 2
    assert grammar.all_verdicts(PII, max_violations=9) == grammar.all_verdicts(PII)
    thirty = Taxonomy("thirty", PII.categories * 6)
    for policy, cap, why in ((PII, 0, "at least 1"), (thirty, None, "of 30 categories is 1073741824; set max_violat")):
        with pytest.raises(ValueError, match=why):
            grammar.all_verdicts(policy, max_violations=cap)
