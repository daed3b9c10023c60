# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 01 · What a guard answers
#
# **You ask three guards about three messages, read the probability of every answer that a guard could give, and set
# the bar that fine-tuning has to clear.**
#
# **What you will learn**
#
# - why one code for privacy is not enough;
# - how to get the exact probability of each answer, with nothing to parse;
# - which systems a guard has to beat, and how to compare them fairly;
# - why accuracy flatters a guard.
#
# **What you need**: the `laptop` profile and 2 GB of memory; 15 minutes of reading, 2 minutes of machine time on two
# CPU cores. The first run also fetches a model of 100 MB.
#
# **Agenda**
#
# 1. [Three messages, three guards](#Three-messages,-three-guards)
# 2. [A policy is text](#A-policy-is-text)
# 3. [Every answer at once](#Every-answer-at-once)
# 4. [What the untrained model knows](#What-the-untrained-model-knows)
# 5. [The bar](#The-bar)
# 6. [Why accuracy flatters](#Why-accuracy-flatters)
# 7. [Take-aways](#Take-aways)
# 8. [Exercises](#Exercises)
# 9. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# ## Three messages, three guards
#
# The three messages are friendly in tone, and each gives somebody away: a first name, an IP address, a street.

# %%
from guard_utils.data import load_splits
from guard_utils.policy import PII
from guard_utils.profiles import resolve

run = resolve(PROFILE)
splits = load_splits(run)
prompts = [
    "Dear Carmen, As our National Brand Architect, you will want to know who copied the campaign files before the "
    "launch. Please include the 109.4.61.213 and 4d36:f8ad:4ebd:1bff:c5eb:62aa:b4d7:dddf IP addresses in the "
    "investigation.",
    "Your recent hospital data recorded on 29/12/1957 has moved to the new archive. It now travels over "
    "IPv6 edaf:fd8f:e1e8:cfec:8bab:1afd:6aad:550c for enhanced privacy.",
    "Cardiac consult reminder for Stephen on 10/03/1976 at 4:40 AM. Commute to our clinic at S Broadway 61915, "
    "Port Diegostead near [-56.5612,-68.9245].",
]
wanted = [["S1", "S2"], ["S2"], ["S1", "S4"]]  # S1 name, S2 IP address, S4 address
if run.policy != PII:  # a policy of your own (notebook 07): messages of yours
    prompts, wanted = zip(*[(e.text, e.codes) for e in splits.validation if e.codes][:3], strict=True)

# %% [markdown]
# A published tutorial asked Llama Guard 3 about a message like the first one and printed the ids of the tokens that
# it wrote. Llama 3's own tokenizer turns them back into words:

# %%
from base64 import b64decode

from guard_utils.files import fetch

vocabulary = (fetch("llama3-tokenizer") / "tokenizer.model").read_bytes().splitlines()
published = [271, 39257, 198, 50, 22]
stock = b"".join(b64decode(vocabulary[token].split()[0]) for token in published).decode()
stock

# %% [markdown]
# `S7` is Llama Guard's one code for privacy. Now ask two models here: one that was never trained as a guard, and the
# one that this series fine-tuned. Both see our five categories.

# %%
import pandas as pd

from guard_utils.prompt import GuardPrompt
from guard_utils.scoring import GuardScorer, load_guard, load_model

model, tokenizer = load_model(run.model_folder(), dtype=run.dtype, device=run.device)
exact = 0 if len(run.policy) < 8 else 1e-6  # 1e-6 leaves out what can't matter: many categories have many answers
untrained = GuardScorer(model, GuardPrompt(run.policy, tokenizer), epsilon=exact)
guard = load_guard(run, or_untrained=True)
said = {"untrained": untrained.score(prompts, progress=False), "our guard": guard.score(prompts, progress=False)}

# %%
pd.set_option("display.max_colwidth", 60)
answers = {"message": prompts, "Llama Guard 3": [" ".join(stock.split()), "not published", "not published"]}
for name, scores in said.items():
    answers[name] = [verdict.text.replace("\n", " ") for verdict in scores.best]
pd.DataFrame(answers | {"wanted": [f"unsafe {','.join(codes)}" for codes in wanted]})

