"""get_tuple and list: what is asked for, which round trips that takes, and what of it was verified before.

The scripts get.lua and list.lua reply records, pending writes and what these refer to; serialization/decode.py makes of them
what LangGraph gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from .. import validation
from ..address import Address, configurable
from ..caching.manifests import Manifest
from ..caching.parts import Parts
from ..effects import Emit, Note, Operation, Read, Stream, compute
from ..errors import KeyProviderError
from ..scripts import commands
from ..scripts.replies import Stored
from ..serialization import deltas
from ..serialization.decode import StoredCheckpoint, loaded
from ..storage import keys
from ..storage.codec import Part
from ..storage.statements import Entry, Where
from . import freshness
from .buckets import all_threads
from .engine import Engine

PAGE_CHECKPOINTS = 100

REFERENCE_PAGES = 1000
"""So many pages of references are read at once."""

PAGE_BYTES = 8 * 1024 * 1024

PAGE_WORK = 4096
"""To look for the chunks of a page takes as long as other work on so many bytes."""

HAVE_MAX = 256
"""A request does not tell of more chunks, outside of pages, than these."""

Cursor = tuple[bytes, bytes | None]
"""Id and namespace of what was read last. Namespace None: to leave out the id in all of them."""

START: Cursor = (b"", b"")


@dataclass(slots=True)
class Page:
    """What one `list.lua` gave: where the next page begins (None: nowhere), and tags on the first page without parts."""

    found: list[StoredCheckpoint]
    parts: Parts
    revision: bytes
    following: Cursor | None
    tags: dict[bytes, bytes | None]
    now: int
    writes: int
    """How many pending writes the thread has, also those whose checkpoint is not there."""
    statement: bytes | None
    entries: Mapping[Where, Entry]
    """What the statement of the thread says of these checkpoints, if there is one."""


def get_tuple(engine: Engine, serde: SerializerProtocol, config: RunnableConfig) -> Operation[CheckpointTuple | None]:
    target = engine.target(config)
    yield from engine.check_layout(False)
    found, parts = yield from fetch(engine, target, [(target.ns, target.checkpoint)])
    if not found:
        return None
    tup = yield from compute(lambda: decode_tuple(engine, serde, target, found[0], parts), size_of(found, parts))
    return tup._replace(config=config) if target.checkpoint else tup


def fetch(
    engine: Engine, target: Address, wanted: Sequence[tuple[bytes, bytes]]
) -> Operation[tuple[list[StoredCheckpoint], Parts]]:
    """The checkpoints at these (namespace, id), with all they refer to. Of one, what this process has verified before is
    not sent again: that the server still has it is not looked at here, but by the next put."""
    yield from engine.unlock(target)
    parts = (yield from _parts_at_hand(engine, target, *wanted[0])) if len(wanted) == 1 else Parts(by=target.seal)
    lists, loose, fresh = parts.lists, parts.loose, engine.settings.fresh
    got = yield from commands.get(target.keys, target.about("get"), engine.refresh, wanted, lists, loose, fresh)
    newest = [ns for ns, checkpoint in wanted if not checkpoint]
    freshness.check(engine, target, got.statement, got.found, newest, wanted.__contains__)
    parts.pages, parts.chunks = got.pages, got.chunks
    cached = len(parts.lists) + len(parts.plain)
    yield Note(lambda: {"parts_received": len(got.pages) + len(got.chunks), "parts_cached": cached})
    return stored(target, got.found), parts


def check_absent(engine: Engine, target: Address, checkpoint: bytes) -> Operation[None]:
    """Raises if a checkpoint that was not found was taken away; empty: the newest."""
    if engine.settings.fresh:
        yield from fetch(engine, target, [(target.ns, checkpoint)])


def stored(target: Address, found: Sequence[Stored]) -> list[StoredCheckpoint]:
    return [
        StoredCheckpoint(target.place(b"C", ns, checkpoint), target.seal, record, writes)
        for ns, checkpoint, record, writes, _ in found
    ]


def _parts_at_hand(engine: Engine, target: Address, ns: bytes, checkpoint: bytes) -> Operation[Parts]:
    """What is here of that checkpoint, or of the newest of its namespace that was seen: a guess at what is the same."""
    name = target.keys.name
    seen = (engine.manifests.get(name, ns, checkpoint) if checkpoint else None) or engine.manifests.newest(name, ns)
    if seen is None:
        return Parts(verified=engine.chunks, by=target.seal)
    known: Manifest = seen
    size = len(known.pages) * PAGE_WORK
    parts = yield from compute(lambda: engine.chunks.have(known.pages, known.chunks, target.seal), size)
    del parts.loose[HAVE_MAX:]
    return parts


def read_manifest(engine: Engine, serde: SerializerProtocol, target: Address, checkpoint: bytes) -> Operation[Manifest | None]:
    found, parts = yield from fetch(engine, target, [(target.ns, checkpoint)])
    if not found:
        return None
    rest, metadata = found[0].load(serde)
    return _manifest(found[0], parts, rest, metadata)


def _manifest(stored: StoredCheckpoint, parts: Parts, rest: Mapping[str, Any], metadata: Mapping[str, Any]) -> Manifest:
    versions = rest.get("channel_versions") or {}
    return stored.manifest(parts, versions, deltas.rebuilt(stored, versions, metadata))


def list_page(
    engine: Engine,
    serde: SerializerProtocol,
    target: Address,
    ns: str | None,
    cursor: Cursor,
    most: int,
    filter: Mapping[str, Any] | None,
) -> Operation[tuple[list[CheckpointTuple], Cursor | None]]:
    """(tuples, cursor of the next page or None). One round trip; with a filter, one more for those that match."""
    yield from engine.check_layout(False)
    page = yield from read_page(engine, target, ns, cursor, most, whole=filter is None)
    found, parts = page.found, page.parts
    if filter is not None and found:
        chosen: list[tuple[bytes, bytes]] = yield from compute(
            lambda: [(each.ns, each.checkpoint) for each in found if _matches(serde, each, filter)], size_of(found, parts)
        )
        found, parts = (yield from fetch(engine, target, chosen)) if chosen else ([], parts)
    tuples = yield from compute(
        lambda: [decode_tuple(engine, serde, target, each, parts) for each in found], size_of(found, parts)
    )
    return tuples, page.following


def read_page(
    engine: Engine, target: Address, ns: str | None, cursor: Cursor, most: int, whole: bool, use: bool = True
) -> Operation[Page]:
    """Records below a cursor, newest first; `whole`: with all they refer to. ns None: of all namespaces.

    `use`: whether this counts as using the thread, for its TTL.
    """
    yield from engine.unlock(target)
    space = None if ns is None else keys.encode(ns, "checkpoint_ns")
    refresh = engine.refresh if use else min(engine.refresh, -1)
    fresh = engine.settings.fresh
    got = yield from commands.list_page(
        target.keys, target.about("list"), refresh, space, *cursor, most, PAGE_BYTES, whole, fresh
    )
    newest = {ns for ns, *_ in got.found} if space is None else {space}
    found = stored(target, got.found)
    following = (found[-1].checkpoint, found[-1].ns) if found and got.more else None
    due = freshness.among(target.keys.names, space, cursor, got.found[-1][:2] if following else None)
    entries = freshness.check(engine, target, got.statement, got.found, () if cursor[0] else newest, due)
    parts = Parts(got.pages, got.chunks, by=target.seal)
    return Page(found, parts, got.revision, following, got.tags, got.now, got.writes, got.statement, entries)


def _matches(serde: SerializerProtocol, found: StoredCheckpoint, filter: Mapping[str, Any]) -> bool:
    _, metadata = found.load(serde)
    return all(value == metadata.get(key) for key, value in filter.items())


def decode_tuple(
    engine: Engine, serde: SerializerProtocol, target: Address, found: StoredCheckpoint, parts: Parts
) -> CheckpointTuple:
    rest, metadata = found.load(serde)
    known = _manifest(found, parts, rest, cast(Mapping[str, Any], metadata))
    rest["id"] = found.checkpoint.decode()
    rest["channel_values"] = {
        name: loaded(serde, value, parts, Part(found.place, ", channel ", name), engine.revived)
        for name, value in known.values.items()
    }
    engine.manifests.put(target.keys.name, found.ns, found.checkpoint, known)
    parent = found.header.parent
    return CheckpointTuple(
        config=target.config(found.ns, rest["id"]),
        checkpoint=cast(Checkpoint, rest),
        metadata=metadata,
        parent_config=target.config(found.ns, parent) if parent else None,
        pending_writes=found.pending_writes(parts, None, partial(loaded, serde)),
    )


def list_checkpoints(
    engine: Engine,
    serde: SerializerProtocol,
    config: RunnableConfig | None,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> Stream:
    """Emits checkpoints, newest first by id, of one thread, or (config None) thread by thread, the last active first.

    The arguments are read now: the caller may change them before the first checkpoint is asked for.
    """
    left = validation.limit(limit, "list")
    ceiling = (before or {}).get("configurable", {}).get("checkpoint_id")
    below = keys.encode(ceiling, "before's checkpoint_id") if ceiling else b""
    target = None if config is None else engine.target(config)
    ns = None if config is None else configurable(config).get("checkpoint_ns")
    return _list(engine, serde, target, ns, deepcopy(filter) or None, below, left)


def _list(
    engine: Engine,
    serde: SerializerProtocol,
    target: Address | None,
    ns: str | None,
    filter: Mapping[str, Any] | None,
    below: bytes,
    left: int | None,
) -> Stream:
    only = target.checkpoint if target else b""
    if only and below and only >= below:
        return
    most = PAGE_CHECKPOINTS if not only else 20 if ns is None else 1
    # ids hold no NUL, so nothing lies between an id and that id followed by \x01
    start = only + b"\x01" if only else below
    targets = [target] if target else [engine.address(thread) for thread, _ in (yield from all_threads(engine))]
    locked: list[KeyProviderError] = []
    for each in targets:
        if left == 0:
            break
        cursor: Cursor | None = (start, None)
        try:
            yield from engine.unlock(each)
        except KeyProviderError as error:
            locked.append(error)
            cursor = None
        while cursor is not None and (left is None or left > 0):
            size = most if left is None or filter else min(most, left)
            tuples, cursor = yield from list_page(engine, serde, each, ns, cursor, size, filter)
            if only:
                wanted = [tup for tup in tuples if tup.config["configurable"]["checkpoint_id"] == only.decode()]
                if len(wanted) < len(tuples) or not wanted:
                    cursor = None
                tuples = wanted
            if left is not None:
                tuples = tuples[:left]
                left -= len(tuples)
            yield Emit(tuples)
    raise_locked("list", locked)


def raise_locked(verb: str, locked: Sequence[KeyProviderError]) -> None:
    """After a verb has gone through many threads: raises if there were some whose key provider gave no key."""
    if len(locked) == 1:
        raise locked[0]
    if locked:
        raise KeyProviderError(
            f"{verb}: no keys of {len(locked)} threads, all others are done; the first: {locked[0]}"
        ) from locked[0]


def size_of(found: Sequence[StoredCheckpoint], parts: Parts) -> int:
    return sum(each.size for each in found) + sum(map(len, parts.chunks.values())) + sum(map(len, parts.plain.values()))


def read_reference_pages(engine: Engine, target: Address, names: Sequence[bytes], about: str) -> Operation[Parts]:
    """Those of these pages of references that are there, as received."""
    parts = Parts()
    for at in range(0, len(names), REFERENCE_PAGES):
        batch = names[at : at + REFERENCE_PAGES]
        (contents,) = yield Read([("HMGET", target.keys.hash, *(b"P" + name for name in batch))], about)
        parts.pages.update((name, page) for name, page in zip(batch, contents, strict=True) if page is not None)
    return parts
