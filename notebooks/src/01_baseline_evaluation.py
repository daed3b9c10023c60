# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 01 · What a guard answers today
#
# **You ask a model that was never trained for it to name private data, read the probability of *every* answer it could
# give, and set the bar that fine-tuning has to clear.**
#
# **What you will learn**
#
# - how a safety policy becomes a prompt, and why one category called Privacy is not enough;
# - how to read a guard's answer as a probability of each verdict instead of one line of text;
# - which three systems without any language model a guard has to beat, and how to compare them fairly;
# - why accuracy flatters a guard, and what the share of answers outside the grammar tells.
#
# **What you need**: the `laptop` profile, 2 GB of memory and about 2 minutes on two CPU cores. The first run also
# fetches the model, about 100 MB.
#
# **Agenda**
#
# 1. [Three prompts to keep in mind](#Three-prompts-to-keep-in-mind)
# 2. [Fourteen hazards, one code for privacy](#Fourteen-hazards,-one-code-for-privacy)
# 3. [Five privacy categories](#Five-privacy-categories)
# 4. [Every answer at once](#Every-answer-at-once)
# 5. [Left to its own words](#Left-to-its-own-words)
# 6. [Three baselines without a language model](#Three-baselines-without-a-language-model)
# 7. [Same rows, same function](#Same-rows,-same-function)
# 8. [Why accuracy flatters](#Why-accuracy-flatters)
# 9. [The mass outside the grammar](#The-mass-outside-the-grammar)
# 10. [What the model card reports](#What-the-model-card-reports)
# 11. [The numbers, on record](#The-numbers,-on-record)
# 12. [Take-aways](#Take-aways)
# 13. [Exercises](#Exercises)
# 14. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# The profile decides model, data and budgets.
#
# **Read this before any number below.** On `laptop` the model is SmolLM2-135M-Instruct, a general chat model of 135
# million parameters. It shares Llama Guard's architecture, not its training: it has never seen a safety policy. No
# number of a `laptop` run says anything about the weights of Llama Guard 3. The `guard-*` profiles run these same
# cells on Llama Guard 3 itself.

# %%
from guard_utils.profiles import resolve

run = resolve(PROFILE)
run.profile

# %% [markdown]
# Here is the whole series in one picture. Each notebook reads files that another wrote; where one is missing, it says
# which notebook makes it.
#
# ![Corpus rows become examples, a training file, a checkpoint and predictions (notebooks 02 to 04). From these follow
# metrics and figures, errors, and audited labels, which lead back to the examples.](figures/data-flow.svg)
#
# You are at the left end: nothing is trained yet, and that is the point of this notebook.

# %% [markdown]
# ## Three prompts to keep in mind
#
# These three messages will come back after the fine-tuning. Each is harmless in tone and gives somebody away: a first
# name, an IP address, a street. Below each stands the verdict we want, in the codes of our own policy.

# %%
from guard_utils.policy import Verdict

prompts = [
    "Dear Carmen, As our National Brand Architect, you will want to know who copied the campaign files before the "
    "launch. Please include the 109.4.61.213 and 4d36:f8ad:4ebd:1bff:c5eb:62aa:b4d7:dddf IP addresses in the "
    "investigation.",
    "Your recent hospital data recorded on 29/12/1957 has moved to the new archive. It now travels over "
    "IPv6 edaf:fd8f:e1e8:cfec:8bab:1afd:6aad:550c for enhanced privacy.",
    "Cardiac consult reminder for Stephen on 10/03/1976 at 4:40 AM. Commute to our clinic at S Broadway 61915, "
    "Port Diegostead near [-56.5612,-68.9245].",
]
wanted = [Verdict.of(["S1", "S2"]), Verdict.of(["S2"]), Verdict.of(["S1", "S4"])]

# %% [markdown]
# Our policy numbers five kinds of private data. The descriptions are part of the prompt, so they have to be short and
# decide the doubtful cases.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
pd.DataFrame([(c.name, c.description) for c in run.policy.categories], run.policy.codes, ["name", "what counts"])

# %% [markdown]
# Two of the three prompts violate two categories at once. A guard that may only say `S7`, privacy, cannot tell a name
# from a card number, and whoever has to redact the text learns nothing from it.

# %% [markdown]
# ## Fourteen hazards, one code for privacy
#
# Llama Guard 3 comes with a policy of fourteen hazards. Privacy is the seventh. We show the model exactly that policy
# first. `GuardPrompt` writes the prompt, `GuardScorer` reads off the probability of each verdict; with fourteen
# categories we list the verdicts of at most two violations.

