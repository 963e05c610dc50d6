"""Numbers that callers pass: what is none is refused in one sentence, before anything is sent. No I/O."""

from __future__ import annotations

import math
from datetime import timedelta
from numbers import Integral, Real
from typing import Any


def _integer(value: Any) -> int | None:
    """As an int, if it is a whole number of any kind, but no boolean."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def _number(value: Any) -> float:
    """As a float, if it is a number of any kind, but no boolean; else NaN, which is in no range."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan


def whole(count: Any, what: str, least: int, most: int | None = None, also: str = "") -> int:
    """`count`, a whole number from `least` to `most`; `also` says what else the caller may pass."""
    number = _integer(count)
    if number is None or number < least or (most is not None and number > most):
        upper = f" and at most {most}" if most is not None else ""
        raise ValueError(f"{what} must be a whole number of at least {least}{upper}{also}, not {count!r}")
    return number


def at_most(count: Any, what: str) -> int | None:
    """`count`, how many there may be at most: at least 1, or None for as many as there are."""
    return None if count is None else whole(count, what, 1, also=", or None")


def limit(count: Any, what: str) -> int | None:
    """`count`, how many a listing yields: none at 0 and below, as with LangGraph's own savers, or None for all."""
    number = _integer(count)
    if number is None and count is not None:
        raise ValueError(f"{what}: limit must be a whole number, or None for all, not {count!r}")
    return number


def timeout(seconds: Any, what: str) -> float:
    """`seconds`, above 0 and finite."""
    number = _number(seconds)
    if not 0 < number < math.inf:
        raise ValueError(f"{what} must be a number of seconds above 0, not {seconds!r}")
    return number


def ttl_ms(seconds: Any, what: str, unit: str = "seconds") -> int:
    """A TTL in ms, from seconds or a timedelta."""
    number = seconds.total_seconds() if isinstance(seconds, timedelta) else _number(seconds)
    if not 0.001 <= number < 10**10:
        raise ValueError(f"{what} must be a positive number of {unit} or a timedelta, not {seconds!r}")
    return round(number * 1000)
