"""Shared-prefix batches against torchtune's own padded batches: same loss, same gradients, same training."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torchao.dtypes.nf4tensor import NF4Tensor
from torchtune.data import padded_collate_sft
from torchtune.modules.peft import get_adapter_params

from guard_utils.training.shared_prefix import (
    WINDOW,
    collate_shared_prefix,
    shared_prefix_attention,
    shared_prefix_loss,
    use_shared_prefix,
    windows,
)

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


# --- exactness --------------------------------------------------------------


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
    stock, ours = tiny_torchtune(lora=lora), use_shared_prefix(tiny_torchtune(lora=lora))
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
    stock, ours = (tiny_torchtune(lora=True, **shape) for _ in range(2))
    use_shared_prefix(ours)
    assert sum(isinstance(weight, NF4Tensor) for weight in ours.parameters()) == 14
    batch = make_batch(random.Random(3))
    expected_loss, loss = stock_loss(stock, batch), shared_prefix_loss(ours, LOSS, collate_shared_prefix(batch))
    assert relative(loss, expected_loss) < 1e-5
    expected, found = gradients(stock, expected_loss), gradients(ours, loss)
    assert found.keys() == expected.keys() == get_adapter_params(ours).keys()
    # The embedding, not scaled for so wide a layer, makes logits so large that fp32 keeps fewer digits.
    assert max(relative(found[name], expected[name]) for name in found) < 1e-4


def test_twenty_steps_follow_the_stock_loss_curve(tiny_torchtune):
    rng = random.Random(7)
    batches = [make_batch(rng, sizes=(6, 2)) for _ in range(4)] * 5
    curves = []
    for ours in (False, True):
        model = tiny_torchtune()
        if ours:
            use_shared_prefix(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        curve = []
        for batch in batches:
            loss = shared_prefix_loss(model, LOSS, collate_shared_prefix(batch)) if ours else stock_loss(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(curve)
    stock, shared = curves
    assert shared == pytest.approx(stock, rel=1e-3)
    assert len(stock) == 20 and sum(stock[-4:]) < 0.8 * sum(stock[:4]), "it learns, so a wrong update would show"


def test_examples_do_not_see_each_other(tiny_torchtune):
    model = use_shared_prefix(tiny_torchtune())
    batch = make_batch(random.Random(1), sizes=(3,), prefixes=(10,), answers=(2, 2))
    alone = [shared_prefix_loss(model, LOSS, collate_shared_prefix([row])) for row in batch]
    together = shared_prefix_loss(model, LOSS, collate_shared_prefix(batch))
    assert relative(together, torch.stack(alone).mean()) < 1e-5


# --- packing ----------------------------------------------------------------


def test_each_prefix_stands_once_and_positions_restart():
    a, b = [1, 2, 3], [7, 8]
    rows = [
        {"tokens": [*a, 4, 5, 6], "labels": [IGNORE] * 5 + [6], "prefix_length": 3},
        {"tokens": [*b, 9, 10], "labels": [IGNORE] * 3 + [10], "prefix_length": 2},
        {"tokens": [*a, 11, 12], "labels": [IGNORE] * 4 + [12], "prefix_length": 3},
    ]
    packed = collate_shared_prefix(rows, padding_idx=99)
    first, second = WINDOW - 5, WINDOW - 2
    ids = [1, 2, 3, 4, 5, 6, 11, 12, *[99] * first, 7, 8, 9, 10, *[99] * second]
    assert packed["tokens"].tolist() == [ids]
    positions = [0, 1, 2, 3, 4, 5, 3, 4, *range(3, 3 + first), 0, 1, 2, 3, *range(2, 2 + second)]
    assert packed["input_pos"].tolist() == [positions]
    assert [(i, label) for i, label in enumerate(packed["labels"][0].tolist()) if label != IGNORE] == [
        (5, 6),
        (7, 12),
        (11 + first, 10),
    ]
    assert packed["mask"]["lengths"].tolist() == [3, 3, 2, first, 2, 2, second]
    assert packed["mask"]["counts"].tolist() == [3, 2]
    assert packed["mask"]["labelled"].tolist() == [4, 6, 10 + first], "each predicts the token after it"


def test_conversations_fill_windows_and_no_window_cuts_one():
    rng = random.Random(5)
    rows = [
        {"tokens": [1] * (4 + n), "labels": [IGNORE] * (3 + n) + [1], "prefix_length": 4}
        for n in [rng.randint(2, 90) for _ in range(40)] + [WINDOW, WINDOW + 1]
    ]
    mask = collate_shared_prefix(rows)["mask"]
    found = [window.length for window in windows(mask)]
    assert found[0] == 4 and all(length % WINDOW == 0 for length in found[1:])
    assert sum(found) == mask["lengths"].sum() and sum(found) < 1.15 * (4 + sum(len(row["tokens"]) - 4 for row in rows))


def test_windows_hold_a_prefix_or_neighbours_and_say_who_sees_whom():
    rest = WINDOW - 3
    found = windows({"lengths": torch.tensor([2, 1, 2, rest, 5, 3]), "counts": torch.tensor([4, 0])})
    assert [(window.length, window.prefix) for window in found] == [(2, None), (WINDOW, 0), (5, 0), (3, None)]
    seen = [(window.bias == 0).int().tolist() for window in found]
    assert seen[0] == [[1, 0], [1, 1]]
    assert [row[2:6] for row in seen[1][:4]] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert all(row[:2] == [1, 1] for row in seen[1] + seen[2])
    assert {value for window in found for value in window.bias.unique().tolist()} == {0.0, float("-inf")}


def test_logits_exist_only_where_a_label_stands(tiny_torchtune):
    model = use_shared_prefix(tiny_torchtune())
    batch = make_batch(random.Random(2))
    seen = []

    class Watched(nn.CrossEntropyLoss):
        def forward(self, logits, labels):
            seen.append((logits.shape, labels.shape))
            return super().forward(logits, labels)

    shared_prefix_loss(model, Watched(ignore_index=IGNORE), collate_shared_prefix(batch))
    labelled = sum(label != IGNORE for row in batch for label in row["labels"])
    assert seen == [((labelled, 96), (labelled,))]
    assert model(torch.zeros(1, 5, dtype=torch.long), mask=layout(2, 3)).shape == (1, 5, 96), "the hook is gone"


def layout(*lengths):
    return {"lengths": torch.tensor(lengths), "counts": torch.tensor([len(lengths) - 1])}


# --- errors -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"tokens": [1, 2], "labels": [IGNORE, 2], "prefix_length": 2}, "empty conversation"),
        ({"tokens": [1, 2, 3], "labels": [1, IGNORE, 3], "prefix_length": 2}, "label in the prefix"),
        ({"tokens": [1, 2, 3], "labels": [IGNORE, IGNORE, 3], "prefix_length": 2}, "label across the seam"),
    ],
)
def test_rows_that_cannot_share_a_prefix_are_refused(row, why):
    with pytest.raises(ValueError, match="prefix_length=2"):
        collate_shared_prefix([row])


def test_attention_dropout_is_refused_with_the_setting_to_change(tiny_torchtune):
    model = use_shared_prefix(tiny_torchtune(attn_dropout=0.1)).train()
    with pytest.raises(ValueError, match=r"attn_dropout: 0\.0"):
        shared_prefix_loss(model, LOSS, collate_shared_prefix(make_batch(random.Random(0))))
    q = torch.zeros(1, 1, 3, 2)
    with pytest.raises(ValueError, match=r"attn_dropout=0\.5"):
        shared_prefix_attention(q, q, q, mask=windows(layout(1, 2)), dropout_p=0.5)


def test_a_model_without_torchtune_attention_is_refused():
    with pytest.raises(ValueError, match="Linear has no torchtune MultiHeadAttention"):
        use_shared_prefix(nn.Linear(2, 2))
