# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 04 · Does it work? A benchmark you can trust
#
# **You score the fine-tuned guard on text it has never seen, and end with numbers that you could defend in a review.**
#
# **What you will learn**
#
# - how to read the exact probability of every verdict from one forward pass, with nothing to parse;
# - why two scripts can report different F1 scores for the same answers, and which one to believe;
# - how to draw a confusion matrix when an answer may hold several categories, or none;
# - how to say "better than the baseline" so that it stands: same rows, paired intervals, corrected tests;
# - how to choose thresholds without fooling yourself.
#
# **What you need**: the `laptop` profile and 4 GB of memory. Scoring your own guard of notebook 03 takes about four
# minutes on two CPU cores, and is done once; everything after it takes less than one. If you have trained nothing, the
# predictions that come with the series are read, and you are there in a minute.
#
# **Agenda**
#
# 1. [Score every verdict once](#Score-every-verdict-once)
# 2. [Four test sets](#Four-test-sets)
# 3. [Category by category](#Category-by-category)
# 4. [One F1, two ways to count](#One-F1,-two-ways-to-count)
# 5. [Confusion matrices](#Confusion-matrices)
# 6. [Better than what](#Better-than-what)
# 7. [Safe or unsafe](#Safe-or-unsafe)
# 8. [Thresholds, chosen on validation](#Thresholds,-chosen-on-validation)
# 9. [The ladder](#The-ladder)
# 10. [Write the numbers down](#Write-the-numbers-down)
# 11. [Take-aways](#Take-aways)
# 12. [Exercises](#Exercises)
# 13. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# The profile decides the model and how many rows are scored; the seed fixes the data and the intervals.

# %%
import sys

import pandas as pd

from guard_utils.data import load_splits
from guard_utils.profiles import resolve

run = resolve(PROFILE)
splits = load_splits(run)
pd.options.display.precision, pd.options.display.max_colwidth = 3, 90
pd.options.display.html.use_mathjax = False  # "$" in a text is a dollar sign
run.profile

# %% [markdown]
# ## Score every verdict once
#
# A guard usually *writes* its answer, one token after the other, and a parser hopes for the best. But five categories
# allow only 32 verdicts. We can ask the model for the probability of each one, exactly, in a single forward pass: no
# sampling, no decoding loop, no answer that can't be parsed. The most probable verdict becomes `predicted`.
#
# Three sets are scored: **validation**, on which we may tune; **test**, composed of clauses that training never saw;
# and **independent**, sentence templates that nobody here wrote. Tables made by this very checkpoint are read again; if
# you have trained nothing, those that come with the series are read. The `origin` of a table says which.

# %%
from guard_utils.scoring import tuned_predictions

scored = tuned_predictions(run, splits.held_out)
validation, test, independent = scored.values()
print(f"Predictions {test.attrs['origin']}", file=sys.stderr)  # shown to you, not kept: it differs from run to run

# %% [markdown]
# One row a prompt. `gold` holds the codes of the labels, `p_S1` to `p_S5` the probability that the answer contains a
# category (summed over all verdicts that do), `p_unsafe` that it is any unsafe verdict.

# %%
probabilities = [f"p_{code}" for code in run.policy.codes]
test[["text", "gold", "predicted", *probabilities, "p_unsafe", "outside"]].head(4)

# %% [markdown]
# `outside` is the probability that the model, left to write freely, would have written something that is no verdict at
# all. It is the parse-failure rate, known exactly instead of counted from samples. How large is it?

# %%
pd.DataFrame({part: df["outside"].describe()[["mean", "50%", "max"]] for part, df in scored.items()}).T

# %% [markdown]
# A well-trained guard has learned the grammar, and this mass is next to nothing. Where it is not, no F1 below
# deserves trust: the verdicts would be the best of answers that the model hardly wants to give.

# %% [markdown]
# ## Four test sets
#
# The reference tutorial reports two numbers, one for prompts with at most one violation and one for prompts with
# several. We keep that cut, because several violations are harder, and add the text from elsewhere.

# %%
from guard_utils.data import reference_selection

