"""A tiny notebook that keeps every rule, and one broken copy of it for each way to break one."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import notebook_lint as lint
import pytest
from nbclient.exceptions import CellExecutionError

from guard_utils.profiles import repository
from guard_utils.report import attempt
from tools.notebooks import build, execute

PROMISED = tomllib.loads((repository() / "notebooks" / "expected" / "laptop.toml").read_text(encoding="utf-8"))["tuned-test"]
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
# **What you will learn**: little. **What you need**: the `smoke` profile, 1 minute, 1 GB.
#
# **Agenda**
#
# 1. [A figure](#A-figure)
# 2. [Take-aways](#Take-aways)
# 3. [Exercises](#Exercises)
# 4. [Where to go next](#Where-to-go-next)

# %% tags=["parameters"]
PROFILE = "laptop"

# %% [markdown]
# ## A figure
#
# Drawn by `guard_utils/plots.py`, as in notebook 01.

# %%
import os

from guard_utils.figures.style import canvas, save

save(canvas("A title")[0], os.environ["GUARD_ARTIFACTS"], "figure", "An empty pair of axes.")

# %%
from guard_utils.report import attempt, expect, run_card

expect(PROFILE, "tuned-test", "weighted_f1", {PROMISED["weighted_f1"]["value"]})

# %% [markdown]
# The card:

# %%
run_card(profile=PROFILE, n=1, seed=0, model="none", data_hash="d" * 64, config_hash="c" * 64)

# %% [markdown]
# ## Take-aways
#
# The tutorial reports 85.41 %, without a 95 % interval.
#
# ## Exercises
#
{"".join(EXERCISE.format(name=name) for name in ("Warm-up", "Core", "Stretch"))}# ## Where to go next
#
# Home.
"""
LONG = "def long():\n" + "    print()\n" * 10

STATIC_BREAKS = [
    (lint.opening, "What you need", "What you want"),
    (lint.opening, "1 GB", "little memory"),
    (lint.agenda, "# ## A figure", "# ## Another figure"),
    (lint.agenda, "(#A-figure)", "(#a-figure)"),
    (lint.agenda, "Where to go next", "And now"),
    (lint.lengths, "import os\n", "import os\n" * 26),
    (lint.lengths, '"]\n', '"]\n' + "0\n" * 7),
    (lint.rhythm, "# %% [markdown]\n# The card:\n\n", ""),
    (lint.typed_scores, "85.41 %", "87 %"),
    (lint.typed_scores, "85.41 %", "87.5 %"),
    (lint.typed_scores, "85.41 %", "0.875"),
    (lint.typed_scores, "85.41 %", "85.4"),
    (lint.typed_scores, "Fingers help.", "0.5 helps."),
    (lint.long_definitions, "import os\n", LONG),
    (lint.exercises, 'tags=["check"]', ""),
    (lint.exercises, 'tags=["solution"]', ""),
    (lint.exercises, "answer = ...", "answer = 1"),
    (lint.exercises, "with attempt(answer)", "if True"),
    (lint.exercises, "**Core.**", "**More.**"),
    (lint.references, "guard_utils/plots.py", "guard_utils/plotz.py"),
    (lint.references, "guard_utils/plots.py", "plotz.py"),
    (lint.references, "guard_utils/plots.py", "guard_utils.figures.charts.no_such"),
    (lint.references, "guard_utils/plots.py", "python -m guard_utils.plotz"),
    (lint.references, "guard_utils/plots.py", "python -m tools.notebooks run --kept"),
    (lint.references, "guard_utils/plots.py", "python -m tools.notebooks run --profile guard-9b"),
    (lint.references, "guard_utils/plots.py", "make toast"),
    (lint.references, "guard_utils/plots.py", "guard-9b"),
    (lint.references, "guard_utils/plots.py", 'PROFILE = "desktop"'),
    (lint.references, "notebook 01", "notebook 09"),
    (lint.references, "notebook 01", "[the first](01_first.ipynb)"),
    (lint.references, "notebook 01", "[above](#Nowhere)"),
]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    def made(text: str, **options: bool) -> Any:
        source = tmp_path / "09_tiny.py"
        source.write_text(text, encoding="utf-8")
        return build(source, "laptop", **options)

    return made


def test_the_tiny_notebook_keeps_every_static_rule(make: Callable[..., Any]) -> None:
    assert [fault for rule in lint.STATIC for fault in rule(make(GOOD))] == []


@pytest.mark.parametrize(
    ("rule", "old", "new"), STATIC_BREAKS, ids=[f"{r.__name__}: {n[:30]!r}" for r, _, n in STATIC_BREAKS]
)
def test_static_rule_finds_its_break(
    rule: Callable[[Any], list[str]], old: str, new: str, make: Callable[..., Any]
) -> None:
    assert old in GOOD and rule in lint.STATIC
    assert rule(make(GOOD.replace(old, new)))


@pytest.mark.parametrize(
    "named",
    [
        "`guard_utils.figures.charts`",
        "`guard_utils.report.expect`",
        "`python -m tools.notebooks run --only 03`",
        "`make test`",
        "`guard-1b`",
        '`PROFILE = "guard-8b"`',
        "[one](01_baseline_evaluation.ipynb)",
        "[up](#A-figure)",
        "`train.jsonl`",
    ],
)
def test_references_to_what_is_there_are_fine(named: str, make: Callable[..., Any]) -> None:
    assert lint.references(make(GOOD.replace("Home.", named))) == []


def test_a_definition_in_two_notebooks_is_found(make: Callable[..., Any]) -> None:
    notebook = make(GOOD.replace("import os\n", "import os\ndef short():\n    pass\n"))
    assert lint.repeated_definitions([notebook]) == []
    assert lint.repeated_definitions([notebook, notebook]) == ["short is defined in several notebooks"]