# %% [markdown]
# Read the first line. "There is something private" is true and of little use: whoever has to black out the text must
# know *what*. Only the last guard says it, and says it twice where two things are private. The series shows how it
# learned that, and how far you may trust it.
#
# On `laptop` both models are SmolLM2, with 135 million parameters and Llama Guard's architecture. Nothing here
# measures Llama Guard's own weights; the `guard-*` profiles run the same cells on them.

# %% [markdown]
# ## A policy is text
#
# Llama Guard reads its rules in each prompt. So we can write our own: five categories, each with a short description
# that decides the doubtful cases.

# %%
pd.set_option("display.max_colwidth", None)
pd.DataFrame([(c.name, c.description) for c in run.policy.categories], run.policy.codes, ["name", "what counts"])

# %% [markdown]
# This is the prompt of the third message, as the model sees it. The wording round the categories is Llama Guard's.

# %%
print(tokenizer.decode(untrained.prompt.segments(prompts[2]).ids))

# %% [markdown]
# ## Every answer at once
#
# Usually a guard writes, and a parser reads what it wrote. But five categories allow only 32 answers: `safe`, and
# `unsafe` with each set of codes. As tokens they begin alike, so they fit into a small tree, a *trie*. Building one
# takes a few lines:

# %%
from guard_utils.policy import Taxonomy, Verdict

trie, tokens = {}, 0
for verdict in untrained.trie.verdicts:
    node = trie
    for token in untrained.prompt.answer_ids(verdict):
        tokens += token not in node
        node = node.setdefault(token, {})
print(f"{len(untrained.trie.verdicts)} answers share {tokens} tokens")

# %% [markdown]
# The probability of an answer is the product of its tokens' probabilities, each given those before it. By hand, for
# one answer to the first message:

# %%
import torch

prompt_ids, answer_ids = untrained.prompt.segments(prompts[0]).ids, untrained.prompt.answer_ids(Verdict.of(wanted[0]))
with torch.inference_mode():
    logits = model(torch.tensor([prompt_ids + answer_ids], device=model.device)).logits[0].float()
steps = logits.log_softmax(-1)[len(prompt_ids) - 1 : -1]
by_hand = sum(float(step[token]) for step, token in zip(steps, answer_ids, strict=True))
place = untrained.trie.verdicts.index(Verdict.of(wanted[0]))
print(f"log-probability by hand {by_hand:.0f}, by GuardScorer {said['untrained'].log_probs[0, place]:.0f}")

# %% [markdown]
# `GuardScorer` does the same for the whole tree, and for many texts at a time. The figure asks it: *if* the untrained
# model has to report something about the first message, what is it?

# %%
import numpy as np

from guard_utils.figures import plot_trie, save

p = np.exp(said["untrained"].log_probs[0])
unsafe = np.array([not verdict.is_safe for verdict in untrained.trie.verdicts])
given = np.where(unsafe, p, 0) / p[unsafe].sum()
first = ",".join(untrained.trie.verdicts[given.argmax()].codes)
title = f"If it must report something, the untrained model says {first} ({given.max():.0%}); "
title += f"the right {','.join(wanted[0])} gets {given[place]:.1%}"
wish = Verdict.of(wanted[0])
figure = plot_trie(untrained.trie, given, lambda token: tokenizer.decode([token]), title=title, wanted=wish)
save(figure, run, "01-verdict-trie", f"Tree of the most probable unsafe answers to the first message. {title}.")

# %% [markdown]
# Each box is a token, and a line is as thick as the probability that runs through it. Add up all answers that contain
# S4, and you have the probability of S4. That is how one model gives a number for each category.

# %% [markdown]
# ## What the untrained model knows
#
# A tree offers 32 answers. What if the model wants none of them? The probability of everything else, *outside*, is
# known exactly, too. We score the first validation rows:

# %%
from guard_utils.scoring import predict, write_predictions

rows = splits.validation[: run.profile.zero_shot_rows]
zero_shot = predict(untrained, rows)
write_predictions(run, "zero_shot-validation", rows, zero_shot, {"dtype": run.dtype})
print(f"outside, mean of {len(rows)} texts: {zero_shot['outside'].mean():.3f}")

# %% [markdown]
# Does it know more than it says? AUROC ranks texts by the probability of a category: one half is a coin, 1 is
# perfect.

# %%
from guard_utils.metrics import per_category

per_category(zero_shot, run.policy).set_index("name")[["support", "auroc"]].round(2)

