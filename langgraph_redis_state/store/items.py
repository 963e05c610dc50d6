"""Names and bytes of the store: buckets, keys, fields, bounds, and the record of an item. Pure functions, no I/O.

An item lives in one of 16 buckets, by the first two labels of its namespace, so that one script may read and write all that
stands below them. The keys of a bucket carry its hash tag from `TAGS`. Each tag hashes to another sixteenth of the slots
of a Cluster, so nodes that share the slots evenly share the buckets evenly:

======================  ===========  ======================================================================================
key                     type         holds
======================  ===========  ======================================================================================
``p:{s3c6}:items``      hash         ``<namespace>\0\0<key>``: the record
``p:{s3c6}:order``      sorted set   ``<namespace>\0\0<updated><key>``, scores 0; updated: µs, 7 bytes, each as 255 - x
``p:{s3c6}:expires``    sorted set   ``<namespace>\0\0<key>`` of the items that expire, score: when, ms
``p:{s3c6}:vectors``    vector set   ``<n, 2 bytes><namespace>\0\0<key>``: the nth vector of an item (vectors.py)
======================  ===========  ======================================================================================

Labels stand with NUL between them. They are not empty and hold no NUL, so the first two NULs end the namespace, whatever the
key holds: no two items have one field. A record is, in bytes::

    header      1  format, 1                         stamp   7  created_at, µs of the server's clock, made by the script
                1  flags: 4 = encrypted                      7  updated_at
                1  key id, 0: no key                         4  check: SHA-1 over header, stamp and field (codec.place_check)
                2  number of vectors
                6  TTL in ms, 0: none
    checksum   16  BLAKE2b over layout, prefix, "item", field, header, body; encrypted: the synthetic IV (storage/seals.py)
    body           packed msgpack [type, bytes]: the serializer's form of the value; maybe encrypted

The stamp stands between header and checksum. When an item expires is in ``expires`` alone, since each read may move it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NamedTuple

import msgspec
import ormsgpack
from langgraph.store.base import InvalidNamespaceError
from xxhash import xxh3_64_intdigest

from .. import validation
from ..errors import CheckpointCorruptError, FormatError, InvalidConfigError, SerializationError
from ..storage.codec import BODY_MAX, DIGEST, CompressionType, pack, place_check, unpack
from ..storage.keys import LAYOUT
from ..storage.seals import Seal

TAGS: Final = (
    *("s0a1", "s1a6", "s2b6", "s3c6", "s4d6", "s5e6", "s6f6", "s7f1"),
    *("s8ad", "s9ac", "sa2e", "sbd7", "sc96", "sdb7", "se6e", "sfa0"),
)

BUCKETS: Final = len(TAGS)

FORMAT: Final = 1

HEADER, STAMP, CHECK = 11, 29, 25
"""Bytes of the header, of header and stamp, and what of them the check covers."""

KEYED: Final = b"\0items"
"""What stands for the thread when the keys of a store are derived: no thread has this id."""

_NEWEST: Final = (1 << 56) - 1
"""The µs that the smallest member of the order names: seven bytes, each as 255 - x."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_body = msgspec.msgpack.Decoder(tuple[str, bytes])

Bounds = tuple[bytes, bytes]
"""A range of the order, as ZRANGEBYLEX takes it."""


def labels(namespace: Iterable[Any]) -> tuple[str, ...]:
    """A namespace as LangGraph's contract allows it: labels are text, not empty, without '.' and NUL.

    Raises:
        InvalidNamespaceError: one is not.
    """
    if isinstance(namespace, str):
        raise InvalidNamespaceError(f"a namespace is a tuple of labels, not one text; pass ({namespace!r},)")
    found: list[str] = []
    for label in namespace:
        text = validation.plain(label)
        if not isinstance(text, str):
            raise InvalidNamespaceError(f"namespace {namespace!r}: label {label!r} is {type(label).__name__}, and not text")
        if not text or "." in text or "\0" in text:
            raise InvalidNamespaceError(f"namespace {namespace!r}: label {label!r} is empty, or holds a period or NUL")
        found.append(text)
    return tuple(found)


