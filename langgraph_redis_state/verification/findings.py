"""The results of `verify` and `repair`. No logic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "damaged", "lost", "replayed", "unknown", "index", "bucket", "counts", "settings", "expiry", "orphan", "staging", "busy",
    "locked",
]  # fmt: skip
"""Kinds of problems:

- `damaged`: a checkpoint, pending write, tag, chunk or page of references is not what was written, or not signed as it must be
- `lost`: something that an index or a record names is gone
- `replayed`: a checkpoint, or pending writes, that the statement of the thread contradicts: they were put back or taken away
- `unknown`: a field or key that this version does not write, or a key of the wrong type
- `index`, `bucket`: an index of the thread, or of its bucket, differs from the thread's hash
- `counts`, `settings`: the field S or T of a thread is damaged, or the counts are wrong
- `expiry`: the two keys of a thread do not expire at the same moment
- `orphan`: a chunk or page that nothing refers to; a subgraph's checkpoint without its root checkpoint, or pending writes
  without their checkpoint, when that can no longer come. They take space until the next removal in that thread
- `staging`: keys that an upload, a copy or a removal left behind, and that do not expire
- `busy`: the thread changed each time it was read, so its parts could not be compared
- `locked`: the key provider gives no key for the thread, so nothing of it can be read
"""

REPAIRABLE = frozenset({"index", "bucket", "counts", "expiry", "orphan", "staging"})
"""Kinds that `repair()` fixes without loss. To fix any other kind, it must remove something."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem. `thread_id` is None if it belongs to no thread."""

    kind: Kind
    thread_id: str | None
    where: str
    problem: str
    repairable: bool
    """Whether `repair()` fixes it without loss. If not, `drop_unreadable` removes what `where` names, for good."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A change that a repair made for a finding of this kind."""

    kind: Kind
    thread_id: str | None
    where: str
    done: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been read so far: threads, checkpoints and pending writes, chunks, bytes of fields with their names."""

    threads: int = 0
    records: int = 0
    chunks: int = 0
    bytes: int = 0
