"""Shared-prefix batches against torchtune's own padded batches: same loss, same gradients, same training."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torchao.dtypes.nf4tensor import NF4Tensor
from torchtune.data import padded_collate_sft
from torchtune.modules.peft import get_adapter_params

from guard_utils.training import collate_shared_prefix, shared_prefix_loss, use_shared_prefix
from guard_utils.training.shared_prefix import STEP, WINDOW, windows

IGNORE = -100
LOSS = nn.CrossEntropyLoss(ignore_index=IGNORE)


def make_batch(rng, *, sizes=(11, 3), prefixes=(23, 40), answers=(1, 6)):
    """Examples of several policies, shuffled, of mixed length; the last few tokens of each carry labels."""
    batch = []
    for size, length in zip(sizes, prefixes, strict=True):
        prefix = [rng.randrange(96) for _ in range(length)]
        for _ in range(size):
            body = [rng.randrange(96) for _ in range(rng.randint(answers[1] + 1, 40))]
            n = rng.randint(*answers)
            labels = [IGNORE] * (length + len(body) - n) + body[-n:]
            batch.append({"tokens": prefix + body, "labels": labels, "prefix_length": length})
    rng.shuffle(batch)
    return batch


def stock_loss(model, batch):
    """What torchtune's recipes do: pad, run everything, shift, one cross-entropy over all positions."""
    padded = padded_collate_sft([{"tokens": row["tokens"], "labels": row["labels"]} for row in batch])
    logits = model(padded["tokens"])
    labels = torch.hstack([padded["labels"][:, 1:], torch.full((len(batch), 1), IGNORE)])
    return LOSS(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(
    "shape",
    [
        {"sizes": (11, 3), "prefixes": (23, 40)},
        {"sizes": (1, 1), "prefixes": (23, 23)},
        {"sizes": (1,), "prefixes": (30,)},
        {"sizes": (30,), "prefixes": (1,)},
    ],
    ids=["two policies", "two of equal length", "one example", "several windows, prefix of one token"],
)
def test_loss_and_every_gradient_equal_the_stock_batch(tiny_torchtune, lora, shape):
    batch = make_batch(random.Random(3), **shape)
    # In fp64, so that no machine's order of sums matters; norms and rotary positions are fp32 in any case.
    stock, ours = (tiny_torchtune(lora=lora).double() for _ in range(2))
    use_shared_prefix(ours)
    expected_loss = stock_loss(stock, batch)
    loss = shared_prefix_loss(ours, LOSS, collate_shared_prefix(batch))
    assert relative(loss, expected_loss) < 1e-5
    expected, found = gradients(stock, expected_loss), gradients(ours, loss)
    assert found.keys() == expected.keys() and len(found) == (28 if lora else 20)
    if lora:
        assert found.keys() == get_adapter_params(ours).keys()
    worst = {name: relative(found[name], expected[name]) for name in found}
    assert max(worst.values()) < 1e-5, worst


def test_four_bit_weights_of_qlora_give_the_stock_loss_and_gradients(tiny_torchtune):
    # Weights are quantised in blocks of 64 and their scales in blocks of 256, hence the larger layers.
    shape = {"embed_dim": 128, "num_heads": 2, "num_kv_heads": 2, "intermediate_dim": 256, "quantize_base": True}
    stock, ours = tiny_torchtune(lora=True, **shape), use_shared_prefix(tiny_torchtune(lora=True, **shape))
    assert sum(isinstance(weight, NF4Tensor) for weight in ours.parameters()) == 14
    batch = make_batch(random.Random(3))
    expected_loss, loss = stock_loss(stock, batch), shared_prefix_loss(ours, LOSS, collate_shared_prefix(batch))
    assert relative(loss, expected_loss) < 1e-5
    expected, found = gradients(stock, expected_loss), gradients(ours, loss)
    assert found.keys() == expected.keys() == get_adapter_params(ours).keys()
    # The embedding, not scaled for so wide a layer, makes logits so large that fp32 keeps fewer digits.
    assert max(relative(found[name], expected[name]) for name in found) < 1e-4


def test_each_prefix_stands_once_and_conversations_fill_windows():
    rng = random.Random(5)
    sizes = [rng.randint(2, 90) for _ in range(40)] + [WINDOW, WINDOW + 1]
    rows = [{"tokens": [1] * (4 + n), "labels": [IGNORE] * (3 + n) + [1], "prefix_length": 4} for n in sizes]
    other = {"tokens": [2, 2, 1, 1], "labels": [IGNORE] * 3 + [1], "prefix_length": 2}
    mask = collate_shared_prefix([other, *rows])["mask"]
    found = windows(mask)
    assert [window.length for window in found if window.prefix is None] == [2, 4]
    conversations = [window.length for window in found if window.prefix is not None]
    assert conversations[0] == 2 and conversations[1] == WINDOW + 1, "a long one has a window of its own"
    assert max(conversations[2:]) <= WINDOW + STEP and len(conversations) < 1.3 * sum(sizes) / WINDOW
    total = sum(window.length for window in found)
    assert total == mask["lengths"].sum() and total - (2 + 2 + 4 + sum(sizes)) < STEP


def test_logits_exist_only_where_a_label_stands(tiny_torchtune):
    model = use_shared_prefix(tiny_torchtune())
    batch = make_batch(random.Random(2))
    packed = collate_shared_prefix(batch)
    packed.pop("labels")
    labelled = sum(label != IGNORE for row in batch for label in row["labels"])
    assert model(**packed).shape == (1, labelled, 96)
    packed["mask"]["labelled"] = torch.arange(5)
    assert model(**packed).shape == (1, 5, 96), "the hook of the call before is gone"


@pytest.mark.parametrize(
    ("tokens", "labels"),
    [([1, 2], [IGNORE, 2]), ([1, 2, 3], [1, IGNORE, 3]), ([1, 2, 3], [IGNORE, IGNORE, 3])],
    ids=["empty conversation", "label in the prefix", "label across the seam"],
)
def test_rows_that_cannot_share_a_prefix_are_refused(tokens, labels):
    with pytest.raises(ValueError, match="prefix_length=2"):
        collate_shared_prefix([{"tokens": tokens, "labels": labels, "prefix_length": 2}])


def test_attention_dropout_is_refused_with_the_setting_to_change(tiny_torchtune):
    model = use_shared_prefix(tiny_torchtune(attn_dropout=0.1)).train()
    with pytest.raises(ValueError, match=r"attn_dropout=0\.1 .*attn_dropout: 0\.0"):
        shared_prefix_loss(model, LOSS, collate_shared_prefix(make_batch(random.Random(0))))


def test_a_model_without_torchtune_attention_is_refused():
    with pytest.raises(ValueError, match="Linear has no torchtune MultiHeadAttention"):
        use_shared_prefix(nn.Linear(2, 2))