def _encoded(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidConfigError(f"{what} {text!r} holds a lone surrogate, which is not text; remove it") from None


def space_name(namespace: tuple[str, ...]) -> bytes:
    return b"\0".join(_encoded(label, "a namespace label") for label in namespace)


def field_name(namespace: tuple[str, ...], key: str) -> bytes:
    return space_name(namespace) + b"\0\0" + _encoded(key, "a key")


def namespace_of(name: bytes) -> tuple[str, ...]:
    return tuple(name.decode().split("\0")) if name else ()


def field_of(member: bytes) -> tuple[bytes, int]:
    """The field of a member of the order, and the µs that it names."""
    at = member.index(b"\0\0") + 2
    return member[:at] + member[at + 7 :], _NEWEST - int.from_bytes(member[at : at + 7], "big")


def bucket_of(namespace: Sequence[str]) -> int:
    return xxh3_64_intdigest(space_name(tuple(namespace[:2]))) % BUCKETS


def buckets_below(prefix: Sequence[str]) -> Sequence[int]:
    """The buckets in which namespaces that begin with these labels may be."""
    return [bucket_of(prefix)] if len(prefix) >= 2 else range(BUCKETS)


def bucket_keys(prefix: str, bucket: int) -> tuple[bytes, ...]:
    return tuple(f"{prefix}:{{{TAGS[bucket]}}}:{name}".encode() for name in ("items", "order", "expires", "vectors"))


def below(prefix: tuple[str, ...]) -> Bounds:
    """All that stands in a namespace and in those below it."""
    name = space_name(prefix)
    return (b"[" + name + b"\0", b"(" + name + b"\1") if name else (b"-", b"+")


class Place(NamedTuple):
    """Where a record stands; its checksum is bound to it."""

    prefix: bytes
    field: bytes

    def __str__(self) -> str:
        name, _, key = self.field.partition(b"\0\0")
        space = tuple(label.decode(errors="replace") for label in name.split(b"\0"))
        return f"item {key.decode(errors='replace')!r} of namespace {space!r} (prefix {self.prefix.decode(errors='replace')!r})"

    @property
    def signed(self) -> tuple[bytes, ...]:
        return (b"%d" % LAYOUT, self.prefix, b"item", self.field)

    @property
    def names(self) -> tuple[tuple[str, ...], str]:
        """Namespace and key."""
        name, _, key = self.field.partition(b"\0\0")
        return namespace_of(name), key.decode()


def sealed(place: Place, type_: str, blob: bytes, ttl: int, vectors: int, seal: Seal, compression: CompressionType) -> bytes:
    """The record of an item without its stamp. `ttl` in ms, 0: none; `vectors`: how many it has."""
    plain = ormsgpack.packb([type_, blob])
    if len(plain) > BODY_MAX:
        raise SerializationError(f"{place}: the value takes {len(plain)} bytes, an item holds {BODY_MAX}; nothing was written")
    header = b"%c%c%c%s%s" % (FORMAT, seal.flags, seal.key_id, vectors.to_bytes(2, "big"), ttl.to_bytes(6, "big"))
    return header + seal.close(place.signed, header, pack(plain, compression))


def opened(raw: bytes, place: Place, seal: Seal) -> tuple[str, bytes]:
    """The serializer's form of the value, type and bytes, after the checksum of the record was verified.

    Raises CheckpointCorruptError or one of its kinds, without the place; nothing of the body is looked at before.
    """
    if len(raw) <= STAMP + DIGEST:
        raise CheckpointCorruptError(f"{len(raw)} bytes are too few for a record")
    if raw[0] != FORMAT:
        raise FormatError(
            f"record format {raw[0]}, this version reads {FORMAT}; it is damaged, or a newer version of langgraph-redis-state "
            "wrote it"
        )
    header, checksum = raw[:HEADER], raw[STAMP : STAMP + DIGEST]
    body = seal.open(place.signed, "its record", header, checksum, raw[STAMP + DIGEST :])
    try:
        return _body.decode(unpack(body, BODY_MAX, "value"))
    except msgspec.MsgspecError as error:
        raise CheckpointCorruptError(f"the body is verified, but not laid out as an item's ({error})") from error


def times(raw: bytes, place: Place) -> tuple[datetime, datetime]:
    """When an item was created and updated, after the stamp of its record was verified.

    Raises CheckpointCorruptError, without the place.
    """
    if place_check(raw[:CHECK], place.field) != raw[CHECK:STAMP]:
        raise CheckpointCorruptError("the server's stamp (times) is damaged")
    return _moment(raw[11:18]), _moment(raw[18:25])


def has_vectors(raw: bytes) -> bool:
    return raw[3:5] != b"\0\0"


def updated_us(raw: bytes) -> int:
    """The moment for which the order has a record that was verified."""
    return int.from_bytes(raw[18:25], "big")


def _moment(micros: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=int.from_bytes(micros, "big"))
