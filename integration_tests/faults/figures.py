"""What the fault tests measured. A test tells a figure; it is printed when the run is over, and kept in the file that
`LGRS_FIGURES` names, one JSON object to a line. That file makes `docs/reliability.md` (report.py), so a run that keeps
figures is the long one: tests that repeat a fault do it `often()` enough to be quoted.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

KEPT_IN = os.environ.get("LGRS_FIGURES")

told: list[str] = []
"""The figures of this process, as they are printed."""


def figure(name: str, **values: Any) -> None:
    """One fault, or one variant of it. The first word of `name` is its family, a heading of the report; values are counts,
    seconds (`..._s`), megabytes (`..._mb`) or short texts."""
    line = f"{name}: " + ", ".join(f"{key} {value}" for key, value in values.items())
    told.append(line)
    print(line)
    if KEPT_IN:
        with Path(KEPT_IN).open("a") as kept:
            kept.write(json.dumps({"name": name, **values}) + "\n")


def often(in_the_long_run: int, else_: int) -> int:
    """How many times to do something."""
    return in_the_long_run if KEPT_IN else else_
