"""Messages that were serialized before, so that those of a long list that did not change are not serialized again. No I/O.

What is compared is content, never identity: a message is found by its exact class and the msgpack of its `__dict__`, and what
is found is what the serializer gave for that content. So the bytes stored are those that serializing the whole list gives,
and cutting them gives the same chunks (`chunks.group` is the one rule for both).

The msgpack of a `__dict__` says all that the serializer's bytes depend on. `JsonPlusSerializer` writes class and
`model_dump()`, which for LangChain's messages, none of which has a serializer or computed field of its own, is made of
`__dict__` and `__pydantic_extra__`; messages with extra fields are left out. A `__dict__` is compared only where it is made
of None, bool, int, float, str, bytes, list and dict with string keys, exactly: all else (tuples, sets, subclasses, dataclasses,
models, datetimes, lone surrogates ...) does not pack, and such a message goes to the serializer each time.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, Final

import msgspec
import ormsgpack
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from . import chunks, records
from .bounded import Bounded
from .codec import digest
from .records import Value

FROM: Final = 4
"""Shorter lists are serialized as they are."""
SAMPLE_FROM: Final = 64
"""Of longer lists some messages tell whether they fit into the cache."""

_PLAIN: Final = (
    ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
_array = msgspec.msgpack.Decoder(list[msgspec.Raw])


class Elements:
    """A serialized list, as its header and the parts of its elements. Its `len` is that of its bytes."""

    __slots__ = ("atoms", "size")

    def __init__(self, atoms: list[chunks.Atom], size: int) -> None:
        self.atoms = atoms
        self.size = size

    def __len__(self) -> int:
        return self.size

    def joined(self) -> bytes:
        return b"".join([atom[0] for atom in self.atoms])


Element = tuple[type, tuple[chunks.Atom, ...], int]
"""Class, parts, bytes."""


class ElementCache:
    """The serialized messages, and the digests of runs of them, that one saver remembers.

    `limit`, in bytes, holds for the messages, and again for the runs, which share most of their bytes with them.
    """

    def __init__(self, limit: int) -> None:
        self._elements: Bounded[bytes, Element] = Bounded(limit, lambda key, element: _entry_size(key, element[2]))
        self._digests: Bounded[chunks.Run, bytes] = Bounded(limit, lambda run, _: sum(map(len, run)) + 50 * len(run) + 250)

    def serialized(self, serde: Any, value: Any) -> Elements | None:
        """What `serde.dumps_typed(value)` gives, type "msgpack", in parts; None where only the serializer itself can say."""
        if type(value) is not list or not FROM <= len(value) <= chunks.ELEMENTS_MAX or not _is_plain(serde):
            return None
        module = sys.modules.get("langchain_core.messages")
        if module is None or not _kinds(module).issuperset(map(type, value)):
            return None
        if not self._has_room_for(value):
            return None
        found: list[Element | None] = []
        unknown: list[tuple[int, bytes | None]] = []
        get = self._elements.get
        for message in value:
            key = _key(message)
            element = get(key) if key is not None else None
            if element is None or element[0] is not type(message):
                unknown.append((len(found), key))
                element = None
            found.append(element)
        if unknown and not self._serialize(serde, value, unknown, found):
            return None
        header = _header(len(value))
        atoms: list[chunks.Atom] = [(header, True, None)]
        size = len(header)
        for element in found:
            if element is None:
                return None
            atoms += element[1]
            size += element[2]
        return Elements(atoms, size)

    def _has_room_for(self, value: list[Any]) -> bool:
        """False for a list that would push itself out of the cache, judged by some of its messages."""
        if len(value) < SAMPLE_FROM:
            return self._elements.limit > 0
        some = value[:: 1 + len(value) // 16]
        size = sum(_entry_size(key, len(key)) for message in some if (key := _key(message)) is not None)
        return size * len(value) <= self._elements.limit // 2 * len(some)

    def _serialize(
        self,
        serde: Any,
        value: list[Any],
        unknown: list[tuple[int, bytes | None]],
        found: list[Element | None],
    ) -> bool:
        """Serializes the elements at the unknown places. False if the serializer does not take them as msgpack."""
        messages = [value[at] for at, _ in unknown]
        type_, blob = serde.dumps_typed(messages)
        if type_ != "msgpack":
            return False
        try:
            raws = _array.decode(blob)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return False
        for (at, key), message, raw in zip(unknown, messages, raws, strict=True):
            body = bytes(raw)
            element = type(message), chunks.element(body), len(body)
            found[at] = element
            # another thread may have changed it while it was serialized
            if key is not None and _key(message) == key:
                self._elements.put(key, element)
        return True

    def chunked(self, elements: Elements, fresh: records.Fresh) -> Value:
        """`records.chunked` of the joined elements."""
        if elements.size < chunks.CUT_FROM:
            return records.chunked("msgpack", elements.joined(), True, fresh)
        segments, runs = chunks.group(elements.atoms)
        digests: list[bytes] = []
        for run in runs:
            name = self._digests.get(run)
            if name is None:
                name = digest(b"".join(run))
                self._digests.put(run, name)
            fresh[name] = run
            digests.append(name)
        return Value("msgpack", segments, tuple(digests), elements.size)


def _is_plain(serde: Any) -> bool:
    # the settings of JsonPlusSerializer concern reading, but for pickle_fallback, whose type is looked at
    return type(serde) is JsonPlusSerializer and "dumps_typed" not in vars(serde)


@cache
def _kinds(module: Any) -> frozenset[type]:
    names = ("HumanMessage", "AIMessage", "ToolMessage", "SystemMessage", "FunctionMessage", "ChatMessage", "AIMessageChunk")
    return frozenset(getattr(module, name) for name in names)


def _key(message: Any) -> bytes | None:
    """All that the serialized bytes of a message depend on besides its class; None where that is not known."""
    try:
        return None if message.__pydantic_extra__ else ormsgpack.packb(message.__dict__, option=_PLAIN)
    except (ormsgpack.MsgpackEncodeError, AttributeError):
        return None


def _entry_size(key: bytes, serialized: int) -> int:
    return len(key) + serialized + 500  # about what CPython adds for the objects


def _header(count: int) -> bytes:
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2, "big") if count < 65536 else b"\xdd" + count.to_bytes(4, "big")
