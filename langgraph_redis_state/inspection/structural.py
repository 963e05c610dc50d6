"""`StructuralSerializer`: what LangGraph's serializer wrote, as class and fields. Nothing is imported, called or unpickled.

Give it to a saver as `serde=`, and every verb returns structural values: text, numbers, lists and mappings as they are, and an
`Instance` wherever the bytes name a class. An `Instance` keeps its bytes, so what was read is written back byte for byte:
`rollback` and `copy_thread` work through it. LangGraph's extension codes (langgraph/checkpoint/serde/jsonplus.py):

    0 class(argument)    1 class(*arguments)    2 class(**fields)    3 class.method(argument)
    4 pydantic 1         5 pydantic 2           6 numpy array        7 snapshot of a DeltaChannel

Rule 1: a name that stands in the bytes is text here, and stays text.
Rule 2: the content of an `Instance` is decoded when somebody looks at it, so depth and size are bounded by who looks.
Rule 3: bytes that cannot be decoded are an `Instance` with a `problem`. Only if the outermost bytes are no msgpack, it raises.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any, Final

import ormsgpack
from langgraph.checkpoint.serde.types import _DeltaSnapshot

SINGLE, POSITIONAL, KEYWORDS, METHOD, PYDANTIC_1, PYDANTIC_2, NUMPY, SNAPSHOT = range(8)

UNORDERED: Final = ("builtins.set", "builtins.frozenset")


class Instance:
    """An object as it is stored: the name of its class, and its fields. Two are equal if they are stored alike."""

    __slots__ = ("__dict__", "code", "content")

    def __init__(self, code: int, content: bytes) -> None:
        self.code = code
        self.content = content

    @cached_property
    def _parts(self) -> tuple[str, Any, str]:
        """(class, fields, problem)"""
        if not SINGLE <= self.code <= NUMPY:
            return f"extension {self.code}", None, "a newer LangGraph may know this extension"
        try:
            found = ormsgpack.unpackb(self.content, ext_hook=Instance, option=ormsgpack.OPT_NON_STR_KEYS)
        except (ValueError, TypeError) as error:
            return f"extension {self.code}", None, f"its bytes cannot be decoded ({error})"
        if self.code == NUMPY:
            if isinstance(found, list) and len(found) == 4:
                return "numpy.ndarray", {"dtype": found[0], "shape": found[1], "order": found[2], "data": found[3]}, ""
        elif isinstance(found, list) and len(found) >= 3 and isinstance(found[0], str) and isinstance(found[1], str):
            return f"{found[0]}.{found[1]}", found[2], ""
        return f"extension {self.code}", found, "it is not laid out as LangGraph does"

    @property
    def type(self) -> str:
        """Module and name of the class, as text."""
        return self._parts[0]

    @property
    def name(self) -> str:
        return self.type.rpartition(".")[2]

    @property
    def fields(self) -> Any:
        """What the class would be called with: a mapping of fields, a list of arguments, or one argument."""
        return self._parts[1]

    @property
    def problem(self) -> str:
        """Why there are no fields; "" if nothing is wrong."""
        return self._parts[2]

    def get(self, name: str, default: Any = None) -> Any:
        """One field."""
        return self.fields.get(name, default) if isinstance(self.fields, dict) else default

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instance):
            return NotImplemented
        if (self.code, self.content) == (other.code, other.content):
            return True
        both = self.type == other.type and self.type in UNORDERED  # a set is stored in any order
        return both and isinstance(self.fields, list) and isinstance(other.fields, list) and _members(self) == _members(other)

    def __hash__(self) -> int:
        return hash((self.code, len(self.content)))

    def __repr__(self) -> str:
        return f"<{self.type}>"


def _members(instance: Instance) -> list[bytes]:
    return sorted(map(_packed, instance.fields))


class Opaque:
    """A value that is only shown by its type and size: pickled, or of a type that LangGraph's serializer does not have."""

    __slots__ = ("content", "type")

    def __init__(self, type: str, content: bytes) -> None:
        self.type = type
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and (self.type, self.content) == (other.type, other.content)

    def __hash__(self) -> int:
        return hash((self.type, self.content))

    def __repr__(self) -> str:
        return f"<{self.type}, {len(self.content)} bytes>"


class StructuralSerializer:
    """LangGraph's `SerializerProtocol`, without classes."""

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The structure of a stored value.

        Raises:
            ValueError: the bytes are not what their type says.
        """
        kind, content = data
        if kind == "null":
            return None
        if kind == "bytes":
            return content
        if kind == "bytearray":
            return bytearray(content)
        if kind == "msgpack":
            return ormsgpack.unpackb(content, ext_hook=_extension, option=ormsgpack.OPT_NON_STR_KEYS)
        if kind == "json":
            return json.loads(content)
        if "+" in kind:
            raise ValueError(f"it is encrypted ({kind}); LGRS_SERDE_KEY_FILE names the file with the key")
        return Opaque(kind, content)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """A structure as it was stored. What has no structure here is refused by TypeError."""
        if obj is None:
            return "null", b""
        if isinstance(obj, Opaque):
            return obj.type, obj.content
        if isinstance(obj, bytes | bytearray):
            return type(obj).__name__, bytes(obj)
        return "msgpack", _packed(obj)


def _extension(code: int, content: bytes) -> Any:
    if code == SNAPSHOT:  # the saver looks for it
        try:
            return _DeltaSnapshot(ormsgpack.unpackb(content, ext_hook=Instance, option=ormsgpack.OPT_NON_STR_KEYS))
        except (ValueError, TypeError):
            pass
    return Instance(code, content)


def _packed(obj: Any) -> bytes:
    option = ormsgpack.OPT_NON_STR_KEYS | ormsgpack.OPT_REPLACE_SURROGATES
    return ormsgpack.packb(obj, default=_default, option=option)


def _default(obj: Any) -> ormsgpack.Ext:
    if isinstance(obj, Instance):
        return ormsgpack.Ext(obj.code, obj.content)
    if isinstance(obj, _DeltaSnapshot):
        return ormsgpack.Ext(SNAPSHOT, _packed(obj.value))
    raise TypeError(f"{type(obj).__name__} has no stored form here")
