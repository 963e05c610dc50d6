"""A stored checkpoint and its pending writes, verified and taken apart, to what LangGraph gets. No I/O, no effects."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from operator import itemgetter
from typing import Any

from langgraph.checkpoint.base import CheckpointMetadata, PendingWrite, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..caching.manifests import Manifest
from ..caching.parts import Parts
from ..caching.revived import RevivedCache
from ..errors import CheckpointCorruptError, CheckpointLostError, SerializationError
from ..storage import bodies, chunks, records, thread_fields
from ..storage.bodies import Value
from ..storage.codec import Part
from ..storage.records import Header, RecordKey
from ..storage.seals import Seal

Take = Callable[[Value, Parts, object], Any]
"""What is made of a stored value, given what it refers to and where it stands."""


class StoredCheckpoint:
    """A checkpoint as the server sent it. Its record is verified, and its body opened, when first asked for, each once."""

    __slots__ = ("_body", "_verified", "by", "place", "record", "writes")

    def __init__(self, place: RecordKey, by: Seal, record: bytes | None, writes: bytes | None = None) -> None:
        self.place, self.by = place, by
        self.record, self.writes = record, writes
        self._verified: tuple[Header, bytes] | None = None
        self._body: bodies.Body | None = None

    @property
    def ns(self) -> bytes:
        return self.place.ns

    @property
    def checkpoint(self) -> bytes:
        return self.place.checkpoint

    @property
    def size(self) -> int:
        return len(self.record or b"") + len(self.writes or b"")

    def _verify(self) -> tuple[Header, bytes]:
        if self._verified is None:
            if self.record is None:
                raise CheckpointLostError(f"{self.place}: the index names it, but it is gone from the server (evicted?)")
            self._verified = records.verified(self.record, self.place, self.by)
        return self._verified

    def _open(self) -> bodies.Body:
        if self._body is None:
            header, packed = self._verify()
            self._body = bodies.open_checkpoint(header, records.unpacked(packed, self.place), self.place)
        return self._body

    @property
    def header(self) -> Header:
        return self._verify()[0]

    @property
    def rest(self) -> tuple[str, bytes]:
        """What the serializer made of the checkpoint without values, and of its metadata."""
        return self._open()[:2]

    @property
    def entries(self) -> list[bodies.Entry]:
        """The channels, each inline or in segments."""
        return self._open()[2]

    @property
    def channels(self) -> set[str]:
        return {entry.name for entry in self.entries}

    def values(self, parts: Parts) -> dict[str, Value]:
        entries = self._open()[2]
        return bodies.stored_values(entries, all_digests(self.header, parts, self.place), self.place)

    def manifest(self, parts: Parts, versions: Mapping[str, Any], rebuilt: Mapping[str, int]) -> Manifest:
        header, body = self._verify()
        return Manifest(versions, self.values(parts), header.pages, rebuilt, records.checksum(self.record or b"", body))

    def load(self, serde: SerializerProtocol) -> tuple[dict[str, Any], CheckpointMetadata]:
        """The checkpoint without values, and its metadata."""
        rest, metadata = loads(serde, *self.rest, Part(self.place, ", metadata"))
        if self.header.flags & records.CANONICAL:
            rest["channel_versions"] = _widened(rest["channel_versions"])
            rest["versions_seen"] = {node: _widened(seen) for node, seen in rest["versions_seen"].items()}
        return rest, metadata

    def pending_writes(self, parts: Parts, channels: Container[str] | None, take: Take) -> list[PendingWrite]:
        """The pending writes in LangGraph's order, all or those of some channels."""
        if self.writes is None:
            return []
        place = self.place._replace(kind=b"W")
        found: list[tuple[tuple[str, str, int], PendingWrite]] = []
        seen: set[tuple[int, str]] = set()
        for raw in thread_fields.split_writes(self.writes, place):
            header, plain = records.open_record(raw, place, self.by)
            if (header.index, header.task) in seen:
                raise CheckpointCorruptError(f"{place}: write {header.index} of task {header.task!r} stands there twice")
            seen.add((header.index, header.task))
            task = Part(place, ", task ", header.task)
            body = bodies.open_write(header, plain, task)
            if channels is not None and body.name not in channels:
                continue
            where = Part(task, ", channel ", body.name)
            value = bodies.stored_values([body], all_digests(header, parts, where), where)[body.name]
            write = header.task, body.name, take(value, parts, where)
            found.append((writes_sort_key(body.path, header.task, header.index), write))
        return [write for _, write in sorted(found, key=itemgetter(0))]


def _widened(versions: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{version:032d}" for name, version in versions.items()}


def loaded(serde: SerializerProtocol, value: Value, parts: Parts, where: object, revived: RevivedCache | None = None) -> Any:
    return loads(serde, value.type, joined(value, parts, where), where, revived)


def loads(serde: SerializerProtocol, type_: str, blob: bytes, what: object, revived: RevivedCache | None = None) -> Any:
    """What the serializer makes of verified bytes. `what` names the place in the error."""
    try:
        if revived is not None and type_ == "msgpack":
            messages = revived.load(serde, blob)
            if messages is not None:
                return messages
        return serde.loads_typed((type_, blob))
    except Exception as error:
        raise SerializationError(
            f"{what}: the bytes are intact, but the serializer cannot read them as {type_!r} "
            f"({type(error).__name__}: {error}); use the serializer they were written with"
        ) from error


def all_digests(header: Header, parts: Parts, place: object) -> list[bytes]:
    """The chunks a record refers to, in order, pages resolved."""
    digests: list[bytes] = []
    for page in header.pages:
        digests.extend(parts.page(page, place))
    digests.extend(header.loose)
    return digests


def joined(value: Value, parts: Parts, place: object) -> bytes:
    """The serialized bytes of a value, every chunk verified. Nothing beyond its declared size is inflated or joined."""
    if isinstance(value.content, bytes):
        return value.content
    pieces: list[bytes] = []
    left = value.chunked
    for name in value.digests:
        chunk = parts.chunk(name, place)
        left -= len(chunk)
        if left < 0:
            break
        pieces.append(chunk)
    if left:
        raise CheckpointCorruptError(f"{place}: its chunks do not take the {value.size} bytes that it declares")
    return chunks.join(value.content, pieces)
