"""One typed function for each script: it encodes the arguments in the order of the Lua header, and gives the reply as a named
tuple or a plain value, or raises.

All are operations (effects.py): `yield from commands.get(...)`. `thread` names the keys, `about` says in errors what was being
done to what. Ids, fields and contents are bytes, TTLs are in ms. Namespaces, fields, members and metadata to index are plain in
arguments and in what comes back; `thread.names` says how they are stored. Runs are as in headers; what was read from
the indexes of a bucket is as it is stored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ..effects import Argument, Call, Operation, Script, counted, pairs
from ..errors import ThreadExistsError, ThreadNotFoundError
from ..storage import keys
from ..storage.keys import ThreadKeys
from ..storage.thread_fields import Counts
from . import following
from .following import Following, Tip
from .replies import Ancestors, Stored, ThreadState, raise_for_reply

FIRST_LOOK = Script("first_look", bare=True)

PUT = Script("put", writes=True)

PUT_WRITES = Script("put_writes", writes=True)

FORK = Script("fork", writes=True)

STAGE = Script("stage")

COMMIT_COPY = Script("commit_copy", writes=True)

GET = Script("get")

LIST = Script("list")

WALK_ANCESTORS = Script("walk_ancestors")

TAG = Script("tag", writes=True)

SET_TTL = Script("set_ttl", writes=True)

DELETE_THREAD = Script("delete_thread", writes=True)

MEASURE_PARTS = Script("measure_parts")

STAGE_REMAINING = Script("stage_remaining")

REMOVE = Script("remove", writes=True)

FORGET_EXPIRED = Script("forget_expired")

SWEEP_BUCKET = Script("sweep_bucket")

THREAD_STATE = Script("thread_state")

REPAIR = Script("repair", writes=True)

Fields = Collection[tuple[bytes, bytes]]
"""Names with contents."""

Restatement = Sequence[bytes]
"""What becomes of the statement of a thread, as lib/statement.lua takes it; empty: the saver makes none."""


class Upload(NamedTuple):
    """New pages and packed chunks by digest, or the key of the staging hash that holds the chunks."""

    pages: Mapping[bytes, bytes]
    chunks: Mapping[bytes, bytes]
    staging: tuple[bytes, ...] = ()

    @property
    def arguments(self) -> list[Argument]:
        return counted(self.pages.items()) + counted(self.chunks.items())


class Put(NamedTuple):
    newest: bytes
    """Greatest id of the namespace."""
    version: int
    purged: bool
    """An index whose hash was evicted was removed."""
    stored: int
    """Bytes that the thread takes."""
    tip: Tip | None
    """The thread after it, if a write may follow."""
    roots: int = 0  # of the thread; only if asked for, as what comes after it
    revision: bytes = b""
    created_at: int = 0
    new_bytes: int = 0
    left: int = 0
    """Time until the thread expires, as PTTL says it."""


class Checkpoints(NamedTuple):
    found: list[Stored]
    pages: dict[bytes, bytes]
    chunks: dict[bytes, bytes]
    statement: bytes | None


class Listed(NamedTuple):
    found: list[Stored]
    pages: dict[bytes, bytes]
    chunks: dict[bytes, bytes]
    revision: bytes
    more: bool
    tags: dict[bytes, bytes | None]
    now: int
    writes: int
    """How many pending writes the thread has, also those whose checkpoint is not there."""
    statement: bytes | None


class RemovalPlan(NamedTuple):
    """What `remove` does. `rebuild`: `fields` and `members` of the index are what stays; else they are what goes."""

    rebuild: bool
    deltas: Counts
    """By how much each count becomes less."""
    fields: Collection[bytes]
    members: Collection[bytes]
    runs: Collection[bytes] = ()
    """Runs that have no checkpoint in the thread any more."""
    written: Mapping[bytes, bytes] = {}
    """Fields that are written, with their contents."""
    measured: Sequence[bytes] = ()
    """Fields that go and whose size is not part of `deltas`."""
    metadata: Fields = ()
    large: bool = False
    """What stays is copied to staging first, since one script would hold the server for long."""
    staging: tuple[bytes, ...] = ()
    """Keys that hold what stays; if the plan is not large, they are dropped."""


class Repairs(NamedTuple):
    """What `repair` changes: keys of the wrong type by number, fields of the hash, members of three indexes."""

    keys: Collection[int] = ()
    drop_fields: Collection[bytes] = ()
    write_fields: Fields = ()
    drop_index: Collection[bytes] = ()
    add_index: Collection[bytes] = ()
    drop_runs: Collection[bytes] = ()
    add_runs: Collection[bytes] = ()
    drop_metadata: Collection[bytes] = ()
    add_metadata: Collection[bytes] = ()


def first_look(
    keys: tuple[bytes, bytes], layout: str, needed: Collection[str], others: Collection[str], about: str
) -> Operation[tuple[bytes | None, dict[str, str]]]:
    """The layout number, and commands that are not allowed, each with what the server says. `keys`: the layout's, and one that
    never exists. `layout`: to be written if there is none."""
    _, stored, *denied = yield Call(FIRST_LOOK, keys, [layout, len(needed), *needed, *others], about)
    return stored, {name.decode(): why.decode() for name, why in pairs(denied)}


def put(
    thread: ThreadKeys,
    about: str,
    *,
    ns: bytes,
    checkpoint: bytes,
    record: bytes,
    ttl: Argument,
    run: bytes,
    expected: bytes | None,
    max_bytes: int,
    metadata: Fields,
    guards: Collection[bytes],
    upload: Upload,
    statement: Restatement = (),
    say: Literal["", "roots", "all"],
    tip: Tip | None = None,
    checksums: tuple[bytes | None, bytes],
) -> Operation[Put]:
    """`expected`: the id that must be the newest; None: any. `metadata`: to index; '' as a value removes it. `guards`: what it
    builds on, as fields. `say`: more of the reply. `tip`: the thread as this process left it. `checksums`: of the record
    that has all to which this one refers and does not bring (None: it may not follow), and of its own.
    Raises PartsMissingError, CheckpointConflictError, ThreadDeletedError, ThreadTooLargeError, StatementChangedError."""
    space, next_, (parent, own) = thread.names.ns(ns), Following(), checksums
    plain = expected is None and say != "all" and not upload.staging
    if tip is not None and parent is not None and tip.heads.get(ns) == parent and plain:
        field = keys.checkpoint_field(space, checkpoint)
        next_ = following.put(thread, tip, field, record, upload.pages, upload.chunks, max_bytes)
    before = [space, checkpoint, record, next_.follows, next_.line, ttl, keys.run_entry(run)]
    before += [b"-" if expected is None else expected, max_bytes, say]
    arguments = [*before, *_metadata(thread, metadata), *counted(_named(thread, guards)), *counted(statement)]
    arguments += upload.arguments
    reply = yield _call(PUT, thread, about, *arguments, staging=upload.staging)
    raise_for_reply(reply, about, max_bytes=max_bytes)
    if len(reply) <= 2 and next_.tip is not None:  # it followed
        counts = next_.tip.counts
        return Put(checkpoint, counts.versions, False, counts.stored, next_.tip.with_head(ns, own), *reply[1:])
    _, head, version, purged, stored, line, fields, found, *more = reply
    after = following.after(thread, tip, about, line, fields, found)
    after = after and after.with_head(ns, own)
    return Put(max(head, checkpoint), version, bool(purged), int(stored), after, *more)


def put_writes(
    thread: ThreadKeys,
    about: str,
    *,
    ns: bytes,
    checkpoint: bytes,
    ttl: Argument,
    max_bytes: int,
    guards: Collection[bytes],
    writes: Collection[tuple[str, bytes, bytes]],
    upload: Upload,
    statement: Restatement = (),
    tip: Tip | None = None,
) -> Operation[Tip | None]:
    """The thread after it, if a write may follow. `writes`: 'first' or 'last' (which of two with one marker stays), marker,
    record. `tip`: the thread as this process left it, if these may follow. Raises as `put`."""
    space, next_ = thread.names.ns(ns), Following()
    field = keys.writes_field(space, checkpoint)
    if tip is not None and tip.writes != field and not upload.staging:
        next_ = following.put_writes(thread, tip, field, writes, upload.pages, upload.chunks, max_bytes)
    before = [space, checkpoint, next_.follows, next_.line, ttl, max_bytes]
    arguments = [*before, *counted(_named(thread, guards)), *counted(writes), *counted(statement)]
    arguments += upload.arguments
    reply = yield _call(PUT_WRITES, thread, about, *arguments, staging=upload.staging)
    raise_for_reply(reply, about, max_bytes=max_bytes)
    if len(reply) == 1:  # they followed
        return next_.tip
    _, line, fields, found = reply
    return following.after(thread, tip, about, line, fields, found, field)


def fork(
    thread: ThreadKeys,
    about: str,
    *,
    revision: bytes,
    ttl: Argument,
    max_bytes: int,
    checkpoints: Collection[tuple[bytes, bytes, bytes, bytes]],
    metadata: Fields,
    upload: Upload,
    statement: Restatement = (),
) -> Operation[bool]:
    """`checkpoints`: namespace, id, record, delta history. False if the thread changed since `revision`."""
    stored = [(thread.names.ns(ns), *rest) for ns, *rest in checkpoints]
    arguments = [revision, ttl, max_bytes, *counted(stored), *_metadata(thread, metadata), *counted(statement)]
    arguments += upload.arguments
    reply = yield _call(FORK, thread, about, *arguments, staging=upload.staging)
    if reply[0] == b"none":
        raise ThreadNotFoundError(f"{about}: the thread went away while it was read")
    return raise_for_reply(reply, about, b"stale", max_bytes=max_bytes)


def stage(
    thread: ThreadKeys,
    about: str,
    staging: tuple[bytes, bytes],
    lifetime: int,
    fields: Fields,
    members: Collection[bytes] = (),
) -> Operation[None]:
    named = [(thread.names.field(name), content) for name, content in fields]
    yield _call(STAGE, thread, about, lifetime, *counted(named), *_named(thread, members), staging=staging)


def commit_copy(
    thread: ThreadKeys,
    about: str,
    staging: tuple[bytes, bytes],
    *,
    ttl: int,
    operation: bytes,
    counts: bytes,
    fields: int,
    members: int,
    runs: Collection[bytes],
    metadata: Fields,
    replaced: bytes = b"",
) -> Operation[bool]:
    """False if the staging is not whole: it expired or was evicted; or if the thread whose counts are `replaced` changed."""
    indexed = counted(list(map(keys.run_entry, runs))) + counted(metadata)
    arguments = [ttl, operation, counts, fields, members, replaced, *indexed]
    reply = yield _call(COMMIT_COPY, thread, about, *arguments, staging=staging)
    if reply[0] == b"exists":
        raise ThreadExistsError(
            f"{about}: the thread exists and would be overwritten; delete_thread it first, or copy to a new id"
        )
    return reply[0] != b"stale" and raise_for_reply(reply, about, b"gone")


def get(
    thread: ThreadKeys,
    about: str,
    refresh: int,
    wanted: Collection[tuple[bytes, bytes]],
    have_pages: Collection[bytes] = (),
    have_chunks: Collection[bytes] = (),
    stated: bool = False,
) -> Operation[Checkpoints]:
    """`wanted`: namespace and id, empty: the newest. Pages and chunks that the reader has are not sent."""
    places = (part for ns, checkpoint in wanted for part in (thread.names.ns(ns), checkpoint))
    reply = yield _call(GET, thread, about, refresh, b"".join(have_pages), b"".join(have_chunks), int(stated), *places)
    raise_for_reply(reply, about)
    _, found, pages, chunks, statement = reply
    return Checkpoints(_stored(thread, found), _contents(pages), _contents(chunks), statement)


def list_page(
    thread: ThreadKeys,
    about: str,
    refresh: int,
    ns: bytes | None,
    cursor: bytes,
    cursor_ns: bytes | None,
    most: int,
    max_bytes: int,
    whole: bool,
    stated: bool = False,
) -> Operation[Listed]:
    """`ns`: None: all; `cursor_ns`: None: the id of the cursor is left out in all namespaces."""
    space: list[Argument] = ["all" if ns is None else "one", thread.names.ns(ns or b"")]
    after: list[Argument] = [cursor, b"-" if cursor_ns is None else thread.names.ns(cursor_ns)]
    reply = yield _call(LIST, thread, about, refresh, *space, *after, most, max_bytes, int(whole), int(stated))
    raise_for_reply(reply, about)
    _, found, pages, chunks, revision, more, tags, now, writes, statement = reply
    named = {thread.names.field_of(name): content for name, content in pairs(tags)}
    parts = _contents(pages), _contents(chunks)
    return Listed(_stored(thread, found), *parts, revision, bool(more), named, int(now), int(writes), statement)


def walk_ancestors(
    thread: ThreadKeys, about: str, ns: bytes, checkpoint: bytes, most: int, max_bytes: int, whole: bool, stated: bool = False
) -> Operation[Ancestors | None]:
    """None if the checkpoint is not there. `whole`: with chunks, not only with pages."""
    how = most, max_bytes, int(whole), int(stated)
    reply = yield _call(WALK_ANCESTORS, thread, about, thread.names.ns(ns), checkpoint, *how)
    if not raise_for_reply(reply, about, b"none"):
        return None
    _, found, pages, chunks, following, exists, start, history, statement = reply
    read, (first,) = _stored(thread, found), _stored(thread, [start])
    return Ancestors(read, _contents(pages), _contents(chunks), following, bool(exists), first, history, statement)


def tag(thread: ThreadKeys, about: str, field: bytes, content: bytes, ttl: int) -> Operation[bool | None]:
    """Whether something changed; None if the thread or the checkpoint is not there. Empty content removes the tag."""
    reply = yield _call(TAG, thread, about, thread.names.field(field), content, ttl)
    return bool(reply[1]) if raise_for_reply(reply, about, b"none") else None


def set_ttl(
    thread: ThreadKeys, about: str, how: Literal["own", "persist", "default", "apply"], ttl: int
) -> Operation[bool | None]:
    """Whether the expiry was set: settings of the thread prevent 'apply'. None if there is no such thread."""
    reply = yield _call(SET_TTL, thread, about, how, ttl)
    return bool(reply[1]) if raise_for_reply(reply, about, b"none") else None


def delete_thread(thread: ThreadKeys, about: str, tombstone: int) -> Operation[None]:
    yield _call(DELETE_THREAD, thread, about, tombstone)


def measure_parts(thread: ThreadKeys, about: str, fields: Collection[bytes]) -> Operation[tuple[int, int]]:
    """Bytes that chunks and pages take with their names, and plain bytes of the chunks."""
    _, stored, plain = yield _call(MEASURE_PARTS, thread, about, *fields)
    return stored, plain


def stage_remaining(
    thread: ThreadKeys, about: str, staging: tuple[bytes, bytes], revision: bytes, lifetime: int, fields: Sequence[bytes]
) -> Operation[int | None]:
    """How many of these fields were copied to the staging hash, in order; None if the thread changed since `revision`."""
    reply = yield _call(STAGE_REMAINING, thread, about, revision, lifetime, *_named(thread, fields), staging=staging)
    return reply[1] if raise_for_reply(reply, about, b"stale") else None


def remove(thread: ThreadKeys, about: str, revision: bytes, plan: RemovalPlan, statement: Restatement = ()) -> Operation[bool]:
    """False if the thread changed since `revision`. A thread that is not there has nothing left to remove."""
    how = "staged" if plan.large else "keep" if plan.rebuild else "drop"
    named: Iterable[Collection[Any]] = (sorted(_named(thread, names)) for names in (plan.fields, plan.members))
    if plan.large:
        named = [[len(plan.fields)], [len(plan.members)]]
    written = [(thread.names.field(name), content) for name, content in plan.written.items()]
    lists: list[Collection[Any]] = [*named, sorted(map(keys.run_entry, plan.runs)), written, _named(thread, plan.measured)]
    before: list[Argument] = [revision, how, *plan.deltas.totals]
    listed = (each for items in lists for each in counted(items))
    arguments = [*before, *listed, *_metadata(thread, plan.metadata), *counted(statement)]
    reply = yield _call(REMOVE, thread, about, *arguments, staging=plan.staging)
    return reply[0] == b"none" or raise_for_reply(reply, about, b"stale")


def forget_expired(thread: ThreadKeys, about: str) -> Operation[bool]:
    """False if the hash was evicted under a living index."""
    _, forgotten = yield _call(FORGET_EXPIRED, thread, about)
    return bool(forgotten >= 0)


def sweep_bucket(keys: Sequence[bytes], most: int, about: str) -> Operation[bool]:
    """Whether more threads of the bucket may have expired."""
    _, more = yield Call(SWEEP_BUCKET, keys, [b"", most], about)
    return bool(more)


def thread_state(
    thread: ThreadKeys, about: str, runs: Collection[bytes], metadata: Collection[bytes]
) -> Operation[ThreadState]:
    """`runs`, `metadata`: members of the bucket's indexes that may speak of the thread."""
    reply = yield _call(THREAD_STATE, thread, about, *counted(runs), *metadata)
    _, wrong, counts, settings, there, indexed, left, index_left, active, expiry, now, bucket_left, held, found = reply
    active, expiry = (None if score is None else float(score) for score in (active, expiry))
    times = (left, index_left, active, expiry, int(now), bucket_left)
    return ThreadState(list(wrong), counts, settings, bool(there), indexed, *times, set(held), set(found))


