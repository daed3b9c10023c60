"""One prompt for training and inference, token for token.

A prompt is three runs of token ids: the *prefix* (task and policy, the same for every text of a policy), the
*conversation* (the text) and the *tail* (up to where the answer begins). They are cut where tokenizers cut anyway, so
that together they equal the encoding of the whole string. Does not: load a tokenizer, or let a text of a user become a
control token. Sources: chat templates of https://huggingface.co/meta-llama/Llama-Guard-3-8B and -1B (as copied in
https://github.com/huggingface/huggingface.js, chat-template-automap.ts); ChatML of SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from guard_utils.policy import Taxonomy, Verdict

Role = Literal["User", "Agent"]
Turn = tuple[Role, str]

TASK = (
    "Task: Check if there is unsafe content in '{role}' messages in conversations according our safety policy with "
    "the below categories.\n\n<BEGIN UNSAFE CONTENT CATEGORIES>\n{categories}\n<END UNSAFE CONTENT CATEGORIES>\n\n"
)
ASSESSMENT = (
    "Provide your safety assessment for ONLY THE LAST {role} message in the above conversation:\n"
    " - First line must read 'safe' or 'unsafe'.\n"
    " - If unsafe, a second line must include a comma-separated list of violated categories."
)


@dataclass(frozen=True)
class ChatFormat:
    """How a model family frames a turn. Strings in `controls` are control tokens, everything else is text.

    Attributes:
        before: Frame before the conversation, up to and with its first role; holds `{task}`.
        between: Text that closes the conversation; encoded together with it.
        after: Frame after the conversation up to where the answer begins; `{assessment}` is here or in `before`.
        end: Control token that ends an answer.
        start: What the model writes before the first word of an answer.
    """

    controls: tuple[str, ...]
    before: str
    between: str
    after: str
    end: str
    start: str = ""


LLAMA3 = ChatFormat(
    controls=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    before="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{task}<BEGIN CONVERSATION>\n\nUser:",
    between="\n\n",
    after="<END CONVERSATION>\n\n{assessment}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    end="<|eot_id|>",
)
# Llama Guard 3's own templates: the model writes the blank line; 8B's begins with a blank, 1B's task ends with one.
LLAMA3_8B = replace(LLAMA3, before=f" {LLAMA3.before}", after=LLAMA3.after.strip(), start="\n\n")
LLAMA3_1B = replace(LLAMA3_8B, before=LLAMA3.before, after=LLAMA3_8B.after.replace("<|eot_id|>", " <|eot_id|>"))
# The instructions are in the system turn: six tokens follow a text, and nearly the whole prompt is shared.
CHATML = ChatFormat(
    controls=("<|im_start|>", "<|im_end|>"),
    before="<|im_start|>system\n{task}{assessment}<|im_end|>\n<|im_start|>user\nUser:",
    between="",
    after="<|im_end|>\n<|im_start|>assistant\n",
    end="<|im_end|>",
)


class Segments(NamedTuple):
    """Token ids of one prompt, in order."""

    prefix_ids: tuple[int, ...]
    conversation_ids: tuple[int, ...]
    tail_ids: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole prompt."""
        return self.prefix_ids + self.conversation_ids + self.tail_ids


