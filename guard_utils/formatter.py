"""Fine-tuning examples as Llama Guard's own formatter writes them.

The same bytes as Meta's `finetuning_data_formatter.py` (https://github.com/meta-llama/llama-recipes) for valid input
and an equal seed, from a generator of its own, and no object of the caller is changed.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from string import Formatter
from typing import Literal

from guard_utils.policy import Category


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
    """The prompt: a text with `{conversation}` and `{guidelines}`; with descriptions or not; codes shuffled or not."""

    instructions_format_string: str
    should_include_category_descriptions: bool
    should_shuffle_category_codes: bool = True


@dataclass(frozen=True)
class LlamaGuardGenerationConfigs:
    """The answer: with a line of violated codes or not, and where the explanation goes (None: nowhere)."""

    should_list_violated_codes: bool
    explanation_position: ExplanationPosition | None


@dataclass(frozen=True)
class AugmentationConfigs:
    """Which copies follow each example, and the explanations of the safe ones (required where answers explain).

    * With the given probability: a safe copy with an empty response, where there is a response.
    * Dropped non-violated: the prompt lacks a random number of categories that are not violated; at least one stays.
    * Dropped violated and non-violated: a safe copy of an unsafe example whose prompt lacks all violated and some other
      categories. Where every category is violated nothing would be left to show: no copy, and nothing is drawn.
    """

    probability_to_add_safe_examples_with_empty_responses: float = 0
    explanation_for_augmentation_with_safe_example_with_empty_response: str | None = None
    should_add_examples_with_dropped_nonviolated_prompt_categories: bool = True
    should_add_examples_with_dropped_violated_and_nonviolated_prompt_categories: bool = False
    explanation_for_augmentation_with_dropped_violated_and_nonviolated_prompt_categories: str | None = None


@dataclass(frozen=True)
class FormatterConfigs:
    """Everything the formatter needs; an equal `random_seed` gives equal output."""

    guidelines: Guidelines
    llama_guard_prompt_configs: LlamaGuardPromptConfigs
    llama_guard_generation_configs: LlamaGuardGenerationConfigs
    augmentation_configs: AugmentationConfigs
    random_seed: int = 42


@dataclass(frozen=True)
class TrainingExample:
    """One judged prompt, or prompt and response.

    A response of `"N/A"` or None means a prompt alone. Codes (`"O1"`) are a set written as a list, empty exactly when
    safe; unsafe without codes is taken only where nothing needs them (not listed, no categories dropped). The
    explanation may be None where answers do not explain.
    """

    prompt: str
    response: str | None
    violated_category_codes: list[str]
    label: Literal["safe", "unsafe"]
    explanation: str | None


def create_formatted_finetuning_examples(
    training_examples: Iterable[TrainingExample], formatter_configs: FormatterConfigs
) -> list[str]:
    """Writes examples and their augmentations as training texts: `list(iter_formatted_finetuning_examples(...))`."""
    return list(iter_formatted_finetuning_examples(training_examples, formatter_configs))


def iter_formatted_finetuning_examples(
    training_examples: Iterable[TrainingExample], formatter_configs: FormatterConfigs
) -> Iterator[str]:
    """Streams training texts (prompt, a space, answer): each example in turn, followed by its augmentations.

    Raises:
        ValueError: An option (at once) or an example (when its turn comes) is invalid: its index, value and the fix.
    """
    formatter = _Formatter(formatter_configs)
    return (line for index, example in enumerate(training_examples) for line in formatter.lines(index, example))


class _Formatter:
    """One run: checked options and one private generator.

    Bytes equal the reference's only if the generator is drawn in its order (a shuffle for each prompt; `random` for the
    empty response; `randint`, then `sample` for each dropping) over the same set operations. Sets of ints iterate by
    table slot (`list({8, 1})` is `[8, 1]`): the same in every process, but not ascending beyond 8 categories.
    """

    def __init__(self, configs: FormatterConfigs) -> None:
        _check_configs(configs)
        self._configs = configs
        self._rng = random.Random(configs.random_seed)
        self._prefix = configs.guidelines.category_code_prefix
        self._all = range(len(configs.guidelines.categories))
        self._positions = {f"{self._prefix}{i + 1}": i for i in self._all}

    def lines(self, index: int, example: TrainingExample) -> Iterator[str]:
        """Yields the example's text, then those of its augmentations."""
        options, generation = self._configs.augmentation_configs, self._configs.llama_guard_generation_configs
        drops_violated = options.should_add_examples_with_dropped_violated_and_nonviolated_prompt_categories
        drops_others = options.should_add_examples_with_dropped_nonviolated_prompt_categories
        codes_needed = generation.should_list_violated_codes or drops_violated or drops_others
        violated = violated_positions(index, example, self._positions, codes_needed=codes_needed)
        explained = generation.explanation_position is None or isinstance(example.explanation, str)
        require(explained, f"training example {index}: explanation", example.explanation, "give the text to train on")
        yield self._line(example, violated, self._all)

        safe = replace(example, label="safe", violated_category_codes=[])
        chance = options.probability_to_add_safe_examples_with_empty_responses
        if not is_prompt_only(example) and example.response != "" and self._rng.random() < chance:
            why = options.explanation_for_augmentation_with_safe_example_with_empty_response
            yield self._line(replace(safe, response="", explanation=why), [], self._all)

        others = list(set(self._all) - set(violated))
        if drops_others:
            count = min(self._rng.randint(0, len(others)), len(self._all) - 1)
            dropped = self._rng.sample(others, count)
            yield self._line(example, violated, set(self._all) - set(dropped))
        if drops_violated and violated and others:
            dropped = self._rng.sample(others, self._rng.randint(0, len(others) - 1))
            why = options.explanation_for_augmentation_with_dropped_violated_and_nonviolated_prompt_categories
            yield self._line(replace(safe, explanation=why), [], set(self._all) - set(violated) - set(dropped))

    def _line(self, example: TrainingExample, violated: list[int], shown: Collection[int]) -> str:
        """Writes one text whose prompt shows the categories at the given positions, numbered anew."""
        order, options = list(shown), self._configs.llama_guard_prompt_configs
        if options.should_shuffle_category_codes:
            self._rng.shuffle(order)
        else:
            order.sort()
        codes = {position: f"{self._prefix}{number}" for number, position in enumerate(order, 1)}
        guidelines = ""
        for position, code in codes.items():
            category = self._configs.guidelines.categories[position]
            guidelines += f"\n{code}: {category.name}. "
            if options.should_include_category_descriptions:
                guidelines += f"\n{category.description}"
        conversation = f"human: {example.prompt}"
        if not is_prompt_only(example):
            conversation += f"\n\nchatbot: {example.response}"
        fields = {"guidelines": guidelines, "conversation": conversation}
        answer = self._answer(example, [codes[position] for position in set(violated)])
        return f"{options.instructions_format_string.format_map(fields)} {answer}"

    def _answer(self, example: TrainingExample, codes: list[str]) -> str:
        options = self._configs.llama_guard_generation_configs
        answer: str = example.label
        if codes and options.should_list_violated_codes:
            answer += "\n" + ",".join(codes)
        if options.explanation_position is ExplanationPosition.BEFORE_DECISION:
            return f"Explanation: {example.explanation}\n{answer}"
        if options.explanation_position is ExplanationPosition.AFTER_DECISION:
            return f"{answer}\nExplanation: {example.explanation}"
        return answer