def repair(
    thread: ThreadKeys, about: str, before: bytes, settings: bytes, counts: bytes, active: int, repairs: Repairs
) -> Operation[bool]:
    """`before`, `settings`: fields S and T as read, `counts`: the new S; empty if none. False if the thread changed since."""
    name = thread.names.field
    stored = repairs._replace(
        drop_fields=_named(thread, repairs.drop_fields),
        write_fields=[(name(field), content) for field, content in repairs.write_fields],
        drop_index=_named(thread, repairs.drop_index),
        add_index=_named(thread, repairs.add_index),
    )
    lists = (each for items in stored for each in counted(items))
    reply = yield _call(REPAIR, thread, about, before, settings, counts, active, *lists)
    return raise_for_reply(reply, about, b"stale")


def _call(script: Script, thread: ThreadKeys, about: str, *arguments: Argument, staging: Sequence[bytes] = ()) -> Call:
    return Call(script, (*thread.all, *staging), [thread.name, *arguments], about)


def _named(thread: ThreadKeys, fields: Collection[bytes]) -> list[bytes]:
    """Fields, or members of the index, as they are stored."""
    return list(map(thread.names.field, fields))


def _metadata(thread: ThreadKeys, metadata: Fields) -> list[Argument]:
    return counted([thread.names.metadata(key, value) for key, value in metadata])


def _stored(thread: ThreadKeys, entries: Sequence[Sequence[Any]]) -> list[Stored]:
    return [(thread.names.ns_of(ns), *rest) for ns, *rest in entries]


def _contents(flat: Sequence[bytes | None]) -> dict[bytes, bytes]:
    """What is there of these digests and contents."""
    return {name: content for name, content in pairs(flat) if content is not None}
