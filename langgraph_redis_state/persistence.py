"""`RedisStatePersistence`: versioned, tagged state for programs that are no LangGraph graph. No storage of its own.

A state id is a thread, a version of it is a checkpoint in the root namespace. A dict with str keys becomes a channel for each
key, so that the keys that did not change are shared with the version before; anything else is one channel. So whatever holds
for the saver holds here: deduplication, checksums, expiry, Cluster, and the tools that read its threads.

Rule 1: everything is serialized before the first effect; what is saved is the state as it was when the call was made.
Rule 2: a save reads the newest versions, chooses number and checkpoint id, and puts on condition that the newest is still the
same; else it looks again. So of many savers none overwrites another, and a command that redis-py repeats is recognised.
Rule 3: the tag index may name a state whose newest version lost the tag; searching reads that version and decides.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any, Literal, NamedTuple, cast

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.base import SerializerProtocol
from typing_extensions import Self

from . import keys, records
from .codec import DIGEST, CompressionType
from .drivers import arun, run
from .effects import Operation, Read, compute
from .errors import (
    CheckpointConflictError,
    CheckpointerError,
    CheckpointNotFoundError,
    InvalidConfigError,
    SerializationError,
    ServerRefusedError,
    ThreadBusyError,
    ThreadNotFoundError,
)
from .history import ThreadListing, _above
from .operations import BUSY_TRIES, SURVEY_CHECKPOINTS, Found, Target, dumped, ttl_ms
from .saver import RedisSaver, _positive

logger = logging.getLogger("langgraph_redis_state")

KEYS_MAX = 128
"""Dicts of more keys are one channel: records name each channel, so they would outgrow what the keys share."""
TRIES = 1000
"""Each try that fails is a save of somebody else that succeeded."""
WHOLE = "state"
"""Name of the one channel of a state that is not a dict with str keys."""


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


class _Serialized(NamedTuple):
    type: str
    blob: bytes


class _Ready:
    """The serializer, which passes on what was serialized before."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        return (value.type, value.blob) if isinstance(value, _Serialized) else self._serde.dumps_typed(value)

    def loads_typed(self, typed: tuple[str, bytes]) -> Any:
        return self._serde.loads_typed(typed)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A version as its record tells it."""

    id: str
    header: records.Header
    metadata: Mapping[str, Any]
    ts: str
    size: int

    @property
    def version(self) -> int | str:
        label: int | str = self.metadata.get("version", self.metadata["step"])
        return label

    @property
    def tags(self) -> list[str]:
        return list(self.metadata.get("tags", ()))


class RedisStatePersistence:
    """Saves any state the serializer takes, by id and version, on plain Redis.

    Args:
        redis_url: as `RedisSaver` takes it: one server, TLS, unix socket, Cluster, Sentinel.
        compression_type: LZ4, ZLIB or NONE, for what is saved from now on; everything stored stays readable.
        enable_versioning: False keeps one version of each state, the one saved last.
        max_versions: how many versions a state keeps, the newest; None: all of them. A save reads their headers.
        default_ttl: seconds (or a timedelta) after its last save that a state expires, whole and at once. None: never.
        redis_options: keyword arguments for redis-py's connections. `decode_responses` is accepted and has no effect: bytes are
            stored, and objects come back. On a unix socket the keepalive options of TCP have none either.
        namespace: states of two namespaces never see each other.
        options: whatever else `RedisSaver` takes: `serde`, `integrity_key`, `max_thread_bytes`, `client`, ...

    Raises:
        ValueError, TypeError: an option is not possible; the message says what is.

    Each method has a twin with `a` before its name, to be awaited. They raise what the saver's methods raise: a server that
    does not answer is `ServerUnavailableError`, damaged bytes are `CheckpointCorruptError`, and never "not there".

    Where a state id or version is asked for, the `StateMetadata` of one will do. 1 and "1" name the same version.
    """

    def __init__(
        self,
        redis_url: str = "redis://localhost:6379/0",
        compression_type: CompressionType | str = CompressionType.LZ4,
        enable_versioning: bool = True,
        max_versions: int | None = 10,
        default_ttl: float | timedelta | None = None,
        redis_options: Mapping[str, Any] | None = None,
        namespace: str = "state",
        **options: Any,
    ) -> None:
        options.setdefault("prefix", prefix_of("state", namespace))
        self._keep = _positive(max_versions, "max_versions") if enable_versioning else 1
        self._saver = RedisSaver(
            redis_url,
            ttl=default_ttl,
            refresh_ttl_on_read=False,
            tombstone=None,  # a save builds on nothing, so none comes too late
            compression=compression_type,
            redis_options=connection_options(redis_url, redis_options),
            **options,
        )
        self._operations, self._history = self._saver._operations, self._saver._history
        self._connection, self._serde = self._saver._connection, _Ready(self._saver.serde)
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.where!r}, prefix={self._operations.settings.prefix!r})"

    # --- life ---

    def ping(self) -> bool:
        """True, or the error that says why not."""
        return self._saver.ping()

    async def aping(self) -> bool:
        """`ping`, awaited."""
        return await self._saver.aping()

    def close(self) -> None:
        """Closes the connections."""
        self._saver.close()

    async def aclose(self) -> None:
        """`close`, from the event loop whose connections it shall close properly."""
        await self._saver.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- the surface ---

    def save_with_metadata(
        self,
        state: Any,
        state_id: StateLike,
        version: VersionLike | None = None,
        tags: Sequence[str] | None = None,
        ttl_seconds: float | timedelta | None = None,
    ) -> StateMetadata:
        """Saves a state. Version None counts on; one that exists is replaced where it stands among the others.

        Args:
            tags: what `search_by_tags` shall find this version by while it is the newest.
            ttl_seconds: the state's own TTL, from now on and at each later save. None: the one it has, else `default_ttl`.

        Raises:
            SerializationError: the serializer refuses a value; names the key, nothing was written.
        """
        return run(self._save(state, state_id, version, tags, ttl_seconds), self._connection)

    async def asave_with_metadata(
        self,
        state: Any,
        state_id: StateLike,
        version: VersionLike | None = None,
        tags: Sequence[str] | None = None,
        ttl_seconds: float | timedelta | None = None,
    ) -> StateMetadata:
        """`save_with_metadata`, awaited. The state is serialized before this waits for the first time."""
        return await arun(self._save(state, state_id, version, tags, ttl_seconds), self._connection)

    def load_with_metadata(self, state_id: StateLike, version: VersionLike | None = None) -> tuple[Any, StateMetadata] | None:
        """(state, metadata) of a version, by default the newest; None if there is none."""
        return run(self._load(state_id, version), self._connection)

    async def aload_with_metadata(
        self, state_id: StateLike, version: VersionLike | None = None
    ) -> tuple[Any, StateMetadata] | None:
        """`load_with_metadata`, awaited."""
        return await arun(self._load(state_id, version), self._connection)

    def list_states(self, tags: Sequence[str] | None = None, prefix: str | None = None) -> list[StateMetadata]:
        """The newest version of each state, the last saved first: those with any of the tags, whose id begins with `prefix`."""
        return run(self._list_states(tags or None, prefix, "any"), self._connection)

    async def alist_states(self, tags: Sequence[str] | None = None, prefix: str | None = None) -> list[StateMetadata]:
        """`list_states`, awaited."""
        return await arun(self._list_states(tags or None, prefix, "any"), self._connection)

    def search_by_tags(self, tags: Sequence[str], match: Literal["any", "all"] = "any") -> list[StateMetadata]:
        """The newest version of each state that has any, or all, of the tags; the last saved first."""
        return run(self._list_states(tags, None, match), self._connection)

    async def asearch_by_tags(self, tags: Sequence[str], match: Literal["any", "all"] = "any") -> list[StateMetadata]:
        """`search_by_tags`, awaited."""
        return await arun(self._list_states(tags, None, match), self._connection)

    def list_versions(self, state_id: StateLike) -> list[StateMetadata]:
        """The versions of a state, oldest first, never more than `max_versions`; none if there is no such state."""
        return run(self._list_versions(state_id), self._connection)

    async def alist_versions(self, state_id: StateLike) -> list[StateMetadata]:
        """`list_versions`, awaited."""
        return await arun(self._list_versions(state_id), self._connection)

    def exists(self, state_id: StateLike, version: VersionLike | None = None) -> bool:
        """Whether there is such a state, or version of it."""
        return run(self._exists(state_id, version), self._connection)

    async def aexists(self, state_id: StateLike, version: VersionLike | None = None) -> bool:
        """`exists`, awaited."""
        return await arun(self._exists(state_id, version), self._connection)

    def delete_version(self, state_id: StateLike, version: VersionLike) -> bool:
        """Deletes a version with all that only it used; whether there was one. With its last version a state goes."""
        return run(self._delete_version(state_id, version), self._connection)

    async def adelete_version(self, state_id: StateLike, version: VersionLike) -> bool:
        """`delete_version`, awaited."""
        return await arun(self._delete_version(state_id, version), self._connection)

    def delete_state(self, state_id: StateLike) -> bool:
        """Deletes a state with all its versions; whether there was one."""
        return run(self._delete_state(state_id), self._connection)

    async def adelete_state(self, state_id: StateLike) -> bool:
        """`delete_state`, awaited."""
        return await arun(self._delete_state(state_id), self._connection)

    def rollback(self, state_id: StateLike, version: VersionLike, truncate: bool = False) -> StateMetadata:
        """Goes back to a version: saves its content as a new one, so that the mistake stays visible. `truncate`: removes what
        came after it instead.

        Raises:
            CheckpointNotFoundError: there is no such version.
        """
        return run(self._rollback(state_id, version, truncate), self._connection)

    async def arollback(self, state_id: StateLike, version: VersionLike, truncate: bool = False) -> StateMetadata:
        """`rollback`, awaited."""
        return await arun(self._rollback(state_id, version, truncate), self._connection)

    def touch(self, state_id: StateLike, ttl_seconds: float | timedelta | None = None) -> bool:
        """Gives a state its own TTL from now on; None: `default_ttl` again. Whether there is such a state."""
        return run(self._touch(state_id, ttl_seconds), self._connection)

    async def atouch(self, state_id: StateLike, ttl_seconds: float | timedelta | None = None) -> bool:
        """`touch`, awaited."""
        return await arun(self._touch(state_id, ttl_seconds), self._connection)

    def get_stats(self) -> dict[str, Any]:
        """`states` (also as `total_states`), `versions`, `stored_bytes`, `logical_bytes`, `compression_ratio` (logical for each
        stored byte), `hits` and `misses` of loads through this object, and `redis_info`: `used_memory` in bytes,
        `used_memory_human`, `redis_version`; empty where the server does not allow INFO."""
        return run(self._stats(), self._connection)

    async def aget_stats(self) -> dict[str, Any]:
        """`get_stats`, awaited."""
        return await arun(self._stats(), self._connection)

    # --- operations ---

    def _save(
        self, state: Any, state_id: StateLike, version: VersionLike | None, tags: Sequence[str] | None, ttl: Any
    ) -> Operation[StateMetadata]:
        target = self._target(state_id)
        values, keyed = self._serialized(state, f"saving state {target.thread!r}")
        label = None if version is None else _label(version)
        return (yield from self._store(target, values, keyed, label, _tags(tags), ttl, {"source": "update"}))

    def _store(
        self,
        target: Target,
        values: Mapping[str, _Serialized],
        keyed: bool,
        label: int | str | None,
        tags: list[str],
        ttl: Any,
        origin: Mapping[str, Any],
    ) -> Operation[StateMetadata]:
        began = time.perf_counter()
        about = f"saving state {target.thread!r}"
        milliseconds = None if ttl is None else ttl_ms(ttl, "ttl_seconds")
        size = sum(len(value.blob) for value in values.values())
        checksum = yield from compute(lambda: _checksum(values), size)
        described = {**origin, "compression": self._operations.settings.compression.value, "checksum": checksum}
        described |= ({"tags": tags} if tags else {}) | ({} if keyed else {"whole": True})
        for _ in range(TRIES):
            entries = yield from self._entries(target, 1 if label is None and self._keep is None else self._keep)
            head = entries[0] if entries else None
            old = _named(entries, label)
            base = old or head  # what the new record shares most with
            before = self._operations.memory.get(target.keys.name, b"", base.id.encode()) if base else None
            id = old.id if old else _above(head.id if head else "", about)
            metadata = {**described, **_numbered(label, old, head)}
            try:
                yield from self._operations.put(
                    self._serde,
                    _config(target, (old.header.parent if old else head.id if head else None), milliseconds),
                    _checkpoint(id, values, old is not None),
                    cast(CheckpointMetadata, metadata),
                    {},
                    expected=head.id.encode() if head else b"",
                    index=self._index(tags, entries, old),
                )
                break
            except CheckpointConflictError:
                logger.debug("save: state %r: somebody else was first, looking again", target.thread)
        else:
            raise ThreadBusyError(f"{about}: other savers were first {TRIES} times; nothing was written, try again")
        if milliseconds is not None:
            with suppress(ThreadNotFoundError):  # deleted meanwhile
                yield from self._history.expire(target.thread, "own", milliseconds / 1000)
        now = self._operations.memory.get(target.keys.name, b"", id.encode())
        replaced = old is not None and (before is None or now is None or bool(before.chunks - now.chunks))
        try:
            yield from self._tidy(target, id, replaced)
        except CheckpointerError as error:  # it is saved; older versions are not shown, and the next save tries again
            logger.error("%s: it is saved, but what it replaces could not be removed: %s", about, error)
        raw, left = yield Read(
            [("HGET", target.keys.hash, keys.checkpoint_field(b"", id.encode())), ("PTTL", target.keys.hash)], about
        )
        if raw is not None:
            saved = self._entry(target, Found(b"", id.encode(), raw, None))
        else:  # deleted meanwhile, or others saved so many that this is none of the newest any more
            saved = _Entry(id, records.Header(created_at=round(time.time() * 1000)), metadata, "", size)
        there = before.chunks if before else frozenset() if head is None else None
        logger.debug(
            "save: state %r version %r: %d bytes, %d new on the server, %s new and %s shared chunks, %.1f ms",
            target.thread,
            saved.version,
            size,
            saved.header.new_bytes,
            "?" if there is None or now is None else len(now.chunks - there),
            "?" if there is None or now is None else len(now.chunks & there),
            (time.perf_counter() - began) * 1000,
        )
        return _metadata(target, saved, left)

    def _tidy(self, target: Target, id: str, replaced: bool) -> Operation[None]:
        """Removes versions beyond those that are kept, and what only the former content of a replaced version used."""
        about = f"saving state {target.thread!r}"
        beyond = ("ZREVRANGEBYLEX", target.keys.all[1], b"[C\0\xff", b"[C\0", "LIMIT", self._keep or -1, SURVEY_CHECKPOINTS)
        for _ in range(BUSY_TRIES):  # others that save meanwhile tidy too
            counts, members = yield Read([("HGET", target.keys.hash, "S"), beyond], about)
            surplus = [("", keys.split_field(member)[1].decode()) for member in members]
            if counts is None or not (surplus or replaced):
                return
            # a state has no pending writes: naming some makes the sweep run also without a checkpoint to remove
            revision = records.revision(counts, target.keys.name, about)
            if (yield from self._operations.remove(target, revision, surplus, {("", id): b""})):
                return

    def _index(self, tags: Sequence[str], entries: Sequence[_Entry], old: _Entry | None) -> dict[str, Any]:
        """What changes in the index: the tags of the version that is saved come; those go that only versions had which it
        replaces or pushes out. Where an older version is replaced none go: others may be saving the newest."""
        gone = list(entries[self._keep - 1 :]) if self._keep and not old else [old] if old and old is entries[0] else []
        staying = {tag for entry in entries if entry not in gone for tag in entry.tags}
        leaving = {tag for entry in gone for tag in entry.tags} - staying
        return dict.fromkeys(map(_index_name, leaving)) | dict.fromkeys(map(_index_name, tags), True)

    def _load(self, state_id: StateLike, version: VersionLike | None) -> Operation[tuple[Any, StateMetadata] | None]:
        began = time.perf_counter()
        target = self._target(state_id)
        result = None
        at: bytes | None = b""
        if version is not None:
            entry = yield from self._find(target, version)
            at = entry.id.encode() if entry is not None else None
        else:
            yield from self._operations.check_layout(write=False)
        found, parts = ([], records.Parts()) if at is None else (yield from self._operations.fetch(target, [(b"", at)]))
        if found:
            each = found[0]
            size = sum(map(len, parts.chunks.values()))
            tup, _ = yield from compute(lambda: self._operations.decode(self._serde, target, each, parts), size)
            entry = self._entry(target, each)
            values = tup.checkpoint["channel_values"]
            (left,) = yield Read([("PTTL", target.keys.hash)], f"loading state {target.thread!r}")
            result = (values[WHOLE] if entry.metadata.get("whole") else values), _metadata(target, entry, left)
        with self._lock:
            self._hits += result is not None
            self._misses += result is None
        logger.debug(
            "load: state %r version %r: %s, %.1f ms",
            target.thread,
            "newest" if version is None else _label(version),
            f"{result[1].size_bytes} bytes" if result is not None else "not there",
            (time.perf_counter() - began) * 1000,
        )
        return result

    def _list_states(self, tags: Sequence[str] | None, prefix: str | None, match: str) -> Operation[list[StateMetadata]]:
        began = time.perf_counter()
        if match not in ("any", "all"):
            raise ValueError(f"match {match!r} is unknown; allowed are 'any', 'all'")
        wanted = None if tags is None else set(_tags(tags))
        names: list[str] = []
        yield from self._operations.check_layout(write=False)
        if wanted is None:
            listing = ThreadListing(self._history, prefix, None, True, None)
            while (page := (yield from listing.next_page())) is not None:
                names += [info.thread_id for info in page]
        else:
            active: dict[str, float] = {}
            for group in [wanted] if match == "all" and wanted else [{tag} for tag in wanted]:
                index = dict.fromkeys(map(_index_name, group), True)
                active |= dict((yield from self._history.find(index, indexed=list(index))))
            names = sorted(active, key=lambda name: (active[name], name), reverse=True)
        result: list[StateMetadata] = []
        for target in [self._target(name) for name in names if name.startswith(prefix or "")]:
            entries = yield from self._entries(target, 1)
            held = set(entries[0].tags) if entries else set()
            if entries and (wanted is None or (wanted <= held if match == "all" else wanted & held)):
                (left,) = yield Read([("PTTL", target.keys.hash)], "listing states")
                result.append(_metadata(target, entries[0], left))
        logger.debug("list: %d states, %.1f ms", len(result), (time.perf_counter() - began) * 1000)
        return result

    def _list_versions(self, state_id: StateLike) -> Operation[list[StateMetadata]]:
        target = self._target(state_id)
        entries = yield from self._entries(target, self._keep)
        (left,) = yield Read([("PTTL", target.keys.hash)], f"listing the versions of state {target.thread!r}")
        logger.debug("list: state %r: %d versions", target.thread, len(entries))
        return [_metadata(target, entry, left) for entry in reversed(entries)]

    def _exists(self, state_id: StateLike, version: VersionLike | None) -> Operation[bool]:
        target = self._target(state_id)
        if version is not None:
            return (yield from self._find(target, version)) is not None
        return bool((yield from self._entries(target, 1)))

    def _delete_version(self, state_id: StateLike, version: VersionLike) -> Operation[bool]:
        target = self._target(state_id)
        about = f"deleting version {_label(version)!r} of state {target.thread!r}"
        for _ in range(BUSY_TRIES):
            (counts,) = yield Read([("HGET", target.keys.hash, "S")], about)
            entry = yield from self._find(target, version)
            logger.debug("delete: state %r version %r: %s", target.thread, _label(version), entry is not None)
            if entry is None or counts is None:
                return False
            revision = records.revision(counts, target.keys.name, about)
            if (yield from self._operations.remove(target, revision, [("", entry.id)], {})):
                return True
        raise ThreadBusyError(f"{about}: the state changed each of {BUSY_TRIES} times; nothing was removed, try again")

    def _delete_state(self, state_id: StateLike) -> Operation[bool]:
        target = self._target(state_id)
        there = bool((yield Read([("EXISTS", target.keys.hash)], f"deleting state {target.thread!r}"))[0])
        yield from self._operations.delete_thread(target.thread)
        logger.debug("delete: state %r: %s", target.thread, there)
        return there

    def _rollback(self, state_id: StateLike, version: VersionLike, truncate: bool) -> Operation[StateMetadata]:
        target = self._target(state_id)
        about = f"rollback of state {target.thread!r} to version {_label(version)!r}"
        entry = yield from self._find(target, version)
        if entry is None:
            raise CheckpointNotFoundError(f"{about}: there is no such version; list_versions says which there are")
        if truncate:
            yield from self._history.truncate(target.thread, entry.id)
            logger.debug("%s: what came after it was removed", about)
            (left,) = yield Read([("PTTL", target.keys.hash)], about)
            return _metadata(target, entry, left)
        found, parts = yield from self._operations.fetch(target, [(b"", entry.id.encode())])
        if not found:
            raise CheckpointNotFoundError(f"{about}: it was deleted meanwhile")
        header, plain, place = self._operations.opened(target, found[0])
        digests = records.all_digests(header, parts, place)
        values = {
            name: _Serialized(value.type, records.joined(value, parts, f"{place}, channel {name!r}"))
            for name, value in records.stored_values(records.open_body(plain, place)[2], digests, place).items()
        }
        origin = {"source": "fork", "forked_from": entry.id}
        logger.debug("%s: its content becomes a new version", about)
        return (yield from self._store(target, values, not entry.metadata.get("whole"), None, entry.tags, None, origin))

    def _touch(self, state_id: StateLike, ttl: Any) -> Operation[bool]:
        target = self._target(state_id)
        try:
            if ttl is None:
                yield from self._history.expire(target.thread, "default")
            else:
                yield from self._history.expire(target.thread, "own", ttl_ms(ttl, "ttl_seconds") / 1000)
        except ThreadNotFoundError:
            return False
        logger.debug("touch: state %r: %s seconds", target.thread, ttl)
        return True

    def _stats(self) -> Operation[dict[str, Any]]:
        yield from self._operations.check_layout(write=False)
        stats = yield from self._history.stats(None)
        info: dict[str, Any] = dict(stats.server or {})
        if info:
            with suppress(ServerRefusedError):  # then the memory is told, and its version is not
                info |= (yield Read([("INFO", "server")], "stats"))[0]
        with self._lock:
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

    # --- between the words of this module and those of the saver ---

    def _target(self, state_id: StateLike) -> Target:
        return Target(self._operations.settings.prefix, getattr(state_id, "state_id", state_id), "", None)

    def _serialized(self, state: Any, about: str) -> tuple[dict[str, _Serialized], bool]:
        """A state as channels, and whether they are its keys."""
        keyed = type(state) is dict and 0 < len(state) <= KEYS_MAX and all(type(key) is str for key in state)
        if keyed:
            try:
                "".join(state).encode()
            except UnicodeEncodeError:
                keyed = False
        if not keyed:
            return {WHOLE: _Serialized(*dumped(self._serde, state, about))}, False
        return {key: _Serialized(*dumped(self._serde, value, f"{about}, key {key!r}")) for key, value in state.items()}, True

    def _entries(self, target: Target, most: int | None) -> Operation[list[_Entry]]:
        """The versions of a state, newest first."""
        yield from self._operations.check_layout(write=False)
        entries: list[_Entry] = []
        cursor: tuple[bytes, bytes | None] | None = (b"", b"")
        while cursor is not None and (most is None or len(entries) < most):
            size = SURVEY_CHECKPOINTS if most is None else min(SURVEY_CHECKPOINTS, most - len(entries))
            page = yield from self._operations.page(target, "", cursor, size, whole=False)
            entries += [self._entry(target, found) for found in page.found]
            cursor = page.following
        return entries

    def _find(self, target: Target, version: VersionLike) -> Operation[_Entry | None]:
        label = _label(version)
        return _named((yield from self._entries(target, self._keep)), label)

    def _entry(self, target: Target, found: Found) -> _Entry:
        header, plain, place = self._operations.opened(target, found)
        type_, blob, _ = records.open_body(plain, place)
        try:
            rest, metadata = self._serde.loads_typed((type_, blob))
            metadata["step"], metadata["checksum"]
            return _Entry(found.checkpoint.decode(), header, metadata, rest["ts"], header.logical - len(blob))
        except Exception as error:
            raise SerializationError(
                f"{place}: it is intact, but is no saved state ({type(error).__name__}: {error}); use the serializer and "
                "the prefix it was saved with"
            ) from error


def prefix_of(kind: str, namespace: str) -> str:
    """The prefix of the keys of a namespace: another one for each namespace, and for each of the two fronts."""
    if not isinstance(namespace, str) or not namespace:
        raise ValueError(f"namespace must be a non-empty string, not {namespace!r}")
    return f"lgrs:{kind}:{namespace}"


def connection_options(url: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """redis_options as `RedisSaver` takes them: without what can have no effect here."""
    idle = {"decode_responses"} | ({"socket_keepalive", "socket_keepalive_options"} if url.startswith("unix:") else set())
    return {name: value for name, value in (options or {}).items() if name not in idle}


def _label(version: VersionLike) -> int | str:
    label = version.version if isinstance(version, StateMetadata) else version
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise InvalidConfigError(f"a version is a whole number or a non-empty string, not {label!r}")
    return label


def _named(entries: Sequence[_Entry], label: int | str | None) -> _Entry | None:
    return next((entry for entry in entries if label is not None and str(entry.version) == str(label)), None)


def _numbered(label: int | str | None, old: _Entry | None, head: _Entry | None) -> dict[str, Any]:
    """How a version is named: `step` counts on, and is the version unless that was given."""
    step: int = head.metadata["step"] if head else 0
    version = step + 1 if label is None else label
    if old and old is not head:
        step = old.metadata["step"]
    elif str(version).isdecimal():
        step = max(step, int(version))
    return {"step": step} if version == step else {"step": step, "version": version}


def _tags(tags: Sequence[str] | None) -> list[str]:
    if isinstance(tags, str) or not all(isinstance(tag, str) and tag for tag in tags or ()):
        raise InvalidConfigError(f"tags must be a sequence of non-empty strings, not {tags!r}")
    for tag in tags or ():
        keys.encode(tag, "a tag")
    return list(dict.fromkeys(tags or ()))


def _index_name(tag: str) -> str:
    return f"tag:{tag}"


def _config(target: Target, parent: str | None, ttl: int | None) -> RunnableConfig:
    configurable: dict[str, Any] = {"thread_id": target.thread, "checkpoint_ns": "", "checkpoint_id": parent}
    return {"configurable": configurable if ttl is None else {**configurable, "ttl": ttl / 1000}}


def _checkpoint(id: str, values: Mapping[str, _Serialized], replaces: bool) -> Checkpoint:
    """Without versions of channels, which only a running graph needs. `ts` says when it was replaced; else the server does."""
    ts = datetime.now(timezone.utc).isoformat() if replaces else ""
    parts = {"v": 4, "id": id, "ts": ts, "channel_values": dict(values), "channel_versions": {}, "versions_seen": {}}
    return cast(Checkpoint, parts)


def _metadata(target: Target, entry: _Entry, left: int) -> StateMetadata:
    created = datetime.fromtimestamp(entry.header.created_at / 1000, timezone.utc)
    return StateMetadata(
        state_id=target.thread,
        version=entry.version,
        created_at=created,
        updated_at=max(created, datetime.fromisoformat(entry.ts)) if entry.ts else created,
        tags=entry.tags,
        size_bytes=entry.size,
        stored_bytes=entry.header.new_bytes,
        compression_type=CompressionType(entry.metadata["compression"]),
        checksum=entry.metadata["checksum"].hex(),
        ttl_seconds=left / 1000 if left >= 0 else None,
    )


def _checksum(values: Mapping[str, _Serialized]) -> bytes:
    content = hashlib.blake2b(digest_size=DIGEST)
    for name in sorted(values):
        for part in (name.encode("utf-8", "surrogatepass"), values[name].type.encode(), _ordered(values[name])):
            content.update(len(part).to_bytes(8, "big") + part)
    return content.digest()


def _ordered(value: _Serialized) -> bytes:
    """The serialized value with dicts and sets in one order, since equal content shall have equal checksums, or as it is where
    that cannot be done. Never stored."""
    return _sorted(value.blob) if value.type == "msgpack" else value.blob


def _sorted(blob: bytes) -> bytes:
    def inside(code: int, data: bytes) -> Any:
        return ormsgpack.Ext(code, _sorted(data))

    try:
        value = ormsgpack.unpackb(blob, ext_hook=inside)
        if isinstance(value, list) and value[:1] == ["builtins"] and value[1] in ("set", "frozenset"):
            value[2].sort(key=ormsgpack.packb)
        ordered = ormsgpack.packb(value, option=ormsgpack.OPT_SORT_KEYS)
    except Exception:  # noqa: BLE001 - whatever it is, its bytes are its content
        return blob
    return ordered if len(ordered) == len(blob) else blob  # bytes that only look like msgpack
