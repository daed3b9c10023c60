"""A tiny notebook that keeps every rule, and one broken copy of it for each way to break one."""

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import notebook_lint as lint
import pytest

from guard_utils.profiles import repository
from tools.notebooks import build, execute

PROMISED = tomllib.loads((repository() / "notebooks/expected/laptop.toml").read_text(encoding="utf-8"))["tuned-test"]
EXERCISE = """\
# **{name}.** What is one and one?

# %% tags=["exercise"]
answer = ...

# %% tags=["check"]
with attempt(answer):
    assert answer == 2, "count again"

# %% tags=["solution"]
answer = 2

# %% [markdown] tags=["solution"]
# Fingers help.

# %% [markdown]
"""
GOOD = f"""\
# %% [markdown]
# # 01 · Tiny
#
# **What you will learn**: little. **What you need**: the `smoke` profile, 1 minute, 1 GB. **Agenda**
#
# 1. [A figure](#A-figure)
# 2. [Take-aways](#Take-aways)
# 3. [Exercises](#Exercises)
# 4. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# ## A figure

# %%
from IPython.display import Image

Image(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(24), alt="Nothing.")

# %%
from guard_utils.profiles import resolve
from guard_utils.records import attempt, expect, record, run_card

run = resolve(PROFILE)
noted = record(run, "tuned-test", {{"weighted_f1": {PROMISED["weighted_f1"]["value"]}}}, n=1)
good = expect(run, "tuned-test", "weighted_f1")

# %% [markdown]
# The card:

# %%
run_card(run, n=1, model="none")

# %% [markdown]
# ## Take-aways
#
# The tutorial reports 85.41 %, without a 95 % interval.
#
# ## Exercises
#
{"".join(EXERCISE.format(name=name) for name in ("Warm-up", "Core", "Stretch"))}# ## Where to go next
#
# [Home](#A-figure).
"""
STATIC_BREAKS = [
    (lint.opening, "1 GB", "little memory"),
    (lint.agenda, "# ## A figure", "# ## Another figure"),
    (lint.agenda, "(#A-figure)", "(#a-figure)"),
    (lint.agenda, "Where to go next", "And now"),
    (lint.lengths, "run = ", "\n" * 26 + "run = "),
    (lint.lengths, '"]\n', '"]\n' + "0\n" * 7),
    (lint.rhythm, "# %% [markdown]\n# The card:\n\n", ""),
    (lint.typed_scores, "85.41 %", "87 %"),
    (lint.typed_scores, "85.41 %", "0.875"),
    (lint.typed_scores, "Fingers help.", "0.5 helps."),
    (lint.long_definitions, "run = ", "def long():\n" + "    print()\n" * 10 + "run = "),
    (lint.exercises, 'tags=["solution"]', ""),
    (lint.exercises, "answer = ...", "answer = 1"),
    (lint.exercises, "with attempt(answer)", "if True"),
    (lint.exercises, "**Core.**", "**More.**"),
    (lint.references, "(#A-figure).", "(#Nowhere)"),
]
THERE = """`guard_utils.policy.PII` `guard_utils.records` `python -m tools.notebooks run --only 03` `pyproject.toml`
`guard-1b` `PROFILE = "guard-8b"` `train.jsonl` notebook 01, 0.1, `make test` [up](#Up) [one](notebooks/WORKSHOP.md)"""
NOWHERE = """`guard_utils/polisy.py` `polisy.py` `guard_utils.policy.no_such` `guard_utils.polisy` `guard-9b`
`python -m guard_utils.polisy` `python -m tools.notebooks run --kept` `python -m tools.notebooks run --profile guard-9b`
`PROFILE = "desktop"` `make toast` notebook 09, [one](01_first.ipynb)"""


def make(folder: Path, text: str, **options: bool) -> Any:
    source = folder / "09_tiny.py"
    source.write_text(text, encoding="utf-8")
    return build(source, "laptop", **options)


