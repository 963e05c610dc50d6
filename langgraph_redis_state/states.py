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
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from sys import getsizeof
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol

from . import checks, keys, records
from .bounded import Bounded, Locked
from .checkpoints import NAME, dumped, stored_rest
from .codec import DIGEST, CompressionType
from .effects import Call, Operation, Read, compute
from .errors import (
    CheckpointerError,
    CheckpointNotFoundError,
    InvalidConfigError,
    SerializationError,
    ServerRefusedError,
    ThreadBusyError,
    ThreadNotFoundError,
)
from .history import History, ThreadListing, server_info
from .ids import id_above
from .operations import (
    BUSY_TRIES,
    PUT,
    REMOVE,
    STAGE,
    START,
    SURVEY_CHECKPOINTS,
    WARN_BYTES,
    Cursor,
    Draft,
    Found,
    Operations,
    metadata_text,
)
from .records import Header, Value
from .removal import WEIGHED, Removal
from .target import Target

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


@dataclass(frozen=True, slots=True)
class StateMetadata:
    """One version of a state, without its content."""

    state_id: str
    version: int | str
    created_at: datetime
    """When the server first stored this version, UTC."""
    updated_at: datetime
    """When it was last replaced (the clock of the program that did), else `created_at`."""
    tags: list[str]
    size_bytes: int
    """What the state takes serialized."""
    stored_bytes: int
    """What saving it added on the server: compressed, without what it shares with what was there."""
    compression_type: CompressionType
    checksum: str
    """BLAKE2b-128 of the serialized content, hexadecimal. Equal for equal content: sets and str keys have no order."""
    ttl_seconds: float | None
    """Seconds until the state expires, with all its versions; None: it does not."""


VersionLike = int | str | StateMetadata
StateLike = str | StateMetadata


@dataclass(frozen=True, slots=True)
class Entry:
    """A version as its record tells it. `parts`: the fields of the chunks and pages it refers to, None if not known yet."""

    id: str
    header: Header
    metadata: Mapping[str, Any]
    ts: str
    size: int
    parts: frozenset[bytes] | None

    @property
    def counted(self) -> int:
        """The highest number up to this version."""
        return self.header.version + int(self.metadata.get("offset", 0))

    @property
    def version(self) -> int | str:
        version: int | str = self.metadata.get("version", self.counted)
        return version

    @property
    def tags(self) -> list[str]:
        return list(self.metadata.get("tags", ()))

    def described(self, target: Target, left: int) -> StateMetadata:
        """`left`: ms until the state expires, negative if it does not."""
        created = datetime.fromtimestamp(self.header.created_at / 1000, timezone.utc)
        return StateMetadata(
            state_id=target.thread,
            version=self.version,
            created_at=created,
            updated_at=max(created, datetime.fromisoformat(self.ts)) if self.ts else created,
            tags=self.tags,
            size_bytes=self.size,
            stored_bytes=self.header.new_bytes,
            compression_type=CompressionType(self.metadata["compression"]),
            checksum=self.metadata["checksum"].hex(),
            ttl_seconds=left / 1000 if left >= 0 else None,
        )


class Seen(NamedTuple):
    """Versions of a state, newest first, at a revision."""

    entries: Sequence[Entry]
    revision: bytes

    @property
    def size(self) -> int:
        """Bytes of memory: what CPython takes for a version, its tags, and what it refers to."""
        return sum(
            2500
            + getsizeof(entry.parts)
            + NAME * (len(entry.parts or ()) + len(entry.header.pages) + len(entry.header.loose))
            + sum(getsizeof(tag) + 20 for tag in entry.metadata.get("tags", ()))
            + 2 * getsizeof(entry.version)
            for entry in self.entries
        )


