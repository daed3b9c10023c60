# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 06 · Audit the labels, correct them, retrain
#
# **You look for errors that were planted in a training set, correct them in a file of decisions, and measure what the
# corrections gain on text that nobody touched.**
#
# **What you will learn**
#
# - why a model can't find the mistake it was taught, and who can;
# - how to report a systematic error as one finding, not as a thousand rows;
# - how to get an honest second opinion on every single label: probabilities from a model that has not seen the row;
# - how to decide without reading, and how often that goes wrong;
# - how to share corrections of data that you may not share.
#
# **What you need**: the `laptop` profile, 4 GB of memory and about five minutes on two CPU cores, the guard's two
# trainings left out. Sections 10 and 12 read the predictions of notebook 04.
#
# **Agenda**
#
# 1. [A training set with known errors](#A-training-set-with-known-errors)
# 2. [The error that every model repeats](#The-error-that-every-model-repeats)
# 3. [The first page](#The-first-page)
# 4. [Corrections are data](#Corrections-are-data)
# 5. [A model that has not seen the row](#A-model-that-has-not-seen-the-row)
# 6. [From doubt to a ranking](#From-doubt-to-a-ranking)
# 7. [Read the suspects](#Read-the-suspects)
# 8. [Decide without reading](#Decide-without-reading)
# 9. [What it gains](#What-it-gains)
# 10. [What it gains for the guard](#What-it-gains-for-the-guard)
# 11. [The same audit on clean labels](#The-same-audit-on-clean-labels)
# 12. [Your own data](#Your-own-data)
# 13. [Write the numbers down](#Write-the-numbers-down)
# 14. [Take-aways](#Take-aways)
# 15. [Exercises](#Exercises)
# 16. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# As always, the profile decides the data. Two systems of notebook 01 help: regular expressions and tfidf.

# %%
import pandas as pd

from guard_utils.data import load_splits
from guard_utils.profiles import resolve
from guard_utils.scoring import regular_expressions, tfidf

run = resolve(PROFILE)
splits = load_splits(run)
pd.options.display.precision, pd.options.display.max_colwidth = 3, 110
pd.options.display.html.use_mathjax = False  # "$" in a text is a dollar sign

# %% [markdown]
# ## A training set with known errors
#
# Real label errors have a drawback: nobody knows where all of them are, so nobody can tell how good an audit was. We
# add our own, in three kinds that real data sets have:
#
# - **missing**: an annotator overlooks everything of one category in a text;
# - **wrong**: an annotator marks it as something else;
# - **rule**: the reference tutorial's rules turn labels into codes by substring, the same way in every row. Post codes
#   become IP addresses as well, phone numbers become nothing.
#
# The first two change the marked spans, not only the codes. So better rules will not bring them back.

# %%
from guard_utils.audit import add_label_noise, wrong_pairs

noisy = add_label_noise(splits.train, run.policy, seed=run.seed, missing=0.05, wrong=0.03)
given, truth, wrong = noisy.examples, noisy.truth, wrong_pairs(noisy.examples, splits.train)
print(f"{len(wrong):,} of {len(given) * len(run.policy):,} (row, code) pairs are wrong.")
truth[truth["given"] != truth["right"]].groupby(["kind", "code"]).size().unstack(fill_value=0)

# %% [markdown]
# Keep the table in mind, then forget it: whoever audits a data set does not have it. From here on `given` is all we
# know, and `truth` is only looked at to mark our work. One row of each kind, marked as the annotator *should* have:

# %%
from IPython.display import HTML

from guard_utils.figures import marked_html

right = {example.id: example for example in splits.train}
first = truth[truth["given"] != truth["right"]].groupby("kind").first()
HTML("".join(
    f"<b>{kind}: {pair.code} is {'given' if pair.given else 'missing'}</b>"
    + marked_html(right[pair.id].text, right[pair.id].spans)
    for kind, pair in first.iterrows()
))  # fmt: skip

# %% [markdown]
# ## The error that every model repeats
#
# The usual recipe says: train a model by cross-validation, and look where it contradicts the labels. Let us try.

# %%
from guard_utils.audit import out_of_fold

try:
    out_of_fold(given, run.policy, tfidf)
except ValueError as error:
    print(error)

