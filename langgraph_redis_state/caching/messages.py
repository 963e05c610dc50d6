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
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from operator import attrgetter
from typing import Any, Final, NamedTuple, cast

import msgspec
import ormsgpack
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from ..storage import bodies, chunks
from ..storage.bodies import Value
from ..storage.seals import Seal
from .bounded import BoundedCache

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


class SerializedList:
    """A serialized list, as its header and the parts of its elements. Its `len` is that of its bytes."""

    __slots__ = ("header", "list", "size")

    def __init__(self, header: bytes, elements: List, size: int) -> None:
        self.header, self.list, self.size = header, elements, size

    def __len__(self) -> int:
        return self.size

    def joined(self) -> bytes:
        return b"".join([self.header, *(atom[0] for atom in self.list.atoms)])


Element = tuple[type, tuple[chunks.Atom, ...], int]
"""Class, parts, bytes."""


class Cut(NamedTuple):
    """How a list was cut into chunks, up to a place where that goes on when messages come to it."""

    resume: chunks.Resume
    digests: list[bytes]
    runs: bodies.Fresh
    apart: tuple[bytes, ...]
    """Of the seal that named them."""


@dataclass(slots=True)
class List:
    """A list as it was when last serialized: its messages' classes, their keys joined, what was found for them."""

    kinds: list[type]
    keys: bytes
    atoms: list[chunks.Atom]
    bytes: int
    """Serialized, without the header."""
    size: int
    """Bytes of memory of the elements."""
    cut: Cut | None = None


_BEGIN: Final = chunks.Resume(literals=1)
"""Behind the header, which no chunk holds."""

_NOTHING: Final = List([], b"", [], 0, 0)


