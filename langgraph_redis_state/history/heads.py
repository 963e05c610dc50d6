"""heads and writes: where threads stand, and what the tasks of a step have stored.

Both only read. `heads` reads the newest root checkpoint of many threads with plain commands, 200 threads in two packets (more
where tasks of a wide fan-out have stored their writes in segments), and nothing that stands in chunks: so a tool can tell what
ten thousand threads wait for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from langgraph.checkpoint.base import writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..address import Address
from ..caching.parts import Parts
from ..effects import Command, Emit, Operation, Read, Stream, compute
from ..errors import (
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    CheckpointNotFoundError,
    KeyProviderError,
    ThreadNotFoundError,
)
from ..operations import freshness
from ..operations.engine import Engine
from ..operations.reading import fetch, size_of
from ..serialization.decode import StoredCheckpoint, all_digests, loaded
from ..storage import bodies, keys, records, thread_fields
from ..storage.thread_fields import NAME
from .resolving import resolve

HEADS_PAGE = 200

EPOCH = datetime.fromtimestamp(0, timezone.utc)


@dataclass(frozen=True, slots=True)
class StoredWrite:
    """A pending write: what a task has stored beside the checkpoint that it started from."""

    task_id: str
    task_path: str
    """As LangGraph gives it: `~__pregel_pull, <node>`, or `~__pregel_push, <number of the Send>`; "" if it gives none."""
    channel: str
    index: int
    """Its place among the writes of the task; below 0 for ERROR, SCHEDULED, INTERRUPT and RESUME."""
    value: Any
    """None, too, where `heads` leaves out what stands in chunks."""
    stored_at: datetime
    """When the server stored it, UTC."""
    revision: int
    """The later of two writes or checkpoints of a thread has the greater one; equal ones were stored together."""
    logical_bytes: int
    """What the value takes serialized."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest root checkpoint of a thread, without what stands in chunks."""

    thread_id: str
    checkpoint_id: str = ""
    parent_id: str | None = None
    created_at: datetime = EPOCH
    """When the server stored it, UTC."""
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    """LangGraph's checkpoint. `channel_values` has values of up to 96 bytes only; the others are None."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    writes: tuple[StoredWrite, ...] = ()
    problem: CheckpointerError | None = None
    """Why it cannot be read: damaged, lost, written with another key, or the key provider gives none. Then all but `thread_id`
    is empty."""


def heads(engine: Engine, serde: SerializerProtocol, threads: Sequence[Any]) -> Stream:
    """Emits the heads of these threads, in their order, without those that do not exist."""
    keys.check_several(threads, "heads: thread_ids")
    targets = [engine.address(thread) for thread in threads]
    yield from engine.check_layout(False)
    for at in range(0, len(targets), HEADS_PAGE):
        yield Emit((yield from _page(engine, serde, targets[at : at + HEADS_PAGE])))


def _page(engine: Engine, serde: SerializerProtocol, targets: Sequence[Address]) -> Operation[list[Head]]:
    newest = yield Read(
        [("ZREVRANGEBYLEX", each.keys.all[1], b"[C\0\xff", b"[C\0", "LIMIT", 0, 1) for each in targets], "heads: finding"
    )
    found = [
        (target, keys.split_field(members[0])[1] if members else None) for target, members in zip(targets, newest, strict=True)
    ]
    contents = yield Read([("HMGET", target.keys.hash, "S", "Z", *_names_at(at)) for target, at in found], "heads: reading")
    directories = [(each, at, content[4]) for (each, at), content in zip(found, contents, strict=True) if at is not None]
    spread = yield from _read_segments(directories)
    fresh = engine.settings.fresh
    problems = yield from _unlock(engine, [target for target, at in found if at is not None or fresh])
    stored: dict[str, StoredCheckpoint | None] = {}
    for (target, at), (counts, sealed, *fields) in zip(found, contents, strict=True):
        if target.thread in problems:
            continue
        try:
            if at is None and counts is not None and thread_fields.Counts.of(counts, target.keys.name, "heads").checkpoints:
                problem = f"{target.about('heads')}: its index is gone (evicted?); repair rebuilds it"
                problems[target.thread] = CheckpointLostError(problem)
            else:
                stored[target.thread] = yield from _fresh_head(engine, target, at, fields, spread, sealed)
        except CheckpointerError as error:
            problems[target.thread] = error

    def decoded() -> list[Head]:
        result = []
        for target in targets:
            if (problem := problems.get(target.thread)) is not None:
                result.append(Head(target.thread, problem=problem))
            elif (each := stored[target.thread]) is not None:
                try:
                    result.append(_head(serde, target, each))
                except CheckpointerError as error:
                    result.append(Head(target.thread, problem=error))
        return result

    return (yield from compute(decoded, sum(len(each or b"") for content in contents for each in content)))


def _fresh_head(
    engine: Engine,
    target: Address,
    at: bytes | None,
    fields: Sequence[bytes | None],
    spread: Mapping[str, Mapping[bytes, bytes]],
    sealed: bytes | None,
) -> Operation[StoredCheckpoint | None]:
    """A checkpoint of which these are the fields, if there is one, held against the statement of its thread."""
    record, writes, directory, frozen = (*fields, None, None, None, None)[:4]
    try:
        if at is not None and directory is not None:
            writes = _joined(target, at, {b"": directory, **spread[target.thread]}, writes)
        there = [] if at is None else [(b"", at, record, writes, frozen)]
        freshness.check(engine, target, sealed, there, [b""], freshness.nothing_more)
    except CheckpointCorruptError:
        if not engine.settings.fresh:
            raise
        found, _ = yield from fetch(engine, target, [(b"", b"")])  # was it another one between two packets?
        return found[0] if found else None
    return None if at is None else StoredCheckpoint(target.place(b"C", b"", at), target.seal, record, writes)


def _names_at(at: bytes | None) -> tuple[bytes, ...]:
    """Those of a checkpoint: its record, the list of its pending writes, the directory of their segments, its frozen entry."""
    if at is None:
        return ()
    writes = keys.writes_field(b"", at)
    return keys.checkpoint_field(b"", at), writes, writes + b"\0", keys.frozen_field(b"", at)


def _unlock(engine: Engine, targets: Sequence[Address]) -> Operation[dict[str, CheckpointerError]]:
    """Takes the keys of these threads. Those whose key provider gives none, with its error."""
    locked: dict[str, CheckpointerError] = {}
    for target in targets:
        try:
            yield from engine.unlock(target)
        except KeyProviderError as error:
            locked[target.thread] = error
    return locked


def _read_segments(found: Sequence[tuple[Address, bytes, bytes | None]]) -> Operation[dict[str, dict[bytes, bytes]]]:
    """The segments of pending writes that these directories name, and those that segments name, by thread and name."""
    spread = {target.thread: dict[bytes, bytes]() for target, _, directory in found if directory is not None}
    left = [(target, at, directory[4:]) for target, at, directory in found if directory is not None]
    while left:
        cut = [(target, at, [names[n : n + NAME] for n in range(0, len(names), NAME)]) for target, at, names in left]
        commands: list[Command] = [
            ("HMGET", target.keys.hash, *(keys.writes_field(b"", at) + b"\0" + name for name in names))
            for target, at, names in cut
        ]
        left = []
        for (target, at, names), contents in zip(cut, (yield Read(commands, "heads: reading pending writes")), strict=True):
            for name, content in zip(names, contents, strict=True):
                if content is not None and name not in spread[target.thread]:  # damaged, one may name itself
                    spread[target.thread][name] = content
                    if further := thread_fields.as_list(content)[0]:
                        left.append((target, at, further))
    return spread


def _joined(target: Address, at: bytes, segments: Mapping[bytes, bytes], first: bytes | None) -> bytes:
    """Pending writes of one checkpoint as one list. `segments`: the directory, under no name, and the segments."""
    place = target.place(b"W", b"", at)
    fields = {place.field + b"\0" + name: content for name, content in segments.items()}
    return thread_fields.joined_writes(
        thread_fields.gathered_writes(fields if first is None else {place.field: first, **fields}, place)
    )


def _head(serde: SerializerProtocol, target: Address, stored: StoredCheckpoint) -> Head:
    rest, metadata = stored.load(serde)
    rest["id"] = stored.checkpoint.decode()
    rest["channel_values"] = {
        each.name: _inline(serde, each, f"{stored.place}, channel {each.name!r}") for each in stored.entries
    }
    header = stored.header
    pending = tuple(stored_writes(serde, stored, None))
    return Head(target.thread, rest["id"], header.parent, _moment(header), rest, metadata, pending)


def writes(
    engine: Engine, serde: SerializerProtocol, thread: Any, checkpoint: str | int | None, ns: str
) -> Operation[list[StoredWrite]]:
    """The pending writes of one checkpoint, in LangGraph's order."""
    target = engine.address(thread, ns)
    about = target.about("writes")
    yield from engine.check_layout(False)
    wanted = b"" if checkpoint is None else (yield from resolve(engine, target, checkpoint, about)).encode()
    found, parts = yield from fetch(engine, target, [(target.ns, wanted)])
    if not found:
        missing = ThreadNotFoundError if checkpoint is None else CheckpointNotFoundError
        raise missing(f"{about}: there is no such thread, or nothing in that namespace")
    return (yield from compute(lambda: stored_writes(serde, found[0], parts), size_of(found, parts)))


