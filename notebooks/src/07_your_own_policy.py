# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 07 · Your own policy
#
# **You teach the guard four categories that it has never heard of, in minutes, and take it with you.**
#
# **What you will learn**
#
# - how to write a policy, a label map and rows of your own, as small files;
# - how to start from the guard that comes with the series, not from nothing;
# - what a guard of one policy does under another, and how the training file can teach it to obey;
# - how to count the rows you need, and how to use the result outside these notebooks.
#
# **What you need**: the `laptop` profile and 8 GB of memory; 20 minutes of reading, 12 minutes of machine time on two
# CPU cores that multiply bf16 in hardware (longer on others).
#
# **Agenda**
#
# 1. [Three small files](#Three-small-files)
# 2. [A profile of your own](#A-profile-of-your-own)
# 3. [The bar](#The-bar)
# 4. [The training file](#The-training-file)
# 5. [Start from the guard](#Start-from-the-guard)
# 6. [How good is it?](#How-good-is-it?)
# 7. [Another policy](#Another-policy)
# 8. [How many rows do I need?](#How-many-rows-do-I-need?)
# 9. [Take it with you](#Take-it-with-you)
# 10. [A checklist for your data](#A-checklist-for-your-data)
# 11. [Take-aways](#Take-aways)
# 12. [Exercises](#Exercises)
# 13. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# ## Three small files
#
# A bank does not ask for IP addresses. It asks for e-mail addresses, account numbers, national identity numbers and
# dates of birth. First the **policy**: a name, and 1 to 30 categories. The text of a category is what the model reads.

# %%
from guard_utils.profiles import repository, resolve

run = resolve(PROFILE)
folder = repository() / "notebooks" / "data" / "own"
print((folder / "policy.yaml").read_text())

# %% [markdown]
# Then the **rows**, one JSON object a line (CSV and parquet will do, too). Ours have `labels` with their places, and a
# **label map** turns labels into codes; rows with `codes` need no map. A label that the map lacks is an error.

# %%
import pandas as pd

pd.options.display.precision, pd.options.display.max_colwidth = 3, 90
print("\n".join((folder / "test.jsonl").read_text().splitlines()[:3]))
pd.read_csv(folder / "labels.csv", keep_default_na=False).head(7)

# %% [markdown]
# Texts that were made from one pattern share a `template_id`: no pattern is both trained on and scored. Some of our
# training texts have two patterns of one situation, so their `template_id` names the situation.
# Have no such column? Then each text is its own template.
#
# What if a file is wrong? Try it: the error names file, row, field and fix, for all rows at once.

# %%
import json

from guard_utils.data import DataError, own_examples

bad = run.folder / "bad.jsonl"
bad.write_text('{"text": "Call me", "codes": "S1,S2"}\n{"text": " ", "codes": []}\n{"text": "Hi", "codes": ["S9"]}\n')

# %%
try:
    own_examples(bad, run.policy)
except DataError as error:
    print(str(error).replace(str(bad.parent), "..."))

# %% [markdown]
# ## A profile of your own
#
# A profile says what runs. Yours is another one with a few fields changed. Put it in the place of the name after
# `PROFILE`, and notebooks 01 to 05 run on your rows, too; cells about the published tutorial's rows then only say that
# they are left out.

# %%
from dataclasses import replace

from guard_utils.data import load_splits

names = {"train_data": "train.jsonl", "test_data": "test.jsonl", "policy": "policy.yaml", "labels": "labels.csv"}