# %% [markdown]
# Where no number is near 1, no threshold and no stricter decoder turns a model into a guard. It has to learn.

# %% [markdown]
# ## The bar
#
# A score means little alone. Three systems need no language model: the most frequent answer (*majority*), regular
# expressions with the checks that an engineer adds, and *TF-IDF*, a logistic regression on pieces of words that
# learns from the guard's own training rows.

# %%
from guard_utils.scoring import majority, regular_expressions, tfidf

for part, examples in splits.held_out.items():
    made = {"majority": majority(splits.train, examples, run.policy)}
    if run.policy == PII:
        made["regex"] = regular_expressions(examples, run.policy)
    made["tfidf"] = tfidf(splits.train, examples, run.policy, run.seed)
    for name, table in made.items():
        write_predictions(run, f"{name}-{part}", examples, table, {"data": splits.digest})

# %% [markdown]
# Two more can be installed by anyone: **Presidio** and **Rampart**, a token classifier of 15 MB. What matters most is
# how they all do on real rows. The published tutorial measured its guard on 1,998 messages of ai4privacy's data.
# Their texts are not ours to give away, but the answers of every system are, by row number.

# %%
from guard_utils.metrics import bootstrap, compare_systems, interval_table
from guard_utils.scoring import reference_predictions

part, kind, cluster, answered = "reference", "real", None, reference_predictions()
if run.policy != PII:
    part, kind, cluster, answered = "test", "your test", "template_id", made
rivals = {name: answered[name] for name in ("majority", "regex", "tfidf", "presidio", "rampart") if name in answered}
bars = {name: bootstrap(table, run.policy, cluster=cluster, seed=run.seed) for name, table in rivals.items()}
interval_table(bars, ["weighted_f1", "subset_accuracy", "binary_fpr"])

# %% [markdown]
# `weighted_f1` is F1 of each category, weighted by how often the category occurs: the headline of this series.
# `subset_accuracy` asks for exactly the right set of codes. `binary_fpr` is the share of safe texts called unsafe.
# The brackets are 95 % intervals.

# %%
from guard_utils.figures import plot_scores

long = pd.concat([table.assign(system=name) for name, table in bars.items()])
drawn = long[long["metric"].isin(["weighted_f1", "subset_accuracy", "binary_fpr"])]
ranked = long[long["metric"] == "weighted_f1"].set_index("system")["value"].sort_values()
best, second = ranked.index[-1], ranked.index[-2]
lead = compare_systems(rivals[best], {second: rivals[second]}, run.policy, cluster=cluster).loc[second]
title = f"The bar on {kind} rows is {best.capitalize()}: weighted F1 {ranked[best]:.2f}, ahead of {second} by "
title += f"{lead['difference']:.2f} [{lead['low']:.2f}, {lead['high']:.2f}]"
alt = f"Scores of {len(bars)} systems on {kind} rows, with intervals. {title}."
save(plot_scores(drawn, title=title), run, "01-bar", alt)

# %% [markdown]
# Two systems are compared fairly when they answer the **same rows** and are scored by the **same function**. Then
# look at the interval of their *difference*, which is narrower than the two intervals side by side. It stands in the
# title.

# %% [markdown]
# ## Why accuracy flatters
#
# Here is one more guard: it never reports anything.

# %%
from guard_utils.data import gold_matrix

share = pd.Series(gold_matrix(rivals["majority"], run.policy).mean(axis=0), index=list(run.policy.names.values()))
pd.DataFrame({"texts with it": share, "accuracy of silence": 1 - share, "recall of silence": 0.0}).round(2)

# %% [markdown]
# Silence is right about most categories most of the time and finds nothing. F1 does not count texts that are rightly
# left alone, so silence can't buy it. The opposite trick, flagging every text, buys recall, and the false alarms in
# `binary_fpr` give it away. Always read both.

# %% [markdown]
# Every number goes into a run record, with its interval, rows, seed and versions. `expect` compares it with what
# earlier runs gave: ✓ within the tolerance, ! outside it.

# %%
from guard_utils.records import expect, intervals_of, record, run_card

scores = bootstrap(zero_shot, run.policy, seed=run.seed)
record(run, "zero_shot-validation", intervals_of(scores, ["weighted_f1", "outside"]), len(zero_shot))
for name, table in bars.items():
    values = intervals_of(table, ["weighted_f1", "subset_accuracy", "binary_fpr"])
    record(run, f"{name}-{part}", values, len(rivals[name]), model=name)
