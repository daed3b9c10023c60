# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 05 · Who is wrong, the model or the label?
#
# **You take the guard's errors apart, until you can say of each kind who is to blame, and what to mend first.**
#
# **What you will learn**
#
# - how to give every disagreement a name, and why "missed" and "invented" need different cures;
# - how to find what errors have in common: category, situation, language, length;
# - how to read the surest mistakes with the evidence marked in the text;
# - how to tell a model's error from a **label's** error with two small tables;
# - how to decide what to fix first.
#
# **What you need**: the `laptop` profile, the predictions of notebook 04, 2 GB of memory and about one minute. Nothing
# is trained or scored here.
#
# **Agenda**
#
# 1. [Every disagreement gets a name](#Every-disagreement-gets-a-name)
# 2. [Where the errors are](#Where-the-errors-are)
# 3. [What each kind costs](#What-each-kind-costs)
# 4. [The worst twenty](#The-worst-twenty)
# 5. [Same answers, other labels](#Same-answers,-other-labels)
# 6. [Find the culprits](#Find-the-culprits)
# 7. [The rule behind the label](#The-rule-behind-the-label)
# 8. [A remark that was right by accident](#A-remark-that-was-right-by-accident)
# 9. [What to fix first](#What-to-fix-first)
# 10. [Take-aways](#Take-aways)
# 11. [Exercises](#Exercises)
# 12. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# We read what notebook 04 wrote, and the examples themselves, for the places of the private values in each text.

# %%
import pandas as pd

from guard_utils.data import load_splits
from guard_utils.profiles import resolve
from guard_utils.scoring import read_predictions

run = resolve(PROFILE)
splits = load_splits(run)
test = read_predictions(run, "tuned", "test", splits.test)
independent = read_predictions(run, "tuned", "independent", splits.independent)
pd.options.display.precision, pd.options.display.max_colwidth = 3, 90
pd.options.display.html.use_mathjax = False  # "$" in a text is a dollar sign

# %% [markdown]
# ## Every disagreement gets a name
#
# A prompt is wrong as soon as its predicted set is not its gold set. But a guard that misses an address needs another
# cure than one that invents a card number. `disagreements` names each wrong prompt:
#
# - **missed** or **extra**: codes are lacking, or there are too many;
# - **swapped** or **mixed**: some are lacking and others stand in their place, as many or not;
# - **policy boundary**: the extra code is explained by a label that our policy calls safe, such as a STATE beside S4. A
#   stricter reader would agree with the guard;
# - **parse**: the model put most of its probability outside the grammar.

# %%
from guard_utils.metrics import KINDS, disagreements

sets = {"test": test, "independent": independent}
wrong = {name: disagreements(df, run.policy) for name, df in sets.items()}
kinds = pd.DataFrame({name: df["kind"].value_counts() for name, df in wrong.items()}).reindex(list(KINDS)).fillna(0)
kinds.astype(int).assign(**{f"{name}, share": kinds[name] / max(1, kinds[name].sum()) for name in sets})

# %% [markdown]
# Compare *missed* with *extra*. If one of them rules, a threshold is the cheapest cure (notebook 04); if they are
# level, the guard needs to learn, not to be moved.

# %% [markdown]
# ## Where the errors are
#
# First by category. A prompt counts in each category of its gold or predicted codes, and as *safe* where it has
# neither; the numbers beside a name say how many of its prompts went wrong.

# %%
from IPython.display import HTML

from guard_utils.metrics import error_table

categories = error_table(test, run.policy, "category")
kinds = categories.columns[3:]
table = categories.style.set_uuid("categories").format({"error_rate": "{:.1%}"})
HTML(table.background_gradient(cmap="Blues", subset=kinds).to_html())

# %% [markdown]
# Read along a row: a category that is mostly *missed* is one the guard has not learned to see; one that is mostly
# *extra* has look-alikes that it takes for the real thing.

# %% [markdown]
# Then by situation, that is, what a text is about. Some situations occur in the test set only: the guard has never read
# anything like them. Small groups make wild rates, so we ask for at least ten prompts.