# %% [markdown]
# An error, and a clue. A category without a single positive can't be learned, so no cross-validation would ever have
# missed the phone numbers. The post codes are worse: they would have raised no error at all. Each fold would have
# *learned* that a post code is an IP address, and agreed with the labels.
#
# A systematic error needs a witness who was not taught by it. We have one since notebook 01: regular expressions, which
# have read no label. On other data it may be a guard that was trained elsewhere, or Llama Guard as it comes.
#
# ## The first page
#
# For each source label and code the witness is heard twice: how often does it **object** on the rows of that label, and
# how **reliable** is it elsewhere, on rows that could show it wrong? A witness who misses most addresses can't tell
# whether a city is one. Where both numbers are high, the finding is *certain*. `label_codes` lists all codes that come
# with the label.

# %%
from guard_utils.audit import find_mapping_errors

witness = regular_expressions(given, run.policy)
findings = find_mapping_errors(witness, run.policy)
findings

# %% [markdown]
# One line per error, with the number of its rows, however many there are. The lines that are not certain are questions
# that this witness can't answer. Read three rows of each certain one, with the annotator's own marks:

# %%
from guard_utils.audit import label_codes, mapping_corrections

meaning = label_codes(witness, run.policy)
certain = findings[findings["certain"]]
by_id = {example.id: example for example in given}
page = ""
for place, finding in certain.iterrows():
    changes = mapping_corrections(witness, run.policy, certain.loc[[place]], reviewer="first page")
    rows = witness[witness["id"].isin([item.id for item in changes])].head(3)
    page += f"<h4>{finding['label']} was {finding['kind']}: {finding['code']}</h4>"
    page += "".join(f"<b>{list(r.gold)}</b>{marked_html(r.text, by_id[r.id].spans)}" for r in rows.itertuples())
HTML(page)

# %% [markdown]
# Codes above each text, marks in it: nobody has to be an expert to see who is wrong. What about the questions that the
# witness left open? Those take a reader, but not a long one: there are only as many decisions as labels. Here is what
# the policy says, and what each label *seems to mean*, read from the rows, beside one of its values.

# %%
for code, category in zip(run.policy.codes, run.policy.categories, strict=True):
    print(f"{code} {category.name}: {category.description}")
counts = witness["labels"].explode().value_counts()
values = {span.label: e.text[span.start : span.end] for e in reversed(given) for span in e.spans}
told = {"rows": counts, "comes with": pd.Series(meaning).str.join(", "), "for instance": pd.Series(values)}
pd.DataFrame(told).sort_values(["comes with", "rows"], ascending=False)

# %% [markdown]
# Go through the table with the policy in hand. A company is not a person, and neither is a handle; but both come with
# S1. House numbers and flats are part of an address; but they come with nothing. Four more decisions, a minute's work,
# and no model was needed. They are in the cell below; on your own data, fill in yours.

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
#
# The first line of the file holds the hash of the data that was reviewed. Applying the decisions is a pure function;
# unknown ids, decisions that contradict each other or the data, and another version of the data are errors. Then we
# mark our work, with the truth that a real auditor does not have.

# %%
from guard_utils.audit import apply_corrections, read_corrections, write_corrections


def share_right(corrections, pairs):
    """Share of the corrections that change a wrong pair."""
    return sum((item.id, item.code) in pairs for item in corrections) / max(1, len(corrections))


corrections = mapping_corrections(witness, run.policy, accepted, reviewer="first page")
path = write_corrections(run.folder / "audit" / "corrections-1.jsonl", corrections, given, run.policy)
print("\n".join(path.read_text().splitlines()[:3]))
fixed = apply_corrections(given, read_corrections(path, given), run.policy)
try:
    read_corrections(path, fixed)
except ValueError as error:
    print(error)
left, share = wrong_pairs(fixed, splits.train), share_right(corrections, wrong)
print(f"{len(corrections):,} corrections of {len(accepted)} labels, {share:.1%} of them right.")
print(f"Wrong pairs: {len(wrong):,} before, {len(left):,} now.")

# %% [markdown]
# The few that went wrong are rows in which an annotator had marked something else as a phone number, say: the label is
# right now, the mark is not. What is left does not gather on labels. It has to be found pair by pair.
#
# ## A model that has not seen the row
#
# Now cross-validation is the right tool. The rows are dealt to five folds, **by template**: a model that has read a
# near copy of a row has half seen it. The model is **tfidf** of notebook 01, which reads a text as a bag of pieces of
# words; any function with its arguments will do. How much does it know? Against the labels that we have, which are
# still partly wrong:

