"""The bytes of an archive: head, frames, index, tail (docs/archive.md). No files, no server.

A frame is a header (kind, number, size), a payload and a check of 16 bytes over both. `Plain` makes the check a digest, and
`Encrypted` makes payload and check what AES-GCM gives, with the number as nonce and the header as associated data. Numbers only
rise in one file, so a nonce is never used twice, and frames that are left out, repeated or exchanged are found.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple, Protocol

import msgspec
import ormsgpack

from ..errors import CheckpointCorruptError, FormatError, InvalidConfigError, SerializationError
from ..storage.codec import DIGEST, CompressionType, digest, pack, unpack

MAGIC: Final = b"LGRSARCH"
FORMAT: Final = 1
HEAD: Final = 60
TAIL: Final = 64
FRAME: Final = 9
"""Bytes of a frame's header."""

FRAME_BYTES: Final = 1 << 20
"""Fields are collected in frames of so many bytes, before compression."""

FRAME_MAX: Final = 256 << 20
"""No frame is larger, plain, in bytes."""

BEGIN, FIELDS, END, INDEX, LAST = 1, 2, 3, 4, 5
"""Kinds of frames: the beginning of a thread, fields of it, its end; the index, and the last frame of it."""

COST, COST_MAX = 16, 20
"""log2 of scrypt's N: 64 MiB of memory for new archives, at most 1 GiB for those that are read."""


class Head(NamedTuple):
    """What an archive begins with, and ends with again. `cost` 0: it is not encrypted."""

    cost: int = 0
    salt: bytes = bytes(16)
    proof: bytes = bytes(16)
    """What a right passphrase gives besides the key."""

    def packed(self) -> bytes:
        content = MAGIC + bytes([FORMAT, self.cost]) + self.salt + self.proof + bytes(2)
        return content + digest(content)

    @classmethod
    def parsed(cls, raw: bytes) -> Head | None:
        """None if it is damaged, or if this is no archive."""
        content, check = raw[: HEAD - DIGEST], raw[HEAD - DIGEST : HEAD]
        if len(raw) < HEAD or digest(content) != check or content[:8] != MAGIC:
            return None
        if content[8] != FORMAT:
            raise FormatError(
                f"the archive has format {content[8]}, and this version reads {FORMAT}; update langgraph-redis-state"
            )
        return cls(content[9], content[10:26], content[26:42])


class Tail(NamedTuple):
    """Where the index stands, which archive this is, and to which it adds (zeros: to none)."""

    at: int
    number: int
    ident: bytes
    base: bytes = bytes(DIGEST)

    def packed(self) -> bytes:
        content = self.at.to_bytes(8, "big") + self.number.to_bytes(4, "big") + self.ident + self.base
        return content + bytes(4) + digest(content)

    @classmethod
    def parsed(cls, raw: bytes) -> Tail | None:
        content, check = raw[:44], raw[48:]
        if len(raw) != TAIL or raw[44:48] != bytes(4) or digest(content) != check:
            return None
        return cls(int.from_bytes(content[:8], "big"), int.from_bytes(content[8:12], "big"), content[12:28], content[28:])


