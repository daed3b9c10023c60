"""What every benchmark ends with: its figures as JSON, with the machine and the versions they were taken on."""

import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guard_utils.files import write_text
from guard_utils.records import machine


def write_benchmark(figures: Mapping[str, Any], output: Path | None) -> None:
    """Prints a benchmark's figures with the machine, and writes them where asked."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8")) if info.exists() else None
    used = machine()
    told = {
        "platform": platform.platform(),
        "cpu": model[1] if model else platform.processor(),
        "cores": used["cores"],
    }
    text = json.dumps(dict(figures) | {"machine": told, "versions": used["versions"]}, indent=2)
    print(text)
    if output is not None:
        write_text(output, text + "\n")