def require(good: bool, what: str, value: object, fix: str) -> None:
    if not good:
        raise ValueError(f"{what} is {value!r}; {fix}")


def is_prompt_only(example: TrainingExample) -> bool:
    return example.response is None or example.response == "N/A"


def violated_positions(
    index: int, example: TrainingExample, positions: Mapping[str, int], *, codes_needed: bool
) -> list[int]:
    """Checks one example and returns the 0-based positions of its codes as they are listed, repetitions included."""
    where, codes, label = f"training example {index}:", example.violated_category_codes, example.label
    require(isinstance(example.prompt, str), f"{where} prompt", example.prompt, "give its text or drop the example")
    require(isinstance(example.response, str | None), f"{where} response", example.response, "give text or None")
    require(label in ("safe", "unsafe"), f"{where} label", label, "write 'safe' or 'unsafe'")
    name = "violated_category_codes"
    require(isinstance(codes, list | tuple), f"{where} {name}", codes, "give a list, [] when safe")
    for code in codes:
        good = isinstance(code, str) and code in positions
        require(good, f"{where} a violated code", code, f"write one of {len(positions)} as {next(iter(positions))!r}")
    require(not codes or label == "unsafe", f"{where} 'safe', but {name}", codes, "label it 'unsafe' or empty them")
    unlisted = label == "unsafe" and not codes and codes_needed
    require(not unlisted, f"{where} 'unsafe', but {name}", codes, "list what is violated or label it 'safe'")
    return [positions[code] for code in codes]


def _check_configs(configs: FormatterConfigs) -> None:
    guidelines, template = configs.guidelines, configs.llama_guard_prompt_configs.instructions_format_string
    options, position = configs.augmentation_configs, configs.llama_guard_generation_configs.explanation_position
    texts = [guidelines.category_code_prefix, *(t for c in guidelines.categories for t in (c.name, c.description))]
    require(len(texts) > 1, "categories", guidelines.categories, "give at least one")
    require(all(isinstance(t, str) for t in texts), "guidelines", guidelines, "prefix, names, descriptions are text")
    require(isinstance(configs.random_seed, int), "random_seed", configs.random_seed, "a rerun needs an int")
    good = isinstance(position, ExplanationPosition | None)
    require(good, "explanation_position", position, "give a member of ExplanationPosition or None")
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template)} - {None}
    except (TypeError, ValueError) as error:
        raise ValueError(f"instructions_format_string is {template!r}; no format string: {error}") from error
    good = {"conversation"} <= fields <= {"conversation", "guidelines"}
    require(good, "instructions_format_string", template, "show {conversation} and {guidelines}, double other braces")
    chance = options.probability_to_add_safe_examples_with_empty_responses
    require(0 <= chance <= 1, "probability_to_add_safe_examples_with_empty_responses", chance, "give 0 to 1")
    drops_violated = options.should_add_examples_with_dropped_violated_and_nonviolated_prompt_categories
    for field, added in (
        ("explanation_for_augmentation_with_safe_example_with_empty_response", chance > 0),
        ("explanation_for_augmentation_with_dropped_violated_and_nonviolated_prompt_categories", drops_violated),
    ):
        why = getattr(options, field)
        good = not added or position is None or isinstance(why, str)
        require(good, field, why, "say why these added examples are safe, or add none")
