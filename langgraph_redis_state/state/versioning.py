"""The operations behind `RedisStatePersistence`, built on the verbs of the saver. No I/O and no storage of its own.

A state id is a thread. A version is a checkpoint in the root namespace. The state is the only channel, cut so that a changed
key of a dict is stored alone. Everything that holds for the saver holds here: deduplication, checksums, expiry, Cluster.

Rule 1: a state is serialized before the first effect, so the call saves the state as it was when it was made.
Rule 2: a put names the version that must be the newest. If two programs save at once, one is refused and tries again, and a
command that redis-py repeats is recognized. A process remembers the versions of its last save; if refused, it reads them.
Rule 3: the server's counter of the thread numbers versions and never decreases. A number given by the caller moves the count:
the record stores by how much (`offset`).
Rule 4: the tag index may name a state whose newest version no longer has the tag. A search reads that version and decides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from .. import validation
from ..address import Address
from ..caching.bounded import BoundedCache, Locked
from ..caching.manifests import Manifest
from ..caching.parts import Parts
from ..effects import Operation, Read, compute, emitted
from ..errors import (
    CheckpointConflictError,
    CheckpointerError,
    CheckpointNotFoundError,
    SerializationError,
    ServerRefusedError,
    ThreadBusyError,
    ThreadNotFoundError,
)
from ..history.threads import find, list_threads, server_info, set_ttl
from ..history.threads import stats as read_stats
from ..operations.engine import Engine, metadata_text
from ..operations.reading import START, Cursor, fetch, read_page
from ..operations.removing import delete_thread, next_revision, remove_known, remove_surely
from ..operations.retention import is_due, newest_roots
from ..operations.surveying import SURVEY_CHECKPOINTS
from ..operations.thread_headers import CheckpointKey, ThreadHeaders
from ..operations.writing import WARN_BYTES, send
from ..scripts import commands
from ..serialization.decode import StoredCheckpoint, loaded
from ..serialization.encode import NewCheckpoint, dumped, stored_rest
from ..storage import keys, records
from ..storage.bodies import Value
from ..storage.ids import id_above
from ..storage.keys import ROOT
from .metadata import (
    Seen,
    StateLike,
    StateMetadata,
    StateVersion,
    VersionLike,
    checked_tags,
    content_checksum,
    index_name,
    named,
    numbered,
    version_label,
)

logger = logging.getLogger("langgraph_redis_state")

GONE = -2
"""PTTL's reply if the key does not exist: the state expired while it was read."""

TRIES = 1000
"""Attempts of a save. Each failed attempt is a successful save of another program."""

WHOLE = "state"
"""Name of the only channel."""


def state_ids(engine: Engine, prefix: str | None = None) -> Operation[list[str]]:
    """The ids of all states, the last saved first."""
    listing = list_threads(engine, prefix, None, True, None)
    found: list[str] = []
    while (infos := (yield from emitted(listing))) is not None:
        found += [info.thread_id for info in infos]
    return found