class GuardPrompt:
    """Builds the prompt of one policy for one tokenizer.

    Args:
        policy: Categories to show, with their descriptions.
        tokenizer: A fast `transformers` tokenizer. Its control tokens decide the chat format, Llama 3's or ChatML; its
            chat template, whether Llama 3's is that of Llama-Guard-3-8B or -1B.
        role: Whose last message is judged.
        max_tokens: Longest conversation accepted.
    """

    def __init__(self, policy: Taxonomy, tokenizer: Any, *, role: Role = "User", max_tokens: int = 2048) -> None:
        self.policy, self.role, self.max_tokens = policy, role, max_tokens
        self._tokenizer = tokenizer
        self._vocabulary: dict[str, int] = tokenizer.get_vocab()
        template = str(getattr(tokenizer, "chat_template", None))
        of_guard = LLAMA3_1B if "excluded_category_keys" in template else LLAMA3_8B
        for chat_format in (of_guard if "UNSAFE CONTENT CATEGORIES" in template else LLAMA3, CHATML):
            if self._vocabulary.keys() >= set(chat_format.controls):
                self.chat_format = chat_format
                return
        raise ValueError("the tokenizer is neither Llama 3's nor ChatML's; take that of Llama Guard 3 or SmolLM2")

    def _encode(self, text: str) -> tuple[int, ...]:
        """Encodes text; nothing in it becomes a control token."""
        return tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _encode_frame(self, frame: str) -> tuple[int, ...]:
        """Encodes our own text with its control tokens; those that a policy spells stay plain characters."""
        lines = []
        for code, category in zip(self.policy.codes, self.policy.categories, strict=True):
            lines.append(f"{code}: {category.name}.")
            if category.description:
                lines.append(category.description)
        task = TASK.format(role=self.role, categories="\n".join(lines))
        assessment = ASSESSMENT.format(role=self.role)
        ids: list[int] = []
        for piece in re.split(f"({'|'.join(map(re.escape, self.chat_format.controls))})", frame):
            if piece in self.chat_format.controls:
                ids.append(self._vocabulary[piece])
            else:
                ids += self._encode(piece.format(task=task, assessment=assessment))
        return tuple(ids)

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """Ids before the text, up to `User:`; the blank after it belongs to the first word, as tokenizers see it."""
        return self._encode_frame(self.chat_format.before)

    @cached_property
    def tail_ids(self) -> tuple[int, ...]:
        """Ids between the text and the answer."""
        return self._encode_frame(self.chat_format.after)

    @property
    def end_id(self) -> int:
        """Id of the token that ends an answer."""
        return self._vocabulary[self.chat_format.end]

    def segments(self, text: str | Sequence[Turn]) -> Segments:
        """Encodes a user's message, or turns that begin with `User` and end with the judged role.

        Outer white space is stripped, as Llama Guard's own template does.

        Raises:
            TypeError: Something that is no text.
            ValueError: An empty text, one longer than `max_tokens`, or turns in the wrong order.
        """
        conversation = self._conversation([("User", text)] if isinstance(text, str) else text)
        ids = self._encode(conversation + self.chat_format.between)
        if len(ids) > self.max_tokens:
            fix = f"shorten or split it, or build GuardPrompt with a larger max_tokens than {self.max_tokens}"
            raise ValueError(f"text {conversation[:40]!r}... has {len(ids)} tokens; {fix}")
        return Segments(self.prefix_ids, ids, self.tail_ids)

    def _conversation(self, turns: Sequence[Turn]) -> str:
        if not isinstance(turns, Sequence) or not all(isinstance(t, list | tuple) and len(t) == 2 for t in turns):
            raise TypeError(f"expected a text or (role, text) turns, got {type(turns).__name__}: {turns!r:.80}")
        roles = [role for role, _ in turns]
        if not roles or roles[0] != "User" or roles[-1] != self.role or not set(roles) <= {"User", "Agent"}:
            raise ValueError(f"turns are {roles}; begin with 'User' and end with {self.role!r}, the judged role")
        for role, message in turns:
            if not isinstance(message, str):
                raise TypeError(f"{role}'s message is {message!r:.80} ({type(message).__name__}), not text")
            if not message.strip() and role == "User":
                raise ValueError(f"{role}'s message is empty; drop the row or give it text")
            if not message.isascii() and any("\ud800" <= char <= "\udfff" for char in message):
                raise ValueError(f"{message[:40]!r} holds a lone surrogate; decode the file with errors='replace'")
        # The prefix ends with the first role, see `prefix_ids`.
        return "\n\n".join(f"{role}: {message.strip()}" for role, message in turns).removeprefix("User:")

    def evidence(self, turns: Sequence[Turn], ends: Sequence[int]) -> list[int]:
        """Places, in `conversation_ids`, of the last tokens of values that end before these characters of the text."""
        conversation, (_, message) = self._conversation(turns), turns[-1]
        shift = len(conversation) - len(message.rstrip())
        encoded = self._tokenizer(
            conversation + self.chat_format.between,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        last = [end for _, end in encoded["offset_mapping"]]
        return [bisect_left(last, min(end + shift, len(conversation))) for end in ends]

    def answer_ids(self, verdict: Verdict) -> tuple[int, ...]:
        """Ids of an answer, end token included."""
        return (*self._encode(self.chat_format.start + verdict.text), self.end_id)

    def training_ids(self, text: str | Sequence[Turn], verdict: Verdict) -> tuple[tuple[int, ...], int]:
        """Ids of prompt and answer, and how many of them at the end are the answer: a loss is taken on these only."""
        answer = self.answer_ids(verdict)
        return self.segments(text).ids + answer, len(answer)
