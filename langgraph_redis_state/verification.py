"""Checking what is stored, and mending it. Operations, like those in history.py; no I/O here either.

A thread is read with plain commands in bounded portions, which neither heal nor refresh anything, between two calls of
`inspect.lua` that must agree on its revision. What is wrong with such a reading is found by one function (faults.py); each
fault brings what would mend it. Verification tells of the faults. A repair applies what mends them to the reading, finds
what is wrong then (chunks that only a dropped record used, counts), until nothing is left that it may mend, and has all of it
done by one script, if the thread is still the one that was read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from . import chunks, keys, records, retention
from .effects import Argument, Call, Operation, Read, Scan, Script, compute, counted, portion
from .errors import CheckpointCorruptError
from .faults import (
    RECORDS,
    REPAIRABLE,
    WRONG_TYPE,
    Fault,
    Field,
    Kind,
    Reading,
    Record,
    Repair,
    apply,
    counts_line,
    faults,
    is_field,
    is_text,
    paired,
)
from .operations import BUSY_TRIES, Operations
from .records import FIXED, STAMP, Parts
from .target import Target

INSPECT, REPAIR = Script("inspect"), Script("repair", writes=True)

PORTION = 50
"""Fields read at once: at most some 13 MB, chunks being what they are."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What was read so far: whole threads, checkpoints and pending writes, chunks, bytes of fields with their names."""

    threads: int = 0
    records: int = 0
    chunks: int = 0
    bytes: int = 0