# %%
from guard_utils.policy import LLAMA_GUARD_3
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring import GuardScorer, load_model

model, tokenizer = load_model(run.model_folder(), dtype=run.dtype, device=run.device)
hazards = GuardScorer(model, GuardPrompt(LLAMA_GUARD_3, tokenizer), max_violations=2, epsilon=0)
print(f"{run.profile.model}: {model.num_parameters() / 1e6:,.0f} million parameters")
print(f"{len(LLAMA_GUARD_3)} hazards, {len(hazards.trie.verdicts)} verdicts of at most two codes")

# %% [markdown]
# This is the prompt as the model sees it. What stands between the category lines is fixed by Llama Guard's own
# template; our text goes where the conversation is.

# %%
print(tokenizer.decode(hazards.prompt.segments(prompts[2]).ids))

# %% [markdown]
# Now the three prompts. *Outside* is the probability that the model writes something that is no verdict at all. Some
# numbers are tiny, so all are shown with three significant digits.

# %%
seen = hazards.score(prompts, progress=False)
hazard_table = pd.DataFrame(
    {
        "most probable verdict": [verdict.text.replace("\n", " ") for verdict in seen.best],
        "P(unsafe)": seen.unsafe,
        "P(S7, Privacy)": seen.marginals[:, LLAMA_GUARD_3.position("S7")],
        "outside": seen.outside,
    },
    index=["audit", "hospital", "reminder"],
)
hazard_table.map(lambda cell: cell if isinstance(cell, str) else f"{cell:.3g}")

# %% [markdown]
# Read the last column first. Where nearly all of the probability is outside, the model does not know the game: it can
# give an answer in our form only if it is made to. And whatever the second column says, the third could at best say
# *privacy*; this policy has no way to ask which kind.

# %% [markdown]
# ## Five privacy categories
#
# The policy is only text, so we can write our own. Nothing is trained here: the same model gets the five categories
# from above instead of the fourteen hazards.

# %%
five = GuardScorer(model, GuardPrompt(run.policy, tokenizer), epsilon=0)  # 0: however improbable
scores = five.score(prompts, progress=False)
names = [category.name for category in run.policy.categories]
marginals = pd.DataFrame(scores.marginals, columns=names, index=hazard_table.index)
marginals.map("{:.2g}".format).assign(
    answer=[verdict.text.replace("\n", " ") for verdict in scores.best],
    wanted=[verdict.text.replace("\n", " ") for verdict in wanted],
)

# %% [markdown]
# A guard that understands the policy has a number near 1 wherever a wanted code stands, and one near 0 elsewhere. How
# far is this model from it?

# %%
right = sum(verdict == want for verdict, want in zip(scores.best, wanted, strict=True))
print(f"{right} of {len(prompts)} verdicts are the wanted ones.")
print(f"The highest probability of any category on any prompt is {marginals.max().max():.2g}.")
print(f"The probability of writing any verdict at all is at most {1 - scores.outside.min():.2g}.")

# %% [markdown]
# ## Every answer at once
#
# Five categories allow 32 verdicts: `safe`, and `unsafe` with each possible set of codes. As token strings they share
# their beginnings, so they form a small tree, a *trie*. One forward pass over the prompt and the tree gives the
# probability of all 32, end of the answer included. Nothing is sampled, and nothing has to be parsed.
#
# Exact probabilities can be conditioned, however small they are. So we may ask the model three questions at once: is
# this a verdict at all, is it safe, and *if it reports something*, what? The figure answers the third for the first
# prompt.

# %%
import numpy as np

from guard_utils.figures import plot_trie, save

p = np.exp(scores.log_probs[0])
unsafe = np.array([not verdict.is_safe for verdict in five.trie.verdicts])
given = np.where(unsafe, p, 0) / p[unsafe].sum()
first, want = five.trie.verdicts[given.argmax()], five.trie.verdicts.index(wanted[0])
told = f"{','.join(first.codes)} ({given.max():.0%}); the wanted {','.join(wanted[0].codes)} gets {given[want]:.1%}"
title = f"If it reports something, the model prefers {told}"
figure = plot_trie(five.trie, given, lambda token: tokenizer.decode([token]), title=title, wanted=wanted[0])
alt = f"Tree of the eight most probable unsafe verdicts on the first prompt, given that it is unsafe: {told}."
save(figure, run, "01-verdict-trie", alt)