class States(Locked):
    """All operations on states. `keep`: how many versions a state has at most, None: any number."""

    def __init__(self, operations: Operations, serde: SerializerProtocol, keep: int | None) -> None:
        super().__init__()
        self._operations, self._history, self._serde, self._keep = operations, History(operations), serde, keep
        self._seen: Bounded[bytes, Seen] = Bounded(operations.seen_bytes, lambda name, seen: len(name) + seen.size)
        """What a state was after the last save of this process. Only ever a hint."""
        self._hits = self._misses = 0

    # --- saving ---

    def save(
        self, state: Any, state_id: StateLike, version: VersionLike | None, tags: Sequence[str] | None, ttl: Any
    ) -> Operation[StateMetadata]:
        target = self._target(state_id)
        label = None if version is None else _label(version)
        described: dict[str, Any] = {"source": "update", **({"tags": _tags(tags)} if tags else {})}
        own = 0 if ttl is None else checks.ttl_ms(ttl, "ttl_seconds")
        content = self._dumped(state, f"saving state {target.thread!r}")
        described["checksum"] = yield from compute(lambda: _checksum(*content), len(content[1]))
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
        target: Target,
        content: tuple[str, bytes] | Value,
        described: Mapping[str, Any],
        label: int | str | None = None,
        own: int = 0,
    ) -> Operation[StateMetadata]:
        """`content`: serialized, or as another version holds it. `own`: the state's own TTL from now on, ms; 0: as it is."""
        began = time.perf_counter()
        operations, name, keep = self._operations, target.keys.name, self._keep
        about = f"saving state {target.thread!r}"
        yield from operations.check_layout(True, PUT, STAGE, *((REMOVE,) if self._keep else ()))
        seen = self._seen.take(name) if keep or label is None else None
        for _ in range(TRIES):
            remembered, seen = seen, None
            # twice as many as are kept: others may not have come to remove what they pushed out
            most = 2 * keep if keep else 1 if label is None else None
            entries, revision = remembered or (yield from self._look(target, most))
            head = entries[0] if entries else None
            old = _named(entries[:keep], label)
            base = old or head
            id = old.id if old else id_above(head.id if head else "", about)
            metadata = {**described, **_numbered(label, old, head), "compression": operations.settings.compression.value}
            ts = datetime.now(timezone.utc).isoformat() if old else ""  # else the server says when
            parent = (old.header.parent if old else head.id if head else None) or ""
            target.checkpoint = id.encode()
            draft = self._draft(content, ts, metadata, parent, about)
            index = self._index(described.get("tags", ()), entries, old)
            expected = head.id.encode() if head else b""
            if any(not value for _, value in index):  # what no version has any more, as far as these are what is stored
                expected += b"\0" + revision
            reply = yield from operations.send(
                target,
                about,
                draft,
                own or operations.settings.ttl,
                expected=expected,
                known=operations.memory.get(name, b"", base.id.encode()) if base else None,
                indexed=index,
            )
            if reply[0] == b"ok":
                break
            if reply[0] != b"conflict" and remembered is None:
                operations.refuse(reply, about)
            logger.debug("%s: it is not as it was, looking again", about)
        else:
            raise ThreadBusyError(f"{about}: other savers were first {TRIES} times; nothing was written, try again")
        _, _, version, _, stored, count, now, created_at, new_bytes, left = reply[:10]
        if int(stored) > WARN_BYTES:
            logger.warning("%s: it takes %d bytes with all its versions; consider a smaller max_versions", about, int(stored))
        if own:
            left = own
            with suppress(ThreadNotFoundError):  # deleted meanwhile
                yield from self._history.expire(target.thread, "own", own / 1000)
        sent = operations.memory.get(name, b"", target.checkpoint)
        parts = _parts(sent.pages, sent.chunks) if sent else None
        size = content.size if isinstance(content, Value) else len(content[1])
        header = Header(int(created_at), int(version), int(new_bytes), logical=len(draft.rest[1]) + size, parent=parent or None)
        header.chunked = sent.values[WHOLE].chunked if sent else 0
        saved = Entry(id, header, metadata, ts, size, parts)
        versions = [saved if each is old else each for each in entries] if old else [saved, *entries]
        undisturbed = parts is not None and (not entries or now == _following(revision))
        try:
            yield from self._tidy(target, versions, old, int(count), now if undisturbed else None)
        except CheckpointerError as error:  # it is saved; older versions are not shown, and the next save tries again
            logger.error("%s: it is saved, but what it replaces could not be removed: %s", about, error)
        there = base.parts if base else frozenset()
        logger.debug(
            "save: state %r version %r: %d bytes, %d new on the server, %s new and %s shared chunks, %.1f ms",
            target.thread,
            saved.version,
            size,
            header.new_bytes,
            *(("?", "?") if there is None or parts is None else (_chunks(parts - there), _chunks(parts & there))),
            (time.perf_counter() - began) * 1000,
        )
        return saved.described(target, int(left))

    def _draft(
        self, content: tuple[str, bytes] | Value, ts: str, metadata: Mapping[str, Any], parent: str, about: str
    ) -> Draft:
        """A checkpoint without versions of channels, which only a running graph needs."""
        rest, flags = stored_rest({"v": 4, "id": None, "ts": ts, "channel_versions": {}, "versions_seen": {}})
        return Draft(
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
        self, target: Target, versions: Sequence[Entry], old: Entry | None, count: int, revision: bytes | None
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
            parts = _union(known[len(kept) :]) - _union(kept)
            if gone or parts:
                fields = [keys.checkpoint_field(b"", each.id.encode()) for each in gone]
                names = [*fields, *parts]
                if len(names) > WEIGHED:
                    return (yield from self._sweep(target))
                logical, referred = sum(each.header.logical for each in gone), sum(each.header.chunked for each in gone)
                fewer = (len(gone), 0, _chunks(parts), 0, logical, 0, referred)  # what is stored of it, the script weighs
                arguments = [target.keys.name, revision, *Removal("drop", fewer, names, fields, weighed=names).arguments]
                reply = yield Call(REMOVE, target.keys.all, arguments, f"saving state {target.thread!r}")
                if reply[0] != b"ok":
                    # others changed it since: they remove the versions that are too many, but do not know what `old` had
                    return (yield from self._sweep(target)) if old else None
                revision = _following(revision)
        if revision is not None:
            self._seen.put(target.keys.name, Seen(kept[: self._keep or 1], revision))

    def _sweep(self, target: Target) -> Operation[None]:
        """The same, from all that is stored."""
        for _ in range(BUSY_TRIES):  # others that save meanwhile tidy too
            survey = yield from self._operations.survey(target)
            if survey is not None:
                places = sorted((place for place in survey.headers if not place[0]), reverse=True)
                surplus = places[self._keep :] if self._keep else []
                if (yield from self._operations.remove(self._serde, target, survey, surplus)):
                    return

    def _index(self, tags: Iterable[str], entries: Sequence[Entry], old: Entry | None) -> list[tuple[bytes, bytes]]:
        """What changes in the index: the tags of the version that is saved come; those go that only versions had which it
        replaces or pushes out. Where an older version is replaced none go: others may be saving the newest."""
        gone = entries[self._keep - 1 :] if self._keep and not old else [old] if old and old is entries[0] else []
        staying = {tag for entry in entries if entry not in gone for tag in entry.tags}
        leaving = {tag for entry in gone for tag in entry.tags} - staying
        changes = dict.fromkeys(leaving, b"") | dict.fromkeys(tags, metadata_text(True))
        return [(_index_name(tag).encode(), value) for tag, value in changes.items()]

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

    def _content(self, target: Target, id: str) -> Operation[tuple[Any, Value, Entry] | None]:
        """(state, as it is stored, its version); id "": the newest."""
        yield from self._operations.check_layout(False)
        found, parts = yield from self._operations.fetch(target, [(b"", id.encode())])
        if not found:
            return None
        entry = self._entry(target, found[0])
        tup, known = yield from compute(
            lambda: self._operations.decode(self._serde, target, found[0], parts), sum(map(len, parts.chunks.values()))
        )
        return tup.checkpoint["channel_values"][WHOLE], known.values[WHOLE], entry

    @_logged
    def list_states(self, tags: Sequence[str] | None, prefix: str | None, match: str) -> Operation[list[StateMetadata]]:
        match = checks.one_of(match, ("any", "all"), "match")
        prefix = checks.begin(prefix, "list_states: prefix")
        wanted = None if tags is None else set(_tags(tags))
        names: list[str] = []
        if wanted is None:
            names = yield from self.names(prefix)
        else:
            yield from self._operations.check_layout(False)
            active: dict[str, float] = {}
            for group in [wanted] if match == "all" and wanted else [{tag} for tag in wanted]:
                index = dict.fromkeys(map(_index_name, group), True)
                active |= dict((yield from self._history.find(index)))
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
        listing = ThreadListing(self._history, prefix, None, True, None)
        names: list[str] = []
        while (page := (yield from listing.next_page())) is not None:
            names += [info.thread_id for info in page]
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
        yield from self._operations.check_layout(False)
        stats = yield from self._history.stats(None)
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
        about = f"deleting version {_label(version)!r} of state {target.thread!r}"
        there = False
        for _ in range(BUSY_TRIES):
            entries, revision = yield from self._look(target, self._keep)
            entry = _named(entries, _label(version))
            if entry is None:
                return there  # if it was, this call may have removed it, and lost the reply
            there = True
            survey = yield from self._operations.survey(target)
            if survey is None or survey.revision != revision:
                continue
            if (yield from self._operations.remove(self._serde, target, survey, [("", entry.id)])):
                return True
        raise ThreadBusyError(f"{about}: the state changed each of {BUSY_TRIES} times; nothing was removed, try again")

    @_logged
    def delete_state(self, state_id: StateLike) -> Operation[bool]:
        target = self._target(state_id)
        there = bool((yield Read([("EXISTS", target.keys.hash)], f"deleting state {target.thread!r}"))[0])
        yield from self._operations.delete_thread(target.thread)
        return there

    @_logged
    def rollback(self, state_id: StateLike, version: VersionLike, truncate: bool) -> Operation[StateMetadata]:
        target = self._target(state_id)
        about = f"rollback of state {target.thread!r} to version {_label(version)!r}"
        entry = yield from self._find(target, version)
        if entry is None:
            raise CheckpointNotFoundError(f"{about}: there is no such version; list_versions says which there are")
        if truncate:
            yield from self._history.truncate(self._serde, target.thread, entry.id)
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
                yield from self._history.expire(target.thread, "default")
            else:
                yield from self._history.expire(target.thread, "own", checks.ttl_ms(ttl, "ttl_seconds") / 1000)
        except ThreadNotFoundError:
            return False
        return True

    # --- between the words of this module and those of the saver ---

    def _target(self, state_id: StateLike) -> Target:
        return self._operations.target(getattr(state_id, "state_id", state_id))

    def _look(self, target: Target, most: int | None) -> Operation[Seen]:
        """The newest versions of a state; None: all."""
        yield from self._operations.check_layout(False)
        entries: list[Entry] = []
        revision = b""
        cursor: Cursor | None = START
        while cursor is not None and (most is None or len(entries) < most):
            size = SURVEY_CHECKPOINTS if most is None else min(SURVEY_CHECKPOINTS, most - len(entries))
            page = yield from self._operations.page(target, "", cursor, size, whole=False)
            entries += [self._entry(target, found) for found in page.found]
            revision, cursor = revision or page.revision, page.following
        return Seen(entries, revision)

    def _find(self, target: Target, version: VersionLike) -> Operation[Entry | None]:
        label = _label(version)
        return _named((yield from self._look(target, self._keep)).entries, label)

    def _entry(self, target: Target, found: Found) -> Entry:
        opened = self._operations.opened(target, found)
        header = opened.header
        parts = None if header.pages else _parts((), header.loose)
        try:
            rest, metadata = self._serde.loads_typed(opened.rest)
            metadata["checksum"], dict.fromkeys(opened.channels)[WHOLE]
            size = header.logical - len(opened.rest[1])
            return Entry(found.checkpoint.decode(), header, metadata, rest["ts"], size, parts)
        except Exception as error:
            raise SerializationError(
                f"{opened.place}: it is intact, but is no saved state ({type(error).__name__}: {error}); use the serializer "
                "and the prefix it was saved with"
            ) from error

    def _resolved(self, target: Target, entries: Sequence[Entry]) -> Operation[list[Entry] | None]:
        """The same, with all their parts: reads the pages of those whose are not known. None if a page is gone: others came in
        between, or it is lost."""
        about = f"saving state {target.thread!r}"
        names = list({page for entry in entries if entry.parts is None for page in entry.header.pages})
        pages = yield from self._operations.pages(target, names, about)
        if len(pages.pages) < len(names):
            return None

        def parts(header: Header) -> frozenset[bytes]:
            return _parts(header.pages, records.all_digests(header, pages, about))

        return [entry if entry.parts is not None else replace(entry, parts=parts(entry.header)) for entry in entries]


def _parts(pages: Iterable[bytes], chunks: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset([b"P" + page for page in pages] + [b"D" + chunk for chunk in chunks])


def _union(entries: Iterable[Entry]) -> frozenset[bytes]:
    return frozenset().union(*(entry.parts or () for entry in entries))


def _chunks(parts: Iterable[bytes]) -> int:
    return sum(part[:1] == b"D" for part in parts)


def _following(revision: bytes) -> bytes:
    """The revision after one change."""
    born, number = revision.split()
    return b"%s %d" % (born, int(number) + 1)


def _label(version: VersionLike) -> int | str:
    given = version.version if isinstance(version, StateMetadata) else version
    label = checks.plain(given)
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise InvalidConfigError(f"a version is a whole number or a non-empty string, not {given!r}")
    if isinstance(label, int) and not -(2**63) <= label < 2**63:
        raise InvalidConfigError(
            f"a version that is a number has at most 64 bits, not {label.bit_length()}; name it with a string"
        )
    return label


def _named(entries: Sequence[Entry], label: int | str | None) -> Entry | None:
    return next((entry for entry in entries if label is not None and str(entry.version) == str(label)), None)


def _numbered(label: int | str | None, old: Entry | None, head: Entry | None) -> dict[str, Any]:
    """`version` if it was given, and `offset`, so that the server's counter and the offset give the highest number so far."""
    if old:
        return {name: old.metadata[name] for name in ("version", "offset") if name in old.metadata}
    highest, count = (head.counted, head.header.version) if head else (0, 0)
    if label is None:
        highest += 1
    elif str(label).isdecimal():
        highest = max(highest, int(label))
    offset = highest - (count + 1)
    return ({} if label is None else {"version": label}) | ({"offset": offset} if offset else {})


def _tags(tags: Sequence[str] | None) -> list[str]:
    if isinstance(tags, str) or not all(isinstance(tag, str) and tag for tag in tags or ()):
        raise InvalidConfigError(f"tags must be a sequence of non-empty strings, not {tags!r}")
    return list(dict.fromkeys(keys.encode(tag, "a tag").decode() for tag in tags or ()))


def _index_name(tag: str) -> str:
    return f"tag:{tag}"


def _checksum(type_: str, blob: bytes) -> bytes:
    """Of the content with dicts and sets in one order, since equal content shall have equal checksums; as it is where that
    cannot be done. Never stored."""
    ordered = _ordered(blob) if type_ == "msgpack" else blob
    return hashlib.blake2b(type_.encode() + b"\0" + ordered, digest_size=DIGEST).digest()


def _ordered(blob: bytes) -> bytes:
    def inside(code: int, data: bytes) -> Any:
        return ormsgpack.Ext(code, _ordered(data))

    try:
        value = ormsgpack.unpackb(blob, ext_hook=inside)
        if isinstance(value, list) and value[:1] == ["builtins"] and value[1] in ("set", "frozenset"):
            value[2].sort(key=ormsgpack.packb)
        ordered = ormsgpack.packb(value, option=ormsgpack.OPT_SORT_KEYS)
    except Exception:  # noqa: BLE001 - whatever it is, its bytes are its content
        return blob
    return ordered if len(ordered) == len(blob) else blob  # bytes that only look like msgpack
