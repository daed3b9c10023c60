"""Train many examples behind one copy of their prompt's prefix.

A guard example is some 230 tokens of policy for 50 tokens of text and 6 of answer. Stock recipes run the policy anew
for each example and project every token on the vocabulary. Here the examples of one policy stand in one packed sequence

    prefix  conversation_1  conversation_2  ...

in which every conversation attends to the prefix and to itself, with positions that go on after the prefix, and
logits are computed only where a label stands. Loss and gradients are those of the stock batches
(tests/test_shared_prefix.py): attention is the only place where tokens of a transformer meet.

Linear layers see the packed sequence and waste nothing on padding. Attention of all conversations on the prefix is one
matrix product (the decomposition of Hydragen, arXiv 2402.05099); attention within conversations is batched over
neighbours in length. torchtune's own modules do everything else, adapters and checkpointing among it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

Layout = dict[str, Tensor]
"""Where the parts of a packed sequence stand; passed through torchtune as the attention mask.

`lengths`: of every part in order, each prefix before its conversations. `counts`: [policies] conversations of each;
filling at the end counts as a policy with none.
"""

# Neighbours in length are padded together; more would pad more, fewer would call more kernels.
CONVERSATIONS_PER_CHUNK = 8
# Tensors of a few sizes are allocated again and again. Those of a thousand sizes scatter over the C library's heap:
# a CPU run of 120 steps grew to twice the memory that it needs.
PACKED_MULTIPLE = 256
CHUNK_MULTIPLE = 32


def collate_shared_prefix(
    batch: Sequence[dict[str, Any]], *, padding_idx: int = 0, ignore_idx: int = -100
) -> dict[str, Tensor | Layout]:
    """Packs examples behind one copy of each distinct prefix. A `collate_fn` for torchtune.

    Args:
        batch: Examples with `tokens` and `labels` (equally long lists of ids, labels not yet shifted) and
            `prefix_length`, the number of leading tokens that are the policy's prefix.
        padding_idx: Fills the sequence up to a multiple of `PACKED_MULTIPLE`, as a prefix without conversations.
        ignore_idx: Label of tokens without loss.

    Returns:
        `tokens`, `labels` and `input_pos`, each [1, packed length], and `mask`, the `Layout`.

    Raises:
        ValueError: A prefix carries a label, or a conversation is empty.
    """
    groups: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in batch:
        length = row["prefix_length"]
        if length >= len(row["tokens"]) or any(label != ignore_idx for label in row["labels"][: length + 1]):
            raise ValueError(f"example with prefix_length={length} has no conversation or a label in its prefix")
        groups.setdefault(tuple(row["tokens"][:length]), []).append(row)

    tokens: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    for prefix, rows in groups.items():
        length = len(prefix)
        lengths.append(length)
        tokens += prefix
        labels += [ignore_idx] * length
        positions += range(length)
        for row in sorted(rows, key=lambda row: len(row["tokens"])):
            lengths.append(len(row["tokens"]) - length)
            tokens += row["tokens"][length:]
            labels += row["labels"][length:]
            positions += range(length, len(row["tokens"]))
    counts = [len(rows) for rows in groups.values()]
    if filler := -len(tokens) % PACKED_MULTIPLE:
        lengths.append(filler)
        counts.append(0)
        tokens += [padding_idx] * filler
        labels += [ignore_idx] * filler
        positions += range(filler)
    return {
        "tokens": torch.tensor([tokens]),
        "labels": torch.tensor([labels]),
        "input_pos": torch.tensor([positions]),
        "mask": {"lengths": torch.tensor(lengths), "counts": torch.tensor(counts)},
    }


def _causal_bias(length: int, like: Tensor) -> Tensor:
    return torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu(1)


def _padded(pieces: Sequence[Tensor]) -> Tensor:
    """[heads, length, dim] of different lengths to [heads, pieces, longest (rounded up), dim]."""
    padded = pad_sequence([piece.transpose(0, 1) for piece in pieces], batch_first=True)
    return pad(padded, (0, 0, 0, 0, 0, -padded.shape[1] % CHUNK_MULTIPLE)).permute(2, 0, 1, 3)


def _attend_prefix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query @ key.transpose(-1, -2) + _causal_bias(query.shape[1], query)
    return torch.softmax(scores, dim=-1) @ value


def _attend_conversations(
    queries: Sequence[Tensor], keys: Sequence[Tensor], values: Sequence[Tensor], prefix: tuple[Tensor, Tensor]
) -> list[Tensor]:
    """Attention of a few conversations of one policy on its prefix and on themselves.

    Args:
        queries: One [heads, length, dim] for each conversation, scaled.
        keys: Likewise, not scaled.
        values: Likewise.
        prefix: Key and value of the prefix, [heads, prefix length, dim].

    Returns:
        One [heads, length, dim] for each conversation.
    """
    q, k, v = _padded(queries), _padded(keys), _padded(values)
    prefix_key, prefix_value = prefix
    heads, count, longest, dim = q.shape
    on_prefix = q.reshape(heads, count * longest, dim) @ prefix_key.transpose(-1, -2)
    on_itself = q @ k.transpose(-1, -2) + _causal_bias(longest, q)
    weights = torch.softmax(torch.cat([on_prefix.view(heads, count, longest, -1), on_itself], dim=-1), dim=-1)
    prefix_weights, own_weights = weights.split([prefix_key.shape[1], longest], dim=-1)
    from_prefix = prefix_weights.reshape(heads, count * longest, -1) @ prefix_value
    out = from_prefix.view(heads, count, longest, dim) + own_weights @ v
    return [out[:, i, : query.shape[1]] for i, query in enumerate(queries)]


def shared_prefix_attention(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Layout, dropout_p: float = 0.0, is_causal: bool = False
) -> Tensor:
    """Attention over a packed sequence in which conversations share their policy's prefix.

    Args:
        query: [1, heads, packed, dim].
        key: Likewise.
        value: Likewise.
        mask: The layout that `collate_shared_prefix` made.
        dropout_p: Must be 0.
        is_causal: Ignored; the layout says who sees whom.

    Returns:
        [1, heads, packed, dim].

    Raises:
        ValueError: Attention dropout, which this form does not have.
    """
    if dropout_p:
        raise ValueError(f"attn_dropout={dropout_p} is not supported with a shared prefix; set model.attn_dropout: 0.0")
    # Backward computes the attention weights again: kept, they would be a third of all activations.
    return cast(Tensor, checkpoint(_attend, query[0], key[0], value[0], mask, use_reentrant=False)).unsqueeze(0)


def _attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """[heads, packed, dim] each; returns the same."""
    # One split, whose backward is one concatenation: slices would each write a gradient of full length.
    lengths = layout["lengths"].tolist()
    q = (query * query.shape[-1] ** -0.5).split(lengths, dim=1)
    k, v = key.split(lengths, dim=1), value.split(lengths, dim=1)
    pieces: list[Tensor] = []
    prefix_at = 0
    for count in layout["counts"].tolist():
        pieces.append(_attend_prefix(q[prefix_at], k[prefix_at], v[prefix_at]))
        end = prefix_at + 1 + count
        for first in range(prefix_at + 1, end, CONVERSATIONS_PER_CHUNK):
            chunk = slice(first, min(first + CONVERSATIONS_PER_CHUNK, end))
            pieces += _attend_conversations(q[chunk], k[chunk], v[chunk], (k[prefix_at], v[prefix_at]))
        prefix_at = end
    return torch.cat(pieces, dim=1)


def use_shared_prefix(model: nn.Module) -> nn.Module:
    """Lets every attention layer of a torchtune model read a `Layout` mask. Returns the same model.

    Raises:
        ValueError: The model has no torchtune attention.
    """
    from torchtune.modules import MultiHeadAttention

    layers = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no torchtune MultiHeadAttention; use a torchtune model builder")
    for layer in layers:
        layer._attention_call = shared_prefix_attention
    return model


@contextmanager
def only_positions(model: nn.Module, positions: Tensor) -> Iterator[None]:
    """Within, the model normalises and projects only the given positions of a packed sequence.

    Args:
        model: A torchtune `TransformerDecoder`.
        positions: [labels] indices into the packed sequence.
    """
    hook = cast(Any, model).norm.register_forward_pre_hook(lambda _, args: (args[0][:, positions],))
    try:
        yield
    finally:
        hook.remove()


def shared_prefix_loss(
    model: nn.Module, loss_fn: nn.Module, batch: dict[str, Any], *, ignore_idx: int = -100
) -> Tensor:
    """Mean loss of the labels of a packed batch; logits exist only where a label stands.

    Args:
        model: A model prepared by `use_shared_prefix`.
        loss_fn: Takes logits [labels, vocabulary] and labels [labels].
        batch: What `collate_shared_prefix` returned, on the model's device; `labels` is taken out of it.
        ignore_idx: Label of tokens without loss.

    Returns:
        A scalar.
    """
    labels = batch.pop("labels")[0]
    # The logits of position i predict the token at i + 1. A prefix and a conversation's first token carry no label,
    # so nothing is predicted across the seams of the packed sequence.
    positions = (labels[1:] != ignore_idx).nonzero(as_tuple=True)[0]
    with only_positions(model, positions):
        logits = model(**batch)
    return cast(Tensor, loss_fn(logits[0], labels[positions + 1]))