def stored_writes(serde: SerializerProtocol, stored: StoredCheckpoint, parts: Parts | None) -> list[StoredWrite]:
    """The pending writes beside a stored checkpoint; without parts those in chunks have no value."""
    place = stored.place._replace(kind=b"W")
    found: list[tuple[tuple[str, str, int], StoredWrite]] = []
    seen: set[tuple[int, str]] = set()
    for raw in thread_fields.split_writes(stored.writes, place) if stored.writes else ():
        header, plain = records.open_record(raw, place, stored.by)
        where = f"{place}, task {header.task!r}"
        if (header.index, header.task) in seen:
            raise CheckpointCorruptError(f"{where}: write {header.index} stands there twice")
        seen.add((header.index, header.task))
        body = bodies.open_write(header, plain, where)
        value = _inline(serde, body, where)
        if parts is not None and not isinstance(body.content, bytes):
            value = loaded(
                serde, bodies.stored_values([body], all_digests(header, parts, where), where)[body.name], parts, where
            )
        write = StoredWrite(
            header.task, body.path, body.name, header.index, value, _moment(header), header.version, header.logical
        )
        found.append((writes_sort_key(body.path, header.task, header.index), write))
    return [write for _, write in sorted(found, key=lambda each: each[0])]


def _inline(serde: SerializerProtocol, entry: bodies.Entry | bodies.Write, where: str) -> Any:
    """A value that stands in the record; None for one in chunks."""
    content = entry.content
    if not isinstance(content, bytes):
        return None
    return loaded(serde, bodies.Value(entry.type, content, (), len(content)), Parts(), where)


def _moment(header: records.Header) -> datetime:
    return datetime.fromtimestamp(header.created_at / 1000, timezone.utc)
