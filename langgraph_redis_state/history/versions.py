"""history: the checkpoints of a namespace, newest first, without their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from .. import validation
from ..address import Address
from ..effects import Emit, Operation, Stream
from ..operations.engine import Engine
from ..operations.reading import PAGE_CHECKPOINTS, START, Cursor, read_page
from ..operations.surveying import open_tags
from ..operations.thread_headers import CheckpointKey
from ..serialization.decode import StoredCheckpoint
from ..storage import keys
from .resolving import read_tags


@dataclass(frozen=True, slots=True)
class Version:
    """One checkpoint in the history of a thread, without its values."""

    number: int
    """From the thread's own counter, never reused."""
    checkpoint_id: str
    parent_id: str | None
    checkpoint_ns: str
    created_at: datetime
    """When the server stored it, UTC."""
    source: str | None
    step: int | None
    next: tuple[str, ...]
    """The nodes that run next, from its channels `branch:to:<node>`."""
    tags: tuple[str, ...]
    new_bytes: int
    """Bytes that it added on the server: compressed, without chunks that were there already."""
    logical_bytes: int
    """Bytes of its serialized values."""
    root_id: str | None = None
    """Of a subgraph's checkpoint: the root checkpoint whose next step called the subgraph."""
    run_id: str | None = None


def read_versions(
    engine: Engine, serde: SerializerProtocol, target: Address, cursor: Cursor, most: int, every: bool = False
) -> Operation[tuple[list[Version], Cursor | None]]:
    """Versions below a cursor, and where the next page begins. `every`: of all namespaces."""
    yield from engine.check_layout(False)
    page = yield from read_page(engine, target, None if every else target.ns.decode(), cursor, most, whole=False)
    tags = (yield from read_tags(engine, target)) if cursor[0] else open_tags(target, page.tags)
    named: dict[CheckpointKey, list[str]] = {}
    for name, place in tags.items():
        named.setdefault(place, []).append(name)
    return [_version(serde, each, named) for each in page.found], page.following


def _version(serde: SerializerProtocol, stored: StoredCheckpoint, named: Mapping[CheckpointKey, Sequence[str]]) -> Version:
    _, metadata = stored.load(serde)
    header = stored.header
    at = (stored.ns.decode(), stored.checkpoint.decode())
    handed = [name.removeprefix("branch:to:") for name in sorted(stored.channels) if name.startswith("branch:to:")]
    return Version(
        number=header.version,
        checkpoint_id=at[1],
        parent_id=header.parent,
        checkpoint_ns=at[0],
        created_at=datetime.fromtimestamp(header.created_at / 1000, timezone.utc),
        source=metadata.get("source"),
        step=metadata.get("step"),
        next=tuple(handed),
        tags=tuple(sorted(named.get(at, ()))),
        new_bytes=header.new_bytes,
        logical_bytes=header.logical,
        root_id=header.root,
        run_id=keys.id_text(metadata.get("run_id")) if header.run else None,
    )


def history(engine: Engine, serde: SerializerProtocol, thread: Any, ns: str | None, limit: int | None) -> Stream:
    """Emits the versions of a namespace, or (None) of all, newest first."""
    remaining = validation.limit(limit, "history")
    target = engine.address(thread, ns or "")
    cursor: Cursor | None = START
    while cursor is not None and (remaining is None or remaining > 0):
        most = PAGE_CHECKPOINTS if remaining is None else min(PAGE_CHECKPOINTS, remaining)
        versions, cursor = yield from read_versions(engine, serde, target, cursor, most, ns is None)
        if remaining is not None:
            remaining -= len(versions)
        yield Emit(versions)
