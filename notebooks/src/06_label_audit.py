# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 06 · Audit the labels, correct them, retrain
#
# **You hunt faults that were planted in a training set, correct them in a file of decisions, and measure what the
# corrections win on text that nobody touched.**
#
# **What you will learn**
#
# - why a model can't find the mistake it was taught, and who can;
# - how to report a systematic fault as one finding, not as a thousand rows;
# - how to get an honest second opinion on every single label: probabilities from models that have not seen the row;
# - how to decide without reading, and how often that goes wrong;
# - how to share corrections of data that you may not share.
#
# **What you need**: the `laptop` profile and 4 GB of memory. Half a minute with the tables of our own run, a
# quarter of an hour on two CPU cores if all of them are made anew, the guard's two trainings left out. Sections 10 and
# 12 read the predictions of notebook 04.
#
# **Agenda**
#
# 1. [A training set with known faults](#A-training-set-with-known-faults)
# 2. [The fault that every model repeats](#The-fault-that-every-model-repeats)
# 3. [The first page](#The-first-page)
# 4. [Corrections are data](#Corrections-are-data)
# 5. [Models that have not seen the row](#Models-that-have-not-seen-the-row)
# 6. [From doubt to a ranking](#From-doubt-to-a-ranking)
# 7. [Read the suspects](#Read-the-suspects)
# 8. [Decide without reading](#Decide-without-reading)
# 9. [What it wins](#What-it-wins)
# 10. [What it wins for the guard](#What-it-wins-for-the-guard)
# 11. [The same audit on clean labels](#The-same-audit-on-clean-labels)
# 12. [Your own data](#Your-own-data)
# 13. [Write the numbers down](#Write-the-numbers-down)
# 14. [Take-aways](#Take-aways)
# 15. [Exercises](#Exercises)
# 16. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# As always, the profile decides the data. Only sections 10 and 12 need another notebook, the predictions of 04.

# %%
import pandas as pd

from guard_utils.data.splits import load_splits
from guard_utils.profiles import resolve

run = resolve(PROFILE)
splits = load_splits(run)
figures = run.folder / "figures"
pd.options.display.precision, pd.options.display.max_colwidth = 3, 110
pd.options.display.html.use_mathjax = False  # "$" in a text is a dollar sign

# %% [markdown]
# ## A training set with known faults
#
# Real label errors have a drawback: nobody knows where all of them are, so nobody can tell how good a hunt was. We
# plant our own, in three kinds that real data sets have:
#
# - **missing**: an annotator overlooks everything of one category in a text;
# - **wrong**: an annotator marks it as something else;
# - **rule**: the reference tutorial's rules turn labels into codes by substring, the same way in every row. Post codes
#   become IP addresses as well, phone numbers become nothing.
#
# The first two change the marked spans, not only the codes. So repairing the rules will not bring them back.

# %%
from guard_utils.audit.noise import plant, wrong_pairs

noisy = plant(splits.train, run.policy, seed=run.seed, missing=0.05, wrong=0.03)
given, truth = noisy.examples, noisy.truth
wrong = wrong_pairs(given, splits.train)
print(f"{len(wrong):,} of {len(given) * len(run.policy):,} (row, code) pairs are wrong.")
truth[truth["given"] != truth["right"]].groupby(["kind", "code"]).size().unstack(fill_value=0)

# %% [markdown]
# Keep the table in mind, then forget it: whoever audits a data set does not have it. From here on `given` is all we
# know, and `truth` is only looked at to mark our work. One row of each kind, marked as the annotator *should* have:

# %%
from IPython.display import HTML

from guard_utils.metrics.errors import marked_html

right = {example.id: example for example in splits.train}
first = truth[truth["given"] != truth["right"]].groupby("kind").first()
HTML("".join(
    f"<b>{kind}: {pair.code} is {'given' if pair.given else 'lacking'}</b>"
    + marked_html(right[pair.id].text, right[pair.id].spans)
    for kind, pair in first.iterrows()
))  # fmt: skip