single, multi = (test.iloc[reference_selection(test["gold"], kind=kind, n=len(test))] for kind in ("single", "multi"))
sets = {"test": test, "test-single": single, "test-multi": multi, "independent": independent}
safe = {name: int((df["gold"].str.len() == 0).sum()) for name, df in sets.items()}
templates = {name: df["template_id"].nunique() for name, df in sets.items()}
pd.DataFrame({"prompts": {name: len(df) for name, df in sets.items()}, "safe": safe, "templates": templates})

# %% [markdown]
# Mind the last column. Prompts of one template are near copies: they are right or wrong together. Whoever treats them
# as independent gets intervals that are far too narrow, so our bootstrap draws **whole templates**, a thousand times.

# %%
from guard_utils.metrics import bootstrap

boots = {name: bootstrap(df, run.policy, seed=run.seed) for name, df in sets.items()}

# %% [markdown]
# These are the headline numbers, each with its 95 % interval. *Subset accuracy* is the hardest: the whole set of codes
# has to be right.

# %%
from guard_utils.metrics import interval_table

headline = ["weighted_f1", "micro_f1", "macro_f1", "subset_accuracy"]
interval_table(boots, headline)

# %% [markdown]
# Read the intervals before the values. Two sets whose intervals overlap widely do not differ for certain, and a third
# decimal means nothing here. *Test* against *independent* is the price of leaving home.

# %% [markdown]
# ## Category by category
#
# An average hides its worst part. Precision asks how many reported codes were right, recall how many true codes were
# found, F1 balances both, and *ap*, the average precision, judges the ranking by probability, whatever the threshold.

# %%
from guard_utils.metrics import category_table

category_table(test, run.policy, boots["test"])

# %% [markdown]
# The same on text that nobody here wrote:

# %%
category_table(independent, run.policy, boots["independent"])

# %% [markdown]
# A category without a positive row would say "not measured" and why: a zero there would be a lie, and an average over
# it another. `templates` tells on how many different sentences a number rests. The picture puts both sets side by side.

# %%
from guard_utils.figures import plot_scores, save
from guard_utils.metrics import per_category

scores = per_category(independent, run.policy).dropna(subset="f1")
low = scores.loc[scores["f1"].idxmin()]
title = f"{low['name']} is the hardest category away from home: F1 {low['f1']:.2f}"
names = {f"f1_{code}": name for code, name in run.policy.names.items()}
drawn = pd.concat([boots[part].assign(system=part) for part in ("test", "independent")])
drawn = drawn.assign(category=drawn["metric"].map(names)).dropna(subset="category")
alt = f"F1 of each category with intervals, on test and on independent text. {title}."
save(plot_scores(drawn, title=title, group="category", score="F1"), run, "04-categories", alt)

# %% [markdown]
# Where the two dots of a category part company, the guard has learned our way of writing that category rather than the
# category itself. Where an interval is wide, few templates have it: more rows would not help, more templates would.

# %% [markdown]
# ## One F1, two ways to count
#
# The reference tutorial compares answers **by position**. It pads the shorter list with made-up labels that end in
# `_M`, and feeds the aligned pairs to scikit-learn's weighted F1. We compare **sets**: a code is found, missed, or
# extra. `rescore` reproduces the reference's number bit for bit. Same answers, same labels:

# %%
from guard_utils.metrics import rescore, summary

ours = {name: summary(df, run.policy) for name, df in sets.items()}
ways = pd.DataFrame(
    {
        "set-based weighted F1 (ours)": {name: found["weighted_f1"] for name, found in ours.items()},
        "positional weighted F1 (reference's)": {name: rescore(df).weighted_f1 for name, df in sets.items()},
        "exact match": {name: found["subset_accuracy"] for name, found in ours.items()},
    }
)
ways

# %% [markdown]
# Where do they part? Take two answers by hand. In the first, the truth is a name and an address; the guard finds the
# address, misses the name, and reports a card that is not there.

# %%
from guard_utils.metrics import align, answer_of

rows = []
for truth, said in ((["S1", "S4"], ["S4", "S5"]), (["S4"], ["S1", "S5"])):
    pairs = [*zip(*align(answer_of(truth), answer_of(said)), strict=True)]
    right = {"right as sets": len({*truth} & {*said}), "right by position": sum(a == b for a, b in pairs)}
    rows.append({"truth": truth, "answer": said, "aligned pairs (truth, answer)": pairs} | right)