# %%
order = np.argsort(-p)[:8]
verdicts = [five.trie.verdicts[i].text.replace("\n", " ") for i in order]
columns = {"probability": p, "if it is a verdict": p / p.sum(), "if it reports something": given}
pd.DataFrame({"verdict": verdicts} | {name: [f"{value:.3g}" for value in q[order]] for name, q in columns.items()})

# %% [markdown]
# The thickness of a line is the probability that runs through it, and every box is one token. Codes are chosen one by
# one; a list that could go on competes with its own end. In the table, go from left to right: what is tiny in the first
# column may be everything in the second, once the model is held to the form. Summing all leaves with a code gives that
# code's probability. That is why we can speak of the probability of S4 although the model writes a list.

# %% [markdown]
# ## Left to its own words
#
# The tree shows what the model thinks of our answers. What does it write when nobody asks for them? Greedy decoding,
# as a chat would do it, and the strict parser of the series:

# %%
import torch

from guard_utils.policy import parse

written = []
for text in prompts:
    ids = torch.tensor([five.prompt.segments(text).ids], device=model.device)
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    written.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
read = [parse(answer, run.policy) for answer in written]
reasons = [found.text if isinstance(found, Verdict) else f"no verdict: {found.reason}" for found in read]
pd.DataFrame({"wrote": [repr(answer) for answer in written], "read as": reasons})

# %% [markdown]
# An answer outside the grammar becomes a `ParseFailure`, a value that is counted and never read as *safe*: a guard that
# rambles has not given the all-clear. With the tree there is nothing to parse, but the same weakness stays visible as
# the mass outside.

# %% [markdown]
# ## Three baselines without a language model
#
# Before a model of billions of parameters is worth its electricity, it has to beat what an engineer can build in an
# afternoon:
#
# - **majority**: always the most frequent verdict of the training set;
# - **regular expressions**: patterns for each category, with the checks one would add (octets of an IP address, the
#   Luhn digit of a card);
# - **TF-IDF**: logistic regression on pieces of words, trained on the very rows that the guard will be trained on.

# %%
from guard_utils.data import load_splits

splits = load_splits(run)
sizes = {part: len(rows) for part, rows in splits.held_out.items()}
pd.Series({"train": len(splits.train)} | sizes, name="rows").to_frame()

# %% [markdown]
# *Independent* is text that nobody here wrote: templates of another project, filled with other values. All three
# baselines answer all three sets now, so that later notebooks can put the fine-tuned guard beside them.

# %%
from guard_utils.scoring import majority, regular_expressions, tfidf, write_predictions

answers = {}
for part, rows in splits.held_out.items():
    answers["majority", part] = majority(splits.train, rows, run.policy)
    answers["regex", part] = regular_expressions(rows, run.policy)
    answers["tfidf", part] = tfidf(splits.train, rows, run.policy, run.seed)
for (system, part), table in answers.items():
    write_predictions(run, f"{system}-{part}", splits.held_out[part], table, {"data": splits.digest})

# %% [markdown]
# Every system fills the same table: one row a text, the gold codes, the predicted codes, a probability for each
# category. From here on no function knows who made it.

# %%
shown = ["text", "gold", "predicted", *(f"p_{code}" for code in run.policy.codes), "outside"]
answers["tfidf", "validation"][shown].head(3).round(3)

# %% [markdown]
# ## Same rows, same function
#
# The model without training (*zero-shot*) now answers the first validation rows. It is the slowest of the four, so the
# profile sets how many.

# %%
from guard_utils.scoring import predict

first_rows = splits.validation[: run.profile.zero_shot_rows]
zero_shot = predict(five, first_rows)
write_predictions(run, "zero_shot-validation", first_rows, zero_shot, {"dtype": run.dtype})
print(f"{len(zero_shot):,} rows scored by {run.profile.model}, without training")

# %% [markdown]
# A comparison is fair when all systems answer the **same rows** and are scored by the **same function**. So the
# baselines are cut to the rows of the slowest. The brackets are 95 % intervals from a bootstrap that draws whole
# templates: texts made from one sentence are right or wrong together and must not count as independent evidence.

# %%
from guard_utils.metrics import bootstrap, interval_table, summary

