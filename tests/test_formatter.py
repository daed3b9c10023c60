"""The formatter against expectations worked out from its specification, each fault of the reference, and rows."""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from guard_utils import formatter
from guard_utils.data.examples import Example, Span
from guard_utils.formatter import AugmentationConfigs, ExplanationPosition, Guidelines, TrainingExample
from guard_utils.policy import PII, Category, ParseFailure, Taxonomy, Verdict, parse
from guard_utils.training_rows import TrainingRow, read_training_row

BEFORE, AFTER = ExplanationPosition.BEFORE_DECISION, ExplanationPosition.AFTER_DECISION
NO_DROPS = AugmentationConfigs(should_add_examples_with_dropped_nonviolated_prompt_categories=False)
DROP_VIOLATED = AugmentationConfigs(
    should_add_examples_with_dropped_nonviolated_prompt_categories=False,
    should_add_examples_with_dropped_violated_and_nonviolated_prompt_categories=True,
    explanation_for_augmentation_with_dropped_violated_and_nonviolated_prompt_categories="not looked for",
)


def configs(
    count: int = 3,
    *,
    prefix: str = "O",
    template: str = "<{guidelines}\n|{conversation}>",
    descriptions: bool = False,
    shuffle: bool = False,
    listed: bool = True,
    position: ExplanationPosition | None = None,
    augmentation: AugmentationConfigs = NO_DROPS,
    seed: int = 42,
) -> formatter.FormatterConfigs:
    return formatter.FormatterConfigs(
        Guidelines([Category(f"name{i}", f"about {i}") for i in range(1, count + 1)], prefix),
        formatter.LlamaGuardPromptConfigs(template, descriptions, shuffle),
        formatter.LlamaGuardGenerationConfigs(listed, position),
        augmentation,
        seed,
    )


def example(codes: list[str] | None = None, **changes: Any) -> TrainingExample:
    codes = codes or []
    fields = {"prompt": "p", "response": "r", "violated_category_codes": codes, "explanation": "why"}
    return TrainingExample(**fields | {"label": "unsafe" if codes else "safe"} | changes)


def lines(*examples: TrainingExample, **options: Any) -> list[str]:
    return formatter.create_formatted_finetuning_examples(examples, configs(**options))


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        (example(["O1", "O2"]), {"count": 2}, "<\nO1: name1. \nO2: name2. \n|human: p\n\nchatbot: r> unsafe\nO1,O2"),
        (example(), {"descriptions": True}, "<\nO1: name1. \nabout 1\n|human: p\n\nchatbot: r> safe"),
        (example(response="N/A"), {}, "<\nO1: name1. \n|human: p> safe"),
        (example(response=None), {}, "<\nO1: name1. \n|human: p> safe"),
        (example(response=""), {}, "<\nO1: name1. \n|human: p\n\nchatbot: > safe"),
        (example(["O1"]), {"listed": False}, "<\nO1: name1. \n|human: p\n\nchatbot: r> unsafe"),
        (example(prompt="{policy}"), {"template": "{{{conversation}}}"}, "{human: {policy}\n\nchatbot: r} safe"),
        (example(["1"]), {"prefix": ""}, "<\n1: name1. \n|human: p\n\nchatbot: r> unsafe\n1"),
        (example(["{x}1"]), {"prefix": "{x}"}, "<\n{x}1: name1. \n|human: p\n\nchatbot: r> unsafe\n{x}1"),
        (example(), {"position": BEFORE}, "<\nO1: name1. \n|human: p\n\nchatbot: r> Explanation: why\nsafe"),
        (example(["O1"]), {"position": AFTER}, "<\nO1: name1. \n|human: p\n\nchatbot: r> unsafe\nO1\nExplanation: why"),
    ],
)
def test_options(given: TrainingExample, options: dict[str, Any], expected: str) -> None:
    assert lines(given, **{"count": 1} | options) == [expected]


def test_shuffled_codes_of_a_text_need_not_ascend() -> None:
    policy, unsorted = Taxonomy("ten", tuple(Category(f"name{i}") for i in range(1, 11))), 0
    for seed in range(50):
        (line,) = lines(example(["S2", "S7"]), count=10, prefix="S", shuffle=True, seed=seed)
        shown, answer = line.split("> ")
        numbers = {name: code for code, name in (row.split(": ") for row in shown.split("\n")[1:11])}
        right = {numbers["name2. "], numbers["name7. "]}
        assert answer.startswith("unsafe\n") and set(answer[7:].split(",")) == right
        unsorted += isinstance(parse(answer, policy), ParseFailure)
    assert 0 < unsorted < 50


