"""Writes labelled examples as training texts and as training rows.

Texts are byte for byte those of Meta's `finetuning_data_formatter.py` (https://github.com/meta-llama/llama-recipes) for
valid input and an equal seed; rows are what `GuardDataset` reads. Does not tokenize, nor touch the global generator.
"""

import json
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from guard_utils.data.examples import Example
from guard_utils.files import write_text
from guard_utils.policy import Category, Taxonomy, Verdict, require, require_list
from guard_utils.training_rows import read_training_row


@dataclass(frozen=True)
class Guidelines:
    """The categories in code order, and what stands before their numbers (any text, also one ending in a digit)."""

    categories: Sequence[Category]
    category_code_prefix: str = "O"


class ExplanationPosition(Enum):
    """Where the explanation stands, seen from `safe` or `unsafe`."""

    BEFORE_DECISION = 0
    AFTER_DECISION = 1


@dataclass(frozen=True)
class LlamaGuardPromptConfigs:
    """The prompt: a text with `{conversation}` and `{guidelines}`."""

    instructions_format_string: str
    should_include_category_descriptions: bool
    should_shuffle_category_codes: bool = True


@dataclass(frozen=True)
class LlamaGuardGenerationConfigs:
    """The answer: the explanation goes nowhere if its position is None."""

    should_list_violated_codes: bool
    explanation_position: ExplanationPosition | None


@dataclass(frozen=True)
class AugmentationConfigs:
    """Which copies follow each example; where answers explain, the safe copies need an explanation.

    Dropped non-violated: the prompt lacks a random number of categories that are not violated; at least one stays.
    Dropped violated and non-violated: a safe copy of an unsafe example whose prompt lacks all violated and some other
    categories. An example that violates every category has none.
    """

    probability_to_add_safe_examples_with_empty_responses: float = 0
    explanation_for_augmentation_with_safe_example_with_empty_response: str | None = None
    should_add_examples_with_dropped_nonviolated_prompt_categories: bool = True
    should_add_examples_with_dropped_violated_and_nonviolated_prompt_categories: bool = False
    explanation_for_augmentation_with_dropped_violated_and_nonviolated_prompt_categories: str | None = None


@dataclass(frozen=True)
class FormatterConfigs:
    """Everything the formatter needs; equal seeds give equal output."""

    guidelines: Guidelines
    llama_guard_prompt_configs: LlamaGuardPromptConfigs
    llama_guard_generation_configs: LlamaGuardGenerationConfigs
    augmentation_configs: AugmentationConfigs
    random_seed: int = 42


@dataclass(frozen=True)
class TrainingExample:
    """One judged prompt, or prompt and response (`"N/A"` or None: the prompt alone).

    Codes such as "O1" are a set, empty exactly when safe; unsafe without codes is taken only where nothing needs them
    (not listed, no categories dropped). The explanation may be None where answers do not explain.
    """

    prompt: str
    response: str | None
    violated_category_codes: list[str]
    label: Literal["safe", "unsafe"]
    explanation: str | None


def create_formatted_finetuning_examples(
    training_examples: Iterable[TrainingExample], formatter_configs: FormatterConfigs
) -> list[str]:
    r"""Writes training texts (prompt, a space, answer), each example followed by its augmentations.

    Codes are in the reference's order, which shuffling leaves unsorted (`unsafe\nS4,S2`): `parse` refuses that.

    Raises:
        ValueError: An invalid option (before an example is read) or example: its index, the value and the fix.
    """
    require_list(training_examples, "training_examples")
    formatter = _Formatter(formatter_configs)
    return [line for index, example in enumerate(training_examples) for line in formatter.lines(index, example)]