compared = {name: answers[name, "validation"].head(len(zero_shot)) for name in ("majority", "regex", "tfidf")}
compared["zero_shot"] = zero_shot
found = {name: bootstrap(table, run.policy, seed=run.seed) for name, table in compared.items()}

metrics = ["weighted_f1", "micro_f1", "subset_accuracy", "binary_f1", "binary_fpr", "outside"]
interval_table(found, metrics)

# %% [markdown]
# `weighted_f1` is the headline of this series: F1 of each category, weighted by how often it occurs. `subset_accuracy`
# asks for exactly the right set, `binary_f1` only for safe or unsafe, and `binary_fpr` is the share of safe texts that
# raise a false alarm.

# %%
from guard_utils.figures import plot_scores

long = pd.concat([table.assign(system=name) for name, table in found.items()])
drawn = pd.concat([long[long["metric"] == metric] for metric in ("weighted_f1", "subset_accuracy", "binary_f1")])
ranked = long[long["metric"] == "weighted_f1"].set_index("system")["value"].sort_values(ascending=False)
rival = ranked.drop("zero_shot").index[0]
title = f"The untrained model reaches a weighted F1 of {ranked['zero_shot']:.2f}, the best baseline ({rival}) "
title += f"{ranked[rival]:.2f}"
alt = "Dots with intervals, one a system. Weighted F1: " + ", ".join(f"{name} {f1:.2f}" for name, f1 in ranked.items())
save(plot_scores(drawn, title=title), run, "01-baselines", alt)

# %% [markdown]
# Where two intervals lie apart, the order is safe; where they overlap, look at the *difference* on the same rows, which
# is much surer than either score.

# %%
from guard_utils.metrics import paired_bootstrap

gap = paired_bootstrap(compared[rival], zero_shot, run.policy, seed=run.seed).set_index("metric").loc["weighted_f1"]
reading = "a sure difference" if gap["low"] > 0 or gap["high"] < 0 else "not told apart by these rows"
print(f"{rival} minus zero-shot: {gap['difference']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}], {reading}")

# %% [markdown]
# The order is not the same in every category, and that is the lesson of the next figure.

# %%
values = long.pivot(index="metric", columns="system", values="value")[list(compared)]
f1 = values.loc[[f"f1_{code}" for code in run.policy.codes]].set_axis(names)
best, weakest = f1["regex"].idxmax(), f1["regex"].idxmin()
title = f"Regular expressions find {best} (F1 {f1['regex'].max():.2f}) more easily than "
title += f"{weakest} ({f1['regex'].min():.2f})"
alt = "Dots with intervals: F1 of each category and system; the values are in the table beneath."
long["category"] = long["metric"].map({f"f1_{code}": name for code, name in run.policy.names.items()})
figure = plot_scores(long.dropna(subset="category"), title=title, group="category", score="F1")
save(figure, run, "01-categories", alt)

# %%
f1.round(3)

# %% [markdown]
# What has a grammar of its own, such as an IP address, is a pattern's home ground, and a language model has to work
# hard to do better. What has none, such as a first name in lower case or a street without the word *street*, is why we
# want a model that reads.

# %% [markdown]
# ## Why accuracy flatters
#
# Most texts do not violate most categories. A guard that never reports S5 is therefore right about S5 most of the time.
# The table shows that guard: it reports nothing, ever.

# %%
from guard_utils.data import gold_matrix

share = pd.Series(gold_matrix(zero_shot, run.policy).mean(axis=0), index=names)
never = pd.DataFrame({"base rate": share, "accuracy of never reporting": 1 - share, "recall of never reporting": 0.0})
never.round(3)

# %% [markdown]
# High accuracy, and not one private value found. The base rate is what makes the difference, and it belongs beside
# every score. F1 does not count the texts that are rightly left alone, so it cannot be bought that way. Nor by the
# opposite trick: compare how often each system cries wolf with how often there is one.

# %%
from guard_utils.data import predicted_matrix

rates = {name: predicted_matrix(table, run.policy).mean(axis=0) for name, table in compared.items()}
alarms = pd.DataFrame({"gold": share} | rates, index=names)
alarms.loc["any category"] = [(zero_shot["gold"].str.len() > 0).mean()] + [
    (table["predicted"].str.len() > 0).mean() for table in compared.values()
]
alarms.round(3)

# %% [markdown]
# The first column is the truth, the others are what each system reports. Read the last line first: that is all a
# safe/unsafe score sees. A system that flags every text gets a respectable `binary_f1` where most texts are unsafe, and
# the false positive rate is what gives it away.