def test_no_empty_response_copy_of_a_prompt_alone_or_an_empty_response() -> None:
    always = AugmentationConfigs(1, None, False)
    assert [len(lines(example(response=r), augmentation=always)) for r in ("N/A", None, "", "r")] == [1, 1, 1, 2]


def test_a_prompt_keeps_at_least_one_category() -> None:
    for seed in range(20):
        assert lines(example(), count=1, seed=seed, augmentation=AugmentationConfigs()) == lines(example(), count=1) * 2


def workload(seed: int) -> tuple[list[TrainingExample], formatter.FormatterConfigs]:
    """Valid examples and options of every kind, as the reference takes them."""
    rng = random.Random(seed)
    count, prefix = rng.randint(2, 30), rng.choice(["O", "S", "Cat-"])
    items = []
    for _ in range(rng.randint(0, 5)):
        numbers = rng.choices(range(1, count + 1), k=rng.choice([0, 1, 2, 5]))[: count - 1]
        response = rng.choice(["N/A", "", "r", "two\n\nlines", "{guidelines} ÿ"])
        items.append(example([f"{prefix}{n}" for n in numbers], prompt=f"p{seed}", response=response))
    augmentation = AugmentationConfigs(
        rng.choice([0, 0.5, 1]), "empty", rng.random() < 0.5, rng.random() < 0.5, "dropped"
    )
    options = configs(
        count,
        prefix=prefix,
        descriptions=rng.random() < 0.5,
        shuffle=rng.random() < 0.5,
        listed=rng.random() < 0.8,
        position=rng.choice([None, *ExplanationPosition]),
        augmentation=augmentation,
        seed=seed,
    )
    return items, options


def test_bytes_are_the_references() -> None:
    digest = hashlib.sha256()
    for seed in range(1000):
        digest.update("\0".join(formatter.create_formatted_finetuning_examples(*workload(seed))).encode())
    # Made with the reference itself, Meta's finetuning_data_formatter.py.
    assert digest.hexdigest() == "50fecfa93f5ab702bb6d96d72b3ac21687fd0a4f574a9da24ab6796bb55eb911"


def test_repeatable_and_without_side_effects() -> None:
    for seed in range(30):
        items, options = workload(seed)
        state = random.getstate()
        first = formatter.create_formatted_finetuning_examples(items, options)
        assert random.getstate() == state
        assert (items, options) == workload(seed), "no object of the caller is changed"
        random.random()
        assert formatter.create_formatted_finetuning_examples(items, options) == first
        assert formatter.create_formatted_finetuning_examples(iter(items), options) == first


def test_all_categories_violated_has_no_copy_without_them() -> None:
    full = example(["O1", "O2", "O3"], response=None)
    assert lines(full, augmentation=DROP_VIOLATED) == lines(full)
    # nothing is drawn either: what follows is what would have come first
    one = example(["O1"])
    assert lines(full, one, augmentation=DROP_VIOLATED)[1:] == lines(one, augmentation=DROP_VIOLATED)


def test_prefix_that_ends_in_a_digit() -> None:
    (line,) = lines(example(["C11", "C111"]), count=12, prefix="C1")  # 1 and 11; lstrip leaves nothing of both
    assert sorted(line.rsplit("\n", 1)[1].split(",")) == ["C11", "C111"]
    (line,) = lines(example(["S1-12"]), count=12, prefix="S1-")  # lstrip reads 2
    assert line.endswith("unsafe\nS1-12")


