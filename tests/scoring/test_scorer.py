"""The scorer against plain forward passes, one verdict at a time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from guard_utils.data.examples import Example
from guard_utils.policy import LLAMA_GUARD_3, PII, Verdict, all_verdicts
from guard_utils.profiles import PROFILES, Run
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring.scorer import GuardScorer, Scores, load_guard, load_model, predict
from guard_utils.scoring.trie import VerdictTrie

TEXTS = [
    "Dear Carmen, the address 109.4.61.213 is under investigation, please ring me on +44 20 7946 0018 before noon.",
    "ok",
    "Card 4242 4242 4242 4242, cvv 123, ships to 5 Elm Street.\n\nThank you!",
    "A sentence of middling length about nothing at all.",
]


@pytest.fixture(scope="module")
def model(smoke_folder):
    model, _ = load_model(smoke_folder, dtype="fp32")
    # The random attention of the smoke model is nearly flat: a wrong mask or position would hardly show in the logits.
    with torch.no_grad():
        for layer in model.model.layers:
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                getattr(layer.self_attn, name).weight.mul_(10)
    return model


@pytest.fixture(scope="module")
def prompt(smol_tokenizer):
    return GuardPrompt(PII, smol_tokenizer)


@pytest.fixture(scope="module")
def scores(model, prompt):
    return GuardScorer(model, prompt, batch_tokens=10**6).score(TEXTS, progress=False)


def plain_log_probs(model, prompt, text, verdicts):
    """Log-probability of each answer by a full forward pass without cache, mask or trie; equally long ones together."""
    by_length = {}
    for verdict in verdicts:
        ids, n = prompt.training_ids(text, verdict)
        by_length.setdefault(n, {})[verdict] = ids
    found = {}
    for n, rows in by_length.items():
        ids = torch.tensor(list(rows.values()))
        with torch.inference_mode():
            logits = model(ids, use_cache=False, logits_to_keep=n + 1).logits[:, :-1]
        steps = logits.double().log_softmax(-1).gather(2, ids[:, -n:, None])
        found |= dict(zip(rows, steps.sum(dim=(1, 2)).tolist(), strict=True))
    return [found[verdict] for verdict in verdicts]


def assert_exact(scores, row, model, prompt, text, verdicts):
    found = scores.log_probs[row, [scores.verdicts.index(verdict) for verdict in verdicts]]
    np.testing.assert_allclose(found, plain_log_probs(model, prompt, text, verdicts), rtol=0, atol=1e-4)


def test_all_verdicts_of_prompts_of_different_length_equal_plain_forward_passes(model, prompt, scores):
    assert len({len(prompt.segments(text).ids) for text in TEXTS}) == len(TEXTS)
    assert list(scores.verdicts) == all_verdicts(PII)
    for row, text in enumerate(TEXTS[:3]):
        assert_exact(scores, row, model, prompt, text, scores.verdicts)
    with pytest.raises(AssertionError):
        assert_exact(scores, 0, model, prompt, TEXTS[0].replace("Carmen", "Carmel"), [Verdict()])


def test_a_conversation_of_turns_is_scored_exactly(model, smol_tokenizer):
    prompt = GuardPrompt(PII, smol_tokenizer, role="Agent")
    turns = [("User", "Who is it?"), ("Agent", "It is Carmen.")]
    found = GuardScorer(model, prompt).score([turns], progress=False)
    assert_exact(found, 0, model, prompt, turns, [Verdict(), Verdict.of(["S1"]), Verdict.of(PII.codes)])


def test_fourteen_categories_capped_at_two_violations(model, smol_tokenizer):
    prompt = GuardPrompt(LLAMA_GUARD_3, smol_tokenizer)
    found = GuardScorer(model, prompt, max_violations=2).score(TEXTS[:2], progress=False)
    assert found.log_probs.shape == (2, 106) and found.marginals.shape == (2, 14)
    assert ((found.outside >= 0) & (found.outside <= 1)).all()
    some = [Verdict.of(codes) for codes in (["S14"], ["S1", "S10"], ["S13", "S14"])]
    assert_exact(found, 0, model, prompt, TEXTS[0], some)


@pytest.mark.parametrize("batch_tokens", [1, 400])
def test_neither_batch_size_nor_order_changes_anything(model, prompt, scores, batch_tokens):
    scorer, attention = GuardScorer(model, prompt, batch_tokens=batch_tokens), model.config._attn_implementation
    sizes = [len(batch) for batch in scorer._batches([prompt.segments(text) for text in TEXTS])]
    assert (max(sizes) == 1) == (batch_tokens == 1) and sum(sizes) == len(TEXTS)
    order = [2, 0, 3, 1]
    first, second = (scorer.score([TEXTS[i] for i in order], progress=False) for _ in range(2))
    np.testing.assert_allclose(first.log_probs, scores.log_probs[order], rtol=0, atol=1e-4)
    assert np.abs(np.diff(scores.log_probs[:, 0])).min() > 1e-3, "the texts differ, so their order shows"
    assert first.best == [scores.best[i] for i in order]
    assert np.array_equal(first.log_probs, second.log_probs), "the first call left nothing in the model"
    assert model.config._attn_implementation == attention, "so that `generate` works as before"


def test_probabilities_add_up(scores):
    p = np.exp(scores.log_probs)
    np.testing.assert_allclose(p.sum(axis=1) + scores.outside, 1)
    np.testing.assert_allclose(scores.unsafe + p[:, 0], p.sum(axis=1))
    for array in (scores.marginals, scores.unsafe, scores.outside):
        assert ((array >= 0) & (array <= 1)).all()
    assert scores.marginals.shape == (len(TEXTS), 5)


def test_the_predictions_table_holds_the_scores(model, prompt, scores):
    examples = [Example(f"r{i}", text, ("S1",), "en", f"t{i}", "", ()) for i, text in enumerate(TEXTS)]
    table = predict(GuardScorer(model, prompt), examples, progress=False)
    assert table["predicted"].tolist() == [list(verdict.codes) for verdict in scores.best]
    columns = np.column_stack([scores.marginals, scores.unsafe, scores.outside])
    np.testing.assert_allclose(table[[*(f"p_{code}" for code in PII.codes), "p_unsafe", "outside"]], columns, rtol=1e-3)


def test_marginals_and_the_rest_by_hand():
    verdicts = tuple(Verdict.of(codes) for codes in ([], ["S1"], ["S2"], ["S1", "S2"]))
    found = Scores(verdicts, np.log([[0.1, 0.2, 0.3, 0.25], [0.5, 0.5, 1e-12, 1e-12]]), ("S1", "S2"))
    np.testing.assert_allclose(found.marginals[0], [0.45, 0.55])
    np.testing.assert_allclose(found.unsafe, [0.75, 0.5])
    np.testing.assert_allclose(found.outside, [0.15, 0], atol=1e-9)
    assert [v.text for v in found.best] == ["unsafe\nS2", "safe"]
    over = Scores(verdicts, np.log([[1e-12, 0.5, 1e-12, 0.5000001]]), ("S1", "S2"))
    assert over.marginals.max() == 1 and over.outside[0] == 0, "rounding never leaves [0, 1]"


@pytest.mark.parametrize(("policy", "cap"), [(PII, None), (LLAMA_GUARD_3, 2)])
def test_each_path_of_the_trie_spells_its_verdict(llama3_tokenizer, policy, cap):
    prompt = GuardPrompt(policy, llama3_tokenizer)
    trie = VerdictTrie.build(prompt, max_violations=cap)
    visible, depths = trie.visible(), trie.depths()
    assert len(set(zip(trie.parents, trie.tokens, strict=True))) == len(trie.tokens), "no node stands twice"
    for verdict, end in zip(trie.verdicts, trie.ends, strict=True):
        path = np.flatnonzero(visible[end]).tolist()
        assert [*(trie.tokens[node] for node in path), trie.end_id] == list(prompt.answer_ids(verdict))
        assert [depths[node] for node in path] == list(range(1, len(path) + 1))
    assert len(trie.tokens) < sum(len(prompt.answer_ids(verdict)) for verdict in trie.verdicts) / 2


@pytest.mark.parametrize(
    ("bad", "error"), [("", ValueError), ("z" * 20_000, ValueError), (None, TypeError), ("\udc00", ValueError)]
)
def test_bad_texts_are_named_by_place(model, prompt, bad, error):
    with pytest.raises(error, match="text 1: "):
        GuardScorer(model, prompt).score(["fine", bad], progress=False)


def test_progress_counts_prompts_and_can_be_silent(model, prompt, capsys):
    found = GuardScorer(model, prompt).score([], progress=False)
    assert found.log_probs.shape == (0, 32) and found.best == [] and found.marginals.shape == (0, 5)
    assert capsys.readouterr().err == ""
    GuardScorer(model, prompt).score(TEXTS[:2])
    assert "2/2" in capsys.readouterr().err


def test_the_fine_tuned_guard_of_a_run_is_loaded(tmp_path, smoke_folder):
    run = Run(PROFILES["smoke"], PII, 0, tmp_path)
    with pytest.raises(FileNotFoundError, match="notebook 03"):
        load_guard(run)
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "config.yaml").write_text("epochs: 1\n")
    (tmp_path / "training" / "finished.json").write_text("{}")
    (tmp_path / "training" / "epoch_0").symlink_to(smoke_folder)
    assert load_guard(run).prompt.policy == PII
    with pytest.raises(ValueError, match="'fp16' is not one of fp32, bf16"):
        load_model(smoke_folder, dtype="fp16")


def test_readers_who_train_nothing_load_no_torch():
    names = "VerdictTrie, tfidf, tuned_predictions"
    code = f"import sys; from guard_utils.scoring import {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