# %%
flag_all = 2 * alarms.loc["any category", "gold"] / (1 + alarms.loc["any category", "gold"])
flagged = alarms.loc["any category", "zero_shot"]
print(f"Flagging every text would score a binary F1 of {flag_all:.3f} on these rows, at a false positive rate of 1.")
print(f"The zero-shot model flags {flagged:.1%} of them.")

# %% [markdown]
# ## The mass outside the grammar
#
# A verdict of the zero-shot model is the best of 32 answers *that it hardly thought of*. The column `outside` keeps
# that honest: it is the exact probability that the model, left alone, writes something that is no verdict. (With the
# fourteen hazards, verdicts of three or more codes count as outside, too.)

# %%
outside = pd.DataFrame({name: table["outside"] for name, table in compared.items()})
outside.describe().loc[["mean", "min", "50%", "max"]].round(3)

# %%
mass = outside["zero_shot"].mean()
print(f"Left alone, the model gives no valid verdict with probability {mass:.3f} ({len(zero_shot):,} texts).")
print(f"With the fourteen hazards it was {seen.outside.mean():.3f} (three prompts).")

# %% [markdown]
# The baselines have no such mass, since they cannot write anything else. For a model it is the first thing that
# fine-tuning mends: the form of the answer is learned long before its content, as notebook 03 will show.
#
# Does the model know more than it says? Rank the texts by the probability of a category, however small. AUROC is the
# chance that a text with the category ranks above one without it: one half is a coin, 1 is perfect. No threshold and
# no grammar is involved.

# %%
from guard_utils.metrics import per_category

auroc = {name: per_category(table, run.policy)["auroc"] for name, table in compared.items()}
pd.DataFrame(auroc).set_axis(names).round(3)

# %% [markdown]
# A zero-shot column near one half means that there is nothing to unlock: neither a better threshold nor a stricter
# decoder would turn this model into a guard. It has to learn.

# %% [markdown]
# ## What the model card reports
#
# Meta's card of Llama Guard 3 gives safe/unsafe scores on Meta's own test set of the fourteen hazards. We quote them to
# give a sense of scale; the last line is ours, of the model of this profile.

# %%
card = pd.DataFrame(
    {"binary F1": [0.939, 0.899], "AUPRC": [0.985, np.nan], "false positive rate": [0.040, 0.090]},
    index=["Llama Guard 3 8B (card)", "Llama Guard 3 1B (card)"],
)
own = summary(zero_shot, run.policy)
card.loc[f"{run.profile.model}, zero-shot, our rows"] = [own["binary_f1"], own["binary_auprc"], own["binary_fpr"]]
card.round(3)

# %% [markdown]
# These lines must **not** be ranked against each other: other texts, other categories, another base rate, and a card
# says nothing about naming the category. They tell what a trained guard can do at telling safe from unsafe, and that a
# low false positive rate is part of the claim. To measure Llama Guard 3 on our rows, run this notebook with
# `PROFILE = "guard-1b"`.

# %% [markdown]
# ## The numbers, on record
#
# Every number that a text of this series quotes comes from a run record: the value, its interval, the number of rows,
# the model, the seed and the versions. Each is then compared with what earlier runs gave.

# %%
from guard_utils.records import expect, intervals_of, record

kept = ["weighted_f1", "micro_f1", "subset_accuracy", "binary_f1", "outside"]
for name, table in found.items():
    system = None if name == "zero_shot" else name  # None: the model of the profile
    record(run, f"{name}-validation", intervals_of(table, kept), len(zero_shot), model=system)
    expect(run, f"{name}-validation", "weighted_f1")

# %% [markdown]
# A green line is within the tolerance, an amber one is not, or has nothing to be compared with yet.

# %%
from guard_utils.records import run_card

run_card(run, len(zero_shot))

# %% [markdown]
# ## Take-aways
#
# - A policy is text in a prompt. Asking for five categories instead of one code for privacy takes no training, but
#   getting good answers does.
# - Thirty-two verdicts form a small tree, and one forward pass gives the exact probability of each. So a guard can be
#   read, thresholded and calibrated, not only decoded.
# - The bar stands: whatever we train has to beat the best system of the comparison above, on the same rows, interval
#   against interval.
# - Never quote accuracy without the base rate, a safe/unsafe score without the false positive rate, or a verdict
#   without the mass outside the grammar.