# %%
situations = error_table(test, run.policy, "situation")[["rows", "wrong", "error_rate"]]
situations[situations["rows"] >= min(10, situations["rows"].max())].sort_values("error_rate", ascending=False).head(8)

# %% [markdown]
# Language and length tell whether a guard is at home everywhere, or only where most of its training took place.

# %%
bins = {"1-10": 0, "11-20": 10, "21-40": 20, "41-80": 40, "over 80": 80}
words = pd.cut(test["text"].str.split().str.len(), [*bins.values(), 10**6], labels=list(bins)).astype(str)
sized = test.assign(words=words)
by = {name: error_table(sized, run.policy, name)[["rows", "wrong", "error_rate"]] for name in ("language", "words")}
pd.concat(by, names=["by", "group"])

# %% [markdown]
# The independent set has one situation and one language, but its templates have numbers. If a handful of templates
# holds most errors, twenty minutes of reading will explain them all.

# %%
templates = error_table(independent, run.policy, "template_id")
share = templates["wrong"].head(10).sum() / max(1, templates["wrong"].sum())
print(f"The ten worst of {len(templates)} templates hold {share:.0%} of the errors.")
first = independent.drop_duplicates("template_id").set_index("template_id")["text"].str.slice(0, 70)
templates[["rows", "wrong", "error_rate"]].head(10).join(first)

# %% [markdown]
# ## What each kind costs
#
# What kind of error is most frequent? `fn` counts the codes that a category misses, `fp` those that it invents.

# %%
from guard_utils.metrics import per_category

counts = per_category(test, run.policy).set_index("code")
costs = counts[["fn", "fp"]].rename(columns={"fn": "missed", "fp": "extra"}).stack().rename_axis(["code", "kind"])
costs = costs.sort_values(ascending=False, kind="stable").rename("codes").reset_index()
code, kind = costs.loc[0, "code"], costs.loc[0, "kind"]
costs

# %% [markdown]
# ## The worst twenty
#
# Now read. Not at random: a guard that is **sure** and wrong is worth most, for either it lacks a whole kind of text or
# the label is wrong. Private values are marked, each with its source label and the code that label gives.

# %%
from IPython.display import display

from guard_utils.figures import reading_html

spans = {example.id: example.spans for example in (*splits.test, *splits.independent)}
HTML(reading_html(wrong["test"].head(20), spans))

# %% [markdown]
# Read the first ten with a pencil. For each, three answers are possible: the model is wrong; the label is wrong; or the
# **policy** does not say. Count them. The same for the text from elsewhere, where surprises are more likely:

# %%
HTML(reading_html(wrong["independent"].head(10), spans))

# %% [markdown]
# ## Same answers, other labels
#
# Until now the labels were exact: every source label was decided once, by name, in one table (notebook 02). Imagine
# instead that a colleague hands you *these very answers* with *their* labels, and that you trust them. `other` is that
# table. Only `gold` differs.

# %%
from guard_utils.data import reference_codes_evaluation
from guard_utils.metrics import summary

theirs = [list(reference_codes_evaluation(labels)) for labels in test["labels"]]
other = test.assign(gold=theirs)
labels = {"exact labels": test, "the colleague's labels": other}
scores = pd.DataFrame({name: summary(df, run.policy) for name, df in labels.items()}).T
scores[["weighted_f1", "subset_accuracy", "binary_fpr"]]

# %% [markdown]
# The model has not changed, and yet it looks different. Where do the new errors lie? Do not read on; the next table is
# all you need to become suspicious.

# %%
error_table(other, run.policy, "category")[["rows", "wrong", "error_rate", "missed", "extra", "swapped"]]

# %% [markdown]
# Compare it with the table of the section *Where the errors are*. Some categories have grown by far, and not by a
# little of everything: by one kind of error each. Models rarely fail so neatly.

# %% [markdown]
# ## Find the culprits
#
# Here is the idea. A model's mistakes scatter: they depend on wording, length, luck. A mistake in a **label map** does
# not: it hits every single row that carries the label, and no other. So cross-tabulate source labels and codes, and
# look for cells where gold and model disagree nearly always.

