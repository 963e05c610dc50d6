"""How much of a test runs: `make test` takes a sample, `make soak` all, `make soak-long` more than that."""

from __future__ import annotations

import os
from typing import Any

import pytest

LEVEL = ("", "1", "long").index(os.environ.get("LGRS_SOAK", ""))


def times(fast: int, soak: int, long: int | None = None) -> int:
    """A number of rounds, examples or checkpoints. A test with one is marked `longer`, for `make soak` to find it."""
    return (fast, soak, 5 * soak if long is None else long)[LEVEL]


def rare(*values: Any) -> Any:
    """A parameter, or one of each parameter, that only `make soak` runs."""
    return pytest.param(*values, marks=pytest.mark.soak)
