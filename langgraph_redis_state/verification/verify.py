"""Reads threads, finds problems in them, and repairs them. Operations: no I/O here.

A thread is read with plain commands in bounded portions, which neither rebuild an index nor refresh a TTL, between two calls of
`thread_state.lua` that must return the same revision. `consistency` finds the problems of this snapshot. A repair applies their
fixes to the snapshot and looks for problems again (a dropped record leaves unused chunks) until it finds none that it may fix.
Then one script makes the same changes on the server, if the thread still has the revision that was read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..address import Address
from ..effects import Command, Emit, Operation, Read, Scan, Stream, compute, portion
from ..errors import CheckpointCorruptError, InvalidConfigError, KeyProviderError
from ..operations import freshness
from ..operations.buckets import stored_text
from ..operations.engine import Engine
from ..operations.removing import BUSY_TRIES
from ..operations.surveying import read_deleted
from ..operations.thread_headers import awaited
from ..scripts import commands
from ..storage import keys, thread_fields
from ..storage.statements import Statement
from .consistency import WRONG_TYPE, Problem, find_problems, paired, recount
from .findings import REPAIRABLE, Finding, Progress, Repair
from .snapshot import RECORDS, Field, ThreadSnapshot, examine, is_field, is_text, join_writes

RECORD_KINDS = frozenset({"orphan"})
"""Kinds whose repair removes records: not while a statement contradicts what is there, since a new one would accept that."""

PORTION = 50
"""Fields read at once: at most some 13 MB, since no chunk is larger than 256 KiB."""

Stray = tuple[Problem, Command]
"""A problem of a key or a member that belongs to no thread, and the command that removes it."""

Entries = tuple[set[bytes], set[bytes]]
"""A thread's entries in two indexes of its bucket: runs, and metadata."""


@dataclass(slots=True)
class Task:
    """One call of `verify` or `repair`. `drop` is None for `verify`, and for `repair` its argument `drop_unreadable`."""

    engine: Engine
    progress: Callable[[Progress], None] | None
    drop: bool | None
    seen: Progress = field(default_factory=Progress)

    def count(self, **more: int) -> None:
        self.seen = replace(self.seen, **{name: getattr(self.seen, name) + n for name, n in more.items()})
        if self.progress is not None:
            self.progress(self.seen)

    def may_fix(self, problem: Problem) -> bool:
        return self.drop is not None and (self.drop or problem.kind in REPAIRABLE)


def verify(engine: Engine, thread: Any | None, progress: Callable[[Progress], None] | None) -> Stream:
    """Emits a `Finding` for each problem of a thread; None: of everything under the prefix."""
    return _check(Task(engine, progress, None), None if thread is None else engine.address(thread))


def repair(engine: Engine, thread: Any | None, progress: Callable[[Progress], None] | None, drop_unreadable: bool) -> Stream:
    """Repairs what `verify` finds, and emits a `Repair` for each change."""
    if drop_unreadable not in (True, False):
        raise ValueError(f"repair: drop_unreadable must be True or False, not {drop_unreadable!r}")
    return _check(Task(engine, progress, drop_unreadable), None if thread is None else engine.address(thread))


def _check(task: Task, only: Address | None) -> Stream:
    """Emits the results for stray keys, then, for each bucket, those for its indexes and for each of its threads."""
    yield from task.engine.check_layout(task.drop is not None, *(() if task.drop is None else (commands.REPAIR,)))
    if only is None:
        strays, buckets = yield from _scan_keys(task)
        yield Emit((yield from _remove_strays(task, strays)))
    else:
        buckets = {keys.bucket_of(only.keys.name): {only.keys.name}}
    while buckets:
        bucket, names = buckets.popitem()
        strays, threads = yield from _read_bucket(task, bucket, names, only)
        yield Emit((yield from _remove_strays(task, strays)))
        for name, entries in sorted(threads.items()):
            yield Emit((yield from _check_thread(task, task.engine.address(stored_text(task.engine, name, "a key")), entries)))


# --- keys and entries that belong to no thread ---


