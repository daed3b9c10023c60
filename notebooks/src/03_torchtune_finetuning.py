# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 03 · Fine-tuning with torchtune
#
# **You train a guard that names every privacy category of a text, and see why it needs a fraction of the usual work.**
#
# **What you will learn**
#
# - why a guard spends most of its training on text it has already read, and how one copy of the policy serves all;
# - how to *prove* that a shortcut in training changes nothing;
# - what each part of a torchtune config decides;
# - how to read a loss curve that first learns the form of an answer and then its content.
#
# **What you need**: the `laptop` profile, notebook 02 run before, 8 GB of memory and about 19 minutes on two CPU
# cores that multiply bf16 in hardware (three times as long on others). A finished training is reused, not repeated.
#
# **Agenda**
#
# 1. [Where the time goes](#Where-the-time-goes)
# 2. [One prefix for all](#One-prefix-for-all)
# 3. [The same loss, proven](#The-same-loss,-proven)
# 4. [The config, part by part](#The-config,-part-by-part)
# 5. [The run](#The-run)
# 6. [The loss curve](#The-loss-curve)
# 7. [What it cost](#What-it-cost)
# 8. [A first look at the guard](#A-first-look-at-the-guard)
# 9. [Take-aways](#Take-aways)
# 10. [Exercises](#Exercises)
# 11. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# The profile decides model, data, config and budgets. Each line says where its value comes from.

# %%
from guard_utils.profiles import resolve

run = resolve(PROFILE)
run.profile

# %% [markdown]
# ## Where the time goes
#
# Every training example opens with the same policy: the task, five categories with their descriptions, and the rules
# for the answer. `GuardDataset` is what torchtune will read; it gives token ids, labels, and how many of the leading
# tokens are that shared *prefix*.

# %%
from guard_utils.training import GuardDataset, RecipeTokenizer

tokenizer = RecipeTokenizer(str(run.model_folder()))
dataset = GuardDataset(tokenizer, source=str(run.folder / "train.jsonl"))
print(f"{len(dataset):,} examples; the first has {len(dataset[0]['tokens'])} tokens")

# %% [markdown]
# How many of an example's tokens are new to the model? We count them in the first few hundred rows.

# %%
import pandas as pd

sample = [dataset[i] for i in range(min(300, len(dataset)))]
lengths = pd.DataFrame(
    {
        "policy (the same every time)": [row["prefix_length"] for row in sample],
        "text and frame": [len(row["tokens"]) - row["prefix_length"] for row in sample],
        "answer (the only labels)": [sum(label != -100 for label in row["labels"]) for row in sample],
    }
)
lengths["text and frame"] -= lengths["answer (the only labels)"]
lengths.mean().round(1).to_frame("tokens an example")

# %% [markdown]
# Look at the first line against the other two. A stock recipe computes all of it for every example, and then projects
# every position on the whole vocabulary, although a loss is taken on the last line only.

# %% [markdown]
# ## One prefix for all
#
# Put the examples of one policy behind **one** copy of the policy. Each text may look at the policy and at itself, but
# not at its neighbours, and counts its positions from the end of the policy. Nothing else in a transformer lets tokens
# meet, so every number stays what it was. The picture shows both forms at the same scale.

# %%
from guard_utils.figures import plot_prefix_mask, save

after = [len(row["tokens"]) - row["prefix_length"] for row in sample[:6]]
before = sample[0]["prefix_length"]
packed, stock = before + sum(after), len(after) * (before + max(after))  # a stock batch is padded

# %%
title = f"Six examples: {stock:,} tokens in a stock batch, {packed:,} behind one prefix"
alt = f"Two attention masks of six examples. Left, stock: {stock} tokens. Right, one shared policy: {packed} tokens."
save(plot_prefix_mask(before, after, title=title), run, "03-prefix-mask", alt)

# %% [markdown]
# The light blue column on the right is the policy, seen by every text; the small orange triangles are the texts, blind
# to each other. The more texts share a prefix, the nearer the cost of an example comes to that of its text alone.

