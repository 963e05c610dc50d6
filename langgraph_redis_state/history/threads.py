"""Threads as a whole: list and find them, count their bytes, set when they expire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from .. import validation
from ..address import Address
from ..effects import Argument, Emit, Operation, Read, Stream, portion
from ..errors import CheckpointCorruptError, CheckpointLostError, ServerRefusedError, ThreadNotFoundError
from ..operations.buckets import all_threads, first_threads, stored_text, threads_indexed
from ..operations.engine import Engine, logger, metadata_text
from ..operations.reading import fetch
from ..scripts import commands
from ..storage import keys, thread_fields

THREADS_PAGE = 200


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """A thread, as its counts and the indexes describe it."""

    thread_id: str
    last_activity: datetime
    checkpoints: int
    stored_bytes: int
    logical_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What is stored. Bytes are those of fields and their names, without the server's own overhead."""

    threads: int
    checkpoints: int
    writes: int
    chunks: int
    stored_bytes: int
    logical_bytes: int
    unique_chunk_bytes: int
    """Uncompressed bytes of all chunks; each chunk counts once."""
    referred_chunk_bytes: int
    """Uncompressed bytes of all chunks; each chunk counts once for each reference from a checkpoint or write."""
    server: Mapping[str, Any] | None = None
    """`INFO memory` of the server, if the user may run it and no thread was named."""

    @property
    def ratio(self) -> float:
        """Logical bytes for each stored byte."""
        return self.logical_bytes / self.stored_bytes if self.stored_bytes else 1.0

    @property
    def dedup_share(self) -> float:
        """The share of chunk bytes that were not stored again because the server had them: 0 to 1."""
        return 1 - self.unique_chunk_bytes / self.referred_chunk_bytes if self.referred_chunk_bytes else 0.0


def set_ttl(engine: Engine, thread: Any, how: Literal["own", "persist", "default"], seconds: Any = None) -> Operation[None]:
    target = engine.address(thread)
    about = target.about("set_ttl" if how != "persist" else "persist")
    own = validation.ttl_ms(seconds, f"{about}: seconds") if how == "own" else 0
    ttl = max(engine.settings.ttl, 0) if how == "default" else own
    yield from engine.check_layout(True, commands.SET_TTL)
    if (yield from commands.set_ttl(target.keys, about, how, ttl)) is None:
        raise ThreadNotFoundError(f"{about}: there is no such thread")


def apply_ttl(engine: Engine, threads: Sequence[Any] | None, progress: Callable[[int], None] | None) -> Operation[int]:
    """Applies the TTL to the named threads, or to all. Each is one script: if the call is interrupted, repeat it."""
    done = 0
    if engine.settings.ttl < 0:
        raise ValueError("apply_ttl: this saver has ttl='keep', which is no TTL to apply")
    yield from engine.check_layout(True, commands.SET_TTL)
    if threads is not None:
        keys.check_several(threads, "apply_ttl: thread_ids")
        targets = [engine.address(thread) for thread in threads]
        for at in range(0, len(targets), THREADS_PAGE):
            done = yield from _apply_ttl(engine, targets[at : at + THREADS_PAGE], done, progress)
        return done
    for bucket in range(keys.BUCKETS):
        key, cursor, seen = keys.bucket_key(engine.settings.prefix, bucket, "threads"), -1, set[bytes]()
        while cursor:
            cursor, there = yield from portion("ZSCAN", key, cursor, THREADS_PAGE, "apply_ttl")
            fresh = {name for name, _ in there} - seen
            seen |= fresh
            targets = [engine.address(stored_text(engine, name, "the index of threads")) for name in sorted(fresh)]
            done = yield from _apply_ttl(engine, targets, done, progress)
    return done


def _apply_ttl(engine: Engine, targets: Sequence[Address], done: int, progress: Callable[[int], None] | None) -> Operation[int]:
    for target in targets:
        about = target.about("apply_ttl")
        try:
            done += bool((yield from commands.set_ttl(target.keys, about, "apply", engine.settings.ttl)))
        except (CheckpointLostError, CheckpointCorruptError) as error:  # the others are still done
            logger.warning("%s; left as it is, see verify", error)
    if progress is not None and targets:
        progress(done)
    return done


def thread_infos(engine: Engine, threads: Sequence[tuple[str, float]]) -> Operation[list[ThreadInfo]]:
    """The threads that exist, with their counts. Index entries of expired threads are removed.

    A thread whose hash the server evicted is left out and logged. A read of it raises CheckpointLostError.
    """
    targets = [engine.address(thread) for thread, _ in threads]
    about = "listing threads"
    replies = yield Read([("HGET", target.keys.hash, "S") for target in targets], about)
    result: list[ThreadInfo] = []
    for target, raw, (_, active) in zip(targets, replies, threads, strict=True):
        if raw is None:
            if engine.settings.read_only:
                continue
            with suppress(ServerRefusedError):  # a replica refuses to remove entries; the listing is still right
                if not (yield from commands.forget_expired(target.keys, about)):
                    logger.warning("%s: its hash is gone under a living index (evicted?), see verify", target.about(about))
            continue
        counts = thread_fields.Counts.of(raw, target.keys.name, about)
        if counts.checkpoints:  # only writes: no thread yet, or left by a deleted run until the tombstone expires
            when = datetime.fromtimestamp(active / 1000, timezone.utc)
            result.append(ThreadInfo(target.thread, when, counts.checkpoints, counts.stored, counts.logical))
    return result