class MessageCache:
    """The serialized messages, the digests of runs of them, and the lists they stood in, that one saver remembers.

    `limit`, in bytes, holds for each of the three. They share most of their bytes, and each counts them as its own, since it
    may be the last to have them.
    """

    def __init__(self, limit: int) -> None:
        self._elements: BoundedCache[bytes, Element] = BoundedCache(limit, lambda key, element: len(key) + _size_of(element))
        self._digests: BoundedCache[chunks.Run, bytes] = BoundedCache(
            limit, lambda run, _: sum(map(len, run)) + 50 * len(run) + 250
        )
        self._lists: BoundedCache[Hashable, List] = BoundedCache(limit, _size_of_list)

    def serialized(self, serde: Any, value: Any, place: Hashable = None) -> SerializedList | None:
        """What `serde.dumps_typed(value)` gives, type "msgpack", in parts; None where only the serializer itself can say.

        `place` says whose value it is: what was there before is compared at once, as far as the list only grew.
        """
        if type(value) is not list or not is_plain(serde):
            return None
        value = value.copy()  # another thread may add to it or take from it meanwhile
        if not FROM <= len(value) <= chunks.ELEMENTS_MAX:
            return None
        module = sys.modules.get("langchain_core.messages")
        if module is None or not kinds_of(module).issuperset(map(type, value)):
            return None
        kinds = list(map(type, value))
        before = self._grown_from(place, value, kinds)
        if before is _NOTHING and not self._has_room_for(value):
            return None
        since = value[len(before.kinds) :]
        keys = _keys(since)
        found = self._elements.get_all(keys)
        unknown = [
            at
            for at, (kind, element) in enumerate(zip(kinds[len(before.kinds) :], found, strict=True))
            if element is None or element[0] is not kind
        ]
        sure = None not in keys
        if unknown:
            remembered = self._serialize(serde, since, keys, unknown, found)
            if remembered is None:
                return None
            sure = sure and remembered
        known = cast(list[Element], found)
        grown = List(
            kinds,
            b"",
            [*before.atoms, *chain.from_iterable([element[1] for element in known])],
            before.bytes + sum([element[2] for element in known]),
            before.size + sum(map(_size_of, known)),
            before.cut,
        )
        if place is not None and sure:
            grown.keys = b"".join([before.keys, *cast(list[bytes], keys)])
            self._lists.put(place, grown)
        header = header_of(len(value))
        return SerializedList(header, grown, len(header) + grown.bytes)

    def _grown_from(self, place: Hashable, value: list[Any], kinds: list[type]) -> List:
        """The list that was there before, if this one begins with all of it; else an empty one."""
        before = self._lists.get(place) if place is not None else None
        if before is not None and len(before.kinds) <= len(value) and before.kinds == kinds[: len(before.kinds)]:
            # the ends first, since a list that lost some is told by them
            first, last = key_of(value[0]), key_of(value[len(before.kinds) - 1])
            if first and last and before.keys.startswith(first) and before.keys.endswith(last):
                joined = _joined(value)
                if joined is not None and joined.startswith(before.keys, len(header_of(len(value)))):
                    return before
        return _NOTHING

    def _has_room_for(self, value: list[Any]) -> bool:
        """False for a list that would push itself out of the cache, judged by some of its messages."""
        if len(value) < SAMPLE_FROM:
            return self._elements.limit > 0
        some = value[:: 1 + len(value) // 16]
        size = sum(2 * len(key) + ELEMENT for message in some if (key := key_of(message)) is not None)
        return size * len(value) <= self._elements.limit // 2 * len(some)

    def _serialize(
        self,
        serde: Any,
        value: list[Any],
        keys: Sequence[bytes | None],
        unknown: Sequence[int],
        found: list[Element | None],
    ) -> bool | None:
        """Serializes the elements at the unknown places. True if all are remembered by their keys; None if the serializer does
        not take them as msgpack."""
        messages = [value[at] for at in unknown]
        type_, blob = serde.dumps_typed(messages)
        if type_ != "msgpack":
            return None
        try:
            raws = _array.decode(blob)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        sure = True
        for at, message, raw in zip(unknown, messages, raws, strict=True):
            key, body = keys[at], bytes(raw)
            element = type(message), chunks.element(body), len(body)
            found[at] = element
            # another thread may have changed it while it was serialized
            if key is not None and key_of(message) == key:
                self._elements.put(key, element)
            else:
                sure = False
        return sure

    def chunked(self, elements: SerializedList, fresh: bodies.Fresh, by: Seal) -> Value:
        """`bodies.chunked` of the joined elements."""
        if elements.size < chunks.CUT_FROM:
            return bodies.chunked("msgpack", elements.joined(), True, fresh, name=by.name)
        whole = elements.list
        cut = whole.cut if whole.cut is not None and whole.cut.apart == by.apart else Cut(_BEGIN, [], {}, by.apart)
        segments, runs, resume = chunks.group(islice(whole.atoms, cut.resume.atoms, None), tuple, cut.resume)
        names: list[bytes] = []
        for run in runs:
            known = (*by.apart, *run) if by.apart else run
            name = self._digests.get(known)
            if name is None:
                name = by.name(b"".join(run))
                self._digests.put(known, name)
            names.append(name)
        fresh.update(cut.runs)
        fresh.update(zip(names, runs, strict=True))
        ended = resume.runs - cut.resume.runs
        if ended:
            closed = dict(zip(names[:ended], runs, strict=False))
            whole.cut = Cut(resume, cut.digests + names[:ended], {**cut.runs, **closed}, by.apart)
        return Value("msgpack", [elements.header, *segments], (*cut.digests, *names), elements.size)


def is_plain(serde: Any) -> bool:
    # the settings of JsonPlusSerializer concern reading, but for pickle_fallback, whose type is looked at
    return type(serde) is JsonPlusSerializer and "dumps_typed" not in vars(serde)


@cache
def kinds_of(module: Any) -> frozenset[type]:
    names = ("HumanMessage", "AIMessage", "ToolMessage", "SystemMessage", "FunctionMessage", "ChatMessage", "AIMessageChunk")
    return frozenset(getattr(module, name) for name in names)


def _keys(messages: Sequence[Any]) -> list[bytes | None]:
    """`key_of` of each."""
    pack, option = ormsgpack.packb, _PLAIN
    try:
        return [None if message.__pydantic_extra__ else pack(message.__dict__, option=option) for message in messages]
    except (ormsgpack.MsgpackEncodeError, AttributeError):  # of some: each by itself
        return [key_of(message) for message in messages]


_extra, _content = attrgetter("__pydantic_extra__"), attrgetter("__dict__")


def _joined(messages: Sequence[Any]) -> bytes | None:
    """The keys of all, joined, behind a header; None if not all have one."""
    try:
        if any(map(_extra, messages)):
            return None
        return ormsgpack.packb(list(map(_content, messages)), option=_PLAIN)
    except (ormsgpack.MsgpackEncodeError, AttributeError):
        return None


def key_of(message: Any) -> bytes | None:
    """All that the serialized bytes of a message depend on besides its class; None where that is not known."""
    try:
        return None if message.__pydantic_extra__ else ormsgpack.packb(message.__dict__, option=_PLAIN)
    except (ormsgpack.MsgpackEncodeError, AttributeError):
        return None


ELEMENT: Final = 500
"""Bytes that CPython adds for an element of one part."""


def _size_of(element: Element) -> int:
    return element[2] + ELEMENT + 130 * (len(element[1]) - 1)


def _size_of_list(place: Hashable, each: List) -> int:
    names = sum(map(len, place)) if isinstance(place, tuple) else 0
    return 4 * names + len(each.keys) + each.size + 200 * len(each.kinds) + 700


def header_of(count: int) -> bytes:
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2, "big") if count < 65536 else b"\xdd" + count.to_bytes(4, "big")
