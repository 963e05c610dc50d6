"""How ids stand in names of keys, fields and members of indexes: as they are, or under a key. Pure functions.

Under a `name_key` a thread id, a namespace and a tag is the URL-safe base64, without padding, of AES-256-SIV over a byte 1 and
its text, with its kind as associated data (RFC 5297); with the key the text is got back. The root namespace stays empty. A run
id is a UUID made of BLAKE2b-128, and a key and a value of indexed metadata are 32 hex digits of it: these are only ever
looked up. Their keys come from the name key by HKDF-SHA256, salt ``lgrs 1``, info ``names`` and the prefix, each behind its
length (4), 96 bytes: AES-SIV (64), digests (32).

Checkpoint ids and task ids stay as they are: LangGraph makes them of times, counters and hashes, and scripts sort by them.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from functools import lru_cache
from uuid import UUID

from ..errors import CheckpointCorruptError
from .seals import aes_siv, derived


class Names:
    """Names as they are. A field is that of the hash of a thread, or a member of its index."""

    fingerprint = ""
    """What the layout number of a prefix says of its names."""

    def thread(self, text: bytes) -> bytes:
        return text

    def thread_of(self, stored: bytes) -> bytes:
        return stored

    def ns(self, text: bytes) -> bytes:
        return text

    def ns_of(self, stored: bytes) -> bytes:
        return stored

    def field(self, name: bytes) -> bytes:
        return name

    def field_of(self, stored: bytes) -> bytes:
        return stored

    def run(self, text: bytes) -> bytes:
        return text

    def metadata(self, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        return key, value


class HiddenNames(Names):
    """Names under a key."""

    def __init__(self, secret: bytes, prefix: str) -> None:
        made = derived(secret, (b"names", prefix.encode()), 96)
        self._cipher, self._digests = aes_siv(made[:64]), made[64:]
        self._hide, self._show = lru_cache(4096)(self._hidden), lru_cache(4096)(self._shown)
        self.fingerprint = self._digest(b"fingerprint")[:4].hex()

    def _digest(self, *parts: bytes) -> bytes:
        return hashlib.blake2b(b"\0".join(parts), key=self._digests, digest_size=16).digest()

    def _hidden(self, kind: bytes, text: bytes) -> bytes:
        return urlsafe_b64encode(self._cipher.encrypt(b"\1" + text, [kind])).rstrip(b"=")

    def _shown(self, kind: bytes, stored: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            plain: bytes = self._cipher.decrypt(urlsafe_b64decode(stored + b"=" * (-len(stored) % 4)), [kind])
        except (InvalidTag, ValueError):
            raise CheckpointCorruptError(
                f"{stored!r} is no name that was made with this name_key; it was damaged, or something else wrote it"
            ) from None
        return plain[1:]

    def thread(self, text: bytes) -> bytes:
        return self._hide(b"thread", text)

    def thread_of(self, stored: bytes) -> bytes:
        return self._show(b"thread", stored)

    def ns(self, text: bytes) -> bytes:
        return self._hide(b"ns", text) if text else b""

    def ns_of(self, stored: bytes) -> bytes:
        return self._show(b"ns", stored) if stored else b""

    def field(self, name: bytes) -> bytes:
        if name[:1] == b"\0":
            return name[1:]
        return self._translated(name, self.ns, lambda text: self._hide(b"tag", text))

    def field_of(self, stored: bytes) -> bytes:
        """One that this key did not make begins with NUL then, as no field does."""
        try:
            return self._translated(stored, self.ns_of, lambda text: self._show(b"tag", text))
        except CheckpointCorruptError:
            return b"\0" + stored

    def _translated(self, name: bytes, space_as: Callable[[bytes], bytes], tag_as: Callable[[bytes], bytes]) -> bytes:
        kind = name[:1]
        if kind in b"CWHF" and kind:
            space, nul, rest = name[1:].partition(b"\0")
            return kind + space_as(space) + nul + rest if space else name
        if kind == b"A":
            checkpoint, nul, space = name.partition(b"\0")
            return checkpoint + nul + space_as(space)
        return kind + tag_as(name[1:]) if kind == b"G" else name

    def run(self, text: bytes) -> bytes:
        return str(UUID(bytes=self._digest(b"run", text))).encode() if text else b""

    def metadata(self, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        return self._digest(b"key", key).hex().encode(), self._digest(b"value", key, value).hex().encode() if value else b""


PLAIN_NAMES = Names()
