"""`LGRS_*` environment variables, as options of a saver. Reads the environment and the files that it names, nothing else.

A variable that is set to nothing counts as not set, since compose files and container platforms pass on empty ones.
"""

from __future__ import annotations

import base64
import difflib
import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from .durability import Durability, Fsync, Replicas
from .errors import InvalidConfigError

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _text(name: str, value: str) -> str:
    return value


def _whole(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidConfigError(f"{name}={value!r} is no whole number") from None


def _switch(name: str, value: str) -> bool:
    word = value.lower()
    if word not in ("true", "1", "yes", "on", "false", "0", "no", "off"):
        raise InvalidConfigError(f"{name}={value!r} is neither true nor false")
    return word in ("true", "1", "yes", "on")


def _duration(name: str, value: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", value)
    if found is None:
        raise InvalidConfigError(f"{name}={value!r} is no duration; write seconds, or 90s, 15m, 12h, 7d or 2w")
    try:
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    except OverflowError:
        raise InvalidConfigError(f"{name}={value!r} is too long") from None


def _ttl(name: str, value: str) -> timedelta | str:
    return value if value == "keep" else _duration(name, value)


def _words(name: str, value: str) -> list[str]:
    return [word.strip() for word in value.split(",")]


def _durability(name: str, value: str) -> Durability:
    kind, _, number = value.partition(":")
    if value == "fsync":
        return Fsync()
    if kind == "replicas" and number == "all":
        return Replicas("all")
    if kind == "replicas" and number.isdecimal() and int(number):
        return Replicas(int(number))
    raise InvalidConfigError(f"{name}={value!r} is unknown; allowed are 'fsync', 'replicas:all' and 'replicas:2' (any number)")


def _types(name: str, value: str) -> list[tuple[str, str]]:
    found = [tuple(word.rpartition(":")[::2]) for word in _words(name, value)]
    if wrong := [":".join(each) for each in found if not all(each)]:
        raise InvalidConfigError(f"{name}: {wrong[0]!r} is no type; write module:Class, and a comma between several")
    return found  # type: ignore[return-value]  # pairs


def _secrets(name: str, path: str) -> list[bytes]:
    """The keys in a file. Either the whole file is one key, or each line is `hex:...` or `base64:...`, the first key first."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InvalidConfigError(f"{name}: the file {path} cannot be read ({error.strerror})") from error
    lines = content.split()
    if lines and all(line.startswith((b"hex:", b"base64:")) for line in lines):
        try:
            return [_decoded(line) for line in lines]
        except ValueError as error:
            raise InvalidConfigError(f"{name}: a line of {path} is neither hex: nor base64: ({error})") from error
    key = _one_key(content)
    if not key:
        raise InvalidConfigError(f"{name}: the file {path} is empty")
    return [key]


def _one_key(content: bytes) -> bytes:
    """A line end that an editor or `echo` put behind a key does not belong to it. The last of 16, 24 or 32 random bytes, as
    `secrets.token_bytes` makes them, does."""
    key = content.rstrip(b"\r\n")
    is_random = len(content) in (16, 24, 32) and not re.fullmatch(rb"[ -~]*", key)
    return content if is_random else key


def _secret(name: str, path: str) -> bytes:
    found = _secrets(name, path)
    if len(found) > 1:
        raise InvalidConfigError(f"{name}: {path} has {len(found)} keys; there can be only one")
    return found[0]


def _decoded(line: bytes) -> bytes:
    kind, _, text = line.partition(b":")
    return bytes.fromhex(text.decode()) if kind == b"hex" else base64.b64decode(text, validate=True)


VARIABLES: Mapping[str, tuple[str, Callable[[str, str], Any]]] = {
    "LGRS_URL": ("url", _text),
    "LGRS_PREFIX": ("prefix", _text),
    "LGRS_TTL": ("ttl", _ttl),
    "LGRS_REFRESH_TTL_ON_READ": ("refresh_ttl_on_read", _switch),
    "LGRS_MAX_VERSIONS": ("max_versions", _whole),
    "LGRS_MAX_AGE": ("max_age", _duration),
    "LGRS_MAX_THREAD_BYTES": ("max_thread_bytes", _whole),
    "LGRS_TOMBSTONE": ("tombstone", _duration),
    "LGRS_CONFLICT": ("conflict", _text),
    "LGRS_DURABILITY": ("durability", _durability),
    "LGRS_INDEX_METADATA": ("index_metadata", _words),
    "LGRS_COMPRESSION": ("compression", _text),
    "LGRS_CACHE_BYTES": ("cache_bytes", _whole),
    "LGRS_INTEGRITY_KEY_FILE": ("integrity_key", _secrets),
    "LGRS_ACCEPT_UNKEYED": ("accept_unkeyed", _switch),
    "LGRS_ENCRYPTION_KEY_FILE": ("encryption_key", _secrets),
    "LGRS_FRESHNESS": ("freshness", _switch),
    "LGRS_DECRYPT_ONLY": ("decrypt_only", _switch),
    "LGRS_NAME_KEY_FILE": ("name_key", _secret),
    "LGRS_SERDE_KEY_FILE": ("", _secret),
    "LGRS_ALLOWED_TYPES": ("", _types),
}
"""Each variable, the option of `RedisSaver` that it sets ("": part of the serializer), and what reads it."""

_OF_TOOLS: Mapping[str, Callable[[str, str], Any]] = {"LGRS_PASSPHRASE_FILE": _secret, "LGRS_FROM": _text}
"""Those that `lgrs` reads besides."""


def value_of(name: str, environment: Mapping[str, str] | None = None) -> Any:
    """What a variable says; None if it is not set, or set to nothing.

    Raises:
        InvalidConfigError: the variable cannot mean anything; the message names it and says what is allowed.
    """
    value = (os.environ if environment is None else environment).get(name, "").strip()
    read = _OF_TOOLS[name] if name in _OF_TOOLS else VARIABLES[name][1]
    return read(name, value) if value else None


def options(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All options of a saver that `LGRS_*` variables set; the serializer is apart.

    Raises:
        InvalidConfigError: a variable is unknown or wrong. The message names it, and a known one that is near.
    """
    given = os.environ if environment is None else environment
    unknown = sorted(name for name in given if name.startswith("LGRS_") and name not in VARIABLES.keys() | _OF_TOOLS.keys())
    if unknown:
        near = difflib.get_close_matches(unknown[0], VARIABLES, 1, 0.7)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(VARIABLES)}"
        raise InvalidConfigError(f"the environment variable {unknown[0]} means nothing here{hint}")
    found = {option: value_of(name, given) for name, (option, _) in VARIABLES.items() if option}
    return {option: value for option, value in found.items() if value is not None}


def encrypted(serde: SerializerProtocol, environment: Mapping[str, str] | None = None) -> SerializerProtocol:
    """`serde`, behind LangGraph's encryption if LGRS_SERDE_KEY_FILE names a key.

    Raises:
        InvalidConfigError: the key cannot be read or used, or the package pycryptodome is missing.
    """
    key = value_of("LGRS_SERDE_KEY_FILE", environment)
    if key is None:
        return serde
    if len(key) not in (16, 24, 32):  # else AES says so at the first value
        raise InvalidConfigError(f"LGRS_SERDE_KEY_FILE: an AES key has 16, 24 or 32 bytes, not {len(key)}")
    try:
        return EncryptedSerializer.from_pycryptodome_aes(serde, key=key)
    except ImportError as error:
        raise InvalidConfigError("LGRS_SERDE_KEY_FILE needs the package pycryptodome: pip install pycryptodome") from error