expect(run, "zero_shot-validation")
expect(run, f"{best}-{part}", "weighted_f1")
run_card(run, len(zero_shot))

# %% [markdown]
# ## Take-aways
#
# - A policy is text in the prompt. Five categories in place of one code cost nothing; right answers cost training.
# - Few answers are possible, so each has an exact probability, and nothing has to be parsed.
# - The bar is set on real rows, by systems that anybody can install.
# - A score needs its interval, its base rate and its false alarms beside it.

# %% [markdown]
# ## Exercises
#
# Put your answer in the place of the dots, run the cell, then the check beneath it. A click on *Solution* unfolds
# ours.
#
# **Warm-up.** Write a message of your own. Which category does the untrained model find most probable?

# %% tags=["exercise"]
message = "The bakery on the corner opens at seven."
favourite = ...  # a code, such as "S1"

# %% tags=["check"]
from guard_utils.records import attempt

with attempt(favourite):
    mine = dict(zip(run.policy.codes, untrained.score([message], progress=False).marginals[0], strict=True))
    assert mine[favourite] == max(mine.values()), f"another code has {max(mine.values()):.2g}"

# %% tags=["solution"]
favourite = run.policy.codes[untrained.score([message], progress=False).marginals[0].argmax()]

# %% [markdown] tags=["solution"]
# Try several messages: a model that does not read has the same favourite for all of them.

# %% [markdown]
# **Core.** Flag everything: give each validation row all five codes, as a predictions table. Which score gives it
# away?

# %% tags=["exercise"]
from guard_utils.data import predictions_table
from guard_utils.metrics import summary

alarmist = ...  # predictions_table(rows, run.policy, probabilities, predicted codes, 0.0)

# %% tags=["check"]
with attempt(alarmist):
    assert (alarmist["predicted"].str.len() == len(run.policy)).all(), "each row reports every category"
    assert summary(alarmist, run.policy)["binary_fpr"] == 1, "every safe text raises an alarm"

# %% tags=["solution"]
everything = [run.policy.codes] * len(rows)
alarmist = predictions_table(rows, run.policy, np.ones((len(rows), len(run.policy))), everything, 0.0)
pd.Series(summary(alarmist, run.policy)).round(3)

# %% [markdown] tags=["solution"]
# Its recall is 1 and its precision the base rate, so F1 looks respectable. `binary_fpr` is 1.

# %% [markdown]
# **Stretch.** Show the untrained model the five categories the other way round. Over the first rows, which share of
# the probability that it reports does each *name* get, in each order?

# %% tags=["exercise"]
texts = [example.text for example in splits.validation[:24]]
shares = ...  # a data frame: a row for each name, columns "forwards" and "backwards", each of which sums to 1
# Taxonomy("turned", run.policy.categories[::-1]) has the same categories, numbered from the other end.

# %% tags=["check"]
with attempt(shares):
    total = pd.Series(untrained.score(texts, progress=False).marginals.sum(axis=0), index=[*run.policy.names.values()])
    assert np.allclose(shares["forwards"], (total / total.sum())[shares.index]), "forwards is the order of the series"
    assert np.isclose(shares["backwards"].sum(), 1), "shares of a whole sum to 1"
    assert not np.allclose(shares["forwards"], shares["backwards"], rtol=1e-3), "did you turn the policy round?"

# %% tags=["solution"]
turned = GuardScorer(model, GuardPrompt(Taxonomy("turned", run.policy.categories[::-1]), tokenizer), epsilon=0)
names, columns = [*run.policy.names.values()], {"forwards": untrained, "backwards": turned}
sums = {name: scorer.score(texts, progress=False).marginals.sum(axis=0) for name, scorer in columns.items()}
shares = pd.DataFrame({"forwards": sums["forwards"], "backwards": sums["backwards"][::-1]}, index=names)
shares = shares / shares.sum()
shares.round(3)

# %% [markdown] tags=["solution"]
# Shares that follow the place in the list more than the name mean that the model answers the list, not the text.

# %% [markdown]
# ## Where to go next
#
# Notebook 02 makes the rows that teach a guard both the form and the content of an answer. Run it with the doubt that
# every good data set deserves: it has a surprise in it.
