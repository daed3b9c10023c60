"""What this machine can run, and a first verdict.

python -m guard_utils.__main__
python -m guard_utils.__main__ --verdict "Ask Carmen about 109.4.61.213"
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import sys
import tomllib
from typing import TYPE_CHECKING

import psutil
from packaging.requirements import Requirement

from guard_utils.profiles import PROFILES, ProfileError, fast_bf16, repository, resolve

if TYPE_CHECKING:
    import pandas as pd

DEFAULT, GATED = PROFILES["laptop"], PROFILES["guard-1b"]
SHOWN = ("torch", "torchtune", "torchao", "transformers", "datasets", "scikit-learn")
Finding = tuple[bool, str]
"""Whether it is well, and what it is; where it is not, the fix follows."""


def findings() -> list[Finding]:
    """Python, packages, memory, disk, GPUs, access to the hub, and which profiles run with them."""
    python = sys.version.split()[0]
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return [(False, f"Python {python}: make a virtual environment with Python 3.11 to 3.13")]
    return [(True, f"Python {python}"), *_packages(), _memory(), _disk(), *_devices(), _hub(), *_profiles()]


def _packages() -> list[Finding]:
    text = (repository() / "pyproject.toml").read_text(encoding="utf-8")
    good, faults = {}, []
    for pin in map(Requirement, tomllib.loads(text)["project"]["dependencies"]):
        try:
            version = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            faults.append(f"{pin.name} is missing")
            continue
        if pin.specifier.contains(version, prereleases=True):
            good[pin.name] = version
        else:
            faults.append(f"{pin.name} {version} is not {pin.specifier}")
    told = ", ".join(f"{name} {good[name]}" for name in SHOWN if name in good)
    fix = "run `pip install --editable .` in this environment"
    return [(True, f"{told}; {len(good)} packages as pyproject.toml asks"), *((False, f"{f}: {fix}") for f in faults)]


def _memory() -> Finding:
    found = psutil.virtual_memory()
    told = f"{found.total / 1e9:.0f} GB of memory, {found.available / 1e9:.0f} GB of it free"
    if found.available / 1e9 < 0.9 * DEFAULT.memory_gb:
        return False, f"{told}: training on laptop takes {DEFAULT.memory_gb} GB, close programs; other notebooks need 4"
    return True, told


def _disk() -> Finding:
    free = shutil.disk_usage(repository()).free / 1e9
    if free < DEFAULT.disk_gb:
        return False, f"{free:.0f} GB of disk free: laptop needs {DEFAULT.disk_gb}, set GUARD_ARTIFACTS to another disk"
    return True, f"{free:.0f} GB of disk free"


def _devices() -> list[Finding]:
    import torch

    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    gpus = ", ".join(f"{gpu.name} ({gpu.total_memory / 1e9:.0f} GB)" for gpu in found)
    cpu = "the CPU multiplies bf16 in hardware" if fast_bf16() else "the CPU has no fast bf16: laptop uses fp32, slower"
    return [(True, f"GPU: {gpus}" if gpus else "no GPU: smoke and laptop need none"), (True, cpu)]


def _hub() -> Finding:
    """Asks the hub only where there is a token: without one the answer is known."""
    from huggingface_hub import auth_check, get_token

    fix = f"accept the licence on https://huggingface.co/{GATED.model}, then `hf auth login` (not for smoke and laptop)"
    if get_token() is None:
        return False, f"no token for the Hugging Face hub: {fix}"
    try:
        auth_check(GATED.model)
    except Exception as error:
        return False, f"{GATED.model} can't be read ({type(error).__name__}): {fix}"
    return True, f"the hub lets you read {GATED.model}"


def _profiles() -> list[Finding]:
    found = []
    for name in PROFILES:
        try:
            found.append((True, f"profile {name} on {resolve(name).device}"))
        except ProfileError as error:
            found.append((False, str(error).replace("\n", "\n       ")))
    return found


def verdicts(text: str, profile: str = DEFAULT.name) -> pd.DataFrame:
    """Asks every system of a profile that is here about one text: two baselines and the model.

    Args:
        text: Any.
        profile: Whose model, and whose training rows for the baseline that learns.

    Returns:
        One row a system: its answer, the probability of each category, and the mass outside the grammar.
    """
    import pandas as pd

    from guard_utils.data.examples import Example
    from guard_utils.data.splits import load_splits
    from guard_utils.policy import Verdict
    from guard_utils.prompt import GuardPrompt
    from guard_utils.scoring.baselines import regular_expressions, tfidf
    from guard_utils.scoring.scorer import GuardScorer, load_model, predict
    from guard_utils.training.launch import checkpoint

    run = resolve(profile)
    try:
        folder, state = checkpoint(run), "fine-tuned"
    except FileNotFoundError:
        folder, state = run.model_folder(), "not fine-tuned"
    model, tokenizer = load_model(folder, dtype=run.dtype, device=run.device)
    asked = [Example("yours", text, (), "und", "yours", "", ())]
    answers = {
        "regular expressions": regular_expressions(asked, run.policy),
        "TF-IDF + regression": tfidf(load_splits(run).train, asked, run.policy, run.seed),
        f"{run.profile.model}, {state}": predict(
            GuardScorer(model, GuardPrompt(run.policy, tokenizer)), asked, progress=False
        ),
    }
    table = pd.concat(answers.values()).set_axis(list(answers))
    said = [Verdict.of(codes).text.replace("\n", " ") for codes in table["predicted"]]
    names = {f"p_{code}": name for code, name in run.policy.names.items()}
    shown = table[[*names, "outside"]].astype(float).round(3).rename(columns=names)
    shown.insert(0, "verdict", said)
    return shown


def main() -> int:
    """Prints the findings, or verdicts on a text; 0 if the default profile can run."""
    parser = argparse.ArgumentParser(prog="python -m guard_utils.__main__", description="What this machine can run.")
    parser.add_argument("--verdict", metavar="TEXT", help="ask every system that is here about a text instead")
    parser.add_argument("--profile", default=DEFAULT.name, help="for --verdict")
    options = parser.parse_args()
    if options.verdict is not None:
        table = verdicts(options.verdict, options.profile)
        print(f"{options.verdict}\n\n{table.to_string()}")
        if "not fine-tuned" in table.index[-1]:
            print("\nThe model has never seen a policy: outside is the probability that it writes no verdict at all.")
            print("Notebook 03 fine-tunes it (make tutorial runs them all); ask again then.")
        return 0
    found = findings()
    for good, text in found:
        print(f"[{'ok' if good else 'fail'}] {text}")
    return 0 if any(good and text.startswith(f"profile {DEFAULT.name} on") for good, text in found) else 1


if __name__ == "__main__":
    sys.exit(main())
