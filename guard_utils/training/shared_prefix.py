"""Trains many examples behind one copy of their prompt's prefix.

The examples of one policy form one packed sequence: `prefix conversation_1 conversation_2 ...`. Every conversation
attends to the prefix and to itself, with positions that continue after the prefix; logits are computed at labels only.
Tokens of a transformer meet in attention only, so loss and gradients equal those of stock batches
(tests/training/test_shared_prefix.py). Does not: attention dropout, tensor parallelism, generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

Layout = dict[str, Tensor]
"""Parts of a packed sequence; passes through torchtune in place of the attention mask.

`lengths`: tokens of every part in order, each prefix before its conversations; what pads the sequence is a part too.
`parts`: parts of each window, a prefix being a window of its own. `windows`: [policies] windows of each policy, its
prefix included. `labelled`: positions whose logits the loss needs.
"""

# Tokens of an attention window; a longer conversation has one of its own. Larger windows waste work on masked pairs,
# smaller ones call more kernels.
WINDOW = 256
# A packed sequence is a multiple of this: few lengths keep the C library's heap from fragmenting.
STEP = 64


class Window(NamedTuple):
    """A prefix, or neighbouring conversations of one policy.

    Attributes:
        length: Tokens.
        prefix: Index of the window with the policy's prefix; None for a prefix.
        bias: [length, keys] 0 where a token attends, -inf elsewhere; the prefix's keys come first.
    """

    length: int
    prefix: int | None
    bias: Tensor


def collate_shared_prefix(
    batch: Sequence[dict[str, Any]], *, padding_idx: int = 0, ignore_idx: int = -100
) -> dict[str, Tensor | Layout]:
    """Packs examples behind one copy of each distinct prefix. A `collate_fn` for torchtune.

    Args:
        batch: Rows of `GuardDataset`: `tokens`, `labels` (as long, not shifted) and `prefix_length`.
        padding_idx: Token that pads the sequence.
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

    parts: list[tuple[Sequence[int], Sequence[int], int]] = []  # ids, labels, and the position of the first
    sizes: list[int] = []  # parts of each window
    counts: list[int] = []
    for prefix, rows in groups.items():
        start, before, room = len(prefix), len(sizes), 0
        parts.append((prefix, [ignore_idx] * start, 0))
        sizes.append(1)
        for row in sorted(rows, key=lambda row: -len(row["tokens"])):
            ids, targets = row["tokens"][start:], row["labels"][start:]
            if len(ids) > room:
                sizes.append(0)
                room = WINDOW
            sizes[-1] += 1
            room -= len(ids)
            parts.append((ids, targets, start))
        counts.append(len(sizes) - before)
    if filler := -sum(len(ids) for ids, _, _ in parts) % STEP:
        parts.append(([padding_idx] * filler, [ignore_idx] * filler, start))
        sizes[-1] += 1
    labels = [label for _, targets, _ in parts for label in targets]
    # Logits at i predict the token at i + 1. Prefixes and first tokens of conversations have no label, so nothing is
    # predicted across the seams.
    labelled = [i for i, label in enumerate(labels[1:]) if label != ignore_idx]
    lengths = [len(ids) for ids, _, _ in parts]
    layout = {"lengths": lengths, "parts": sizes, "windows": counts, "labelled": labelled}
    return {
        "tokens": torch.tensor([[token for ids, _, _ in parts for token in ids]]),
        "labels": torch.tensor([labels]),
        "input_pos": torch.tensor([[place for ids, _, start in parts for place in range(start, start + len(ids))]]),
        "mask": {name: torch.tensor(numbers) for name, numbers in layout.items()},
    }


class Packed(NamedTuple):
    """What the layers of a model read in place of an attention mask: the windows, and the positions with a label."""

    windows: list[Window]
    labelled: Tensor


def windows(layout: Layout) -> list[Window]:
    """Divides a packed sequence: each prefix, then its conversations."""
    found: list[Window] = []
    of_windows = iter(layout["lengths"].split(layout["parts"].tolist()))
    for count in layout["windows"].tolist():
        prefix = len(found)
        for lengths in islice(of_windows, count):
            part = torch.repeat_interleave(lengths)
            hidden = ~(part[:, None] == part).tril()
            bias = torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))
            if len(found) > prefix:
                bias = pad(bias, (found[prefix].length, 0))
            found.append(Window(len(part), prefix if len(found) > prefix else None, bias))
    return found


def shared_prefix_attention(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Packed, dropout_p: float = 0.0, is_causal: bool = False
) -> Tensor:
    """Attention over a packed sequence, as torchtune calls it: tensors and result are [1, heads, packed, dim].

    The windows of `mask` replace `is_causal`; dropout is a ValueError.
    """
    if dropout_p:
        raise ValueError(f"attn_dropout={dropout_p} is not supported with a shared prefix; set model.attn_dropout: 0.0")
    return _attend(query[0], key[0], value[0], mask.windows).unsqueeze(0)


