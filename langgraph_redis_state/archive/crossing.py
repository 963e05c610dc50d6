"""The fields of a thread on their way between a server and an archive. Pure functions, no I/O.

In an archive a thread stands as under the empty prefix, which no saver can have: records without a key, with plain bodies,
plain chunks under the digests of their content, and names as they are. So what is written depends neither on keys nor on the
compression of the server it came from, and is sealed by the settings of the server it goes to.

Under a `name_key`, run ids and indexed metadata stand as digests on the server. On the way out they are found again in the
metadata of checkpoints, which the saver's serializer opens for that.
"""

from __future__ import annotations

from collections.abc import Iterable

from langgraph.checkpoint.serde.base import SerializerProtocol

from ..address import Address
from ..operations.copying import Copying
from ..operations.engine import Engine
from ..serialization.decode import StoredCheckpoint
from ..storage import records
from ..storage.codec import CompressionType, pack
from ..storage.records import Header, RecordKey
from ..storage.seals import ENCRYPTED, PLAIN
from ..storage.thread_fields import Counts

Pairs = list[tuple[bytes, bytes]]


def archived(thread: str) -> Address:
    """Where the fields of a thread stand in an archive."""
    found = Address("", thread, "", None)
    found.seal = PLAIN
    return found


def in_order(fields: Iterable[tuple[bytes, bytes]]) -> Pairs:
    """Chunks, then pages, then the others, each by their names: where they go, names of chunks may depend on a key."""
    return sorted(fields, key=lambda field: (b"DP".find(field[0][:1]) % 3, field[0]))


class Crossing(Copying):
    """A thread that crosses, verified field by field where it comes from. Chunks come first, then pages."""

    def __init__(self, origin: Address, target: Address, how: CompressionType, stated: bool = False) -> None:
        super().__init__(origin, target, how, "export" if target.prefix == b"" else "import", anew=True, stated=stated)
        self._checkpoints = self._pending = self._logical = self._referred = 0

    @classmethod
    def out(cls, engine: Engine, origin: Address, serde: SerializerProtocol) -> Crossing:
        """From the server into an archive."""
        if engine.settings.names.fingerprint:
            return Revealing(engine, origin, serde)
        return cls(origin, archived(origin.thread), CompressionType.NONE, engine.settings.fresh)

    @classmethod
    def back(cls, engine: Engine, thread: str, target: Address) -> Crossing:
        """From an archive to the server."""
        return cls(archived(thread), target, engine.settings.compression, engine.settings.fresh)

    @classmethod
    def within(cls, thread: str) -> Crossing:
        """From an archive to nowhere, to verify it."""
        return cls(archived(thread), archived(thread), CompressionType.NONE)

    def record(self, raw: bytes, here: RecordKey, there: RecordKey) -> tuple[Header, bytes]:
        header, body = records.open_record(raw, here, self.origin.seal)
        header.pages, header.loose = (
            tuple([self.renamed.get(each, each) for each in names]) for names in (header.pages, header.loose)
        )
        marker: tuple[bytes, ...] = ()
        if header.flags & records.WRITE:
            tail = records.write_marker(header.index, header.task.encode())
            marker = (tail,)
            self._pending += 1
        else:
            header.run = self.run(header, raw, here).decode() or None
            ids = (header.parent, header.root, header.run, header.fork)
            tail = b"".join(records.packed_id((each or "").encode()) for each in ids)
            self._checkpoints += here.kind == b"C"
        self._logical += header.logical
        self._referred += header.chunked
        sealed = records.seal(
            self.target.seal,
            there,
            records.References({}, header.pages, header.loose),
            tail,
            pack(body, self.compression),
            flags=header.flags & ~ENCRYPTED,
            depth=header.depth,
            logical=header.logical,
            chunked=header.chunked,
        )
        return header, records.stamp(header.created_at, header.version, header.new_bytes, there, *marker) + sealed

    def run(self, header: Header, raw: bytes, here: RecordKey) -> bytes:
        """The run id of a record as it stands there."""
        return self.target.keys.names.run((header.run or "").encode())

    def metadata(self, indexed: Pairs) -> Pairs:
        """Indexed metadata as they stand there."""
        return [self.target.keys.names.metadata(*pair) for pair in indexed]

    def totals(self, changes: int, versions: int) -> Counts:
        """What the counts of the thread are where it went. `born` is told by the server."""
        totals = (self._checkpoints, self._pending, self.chunks, self.stored, self._logical, self.unique, self._referred)
        return Counts(0, changes, versions, *totals, 0)


class Revealing(Crossing):
    """A thread from under a `name_key` into an archive."""

    def __init__(self, engine: Engine, origin: Address, serde: SerializerProtocol) -> None:
        super().__init__(origin, archived(origin.thread), CompressionType.NONE, engine.settings.fresh)
        self._engine, self._serde = engine, serde
        self._found: dict[tuple[bytes, bytes], None] = {}

    def run(self, header: Header, raw: bytes, here: RecordKey) -> bytes:
        if here.kind != b"C":
            return b""
        metadata = StoredCheckpoint(here, self.origin.seal, raw).load(self._serde)[1]
        self._found.update(dict.fromkeys(self._engine.indexed(metadata)))
        return self._engine.run_text(metadata.get("run_id")) if header.run else b""

    def metadata(self, indexed: Pairs) -> Pairs:
        """Those that the saver was told to index; of others the key is not known."""
        return sorted(pair for pair in self._found if self.origin.keys.names.metadata(*pair) in indexed)
