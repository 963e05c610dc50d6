"""Values as JSON and as text that is safe to print: no control character of a value reaches a terminal. Pure functions.

As JSON, what JSON lacks is a mapping with one name that begins with `$`:

    {"$class": "module.Name", "fields": ...}     an object; "problem" instead of "fields" if its bytes cannot be decoded
    {"$bytes": "base64", "size": n}              bytes; those above 48 bytes without their content, unless all is wanted
    {"$pickle": n}, {"$<type>": n}               a value that is not decoded, of n bytes
    {"$float": "nan" | "inf" | "-inf"}           a number that JSON does not have
    {"$map": [[key, value], ...]}                a mapping whose keys are not all text
    {"$cut": "depth"}                            what is nested more than 60 deep
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from langgraph.checkpoint.serde.types import _DeltaSnapshot

from .structural import Instance, Opaque

DEPTH: Final = 60

BYTES_SHOWN: Final = 48

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)

MASK: Final = "•"


def clean(text: str) -> str:
    """Text that a terminal shows and does not obey: control characters, and those that turn the direction of writing, are
    written as `\\x1b`. Line ends and tabs stay."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def line(text: str) -> str:
    """The same in one line."""
    return clean(text).replace("\n", "\\n").replace("\t", " ")


def plain(value: Any, *, mask: bool = False, all_bytes: bool = False, depth: int = DEPTH) -> Any:
    """A structural value as JSON has it (see above). `mask`: with the kinds and sizes of values in place of values."""
    if depth <= 0:
        return {"$cut": "depth"}
    if mask and not isinstance(value, Mapping | list | tuple | Instance | _DeltaSnapshot):
        return masked(value)

    def inner(each: Any) -> Any:
        return plain(each, mask=mask, all_bytes=all_bytes, depth=depth - 1)

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, _DeltaSnapshot):
        return {"$class": "langgraph.DeltaSnapshot", "fields": inner(value.value)}
    if isinstance(value, Instance):
        if value.problem:
            return {"$class": value.type, "problem": value.problem, "size": len(value.content)}
        return {"$class": value.type, "fields": inner(value.fields)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: inner(each) for key, each in value.items()}
        return {"$map": [[inner(key), inner(each)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return [inner(each) for each in value]
    if isinstance(value, bytes | bytearray):
        if len(value) > BYTES_SHOWN and not all_bytes:
            return {"$bytes": None, "size": len(value)}
        return {"$bytes": base64.b64encode(value).decode(), "size": len(value)}
    if isinstance(value, Opaque):
        return {f"${value.type}": len(value.content)}
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat()
    return {"$class": type(value).__name__, "problem": "no value that the serializer gives"}


def masked(value: Any) -> str:
    """What stands in place of a value: its kind, and its size where it has one."""
    size = f" {len(value)}" if isinstance(value, str | bytes | bytearray) else ""
    return f"{MASK}{type(value).__name__}{size}"


def as_json(value: Any) -> str:
    """One object of `--json`: ASCII, so that nothing in it changes what a terminal shows."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def readable(value: Any, indent: int | None = 2) -> str:
    """The same for people: indented, in the letters it was written in. It is JSON, too."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def preview(value: Any, width: int, *, mask: bool = False) -> str:
    """A value in one line of at most `width` characters."""
    text = line(_short(value, width, 4, mask))
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def _short(value: Any, width: int, depth: int, mask: bool) -> str:
    if mask and not isinstance(value, Mapping | list | tuple | Instance | _DeltaSnapshot):
        return masked(value)
    if isinstance(value, str):
        return json.dumps(value[: width + 1], ensure_ascii=False) if depth < 4 else value[: width + 1]
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if isinstance(value, Instance) and value.problem:
        return f"<{value.type}: {value.problem}>"
    if depth <= 0:
        return "…"
    if isinstance(value, Instance):
        return f"{value.name}({_short(value.fields, width, depth - 1, mask)})"
    if isinstance(value, _DeltaSnapshot):
        return f"DeltaSnapshot({_short(value.value, width, depth - 1, mask)})"
    if isinstance(value, Mapping):
        pairs = (f"{_short(key, width, 3, False)}: {_short(each, width, depth - 1, mask)}" for key, each in value.items())
        return "{" + _joined(pairs, width) + "}"
    if isinstance(value, list | tuple):
        return "[" + _joined((_short(each, width, depth - 1, mask) for each in value), width) + "]"
    return repr(value)


def _joined(parts: Iterable[str], width: int) -> str:
    """The first of these, as many as there is room for."""
    found: list[str] = []
    for part in parts:
        if width <= 0:
            found.append("…")
            break
        found.append(part)
        width -= len(part)
    return ", ".join(found)


def counted(count: int, noun: str) -> str:
    """1 thread, 2 threads."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size(count: float) -> str:
    """Bytes in words: 1.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