class States(Locked):
    """All operations on states. `keep`: the most versions of a state, None: no limit."""

    def __init__(self, engine: Engine, serde: SerializerProtocol, keep: int | None) -> None:
        super().__init__()
        self._engine, self._serde, self._keep = engine, serde, keep
        self._seen: BoundedCache[bytes, Seen] = BoundedCache(engine.seen_bytes, lambda name, seen: len(name) + seen.size)
        self._hits = self._misses = 0

    # --- saving ---

    def save(
        self, state: Any, state_id: StateLike, version: VersionLike | None, tags: Sequence[str] | None, ttl: Any
    ) -> Operation[StateMetadata]:
        target = self._target(state_id)
        label = None if version is None else version_label(version)
        told: dict[str, Any] = {"source": "update", **({"tags": checked_tags(tags)} if tags else {})}
        own = 0 if ttl is None else validation.ttl_ms(ttl, "ttl_seconds")
        about = f"saving state {target.thread!r}"
        try:
            content = dumped(self._serde, state, about)
        except SerializationError:
            for key, value in state.items() if isinstance(state, dict) else ():
                dumped(self._serde, value, f"{about}, key {key!r}")  # raises for the key that is at fault
            raise
        told["checksum"] = yield from compute(lambda: content_checksum(*content), len(content[1]))
        return (yield from self._store(target, content, told, label, own))

    def _store(
        self,
        target: Address,
        content: tuple[str, bytes] | Value,
        told: Mapping[str, Any],
        label: int | str | None = None,
        own: int = 0,
    ) -> Operation[StateMetadata]:
        """Saves `content`: serialized, or as another version stores it. `own`: the state's own TTL in ms, 0: no change."""
        about = f"saving state {target.thread!r}"
        yield from self._engine.check_layout(True, commands.PUT, commands.STAGE, *((commands.REMOVE,) if self._keep else ()))
        seen = self._seen.take(target.keys.name) if self._keep or label is None else None
        for _ in range(TRIES):
            remembered, seen = seen, None
            # twice as many as are kept: another program may not have removed its surplus yet
            most = 2 * self._keep if self._keep else 1 if label is None else None
            before = remembered or (yield from self._look(target, most))
            old = named(before.versions[: self._keep], label)
            metadata = {**told, **numbered(label, old, before.head), "compression": self._engine.settings.compression.value}
            base = old or before.head
            known = self._engine.manifests.get(target.keys.name, b"", base.id.encode()) if base else None
            try:
                done, saved = yield from self._put(target, content, metadata, before, old, known, own)
                break
            except CheckpointConflictError:
                logger.debug("%s: the state changed since it was read, reading it again", about)
        else:
            raise ThreadBusyError(f"{about}: other programs saved first {TRIES} times; nothing was written, try again")
        if done.stored > WARN_BYTES:
            logger.warning("%s: it takes %d bytes with all its versions; consider a smaller max_versions", about, done.stored)
        if own:
            with suppress(ThreadNotFoundError):  # another program deleted the state
                yield from set_ttl(self._engine, target.thread, "own", own / 1000)
        versions = [saved if each is old else each for each in before.versions] if old else [saved, *before.versions]
        undisturbed = not before.versions or done.revision == next_revision(before.revision)
        try:
            yield from self._remove_surplus(target, Seen(versions, done.revision), old, done.roots, undisturbed)
        except CheckpointerError as error:  # surplus versions are not shown, and the next save tries again
            logger.error("%s: it is saved, but what it replaces could not be removed: %s", about, error)
        return saved.described(target.thread, own or done.left)

    def _put(
        self,
        target: Address,
        content: tuple[str, bytes] | Value,
        metadata: Mapping[str, Any],
        before: Seen,
        old: StateVersion | None,
        known: Manifest | None,
        own: int,
    ) -> Operation[tuple[commands.Put, StateVersion]]:
        """One try to store a version after those in `before`, or in place of `old`. `known`: what one of them refers to."""
        about = f"saving state {target.thread!r}"
        head = before.head.id if before.head else ""
        id, parent = (old.id, old.header.parent or "") if old else (id_above(head, about), head)
        target.checkpoint = id.encode()
        ts = datetime.now(timezone.utc).isoformat() if old else ""  # the server stores when a version was created
        rest, flags = stored_rest({"v": 4, "id": None, "ts": ts, "channel_versions": {}, "versions_seen": {}})
        draft = NewCheckpoint(
            rest=dumped(self._serde, [rest, metadata], f"{about}: its metadata"),
            serialized={} if isinstance(content, Value) else {WHOLE: content},
            carried={WHOLE: content} if isinstance(content, Value) else {},
            versions={},
            flags=flags,
            rebuilt={},
            parent=parent.encode(),
            root=b"",
            run=b"",
            fine=True,
        )
        indexed = self._indexed(metadata.get("tags", ()), before.versions, old)
        expected = head.encode()
        if any(not value for _, value in indexed):  # that no version has these tags any more is true at this revision only
            expected += b"\0" + before.revision
        ttl = own or self._engine.settings.ttl
        guards = [keys.checkpoint_field(target.ns, draft.parent)] if draft.parent else []
        done, sent = yield from send(
            self._engine, target, about, draft, ttl, expected=expected, known=known, guards=guards, indexed=indexed
        )
        header = records.parsed(bytes(records.STAMP) + sent.record, target.place(b"C", b"", target.checkpoint))[0]
        header.version, header.created_at, header.new_bytes = done.version, done.created_at, done.new_bytes
        return done, StateVersion(id, header, metadata, ts, header.logical - len(draft.rest[1]))

    def _remove_surplus(
        self, target: Address, seen: Seen, old: StateVersion | None, count: int, undisturbed: bool
    ) -> Operation[None]:
        """After a save: removes surplus versions if that is due, and chunks that only the former content of `old` used.

        Remembers the others. `count`: versions on the server; `undisturbed`: no other program changed the state meanwhile.
        """
        versions, revision = seen.versions, seen.revision if undisturbed else None
        if old or is_due(count, self._keep, None):
            versions, surplus = versions[: self._keep], versions[self._keep or len(versions) :]
            if revision is not None and count == len(seen.versions):
                kept, gone = [each.header for each in versions], {each.id: each.header for each in surplus}
                replaced = [old.header] if old else []
                revision = yield from remove_known(self._engine, target, revision, kept, gone, replaced)
            else:
                revision = None
            if revision is None:
                yield from remove_surely(self._engine, self._serde, target, self._newest, "save", sweep=old is not None)
        if revision is not None:
            self._seen.put(target.keys.name, Seen(versions if self._keep else versions[:1], revision))

    def _indexed(
        self, tags: Iterable[str], versions: Sequence[StateVersion], old: StateVersion | None
    ) -> list[tuple[bytes, bytes]]:
        """Changes of the tag index: adds the tags of the saved version, removes those that only versions had which it replaces
        or pushes out. Replacing an older version removes none: another program may be saving the newest."""
        gone = versions[self._keep - 1 :] if self._keep and not old else [old] if old and old is versions[0] else []
        staying = {tag for each in versions if each not in gone for tag in each.tags}
        leaving = {tag for each in gone for tag in each.tags} - staying
        changes = dict.fromkeys(leaving, b"") | dict.fromkeys(tags, metadata_text(True))
        return [(index_name(tag).encode(), value) for tag, value in changes.items()]

    # --- reading ---

    def load(self, state_id: StateLike, version: VersionLike | None) -> Operation[tuple[Any, StateMetadata] | None]:
        target = self._target(state_id)
        chosen = None if version is None else (yield from self._find(target, version))
        found = None
        if version is None or chosen:
            found = yield from self._fetch(target, chosen.id if chosen else "")
        result = None
        if found:
            stored, value, parts = found
            about = f"loading version {stored.version!r} of state {target.thread!r}"
            state = yield from compute(lambda: loaded(self._serde, value, parts, about), value.size)
            described = yield from self._described(target, [stored])
            result = (state, described[0]) if described else None
        with self.lock:
            self._hits += result is not None
            self._misses += result is None
        return result

    def _fetch(self, target: Address, id: str) -> Operation[tuple[StateVersion, Value, Parts] | None]:
        """A version, its content as it is stored, and the chunks of that; None if there is none. id "": the newest."""
        yield from self._engine.check_layout(False)
        found, parts = yield from fetch(self._engine, target, [(b"", id.encode())])
        if not found:
            return None
        version = self._version(found[0])
        known = found[0].manifest(parts, {}, {})
        self._engine.manifests.put(target.keys.name, b"", found[0].checkpoint, known)
        return version, known.values[WHOLE], parts

    def list_states(self, tags: Sequence[str] | None, prefix: str | None, match: str) -> Operation[list[StateMetadata]]:
        match = validation.one_of(match, ("any", "all"), "match")
        prefix = validation.begin(prefix, "list_states: prefix")
        wanted = None if tags is None else set(checked_tags(tags))
        found = (yield from state_ids(self._engine, prefix)) if wanted is None else (yield from self._tagged(wanted, match))
        result: list[StateMetadata] = []
        for target in [self._target(name) for name in found if name.startswith(prefix)]:
            head = yield from self._find(target, None)
            held = set(head.tags) if head else set()
            if head and (wanted is None or (wanted <= held if match == "all" else wanted & held)):
                result += yield from self._described(target, [head])
        return result

    def _tagged(self, wanted: set[str], match: str) -> Operation[list[str]]:
        """The ids of the states that the index names for any, or all, of the tags, the last saved first."""
        yield from self._engine.check_layout(False)
        active: dict[str, float] = {}
        for group in [wanted] if match == "all" and wanted else [{tag} for tag in wanted]:
            active |= dict((yield from find(self._engine, dict.fromkeys(map(index_name, group), True))))
        return sorted(active, key=lambda name: (active[name], name), reverse=True)

    def list_versions(self, state_id: StateLike) -> Operation[list[StateMetadata]]:
        target = self._target(state_id)
        versions = (yield from self._look(target, self._keep)).versions
        return (yield from self._described(target, versions[::-1]))

    def exists(self, state_id: StateLike, version: VersionLike | None) -> Operation[bool]:
        return (yield from self._find(self._target(state_id), version)) is not None

    def stats(self) -> Operation[dict[str, Any]]:
        yield from self._engine.check_layout(False)
        stats = yield from read_stats(self._engine, None)
        info: dict[str, Any] = dict(stats.server or {})
        if info:
            with suppress(ServerRefusedError):  # the user may ask for memory, and not for the version
                info |= yield from server_info("server")
        with self.lock:
            hits, misses = self._hits, self._misses
        return {
            "states": stats.threads,
            "total_states": stats.threads,
            "versions": stats.checkpoints,
            "stored_bytes": stats.stored_bytes,
            "logical_bytes": stats.logical_bytes,
            "compression_ratio": stats.ratio,
            "hits": hits,
            "misses": misses,
            "redis_info": {name: info[name] for name in ("used_memory", "used_memory_human", "redis_version") if name in info},
        }

    # --- changing ---

    def delete_version(self, state_id: StateLike, version: VersionLike) -> Operation[bool]:
        target = self._target(state_id)
        found = yield from self._find(target, version)
        if found is None:
            return False

        def all_but_it(thread: ThreadHeaders) -> set[CheckpointKey]:
            return self._newest(thread) - {(ROOT, found.id)}

        yield from remove_surely(self._engine, self._serde, target, all_but_it, "delete_version")
        return True

    def delete_state(self, state_id: StateLike) -> Operation[bool]:
        target = self._target(state_id)
        there = bool((yield Read([("EXISTS", target.keys.hash)], f"deleting state {target.thread!r}"))[0])
        yield from delete_thread(self._engine, target.thread)
        return there

    def rollback(self, state_id: StateLike, version: VersionLike, truncate: bool) -> Operation[StateMetadata]:
        target = self._target(state_id)
        about = f"rollback of state {target.thread!r} to version {version_label(version)!r}"
        goal = yield from self._find(target, version)
        if goal is None:
            raise CheckpointNotFoundError(f"{about}: there is no such version; list_versions says which there are")

        def up_to_goal(thread: ThreadHeaders) -> set[CheckpointKey]:
            kept = {place for place in self._newest(thread) if place[1] <= goal.id}
            if (ROOT, goal.id) not in kept:
                raise CheckpointNotFoundError(f"{about}: another program removed it; nothing was changed")
            return kept

        if truncate:
            yield from remove_surely(self._engine, self._serde, target, up_to_goal, "rollback")
            (left,) = yield Read([("PTTL", target.keys.hash)], about)
            return goal.described(target.thread, left)
        found = yield from self._fetch(target, goal.id)
        if found is None:
            raise CheckpointNotFoundError(f"{about}: another program removed it; nothing was changed")
        told = {"source": "fork", "forked_from": goal.id, "checksum": goal.metadata["checksum"]}
        return (yield from self._store(target, found[1], told | ({"tags": goal.tags} if goal.tags else {})))

    def touch(self, state_id: StateLike, ttl: Any) -> Operation[bool]:
        target = self._target(state_id)
        seconds = None if ttl is None else validation.ttl_ms(ttl, "ttl_seconds") / 1000
        try:
            yield from set_ttl(self._engine, target.thread, "default" if ttl is None else "own", seconds)
        except ThreadNotFoundError:
            return False
        return True

    # --- what the operations have in common ---

    def _newest(self, thread: ThreadHeaders) -> set[CheckpointKey]:
        """The versions to keep, so that a removal never shows a surplus version again."""
        return newest_roots(thread, limit=self._keep, age=None)

    def _target(self, state_id: StateLike) -> Address:
        return self._engine.address(getattr(state_id, "state_id", state_id))

    def _look(self, target: Address, most: int | None) -> Operation[Seen]:
        """The newest versions of a state; None: all."""
        yield from self._engine.check_layout(False)
        versions: list[StateVersion] = []
        revision = b""
        cursor: Cursor | None = START
        while cursor is not None and (most is None or len(versions) < most):
            size = SURVEY_CHECKPOINTS if most is None else min(SURVEY_CHECKPOINTS, most - len(versions))
            page = yield from read_page(self._engine, target, "", cursor, size, whole=False)
            versions += [self._version(found) for found in page.found]
            revision, cursor = revision or page.revision, page.following
        return Seen(versions, revision)

    def _find(self, target: Address, version: VersionLike | None) -> Operation[StateVersion | None]:
        """A version, by default the newest; None if there is none."""
        if version is None:
            return (yield from self._look(target, 1)).head
        label = version_label(version)
        return named((yield from self._look(target, self._keep)).versions, label)

    def _version(self, found: StoredCheckpoint) -> StateVersion:
        header, rest = found.header, found.rest
        try:
            checkpoint, metadata = self._serde.loads_typed(rest)
            metadata["checksum"], dict.fromkeys(found.channels)[WHOLE]
            return StateVersion(found.checkpoint.decode(), header, metadata, checkpoint["ts"], header.logical - len(rest[1]))
        except Exception as error:
            raise SerializationError(
                f"{found.place}: it is intact, but is no saved state ({type(error).__name__}: {error}); use the serializer "
                "and the prefix it was saved with"
            ) from error

    def _described(self, target: Address, versions: Iterable[StateVersion]) -> Operation[list[StateMetadata]]:
        """The metadata of versions, with the time until the state expires; none if it expired while it was read."""
        (left,) = yield Read([("PTTL", target.keys.hash)], f"reading when state {target.thread!r} expires")
        return [] if left == GONE else [each.described(target.thread, left) for each in versions]
