"""The bytes on the server, and nothing else: compression, digests, size limits. No I/O, no knowledge of LangGraph.

A *packed* string is one byte that says how, then for compressed ones the plain size (4 bytes, big-endian), then the
bytes. It can be read whatever the current setting is. The size is checked before anything is inflated.
"""

from __future__ import annotations

import hashlib
import zlib
from enum import Enum
from types import ModuleType
from typing import Final, NamedTuple

import lz4.block

from ..errors import CheckpointCorruptError, FormatError
from .lz4_dictionary import DICTIONARY

CHUNK_MAX: Final = 256 * 1024
"""No chunk is larger, plain, in bytes."""

BODY_MAX: Final = 64 * 1024 * 1024
"""No body is larger, plain, in bytes: metadata, and values too small for chunks."""

DIGEST: Final = 16
"""Bytes in a digest or checksum."""

_NONE, _LZ4, _ZLIB, _ZSTD = 0, 1, 2, 3

_INFLATES: Final = {_LZ4: 256, _ZLIB: 1040, _ZSTD: 1040}
"""How many times compressed bytes may inflate; a larger claim is refused before memory is taken. LZ4 and deflate cannot do
more. Zstandard can, so `pack` takes LZ4 where it does."""

_PLAIN_MIN = 24  # compressing less than this hardly pays


class Part(NamedTuple):
    """A part of a place, for messages: spelled only if one is written."""

    place: object
    what: str
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.place}{self.what}" if self.name is None else f"{self.place}{self.what}{self.name!r}"


class CompressionType(str, Enum):
    """How new data is compressed. What is stored can be read whichever it was."""

    LZ4 = "lz4"
    ZLIB = "zlib"
    ZSTD = "zstd"
    NONE = "none"


def pack(plain: bytes, compression: CompressionType) -> bytes:
    """`plain` in its stored form, compressed where that is smaller."""
    size = len(plain)
    if size >= _PLAIN_MIN and compression is not CompressionType.NONE:
        if compression is CompressionType.ZSTD:
            how, data = _ZSTD, zstandard().compress(plain)
        elif compression is CompressionType.ZLIB:
            how, data = _ZLIB, zlib.compress(plain, 6)
        if compression is CompressionType.LZ4 or size > _INFLATES[how] * len(data):
            how, data = _LZ4, lz4.block.compress(plain, store_size=False, dict=DICTIONARY)
        if len(data) + 4 < size:
            return b"%c%s%s" % (how, size.to_bytes(4, "big"), data)
    return b"%c%s" % (_NONE, plain)


def unpack(packed: bytes, limit: int, what: object) -> bytes:
    """The plain bytes. `limit` is the largest plain size allowed, `what` names the place in the error."""
    if not packed:
        raise CheckpointCorruptError(f"{what}: empty where stored bytes were expected")
    how = packed[0]
    if how == _NONE:
        if len(packed) - 1 > limit:
            raise CheckpointCorruptError(f"{what}: {len(packed) - 1} bytes, at most {limit} are allowed")
        return packed[1:]
    if how not in _INFLATES:
        raise CheckpointCorruptError(f"{what}: unknown compression {how}")
    size, data = int.from_bytes(packed[1:5], "big"), packed[5:]
    if size > limit or size > _INFLATES[how] * (len(data) + 1):
        raise CheckpointCorruptError(f"{what}: {len(data)} bytes claim to inflate to {size}, which is refused (limit {limit})")
    try:
        if how == _LZ4:
            plain: bytes = lz4.block.decompress(data, uncompressed_size=size, dict=DICTIONARY)
        elif how == _ZSTD:
            plain = zstandard().decompress(data, size, what)
        else:
            inflate = zlib.decompressobj()
            plain = inflate.decompress(data, max(size, 1))
            if not inflate.eof:
                raise CheckpointCorruptError(f"{what}: more data than the {size} bytes it claims")
    except (lz4.block.LZ4BlockError, zlib.error, ValueError) as error:
        raise CheckpointCorruptError(f"{what}: does not decompress ({error})") from error
    except ImportError as error:
        raise FormatError(f"{what}: it is compressed with Zstandard; pip install 'langgraph-redis-state[zstd]'") from error
    if len(plain) != size:
        raise CheckpointCorruptError(f"{what}: inflated to {len(plain)} bytes instead of {size}")
    return plain


def plain_size(packed: bytes) -> int:
    """How many bytes a packed string claims to be, plain."""
    return len(packed) - 1 if packed[:1] == b"\0" else int.from_bytes(packed[1:5], "big")


def zstandard() -> ModuleType:
    """Raises ImportError where it is not installed."""
    from . import zstandard

    return zstandard


def digest(plain: bytes) -> bytes:
    """The name of a chunk or page: BLAKE2b-128 of its plain bytes."""
    return hashlib.blake2b(plain, digest_size=DIGEST).digest()


def place_check(content: bytes, *place: bytes) -> bytes:
    """Four bytes over what only the server knows when it writes (its clock, its counters), bound to their place.

    Scripts compute it too, which is why it is SHA-1: it is the one hash that Lua in Redis has. It finds damage; it is no
    protection against forgery, and nothing that decides about state is under it alone.
    """
    return hashlib.sha1(content + b"\0".join(place), usedforsecurity=False).digest()[:4]
