"""A checkpoint between LangGraph's form of it and its record: what the serializer makes of it, and what this process knows of
stored ones. No I/O, no effects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from sys import getsizeof
from typing import Any

from langgraph.checkpoint.base import CheckpointMetadata
from langgraph.checkpoint.serde.base import SerializerProtocol

from . import records
from .bounded import Locked
from .errors import SerializationError
from .records import Header, Parts, Place, Value


class Known:
    """What this process knows of a stored checkpoint: the stored values its children may take over, and their versions.

    It shares nothing with what callers gave or got: values are bytes, and of versions only texts and numbers are kept, each
    beside its value. (LangGraph 1.2.0 to 1.2.12 change `channel_versions` in place.)
    """

    __slots__ = ("pages", "size", "values", "versions")

    def __init__(self, versions: Mapping[str, Any], values: Mapping[str, Value], pages: tuple[bytes, ...]) -> None:
        self.values, self.pages = dict(values), pages
        self.versions: dict[str, str | int | float] = {
            name: version for name in values if isinstance(version := versions.get(name), str | int | float)
        }
        self.size = self._measured()
        """Bytes of memory, all it refers to counted as its own."""

    @property
    def chunks(self) -> set[bytes]:
        return {name for value in self.values.values() for name in value.digests}

    def _measured(self) -> int:
        size = 300 + getsizeof(self.values) + getsizeof(self.versions) + NAME * len(self.pages)
        for name, value in self.values.items():
            size += 2 * getsizeof(name) + 200 + NAME * len(value.digests)  # a name here and one among the versions
            content = [value.content] if isinstance(value.content, bytes) else value.content
            size += sum(len(each) + 45 if isinstance(each, bytes) else 40 for each in content)
        return size + sum(map(getsizeof, self.versions.values()))


NAME = 60
"""Bytes of memory of a digest and of a place for it."""


class Memory(Locked):
    """The checkpoints this process read or wrote lately, in at most `limit` bytes. Only ever a hint: the server checks each
    reference."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._known: OrderedDict[tuple[bytes, bytes, bytes], Known] = OrderedDict()
        self._newest: dict[tuple[bytes, bytes], tuple[bytes, Known]] = {}
        self._limit, self._bytes = limit, 0

    def get(self, thread: bytes, ns: bytes, checkpoint: bytes) -> Known | None:
        with self.lock:
            known = self._known.get((thread, ns, checkpoint))
            if known is not None:
                self._known.move_to_end((thread, ns, checkpoint))
            return known

    def newest(self, thread: bytes, ns: bytes) -> Known | None:
        """Of those of a namespace the one with the greatest id, which mostly holds what the others hold."""
        with self.lock:
            return self._newest.get((thread, ns), (b"", None))[1]

    def put(self, thread: bytes, ns: bytes, checkpoint: bytes, known: Known, parent: bytes = b"") -> None:
        """One larger than the limit is not kept. The `parent`, if it is known, is the next to be forgotten."""
        place = (thread, ns, checkpoint)
        with self.lock:
            before = self._known.get(place)
            if before is not None:
                self._forget(place, before)
            if self._size(place, known) > self._limit:
                return
            if (thread, ns, parent) in self._known:
                self._known.move_to_end((thread, ns, parent), last=False)
            self._known[place] = known
            self._bytes += self._size(place, known)
            if self._newest.get((thread, ns), (b"", None))[0] <= checkpoint:
                self._newest[(thread, ns)] = checkpoint, known
            while self._bytes > self._limit:
                self._forget(*next(iter(self._known.items())))

    def _forget(self, place: tuple[bytes, bytes, bytes], known: Known) -> None:
        del self._known[place]
        self._bytes -= self._size(place, known)
        if self._newest.get(place[:2], (b"", None))[0] == place[2]:
            del self._newest[place[:2]]

    def _size(self, place: tuple[bytes, bytes, bytes], known: Known) -> int:
        return 900 + sum(map(len, place)) + known.size  # what CPython adds for the keys and the two maps


class Opened:
    """A checkpoint's record, verified and taken apart as far as no serializer is needed."""

    __slots__ = ("_entries", "header", "place", "rest")

    def __init__(self, header: Header, plain: bytes, place: Place) -> None:
        self.header, self.place = header, place
        type_, blob, self._entries = records.open_checkpoint(header, plain, place)
        self.rest: tuple[str, bytes] = type_, blob
        """What the serializer made of the checkpoint without values, and of its metadata."""

    @property
    def channels(self) -> set[str]:
        return {entry.name for entry in self._entries}

    def known(self, parts: Parts, versions: Mapping[str, Any]) -> Known:
        digests = records.all_digests(self.header, parts, self.place)
        values = records.stored_values(self._entries, digests, self.place)
        return Known(versions, values, self.header.pages)

    def load(self, serde: SerializerProtocol) -> tuple[dict[str, Any], CheckpointMetadata]:
        rest, metadata = _loads(serde, *self.rest, f"{self.place}, metadata")
        if self.header.flags & records.CANONICAL:
            rest["channel_versions"] = _widened(rest["channel_versions"])
            rest["versions_seen"] = {node: _widened(seen) for node, seen in rest["versions_seen"].items()}
        return rest, metadata


def stored_rest(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """A checkpoint without its values as it is serialized, and the flags of its record."""
    rest = {name: value for name, value in checkpoint.items() if name != "channel_values"}
    rest["id"] = None  # the key says it; None holds its place among the keys
    canonical = _canonical(rest)
    return (rest, 0) if canonical is None else (canonical, records.CANONICAL)


def _canonical(rest: Mapping[str, Any]) -> dict[str, Any] | None:
    """`rest` with all channel versions as integers, if all of them are 32 digits; None if any is not."""
    versions, seen = rest.get("channel_versions"), rest.get("versions_seen")
    if not isinstance(versions, dict) or not isinstance(seen, dict):
        return None
    if not all(map(_is_canonical, versions.values())):
        return None
    if not all(isinstance(each, dict) and all(map(_is_canonical, each.values())) for each in seen.values()):
        return None
    return {
        **rest,
        "channel_versions": {name: int(version) for name, version in versions.items()},
        "versions_seen": {node: {name: int(version) for name, version in each.items()} for node, each in seen.items()},
    }


def _is_canonical(version: Any) -> bool:
    # below 10**18, so that the serializer takes it as an integer
    return (
        isinstance(version, str)
        and len(version) == 32
        and version.startswith("0" * 14)
        and version.isascii()
        and version.isdigit()
    )


def _widened(versions: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{version:032d}" for name, version in versions.items()}


def dumped(serde: SerializerProtocol, value: Any, what: str) -> tuple[str, bytes]:
    try:
        type_, blob = serde.dumps_typed(value)
    except Exception as error:
        raise refused_value(error, what) from error
    return type_, bytes(blob)


def refused_value(error: Exception, what: str) -> SerializationError:
    return SerializationError(
        f"{what}: the serializer refuses the value ({type(error).__name__}: {error}); nothing was written. "
        "Keep it out of the state, or pass a serde that takes it"
    )


def loaded(serde: SerializerProtocol, value: Value, parts: Parts, where: str) -> Any:
    return _loads(serde, value.type, records.joined(value, parts, where), where)


def _loads(serde: SerializerProtocol, type_: str, blob: bytes, what: str) -> Any:
    try:
        return serde.loads_typed((type_, blob))
    except Exception as error:
        raise SerializationError(
            f"{what}: the bytes are intact, but the serializer cannot read them as {type_!r} "
            f"({type(error).__name__}: {error}); use the serializer they were written with"
        ) from error