pd.DataFrame(rows)

# %% [markdown]
# Lists of equal length are compared as they stand, so one wrong code shifts every right one behind it into error. The
# other quirk is kinder than it should be: after padding, the list is cut to the longer length, and a miss can fall off.
# In the second answer S4 was missed, and is counted nowhere.

# %% [markdown]
# There are two more differences. The reference counts `safe` as one more label, so easy safe rows lift its average, and
# its `_M` labels in the truth weigh in with an F1 of zero. Its number is not wrong by a constant: it moves up or down
# with the mix of rows. That is why every F1 in this series says how it was counted.

# %% [markdown]
# ## Confusion matrices
#
# First the reference's kind, on the prompts with several violations. Rows are the padded truth, columns the padded
# answers; red names are padding.

# %%
from guard_utils.figures import plot_confusion

padded = rescore(multi).confusion
invented = padded.loc[padded.index.str.endswith("_M")].to_numpy().sum()
invented += padded.loc[~padded.index.str.endswith("_M"), padded.columns.str.endswith("_M")].to_numpy().sum()
title = f"{invented:,} of {padded.to_numpy().sum():,} pairs hold a label that nobody gave"
alt = f"The reference's confusion matrix of {len(multi)} prompts with several violations. {title}."
save(plot_confusion(padded, title=title), run, "04-confusion-reference", alt)

# %% [markdown]
# It can be read with care: `S4` in the truth against `S4_M` in the answers is a missed address. But a pair such as
# `S1` against `S4` may be a real confusion or a right code at the wrong place, and the matrix can't tell which.
#
# The proper one has a margin instead of invented labels (after Heydarian and others, 2022). A true code that was found
# goes on the diagonal. A missed code is paired with each extra code of the same prompt, or goes to *no predicted
# label*; an extra code beside full hits goes to *no true label*.

# %%
import numpy as np

from guard_utils.figures import plot_multilabel_confusion
from guard_utils.metrics import multilabel_confusion

matrix = multilabel_confusion(test, run.policy)
errors = matrix.where(~np.eye(len(matrix), dtype=bool), 0).stack()
gold, answer = errors.idxmax()
named = {"no true label": f"{answer} invented"}.get(gold, f"{gold} taken for {answer}")
named = f"{gold} missed" if answer == "no predicted label" else named
title = f"The commonest error: {named}, {errors.max():,} of {errors.sum():,}"
alt = f"Multi-label confusion matrix of {len(test)} test prompts. {title}."
save(plot_multilabel_confusion(matrix, title=title), run, "04-confusion", alt)

# %% [markdown]
# The bottom row is what the guard invents, the last column what it overlooks, and the square between them what it takes
# for something else. Most guards err in the margins: they see too much or too little, and rarely mistake a card for a
# name. The corner counts safe prompts that were called safe.

# %%
matrix

# %% [markdown]
# ## Better than what
#
# A score without a baseline is a thermometer without a scale. Notebook 01 scored three systems that need no language
# model on the very same rows: the most frequent answer, regular expressions with the checks an engineer would write,
# and TF-IDF with logistic regression trained on the same examples as our guard.

# %%
from guard_utils.scoring import read_predictions

others = {
    part: {name: read_predictions(run, name, part, splits.held_out[part]) for name in ("majority", "regex", "tfidf")}
    for part in ("test", "independent")
}

# %% [markdown]
# Everyone is scored by the same function, with intervals.

# %%
systems = {part: {"tuned": scored[part], **others[part]} for part in others}
tables = {
    (part, name): bootstrap(df, run.policy, seed=run.seed)
    for part, group in systems.items()
    for name, df in group.items()
}
long = pd.concat(tables, names=["part", "system"]).reset_index(["part", "system"])
weighted = long[long["metric"] == "weighted_f1"].set_index(["part", "system"])

# %% [markdown]
# Which baseline is best is decided by the data, for each set on its own.

# %%
best = {part: weighted.loc[part]["value"].drop("tuned").idxmax() for part in others}
leads = {part: weighted.loc[part]["value"]["tuned"] - weighted.loc[part]["value"][best[part]] for part in others}
title = "Tuned guard against the best baseline: " + ", ".join(f"{leads[part]:+.2f} on {part}" for part in leads)
alt = f"Weighted F1 of the tuned guard and three baselines, with intervals, on test and independent text. {title}."
save(plot_scores(weighted.reset_index(), title=title, group="part", score="weighted F1"), run, "04-systems", alt)

