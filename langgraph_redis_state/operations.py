"""What each method of the saver does, once, as generators of effects (see effects.py). No I/O, no asyncio, no redis.

The data a method leaves on the server, its round trips and what a second process sees stand in the header of its Lua file;
here is what surrounds the script: reading the config, serializing, cutting, verifying, decoding.

Serialization happens before the first effect, so that a state may change as soon as `aput` waits for the first time.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from . import checks, deltas, keys, records, retention
from .bounded import Bounded
from .checkpoints import Known, Memory, Opened, dumped, loaded, refused_value, stored_rest
from .codec import CompressionType, Integrity, pack
from .copying import Copying
from .deltas import Lineage
from .effects import Argument, Call, Operation, Read, Script, all_commands, compute, counted, pairs, portion
from .elements import ElementCache, Elements
from .errors import (
    CheckpointConflictError,
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    InvalidConfigError,
    LayoutError,
    ServerRefusedError,
    ThreadBusyError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadNotFoundError,
    ThreadTooLargeError,
)
from .records import Counts, Header, Parts, Place, Value, Verified
from .removal import WEIGHED, Removal
from .retention import Survey, Written
from .target import Target, configurable

logger = logging.getLogger("langgraph_redis_state")

PUT, PUT_WRITES, GET, LIST = Script("put", writes=True), Script("put_writes", writes=True), Script("get"), Script("list")
ANCESTORS, DELETE = Script("ancestors"), Script("delete", writes=True)
WEIGH, KEEP, REMOVE = Script("weigh"), Script("keep"), Script("remove", writes=True)
STAGE, ADOPT = Script("stage"), Script("adopt", writes=True)
SWEEP = Script("sweep")
FIRST = Script("first", bare=True)

PAGE_CHECKPOINTS = 100
PAGE_BYTES = 8 * 1024 * 1024
SURVEY_CHECKPOINTS = 1000
UPLOAD_BYTES = 4 * 1024 * 1024
"""New chunks beyond this are staged first, since hosted proxies cap the size of a request."""
STAGING_MS = 600_000
KEEP_FIELDS = 1000
"""A removal copies so many fields to staging in one script: some 4 ms."""
TRIES = 3
BUSY_TRIES = 10
WRITE_INLINE_MAX = 1024
"""A pending write is shared with nothing, so it stays in its record up to this many serialized bytes."""
CACHE_BYTES = 64 * 1024 * 1024
"""What one saver may remember, all in all. Of eight parts verified chunks and pages have three, serialized messages, runs of
them, and lists one each, what puts build on one (`Memory`), and what saves of states build on one (`States`)."""
PUT_BYTES = 2 * 1024 * 1024
"""What puts build on may always take so much, and what saves build on half of it. Then each sends what is new, and not all."""
SWEEP_SECONDS = 80.0
"""A saver that writes forgets what expired in one bucket each so many seconds: in all 1024 within a day."""
SWEEP_SCRIPTS, SWEEP_THREADS = 8, 100
"""One write makes up for so many buckets at most, or so often goes on with one, so many threads each: some 1 ms."""
HAVE_MAX = 256
"""A request does not tell of more chunks, outside of pages, than these."""
WARN_BYTES = 64 * 1024 * 1024

_MISSING = object()


@dataclass(frozen=True)
class Settings:
    """What the constructor of the saver decided. Times in ms, 0 = none."""

    prefix: str
    ttl: int
    refresh: bool
    compression: CompressionType
    integrity: Integrity
    tombstone: int
    max_versions: int | None
    max_age: int | None
    max_bytes: int
    conflict: bool
    index: tuple[str, ...]
    cache: int


@dataclass(slots=True)
class Draft:
    """A checkpoint on its way in: what was serialized, what is taken over from the parent."""

    rest: tuple[str, bytes]
    serialized: dict[str, tuple[str, bytes | Elements]]
    carried: dict[str, Value]
    versions: dict[str, Any]
    flags: int
    depth: int
    parent: bytes
    root: bytes
    run: bytes
    fork: bytes = b""
    """Of a fork: the id of its head."""
    fine: bool = False
    """Cut so that little changes alone (chunks.py)."""

    @property
    def size(self) -> int:
        return len(self.rest[1]) + sum(len(blob) for _, blob in self.serialized.values())


@dataclass(slots=True)
class Sealed:
    """A record ready to send, with the parts it refers to."""

    record: bytes
    pages: dict[bytes, bytes]
    fresh: records.Fresh
    known: Known


@dataclass(slots=True)
class Found:
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

    found: list[Found]
    parts: Parts
    revision: bytes
    following: Cursor | None
    tags: dict[bytes, bytes | None]
    now: int
    writes: int
    """How many pending writes the thread has, also those whose checkpoint is not there."""


class Operations:
    """All operations of one saver. They share what this process remembers, and the settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        part = settings.cache // 8
        self.memory = Memory(max(part, PUT_BYTES))
        self.elements = ElementCache(part)
        self.verified = Verified(3 * part)
        self.seen_bytes = max(part, PUT_BYTES // 2)
        self._overtaken: Bounded[bytes, bool] = Bounded(1 << 20, lambda thread, _: len(thread) + 200)
        """Threads that changed while retention looked at them: the next put looks again."""
        self._resting: Bounded[bytes, int] = Bounded(1 << 20, lambda thread, _: len(thread) + 200)
        """Threads in which retention removed few of the checkpoints that it read: so many puts until it looks again."""
        self._layout_seen = self._layout_written = False
        self._swept, self._sweep_due = random.randrange(keys.BUCKETS), time.monotonic() + SWEEP_SECONDS
        self._denied: dict[str, str] | None = None
        """Commands that the user may not run, each with what the server says; None: not asked yet."""

    def target(self, thread: Any, ns: str = "") -> Target:
        return Target(self.settings.prefix, thread, ns, None)

    # --- put ---

    def put(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Operation[RunnableConfig]:
        target = Target.of(self.settings.prefix, config)
        parent, target.checkpoint = target.checkpoint, keys.encode(checkpoint["id"], "the checkpoint's id")
        if not target.checkpoint:
            raise InvalidConfigError(f"{target.about('put')}: the checkpoint has an empty id")
        about = target.about("put")
        known = self.memory.get(target.keys.name, target.ns, parent) if parent else None
        full = cast(CheckpointMetadata, checks.plainly(get_checkpoint_metadata(config, metadata)))
        draft = self._draft(serde, target, checkpoint, full, new_versions, parent, known)
        values, ttl = dict(checkpoint["channel_values"]), self._ttl(config)
        unresolved = [name for name in draft.versions if name not in new_versions and name not in values]
        result = target.config(target.ns, target.checkpoint.decode())
        guards, indexed = _guards(target.ns, parent, full.get("parents")), self.indexed(full)
        # from here on the caller may change what it gave
        yield from self.check_layout(True, PUT, STAGE)
        if parent and known is None and unresolved:  # values only the parent's record holds, and this process never saw it
            known = yield from self._known(serde, target, parent)
            draft.carried.update(_taken_over(known, draft.versions, unresolved))

        def again() -> None:
            self._serialize_again(serde, target, values, draft)

        expected = parent if self.settings.conflict else None
        reply = yield from self.send(
            target, about, draft, ttl, expected=expected, known=known, guards=guards, indexed=indexed, again=again
        )
        if reply[0] == b"deleted" and not target.ns:
            with suppress(CheckpointerError):  # what overtook it may be there; else it goes with a later removal
                yield from self._remove_surely(serde, target, retention.everything, "put")
        self.refuse(reply, about)
        newest, stored = reply[1].decode(errors="replace"), int(reply[4])
        if parent and int(reply[2]) == 1:  # what it builds on is gone; if the server was emptied, so is the layout
            self._layout_seen = self._layout_written = False
        if int(reply[3]):
            logger.error("%s: the thread's data had vanished (evicted?) and only its index was left; a new run begins", about)
        if newest.encode() == parent and parent > target.checkpoint:
            logger.warning(
                "%s: its parent %s is newer by id, so it is not the latest checkpoint; is a clock behind?",
                about,
                newest,
            )
        if stored > WARN_BYTES:
            logger.warning("%s: the thread takes %d bytes; consider max_versions or prune", about, stored)
        if not target.ns:
            yield from self._retain(serde, target, int(reply[5]), about)
        return result

    def _retain(self, serde: SerializerProtocol, target: Target, roots: int, about: str) -> Operation[None]:
        """After a put that left so many root checkpoints: removes, when it is due, those that are too many or too old."""
        limit, age, thread = self.settings.max_versions, self.settings.max_age, target.keys.name
        resting = self._resting.take(thread) or 0
        if resting > 1:
            self._resting.put(thread, resting - 1)
        if resting or not (retention.is_due(roots, limit, age) or self._overtaken.get(thread)):
            return
        try:
            done = yield from self.remove_all_but(serde, target, partial(retention.newest_roots, limit=limit, age=age))
        except CheckpointerError as error:  # the put itself is done; the next one that is due tries again
            logger.error("%s: the checkpoint is stored, but old ones could not be removed: %s", about, error)
            return
        if done is None or self._overtaken.get(thread):
            self._overtaken.put(thread, done is None)
        if done is not None and (rest := retention.rest(*done)):
            self._resting.put(thread, rest)

    def send(
        self,
        target: Target,
        about: str,
        draft: Draft,
        ttl: Argument,
        *,
        expected: bytes | None,
        known: Known | None = None,
        guards: Sequence[bytes] | None = None,
        indexed: Sequence[tuple[bytes, bytes]] = (),
        again: Callable[[], None] | None = None,
    ) -> Operation[list[Any]]:
        """Seals a draft and puts it, sending only parts that the server is not known to have; the reply of the last try.

        `expected`: the id that must be the newest of the namespace, else the reply is `conflict`; None: any. `indexed`:
        metadata to index, '' as a value removes it. `known` is what the parent has. `guards`: what must be there, None: the
        parent.

        The server names the parts it lacks (collected, expired, lost in a fail-over) and writes nothing; then they are sent,
        and if they were taken over from the parent, `again` makes them from the values.
        """
        guards = _guards(target.ns, draft.parent, None) if guards is None else guards
        sealed: Sealed = yield from compute(lambda: self.seal(target, draft), draft.size)
        chunks, pages = set(sealed.fresh), set(sealed.pages)
        if known:
            chunks -= known.chunks
            pages.difference_update(known.pages)
        reply: list[Any] = []
        for attempt in range(TRIES):
            reply = yield from self.upload(
                PUT,
                target,
                about,
                [
                    target.ns,
                    target.checkpoint,
                    sealed.record,
                    ttl,
                    draft.run,
                    b"-" if expected is None else expected,
                    self.settings.max_bytes,
                    *counted(indexed),
                    *counted(guards),
                ],
                {name: sealed.pages[name] for name in pages},
                {name: sealed.fresh[name] for name in chunks},
            )
            if reply[0] != b"missing":
                break
            logger.info("%s: the server lacks %d parts, sending them again", about, len(reply) - 1)
            lacking = {name[1:] for name in reply[1:]} - set(sealed.fresh) - set(sealed.pages)
            if again is not None and draft.carried and (lacking or attempt):
                again()
                sealed = yield from compute(lambda: self.seal(target, draft), draft.size)
            pages, chunks = set(sealed.pages), set(sealed.fresh)
        if reply[0] == b"ok":
            self.memory.put(target.keys.name, target.ns, target.checkpoint, sealed.known, draft.parent)
            yield from self._sweep()
        return reply

    def _sweep(self) -> Operation[None]:
        """After a put, when it is due: forgets threads that expired where nobody writes, bucket after bucket."""
        now = time.monotonic()
        owed = min(int((now - self._sweep_due) // SWEEP_SECONDS) + 1, SWEEP_SCRIPTS)
        if owed <= 0:
            return
        self._sweep_due = now + SWEEP_SECONDS
        for _ in range(SWEEP_SCRIPTS):
            about = f"tidying bucket {self._swept:04x} of prefix {self.settings.prefix!r}"
            base = keys.bucket_key(self.settings.prefix, self._swept, "")
            try:
                reply = yield Call(SWEEP, keys.script_keys(base, b""), [b"", SWEEP_THREADS], about)
            except CheckpointerError as error:  # the put itself is done
                logger.warning("%s: what expired there is forgotten another time: %s", about, error)
                reply = [b"ok", 0]
            if not reply[1]:
                self._swept = (self._swept + 1) % keys.BUCKETS
                owed -= 1
            if not owed:
                return
        self._sweep_due = now  # there is more

    def indexed(self, metadata: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
        """Of some metadata what this saver was told to index, as scripts take it."""
        return [
            (name.encode(), metadata_text(metadata[name]))
            for name in self.settings.index
            if checks.plain(metadata.get(name)) is not None
        ]

    def _draft(
        self,
        serde: SerializerProtocol,
        target: Target,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        parent: bytes,
        known: Known | None,
    ) -> Draft:
        """Serializes what is new. A channel is taken over from the parent only if it is absent from `new_versions` and the
        parent's record holds the same version of it: `update_state(as_node="__copy__")` passes the grandparent as parent
        and no new versions, and must not get the grandparent's values."""
        rest, flags = stored_rest(checkpoint)
        versions = dict(checkpoint.get("channel_versions") or {})
        values = checkpoint["channel_values"]
        carried = _taken_over(known, versions, [name for name in versions if name not in new_versions])
        parents = metadata.get("parents")
        root = parents.get("") if isinstance(parents, Mapping) else None
        run = metadata.get("run_id")
        about = target.about("put")
        return Draft(
            rest=dumped(serde, [rest, metadata], f"{about}: the checkpoint's metadata"),
            serialized={
                name: self._dumped(serde, value, (target.keys.name, target.ns, name), f"{about}, channel {name!r}")
                for name, value in values.items()
                if name not in carried
            },
            carried=carried,
            versions=versions,
            flags=flags,
            depth=max(deltas.supersteps(metadata, versions, values).values(), default=0),
            parent=parent,
            root=keys.encode(root, "metadata['parents']['']") if target.ns and isinstance(root, str) else b"",
            run=keys.encode(keys.id_text(run) or "", "run_id"),
        )

    def _dumped(self, serde: SerializerProtocol, value: Any, place: Hashable, what: str) -> tuple[str, bytes | Elements]:
        try:
            elements = self.elements.serialized(serde, value, place)
        except Exception as error:
            raise refused_value(error, what) from error
        return dumped(serde, value, what) if elements is None else ("msgpack", elements)

    def _serialize_again(self, serde: SerializerProtocol, target: Target, values: Mapping[str, Any], draft: Draft) -> None:
        """The parent's chunks are gone from the server, so what was taken over is made again from the values."""
        for name in [name for name, value in draft.carried.items() if value.digests]:
            if name not in values:
                raise CheckpointLostError(
                    f"{target.about('put')}, channel {name!r}: its value is stored only with an earlier checkpoint, which "
                    "is gone from the server (expired, deleted or evicted); nothing was written"
                )
            type_, blob = dumped(serde, values[name], f"{target.about('put')}, channel {name!r}")
            # the state may have changed since this call began: only what is still the same may stand for it
            if records.chunked(type_, blob, type_ == "msgpack", {}) != draft.carried[name]:
                raise CheckpointLostError(
                    f"{target.about('put')}, channel {name!r}: parts of its value are gone from the server (expired, deleted "
                    "or evicted) and the value has changed meanwhile; nothing was written"
                )
            draft.serialized[name] = type_, blob
            del draft.carried[name]

    def seal(self, target: Target, draft: Draft) -> Sealed:
        fresh: records.Fresh = {}
        values = dict(draft.carried)
        for name, (type_, blob) in draft.serialized.items():
            if isinstance(blob, Elements):
                values[name] = self.elements.chunked(blob, fresh)
            else:
                values[name] = records.chunked(type_, blob, type_ == "msgpack", fresh, draft.fine)
        digests = [name for value in values.values() for name in value.digests]
        references = records.References.of(digests)
        tail = b"".join(records.packed_id(part) for part in (draft.parent, draft.root, draft.run, draft.fork))
        record = records.seal(
            self.settings.integrity,
            target.place(b"C", target.ns, target.checkpoint),
            references,
            tail,
            records.checkpoint_body(draft.rest, values, self.settings.compression),
            flags=draft.flags,
            depth=draft.depth,
            logical=len(draft.rest[1]) + sum(value.size for value in values.values()),
            chunked=sum(value.chunked for value in values.values()),
        )
        known = Known(draft.versions, values, references.order)
        return Sealed(record, references.pages, fresh, known)

    def put_writes(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> Operation[None]:
        target = Target.of(self.settings.prefix, config)
        if not target.checkpoint:
            raise InvalidConfigError(
                f"{target.about('put_writes')}: the config names no checkpoint_id; pass the config that put returned"
            )
        about = f"{target.about('put_writes')}, task {task_id!r}"
        task = keys.encode(task_id, "task_id")
        serialized = [
            (index, channel, dumped(serde, value, f"{about}, channel {channel!r}"))
            for index, (channel, value) in enumerate(writes)
        ]
        if not serialized:
            return
        ttl, guards = self._ttl(config), _guards(target.ns, b"", configurable(config).get("checkpoint_map"))
        yield from self.check_layout(True, PUT_WRITES, STAGE)
        place = target.place(b"W", target.ns, target.checkpoint)
        integrity, compression = self.settings.integrity, self.settings.compression

        def seal() -> tuple[list[Argument], dict[bytes, bytes], records.Fresh]:
            arguments: list[Argument] = []
            fresh: records.Fresh = {}
            pages: dict[bytes, bytes] = {}
            for index, channel, (type_, blob) in serialized:
                index = WRITES_IDX_MAP.get(channel, index)
                if len(blob) <= WRITE_INLINE_MAX:
                    value = Value(type_, blob, (), len(blob))
                else:
                    value = records.chunked(type_, blob, type_ == "msgpack", fresh)
                references = records.References.of(value.digests)
                pages.update(references.pages)
                marker = records.write_marker(index, task)
                body = records.write_body(task_path, channel, value, compression)
                record = records.seal(
                    integrity,
                    place,
                    references,
                    marker,
                    body,
                    flags=records.WRITE,
                    depth=0,
                    logical=len(blob),
                    chunked=value.chunked,
                )
                arguments += ["first" if index >= 0 else "last", marker, record]
            return arguments, pages, fresh

        arguments, pages, fresh = yield from compute(seal, sum(len(blob) for _, _, (_, blob) in serialized))
        reply = yield from self.upload(
            PUT_WRITES,
            target,
            about,
            [
                target.ns,
                target.checkpoint,
                ttl,
                self.settings.max_bytes,
                *counted(guards),
                len(serialized),
                *arguments,
            ],
            pages,
            fresh,
        )
        if reply[0] == b"missing":
            raise CheckpointLostError(f"{about}: the server lost what was just sent; nothing was written")
        self.refuse(reply, about)

    def upload(
        self,
        script: Script,
        target: Target,
        about: str,
        args: list[Argument],
        pages: Mapping[bytes, bytes],
        chunks: records.Fresh,
    ) -> Operation[list[Any]]:
        """Runs a writing script with new pages and chunks; many bytes go to staging first."""

        def pack_all() -> dict[bytes, bytes]:
            plain = {name: b"".join(run) for name, run in chunks.items()}
            self.verified.sent(pages, plain)
            return {name: pack(content, self.settings.compression) for name, content in plain.items()}

        packed = yield from compute(pack_all, sum(len(piece) for run in chunks.values() for piece in run))
        all_keys: tuple[bytes, ...] = target.keys.all
        if sum(map(len, packed.values())) > UPLOAD_BYTES:
            staged = target.keys.staging(os.urandom(8).hex().encode())
            yield from self._stage(target, staged, [(b"D" + name, data) for name, data in packed.items()], (), about)
            all_keys, packed = (*all_keys, staged[0]), {}
        parts = counted(pages.items()) + counted(packed.items())
        reply: list[Any] = yield Call(script, all_keys, [target.keys.name, *args, *parts], about)
        return reply

    def _stage(
        self,
        target: Target,
        staged: tuple[bytes, bytes],
        fields: Iterable[tuple[bytes, bytes]],
        members: Sequence[bytes],
        about: str,
    ) -> Operation[None]:
        """Sends fields to staging keys in commands of bounded size."""
        batch: list[Argument] = []
        size = 0

        def call(extra: Sequence[bytes]) -> Call:
            arguments: list[Argument] = [target.keys.name, STAGING_MS, len(batch) // 2, *batch, *extra]
            return Call(STAGE, (*target.keys.all, *staged), arguments, about)

        for name, data in fields:
            batch += [name, data]
            size += len(data) + len(name)
            if size >= UPLOAD_BYTES // 2 or len(batch) >= 4000:
                yield call(())
                batch, size = [], 0
        for at in range(0, max(len(members), 1), 2000):
            if batch or members:
                yield call(members[at : at + 2000])
                batch = []

    # --- get, list ---

    def get_tuple(self, serde: SerializerProtocol, config: RunnableConfig) -> Operation[CheckpointTuple | None]:
        target = Target.of(self.settings.prefix, config)
        yield from self.check_layout(False)
        found, parts = yield from self.fetch(target, [(target.ns, target.checkpoint)])
        if not found:
            return None
        tup, _ = yield from compute(lambda: self.decode(serde, target, found[0], parts), _size(found, parts))
        return tup._replace(config=config) if target.checkpoint else tup

    def fetch(self, target: Target, wanted: Sequence[tuple[bytes, bytes]]) -> Operation[tuple[list[Found], Parts]]:
        """The checkpoints at these (namespace, id), with all they refer to. Of one, what this process has verified before is
        not sent again: that the server still has it is not looked at here, but by the next put."""
        about = target.about("get")
        parts = self._have(target, *wanted[0]) if len(wanted) == 1 else Parts()
        told: list[Argument] = [b"".join(parts.lists), b"".join(parts.loose)]
        args = [target.keys.name, self._refresh, *told, *(part for place in wanted for part in place)]
        reply = yield Call(GET, target.keys.all, args, about)
        self.refuse(reply, about)
        received = _parts(reply[2], reply[3])
        parts.pages, parts.chunks = received.pages, received.chunks
        return [Found(*entry) for entry in reply[1]], parts

    def _have(self, target: Target, ns: bytes, checkpoint: bytes) -> Parts:
        """What is here of that checkpoint, or of the newest of its namespace that was seen: a guess at what is the same."""
        name = target.keys.name
        known = (self.memory.get(name, ns, checkpoint) if checkpoint else None) or self.memory.newest(name, ns)
        parts = self.verified.have(known.pages, known.chunks) if known else Parts(verified=self.verified)
        del parts.loose[HAVE_MAX:]
        return parts

    def _known(self, serde: SerializerProtocol, target: Target, checkpoint: bytes) -> Operation[Known | None]:
        found, parts = yield from self.fetch(target, [(target.ns, checkpoint)])
        if not found:
            return None
        opened = self.opened(target, found[0])
        rest, _ = opened.load(serde)
        return opened.known(parts, rest.get("channel_versions") or {})

    def list_page(
        self,
        serde: SerializerProtocol,
        target: Target,
        ns: str | None,
        cursor: Cursor,
        most: int,
        filter: Mapping[str, Any] | None,
    ) -> Operation[tuple[list[CheckpointTuple], Cursor | None]]:
        """(tuples, cursor of the next page or None). One round trip; with a filter, one more for those that match."""
        yield from self.check_layout(False)
        page = yield from self.page(target, ns, cursor, most, whole=filter is None)
        found, parts, following = page.found, page.parts, page.following
        if filter is not None and found:
            chosen: list[tuple[bytes, bytes]] = yield from compute(
                lambda: [(f.ns, f.checkpoint) for f in found if self._matches(serde, target, f, filter)],
                _size(found, parts),
            )
            found = []
            if chosen:
                found, parts = yield from self.fetch(target, chosen)
        tuples = yield from compute(lambda: [self.decode(serde, target, each, parts)[0] for each in found], _size(found, parts))
        return tuples, following

    def page(self, target: Target, ns: str | None, cursor: Cursor, most: int, whole: bool, use: bool = True) -> Operation[Page]:
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
                self._refresh if use else -1,
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
        self.refuse(reply, about)
        found = [Found(*entry) for entry in reply[1]]
        following = (found[-1].checkpoint, found[-1].ns) if found and int(reply[5]) else None
        tags = dict(zip(reply[6][::2], reply[6][1::2], strict=True))
        return Page(found, _parts(reply[2], reply[3]), reply[4], following, tags, int(reply[7]), int(reply[8]))

    def _matches(self, serde: SerializerProtocol, target: Target, found: Found, filter: Mapping[str, Any]) -> bool:
        _, metadata = self.opened(target, found).load(serde)
        return all(value == metadata.get(key) for key, value in filter.items())

    def threads(self) -> Operation[list[tuple[str, float]]]:
        """Every thread with its last activity in ms, the last active first. 1024 small reads, sent together."""
        prefix = self.settings.prefix
        replies = yield Read(
            [("ZRANGE", keys.bucket_key(prefix, bucket, "threads"), 0, -1, "WITHSCORES") for bucket in range(keys.BUCKETS)],
            "listing threads",
        )
        active = [(float(score), name) for reply in replies for name, score in pairs(reply)]
        return [(stored_text(name, "the index of threads"), score) for score, name in sorted(active, reverse=True)]

    def threads_indexed(self, index: str, entry: bytes, about: str) -> Operation[list[str]]:
        """The threads that stand behind `entry` in an index, in all buckets. 1024 small reads, sent together."""
        prefix, lower = self.settings.prefix, b"[" + entry
        replies = yield Read(
            [("ZRANGEBYLEX", keys.bucket_key(prefix, bucket, index), lower, lower + b"\xff") for bucket in range(keys.BUCKETS)],
            about,
        )
        return [stored_text(member[len(entry) :], f"{about}: an index") for reply in replies for member in reply]

    def delta_history(
        self, serde: SerializerProtocol, config: RunnableConfig, channels: Sequence[str]
    ) -> Operation[Mapping[str, DeltaChannelHistory]]:
        """LangGraph's rule: from the target's parent up, collect each channel's writes until an ancestor holds a value.
        The writes stored at that ancestor came after its value, so they count; the target's own are pending and do not."""
        target = Target.of(self.settings.prefix, config)
        about = target.about("get_delta_channel_history")
        channels = tuple(channels)
        yield from self.check_layout(False)
        lineage = yield from self.lineage(serde, target, about, channels, partial(loaded, serde))
        self.refuse_broken(lineage, about)
        result: dict[str, DeltaChannelHistory] = {}
        for channel in channels:
            writes = [(task, channel, value) for task, value in reversed(lineage.writes.get(channel, ()))]
            entry: DeltaChannelHistory = {"writes": writes}
            if channel in lineage.seeds:
                entry["seed"] = lineage.seeds[channel]
            result[channel] = entry
        return result

    def refuse_broken(self, lineage: Lineage, about: str) -> None:
        if lineage.lost:
            gone = sorted(set(lineage.lost.values()))
            raise CheckpointLostError(
                f"{about}: channels {sorted(lineage.lost)} are rebuilt from ancestors, but the chain ends at {gone}, which "
                "went away; go back to a checkpoint that is whole"
            )

    def lineage(
        self,
        serde: SerializerProtocol,
        target: Target,
        about: str,
        channels: Sequence[str] | None,
        take: Take | None,
    ) -> Operation[Lineage]:
        """What channels of a checkpoint are rebuilt from; None: those that need it. `take` makes of what is stored what the
        lineage holds; None: it stays in stored form, and the content of its chunks is not read."""
        whole, taken = take is not None, take or _as_stored
        lineage = Lineage(dict.fromkeys(channels or ()))
        cursor, walked = target.checkpoint, set[bytes]()
        first = True
        while lineage.remaining or (first and channels is None):
            reply = yield Call(
                ANCESTORS,
                target.keys.all,
                [target.keys.name, target.ns, cursor, PAGE_CHECKPOINTS, PAGE_BYTES, int(whole)],
                about,
            )
            if reply[0] == b"none":
                if first:
                    break
                raise CheckpointLostError(f"{about}: the ancestor {cursor.decode()!r} was deleted while the chain was read")
            self.refuse(reply, about)
            found, parts, last = [Found(*entry) for entry in reply[1]], _parts(reply[2], reply[3]), Found(*reply[6])
            if first and channels is None:
                lineage.remaining = dict.fromkeys(self._needed(serde, target, last))
            first = False
            left: Sequence[Found] = found
            while left and lineage.remaining:
                passed, held = yield from compute(
                    partial(self._gathered, target, left, parts, lineage, walked, taken), _size(left, parts)
                )
                if held:
                    yield from self._seeded(target, about, left[passed - 1], held, lineage, take)
                left = left[passed:]
            last = found[-1] if found else last
            if not lineage.remaining:
                break
            if reply[7] is not None:
                yield from self._continued(target, about, last, reply[7], parts, lineage, take)
                break
            if not reply[4]:
                break
            if not int(reply[5]):
                if self.header(target, last).depth:
                    lineage.broken(reply[4].decode(errors="replace"))
                break
            cursor = found[-1].checkpoint
        return lineage

    def _needed(self, serde: SerializerProtocol, target: Target, found: Found) -> Sequence[str]:
        opened = self.opened(target, found)
        if not opened.header.depth:
            return ()
        rest, metadata = opened.load(serde)
        return deltas.needed(opened, rest.get("channel_versions") or {}, metadata)

    def _seeded(
        self, target: Target, about: str, origin: Found, held: Sequence[str], lineage: Lineage, take: Take | None
    ) -> Operation[None]:
        """Takes the seeds of some channels from an ancestor that holds them."""
        if take is None:
            parts = yield from self.pages(target, self.header(target, origin).pages, about)
        else:
            whole, parts = yield from self.fetch(target, [(target.ns, origin.checkpoint)])
            if not whole:
                raise CheckpointLostError(f"{about}: the ancestor {origin.checkpoint.decode()!r} went away while it was read")
            origin = whole[0]

        def seed() -> None:
            opened = self.opened(target, origin)
            values = opened.known(parts, {}).values
            for channel in held:
                where = f"{opened.place}, channel {channel!r}"
                lineage.seeded(channel, (take or _as_stored)(values[channel], parts, where))

        yield from compute(seed, _size([origin], parts))

    def _continued(
        self, target: Target, about: str, last: Found, raw: bytes, parts: Parts, lineage: Lineage, take: Take | None
    ) -> Operation[None]:
        """Takes what remains from the delta history of the last checkpoint that is there."""
        history = deltas.History(raw, target.place(b"H", last.ns, last.checkpoint), self.settings.integrity)
        if take is None and (own := history.own(parts)):
            (chunks,) = yield Read([("HMGET", target.keys.hash, *(b"D" + name for name in own))], about)
            parts.chunks.update((name, chunk) for name, chunk in zip(own, chunks, strict=True) if chunk is not None)
        taken = take or _as_stored

        def go_on() -> None:
            for channel, seed, writes in history.values(parts):
                if channel in lineage.remaining:
                    where = f"{history.place}, channel {channel!r}"
                    for task, value in reversed(writes):
                        lineage.wrote(channel, task, taken(value, parts, where))
                    if seed is not None:
                        lineage.seeded(channel, taken(seed, parts, where))
            for channel in history.lost:
                if channel in lineage.remaining:
                    lineage.lost[channel] = history.header.parent or ""
            lineage.remaining.clear()

        yield from compute(go_on, _size((), parts))

    # --- decoding ---

    def opened(self, target: Target, found: Found) -> Opened:
        raw, place = _stored(target, found)
        return Opened(*records.open_record(raw, place, self.settings.integrity), place)

    def header(self, target: Target, found: Found) -> Header:
        raw, place = _stored(target, found)
        return records.verified(raw, place, self.settings.integrity)[0]

    def decode(self, serde: SerializerProtocol, target: Target, found: Found, parts: Parts) -> tuple[CheckpointTuple, Known]:
        opened = self.opened(target, found)
        rest, metadata = opened.load(serde)
        known = opened.known(parts, rest.get("channel_versions") or {})
        rest["id"] = found.checkpoint.decode()
        rest["channel_values"] = {
            name: loaded(serde, value, parts, f"{opened.place}, channel {name!r}") for name, value in known.values.items()
        }
        self.memory.put(target.keys.name, found.ns, found.checkpoint, known)
        tup = CheckpointTuple(
            config=target.config(found.ns, found.checkpoint.decode()),
            checkpoint=cast(Checkpoint, rest),
            metadata=metadata,
            parent_config=target.config(found.ns, opened.header.parent) if opened.header.parent else None,
            pending_writes=self._pending(target, found, parts, None, partial(loaded, serde)),
        )
        return tup, known

    def _gathered(
        self,
        target: Target,
        found: Sequence[Found],
        parts: Parts,
        lineage: Lineage,
        walked: set[bytes],
        take: Take,
    ) -> tuple[int, list[str]]:
        """Adds the writes of the channels that remain, newest first, up to an ancestor that holds one of them: how many
        ancestors that took, and which it holds."""
        for passed, each in enumerate(found, 1):
            opened = self.opened(target, each)
            if each.checkpoint in walked:
                raise CheckpointCorruptError(f"{opened.place}: the checkpoint is its own ancestor; its parent was set wrongly")
            walked.add(each.checkpoint)
            for task, channel, value in reversed(self._pending(target, each, parts, lineage.remaining, take)):
                lineage.wrote(channel, task, value)
            held = [channel for channel in lineage.remaining if channel in opened.channels]
            if held:
                return passed, held
        return len(found), []

    def _pending(
        self,
        target: Target,
        found: Found,
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
        for raw in records.split_writes(found.writes, place):
            header, plain = records.open_record(raw, place, self.settings.integrity)
            if (header.index, header.task) in seen:
                raise CheckpointCorruptError(f"{place}: write {header.index} of task {header.task!r} stands there twice")
            seen.add((header.index, header.task))
            body = records.open_write(header, plain, f"{place}, task {header.task!r}")
            channel = body.name
            if channels is not None and channel not in channels:
                continue
            where = f"{place}, task {header.task!r}, channel {channel!r}"
            value = records.stored_values([body], records.all_digests(header, parts, where), where)[channel]
            write = header.task, channel, take(value, parts, where)
            writes.append((writes_sort_key(body.path, header.task, header.index), write))
        writes.sort(key=lambda each: each[0])
        return [write for _, write in writes]

    # --- removal ---

    def delete_thread(self, thread: Any) -> Operation[None]:
        target = self.target(thread)
        about = target.about("delete_thread")
        yield from self.check_layout(False, DELETE)
        yield Call(DELETE, target.keys.all, [target.keys.name, self.settings.tombstone], about)

    def delete_for_runs(self, serde: SerializerProtocol, run_ids: Sequence[str]) -> Operation[None]:
        """Finds the threads of the runs in the buckets' indexes, then removes thread by thread."""
        keys.check_several(run_ids, "delete_for_runs: run_ids")
        runs = dict.fromkeys(_run(run) for run in run_ids)
        yield from self.check_layout(False)
        threads: dict[str, set[str]] = {}
        for run in runs:
            about = f"delete_for_runs: run {run.decode()!r}"
            for thread in (yield from self.threads_indexed("runs", b"R" + run + b"\0", about)):
                threads.setdefault(thread, set()).add(run.decode())
        for thread, found in threads.items():
            target = self.target(thread)
            keep = partial(retention.other_runs, found)
            yield from self._remove_surely(serde, target, keep, "delete_for_runs")

    def prune(self, serde: SerializerProtocol, threads: Sequence[Any], strategy: str, keep_last: int | None) -> Operation[None]:
        keys.check_several(threads, "prune: thread_ids")
        # the agent server says delete_all where BaseCheckpointSaver says delete
        whole = checks.one_of(strategy, ("keep_latest", "delete", "delete_all"), "prune: strategy") != "keep_latest"
        keep_last = checks.at_most(keep_last, "prune: keep_last")
        if keep_last is not None and whole:
            raise ValueError(f"prune: keep_last goes with 'keep_latest', not with {strategy!r}")
        for thread in tuple(threads):
            if whole:
                yield from self.delete_thread(thread)
                continue
            yield from self.check_layout(False)
            target = self.target(thread)
            keep: retention.Choice = retention.latest_of_each
            if keep_last is not None:
                keep = partial(retention.newest_roots, limit=keep_last, age=None)
            yield from self._remove_surely(serde, target, keep, "prune")

    def _remove_surely(self, serde: SerializerProtocol, target: Target, keep: retention.Choice, what: str) -> Operation[None]:
        for _ in range(BUSY_TRIES):
            if (yield from self.remove_all_but(serde, target, keep)) is not None:
                return
        raise ThreadBusyError(
            f"{target.about(what)}: the thread changed each of {BUSY_TRIES} times while choosing what to keep; "
            "nothing was removed, try again when it is quieter"
        )

    def survey(self, target: Target, use: bool = False) -> Operation[Survey | None]:
        """Every header of a thread, and the revision they belong to. None if the thread changed while they were read.

        Tidying up is no use of a thread: else a nightly prune would keep idle threads for ever.
        """
        survey = Survey()
        cursor: Cursor | None = START
        while cursor is not None:
            page = yield from self.page(target, None, cursor, SURVEY_CHECKPOINTS, whole=False, use=use)
            if survey.headers and page.revision != survey.revision:
                return None
            yield from compute(partial(self._surveyed, target, survey, page), _size(page.found, page.parts))
            cursor = page.following
        survey.now, survey.early = page.now, page.writes > sum(map(len, survey.writes.values()))
        survey.deleted = yield from self.deleted(target, retention.awaited(survey.headers, ()))
        return survey

    def deleted(self, target: Target, places: Iterable[retention.Place]) -> Operation[set[retention.Place]]:
        """Which of these checkpoints the tombstone of the thread names."""
        found: set[retention.Place] = set()
        left = list(places)
        for at in range(0, len(left), SURVEY_CHECKPOINTS):
            batch = left[at : at + SURVEY_CHECKPOINTS]
            fields = [keys.checkpoint_field(ns.encode(), checkpoint.encode()) for ns, checkpoint in batch]
            scores = yield Read(
                [("ZSCORE", target.keys.tombstone, name) for name in fields], target.about("reading the tombstone")
            )
            found.update(place for place, score in zip(batch, scores, strict=True) if score is not None)
        return found

    def _surveyed(self, target: Target, survey: Survey, page: Page) -> None:
        survey.revision = page.revision
        survey.tags = survey.tags or self.opened_tags(target, page.tags)
        survey.sizes |= {name: len(name) + len(content or b"") for name, content in page.tags.items()}
        for each in page.found:
            at = (each.ns.decode(errors="replace"), each.checkpoint.decode(errors="replace"))
            survey.headers[at] = self.header(target, each)
            name = keys.checkpoint_field(each.ns, each.checkpoint)
            survey.sizes[name] = len(name) + len(each.record or b"")
            if each.writes:
                survey.writes[at] = self.written(target, each.ns, each.checkpoint, each.writes)
                survey.sizes[keys.writes_field(each.ns, each.checkpoint)] = len(name) + len(each.writes)

    def written(self, target: Target, ns: bytes, checkpoint: bytes, blob: bytes | None) -> Written:
        """The pending writes in the field of a checkpoint."""
        place = target.place(b"W", ns, checkpoint)
        raws = records.split_writes(blob, place) if blob else ()
        return [(records.verified(raw, place, self.settings.integrity)[0], raw) for raw in raws]

    def opened_tags(self, target: Target, fields: Mapping[bytes, bytes | None]) -> dict[str, retention.Place]:
        """Names of checkpoints, verified."""
        tags: dict[str, retention.Place] = {}
        for name, content in fields.items():
            if content is None:
                where = f"tag {name[1:].decode(errors='replace')!r} of thread {target.thread!r}"
                raise CheckpointLostError(f"{where}: the index names it, but it is gone from the server (evicted?)")
            ns, checkpoint = records.open_tag(content, target.place(name, b"", b""), self.settings.integrity)
            tags[name[1:].decode()] = (ns.decode(), checkpoint.decode())
        return tags

    def remove_all_but(
        self, serde: SerializerProtocol, target: Target, keep: retention.Choice
    ) -> Operation[tuple[int, int] | None]:
        """Removes every checkpoint that `keep` does not choose: how many that were, of how many. None if the thread changed in
        between."""
        survey = yield from self.survey(target)
        if survey is None:
            return None

        def choose() -> list[retention.Place]:
            kept = keep(survey.followed())
            return [place for place in survey.headers if place not in kept]

        dropped = yield from compute(choose, sum(survey.sizes.values()))
        if (dropped or survey.early) and not (yield from self.remove(serde, target, survey, dropped)):
            return None
        return len(dropped), len(survey.headers)

    def remove(
        self,
        serde: SerializerProtocol,
        target: Target,
        survey: Survey,
        dropped: Iterable[retention.Place],
        replaced: Mapping[retention.Place, Written] = {},
        filed: Sequence[tuple[bytes, bytes]] = (),
    ) -> Operation[bool]:
        """Removes checkpoints, leaves of the pending writes of some only those in `replaced`, and sweeps what nothing refers to
        any more. Of a checkpoint that stays and whose parent goes, what its DeltaChannels are rebuilt from stays too
        (deltas.py). False if the thread changed since the survey. `filed`: metadata under which the thread is found then.

        Mark and sweep happen here, on verified headers and pages, and not in the script: it is told what goes or what stays,
        whichever is less, and what the counts lose. The revision says that nothing came in between.
        """
        about = target.about("removing checkpoints")
        yield from self.check_layout(False, REMOVE)
        names, raw = yield Read([("HKEYS", target.keys.hash), ("HGET", target.keys.hash, "S")], about)
        counts = None if raw is None else Counts.of(raw, target.keys.name, about)
        if counts is None or counts.revision != survey.revision:
            return False
        listed, gone = set(names), set(dropped)
        try:
            left = yield from self._left_over_early(target, about, survey, listed)
            replaced = {**replaced, **{place: [] for place in left}}
            cut = yield from self._cut(serde, target, about, survey, gone, listed)
            needed = yield from self._marked(target, about, survey, gone, replaced, cut, listed)
        except (CheckpointLostError, CheckpointCorruptError):
            # read in several steps: only if the thread is still the same is something really missing
            (raw,) = yield Read([("HGET", target.keys.hash, "S")], about)
            if raw is None or Counts.of(raw, target.keys.name, about).revision != survey.revision:
                return False
            raise
        swept = sorted(name for name in listed if name[:1] in (b"D", b"P") and len(name) == 17 and name not in needed)
        size = plain = 0
        for at in range(WEIGHED, len(swept), WEIGHED):  # the first are weighed by the script that removes them
            reply = yield Call(WEIGH, target.keys.all, [target.keys.name, *swept[at : at + WEIGHED]], about)
            size, plain = size + int(reply[1]), plain + int(reply[2])
        staged: tuple[bytes, ...] = ()
        for staging in (True, False):
            weights = (counts.stored, size, plain)
            removal = yield from compute(
                partial(Removal.of, survey, gone, replaced, cut, listed, swept, weights, staging), sum(survey.sizes.values())
            )
            if removal is None:
                return True
            if removal.how == "staged":
                key, index = staged = target.keys.staging(os.urandom(8).hex().encode())
                try:
                    yield from self.check_layout(False, KEEP, STAGE)
                    whole = yield from self._stage_staying(target, (key, index), survey.revision, removal, about)
                except ServerRefusedError:  # it is full, and a removal in place frees memory; or that is refused too
                    continue
                if not whole:
                    return False
            arguments = removal._replace(filed=filed).arguments
            keys_of_both = (*target.keys.all, *staged)
            reply = yield Call(REMOVE, keys_of_both, [target.keys.name, survey.revision, *arguments], about)
            if reply[0] != b"gone":
                break
        if reply[0] == b"stale":
            return False
        self.refuse(reply, about, also=b"none")
        return True

    def _stage_staying(
        self, target: Target, staged: tuple[bytes, bytes], revision: bytes, removal: Removal, about: str
    ) -> Operation[bool]:
        """Copies what stays to staging, on the server. False if the thread changed since `revision`."""
        fields = sorted(removal.fields)
        at = 0
        while at < len(fields):
            batch = fields[at : at + KEEP_FIELDS]
            reply = yield Call(KEEP, (*target.keys.all, *staged), [target.keys.name, revision, STAGING_MS, *batch], about)
            if reply[0] == b"stale":
                return False
            at += int(reply[1])
        yield from self._stage(target, staged, (), sorted(removal.members), about)
        return True

    def _left_over_early(
        self, target: Target, about: str, survey: Survey, listed: set[bytes]
    ) -> Operation[set[retention.Place]]:
        """Adds to a survey the pending writes whose checkpoint is not there, which no index names; which are left over."""
        early = {name: place for name in listed if name[:1] == b"W" and (place := _place_of(name)) not in survey.headers}
        if not early:
            return set()
        (blobs,) = yield Read([("HMGET", target.keys.hash, *early)], about)
        stored: dict[retention.Place, int] = {}
        for (name, place), blob in zip(early.items(), blobs, strict=True):
            survey.writes[place] = self.written(target, *keys.split_field(name), blob)
            survey.sizes[name] = len(name) + len(blob or b"")
            stored[place] = max((header.created_at for header, _ in survey.writes[place]), default=0)
        survey.deleted |= yield from self.deleted(target, stored)
        return retention.left_over(survey.headers, stored, survey.deleted, survey.tags.values()) & stored.keys()

    def _cut(
        self,
        serde: SerializerProtocol,
        target: Target,
        about: str,
        survey: Survey,
        gone: set[retention.Place],
        listed: set[bytes],
    ) -> Operation[deltas.Cut]:
        """The delta histories of checkpoints that stay, whose parents go, and that have none yet."""
        cut = deltas.Cut()
        for (ns, checkpoint), header in survey.headers.items():
            if not header.depth or (ns, checkpoint) in gone or (ns, header.parent) not in gone:
                continue
            place = target.place(b"H", ns.encode(), checkpoint.encode())
            if place.field not in listed:
                at = self.target(target.thread, ns)
                at.checkpoint = place.checkpoint
                lineage = yield from self.lineage(serde, at, about, None, None)
                settings = self.settings
                size = sum(value.size for writes in lineage.writes.values() for _, value in writes)
                made = partial(cut.add, lineage, place, header, listed, settings.integrity, settings.compression)
                yield from compute(made, size)
        return cut

    def _marked(
        self,
        target: Target,
        about: str,
        survey: Survey,
        gone: set[retention.Place],
        replaced: Mapping[retention.Place, Written],
        cut: deltas.Cut,
        listed: set[bytes],
    ) -> Operation[Mapping[bytes, retention.Place]]:
        """The chunks and pages that what stays refers to, each with who does. `listed`: all fields of the thread."""
        histories = [name for name in listed if name[:1] == b"H"]
        if histories:
            (blobs,) = yield Read([("HMGET", target.keys.hash, *histories)], about)
            for name, blob in zip(histories, blobs, strict=True):
                whose = target.place(b"H", *keys.split_field(name))
                survey.histories[_place_of(name)] = records.verified(blob or b"", whose, self.settings.integrity)[0]
                survey.sizes[name] = len(name) + len(blob or b"")
        needed: dict[bytes, retention.Place] = {}
        pages: dict[bytes, retention.Place] = {}

        def mark() -> None:
            kept = [(place, header) for place, header in survey.headers.items() if place not in gone]
            for place, written in {**survey.writes, **replaced}.items():
                if place not in gone:
                    kept += [(place, header) for header, _ in written]
            kept += [(place, header) for place, header in {**survey.histories, **cut.headers}.items() if place not in gone]
            for place, header in kept:
                needed.update((b"D" + name, place) for name in header.loose)
                pages.update((name, place) for name in header.pages)

        yield from compute(mark, sum(survey.sizes.values()))
        parts = yield from self.pages(target, [name for name in pages if b"P" + name in listed], about)
        parts.pages |= {name[1:]: content for name, content in cut.fields.items() if name[:1] == b"P"}

        def mark_chunks_of_pages() -> set[bytes]:
            for name, place in pages.items():
                needed[b"P" + name] = place
                needed.update((b"D" + chunk, place) for chunk in parts.page(name, about))
            return needed.keys() - listed - cut.fields.keys()

        lost = yield from compute(mark_chunks_of_pages, _size((), parts) + sum(map(len, parts.pages.values())))
        if lost:
            place = needed[lost.pop()]
            raise CheckpointCorruptError(
                f"{about}: checkpoint {place[1]!r} of namespace {place[0]!r} refers to parts that are not there; nothing was "
                "removed"
            )
        return needed

    def pages(self, target: Target, names: Sequence[bytes], about: str) -> Operation[Parts]:
        """Those of these pages of references that are there, as received."""
        parts = Parts()
        for at in range(0, len(names), SURVEY_CHECKPOINTS):
            batch = names[at : at + SURVEY_CHECKPOINTS]
            (contents,) = yield Read([("HMGET", target.keys.hash, *(b"P" + name for name in batch))], about)
            parts.pages.update((name, page) for name, page in zip(batch, contents, strict=True) if page is not None)
        return parts

    # --- copy ---

    def copy_thread(self, source: Any, target: Any) -> Operation[None]:
        """Reads the source field by field, seals each record for its new place, fills staging, and makes it the thread with
        one script. The source's revision, the same before and after, says that what was read belongs together."""
        origin = self.target(source)
        copy = self.target(target)
        about = f"copy_thread: from {origin.thread!r} to {copy.thread!r}"
        if origin.thread == copy.thread:
            raise ValueError(f"{about}: a thread cannot be copied onto itself")
        yield from self.check_layout(True, STAGE, ADOPT)
        for _ in range(BUSY_TRIES):
            if (yield from self._copy_once(origin, copy, about)):
                return
        raise ThreadBusyError(
            f"{about}: the source changed each of {BUSY_TRIES} times while it was read; nothing was copied, "
            "try again when it is quieter"
        )

    def _copy_once(self, origin: Target, copy: Target, about: str) -> Operation[bool]:
        counts, there = yield Read([("HGET", origin.keys.hash, "S"), ("EXISTS", origin.keys.hash)], about)
        if counts is None and not there:
            found, _ = yield from self.fetch(origin, [(b"", b"")])  # raises if it was there and got lost
            if found:
                return False  # it came into being just now
            raise ThreadNotFoundError(f"{about}: there is no thread {origin.thread!r}")
        line = records.opened_counts(counts, origin.keys.name, about)
        op = os.urandom(8).hex().encode()
        staged = copy.keys.staging(op)
        copying = Copying(origin, copy, self.settings.integrity)
        cursor = -1
        while cursor:
            cursor, there = yield from portion("HSCAN", origin.keys.hash, cursor, 100, about)
            size = sum(len(content) for _, content in there)
            fields, members = yield from compute(partial(copying.resealed, there), size)
            yield from self._stage(copy, staged, fields, members, about)
        entry = b"T" + origin.keys.name + b"\0"
        indexed = ("ZRANGEBYLEX", origin.keys.all[5], b"[" + entry, b"[" + entry + b"\xff")
        found_under, now = yield Read([indexed, ("HGET", origin.keys.hash, "S")], about)
        if now != counts:
            return False
        if copying.lacking:
            raise CheckpointLostError(f"{about}: {len(copying.lacking)} parts of the source are gone; nothing was copied")
        reply = yield Call(
            ADOPT,
            (*copy.keys.all, *staged),
            [
                copy.keys.name,
                self.settings.ttl,
                op,
                line,
                *copying.came,
                *counted(copying.runs),
                *counted([tuple(member[len(entry) :].split(b"\0", 1)) for member in found_under]),
            ],
            about,
        )
        if reply[0] == b"exists":
            raise ThreadExistsError(
                f"{about}: thread {copy.thread!r} exists and would be overwritten; delete_thread it first, or copy to a new id"
            )
        return bool(reply[0] == b"ok")

    # --- shared ---

    def _ttl(self, config: RunnableConfig) -> Argument:
        """TTL in ms: behind an r that of the run (config["configurable"]["ttl"], seconds), else that of the saver."""
        own = configurable(config).get("ttl")
        return self.settings.ttl if own is None else b"r%d" % checks.ttl_ms(own, "config['configurable']['ttl']")

    @property
    def _refresh(self) -> int:
        return self.settings.ttl if self.settings.refresh else -1

    def ping(self) -> Operation[bool]:
        (reply,) = yield Read([("PING",)], "ping")
        return bool(reply)

    def check_layout(self, write: bool, *scripts: Script) -> Operation[None]:
        """Once for each saver: is the data under this prefix of a layout this version may read, or write? And before the first
        use of scripts that write: may the user run all their commands? A right that is missing late in a script would leave
        half of what it writes."""
        needed: frozenset[str] = frozenset().union(*(script.commands for script in scripts))
        if needed:
            needed |= {"GET", "SET"} if write else {"GET"}
        proven = not needed or (self._denied is not None and needed.isdisjoint(self._denied))
        if proven and self._layout_seen and (self._layout_written or not write):
            return
        key = keys.layout_key(self.settings.prefix)
        about = f"first use of prefix {self.settings.prefix!r}"
        number: Argument = f"{keys.LAYOUT} {keys.LAYOUT}" if write else ""
        others = sorted(all_commands() - needed) if needed else []
        both = (key, keys.absent_key(self.settings.prefix))
        reply = yield Call(FIRST, both, [number, len(needed), *sorted(needed), *others], about)
        stored = reply[1]
        if needed:
            self._denied = {name.decode(): why.decode() for name, why in pairs(reply[2:])}
            lacking = sorted(needed & self._denied.keys())
            if lacking:
                raise ServerRefusedError(
                    f"prefix {self.settings.prefix!r}: the server does not let this user run {', '.join(lacking)} "
                    f"({self._denied[lacking[0]]}), which {' and '.join(script.name for script in scripts)} may need; nothing "
                    f"was written. Grant {' '.join('+' + name.lower() for name in lacking)}, or allow the command on the server"
                )
        if stored is not None:
            try:
                layout, writers = (int(part) for part in stored.split())
            except ValueError:
                raise LayoutError(f"{about}: {stored!r} is no layout; is the prefix used by something else?") from None
            if writers > keys.LAYOUT and (write or layout != keys.LAYOUT):
                raise LayoutError(
                    f"{about}: the data has layout {layout}, which only versions that know layout {writers} may write, and "
                    f"this one knows {keys.LAYOUT}; update langgraph-redis-state"
                )
            self._layout_written = writers <= keys.LAYOUT
        self._layout_seen = True

    def refuse(self, reply: Sequence[Any], about: str, also: bytes = b"ok") -> None:
        """Raises for every reply of a script that is not `ok` (or `also`)."""
        word = reply[0]
        if word in (b"ok", also):
            return
        if word == b"deleted":
            when = datetime.fromtimestamp(int(reply[1]) / 1e3, timezone.utc).isoformat(timespec="milliseconds")
            raise ThreadDeletedError(
                f"{about}: the thread was deleted at {when} (by the server's clock), after this run began; "
                "nothing was written. Start a new run on the thread id, without a checkpoint_id"
            )
        if word == b"lost":
            raise CheckpointLostError(
                f"{about}: the thread's data is gone while its index is there; the server evicted it. Use a maxmemory-policy "
                "that does not evict (noeviction), and delete_thread or start over with a new thread id"
            )
        if word == b"conflict":
            raise CheckpointConflictError(
                f"{about}: the newest checkpoint is {reply[1].decode()!r}, and this is no child of it: another writer was "
                "first, or the config names an older one. Nothing was written; read the thread again and go on from there"
            )
        if word == b"large":
            raise ThreadTooLargeError(
                f"{about}: the thread would take {int(reply[1])} bytes, max_thread_bytes allows {self.settings.max_bytes}; "
                "nothing was written. Prune it, raise max_thread_bytes, or begin another"
            )
        if word == b"writes":
            raise CheckpointCorruptError(f"{about}: the list of pending writes there is damaged; nothing was written")
        if word == b"settings":
            raise CheckpointCorruptError(
                f"{about}: the thread's TTL settings (field T) are damaged; set_ttl or persist writes them anew"
            )
        if word == b"counts":
            raise CheckpointCorruptError(
                f"{about}: the thread's counts (field S) are damaged; its checkpoints can be read one by one, and "
                "delete_thread removes it"
            )
        if word == b"missing":
            raise CheckpointLostError(
                f"{about}: the server keeps losing parts of the state ({len(reply) - 1} are missing); nothing was written. "
                "Is maxmemory-policy evicting keys?"
            )
        raise CheckpointCorruptError(f"{about}: unexpected reply {word!r} from the server")


class Listing:
    """One `list` call, page by page: `next_page` gives tuples, or None at the end. Holds where it stands, does no I/O."""

    def __init__(
        self,
        operations: Operations,
        serde: SerializerProtocol,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._operations, self._serde, self._filter = operations, serde, deepcopy(filter) or None
        self._limit = checks.limit(limit, "list")
        self._ns: str | None = None
        self._only = b""
        self._targets: list[Target] | None = None
        if config is not None:
            target = Target.of(operations.settings.prefix, config)
            self._ns = configurable(config).get("checkpoint_ns")
            self._only, self._targets = target.checkpoint, [target]
        ceiling = (before or {}).get("configurable", {}).get("checkpoint_id")
        self._before = keys.encode(ceiling, "before's checkpoint_id") if ceiling else b""
        if self._only and self._before and self._only >= self._before:
            self._targets = []
        self._cursor: Cursor | None = None

    def next_page(self) -> Operation[list[CheckpointTuple] | None]:
        if self._targets is None:
            self._targets = [self._operations.target(thread) for thread, _ in (yield from self._operations.threads())]
        while self._targets and (self._limit is None or self._limit > 0):
            if self._cursor is None:  # ids hold no NUL, so nothing lies between an id and that id followed by \x01
                self._cursor = (self._only + b"\x01" if self._only else self._before, None)
            most = PAGE_CHECKPOINTS
            if self._filter is None and self._limit is not None:
                most = min(most, self._limit)
            if self._only:
                most = 1 if self._ns is not None else 20
            tuples, self._cursor = yield from self._operations.list_page(
                self._serde, self._targets[0], self._ns, self._cursor, most, self._filter
            )
            if self._only:
                wanted = self._only.decode()
                beyond = any(tup.config["configurable"]["checkpoint_id"] != wanted for tup in tuples)
                tuples = [tup for tup in tuples if tup.config["configurable"]["checkpoint_id"] == wanted]
                if beyond or not tuples:
                    self._cursor = None
            if self._cursor is None:
                self._targets.pop(0)
            if self._limit is not None:
                tuples = tuples[: self._limit]
                self._limit -= len(tuples)
            if tuples:
                return tuples
        return None


def _stored(target: Target, found: Found) -> tuple[bytes, Place]:
    place = target.place(b"C", found.ns, found.checkpoint)
    if found.record is None:
        raise CheckpointLostError(f"{place}: the index names it, but it is gone from the server (evicted?)")
    return found.record, place


def _as_stored(value: Value, parts: Parts, where: str) -> Value:
    return value


def _place_of(field: bytes) -> retention.Place:
    ns, checkpoint = keys.split_field(field)
    return ns.decode(errors="replace"), checkpoint.decode(errors="replace")


def stored_text(name: bytes, where: str) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise CheckpointCorruptError(f"{where} holds {name!r}, which is no id; something else wrote there") from None


def _parts(pages: Sequence[bytes], chunks: Sequence[bytes]) -> Parts:
    return Parts(
        {name: content for name, content in zip(pages[::2], pages[1::2], strict=True) if content is not None},
        {name: content for name, content in zip(chunks[::2], chunks[1::2], strict=True) if content is not None},
    )


def _size(found: Sequence[Found], parts: Parts) -> int:
    received = sum(len(f.record or b"") + len(f.writes or b"") for f in found) + sum(map(len, parts.chunks.values()))
    return received + sum(map(len, parts.plain.values()))


def _taken_over(known: Known | None, versions: Mapping[str, Any], names: Iterable[str]) -> dict[str, Value]:
    if known is None:
        return {}
    return {
        name: known.values[name]
        for name in names
        if name in known.values and known.versions.get(name, _MISSING) == versions[name]
    }


def _guards(ns: bytes, parent: bytes, parents: Any) -> list[bytes]:
    """The checkpoints that one of this namespace builds on, as fields: its parent, and those that called it, by namespace."""
    guards = [keys.checkpoint_field(ns, parent)] if parent else []
    if isinstance(parents, Mapping):
        for space, checkpoint in parents.items():
            if isinstance(space, str) and isinstance(checkpoint, str) and checkpoint:
                guards.append(keys.checkpoint_field(keys.encode(space, "a namespace"), keys.encode(checkpoint, "a parent id")))
    return guards


def metadata_text(value: Any) -> bytes:
    """A metadata value in the index: its type and its text, so that 1, True and "1" differ."""
    found = checks.plain(value)
    return keys.encode(f"{type(found).__name__}:{found}", "an indexed metadata value")


def _run(run: Any) -> bytes:
    text = keys.id_text(run)
    if text is None:
        raise InvalidConfigError(f"delete_for_runs: a run id must be a string (or an int or UUID), not {run!r}")
    return keys.encode(text, "run_id")
