"""What this machine can run: `python -m guard_utils.check`."""

from __future__ import annotations

import importlib.metadata
import sys

from guard_utils.profiles import PROFILES, ProfileError, fast_bf16, resolve

PACKAGES = ("torch", "torchtune", "torchao", "transformers", "datasets", "scikit-learn")


def lines() -> list[tuple[bool, str]]:
    """One finding a line: whether it is well, and what it is with the fix where it is not."""
    found = [((3, 11) <= sys.version_info[:2] < (3, 14), f"Python {sys.version.split()[0]} (3.11 to 3.13 is needed)")]
    for package in PACKAGES:
        try:
            found.append((True, f"{package} {importlib.metadata.version(package)}"))
        except importlib.metadata.PackageNotFoundError:
            found.append((False, f"{package} is missing: make check installs it"))
    found.append((True, "CPU multiplies bf16 in hardware" if fast_bf16() else "CPU without fast bf16: fp32, slower"))
    for name in PROFILES:
        try:
            found.append((True, f"profile {name} on {resolve(name).device}"))
        except ProfileError as error:
            found.append((False, str(error).replace("\n", "\n       ")))
    return found


def main() -> int:
    """Prints the findings; 0 if the default profile can run."""
    found = lines()
    for good, text in found:
        print(f"[{'ok' if good else 'fail'}] {text}")
    return 0 if any(good and text.startswith("profile laptop") for good, text in found) else 1


if __name__ == "__main__":
    sys.exit(main())
