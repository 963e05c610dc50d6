"""Reading a saver: which threads it has, which checkpoints they have, and each checkpoint with its writes in exact
places.

`Source` reads any `BaseCheckpointSaver` by its public methods. A `CheckpointTuple` does not tell the task path and the index
of a write, and `list(None)` gives nothing with some savers, so savers that are known have a subclass that reads their own
columns or keys. Values always come from the saver itself, through its serializer. Nothing is written to a source.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from .flow import Flow, Step


class Place(NamedTuple):
    """Where a checkpoint stands in its thread. They sort by id, which is the order in which LangGraph made them."""

    checkpoint: str
    ns: str


@dataclass(frozen=True, slots=True)
class Row:
    """What a source knows of a pending write beside its value. Path None: the source does not keep task paths."""

    task: str
    path: str | None
    index: int
    channel: str


@dataclass(frozen=True, slots=True)
class Write:
    """A pending write. Path or index None: not known."""

    task: str
    path: str | None
    index: int | None
    channel: str
    value: Any


@dataclass(slots=True)
class Found:
    """A checkpoint as the source has it."""

    place: Place
    parent: str | None
    checkpoint: dict[str, Any]
    metadata: dict[str, Any]
    writes: list[Write]


def config_of(thread: str, ns: str, checkpoint: str | None = None) -> Any:
    found = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": {**found, "checkpoint_id": checkpoint} if checkpoint else found}


class Source:
    """Any saver, by LangGraph's contract alone: every checkpoint is read twice, and task paths are not known."""

    notes: tuple[str, ...] = ("the source does not tell task paths; the order of writes is kept as it tells it",)
    """What this kind of source does not keep, whatever is stored in it."""

    def __init__(self, saver: BaseCheckpointSaver[Any], awaited: bool) -> None:
        self.saver: Any = saver
        self.awaited = awaited

    def verb(self, name: str, *arguments: Any, **options: Any) -> Step:
        """A step that calls a method of the saver, sync or async."""
        return partial(getattr(self.saver, f"a{name}" if self.awaited else name), *arguments, **options)

    def threads(self) -> Flow[list[str]]:
        """The ids of all threads."""
        tuples: list[CheckpointTuple] = yield self.verb("list", None)
        found = list(dict.fromkeys(str(each.config["configurable"]["thread_id"]) for each in tuples))
        if not found:
            raise ValueError(f"{type(self.saver).__name__} lists no threads; it is empty, or name them: threads=[...]")
        return found

    def places(self, thread: str) -> Flow[list[Place]]:
        """Where the thread has checkpoints, oldest first."""
        tuples: list[CheckpointTuple] = yield self.verb("list", {"configurable": {"thread_id": thread}})
        named = (each.config["configurable"] for each in tuples)
        return sorted({Place(each["checkpoint_id"], each.get("checkpoint_ns", "")) for each in named})

    def read(self, thread: str, place: Place) -> Flow[Found | None]:
        """The checkpoint there; None if it is gone since `places`."""
        for _ in range(3):  # its writes may grow between the two reads
            tup: CheckpointTuple | None = yield self.verb("get_tuple", config_of(thread, place.ns, place.checkpoint))
            if tup is None:
                return None
            rows = yield from self.rows(thread, place)
            writes = located(tup.pending_writes or [], rows)
            if writes is not None:
                break
        else:
            raise RuntimeError(f"thread {thread!r}: the writes of checkpoint {place.checkpoint!r} kept changing; try again")
        parent = (tup.parent_config or {}).get("configurable", {}).get("checkpoint_id") or None
        return Found(place, parent, dict(tup.checkpoint), dict(tup.metadata), writes)

    def rows(self, thread: str, place: Place) -> Flow[list[Row] | None]:
        """Where each pending write of the checkpoint stands; None: the source does not tell."""
        yield from ()
        return None

    def tags(self, thread: str) -> Flow[dict[str, str]]:
        yield from ()
        return {}

    def history(self, config: Any, channels: list[str]) -> Step:
        """A step that gives what DeltaChannels are rebuilt from, by LangGraph's own walk over ancestors, which is the same for
        all savers: their faster walks differ where a channel was emptied."""
        contract: Any = BaseCheckpointSaver
        walk = contract.aget_delta_channel_history if self.awaited else contract.get_delta_channel_history
        return partial(walk, self.saver, config=config, channels=channels)


def located(writes: Iterable[tuple[str, str, Any]], rows: list[Row] | None) -> list[Write] | None:
    """The writes of a tuple with their places; None if they are not those of the rows."""
    if rows is None:
        return [Write(task, None, None, channel, value) for task, channel, value in writes]
    waiting: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.index, reverse=True):
        waiting[row.task, row.channel].append(row)
    found = []
    for task, channel, value in writes:
        if not waiting[task, channel]:
            return None
        row = waiting[task, channel].pop()
        found.append(Write(task, row.path, row.index, channel, value))
    return None if any(waiting.values()) else found


class MemorySource(Source):
    """InMemorySaver, and its subclasses that keep their dictionaries in a file."""

    notes = ()

    def threads(self) -> Flow[list[str]]:
        yield from ()
        return [str(thread) for thread, spaces in list(self.saver.storage.items()) if any(spaces.values())]

    def places(self, thread: str) -> Flow[list[Place]]:
        yield from ()
        spaces = self.saver.storage.get(thread, {})
        return sorted(Place(checkpoint, ns) for ns, stored in list(spaces.items()) for checkpoint in list(stored))

    def rows(self, thread: str, place: Place) -> Flow[list[Row] | None]:
        yield from ()
        stored = self.saver.writes.get((thread, place.ns, place.checkpoint), {})
        return [Row(task, path, index, channel) for (task, index), (_, channel, _, path) in list(stored.items())]


class OwnSource(Source):
    """A saver of this package: another prefix, server, key or serializer."""

    def threads(self) -> Flow[list[str]]:
        found = yield self.verb("list_threads", newest_first=False)
        return [each.thread_id for each in found]

    def history(self, config: Any, channels: list[str]) -> Step:
        """By this package's walk, which also finds what a removal has kept for checkpoints that stay."""
        return self.verb("get_delta_channel_history", config=config, channels=channels)

    def tags(self, thread: str) -> Flow[dict[str, str]]:
        found: dict[str, str] = yield self.verb("tags", thread)
        return found
