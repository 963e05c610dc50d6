"""Ids of checkpoints as LangGraph makes them: UUIDv6, whose order is that of the moments they were made. No I/O."""

from __future__ import annotations

from uuid import UUID

from langgraph.checkpoint.base.id import uuid6

from .errors import CheckpointerError


def id_above(head: str, about: str) -> str:
    """A new UUIDv6 greater than `head`."""
    fresh = str(uuid6())
    if fresh > head:
        return fresh
    try:
        newest = UUID(head)
    except ValueError:
        newest = None
    if newest is None or newest.version != 6:
        raise CheckpointerError(f"{about}: the newest id {head!r} sorts above every UUIDv6, so no newer one can be made")
    ticks = _ticks(newest) + 1  # a clock runs behind: one tick later
    low = newest.int & ((1 << 64) - 1)
    return str(UUID(int=(ticks >> 12 << 80) | (6 << 76) | ((ticks & 0x0FFF) << 64) | low))


def _ticks(made: UUID) -> int:
    """The 60 bits of time in a UUIDv6, each 100 ns, since 1582."""
    return (made.int >> 80 << 12) | (made.int >> 64 & 0x0FFF)