# %% [markdown]
# Two intervals that do not overlap settle the matter. Where they do overlap, the question is still open: what makes a
# draw hard makes it hard for both, so we look at the **difference**, on the same draws. `low` above zero says that the
# guard is better. McNemar's test asks the same of whole answers, on the rows where only one of the two is exactly
# right; its p-values are corrected (Holm) because we test several times.

# %%
from guard_utils.metrics import compare_systems

tests = {part: compare_systems(scored[part], others[part], run.policy, seed=run.seed) for part in others}
pd.concat(tests, names=["part"]).assign(p_holm=lambda table: table["p_holm"].map("{:.1g}".format))

# %% [markdown]
# And what did the fine-tuning itself bring? The same model before training was scored in notebook 01 on the first
# validation rows; here are both on just those.

# %%
first = splits.validation[: run.profile.zero_shot_rows]
zero_shot = read_predictions(run, "zero_shot", "validation", first)
compare_systems(validation.head(len(first)), {"zero_shot": zero_shot}, run.policy, seed=run.seed)

# %% [markdown]
# ## Safe or unsafe
#
# The cards of the Llama Guard models report safe against unsafe, whatever the category: F1, the area under the
# precision-recall curve of P(unsafe), and the false positive rate (notebook 01 quotes them). Here are ours, to be
# compared with care, since the cards measure other hazards on other text.

# %%
binary = ["binary_f1", "binary_auprc", "binary_fpr"]
interval_table({f"{name}, {part}": table for (part, name), table in tables.items()}, binary)

# %% [markdown]
# `binary_fpr` is the share of safe prompts that were called unsafe. The safe prompts of the embedded test set are
# mostly **hard negatives**: order numbers that look like cards, versions that look like IP addresses, months that are
# names. In front of real users, where nearly every prompt is safe, this number decides whether a guard stays switched
# on. Which of them fool it most?

# %%
alarms = test[(test["gold"].str.len() == 0) & (test["predicted"].str.len() > 0)]
alarms.sort_values("p_unsafe", ascending=False)[["text", "predicted", "p_unsafe"]].head(5)

# %% [markdown]
# ## Thresholds, chosen on validation
#
# The most probable verdict treats a miss and a false alarm alike. Your product may not. Each category has its own
# probability, so each can have its own threshold: for the best F1, for F2 (a miss hurts more), or for a high recall at
# any price. They are chosen on **validation** only; tuned on the test set, they would measure nothing.

# %%
from guard_utils.metrics import tune

tuned = {goal: tune(validation, run.policy, goal) for goal in ("f1", "fpr", "recall")}
pd.DataFrame({found.objective: found.by_code for found in tuned.values()}).T

# %% [markdown]
# Now the test set, decided in three ways from the same probabilities.

# %%
from guard_utils.metrics import Thresholds, decide

half = Thresholds(dict.fromkeys(run.policy.codes, 0.5), "0.5")
decided = {"joint verdict": test, "marginals at 0.5": decide(test, run.policy, half)}
decided["tuned for F1"] = decide(test, run.policy, tuned["f1"])
decisions = pd.DataFrame({name: summary(df, run.policy) for name, df in decided.items()}).T
decisions["moved"] = [(df["predicted"] != test["predicted"]).sum() for df in decided.values()]
decisions[["weighted_f1", "micro_f1", "subset_accuracy", "binary_fpr", "moved"]]

# %% [markdown]
# Do not expect miracles. A model whose probabilities pile up near 0 and 1 leaves little to move, and a threshold tuned
# on a small validation set can lose on test what it won there. What thresholds do buy is a choice. The curves show the
# whole range of the trade: every point is one threshold, and the markers are those tuned for F1.

# %%
from guard_utils.figures import plot_precision_recall
from guard_utils.metrics import precision_recall

