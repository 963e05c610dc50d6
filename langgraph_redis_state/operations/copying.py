"""copy_thread: the fields of a thread, verified, made those of another one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from ..address import Address
from ..caching.parts import Parts
from ..effects import Command, Operation, Read, compute, portion
from ..errors import CheckpointCorruptError, CheckpointLostError, ThreadBusyError, ThreadNotFoundError
from ..scripts import commands
from ..storage import keys, records, thread_fields
from ..storage.codec import Integrity
from ..storage.keys import ThreadKeys
from ..storage.records import Header, RecordKey
from .engine import Engine
from .reading import fetch
from .removing import BUSY_TRIES
from .uploading import stage


class Copying:
    """One copy. Every field is verified before it is sealed for its new place. `record`, `chunk` and `tag` say how."""

    def __init__(self, origin: Address, target: Address, integrity: Integrity, verb: str = "copy_thread") -> None:
        self._origin, self._target, self._integrity = origin, target, integrity
        self.about = f"{verb}: thread {origin.thread!r}"
        self._copied: set[bytes] = set()
        self._needed: set[bytes] = set()
        self._writes, self._told = dict[bytes, int](), dict[RecordKey, int]()
        self.runs: dict[bytes, None] = {}
        """Of the checkpoints so far."""

    def check(self) -> None:
        """Raises if a page or a chunk to which a field refers was not among them, or a pending write that is counted."""
        if lacking := self._needed - self._copied:
            raise CheckpointLostError(f"{self.about}: {len(lacking)} parts of the thread are gone; nothing was copied")
        came = Counter[tuple[bytes, bytes]]()
        for name, number in self._writes.items():
            came[keys.split_field(name)] += number
        for place, number in self._told.items():
            if came[place.ns, place.checkpoint] != number:
                raise CheckpointCorruptError(f"{place}: pending writes are gone, or their number is wrong; nothing was copied")

    @property
    def came(self) -> tuple[int, int]:
        """How many fields there were so far, and members of the index."""
        return len(self._copied), sum(len(keys.members_of(name)) for name in self._copied)

    def resealed(self, there: Sequence[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        """These fields as the other thread has them, and the members of its index that name them."""
        fields = [(name, content) for name, raw in there if (content := self._resealed(name, raw)) is not None]
        self._copied.update(name for name, _ in fields)
        return fields, [member for name, _ in fields for member in keys.members_of(name)]

    def _resealed(self, name: bytes, content: bytes) -> bytes | None:
        kind = name[:1]
        if kind == b"P":
            self._needed.update(b"D" + chunk for chunk in Parts({name[1:]: content}).page(name[1:], self.about))
            return content
        if kind == b"D":
            return self.chunk(name[1:], content)
        if name == b"T":
            line = thread_fields.opened_line(content, self._origin.keys.name, self.about, "TTL settings (field T)")
            return thread_fields.sealed_line(line, self._target.keys.name)
        if kind == b"G":
            here, there = (each.place(name, b"", b"") for each in (self._origin, self._target))
            return self.tag(content, here, there)
        if kind in (b"C", b"W", b"H"):
            here, there = (each.place(kind, *keys.split_field(name)) for each in (self._origin, self._target))
            if kind != b"W":
                return self._moved(content, here, there)
            if keys.segment_of(name) == b"":
                self._told[here], _ = thread_fields.open_directory(content, here)
                return content
            if keys.segment_of(name):
                self._told.setdefault(here, 0)  # a directory has it
            names, blob = thread_fields.as_list(content)
            raws = [self._moved(raw, here, there) for raw in thread_fields.split_writes(blob, here)]
            self._writes[name] = len(raws)
            return content[: 4 + len(names)] + thread_fields.joined_writes(raws)[4:]
        return None  # counts are taken over by the script, and which operation made the origin does not matter

    def record(self, raw: bytes, here: RecordKey, there: RecordKey) -> tuple[Header, bytes]:
        """A record as it is stored at its new place."""
        return records.moved(raw, here, there, self._integrity)

    def chunk(self, name: bytes, content: bytes) -> bytes:
        """A chunk as it is stored in the other thread."""
        Parts({}, {name: content}).chunk(name, self.about)
        return content

    def tag(self, content: bytes, here: RecordKey, there: RecordKey) -> bytes:
        """A tag as it is stored in the other thread."""
        return thread_fields.seal_tag(*thread_fields.open_tag(content, here, self._integrity), there, self._integrity)

    def _moved(self, raw: bytes, here: RecordKey, there: RecordKey) -> bytes:
        header, record = self.record(raw, here, there)
        self._needed.update(b"P" + page for page in header.pages)
        self._needed.update(b"D" + chunk for chunk in header.loose)
        if header.run:
            self.runs[header.run.encode()] = None
        return record


def metadata_query(thread: ThreadKeys) -> Command:
    """Asks for what is indexed of a thread's metadata."""
    entry = b"T" + thread.name + b"\0"
    return "ZRANGEBYLEX", thread.all[5], b"[" + entry, b"[" + entry + b"\xff"


def metadata_told(thread: ThreadKeys, members: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Names and values in the reply to `metadata_query`."""
    begin = len(thread.name) + 2
    return [(name, value) for name, _, value in (member[begin:].partition(b"\0") for member in sorted(members))]


def copy_thread(engine: Engine, source: Any, target: Any) -> Operation[None]:
    """Reads the source field by field, seals each record for its new place, fills staging, and makes it the thread with
    one script. The source's revision, the same before and after, says that what was read belongs together."""
    origin = engine.address(source)
    copy = engine.address(target)
    about = f"copy_thread: from {origin.thread!r} to {copy.thread!r}"
    if origin.thread == copy.thread:
        raise ValueError(f"{about}: a thread cannot be copied onto itself")
    yield from engine.check_layout(True, commands.STAGE, commands.COMMIT_COPY)
    for _ in range(BUSY_TRIES):
        if (yield from _copy_once(engine, origin, copy, about)):
            return
    raise ThreadBusyError(
        f"{about}: the source changed each of {BUSY_TRIES} times while it was read; nothing was copied, "
        "try again when it is quieter"
    )


def _copy_once(engine: Engine, origin: Address, copy: Address, about: str) -> Operation[bool]:
    counts, there = yield Read([("HGET", origin.keys.hash, "S"), ("EXISTS", origin.keys.hash)], about)
    if counts is None and not there:
        found, _ = yield from fetch(engine, origin, [(b"", b"")])  # raises if it was there and got lost
        if found:
            return False  # it came into being just now
        raise ThreadNotFoundError(f"{about}: there is no thread {origin.thread!r}")
    line = thread_fields.opened_counts(counts, origin.keys.name, about)
    op = os.urandom(8).hex().encode()
    staged = copy.keys.staging(op)
    copying = Copying(origin, copy, engine.settings.integrity)
    cursor = -1
    while cursor:
        cursor, there = yield from portion("HSCAN", origin.keys.hash, cursor, 100, about)
        size = sum(len(content) for _, content in there)
        fields, members = yield from compute(partial(copying.resealed, there), size)
        yield from stage(copy, staged, fields, members, about)
    indexed, now = yield Read([metadata_query(origin.keys), ("HGET", origin.keys.hash, "S")], about)
    if now != counts:
        return False
    copying.check()
    return (
        yield from commands.commit_copy(
            copy.keys,
            about,
            staged,
            ttl=max(engine.settings.ttl, 0),  # what is staged expires soon, and a copy must not
            operation=op,
            counts=line,
            fields=copying.came[0],
            members=copying.came[1],
            runs=copying.runs,
            metadata=metadata_told(origin.keys, indexed),
        )
    )