# %%
from guard_utils.figures import plot_label_errors, save
from guard_utils.metrics import by_source_label

cross = by_source_label(other, run.policy)
often = cross[cross["rows"] >= 10] if (cross["rows"] >= 10).any() else cross
top = often.loc[often["disagreement"].idxmax()]
title = f"On {top['label']}, gold and model disagree about {top['code']} in {top['disagreement']:.0%} of the rows"
alt = f"Disagreement by source label and code on {len(other)} test prompts, with the colleague's labels. {title}."
save(plot_label_errors(often, title=title, n=12), run, "05-labels-colleague", alt)

# %% [markdown]
# The dark cells are suspects. Some only stand near a culprit: a city often shares its address with a post code, and is
# dark by association. `suspicious_labels` takes the best explanation, sets its rows aside, and searches again, so
# that only culprits remain.

# %%
from guard_utils.metrics import suspicious_labels

suspects = suspicious_labels(other, run.policy).head(10)
suspects

# %% [markdown]
# In words:

# %%
for row in suspects.itertuples():
    mapped = f"mapped to {row.code} by mistake" if row.kind == "missed" else f"never mapped to {row.code}"
    print(f"{row.label}: gold and model disagree about {row.code} in {row.error_rate:.0%} of the rows: {mapped}?")

# %% [markdown]
# One witness is not enough: perhaps the model never learned these. Call a second one who shares nothing with it. The
# regular expressions of notebook 01 have read no training data, and no label.

# %%
regex = read_predictions(run, "regex", "test", splits.test)
second = suspicious_labels(regex.assign(gold=theirs), run.policy)
both = suspects.merge(second, on=["label", "code", "kind"], suffixes=("", " (regex)"))
both[["label", "code", "kind", "rows", "error_rate", "error_rate (regex)"]]

# %% [markdown]
# What two unrelated witnesses contradict, row after row, is no longer a question about the model. Read three of the
# rows to be certain: compare the marked value, and the name of its label, with *gold* in the heading.

# %%
doubted = disagreements(other, run.policy)
for pair in both.head(2).itertuples():
    accused = zip(doubted["labels"], doubted[pair.kind], strict=True)
    rows = doubted[[pair.label in labels and pair.code in codes for labels, codes in accused]]
    display(HTML(f"<h4>{pair.label}: {pair.kind} {pair.code}</h4>" + reading_html(rows.head(3), spans)))

# %% [markdown]
# ## The rule behind the label
#
# The colleague's labels are those of the reference tutorial. Its rules look for a key *inside* a label. Which keys fire
# on the suspects?

# %%
from guard_utils.data import PII_200K, REFERENCE_EVALUATION_KEYS

fired = {
    label: {key: code for key, code in REFERENCE_EVALUATION_KEYS.items() if key in label}
    for label in suspects["label"].unique()
}
pd.DataFrame({"keys that fire": fired, "exact rule": {label: PII_200K.codes([label]) for label in fired}})

# %% [markdown]
# Look at `ZIPCODE`: it contains `IP`, so every post code counts as an IP address. Look at `PHONENUMBER`: the rule was
# written for another data set, which spells it `PHONE_NUMBER`, so no phone number ever counts at all. Whatever contains
# `NAME` counts as a person, companies and user names included; and a label that no key fires on was forgotten. Slips of
# a few characters, and a benchmark on which a perfect guard can't be perfect. How large was the damage?

# %%
blamed, guilty = (set(disagreements(df, run.policy)["id"]) for df in (other, test))
cleared = len(blamed - guilty)
share = cleared / max(1, len(blamed))
print(f"With the reference's labels the model is wrong on {len(blamed)} of {len(test)} prompts.")
print(f"On {cleared} of these ({share:.0%}) it is exactly right: the label was wrong.")
print(f"On {len(guilty - blamed)} prompts the wrong label had hidden an error of the model.")

# %% [markdown]
# And the same picture with exact labels. It is drawn from the same answers, by the same function, with the same
# colours:

# %%
cross = by_source_label(test, run.policy)
often = cross[cross["rows"] >= 10] if (cross["rows"] >= 10).any() else cross
top = often.loc[often["disagreement"].idxmax()]
title = f"With exact labels the darkest cell is {top['label']} and {top['code']}: {top['disagreement']:.0%} of the rows"
alt = f"Disagreement by source label and code on {len(test)} test prompts, with exact labels. {title}."
save(plot_label_errors(often, title=title, n=12), run, "05-labels-exact", alt)

# %% [markdown]
# What is left now is scattered, and that is how honest mistakes of a model look. A cell that is still dark deserves the
# same questions again: is it the map, or something that the guard never learned?

# %% [markdown]
# ## A remark that was right by accident
#
# The reference tutorial prints five of its errors. One is about a post code: its labels say IP address, the model says
# address only. Another is about a phone number: its labels know nothing of it, the model reports it. Both times the
# model is right. The tutorial then remarks that the model may well be more accurate than the ground truth, and ends.
#
# It was right, and had the proof in its hands. But it read its errors **one by one**, and one by one each looks like a
# quirk of the data. Nobody asked what the five had in common. A cross-tabulation is five lines of code, and the bug
# that cost its benchmark a category would have been the first row of the table.
#
# There is a warning in this, too. The trick worked because the model was trained on *other* labels than it was judged
# by. Had both carried the same bug, the model would have learned it, agreed with it, and this notebook would have found
# nothing. The stretch exercise lets you see that happen; notebook 06 shows what to do about it.

# %% [markdown]
# ## What to fix first
#
# Back to exact labels, and to work. Order the errors by how many there are, not by how much they annoy. Who
# can mend them?
#
# | what you saw | cure | cost |
# |---|---|---|
# | two witnesses contradict a label on nearly every row | correct the label map, rescore | minutes |
# | *policy boundary* | decide, write it into the category's description | an hour, and a discussion |
# | misses and extras far from balanced | tune thresholds on validation | minutes |
# | errors in few situations, templates or forms | write training text of that kind | a day |
# | errors scattered evenly | more training, or a larger model | money |

# %%
todo = costs.assign(category=costs["code"].map(run.policy.names)).head(5)
todo[["code", "category", "kind", "codes"]]

# %% [markdown]
# And of these, how many prompts would a stricter policy excuse?

# %%
excused = (wrong["test"]["kind"] == "policy boundary").sum()
print(f"{excused} of {len(wrong['test'])} wrong test prompts lie on the boundary of the policy.")
print(f"Start with {code}, {kind}: {costs.loc[0, 'codes']} of {costs['codes'].sum()} wrong codes.")

# %% [markdown]
# For the record: the share of wrong prompts, and how much of the reference's "error" was its own.

# %%
from guard_utils.records import expect, record

numbers = {
    "error_rate": len(guilty) / len(test),
    "error_rate_reference_labels": len(blamed) / len(test),
    "blamed_on_labels": share,
}
record(run, "errors-test", numbers, len(test), checkpoint=test.attrs["checkpoint"], rows=test.attrs["rows"])
for metric in numbers:
    expect(run, "errors-test", metric)

# %% [markdown]
# The card says where all of this comes from.

# %%
from guard_utils.records import run_card

run_card(run, len(test) + len(independent), checkpoint=test.attrs["checkpoint"])

# %% [markdown]
# ## Take-aways
#
# - Name the errors before you count them: misses, extras and boundary cases have different cures.
# - Read the surest mistakes first; that is where a missing kind of text, or a wrong label, shows.
# - A model's errors scatter. Errors that hit every row of one source label, and no other, are the label's.
# - Ask a second, unrelated witness before you change a label.
# - This only finds label bugs that the model has *not* been trained on.

# %% [markdown]
# ## Exercises
#
# Put your answer in the place of the dots, run the cell, then the check beneath it. A click on *Solution* unfolds ours.
#
# **Warm-up.** Which language has the highest error rate on test, and on how many prompts does that rest?

# %% tags=["exercise"]
language = ...  # such as "en"
prompts = ...  # how many of the test prompts are in it