BAD_EXAMPLES = [
    (example(label="unsafe"), r"codes of an unsafe one is \[\]; list"),
    (example(["O1"], label="safe"), r"codes of a safe one is \['O1'\]; label it"),
    (example(["O4"]), "violated code is 'O4'; write one of 3 as 'O1'"),
    (example(["O0"]), "violated code is 'O0'"),
    (example(["S1"]), "violated code is 'S1'"),
    (example(["O01"]), "violated code is 'O01'"),
    (example([1]), "violated code is 1;"),  # type: ignore[list-item]
    (example([["O1"]]), r"violated code is \['O1'\];"),  # type: ignore[list-item]
    (example(violated_category_codes="O1"), "violated_category_codes is 'O1'; give a list"),
    (example(violated_category_codes=None), "violated_category_codes is None; give a list"),
    (example(prompt=None), "prompt is None; give its text"),
    (example(prompt=3.5), "prompt is 3.5;"),
    (example(response=float("nan")), "response is nan; give text or None"),
    (example(label="Unsafe"), "label is 'Unsafe'; write 'safe' or 'unsafe'"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_EXAMPLES)
def test_bad_example_names_index_value_and_fix(bad: TrainingExample, message: str) -> None:
    with pytest.raises(ValueError, match=f"training example 1: .*{message}"):
        lines(example(), bad)


def test_missing_explanation_is_an_error_only_where_explanations_are_written() -> None:
    silent = example(explanation=None)
    assert len(lines(silent)) == 1
    with pytest.raises(ValueError, match="training example 0: explanation is None"):
        lines(silent, position=AFTER)


def test_unsafe_without_codes_where_nothing_needs_them() -> None:
    assert lines(example(label="unsafe"), count=1, listed=False) == ["<\nO1: name1. \n|human: p\n\nchatbot: r> unsafe"]
    for augmentation in (AugmentationConfigs(), DROP_VIOLATED):
        with pytest.raises(ValueError, match="training example 0: violated_category_codes of an unsafe one"):
            lines(example(label="unsafe"), listed=False, augmentation=augmentation)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, r"categories is \[\]; give at least one Category"),
        ({"seed": None}, "random_seed is None"),
        ({"position": "BEFORE_DECISION"}, "explanation_position is 'BEFORE_DECISION'"),
        ({"template": "no place for it"}, "instructions_format_string is 'no place for it'; show {conversation}"),
        ({"template": "{conversation} {policy}"}, "double other braces"),
        ({"template": "{conversation} {"}, "Single '{'|expected '}'"),
        ({"augmentation": AugmentationConfigs(1.5)}, "empty_responses is 1.5; give 0 to 1"),
        ({"augmentation": AugmentationConfigs(float("nan"))}, "empty_responses is nan"),
        ({"augmentation": AugmentationConfigs(0.1), "position": AFTER}, "with_empty_response is None; say"),
        ({"augmentation": AugmentationConfigs(0, None, True, True), "position": BEFORE}, "categories is None; say"),
    ],
)
def test_bad_option_is_reported_before_anything_is_read(options: dict[str, Any], message: str) -> None:
    def unread() -> Iterator[TrainingExample]:
        raise AssertionError("an example was read")
        yield

    with pytest.raises(ValueError, match=message):
        formatter.create_formatted_finetuning_examples(unread(), configs(**options))


def test_one_text_where_a_list_is_meant(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="training_examples is one text, 'Ann'"):
        formatter.create_formatted_finetuning_examples("Ann", configs())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="examples is one text, 'Ann'"):
        formatter.write_training_file("Ann", tmp_path / "train.jsonl", PII)  # type: ignore[arg-type]
    letters = replace(configs(), guidelines=Guidelines("abc"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="categories is 'abc'; give at least one Category"):
        formatter.create_formatted_finetuning_examples([], letters)


def judged(text: str, codes: tuple[str, ...] = ()) -> Example:
    return Example("id", text, codes, "en", "template", "", ())


def test_rows_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    assert formatter.write_training_file([judged("I am Ann", ("S1",)), judged("é\u2028\x85")], path, PII) == 2
    assert path.read_bytes().decode("ascii").splitlines() == [
        r'{"policy": ["S1", "S2", "S3", "S4", "S5"], "turns": [["User", "I am Ann"]], "answer": "unsafe\nS1"}',
        r'{"policy": ["S1", "S2", "S3", "S4", "S5"], "turns": [["User", "\u00e9\u2028\u0085"]], "answer": "safe"}',
    ]
    rows = [read_training_row(line, PII) for line in path.read_text().split("\n")[:2]]
    assert rows == [
        TrainingRow((("User", "I am Ann"),), Verdict(("S1",)), PII),
        TrainingRow((("User", "é\u2028\x85"),), Verdict(()), PII),
    ]
    assert formatter.write_training_file([], path, PII) == 0 and path.read_bytes() == b""


def test_a_row_may_show_some_of_the_taxonomy_in_any_order_and_hold_a_conversation() -> None:
    turns = (("User", "I am Ann"), ("Agent", "Hi Ann, call 555"))
    line = json.dumps({"policy": ["S4", "S1"], "turns": turns, "answer": "unsafe\nS4"})
    assert read_training_row(line, PII) == TrainingRow(turns, Verdict(("S4",)), PII.select(["S4", "S1"]))


def test_what_the_file_can_not_hold_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"example 'id' has \['S6'\], policy 'pii' "):
        formatter.write_training_file([judged("a"), judged("b", ("S6",))], tmp_path / "train.jsonl", PII)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(("others", "violated"), [(True, True), (True, False), (False, True)])
