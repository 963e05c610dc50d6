"""How the bytes of a thread are protected: by checksums, by checksums under a key, or by encryption. No I/O.

A `Seal` belongs to one thread. It makes what stands between header and body of a record, and the stored form of a chunk.

*Signed or not*: the checksum is BLAKE2b-128 over the place, header and body; the name of a chunk is the digest of its content.

*Encrypted*: AES-256-SIV (RFC 5297), which authenticates too. Its synthetic IV of 16 bytes takes the place of the checksum, so a
record takes as many bytes as before, and the same content at the same place gives the same bytes: a put that is repeated is
still recognised, and there are no nonces that could repeat. Associated data: the place and the header. The name of a chunk is
BLAKE2b-128 under a key of the thread, so equal content of one thread is stored once and cannot be guessed by its name. The four
keys of a thread come from the secret by HKDF-SHA256, salt ``lgrs 1``, info: ``thread``, prefix and thread id, each behind its
length (4), 192 bytes: records (64), chunks (64), names of chunks (32), tags (32).

A stored chunk is 128 + how it is compressed, its plain size (4), key id (1), synthetic IV (16), ciphertext of the compressed
bytes. Associated data: its name, and the six bytes before the IV.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import re
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Final

from ..errors import CheckpointCorruptError, EncryptionKeyError, IntegrityKeyError, KeyProviderError
from .codec import CHUNK_MAX, DIGEST, CompressionType, digest, pack, unpack

ENCRYPTED: Final = 4
"""Flag of a record, and in the format byte of a tag."""

_CHUNK: Final = 0x80

_AHEAD: Final = 6
"""Bytes before the synthetic IV of a chunk."""

_TEXT = re.compile(rb"[ -~]*")

KEY_BYTES: Final = 32
"""A secret for encryption has at least so many bytes."""


def length_prefixed(parts: Sequence[bytes]) -> bytes:
    return b"".join([piece for part in parts for piece in (len(part).to_bytes(4, "big"), part)])


class Integrity:
    """Checksums of records: plain, or keyed when the saver has keys.

    The first key signs, all of them verify; the key id in the record (1 byte, 0 = none) says which. A record without a
    key passes only where no key is configured (nor `required`, since there is one for encryption) or `accept_unkeyed` is set.
    """

    def __init__(self, keys: Sequence[bytes], accept_unkeyed: bool, required: bool = False) -> None:
        # any length of secret becomes a 32-byte BLAKE2b key, separated from other uses of the same secret
        self._keys = [hashlib.blake2b(key, digest_size=32, person=b"lgrs-integrity").digest() for key in keys]
        self._ids = [hashlib.blake2b(key, digest_size=4, person=b"lgrs-key-id").digest()[0] or 1 for key in self._keys]
        self.accept_unkeyed = accept_unkeyed or not (keys or required)

    @property
    def signing_id(self) -> int:
        return self._ids[0] if self._ids else 0

    def sign(self, place: Sequence[bytes], header: bytes, body: bytes) -> bytes:
        return _checksum(self._keys[0] if self._keys else b"", place, header, body)

    def verifies(self, key_id: int, checksum: bytes, place: Sequence[bytes], header: bytes, body: bytes) -> bool:
        """Whether any key of that id made this checksum. Key id 0 is the plain checksum."""
        keys = [k for k, i in zip(self._keys, self._ids, strict=True) if i == key_id] if key_id else [b""]
        return any(hmac.compare_digest(_checksum(key, place, header, body), checksum) for key in keys)

    def knows(self, key_id: int) -> bool:
        return key_id == 0 or key_id in self._ids

    @property
    def is_unsure(self) -> bool:
        """Whether another key has the id of the first."""
        return self.signing_id in self._ids[1:]

    def first_only(self) -> Integrity:
        made = copy(self)
        made._keys, made._ids = self._keys[:1], self._ids[:1]
        return made


def _keyless(what: object, key: int) -> str:
    return (
        f"{what}: encrypted with a key (id {key}), and this saver has no encryption_key; pass the key that it was written with"
    )


def _checksum(key: bytes, place: Sequence[bytes], header: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(length_prefixed((*place, header, body)), key=key, digest_size=DIGEST).digest()


class Seal:
    """Checksums, keyed or not, and chunks as they are."""

    flags = 0
    """What the flags of a record say of it."""

    apart: tuple[bytes, ...] = ()
    """What keeps its names of chunks apart from those of other seals."""

    decrypts = False
    """Whether chunks may stand under names that depend on a key."""

    def __init__(self, integrity: Integrity) -> None:
        self._integrity = integrity

    @property
    def key_id(self) -> int:
        return self._integrity.signing_id

    def name(self, plain: bytes) -> bytes:
        """The name of a chunk with this content."""
        return digest(plain)

    @property
    def namings(self) -> Sequence[Callable[[bytes], bytes]]:
        """What gives the names that chunks of the thread have, now and since before keys changed."""
        return (digest,)

    def close(self, place: Sequence[bytes], header: bytes, body: bytes) -> bytes:
        """What follows the header of a record: checksum and body."""
        return self._integrity.sign(place, header, body) + body

    def open(self, place: Sequence[bytes], what: object, header: bytes, checksum: bytes, body: bytes) -> bytes:
        """The packed body of a record, verified. `header` begins with format, flags and key id."""
        key_id = header[2]
        if header[1] & ENCRYPTED:
            raise EncryptionKeyError(_keyless(what, key_id))
        self._check_key(key_id, what)
        if not self._integrity.verifies(key_id, checksum, place, header, body):
            raise CheckpointCorruptError(f"{what}: the checksum does not hold; the record was damaged or moved")
        return body

    def _check_key(self, key_id: int, what: object) -> None:
        if not self._integrity.knows(key_id):
            raise IntegrityKeyError(
                f"{what}: signed with a key (id {key_id}) that this saver was not given; if it is yours, add it to "
                "integrity_key"
            )
        if not key_id and not self._integrity.accept_unkeyed:
            raise IntegrityKeyError(
                f"{what}: neither signed nor encrypted, and this saver has a key; somebody without the key wrote it, or it is "
                "from before the key was introduced (accept_unkeyed=True reads such data for a while)"
            )

    def pack(self, name: bytes, plain: bytes, compression: CompressionType) -> bytes:
        """The stored form of a chunk."""
        return pack(plain, compression)

    def unpack(self, name: bytes, stored: bytes, what: object) -> bytes:
        """The plain bytes of a chunk, verified."""
        if stored[:1] >= bytes([_CHUNK]):
            raise EncryptionKeyError(_keyless(what, stored[_AHEAD - 1] if len(stored) >= _AHEAD else 0))
        plain = unpack(stored, CHUNK_MAX, what)
        if digest(plain) != name:
            raise CheckpointCorruptError(f"{what} is damaged: its digest differs")
        return plain

    @property
    def is_unsure(self) -> bool:
        """Whether key ids do not tell what is under the first key, since another has the same."""
        return self._integrity.is_unsure

    def first_only(self) -> Seal:
        """The same without the other keys."""
        made = copy(self)
        made._integrity = self._integrity.first_only()
        return made

    def is_current(self, stored: bytes) -> bool:
        """Whether a chunk is stored as this seal would store it, as far as its key id tells."""
        return stored[:1] < bytes([_CHUNK])

    def sign_tag(self, place: Sequence[bytes], body: bytes) -> bytes:
        """Format, key id and checksum of a tag."""
        header = bytes([1, self.key_id])
        return header + self._integrity.sign(place, header, body)

    def check_tag(self, place: Sequence[bytes], what: str, header: bytes, checksum: bytes, body: bytes) -> None:
        """Raises if a tag was not made by a seal with one of these keys."""
        if header[0] & ENCRYPTED:
            raise EncryptionKeyError(_keyless(what, header[1]))
        self._check_key(header[1], what)
        if not self._integrity.verifies(header[1], checksum, place, header, body):
            raise CheckpointCorruptError(f"{what}: the checksum does not hold; it was damaged or moved")


class _Cipher:
    """The keys that one secret gives to one thread."""

    __slots__ = ("chunks", "id", "naming", "records", "tags")

    def __init__(self, secret: bytes, place: Sequence[bytes]) -> None:
        made = derived(secret, (b"thread", *place), 192)
        self.records, self.chunks = aes_siv(made[:64]), aes_siv(made[64:128])
        self.naming, self.tags = made[128:160], made[160:]
        self.id = key_id(secret)

    def name(self, plain: bytes) -> bytes:
        return hashlib.blake2b(plain, key=self.naming, digest_size=DIGEST).digest()


class DecryptingSeal(Seal):
    """Reads what is encrypted with each of the keys, and what is only signed, or if that is accepted plain. Writes as `Seal`
    does, for a prefix whose encryption is turned off."""

    decrypts = True

    def __init__(
        self, integrity: Integrity, secrets: Sequence[bytes], place: Sequence[bytes], source: str = "encryption_key"
    ) -> None:
        super().__init__(integrity)
        self._ciphers = [_Cipher(secret, place) for secret in secrets]
        self._source = source

    @property
    def namings(self) -> Sequence[Callable[[bytes], bytes]]:
        return (digest, *(cipher.name for cipher in self._ciphers))

    def open(self, place: Sequence[bytes], what: object, header: bytes, checksum: bytes, body: bytes) -> bytes:
        if not header[1] & ENCRYPTED:
            return super().open(place, what, header, checksum, body)
        place = [length_prefixed(place), header]
        for cipher in self._of(header[2], what):
            if (found := _decrypted(cipher.records, checksum + body, place)) is not None:
                return found
        raise CheckpointCorruptError(f"{what}: it does not decrypt; the record was damaged or moved, or the key is another one")

    def _of(self, key: int, what: object) -> list[_Cipher]:
        found = [cipher for cipher in self._ciphers if cipher.id == key]
        if not found:
            known = " and ".join(str(cipher.id) for cipher in self._ciphers)
            raise EncryptionKeyError(
                f"{what}: encrypted with a key (id {key}) that this saver was not given (it has {known}); add it behind the "
                f"first in {self._source}, and keep it there until `rekey` has gone through all threads"
            )
        return found

    def unpack(self, name: bytes, stored: bytes, what: object) -> bytes:
        if stored[:1] < bytes([_CHUNK]):  # its digest is in a record under a key
            return super().unpack(name, stored, what)
        ahead, sealed = stored[:_AHEAD], stored[_AHEAD:]
        if len(sealed) <= DIGEST:
            raise CheckpointCorruptError(f"{what} is damaged: {len(stored)} bytes are too few")
        for cipher in self._of(ahead[5], what):
            data = _decrypted(cipher.chunks, sealed, [name, ahead])
            if data is not None:
                how = ahead[0] & ~_CHUNK
                plain = unpack(b"%c%s%s" % (how, ahead[1:5] if how else b"", data), CHUNK_MAX, what)
                if len(plain) != int.from_bytes(ahead[1:5], "big"):
                    raise CheckpointCorruptError(f"{what} is damaged: another size than it declares")
                return plain
        raise CheckpointCorruptError(f"{what} does not decrypt: it was damaged or moved, or the key is another one")

    def check_tag(self, place: Sequence[bytes], what: str, header: bytes, checksum: bytes, body: bytes) -> None:
        if not header[0] & ENCRYPTED:
            super().check_tag(place, what, header, checksum, body)
        elif not any(
            hmac.compare_digest(_checksum(cipher.tags, place, header, body), checksum) for cipher in self._of(header[1], what)
        ):
            raise CheckpointCorruptError(f"{what}: the checksum does not hold; it was damaged or moved")


class EncryptingSeal(DecryptingSeal):
    """Encrypts with the first key."""

    flags = ENCRYPTED

    def __init__(
        self, integrity: Integrity, secrets: Sequence[bytes], place: Sequence[bytes], source: str = "encryption_key"
    ) -> None:
        super().__init__(integrity, secrets, place, source)
        self._first = self._ciphers[0]
        self.apart = (self._first.naming,)

    @property
    def key_id(self) -> int:
        return self._first.id

    @property
    def is_unsure(self) -> bool:
        return any(cipher.id == self._first.id for cipher in self._ciphers[1:])

    def first_only(self) -> EncryptingSeal:
        made = copy(self)
        made._ciphers = self._ciphers[:1]
        return made

    def name(self, plain: bytes) -> bytes:
        return self._first.name(plain)

    def close(self, place: Sequence[bytes], header: bytes, body: bytes) -> bytes:
        sealed: bytes = self._first.records.encrypt(body, [length_prefixed(place), header])
        return sealed

    def pack(self, name: bytes, plain: bytes, compression: CompressionType) -> bytes:
        packed = pack(plain, compression)
        ahead = b"%c%s%c" % (_CHUNK | packed[0], len(plain).to_bytes(4, "big"), self.key_id)
        sealed: bytes = self._first.chunks.encrypt(packed[5:] if packed[0] else packed[1:], [name, ahead])
        return ahead + sealed

    def is_current(self, stored: bytes) -> bool:
        return stored[:1] >= bytes([_CHUNK]) and stored[5:6] == bytes([self.key_id])

    def sign_tag(self, place: Sequence[bytes], body: bytes) -> bytes:
        header = bytes([1 | ENCRYPTED, self.key_id])
        return header + _checksum(self._first.tags, place, header, body)


PLAIN: Final = Seal(Integrity((), False))

ASYNC_PROVIDER: Final = (
    "the key provider is async, and must be a plain function that returns the key; it is called in a worker thread where an "
    "event loop runs, so it may block"
)

Secrets = Sequence[bytes]

KeyProvider = Callable[[str], Any]
"""Given a thread id, the secret of that thread, or several, the first of which encrypts."""


class Keyring:
    """The keys of a saver, and the seals of its threads. `decrypt_only`: they only open what is encrypted."""

    def __init__(
        self,
        integrity: Integrity,
        secrets: Secrets = (),
        provider: KeyProvider | None = None,
        decrypt_only: bool = False,
    ) -> None:
        self._integrity, self._secrets, self._provider = integrity, secrets, provider
        self._seal = DecryptingSeal if decrypt_only else EncryptingSeal
        self.shared = None if secrets or provider else Seal(integrity)
        """The seal of all threads, where nothing is encrypted."""

    @property
    def asks(self) -> bool:
        return self._provider is not None

    @property
    def keyed(self) -> bool:
        """Whether what is written is signed with a key, or encrypted."""
        return bool(self._integrity.signing_id) or (self.shared is None and self._seal is EncryptingSeal)

    @property
    def accepts_unkeyed(self) -> bool:
        return self._integrity.accept_unkeyed

    def seal(self, prefix: bytes, thread: bytes) -> Seal | None:
        """The seal of a thread; None if the provider must be asked first."""
        if self.shared is not None:
            return self.shared
        return self._seal(self._integrity, self._secrets, (prefix, thread)) if self._secrets else None

    def asked(self, prefix: bytes, thread: bytes, about: str) -> Seal:
        """The seal of a thread with the secrets that the provider gives, which may take as long as a network does."""
        assert self._provider is not None
        try:
            given = self._provider(thread.decode())
        except Exception as error:
            raise KeyProviderError(
                f"{about}: the key provider gave no key for thread {thread.decode()!r} ({type(error).__name__}: {error}); "
                "nothing was read or written"
            ) from error
        if inspect.isawaitable(given):
            if inspect.iscoroutine(given):
                given.close()
            raise KeyProviderError(f"{about}: {ASYNC_PROVIDER}")
        try:
            secrets = encryption_secrets(given)
        except ValueError as error:
            raise KeyProviderError(f"{about}: the key provider's answer for thread {thread.decode()!r}: {error}") from error
        return self._seal(self._integrity, secrets, (prefix, thread), "what the key provider returns")


def encryption_secrets(given: Any) -> list[bytes]:
    """One secret or several as bytes, or ValueError that says what is wrong with them."""
    several = [given] if isinstance(given, bytes | bytearray) else list(given) if isinstance(given, list | tuple) else []
    if not several or not all(isinstance(each, bytes | bytearray) for each in several):
        raise ValueError(f"a key is bytes, or several of them are a list, not {type(given).__name__}")
    found = [bytes(each) for each in several]
    for each in found:
        line = each.rstrip(b"\r\n")
        if each.endswith(b"\n") and (len(line) == KEY_BYTES or _TEXT.fullmatch(line)):
            raise ValueError(f"a key of {len(each)} bytes ends with a newline; was it read from a file? Strip it")
        if len(each) < KEY_BYTES:
            raise ValueError(
                f"a key has {len(each)} bytes, and takes at least {KEY_BYTES}; make one with secrets.token_bytes(32)"
            )
    return found


def key_id(secret: bytes) -> int:
    """One byte that tells keys apart, most of the time: where two have the same, both are tried."""
    return hashlib.blake2b(secret, digest_size=4, person=b"lgrs-enc-key-id").digest()[0] or 1


def derived(secret: bytes, info: Sequence[bytes], size: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), size, b"lgrs 1", length_prefixed(info)).derive(secret)


def aes_siv(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    return AESSIV(key)


def _decrypted(cipher: Any, sealed: bytes, associated: list[bytes]) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        plain: bytes = cipher.decrypt(sealed, associated)
    except InvalidTag:
        return None
    return plain