# %% [markdown]
# ## The fault that every model repeats
#
# The usual recipe says: train a model by cross-validation, and look where it contradicts the labels. Let us try.

# %%
from guard_utils.audit.ranking import out_of_fold
from guard_utils.scoring.baselines import tfidf

try:
    out_of_fold(given, run.policy, tfidf)
except ValueError as error:
    print(error)

# %% [markdown]
# An error, and a clue. A category without a single positive can't be learned, so no cross-validation would ever have
# missed the phone numbers. The post codes are worse: they would have raised no error at all. Each fold would have
# *learned* that a post code is an IP address, and agreed with the labels.
#
# A systematic fault needs a witness who was not taught by it. We have one since notebook 01: regular expressions, which
# have read no label. On other data it may be a guard that was trained elsewhere, or Llama Guard as it comes.

# %%
from guard_utils.audit.mapping import find_faults
from guard_utils.scoring.baselines import regular_expressions

witness = regular_expressions(given, run.policy)
faults = find_faults({"regex": witness}, run.policy)

# %% [markdown]
# ## The first page
#
# For each source label and code the witness is heard twice: how often does it **object** on the rows of that label, and
# how **reliable** is it elsewhere, on rows that could show it wrong? A witness who misses most addresses can't tell
# whether a city is one. Where both numbers are high, the finding is *certain*. `tied` lists the codes that come with
# the label.

# %%
faults

# %% [markdown]
# One line a fault, with the number of its rows, however many there are. The lines that are not certain are questions
# that this witness can't answer. Read three rows of each certain one, with the annotator's own marks:

# %%
from guard_utils.audit.mapping import fault_rows, tied_codes

tied = tied_codes(witness, run.policy)
certain = faults[faults["certain"]]
by_id = {example.id: example for example in given}
page = ""
for fault in certain.to_dict("records"):
    rows = witness[fault_rows(witness, run.policy, fault, tied)].head(3)
    page += f"<h4>{fault['label']} was {fault['kind']}: {fault['code']}</h4>"
    page += "".join(f"<b>{list(r.gold)}</b>{marked_html(r.text, by_id[r.id].spans)}" for r in rows.itertuples())
HTML(page)

# %% [markdown]
# Codes above each text, marks in it: nobody has to be an expert to see who is wrong. What about the questions that the
# witness left open? Those take a reader, but not a long one: there are only as many decisions as labels. Here is what
# each label *seems to mean*, read off the rows, beside one of its values.

# %%
rows = witness["labels"].explode().value_counts()
values = {span.label: e.text[span.start : span.end] for e in reversed(given) for span in e.spans}
meaning = pd.DataFrame({"rows": rows, "comes with": pd.Series(tied).str.join(", "), "for instance": pd.Series(values)})
meaning.sort_values(["comes with", "rows"], ascending=False)

# %% [markdown]
# And this is what the policy says:

# %%
for category in run.policy.categories:
    print(f"{category.code} {category.name}: {category.description}")

# %% [markdown]
# Go through the table with the policy in hand. A company is not a person, and neither is a handle; but both come with
# S1. House numbers and flats are part of an address; but they come with nothing. Four more decisions, a minute's work,
# and no model was needed. They stand in the cell below; on your own data, fill in yours.

# %%
columns = ["label", "code", "kind"]
decided = pd.DataFrame(
    [
        ("COMPANYNAME", "S1", "mapped by mistake"),
        ("USERNAME", "S1", "mapped by mistake"),
        ("BUILDINGNUMBER", "S4", "never mapped"),
        ("SECONDARYADDRESS", "S4", "never mapped"),
    ],
    columns=columns,
)
accepted = pd.concat([certain[columns], decided], ignore_index=True)

# %% [markdown]
# ## Corrections are data
#
# A correction is a row id, a code, what to do, why, and who says so. No text: so corrections of a data set that may not
# be redistributed can be shared all the same.

# %%
from guard_utils.audit.corrections import apply_corrections, read_corrections, write_corrections
from guard_utils.audit.mapping import fault_corrections

