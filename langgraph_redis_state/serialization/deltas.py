"""What the DeltaChannels of a checkpoint are rebuilt from, kept where its ancestors were removed. Pure functions, no I/O.

A DeltaChannel's value stands only in some checkpoints. Between them it is rebuilt from the writes of the ancestors, back to
one that holds a value, its *seed*. When a removal takes the parent of a checkpoint that stays, these writes and the seed move
into a field of their own (``H``), in their stored form: the saver does not know the reducer, so it cannot compute the value.

The field is a record like others (records.py). Its content is msgpack, a list of ``[channel, seed or None, writes]``, where a
seed is ``[type, bytes or segments, size]`` and a write ``[task, type, bytes or segments, size]``, oldest first. It is cut into
chunks as a value is, so the history of the next cut shares what this one has; behind these chunks the record refers to those
of the seeds and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import ormsgpack

from ..caching.parts import Parts
from ..errors import CheckpointCorruptError
from ..storage import bodies, chunks, records
from ..storage.bodies import Value
from ..storage.codec import CompressionType
from ..storage.records import Header, RecordKey
from ..storage.seals import Seal
from . import decode
from .decode import StoredCheckpoint

INLINE_MAX = 1024

COUNTERS = "counters_since_delta_snapshot"
"""LangGraph's, in the metadata: {channel: (updates, supersteps)}."""

_Content = bytes | list[int | bytes]

_content = msgspec.msgpack.Decoder(list[tuple[str, tuple[str, _Content, int] | None, list[tuple[str, str, _Content, int]]]])


def counted(metadata: Mapping[str, Any]) -> bool:
    return COUNTERS in metadata


def supersteps(
    metadata: Mapping[str, Any], versions: Mapping[str, Any], held: Container[str], before: Mapping[str, int]
) -> dict[str, int]:
    """The DeltaChannels of a checkpoint that are rebuilt from ancestors, each with the supersteps since its snapshot.

    A channel without a version was never written, and one that the checkpoint holds needs no ancestor. LangGraph counts the
    supersteps. Its `update_state` does so from 1.2.13 on: without counters, those count that were rebuilt `before`, in the
    parent."""
    counters = metadata.get(COUNTERS)
    if not counted(metadata):
        since = {name: count + 1 for name, count in before.items()}
    elif isinstance(counters, Mapping):
        pairs = {name: pair for name, pair in counters.items() if isinstance(pair, tuple | list) and len(pair) == 2}
        since = {name: pair[1] for name, pair in pairs.items() if isinstance(pair[1], int)}
    else:
        since = {}
    return {
        name: count
        for name, count in since.items()
        if count > 0 and isinstance(name, str) and name in versions and name not in held
    }


@dataclass(slots=True)
class Lineage:
    """What channels are rebuilt from, as far as it was read: values or, where they only move, their stored form."""

    remaining: dict[str, None]
    """Those whose seed was not reached."""
    writes: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)
    """(task, value), newest first."""
    seeds: dict[str, Any] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    """Channels that cannot be rebuilt, and the ancestor that is gone."""

    def wrote(self, channel: str, task: str, value: Any) -> None:
        self.writes.setdefault(channel, []).append((task, value))

    def seeded(self, channel: str, value: Any) -> None:
        self.seeds[channel] = value
        del self.remaining[channel]

    def broken(self, at: str) -> None:
        self.lost.update(dict.fromkeys(self.remaining, at))
        self.remaining.clear()

    def cut(self, history: History, parts: Parts, take: Callable[[Value, Parts, str], Any]) -> None:
        """Takes what remains from the delta history of the last checkpoint that is there."""
        for channel, seed, writes in history.values(parts):
            if channel in self.remaining:
                where = f"{history.place}, channel {channel!r}"
                for task, value in reversed(writes):
                    self.wrote(channel, task, take(value, parts, where))
                if seed is not None:
                    self.seeded(channel, take(seed, parts, where))
        for channel in history.lost:
            if channel in self.remaining:
                self.lost[channel] = history.header.parent or ""
        self.remaining.clear()


