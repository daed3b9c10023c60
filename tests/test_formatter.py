"""The formatter against expectations worked out from its specification, and each fault of the reference mended."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard_utils import formatter
from guard_utils.formatter import (
    AugmentationConfigs,
    Category,
    ExplanationPosition,
    FormatterConfigs,
    Guidelines,
    LlamaGuardGenerationConfigs,
    LlamaGuardPromptConfigs,
    TrainingExample,
    create_formatted_finetuning_examples,
    iter_formatted_finetuning_examples,
)
from guard_utils.policy import LLAMA_GUARD_3, PII, Taxonomy, Verdict
from guard_utils.training.rows import (
    PolicyExample,
    from_training_row,
    policy_augmentations,
    policy_examples,
    renumber,
    to_training_row,
)

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
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
) -> FormatterConfigs:
    return FormatterConfigs(
        Guidelines([Category(f"name{i}", f"about {i}") for i in range(1, count + 1)], prefix),
        LlamaGuardPromptConfigs(template, descriptions, shuffle),
        LlamaGuardGenerationConfigs(listed, position),
        augmentation,
        seed,
    )


def example(
    codes: list[str] | None = None, *, prompt: Any = "p", response: Any = "r", **changes: Any
) -> TrainingExample:
    codes = codes or []
    fields = {"violated_category_codes": codes, "label": "unsafe" if codes else "safe", "explanation": "why"} | changes
    return TrainingExample(prompt=prompt, response=response, **fields)


def lines(*examples: TrainingExample, **options: Any) -> list[str]:
    return create_formatted_finetuning_examples(examples, configs(**options))


# --- options, by hand from the specification -------------------------------------------------------------------------


def test_prompt_and_response_without_descriptions() -> None:
    assert lines(example(["O1", "O3"])) == [
        "<\nO1: name1. \nO2: name2. \nO3: name3. \n|human: p\n\nchatbot: r> unsafe\nO1,O3"
    ]


def test_descriptions_follow_the_name_on_their_own_line() -> None:
    assert lines(example(), count=2, descriptions=True) == [
        "<\nO1: name1. \nabout 1\nO2: name2. \nabout 2\n|human: p\n\nchatbot: r> safe"
    ]


@pytest.mark.parametrize("response", ["N/A", None])
def test_prompt_only(response: str | None) -> None:
    assert lines(example(response=response), count=1) == ["<\nO1: name1. \n|human: p> safe"]


def test_empty_response_is_a_response() -> None:
    assert lines(example(response=""), count=1) == ["<\nO1: name1. \n|human: p\n\nchatbot: > safe"]


def test_codes_are_listed_only_on_request() -> None:
    assert lines(example(["O1"]), count=1, listed=False) == ["<\nO1: name1. \n|human: p\n\nchatbot: r> unsafe"]


def test_explanation_before_and_after() -> None:
    (before,) = lines(example(["O1"]), count=1, position=ExplanationPosition.BEFORE_DECISION)
    (after,) = lines(example(["O1"]), count=1, position=ExplanationPosition.AFTER_DECISION)
    assert before.endswith("> Explanation: why\nunsafe\nO1")
    assert after.endswith("> unsafe\nO1\nExplanation: why")


@pytest.mark.parametrize("prefix", ["S", "", "Cat-", "{x}"])
def test_any_prefix(prefix: str) -> None:
    (line,) = lines(example([f"{prefix}2"]), prefix=prefix, count=2)
    assert line == f"<\n{prefix}1: name1. \n{prefix}2: name2. \n|human: p\n\nchatbot: r> unsafe\n{prefix}2"


def test_braces_in_texts_are_plain_characters() -> None:
    assert lines(example(prompt="{guidelines} {}"), count=1, template="{{{conversation}}}") == [
        "{human: {guidelines} {}\n\nchatbot: r} safe"
    ]


def test_a_repeated_code_counts_once() -> None:
    assert lines(example(["O2", "O2", "O1"])) == lines(example(["O2", "O1"]))


def test_order_of_codes_beyond_eight_categories_is_the_references() -> None:
    # the reference joins a set of positions, and {1, 8} iterates as 8, 1
    for codes in (["O2", "O9"], ["O9", "O2"]):
        assert lines(example(codes), count=10)[0].endswith("unsafe\nO9,O2")


def test_all_augmentations_draw_in_the_references_order() -> None:
    everything = AugmentationConfigs(
        probability_to_add_safe_examples_with_empty_responses=0.9,
        should_add_examples_with_dropped_violated_and_nonviolated_prompt_categories=True,
    )
    rng = random.Random(7)

    def prompt(positions: list[int], response: str) -> str:
        rng.shuffle(positions)
        shown = "".join(f"\nO{code}: name{i + 1}. " for code, i in enumerate(positions, 1))
        return f"<{shown}\n|human: p\n\nchatbot: {response}>"

    def codes(positions: list[int]) -> str:
        return ",".join(f"O{positions.index(i) + 1}" for i in (0, 3))

    first, second = list(range(5)), list(range(5))
    expected = [prompt(first, "r") + f" unsafe\n{codes(first)}"]
    assert rng.random() < 0.9
    expected.append(prompt(second, "") + " safe")
    dropped = rng.sample([1, 2, 4], rng.randint(0, 3))
    third = [i for i in range(5) if i not in dropped]
    expected.append(prompt(third, "r") + f" unsafe\n{codes(third)}")
    dropped = rng.sample([1, 2, 4], rng.randint(0, 2))
    expected.append(prompt([i for i in (1, 2, 4) if i not in dropped], "r") + " safe")
    assert lines(example(["O1", "O4"]), count=5, shuffle=True, seed=7, augmentation=everything) == expected


def test_two_seeded_examples_to_the_letter() -> None:
    # Random(42): shuffle -> 1 0 2, random() < 0.5, shuffle -> 2 0 1, randint(0, 1) drops none, shuffle -> 1 2 0
    augmentation = AugmentationConfigs(0.5, None, True, True)
    options = {"shuffle": True, "augmentation": augmentation, "template": "{guidelines}|{conversation}|"}
    assert lines(example(["O1", "O3"]), **options) == [
        "\nO1: name2. \nO2: name1. \nO3: name3. |human: p\n\nchatbot: r| unsafe\nO2,O3",
        "\nO1: name3. \nO2: name1. \nO3: name2. |human: p\n\nchatbot: | safe",
        "\nO1: name2. \nO2: name3. \nO3: name1. |human: p\n\nchatbot: r| unsafe\nO3,O2",
        "\nO1: name2. |human: p\n\nchatbot: r| safe",
    ]


def test_explanations_of_augmented_examples() -> None:
    augmentation = AugmentationConfigs(1, "it is empty", False, True, "not looked for")
    _, empty, dropped = lines(example(["O1"]), position=ExplanationPosition.AFTER_DECISION, augmentation=augmentation)
    assert empty.endswith("chatbot: > safe\nExplanation: it is empty")
    assert dropped.endswith("chatbot: r> safe\nExplanation: not looked for")


def test_no_empty_response_copy_of_a_prompt_alone_or_an_empty_response() -> None:
    always = AugmentationConfigs(1, None, False)
    assert [len(lines(example(response=r), augmentation=always)) for r in ("N/A", None, "", "r")] == [1, 1, 1, 2]


def test_a_prompt_keeps_at_least_one_category() -> None:
    for seed in range(20):
        assert lines(example(), count=1, seed=seed, augmentation=AugmentationConfigs()) == lines(example(), count=1) * 2


# --- properties ------------------------------------------------------------------------------------------------------


@st.composite
def workloads(draw: st.DrawFn) -> tuple[list[TrainingExample], FormatterConfigs]:
    count = draw(st.integers(1, 30))
    prefix = draw(st.text(st.characters(exclude_characters="\x1f"), max_size=3))
    text = st.text(st.characters(), max_size=20)  # any code point, lone surrogates too
    items = []
    for _ in range(draw(st.integers(0, 3))):
        codes = draw(st.lists(st.integers(1, count).map(lambda n: f"{prefix}{n}"), max_size=5))
        response = draw(st.none() | st.just("N/A") | text)
        items.append(example(codes, prompt=draw(text), response=response, explanation=draw(text)))
    chance = draw(st.sampled_from([0, 0.5, 1]))
    augmentation = AugmentationConfigs(chance, "empty", draw(st.booleans()), draw(st.booleans()), "dropped")
    position = draw(st.sampled_from([None, *ExplanationPosition]))
    options = configs(
        count,
        prefix=prefix,
        template="{guidelines}\x1f{conversation}\x1f",
        shuffle=draw(st.booleans()),
        position=position,
        augmentation=augmentation,
        seed=draw(st.integers()),
    )
    return items, options


def read(line: str, prefix: str, conversation: str) -> tuple[list[int], str]:
    """Undoes the template: the 1-based numbers of the categories shown, in order, and the answer."""
    guidelines, rest = line.split("\x1f", 1)
    assert rest.startswith(conversation + "\x1f ")
    names: list[int] = []
    position = 0
    while position < len(guidelines):
        head = f"\n{prefix}{len(names) + 1}: name"
        assert guidelines.startswith(head, position)
        end = guidelines.index(". ", position + len(head))
        names.append(int(guidelines[position + len(head) : end]))
        position = end + 2
    return names, rest[len(conversation) + 2 :]


def strip_explanation(answer: str, explanation: str | None, position: ExplanationPosition | None) -> str:
    if position is ExplanationPosition.BEFORE_DECISION:
        return answer.removeprefix(f"Explanation: {explanation}\n")
    return answer if position is None else answer.removesuffix(f"\nExplanation: {explanation}")


@quick
@given(workloads())
def test_every_line_says_what_its_example_says(workload: tuple[list[TrainingExample], FormatterConfigs]) -> None:
    items, options = workload
    prefix, count = options.guidelines.category_code_prefix, len(options.guidelines.categories)
    position, augmentation = options.llama_guard_generation_configs.explanation_position, options.augmentation_configs
    out = iter_formatted_finetuning_examples(iter(items), options)
    for item in items:
        human = f"human: {item.prompt}"
        alone = item.response in (None, "N/A")
        conversation = human if alone else f"{human}\n\nchatbot: {item.response}"
        violated = {int(code.removeprefix(prefix)) for code in item.violated_category_codes}

        def check(kept: set[int], label: str, why: str | None, said: str = conversation) -> list[int]:
            names, answer = read(next(out), prefix, said)
            assert names and len(set(names)) == len(names) and set(names) <= set(range(1, count + 1))
            if not options.llama_guard_prompt_configs.should_shuffle_category_codes:
                assert names == sorted(names)
            head, *codes = strip_explanation(answer, why, position).split("\n" + prefix, 1)
            assert head == label
            numbers = [int(code) for code in codes[0].split("," + prefix)] if codes else []
            assert sorted(names[number - 1] for number in numbers) == sorted(kept)
            return names

        assert len(check(violated, item.label, item.explanation)) == count
        if (
            not alone
            and item.response != ""
            and augmentation.probability_to_add_safe_examples_with_empty_responses == 1
        ):
            assert len(check(set(), "safe", "empty", f"{human}\n\nchatbot: ")) == count
        elif augmentation.probability_to_add_safe_examples_with_empty_responses == 0.5:
            return  # whether a copy follows is a draw; the seeded tests above pin the draws
        if augmentation.should_add_examples_with_dropped_nonviolated_prompt_categories:
            check(violated, item.label, item.explanation)
        dropping = augmentation.should_add_examples_with_dropped_violated_and_nonviolated_prompt_categories
        if dropping and violated and len(violated) < count:
            assert not set(check(set(), "safe", "dropped")) & violated
    assert next(out, None) is None


@quick
@given(workloads())
def test_repeatable_and_without_side_effects(workload: tuple[list[TrainingExample], FormatterConfigs]) -> None:
    items, options = workload
    before, state = copy.deepcopy(workload), random.getstate()
    first = create_formatted_finetuning_examples(items, options)
    assert random.getstate() == state
    assert (items, options) == before
    random.random()
    assert create_formatted_finetuning_examples(items, options) == first
    assert list(iter_formatted_finetuning_examples(iter(items), options)) == first
    random.setstate(state)


# --- the reference's faults ------------------------------------------------------------------------------------------


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


def test_the_order_handed_in_is_not_shuffled() -> None:
    shown = list(range(20))
    formatter._Formatter(configs(20, shuffle=True))._line(example(), [], shown)
    assert shown == list(range(20))


def test_global_generator_is_left_alone() -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    lines(example(["O1"]), shuffle=True, augmentation=AugmentationConfigs(0.5))
    assert random.random() == expected


BAD_EXAMPLES = {
    "unsafe without codes": (example(label="unsafe"), r"'unsafe', but violated_category_codes is \[\]; list"),
    "safe with codes": (example(["O1"], label="safe"), r"'safe', but violated_category_codes is \['O1'\]; label it"),
    "out of range": (example(["O4"]), "violated code is 'O4'; write one of 3 as 'O1'"),
    "zero": (example(["O0"]), "violated code is 'O0'"),
    "other prefix": (example(["S1"]), "violated code is 'S1'"),
    "leading zero": (example(["O01"]), "violated code is 'O01'"),
    "number": (example([1]), "violated code is 1;"),  # type: ignore[list-item]
    "list as code": (example([["O1"]]), r"violated code is \['O1'\];"),  # type: ignore[list-item]
    "codes as text": (example(violated_category_codes="O1"), "violated_category_codes is 'O1'; give a list"),
    "null codes": (example(violated_category_codes=None), "violated_category_codes is None; give a list"),
    "null prompt": (example(prompt=None), "prompt is None; give its text"),
    "number as prompt": (example(prompt=3.5), "prompt is 3.5;"),
    "NaN as response": (example(response=float("nan")), "response is nan; give text or None"),
    "label": (example(label="Unsafe"), "label is 'Unsafe'; write 'safe' or 'unsafe'"),
}


@pytest.mark.parametrize("name", BAD_EXAMPLES)
def test_bad_example_names_index_value_and_fix(name: str) -> None:
    bad, message = BAD_EXAMPLES[name]
    stream = iter_formatted_finetuning_examples([example(), bad], configs())
    assert next(stream).endswith(" safe")
    with pytest.raises(ValueError, match=f"training example 1: .*{message}"):
        next(stream)


def test_missing_explanation_is_an_error_only_where_explanations_are_written() -> None:
    silent = example(explanation=None)
    assert len(lines(silent)) == 1
    with pytest.raises(ValueError, match="training example 0: explanation is None"):
        lines(silent, position=ExplanationPosition.AFTER_DECISION)


def test_unsafe_without_codes_where_nothing_needs_them() -> None:
    assert lines(example(label="unsafe"), count=1, listed=False) == ["<\nO1: name1. \n|human: p\n\nchatbot: r> unsafe"]
    for augmentation in (AugmentationConfigs(), DROP_VIOLATED):
        with pytest.raises(ValueError, match="training example 0: 'unsafe', but violated_category_codes"):
            lines(example(label="unsafe"), listed=False, augmentation=augmentation)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "categories is .*give at least one"),
        ({"prefix": None}, "prefix, names, descriptions are text"),
        ({"seed": None}, "random_seed is None"),
        ({"position": "BEFORE_DECISION"}, "explanation_position is 'BEFORE_DECISION'"),
        ({"template": "no place for it"}, "instructions_format_string is 'no place for it'; show {conversation}"),
        ({"template": "{conversation} {policy}"}, "double other braces"),
        ({"template": "{conversation} {"}, "no format string"),
        ({"template": None}, "instructions_format_string is None"),
        ({"augmentation": AugmentationConfigs(1.5)}, "empty_responses is 1.5; give 0 to 1"),
        ({"augmentation": AugmentationConfigs(float("nan"))}, "empty_responses is nan"),
        (
            {"augmentation": AugmentationConfigs(0.1), "position": ExplanationPosition.AFTER_DECISION},
            "explanation_for_augmentation_with_safe_example_with_empty_response is None; say why",
        ),
        (
            {"augmentation": AugmentationConfigs(0, None, True, True), "position": ExplanationPosition.BEFORE_DECISION},
            "explanation_for_augmentation_with_dropped_violated_and_nonviolated_prompt_categories is None; say why",
        ),
    ],
)
def test_bad_option_is_reported_before_anything_is_read(options: dict[str, Any], message: str) -> None:
    def unread() -> Iterator[TrainingExample]:
        raise AssertionError("an example was read")
        yield

    with pytest.raises(ValueError, match=message):
        iter_formatted_finetuning_examples(unread(), configs(**options))


def test_streams_one_example_at_a_time() -> None:
    read_so_far: list[int] = []

    def source() -> Iterator[TrainingExample]:
        for i in range(10**9):
            read_so_far.append(i)
            yield example()

    stream = iter_formatted_finetuning_examples(source(), configs())
    next(stream), next(stream)
    assert read_so_far == [0, 1]


# --- rows that carry their policy ------------------------------------------------------------------------------------

TALK = (("User", "I am Ann"), ("Agent", "Hi Ann, call 555"))


def test_training_examples_under_a_policy() -> None:
    answered, alone = policy_examples([example(["O5", "O1"]), example(response=None)], PII, category_code_prefix="O")
    assert answered == PolicyExample((("User", "p"), ("Agent", "r")), Verdict(("S1", "S5")), PII)
    assert alone == PolicyExample((("User", "p"),), Verdict(), PII)
    with pytest.raises(ValueError, match="training example 1: .*'S6'; write one of 5"):
        list(policy_examples([example(["S1"]), example(["S6"])], PII))


def test_renumber() -> None:
    assert renumber(["S1", "S4", "S5"], ["S5", "S2", "S1"]) == ("S1", "S3")
    assert renumber(["S1"], ["S2"]) == ()


def test_row_of_a_drawn_policy_by_hand() -> None:
    policy = PII.select(["S4", "S1"])
    drawn = PolicyExample(TALK, Verdict(("S2",)), policy, (("S2", "Ann"),), ("S4", "S1"))
    line = to_training_row(drawn)
    assert json.loads(line) == {
        "policy": ["S4", "S1"],
        "turns": [["User", "I am Ann"], ["Agent", "Hi Ann, call 555"]],
        "answer": "unsafe\nS2",
        "evidence": [["S2", "Ann"]],
    }
    assert from_training_row(line, PII) == drawn
    plain = to_training_row(PolicyExample((("User", "é\u2028\x85"),), Verdict(), PII))
    assert (
        plain
        == '{"policy": ["S1", "S2", "S3", "S4", "S5"], "turns": [["User", "\\u00e9\\u2028\\u0085"]], "answer": "safe"}'
    )


def test_augmentation_keeps_the_meaning_and_is_bounded() -> None:
    verdict = Verdict(("S1", "S3"))
    source = [PolicyExample(TALK, verdict, PII, (("S1", "Ann"), ("S3", "555")))] * 400
    out = list(policy_augmentations(source, policies=6, seed=1))
    assert len(out) == 400
    policies = {item.policy_codes for item in out}
    assert len(policies) == 6 and PII.codes in policies
    for item in out:
        shown = item.policy_codes
        assert list(item.policy.names.values()) == [PII.names[code] for code in shown]
        assert {shown[int(code[1:]) - 1] for code in item.verdict.codes} == {"S1", "S3"} & set(shown)
        assert {(shown[int(code[1:]) - 1], text) for code, text in item.evidence} == {
            pair for pair in (("S1", "Ann"), ("S3", "555")) if pair[0] in shown
        }
    assert any(item.verdict.is_safe for item in policy_augmentations(source, policies=40, seed=1))
    assert out == list(policy_augmentations(source, policies=6, seed=1))
    assert out != list(policy_augmentations(source, policies=6, seed=2))


def test_augmentation_with_one_policy_changes_nothing_and_with_copies_repeats() -> None:
    source = list(policy_examples([example(["S1"]), example()], PII))
    assert list(policy_augmentations(source, policies=1, seed=3)) == source
    everywhere = list(policy_augmentations(source, policies=3, seed=3, copies=3))
    assert [item.policy_codes for item in everywhere[:3]] == [item.policy_codes for item in everywhere[3:]]
    assert len({item.policy_codes for item in everywhere}) == 3 and everywhere[0] == source[0]
    assert list(policy_augmentations([], policies=1, seed=0)) == []


def test_augmentation_reaches_every_policy_and_refuses_more() -> None:
    two = Taxonomy("two", (Category("A"), Category("B")))
    source = list(policy_examples([example()], two))
    drawn = [item.policy_codes for item in policy_augmentations(source, policies=4, seed=0, copies=4)]
    assert drawn[0] == ("S1", "S2") and sorted(drawn) == [("S1",), ("S1", "S2"), ("S2",), ("S2", "S1")]
    for policies, copies in ((5, 1), (0, 1), (2, 3), (2, 0)):
        with pytest.raises(ValueError, match="keep 1 <= copies <= policies <= 4"):
            list(policy_augmentations(source, policies=policies, seed=0, copies=copies))


def test_augmentation_wants_one_undrawn_taxonomy() -> None:
    pii, hazards = (next(policy_examples([example()], policy)) for policy in (PII, LLAMA_GUARD_3))
    with pytest.raises(ValueError, match="example 1: policy is 'llama-guard-3'; put all under 'pii'"):
        list(policy_augmentations([pii, hazards], policies=2, seed=0))
    drawn = PolicyExample(TALK, Verdict(), PII.select(["S4"]), (), ("S4",))
    with pytest.raises(ValueError, match="example 0: policy"):
        list(policy_augmentations([drawn], policies=1, seed=0))


@quick
@given(st.data())
def test_rows_survive_the_round_trip(data: st.DataObject) -> None:
    taxonomy = Taxonomy("t", tuple(Category(f"name{i}") for i in range(data.draw(st.integers(1, 30)))))
    texts = data.draw(st.lists(st.text(max_size=20), min_size=1, max_size=4))
    turns = tuple((("User", "Agent")[i % 2], text) for i, text in enumerate(texts))
    verdict = Verdict.of(data.draw(st.lists(st.sampled_from(taxonomy.codes), max_size=4)))
    source = PolicyExample(turns, verdict, taxonomy, tuple((code, texts[-1]) for code in verdict.codes))
    policies = 1 if len(taxonomy) == 1 else 4
    for item in policy_augmentations([source], policies=policies, seed=data.draw(st.integers()), copies=policies):
        line = to_training_row(item)
        assert line.splitlines() == [line] and line.isascii()
        assert from_training_row(line, taxonomy) == item
        assert from_training_row({"evidence": None} | json.loads(line), taxonomy) == item


GOOD_ROW = {"policy": ["S4", "S1"], "turns": [["User", "hi"]], "answer": "unsafe\nS2"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": []}, "at least one code"),
        ({"policy": "S4"}, "policy is 'S4'; give a list"),
        ({"policy": [4]}, r"policy is \[4\]"),
        ({"policy": ["S1", "S1"]}, "each once"),
        ({"policy": ["S9"]}, "code 'S9' is not in policy 'pii'"),
        ({"turns": []}, r"roles of the turns is \[\]"),
        ({"turns": None}, "turns is None; give a list of pairs"),
        ({"turns": ["Us"]}, "turns is .*pairs"),
        ({"turns": [["User", None]]}, "turns is .*pairs of texts"),
        ({"turns": [["User", "a", "b"]]}, "turns is .*pairs"),
        ({"turns": [["Agent", "a"]]}, r"roles of the turns is \['Agent'\]; begin with 'User'"),
        ({"turns": [["User", "a"], ["User", "b"]]}, "alternate with 'Agent'"),
        ({"turns": [["user", "a"]]}, "begin with 'User'"),
        ({"answer": "unsafe"}, "answer is 'unsafe'; write"),
        ({"answer": "unsafe\nS3"}, "ascending codes to S2"),
        ({"answer": "unsafe\nS2,S1"}, "answer is"),
        ({"answer": "unsafe\nS2 "}, "answer is"),
        ({"answer": " safe"}, "answer is ' safe'"),
        ({"answer": None}, "answer is None"),
        ({"evidence": [["S1", "hi"]]}, r"evidence is \(\('S1', 'hi'\),\); give it for violated codes only"),
        ({"evidence": "S2"}, "evidence is 'S2'"),
        ({"extra": 1}, "nothing else but 'evidence'"),
    ],
)
def test_broken_row_names_place_field_and_value(change: dict[str, Any], message: str) -> None:
    assert from_training_row(GOOD_ROW, PII).verdict.codes == ("S2",)
    with pytest.raises(ValueError, match=f"train.jsonl line 17: .*{message}"):
        from_training_row(json.dumps(GOOD_ROW | change), PII, where="train.jsonl line 17")


@pytest.mark.parametrize("line", ["", "{", "[]", "null", '"text"', '{"policy": ["S1"]}'])
def test_row_that_is_no_row(line: str) -> None:
    with pytest.raises(ValueError, match="line 3: "):
        from_training_row(line, PII, where="line 3")


def test_example_checks_itself() -> None:
    with pytest.raises(ValueError, match="verdict is .*'S6'"):
        PolicyExample(TALK, Verdict(("S6",)), PII)
    for source_codes in (("S1",), ("S1", "S1"), ("S1", "S2", "S2")):
        with pytest.raises(ValueError, match="source_codes is"):
            PolicyExample(TALK, Verdict(), PII.select(["S1", "S2"]), (), source_codes)
