"""Every name this package uses on the server: keys, hash fields, index members. Pure functions, no I/O.

A thread lives in one Cluster slot. All keys of it carry the hash tag ``{b}``, one of 1024 buckets that the thread id
hashes to, and so do the indexes of the bucket, so that one script may update all of them:

======================  ================  ==================================================================
key                     type              holds
======================  ================  ==================================================================
``p:{b}:t:<thread>``    hash              the thread: see the fields below
``p:{b}:i:<thread>``    sorted set        its checkpoints in order (all scores 0, compared as bytes)
``p:{b}:threads``       sorted set        thread ids of the bucket by last activity, ms
``p:{b}:expiry``        sorted set        thread ids of the bucket by the moment they expire, ms
``p:{b}:runs``          sorted set        ``R<run>\0<thread>`` and its reverse ``T<thread>\0<run>`` (`run_entry`)
``p:{b}:m``             sorted set        ``V<key>\0<value>\0<thread>`` and its reverse ``T<thread>\0<key>\0<value>``
``p:{b}:x:<thread>``    sorted set, exp.  tombstone: the checkpoints that were deleted with the thread (lib/tombstone.lua)
``p:{b}:u:<t>:<op>``    hash, expiring    staging of a copy or a large upload; ``:i`` behind it, its index
``p:layout``            string            layout number, and the lowest version of it that may write
======================  ================  ==================================================================

Fields of the thread: ``C<ns>\0<id>`` a checkpoint, ``W<ns>\0<id>`` its pending writes (if they are many, also the directory
``W<ns>\0<id>\0`` and segments ``W<ns>\0<id>\0<name>``, see thread_fields.py), ``H<ns>\0<id>`` what the DeltaChannels of a
checkpoint whose parent was removed are rebuilt from, ``Z`` and ``F<ns>\0<id>`` what is true of the thread
(statements.py), ``D<digest>`` a chunk, ``P<digest>`` a page of references, ``S``
revision and counts, ``T`` the thread's own settings, ``G<name>`` a tag,
``O`` the last operation that had to be recognised when repeated. Members of its index: ``C<ns>\0<id>``, and for
namespaces other than the root also ``A<id>\0<ns>``, so that newest-first over all namespaces merges two ranges.

The four indexes of a bucket expire after its last thread, if all threads of it expire (`expire_bucket` in lib/ttl.lua).

NUL separates and ids may not hold it; UTF-8 never contains the byte 255, so ``\255`` is an exact upper bound; UTF-8 byte
order is the order of Python's strings. Layout 1 is what released versions wrote: nothing here may change its meaning.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, AnyStr
from uuid import UUID

from xxhash import xxh3_64_intdigest

from .. import validation
from ..errors import InvalidConfigError
from .names import PLAIN_NAMES, Names

LAYOUT = 1

_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

BUCKETS = 1024

ROOT = ""


def check_prefix(prefix: object) -> str:
    """The prefix itself, or ValueError: it may not move the hash tag nor break a key."""
    text = validation.plain(prefix)
    if not isinstance(text, str) or not text:
        raise ValueError(f"prefix must be a non-empty string, not {prefix!r}")
    if any(c in text for c in "{}\0"):
        raise ValueError(f"prefix {prefix!r} may not hold '{{', '}}' or NUL: they would move its keys to other slots")
    encode(text, "prefix")
    return text


def encode(text: object, what: str) -> bytes:
    """An id as the bytes that are stored. `what` names it in the error."""
    found = validation.plain(text)
    if not isinstance(found, str):
        raise InvalidConfigError(f"{what} must be a string, not {type(text).__name__}: {text!r}")
    if "\0" in found:
        raise InvalidConfigError(f"{what} {text!r} holds a NUL character, which separates ids on the server; remove it")
    try:
        return found.encode()
    except UnicodeEncodeError:
        raise InvalidConfigError(f"{what} {text!r} holds a lone surrogate, which is not text; remove it") from None


def shown(name: bytes) -> str:
    """An id for messages, where it may be damaged."""
    return name.decode(errors="replace")


def run_entry(run: bytes) -> bytes:
    """A run as the bucket's index names it: a canonical UUID as ``\x80``, which begins no text, and its 16 bytes.

    With thread ids that are UUIDs too, the members then have less than 64 bytes, up to which a server keeps a small sorted set
    as one list.
    """
    if len(run) == 36 and _UUID.fullmatch(run):
        return b"\x80" + bytes.fromhex(run.replace(b"-", b"").decode())
    return run


def shown_run(entry: bytes) -> str:
    """The run of an entry, for messages."""
    return str(UUID(bytes=entry[1:])) if entry[:1] == b"\x80" and len(entry) == 17 else shown(entry)


def run_parts(member: bytes) -> tuple[bytes, bytes] | None:
    """Run, as `run_entry` has it, and thread that a member of the index of runs names; None if it is none."""
    kind, rest = member[:1], member[1:]
    if kind == b"T":
        thread, nul, run = rest.partition(b"\0")
    elif kind == b"R" and rest[:1] == b"\x80":
        run, nul, thread = rest[:17], rest[17:18], rest[18:]
    else:
        run, nul, thread = rest.partition(b"\0")
    plain = len(run) == 17 if run[:1] == b"\x80" else b"\0" not in run
    return (run, thread) if kind in (b"R", b"T") and nul == b"\0" and plain and b"\0" not in thread else None


def thread_text(thread: Any) -> str:
    """A thread id as it is stored."""
    text = id_text(thread)
    if text is None:
        found = f"{thread!r}"
        if isinstance(thread, Mapping):
            found = "a config; pass the thread id: config['configurable']['thread_id']"
        raise InvalidConfigError(
            f"config['configurable']['thread_id'], or the id of a state, must be a string (or an int or UUID), not {found}"
        )
    if not text:
        _warn_of_empty_id()
    return text


def id_text(given: Any) -> str | None:
    """The id of a thread or a run as text; None if it is no id. Integers and UUIDs are common in configs and stand for their
    text."""
    if isinstance(given, UUID):
        return str(given)
    found = validation.plain(given)
    return None if found is None or isinstance(found, bool | float) else str(found)


@cache
def _warn_of_empty_id() -> None:
    """Once in a process: an id that was forgotten looks like this, and all who forget it share one thread."""
    logging.getLogger("langgraph_redis_state").warning(
        "thread_id is the empty string; it is stored like any other, so all callers that pass it share one thread. Was the id "
        "forgotten?"
    )


def check_several(ids: object, what: str) -> None:
    """One text is a sequence of its characters, a config one of its keys, and these would be taken for ids."""
    if isinstance(ids, str | bytes):
        raise TypeError(f"{what} is a sequence of ids, not one text; pass [{ids!r}]")
    if isinstance(ids, Mapping):
        raise TypeError(f"{what} is a sequence of ids, not a config; pass [config['configurable']['thread_id']]")


def bucket_of(thread: bytes) -> int:
    return xxh3_64_intdigest(thread) & (BUCKETS - 1)


def bucket_key(prefix: str, bucket: int, name: str) -> bytes:
    return f"{prefix}:{{{bucket:04x}}}:{name}".encode()


def layout_key(prefix: str) -> bytes:
    return f"{prefix}:layout".encode()


def absent_key(prefix: str) -> bytes:
    """A key that never exists, in the slot of the layout number: on it rights are tried."""
    return f"{prefix}:rights:{{{prefix}:layout}}".encode()


def script_keys(base: bytes, thread: bytes) -> tuple[bytes, ...]:
    """The keys that every script takes, of a thread and its bucket. A sweep of a bucket names those of the thread ""."""
    return (
        base + b"t:" + thread,
        base + b"i:" + thread,
        base + b"threads",
        base + b"expiry",
        base + b"runs",
        base + b"m",
        base + b"x:" + thread,
    )


class ThreadKeys:
    """The keys of one thread, in the order in which every script expects them."""

    __slots__ = ("all", "base", "name", "names")

    def __init__(self, prefix: str, thread: bytes, names: Names = PLAIN_NAMES) -> None:
        self.names = names
        self.name = names.thread(thread)
        """The thread id as it is stored."""
        self.base = bucket_key(prefix, bucket_of(self.name), "")
        self.all = script_keys(self.base, self.name)

    @property
    def hash(self) -> bytes:
        return self.all[0]

    @property
    def tombstone(self) -> bytes:
        return self.all[6]

    def staging(self, op: bytes) -> tuple[bytes, bytes]:
        """The hash and the index that one operation fills before it makes them visible."""
        key = self.base + b"u:" + self.name + b":" + op
        return key, key + b":i"


thread_keys = lru_cache(1024)(ThreadKeys)
"""The keys of a thread. Those of threads that are in use are made once."""


def checkpoint_field(ns: bytes, checkpoint: bytes) -> bytes:
    """Field of the hash and member of the index."""
    return b"C" + ns + b"\0" + checkpoint


def writes_field(ns: bytes, checkpoint: bytes) -> bytes:
    return b"W" + ns + b"\0" + checkpoint


def history_field(ns: bytes, checkpoint: bytes) -> bytes:
    return b"H" + ns + b"\0" + checkpoint


def frozen_field(ns: bytes, checkpoint: bytes) -> bytes:
    return b"F" + ns + b"\0" + checkpoint


def across_member(ns: bytes, checkpoint: bytes) -> bytes:
    return b"A" + checkpoint + b"\0" + ns


def index_members(ns: bytes, checkpoint: bytes) -> tuple[bytes, ...]:
    """All that the index holds of a checkpoint."""
    field = checkpoint_field(ns, checkpoint)
    return (field, across_member(ns, checkpoint)) if ns else (field,)


def split_field(field: bytes) -> tuple[bytes, bytes]:
    """(namespace, checkpoint id) of a `C`, `W`, `H` or `F` field."""
    ns, checkpoint, *_ = *field[1:].split(b"\0", 2), b""
    return ns, checkpoint


def segment_of(field: bytes) -> bytes | None:
    """What a `W` field names besides its checkpoint: a segment, or nothing, the directory; None: it is the list."""
    parts = field.split(b"\0", 2)
    return parts[2] if field[:1] == b"W" and len(parts) == 3 else None


def members_of(field: bytes) -> tuple[bytes, ...]:
    """The members of the index that name a field, of any kind."""
    return index_members(*split_field(field)) if field[:1] == b"C" else (field,) if field[:1] == b"G" else ()


def newest_of_each(places: Iterable[tuple[AnyStr, AnyStr]]) -> dict[AnyStr, AnyStr]:
    """Of checkpoints, as (namespace, id), the greatest id of each namespace."""
    newest: dict[AnyStr, AnyStr] = {}
    for ns, checkpoint in places:
        newest[ns] = max(newest.get(ns, checkpoint), checkpoint)
    return newest