# %%
from guard_utils.metrics import summary

unseen = out_of_fold(fixed, run.policy, tfidf, folds=5, seed=run.seed)
pd.Series(summary(unseen, run.policy))[["weighted_f1", "subset_accuracy"]].to_frame("tfidf")

# %% [markdown]
# It is no good guard, and need not be one. A witness need not be right; it has to be wrong in *other* places than the
# labels are.
#
# ## From doubt to a ranking
#
# If the model gives a code little probability and the row has it, or much and the row lacks it, something is wrong: the
# model or the label. `rank_label_issues` ranks every (row, code) pair by cleanlab's label quality. The score allows for
# how sure the model usually is of a category, so that a hard category does not fill the top.
#
# Now the question that pays for the whole exercise. A reviewer reads from the top and stops somewhere. How many of the
# wrong pairs has she seen by then? Marked with the truth:

# %%
from guard_utils.audit import rank_label_issues
from guard_utils.figures import plot_precision_recall, save

ranked = rank_label_issues(unseen, run.policy)
hits = pd.Series([pair in left for pair in zip(ranked["id"], ranked["code"], strict=True)])
shares = {"precision": hits.expanding().mean(), "recall": hits.cumsum() / max(1, hits.sum())}
curve = pd.DataFrame({"threshold": ranked["quality"]} | shares).head(len(ranked) // 5)
title = f"The first tenth of the ranking holds {shares['recall'][len(ranked) // 10 - 1]:.0%} of the wrong pairs"
alt = f"Precision against recall of reading the ranking from the top. {title}."
save(plot_precision_recall({"tfidf": curve}, title=title), run, "06-ranking", alt)

# %% [markdown]
# Start at the left: the top of the ranking is mostly errors. Then every further error costs more reading.
#
# ## Read the suspects
#
# The reviewer's page: the code in question, what to do about it, what is given, and the text. What she decides is a
# list of corrections like those above, with her name as `reviewer`; the action *keep* says that the label is right.

# %%
ranked.head(12).merge(unseen[["id", "gold", "text"]], on="id")[["code", "action", "gold", "text", "p"]]

# %% [markdown]
# ## Decide without reading
#
# This notebook has to run unattended, and you may have more rows than reviewers. A program that decides by itself must
# be timid: it acts only where the model says the opposite of the label **and** the quality is very low. The limit was
# chosen on one planting of noise; the next section shows others.
#
# Timid leaves much undecided. There is a third way beside *right* and *wrong*: a row that may lack a code is **set
# aside** until somebody reads it. A missing code teaches the guard to keep silent, and there are plenty of other rows.

# %%
from guard_utils.audit import automatic_corrections, undecided_rows

chosen = automatic_corrections(ranked)
aside = undecided_rows(ranked, chosen)
corrected = apply_corrections(fixed, chosen, run.policy)
write_corrections(run.folder / "audit" / "corrections-2.jsonl", chosen, fixed, run.policy)
still = wrong_pairs(corrected, splits.train)
kept = [pair for pair in still if pair[0] not in aside]
print(f"{len(chosen)} corrections, {share_right(chosen, left):.1%} of them right; {len(aside):,} rows set aside.")
print(f"Wrong pairs: {len(left):,} before, {len(still):,} corrected, {len(kept):,} in the rows that are kept.")

# %% [markdown]
# The rows set aside are the reviewer's, and the ranking tells her where to begin.
#
# ## What it gains
#
# Better labels are a means. Does a model that is trained on them get better? We train four times: on the noisy labels,
# with the mapping errors corrected, with the single pairs corrected or set aside as well (*audited*), and on the clean
# labels as the ceiling. The learner is tfidf again, which is trained in seconds; it is scored on the clean test set and
# on text that nobody here wrote. One planting of noise proves little, so the whole audit is done for three. The first
# one is ours. The first table says what the audit found, the second what it was worth: weighted F1 of each version.

# %%
SEEDS, asked = (run.seed, run.seed + 1, run.seed + 2), [*splits.test, *splits.independent]
on_clean = tfidf(splits.train, asked, run.policy, run.seed)
audits, versions = {}, {}
for seed in SEEDS:
    rows = add_label_noise(splits.train, run.policy, seed=seed).examples
    heard = regular_expressions(rows, run.policy)
    found = find_mapping_errors(heard, run.policy)
    page = pd.concat([found.loc[found["certain"], columns], decided])
    mapped = mapping_corrections(heard, run.policy, page, reviewer="first page")
    better = apply_corrections(rows, mapped, run.policy)
    table = unseen if seed == run.seed else out_of_fold(better, run.policy, tfidf, folds=5, seed=run.seed)
    ranking = rank_label_issues(table, run.policy)
    pairs = automatic_corrections(ranking)
    doubtful = undecided_rows(ranking, pairs)
    best = [row for row in apply_corrections(better, pairs, run.policy) if row.id not in doubtful]
    trains = {"noisy": rows, "mapping corrected": better, "audited": best}
    made = {name: tfidf(train, asked, run.policy, run.seed) for name, train in trains.items()}
    versions[seed] = made | {"clean": on_clean}
    before, after = wrong_pairs(rows, splits.train), wrong_pairs(better, splits.train)
    top = {*ranking.head(len(ranking) // 10)[["id", "code"]].itertuples(index=False, name=None)}
    audits[seed] = {
        "first page right": share_right(mapped, before), "in the first tenth": len(after & top) / max(1, len(after)),
        "decided unread": len(pairs), "of these right": share_right(pairs, after), "set aside": len(doubtful),
    }  # fmt: skip
pd.DataFrame(audits).T.rename_axis("seed of the noise")

# %%
parts = {"test": slice(0, len(splits.test)), "independent": slice(len(splits.test), None)}
f1 = {
    (part, seed): {name: summary(df.iloc[at], run.policy)["weighted_f1"] for name, df in made.items()}
    for part, at in parts.items()
    for seed, made in versions.items()
}
pd.DataFrame(f1).T.rename_axis(["texts", "seed of the noise"])

# %% [markdown]
# And for our planting, is it certain? *Audited* against each other version, on the same texts and the same draws. Above
# zero is what auditing gained; below zero is what it left on the table.

# %%
from guard_utils.metrics import bootstrap, compare_systems


def worth(versions):
    """Weighted F1 of each version with its interval, and the difference of the audited one, on each set."""
    scores, gained = [], {}
    for part, at in parts.items():
        tables = {name: df.iloc[at] for name, df in versions.items()}
        for name, df in tables.items():
            scores.append(bootstrap(df, run.policy, seed=run.seed).assign(system=name, texts=part))
        gained[part] = compare_systems(tables.pop("audited"), tables, run.policy, seed=run.seed)
    scores = pd.concat(scores, ignore_index=True)
    return scores[scores["metric"] == "weighted_f1"], pd.concat(gained, names=["texts"])


scores, gained = worth(versions[run.seed])
learners = {"tfidf": (scores, gained)}
gained[["ours", "theirs", "difference", "low", "high"]]

# %%
from guard_utils.figures import plot_scores

on_test = scores[scores["texts"] == "test"].set_index("system")["value"]
title = "Test: auditing lifts F1 from {noisy:.2f} to {audited:.2f}; clean labels give {clean:.2f}".format(**on_test)
alt = f"Weighted F1 of four versions of the labels on two sets of texts. {title}."
save(plot_scores(scores, title=title, group="texts", score="weighted F1"), run, "06-versions", alt)

# %% [markdown]
# On the test set, most of the loss lies in the mapping errors: a handful of decisions, for a good part of the damage.
# The single pairs take more work for less; on independent text, in the table above, both steps count. What is then
# still missing to the top is what nobody has read yet.
#
# ## What it gains for the guard
#
# The cheap learner counts pieces of words. A pretrained model may be harder to mislead: single wrong labels are few,
# and contradict each other. Rules are not few, and the same in every row. So what does the guard itself gain? It is
# trained on the noisy and on the audited labels of our planting, as notebook 03 trains it on the clean ones.
#
# Two trainings take forty minutes on two CPU cores. So answers of an earlier run are read where there are any; those
# that are missing are made with `RETRAIN = True`.

# %%
from dataclasses import replace

from guard_utils.data import rows_fingerprint
from guard_utils.formatter import write_training_file
from guard_utils.scoring import cached_predictions, load_guard, predict, tuned_predictions
from guard_utils.training import finetune

RETRAIN = PROFILE == "smoke"  # the rehearsal trains a tiny model; write True to train yours


def trained_on(rows, version):
    facts = {"train": rows_fingerprint(rows), "model": run.profile.model, "seed": run.seed}

    def make():
        own = replace(run, folder=run.folder / "audit" / version)
        write_training_file(rows, own.folder / "train.jsonl", run.policy)
        finetune(own, own.folder / "train.jsonl", processes=max(1, run.profile.gpus))
        return predict(load_guard(own), asked)

    return cached_predictions(run, f"audit-guard-{version}", asked, facts, make if RETRAIN else None)


# %% [markdown]
# How often does each of them name each code? A code that no label names is a code that the guard should never say, if
# it believes rules as the cheap learner does. All three answer the same texts, so each step has a paired interval.

# %%
guards = {}
try:
    guards["noisy"] = trained_on(given, "noisy")
    guards["audited"] = trained_on([row for row in corrected if row.id not in aside], "audited")
    tuned = tuned_predictions(run, {"test": splits.test, "independent": splits.independent})
    guards["clean"] = pd.concat(tuned.values(), ignore_index=True)
except FileNotFoundError as missing:
    print(f"Not shown: {missing}. RETRAIN = True trains on the noisy and the audited labels.")
said = {name: df["predicted"].explode().value_counts() for name, df in guards.items()}
pd.DataFrame(said, index=run.policy.codes).fillna(0).astype(int)

# %%
from IPython.display import display

if "clean" in guards:
    scores, gained = learners["guard"] = worth(guards)
    display(gained[["ours", "theirs", "difference", "low", "high"]])
    on_test = scores[scores["texts"] == "test"].set_index("system")["value"]
    title = f"The guard on test: auditing lifts F1 from {on_test['noisy']:.3f} to {on_test['audited']:.3f}; "
    title += f"clean labels give {on_test['clean']:.3f}"
    alt = f"Weighted F1 of three guards on two sets of texts. {title}."
    display(save(plot_scores(scores, title=title, group="texts", score="weighted F1"), run, "06-guard", alt))

# %% [markdown]
# Compare the differences with those of the cheap learner. A good learner forgives single errors and repeats
# systematic ones. With an hour to spend on labels, spend it on the first page.
#
# ## The same audit on clean labels
#
# An auditor who is paid by the finding will always find something. So run the same audit, with the same limits, on the
# labels without noise: first for mapping errors, then for single pairs. The ranking has a top here, too.

# %%
nothing = find_mapping_errors(regular_expressions(splits.train, run.policy), run.policy)
print(f"{nothing['certain'].sum()} certain errors, {len(nothing)} open questions")

# %%
clean_ranked = rank_label_issues(out_of_fold(splits.train, run.policy, tfidf, seed=run.seed), run.policy)
unread = automatic_corrections(clean_ranked)
print(f"The program would change {len(unread)} pairs; with the noise it changed {len(chosen)}.")
top = {name: table["quality"].head(200).mean() for name, table in (("noisy", ranked), ("clean", clean_ranked))}
print("Mean quality of the first 200 pairs: " + ", ".join(f"{name} {quality:.3f}" for name, quality in top.items()))

# %% [markdown]
# Every one of these changes would be a *new* error in the data: honest mistakes of a small model about rare names and
# odd numbers. So the precision of such a program is not a property of the program. It is a property of the program
# **and of how many errors there are to find**. On a set that has been cleaned well, an automatic corrector does harm,
# and only reading helps. Add noise of your own to learn which case is yours.
#
# ## Your own data
#
# From a table of predictions to a reviewed training set, in five steps:
#
# 1. **Score rows that the guard has not seen.** A test set will do as it is; for a training set take `out_of_fold`.
# 2. **First page**: `find_mapping_errors` with a witness that was not trained on these labels; decide label by label.
# 3. **Rank** what is left with `rank_label_issues`, and read from the top.
# 4. **Decide**: one `Correction` per pair, kept with `write_corrections`.
# 5. **Apply** them, write the training file, train. Audit again after a while: new labels bring new errors.
#
# Here are steps one to three for the guard of notebook 04 and its test set, which it has never seen. If the guard is
# good, its doubts are the most interesting of all.

# %%
from guard_utils.scoring import read_predictions

mine = read_predictions(run, "tuned", "test", splits.test)
doubts = rank_label_issues(mine, run.policy)
doubts.head(8).merge(mine[["id", "gold", "text"]], on="id")[["code", "action", "gold", "text", "quality", "p"]]

# %% [markdown]
# The remaining steps, for decisions of your own:
#
# ```python
# decisions = [Correction("row-17", "S1", "keep", "Paris is a city here", "your name")]
# write_corrections(Path("corrections.jsonl"), decisions, examples, policy)
# reviewed = apply_corrections(examples, decisions, policy)
# write_training_file(reviewed, run.folder / "train.jsonl", policy)
# ```
#
# Then notebook 03 trains on it.
#
# ## Write the numbers down
#
# The audit's worst planting, not its mean, is what we promise; and what retraining on audited labels gained.

# %%
from guard_utils.records import Interval, expect, record, run_card

named = {
    "precision_first_page": "first page right", "found_in_first_tenth": "in the first tenth",
    "precision_automatic": "of these right",
}  # fmt: skip
values = {metric: min(audit[column] for audit in audits.values()) for metric, column in named.items()}
values |= {"certain_faults": len(certain), "changed_when_clean": len(unread)}
record(run, "audit", values, len(given), model="tfidf", seeds=SEEDS)
expect(run, "audit")
for learner, (scores, gained) in learners.items():
    for part, at in parts.items():
        name = f"audited-{part}" if learner == "tfidf" else f"audited-guard-{part}"
        rows = scores[scores["texts"] == part]
        values = {row.system.split()[0]: Interval(row.value, row.low, row.high) for row in rows.itertuples()}
        values["gain"] = Interval(*gained.loc[(part, "noisy"), ["difference", "low", "high"]])
        record(run, name, values, len(asked[at]), model=learner if learner == "tfidf" else None)
        expect(run, name, "gain")
run_card(run, len(given), plantings=len(SEEDS))

# %% [markdown]
# ## Take-aways
#
# - Look for errors of the label map before errors of rows: they are few, they cost most, and every model repeats them.
# - A witness counts as far as it is reliable elsewhere, and only if it was not taught by the error.
# - An honest doubt comes from a model that has not seen the row, nor a near copy of it.
# - What a program gets right depends on how much there is to find. Add noise to know which case is yours.
# - Corrections without text can be shared, checked, and applied to the right version only.
#
# ## Exercises
#
# Put your answer in the place of the dots, run the cell, then the check beneath it. A click on *Solution* unfolds ours.
#
# **Warm-up.** Which category holds most of the first hundred pairs of the ranking?

# %% tags=["exercise"]
most = ...  # a code, such as "S2"

# %% tags=["check"]
from guard_utils.records import attempt

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
    seen = sum(pair in left for pair in zip(top["id"], top["code"], strict=True))
    assert abs(from_the_top - seen / len(left)) < 0.005, "count the pairs of left among those at the top"
    assert abs(drawn_blindly - 0.01) < 0.005, "a blind draw finds wrong pairs at the rate at which it draws"

# %% tags=["solution"]
from_the_top, drawn_blindly = hits.head(round(len(ranked) / 100)).sum() / len(left), 0.01
print(f"{from_the_top:.1%} against {drawn_blindly:.1%}")

# %% [markdown]
# **Stretch.** A timid program or a bold one? Let `automatic_corrections` decide with each of three limits, and say how
# many pairs are still wrong afterwards. Rows are not set aside here.

# %% tags=["exercise"]
limits = (0.05, 0.1, 0.25)
still_wrong = ...  # limit to the number of wrong pairs

# %% tags=["check"]
with attempt(still_wrong):
    assert set(still_wrong) == set(limits), "one number for each of the three limits"
    for limit, number in still_wrong.items():
        changes = {(item.id, item.code) for item in automatic_corrections(ranked, quality=limit)}
        assert number == len(left ^ changes), f"another number is right for {limit}"

# %% tags=["solution"]
still_wrong = {}
for limit in limits:
    changed = apply_corrections(fixed, automatic_corrections(ranked, quality=limit), run.policy)
    still_wrong[limit] = len(wrong_pairs(changed, splits.train))
still_wrong

# %% [markdown]
# ## Where to go next
#
# Back to notebook 03 with a reviewed training file, or to notebook 05 with the errors of the guard that it gives you.