def test_copies_are_shown_smaller_policies_and_answered_in_their_codes(
    tmp_path: Path, others: bool, violated: bool, shuffled: bool
) -> None:
    sets = [codes for size in range(4) for codes in combinations(PII.codes, size)] * 4
    examples = [judged(f"text {i}", codes) for i, codes in enumerate(sets)]
    copies = AugmentationConfigs(0, None, others, violated)
    chosen = configs(template="{conversation}", shuffle=shuffled, augmentation=copies)
    chosen = replace(chosen, guidelines=Guidelines(PII.categories, "S"))
    files = [tmp_path / "one.jsonl", tmp_path / "again.jsonl"]
    counts = [formatter.write_training_file(examples, path, PII, chosen, policies=5) for path in files]
    assert files[0].read_bytes() == files[1].read_bytes(), "the seed decides"
    rows = [read_training_row(line, PII) for line in files[0].read_text().splitlines()]
    smaller = [row for row in rows if len(row.policy) < len(PII)]
    assert counts[0] == len(rows) == len(examples) + len(smaller) and smaller
    assert len(smaller) == len(examples) or not (others and violated)
    assert len({row.policy.name for row in smaller}) <= 5
    assert all(row.policy.codes == tuple(sorted(row.policy.codes)) for row in smaller) != shuffled
    for row in smaller:
        wanted = sets[int(row.turns[0][1].removeprefix("text "))]
        assert row.verdict == Verdict.of(code for code in row.policy.codes if code in wanted)
        assert others if set(wanted) <= set(row.policy.codes) else violated


def test_evidence_that_contradicts_the_codes_is_left_out(tmp_path: Path) -> None:
    spans = (Span(0, 3, "FIRSTNAME", "S1"),)
    rows = [replace(judged("Ann is here", codes), spans=spans) for codes in (("S1",), ())]
    formatter.write_training_file(rows, tmp_path / "train.jsonl", PII)
    found = [read_training_row(line, PII).evidence for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert found == [((3, "S1"),), ()]


GOOD_ROW = {"policy": ["S4", "S1"], "turns": [["User", "hi"]], "answer": "unsafe\nS4"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": []}, "at least one code"),
        ({"policy": "S4"}, "policy is 'S4'; give a list"),
        ({"policy": [4]}, r"policy is \[4\]"),
        ({"policy": ["S1", "S1"]}, "each once"),
        ({"policy": ["S9"]}, "code 'S9' is not in policy 'pii'"),
        ({"turns": []}, r"roles of the turns is \[\]"),
        ({"turns": None}, "turns is None; give a list of .* pairs"),
        ({"turns": ["Us"]}, "turns is .*pairs"),
        ({"turns": [["User", None]]}, "turns is .*pairs of texts"),
        ({"turns": [["User", "a", "b"]]}, "turns is .*pairs"),
        ({"turns": [["Agent", "a"]]}, r"roles of the turns is \['Agent'\]; begin with 'User'"),
        ({"turns": [["User", "a"], ["User", "b"]]}, "alternate with 'Agent'"),
        ({"answer": "unsafe"}, "answer is 'unsafe'; write"),
        ({"answer": "unsafe\nS2"}, r"ascending codes of \['S4', 'S1'\]"),
        ({"answer": "unsafe\nS4,S1"}, "answer is"),
        ({"answer": "unsafe\nS4 "}, "answer is"),
        ({"answer": None}, "answer is None"),
        ({"extra": 1}, "row is .*'policy', 'turns', 'answer', perhaps 'evidence', and nothing else"),
        ({"evidence": [[3, "S1"]]}, r"evidence is .*ends of values up to 2, codes of \('safe', 'S4', 'S1'\)"),
        ({"evidence": [[2, "S3"]]}, "evidence is"),
        ({"evidence": ["S1"]}, "evidence is"),
    ],
)
def test_broken_row_names_place_field_and_value(change: dict[str, Any], message: str) -> None:
    assert read_training_row(json.dumps(GOOD_ROW), PII).verdict.codes == ("S4",)
    with pytest.raises(ValueError, match=f"train.jsonl:17: .*{message}"):
        read_training_row(json.dumps(GOOD_ROW | change), PII, where="train.jsonl:17")


@pytest.mark.parametrize("line", ["", "{", "[]", "null", '"text"', '{"policy": ["S1"]}'])
def test_row_that_is_no_row(line: str) -> None:
    with pytest.raises(ValueError, match="train.jsonl:3: row is .*; (make it JSON|give a JSON object)"):
        read_training_row(line, PII, where="train.jsonl:3")
