"""What a run has measured, what the series promises, and what the README says: all from run records, never by hand.

    python -m tools.publish report laptop             # every number of artifacts/laptop, and the minutes it took
    python -m tools.publish expected laptop RUN ...   # notebooks/expected/laptop.toml, from artifacts folders of runs
    python -m tools.publish readme laptop             # README.md and GUIDE.md, from notebooks/expected/laptop.toml
    python -m tools.publish adapter laptop            # notebooks/models/laptop, from the training in artifacts/laptop

The first RUN is the published one; others differ in seed and tell how far a number moves.
"""

import argparse
import json
import math
import os
import re
import statistics
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from guard_utils.files import write_text
from guard_utils.profiles import Run, repository, resolve
from guard_utils.records import Interval, Record, hashes, load_records
from tools.notebooks import ADDRESS, sources

HEAD = """\
# What a run of the {profile} profile is expected to measure; `python -m tools.publish` writes this file.
# Values, intervals and n are those of the first run, which the committed notebooks show. A tolerance is two standard
# deviations over the runs where there are three or more, else half the interval, and at least {floor}.
"""
FLOOR = 0.02
SHOWN = {
    "reference": "**the tutorial's own rows** (ai4privacy)",
    "independent": "**independent text** (`presidio-templates`)",
    "test": "own test set",
}
"""Results in the README's table."""


def _timings(folder: Path | str) -> dict[str, float]:
    """Seconds that each notebook took, in order; empty where they were not run in order."""
    file = Path(folder) / "timings.json"
    return dict(sorted(json.loads(file.read_text(encoding="utf-8")).items())) if file.is_file() else {}


def report(folder: Path) -> str:
    """Tells every number of a run's folder, where its figures are, and how long each notebook took.

    Raises:
        FileNotFoundError: There is no record yet.
        ValueError: A file is no record.
    """
    rows = [
        {"result": item.name, "metric": metric, "score": str(score), "n": item.n, "model": item.model}
        for item in load_records(folder)
        for metric, score in item.values.items()
    ]
    table, figures, timings = pd.DataFrame(rows), folder / "figures", _timings(folder)
    lines = [f"\n{len(list(figures.glob('*.png')))} figures in {os.path.relpath(figures)}\n"]
    for name, seconds in (timings | {"total": sum(timings.values())}).items():
        lines.append(f"{name:<32}{seconds / 60:6.1f} min")
    return "\n".join([table.to_string(index=False, justify="left"), *lines])


def expected_text(profile: str, runs: Sequence[Path | str]) -> str:
    """Makes `expected/<profile>.toml`.

    Args:
        profile: Profile of the runs.
        runs: Their artifacts folders, that of the published run first.

    Raises:
        FileNotFoundError: A folder has no records.
    """
    found = [{item.name: item for item in load_records(run)} for run in runs]
    # What was trained decides the numbers, where anything was; its record tells where, also where it was reused.
    record = found[0].get("training") or next(iter(found[0].values()))
    minutes = {name: took / 60 for name, took in _timings(runs[0]).items()}
    for name in minutes:
        if name.startswith("03") and "minutes" in record.values:
            minutes[name] = max(minutes[name], record.values["minutes"].value)
    facts = {
        "seeds": sorted({item.seed for run in found for item in run.values()}),
        "cores": record.cores,
        "minutes": {name: round(took, 1) for name, took in minutes.items()},
        "versions": record.versions,
    }
    lines = [HEAD.format(profile=profile, floor=FLOOR), "[run]", *(f"{key} = {_toml(v)}" for key, v in facts.items())]
    for name, item in found[0].items():
        lines += ["", f"[{name}]", f"model = {_toml(item.model)}"]
        for metric, score in item.values.items():
            values = [run[name].values[metric].value for run in found if name in run and metric in run[name].values]
            if not math.isnan(score.value):
                lines.append(f"{metric} = {_toml(_entry(score, values) | {'n': item.n})}")
    return "\n".join(lines) + "\n"


def _entry(score: Interval, values: Sequence[float]) -> dict[str, float]:
    """Numbers as they were measured: they are rounded once, where they are shown."""
    cells = {key: number for key, number in asdict(score).items() if not math.isnan(number)}
    width = (score.high - score.low) / 2 if "high" in cells else 0.0
    if len(values) > 2:
        cells["mean"], cells["spread"] = statistics.mean(values), 2 * statistics.stdev(values)
        width = cells["spread"]
    return cells | {"tolerance": max(FLOOR, width)}