# %%
files = {field: f"notebooks/data/own/{name}" for field, name in names.items()}
rows, config = min(run.profile.train_rows, 1500), "own" if PROFILE == "laptop" else PROFILE
own = replace(run.profile, name=f"{PROFILE}-own", config=config, adapter="", train_rows=rows, **files)
mine = resolve(own)
splits = load_splits(mine)
pd.Series({"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)}, name="rows")

# %% [markdown]
# ## The bar
#
# Patterns first: they cost nothing, and a guard has to beat them.

# %%
import re

import numpy as np

from guard_utils.data import predictions_table
from guard_utils.metrics import per_category

patterns = {
    "S1": r"[\w.+-]+@[\w-]+\.\w+",
    "S2": r"\b[A-Z]{2}\d\d[A-Z0-9 ]{11,30}\b|\b\d{8,12}\b",
    "S3": r"\b\d{3}-\d\d-\d{4}\b|\b756\.\d{4}",
    "S4": r"\b\d{1,2}[./-]\d{1,2}[./-](19|20)\d\d\b|\b(19|20)\d\d-\d\d-\d\d\b",
}

# %%
hits = np.array([[bool(re.search(pattern, e.text)) for pattern in patterns.values()] for e in splits.test])
codes = [[code for code, hit in zip(patterns, row, strict=True) if hit] for row in hits]
bar = predictions_table(splits.test, mine.policy, hits, codes, 0.0)
columns = ["name", "support", "precision", "recall", "f1"]
per_category(bar, mine.policy)[columns]

# %% [markdown]
# Look at precision: a date of birth looks like any date, and an account number like an order number. Only the words
# around them tell.

# %% [markdown]
# ## The training file
#
# The formatter writes the rows as in notebook 02. Look at `evidence`: where each value ends, and its code. Training
# asks for these, too, and learns from far fewer rows.

# %%
from guard_utils import formatter

train_file = mine.folder / "train.jsonl"
written = formatter.write_training_file(splits.train, train_file, mine.policy)
lines = [json.loads(line) for line in train_file.read_text().splitlines()]
print(f"{written:,} lines")
next(line for line in lines if line["answer"] != "safe")

# %% [markdown]
# ## Start from the guard
#
# The guard that comes with the series knows what an address or a card looks like, and what an answer looks like. It
# is exported as an ordinary checkpoint, and training starts there.
#
# It has habits, too: its S3 was a phone number and its S4 an address. So one training row in eight is a letter of the
# old corpus, with the labels of the new map. Without them, phones and addresses of long texts came back as S3 and S4.

# %%
from guard_utils.scoring import export_guard, load_guard
from guard_utils.training import finetune

series = replace(run, folder=run.folder / "series") if run.profile.adapter else run
start = export_guard(series, run.folder / "start")
mine = resolve(replace(own, model=str(start)))
training = finetune(mine, train_file, processes=max(1, run.profile.gpus))
print(f"{training.examples:,} examples")

# %% [markdown]
# ## How good is it?
#
# The same functions as in notebook 04. The intervals draw whole templates.

# %%
from guard_utils.metrics import bootstrap, compare_systems
from guard_utils.scoring import predict

guard = load_guard(mine)
table = predict(guard, splits.test)
lead = compare_systems(table, {"patterns": bar}, mine.policy, seed=run.seed)
lead[["ours", "theirs", "difference", "low", "high"]]

# %%
from guard_utils.figures import plot_scores, save

systems = {"guard": table, "regex": bar}
scores = pd.concat(bootstrap(df, mine.policy, seed=run.seed).assign(system=name) for name, df in systems.items())
titles = {f"f1_{code}": name for code, name in mine.policy.names.items()}
shown_scores = scores[scores["metric"].isin(titles)].assign(category=lambda df: df["metric"].map(titles))
ahead = lead.loc["patterns"]
title = f"The guard minus patterns: {ahead['difference']:+.2f} [{ahead['low']:+.2f}, {ahead['high']:+.2f}] weighted F1"
alt = f"F1 of each of four categories for the tuned guard and for patterns. {title}."
save(plot_scores(shown_scores, title=title, group="category", score="F1"), run, "07-scores", alt)

# %% [markdown]
# Which texts are still wrong? The tables of notebook 05 work here, too.

# %%
from guard_utils.metrics import error_table

error_table(table, mine.policy)[["rows", "wrong", "error_rate", "missed", "extra", "swapped"]]

# %% [markdown]
# ## Another policy
#
# Show the same guard a smaller policy: a category is missing, and the others keep their codes, as in Llama Guard's own
# template. Does it read that? And does it, where the same categories are numbered anew?

# %%
from guard_utils.metrics import summary
from guard_utils.policy import Taxonomy
from guard_utils.prompt import GuardPrompt
from guard_utils.scoring import GuardScorer, load_model

model, tokenizer = load_model(training.checkpoint, dtype=run.dtype, device=run.device)
half = splits.test[::2]


def under(policy, codes):
    """Predictions under a policy that shows these categories, for test rows with the codes that they have there."""
    code_of = dict(zip(codes, policy.codes, strict=True))
    seen = [replace(e, codes=tuple(sorted(code_of[c] for c in e.codes if c in code_of))) for e in half]
    return predict(GuardScorer(model, GuardPrompt(policy, tokenizer)), seen, progress=False)


# %%
results = []
for codes in (mine.policy.codes, ("S1", "S2", "S3"), ("S2", "S3", "S4"), ("S3", "S4"), ("S1",)):
    policy = mine.policy.select(codes)
    anew = Taxonomy("anew", policy.categories)
    kept = under(policy, codes)
    others = np.array([bool(e.codes) and not set(e.codes) & set(codes) for e in half])
    ignored = (kept[others]["predicted"].str.len() == 0).mean() if others.any() else np.nan
    renumbered = kept if anew.codes == codes else under(anew, codes)
    cells = [summary(kept, policy)["weighted_f1"], ignored, summary(renumbered, anew)["weighted_f1"]]
    results.append([" ".join(codes), *cells])
columns = ["shown", "weighted F1", "ignored", "numbered anew"]
other_policies = pd.DataFrame(results, columns=columns).set_index("shown")
other_policies

# %% [markdown]
# *ignored* is the share of texts whose violations all belong to categories that the policy lacks, and that were
# answered `safe`. The first line is the policy of training, the others were never shown. With their codes kept, nearly
# all such texts are answered `safe`. Numbered anew, no policy is obeyed where a number changes: this guard knows its
# codes by heart.
#
# The formatter can teach it: copies of rows under smaller policies. A text with an e-mail address, under a policy
# without that category, is `safe`. The training is twice as long; `tools/LOG.md` has what it gave.

# %%
copies = formatter.AugmentationConfigs(
    should_add_examples_with_dropped_nonviolated_prompt_categories=True,
    should_add_examples_with_dropped_violated_and_nonviolated_prompt_categories=True,
)
configs = formatter.FormatterConfigs(
    formatter.Guidelines(mine.policy.categories, "S"),
    formatter.LlamaGuardPromptConfigs("{guidelines} {conversation}", True, False),
    formatter.LlamaGuardGenerationConfigs(True, None),
    copies,
)

# %%
several = mine.folder / "several-policies.jsonl"
written = formatter.write_training_file(splits.train, several, mine.policy, configs, policies=8)
shown = {tuple(json.loads(line)["policy"]) for line in several.read_text().splitlines()}
print(f"{written:,} lines under {len(shown)} policies, such as {sorted(shown)[1]}")

# %% [markdown]
# ## How many rows do I need?
#
# The same training with 50, 200 and 800 different rows. All take the same number of updates: few rows are read more
# often. One curve begins with the guard of the series, the other with the untrained model. All answers come with the
# repository. To train these guards yourself, set `TRAIN_CURVE = True`; each takes as long as the training above.

# %%
from functools import partial

from guard_utils.scoring import cached_predictions

TRAIN_CURVE = False


def guard_of(name, base, count):
    """Answers of a guard that was trained on the first rows, read until they fill the updates."""
    settings = config if name == "series" else PROFILE  # an untrained model needs smaller steps
    one = resolve(replace(own, name=f"{PROFILE}-own-{name}-{count}", model=base, config=settings))
    repeated = [splits.train[i % count] for i in range(len(splits.train))]
    formatter.write_training_file(repeated, one.folder / "train.jsonl", one.policy)
    finetune(one, one.folder / "train.jsonl")
    return predict(load_guard(one), splits.test)


def curve_point(name, base, count):
    """The answers of this training, kept, or made where that is wanted; of another start they don't count."""
    train = partial(guard_of, name, base, count) if TRAIN_CURVE else None
    begun = json.loads((start / "asset.json").read_text())["source"] if name == "series" else base
    return cached_predictions(mine, f"{name}-{count}", splits.test, {"seed": run.seed, "begun": begun}, train)


# %%
counts = sorted(n for n in {50, 200, 800, len(splits.train)} if n <= len(splits.train))
answers, missing = {("series", len(splits.train)): table}, []
for name, base in {"series": str(start), "untrained": run.profile.model}.items():
    for count in counts:
        if (name, count) in answers:
            continue
        try:
            answers[name, count] = curve_point(name, base, count)
        except FileNotFoundError:
            missing.append(f"{name} {count}")
print(f"Not measured here: {', '.join(missing) or 'nothing'}.")

# %% [markdown]
# The answers that are there, in one figure:

# %%
begins = {"series": "from the guard", "untrained": "from the untrained model"}
parts = [
    bootstrap(df, mine.policy, seed=run.seed).assign(system=begins[name], rows=f"{count:,} rows")
    for (name, count), df in sorted(answers.items(), key=lambda answer: answer[0])
]
curve = pd.concat(parts).query("metric == 'weighted_f1'")
ends = curve[curve["rows"] == f"{len(splits.train):,} rows"].to_dict("records")
title = f"Weighted F1 with all {len(splits.train):,} rows, " + "; ".join(
    f"{p['system']}: {p['value']:.2f} [{p['low']:.2f}, {p['high']:.2f}]" for p in ends
)
alt = f"Weighted F1 by the number of different training rows, with intervals. {title}."
save(plot_scores(curve, title=title, group="rows", score="weighted F1"), run, "07-rows", alt)

# %% [markdown]
# From the guard of the series, 50 and 200 rows are too few: their intervals lie below that of all rows. From 800 on the
# intervals overlap. From the untrained model no number of rows is enough: all four intervals lie below that of 200 rows
# from the guard. So few updates can't teach the answer's form and four categories. All the rows even give less than
# 200 rows that come back more often.

# %% [markdown]
# ## Take it with you
#
# Export once more: an ordinary checkpoint, which `transformers` loads and vLLM serves.

# %%
checkpoint = export_guard(mine, mine.folder / "guard")
sorted(path.name for path in checkpoint.iterdir())

# %% [markdown]
# **In a process**: `load_guard(mine).score(texts)`, as above. **A file**: `score_file`, which can be stopped and goes
# on. **A server**:
#
# ```console
# $ pip install vllm
# $ vllm serve artifacts/laptop-own/guard --served-model-name guard --max-logprobs 20
# ```
#
# Its answer has the log-probabilities of the first token. That is all that P(unsafe) needs:

# %%
import urllib.request


def p_unsafe(server, prompt, text):
    """P(unsafe) by a vLLM server: the share of `unsafe` among the first tokens of both answers."""
    asked = {"model": "guard", "prompt": list(prompt.segments(text).ids), "max_tokens": 1, "logprobs": 20}
    request = urllib.request.Request(f"{server}/v1/completions", json.dumps(asked).encode())
    request.add_header("Content-Type", "application/json")
    first = json.load(urllib.request.urlopen(request))["choices"][0]["logprobs"]["top_logprobs"][0]
    words = {word: tokenizer.decode(tokenizer(word)["input_ids"][0]) for word in ("safe", "unsafe")}
    safe, unsafe = (np.exp(first.get(token, -np.inf)) for token in words.values())
    return unsafe / (safe + unsafe)


# %% [markdown]
# The prompt goes to the server as token ids, so it is the prompt of training, token for token.

# %%
from guard_utils.scoring import score_file

scored = score_file(mine, folder / "test.jsonl", mine.folder / "answers.parquet")
scored.drop(columns="fault").head(3)

# %% [markdown]
# ## A checklist for your data
#
# 1. Write the policy. Could a colleague decide ten texts with it alone, as you do?
# 2. Collect rows as they will come, safe ones and look-alikes too. Keep a test set that nobody trains on.
# 3. Give rows of one pattern one `template_id`.
# 4. Measure patterns first.
# 5. Train from the guard that comes with the series. Mark where the values are.
# 6. Read the errors of the test, then the labels (notebook 06).
# 7. Choose a threshold on validation rows (notebook 04), never on the test.
#
# On record:

# %%
from guard_utils.records import Interval, expect, intervals_of, record, run_card

values = intervals_of(scores[scores["system"] == "guard"], ["weighted_f1", "subset_accuracy", "binary_fpr"])
values["lead"] = Interval(*ahead[["difference", "low", "high"]])
noted = replace(mine, profile=replace(mine.profile, name=PROFILE), folder=run.folder)  # beside the other records
told = {"model": "guard of the series, trained on", "rows": len(splits.train)}
record(noted, "own-policy", values, len(splits.test), **told)
obeyed = other_policies.iloc[1:].mean().rename(lambda name: name.replace(" ", "_").lower())
record(noted, "other-policies", obeyed.to_dict(), len(half), **told)
expect(noted, "own-policy")
run_card(run, len(splits.test))

# %% [markdown]
# ## Take-aways
#
# - A policy, a label map and rows are three small files; a profile names them.
# - A guard of one policy is a good start for another.
# - Labels with their places teach faster than answers alone.
# - A smaller policy keeps its codes. Numbered anew, it is another policy, which a guard has to be taught.
# - Patterns set the bar; look-alikes in the test show what the guard is for.

# %% [markdown]
# ## Exercises
#
# Put your answer in the place of the dots, run the cell, then the check beneath it. A click on *Solution* unfolds
# ours.
#
# **Warm-up.** How many smaller policies do four categories allow, if the order of the codes counts?

# %% tags=["exercise"]
orders = ...  # of one, two or three categories

# %% tags=["check"]
from guard_utils.records import attempt

with attempt(orders):
    assert orders == 40, "four of one category, 4 x 3 of two, 4 x 3 x 2 of three"

# %% tags=["solution"]
orders = 4 + 4 * 3 + 4 * 3 * 2
orders

# %% [markdown]
# **Core.** Which category loses most when the guard is replaced by patterns, by F1?

# %% tags=["exercise"]
loser = ...  # a code

# %% tags=["check"]
with attempt(loser):
    both = [per_category(df, mine.policy).set_index("code")["f1"] for df in (table, bar)]
    assert loser == (both[0] - both[1]).idxmax(), "take the difference of the two columns f1"

# %% tags=["solution"]
both = [per_category(df, mine.policy).set_index("code")["f1"] for df in (table, bar)]
loser = (both[0] - both[1]).idxmax()
loser

# %% [markdown]
# **Stretch.** Write a fifth category, *Passport Number*, into a policy file of your own, and score the test with it.
# The guard has never read of passports. How many texts does it report for S5?

# %% tags=["exercise"]
from guard_utils.policy import find_policy

text = ...  # the YAML text: that of policy.yaml, under another name, and one category more
reported = ...  # how many of the test rows have S5 in the answer

# %% tags=["check"]
with attempt(text):
    (mine.folder / "five.yaml").write_text(text)
    five = find_policy(mine.folder / "five.yaml")
    assert len(five) == 5 and five.names["S5"] == "Passport Number", "append a category with this name"
    scorer = GuardScorer(model, GuardPrompt(five, tokenizer))
    answers = scorer.score([e.text for e in splits.test[:100]], progress=False).best
    assert reported == sum("S5" in verdict.codes for verdict in answers), "score the first hundred test rows"

# %% tags=["solution"]
text = (folder / "policy.yaml").read_text().replace("name: identity", "name: five") + "  - name: Passport Number\n"
(mine.folder / "five.yaml").write_text(text)
five = GuardPrompt(find_policy(mine.folder / "five.yaml"), tokenizer)
asked = [e.text for e in splits.test[:100]]
reported = sum("S5" in verdict.codes for verdict in GuardScorer(model, five).score(asked, progress=False).best)
reported

# %% [markdown]
# ## Where to go next
#
# Measure your own guard with 01 to 05. At their top:
#
# ```python
# from dataclasses import replace
# from guard_utils.profiles import PROFILES
#
# files = {"policy": "policy.yaml", "train_data": "train.jsonl", "test_data": "test.jsonl", "labels": "labels.csv"}
# PROFILE = replace(PROFILES["laptop"], name="mine", config="own", adapter="", model="artifacts/laptop/start", **files)
# ```
#
# Paths count from the folder of the repository; where rows have `codes`, leave `labels` out. With a GPU and a token,
# `GPU.md` runs the same policy on Llama Guard itself.