class Verification:
    """One `verify` or `repair` call, portion by portion; None at the end. `drop` is None for a verification."""

    def __init__(
        self,
        operations: Operations,
        thread: Any | None,
        progress: Callable[[Progress], None] | None,
        drop: bool | None = None,
    ) -> None:
        if drop not in (None, True, False):
            raise ValueError(f"repair: drop_unreadable must be True or False, not {drop!r}")
        self._operations, self._tell, self._drop = operations, progress, drop
        self._prefix = operations.settings.prefix
        self._only = None if thread is None else operations.target(thread).keys.name
        self._begun = False
        self._known: dict[int, set[bytes]] = defaultdict(set)
        self._threads: list[tuple[bytes, set[bytes], set[bytes]]] = []
        self._seen = Progress()

    def next_page(self) -> Operation[list[Any] | None]:
        """Findings, or repairs: of the keys at large, of the indexes of a bucket, or of a thread."""
        if not self._begun:
            self._begun = True
            yield from self._operations.check_layout(self._drop is not None, *(() if self._drop is None else (REPAIR,)))
            if self._only is None:
                return (yield from self._keys())
            self._known[keys.bucket_of(self._only)] = {self._only}
        if self._threads:
            return (yield from self._thread(*self._threads.pop()))
        return (yield from self._bucket(*self._known.popitem())) if self._known else None

    def _saw(self, **more: int) -> None:
        self._seen = replace(self._seen, **{name: getattr(self._seen, name) + n for name, n in more.items()})
        if self._tell is not None:
            self._tell(self._seen)

    # --- what belongs to no thread ---

    def _keys(self) -> Operation[list[Any]]:
        """Every key of the prefix: which threads there are, and keys that are of none."""
        about = f"verifying prefix {self._prefix!r}"
        pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", self._prefix.encode()) + b":{*"
        names: list[bytes] = yield Scan(pattern, about)
        found: list[Fault] = []
        staging: list[bytes] = []
        for name in dict.fromkeys(names):
            parts = re.fullmatch(
                rb"\{([0-9a-f]{4})\}:(?:([tixu]):(.*)|threads|expiry|runs|m)", name[len(self._prefix.encode()) + 1 :], re.S
            )
            bucket = int(parts[1], 16) if parts else keys.BUCKETS
            if parts and parts[2] == b"u":
                staging.append(name)
            elif bucket >= keys.BUCKETS or (parts and parts[2] and not _is_thread(parts[3], bucket)):
                found.append(_stray_key("unknown", name, "no key that this package writes there"))
            else:
                self._known[bucket].update([parts[3]] if parts and parts[2] else ())
        for at in range(0, len(staging), 1000):
            left = yield Read([("PTTL", name) for name in staging[at : at + 1000]], about)
            for name, ms in zip(staging[at : at + 1000], left, strict=True):
                if ms == -1:
                    found.append(_stray_key("staging", name, "left behind, and it never expires"))
        return (yield from self._settled(found, about))

    def _bucket(self, bucket: int, known: set[bytes]) -> Operation[list[Any]]:
        """The indexes of a bucket: which threads they name, and members that are of no thread of this bucket."""
        about = f"verifying bucket {bucket:04x} of prefix {self._prefix!r}"
        named: dict[bytes, tuple[set[bytes], set[bytes]]] = {name: (set(), set()) for name in known}
        found: list[Fault] = []
        for n, index in enumerate(("threads", "expiry", "runs", "m")):
            name = keys.bucket_key(self._prefix, bucket, index)
            try:
                members = yield from self._members(name, about)
            except CheckpointCorruptError:
                found.append(_stray_key("unknown", name, WRONG_TYPE))
                continue
            for member in members:
                thread = _owner(n, member)
                if thread is not None and _is_thread(thread, bucket):
                    if self._only in (None, thread):
                        entries = named.setdefault(thread, (set(), set()))
                        if n >= 2:
                            entries[n - 2].add(member)
                elif self._only is None:
                    problem, done = f"{member!r} is no entry of this bucket", f"{member!r} was removed"
                    found.append(Fault("bucket", keys.shown(name), problem, done, (("ZREM", name, member),)))
        self._threads = [(thread, *entries) for thread, entries in sorted(named.items(), reverse=True)]
        return (yield from self._settled(found, about))

    def _settled(self, found: Sequence[Fault], about: str) -> Operation[list[Any]]:
        """Findings of keys and members that no script writes: so one plain command removes each."""
        if self._drop is None:
            return [fault.found(None) for fault in found]
        chosen = [fault for fault in found if self._may_mend(fault)]
        for fault in chosen:
            yield Read(fault.fixes, about)
        return [fault.mended(None) for fault in chosen]

    def _may_mend(self, fault: Fault) -> bool:
        return bool(fault.fixes) and (fault.kind in REPAIRABLE or bool(self._drop))

    # --- a thread ---

    def _thread(self, name: bytes, runs: set[bytes], meta: set[bytes]) -> Operation[list[Any]]:
        target = self._operations.target(name.decode())
        about = f"{'verify' if self._drop is None else 'repair'}: thread {target.thread!r}"
        before = self._seen
        for _ in range(BUSY_TRIES):
            self._seen = before
            reading, whole = yield from self._reading(target, about, runs, meta)
            if not whole:
                continue
            self._saw(threads=int(reading.there))
            if self._drop is None:
                size = sum(each.size for each in reading.fields.values())
                wrong: list[Fault] = yield from compute(partial(list, faults(reading)), size)
                return [fault.found(target.thread) for fault in wrong]
            mended = yield from self._mended(reading, about)
            if mended is not None:
                return mended
        problem = f"it changed each of {BUSY_TRIES} times it was read"
        busy = Fault("busy", "the thread", problem, f"nothing: {problem}")
        if self._drop is not None:
            return [busy.mended(target.thread)]
        # that a field is damaged is so whatever else was going on
        damaged = [fault for fault in faults(reading) if fault.kind == "damaged"]
        return [fault.found(target.thread) for fault in (*damaged, busy)]

    def _reading(self, target: Target, about: str, runs: set[bytes], meta: set[bytes]) -> Operation[tuple[Reading, bool]]:
        """A reading, and whether the thread stayed the same meanwhile."""
        arguments: list[Argument] = [target.keys.name, len(runs), *runs, *meta]
        first = Reading.of((yield Call(INSPECT, target.keys.all, arguments, about)), target)
        fields: dict[bytes, Field] = {}
        cursor = -1 if first.there and 1 not in first.wrong else 0
        while cursor:
            cursor, there = yield from portion("HSCAN", target.keys.hash, cursor, PORTION, about)
            there = [(key, value) for key, value in there if key not in fields]
            size = sum(len(key) + len(value) for key, value in there)
            found: dict[bytes, Field] = yield from compute(partial(self._examined, target, there), size)
            fields |= found
            read = sum(max(len(each.records), 1) for key, each in found.items() if key[:1] in RECORDS)
            self._saw(records=read, chunks=sum(key[:1] == b"D" for key in found), bytes=size)
        index = dict((yield from self._members(target.keys.all[1], about)) if first.indexed else {})
        last = Reading.of((yield Call(INSPECT, target.keys.all, arguments, about)), target)
        last.fields, last.index = fields, index
        if 7 not in last.wrong:
            last.deleted = yield from self._operations.deleted(target, retention.awaited(last.headers(), last.early()))
        same = (last.wrong, last.counts, last.settings, last.there) == (first.wrong, first.counts, first.settings, first.there)
        return last, same

    def _members(self, key: bytes, about: str) -> Operation[dict[bytes, float]]:
        members: dict[bytes, float] = {}
        cursor = -1
        while cursor:
            cursor, there = yield from portion("ZSCAN", key, cursor, 1000, about)
            members.update((member, float(score)) for member, score in there)
        return members

    def _examined(self, target: Target, pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, Field]:
        return {name: self._one(target, name, content) for name, content in pairs}

    def _one(self, target: Target, name: bytes, content: bytes) -> Field:
        found = Field(len(name) + len(content))
        kind = name[:1]
        place = target.place(name if kind == b"G" else kind, *(keys.split_field(name) if kind in RECORDS else (b"", b"")))
        try:
            if not is_field(name):
                found.unknown = True
            elif kind == b"D":
                found.plain = len(content) - 1 if content[:1] == b"\0" else int.from_bytes(content[1:5], "big")
                Parts({}, {name[1:]: content}).chunk(name[1:], place)
            elif kind == b"P":
                found.refers = tuple(b"D" + chunk for chunk in Parts({name[1:]: content}).page(name[1:], place))
            elif kind == b"G":
                found.refers = (keys.checkpoint_field(*records.open_tag(content, place, self._operations.settings.integrity)),)
            elif kind in (b"C", b"H"):
                found.records, found.size = [self._record(0, content, place, found)], len(name)
            elif kind == b"W":
                raws = list(records.split_writes(content, place))
                found.records, found.size = [self._record(n, raw, place, found) for n, raw in enumerate(raws)], len(name) + 4
                markers = set()
                for record in found.records:
                    record.size += 4
                    marker = (record.header.index, record.header.task)
                    if not record.problem and marker in markers:
                        record.problem = f"write {marker[0]} of task {marker[1]!r} stands there twice"
                    markers.add(marker)
        except CheckpointCorruptError as error:
            found.problem = _message(error, place)
        return found

    def _record(self, at: int, raw: bytes, place: records.Place, found: Field) -> Record:
        """A record, verified and opened as far as no serializer is needed."""
        head = raw[STAMP : STAMP + FIXED]
        record = Record(at, len(raw), int.from_bytes(head[10:15], "big"), int.from_bytes(head[15:20], "big"))
        try:
            header, plain = records.open_record(raw, place, self._operations.settings.integrity)
            values: Sequence[records.Entry | records.Write | records.History]
            places = 0
            if place.kind == b"C":
                values = records.open_checkpoint(header, plain, place)[2]
            elif place.kind == b"W":
                values = [records.open_write(header, plain, place)]
            else:
                history = records.open_history(header, plain, place)
                values, places, found.lost = [history], history.places, history.lost
            places += sum(chunks.count(each.content) for each in values if not isinstance(each.content, bytes))
            record.header, record.places = header, places
        except CheckpointCorruptError as error:
            record.problem = _message(error, place)
        return record

    # --- repair ---

    def _mended(self, reading: Reading, about: str) -> Operation[list[Repair] | None]:
        """What was done, or None if the thread changed since the reading."""
        target, before, settings = reading.target, reading.counts, reading.settings
        plan: dict[str, dict[Any, None]] = defaultdict(dict)
        done: list[Repair] = []

        def choose() -> None:
            while chosen := [fault for fault in faults(reading) if self._may_mend(fault)]:
                for fault in chosen:
                    done.append(fault.mended(target.thread))
                    for what, item in fault.fixes:
                        apply(reading, plan, what, item)
                reading.counts = counts_line(reading)

        yield from compute(choose, sum(each.size for each in reading.fields.values()))
        if not done or reading.wrong:
            return []
        if plan["-fields"]:
            held = reading.held_runs()
            for member in [each for each in reading.runs if paired(each, reading.thread) not in held]:
                apply(reading, plan, "-runs", member)
        writes: dict[bytes, bytes] = {}
        for name in plan["writes"].keys() & reading.fields.keys():
            (content,) = yield Read([("HGET", target.keys.hash, name)], about)
            raws = list(records.split_writes(content or b"\1\0\0\0", target.place(b"W", *keys.split_field(name))))
            staying = [record.at for record in reading.fields[name].records]
            if len(raws) <= max(staying):
                return None
            writes[name] = records.joined_writes([raws[at] for at in staying])
        stays = any(name[:1] in RECORDS for name in reading.fields)
        active = max((record.header.created_at for record in reading.records(b"C")), default=0) or reading.now
        counts = reading.counts or b"" if stays else b""
        arguments: list[Argument] = [reading.thread, before or b"", settings or b"", counts, active]
        for what in ("keys", "-fields", "writes", "-index", "+index", "-runs", "+runs", "-meta", "+meta"):
            arguments += counted(writes.items() if what == "writes" else plan[what])
        reply = yield Call(REPAIR, target.keys.all, arguments, about)
        return None if reply[0] == b"stale" else done


def _is_thread(name: bytes, bucket: int) -> bool:
    return b"\0" not in name and is_text(name) and keys.bucket_of(name) == bucket


def _owner(n: int, member: bytes) -> bytes | None:
    """The thread that a member of the n-th index of a bucket speaks of; None if it is none of ours."""
    if n < 2:
        return member
    parts = member[1:].split(b"\0")
    if len(parts) != n or member[:1] not in ((b"R", b"T") if n == 2 else (b"V", b"T")):
        return None
    return parts[0] if member[:1] == b"T" else parts[-1]


def _stray_key(kind: Kind, name: bytes, problem: str) -> Fault:
    return Fault(kind, keys.shown(name), problem, "the key was removed", (("UNLINK", name),))


def _message(error: Exception, place: records.Place) -> str:
    return str(error).removeprefix(f"{place}: ")