def _toml(value: Any) -> str:
    """A value as TOML, which writes all but tables as JSON does."""
    if not isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"


def fill_readme(text: str, profile: str) -> str:
    """Renews what a page says of a profile: the blocks between markers, the minutes, the alt text of the figure.

    Args:
        text: README.md or GUIDE.md as it is.
        profile: Whose `expected/<profile>.toml` is read.
    """
    facts = tomllib.loads((repository() / "notebooks" / "expected" / f"{profile}.toml").read_text(encoding="utf-8"))
    alt = (repository() / "notebooks" / "figures" / "scores.alt.txt").read_text(encoding="utf-8").strip()
    text = re.sub(r"!\[.*?\](?=\(notebooks/figures/scores\.png\))", lambda _: f"![{alt}]", text)
    for name, minutes in facts["run"]["minutes"].items():
        text = re.sub(rf"(\(notebooks/{name}\.ipynb\) \|[^|\n]*\| )[\d.]+", rf"\g<1>{minutes}", text)
    speed = _speed(repository() / "tools" / "benchmarks" / "results")
    for name, block in {"badges": _badges(ADDRESS), "results": _block(facts, profile), "speed": speed}.items():
        marks = rf"(?s)(<!-- {name}:start -->\n).*?(?=<!-- {name}:end -->)"
        text = re.sub(marks, rf"\g<1>{block}", text)
    return text


def _badges(address: str) -> str:
    """Launch links; none before the series is published."""
    colab, place = "https://colab.research.google.com", address.removeprefix("https://github.com/")
    first = f"{colab}/github/{place}/blob/HEAD/notebooks/{sources()[0].stem}.ipynb"
    links = {
        f"Open in Colab]({colab}/assets/colab-badge.svg": first,
        "Launch Binder](https://mybinder.org/badge_logo.svg": f"https://mybinder.org/v2/gh/{place}/HEAD?labpath=notebooks",
    }
    return "" if "{" in address else "".join(f"[![{badge})]({link})\n" for badge, link in links.items())


def _speed(folder: Path) -> str:
    training, scoring = (json.loads((folder / f"{name}.json").read_text()) for name in ("training", "scoring"))
    machine, ours, stock = training["machine"], training["shared"], training["stock"]
    first = [
        f"training the same LoRA, {training['dtype']}",
        f"{ours['examples_per_second']:.1f} examples/s, {ours['peak_memory_gib']:.1f} GiB",
        f"stock batches: {stock['examples_per_second']:.2f} examples/s, {stock['peak_memory_gib']:.1f} GiB",
        f"**{training['ratio']:.1f}x**",
        f"losses of {len(ours['losses'])} steps apart by at most {training['loss_difference']:.3f}",
    ]
    second = [
        f"scoring {scoring['rows']} texts, {scoring['dtype']}",
        f"{scoring['ours_prompts_per_second']:.1f} prompts/s",
        f"one prompt, `generate`: {scoring['reference_prompts_per_second']:.1f} prompts/s",
        f"**{scoring['ratio']:.1f}x**",
        f"{scoring['equal_verdicts']} of {scoring['rows']} verdicts equal",
    ]
    table = [["", "here", "there", "ratio", "results"], ["---"] * 5, first, second]
    told = f"Measured by `tools/benchmarks/`, each in one run, on {machine['cores']} cores ({machine['cpu']}):"
    return "\n".join([told, "", *(f"| {' | '.join(cells)} |" for cells in table)]) + "\n"