corrections = fault_corrections(witness, run.policy, accepted, reviewer="first page")
path = write_corrections(run.folder / "audit" / "corrections-1.jsonl", corrections, given, run.policy)
print("\n".join(path.read_text().splitlines()[:3]))

# %% [markdown]
# The first line holds the hash of the data that was reviewed. Applying the decisions is a pure function; unknown ids,
# decisions that contradict each other or the data, and another version of the data are errors.

# %%
fixed = apply_corrections(given, read_corrections(path, given), run.policy)
try:
    read_corrections(path, fixed)
except ValueError as error:
    print(error)

# %% [markdown]
# Time to mark our work, with the truth that a real auditor lacks.

# %%
from guard_utils.audit.noise import precision

left = wrong_pairs(fixed, splits.train)
print(f"{len(corrections):,} corrections of {len(accepted)} labels, {precision(corrections, wrong):.1%} of them right.")
print(f"Wrong pairs: {len(wrong):,} before, {len(left):,} now.")

# %% [markdown]
# The few that went wrong are rows in which an annotator had marked something else as a phone number, say: the label is
# right now, the mark is not. What is left does not gather on labels. It has to be found pair by pair.

# %% [markdown]
# ## Models that have not seen the row
#
# Now cross-validation is the right tool. The rows are dealt to five folds, **by template**: a model that has read a
# near copy of a row has half seen it. Two models that look at a text in different ways:
#
# - **tfidf** reads the whole text as a bag of pieces of words (notebook 01);
# - **words** decides word by word, by form and neighbours, learns from the marked spans, and can say *where* it sees
#   something.
#
# With `GUARD = True` the fine-tuned guard itself joins them: one training for each fold of each audit, for GPUs.

# %%
from guard_utils.audit.retraining import GuardModel, cheap_model
from guard_utils.audit.word_model import word_model

GUARD, FOLDS = False, 5
models = {"tfidf": tfidf, "words": word_model} | ({"guard": GuardModel(run)} if GUARD else {})

# %% [markdown]
# Tables of probabilities are remembered, as numbers only, with fingerprints of the rows, the models' code and the
# folds: what was made from the same is read, anything else is made anew.

# %%
from guard_utils.audit.ranking import out_of_sample

tables = out_of_sample(run, f"{run.seed}", fixed, models, folds=FOLDS)

# %% [markdown]
# How much do these models know? Against the labels that we have, which are still partly wrong:

# %%
from guard_utils.metrics.scores import summary

scores = pd.DataFrame({name: summary(df, run.policy) for name, df in tables.items()}).T
scores[["weighted_f1", "subset_accuracy"]]

# %% [markdown]
# Neither is a good guard, and that is fine. A witness need not be right; it has to be wrong in *other* places than the
# labels are.

# %% [markdown]
# ## From doubt to a ranking
#
# If the models give a code little probability and the row has it, or much and the row lacks it, something is wrong: the
# models or the label. `suspects` ranks every (row, code) pair by cleanlab's label quality of the mean probability. The
# score allows for how sure the models usually are of a category, so that a hard category does not fill the top.

# %%
from guard_utils.audit.ranking import suspects

ranked = suspects(tables, run.policy)
ranked.head(5)

# %% [markdown]
# `issues` says how many of the models cleanlab's own issue finder would convict. Where do the pairs that all of them
# convict lie? First by category: is a code rather lacking (*add*) or given too freely (*remove*)?

# %%
convicted = ranked[ranked["issues"] == len(models)]
convicted.groupby(["code", "action"]).size().unstack(fill_value=0)

# %% [markdown]
# Then by source label: which share of a label's rows would change? After a thorough first page no label should stand
# out. One that does has a fault of its own, and belongs there.

# %%
from guard_utils.audit.ranking import proposal
from guard_utils.metrics.associations import by_source_label

shares = by_source_label(proposal(tables["words"], convicted), run.policy).sort_values("disagreement", ascending=False)
shares.loc[shares["rows"] >= 20, ["label", "code", "rows", "missed", "extra", "disagreement"]].head(6)

