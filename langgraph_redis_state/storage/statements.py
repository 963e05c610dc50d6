"""What is true of a thread, under a key: which checkpoints and pending writes it has. So an older record, write or list that
somebody puts back at its own place, or one that is taken away, is found when it is read. No I/O.

The *statement* (field ``Z``) is sealed by the client that writes, and replaced with each write, by compare-and-set: the
script writes only if the statement that the client began with is still there. It names the newest checkpoint of the root
namespace and of each namespace that remembers earlier calls, and has an entry for each checkpoint that still changes: the
checksum of its record, and a digest of its pending writes. An entry to which nothing came since the root checkpoint before
the last, or that two others of its namespace came after, is cold, and the next put freezes it: it leaves the statement for a
field of its own (``F<ns>\\0<id>``). If a write comes to a cold or frozen checkpoint all the same, its entry stays in the
statement, for ever. So all frozen fields of a checkpoint are equal, also those in calls that the server refused or never got,
every other form of it was only ever in an older statement, and a statement stays small. An entry without a record is never
frozen: its checkpoint is on its way, or was taken away. Where a thread begins, and where all of it is frozen anew (a copy,
`rekey`, `repair`), a new *life* begins, which frozen fields name: those of an earlier life, of a thread that was deleted or
under another key, say nothing any more.

*Z and F*: format (1), flags (1), key id (1), checksum or synthetic IV (16), body, which is msgpack. Statement:
``[revision, round, life, [[ns, id], ...], [[ns, id, record, writes, round, state], ...]]``; frozen: ``[life, record,
writes]``. A revision counts from the moment (µs) at which the thread got its first statement. A round is a root checkpoint. A
life is 8 random bytes. `record` is the checksum of a record (16, or empty: it is not there), `writes` the digest of its
pending writes (or empty: there are none). That is a chain, so that the last write costs no more than the first: in the order of
their revisions, those of one call in the order of markers, each link is BLAKE2b-128 over the one before, a marker and a
checksum. Namespaces are as they are stored, ids in header form.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
import ormsgpack

from ..errors import CheckpointCorruptError, FormatError
from .codec import DIGEST
from .keys import newest_of_each, segment_of
from .names import Names
from .records import RecordKey, packed_id, parsed, unpack_id, write_marker
from .seals import ENCRYPTED, Seal
from .thread_fields import as_list, split_writes

FORMAT: Final = 1

HEAD: Final = 3
"""Bytes before the checksum."""

LIFE: Final = 8
"""Bytes that tell the lives of a thread apart."""

ROUNDS: Final = 2
"""An entry is frozen when so many root checkpoints came after the last change."""

OTHERS: Final = 2
"""Of each namespace so many entries are not frozen by others."""

COLD: Final = 1
"""An entry that the next put freezes, if nothing comes to its checkpoint before."""

KEPT: Final = 2
"""An entry that was cold or frozen before, so it is never frozen any more."""

Where = tuple[bytes, bytes]
"""Namespace and id of a checkpoint."""

Mark = tuple[int, bytes, bytes]
"""Of a pending write: the revision of its thread that it came with, its marker and its checksum."""

Markers = Mapping[bytes, bytes]
"""The pending writes of a checkpoint: the checksum of each, by its marker, in the order in which they came."""


class Entry(NamedTuple):
    """What stands at one checkpoint."""

    record: bytes
    """Checksum of its record; empty: it is not there."""
    writes: bytes
    """Digest of its pending writes; empty: there are none."""
    round: int = 0
    state: int = 0
    """COLD or KEPT, if either."""

    @property
    def touched(self) -> Entry:
        """The entry when something comes to its checkpoint."""
        return self._replace(state=KEPT) if self.state else self


Frozen = dict[Where, Entry]


@dataclass(frozen=True, slots=True)
class Statement:
    """What is true of a thread at one revision."""

    revision: int = 0
    round: int = 0
    life: bytes = b""
    """What tells the frozen fields that go with it from those of an earlier life of the thread; empty: it begins one."""
    heads: Mapping[bytes, bytes] = field(default_factory=dict)
    """The newest checkpoint of a namespace."""
    entries: Mapping[Where, Entry] = field(default_factory=dict)
    """What still changes, in the order of the last change."""

    def _next(self, **changes: Any) -> Statement:
        revision = self.revision + 1 if self.revision else time.time_ns() // 1000
        return replace(self, revision=revision, life=self.life or secrets.token_bytes(LIFE), **changes)

    def put(self, where: Where, record: bytes, frozen: Entry | None = None) -> tuple[Statement, Frozen]:
        """The statement after a put of the checkpoint, and the entries that it freezes. `frozen`: what stands there, if that is
        frozen."""
        entries = dict(self.entries)
        before = (entries.pop(where, None) or frozen or Entry(b"", b"")).touched
        gone = {each: entries.pop(each) for each, entry in self.entries.items() if entry.state == COLD and each in entries}
        ns, checkpoint = where
        now = self.round + (not ns)
        entries[where] = before._replace(record=record, round=now)
        beside = [each for each in entries if each[0] == ns][:-OTHERS]
        for each, entry in list(entries.items()):
            if entry.record and not entry.state and (entry.round <= now - ROUNDS or each in beside):
                entries[each] = entry._replace(state=COLD)
        heads = {**self.heads, ns: max(self.heads.get(ns, b""), checkpoint)}
        living = {each[0] for each in entries}
        heads = {each: newest for each, newest in heads.items() if b":" not in each or each in living}
        return self._next(round=now, heads=heads, entries=entries), gone

    def wrote(self, where: Where, writes: bytes, frozen: Entry | None = None) -> Statement:
        """The statement when these are the pending writes of the checkpoint."""
        entries = dict(self.entries)
        before = (entries.pop(where, None) or frozen or Entry(b"", b"")).touched
        entries[where] = before._replace(writes=writes, round=self.round)
        return self._next(entries=entries)

    def left(self, entries: Mapping[Where, Entry], newest: Mapping[bytes, bytes]) -> Statement:
        """The statement after a removal that leaves these entries, and these newest checkpoints of all namespaces."""
        heads = {ns: checkpoint for ns, checkpoint in newest.items() if b":" not in ns or ns in self.heads}
        return self._next(heads=heads, entries=dict(entries))

    def seal(self, place: RecordKey, by: Seal) -> bytes:
        name = place.names.ns
        heads = [[name(ns), _packed(checkpoint)] for ns, checkpoint in self.heads.items()]
        entries = [[name(ns), _packed(checkpoint), *entry] for (ns, checkpoint), entry in self.entries.items()]
        return _sealed([self.revision, self.round, self.life, heads, entries], place, by)

    @classmethod
    def open(cls, raw: bytes, place: RecordKey, by: Seal) -> Statement:
        revision, now, life, heads, entries = _opened(raw, place, by, _STATEMENT)
        told = _told(place.names)
        return cls(
            revision,
            now,
            life,
            dict(told(*each) for each in heads),
            {told(ns, checkpoint): Entry(*entry) for ns, checkpoint, *entry in entries},
        )

    def is_newest(self, ns: bytes, checkpoint: bytes | None) -> bool:
        """Whether this, or none, may be the newest checkpoint of a namespace. Of one with ':' only those that still change are
        known: one that is frozen may be newer, after a put by a machine whose clock is behind."""
        head = self.heads.get(ns)
        if b":" in ns:
            return head is None or (checkpoint is not None and checkpoint >= head)
        return checkpoint == head

    def check(self, place: RecordKey, found: Entry, frozen: bytes | None, by: Seal) -> Entry:
        """The entry of a checkpoint, if what was found there is what it says; `frozen`: its frozen field."""
        where = place.ns, place.checkpoint
        entry = self.entries.get(where)
        if entry is None:
            life, entry = open_frozen(frozen, place, by) if frozen is not None else (self.life, Entry(b"", b""))
            if life != self.life:
                raise replayed(place, "what is frozen of it is from before the thread was deleted, copied, rekeyed or repaired")
        if entry.record != found.record:
            raise replayed(place, "its record is not the one that was written last" if found.record else "its record is gone")
        if entry.writes != found.writes:
            raise replayed(place._replace(kind=b"W"), "they are not those that were written last")
        return entry


_packed = lru_cache(1 << 14)(packed_id)  # a statement is sealed with each write, and mostly names the same


def replayed(place: RecordKey, what: str) -> CheckpointCorruptError:
    return CheckpointCorruptError(
        f"{place}: replayed or removed: {what}. Somebody changed the data on the server without the key, or a backup was put "
        "back in part. `verify` says what else differs; `repair` accepts what is there"
    )


def seal_frozen(life: bytes, entry: Entry, place: RecordKey, by: Seal) -> bytes:
    return _sealed([life, entry.record, entry.writes], place._replace(kind=b"F"), by)


def open_frozen(raw: bytes, place: RecordKey, by: Seal) -> tuple[bytes, Entry]:
    """The life of the thread in which an entry was frozen, and the entry."""
    life, record, writes = _opened(raw, place._replace(kind=b"F"), by, _FROZEN)
    return life, Entry(record, writes, state=COLD)


def checksum_of(sealed: bytes) -> bytes:
    """The 16 bytes by which scripts know a statement; empty: there is none."""
    return sealed[HEAD : HEAD + DIGEST]


def record_checksum(record: bytes, place: RecordKey) -> bytes:
    """Of a record as it is stored."""
    return parsed(record, place)[1]


def mark_of(raw: bytes, place: RecordKey) -> Mark:
    """Of a pending write as it is stored."""
    header, checksum, *_ = parsed(raw, place)
    return header.version, write_marker(header.index, header.task.encode()), checksum


def in_order(marks: Iterable[Mark], place: RecordKey) -> dict[bytes, bytes]:
    """Of the pending writes of one checkpoint."""
    listed = sorted(marks)
    found = {marker: checksum for _, marker, checksum in listed}
    if len(found) < len(listed):
        raise replayed(place, "one of them stands there twice")
    return found


def extended(markers: Markers, digest: bytes, came: Mapping[bytes, bytes]) -> tuple[Markers, bytes]:
    """Pending writes, and their digest, after a call that brought some."""
    last = dict(sorted(came.items()))
    if markers.keys().isdisjoint(last):
        return {**markers, **last}, _chained(digest, last)
    after = {marker: checksum for marker, checksum in markers.items() if marker not in last} | last
    return after, writes_digest(after)


def writes_digest(markers: Markers) -> bytes:
    return _chained(b"", markers)


def _chained(digest: bytes, markers: Markers) -> bytes:
    for marker, checksum in markers.items():
        digest = hashlib.blake2b(digest + marker + checksum, digest_size=DIGEST).digest()
    return digest


_STATEMENT = msgspec.msgpack.Decoder(
    tuple[int, int, bytes, list[tuple[bytes, bytes]], list[tuple[bytes, bytes, bytes, bytes, int, int]]]
)

_FROZEN = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes])


def _sealed(content: Any, place: RecordKey, by: Seal) -> bytes:
    header = b"%c%c%c" % (FORMAT, by.flags, by.key_id)
    return header + by.close(place.signed, header, ormsgpack.packb(content))


def _opened(raw: bytes, place: RecordKey, by: Seal, decoder: msgspec.msgpack.Decoder[Any]) -> Any:
    if len(raw) <= HEAD + DIGEST or raw[0] != FORMAT or raw[1] & ~ENCRYPTED:
        raise FormatError(f"{place}: what stands there is damaged, or a newer version of langgraph-redis-state wrote it")
    header, checksum = raw[:HEAD], raw[HEAD : HEAD + DIGEST]
    return decoder.decode(by.open(place.signed, place, header, checksum, raw[HEAD + DIGEST :]))


def _told(names: Names) -> Callable[[bytes, bytes], Where]:
    return lambda ns, checkpoint: (names.ns_of(ns), (unpack_id(checkpoint, 0)[0] or "").encode())


class Gathered:
    """All that stands in a thread, gathered field by field, to be held against its statement, or to make one."""

    def __init__(self) -> None:
        self.records: dict[Where, bytes] = {}
        self.writes: defaultdict[Where, list[Mark]] = defaultdict(list)
        self.frozen: dict[Where, bytes] = {}
        self.sealed: bytes | None = None

    def add(self, name: bytes, content: bytes, place: RecordKey) -> None:
        """A field C, W, F or Z, at its place; others do not matter."""
        kind, where = name[:1], (place.ns, place.checkpoint)
        if kind == b"C":
            self.records[where] = record_checksum(content, place)
        elif kind == b"W" and segment_of(name) != b"":
            self.writes[where] += [mark_of(raw, place) for raw in split_writes(as_list(content)[1], place)]
        elif kind == b"F":
            self.frozen[where] = content
        elif name == b"Z":
            self.sealed = content

    def entry(self, place: RecordKey) -> Entry:
        where = place.ns, place.checkpoint
        markers = in_order(self.writes.get(where, ()), place._replace(kind=b"W"))
        return Entry(self.records.get(where, b""), writes_digest(markers))

    def check(
        self, statement: Statement, thread: RecordKey, by: Seal, spared: Collection[Where] = ()
    ) -> Iterator[tuple[RecordKey, CheckpointCorruptError]]:
        """What is not as the statement says. `spared`: checkpoints that are not compared."""
        for where in {**self.records, **self.writes, **self.frozen, **statement.entries}.keys() - spared:
            place = thread._replace(kind=b"C", ns=where[0], checkpoint=where[1])
            try:
                statement.check(place, self.entry(place), self.frozen.get(where), by)
            except CheckpointCorruptError as error:
                yield place, error
        newest = newest_of_each(self.records)
        for ns in {**newest, **statement.heads}:
            if not statement.is_newest(ns, newest.get(ns)):
                place = thread._replace(kind=b"C", ns=ns, checkpoint=statement.heads.get(ns) or newest.get(ns) or b"")
                yield place, replayed(place, NEWEST)

    def fields(self, after: Statement | None, thread: RecordKey, by: Seal) -> tuple[Statement, dict[bytes, bytes]]:
        """A statement that follows another one, with everything frozen, and the fields that hold both."""
        heads = {ns: checkpoint for ns, checkpoint in newest_of_each(self.records).items() if b":" not in ns}
        statement = replace(after or Statement(), life=b"")._next(heads=heads, entries={})
        found = {b"Z": statement.seal(thread._replace(kind=b"Z", ns=b"", checkpoint=b""), by)}
        for where in {**self.records, **{each: None for each, writes in self.writes.items() if writes}}:
            place = thread._replace(kind=b"F", ns=where[0], checkpoint=where[1])
            found[place.field] = seal_frozen(statement.life, self.entry(place), place, by)
        return statement, found


NEWEST: Final = "it is not the newest that was stored, or that is gone"
