"""Which items a filter selects, and which namespaces a condition: as `InMemoryStore` compares. Pure functions, no I/O.

The server sees compressed values only, so all that matches is decided here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langgraph.store.base import MatchCondition

_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}

OPERATORS = ("$eq", "$ne", *_ORDER)


def check_filter(wanted: Any) -> None:
    """Raises ValueError for an operator that is not one, wherever it stands, and for a filter that is no mapping."""
    if not isinstance(wanted, Mapping):
        raise ValueError(f"filter must be a mapping of keys to values or conditions, not {wanted!r}")
    for value in wanted.values():
        _check_value(value)


def _check_value(value: Any) -> None:
    if isinstance(value, Mapping):
        named = [name for name in value if isinstance(name, str) and name.startswith("$")]
        if named and (unknown := [name for name in value if name not in OPERATORS]):
            raise ValueError(f"filter has {unknown[0]!r} for an operator; allowed are {', '.join(OPERATORS)}")
        if not named:
            check_filter(value)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_value(each)


def selects(wanted: Mapping[str, Any] | None, value: Mapping[str, Any]) -> bool:
    """Whether an item with this value passes a filter."""
    return not wanted or all(_equal(value.get(name), expected) for name, expected in wanted.items())


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, Mapping):
        if any(isinstance(name, str) and name.startswith("$") for name in expected):
            return all(_holds(found, name, operand) for name, operand in expected.items())
        return isinstance(found, Mapping) and all(_equal(found.get(name), each) for name, each in expected.items())
    if isinstance(expected, list | tuple):
        same = isinstance(found, list | tuple) and len(found) == len(expected)
        return same and all(_equal(there, each) for there, each in zip(found, expected, strict=True))
    return bool(found == expected)


def _holds(found: Any, name: str, operand: Any) -> bool:
    if name in ("$eq", "$ne"):
        return bool(found == operand) == (name == "$eq")
    numbers = _number(found), _number(operand)
    if None not in numbers:
        return _ORDER[name](*numbers)
    # not numbers both: texts are compared as such, which also orders ISO dates; what cannot be compared is not selected
    try:
        return type(found) is type(operand) and bool(_ORDER[name](found, operand))
    except TypeError:
        return False


def _number(value: Any) -> int | float | None:
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return None


def belongs(namespace: Sequence[str], conditions: Sequence[MatchCondition] | None) -> bool:
    """Whether a namespace meets all conditions. `*` in a path stands for any one label."""
    return all(_meets(namespace, condition) for condition in conditions or ())


def _meets(namespace: Sequence[str], condition: MatchCondition) -> bool:
    path = tuple(condition.path)
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))


def fixed_prefix(conditions: Sequence[MatchCondition] | None) -> tuple[str, ...]:
    """The labels with which every namespace begins that meets the conditions: the longest that they name, up to a wildcard."""
    found: tuple[str, ...] = ()
    for condition in conditions or ():
        if condition.match_type == "prefix":
            path = tuple(condition.path)
            named = path[: path.index("*")] if "*" in path else path
            found = max(found, named, key=len)
    return found
