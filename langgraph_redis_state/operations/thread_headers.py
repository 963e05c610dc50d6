"""All headers of a thread at one revision, with its pending writes and tags: what choosing and removing go by. No effects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.types import INTERRUPT

from ..storage.keys import ROOT
from ..storage.names import PLAIN_NAMES, Names
from ..storage.records import Header
from ..storage.statements import Entry, Where

LATE_MS = 600_000
"""A subgraph's checkpoint may be stored before its parent, and a pending write before its checkpoint. If that was so many ms
before the newest root checkpoint was stored, what they belong to does not come any more."""

INTERRUPTED = WRITES_IDX_MAP[INTERRUPT]
"""Index under which LangGraph stores the interrupt of a task."""

CheckpointKey = tuple[str, str]
"""(namespace, checkpoint id)"""

StoredWrites = list[tuple[Header, bytes]]
"""The pending writes of a checkpoint: their headers, verified, and each as it is stored."""


@dataclass(slots=True)
class ThreadHeaders:
    """All headers of a thread at one revision, its pending writes and its tags."""

    headers: dict[CheckpointKey, Header] = field(default_factory=dict)
    writes: dict[CheckpointKey, StoredWrites] = field(default_factory=dict)
    tags: dict[str, CheckpointKey] = field(default_factory=dict)
    revision: bytes = b""
    now: int = 0
    """The server's clock, ms."""
    early: bool = False
    """Whether there are pending writes besides these, of checkpoints that are not there."""
    deleted: set[CheckpointKey] = field(default_factory=set)
    """Of the checkpoints that something belongs to and that are not there, those in the tombstone."""
    sizes: dict[bytes, int] = field(default_factory=dict)
    """What the field of each of these takes on the server: bytes of its name and its content."""
    histories: dict[CheckpointKey, Header] = field(default_factory=dict)
    """The delta histories (deltas.py) that are there, read by a removal."""
    statement: bytes | None = None
    """What is sealed of the thread at that revision (storage/statements.py)."""
    entries: dict[Where, Entry] = field(default_factory=dict)
    """What it says of each checkpoint."""
    names: Names = PLAIN_NAMES

    def interrupted(self, place: CheckpointKey) -> bool:
        """Whether one of the pending writes of a checkpoint is an interrupt."""
        return any(header.index == INTERRUPTED for header, _ in self.writes.get(place, ()))

    def left_over(self) -> set[CheckpointKey]:
        return left_over(self.headers, {}, self.deleted, self.tags.values())

    def followed(self) -> ThreadHeaders:
        """This survey without what is left over."""
        left = self.left_over()
        return replace(self, headers={place: header for place, header in self.headers.items() if place not in left})

    def parents(self) -> set[tuple[str, str | None]]:
        """The places that have a child."""
        return {(ns, header.parent) for (ns, _), header in self.headers.items()}


def awaited(headers: Mapping[CheckpointKey, Header], early: Iterable[CheckpointKey]) -> set[CheckpointKey]:
    """The checkpoints that something belongs to and that are not there: root checkpoints of subgraphs, and those of pending
    writes that came before their checkpoint."""
    roots = {(ROOT, header.root) for (ns, _), header in headers.items() if ns != ROOT and header.root is not None}
    return roots.union(early) - headers.keys()


def left_over(
    headers: Mapping[CheckpointKey, Header],
    early: Mapping[CheckpointKey, int],
    deleted: Set[CheckpointKey],
    tagged: Collection[CheckpointKey],
) -> set[CheckpointKey]:
    """Checkpoints of subgraphs, and pending writes, that belong to a checkpoint which is not there and does not come any more.

    It does not come if it was deleted with the thread, or if what belongs to it was stored LATE_MS before the newest root
    checkpoint; all moments are of the server. Of a namespace without ':', which remembers earlier calls, the second says
    nothing: retention may have removed the root checkpoint of what it remembers. `early`: when the pending writes were stored
    whose checkpoint is not there; `deleted`: those of `awaited` that are in the tombstone. What is tagged stays, and what a
    checkpoint that stays descends from.
    """
    newest = max((header.created_at for (ns, _), header in headers.items() if ns == ROOT), default=0)
    left = {place for place, stored in early.items() if place in deleted or stored + LATE_MS < newest}
    for place, header in headers.items():
        root = (ROOT, header.root)
        if place[0] == ROOT or header.root is None or root in headers or place in tagged:
            continue
        if root in deleted or (":" in place[0] and header.created_at + LATE_MS < newest):
            left.add(place)
    for (ns, checkpoint), header in headers.items() if left else ():
        while (ns, checkpoint) not in left and (parent := (ns, header.parent or "")) in left and parent in headers:
            left.remove(parent)
            checkpoint, header = parent[1], headers[parent]
    return left
