"""What each method of the saver does, once, as generators of effects (see effects.py). No I/O, no asyncio, no redis.

The data a method leaves on the server, its round trips and what a second process sees stand in the header of its Lua file;
here is what surrounds the script: reading the config, serializing, cutting, verifying, decoding.

Serialization happens before the first effect, so that a state may change as soon as `aput` waits for the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple, PendingWrite, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

from .. import validation
from ..address import Address, configurable
from ..caching.manifests import Manifest
from ..caching.parts import Parts
from ..effects import Argument, Call, Emit, Operation, Read, Script, Stream, compute
from ..errors import CheckpointCorruptError, CheckpointLostError
from ..serialization import decode
from ..serialization.decode import OpenedRecord, loaded
from ..storage import bodies, keys, records, thread_fields
from ..storage.bodies import Value
from ..storage.records import Header, RecordKey
from .buckets import all_threads
from .engine import Engine, raise_for_reply

GET = Script("get")

LIST = Script("list")

PAGE_CHECKPOINTS = 100

REFERENCE_PAGES = 1000
"""So many pages of references are read at once."""
PAGE_BYTES = 8 * 1024 * 1024

HAVE_MAX = 256
"""A request does not tell of more chunks, outside of pages, than these."""


@dataclass(slots=True)
class StoredCheckpoint:
    """One checkpoint as the server sent it."""

    ns: bytes
    checkpoint: bytes
    record: bytes | None
    writes: bytes | None


Take = Callable[[Value, Parts, str], Any]
"""What is made of a stored value, given what it refers to and where it stands."""

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


def get_tuple(engine: Engine, serde: SerializerProtocol, config: RunnableConfig) -> Operation[CheckpointTuple | None]:
    target = Address.of(engine.settings.prefix, config)
    yield from engine.check_layout(False)
    found, parts = yield from fetch(engine, target, [(target.ns, target.checkpoint)])
    if not found:
        return None
    tup, _ = yield from compute(lambda: decode_tuple(engine, serde, target, found[0], parts), size_of(found, parts))
    return tup._replace(config=config) if target.checkpoint else tup


def fetch(
    engine: Engine, target: Address, wanted: Sequence[tuple[bytes, bytes]]
) -> Operation[tuple[list[StoredCheckpoint], Parts]]:
    """The checkpoints at these (namespace, id), with all they refer to. Of one, what this process has verified before is
    not sent again: that the server still has it is not looked at here, but by the next put."""
    about = target.about("get")
    parts = _parts_at_hand(engine, target, *wanted[0]) if len(wanted) == 1 else Parts()
    told: list[Argument] = [b"".join(parts.lists), b"".join(parts.loose)]
    args = [target.keys.name, engine.refresh, *told, *(part for place in wanted for part in place)]
    reply = yield Call(GET, target.keys.all, args, about)
    raise_for_reply(engine, reply, about)
    received = received_parts(reply[2], reply[3])
    parts.pages, parts.chunks = received.pages, received.chunks
    return [StoredCheckpoint(*entry) for entry in reply[1]], parts


def _parts_at_hand(engine: Engine, target: Address, ns: bytes, checkpoint: bytes) -> Parts:
    """What is here of that checkpoint, or of the newest of its namespace that was seen: a guess at what is the same."""
    name = target.keys.name
    known = (engine.manifests.get(name, ns, checkpoint) if checkpoint else None) or engine.manifests.newest(name, ns)
    parts = engine.chunks.have(known.pages, known.chunks) if known else Parts(verified=engine.chunks)
    del parts.loose[HAVE_MAX:]
    return parts


def read_manifest(engine: Engine, serde: SerializerProtocol, target: Address, checkpoint: bytes) -> Operation[Manifest | None]:
    found, parts = yield from fetch(engine, target, [(target.ns, checkpoint)])
    if not found:
        return None
    opened = open_record(engine, target, found[0])
    rest, _ = opened.load(serde)
    return opened.known(parts, rest.get("channel_versions") or {})


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
    found, parts, following = page.found, page.parts, page.following
    if filter is not None and found:
        chosen: list[tuple[bytes, bytes]] = yield from compute(
            lambda: [(f.ns, f.checkpoint) for f in found if _matches(engine, serde, target, f, filter)],
            size_of(found, parts),
        )
        found = []
        if chosen:
            found, parts = yield from fetch(engine, target, chosen)
    tuples = yield from compute(
        lambda: [decode_tuple(engine, serde, target, each, parts)[0] for each in found], size_of(found, parts)
    )
    return tuples, following


def read_page(
    engine: Engine, target: Address, ns: str | None, cursor: Cursor, most: int, whole: bool, use: bool = True
) -> Operation[Page]:
    """Records below a cursor, newest first; `whole`: with all they refer to. ns None: of all namespaces.

    `use`: whether this counts as using the thread, for its TTL.
    """
    about = target.about("list")
    at, at_ns = cursor
    reply = yield Call(
        LIST,
        target.keys.all,
        [
            target.keys.name,
            engine.refresh if use else -1,
            "all" if ns is None else "one",
            b"" if ns is None else keys.encode(ns, "checkpoint_ns"),
            at,
            b"-" if at_ns is None else at_ns,
            most,
            PAGE_BYTES,
            int(whole),
        ],
        about,
    )
    raise_for_reply(engine, reply, about)
    found = [StoredCheckpoint(*entry) for entry in reply[1]]
    following = (found[-1].checkpoint, found[-1].ns) if found and int(reply[5]) else None
    tags = dict(zip(reply[6][::2], reply[6][1::2], strict=True))
    return Page(found, received_parts(reply[2], reply[3]), reply[4], following, tags, int(reply[7]), int(reply[8]))


def _matches(
    engine: Engine, serde: SerializerProtocol, target: Address, found: StoredCheckpoint, filter: Mapping[str, Any]
) -> bool:
    _, metadata = open_record(engine, target, found).load(serde)
    return all(value == metadata.get(key) for key, value in filter.items())


def open_record(engine: Engine, target: Address, found: StoredCheckpoint) -> OpenedRecord:
    raw, place = stored_record(target, found)
    return OpenedRecord(*records.open_record(raw, place, engine.settings.integrity), place)


def read_header(engine: Engine, target: Address, found: StoredCheckpoint) -> Header:
    raw, place = stored_record(target, found)
    return records.verified(raw, place, engine.settings.integrity)[0]


def decode_tuple(
    engine: Engine, serde: SerializerProtocol, target: Address, found: StoredCheckpoint, parts: Parts
) -> tuple[CheckpointTuple, Manifest]:
    opened = open_record(engine, target, found)
    rest, metadata = opened.load(serde)
    known = opened.known(parts, rest.get("channel_versions") or {})
    rest["id"] = found.checkpoint.decode()
    rest["channel_values"] = {
        name: loaded(serde, value, parts, f"{opened.place}, channel {name!r}") for name, value in known.values.items()
    }
    engine.manifests.put(target.keys.name, found.ns, found.checkpoint, known)
    tup = CheckpointTuple(
        config=target.config(found.ns, found.checkpoint.decode()),
        checkpoint=cast(Checkpoint, rest),
        metadata=metadata,
        parent_config=target.config(found.ns, opened.header.parent) if opened.header.parent else None,
        pending_writes=pending_writes(engine, target, found, parts, None, partial(loaded, serde)),
    )
    return tup, known


def pending_writes(
    engine: Engine,
    target: Address,
    found: StoredCheckpoint,
    parts: Parts,
    channels: Mapping[str, None] | None,
    take: Take,
) -> list[PendingWrite]:
    """The pending writes of a checkpoint in LangGraph's order, all or those of some channels."""
    if found.writes is None:
        return []
    place = target.place(b"W", found.ns, found.checkpoint)
    writes: list[tuple[tuple[str, str, int], PendingWrite]] = []
    seen: set[tuple[int, str]] = set()
    for raw in thread_fields.split_writes(found.writes, place):
        header, plain = records.open_record(raw, place, engine.settings.integrity)
        if (header.index, header.task) in seen:
            raise CheckpointCorruptError(f"{place}: write {header.index} of task {header.task!r} stands there twice")
        seen.add((header.index, header.task))
        body = bodies.open_write(header, plain, f"{place}, task {header.task!r}")
        channel = body.name
        if channels is not None and channel not in channels:
            continue
        where = f"{place}, task {header.task!r}, channel {channel!r}"
        value = bodies.stored_values([body], decode.all_digests(header, parts, where), where)[channel]
        write = header.task, channel, take(value, parts, where)
        writes.append((writes_sort_key(body.path, header.task, header.index), write))
    writes.sort(key=lambda each: each[0])
    return [write for _, write in writes]


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
    target = None if config is None else Address.of(engine.settings.prefix, config)
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
    for each in targets:
        cursor: Cursor | None = (start, None)
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