def find(engine: Engine, wanted: Mapping[str, Any]) -> Operation[list[tuple[str, float]]]:
    """Threads whose indexed metadata have all these values, with the time of their last activity."""
    matching: set[str] | None = None
    for name, value in wanted.items():
        entry = b"V" + b"\0".join(engine.settings.names.metadata(name.encode(), metadata_text(value))) + b"\0"
        found = set((yield from threads_indexed(engine, "m", entry, f"find_threads: {name}={value!r}")))
        matching = found if matching is None else matching & found
    targets = [engine.address(name) for name in sorted(matching or ())]
    commands: list[tuple[Argument, ...]] = [("ZSCORE", target.keys.all[2], target.keys.name) for target in targets]
    scores = (yield Read(commands, "find_threads")) if commands else []
    return [(target.thread, float(score or 0)) for target, score in zip(targets, scores, strict=True)]


def stats(engine: Engine, thread: Any) -> Operation[Stats]:
    if thread is not None:
        target = engine.address(thread)
        about = target.about("stats")
        (raw,) = yield Read([("HGET", target.keys.hash, "S")], about)
        if raw is None:
            yield from fetch(engine, target, [(b"", b"")])  # raises if the thread is lost
            raise ThreadNotFoundError(f"{about}: there is no such thread")
        return _stats(1, thread_fields.Counts.of(raw, target.keys.name, about).totals)
    names = yield from all_threads(engine)
    totals = [0] * 7
    living = 0
    for at in range(0, len(names), THREADS_PAGE):
        targets = [engine.address(name) for name, _ in names[at : at + THREADS_PAGE]]
        replies = yield Read([("HGET", target.keys.hash, "S") for target in targets], "stats")
        for target, raw in zip(targets, replies, strict=True):
            if raw is not None:
                living += 1
                counts = thread_fields.Counts.of(raw, target.keys.name, "stats").totals
                totals = [total + count for total, count in zip(totals, counts, strict=True)]
    try:
        info = yield from server_info("memory")
    except ServerRefusedError:
        info = None  # many managed servers do not allow INFO; the totals are still right
    return _stats(living, totals, info)


def server_info(section: str) -> Operation[dict[str, Any]]:
    """A section of the server's INFO, numbers as int or float."""
    (reply,) = yield Read([("INFO", section)], "stats")
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
    info: dict[str, Any] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            try:
                info[name] = float(value) if "." in value else int(value)
            except ValueError:
                info[name] = value
    return info


def list_threads(
    engine: Engine, prefix: str | None, limit: int | None, newest_first: bool, wanted: Mapping[str, Any] | None
) -> Stream:
    """Emits threads in the order of their last activity: with ids that begin with `prefix`, or with the `wanted` metadata."""
    begin = validation.begin(prefix, "list_threads: prefix") or ""
    remaining = validation.limit(limit, "list_threads")
    yield from engine.check_layout(False)
    if wanted is not None:
        _check_indexed(wanted, engine.settings.index)
    most, seen, more = remaining, set[str](), remaining != 0
    while more:
        if wanted is not None:
            found, more = (yield from find(engine, wanted)), False
        elif begin or most is None:
            found, more = (yield from all_threads(engine)), False
        else:
            found, more = yield from first_threads(engine, most, newest_first)
        left = sorted(
            (each for each in found if each[0].startswith(begin) and each[0] not in seen),
            key=lambda each: (each[1], each[0]),
            reverse=newest_first,
        )
        seen.update(name for name, _ in found)
        while left and remaining != 0:
            size = THREADS_PAGE if remaining is None else min(THREADS_PAGE, remaining)
            infos = yield from thread_infos(engine, left[:size])
            left = left[size:]
            if remaining is not None:
                remaining -= len(infos)
            yield Emit(infos)
        most, more = most and 2 * most, more and remaining != 0  # expired threads are left out, and then there are too few


def _check_indexed(wanted: Mapping[str, Any], index: Sequence[str]) -> None:
    if not wanted:
        raise ValueError("find_threads: by what? Name a key of index_metadata and its value; list_threads has all threads")
    if unknown := set(wanted) - set(index):
        raise ValueError(f"find_threads: {sorted(unknown)} is not indexed; this saver was told index_metadata={index!r}")
    for name, value in wanted.items():
        if validation.plain(value) is None:
            raise ValueError(f"find_threads: {name}={value!r}: values are text, numbers or booleans")


def _stats(threads: int, counts: Sequence[int], server: Mapping[str, Any] | None = None) -> Stats:
    checkpoints, writes, chunks, stored, logical, unique, referred = counts
    return Stats(threads, checkpoints, writes, chunks, stored, logical, unique, referred, server)