class _Formatter:
    """One run: checked options and one private generator.

    Bytes equal the reference's only if the generator is drawn in its order over the same set operations: sets of ints
    iterate by table slot (`list({8, 1})` is `[8, 1]`), the same in every process but not ascending beyond 8 categories.
    """

    def __init__(self, configs: FormatterConfigs) -> None:
        self._rng = random.Random(configs.random_seed)
        self._guidelines, self._prompt = configs.guidelines, configs.llama_guard_prompt_configs
        self._generation, self._copies = configs.llama_guard_generation_configs, configs.augmentation_configs
        self._drops_others = self._copies.should_add_examples_with_dropped_nonviolated_prompt_categories
        self._drops_violated = self._copies.should_add_examples_with_dropped_violated_and_nonviolated_prompt_categories
        self._all = range(len(self._guidelines.categories))
        self._positions = {f"{self._guidelines.category_code_prefix}{i + 1}": i for i in self._all}
        self._check_options(configs.random_seed)

    def _check_options(self, seed: object) -> None:
        categories = self._guidelines.categories
        good = bool(categories) and all(isinstance(category, Category) for category in categories)
        require(good, "categories", categories, "give at least one Category")
        require(isinstance(seed, int), "random_seed", seed, "a rerun needs an int")
        position, template = self._generation.explanation_position, self._prompt.instructions_format_string
        good = position in (None, *ExplanationPosition)
        require(good, "explanation_position", position, "give an ExplanationPosition or None")
        fields = {field for _, field, _, _ in Formatter().parse(template)} - {None}
        good = {"conversation"} <= fields <= {"conversation", "guidelines"}
        require(good, "instructions_format_string", template, "show {conversation}, {guidelines}; double other braces")
        chance = self._copies.probability_to_add_safe_examples_with_empty_responses
        require(0 <= chance <= 1, "probability_to_add_safe_examples_with_empty_responses", chance, "give 0 to 1")
        for copy, added in (
            ("safe_example_with_empty_response", chance > 0),
            ("dropped_violated_and_nonviolated_prompt_categories", self._drops_violated),
        ):
            name = f"explanation_for_augmentation_with_{copy}"
            why = getattr(self._copies, name)
            good = not added or position is None or isinstance(why, str)
            require(good, name, why, "say why these added examples are safe, or add none")

    def lines(self, index: int, example: TrainingExample) -> Iterator[str]:
        self._check(f"training example {index}:", example)
        violated = [self._positions[code] for code in example.violated_category_codes]
        yield self._line(example, violated, self._all)

        safe = replace(example, label="safe", violated_category_codes=[])
        chance = self._copies.probability_to_add_safe_examples_with_empty_responses
        if example.response not in (None, "N/A", "") and self._rng.random() < chance:
            why = self._copies.explanation_for_augmentation_with_safe_example_with_empty_response
            yield self._line(replace(safe, response="", explanation=why), [], self._all)

        others = list(set(self._all) - set(violated))
        if self._drops_others:
            count = min(self._rng.randint(0, len(others)), len(self._all) - 1)
            dropped = self._rng.sample(others, count)
            yield self._line(example, violated, set(self._all) - set(dropped))
        if self._drops_violated and violated and others:
            dropped = self._rng.sample(others, self._rng.randint(0, len(others) - 1))
            why = self._copies.explanation_for_augmentation_with_dropped_violated_and_nonviolated_prompt_categories
            yield self._line(replace(safe, explanation=why), [], set(self._all) - set(violated) - set(dropped))

    def _check(self, where: str, example: TrainingExample) -> None:
        codes, label, listed = example.violated_category_codes, example.label, f"{where} violated_category_codes"
        require(isinstance(example.prompt, str), f"{where} prompt", example.prompt, "give its text or drop it")
        require(isinstance(example.response, str | None), f"{where} response", example.response, "give text or None")
        require(label in ("safe", "unsafe"), f"{where} label", label, "write 'safe' or 'unsafe'")
        require(isinstance(codes, list | tuple), listed, codes, "give a list, [] when safe")
        for code in codes:
            fix = f"write one of {len(self._positions)} as {next(iter(self._positions))!r}"
            require(isinstance(code, str) and code in self._positions, f"{where} a violated code", code, fix)
        require(not codes or label == "unsafe", f"{listed} of a safe one", codes, "label it 'unsafe' or give []")
        needed = self._generation.should_list_violated_codes or self._drops_others or self._drops_violated
        good = bool(codes) or label == "safe" or not needed
        require(good, f"{listed} of an unsafe one", codes, "list what is violated or label it 'safe'")
        good = self._generation.explanation_position is None or isinstance(example.explanation, str)
        require(good, f"{where} explanation", example.explanation, "give the text to train on")

    def _line(self, example: TrainingExample, violated: list[int], shown: Collection[int]) -> str:
        """Writes one text whose prompt shows the categories at the given 0-based positions, numbered anew."""
        shuffled = self._prompt.should_shuffle_category_codes
        order = list(shown) if shuffled else sorted(shown)
        if shuffled:
            self._rng.shuffle(order)
        codes = {place: f"{self._guidelines.category_code_prefix}{number}" for number, place in enumerate(order, 1)}
        guidelines = ""
        for place, code in codes.items():
            category = self._guidelines.categories[place]
            guidelines += f"\n{code}: {category.name}. "
            if self._prompt.should_include_category_descriptions:
                guidelines += f"\n{category.description}"
        conversation = f"human: {example.prompt}"
        if example.response not in (None, "N/A"):
            conversation += f"\n\nchatbot: {example.response}"
        prompt = self._prompt.instructions_format_string.format(guidelines=guidelines, conversation=conversation)
        return f"{prompt} {self._answer(example, [codes[place] for place in set(violated)])}"

    def _answer(self, example: TrainingExample, codes: list[str]) -> str:
        answer, position = str(example.label), self._generation.explanation_position
        if codes and self._generation.should_list_violated_codes:
            answer += "\n" + ",".join(codes)
        if position is ExplanationPosition.BEFORE_DECISION:
            return f"Explanation: {example.explanation}\n{answer}"
        return answer if position is None else f"{answer}\nExplanation: {example.explanation}"


