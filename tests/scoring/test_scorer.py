"""The scorer against plain forward passes, one verdict at a time."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from guard_utils.data.examples import Example
from guard_utils.files import fetch
from guard_utils.policy import LLAMA_GUARD_3, PII, Category, Taxonomy, Verdict, all_verdicts
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring import scorer
from guard_utils.scoring.scorer import GuardScorer, Scores, load_model, predict
from guard_utils.scoring.trie import VerdictTrie

TEXTS = [
    "Dear Carmen, the address 109.4.61.213 is under investigation, please ring me on +44 20 7946 0018 before noon.",
    "ok",
    "Card 4242 4242 4242 4242, cvv 123, ships to 5 Elm Street.\n\nThank you!",
    "A sentence of middling length about nothing at all.",
]
THIRTY = Taxonomy("thirty", tuple(Category(f"Kind {number}") for number in range(30)))


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
    return GuardScorer(model, prompt, epsilon=0, batch_tokens=10**6).score(TEXTS, progress=False)


@pytest.fixture(scope="module")
def guard(smoke_folder, prompt):
    """A model that has learnt the grammar, and with it to leave some codes out."""
    model, _ = load_model(smoke_folder, dtype="fp32")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95))
    answers = [[], ["S1"], ["S1", "S2"], ["S1", "S4"], ["S3"], ["S2", "S3", "S5"], [], ["S1", "S2", "S3", "S4", "S5"]]
    for codes in answers * 12:
        ids, n = prompt.training_ids(TEXTS[len(codes) % 4], Verdict.of(codes))
        logits = model(torch.tensor([ids]), use_cache=False, logits_to_keep=n + 1).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, torch.tensor(ids[-n:])).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def plain_log_probs(model, prompt, text, verdicts):
    """Log-probability of each answer by a full forward pass without cache, mask or trie."""
    found = []
    for verdict in verdicts:
        ids, n = prompt.training_ids(text, verdict)
        with torch.inference_mode():
            logits = model(torch.tensor([ids]), use_cache=False, logits_to_keep=n + 1).logits[0, :-1]
        found.append(logits.double().log_softmax(-1)[range(n), ids[-n:]].sum().item())
    return found


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
    found = GuardScorer(model, prompt, epsilon=0).score([turns], progress=False)
    assert_exact(found, 0, model, prompt, turns, [Verdict(), Verdict.of(["S1"]), Verdict.of(PII.codes)])


def test_only_what_the_model_may_answer_is_expanded(guard, prompt, monkeypatch):
    full = GuardScorer(guard, prompt, epsilon=0).score(TEXTS, progress=False)
    assert (full.unexpanded == 0).all() and full.unsafe.min() > 1e-3, "it knows something of the grammar"
    assert_exact(full, 0, guard, prompt, TEXTS[0], full.verdicts)
    for epsilon, few in ((1e-6, 0), (1e-4, 0), (1e-4, 200), (1e-2, 0), (1e-2, 200)):
        monkeypatch.setattr(scorer, "FEW", few)
        found = GuardScorer(guard, prompt, epsilon=epsilon).score(TEXTS, progress=False)
        left_out = np.isneginf(found.log_probs)
        assert few or 0 < left_out.sum() < left_out.size
        missing = np.where(left_out, np.exp(full.log_probs), 0).sum(axis=1)
        assert (missing <= found.unexpanded).all() and (found.unexpanded <= 66 * epsilon).all()
        np.testing.assert_allclose(found.log_probs[~left_out], full.log_probs[~left_out], rtol=0, atol=1e-4)
        assert found.best == full.best
        short = full.marginals - found.marginals
        assert short.min() > -1e-6 and (short.max(axis=1) <= found.unexpanded + 1e-6).all()
        np.testing.assert_allclose(found.outside, full.outside + missing, atol=1e-6)


def test_an_improbable_verdict_is_still_the_best_one(model, prompt, scores, monkeypatch):
    monkeypatch.setattr(scorer, "FEW", 0)
    found = GuardScorer(model, prompt, epsilon=1.0).score(TEXTS, progress=False)
    assert found.best == scores.best and scores.log_probs.max() < np.log(1e-6)
    assert np.isneginf(found.log_probs).any() and (found.unexpanded < np.exp(scores.log_probs.max(axis=1))).all()


def test_the_pretrained_model_gives_the_same_with_fewer_nodes(prompt):
    model, _ = load_model(fetch("smollm2-135m"), dtype="fp32")
    full = GuardScorer(model, prompt, epsilon=0).score(TEXTS[:2], progress=False)
    found = GuardScorer(model, prompt).score(TEXTS[:2], progress=False)
    assert found.best == full.best and np.isneginf(found.log_probs).any()
    np.testing.assert_allclose(found.marginals, full.marginals, rtol=0, atol=1e-4)
    assert_exact(full, 1, model, prompt, TEXTS[1], [Verdict(), Verdict.of(["S2", "S5"])])


@pytest.mark.parametrize(
    ("policy", "cap", "verdicts"),
    [(PII.select(["S4"]), None, 2), (LLAMA_GUARD_3, 2, 106), (THIRTY, None, 4526)],
)
def test_one_category_is_enough_and_many_are_capped(guard, smol_tokenizer, policy, cap, verdicts, monkeypatch):
    monkeypatch.setattr(scorer, "FEW", 0)
    prompt = GuardPrompt(policy, smol_tokenizer)
    found = GuardScorer(guard, prompt, max_violations=cap, epsilon=1e-4).score(TEXTS[:2], progress=False)
    assert found.log_probs.shape == (2, verdicts) and found.marginals.shape == (2, len(policy))
    assert ((found.outside >= 0) & (found.outside <= 1)).all()
    row, column = np.argwhere(np.isfinite(found.log_probs))[-1]
    assert_exact(found, row, guard, prompt, TEXTS[row], [Verdict(), found.verdicts[column]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_grouping_of_heads_and_any_dtype(smoke_folder, prompt, dtype):
    config = LlamaConfig.from_pretrained(smoke_folder)
    config.update({"num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 24})
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    expected = plain_log_probs(model, prompt, TEXTS[0], all_verdicts(PII))
    found = GuardScorer(model.to(dtype), prompt, epsilon=0).score(TEXTS[:1], progress=False)
    np.testing.assert_allclose(found.log_probs[0], expected, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.5)
    with pytest.raises(ValueError, match="'fp16' is not one of fp32, bf16"):
        load_model(smoke_folder, dtype="fp16")


@pytest.mark.parametrize("batch_tokens", [1, 400])
def test_neither_batch_size_nor_order_changes_anything(model, prompt, scores, batch_tokens):
    scorer = GuardScorer(model, prompt, epsilon=0, batch_tokens=batch_tokens)
    sizes = [len(batch) for batch in scorer._batches([prompt.segments(text) for text in TEXTS])]
    assert (max(sizes) == 1) == (batch_tokens == 1) and sum(sizes) == len(TEXTS)
    order = [2, 0, 3, 1]
    first, second = (scorer.score([TEXTS[i] for i in order], progress=False) for _ in range(2))
    np.testing.assert_allclose(first.log_probs, scores.log_probs[order], rtol=0, atol=1e-4)
    assert np.abs(np.diff(scores.log_probs[:, 0])).min() > 1e-3, "the texts differ, so their order shows"
    assert first.best == [scores.best[i] for i in order]
    assert np.array_equal(first.log_probs, second.log_probs), "the first call left nothing behind"


def test_probabilities_add_up(scores):
    p = np.exp(scores.log_probs)
    np.testing.assert_allclose(p.sum(axis=1) + scores.outside, 1)
    np.testing.assert_allclose(scores.unsafe + p[:, 0], p.sum(axis=1))
    for array in (scores.marginals, scores.unsafe, scores.outside):
        assert ((array >= 0) & (array <= 1)).all()
    assert scores.marginals.shape == (len(TEXTS), 5)


def test_the_predictions_table_holds_the_scores(model, prompt, scores):
    examples = [Example(f"r{i}", text, ("S1",), "en", f"t{i}", "", ()) for i, text in enumerate(TEXTS)]
    scorer = GuardScorer(model, prompt, epsilon=0)
    table = predict(scorer, examples, progress=False)
    assert table["predicted"].tolist() == [list(verdict.codes) for verdict in scores.best]
    columns = np.column_stack([scores.marginals, scores.unsafe, scores.outside])
    np.testing.assert_allclose(table[[*(f"p_{code}" for code in PII.codes), "p_unsafe", "outside"]], columns, rtol=1e-3)
    for one_text in ("Ann", b"Ann"):
        with pytest.raises(TypeError, match=r"examples is one text, b?'Ann'; pass a list"):
            predict(scorer, one_text)
        with pytest.raises(TypeError, match=r"texts is one text"):
            scorer.score(one_text)


def test_marginals_and_the_rest_by_hand():
    verdicts = tuple(Verdict.of(codes) for codes in ([], ["S1"], ["S2"], ["S1", "S2"]))
    found = Scores(verdicts, np.log([[0.1, 0.2, 0.3, 0.25], [0.5, 0.5, 1e-12, 1e-12]]), ("S1", "S2"), np.zeros(2))
    np.testing.assert_allclose(found.marginals[0], [0.45, 0.55])
    np.testing.assert_allclose(found.unsafe, [0.75, 0.5])
    np.testing.assert_allclose(found.outside, [0.15, 0], atol=1e-9)
    assert [v.text for v in found.best] == ["unsafe\nS2", "safe"]
    over = Scores(verdicts, np.log([[1e-12, 0.5, 1e-12, 0.5000001]]), ("S1", "S2"), np.zeros(1))
    assert over.marginals.max() == 1 and over.outside[0] == 0, "rounding never leaves [0, 1]"


@pytest.mark.parametrize(("policy", "cap"), [(PII, None), (LLAMA_GUARD_3, 2)])
def test_each_path_of_the_trie_spells_its_verdict(llama3_tokenizer, policy, cap):
    prompt = GuardPrompt(policy, llama3_tokenizer)
    trie = VerdictTrie.build(prompt, max_violations=cap)
    visible = trie.visible()
    assert len(set(zip(trie.parents, trie.tokens, strict=True))) == len(trie.tokens), "no node stands twice"
    for verdict, end in zip(trie.verdicts, trie.ends, strict=True):
        path = np.flatnonzero(visible[end]).tolist()
        assert [*(trie.tokens[node] for node in path), trie.end_id] == list(prompt.answer_ids(verdict))
        assert all(child in trie.children[node] for node, child in pairwise([-1, *path]))
    assert len(trie.tokens) < sum(len(prompt.answer_ids(verdict)) for verdict in trie.verdicts) / 2


def test_all_texts_that_cannot_be_scored_are_listed_before_any_is(model, prompt):
    scorer = GuardScorer(model, prompt)
    scorer.model = None  # nothing may be run
    with pytest.raises(ValueError, match="4 of 5 can't be scored") as caught:
        scorer.score(["", "fine", "z" * 20_000, None, "\udc00"])
    lines = str(caught.value).splitlines()[1:]
    fixes = ["text 0: .*give it text", "text 2: .*shorten or split it", "text 3: .*expected a text", "text 4: .*decode"]
    assert all(re.match(fix, line) for fix, line in zip(fixes, lines, strict=True))
    with pytest.raises(ValueError, match="25 of 25") as caught:
        scorer.score([" "] * 25)
    assert len(str(caught.value).splitlines()) == 22 and str(caught.value).endswith("... and 5 more")


def test_progress_counts_prompts_and_can_be_silent(model, prompt, capsys):
    found = GuardScorer(model, prompt).score([], progress=False)
    assert found.log_probs.shape == (0, 32) and found.best == [] and found.marginals.shape == (0, 5)
    assert capsys.readouterr().err == ""
    GuardScorer(model, prompt).score(TEXTS[:2])
    assert "2/2" in capsys.readouterr().err