@pytest.mark.parametrize(("rule", "old", "new"), STATIC_BREAKS)
def test_static_rule_finds_its_break(rule: Callable[[Any], list[str]], old: str, new: str, tmp_path: Path) -> None:
    assert old in GOOD and rule(make(tmp_path, GOOD)) == []
    assert rule in lint.STATIC and rule(make(tmp_path, GOOD.replace(old, new)))


def test_what_nobody_has_is_missing() -> None:
    assert lint.missing(THERE, repository(), {"Up"}) == []
    assert len(lint.missing(NOWHERE, repository(), {"Up"})) == 12


def test_a_definition_in_two_notebooks_is_found(tmp_path: Path) -> None:
    notebook = make(tmp_path, GOOD.replace("run = ", "def short():\n    pass\nrun = "))
    assert lint.repeated_definitions([notebook]) == []
    assert lint.repeated_definitions([notebook, notebook]) == ["short is defined in several notebooks"]


def test_a_solution_is_folded_and_added_to_its_stub_if_asked(tmp_path: Path) -> None:
    stub, check, folded = make(tmp_path, GOOD).cells[9:12]
    assert (stub.source, folded.cell_type) == ("answer = ...", "markdown")
    parts = ["<details>\n<summary>Solution</summary>", "```python\nanswer = 2\n```", "Fingers help.", "</details>"]
    assert folded.source == "\n\n".join(parts)
    solved = make(tmp_path, GOOD, solved=True).cells
    assert solved[9].source == "answer = ...\n\nanswer = 2" and solved[10:12] == [check, folded]
    for tag, message in (("exercise", "a solution without a cell tagged"), ("parameters", "0 cells tagged")):
        with pytest.raises(ValueError, match=message):
            make(tmp_path, GOOD.replace(f'tags=["{tag}"]', ""))


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tiny notebook as it should be, with its solutions, and with faults that only its outputs show."""
    folder = tmp_path_factory.mktemp("tiny")
    bad = GOOD.replace("assert answer == 2", "assert answer").replace(', alt="Nothing."', "")
    bad = bad.replace(f"{PROMISED['weighted_f1']['value']}}}", "0.5}").replace("# [Home]", "# ![]")
    made = {"good": make(folder, GOOD), "solved": make(folder, GOOD, solved=True), "bad": make(folder, bad)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUARD_ARTIFACTS", str(folder))
        for notebook in made.values():
            execute(notebook)
    return made


def test_the_tiny_notebook_keeps_every_rule_for_outputs(executed: dict[str, Any]) -> None:
    assert [fault for rule in lint.EXECUTED for fault in rule(executed["good"])] == []
    assert lint.marks(executed["solved"]) == ["✓"] * 3


def test_a_stub_that_passes_a_bare_figure_and_a_drifted_number_are_found(executed: dict[str, Any]) -> None:
    assert lint.stubs_fail(executed["bad"]) == ["the checks of the stubs say ['✓', '✓', '✓']"]
    assert [fault[:11] for fault in lint.alt_texts(executed["bad"])] == ["no alt text"] * 2
    assert [fault[:37] for fault in lint.drift(executed["bad"])] == ["tuned-test weighted_f1 is 0.500, expe"]


@pytest.mark.parametrize("shown", ["<X at 0x7f3a2b1c>", "#T_1a2b3 td {}", "/home/ann/x", "2024-05-01T10:00"])
def test_a_trace_a_card_and_an_order_that_are_wrong_are_found(shown: str, executed: dict[str, Any]) -> None:
    notebook = copy.deepcopy(executed["good"])
    figure = next(out for _, out in lint.outputs(notebook) if "image/png" in out.get("data", {}))
    figure.data["image/png"], figure.metadata["image/png"]["alt"] = "other", "Ours beats theirs."
    assert [fault[:8] for fault in lint.alt_texts(notebook)] == ["compared"]
    lint.code(notebook)[1].execution_count = 7
    assert lint.ran(notebook) and lint.said(notebook) == lint.said(executed["good"])
    next(out for _, out in lint.outputs(notebook) if lint.told(out).startswith("profile")).data["text/plain"] = shown
    assert lint.traces(notebook) and lint.has_card(notebook) and lint.said(notebook) != lint.said(executed["good"])