_BLOCK = 16
"""So many examples are followed by their copies under one smaller policy, so that a batch still shares prefixes."""


def write_training_file(
    examples: Iterable[Example],
    path: Path,
    policy: Taxonomy,
    configs: FormatterConfigs | None = None,
    *,
    policies: int = 16,
) -> int:
    r"""Writes examples as training rows of ASCII JSON, one a line; the file is written whole or not at all.

    A row is `{"policy": ["S1", "S2"], "turns": [["User", "Ask 10.0.0.1"]], "answer": "unsafe\nS2"}`: the taxonomy's
    codes in the order shown, the conversation, the answer. A smaller policy keeps the codes of the whole, as Llama
    Guard's own template does. Where spans of an example have a place and amount to its codes, `"evidence": [[12,
    "S2"]]` gives their ends and codes.

    Args:
        examples: With codes of the policy.
        path: File to write.
        policy: The whole policy, under which each example is shown once.
        configs: Where given, its augmentations add copies under smaller policies, and its shuffling decides whether
            these are in another order; the texts' own options do not enter.
        policies: How many smaller policies are drawn, with its `random_seed`.

    Returns:
        Number of rows.

    Raises:
        ValueError: An example with a code that the policy lacks.
    """
    require_list(examples, "examples")
    lines = []
    for index, (example, shown) in enumerate(_rows(list(examples), policy, configs, policies)):
        if unknown := set(example.codes) - set(policy.codes):
            raise ValueError(f"example {example.id!r} has {sorted(unknown)}, policy {policy.name!r} {policy.codes}")
        row: dict[str, Any] = {
            "policy": shown,
            "turns": example.conversation,
            "answer": Verdict.of(code for code in example.codes if code in shown).text,
        }
        spans = [span for span in example.spans if span.end > 0]
        # Where codes were corrected and spans were not, the two contradict each other.
        if spans and {span.code for span in spans} - {None} == set(example.codes):
            row["evidence"] = [(span.end, span.code if span.code in shown else "safe") for span in spans]
        lines.append(json.dumps(row))
        read_training_row(lines[-1], policy, where=f"row {index}")  # what is written can be read
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def _rows(
    examples: Sequence[Example], policy: Taxonomy, configs: FormatterConfigs | None, policies: int
) -> Iterator[tuple[Example, tuple[str, ...]]]:
    """Each example with the codes that its prompt shows: all, and those of its copies."""
    if configs is None or len(policy) == 1:
        yield from ((example, policy.codes) for example in examples)
        return
    copies, rng = configs.augmentation_configs, random.Random(configs.random_seed)
    drops_others = copies.should_add_examples_with_dropped_nonviolated_prompt_categories
    drops_violated = copies.should_add_examples_with_dropped_violated_and_nonviolated_prompt_categories
    drawn = [rng.sample(policy.codes, rng.randint(1, len(policy) - 1)) for _ in range(policies)]
    if not configs.llama_guard_prompt_configs.should_shuffle_category_codes:
        drawn = [sorted(codes, key=policy.position) for codes in drawn]
    for start in range(0, len(examples), _BLOCK):
        block, shown = examples[start : start + _BLOCK], rng.choice(drawn)
        yield from ((example, policy.codes) for example in block)
        for example in block:
            if drops_violated if set(example.codes) - set(shown) else drops_others:
                yield example, tuple(shown)