# %% [markdown]
# Now the question that pays for the whole exercise. A reviewer reads from the top and stops somewhere. How many of the
# wrong pairs has she seen by then? Marked with the truth, for each model alone and for both:

# %%
from guard_utils.figures.charts import precision_recall, save


def review_curve(ranked):
    hits = pd.Series([pair in left for pair in zip(ranked["id"], ranked["code"], strict=True)])
    shares = {"precision": hits.expanding().mean(), "recall": hits.cumsum() / max(1, hits.sum())}
    return pd.DataFrame({"threshold": ranked["quality"]} | shares).head(len(ranked) // 5)


# %%
from guard_utils.audit.noise import found_within

alone = {name: suspects({name: df}, run.policy) for name, df in tables.items()}
curves = {name: review_curve(table) for name, table in (alone | {"together": ranked}).items()}
seen = found_within(ranked, left)
title = f"In the first tenth of the ranking stand {seen:.0%} of the wrong pairs"
alt = f"Precision against recall of reading the ranking from the top, each model alone and together. {title}."
save(precision_recall(curves, title=title), figures, "06-ranking", alt)

# %% [markdown]
# Start at the left: the top of the ranking is nearly all errors. Then every further error costs more reading. Two
# models together are ahead of each alone, because their own mistakes lie in different places.

# %%
pd.Series({name: found_within(table, left) for name, table in (alone | {"together": ranked}).items()}).to_frame(
    "found in the first tenth"
)

# %% [markdown]
# ## Read the suspects
#
# The reviewer's page: the code in question, the suggestion, the evidence with the deciding word in brackets, and what
# each model thinks.

# %%
from guard_utils.audit.ranking import review_table

review = review_table(ranked.head(100), tables["words"])
review[["code", "suggestion", "given", "evidence", *(f"p_{name}" for name in models)]].head(12)

# %% [markdown]
# The same table goes to a spreadsheet, with two empty columns: `decision` (add, remove or keep) and `reason`. Here a
# reviewer fills in the first three lines; what she leaves empty stays undecided.

# %%
from guard_utils.audit.corrections import read_review
from guard_utils.files import write_text

review.loc[review.index[:3], "decision"] = review["suggestion"].head(3)
sheet = write_text(run.folder / "audit" / "review.csv", review.to_csv(index=False))
read_review(sheet, reviewer="a reader")

# %% [markdown]
# ## Decide without reading
#
# This notebook has to run unattended, and you may have more rows than reviewers. A policy that decides by itself must
# be timid: it acts only where **every** model says the opposite of the label **and** the quality is low. The limit was
# chosen on one planting of noise; the next section shows others. If you would rather read, skip this cell and use
# `read_review`.
#
# Timid leaves much undecided. There is a third way beside *right* and *wrong*: a row that may lack a code is **set
# aside** until somebody reads it. A lacking code teaches the guard to keep silent, and there are plenty of other rows.

# %% tags=["hide-input"]
from guard_utils.audit.ranking import automatic, undecided

chosen = automatic(ranked)
corrected = apply_corrections(fixed, chosen, run.policy)
write_corrections(run.folder / "audit" / "corrections-2.jsonl", chosen, fixed, run.policy)
aside = undecided(ranked, chosen)

# %%
still = wrong_pairs(corrected, splits.train)
kept = {pair for pair in still if pair[0] not in aside}
print(f"{len(chosen)} corrections, {precision(chosen, left):.1%} of them right; {len(aside):,} rows set aside.")
print(f"Wrong pairs: {len(left):,} before, {len(still):,} corrected, {len(kept):,} in the rows that are kept.")

# %% [markdown]
# The rows set aside are the reviewer's, and the ranking tells her where to begin.

# %% [markdown]
# ## What it wins
#
# Better labels are a means. Does a model that is trained on them get better? We train four times: on the noisy labels,
# with the label faults corrected, with the single pairs corrected or set aside as well (*audited*), and on the clean
# labels as the ceiling. The learner is the baseline of notebook 01, which is trained in seconds; it is scored on the
# clean test set and on text that nobody here wrote. One planting of noise proves little, so there are three.

# %%
from guard_utils.audit.ranking import remembered
from guard_utils.data.examples import rows_fingerprint

asked = [*splits.test, *splits.independent]


def retrained(rows, name, learner=cheap_model):
    """Answers of a learner trained on these rows; without a learner, those of an earlier run."""
    facts = {"train": rows_fingerprint(rows), "seed": run.seed}
    make = learner and (lambda: learner(rows, asked, run.policy, run.seed))
    return remembered(run, name, asked, facts, make)


# %% [markdown]
# The whole hunt of the sections above, once for each planting. The first one is ours.

# %%
SEEDS = (0, 1, 2)
hunts, versions = {}, {"noisy": [], "faults corrected": [], "audited": []}
for seed in SEEDS:
    rows = plant(splits.train, run.policy, seed=seed).examples
    heard = regular_expressions(rows, run.policy)
    found = find_faults({"regex": heard}, run.policy)
    page = pd.concat([found.loc[found["certain"], columns], decided])
    repairs = fault_corrections(heard, run.policy, page, reviewer="first page")
    better = apply_corrections(rows, repairs, run.policy)
    ranking = suspects(out_of_sample(run, f"{seed}", better, models, folds=FOLDS), run.policy)
    pairs = automatic(ranking)
    doubtful = undecided(ranking, pairs)
    best = [row for row in apply_corrections(better, pairs, run.policy) if row.id not in doubtful]
    for version, labels in zip(versions, (rows, better, best), strict=True):
        versions[version].append(retrained(labels, f"cheap-{version.split()[0]}-{seed}"))
    before, after = wrong_pairs(rows, splits.train), wrong_pairs(better, splits.train)
    hunts[seed] = {
        "certain faults": ", ".join(found.loc[found["certain"], "label"]),
        "first page right": precision(repairs, before), "in the first tenth": found_within(ranking, after),
        "decided unread": len(pairs), "of these right": precision(pairs, after), "set aside": len(doubtful),
    }  # fmt: skip

# %% [markdown]
# What the hunt found, planting by planting:

# %%
pd.DataFrame(hunts).T.rename_axis("seed of the noise")

# %% [markdown]
# And what it was worth. `recovery` scores all versions on the same resampled templates, so each step has an interval of
# its own; the values are means over the plantings.

# %%
from guard_utils.audit.retraining import recovery

versions["clean"] = [retrained(splits.train, "cheap-clean")]
parts = {"test": slice(0, len(splits.test)), "independent": slice(len(splits.test), None)}


def recovered_by(versions):
    """What each version of the labels is worth, on each set."""
    sets = {part: {name: [df.iloc[at] for df in dfs] for name, dfs in versions.items()} for part, at in parts.items()}
    return {part: recovery(tables, run.policy, seed=run.seed) for part, tables in sets.items()}


recovered = recovered_by(versions)
pd.concat({part: found.steps for part, found in recovered.items()})

# %%
for part, found in recovered.items():
    print(f"{part}: of the F1 that the noise cost, auditing wins back {found.recovered:.2f}")

# %% [markdown]
# The ladder, on the test set first. Most of the loss sits in the label faults: a handful of decisions, for a good part
# of the damage. The single pairs take more work for less, and what is then still missing to the top is what nobody has
# read yet.

# %%
from guard_utils.figures.charts import ladder

for_test = recovered["test"].steps
first, *_, last, ceiling = for_test["weighted_f1"]
title = f"Test: auditing lifts F1 from {first:.2f} to {last:.2f}; clean labels give {ceiling:.2f}"
alt = f"Weighted F1 on the test set of models trained on {len(for_test)} versions of the labels. {title}."
save(ladder(for_test, title=title), figures, "06-ladder-test", alt)

# %% [markdown]
# The same on text from elsewhere. Nothing was planted in it and nothing tuned on it.

# %%
away = recovered["independent"].steps
first, *_, last, ceiling = away["weighted_f1"]
title = f"Independent text: from {first:.2f} to {last:.2f}; clean labels give {ceiling:.2f}"
alt = f"Weighted F1 on independent text of models trained on {len(away)} versions of the labels. {title}."
save(ladder(away, title=title), figures, "06-ladder-independent", alt)

# %% [markdown]
# How far do the plantings differ? Each line below is one of them.

# %%
pd.concat({part: found.seeds for part, found in recovered.items()}, axis=1).rename_axis("seed of the noise")

# %% [markdown]
# ## What it wins for the guard
#
# The cheap learner counts pieces of words. A pretrained model may be harder to mislead: single wrong labels are few,
# and contradict each other. Rules are not few, and the same in every row. So what does the guard itself gain? It was
# trained on the noisy and on the audited labels of our planting, as notebook 03 trains it on the clean ones, which
# also means: without the rows that share something with a held-out text.
#
# Two trainings take forty minutes on two CPU cores. So the answers of our own run are read; with `RETRAIN = True` those
# that are missing are made.

# %%
from guard_utils.data.leakage import without_leaks
from guard_utils.scoring.cached import tuned_predictions

RETRAIN = False
kept_ids = {e.id for e in without_leaks(splits.train, [splits.validation, splits.test, splits.independent])}
labels = {"noisy": given, "audited": [row for row in corrected if row.id not in aside]}
guards = {}
try:
    for version, rows in labels.items():
        rows = [row for row in rows if row.id in kept_ids]
        guards[version] = [retrained(rows, f"guard-{version}", GuardModel(run) if RETRAIN else None)]
    tuned = tuned_predictions(run, {"test": splits.test, "independent": splits.independent})
    guards["clean"] = [pd.concat(tuned.values(), ignore_index=True)]
except FileNotFoundError as missing:
    print(f"Not shown: {missing}. What the noisy or the audited labels teach is made with RETRAIN = True.")

# %% [markdown]
# First, how often does each of them name each code?

# %%
said = {name: dfs[0]["predicted"].explode().value_counts() for name, dfs in guards.items()}
pd.DataFrame(said, index=run.policy.codes).fillna(0).astype(int)

# %% [markdown]
# The guard believes rules, too: a code that no label names is a code that it never says. All three answer the same
# texts, so each step has a paired interval, as above.

# %%
of_guard = recovered_by(guards) if "clean" in guards else {}
for part, found in of_guard.items():
    print(f"{part}: of the F1 that the noise cost the guard, auditing wins back {found.recovered:.2f}")
steps_of_guard = pd.concat(
    [found.steps.assign(metric=part) for part, found in of_guard.items()] or [for_test[:0].assign(metric="")]
)
steps_of_guard.rename(columns={"metric": "texts"}).set_index(["texts", "step"])

# %%
from guard_utils.figures.charts import score_comparison

if of_guard:
    first, last, ceiling = of_guard["test"].steps["weighted_f1"]
    title = f"The guard on test: auditing lifts F1 from {first:.3f} to {last:.3f}; clean labels give {ceiling:.3f}"
    dots = steps_of_guard.rename(columns={"step": "system", "weighted_f1": "value"})
    picture = save(
        score_comparison(dots, title=title), figures, "06-guard", f"Three guards, two sets of texts. {title}."
    )
picture if of_guard else "No figure without the tables of the guards."

# %% [markdown]
# It comes back nearly all the way: the last step, from audited to clean labels, is so small that its interval holds
# zero on both sets. The wrong pairs that nobody has read yet cost the guard nothing that we can measure, and the rows
# set aside are not missed.
#
# Compare the recovered shares with those of the cheap learner. A good learner forgives single errors and repeats
# systematic ones. With an hour to spend on labels, spend it on the first page.

# %% [markdown]
# ## The same audit on clean labels
#
# An auditor who is paid by the finding will always find something. So run the same audit, with the same limits, on the
# labels without noise. First the label faults:

# %%
nothing = find_faults({"regex": regular_expressions(splits.train, run.policy)}, run.policy)
print(f"{nothing['certain'].sum()} certain faults, {len(nothing)} open questions")

# %% [markdown]
# Then the single pairs. The ranking has a top here, too.

# %%
clean_tables = out_of_sample(run, "clean", splits.train, models, folds=FOLDS)
clean_ranked = suspects(clean_tables, run.policy)
unread = automatic(clean_ranked)
print(f"The policy would change {len(unread)} pairs; with the noise it changed {len(chosen)}.")
shown = ["code", "suggestion", "given", "evidence", *(f"p_{name}" for name in models)]
review_table(clean_ranked.head(12), clean_tables["words"])[shown]

# %% [markdown]
# Who is right? Read them. In a few you may side with the models: a value that no reader could place, or a policy that
# does not say. Most are honest mistakes of small models about rare names and odd numbers. Every one of these would be a
# *new* error in the data.
#
# So the precision of a policy is not a property of the policy. It is a property of the policy **and of how many errors
# there are to find**. On a set that has been cleaned well, an automatic corrector does harm, and only reading helps.
# You can learn which case is yours: plant noise of your own, and see what share of the top is planted.

# %%
planted = {(pair.id, pair.code) for pair in truth[truth["kind"] != "rule"].itertuples()}
top = ranked.head(200)
share = sum(pair in planted for pair in zip(top["id"], top["code"], strict=True)) / len(top)
print(f"{share:.0%} of the first {len(top)} suspects are planted; the others are the models' own doubts.")

# %% [markdown]
# ## Your own data
#
# From a table of predictions to a reviewed training set, in five steps:
#
# 1. **Score rows that the guard has not seen.** A test set will do as it is; for a training set take `out_of_fold`.
# 2. **First page**: `find_faults` with a witness that was not trained on these labels; decide label by label.
# 3. **Rank** what is left with `suspects`, and write `review_table` to a spreadsheet.
# 4. **Decide** there, read the decisions with `read_review`, keep them with `write_corrections`.
# 5. **Apply** them, write the training file, train. Audit again after a while: new labels bring new errors.
#
# Here are steps one to three for the guard of notebook 04 and its test set, which it has never seen. If the guard is
# good, its doubts are the most interesting of all.

# %%
from guard_utils.scoring.cached import read_predictions

mine = read_predictions(run, "tuned", "test", splits.test)
doubts = suspects({"guard": mine}, run.policy)
review_table(doubts.head(8), mine)[["code", "suggestion", "given", "text", "quality", "p_guard"]]

# %% [markdown]
# The remaining steps, for a file of your own decisions:
#
# ```python
# decisions = read_review(Path("review.csv"), reviewer="your name")
# write_corrections(Path("corrections.jsonl"), decisions, examples, policy)
# reviewed = apply_corrections(examples, decisions, policy)
# write_training_file(reviewed, run.folder / "train.jsonl", policy)  # guard_utils.training.dataset
# ```
#
# Then notebook 03 trains on it. Pass earlier decisions to `automatic` as `kept`: what a reader has decided once, no
# policy should decide again.

# %% [markdown]
# ## Write the numbers down
#
# The hunt's worst planting, not its mean, is what we promise.

# %%
from guard_utils.report import Interval, expect, record, run_card

named = {
    "precision_first_page": "first page right", "found_in_first_tenth": "in the first tenth",
    "precision_automatic": "of these right",
}  # fmt: skip
audit = {metric: min(hunt[column] for hunt in hunts.values()) for metric, column in named.items()}
audit["certain_faults"] = float(len(certain))
audit["changed_when_clean"] = float(len(unread))
noted = record(
    run.folder, profile=PROFILE, name="audit", values=audit, n=len(given), seed=run.seed, model="tfidf, words",
    extra={"seeds": list(SEEDS), "folds": FOLDS},
)  # fmt: skip

# %% [markdown]
# And what retraining won back, on both sets.

# %%
measured = {f"recovered-{part}": (part, found, "tfidf") for part, found in recovered.items()}
measured |= {f"recovered-guard-{part}": (part, found, run.profile.model) for part, found in of_guard.items()}
for name, (part, found, learner) in measured.items():
    f1 = {row.step.split()[0]: Interval(row.weighted_f1, row.low, row.high) for row in found.steps.itertuples()}
    record(
        run.folder, profile=PROFILE, name=name, values={"recovered": found.recovered} | f1,
        n=len(asked[parts[part]]), seed=run.seed, model=learner, extra={"plantings": len(found.seeds)},
    )  # fmt: skip

# %% [markdown]
# Are they the numbers this series promises?

# %%
for metric in named:
    expect(PROFILE, "audit", metric, audit[metric])
for name, (_, found, _) in measured.items():
    expect(PROFILE, name, "recovered", found.recovered)

# %% [markdown]
# The card says where all of this comes from.

# %%
import hashlib

run_card(
    profile=PROFILE, n=len(given), seed=run.seed, model=run.profile.model, data_hash=splits.digest,
    config_hash=hashlib.sha256(run.config_path.read_bytes()).hexdigest(), plantings=len(SEEDS),
)  # fmt: skip

# %% [markdown]
# ## Take-aways
#
# - Look for faults of labels before faults of rows: they are few, they cost most, and every model repeats them.
# - A witness counts as far as it is reliable elsewhere, and only if it was not taught by the fault.
# - An honest doubt comes from a model that has not seen the row, nor a near copy of it.
# - What a policy gets right depends on how much there is to find. Plant noise to know which case is yours.
# - Corrections without text can be shared, checked, and applied to the right version only.

# %% [markdown]
# ## Exercises
#
# Put your answer in the place of the dots, run the cell, then the check beneath it. A click on *Solution* unfolds ours.
#
# **Warm-up.** Which category holds most of the first hundred pairs of the ranking?

# %% tags=["exercise"]
most = ...  # a code, such as "S2"

# %% tags=["check"]
from guard_utils.report import attempt

with attempt(most):
    held = ranked["code"].head(100).value_counts()
    assert held[most] == held.max(), f"{held.idxmax()} holds more"

# %% tags=["solution"]
most = ranked["code"].head(100).mode()[0]
most

# %% [markdown]
# **Core.** Your reviewer has time for as many pairs as a hundredth of the ranking holds. Which share of the wrong pairs
# does she see if she starts at the top, and which if the same number is drawn blindly?

# %% tags=["exercise"]
from_the_top, drawn_blindly = ..., ...

# %% tags=["check"]
with attempt(from_the_top):
    top = ranked.head(round(len(ranked) / 100))
    hits = sum(pair in left for pair in zip(top["id"], top["code"], strict=True))
    assert abs(from_the_top - hits / len(left)) < 0.005, "count the pairs of left among those at the top"
    assert abs(drawn_blindly - 0.01) < 0.005, "a blind draw finds wrong pairs at the rate at which it draws"

# %% tags=["solution"]
from_the_top, drawn_blindly = found_within(ranked, left, share=0.01), 0.01
print(f"{from_the_top:.1%} against {drawn_blindly:.1%}")

# %% [markdown]
# **Stretch.** What does it buy to ask two models? Let the automatic policy decide with each model alone, as it is set,
# and compare numbers and precision with both together.

# %% tags=["exercise"]
single = ...  # model to its list of corrections

# %% tags=["check"]
with attempt(single):
    assert set(single) == set(tables), f"one list for each of {list(tables)}"
    for name, df in tables.items():
        assert single[name] == automatic(suspects({name: df}, run.policy)), f"{name} decides otherwise"

# %% tags=["solution"]
single = {name: automatic(table) for name, table in alone.items()}
pd.DataFrame(
    {
        name: {"corrections": len(found), "right": precision(found, left)}
        for name, found in (single | {"together": chosen}).items()
    }
).T

# %% [markdown] tags=["solution"]
# Two models that err in different places are worth more than one that is a little better.

# %% [markdown]
# ## Where to go next
#
# Back to notebook 03 with a reviewed training file, or to notebook 05 with the errors of the guard that it gives you.
