"""Checks values that callers pass, before anything is sent. Each error says which values are allowed. No I/O."""

from __future__ import annotations

import math
from datetime import timedelta
from enum import Enum
from numbers import Integral, Real
from typing import Any

Plain = str | bool | int | float


def plain(value: Any) -> Plain | None:
    """A text, number or boolean as Python's own type, without what a subclass adds; None for anything else.

    So members of `class Role(str, Enum)` and of `IntEnum`, and scalars of numpy, are what they are equal to. `str()` and
    f-strings are not: they may give "Role.ADMIN" for what is equal to "admin". 1, 1.0, True and "1" stay different.
    """
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool:
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):  # a scalar of numpy, or of its like
        found = value.item()
        return found if type(found) in (str, bool, int, float) else None
    return None


def one_of(value: Any, allowed: tuple[str, ...], what: str) -> str:
    """`value`, one of these words; a member of any enum stands for its value."""
    word = plain(value.value if isinstance(value, Enum) else value)
    if not isinstance(word, str) or word not in allowed:
        raise ValueError(f"{what} {value!r} is unknown; allowed are {', '.join(map(repr, allowed))}")
    return word


def begin(prefix: Any, what: str) -> str:
    """`prefix`, what names of a listing begin with; "" and None: all."""
    text = plain("" if prefix is None else prefix)
    if not isinstance(text, str):
        raise ValueError(f"{what} must be text that ids begin with, or None for all, not {prefix!r}")
    return text


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
