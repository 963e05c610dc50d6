"""The fields of a thread on their way between a server and an archive. Pure functions, no I/O.

In an archive a thread stands as under the empty prefix, which no saver can have: records without a key, with plain bodies, and
plain chunks. So what is written depends neither on keys nor on the compression of the server it came from, and is sealed by the
settings of the server it goes to.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..address import Address
from ..caching.parts import Parts
from ..operations.copying import Copying
from ..operations.engine import Engine
from ..storage import records, thread_fields
from ..storage.codec import CompressionType, Integrity, pack
from ..storage.records import Header, RecordKey
from ..storage.thread_fields import Counts

PLAIN = Integrity([], accept_unkeyed=True)


def archived(thread: str) -> Address:
    """Where the fields of a thread stand in an archive."""
    return Address("", thread, "", None)


class Crossing(Copying):
    """A thread that crosses, verified field by field where it comes from."""

    def __init__(self, origin: Address, target: Address, opening: Integrity, sealing: Integrity, how: CompressionType) -> None:
        super().__init__(origin, target, opening, "export" if target.prefix == b"" else "import")
        self._opening, self._sealing, self._how = opening, sealing, how
        self._checkpoints = self._pending = self._chunks = self._unique = 0
        self._stored = self._logical = self._referred = 0

    @classmethod
    def out(cls, engine: Engine, origin: Address) -> Crossing:
        """From the server into an archive."""
        return cls(origin, archived(origin.thread), engine.settings.integrity, PLAIN, CompressionType.NONE)

    @classmethod
    def back(cls, engine: Engine, thread: str, target: Address) -> Crossing:
        """From an archive to the server."""
        return cls(archived(thread), target, PLAIN, engine.settings.integrity, engine.settings.compression)

    @classmethod
    def within(cls, thread: str) -> Crossing:
        """From an archive to nowhere, to verify it."""
        return cls(archived(thread), archived(thread), PLAIN, PLAIN, CompressionType.NONE)

    def resealed(self, there: Sequence[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        fields, members = super().resealed(there)
        for name, content in fields:
            if name != b"T":
                self._stored += len(name) + len(content)
            self._checkpoints += name[:1] == b"C"
        return fields, members

    def record(self, raw: bytes, here: RecordKey, there: RecordKey) -> tuple[Header, bytes]:
        header, body = records.open_record(raw, here, self._opening)
        marker: tuple[bytes, ...] = ()
        if header.flags & records.WRITE:
            tail = records.write_marker(header.index, header.task.encode())
            marker = (tail,)
            self._pending += 1
        else:
            ids = (header.parent, header.root, header.run, header.fork)
            tail = b"".join(records.packed_id((each or "").encode()) for each in ids)
        self._logical += header.logical
        self._referred += header.chunked
        sealed = records.seal(
            self._sealing,
            there,
            records.References({}, header.pages, header.loose),
            tail,
            pack(body, self._how),
            flags=header.flags,
            depth=header.depth,
            logical=header.logical,
            chunked=header.chunked,
        )
        return header, records.stamp(header.created_at, header.version, header.new_bytes, there, *marker) + sealed

    def chunk(self, name: bytes, content: bytes) -> bytes:
        plain = Parts({}, {name: content}).chunk(name, self.about)
        self._chunks += 1
        self._unique += len(plain)
        return pack(plain, self._how)

    def tag(self, content: bytes, here: RecordKey, there: RecordKey) -> bytes:
        return thread_fields.seal_tag(*thread_fields.open_tag(content, here, self._opening), there, self._sealing)

    def counts(self, changes: int, versions: int) -> Counts:
        """What the counts of the thread are where it went. `born` is told by the server."""
        totals = (self._checkpoints, self._pending, self._chunks, self._stored, self._logical, self._unique, self._referred)
        return Counts(0, changes, versions, *totals)
