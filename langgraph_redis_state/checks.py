"""Numbers that callers pass: what is none is refused in one sentence, before anything is sent. No I/O."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any


def whole(count: Any, what: str, least: int, most: int | None = None, also: str = "") -> int:
    """`count`, a whole number from `least` to `most`; `also` says what else the caller may pass."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least or (most is not None and count > most):
        upper = f" and at most {most}" if most is not None else ""
        raise ValueError(f"{what} must be a whole number of at least {least}{upper}{also}, not {count!r}")
    return count


def at_most(count: Any, what: str) -> int | None:
    """`count`, how many there may be at most: at least 1, or None for as many as there are."""
    return None if count is None else whole(count, what, 1, also=", or None")


def limit(count: Any, what: str) -> int | None:
    """`count`, how many a listing yields: none at 0 and below, as with LangGraph's own savers, or None for all."""
    if count is None or (isinstance(count, int) and not isinstance(count, bool)):
        return count
    raise ValueError(f"{what}: limit must be a whole number, or None for all, not {count!r}")


def timeout(seconds: Any, what: str) -> float:
    """`seconds`, above 0 and finite."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ValueError(f"{what} must be a number of seconds above 0, not {seconds!r}")
    return seconds


def ttl_ms(seconds: Any, what: str, unit: str = "seconds") -> int:
    """A TTL in ms, from seconds or a timedelta."""
    number = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0.001 <= number < 10**10:
        raise ValueError(f"{what} must be a positive number of {unit} or a timedelta, not {seconds!r}")
    return round(number * 1000)
