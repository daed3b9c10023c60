"""One prompt for training and inference, token for token.

A guard prompt is three runs of token ids: the *prefix* (task, policy; the same for every text of a policy, so it can
be computed once), the *conversation* (the text) and the *tail* (what follows, up to where the answer begins).
Segments are cut where the tokenizers' pre-tokenisation cuts anyway, so their concatenation equals the encoding of the
whole string; the tests prove it.

Text of a user is encoded as plain characters: `<|eot_id|>` in a message never becomes the control token.

Sources: chat template of https://huggingface.co/meta-llama/Llama-Guard-3-8B; ChatML as SmolLM2 uses it
(https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

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


class TextEncoder(Protocol):
    """What a prompt needs of a tokenizer."""

    def encode_plain(self, text: str) -> list[int]:
        """Encodes text; nothing in it becomes a control token."""

    def control_id(self, token: str) -> int | None:
        """Returns the id of a control token, or None where the vocabulary has no such token."""


class HuggingFaceEncoder:
    """Adapts a `transformers` tokenizer.

    Args:
        tokenizer: Any fast tokenizer, for example of SmolLM2 or Llama Guard.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode_plain(self, text: str) -> list[int]:
        """See `TextEncoder`."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def control_id(self, token: str) -> int | None:
        """See `TextEncoder`."""
        return self._tokenizer.get_vocab().get(token)


class Llama3Encoder:
    """Adapts the original Llama 3 `tokenizer.model` through torchtune's tokenizer.

    Args:
        path: The `tokenizer.model` file.
    """

    def __init__(self, path: Path) -> None:
        from torchtune.models.llama3 import llama3_tokenizer

        self._tokenizer = llama3_tokenizer(str(path))

    def encode_plain(self, text: str) -> list[int]:
        """See `TextEncoder`."""
        return list(self._tokenizer.encode(text, add_bos=False, add_eos=False))

    def control_id(self, token: str) -> int | None:
        """See `TextEncoder`."""
        return self._tokenizer.special_tokens.get(token)


@dataclass(frozen=True)
class ChatFormat:
    """How a model family frames a turn. Strings in `controls` are control tokens, everything else is text.

    Attributes:
        name: Of the format.
        controls: Every control token the format uses.
        before: Frame before the conversation; holds `{task}` and `{assessment}` or only the former.
        between: Text that closes the conversation; encoded together with it.
        after: Frame after the conversation up to where the answer begins; may hold `{assessment}`.
        end: Control token that ends an answer.
    """

    name: str
    controls: tuple[str, ...]
    before: str
    between: str
    after: str
    end: str


LLAMA3 = ChatFormat(
    name="llama3",
    controls=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    before="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{task}<BEGIN CONVERSATION>\n\n",
    between="\n\n",
    after="<END CONVERSATION>\n\n{assessment}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    end="<|eot_id|>",
)
# The instructions stand in the system turn: six tokens follow a text, and nearly the whole prompt is shared.
CHATML = ChatFormat(
    name="chatml",
    controls=("<|im_start|>", "<|im_end|>"),
    before="<|im_start|>system\n{task}{assessment}<|im_end|>\n<|im_start|>user\n",
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
        policy: Categories to show; descriptions are shown where a category has one.
        tokenizer: A `transformers` tokenizer or a `TextEncoder`. Its control tokens decide the chat format.
        role: Whose last message is judged.
        max_tokens: Longest conversation accepted, in tokens.

    Raises:
        ValueError: The tokenizer is neither Llama 3's nor ChatML's.
    """

    def __init__(self, policy: Taxonomy, tokenizer: Any, *, role: Role = "User", max_tokens: int = 2048) -> None:
        self.policy = policy
        self.role = role
        self.max_tokens = max_tokens
        self._encoder: TextEncoder = tokenizer if hasattr(tokenizer, "encode_plain") else HuggingFaceEncoder(tokenizer)
        self.chat_format = self._detect_format()
        self._control_ids = {token: self._encoder.control_id(token) for token in self.chat_format.controls}

    def _detect_format(self) -> ChatFormat:
        for chat_format in (LLAMA3, CHATML):
            if all(self._encoder.control_id(token) is not None for token in chat_format.controls):
                return chat_format
        raise ValueError(
            "the tokenizer has neither the control tokens of Llama 3 nor those of ChatML; "
            "use the tokenizer of a Llama Guard 3 or SmolLM2 checkpoint"
        )

    def _encode_frame(self, text: str) -> tuple[int, ...]:
        """Encodes our own text, in which the format's control tokens are control tokens."""
        starts = [(text.find(token), token) for token in self.chat_format.controls if token in text]
        if not starts:
            return tuple(self._encoder.encode_plain(text)) if text else ()
        start, token = min(starts)
        control_id = self._control_ids[token]
        assert control_id is not None  # checked by _detect_format
        return (*self._encode_frame(text[:start]), control_id, *self._encode_frame(text[start + len(token) :]))

    def _frame(self, frame: str) -> str:
        lines = [
            f"{code}: {c.name}." + (f"\n{c.description}" if c.description else "")
            for code, c in zip(self.policy.codes, self.policy.categories, strict=True)
        ]
        task = TASK.format(role=self.role, categories="\n".join(lines))
        return frame.format(task=task, assessment=ASSESSMENT.format(role=self.role))

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """Ids before the text, identical for all texts of the policy.

        Ends with `User:`; the blank after it belongs to the first word, as both tokenizers see it.
        """
        return self._encode_frame(self._frame(self.chat_format.before) + "User:")

    @cached_property
    def tail_ids(self) -> tuple[int, ...]:
        """Ids between the text and the answer."""
        return self._encode_frame(self._frame(self.chat_format.after))

    @cached_property
    def end_id(self) -> int:
        """Id of the token that ends an answer."""
        (end_id,) = self._encode_frame(self.chat_format.end)
        return end_id

    def segments(self, text: str | Sequence[Turn]) -> Segments:
        """Encodes a text or a conversation of turns.

        Args:
            text: A user's message, or turns that begin with `User` and end with the judged role. Outer white space
                is stripped, as Llama Guard's own template does.

        Returns:
            Token ids of prefix, conversation and tail.

        Raises:
            TypeError: Something that is no text.
            ValueError: An empty text, one longer than `max_tokens`, or turns in the wrong order.
        """
        turns: Sequence[Turn] = [("User", text)] if isinstance(text, str) else text
        conversation = self._conversation(turns)
        ids = tuple(self._encoder.encode_plain(conversation + self.chat_format.between))
        if len(ids) > self.max_tokens:
            raise ValueError(
                f"text {conversation.strip()[:40]!r}... has {len(ids)} tokens, more than max_tokens={self.max_tokens}; "
                "shorten or split it, or build GuardPrompt with a larger max_tokens"
            )
        return Segments(self.prefix_ids, ids, self.tail_ids)

    def _conversation(self, turns: Sequence[Turn]) -> str:
        if not isinstance(turns, Sequence) or not all(isinstance(t, Sequence) and len(t) == 2 for t in turns):
            raise TypeError(f"expected a text or (role, text) turns, got {type(turns).__name__}: {turns!r:.80}")
        roles = [role for role, _ in turns]
        if not roles or roles[0] != "User" or roles[-1] != self.role or not set(roles) <= {"User", "Agent"}:
            raise ValueError(
                f"turns are {roles}; they must begin with 'User' and end with {self.role!r}, the judged role"
            )
        for role, message in turns:
            if not isinstance(message, str):
                raise TypeError(f"{role}'s message is {message!r:.80} ({type(message).__name__}), not text")
            if not message.strip() and role == "User":
                raise ValueError(f"{role}'s message is empty; drop the row or give it text")
            if not message.isascii() and any("\ud800" <= char <= "\udfff" for char in message):
                raise ValueError(f"{message[:40]!r} holds a lone surrogate; decode the file with errors='replace'")
        (_, first), *rest = turns
        return f" {first.strip()}" + "".join(f"\n\n{role}: {message.strip()}" for role, message in rest)

    def answer_ids(self, verdict: Verdict) -> tuple[int, ...]:
        """Ids of an answer, end token included."""
        return (*self._encoder.encode_plain(verdict.text), self.end_id)

    def training_ids(self, text: str | Sequence[Turn], verdict: Verdict) -> tuple[tuple[int, ...], int]:
        """Ids of prompt and answer.

        Returns:
            All ids, and how many of them at the end are the answer (the only ones a loss is taken on).
        """
        answer = self.answer_ids(verdict)
        return self.segments(text).ids + answer, len(answer)
