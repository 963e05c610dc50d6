"""diff: compares two checkpoints channel by channel."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from ..effects import Operation, compute
from ..errors import CheckpointNotFoundError
from ..operations.engine import Engine
from ..operations.reading import fetch
from ..serialization.decode import loaded
from .resolving import resolve


@dataclass(frozen=True, slots=True)
class ChannelDiff:
    """The difference of one channel between two checkpoints, for lists also by element."""

    kind: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None
    appended: list[Any] = field(default_factory=list)
    """Elements that only the second list has, between the elements with which both begin and end."""
    dropped: list[Any] = field(default_factory=list)
    """The same for the first list."""


def diff(
    engine: Engine, serde: SerializerProtocol, thread: Any, a: str | int, b: str | int, ns: str
) -> Operation[dict[str, ChannelDiff]]:
    """The channels that differ. Values with equal digests are equal. Others are decoded and compared, since a set may serialize
    differently each time."""
    target = engine.address(thread, ns)
    about = target.about("diff")
    ids = []
    for each in (a, b):
        ids.append((yield from resolve(engine, target, each, about)).encode())
    found, parts = yield from fetch(engine, target, [(target.ns, each) for each in ids])
    if len(found) != 2:
        raise CheckpointNotFoundError(f"{about}: a checkpoint was removed while it was read")

    def compare() -> dict[str, ChannelDiff]:
        old, new = (each.values(parts) for each in found)

        def value(side: int, name: str) -> Any:
            return loaded(serde, (old, new)[side][name], parts, f"{found[side].place}, channel {name!r}")

        result: dict[str, ChannelDiff] = {}
        for name in [*old, *(name for name in new if name not in old)]:
            if name in old and name in new:
                if old[name] != new[name]:
                    before, after = _whole(value(0, name)), _whole(value(1, name))
                    if not _equal(serde, before, after):
                        result[name] = _changed(serde, before, after)
                continue
            only = value(0 if name in old else 1, name)
            if isinstance(only, _DeltaSnapshot):
                continue  # a DeltaChannel stores nothing between two snapshots, so its absence is no difference
            result[name] = ChannelDiff("removed", before=only) if name in old else ChannelDiff("added", after=only)
        return result

    return (yield from compute(compare, sum(len(chunk) for chunk in parts.chunks.values())))


def _whole(value: Any) -> Any:
    return value.value if isinstance(value, _DeltaSnapshot) else value


def _equal(serde: SerializerProtocol, a: Any, b: Any) -> bool:
    """Whether two values are the same: 1, 1.0 and True differ, NaN equals NaN, and mappings and sets have no order.

    Values whose `==` gives no boolean (arrays), or only compares identity, are compared by their serialized bytes.
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return _typed(a) == _typed(b) and all(_equal(serde, value, b[key]) for key, value in a.items())
    if isinstance(a, set | frozenset):
        return _typed(a) == _typed(b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(serde, one, other) for one, other in zip(a, b, strict=True))
    with suppress(ValueError, TypeError, ArithmeticError):  # some refuse to be compared
        if (a == b) is True:  # and arrays give an array
            return True
    if isinstance(a, str | bytes | int):
        return False
    return serde.dumps_typed(a) == serde.dumps_typed(b)


def _typed(items: Iterable[Any]) -> set[tuple[type, Any]]:
    """A set in which 1, 1.0 and True differ."""
    return {(type(each), each) for each in items}


def _changed(serde: SerializerProtocol, old: Any, new: Any) -> ChannelDiff:
    if not (isinstance(old, list) and isinstance(new, list)):
        return ChannelDiff("changed", before=old, after=new)
    start = 0
    while start < min(len(old), len(new)) and _equal(serde, old[start], new[start]):
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and _equal(serde, old[-1 - end], new[-1 - end]):
        end += 1
    return ChannelDiff(
        "changed", before=old, after=new, appended=new[start : len(new) - end], dropped=old[start : len(old) - end]
    )