def _block(facts: Mapping[str, Any], profile: str) -> str:
    def score(name: str, metric: str) -> str:
        return str(Interval(*(facts[name][metric][key] for key in ("value", "low", "high"))))

    run, trained = facts["run"], facts["training"]["minutes"]
    packages = ", ".join(f"{name} {run['versions'][name].split('+')[0]}" for name in ("torch", "torchtune"))
    lines = [
        f"Profile `{profile}` ({facts['training']['model']}, seed {run['seeds'][0]}; {packages}), trained on "
        f"{trained['n']:,} examples in {trained['value']:.0f} minutes on {run['cores']} CPU cores:",
        "",
        "| scored on | texts | weighted F1 | exact match | safe texts flagged | best rival, weighted F1 | lead |",
        "|---|---|---|---|---|---|---|",
    ]
    for part, title in SHOWN.items():
        ours, rival = f"tuned-{part}", f"best-rival-{part}"
        cells = [score(ours, metric) for metric in ("weighted_f1", "subset_accuracy", "binary_fpr")]
        cells += [f"{facts[rival]['weighted_f1']['value']:.3f} ({facts[rival]['model']})", score(rival, "lead")]
        lines.append(f"| {title} | {facts[ours]['weighted_f1']['n']:,} | {' | '.join(cells)} |")
    over_seeds = {part: facts[f"tuned-{part}"]["weighted_f1"] for part in SHOWN}
    told = [f"{f1['mean']:.3f} ± {f1['spread']:.3f} ({part})" for part, f1 in over_seeds.items() if "spread" in f1]
    if told:
        start = f"Mean of weighted F1 over the seeds {str(run['seeds'])[1:-1]} ± two standard deviations"
        lines += ["", f"{start}: {', '.join(told)}."]
    return "\n".join(lines) + "\n"


def publish_adapter(run: Run, folder: Path, *, rank: int = 38, updates: int = 360) -> None:
    """Writes the adapter of a run's guard, unless it is there, and its model card; see `make_adapter` for errors."""
    from guard_utils.training import checkpoint_fingerprint
    from guard_utils.training.adapters import adapter_facts, guard_adapter
    from tools.adapter import make_adapter

    try:
        made = adapter_facts(folder)
    except ValueError:  # none yet, or one of another version, which is made anew
        made = {}
    training = made.get("training") if guard_adapter(run) else checkpoint_fingerprint(run)
    if (made.get("training"), made.get("rank")) != (training, rank) or made["updates"] < updates:
        make_adapter(run, folder, rank=rank, updates=updates)
    records = load_records(run.folder) if any(run.folder.glob("records/*.json")) else []
    measured = [item for item in records if item.extra.get("checkpoint") == training]
    write_text(folder / "README.md", model_card(run, adapter_facts(folder), measured))


def model_card(run: Run, facts: Mapping[str, Any], measured: Sequence[Record]) -> str:
    """Tells what an adapter is, from its `guard.json` and the records of its training's model."""
    from guard_utils.data.splits import load_splits

    train = load_splits(run).train
    languages = ", ".join(f"{name} ({count:,})" for name, count in Counter(row.language for row in train).most_common())
    categories = zip(run.policy.codes, run.policy.categories, strict=True)
    scores = [
        f"| {item.name} | {item.n:,} | {item.values['weighted_f1']} | {item.values.get('subset_accuracy', '')} | "
        f"{item.values.get('minus_full', '')} |"
        for item in measured
        if "weighted_f1" in item.values
    ]
    head = ["| scored on | texts | weighted F1 | exact match | weighted F1 minus full |", "|---|---|---|---|---|"]
    card = (repository() / "tools" / "card.md").read_text(encoding="utf-8")
    return card.format(
        profile=run.profile.name,
        facts=facts,
        rules="\n".join(f"- **{code} {category.name}**: {category.description}" for code, category in categories),
        examples=f"{len(train):,}",
        languages=languages,
        data=hashes(run)["data"],
        scores="\n".join(head + scores) if scores else "Not measured yet: run the notebooks, then this tool again.",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the top of this file. Exit status 1 where there is nothing to report."""
    parser = argparse.ArgumentParser(prog="python -m tools.publish", description="Numbers and promises of a run.")
    parser.add_argument("command", choices=["report", "expected", "readme", "adapter"])
    parser.add_argument("profile", help="such as laptop")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="artifacts folder; the published run first")
    options = parser.parse_args(arguments)
    profile, root = options.profile, repository()
    artifacts = Path(os.environ.get("GUARD_ARTIFACTS") or root / "artifacts") / profile
    try:
        if options.command == "report":
            print(report(artifacts))
        elif options.command == "expected":
            text = expected_text(profile, options.runs or [artifacts])
            write_text(root / "notebooks" / "expected" / f"{profile}.toml", text)
        elif options.command == "adapter":
            run = resolve(profile)
            if not run.profile.adapter:
                raise ValueError(f"profile {profile!r} has no adapter; give it the name of a folder in profiles.py")
            publish_adapter(run, root / "notebooks" / "models" / run.profile.adapter)
        else:
            for page in (root / "README.md", root / "GUIDE.md"):
                write_text(page, fill_readme(page.read_text(encoding="utf-8"), profile))
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
