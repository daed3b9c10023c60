# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 03 · Fine-tuning with torchtune
#
# **You train a guard that names every privacy category of a text, and check that its shortcut through training
# changes nothing.**
#
# **What you will learn**
#
# - why a guard spends most of its training on words that it has read before, and how one copy of the policy serves
#   all;
# - how to *check* that a shortcut is exact;
# - which eight decisions make this run, and how to start it by hand;
# - how to read a loss curve that first learns the form of an answer and then its content.
#
# **What you need**: the `laptop` profile, notebook 02 run before and 8 GB of memory; 15 minutes of reading, 20 to 35
# minutes of machine time on two CPU cores that multiply bf16 in hardware (longer on others). A finished training is
# reused. No time? Skip to 04: the guard that comes with the series serves it.
#
# **Agenda**
#
# 1. [Where the time goes](#Where-the-time-goes)
# 2. [One prefix for all](#One-prefix-for-all)
# 3. [The same loss](#The-same-loss)
# 4. [Eight decisions](#Eight-decisions)
# 5. [The run](#The-run)
# 6. [Form first, then content](#Form-first,-then-content)
# 7. [The three messages again](#The-three-messages-again)
# 8. [Take-aways](#Take-aways)
# 9. [Exercises](#Exercises)
# 10. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# ## Where the time goes
#
# Each training example opens with the same policy. `GuardDataset` is what torchtune will read: token ids, labels, and
# how many of the first tokens are that shared *prefix*.

# %%
import pandas as pd

from guard_utils.profiles import resolve
from guard_utils.training import GuardDataset, RecipeTokenizer, resolve_config

run = resolve(PROFILE)
train_file = run.folder / "train.jsonl"
config = resolve_config(run, train_file)["dataset"]
evidence, taxonomy = config.get("evidence", 0), config.get("taxonomy", run.policy.name)
tokenizer = RecipeTokenizer(str(run.model_folder()))
dataset = GuardDataset(tokenizer, source=str(train_file), taxonomy=taxonomy, evidence=evidence)

# %%
sample = [dataset[i] for i in range(min(300, len(dataset)))]
labels = [sum(label != -100 for label in row["labels"]) for row in sample]
policy = [row["prefix_length"] for row in sample]
whole = [len(row["tokens"]) for row in sample]
tokens = pd.DataFrame({"policy": policy, "whole example": whole, "with a label": labels})
tokens.mean().round(1).to_frame("tokens per example")

# %% [markdown]
# Look at the first line. A stock recipe computes the policy anew for every example, and then turns every position
# into scores over the whole vocabulary, although only a few positions have a label.

# %% [markdown]
# ## One prefix for all
#
# Put many examples behind **one** copy of the policy. Each text may look at the policy and at itself, never at its
# neighbours, and counts its positions from the end of the policy. Tokens of a transformer meet nowhere else, so each
# number stays what it was.

# %%
from guard_utils.figures import plot_prefix_mask, save

after = [len(row["tokens"]) - row["prefix_length"] for row in sample[:6]]
before = sample[0]["prefix_length"]
packed, stock = before + sum(after), len(after) * (before + max(after))  # a stock batch is padded
title = f"Six examples: {stock:,} tokens in a stock batch, {packed:,} behind one prefix"
alt = f"Two attention masks of six examples. Left, stock: {stock} tokens. Right, one shared policy: {packed} tokens."
save(plot_prefix_mask(before, after, title=title), run, "03-prefix-mask", alt)

# %% [markdown]
# The light blue column on the right is the policy, which every text sees. The orange triangles are the texts, blind
# to each other.

# %% [markdown]
# ## The same loss
#
# A shortcut that changes the result is a bug, so we check. A tiny Llama gets the same four examples twice. First the
# stock way: pad, run everything, project every position.

# %%
import torch
from omegaconf import OmegaConf
from torch.nn import CrossEntropyLoss
from torchtune.config import instantiate
from torchtune.data import padded_collate_sft

from guard_utils.profiles import repository