def _attend(query: Tensor, key: Tensor, value: Tensor, parts: Sequence[Window]) -> Tensor:
    """Softmax attention, window by window; tensors and result are [heads, packed, dim]."""
    # The backward of one split is one concatenation; each slice would write a gradient of full length.
    lengths = [window.length for window in parts]
    q, k, v = (whole.split(lengths, dim=1) for whole in (query * query.shape[-1] ** -0.5, key, value))
    outputs = []
    for i, (_, prefix, bias) in enumerate(parts):
        keys, values = k[i], v[i]
        if prefix is not None:
            keys, values = torch.cat([k[prefix], keys], dim=1), torch.cat([v[prefix], values], dim=1)
        scores = torch.baddbmm(bias.to(q[i].dtype).expand(len(q[i]), -1, -1), q[i], keys.transpose(1, 2))
        outputs.append(torch.softmax(scores, dim=-1) @ values)
    return torch.cat(outputs, dim=1)


def use_shared_prefix(model: nn.Module) -> nn.Module:
    """Lets a torchtune `TransformerDecoder`, sharded or not, read packed batches and compute logits at labels only.

    Returns the same model; raises ValueError if it has no torchtune attention.
    """
    from torchtune.models.llama3_1 import Llama3ScaledRoPE
    from torchtune.modules import FeedForward, MultiHeadAttention, RMSNorm, TransformerSelfAttentionLayer

    layers = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no torchtune MultiHeadAttention; use a torchtune model builder")
    for layer in layers:
        layer._attention_call = shared_prefix_attention
    for module in model.modules():
        if isinstance(module, FeedForward) and module.w3 is not None:
            module.forward = partial(_feed_forward, module)
        elif isinstance(module, RMSNorm):
            module.forward = partial(_norm, module)
        elif isinstance(module, Llama3ScaledRoPE):
            module.forward = partial(_rotate, module)
    last = [module for module in model.modules() if isinstance(module, TransformerSelfAttentionLayer)][-1]
    cast(Any, last).forward = partial(_last_layer, last)
    forward = model.forward

    def forward_packed(tokens: Tensor, *, mask: Layout, **kwargs: Any) -> Tensor:
        return cast(Tensor, forward(tokens, mask=Packed(windows(mask), mask["labelled"]), **kwargs))

    # Set on the instance, so that FSDP's hooks, which gather and free the weights, run around it.
    cast(Any, model).forward = forward_packed
    return model


def _last_layer(layer: Any, x: Tensor, *, mask: Packed, input_pos: Tensor, **_: Any) -> Tensor:
    """The layer after which nobody attends: past its attention, only positions with a label go on, to the logits."""
    normalised = layer.sa_norm(x)
    attended = layer.sa_scale(layer.attn(normalised, normalised, mask=mask, input_pos=input_pos)) + x
    labelled = attended[:, mask.labelled]
    return cast(Tensor, labelled + layer.mlp_scale(layer.mlp(layer.mlp_norm(labelled))))


class _Norm(torch.autograd.Function):
    """RMS norm of [..., dim] in fp32, the result in `dtype`; keeps its input alone and reads it half as often."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        x = x.float()
        inverse = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x, scale, inverse)
        return (x * inverse).mul_(scale).to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, scale, inverse = ctx.saved_tensors
        gradient, normed = gradient.float(), x * inverse
        product = gradient * normed
        shared = (product @ scale.float() / x.shape[-1]).unsqueeze(-1)
        of_x = (gradient * scale).sub_(normed.mul_(shared)).mul_(inverse)
        return of_x, product.flatten(0, -2).sum(0), None, None


def _norm(module: Any, x: Tensor) -> Tensor:
    """Casts a norm's output once; autocast would do so in every projection that reads it."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return cast(Tensor, _Norm.apply(x, module.scale, module.eps, dtype))


def _rotate(module: Any, x: Tensor, *, input_pos: Tensor) -> Tensor:
    """Rotary positions of [1, packed, heads, dim] as one complex product; bit for bit torchtune's, in less memory."""
    turns = torch.view_as_complex(module.cache)[input_pos, None]
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)


def _feed_forward(module: Any, x: Tensor) -> Tensor:
    """A gated feed-forward layer whose backward recomputes activation and product, but no projection."""

    def gated(gate: Tensor, up: Tensor) -> Tensor:
        return cast(Tensor, module.w2(module.activation(gate) * up))

    return cast(Tensor, checkpoint(gated, module.w1(x), module.w3(x), use_reentrant=False))


class LossAtLabels(nn.Module):
    """Lets `loss_fn`, which takes logits [labels, vocabulary] and labels [labels], read logits at labels only."""

    def __init__(self, loss_fn: nn.Module) -> None:
        super().__init__()
        self.loss_fn = loss_fn
        self.ignore_index: int = cast(Any, loss_fn).ignore_index

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of `logits` [labels, vocabulary] against the entries of `labels` [packed] that are not ignored."""
        return cast(Tensor, self.loss_fn(logits, labels[labels != self.ignore_index]))


def shared_prefix_loss(model: nn.Module, loss_fn: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Mean loss of a packed batch (on the model's device; its labels are taken out), as the recipe computes it.

    `model` is prepared by `use_shared_prefix`; for `loss_fn` see `LossAtLabels`.
    """
    labels = batch.pop("labels")[0]
    return cast(Tensor, LossAtLabels(loss_fn)(model(**batch)[0], labels))