def stored_record(target: Address, found: StoredCheckpoint) -> tuple[bytes, RecordKey]:
    place = target.place(b"C", found.ns, found.checkpoint)
    if found.record is None:
        raise CheckpointLostError(f"{place}: the index names it, but it is gone from the server (evicted?)")
    return found.record, place


def _as_stored(value: Value, parts: Parts, where: str) -> Value:
    return value


def received_parts(pages: Sequence[bytes], chunks: Sequence[bytes]) -> Parts:
    return Parts(
        {name: content for name, content in zip(pages[::2], pages[1::2], strict=True) if content is not None},
        {name: content for name, content in zip(chunks[::2], chunks[1::2], strict=True) if content is not None},
    )


def size_of(found: Sequence[StoredCheckpoint], parts: Parts) -> int:
    received = sum(len(f.record or b"") + len(f.writes or b"") for f in found) + sum(map(len, parts.chunks.values()))
    return received + sum(map(len, parts.plain.values()))


def read_reference_pages(engine: Engine, target: Address, names: Sequence[bytes], about: str) -> Operation[Parts]:
    """Those of these pages of references that are there, as received."""
    parts = Parts()
    for at in range(0, len(names), REFERENCE_PAGES):
        batch = names[at : at + REFERENCE_PAGES]
        (contents,) = yield Read([("HMGET", target.keys.hash, *(b"P" + name for name in batch))], about)
        parts.pages.update((name, page) for name, page in zip(batch, contents, strict=True) if page is not None)
    return parts