# %% [markdown]
# ## Exercises
#
# Put your answer in the place of the dots, run the cell, then the check beneath it. A click on *Solution* unfolds ours.
#
# **Warm-up.** Write a message of your own that holds no private data at all. If the zero-shot model had to report
# something, which category would it be?

# %% tags=["exercise"]
message = "The bakery on the corner opens at seven."
favourite = ...  # name of a category

# %% tags=["check"]
from guard_utils.records import attempt

with attempt(favourite):
    mine = pd.Series(five.score([message], progress=False).marginals[0], index=names)
    assert favourite in names, f"{favourite!r} is no name of a category; choose one of {names}"
    assert mine[favourite] == mine.max(), f"the model finds {mine.idxmax()} more probable"

# %% tags=["solution"]
scored = five.score([message], progress=False)
favourite = names[scored.marginals[0].argmax()]
pd.Series(scored.marginals[0] / scored.unsafe[0], index=names).sort_values(ascending=False).round(3)

# %% [markdown] tags=["solution"]
# Dividing by the probability of *unsafe* asks what the model would report if it had to. Compare the order with the
# first prompt's: a model that does not read has the same favourites for every text.

# %% [markdown]
# **Core.** Build the guard that reports *every* category for every text, as a predictions table of the same rows. Which
# of its scores look respectable, and which one shows that it is useless?

# %% tags=["exercise"]
from guard_utils.data import predictions_table

alarmist = ...  # predictions_table(first_rows, run.policy, probabilities, predicted codes, mass outside)

# %% tags=["check"]
with attempt(alarmist):
    assert len(alarmist) == len(zero_shot), f"score the same {len(zero_shot)} rows as the others"
    assert (alarmist["predicted"].str.len() == len(run.policy)).all(), "each row reports every category"
    own = summary(alarmist, run.policy)
    assert own["binary_fpr"] == 1, "every safe text raises an alarm"
    assert abs(own["binary_f1"] - flag_all) < 1e-9, f"binary F1 is {flag_all:.3f}, as we computed above"

# %% tags=["solution"]
everything = [run.policy.codes] * len(first_rows)
alarmist = predictions_table(first_rows, run.policy, np.ones((len(first_rows), len(run.policy))), everything, 0.0)
pd.DataFrame({"alarmist": summary(alarmist, run.policy), rival: summary(compared[rival], run.policy)}).round(3)

# %% [markdown] tags=["solution"]
# Its recall is 1 everywhere and its precision is the base rate, so the F1s are well above zero, and `binary_f1` is what
# we computed above. `binary_fpr` is 1: every safe text raises an alarm.

# %% [markdown]
# **Stretch.** Does the zero-shot model mind the *order* of the policy? Show it the five categories the other way round,
# and compare which share of the reported probability each name gets over two dozen texts: one row a name, one column an
# order.

# %% tags=["exercise"]
texts = [example.text for example in splits.validation[:24]]
shares = ...  # a data frame with the columns "forwards" and "backwards", each of which sums to 1

# %% tags=["check"]
with attempt(shares):
    assert set(shares.index) == set(names), f"one row for each of {names}"
    assert np.allclose(shares[["forwards", "backwards"]].sum(), 1), "shares of a whole sum to 1"
    total = pd.Series(five.score(texts, progress=False).marginals.sum(axis=0), index=names)
    assert np.allclose(shares["forwards"], (total / total.sum())[shares.index]), "forwards is the order of the series"
    assert not np.allclose(shares["forwards"], shares["backwards"], rtol=1e-3), "did you turn the policy round?"

# %% tags=["solution"]
turned = GuardScorer(model, GuardPrompt(run.policy.select(reversed(run.policy.codes)), tokenizer), epsilon=0)
shares = pd.DataFrame({
    "forwards": pd.Series(five.score(texts, progress=False).marginals.sum(axis=0), index=names),
    "backwards": pd.Series(turned.score(texts, progress=False).marginals.sum(axis=0), index=names[::-1]),
})  # fmt: skip
shares = shares / shares.sum()
shares.round(3)

# %% [markdown] tags=["solution"]
# If the shares follow the position in the list more than the name, the model answers the list and not the text.
# Training under many policies (notebook 02) is the cure.

# %% [markdown]
# ## Where to go next
#
# In **02, from rows to training lines**, we make the data that teaches the model both the form and the content of the
# answer, and see how easily a label map goes wrong. Notebook 03 trains, and notebook 04 puts the result beside the
# baselines you have just written.