# %% tags=["check"]
from guard_utils.records import attempt

with attempt(language):
    error_rates = (test["gold"] != test["predicted"]).groupby(test["language"]).mean()
    assert error_rates[language] == error_rates.max(), f"{error_rates.idxmax()} has a higher one"
    assert prompts == (test["language"] == language).sum(), f"{prompts} is not the number of prompts in {language}"

# %% tags=["solution"]
languages = error_table(test, run.policy, "language").sort_values("error_rate", ascending=False)
language, prompts = languages.index[0], languages["rows"].iloc[0]
languages.head(1)

# %% [markdown]
# **Core.** Mend the colleague's labels: take S2 from every row that has no IP address, and add S3 to every row with a
# phone number. What does each of the two mends win in weighted F1, and in subset accuracy?

# %% tags=["exercise"]
mended = ...  # the table other, with better lists in its column gold

# %% tags=["check"]
with attempt(mended):
    for old, new in zip(other.to_dict("records"), mended.to_dict("records"), strict=True):
        has_ip, has_phone = bool({"IP", "IPV4", "IPV6"} & set(new["labels"])), "PHONENUMBER" in new["labels"]
        assert ("S2" in new["gold"]) == has_ip, f"S2 and the labels {new['labels']} do not go together"
        assert ("S3" in new["gold"]) == has_phone, f"S3 and the labels {new['labels']} do not go together"
        assert {*new["gold"]} - {"S2", "S3"} == {*old["gold"]} - {"S2", "S3"}, "leave the other codes alone"


# %% tags=["solution"]
def mend(row, post_codes, phones):
    ip = {"IP", "IPV4", "IPV6"} & set(row["labels"])
    codes = set(row["gold"]) - ({"S2"} if post_codes and not ip else set())
    return sorted(codes | ({"S3"} if phones and "PHONENUMBER" in row["labels"] else set()))


wins = {}
for step, options in {"as they were": (0, 0), "post codes": (1, 0), "phones, too": (1, 1)}.items():
    mended = other.assign(gold=[mend(row, *options) for row in other.to_dict("records")])
    wins[step] = summary(mended, run.policy)
pd.DataFrame(wins).T[["weighted_f1", "subset_accuracy"]]

# %% [markdown] tags=["solution"]
# The phones hardly move weighted F1 and move subset accuracy a lot. A category without a positive has no weight, so the
# very bug that erased it also hid it from the headline number. (Names are still read by substring, too.)

# %% [markdown]
# **Stretch.** Imagine a guard that was *trained* on the colleague's labels, and learned them as well as ours learned
# the exact ones: the same slips, but relative to `other`. Simulate its answers, score it, and look for suspects.

# %% tags=["exercise"]
student = ...  # the table other, with the student's lists in its column predicted

# %% tags=["check"]
with attempt(student):
    assert student["gold"].equals(other["gold"]), "the student is judged by the colleague's labels"
    tables = zip(test.to_dict("records"), student.to_dict("records"), strict=True)
    slips = [({*ours["gold"]} ^ {*ours["predicted"]}, {*its["gold"]} ^ {*its["predicted"]}) for ours, its in tables]
    assert all(ours == its for ours, its in slips), "missed and invented codes are those of our guard, row by row"


# %% tags=["solution"]
def taught(old, gold, said):
    return sorted(set(old) ^ set(gold) ^ set(said))  # the colleague's codes, with our guard's slips


student = other.assign(predicted=list(map(taught, other["gold"], test["gold"], test["predicted"])))
print(f"The student's weighted F1 is {summary(student, run.policy)['weighted_f1']:.3f}.")
print(f"Suspects, by its answers: {len(suspicious_labels(student, run.policy))}; by the second witness: {len(second)}.")

# %% [markdown] tags=["solution"]
# The student scores well and finds nothing suspicious: it calls post codes IP addresses, never saw a phone number, and
# its labels agree. Only the second witness, who was taught by nobody, still objects.

# %% [markdown]
# ## Where to go next
#
# Notebook 06 turns this into a loop: audit the labels, correct them, retrain, and measure what it won.