curves = {f"{code} {name}": precision_recall(test, run.policy, code) for code, name in run.policy.names.items()}
marks = {f"{code} {run.policy.names[code]}": value for code, value in tuned["f1"].by_code.items()}
ap = per_category(test, run.policy).set_index("name")["ap"].dropna()
title = f"{ap.idxmin()} asks the most for its recall: average precision {ap.min():.2f}"
alt = f"Precision against recall for each category on test, with the chosen thresholds. {title}."
save(plot_precision_recall(curves, title=title, thresholds=marks), run, "04-precision-recall", alt)

# %% [markdown]
# ## The ladder
#
# One more look at the same predictions, this time through better and better glasses. The bottom step is what the
# reference would have published: its label rules, its metric. Then we mend one mistake at a time: exact labels, the set
# metric, thresholds from validation. Not one answer changes before the last step.

# %%
from guard_utils.data import reference_codes_evaluation
from guard_utils.metrics import ladder

old = [reference_codes_evaluation(labels) for labels in test["labels"]]
steps = ladder(test, run.policy, reference_gold=old, thresholds=tuned["f1"], seed=run.seed)
steps

# %% [markdown]
# `change` has an interval of its own, since all steps are scored on the same draws.

# %%
from guard_utils.figures import plot_ladder

low, high = steps["weighted_f1"].min(), steps["weighted_f1"].max()
largest = steps.loc[steps["change"].abs().idxmax()]
title = f"One set of answers, F1 from {low:.2f} to {high:.2f}; the largest step is '{largest['step']}'"
alt = f"Weighted F1 of the same test predictions in {len(steps)} steps of measurement, with intervals. {title}."
save(plot_ladder(steps, title=title), run, "04-ladder", alt)

# %% [markdown]
# If the labels weigh more than the metric, ask what is wrong with them. Notebook 05 lets you find out without being
# told.

# %% [markdown]
# ## Write the numbers down
#
# A number that can't be traced is gossip. Each headline result becomes a run record: value, interval, number of
# prompts, model, seed, versions, and the fingerprints of checkpoint and rows.

# %%
from guard_utils.records import Interval, intervals_of, record

metrics = [*headline, "outside", *binary]
for name, df in sets.items():
    values = intervals_of(boots[name], metrics) | {"reference_f1": rescore(df).weighted_f1}
    record(run, f"tuned-{name}", values, len(df), checkpoint=df.attrs["checkpoint"], rows=df.attrs["rows"])

# %% [markdown]
# The best baseline of each set goes beside them; its name stands where the model's name was.

# %%
for part, name in best.items():
    record(run, f"best-baseline-{part}", intervals_of(tables[part, name], metrics), len(scored[part]), model=name)

# %% [markdown]
# And two results of their own: the false alarms on hard negatives, and the steps of the ladder from bottom to top.

# %%
alarm_rate = intervals_of(boots["test"], ["binary_fpr"])["binary_fpr"]
rungs = {f"step-{i + 1}": Interval(*row) for i, row in steps[["weighted_f1", "low", "high"]].iterrows()}
own = {"hard-negatives-test": ({"false_positive_rate": alarm_rate}, safe["test"]), "ladder-test": (rungs, len(test))}
for name, (values, n) in own.items():
    record(run, name, values, n)

# %% [markdown]
# Are they the numbers this series promises? Green is within the tolerance, amber outside it or without a promise.

# %%
from guard_utils.records import expect

promised = [(f"tuned-{name}", "weighted_f1") for name in sets] + [("hard-negatives-test", "false_positive_rate")]
promised += [(f"best-baseline-{part}", "weighted_f1") for part in best]
for name, metric in promised:
    expect(run, name, metric)

# %% [markdown]
# The card says where all of this comes from.

# %%
from guard_utils.records import run_card

run_card(run, sum(map(len, scored.values())), checkpoint=test.attrs["checkpoint"])

# %% [markdown]
# ## Take-aways
#
# The sentences with numbers are written from the records, so they can't go stale:

# %%
from IPython.display import Markdown

from guard_utils.records import load_records

found = {item.name: item.values for item in load_records(run.folder)}
Markdown(
    f"- Weighted F1, set-based: **{found['tuned-test']['weighted_f1']}** on test, "
    f"**{found['tuned-independent']['weighted_f1']}** on text that nobody here wrote.\n"
    f"- The best baseline there: {found['best-baseline-test']['weighted_f1']} ({best['test']}) and "
    f"{found['best-baseline-independent']['weighted_f1']} ({best['independent']}).\n"
    f"- Share of the {safe['test']:,} safe test prompts that were called unsafe: "
    f"{found['hard-negatives-test']['false_positive_rate']}.\n"
    f"- Measured the reference's way, the same test answers score {found['ladder-test']['step-1']}."
)