def test_a_solution_is_folded_and_added_to_its_stub_if_asked(make: Callable[..., Any]) -> None:
    stub, check, folded = make(GOOD).cells[9:12]
    assert (stub.source, folded.cell_type) == ("answer = ...", "markdown")
    assert folded.source == (
        "<details>\n<summary>Solution</summary>\n\n```python\nanswer = 2\n```\n\nFingers help.\n\n</details>"
    )
    solved = make(GOOD, solved=True).cells
    assert solved[9].source == "answer = ...\n\nanswer = 2" and solved[10:12] == [check, folded]
    with pytest.raises(ValueError, match="a solution without a cell tagged"):
        make(GOOD.replace('tags=["exercise"]', ""))
    with pytest.raises(ValueError, match="0 cells tagged"):
        make(GOOD.replace('tags=["parameters"]', ""))


@pytest.mark.parametrize("edit", [lambda cells: cells.pop(), lambda cells: cells[3].update(source="print()")])
def test_a_cell_that_only_one_of_source_and_notebook_has_is_found(edit: Any, make: Callable[..., Any]) -> None:
    notebook, fresh = make(GOOD), make(GOOD)
    assert lint.other_source(notebook, fresh) == []
    edit(notebook.cells)
    assert lint.other_source(notebook, fresh)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    folder = tmp_path_factory.mktemp("tiny")
    runs: dict[Any, Any] = {}

    def run(text: str, **options: bool) -> Any:
        key = (text, *options)
        if key not in runs:
            source = folder / "09_tiny.py"
            source.write_text(text, encoding="utf-8")
            runs[key] = build(source, "laptop", **options)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("GUARD_ARTIFACTS", str(folder))
                execute(runs[key])
        return copy.deepcopy(runs[key])

    return run


def test_the_tiny_notebook_keeps_every_rule_for_outputs(executed: Callable[..., Any]) -> None:
    assert [fault for rule in lint.EXECUTED for fault in rule(executed(GOOD))] == []
    assert lint.solutions_pass(executed(GOOD, solved=True)) == []
    assert lint.solutions_pass(executed(GOOD)) and lint.stubs_fail(executed(GOOD, solved=True))


BAD = GOOD.replace("assert answer == 2", "assert answer").replace("save(canvas", "Image(save(canvas")
BAD = BAD.replace(f"{PROMISED['weighted_f1']['value']})", "0.5)")
BAD = BAD.replace('axes.")', 'axes.").path)').replace("import os\n", "import os\n\nfrom IPython.display import Image\n")


def test_a_stub_that_passes_a_bare_figure_and_a_drifted_number_are_found(executed: Callable[..., Any]) -> None:
    notebook = executed(BAD)
    assert lint.stubs_fail(notebook) == ["the checks of the stubs say ['✓', '✓', '✓']"]
    assert [fault[:25] for fault in lint.alt_texts(notebook)] == ["a figure without alt text"]
    assert [fault[:37] for fault in lint.drift(notebook)] == ["tuned-test weighted_f1 is 0.500, expe"]


def test_a_drifted_number_stops_a_strict_run(executed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARD_STRICT", "1")
    with pytest.raises(CellExecutionError, match="outside the tolerance"):
        executed(f"{BAD}\n# Strictly.\n")


@pytest.mark.parametrize(
    ("answer", "check", "told"),
    [
        (2, "assert answer == 2", "✓ right"),
        (3, "assert answer == 2, 'count again'", "! not yet: count again"),
        (3, "{}[answer]", "! not yet: KeyError: 3"),
        (..., "answer + 1", "! not yet: put your answer in the place of the dots above"),
        (..., "pass", "✓ right"),
    ],
)
def test_attempt_says_whether_an_answer_is_right(answer: Any, check: str, told: str, capsys: Any) -> None:
    with attempt(answer):
        exec(check)
    assert capsys.readouterr().out == f"{told}\n"


def text_of(notebook: Any, start: str) -> Any:
    return next(out for _, out in lint.outputs(notebook) if lint.told(out).startswith(start))


OUTPUT_BREAKS: list[tuple[Callable[[Any], list[str]], Callable[[Any], Any]]] = [
    (lint.ran, lambda notebook: lint.code(notebook)[1].update(execution_count=7)),
    (lint.traces, lambda notebook: text_of(notebook, "profile").data.update({"text/plain": "<X at 0x7f3a2b1c>"})),
    (lint.traces, lambda notebook: text_of(notebook, "profile").data.update({"text/html": "#T_1a2b3 td {}"})),
    (lint.traces, lambda notebook: text_of(notebook, "profile").data.update({"text/plain": "/home/ann/x"})),
    (lint.traces, lambda notebook: text_of(notebook, "profile").data.update({"text/plain": "2024-05-01T10:00"})),
    (lint.has_card, lambda notebook: text_of(notebook, "profile").data.clear()),
]


@pytest.mark.parametrize(("rule", "edit"), OUTPUT_BREAKS)
def test_rule_for_outputs_finds_its_break(rule: Any, edit: Any, executed: Callable[..., Any]) -> None:
    notebook = executed(GOOD)
    edit(notebook)
    assert rule in lint.EXECUTED and rule(notebook)


def test_a_stale_output_is_found_and_pixels_are_not_compared(executed: Callable[..., Any]) -> None:
    notebook, again = executed(GOOD), executed(GOOD)
    next(out for _, out in lint.outputs(notebook) if "image/png" in out.get("data", {})).data["image/png"] = "other"
    assert lint.stale(notebook, again) == []
    text_of(notebook, "profile").data["text/plain"] = "profile laptop, but yesterday's"
    assert [fault[:30] for fault in lint.stale(notebook, again)] == ["the output of cell 09-007 is s"]