def _scan_keys(task: Task) -> Operation[tuple[list[Stray], dict[int, set[bytes]]]]:
    """Scans all keys of the prefix. Returns stray keys, and the threads that have keys, by bucket."""
    prefix = task.engine.settings.prefix
    context = f"verifying prefix {prefix!r}"
    pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", prefix.encode()) + b":{*"
    shape = re.compile(rb"\{([0-9a-f]{4})\}:(?:([tixu]):(.*)|threads|expiry|runs|m)", re.S)
    names: list[bytes] = yield Scan(pattern, context)
    strays: list[Stray] = []
    staging: list[bytes] = []
    buckets: dict[int, set[bytes]] = defaultdict(set)
    for name in dict.fromkeys(names):
        parts = shape.fullmatch(name, len(prefix.encode()) + 1)
        bucket = int(parts[1], 16) if parts else keys.BUCKETS
        if parts and parts[2] == b"u":
            staging.append(name)
        elif not parts or bucket >= keys.BUCKETS or (parts[2] and not _is_thread(parts[3], bucket)):
            problem = Problem("unknown", keys.shown(name), "no key that this package writes there", "the key was removed")
            strays.append((problem, ("UNLINK", name)))
        else:
            buckets[bucket].update([parts[3]] if parts[2] else ())
    for at in range(0, len(staging), 1000):
        left = yield Read([("PTTL", name) for name in staging[at : at + 1000]], context)
        for name, ms in zip(staging[at : at + 1000], left, strict=True):
            if ms == -1:
                problem = Problem("staging", keys.shown(name), "left behind, and it never expires", "the key was removed")
                strays.append((problem, ("UNLINK", name)))
    return strays, buckets


def _read_bucket(
    task: Task, bucket: int, known: set[bytes], only: Address | None
) -> Operation[tuple[list[Stray], dict[bytes, Entries]]]:
    """Reads the indexes of a bucket. Returns members that belong to none of its threads, and its threads with their entries."""
    prefix = task.engine.settings.prefix
    threads: dict[bytes, Entries] = {name: (set(), set()) for name in known}
    strays: list[Stray] = []
    for n, index in enumerate(("threads", "expiry", "runs", "m")):
        key = keys.bucket_key(prefix, bucket, index)
        where = keys.shown(key)
        try:
            members = yield from _read_members(key, f"verifying bucket {bucket:04x} of prefix {prefix!r}")
        except CheckpointCorruptError:
            strays.append((Problem("unknown", where, WRONG_TYPE, "the key was removed"), ("UNLINK", key)))
            continue
        for member in members:
            thread = _thread_of(n, member)
            if thread is not None and _is_thread(thread, bucket):
                if only is None or only.keys.name == thread:
                    entries = threads.setdefault(thread, (set(), set()))
                    if n >= 2:
                        entries[n - 2].add(member)
            elif only is None:
                problem = Problem("bucket", where, f"{member!r} is no entry of this bucket", f"{member!r} was removed")
                strays.append((problem, ("ZREM", key, member)))
    return strays, threads


def _remove_strays(task: Task, strays: Sequence[Stray]) -> Operation[Sequence[Finding | Repair]]:
    """No script writes these keys and members, so a plain command removes each."""
    if task.drop is None:
        return [problem.found(None) for problem, _ in strays]
    chosen = [(problem, command) for problem, command in strays if task.may_fix(problem)]
    for _, command in chosen:
        yield Read([command], f"repairing prefix {task.engine.settings.prefix!r}")
    return [problem.mended(None) for problem, _ in chosen]


def _read_members(key: bytes, context: str) -> Operation[dict[bytes, float]]:
    members: dict[bytes, float] = {}
    cursor = -1
    while cursor:
        cursor, there = yield from portion("ZSCAN", key, cursor, 1000, context)
        members.update((member, float(score)) for member, score in there)
    return members


def _is_thread(name: bytes, bucket: int) -> bool:
    return b"\0" not in name and is_text(name) and keys.bucket_of(name) == bucket


def _thread_of(n: int, member: bytes) -> bytes | None:
    """The thread that a member of the n-th index of a bucket names; None if it does not have the form of that index."""
    if n < 2:
        return member
    if n == 2:
        found = keys.run_parts(member)
        return None if found is None else found[1]
    parts = member[1:].split(b"\0")
    if len(parts) != n or member[:1] not in (b"V", b"T"):
        return None
    return parts[0] if member[:1] == b"T" else parts[-1]


# --- threads ---


def _check_thread(task: Task, address: Address, entries: Entries) -> Operation[Sequence[Finding | Repair]]:
    context = f"{'verify' if task.drop is None else 'repair'}: thread {address.thread!r}"
    try:
        yield from task.engine.unlock(address)
    except KeyProviderError as error:
        locked = Problem("locked", "the thread", f"{error}", "nothing: the key provider gives no key for it")
        return [locked.found(address.thread) if task.drop is None else locked.mended(address.thread)]
    before = task.seen
    for _ in range(BUSY_TRIES):
        task.seen = before
        snapshot, same = yield from _read_snapshot(task, address, entries, context)
        if not same:
            continue
        task.count(threads=int(snapshot.there))
        if task.drop is None:
            found = yield from compute(partial(list[Problem], find_problems(snapshot)), snapshot.size)
            return [problem.found(address.thread) for problem in found]
        mended = yield from _repair_thread(task, snapshot, context)
        if mended is not None:
            return mended
    changed = f"it changed each of {BUSY_TRIES} times it was read"
    busy = Problem("busy", "the thread", changed, f"nothing: {changed}")
    if task.drop is not None:
        return [busy.mended(address.thread)]
    damaged = [problem for problem in find_problems(snapshot) if problem.kind == "damaged"]  # true whatever changed meanwhile
    return [problem.found(address.thread) for problem in (*damaged, busy)]


def _read_snapshot(task: Task, address: Address, entries: Entries, context: str) -> Operation[tuple[ThreadSnapshot, bool]]:
    """Reads a thread. Returns it, and whether it stayed the same meanwhile."""
    first = yield from _thread_state(address, entries, context)
    fields: dict[bytes, Field] = {}
    unknown: set[bytes] = set()
    cursor = -1 if first.there and 1 not in first.wrong else 0
    while cursor:
        cursor, content = yield from portion("HSCAN", address.keys.hash, cursor, PORTION, context)
        content = [(address.keys.names.field_of(name), value) for name, value in content]
        new = {name: value for name, value in content if name not in fields and name not in unknown}
        unknown |= {name for name in new if not is_field(name)}
        size = sum(len(name) + len(value) for name, value in new.items())
        found = yield from compute(partial(_examine_all, address, new, unknown), size)
        fields |= found
        read = sum(max(len(each.records), 1) for name, each in found.items() if name[:1] in RECORDS)
        task.count(records=read, chunks=sum(name[:1] == b"D" for name in found), bytes=size)
    join_writes(fields)
    members = (yield from _read_members(address.keys.all[1], context)) if first.indexed else {}
    index = {address.keys.names.field_of(member): score for member, score in members.items()}
    last = yield from _thread_state(address, entries, context)
    last.fields, last.unknown, last.index = fields, unknown, index
    last.fresh, last.unstated = task.engine.settings.fresh, task.engine.settings.keyring.accepts_unkeyed
    if 7 not in last.wrong:
        last.deleted = yield from read_deleted(task.engine, address, awaited(last.headers(), last.early()))
    same = (last.wrong, last.counts, last.settings, last.there) == (first.wrong, first.counts, first.settings, first.there)
    return last, same


def _examine_all(address: Address, content: Mapping[bytes, bytes], unknown: set[bytes]) -> dict[bytes, Field]:
    return {name: examine(address, name, value) for name, value in content.items() if name not in unknown}


def _thread_state(address: Address, entries: Entries, context: str) -> Operation[ThreadSnapshot]:
    state = yield from commands.thread_state(address.keys, context, *entries)
    return ThreadSnapshot(**vars(state), address=address)


# --- repair ---


def _repair_thread(task: Task, snapshot: ThreadSnapshot, context: str) -> Operation[list[Repair] | None]:
    """Repairs a thread. Returns what was done, or None if the thread changed since it was read."""
    before = snapshot.copy()
    done = yield from compute(partial(_fix, task, snapshot), snapshot.size)
    if not done or snapshot.wrong:
        return []
    writes = yield from _writes_that_stay(before, snapshot, context)
    if writes is None:
        return None
    stays = any(name[:1] in RECORDS for name in snapshot.fields)
    active = max((record.header.created_at for record in snapshot.records(b"C")), default=0) or snapshot.now
    counts, read = snapshot.counts if stays else None, (before.counts or b"", before.settings or b"")
    repairs = _difference(before, snapshot, writes)
    statement, sealed = None, b""
    if not snapshot.fresh and snapshot.restated and b"Z" in before.fields:
        raise InvalidConfigError(
            f"{context}: the thread has a statement of what it holds, and this saver was opened without freshness=True, so it "
            "may not remove checkpoints or pending writes; nothing was changed"
        )
    if snapshot.fresh and snapshot.restated:
        statement, sealed, repairs = _restated(before, snapshot, repairs)
    same = yield from commands.repair(snapshot.address.keys, context, *read, counts or b"", active, repairs)
    if same and statement is not None:
        yield from freshness.stands(task.engine, snapshot.address, (b"", sealed), statement, {})
    return done if same else None


def _restated(
    before: ThreadSnapshot, after: ThreadSnapshot, repairs: commands.Repairs
) -> tuple[Statement | None, bytes, commands.Repairs]:
    """A new statement of what is there then, as it is stored too, and the same changes with it."""
    address, gathered = after.address, after.gathered()
    thread = address.place(b"C", b"", b"")
    if gathered.sealed is None and after.unstated:
        return None, b"", repairs
    former = None
    with suppress(CheckpointCorruptError):  # then the new one follows none
        former = gathered.sealed and Statement.open(gathered.sealed, address.place(b"Z", b"", b""), address.seal)
    statement, fields = gathered.fields(former or None, thread, address.seal)
    drop = {name for name in before.fields if name[:1] == b"F" and name not in fields}.union(
        repairs.drop_fields
    ) - fields.keys()
    return statement, fields[b"Z"], repairs._replace(drop_fields=drop, write_fields=[*repairs.write_fields, *fields.items()])


def _fix(task: Task, snapshot: ThreadSnapshot) -> list[Repair]:
    """Applies fixes to the snapshot until no problem is left that may be fixed. Returns what was done."""
    done: list[Repair] = []
    whole = len(snapshot.fields)
    found = list(find_problems(snapshot))
    spared = RECORD_KINDS if not task.drop and any(each.kind == "replayed" for each in found) else ()
    while chosen := [each for each in found if each.fix is not None and task.may_fix(each) and each.kind not in spared]:
        for problem in chosen:
            done.append(problem.mended(snapshot.address.thread))
            if problem.fix is not None:
                problem.fix()
        recount(snapshot)
        found = list(find_problems(snapshot))
    if len(snapshot.fields) < whole:  # a checkpoint was dropped, maybe the last of its run
        used = snapshot.used_runs()
        snapshot.runs = {member for member in snapshot.runs if paired(member, snapshot.thread) in used}
    return done


def _writes_that_stay(
    before: ThreadSnapshot, after: ThreadSnapshot, context: str
) -> Operation[list[tuple[bytes, bytes]] | None]:
    """Fields that lose some of their pending writes, with the remaining content. None if the thread changed."""
    address = after.address
    found: list[tuple[bytes, bytes]] = []
    for name, each in after.fields.items():
        was = before.fields[name]
        if len(each.records) < len(was.records) or each.segments != was.segments:
            lists = (name, *(segment for segment in was.segments if keys.segment_of(segment)))
            (contents,) = yield Read([("HMGET", address.keys.hash, *map(address.keys.names.field, lists))], context)
            place = address.place(b"W", *keys.split_field(name))
            raws: list[bytes] = []
            for content in contents:
                with suppress(CheckpointCorruptError):  # nothing of it is among the records
                    raws += thread_fields.split_writes(thread_fields.as_list(content or b"")[1], place)
            staying = [record.at for record in each.records]
            if len(raws) <= max(staying):
                return None
            found.append((name, thread_fields.joined_writes([raws[at] for at in staying])))
    return found


def _names(snapshot: ThreadSnapshot) -> set[bytes]:
    return snapshot.unknown.union(snapshot.fields, *(each.segments for each in snapshot.fields.values()))


def _difference(before: ThreadSnapshot, after: ThreadSnapshot, writes: commands.Fields) -> commands.Repairs:
    return commands.Repairs(
        keys=[n for n in before.wrong if n not in after.wrong],
        drop_fields=_names(before) - _names(after),
        write_fields=writes,
        drop_index=before.index.keys() - after.index.keys(),
        add_index=[member for member, score in after.index.items() if before.index.get(member) != score],
        drop_runs=before.runs - after.runs,
        add_runs=after.runs - before.runs,
        drop_metadata=before.metadata - after.metadata,
        add_metadata=after.metadata - before.metadata,
    )