torch.manual_seed(0)
shape = OmegaConf.load(repository() / "torchtune_configs" / "smoke.yaml").model
shape.vocab_size = len(tokenizer.tokenizer)
tiny = instantiate(shape)
batch = padded_collate_sft(sample[:4])
logits = tiny(batch["tokens"])
stock_loss = CrossEntropyLoss()(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
stock_loss.backward()
stock_gradients = {name: weight.grad.clone() for name, weight in tiny.named_parameters()}

# %% [markdown]
# Then our way: same weights, same examples, one prefix.

# %%
from guard_utils.training import collate_shared_prefix, shared_prefix_loss, use_shared_prefix

tiny.zero_grad()
loss = shared_prefix_loss(use_shared_prefix(tiny), CrossEntropyLoss(), collate_shared_prefix(sample[:4]))
loss.backward()
gaps = {name: (weight.grad - stock_gradients[name]).norm() for name, weight in tiny.named_parameters()}
worst = max(float(gap / stock_gradients[name].norm()) for name, gap in gaps.items())
assert worst < 1e-4
print(f"loss {stock_loss:.6f} and {loss:.6f}; no gradient differs by more than 0.01 %")

# %% [markdown]
# What is left is rounding: the same sums in another order. The tests repeat this for several policies, for LoRA, and
# over twenty updates.

# %% [markdown]
# ## Eight decisions
#
# torchtune builds a run from one YAML file; ours is `torchtune_configs/laptop.yaml`, with a comment beside each
# option. Most of it is stock. These are the decisions that matter:
#
# | decision | usual | here | why |
# |---|---|---|---|
# | weights | LoRA | all | the model is small; LoRA saves neither time nor much memory |
# | batch | padded | 16 behind one prefix | about a quarter of the tokens, the same gradients |
# | labels | the answer | and evidence at values | the model learns *where* a violation is |
# | order | shuffled | short texts first | the form of an answer is learned cheaply |
# | epochs | several | 1 | new text teaches more than old text seen twice |
# | learning rate | 2e-5 | 2e-4 | twice as much was seen to diverge |
# | number format | bf16 | fp32 weights, bf16 products | small updates would be rounded away |
# | saving | per epoch | every 96 updates | a killed run goes on from there |
#
# torchtune itself is no longer developed; its version is pinned. The stock run is a few lines away: its own
# `full_finetune_single_device` recipe, its own `collate_fn`, and `evidence: 0`.

# %% [markdown]
# ## The run
#
# By hand, in the folder of the repository, with the folder of the base model in the place of `MODEL`:
#
# ```console
# $ tune run guard_utils/training/recipe.py --config torchtune_configs/laptop.yaml \
#     model_dir=MODEL train_file=artifacts/laptop/train.jsonl output_dir=artifacts/laptop/training
# ```
#
# `finetune` does that for you: it checks the config before any work, fills in paths and seed, and shows the progress.
# Stop it whenever you like; the same cell goes on from the last save, to the same end. A finished run is not
# repeated.

# %%
from guard_utils.training import finetune

training = finetune(run, train_file, processes=max(1, run.profile.gpus))
log = training.log
print(f"{training.examples:,} examples in {len(log)} logged steps, from {log['loss'].iloc[0]:.2f} nats per token on")

# %% [markdown]
# ## Form first, then content
#
# Imagine a model that knows only how *frequent* each answer and each kind of value is. It has learned the form and
# reads nothing. Its loss can be computed beforehand: the entropy of the labels.

# %%
from collections import Counter

from scipy.stats import entropy

plain = GuardDataset(tokenizer, source=str(train_file), taxonomy=taxonomy)
answers = Counter(tuple(label for label in row["labels"] if label != -100) for row in plain)
every = Counter(label for row in dataset for label in row["labels"] if label != -100)
values = every - Counter(label for answer, count in answers.items() for label in answer * count)
form_only = (
    entropy([*answers.values()]) * len(dataset) + entropy([*values.values(), 1]) * values.total()
) / every.total()

# %%
from guard_utils.figures import plot_loss

below = log[log["loss"].rolling(5).mean() < form_only]
crossed = f"after {below['examples'].iloc[0]:,} examples" if len(below) else "not in this run"
title = f"The loss falls below 'form only' ({form_only:.2f}) {crossed}"
alt = f"Training loss by step, from {log['loss'].iloc[0]:.2f} to {log['loss'].tail(5).mean():.3f} nats per token."
save(plot_loss(log, title=title, entropy=form_only), run, "03-loss-curve", alt)

# %% [markdown]
# The first few hundred examples teach the grammar: `safe`, or `unsafe` and codes. A run that stops there looks
# trained and knows nothing. Below the dashed line it learns what a name or a phone number looks like. Where short
# texts give way to whole letters, the loss may rise for a while.

# %% [markdown]
# ## The three messages again
#
# The checkpoint is an ordinary one: `transformers` loads it. Back to the messages of notebook 01.

# %%
from guard_utils.scoring import load_guard

prompts = [
    "Dear Carmen, As our National Brand Architect, you will want to know who copied the campaign files before the "
    "launch. Please include the 109.4.61.213 and 4d36:f8ad:4ebd:1bff:c5eb:62aa:b4d7:dddf IP addresses in the "
    "investigation.",
    "Your recent hospital data recorded on 29/12/1957 has moved to the new archive. It now travels over "
    "IPv6 edaf:fd8f:e1e8:cfec:8bab:1afd:6aad:550c for enhanced privacy.",
    "Cardiac consult reminder for Stephen on 10/03/1976 at 4:40 AM. Commute to our clinic at S Broadway 61915, "
    "Port Diegostead near [-56.5612,-68.9245].",
]
scores = load_guard(run).score(prompts, progress=False)
table = pd.DataFrame(scores.marginals, columns=list(run.policy.names.values()), index=["audit", "hospital", "reminder"])
table.round(2).assign(answer=[verdict.text.replace("\n", " ") for verdict in scores.best])

# %% [markdown]
# Each number is the probability that the answer contains the category. Three messages prove nothing, of course;
# notebook 04 measures. What this training took goes on record:

# %%
from guard_utils.records import record, run_card

made = {"loss_last": float(log["loss"].tail(10).mean()), "minutes": training.seconds / 60}
made["examples_per_second"] = training.examples / training.seconds
record(run, "training", made, training.examples, made_on=training.made_on, dtype=run.dtype)
run_card(run, training.examples)

# %% [markdown]
# ## Take-aways
#
# - Behind one shared prefix the policy is computed once per batch, and only labelled positions are projected. Loss
#   and gradients stay the same.
# - Check a shortcut against the stock way before you trust it.
# - The loss of 'form only' is a line that you can compute beforehand. A guard above it has learned nothing about
#   privacy.

# %% [markdown]
# ## Exercises
#
# Put your answer in the place of the dots, run the cell, then the check beneath it. A click on *Solution* unfolds
# ours.
#
# **Warm-up.** How many times fewer tokens does a batch of 16 average examples have behind one prefix? The lengths are
# in `tokens`.

# %% tags=["exercise"]
times_fewer = ...  # a number above 1

# %% tags=["check"]
from guard_utils.records import attempt

with attempt(times_fewer):
    long, shared = tokens["whole example"].mean(), tokens["policy"].mean()
    expected = 16 * long / (shared + 16 * (long - shared))
    assert abs(times_fewer - expected) < 0.01, "stock: 16 whole examples; packed: one policy and 16 times the rest"

# %% tags=["solution"]
mean = tokens.mean()
times_fewer = 16 * mean["whole example"] / (mean["policy"] + 16 * (mean["whole example"] - mean["policy"]))
times_fewer

# %% [markdown]
# **Core.** A row may bring its own policy. Make a row with the text "back in Lyon since Monday" under a policy of S4
# and S1, in this order, and pack it twice behind six rows of `sample`. How many prefixes does the batch hold?

# %% tags=["exercise"]
from guard_utils.policy import PII, Verdict
from guard_utils.prompt import GuardPrompt

row = ...  # a dict with tokens, labels and prefix_length, like sample[0]; begin with GuardPrompt(PII.select(...), ...)
prefixes = ...  # the length of mask["windows"] of the packed batch

# %% tags=["check"]
with attempt(row):
    other = GuardPrompt(PII.select(["S4", "S1"]), tokenizer.tokenizer)
    assert row["tokens"][: row["prefix_length"]] == list(other.prefix_ids), "tokens begin with the other policy"
    learned = tuple(label for label in row["labels"] if label != -100)
    assert learned == tuple(other.answer_ids(Verdict(("S4",)))), "an address: the answer is unsafe, S4"
    assert prefixes == 2, "mask['windows'] has one entry per policy"

# %% tags=["solution"]
other = GuardPrompt(PII.select(["S4", "S1"]), tokenizer.tokenizer)
ids, answer = other.training_ids("back in Lyon since Monday", Verdict(("S4",)))
row = {"tokens": list(ids), "labels": [-100] * (len(ids) - answer) + list(ids[-answer:])}
row["prefix_length"] = len(other.prefix_ids)
prefixes = len(collate_shared_prefix([*sample[:6], row, row])["mask"]["windows"])

# %% [markdown] tags=["solution"]
# Each policy is computed once, so a batch of many policies saves less than a batch of one.

# %% [markdown]
# **Stretch.** One equal step is not yet an equal training. Take three AdamW steps with `sample[:4]` in both ways,
# from the same weights. Do the losses stay together?

# %% tags=["exercise"]
stock_losses = ...  # three floats: padded batch, every position projected
shared_losses = ...  # three floats: packed behind one prefix

# %% tags=["check"]
with attempt(stock_losses):
    assert len(stock_losses) == len(shared_losses) == 3, "three steps each"
    assert stock_losses[2] < stock_losses[0], "three steps on the same rows lower the loss; did you step?"
    gap = max(abs(a - b) for a, b in zip(stock_losses, shared_losses, strict=True))
    assert gap < 1e-3, f"the losses part by {gap:.1e}; did both begin with the weights of tiny?"


# %% tags=["solution"]
def train_steps(model, loss_of):
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for _ in range(3):
        optimizer.zero_grad()
        losses.append(loss_of(model))
        losses[-1].backward()
        optimizer.step()
    return [float(loss) for loss in losses]


def stock_step(model):
    padded = padded_collate_sft(sample[:4])
    return CrossEntropyLoss()(model(padded["tokens"])[:, :-1].flatten(0, 1), padded["labels"][:, 1:].flatten())


def shared_step(model):
    return shared_prefix_loss(model, CrossEntropyLoss(), collate_shared_prefix(sample[:4]))


copies = [instantiate(shape) for _ in "ab"]
for copy in copies:
    copy.load_state_dict(tiny.state_dict())
stock_losses, shared_losses = train_steps(copies[0], stock_step), train_steps(use_shared_prefix(copies[1]), shared_step)
stock_losses, shared_losses

# %% [markdown]
# ## Where to go next
#
# Notebook 04 scores this guard on text that it has never seen, with intervals, beside the systems of notebook 01.
