"""Messages that were read before, so that those of a long list that did not change are not built again. No I/O.

A message is found by the bytes of its element and by the serializer that read it. What is kept is the msgpack of its
`__dict__`, of which each reader gets a copy of its own, and a template that has all else, and that nobody else ever sees:
messages with the same fields share one. So readers share nothing, neither with each other nor with the cache.

To keep a message takes about as long as to build it, so each read of a list keeps only some more.

Kept is only a message whose `__dict__` comes back the same from msgpack: made of None, bool, int, float, str, bytes, list and
dict with string keys, exactly, no list or dict in two places; of a class of LangChain's own, without extra fields or
private attributes. Any other is read by the serializer each time, and so is what a serializer of another class reads.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import ormsgpack

from .bounded import BoundedCache
from .messages import FROM, header_of, is_plain, key_of, kinds_of

_array = msgspec.msgpack.Decoder(list[msgspec.Raw])

_EXTS: Final = (0xC7, 0xC8, 0xC9)
"""The first byte of a message."""

ENTRY: Final = 400
"""Bytes that CPython adds for a message."""

AT_ONCE: Final = 16
"""One read keeps at most so many messages."""

TEMPLATES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Revived:
    """A message as a serializer read it."""

    serde: Any
    template: Any
    content: bytes
    """The msgpack of its `__dict__`."""


class RevivedCache:
    """The messages that one saver read, in at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._known: BoundedCache[bytes, Revived] = BoundedCache(
            limit, lambda element, known: len(element) + len(known.content) + ENTRY
        )
        self._templates: dict[tuple[Any, ...], Any] = {}

    def load(self, serde: Any, blob: bytes) -> list[Any] | None:
        """What `serde.loads_typed(("msgpack", blob))` gives; None where only the serializer itself can say."""
        if not (self._known.limit and is_plain(serde) and _may_hold_messages(blob)):
            return None
        try:
            elements = [bytes(raw) for raw in _array.decode(blob)]
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None  # the serializer says what is wrong
        if len(elements) < FROM:
            return None
        found = self._known.get_all(elements)
        known = [each for each in found if each is not None and each.serde is serde]
        if len(known) == len(elements):
            return _copies(known)
        unknown = [at for at, each in enumerate(found) if each is None or each.serde is not serde]
        loaded = serde.loads_typed(("msgpack", header_of(len(unknown)) + b"".join([elements[at] for at in unknown])))
        values: list[Any] = [None] * len(elements)
        for n, (at, value) in enumerate(zip(unknown, loaded, strict=True)):
            values[at] = value
            if n < AT_ONCE:
                self._remember(serde, elements[at], value)
        copies = iter(_copies(known))
        return [
            next(copies) if each is not None and each.serde is serde else value
            for each, value in zip(found, values, strict=True)
        ]

    def _remember(self, serde: Any, element: bytes, message: Any) -> None:
        module = sys.modules.get("langchain_core.messages")
        if module is None or type(message) not in kinds_of(module) or message.__pydantic_private__ is not None:
            return
        content = key_of(message)
        if content is not None and _is_tree(message.__dict__):
            self._known.put(element, Revived(serde, self._template(message), content))

    def _template(self, message: Any) -> Any:
        shape = type(message), tuple(message.__dict__), frozenset(message.__pydantic_fields_set__)
        template = self._templates.get(shape)
        if template is None:
            template = message.__copy__()
            template.__dict__.update(dict.fromkeys(message.__dict__))
            if len(self._templates) >= TEMPLATES_MAX:
                self._templates = {}  # messages that are known have theirs
            self._templates[shape] = template
        return template


def _copies(known: Sequence[Revived]) -> list[Any]:
    """A new message for each."""
    contents = ormsgpack.unpackb(header_of(len(known)) + b"".join([each.content for each in known]))
    made = [each.template.__copy__() for each in known]
    for message, content in zip(made, contents, strict=True):
        message.__dict__.update(content)
    return made


def _may_hold_messages(blob: bytes) -> bool:
    """Whether it is a list whose first element may be a message."""
    first = blob[0] if blob else 0
    at = 1 if 0x90 <= first <= 0x9F else 3 if first == 0xDC else 5 if first == 0xDD else len(blob)
    return len(blob) > at and blob[at] in _EXTS


_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})


def _is_tree(content: dict[str, Any]) -> bool:
    """Whether what was packed comes back with the same types, and nothing in it stands in two places."""
    containers: list[Any] = [content]
    for each in containers:  # it grows
        for value in each.values() if type(each) is dict else each:
            kind = type(value)
            if kind is dict or kind is list:
                containers.append(value)
            elif kind not in _PLAIN:
                return False
    return len(set(map(id, containers))) == len(containers)