# %% [markdown]
# - Score verdicts, do not parse prose: exact probabilities give the answer and the thresholds at once.
# - Compare sets. A positional metric counts right codes as errors and lets some misses vanish.
# - A comparison needs the same rows, the same function, paired draws, and a correction for asking often.
# - Tune on validation, report on test, and believe the text that nobody on your team wrote.

# %% [markdown]
# ## Exercises
#
# Put your answer in the place of the dots, run the cell, then the check beneath it. A click on *Solution* unfolds ours.
#
# **Warm-up.** Find the five test prompts on which the guard is least decided: `p_unsafe` nearest to one half. Would you
# have been sure?

# %% tags=["exercise"]
undecided = ...  # five rows of test

# %% tags=["check"]
from guard_utils.records import attempt

with attempt(undecided):
    assert len(undecided) == 5, "five rows, please"
    doubt = (test["p_unsafe"] - 0.5).abs()
    farthest, passed_over = doubt[undecided.index].max(), doubt.drop(undecided.index).min()
    assert farthest <= passed_over, f"one of yours is {farthest:.3f} from one half, one you left out {passed_over:.3f}"

# %% tags=["solution"]
nearest = (test["p_unsafe"] - 0.5).abs().sort_values().index[:5]
undecided = test.loc[nearest, ["text", "gold", "predicted", "p_unsafe"]]
undecided

# %% [markdown]
# **Core.** Repeat the bootstrap of the independent set as if every row stood for itself (`cluster=None`). How much
# narrower does the interval of weighted F1 become, and why is the narrower one wrong?

# %% tags=["exercise"]
naive = ...  # a table like boots["independent"]

# %% tags=["check"]
with attempt(naive):
    by_row, by_template = naive.set_index("metric"), boots["independent"].set_index("metric")
    assert np.allclose(by_row["value"], by_template["value"], equal_nan=True), "the scores themselves stay as they are"
    same = np.allclose(by_row["low"], by_template["low"], equal_nan=True)
    assert not same or independent["template_id"].is_unique, "these are the intervals we had; pass cluster=None"

# %% tags=["solution"]
naive = bootstrap(independent, run.policy, seed=run.seed, cluster=None)
interval_table({"by template": boots["independent"], "by row": naive}, ["weighted_f1"])

# %% [markdown] tags=["solution"]
# Each template was filled several times. The rows of one template succeed or fail together, so they carry less
# information than their number suggests; drawing single rows pretends otherwise.

# %% [markdown]
# **Stretch.** Your product may raise a false alarm on at most one safe prompt in a hundred. Choose the lowest threshold
# on `p_unsafe` that keeps this promise on validation. Then look at test: is the promise kept, and at what recall?

# %% tags=["exercise"]
cut = ...  # a prompt is flagged where p_unsafe > cut

# %% tags=["check"]
with attempt(cut):
    calm = validation.loc[validation["gold"].str.len() == 0, "p_unsafe"]
    assert (calm > cut).mean() <= 0.01, f"flags {(calm > cut).mean():.1%} of the safe validation prompts"
    lower = calm[calm < cut].max()
    tight = not (calm < cut).any() or (calm > lower).mean() > 0.01
    assert tight, f"{lower:.4f} would do, too, and find more"

# %% tags=["solution"]
is_safe = validation["gold"].str.len() == 0
cut = validation.loc[is_safe, "p_unsafe"].quantile(0.99, interpolation="higher")
flagged, unsafe = test["p_unsafe"] > cut, test["gold"].str.len() > 0
print(f"cut {cut:.3f}: recall {flagged[unsafe].mean():.3f}, false alarms {flagged[~unsafe].mean():.3f}")

# %% [markdown] tags=["solution"]
# With few safe validation rows the threshold rests on one or two of them: expect the rate on test to differ.

# %% [markdown]
# ## Where to go next
#
# Notebook 05 reads the errors one by one and asks of each: is the model wrong, or the label?