# %% [markdown]
# ## The same loss, proven
#
# A shortcut that changes the result is a bug with good manners, so we check. A tiny Llama gets the same eight examples
# twice: as torchtune's own padded batch, and packed behind one prefix.

# %%
import torch
from omegaconf import OmegaConf
from torchtune import config

from guard_utils.profiles import repository

torch.manual_seed(0)
tiny = config.instantiate(OmegaConf.load(repository() / "torchtune_configs" / "smoke.yaml").model)
rows = sample[:8]

# %% [markdown]
# First the stock way: pad, run everything, project every position on the vocabulary.

# %%
from torch.nn import CrossEntropyLoss
from torchtune.data import padded_collate_sft

batch = padded_collate_sft(rows)
logits = tiny(batch["tokens"])

# %%
stock_loss = CrossEntropyLoss()(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
stock_loss.backward()
stock_gradients = {name: weight.grad.clone() for name, weight in tiny.named_parameters()}
del logits  # every position times 49,152 tokens: half a gigabyte that the training will need

# %% [markdown]
# Then the shared way: same weights, same examples.

# %%
from guard_utils.training import collate_shared_prefix, shared_prefix_loss, use_shared_prefix

tiny.zero_grad()
loss = shared_prefix_loss(use_shared_prefix(tiny), CrossEntropyLoss(), collate_shared_prefix(rows))
loss.backward()

# %%
gaps = {name: (weight.grad - stock_gradients[name]).norm() for name, weight in tiny.named_parameters()}
worst = max(float(gap / stock_gradients[name].norm()) for name, gap in gaps.items())
print(f"loss {stock_loss:.6f} and {loss:.6f}; largest relative difference of a gradient {worst:.1e}")
assert worst < 1e-4

# %% [markdown]
# What is left is rounding: the same sums in another order. The tests repeat this for several policies, for LoRA, and
# over twenty optimizer steps.

# %% [markdown]
# ## The config, part by part
#
# torchtune builds everything from one YAML file: each `_component_` names a class or function, the lines below it are
# its arguments. Ours stands in `torchtune_configs/`; its comments give the trade-off beside each option.

# %%
from IPython.display import Code

Code(run.config_path.read_text(), language="yaml")

# %% [markdown]
# Three entries are ours: `recipe` (torchtune's own recipe, which knows what a shared prefix is), `dataset` (rows that
# carry their policy) and `collate_fn` (the packing you have just checked). The rest is stock torchtune.

# %% [markdown]
# ## The run
#
# `finetune` fills in this run's paths, writes the resolved config beside the checkpoint, starts `tune run` in a process
# of its own and shows its progress. If torchtune fails you see its last lines and a hint.
#
# Stop it whenever you like, even by closing the lid: every `save_every_n_steps` updates, weights, optimizer and place
# in the data are saved, and the same cell goes on from there to the same end. A finished run is recognised by what
# decides its result (config, rows, policy, base model, our code), wherever it is moved, and not repeated.

# %%
from guard_utils.training import finetune

training = finetune(run, run.folder / "train.jsonl", processes=max(1, run.profile.gpus))
print(f"{training.examples:,} examples in {len(training.log)} logged steps, on {run.device} in {run.dtype}")

# %% [markdown]
# Time for a coffee, the first time. The bar tells examples a second; how many minutes it took goes into the run record,
# where `python -m tools.publish report laptop` finds it. However often a run was cut off, its log holds every step
# once:

# %%
print(f"steps {training.log['step'].iloc[0]} to {training.log['step'].iloc[-1]}, each once")
assert training.log["step"].is_unique

# %% [markdown]
# ## The loss curve
#
# The loss is nats a token of the answer. A model that has learned only the *form* of answers, and how frequent each one
# is, would sit at the entropy of the label sets: that is the dashed line. Learning what a name or a phone number looks
# like begins below it.

# %%
from collections import Counter

from scipy.stats import entropy

answers = Counter(tuple(label for label in row["labels"] if label != -100) for row in dataset)
tokens = sum(len(answer) * count for answer, count in answers.items()) / len(dataset)
form_only = entropy(list(answers.values())) / tokens
print(f"{len(answers)} different answers; knowing only how frequent each is costs {form_only:.3f} nats a token")

# %% [markdown]
# A single batch may be lucky, so the mean of five steps decides when the line is crossed.

# %%
from guard_utils.figures import plot_loss

log = training.log
below = log[log["loss"].rolling(5).mean() < form_only]
crossed = f"after {below['examples'].iloc[0]:,} examples" if len(below) else "not in this run"
title = f"The loss falls below 'form only' {crossed}"
alt = f"Training loss by step, from {log['loss'].iloc[0]:.2f} to {log['loss'].tail(5).mean():.3f} nats a token."
save(plot_loss(log, title=title, entropy=form_only), run, "03-loss-curve", alt)

# %% [markdown]
# Notice the two phases. The first steps teach the grammar (`safe`, or `unsafe` and codes); a run that stops there looks
# trained and knows nothing. Content comes after. Near the middle texts of one clause give way to composed ones, which
# are harder: a small rise there is no alarm.

# %%
steps = log.iloc[[0, len(log) // 4, len(log) // 2, -1]][["step", "examples", "loss", "lr"]].set_index("step")
steps.assign(loss=steps["loss"].round(3), lr=steps["lr"].map("{:.1e}".format))

# %% [markdown]
# ## What it cost
#
# How much work did the shared prefix spare this very run? We count what went through the model, in the batches that
# torchtune made, and what a stock recipe would have run at the least, that is, without any padding.

# %%
import yaml

size = yaml.safe_load(run.config_path.read_text())["batch_size"]
every = [dataset[i] for i in range(len(dataset))]
batches = [collate_shared_prefix(every[first : first + size]) for first in range(0, len(every), size)]
stock = sum(len(row["tokens"]) for row in every)

# %%
shared = [sum(batch["tokens"].numel() for batch in batches), sum(len(batch["mask"]["labelled"]) for batch in batches)]
cost = pd.DataFrame({"stock": [stock, stock], "shared prefix": shared})
cost.index = ["tokens through the model", "positions projected on the vocabulary"]
cost.map("{:,}".format).assign(times=(cost["stock"] / cost["shared prefix"]).map("{:.1f}".format))

# %% [markdown]
# The second line matters more than it seems: for a small model with a large vocabulary, the projection is a fifth of
# all work. Time is not in the table, as it depends on the machine; `python -m tools.benchmarks.training` measures
# both sides on yours, in one run and at equal loss.

# %% [markdown]
# ## A first look at the guard
#
# The checkpoint is an ordinary one: plain `transformers` loads it. We ask it about three texts that occur in no data
# set of ours. The third holds look-alikes only.

# %%
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring import GuardScorer, load_model

texts = [
    "Could you ask Carmen whether 109.4.61.213 is still ours?",
    "My card 4539 1488 0343 6467 was charged twice, ring me on 020 7946 0018.",
    "Version 10.2.14.1 is out, the meeting is at 14:30.",
]
model, hf_tokenizer = load_model(training.checkpoint, dtype=run.dtype, device=run.device)
scores = GuardScorer(model, GuardPrompt(run.policy, hf_tokenizer)).score(texts, progress=False)

# %% [markdown]
# Its answers, and the probability of every category:

# %%
table = pd.DataFrame(scores.marginals, columns=list(run.policy.names.values()), index=texts).round(2)
table.insert(0, "answer", [verdict.text.replace("\n", " ") for verdict in scores.best])
table

# %% [markdown]
# One answer names every category it found. Three texts are an anecdote, though; notebook 04 measures. What this
# training took and reached goes on record, and the card says what it was made of.

# %%
from guard_utils.records import record, run_card

values = {
    "loss_last": float(log["loss"].tail(10).mean()),
    "minutes": training.seconds / 60,
    "examples_per_second": training.examples / training.seconds,
}
record(run, "training", values, training.examples, made_on=training.made_on, dtype=run.dtype)
run_card(run, training.examples)

# %% [markdown]
# ## Take-aways
#
# - Most tokens of a guard's training are the policy. Behind one shared prefix they are computed once a batch, and only
#   positions with a label are projected on the vocabulary.
# - The shortcut is exact: loss and gradients equal those of a stock batch up to rounding.
# - The loss of 'form only' is a line you can compute beforehand. A guard that has not crossed it has learned nothing
#   about privacy.

# %% [markdown]
# ## Exercises
#
# Put your answer in the place of the dots, run the cell, then the check beneath it. A click on *Solution* unfolds ours.
#
# **Warm-up.** How many times fewer tokens does a batch of 32 average examples have behind one prefix? The table of
# lengths is still in `lengths`.

# %% tags=["exercise"]
times_fewer = ...  # a number above 1

# %% tags=["check"]
from guard_utils.records import attempt

with attempt(times_fewer):
    whole, policy = lengths.sum(axis=1).mean(), lengths["policy (the same every time)"].mean()
    expected = 32 * whole / (policy + 32 * (whole - policy))
    assert abs(times_fewer - expected) < 0.01, "stock: 32 whole examples; packed: one policy and 32 times the rest"

# %% tags=["solution"]
policy = lengths["policy (the same every time)"].mean()
rest = lengths.drop(columns="policy (the same every time)").sum(axis=1).mean()
times_fewer = 32 * (policy + rest) / (policy + 32 * rest)
print(f"{times_fewer:.1f} times fewer")

# %% [markdown]
# **Core.** Rows may carry their own policy (notebook 02). Make a row with the text "back in Lyon since Monday" under
# the policy of S4 and S1, in this order, and pack it twice behind six rows of `sample`. How many prefixes does the
# batch hold?

# %% tags=["exercise"]
from guard_utils.policy import PII, Verdict

row = ...  # a dict with tokens, labels and prefix_length, like sample[0]
prefixes = ...  # how many policies collate_shared_prefix finds in [*sample[:6], row, row]

# %% tags=["check"]
with attempt(row):
    other = GuardPrompt(PII.select(["S4", "S1"]), tokenizer.tokenizer)
    assert row["prefix_length"] == len(other.prefix_ids), "prefix_length counts the tokens of the other policy"
    assert row["tokens"][: row["prefix_length"]] == list(other.prefix_ids), "tokens begin with the other policy"
    learned = tuple(label for label in row["labels"] if label != -100)
    assert learned == tuple(other.answer_ids(Verdict(("S1",)))), "S4 is the first of the two: the answer is unsafe, S1"
    assert prefixes == 2, "mask['counts'] has one entry a policy"

# %% tags=["solution"]
other = GuardPrompt(PII.select(["S4", "S1"]), tokenizer.tokenizer)
ids, answer = other.training_ids("back in Lyon since Monday", Verdict(("S1",)))
row = {"tokens": list(ids), "labels": [-100] * (len(ids) - answer) + list(ids[-answer:])}
row["prefix_length"] = len(other.prefix_ids)
prefixes = len(collate_shared_prefix([*sample[:6], row, row])["mask"]["counts"])

# %% [markdown] tags=["solution"]
# The address is S4 in our policy and S1 in this one: its place in the list decides, not its name. Each policy is
# computed once, so a batch of many policies saves less than a batch of one.

# %% [markdown]
# **Stretch.** One equal step is not yet an equal training. Take three optimizer steps with `sample[:4]` in both ways,
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


makers = [config.instantiate(OmegaConf.load(repository() / "torchtune_configs" / "smoke.yaml").model) for _ in "ab"]
for model_copy in makers:
    model_copy.load_state_dict(tiny.state_dict())
stock_losses = train_steps(makers[0], stock_step)
shared_losses = train_steps(use_shared_prefix(makers[1]), shared_step)
pd.DataFrame({"stock": stock_losses, "shared prefix": shared_losses})

# %% [markdown]
# ## Where to go next
#
# Notebook 04 scores the checkpoint on text it has never seen, with intervals, beside the baselines of notebook 01.
