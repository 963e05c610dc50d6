"""Pending writes of a source, as calls of `put_writes` that give each its task path, its index and its place in the
order. Pure.

`put_writes` gives the n-th write of a call the index n, but for the channels of `WRITES_IDX_MAP`, which have an index of
their own. So a call holds all writes of a task, with writes of those channels where the source has a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langgraph.checkpoint.base import WRITES_IDX_MAP

from .sources import Write

Batch = tuple[str, str, list[tuple[str, Any]]]
"""(task id, task path, writes), the arguments of `put_writes`."""


def batches(writes: list[Write]) -> Iterator[Batch]:
    """One call for each task, in the order of the source."""
    tasks: dict[str, list[Write]] = {}
    for write in writes:
        tasks.setdefault(write.task, []).append(write)
    rising = list(tasks) != sorted(tasks)
    for place, (task, own) in enumerate(tasks.items()):
        path = own[0].path
        if path is None:
            # a saver sorts by path, then task: without a path the order of the source would become that of the task ids
            path = f"{place:08d}" if rising else ""
        yield task, path, placed(own)


def placed(own: list[Write]) -> list[tuple[str, Any]]:
    """The writes of one task, each ordinary one at its index as far as writes of other channels fill the gaps."""
    special = [write for write in own if write.channel in WRITES_IDX_MAP]
    ordinary = [write for write in own if write.channel not in WRITES_IDX_MAP]
    if all(write.index is not None for write in ordinary):
        ordinary.sort(key=lambda write: write.index or 0)
    found: list[tuple[str, Any]] = []
    for write in ordinary:
        while special and write.index is not None and len(found) < write.index:
            filler = special.pop(0)
            found.append((filler.channel, filler.value))
        found.append((write.channel, write.value))
    return found + [(write.channel, write.value) for write in special]


def in_order(writes: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The writes of one call as a saver gives them back: by index."""
    indexed = [(WRITES_IDX_MAP.get(channel, place), channel, value) for place, (channel, value) in enumerate(writes)]
    return [(channel, value) for _, channel, value in sorted(indexed, key=lambda each: each[0])]
