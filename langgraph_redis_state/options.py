"""Checks the arguments of the saver at construction. Each error says which values are allowed. No I/O."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, Literal

from langgraph.checkpoint.serde.base import SerializerProtocol

from . import validation
from .durability import Durability, Fsync, Replicas
from .errors import InvalidConfigError
from .storage import keys
from .storage.codec import CompressionType, zstandard
from .storage.names import PLAIN_NAMES, HiddenNames, Names
from .storage.seals import ASYNC_PROVIDER, Integrity, KeyProvider, Keyring, encryption_secrets

KEY_BYTES = 16
"""Shorter keys can be found by trying."""

DEFAULT_URL = "redis://localhost:6379/0"

Secret = str | bytes

EncryptionKey = bytes | Sequence[bytes] | KeyProvider

TTL = float | timedelta | Mapping[str, Any] | Literal["keep"]


def ttl_option(ttl: TTL | str | None, refresh: bool) -> tuple[int, bool]:
    """(milliseconds, refresh on read). 0 ms: none; -1: the expiry of threads stays as it is."""
    if ttl == "keep":
        return -1, False
    if isinstance(ttl, Mapping):
        unknown = set(ttl) - {"default_ttl", "refresh_on_read"}
        if unknown:
            raise ValueError(f"ttl has unknown keys {sorted(unknown)}; allowed are 'default_ttl' (minutes), 'refresh_on_read'")
        refresh = bool(ttl.get("refresh_on_read", False))
        minutes = ttl.get("default_ttl")
        if minutes is not None and not isinstance(minutes, timedelta):
            validation.ttl_ms(minutes, "ttl", "minutes")
            minutes *= 60
        ttl = minutes
    if ttl is None:
        return 0, refresh
    return validation.ttl_ms(ttl, "ttl"), refresh


def serializer(serde: Any) -> SerializerProtocol | None:
    if serde is None or (not isinstance(serde, type) and (hasattr(serde, "dumps_typed") or hasattr(serde, "dumps"))):
        return serde
    raise TypeError(f"serde must be a serializer, an object with dumps_typed and loads_typed, not {serde!r}")


def durability_option(level: object) -> Durability | None:
    if level is None or isinstance(level, Replicas | Fsync):
        return level
    raise ValueError(f"durability must be None, Replicas(...) or Fsync(...), not {level!r}")


def metadata_keys(index: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(index, Collection) or isinstance(index, str) or not all(isinstance(name, str) and name for name in index):
        raise ValueError(f"index_metadata must be a sequence of metadata keys, not {index!r}")
    return tuple(keys.encode(name, "a key of index_metadata").decode() for name in index)


def compression_option(compression: object) -> CompressionType:
    try:
        chosen = CompressionType(compression)
    except ValueError:
        allowed = ", ".join(repr(each.value) for each in CompressionType)
        raise ValueError(f"compression {compression!r} is unknown; allowed are {allowed}") from None
    if chosen is CompressionType.ZSTD:
        try:
            zstandard()
        except ImportError as error:
            raise InvalidConfigError("compression='zstd' needs: pip install 'langgraph-redis-state[zstd]'") from error
    return chosen


def encryption_option(key: EncryptionKey | None) -> tuple[list[bytes], KeyProvider | None]:
    """The secrets, or the provider of secrets."""
    if key is None:
        return [], None
    _need_cryptography("encryption_key")
    if callable(key):
        if inspect.iscoroutinefunction(key) or inspect.iscoroutinefunction(getattr(key, "__call__", None)):  # noqa: B004
            raise ValueError(f"encryption_key: {ASYNC_PROVIDER}")
        return [], key
    try:
        return encryption_secrets(key), None
    except ValueError as error:
        raise ValueError(f"encryption_key: {error}") from None


def keyring_option(
    integrity_key: Secret | Sequence[Secret] | None,
    accept_unkeyed: bool,
    encryption_key: EncryptionKey | None,
    decrypt_only: bool,
) -> Keyring:
    if decrypt_only and encryption_key is None:
        raise ValueError(
            "decrypt_only=True needs the encryption_key that decrypts what is stored; if nothing is encrypted, omit it"
        )
    keys_given, provider = encryption_option(encryption_key)
    required = encryption_key is not None and not decrypt_only
    return Keyring(Integrity(secrets(integrity_key), accept_unkeyed, required), keys_given, provider, decrypt_only)


def freshness_option(freshness: object, witness: object, keyed: bool) -> bool:
    if freshness not in (True, False):
        raise ValueError(f"freshness must be True or False, not {freshness!r}")
    if freshness and not keyed:
        raise ValueError("freshness=True needs a key to seal with: pass integrity_key or encryption_key too")
    if witness is not None and not freshness:
        raise ValueError("a witness is told of statements, which are made with freshness=True")
    if witness is not None and not callable(witness):
        raise TypeError(f"witness must be a function of thread id, revision and digest, not {witness!r}")
    return bool(freshness)


def name_option(key: bytes | None, prefix: str) -> Names:
    if key is None:
        return PLAIN_NAMES
    _need_cryptography("name_key")
    if not isinstance(key, bytes | bytearray):
        raise ValueError(f"name_key is one key for ever, as bytes, not {type(key).__name__}")
    try:
        (secret,) = encryption_secrets(key)
    except ValueError as error:
        raise ValueError(f"name_key: {error}") from None
    return HiddenNames(secret, prefix)


def _need_cryptography(option: str) -> None:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # noqa: F401
    except ImportError as error:
        raise InvalidConfigError(f"{option} needs: pip install 'langgraph-redis-state[encryption]'") from error


def warn_of_trust(url: str | None, client: Any, serde: Any, keyed: bool) -> None:
    """Logs once in a process that whoever can write to the server can run code here, where that is so: LangGraph's default
    serializer calls what stored bytes name, unless LANGGRAPH_STRICT_MSGPACK is set."""
    if serde is None and not keyed and not _is_strict() and not all(map(_is_local, _hosts(url, client))):
        _warn_of_trust()


def _is_strict() -> bool:
    return os.environ.get("LANGGRAPH_STRICT_MSGPACK", "").lower() in ("1", "true", "yes")


def _hosts(url: str | None, client: Any) -> list[str]:
    if url is None:
        given = getattr(getattr(client, "connection_pool", None), "connection_kwargs", {})
        return [given["host"]] if isinstance(given.get("host"), str) else []
    scheme, _, rest = url.partition("://")
    several = re.split("[/?]", rest)[0].rpartition("@")[2].split(",")
    return [] if scheme.endswith("unix") else [re.sub(r"^\[(.*)\].*|:\d*$", r"\1", each) for each in several]


def _is_local(host: str) -> bool:
    return host in ("", "localhost", "::1") or host.startswith("127.")


@cache
def _warn_of_trust() -> None:
    logging.getLogger("langgraph_redis_state").warning(
        "whoever can write to this Redis server can run code in this process: LangGraph's serializer imports and calls what "
        "stored bytes name. Set LANGGRAPH_STRICT_MSGPACK=true, or pass integrity_key or encryption_key (docs/security.md). "
        "Logged once"
    )


def secrets(key: Secret | Sequence[Secret] | None) -> list[bytes]:
    if key is None:
        return []
    secrets = [key] if isinstance(key, str | bytes) else list(key) if isinstance(key, list | tuple) else []
    if not secrets or not all(isinstance(secret, str | bytes) for secret in secrets):
        raise ValueError("integrity_key must be str or bytes, or a sequence of them")
    found = [secret.encode() if isinstance(secret, str) else bytes(secret) for secret in secrets]
    if (short := min(map(len, found))) < KEY_BYTES:
        raise ValueError(
            f"integrity_key: a key has {short} bytes, which can be guessed; each takes at least {KEY_BYTES}. Make one with "
            "secrets.token_bytes(32), and keep it where the other secrets are"
        )
    return found