class Entry(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A thread in the index of an archive: where it stands in the file, or (`size` 0) that its content is that of the base, or
    (with a `note`) why it could not be read. `revision`: which state of the thread this is; empty: not told."""

    thread: str
    revision: bytes
    at: int = 0
    size: int = 0
    number: int = 0
    note: str = ""


class End(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What closes a thread: how many fields there were, how often it was changed, its version numbers, its indexed metadata."""

    fields: int
    changes: int
    versions: int
    metadata: list[tuple[bytes, bytes]]


_entries = msgspec.msgpack.Decoder(list[Entry])
_end = msgspec.msgpack.Decoder(End)


def packed_entries(entries: list[Entry]) -> bytes:
    return ormsgpack.packb([[e.thread, e.revision, e.at, e.size, e.number, e.note] for e in entries])


def packed_end(end: End) -> bytes:
    return ormsgpack.packb([end.fields, end.changes, end.versions, end.metadata])


def opened_entries(plain: bytes) -> list[Entry]:
    try:
        return _entries.decode(plain)
    except msgspec.MsgspecError as error:
        raise CheckpointCorruptError(f"the index is not laid out as one ({error})") from error


def opened_end(plain: bytes) -> End:
    try:
        return _end.decode(plain)
    except msgspec.MsgspecError as error:
        raise CheckpointCorruptError(f"the end of a thread is not laid out as one ({error})") from error


def packed_field(name: bytes, content: bytes) -> bytes:
    return len(name).to_bytes(4, "big") + name + len(content).to_bytes(4, "big") + content


def opened_fields(plain: bytes) -> list[tuple[bytes, bytes]]:
    parts: list[bytes] = []
    at = 0
    while at < len(plain):
        size = int.from_bytes(plain[at : at + 4], "big")
        at += 4 + size
        if at > len(plain):
            raise CheckpointCorruptError("a frame of fields is cut short")
        parts.append(plain[at - size : at])
    if len(parts) % 2:
        raise CheckpointCorruptError("a frame of fields ends with a name")
    return list(zip(parts[::2], parts[1::2], strict=True))


# --- frames ---


class Sealing(Protocol):
    """How the payload of a frame is protected. What `seal` gives is 16 bytes longer."""

    def seal(self, header: bytes, payload: bytes) -> bytes: ...

    def open(self, header: bytes, sealed: bytes) -> bytes | None:
        """None if it is damaged."""


class Plain:
    """A digest, which finds damage."""

    def seal(self, header: bytes, payload: bytes) -> bytes:
        return payload + digest(header + payload)

    def open(self, header: bytes, sealed: bytes) -> bytes | None:
        payload, check = sealed[:-DIGEST], sealed[-DIGEST:]
        return payload if digest(header + payload) == check else None


class Encrypted:
    """AES-256-GCM, with a key of this file alone."""

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher, self._invalid = AESGCM(key), InvalidTag

    def seal(self, header: bytes, payload: bytes) -> bytes:
        return self._cipher.encrypt(_nonce(header), payload, header)

    def open(self, header: bytes, sealed: bytes) -> bytes | None:
        try:
            return self._cipher.decrypt(_nonce(header), sealed, header)
        except self._invalid:
            return None


def _nonce(header: bytes) -> bytes:
    return bytes(8) + header[1:5]


def frame(sealing: Sealing, kind: int, number: int, plain: bytes) -> bytes:
    """A whole frame."""
    if len(plain) > FRAME_MAX:
        raise SerializationError(f"a field of {len(plain)} bytes is too large for an archive, which takes {FRAME_MAX} in one")
    payload = pack(plain, CompressionType.ZLIB)
    header = bytes([kind]) + number.to_bytes(4, "big") + len(payload).to_bytes(4, "big")
    return header + sealing.seal(header, payload)


def opened_frame(sealing: Sealing, raw: bytes) -> bytes | None:
    """The plain payload of a whole frame; None if it is damaged."""
    payload = sealing.open(raw[:FRAME], raw[FRAME:])
    return None if payload is None else unpack(payload, FRAME_MAX, "frame")


# --- passphrases ---


def sealing_of(passphrase: str | bytes | None, head: Head | None = None) -> tuple[Head, Sealing]:
    """The head and the sealing of a new archive, or those of an archive with this head.

    Raises:
        InvalidConfigError: the passphrase is wrong, empty, or missing, or the extra `encryption` is not installed.
    """
    if head is not None and not head.cost:
        return head, Plain()  # a passphrase that is not needed is none of its business
    if passphrase is None:
        if head is not None:
            raise InvalidConfigError("the archive is encrypted; give its passphrase")
        return Head(), Plain()
    if not passphrase:
        raise InvalidConfigError("the passphrase of an archive may not be empty")
    if head is not None and head.cost > COST_MAX:
        raise FormatError(f"the archive asks for scrypt with N = 2**{head.cost}, at most 2**{COST_MAX} is allowed")
    try:
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ImportError as error:
        raise InvalidConfigError(
            "an archive with a passphrase needs the package cryptography: pip install 'langgraph-redis-state[encryption]'"
        ) from error
    cost, salt = (head.cost, head.salt) if head is not None else (COST, os.urandom(16))
    secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
    made = Scrypt(salt=salt, length=48, n=1 << cost, r=8, p=1).derive(secret)
    if head is not None and made[32:] != head.proof:
        raise InvalidConfigError("the passphrase of the archive is wrong")
    return Head(cost, salt, made[32:]), Encrypted(made[:32])