@dataclass(slots=True)
class Cut:
    """Delta histories to be written: fields with their content, and what they add to the counts of the thread."""

    fields: dict[bytes, bytes] = field(default_factory=dict)
    headers: dict[tuple[str, str], Header] = field(default_factory=dict)
    chunks: int = 0
    plain: int = 0

    def add(
        self,
        lineage: Lineage,
        place: RecordKey,
        of: Header,
        there: Collection[bytes],
        by: Seal,
        compression: CompressionType,
    ) -> None:
        """Adds the history of the checkpoint whose header is `of`. `there`: the fields that the thread has."""
        fresh: bodies.Fresh = {}
        digests: list[bytes] = []
        size = places = chunked = 0

        def stored(value: Value) -> list[Any]:
            nonlocal size, places, chunked
            digests.extend(value.digests)
            size, places, chunked = size + value.size, places + len(value.digests), chunked + value.chunked
            return [value.type, value.content, value.size]

        content = ormsgpack.packb(
            [
                [
                    channel,
                    stored(lineage.seeds[channel]) if channel in lineage.seeds else None,
                    [[task, *stored(value)] for task, value in reversed(lineage.writes.get(channel, ()))],
                ]
                for channel in sorted(lineage.writes.keys() | lineage.seeds.keys())
            ]
        )
        value = Value("msgpack", content, (), len(content))
        if len(content) > INLINE_MAX:
            value = bodies.chunked("msgpack", content, True, fresh, name=by.name)
        references = records.References.of([*value.digests, *digests])
        raw = records.seal(
            by,
            place,
            references,
            records.packed_id((of.parent or "").encode()) + 3 * records.packed_id(b""),
            bodies.history_body(value, places, sorted(lineage.lost), compression),
            flags=0,
            depth=0,
            logical=value.size + size,
            chunked=value.chunked + chunked,
        )
        raw = records.stamp(of.created_at, of.version, 0, place) + raw
        self.headers[(place.ns.decode(), place.checkpoint.decode())] = records.verified(raw, place, by)[0]
        self.fields[place.field] = raw
        self.fields.update((b"P" + name, page) for name, page in references.pages.items() if b"P" + name not in there)
        for name, pieces in fresh.items():
            if b"D" + name not in there and b"D" + name not in self.fields:
                plain = b"".join(pieces)
                self.fields[b"D" + name] = by.pack(name, plain, compression)
                self.chunks, self.plain = self.chunks + 1, self.plain + len(plain)


class History:
    """A stored delta history, verified and taken apart."""

    def __init__(self, raw: bytes, place: RecordKey, by: Seal) -> None:
        self.place = place
        self.header, plain = records.open_record(raw, place, by)
        self._body = bodies.open_history(self.header, plain, place)
        self.lost = self._body.lost

    def own(self, parts: Parts) -> tuple[bytes, ...]:
        """The chunks of its content; those of seeds and writes are others."""
        digests = decode.all_digests(self.header, parts, self.place)
        return tuple(digests[: len(digests) - self._body.places])

    def values(self, parts: Parts) -> list[tuple[str, Value | None, list[tuple[str, Value]]]]:
        """(channel, seed, writes oldest first), all in stored form. What they declare is what the record does."""
        digests = decode.all_digests(self.header, parts, self.place)
        own = len(digests) - self._body.places
        whole = decode.joined(Value("msgpack", self._body.content, tuple(digests[:own]), self._body.size), parts, self.place)
        taken, logical = iter(digests[own:]), self._body.size

        def value(type_: str, content: bytes | list[chunks.Segment], size: int) -> Value:
            nonlocal logical
            logical += size
            return Value(type_, content, bodies.taken(content, taken, self.place), size)

        try:
            content = _content.decode(whole)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CheckpointCorruptError(f"{self.place}: its content is not that of a delta history ({error})") from error
        found = [
            (
                channel,
                None if seed is None else value(*seed),
                [(task, value(kind, segments, size)) for task, kind, segments, size in writes],
            )
            for channel, seed, writes in content
        ]
        if logical != self.header.logical:
            raise CheckpointCorruptError(f"{self.place}: it declares {self.header.logical} bytes, its values {logical}")
        return found


def rebuilt(stored: StoredCheckpoint, versions: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, int]:
    """`supersteps` of a stored checkpoint. If LangGraph did not count, these are all channels without a value, since one of
    them is rebuilt from ancestors; the others have no writes there that anybody reads."""
    depth = stored.header.depth
    return supersteps(metadata, versions, stored.channels, dict.fromkeys(versions, depth - 1)) if depth else {}
