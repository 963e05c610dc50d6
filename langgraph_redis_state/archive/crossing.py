"""The fields of a thread on their way between a server and an archive. Pure functions, no I/O.

In an archive a thread stands as under the empty prefix, which no saver can have: records without a key, with plain bodies, and
plain chunks. So what is written depends neither on keys nor on the compression of the server it came from, and is sealed by the
settings of the server it goes to.
"""

from __future__ import annotations

from ..address import Address
from ..errors import InvalidConfigError
from ..operations.copying import Copying
from ..operations.engine import Engine
from ..storage import records
from ..storage.codec import CompressionType, pack
from ..storage.records import Header, RecordKey
from ..storage.seals import PLAIN
from ..storage.thread_fields import Counts


def archived(thread: str) -> Address:
    """Where the fields of a thread stand in an archive."""
    found = Address("", thread, "", None)
    found.seal = PLAIN
    return found


def check_readable(engine: Engine) -> None:
    """Archives hold fields in an order that is the same everywhere, and names of encrypted parts are not."""
    if engine.settings.keyring.shared is None or engine.settings.names.fingerprint:
        raise InvalidConfigError(
            "archives of savers with encryption_key or name_key are not supported; use `migrate` to copy threads between "
            "prefixes or servers. Nothing was read or written"
        )


class Crossing(Copying):
    """A thread that crosses, verified field by field where it comes from."""

    def __init__(self, origin: Address, target: Address, how: CompressionType) -> None:
        super().__init__(origin, target, how, "export" if target.prefix == b"" else "import", anew=True)
        self._checkpoints = self._pending = self._logical = self._referred = 0

    @classmethod
    def out(cls, origin: Address) -> Crossing:
        """From the server into an archive."""
        return cls(origin, archived(origin.thread), CompressionType.NONE)

    @classmethod
    def back(cls, engine: Engine, thread: str, target: Address) -> Crossing:
        """From an archive to the server."""
        return cls(archived(thread), target, engine.settings.compression)

    @classmethod
    def within(cls, thread: str) -> Crossing:
        """From an archive to nowhere, to verify it."""
        return cls(archived(thread), archived(thread), CompressionType.NONE)

    def record(self, raw: bytes, here: RecordKey, there: RecordKey) -> tuple[Header, bytes]:
        header, body = records.open_record(raw, here, self.origin.seal)
        marker: tuple[bytes, ...] = ()
        if header.flags & records.WRITE:
            tail = records.write_marker(header.index, header.task.encode())
            marker = (tail,)
            self._pending += 1
        else:
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
            flags=header.flags,
            depth=header.depth,
            logical=header.logical,
            chunked=header.chunked,
        )
        return header, records.stamp(header.created_at, header.version, header.new_bytes, there, *marker) + sealed

    def totals(self, changes: int, versions: int) -> Counts:
        """What the counts of the thread are where it went. `born` is told by the server."""
        totals = (self._checkpoints, self._pending, self.chunks, self.stored, self._logical, self.unique, self._referred)
        return Counts(0, changes, versions, *totals)
