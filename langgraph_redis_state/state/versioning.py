"""What each method of `RedisStatePersistence` does, once, as operations on those of the saver. No I/O, no storage of its own.

A state id is a thread, a version of it is a checkpoint in the root namespace, the state is its one channel, cut so that a key
of a dict that changes is stored by itself. So whatever holds for the saver holds here: deduplication, checksums, expiry,
Cluster, and the tools that read its threads.

Rule 1: a state is serialized before the first effect; what is saved is the state as it was when the call was made.
Rule 2: a put says which version must be the newest. So of many savers none overwrites another, each tries again, and a command
that redis-py repeats is recognised. What the newest is, a process remembers from its own last save; if it is wrong, it looks.
Rule 3: versions are numbered by the server's counter of the thread, which never goes back. A number that was given moves it:
the record tells by how much (`offset`).
Rule 4: the tag index may name a state whose newest version lost the tag; searching reads that version and decides.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Concatenate, ParamSpec, TypeVar

from langgraph.checkpoint.serde.base import SerializerProtocol

from .. import validation
from ..address import Address
from ..caching.bounded import BoundedCache, Locked
from ..effects import Operation, Read, compute, emitted
from ..errors import (
    CheckpointConflictError,
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    CheckpointNotFoundError,
    SerializationError,
    ServerRefusedError,
    ThreadBusyError,
    ThreadDeletedError,
    ThreadNotFoundError,
    ThreadTooLargeError,
)
from ..history.rollback import truncate_to
from ..history.threads import expire, find, list_threads, read_stats, server_info
from ..operations.engine import Engine, metadata_text
from ..operations.reading import START, Cursor, decode_tuple, fetch, read_page, read_reference_pages
from ..operations.removal_plan import WEIGHED
from ..operations.removing import BUSY_TRIES, delete_thread, remove
from ..operations.surveying import SURVEY_CHECKPOINTS, read_headers
from ..operations.writing import WARN_BYTES, send
from ..scripts import commands
from ..scripts.commands import RemovalPlan
from ..serialization import decode
from ..serialization.decode import StoredCheckpoint
from ..serialization.encode import NewCheckpoint, dumped, stored_rest
from ..storage import keys
from ..storage.bodies import Value
from ..storage.ids import id_above
from ..storage.records import Header
from ..storage.thread_fields import Counts
from .metadata import (
    Entry,
    Seen,
    StateLike,
    StateMetadata,
    VersionLike,
    checked_tags,
    content_checksum,
    count_chunks,
    index_name,
    named,
    next_revision,
    numbered,
    parts_of,
    union,
    version_label,
)

logger = logging.getLogger("langgraph_redis_state")

P = ParamSpec("P")

T = TypeVar("T")


def _logged(operation: Callable[Concatenate[States, P], Operation[T]]) -> Callable[Concatenate[States, P], Operation[T]]:
    """Says at the end what was asked, what came of it, and how long it took."""

    @functools.wraps(operation)
    def logged(self: States, /, *args: P.args, **kwargs: P.kwargs) -> Operation[T]:
        began = time.perf_counter()
        result = yield from operation(self, *args, **kwargs)
        if logger.isEnabledFor(logging.DEBUG):
            asked = ", ".join(f"{each.state_id if isinstance(each, StateMetadata) else each!r}" for each in args)
            took = (time.perf_counter() - began) * 1000
            logger.debug("%s(%s): %s, %.1f ms", operation.__name__, asked, _outcome(result), took)
        return result

    return logged


def _outcome(result: Any) -> str:
    if isinstance(result, list):
        return f"{len(result)} found"
    if isinstance(result, tuple):  # a state and its metadata
        return f"{result[1].size_bytes} bytes"
    if isinstance(result, StateMetadata):
        return f"version {result.version!r}"
    return "not there" if result is None else str(result) if isinstance(result, bool) else "done"


GONE = -2
"""What PTTL says of a key that is not there: the state expired while it was read."""

TRIES = 1000
"""Each try that fails is a save of somebody else that succeeded."""

WHOLE = "state"
"""Name of the one channel."""


class States(Locked):
    """All operations on states. `keep`: how many versions a state has at most, None: any number."""

    def __init__(self, engine: Engine, serde: SerializerProtocol, keep: int | None) -> None:
        super().__init__()
        self._engine, self._serde, self._keep = engine, serde, keep
        self._seen: BoundedCache[bytes, Seen] = BoundedCache(engine.seen_bytes, lambda name, seen: len(name) + seen.size)
        """What a state was after the last save of this process. Only ever a hint."""
        self._hits = self._misses = 0

    # --- saving ---

    def save(
        self, state: Any, state_id: StateLike, version: VersionLike | None, tags: Sequence[str] | None, ttl: Any
    ) -> Operation[StateMetadata]:
        target = self._target(state_id)
        label = None if version is None else version_label(version)
        described: dict[str, Any] = {"source": "update", **({"tags": checked_tags(tags)} if tags else {})}
        own = 0 if ttl is None else validation.ttl_ms(ttl, "ttl_seconds")
        content = self._dumped(state, f"saving state {target.thread!r}")
        described["checksum"] = yield from compute(lambda: content_checksum(*content), len(content[1]))
        return (yield from self._store(target, content, described, label, own))

    def _dumped(self, state: Any, about: str) -> tuple[str, bytes]:
        try:
            return dumped(self._serde, state, about)
        except SerializationError:
            for key, value in state.items() if isinstance(state, dict) else ():
                dumped(self._serde, value, f"{about}, key {key!r}")
            raise

    def _store(
        self,
        target: Address,
        content: tuple[str, bytes] | Value,
        described: Mapping[str, Any],
        label: int | str | None = None,
        own: int = 0,
    ) -> Operation[StateMetadata]:
        """`content`: serialized, or as another version holds it. `own`: the state's own TTL from now on, ms; 0: as it is."""
        began = time.perf_counter()
        engine, name, keep = self._engine, target.keys.name, self._keep
        about = f"saving state {target.thread!r}"
        yield from engine.check_layout(True, commands.PUT, commands.STAGE, *((commands.REMOVE,) if self._keep else ()))
        seen = self._seen.take(name) if keep or label is None else None
        for _ in range(TRIES):
            remembered, seen = seen, None
            # twice as many as are kept: others may not have come to remove what they pushed out
            most = 2 * keep if keep else 1 if label is None else None
            entries, revision = remembered or (yield from self._look(target, most))
            head = entries[0] if entries else None
            old = named(entries[:keep], label)
            base = old or head
            id = old.id if old else id_above(head.id if head else "", about)
            metadata = {**described, **numbered(label, old, head), "compression": engine.settings.compression.value}
            ts = datetime.now(timezone.utc).isoformat() if old else ""  # else the server says when
            parent = (old.header.parent if old else head.id if head else None) or ""
            target.checkpoint = id.encode()
            draft = self._draft(content, ts, metadata, parent, about)
            index = self._index(described.get("tags", ()), entries, old)
            expected = head.id.encode() if head else b""
            if any(not value for _, value in index):  # what no version has any more, as far as these are what is stored
                expected += b"\0" + revision
            known = engine.manifests.get(name, b"", base.id.encode()) if base else None
            ttl = own or engine.settings.ttl
            try:
                done, _ = yield from send(engine, target, about, draft, ttl, expected=expected, known=known, indexed=index)
                break
            except CheckpointConflictError:
                pass
            except (CheckpointLostError, CheckpointCorruptError, ThreadDeletedError, ThreadTooLargeError):
                if remembered is None:
                    raise
            logger.debug("%s: it is not as it was, looking again", about)
        else:
            raise ThreadBusyError(f"{about}: other savers were first {TRIES} times; nothing was written, try again")
        left = done.left
        if done.stored > WARN_BYTES:
            logger.warning("%s: it takes %d bytes with all its versions; consider a smaller max_versions", about, done.stored)
        if own:
            left = own
            with suppress(ThreadNotFoundError):  # deleted meanwhile
                yield from expire(self._engine, target.thread, "own", own / 1000)
        sent = engine.manifests.get(name, b"", target.checkpoint)
        parts = parts_of(sent.pages, sent.chunks) if sent else None
        size = content.size if isinstance(content, Value) else len(content[1])
        logical = len(draft.rest[1]) + size
        header = Header(done.created_at, done.version, done.new_bytes, logical=logical, parent=parent or None)
        header.chunked = sent.values[WHOLE].chunked if sent else 0
        saved = Entry(id, header, metadata, ts, size, parts)
        versions = [saved if each is old else each for each in entries] if old else [saved, *entries]
        undisturbed = parts is not None and (not entries or done.revision == next_revision(revision))
        try:
            yield from self._tidy(target, versions, old, done.roots, done.revision if undisturbed else None)
        except CheckpointerError as error:  # it is saved; older versions are not shown, and the next save tries again
            logger.error("%s: it is saved, but what it replaces could not be removed: %s", about, error)
        there = base.parts if base else frozenset()
        logger.debug(
            "save: state %r version %r: %d bytes, %d new on the server, %s new and %s shared chunks, %.1f ms",
            target.thread,
            saved.version,
            size,
            header.new_bytes,
            *(("?", "?") if there is None or parts is None else (count_chunks(parts - there), count_chunks(parts & there))),
            (time.perf_counter() - began) * 1000,
        )
        return saved.described(target, left)

    def _draft(
        self, content: tuple[str, bytes] | Value, ts: str, metadata: Mapping[str, Any], parent: str, about: str
    ) -> NewCheckpoint:
        """A checkpoint without versions of channels, which only a running graph needs."""
        rest, flags = stored_rest({"v": 4, "id": None, "ts": ts, "channel_versions": {}, "versions_seen": {}})
        return NewCheckpoint(
            rest=dumped(self._serde, [rest, metadata], f"{about}: its metadata"),
            serialized={} if isinstance(content, Value) else {WHOLE: content},
            carried={WHOLE: content} if isinstance(content, Value) else {},
            versions={},
            flags=flags,
            depth=0,
            parent=parent.encode(),
            root=b"",
            run=b"",
            fine=True,
        )

    def _tidy(
        self, target: Address, versions: Sequence[Entry], old: Entry | None, count: int, revision: bytes | None
    ) -> Operation[None]:
        """Removes versions beyond those that are kept, and what only the former content of a replaced one used; remembers the
        rest. `count`: how many there are on the server; `revision`: that of `versions`, None if others came in between."""
        kept = versions[: self._keep]
        if old or (self._keep and count > self._keep):
            known = None
            if revision is not None and count == len(versions):
                known = yield from self._resolved(target, [*versions, *([old] if old else ())])
            if known is None or revision is None:
                return (yield from self._sweep(target))
            kept, gone = known[: len(kept)], versions[len(kept) :]
            parts = union(known[len(kept) :]) - union(kept)
            if gone or parts:
                fields = [keys.checkpoint_field(b"", each.id.encode()) for each in gone]
                names = [*fields, *parts]
                if len(names) > WEIGHED:
                    return (yield from self._sweep(target))
                logical, referred = sum(each.header.logical for each in gone), sum(each.header.chunked for each in gone)
                # what is stored of it, the script weighs
                deltas = Counts.difference(
                    checkpoints=len(gone), chunks=count_chunks(parts), logical=logical, referred=referred
                )
                plan = RemovalPlan(False, deltas, names, fields, measured=names)
                if not (yield from commands.remove(target.keys, f"saving state {target.thread!r}", revision, plan)):
                    # others changed it since: they remove the versions that are too many, but do not know what `old` had
                    return (yield from self._sweep(target)) if old else None
                revision = next_revision(revision)
        if revision is not None:
            self._seen.put(target.keys.name, Seen(kept[: self._keep or 1], revision))

    def _sweep(self, target: Address) -> Operation[None]:
        """The same, from all that is stored."""
        for _ in range(BUSY_TRIES):  # others that save meanwhile tidy too
            survey = yield from read_headers(self._engine, target)
            if survey is not None:
                places = sorted((place for place in survey.headers if not place[0]), reverse=True)
                surplus = places[self._keep :] if self._keep else []
                if (yield from remove(self._engine, self._serde, target, survey, surplus)):
                    return

    def _index(self, tags: Iterable[str], entries: Sequence[Entry], old: Entry | None) -> list[tuple[bytes, bytes]]:
        """What changes in the index: the tags of the version that is saved come; those go that only versions had which it
        replaces or pushes out. Where an older version is replaced none go: others may be saving the newest."""
        gone = entries[self._keep - 1 :] if self._keep and not old else [old] if old and old is entries[0] else []
        staying = {tag for entry in entries if entry not in gone for tag in entry.tags}
        leaving = {tag for entry in gone for tag in entry.tags} - staying
        changes = dict.fromkeys(leaving, b"") | dict.fromkeys(tags, metadata_text(True))
        return [(index_name(tag).encode(), value) for tag, value in changes.items()]

    # --- reading ---

    @_logged
    def load(self, state_id: StateLike, version: VersionLike | None) -> Operation[tuple[Any, StateMetadata] | None]:
        target = self._target(state_id)
        entry = None if version is None else (yield from self._find(target, version))
        found = None if entry is None and version is not None else (yield from self._content(target, entry.id if entry else ""))
        result = None
        if found is not None:
            (left,) = yield Read([("PTTL", target.keys.hash)], f"loading state {target.thread!r}")
            if left != GONE:
                result = found[0], found[2].described(target, left)
        with self.lock:
            self._hits += result is not None
            self._misses += result is None
        return result

    def _content(self, target: Address, id: str) -> Operation[tuple[Any, Value, Entry] | None]:
        """(state, as it is stored, its version); id "": the newest."""
        yield from self._engine.check_layout(False)
        found, parts = yield from fetch(self._engine, target, [(b"", id.encode())])
        if not found:
            return None
        entry = self._entry(target, found[0])
        tup = yield from compute(
            lambda: decode_tuple(self._engine, self._serde, target, found[0], parts), sum(map(len, parts.chunks.values()))
        )
        return tup.checkpoint["channel_values"][WHOLE], found[0].values(parts)[WHOLE], entry

    @_logged
    def list_states(self, tags: Sequence[str] | None, prefix: str | None, match: str) -> Operation[list[StateMetadata]]:
        match = validation.one_of(match, ("any", "all"), "match")
        prefix = validation.begin(prefix, "list_states: prefix")
        wanted = None if tags is None else set(checked_tags(tags))
        names: list[str] = []
        if wanted is None:
            names = yield from self.names(prefix)
        else:
            yield from self._engine.check_layout(False)
            active: dict[str, float] = {}
            for group in [wanted] if match == "all" and wanted else [{tag} for tag in wanted]:
                index = dict.fromkeys(map(index_name, group), True)
                active |= dict((yield from find(self._engine, index)))
            names = sorted(active, key=lambda name: (active[name], name), reverse=True)
        result: list[StateMetadata] = []
        for target in [self._target(name) for name in names if name.startswith(prefix)]:
            entries, _ = yield from self._look(target, 1)
            held = set(entries[0].tags) if entries else set()
            if entries and (wanted is None or (wanted <= held if match == "all" else wanted & held)):
                (left,) = yield Read([("PTTL", target.keys.hash)], "listing states")
                if left != GONE:
                    result.append(entries[0].described(target, left))
        return result

    def names(self, prefix: str | None = None) -> Operation[list[str]]:
        """The ids of all states, the last saved first."""
        listing = list_threads(self._engine, prefix, None, True, None)
        names: list[str] = []
        while (infos := (yield from emitted(listing))) is not None:
            names += [info.thread_id for info in infos]
        return names

    @_logged
    def list_versions(self, state_id: StateLike) -> Operation[list[StateMetadata]]:
        target = self._target(state_id)
        entries, _ = yield from self._look(target, self._keep)
        (left,) = yield Read([("PTTL", target.keys.hash)], f"listing the versions of state {target.thread!r}")
        return [] if left == GONE else [entry.described(target, left) for entry in reversed(entries)]

    @_logged
    def exists(self, state_id: StateLike, version: VersionLike | None) -> Operation[bool]:
        target = self._target(state_id)
        if version is not None:
            return (yield from self._find(target, version)) is not None
        return bool((yield from self._look(target, 1)).entries)

    @_logged
    def stats(self) -> Operation[dict[str, Any]]:
        yield from self._engine.check_layout(False)
        stats = yield from read_stats(self._engine, None)
        info: dict[str, Any] = dict(stats.server or {})
        if info:
            with suppress(ServerRefusedError):  # then the memory is told, and its version is not
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

    @_logged
    def delete_version(self, state_id: StateLike, version: VersionLike) -> Operation[bool]:
        target = self._target(state_id)
        about = f"deleting version {version_label(version)!r} of state {target.thread!r}"
        there = False
        for _ in range(BUSY_TRIES):
            entries, revision = yield from self._look(target, self._keep)
            entry = named(entries, version_label(version))
            if entry is None:
                return there  # if it was, this call may have removed it, and lost the reply
            there = True
            survey = yield from read_headers(self._engine, target)
            if survey is None or survey.revision != revision:
                continue
            if (yield from remove(self._engine, self._serde, target, survey, [("", entry.id)])):
                return True
        raise ThreadBusyError(f"{about}: the state changed each of {BUSY_TRIES} times; nothing was removed, try again")

    @_logged
    def delete_state(self, state_id: StateLike) -> Operation[bool]:
        target = self._target(state_id)
        there = bool((yield Read([("EXISTS", target.keys.hash)], f"deleting state {target.thread!r}"))[0])
        yield from delete_thread(self._engine, target.thread)
        return there

    @_logged
    def rollback(self, state_id: StateLike, version: VersionLike, truncate: bool) -> Operation[StateMetadata]:
        target = self._target(state_id)
        about = f"rollback of state {target.thread!r} to version {version_label(version)!r}"
        entry = yield from self._find(target, version)
        if entry is None:
            raise CheckpointNotFoundError(f"{about}: there is no such version; list_versions says which there are")
        if truncate:
            yield from truncate_to(self._engine, self._serde, target.thread, entry.id)
            (left,) = yield Read([("PTTL", target.keys.hash)], about)
            return entry.described(target, left)
        found = yield from self._content(target, entry.id)
        if found is None:
            raise CheckpointNotFoundError(f"{about}: it was deleted meanwhile")
        described = {"source": "fork", "forked_from": entry.id, "checksum": entry.metadata["checksum"]}
        return (yield from self._store(target, found[1], described | ({"tags": entry.tags} if entry.tags else {})))

    @_logged
    def touch(self, state_id: StateLike, ttl: Any) -> Operation[bool]:
        target = self._target(state_id)
        try:
            if ttl is None:
                yield from expire(self._engine, target.thread, "default")
            else:
                yield from expire(self._engine, target.thread, "own", validation.ttl_ms(ttl, "ttl_seconds") / 1000)
        except ThreadNotFoundError:
            return False
        return True

    # --- between the words of this module and those of the saver ---

    def _target(self, state_id: StateLike) -> Address:
        address: Address = self._engine.address(getattr(state_id, "state_id", state_id))
        return address

    def _look(self, target: Address, most: int | None) -> Operation[Seen]:
        """The newest versions of a state; None: all."""
        yield from self._engine.check_layout(False)
        entries: list[Entry] = []
        revision = b""
        cursor: Cursor | None = START
        while cursor is not None and (most is None or len(entries) < most):
            size = SURVEY_CHECKPOINTS if most is None else min(SURVEY_CHECKPOINTS, most - len(entries))
            page = yield from read_page(self._engine, target, "", cursor, size, whole=False)
            entries += [self._entry(target, found) for found in page.found]
            revision, cursor = revision or page.revision, page.following
        return Seen(entries, revision)

    def _find(self, target: Address, version: VersionLike) -> Operation[Entry | None]:
        label = version_label(version)
        return named((yield from self._look(target, self._keep)).entries, label)

    def _entry(self, target: Address, found: StoredCheckpoint) -> Entry:
        header = found.header
        parts = None if header.pages else parts_of((), header.loose)
        try:
            rest, metadata = self._serde.loads_typed(found.rest)
            metadata["checksum"], dict.fromkeys(found.channels)[WHOLE]
            size = header.logical - len(found.rest[1])
            return Entry(found.checkpoint.decode(), header, metadata, rest["ts"], size, parts)
        except Exception as error:
            raise SerializationError(
                f"{found.place}: it is intact, but is no saved state ({type(error).__name__}: {error}); use the serializer "
                "and the prefix it was saved with"
            ) from error

    def _resolved(self, target: Address, entries: Sequence[Entry]) -> Operation[list[Entry] | None]:
        """The same, with all their parts: reads the pages of those whose are not known. None if a page is gone: others came in
        between, or it is lost."""
        about = f"saving state {target.thread!r}"
        names = list({page for entry in entries if entry.parts is None for page in entry.header.pages})
        pages = yield from read_reference_pages(self._engine, target, names, about)
        if len(pages.pages) < len(names):
            return None

        def parts(header: Header) -> frozenset[bytes]:
            return parts_of(header.pages, decode.all_digests(header, pages, about))

        return [entry if entry.parts is not None else replace(entry, parts=parts(entry.header)) for entry in entries]
