"""How much of a test runs: `make test` takes a sample, `make soak` all, `make soak-long` more than that."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest

LEVEL = ("", "1", "long").index(os.environ.get("LGRS_SOAK", ""))


def times(fast: int, soak: int, long: int | None = None) -> int:
    """A number of rounds, examples or checkpoints. A test with one is marked `longer`, for `make soak` to find it."""
    return (fast, soak, 5 * soak if long is None else long)[LEVEL]


def rare(*values: Any) -> Any:
    """A parameter, or one of each parameter, that only `make soak` runs."""
    return pytest.param(*values, marks=pytest.mark.soak)


def every(step: int, values: Iterable[Any], *often: Any) -> list[Any]:
    """Each so many-th value of a parameter, and these; the others are rare."""
    return [
        value if n % step == 0 or value in often else rare(*(value if isinstance(value, tuple) else (value,)))
        for n, value in enumerate(values)
    ]


def in_turn(*parameters: Iterable[Any], rounds: int = 1) -> list[Any]:
    """All combinations of these parameters, of which those are not rare in which each value of each occurs `rounds` times."""
    lists = [list(values) for values in parameters]
    longest = max(map(len, lists))
    often = {
        tuple((n + turn * place) % len(values) for place, values in enumerate(lists))
        for turn in range(rounds)
        for n in range(longest)
    }
    return [
        values if places in often else rare(*values)
        for places in product(*(range(len(values)) for values in lists))
        for values in [tuple(lists[at][place] for at, place in enumerate(places))]
    ]


def mostly(surface: str) -> Any:
    """Gives a test the fixture `either` as this surface, sync or async; the other one is rare."""
    surfaces = [each if each == surface else rare(each) for each in ("sync", "async")]
    return pytest.mark.parametrize("either", surfaces, indirect=True)
